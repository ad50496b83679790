"""The MCP servers of one worker: started together in the background, ended together."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import importlib
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from shared.events import Emit
from worker.frames import OfHostServers
from worker.mcp_server import McpServer, McpStatus, RunScope
from worker.tools.mcp.host_servers import HostServersClient, SendToHostServers

if TYPE_CHECKING:
    from worker.tools.mcp.listing import Shelf
    from worker.tools.mcp.session_runs import SessionRuns
    from worker.tools.mcp.shared_run import SharedRun

#: seconds a worker waits for its servers before it takes turns; the tools of a slower one join when it is there
READY_WAIT_S = 5.0
#: seconds the servers get to end in peace
CLOSE_WAIT_S = 5.0
#: what is loaded in a thread; the mcp package loads the last two when they are first used, on the loop
MODULES = (
    "worker.tools.mcp.shared_run",
    "worker.tools.mcp.session_runs",
    "jsonschema.validators",
    "anyio._backends._asyncio",
)


class McpServers:
    """Keeps every configured server connected, and its tools on a shelf, the toolbox; used on one loop.

    ``send`` leads to the servers that all workers of the machine share; without it those are this process's own.
    """

    def __init__(
        self, servers: Sequence[McpServer], shelf: Shelf, emit: Emit, send: SendToHostServers | None = None
    ) -> None:
        for server in servers:
            shelf.lend(server.name, ())  # the order of the file is the order of the tools
        self._all = servers
        self._servers = [server for server in servers if send is None or server.scope is not RunScope.HOST]
        self._shelf = shelf
        self._emit = emit
        shared = [server for server in servers if server not in self._servers]
        self._host = HostServersClient(shared, shelf, emit, send) if send is not None and shared else None
        self._runs: list[SharedRun | SessionRuns] = []
        self._connecting: asyncio.Task[None] | None = None
        self._patient_until = 0.0

    @property
    def status(self) -> tuple[McpStatus, ...]:
        """How each server of this process is, in the order of the configuration."""
        if not self._runs:
            return tuple(McpStatus(server.name, up=False, tools=0) for server in self._servers)
        return tuple(run.status for run in self._runs)

    async def start(self, within_s: float = READY_WAIT_S) -> None:
        """Begin to connect, unless that was begun, and wait until every server was tried once.

        Not longer than ``within_s`` seconds after the beginning; never raises.
        """
        if not self._all:
            return
        loop = asyncio.get_running_loop()
        if self._connecting is None:
            self._patient_until = loop.time() + within_s
            self._connecting = asyncio.create_task(self._connect(), name="mcp")
        if loop.time() < self._patient_until and not self._all_tried:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._patient_until):
                    await asyncio.shield(self._connecting)
                    await asyncio.gather(*(run.tried.wait() for run in self._runs))
                    if self._host is not None:
                        await self._host.tried()

    def take(self, frame: OfHostServers) -> None:
        """Take what the servers say that all workers of the machine share."""
        if self._host is not None:
            self._host.take(frame)

    @property
    def _all_tried(self) -> bool:
        tried = len(self._runs) == len(self._servers) and all(run.tried.is_set() for run in self._runs)
        return tried and (self._host is None or self._host.all_tried)

    def forget(self, session: str) -> None:
        """End what runs for a session alone: it is gone."""
        for run in self._runs:
            run.forget(session)

    def stop(self) -> None:
        """Begin to disconnect."""
        for run in self._runs:
            run.stop()
        if self._connecting is not None:
            self._connecting.cancel()

    async def close(self, within_s: float = CLOSE_WAIT_S) -> None:
        """Disconnect, and end the programs that were started."""
        self.stop()
        tasks = [*([self._connecting] if self._connecting else []), *(task for run in self._runs for task in run.tasks)]
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)

    async def _connect(self) -> None:
        if not self._servers:
            return
        for module in MODULES:
            await beside_loop(functools.partial(importlib.import_module, module))
        from worker.tools.mcp.session_runs import SessionRuns
        from worker.tools.mcp.shared_run import SharedRun
        from worker.tools.mcp.tls import tls_context

        if any(server.url for server in self._servers):
            await beside_loop(tls_context)
        for server in self._servers:
            run = SessionRuns if server.scope is RunScope.SESSION else SharedRun
            self._runs.append(run(server, self._shelf, self._emit))
            await asyncio.sleep(0)  # each has its beginning in a round of its own, so that the worker's beat goes on


async def beside_loop(work: Callable[[], object]) -> None:
    """Do work in a thread that takes long enough to stop the worker's beat. Raises what it raises."""
    loop = asyncio.get_running_loop()
    loaded: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if loaded.done():
            return
        if error is None:
            loaded.set_result(None)
        else:
            loaded.set_exception(error)

    def run() -> None:
        failed: BaseException | None = None
        try:
            work()
        except Exception as error:  # noqa: BLE001 - handed to whoever awaits it
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, failed)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), name="beside the loop", daemon=True).start()
    await loaded
