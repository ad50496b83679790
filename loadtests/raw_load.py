"""The cheapest load generator there is: ready-made requests over keep-alive connections, raw asyncio."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import msgspec

from loadtests.signing import SignedRequest


class Burst(msgspec.Struct, frozen=True):
    """What one burst measured: requests a second, seconds from request to answer, answers that were not 200."""

    rate: float
    latencies_s: tuple[float, ...]
    failures: int


def wire_bytes(request: SignedRequest) -> bytes:
    """Return a request as it goes over the wire."""
    lines = [f"{request.method} {request.path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(request.body)}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + request.body


class Connection(asyncio.Protocol):
    """One keep-alive connection: sends the next request when the answer is complete."""

    def __init__(self, waiting: deque[bytes], done: asyncio.Future[None]) -> None:
        self._waiting = waiting
        self._done = done
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None
        self.latencies_s: list[float] = []
        self.failures = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send_next(self) -> None:
        """Send one request, or finish where none is left."""
        assert self._transport is not None
        if not self._waiting:
            self._transport.close()
            if not self._done.done():
                self._done.set_result(None)
            return
        self._sent_at = time.perf_counter()
        self._transport.write(self._waiting.popleft())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0 or len(self._buffer) < head_end + 4 + body_length(self._buffer[:head_end]):
            return
        self.latencies_s.append(time.perf_counter() - self._sent_at)
        self.failures += not self._buffer.startswith(b"HTTP/1.1 200 ")
        self._buffer = b""
        self.send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(exc or ConnectionResetError("the server closed a busy connection"))


def body_length(head: bytes) -> int:
    """Read the content-length of a response head; the servers measured always send one."""
    start = head.lower().index(b"content-length:") + 15
    end = head.find(b"\r\n", start)
    return int(head[start : end if end >= 0 else len(head)])


def itself(connection: Connection) -> Connection:
    return connection


async def burst(url: str, requests: Sequence[bytes], connections: int) -> Burst:
    """Send all requests over so many connections at once, each answered before its connection sends the next."""
    loop = asyncio.get_running_loop()
    address = urlsplit(url)
    assert address.hostname is not None, url
    assert address.port is not None, url
    waiting = deque(requests)
    finished: list[asyncio.Future[None]] = []
    opened: list[Connection] = []
    for _ in range(connections):
        done: asyncio.Future[None] = loop.create_future()
        connection = Connection(waiting, done)
        await loop.create_connection(partial(itself, connection), address.hostname, address.port)
        finished.append(done)
        opened.append(connection)
    began = time.perf_counter()
    for connection in opened:
        connection.send_next()
    await asyncio.gather(*finished)
    elapsed_s = time.perf_counter() - began
    latencies = tuple(flatten(connection.latencies_s for connection in opened))
    return Burst(len(requests) / elapsed_s, latencies, sum(connection.failures for connection in opened))


def flatten(lists: Iterable[Iterable[float]]) -> Iterable[float]:
    for one in lists:
        yield from one
