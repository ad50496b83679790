"""The process of the MCP servers that all workers of a machine share; it runs no turn.

Configure ─> Ready     Serve ─> the servers start ─> HostTools     HostCall ─> HostCallSaid … ─> HostCallEnded
Drain ─> the servers end ─> Drained     end of the channel ─> the whole process group ends
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterable
from typing import NoReturn

import uvloop

from shared.errors import FrameTooLarge, ToolError
from worker import os_processes
from worker.agent.child import DRAIN_WRITE_S, REPORT_S, end_group, end_process, warmed
from worker.agent.heartbeats import Heartbeats
from worker.agent.pool_channel import PoolChannel, PoolLogHandler
from worker.agent.todo import TodoStore
from worker.channel import Channel, open_channel
from worker.frames import (
    Configure,
    Drain,
    Drained,
    Forget,
    HostCall,
    HostCallDropped,
    HostCallEnded,
    HostCallSaid,
    HostTool,
    HostTools,
    Ready,
    Report,
    Serve,
    ToPool,
    ToWorker,
    WorkerConfig,
)
from worker.mcp_server import McpServer, not_running
from worker.shared_page import SharedPage
from worker.tools.context import ToolContext
from worker.tools.declaration import OUTPUT_LIMIT_BYTES, Tool
from worker.tools.mcp import McpServers
from worker.tools.results import clip, error_text, error_words

#: seconds between two frames that tell how far one call is
SAID_INTERVAL_S = 0.1
#: bytes of all images of one result
IMAGES_LIMIT_BYTES = 32 * 1024 * 1024


def run(sock: socket.socket, page: SharedPage) -> None:
    """Run the servers until the drain is done, which ends the process, or the channel closes, which ends its group."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    child = McpChild(page, loop)
    loop.run_until_complete(child.serve(sock))
    loop.run_forever()


class McpChild:
    """Owns the servers of this process, and the calls that workers make."""

    def __init__(self, page: SharedPage, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heartbeats = Heartbeats(page, loop)
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._said: dict[int, str] = {}
        self._shelf: HostShelf
        self._mcp: McpServers
        self._pool: PoolChannel

    async def serve(self, sock: socket.socket) -> None:
        """Open the channel; from here on frames and timers act."""
        channel: Channel[ToWorker, ToPool] = await open_channel(sock, ToWorker, self._on_frame, lambda _: end_group())
        self._pool = PoolChannel(channel)
        logging.getLogger().addHandler(PoolLogHandler(self._pool))
        self._heartbeats.beat()

    def _on_frame(self, frame: ToWorker) -> None:
        match frame:
            case Configure():
                self._configure(frame.config)
            case Serve():
                self._keep(self._loop.create_task(self._start()))
            case HostCall():
                self._calls[frame.number] = self._loop.create_task(self._call(frame))
            case HostCallDropped() if call := self._calls.get(frame.number):
                call.cancel()
            case Forget():
                self._mcp.forget(frame.session)
            case Drain():
                self._keep(self._loop.create_task(self._finish_drain()))

    def _configure(self, config: WorkerConfig) -> None:
        self._heartbeats.interval_s = config.beat_s
        self._pool.hide(config.secrets())
        self._shelf = HostShelf(config.mcp_servers, self._pool)
        self._mcp = McpServers(config.mcp_servers, self._shelf, self._pool.emit)
        self._report()
        self._pool.send(Ready(os.getpid(), warmed() is not None, ()))

    async def _start(self) -> None:
        await self._mcp.start()
        self._shelf.tell_all()

    async def _call(self, frame: HostCall) -> None:
        try:
            ended = await self._result(frame)
        except asyncio.CancelledError:
            return  # nobody waits for it
        finally:
            del self._calls[frame.number]
            self._said.pop(frame.number, None)
        try:
            self._pool.send(ended)
        except FrameTooLarge as error:
            self._pool.send(HostCallEnded(frame.number, str(error), failed=True))

    async def _result(self, frame: HostCall) -> HostCallEnded:
        await self._mcp.start()  # it may have been started for this call
        tool = self._shelf.tool(frame.server, frame.tool)
        if tool is None:
            return HostCallEnded(frame.number, not_running(frame.server), failed=True)
        context = ToolContext(
            frame.session, frame.message_id, frame.call_id, TodoStore(), lambda text: self._tell(frame.number, text)
        )
        try:
            text = clip(str(await tool.run(frame.arguments, context)), OUTPUT_LIMIT_BYTES)
        except ToolError as error:
            return HostCallEnded(frame.number, error_words(error), failed=True)
        except Exception as error:  # noqa: BLE001 - the boundary: whatever a server's answer leads to, its call ends
            return HostCallEnded(frame.number, error_text(error), failed=True)
        images, room = [], IMAGES_LIMIT_BYTES
        for _, data in context.attached:
            room -= len(data)
            if room >= 0:
                images.append(data)
        return HostCallEnded(frame.number, text, images=tuple(images))

    def _tell(self, number: int, text: str) -> None:
        """Tell how far a call is, of what comes in quick succession the last."""
        if number not in self._said:
            self._loop.call_later(SAID_INTERVAL_S, self._send_said, number)
        self._said[number] = text

    def _send_said(self, number: int) -> None:
        if (text := self._said.pop(number, None)) is not None and not self._pool.full:
            self._pool.send(HostCallSaid(number, text))

    async def _finish_drain(self) -> NoReturn:
        await self._mcp.close()
        self._pool.send(Drained())
        await self._pool.sent(DRAIN_WRITE_S)
        end_process(0)

    def _report(self) -> None:
        self._pool.send(Report(0, 0, 0, os_processes.rss_bytes(), 0, 0, 0, 0, self._mcp.status))
        self._loop.call_later(REPORT_S, self._report)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class HostShelf:
    """The tools of the servers, which the pool is told of whenever they change."""

    def __init__(self, servers: Iterable[McpServer], pool: PoolChannel) -> None:
        self._servers = {server.name: server for server in servers}
        self._pool = pool
        self._tools: dict[str, dict[str, Tool]] = {name: {} for name in self._servers}
        self._told_all = False

    def lend(self, owner: str, tools: Iterable[Tool]) -> list[str]:
        """Show the tools of a server; none of their names is taken here."""
        self._tools[owner] = {tool.spec.name: tool for tool in tools}
        if self._told_all or self._tools[owner]:
            self._tell(owner)
        return []

    def tell_all(self) -> None:
        """Tell of every server, also of one that offers nothing: it was tried."""
        self._told_all = True
        for server in self._tools:
            self._tell(server)

    def tool(self, server: str, name: str) -> Tool | None:
        """Return a tool of a server, None where it does not have it now."""
        return self._tools.get(server, {}).get(name)

    def _tell(self, server: str) -> None:
        lent = [(tool.spec, tool.options) for tool in self._tools[server].values()]
        tools = (
            HostTool(spec.name, spec.description, spec.parameters, options.retry_safe, options.approve)
            for spec, options in lent
        )
        self._pool.send(HostTools(server, tuple(tools)))
