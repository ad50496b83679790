"""HTTP connections within bounds: how much a header may be and how long it may take, and how many there may be at once.

All of it holds from connect on, before any route or check is reached. A header that is too large gets 431; whoever is
silent, drips, or does not read is closed. Where no more connections fit, the one that has been idle longest makes room;
where requests that are still coming in hold too much memory together, the one that began first does.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
import time
from typing import Any, cast

import httptools
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from shared.events import Event, Events

#: of one request's start line and header, its trailer included
MOST_HEADER_BYTES, MOST_HEADER_LINES = 65_536, 200
#: from connect, or from the first byte of a later request, to the end of the header
HEADER_TIMEOUT_S = 10.0
#: from the end of the header to the end of the body; routes that read bodies have shorter ones of their own
BODY_TIMEOUT_S = 60.0
#: how long a client may leave what it is sent unread
UNREAD_TIMEOUT_S = 60.0
#: value of SO_LINGER: on, and for no time
RESET_AT_CLOSE = struct.pack("ii", 1, 0)
#: a body may arrive in chunks as small as one byte, ten thousand of them; what frames a larger one is bounded by this
#: many times its size, since each chunk costs the loop as much as a small request does the parser
MOST_FRAMING = 0.25

#: requests that wait on one connection for the answers to earlier ones; each costs a hundred times its bytes in memory
MOST_PIPELINED = 32

#: how long, and how much of, what a refused client still sends is read and dropped: cut off, it would see no answer
LINGER_S, MOST_LINGER_BYTES = 2.0, 67_108_864

#: the ASGI extension that says of a request that all of its body has come: who reads it need not mind the time
WHOLE_BODY = "gatehouse.whole_body"

MOST_CONNECTIONS, MOST_BACKLOG, LEAST_CONNECTIONS = 10_000, 2048, 32
#: of all requests that have begun and are not whole yet, headers and bodies: it is memory that strangers fill
MOST_UNFINISHED_BYTES = 268_435_456
#: descriptors that are kept for the store, logs, timers and the console's files
KEPT_DESCRIPTORS = 96
#: descriptors that one worker needs in the gateway, its replacement's included
WORKER_DESCRIPTORS = 12
#: connections that one platform may take at once; see gateway/receivers.py
PLATFORM_DESCRIPTORS = 40

#: a part of a body that is larger is not copied to go with the head
MOST_JOINED_BYTES = 65_536

#: refusals are told of once in this time
TOLD_EVERY_S = 10.0

REASONS = {431: b"Request Header Fields Too Large", 503: b"Service Unavailable"}


class HeaderTooLarge(Exception):
    """Raised inside the parser, which it stops."""


class TooManyAhead(Exception):
    """Raised inside the parser, which it stops: what was sent before is still answered."""


class ConnectionLimits(msgspec.Struct, frozen=True):
    """How many connections are taken."""

    #: open at once
    connections: int
    #: waiting in the kernel to be accepted; they may all come in one round of the loop
    backlog: int


def connection_limits(workers: int, platforms: int, descriptors: int | None = None) -> ConnectionLimits:
    """Return how many connections leave enough descriptors to workers, database and platforms.

    ``descriptors`` is how many this process may have, by default what ``ulimit -n`` says.
    """
    if descriptors is None:
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    kept = KEPT_DESCRIPTORS + WORKER_DESCRIPTORS * workers + PLATFORM_DESCRIPTORS * platforms
    left = max(2 * LEAST_CONNECTIONS, descriptors - kept)
    backlog = min(MOST_BACKLOG, left // 2)
    return ConnectionLimits(min(MOST_CONNECTIONS, left - backlog), backlog)


class Connections:
    """All connections of one server: how many there are, and which of them serve nobody now."""

    def __init__(self, most: int, events: Events) -> None:
        self._most = most
        self._events = events
        self._open: set[BoundedProtocol] = set()
        self._idle: dict[BoundedProtocol, None] = {}  #: longest idle first
        self._unfinished: dict[BoundedProtocol, int] = {}  #: bytes of requests that are not whole, oldest first
        self._unfinished_bytes = 0
        self._told_at = -TOLD_EVERY_S

    def admit(self, connection: BoundedProtocol) -> bool:
        """Take a new connection, closing the longest idle one for it where need be; False if there is no room."""
        if len(self._open) >= self._most:
            longest = next(iter(self._idle), None)
            self.tell("too many connections")
            if longest is None:
                return False
            self.remove(longest)
            longest.transport.abort()
        self._open.add(connection)
        self._idle[connection] = None
        return True

    def serve(self, connection: BoundedProtocol) -> None:
        """Note that a connection is at work."""
        self._idle.pop(connection, None)

    def rest(self, connection: BoundedProtocol) -> None:
        """Note that a connection is idle from now on."""
        if connection in self._open:
            self._idle[connection] = None

    def hold(self, connection: BoundedProtocol, size: int) -> None:
        """Count bytes of a request that is not whole yet; past what all may hold, those that began first are closed."""
        self._unfinished[connection] = self._unfinished.get(connection, 0) + size
        self._unfinished_bytes += size
        while self._unfinished_bytes > MOST_UNFINISHED_BYTES:
            longest = next(iter(self._unfinished))
            self.tell("requests that are not whole hold too much memory")
            self.remove(longest)
            longest.transport.abort()

    def release(self, connection: BoundedProtocol) -> None:
        """Count a connection's request no more: it is whole."""
        self._unfinished_bytes -= self._unfinished.pop(connection, 0)

    def remove(self, connection: BoundedProtocol) -> None:
        """Forget a connection that is closed."""
        self._open.discard(connection)
        self._idle.pop(connection, None)
        self.release(connection)

    def tell(self, reason: str) -> None:
        """Say why somebody was turned away, not for each of a flood."""
        now = time.monotonic()
        if now - self._told_at >= TOLD_EVERY_S:
            self._told_at = now
            self._events.emit(Event.CONNECTION_REFUSED, reason=reason, connections=len(self._open))


class AnswerTransport:
    """A connection as one answer sees it: its head goes out with the first part of its body, in one write.

    A head that no body follows, or whose body has no known length and may be long in coming, goes out at once.
    """

    __slots__ = ("_cycle", "_head", "_transport")

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport = transport
        #: whose head is still to come; let go with it, or each request would be garbage for the collector
        self._cycle: RequestResponseCycle | None = cycle
        self._head = b""  #: what waits for the body

    def write(self, data: bytes) -> None:
        """Write a part of the answer."""
        cycle = self._cycle
        if cycle is not None and cycle.response_started:
            self._cycle = None
            if cycle.expected_content_length and cycle.scope["method"] != "HEAD":
                self._head = data
                return
        if self._head and len(data) <= MOST_JOINED_BYTES:
            data = self._head + data
            self._head = b""
        self._flush()
        self._transport.write(data)

    def is_closing(self) -> bool:
        """Tell whether the connection is closed or about to be."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Close the connection once all is written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            self._transport.write(self._head)
            self._head = b""


class BoundedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol on httptools, within bounds."""

    def __init__(self, connections: Connections, config: Config, **uvicorn: Any) -> None:
        super().__init__(config, **uvicorn)
        self._connections_of_server = connections
        self._in_header = True
        self._began = False  #: whether a byte of the request has come
        self._lines = 0  #: header lines of the request so far, its trailer's included
        self._header_bytes = 0  #: bytes of the lines that came whole
        self._bytes = 0  #: bytes of the header that came; after it, bytes that framed the body
        self._body_bytes = 0
        self._status = 400
        self._refused = False
        self._timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or turn it away."""
        super().connection_made(transport)
        if self._connections_of_server.admit(self):
            self._give_s(HEADER_TIMEOUT_S)
        else:
            self._status = 503
            self.send_400_response("too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._connections_of_server.remove(self)
        self._stop_timer()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, as long as it keeps to the bounds."""
        if self._refused:
            self._bytes += len(data)
            if self._bytes > MOST_LINGER_BYTES:
                self.transport.abort()
            return
        if not self._began:
            self._began = True
            if self._timer is None:
                self._give_s(HEADER_TIMEOUT_S)
        self._bytes += len(data)
        self._parse(data)
        if self._began and not self.transport.is_closing():
            self._connections_of_server.hold(self, len(data))
        most = MOST_HEADER_BYTES + (0 if self._in_header else MOST_FRAMING * self._body_bytes)
        if self._bytes > most and not self._refused and not self.transport.is_closing():
            self._status = 431
            self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be read, and close: 431 for a header that is too large."""
        if self._refused:  # its last answer closes
            return
        if self._status == 400:
            self._connections_of_server.tell("what came is no HTTP request")
            super().send_400_response(msg)
            return
        if self._status == 431:
            msg = f"a header has {MOST_HEADER_BYTES} bytes and {MOST_HEADER_LINES} lines at the most"
            self._connections_of_server.tell("a header is too large")
        told = msg.encode()
        head = (
            b"HTTP/1.1 %d %s\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n"
        )
        self.transport.write(head % (self._status, REASONS[self._status], len(told)) + b"\r\n" + told)
        if self._status == 431 and self.transport.can_write_eof():
            self._refused = True
            self._stop_timer()
            self._timer = self.loop.call_later(LINGER_S, self.transport.abort)
            self.transport.write_eof()
        else:
            self.transport.close()

    def on_message_begin(self) -> None:
        """Count a request's header from here on."""
        self._in_header, self._lines, self._header_bytes, self._body_bytes = True, 0, 0, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a part of the url. Raises HeaderTooLarge, which stops the parser."""
        self._count_header(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header line. Raises HeaderTooLarge, which stops the parser."""
        self._lines += 1
        self._count_header(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Serve the request; its body has its own time. Raises TooManyAhead, which stops the parser."""
        if self._offers_upgrade():
            return  # it comes again without
        if len(self.pipeline) >= MOST_PIPELINED:
            self._refused, self._bytes = True, 0
            self._stop_timer()
            self.pipeline[0][0].keep_alive = False
            self._connections_of_server.tell("too many requests at once on one connection")
            raise TooManyAhead
        self._in_header, self._bytes = False, 0
        self._give_s(BODY_TIMEOUT_S)
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not None and self.cycle is not before:
            self.cycle.transport = cast(asyncio.Transport, AnswerTransport(self.transport, self.cycle))

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._bytes -= len(body)
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the answer, however long it takes."""
        if self._offers_upgrade():
            return
        self._stop_timer()
        self._connections_of_server.release(self)
        self._connections_of_server.serve(self)
        self.scope["extensions"] = {WHOLE_BODY: {}}
        self._in_header, self._began, self._bytes = True, False, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Let the connection make room for others once it has nothing to do."""
        super().on_response_complete()
        if self.cycle is None or self.cycle.response_complete:
            self._connections_of_server.rest(self)

    def pause_writing(self) -> None:
        """Wait until the client has read, but not for ever."""
        super().pause_writing()
        if self._unread_timer is None:
            self._unread_timer = self.loop.call_later(UNREAD_TIMEOUT_S, self._unread)

    def resume_writing(self) -> None:
        """Go on."""
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
        super().resume_writing()

    def _parse(self, data: bytes) -> None:
        """Feed the parser; who offers another protocol is served in this one, as if it did not (RFC 9110, 7.8).

        The parser takes what follows such a header for the other protocol's: with the body of a request of Java's own
        client, which offers HTTP/2 with each.
        """
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        except httptools.HttpParserUpgrade as upgrade:
            if self._offers_upgrade():
                head = [b"%s %s HTTP/1.1" % (self.parser.get_method(), self.url)]
                head += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
                self._parse(b"\r\n".join([*head, b"", b""]) + data[upgrade.args[0] :])

    def _offers_upgrade(self) -> bool:
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MOST_HEADER_BYTES or self._lines > MOST_HEADER_LINES:
            self._status = 431
            raise HeaderTooLarge

    def _give_s(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._connections_of_server.tell("a request took too long to come in")
        self.transport.abort()

    def _unread(self) -> None:
        self._connections_of_server.tell("an answer was not read")
        # a reset: after a close the kernel would keep what was not read, some megabytes each, for minutes more
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        self.transport.abort()
