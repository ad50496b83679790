"""Looks whether messages could be kept now, also while none comes: the store commits, and files can be opened.

A fault is told once, with what it is, and its end once it has been away for some looks in a row, so that a disk on the
edge of being full does not flood the log.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time

from shared.errors import StoreError
from shared.events import Event, Events
from shared.store.port import Store

#: the store is written to at most once in this time, however often readiness is asked for (seconds)
FRESH_S = 1.0
#: between two looks that nobody asked for, while all is well and while it is not
IDLE_S, FAULTY_S = 10.0, 2.0
#: so many looks in a row without a fault end it
GOOD_IN_A_ROW = 2

NO_DESCRIPTORS = "no file can be opened: {problem} (`ulimit -n` says how many may be open)"


class StorageWatch:
    """Owns the looks; ``problem`` is what the last one found, empty for none."""

    def __init__(self, store: Store, events: Events) -> None:
        self._store = store
        self._events = events
        self._looked_at = -FRESH_S
        self._looking = asyncio.Lock()
        self._told = ""
        self._good = 0
        self.problem = ""

    async def run(self) -> None:
        """Look always."""
        while True:
            await self.look()
            await asyncio.sleep(FAULTY_S if self._told else IDLE_S)

    async def look(self) -> str:
        """Return why no message could be kept now, empty if it could; as found a moment ago where that is fresh."""
        async with self._looking:
            if time.monotonic() - self._looked_at >= FRESH_S:
                self.problem = missing_descriptors() or await self._problem_of_store()
                self._looked_at = time.monotonic()
                self._tell()
        return self.problem

    async def _problem_of_store(self) -> str:
        try:
            await self._store.check()
        except StoreError as error:
            return f"the store cannot commit: {error}"
        return ""

    def _tell(self) -> None:
        if self.problem:
            self._good = 0
            if not self._told:
                self._told = self.problem
                self._events.emit(Event.STORE_UNAVAILABLE, part="storage watch", error=self.problem)
            return
        self._good += 1
        if self._told and self._good >= GOOD_IN_A_ROW:
            self._events.emit(Event.STORE_RECOVERED, part="storage watch", error=self._told)
            self._told = ""


def missing_descriptors() -> str:
    """Return why no file can be opened now, empty if one can."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            return NO_DESCRIPTORS.format(problem=error.strerror)
    return ""
