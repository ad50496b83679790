"""MCP servers for tests, and a toolbox that they lend their tools to."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from loadtests.gateway_process import descendants
from shared.events import Event, Field
from tests.worker.waiting import until
from worker.agent.todo import TodoStore
from worker.frames import McpServer
from worker.tools import ToolContext
from worker.tools.mcp import McpServers
from worker.tools.spec import ToolCall
from worker.tools.toolbox import Toolbox

REAL, BARE, ODD = (str(Path(__file__).with_name(name)) for name in ("server.py", "bare_server.py", "odd_server.py"))


class Worker:
    """What a worker has of MCP: a toolbox, the servers, and the events they said."""

    def __init__(self, *servers: McpServer) -> None:
        self.events: list[tuple[Event, dict[str, Field]]] = []
        self.toolbox = Toolbox((), self._say)
        self.servers = McpServers(servers, self.toolbox, self._say)
        self.progress: list[str] = []
        self._ids = itertools.count(1)

    async def call(self, name: str, arguments: str = "{}", session: str = "a:b:c") -> str:
        """Call a tool as a turn does."""
        call = ToolCall(f"call_{next(self._ids)}", name, arguments)
        context = ToolContext(session, "msg_1", call.id, TodoStore(), self.progress.append)
        self.last_context = context
        return await self.toolbox.call(call, context)

    def said(self, event: Event) -> list[dict[str, Field]]:
        return [fields for said, fields in self.events if said is event]

    def _say(self, event: Event, **fields: Field) -> None:
        self.events.append((event, fields))


@contextlib.asynccontextmanager
async def worker(*servers: McpServer, within_s: float = 60.0) -> AsyncIterator[Worker]:
    """Start the servers; they are gone afterwards."""
    running = Worker(*servers)
    await running.servers.start(within_s)
    try:
        yield running
    finally:
        await running.servers.close()


@contextlib.asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Fail where a task or a program outlives the block.

    Not for a fixture: the task that drives its end is not the one that drove its beginning.
    """
    tasks, programs = asyncio.all_tasks(), set(descendants(os.getpid()))
    yield
    assert not asyncio.all_tasks() - tasks
    assert not set(descendants(os.getpid())) - programs


def real(name: str, *options: str) -> McpServer:
    """Return a server over stdio that was made with the mcp package."""
    return McpServer(name, sys.executable, (REAL, *options))


def bare(name: str, *options: str, timeout_s: float = 30.0, **env: str) -> McpServer:
    """Return a server over stdio that is up at once."""
    return McpServer(name, sys.executable, ("-S", BARE, *options), env=env, timeout_s=timeout_s)


def odd(name: str, **options: Any) -> McpServer:
    """Return a server that lists and answers what it should not."""
    return McpServer(name, sys.executable, ("-S", ODD), **options)


def over_http(name: str, port: int, timeout_s: float = 30.0) -> McpServer:
    """Return a server over HTTP."""
    return McpServer(name, url=f"http://127.0.0.1:{port}/mcp", headers={"X-Who": "a test"}, timeout_s=timeout_s)


def over_sse(name: str, port: int) -> McpServer:
    """Return a server of the older transport."""
    return McpServer(name, url=f"http://127.0.0.1:{port}/sse", sse=True, headers={"X-Who": "a test"}, timeout_s=30.0)


@contextlib.contextmanager
def http_process(program: str, port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server over HTTP, REAL or BARE, in a process of its own for as long as it is used."""
    command = [sys.executable, program, "--port", str(port), *options]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


async def listening(port: int) -> None:
    """Wait until something listens there."""

    def listens() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    await until(listens, 60)


def gone(pid: int) -> bool:
    """Tell whether a process has ended and was reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
