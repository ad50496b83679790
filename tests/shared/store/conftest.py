"""Stores to test: one of every engine there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.store import Store
from tests.shared.store.bench import ENGINES, Bench


@pytest.fixture(params=ENGINES)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """An open, empty database of each engine."""
    bench = Bench(ENGINES[request.param], tmp_path)
    await bench.open()
    yield bench
    await bench.close()


@pytest.fixture
def store(bench: Bench) -> Store:
    """The store of the bench, for tests that do not reopen it."""
    return bench.store
