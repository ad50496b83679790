"""One MCP server: connected, listed, called, and connected again when it is lost.

run ── connect ── list the tools ── serve until lost ──┐
 ▲                                                     │ the reason is said, its calls end with it
 └───────────── pause, longer each time ◄──────────────┘
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

import httpx2
import mcp_types as types
import msgspec
from mcp import Client, MCPError
from mcp.client.session import IncomingMessage
from mcp.client.streamable_http import streamable_http_client

from shared.errors import ToolError
from shared.events import Event, Say
from worker.frames import McpServer
from worker.tools.context import ToolContext
from worker.tools.declaration import Tool, ToolOptions
from worker.tools.mcp.answer import may_repeat, result_text, tool_description, tool_name, tool_schema
from worker.tools.mcp.program import Program
from worker.tools.spec import ToolSpec
from worker.tools.toolbox import Toolbox

#: seconds for the first answers of a server; some are downloaded when they are started
CONNECT_S = 60.0
#: seconds between two looks at the tools of a server, which also show whether it still answers
LOOK_EVERY_S = 60.0
#: seconds such a look may take
LOOK_S = 10.0
#: seconds a call waits for a server that is being started again
CALL_WAIT_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 60.0
#: seconds a server must have lived to be started again as soon as at first
SOUND_S = 30.0
TOOL_LIMIT = 512
PAGE_LIMIT = 100
WHO = types.Implementation(name="gatehouse", version="1")


class McpConnection:
    """Keeps one server connected for the worker's life; ``tried`` is set after the first attempt, good or bad."""

    def __init__(self, server: McpServer, toolbox: Toolbox, say: Say) -> None:
        self._server = server
        self._toolbox = toolbox
        self._say = say
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._client: Client | None = None
        self._connected = asyncio.Event()
        self._look = asyncio.Event()
        self._calls: set[asyncio.Task[str]] = set()
        self._heard_at = self._loop.time()
        self._closing = False
        self.tried = asyncio.Event()

    def closing(self) -> None:
        """Connect no more: its task is cancelled next, and a server that is lost just then would hide that."""
        self._closing = True

    async def run(self) -> None:
        """Serve until cancelled."""
        pause_s = FIRST_PAUSE_S
        while True:
            program = Program(self._server, self._look.set) if self._server.command else None
            began = self._loop.time()
            try:
                await self._serve(program)
            except Exception as error:  # noqa: BLE001 - the boundary: whatever ends a connection, it is made again
                problem = _first_cause(error)
            self.tried.set()
            if self._closing:
                return
            if self._loop.time() - began > SOUND_S:
                pause_s = FIRST_PAUSE_S
            self._say(
                Event.MCP_SERVER_LOST,
                server=self._server.name,
                error=(program and program.end) or problem,
                output="\n".join(program.tail) if program else "",
                again_in_s=pause_s,
            )
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def call(self, tool: str, arguments: str) -> str:
        """Call a tool from a turn, and return its result. Raises ToolError.

        The turn only waits: what talks to the server is a task outside of it, so no turn is blamed for a server.
        """
        task = self._loop.create_task(self._call(tool, arguments), context=self._context.copy())
        self._calls.add(task)
        task.add_done_callback(self._called)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            self._look.set()  # given up or interrupted: perhaps because the server hangs
            raise
        return task.result()

    def _called(self, task: asyncio.Task[str]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()  # a caller that was interrupted does not look at it

    async def _call(self, tool: str, arguments: str) -> str:
        try:
            given = msgspec.json.decode(arguments.strip() or "{}", type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise ToolError(f"the arguments are not a JSON object: {error}") from None
        client = await self._answering()
        try:
            result = await client.call_tool(tool, given)
        except MCPError as error:
            if error.code != types.CONNECTION_CLOSED:
                raise ToolError(str(error)) from None
            self._look.set()
            raise ToolError(
                f"the MCP server {self._server.name} was lost during the call; it may or may not have happened"
            ) from None
        self._heard_at = self._loop.time()
        if result.is_error:
            raise ToolError(result_text(result))
        return result_text(result)

    async def _answering(self) -> Client:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CALL_WAIT_S):
                await self._connected.wait()
        if self._client is None:
            raise ToolError(f"the MCP server {self._server.name} is not running; it is started again in the background")
        return self._client

    async def _serve(self, program: Program | None) -> None:
        """Connect and keep the tool list until the server is lost, which raises the reason."""
        async with contextlib.AsyncExitStack() as stack:
            transport = program.streams() if program else _over_http(self._server)
            client = Client(transport, message_handler=self._heard, client_info=WHO, cache=None)
            async with asyncio.timeout(CONNECT_S):
                await stack.enter_async_context(client)
                tools = await self._list(client)
            self._client = client
            self._connected.set()
            stack.callback(self._disconnected)
            self._say(Event.MCP_SERVER_READY, server=self._server.name, tools=tools)
            self.tried.set()
            while True:
                await self._wait_for_look()
                await self._look_again(client)

    def _disconnected(self) -> None:
        self._client = None
        self._connected.clear()

    async def _wait_for_look(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY_S):
                await self._look.wait()
        self._look.clear()

    async def _look_again(self, client: Client) -> None:
        """List the tools again. Raises TimeoutError for a server that hangs.

        One that is idle has to answer soon; one that is busy with calls may be late, for as long as a call may take.
        """
        try:
            async with asyncio.timeout(LOOK_S):
                await self._list(client)
        except TimeoutError:
            silent_s = self._loop.time() - self._heard_at
            if not self._calls or silent_s > self._server.timeout_s:
                raise TimeoutError(f"no answer for {silent_s:.0f} s") from None

    async def _list(self, client: Client) -> int:
        """Bring the toolbox up to date, and return how many tools there are."""
        found: dict[str, Tool] = {}
        cursor: str | None = None
        for _ in range(PAGE_LIMIT):
            page = await client.list_tools(cursor=cursor)
            self._heard_at = self._loop.time()
            for tool in page.tools:
                entry = self._entry(tool)
                found.setdefault(entry.spec.name, entry)
            cursor = page.next_cursor
            if cursor is None or len(found) >= TOOL_LIMIT:
                break
        tools = tuple(found.values())[:TOOL_LIMIT]
        self._toolbox.lend(self._server.name, tools)
        return len(tools)

    def _entry(self, tool: types.Tool) -> Tool:
        name = tool_name(self._server.name, tool.name)
        options = ToolOptions(name, retry_safe=may_repeat(tool), timeout_s=self._server.timeout_s)
        run = functools.partial(self._run, tool.name)
        return Tool(ToolSpec(name, tool_description(tool), tool_schema(tool)), options, run)

    def _run(self, tool: str, arguments: str, _context: ToolContext) -> Coroutine[Any, Any, str]:
        return self.call(tool, arguments)

    async def _heard(self, message: IncomingMessage) -> None:
        """Take what the server says of its own accord."""
        if isinstance(message, types.ToolListChangedNotification):
            self._look.set()


@contextlib.asynccontextmanager
async def _over_http(server: McpServer) -> AsyncGenerator[Any, None]:
    """Connect to a server over HTTP, with its headers on every request."""
    timeout = httpx2.Timeout(30.0, read=server.timeout_s)
    async with (
        httpx2.AsyncClient(headers=server.headers, timeout=timeout) as http,
        streamable_http_client(server.url, http_client=http) as streams,
    ):
        yield streams


def _first_cause(error: BaseException) -> str:
    """Return what went wrong in words; groups of errors hide it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
