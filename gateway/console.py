"""The console: the page at ``/`` and the stream of named events that keeps it live.

The page holds no data of its own, so it is open; everything it shows comes from guarded routes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from gateway.api import worker_table
from gateway.responses import Refused
from gateway.turn_broadcast import TurnBroadcast
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
    """Answers ``GET /v1/events``: what happens to turns as it happens, and the worker table when it changes."""

    def __init__(self, broadcast: TurnBroadcast, pool: Pool) -> None:
        self._broadcast = broadcast
        self._pool = pool

    async def events(self, _: Request) -> Response:
        """Answer the stream; it ends when the page leaves or the gateway stops."""
        if self._broadcast.closed:
            raise Refused(503, "the gateway is stopping", code="stopping", headers={"Retry-After": "2"})
        return StreamingResponse(self._stream(), headers={"Cache-Control": "no-store"}, media_type="text/event-stream")

    async def _stream(self) -> AsyncGenerator[bytes]:
        with self._broadcast.subscribe() as subscription:
            yield named("hello", b"{}")
            shown, quiet = b"", 0
            while (happened := await subscription.next(TICK_S)) is not None:
                table = msgspec.json.encode(worker_table(self._pool.snapshot()))
                if table != shown:
                    happened.append(("workers", table))
                    shown = table
                quiet = 0 if happened else quiet + 1
                if happened:
                    yield b"".join(named(name, data) for name, data in happened)
                elif quiet % KEEP_ALIVE_TICKS == 0:
                    yield b": keep-alive\n\n"
            yield named("bye", b"{}")


def named(name: str, data: bytes) -> bytes:
    """Return one server-sent event; its data is JSON, so it holds no line break."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
