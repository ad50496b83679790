"""One real gateway, offline and open on loopback, for the tests that only ask it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from loadtests.gateway_process import GatewayProcess


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    data_dir: Path = tmp_path_factory.mktemp("running")
    with GatewayProcess(data_dir, {"GATEHOUSE_WORKERS": "1", "GATEHOUSE_SPARES": "1"}) as gateway:
        yield gateway


@pytest.fixture
def web(running: GatewayProcess) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=running.url, timeout=30, trust_env=False) as client:
        yield client
