"""Signals between hosts by the server's LISTEN and NOTIFY, on a connection of their own.

A NOTIFY inside a transaction that writes makes all such transactions commit one after the other, so signals are never
sent with data: they gather for 10 ms and go in one statement of their own. The connection is tried every few seconds,
for one that has died is otherwise silent. https://www.postgresql.org/docs/current/sql-notify.html
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import select
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator

import msgspec
import psycopg

from shared.signals import Signal
from shared.store.postgres.connection import CONNECT_TIMEOUT_S, LOST_AFTER_MS

#: how long signals gather before they are sent, in seconds
GATHER_S = 0.01
#: how often a quiet connection is tried, in seconds
TRY_EVERY_S = 5.0
#: the pause before a lost connection is made again, in seconds
RECONNECT_S = (0.2, 1.0)
#: the most that one notification may hold is 8,000 bytes
PAYLOAD_BYTES = 7_900
#: signals that wait for a connection at most; older ones are forgotten
WAITING_LIMIT = 10_000

NOTIFY = "SELECT pg_notify(told.channel, told.payload) FROM unnest(%s::text[], %s::text[]) AS told (channel, payload)"

_DECODER = msgspec.json.Decoder(tuple[Signal, ...])


class PostgresSignals:
    """The Signals of a host, on a thread of their own; without ``conninfo`` none come and none go."""

    def __init__(self, conninfo: str | None) -> None:
        self._conninfo = conninfo
        self._outgoing: deque[tuple[str, Signal]] = deque(maxlen=WAITING_LIMIT)
        self._queue: asyncio.Queue[Signal] = asyncio.Queue()
        self._thread: threading.Thread | None = None
        self._closing = False
        self.connected = False

    async def start(self, host: str) -> None:
        """Begin to receive what is sent to this host."""
        if self._conninfo is None or self._thread is not None:
            return
        self._loop = asyncio.get_running_loop()
        self._channel = channel(host)
        self._woken, self._wakes = socket.socketpair()
        self._wakes.setblocking(False)
        self._thread = threading.Thread(target=self._main, name="store-signals", daemon=True)
        self._thread.start()

    def send(self, host: str, signal: Signal) -> None:
        """Send a signal to a host, without waiting."""
        if self._thread is not None:
            self._outgoing.append((host, signal))
            self._wake()

    async def received(self) -> AsyncIterator[Signal]:
        """Give the signals sent to this host, as they come, for ever."""
        while True:
            yield await self._queue.get()

    async def close(self) -> None:
        """Receive no more."""
        if self._thread is None:
            return
        self._closing = True
        self._wake()
        await asyncio.to_thread(self._thread.join)
        self._thread = None
        self._woken.close()
        self._wakes.close()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # then it is awake already
            self._wakes.send(b"\0")

    # Everything below runs on the thread.

    def _main(self) -> None:
        assert self._conninfo is not None  # noqa: S101 - for the type checker
        while not self._closing:
            with (
                contextlib.suppress(psycopg.Error, OSError),
                psycopg.connect(
                    self._conninfo,
                    autocommit=True,
                    connect_timeout=CONNECT_TIMEOUT_S,
                    application_name="gatehouse-signals",
                    tcp_user_timeout=LOST_AFTER_MS,
                ) as connection,
            ):
                self._serve(connection)
            self.connected = False
            if not self._closing:
                time.sleep(random.uniform(*RECONNECT_S))  # noqa: S311 - no secret

    def _serve(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        """Send and receive until the connection is lost or the host closes."""
        connection.add_notify_handler(lambda notify: self._receive(notify.payload))
        connection.execute(f'LISTEN "{self._channel}"'.encode())
        self.connected = True
        poll = select.poll()
        for readable in (connection.fileno(), self._woken.fileno()):
            poll.register(readable, select.POLLIN)
        while not self._closing:
            ready = {number for number, _ in poll.poll(TRY_EVERY_S * 1000)}
            if self._woken.fileno() in ready:
                time.sleep(GATHER_S)
                self._woken.recv(65_536)
                self._send(connection)
            elif not ready:
                connection.execute("SELECT 1")
            if connection.fileno() in ready:
                connection.pgconn.consume_input()
                while (notify := connection.pgconn.notifies()) is not None:
                    self._receive(notify.extra.decode())

    def _send(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        hosts: dict[str, list[Signal]] = {}
        while self._outgoing:
            host, signal = self._outgoing.popleft()
            hosts.setdefault(host, []).append(signal)
        notes = [(channel(host), payload) for host, signals in hosts.items() for payload in payloads(signals)]
        if notes:
            connection.execute(NOTIFY, ([name for name, _ in notes], [payload for _, payload in notes]))

    def _receive(self, payload: str) -> None:
        with contextlib.suppress(msgspec.DecodeError, RuntimeError):  # of a newer release, or the loop is closed
            signals = _DECODER.decode(payload)
            self._loop.call_soon_threadsafe(self._put, signals)

    def _put(self, signals: tuple[Signal, ...]) -> None:
        for signal in signals:
            self._queue.put_nowait(signal)


def channel(host: str) -> str:
    """Return the name of a host's channel, which has to be short."""
    return "gatehouse_" + hashlib.blake2b(host.encode(), digest_size=12).hexdigest()


def payloads(signals: list[Signal]) -> Iterator[str]:
    """Return signals in as few notifications as hold them; one that fits into none is left out."""
    held: list[bytes] = []
    size = 2
    for signal in signals:
        body = msgspec.json.encode(signal)
        if len(body) + 2 > PAYLOAD_BYTES:
            continue
        if size + len(body) + 1 > PAYLOAD_BYTES:
            yield f"[{b','.join(held).decode()}]"
            held, size = [], 2
        held.append(body)
        size += len(body) + 1
    if held:
        yield f"[{b','.join(held).decode()}]"
