"""The console: the page at ``/`` and the stream of named events that keeps it live.

The page holds no data of its own, so it is open; everything it shows comes from guarded routes.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from gateway.access import Access
from gateway.event_stream import encoded
from gateway.responses import Refused
from gateway.turn_broadcast import TurnBroadcast
from gateway.worker_table import worker_table
from shared.api_keys import Role
from worker.pool import Pool

STATIC = Path(__file__).parent / "static"
#: the addresses of pages; the one page file shows what its address names
PAGES = ("/", "/chat/{key:path}", "/sessions", "/messages/{id:path}", "/workers", "/dead", "/spend", "/access")
MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
TICK_S = 1.0
KEEP_ALIVE_TICKS = 15


def page_routes() -> list[Route]:
    """Return the routes of the pages and their files."""
    pages = [Route(path, page) for path in PAGES]
    files = [Route(f"/{path.relative_to(STATIC)}", static_file) for path in STATIC.rglob("*") if path.suffix in MEDIA]
    return [*pages, *files]


async def page(_: Request) -> Response:
    """Answer the page; its script reads the address."""
    return FileResponse(STATIC / "index.html", media_type=MEDIA[".html"], headers=HEADERS)


async def static_file(request: Request) -> Response:
    """Answer one file of the page."""
    path = STATIC / request.url.path.removeprefix("/")
    return FileResponse(path, media_type=MEDIA[path.suffix], headers=HEADERS)


class Console:
    """Answers ``GET /v1/events``: what happens to turns as it happens, and the worker table when it changes.

    With ``?session=KEY`` the text of that session's running turn comes too.
    """

    def __init__(self, broadcast: TurnBroadcast, pool: Pool, access: Access) -> None:
        self._access = access
        self._generation: object = None
        self._broadcast = broadcast
        self._pool = pool
        self._ticking: asyncio.Task[None] | None = None
        self._table = b""

    async def events(self, request: Request) -> Response:
        """Answer the stream; it ends when the page leaves, reads too slowly or has a key no more, or at the stop."""
        again = {"Retry-After": "2"}
        if self._broadcast.stream.closed:
            raise Refused(503, "the gateway is stopping", code="stopping", headers=again)
        if self._broadcast.stream.full:
            raise Refused(503, "too many pages read the events", code="too_many_readers", headers=again)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        admitted = functools.partial(self._access.admits, request, Role.READ)
        stream = self._stream(request.query_params.get("session", ""), admitted)
        return StreamingResponse(stream, headers=headers, media_type="text/event-stream")

    async def _stream(self, session: str, admitted: Callable[[], bool]) -> AsyncGenerator[bytes]:
        with self._broadcast.watch(session) as reader:
            reader.admitted = admitted
            if self._ticking is None or self._ticking.done():
                self._table = b""
                self._ticking = asyncio.create_task(self._tick(), name="worker table")
            elif self._table:
                reader.put(self._table)
            while (chunk := await reader.next()) is not None:
                yield chunk
            yield encoded("bye", {})

    async def _tick(self) -> None:
        """Tell the worker table when it changes, and a comment when nothing does, for as long as anybody reads."""
        stream = self._broadcast.stream
        quiet = 0
        self._generation = self._access.keys.generation
        while stream.read and not stream.closed:
            if self._generation != (generation := self._access.keys.generation):
                self._generation = generation
                stream.end_refused()
            table = encoded("workers", worker_table(self._pool.snapshot(), await self._pool.hosts()))
            quiet = 0 if table != self._table else quiet + 1
            if table != self._table:
                self._table = table
                stream.put(table)
            elif quiet % KEEP_ALIVE_TICKS == 0:
                stream.put(b": keep-alive\n\n")
            await asyncio.sleep(TICK_S)
