"""One real gateway, offline and open on loopback, for the tests that only ask it; an edge of its own for each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

from loadtests.gateway_process import GatewayProcess
from tests.gateway.edge import LET_ALL_IN, Edge, running_edge


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    data_dir: Path = tmp_path_factory.mktemp("running")
    with GatewayProcess(data_dir, {"GATEHOUSE_WORKERS": "1", "GATEHOUSE_SPARES": "1"}) as gateway:
        yield gateway


@pytest.fixture
def web(running: GatewayProcess) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=running.url, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    """An edge that lets everybody in."""
    async with running_edge(tmp_path, LET_ALL_IN) as edge:
        yield edge
