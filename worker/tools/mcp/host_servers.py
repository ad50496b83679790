"""The servers that all workers of a machine share, as one worker has them: tools whose calls go over the channel.

HostTools ─> the toolbox          call ─> HostCall ─> pool ─> the process of the servers ─> HostCallEnded ─> the result
"""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from shared.errors import ToolError
from shared.events import Emit, Event
from worker.frames import (
    HostCall,
    HostCallDropped,
    HostCallEnded,
    HostCallSaid,
    HostTool,
    HostTools,
    OfHostServers,
    ToHostServers,
)
from worker.mcp_server import McpServer
from worker.tools.context import ToolContext
from worker.tools.declaration import Tool, ToolOptions
from worker.tools.spec import ToolSpec

if TYPE_CHECKING:
    from worker.tools.mcp.listing import Shelf

#: sends a frame to the pool, which passes it on
SendToHostServers = Callable[[ToHostServers], None]


class _Running:
    """A call that has no result yet."""

    def __init__(self, context: ToolContext) -> None:
        self.context = context
        self.result: asyncio.Future[HostCallEnded] = asyncio.get_running_loop().create_future()


class HostServersClient:
    """Shows what these servers offer on a shelf, and calls them; used on one loop."""

    def __init__(self, servers: Sequence[McpServer], shelf: Shelf, emit: Emit, send: SendToHostServers) -> None:
        self._servers = {server.name: server for server in servers}
        self._shelf = shelf
        self._emit = emit
        self._send = send
        self._numbers = itertools.count(1)
        self._running: dict[int, _Running] = {}
        self._untried = set(self._servers)
        self._tried = asyncio.Event()

    @property
    def all_tried(self) -> bool:
        """Whether every server was tried once, perhaps before this worker was there."""
        return not self._untried

    async def tried(self) -> None:
        """Wait for that."""
        if self._untried:
            await self._tried.wait()

    def take(self, frame: OfHostServers) -> None:
        """Take what the servers say; what comes for a call that nobody waits for any more is dropped."""
        match frame:
            case HostTools(server=name) if server := self._servers.get(name):
                self._show(server, frame.tools)
            case HostCallSaid(number=number) if (call := self._running.get(number)) and not call.context.stopped:
                call.context.say(frame.text)
            case HostCallEnded(number=number) if (call := self._running.get(number)) and not call.result.done():
                call.result.set_result(frame)

    def _show(self, server: McpServer, tools: Sequence[HostTool]) -> None:
        for name in self._shelf.lend(server.name, [self._tool(server, tool) for tool in tools]):
            reason = "another tool has its name"
            self._emit(Event.MCP_TOOL_LEFT_OUT, server=server.name, tool=name, reason=reason)
        self._untried.discard(server.name)
        if not self._untried:
            self._tried.set()

    def _tool(self, server: McpServer, tool: HostTool) -> Tool:
        options = ToolOptions(
            tool.name,
            retry_safe=tool.retry_safe,
            timeout_s=server.timeout_s,
            approve=tool.approve,
            approve_within_s=server.approve_within_s,
        )
        spec = ToolSpec(tool.name, tool.description, tool.parameters)
        return Tool(spec, options, functools.partial(self._run, server.name, tool.name))

    async def _run(self, server: str, tool: str, arguments: str, context: ToolContext) -> str:
        number = next(self._numbers)
        call = self._running[number] = _Running(context)
        try:
            names = (context.session, context.message_id, context.call_id)
            self._send(HostCall(number, server, tool, arguments, *names))
            ended = await call.result
        except asyncio.CancelledError:
            self._send(HostCallDropped(number))
            raise
        finally:
            del self._running[number]
        if ended.failed:
            raise ToolError(ended.text)
        for image in ended.images:
            context.attach(image)
        return ended.text
