"""The session cache of a worker: the window with its summary, and the todo list, of each session it ran lately."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec
from cachetools import TTLCache

from shared.messages import Summary
from worker.agent.todo import TodoStore

#: bytes all cached sessions may take together
MEMORY_BYTES = 256 * 1024 * 1024


class CachedSession:
    """What is cached of a session: the messages of its window (worker.agent.context.window) and its todo list.

    Immutable; see Window for what ``first``, ``summary`` and ``repaired`` mean.
    """

    __slots__ = ("_todo", "first", "messages", "repaired", "summary")

    def __init__(
        self,
        messages: Sequence[bytes],
        todo: TodoStore,
        first: int = 0,
        summary: Summary | None = None,
        *,
        repaired: bool = True,
    ) -> None:
        self.messages = tuple(messages)
        self.first = first
        self.summary = summary
        self.repaired = repaired
        self._todo = todo.copy()

    @property
    def size_bytes(self) -> int:
        """About the memory it takes."""
        summary = self.summary
        text = len(summary.text) + len(summary.todo) + len(summary.asked) if summary else 0
        opening = sum(map(len, summary.opening)) if summary else 0
        todo = sum(len(item.id) + len(item.content) for item in self._todo.items)
        return sum(map(len, self.messages)) + 64 * len(self.messages) + text + opening + todo

    @property
    def todo(self) -> TodoStore:
        """A todo store of the caller's own: a turn that comes to nothing must not change what is cached."""
        return self._todo.copy()


class _Entry(msgspec.Struct, frozen=True):
    version: int
    cached: CachedSession
    weight_bytes: int


class SessionCache:
    """Sessions by key, checked against their version; for one loop only (cachetools breaks when threads share it).

    Holds ``size`` sessions and ``memory_bytes`` of what they are at the most, each for ``ttl_s`` seconds after its put.
    """

    def __init__(
        self,
        size: int,
        ttl_s: float,
        *,
        memory_bytes: int = MEMORY_BYTES,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        # Each entry weighs its share of the memory at the least, so one bound keeps both limits.
        self._share_bytes = max(1, -(-memory_bytes // size))
        self._entries: TTLCache[str, _Entry] = TTLCache(
            self._share_bytes * size, ttl_s, timer=timer, getsizeof=lambda entry: entry.weight_bytes
        )
        self.hits = 0
        self.misses = 0

    @property
    def size(self) -> int:
        """The number of sessions held."""
        return len(self._entries)

    def get(self, session: str, version: int) -> CachedSession | None:
        """Return what is cached of the session if it is of this version."""
        try:
            entry = self._entries[session]  # get() costs three times as much as this on a hit
        except KeyError:
            self.misses += 1
            return None
        if entry.version != version:
            self.misses += 1
            return None
        self.hits += 1
        return entry.cached

    def put(self, session: str, version: int, cached: CachedSession) -> None:
        """Keep the session as it is at this version; one that is larger than the whole cache is not kept."""
        weight = max(self._share_bytes, cached.size_bytes)
        if weight > self._entries.maxsize:
            self.forget(session)
            return
        self._entries[session] = _Entry(version, cached, weight)

    def forget(self, session: str) -> None:
        """Drop what is cached of the session."""
        self._entries.pop(session, None)

    def expire(self) -> None:
        """Free the memory of sessions whose time is over; call it now and then, so that no put has to free many."""
        self._entries.expire()
