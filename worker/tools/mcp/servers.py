"""The MCP servers of one worker: started together in the background, ended together."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shared.events import Say
from worker.frames import McpServer
from worker.tools.toolbox import Toolbox

if TYPE_CHECKING:
    from worker.tools.mcp.connection import McpConnection

#: seconds a worker waits for its servers before it takes turns; the tools of a slower one join when it is there
READY_WAIT_S = 5.0
#: seconds the servers get to end in peace
CLOSE_WAIT_S = 5.0
#: what is loaded in a thread; the mcp package loads the last one when the first result comes, on the loop
MODULES = ("worker.tools.mcp.connection", "jsonschema.validators")


class McpServers:
    """Keeps every configured server connected, and its tools in the toolbox; used on one loop, outside of any turn."""

    def __init__(self, servers: Sequence[McpServer], toolbox: Toolbox, say: Say) -> None:
        self._servers = servers
        self._toolbox = toolbox
        self._say = say
        self._connections: list[McpConnection] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, within_s: float = READY_WAIT_S) -> None:
        """Begin to connect, and wait until every server was tried once, or until the time is over; never raises."""
        if not self._servers:
            return
        for server in self._servers:
            self._toolbox.lend(server.name, ())  # the order of the file is the order of the tools
        connecting = asyncio.create_task(self._connect(), name="mcp")
        self._tasks.append(connecting)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await asyncio.shield(connecting)
                await asyncio.gather(*(connection.tried.wait() for connection in self._connections))

    def stop(self) -> None:
        """Begin to disconnect."""
        for connection in self._connections:
            connection.closing()
        for task in self._tasks:
            task.cancel()

    async def close(self, within_s: float = CLOSE_WAIT_S) -> None:
        """Disconnect, and end the programs that were started."""
        self.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)

    async def _connect(self) -> None:
        for module in MODULES:
            await load(module)
        from worker.tools.mcp.connection import McpConnection

        for server in self._servers:
            connection = McpConnection(server, self._toolbox, self._say)
            self._connections.append(connection)
            self._tasks.append(asyncio.create_task(connection.run(), name=f"mcp {server.name}"))


async def load(module: str) -> None:
    """Import a module in a thread: it takes long enough to stop the worker's beat. Raises what the import raises."""
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
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 - handed to whoever awaits the module
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, failed)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), name="import", daemon=True).start()
    await loaded
