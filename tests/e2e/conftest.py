"""Bots: real gateways over real HTTP, one a test or one a module."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.gateway_process import GatewayProcess
from loadtests.platform import RunningPlatform, running_platform
from loadtests.provider import RunningProvider, running_provider
from tests.e2e.bot import Bot

#: a model's key that no model in use needs
MODEL_KEY = "sk-of-a-model-of-this-test"
#: timeouts short enough to see a hang end
SHORT_LADDER = {
    "GATEHOUSE_TURN_TIMEOUT": "4",
    "GATEHOUSE_KILL_GRACE": "1",
    "GATEHOUSE_HEARTBEAT_TIMEOUT": "1",
    "GATEHOUSE_MAX_ATTEMPTS": "2",
}


@pytest.fixture
def platform() -> Iterator[RunningPlatform]:
    with running_platform() as running:
        yield running


@pytest.fixture
def provider() -> Iterator[RunningProvider]:
    with running_provider() as running:
        yield running


@contextlib.contextmanager
def started(
    directory: Path, platform: RunningPlatform, provider: RunningProvider | None = None, **settings: str
) -> Iterator[Bot]:
    environment = platform.environment() | settings
    if provider is not None:
        environment |= {"GATEHOUSE_MODEL": "openai:scripted", "OPENAI_BASE_URL": provider.url + "/v1"}
    with GatewayProcess(directory, environment) as gateway, contextlib.closing(Bot(gateway, platform, provider)) as bot:
        yield bot


@pytest.fixture
def bot(tmp_path: Path, platform: RunningPlatform) -> Iterator[Bot]:
    """A gateway with the offline model."""
    with started(tmp_path, platform) as running:
        yield running


@pytest.fixture
def model_bot(tmp_path: Path, platform: RunningPlatform, provider: RunningProvider) -> Iterator[Bot]:
    """A gateway whose model is scripted over HTTP, with the tools that hang."""
    with started(tmp_path, platform, provider, GATEHOUSE_TOOLS="tests.e2e.hostile_tools") as running:
        yield running


@pytest.fixture
def hanging_bot(tmp_path: Path, platform: RunningPlatform, provider: RunningProvider) -> Iterator[Bot]:
    """The same with one worker and a short ladder, so that culprit and neighbours share a process."""
    settings = SHORT_LADDER | {"GATEHOUSE_TOOLS": "tests.e2e.hostile_tools", "GATEHOUSE_WORKERS": "1"}
    with started(tmp_path, platform, provider, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def hostile_bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    """One gateway for all hostile requests of a module: none of them may harm it."""
    directory = tmp_path_factory.mktemp("hostile")
    with running_platform() as platform, started(directory, platform, OPENAI_API_KEY=MODEL_KEY) as running:
        yield running
