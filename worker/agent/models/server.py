"""One model server as all workers of this machine know it: when it was last heard of, and how many calls it takes.

Both lie in small files of a folder that the workers share, so that they need nobody between them: the time of the last
byte in mapped memory, and one locked file for each call at once. The system unlocks what a killed worker held.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

#: how often a call looks whether another has ended, in seconds
LOOK_AGAIN_S = 0.02
_TIME = struct.Struct("d")


class ModelServer:
    """The server at one url; without a ``folder`` nothing is shared with other processes.

    ``parallel`` calls may be made at once, None where nothing bounds them.
    """

    def __init__(self, url: str, folder: Path | None = None, parallel: int | None = None) -> None:
        self.parallel = parallel
        self._running = 0
        self._name = hashlib.blake2b(url.encode(), digest_size=12).hexdigest()
        self._folder = folder
        self._page: mmap.mmap | bytearray | None = None

    @staticmethod
    def now() -> float:
        """Return the time on the clock that all processes of a machine share, in seconds."""
        return time.monotonic()

    @property
    def heard_at(self) -> float:
        """When a byte last came from it, to any process."""
        at: float = _TIME.unpack_from(self._memory)[0]
        return at if at <= time.monotonic() else 0.0  # the clock of an earlier start of the machine

    def hear(self) -> float:
        """Note that a byte came, and return when."""
        at = time.monotonic()
        _TIME.pack_into(self._memory, 0, at)
        return at

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold one of the places for calls at once, and wait until one is free."""
        if self.parallel is None:
            yield
            return
        locked = await self._take_place()
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            if locked is not None:
                fcntl.flock(locked, fcntl.LOCK_UN)  # a program that was forked meanwhile holds the file still
                os.close(locked)

    async def _take_place(self) -> int | None:
        while True:
            places = self.parallel
            if places is None:
                return None
            if self._running < places:
                if self._folder is None:
                    return None
                try:
                    locked = _lock_one(self._folder, self._name, places)
                except OSError:  # what cannot be shared is counted by this process alone
                    self._folder = None
                    continue
                if locked is not None:
                    return locked
            await asyncio.sleep(LOOK_AGAIN_S)

    @property
    def _memory(self) -> mmap.mmap | bytearray:
        if self._page is None:
            self._page = self._map()
        return self._page

    def _map(self) -> mmap.mmap | bytearray:
        if self._folder is not None:
            with contextlib.suppress(OSError):  # what cannot be shared is known to this process alone
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                descriptor = os.open(self._folder / self._name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.ftruncate(descriptor, mmap.PAGESIZE)
                    return mmap.mmap(descriptor, mmap.PAGESIZE)
                finally:
                    os.close(descriptor)
        return bytearray(_TIME.size)


def _lock_one(folder: Path, name: str, places: int) -> int | None:
    """Lock a file that nobody has locked, and return its descriptor."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in range(places):
        path = folder / f"{name}.{number}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        return descriptor
    return None
