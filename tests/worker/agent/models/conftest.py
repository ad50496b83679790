"""Fixtures of the model tests: a scripted provider over real HTTP, and the real SDKs against it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from types import CoroutineType

import httpx2
import pytest

from loadtests.provider import RunningProvider, running_provider
from worker.agent.context import transcript
from worker.agent.models import open_link
from worker.agent.models.chain import Link
from worker.agent.models.port import ModelRequest
from worker.frames import ModelSpec
from worker.tools.spec import ToolSpec

KEY = "sk-secret-of-the-tests"
ROLL = ToolSpec("roll", "Roll one die.", {"type": "object", "properties": {"sides": {"type": "integer"}}})


def asking(text: str, *, tools: tuple[ToolSpec, ...] = (ROLL,), system: str = "Be brief.") -> ModelRequest:
    """Return a request with one user message."""
    return ModelRequest(system, [transcript.user(text)], tools, "s")


def spec_for(provider_name: str, provider: RunningProvider) -> ModelSpec:
    """Return the spec of the scripted provider's model in one dialect."""
    url = provider.url if provider_name == "anthropic" else provider.openai_url
    return ModelSpec(provider_name, "scripted", KEY, url)


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Run on uvloop, as a worker does."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    """Run a scripted provider; every test leaves it idle."""
    with running_provider() as running:
        yield running


@pytest.fixture(scope="session")
def tls() -> ssl.SSLContext:
    """Make the context that every client here shares, as a worker's do: making one takes longer than a test."""
    return httpx2.create_ssl_context()


@pytest.fixture(params=["anthropic", "openai"])
async def link(request: pytest.FixtureRequest, provider: RunningProvider, tls: ssl.SSLContext) -> AsyncIterator[Link]:
    """Give a link of each SDK; when its test ends no call, connection or task of it may be left."""
    link = open_link(spec_for(request.param, provider), tls)
    yield link
    try:
        await provider.until(lambda p: p.running == 0)
        assert own_tasks() == []
    finally:
        await link.close()
    await provider.until(lambda p: p.open_connections == 0)


def own_tasks() -> list[str]:
    """Return the tasks that run, those of the test runner aside."""
    coroutines = [task.get_coro() for task in asyncio.all_tasks()]
    files = [coroutine.cr_code.co_filename for coroutine in coroutines if isinstance(coroutine, CoroutineType)]
    return [file for file in files if "/anyio/" not in file]


@pytest.fixture
def unused_url() -> Callable[[], str]:
    """Give a url of a loopback port that nothing listens on."""

    def url() -> str:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return f"http://127.0.0.1:{server.getsockname()[1]}"

    return url
