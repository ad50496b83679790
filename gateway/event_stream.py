"""The stream of named events that pages read: each event is encoded once, whoever many read it.

    tell ──▶ joined for FLUSH_S ──▶ one chunk of bytes, the same for every reader ──▶ each reader's own queue

A reader of one session gets the text of its running turn besides. A reader that does not read is dropped: its page
opens the stream anew and loads what it missed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

#: how long events are joined before they go out, in seconds: a thousand events a second are twenty writes a reader
FLUSH_S = 0.05
#: what may wait for one reader, in bytes; past it the reader is dropped
READER_LIMIT_BYTES = 1024 * 1024
#: readers that are handed a chunk in one round of the loop: to write to hundreds in one go would make it late
HANDED_AT_ONCE = 16
#: readers at once; one more is refused
READERS_LIMIT = 1000


class PageReader:
    """One page's chunks of the stream, bounded; ``session`` is the one whose text it reads, empty for none."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.dropped = False  #: whether it read too slowly
        self.admitted: Callable[[], bool] = lambda: True  #: whether it may still read
        self._chunks: deque[bytes] = deque()
        self._own: list[bytes] = []
        self._size = 0
        self._ended = False
        self._arrived = asyncio.Event()

    def tell(self, event: bytes) -> None:
        """Take an event that is this reader's alone; it goes out with the next chunk."""
        self._own.append(event)

    def put(self, shared: bytes) -> None:
        """Take a chunk; what is the reader's own comes before it. Past the limit the reader is dropped."""
        own, self._own = self._own, []
        chunk = b"".join((*own, shared)) if own else shared
        if not chunk or self._ended:
            return
        self._size += len(chunk)
        if self._size > READER_LIMIT_BYTES:
            self.dropped = True
            self._chunks.clear()
            self.end()
            return
        self._chunks.append(chunk)
        self._arrived.set()

    def end(self) -> None:
        """End the reader once what waits has been read."""
        self._ended = True
        self._arrived.set()

    async def next(self) -> bytes | None:
        """Return what came next, None at the end."""
        await self._arrived.wait()
        if not self._chunks:
            return None
        chunk = b"".join(self._chunks) if len(self._chunks) > 1 else self._chunks[0]
        self._chunks.clear()
        self._size = 0
        if not self._ended:
            self._arrived.clear()
        return chunk


class EventStream:
    """Owns the readers; must be told on the loop."""

    def __init__(self) -> None:
        self._readers: set[PageReader] = set()
        self._pending: list[bytes] = []
        self._flushing: asyncio.TimerHandle | None = None
        self._handing: deque[tuple[bytes, list[PageReader]]] = deque()  #: chunks, and who has not got them yet
        self.closed = False  #: whether readers are turned away because the gateway stops

    @property
    def full(self) -> bool:
        """Tell whether no further reader is taken."""
        return len(self._readers) >= READERS_LIMIT

    @property
    def read(self) -> bool:
        """Tell whether anybody reads."""
        return bool(self._readers)

    @property
    def sessions(self) -> set[str]:
        """The sessions whose text is read."""
        return {reader.session for reader in self._readers if reader.session}

    @contextmanager
    def subscribe(self, session: str = "") -> Iterator[PageReader]:
        """Let somebody read for as long as the block lasts."""
        reader = PageReader(session)
        if self.closed:
            reader.end()
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)

    def tell(self, name: str, /, **fields: Any) -> None:
        """Tell every reader a named event; its fields become JSON, once."""
        if self._readers:
            self.put(encoded(name, fields))

    def put(self, event: bytes) -> None:
        """Tell every reader an encoded event."""
        if self._readers:
            self._pending.append(event)
            self._flush_soon()

    def tell_session(self, session: str, name: str, /, **fields: Any) -> None:
        """Tell the readers of one session a named event."""
        readers = [reader for reader in self._readers if reader.session == session]
        if readers:
            event = encoded(name, fields)
            for reader in readers:
                reader.tell(event)
            self._flush_soon()

    def end_refused(self) -> None:
        """End the readers that may read no more: the keys have changed."""
        for reader in [reader for reader in self._readers if not reader.admitted()]:
            reader.end()

    def close(self) -> None:
        """Hand over what waits, then end every reader; each later one ends at once."""
        self.closed = True
        self._flush()
        while self._handing:
            self._hand_over()
        for reader in self._readers:
            reader.end()

    def _flush_soon(self) -> None:
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(FLUSH_S, self._flush)

    def _flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        shared = b"".join(self._pending)
        self._pending.clear()
        self._handing.append((shared, list(self._readers)))
        if len(self._handing) == 1:
            self._hand_over_soon()

    def _hand_over_soon(self) -> None:
        if self._handing:
            self._hand_over()
            asyncio.get_running_loop().call_soon(self._hand_over_soon)

    def _hand_over(self) -> None:
        """Hand the oldest chunk to some more readers; each gets every chunk in its order."""
        shared, readers = self._handing[0]
        for reader in readers[-HANDED_AT_ONCE:]:
            reader.put(shared)
        del readers[-HANDED_AT_ONCE:]
        if not readers:
            self._handing.popleft()


def encoded(name: str, fields: object) -> bytes:
    """Return one server-sent event; its data is JSON, so it holds no line break."""
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(fields) + b"\n\n"
