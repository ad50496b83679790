"""A real HTTP server on loopback, in a thread or in the foreground, whose connections a script may break."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HOST = "127.0.0.1"


class ClientLeft(ConnectionError):
    """Raised when the client closed the connection, or the server is stopping; the exchange just ends."""


class TransportInScope(HttpToolsProtocol):
    """Lets an endpoint reach its connection, to break it."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"transport": {"transport": self.transport}}


class BreakingServer(uvicorn.Server):
    """Stops at once: breaks what is open instead of waiting for it."""

    def open_connections(self) -> int:
        return len(self.server_state.connections)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await super().shutdown(sockets)


class Loopback:
    """One server for an ASGI app on a loopback port, or at an ``address``; ``url`` has no trailing slash."""

    def __init__(self, app: ASGIApp, port: int = 0, address: str = HOST) -> None:
        self._socket = socket.create_server((address, port), backlog=2048)
        self.url = f"http://{address}:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            app, loop="uvloop", http=TransportInScope, ws="none", lifespan="off", log_config=None, access_log=False,
            timeout_keep_alive=120, timeout_graceful_shutdown=5, server_header=False, date_header=False,
        )  # fmt: skip
        self._server = BreakingServer(config)

    @property
    def open_connections(self) -> int:
        """Count the TCP connections that are open now."""
        return self._server.open_connections()

    def run(self) -> None:
        """Serve in the foreground until SIGINT or SIGTERM; prints where it listens."""
        print(f"listening on {self.url}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            self._server.run(sockets=[self._socket])

    @contextlib.contextmanager
    def in_thread(self) -> Iterator[Loopback]:
        """Serve from a thread while the context is open."""
        thread = threading.Thread(target=self._server.run, args=([self._socket],), name=f"loopback {self.url}")
        thread.start()
        try:
            yield self
        finally:
            self._server.should_exit = True
            thread.join()


class Exchange:
    """One request being answered piece by piece; notices that the client left."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._transport: asyncio.Transport = scope["extensions"]["transport"]["transport"]
        self._receive = receive
        self._send = send
        self._gone: asyncio.Task[None] | None = None
        self.headers: Mapping[str, str] = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        self.begun = False

    async def body(self) -> bytes:
        """Read the whole body; from then on the client is watched."""
        parts = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        self._gone = asyncio.create_task(self._watch())
        return b"".join(parts)

    async def _watch(self) -> None:
        message: Message = {"type": ""}
        while message["type"] != "http.disconnect":
            message = await self._receive()

    async def pause(self, seconds: float | None) -> None:
        """Wait, for ever where None. Raises ClientLeft as soon as the client is gone."""
        assert self._gone is not None, "the body is read first"
        done, _ = await asyncio.wait({self._gone}, timeout=seconds)
        if done:
            raise ClientLeft

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        self.begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, data: bytes) -> None:
        """Send one piece. Raises ClientLeft."""
        if self._gone is not None and self._gone.done():
            raise ClientLeft
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a whole response."""
        await self.begin(status, {**headers, "content-length": str(len(body))})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def reset(self) -> None:
        """Break the connection with a TCP reset. Always raises ClientLeft."""
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
        await self.pause(None)

    async def close(self) -> None:
        """Stop watching, and give the server the end of the response that it insists on."""
        if self._gone is not None and not self._gone.done():
            self._gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._gone
        if not self.begun:
            await self.answer(499, {}, b"")


@contextlib.asynccontextmanager
async def exchange(scope: Scope, receive: Receive, send: Send) -> AsyncIterator[Exchange]:
    """Open an exchange; a client that leaves ends it without an error."""
    opened = Exchange(scope, receive, send)
    try:
        with contextlib.suppress(ClientLeft):
            yield opened
    finally:
        await opened.close()


def port_argument(program: str) -> int:
    """Read ``--port N`` (default 0: any free one) from the command line."""
    arguments = sys.argv[1:]
    match arguments:
        case []:
            return 0
        case ["--port", port] if port.isdigit():
            return int(port)
        case _:
            raise SystemExit(f"usage: python -m {program} [--port PORT]")
