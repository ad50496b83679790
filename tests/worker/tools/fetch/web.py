"""A small web on loopback: pages that are fine, and pages that try everything."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Iterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from loadtests.loopback import Loopback

PAGE = '<html><title>A page</title><body><h1>Hello</h1><p>See <a href="/more?x=1">more</a>.</body></html>'


class Web:
    """The pages; ``seen`` are the requests for them."""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self._server = Loopback(self.app())
        self.url = self._server.url
        self.port = int(self.url.rpartition(":")[2])

    @property
    def open_connections(self) -> int:
        return self._server.open_connections

    def in_thread(self) -> contextlib.AbstractContextManager[Loopback]:
        return self._server.in_thread()

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{name:path}", self._answer)])

    async def _answer(self, request: Request) -> Response:
        self.seen.append(request)
        match request.path_params["name"].split("/", 1):
            case ["page"]:
                return HTMLResponse(PAGE, headers={"set-cookie": "a=b"})
            case ["text"]:
                return PlainTextResponse("plain <b>text</b>")
            case ["json"]:
                return Response('{"a": 1}', media_type="application/vnd.api+json")
            case ["long"]:
                return PlainTextResponse("".join(f"{number:09} " for number in range(5_000)))
            case ["wide"]:
                return PlainTextResponse("𝄞" * 30_000)
            case ["huge"]:
                return PlainTextResponse("x" * 3_000_000)
            case ["bomb"]:
                body = gzip.compress(b"\0" * 200_000_000, 9)
                return Response(body, media_type="text/plain", headers={"content-encoding": "gzip"})
            case ["image"]:
                return Response(b"\x89PNG", media_type="image/png")
            case ["untyped"]:
                return Response(b"what?")
            case ["latin"]:
                return Response(
                    "<meta charset=iso-8859-1>caf\xe9".encode("latin-1"), headers={"content-type": "text/html"}
                )
            case ["odd"]:
                return Response("caf\xe9".encode(), headers={"content-type": "text/plain; charset=unicode_escape"})
            case ["status", number]:
                return PlainTextResponse("told", int(number))
            case ["to", where]:
                return RedirectResponse(where, 302)
            case ["around", number]:
                return RedirectResponse(f"/around/{int(number) + 1}", 307)
            case ["drip"]:
                return StreamingResponse(self._drip(), media_type="text/plain")
            case _:
                return PlainTextResponse("none", 404)

    async def _drip(self) -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.02)


@contextlib.contextmanager
def running_web() -> Iterator[Web]:
    """Serve the web from a thread."""
    web = Web()
    with web.in_thread():
        yield web
