"""One MCP server: connected, listed, called, and connected again when it is lost.

run ── connect ── list the tools ── serve until lost ──┐
 ▲                                                     │ the reason is said, its calls end with it
 └───────────── pause, longer each time ◄──────────────┘
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx2
import mcp_types as types
from mcp import Client, MCPError
from mcp.client.session import IncomingMessage
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from shared.errors import ToolError
from shared.events import Emit, Event
from worker.mcp_server import McpServer, McpStatus, lost, not_running
from worker.tools.context import ToolContext
from worker.tools.mcp.listing import Offer, ServerTools
from worker.tools.mcp.program import Program
from worker.tools.mcp.result import mismatch, result_text
from worker.tools.mcp.tls import tls_context
from worker.tools.mcp.wire import OURS, MendedStream
from worker.tools.results import error_text

#: seconds for the first answers of a server; some are downloaded when they are started
CONNECT_S = 60.0
#: seconds between two looks at the tools of a server, which also show whether it still answers
LOOK_EVERY_S = 60.0
#: seconds between two looks that a server asks for
LOOK_GAP_S = 1.0
#: seconds such a look may take
LOOK_S = 10.0
#: seconds a call waits for a server that is being started again
CALL_WAIT_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 60.0
#: seconds a server must have lived to be started again as soon as at first
SOUND_S = 30.0
PAGE_LIMIT = 100
#: bytes of one message; pictures of a page are some megabytes in base64
MESSAGE_LIMIT_BYTES = 32 * 1024 * 1024
#: seconds a session must have lasted for the next one to be opened at once
RENEW_AT_ONCE_S = 1.0
#: characters of a progress message that are shown
PROGRESS_CHARS = 500
#: what an operator can do about a refusal
REFUSED = {
    401: ": it wants a token; put one into headers, such as Authorization (OAuth is not served)",
    403: ": the token in headers may not use it",
    404: ": there is no MCP server at this url",
    405: ': this is no address of streamable HTTP; one of the older transport needs "type": "sse"',
}
WHO = types.Implementation(name="gatehouse", version="1")


class SessionEnded(Exception):
    """Raised when a server over HTTP does not know our session any more: a new one is opened at once."""


class McpConnection:
    """Keeps one server connected until it is closed; ``tried`` is set after the first attempt, good or bad.

    What it lists is shown through ``tools``.
    """

    def __init__(self, server: McpServer, tools: ServerTools, emit: Emit) -> None:
        self._server = server
        self._tools = tools
        self._emit = emit
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._client: Client | None = None
        self._connected = asyncio.Event()
        self._look = asyncio.Event()
        self._calls: set[asyncio.Task[str]] = set()
        self._heard_at = self._loop.time()
        self._closing = False
        self._listed_at = -LOOK_GAP_S
        self._look_is_due = False
        self._session_ended = False
        self._listed = 0
        self._refusal = ""
        self._problem = ""
        self.tried = asyncio.Event()

    @property
    def status(self) -> McpStatus:
        """How the server is."""
        return McpStatus(self._server.name, self._client is not None, self._listed, self._problem)

    @property
    def busy(self) -> bool:
        """Whether a call runs."""
        return bool(self._calls)

    def closing(self) -> None:
        """Connect no more: its task is cancelled next, and a server that is lost just then would hide that."""
        self._closing = True

    async def run(self) -> None:
        """Serve until cancelled."""
        pause_s = FIRST_PAUSE_S
        while True:
            program = Program(self._server, self._look.set) if self._server.command else None
            began = self._loop.time()
            self._refusal = ""
            try:
                await self._serve(program)
            except Exception as error:  # noqa: BLE001 - the boundary: whatever ends a connection, it is made again
                cause = _first_cause(error)
            self.tried.set()
            if self._closing:
                return
            lasted_s = self._loop.time() - began
            if lasted_s > SOUND_S:
                pause_s = FIRST_PAUSE_S
            at_once = isinstance(cause, SessionEnded) and lasted_s > RENEW_AT_ONCE_S
            refusal = "" if isinstance(cause, SessionEnded) else self._refusal
            self._problem = (program and program.end) or refusal or error_text(cause)
            self._emit(
                Event.MCP_SERVER_LOST,
                server=self._server.name,
                error=self._problem,
                output="\n".join(program.tail) if program else "",
                again_in_s=0.0 if at_once else pause_s,
            )
            if not at_once:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def call(self, offer: Offer, arguments: dict[str, Any], context: ToolContext) -> str:
        """Call a tool from a turn, and return its result. Raises ToolError.

        The turn only waits: what talks to the server is a task outside of it, so no turn is blamed for a server.
        """
        task = self._loop.create_task(self._call(offer, arguments, context), context=self._context.copy())
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

    async def _call(self, offer: Offer, arguments: dict[str, Any], context: ToolContext) -> str:
        try:
            result = await self._ask(offer, arguments, context)
        except SessionEnded:  # the server refused the call with the session, so it has not happened
            result = await self._ask(offer, arguments, context)
        self._heard_at = self._loop.time()
        text = result_text(result, None if result.is_error else context)
        if result.is_error:
            raise ToolError(text)
        if problem := mismatch(result, offer.output):
            self._emit(
                Event.TOOL_WARNING, tool=offer.shown_as, warning=f"its result is not what it declares: {problem}"
            )
            return f"{text}\n[This result is not what the tool declares: {problem}]"
        return text

    async def _ask(self, offer: Offer, arguments: dict[str, Any], context: ToolContext) -> types.CallToolResult:
        async def say(progress: float, total: float | None, message: str | None) -> None:
            if not context.stopped:
                context.say((message or (f"{progress:g} of {total:g}" if total else f"{progress:g}"))[:PROGRESS_CHARS])

        client = await self._answering()
        try:
            return await client.call_tool(offer.name, arguments, progress_callback=say)
        except MCPError as error:
            if self._server.url and _says_session_ended(error) and not self._session_ended:
                self._end_session(client)
                raise SessionEnded("the server does not know it any more") from None
            if error.code != types.CONNECTION_CLOSED:
                raise ToolError(str(error)) from None
            self._look.set()
            raise ToolError(lost(self._server.name)) from None

    def _end_session(self, client: Client) -> None:
        """Have the server connected anew; what comes meanwhile waits for that."""
        if self._client is client:
            self._session_ended = True
            self._disconnected()
            self._look.set()

    async def _answering(self) -> Client:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CALL_WAIT_S):
                await self._connected.wait()
        if self._client is None:
            raise ToolError(not_running(self._server.name))
        return self._client

    async def _serve(self, program: Program | None) -> None:
        """Connect and keep the tool list until the server is lost, which raises the reason."""
        async with contextlib.AsyncExitStack() as stack:
            if self._server.sse:
                transport = _over_sse(self._server, self._answered, self._look.set)
            else:
                transport = program.streams() if program else _over_http(self._server, self._answered)
            client = Client(transport, message_handler=self._heard, client_info=WHO, cache=None)
            async with asyncio.timeout(CONNECT_S):
                await stack.enter_async_context(client)
                tools = await self._list(client)
            self._session_ended = False
            self._client, self._problem = client, ""
            self._connected.set()
            stack.callback(self._disconnected)
            self._emit(Event.MCP_SERVER_READY, server=self._server.name, tools=tools)
            self.tried.set()
            while True:
                await self._wait_for_look()
                if self._session_ended:
                    raise SessionEnded("the server does not know it any more")
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
        """List the tools again. Raises TimeoutError for a server that hangs, and SessionEnded.

        One that is idle has to answer soon; one that is busy with calls may be late, for as long as a call may take.
        """
        try:
            async with asyncio.timeout(LOOK_S):
                await self._list(client)
        except MCPError as error:
            if self._server.url and _says_session_ended(error):
                raise SessionEnded("the server does not know it any more") from None
            raise
        except TimeoutError:
            silent_s = self._loop.time() - self._heard_at
            if not self._calls or silent_s > self._server.timeout_s:
                raise TimeoutError(f"no answer for {silent_s:.0f} s") from None

    async def _list(self, client: Client) -> int:
        """Bring the shelf up to date, and return how many tools there are."""
        found: list[types.Tool] = []
        nameless: dict[str, str] = {}
        cursor: str | None = None
        cursors: set[str | None] = set()
        while cursor not in cursors and len(cursors) < PAGE_LIMIT:
            cursors.add(cursor)
            page = await client.list_tools(cursor=cursor)
            self._heard_at = self._loop.time()
            known = {tool.name for tool in found}
            found += [tool for tool in page.tools if tool.name not in known]  # a page may come a second time
            nameless |= (page.meta or {}).get(OURS, {}).get("left_out", {})
            if page.next_cursor is None:
                break
            cursor = page.next_cursor
        self._listed_at = self._loop.time()
        self._listed = self._tools.show(found, nameless)
        return self._listed

    async def _answered(self, response: httpx2.Response) -> None:
        """Note why a server lets nobody in, which the package does not tell; one that answers now refuses nothing."""
        if response.status_code < 400:
            self._refusal = ""
        elif self._server.sse or response.request.method == "POST":
            why = REFUSED.get(response.status_code, "")
            self._refusal = f"HTTP {response.status_code} {response.reason_phrase}{why}"

    async def _heard(self, message: IncomingMessage) -> None:
        """Take what the server says of its own accord."""
        if isinstance(message, types.ToolListChangedNotification) and not self._look_is_due:
            # some tell it without end; one look follows the last, and the next comes a while later
            self._look_is_due = True
            self._loop.call_at(max(self._loop.time(), self._listed_at + LOOK_GAP_S), self._look_now)

    def _look_now(self) -> None:
        self._look_is_due = False
        self._look.set()


@contextlib.asynccontextmanager
async def _over_http(
    server: McpServer, on_response: Callable[[httpx2.Response], Awaitable[None]]
) -> AsyncGenerator[Any, None]:
    """Connect to a server over HTTP, with its headers on every request."""
    timeout = httpx2.Timeout(30.0, read=server.timeout_s)
    async with (
        httpx2.AsyncClient(
            headers=server.headers, timeout=timeout, verify=tls_context(), event_hooks={"response": [on_response]}
        ) as http,
        streamable_http_client(server.url, http_client=http, max_sse_event_size=MESSAGE_LIMIT_BYTES) as (
            heard,
            told,
            *_,
        ),
    ):
        yield MendedStream(heard), told


@contextlib.asynccontextmanager
async def _over_sse(
    server: McpServer, on_response: Callable[[httpx2.Response], Awaitable[None]], on_end: Callable[[], None]
) -> AsyncGenerator[Any, None]:
    """Connect to a server of the older transport, with its headers on every request; its events may end at any time."""

    def client(
        headers: dict[str, str] | None = None, timeout: httpx2.Timeout | None = None, auth: httpx2.Auth | None = None
    ) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            headers=headers, timeout=timeout, auth=auth, verify=tls_context(), event_hooks={"response": [on_response]}
        )

    silence_s = max(server.timeout_s, 2 * LOOK_EVERY_S)
    async with sse_client(server.url, dict(server.headers), 30.0, silence_s, client) as (heard, told, *_):
        yield MendedStream(heard, on_end), told


def _says_session_ended(error: MCPError) -> bool:
    """Tell whether a server refused a request because it does not know our session (HTTP 404, or its own words)."""
    words = str(error).lower()
    return "session" in words and any(
        word in words for word in ("terminated", "not found", "expired", "invalid", "unknown", "no valid", "not exist")
    )


def _first_cause(error: BaseException) -> BaseException:
    """Return what went wrong; groups of errors hide it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
