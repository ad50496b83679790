"""Memory that a worker shares with its parent and that outlives it: the heartbeat, the running turn, the log ring.

Layout: bytes 0-7 the time of the last beat (CLOCK_MONOTONIC, nanoseconds), bytes 8-15 the running turn (0 for none),
bytes 16-23 the time after which nothing may be begun (the same clock, 0 for never), bytes 24-31 the nanoseconds
between two beats, bytes 32-39 how late the latest of the last beats was (nanoseconds), the ring from byte 4096 on. Each
is written by one side alone, in aligned words, so no lock is needed.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import time

#: bytes of the session log ring
RING_BYTES = 4 * 1024 * 1024
#: where the ring begins, bytes; a page of its own for the words before it
RING_AT = 4096

BEAT = 0
RUNNING = 1
FENCE = 2
INTERVAL = 3
LATE = 4


def anonymous_file(name: str) -> int:
    """Open an empty file that no path names and that ends with its last holder; ``name`` shows in /proc."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class SharedPage:
    """One worker's shared memory, mapped in the parent and in the worker; owns the file descriptor it is given."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, RING_AT + RING_BYTES)
        self._whole = memoryview(self._map)
        self._words = self._whole[:RING_AT].cast("Q")
        self._ring = self._whole[RING_AT:]

    @classmethod
    def create(cls) -> SharedPage:
        """Make a page that beat just now; pages of the ring cost memory only once they are written."""
        fd = anonymous_file("gatehouse-page")
        os.ftruncate(fd, RING_AT + RING_BYTES)
        page = cls(fd)
        page.beat()
        return page

    @property
    def ring_memory(self) -> memoryview:
        """The memory of the log ring, RING_BYTES long; zero bytes in a new page."""
        return self._ring

    def beat(self, interval_s: float = 0.0, late_s: float = 0.0) -> None:
        """Note that the worker's loop is alive, when it beats again, and how late it was at the most of late."""
        self._words[INTERVAL] = int(interval_s * 1e9)
        self._words[LATE] = int(late_s * 1e9)
        self._words[BEAT] = time.monotonic_ns()

    def beat_age_s(self) -> float:
        """Return the seconds since the last beat."""
        return (time.monotonic_ns() - self._words[BEAT]) / 1e9

    def loop_lag_s(self) -> float:
        """Return how late the worker's loop beat at the most of late, or is now, in seconds; 0 before the first."""
        if not self._words[INTERVAL]:
            return 0.0
        overdue_s = self.beat_age_s() - self._words[INTERVAL] / 1e9
        return max(overdue_s, self._words[LATE] / 1e9)

    def set_running(self, turn: int) -> None:
        """Name the turn whose code runs on the worker's loop now; 0 for none."""
        self._words[RUNNING] = turn

    def running(self) -> int:
        """Return the turn whose code ran last on the worker's loop and has not yielded; 0 for none."""
        return self._words[RUNNING]

    def set_fence(self, mono_s: float) -> None:
        """Let the worker begin no model or tool call after this moment of the monotonic clock; 0 lifts that."""
        self._words[FENCE] = int(mono_s * 1e9)

    @property
    def fenced(self) -> bool:
        """Whether nothing may be begun any more: the parent has lost its lease, or stands still itself."""
        return 0 < self._words[FENCE] < time.monotonic_ns()

    def close(self) -> None:
        """Give the file and the mapping back; a view of the ring that is still held keeps the mapping until it goes."""
        if self.fd < 0:
            return
        os.close(self.fd)
        self.fd = -1
        self._words.release()
        # a log ring may hold a slice of it; the mapping then goes with that slice
        with contextlib.suppress(BufferError):
            self._ring.release()
            self._whole.release()
            self._map.close()
