"""Runs of a server that are one session's own: started when first used, ended when idle.

The first run is started to list the tools, and belongs to the session that uses the server first.
"""

from __future__ import annotations

import asyncio
from typing import Any

from shared.errors import ToolError
from shared.events import Emit
from worker.mcp_server import McpServer, McpStatus
from worker.tools.context import ToolContext
from worker.tools.mcp.connection import McpConnection
from worker.tools.mcp.listing import Offer, ServerTools, Shelf

#: sessions of one worker that have a run of one server at the same time
RUNS_LIMIT = 32
#: seconds between two looks for idle runs at the most
LOOK_EVERY_S = 10.0


class _Run:
    """One connection, its task, and when a call of it began or ended last."""

    __slots__ = ("connection", "task", "used_at")

    def __init__(self, server: McpServer, tools: ServerTools, emit: Emit) -> None:
        self.connection = McpConnection(server, tools, emit)
        self.task = asyncio.create_task(self.connection.run(), name=f"mcp {server.name}")
        self.used_at = asyncio.get_running_loop().time()


class SessionRuns:
    """Keeps a connection for each session that uses the server, at most RUNS_LIMIT of them."""

    def __init__(self, server: McpServer, shelf: Shelf, emit: Emit) -> None:
        self._server = server
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._tools = ServerTools(server, shelf, emit, self._call)
        self._runs: dict[str, _Run] = {}
        self._ending: set[asyncio.Task[None]] = set()
        first = _Run(server, self._tools, emit)
        self._unused: _Run | None = first
        self._last_status = first.connection.status
        self.tried = first.connection.tried
        self._reaper = asyncio.create_task(self._end_idle(), name=f"mcp {server.name} idle")

    @property
    def status(self) -> McpStatus:
        """How the run is that was used last; without one, how the last one was."""
        if runs := self._all():
            self._last_status = max(runs, key=lambda run: run.used_at).connection.status
        return self._last_status

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """Everything that runs."""
        return [self._reaper, *self._ending, *(run.task for run in self._all())]

    def forget(self, session: str) -> None:
        """End the run of a session that is gone."""
        if run := self._runs.pop(session, None):
            self._end(run)

    def stop(self) -> None:
        """Begin to disconnect."""
        self._reaper.cancel()
        for run in self._all():
            run.connection.closing()
            run.task.cancel()

    async def _call(self, offer: Offer, arguments: dict[str, Any], context: ToolContext) -> str:
        run = self._of(context.session)
        run.used_at = self._loop.time()
        try:
            return await run.connection.call(offer, arguments, context)
        finally:
            run.used_at = self._loop.time()

    def _of(self, session: str) -> _Run:
        if session in self._runs:
            return self._runs[session]
        if len(self._runs) >= RUNS_LIMIT:
            self._make_room()
        run, self._unused = self._unused or _Run(self._server, self._tools, self._emit), None
        self._runs[session] = run
        return run

    def _make_room(self) -> None:
        """End the run that was used longest ago. Raises ToolError where all are busy."""
        idle = [session for session, run in self._runs.items() if not run.connection.busy]
        if not idle:
            raise ToolError(f"{RUNS_LIMIT} sessions use the MCP server {self._server.name} now; try again later")
        self.forget(min(idle, key=lambda session: self._runs[session].used_at))

    async def _end_idle(self) -> None:
        while True:
            await asyncio.sleep(min(self._server.idle_s / 4, LOOK_EVERY_S))
            before = self._loop.time() - self._server.idle_s
            if self._unused is not None and self.tried.is_set() and self._unused.used_at < before:
                self._end(self._unused)
                self._unused = None
            for session, run in list(self._runs.items()):
                if run.used_at < before and not run.connection.busy:
                    self.forget(session)

    def _end(self, run: _Run) -> None:
        self._last_status = run.connection.status
        run.connection.closing()
        run.task.cancel()
        self._ending.add(run.task)
        run.task.add_done_callback(self._ending.discard)

    def _all(self) -> list[_Run]:
        return [*([self._unused] if self._unused else []), *self._runs.values()]
