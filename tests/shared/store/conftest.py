"""Stores to test: one of every engine there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.store import Store
from tests.shared.store.scratch import ENGINES, Scratch


@pytest.fixture(params=ENGINES)
async def scratch(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scratch]:
    """An open, empty database of each engine."""
    scratch = Scratch(ENGINES[request.param], tmp_path)
    await scratch.open()
    yield scratch
    await scratch.close()


@pytest.fixture
def store(scratch: Scratch) -> Store:
    """The store of the scratch database, for tests that do not reopen it."""
    return scratch.store
