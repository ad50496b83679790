"""How far the opening of a store is: an old database is brought to a new schema first, which may take minutes."""

from __future__ import annotations

import asyncio
import time

from shared.events import Emit, Event
from shared.store.engine import OpeningProgress

#: between two lines of the log that tell how far it is, in seconds
TELL_EVERY_S = 5.0


class Opening:
    """How far the opening is; ``takes_time`` is set once a migration has begun."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._began_mono = 0.0
        self._told_mono = 0.0
        self._progress: OpeningProgress | None = None
        self.takes_time = asyncio.Event()
        self.done = False

    def tell(self, progress: OpeningProgress) -> None:
        """Take note of a step of a migration."""
        now = time.monotonic()
        if self._progress is None:
            self._began_mono = now
            self.takes_time.set()
        if self._progress is None or now - self._told_mono >= TELL_EVERY_S:
            self._told_mono = now
            self._emit(Event.MIGRATING, what=progress.what, done=progress.done, total=progress.total)
        self._progress = progress

    def finish(self) -> None:
        """Take note that the store is open, and what was left of earlier processes taken over."""
        self.done = True
        if self._progress is not None:
            self._emit(Event.MIGRATED, seconds=round(time.monotonic() - self._began_mono, 1))

    @property
    def reason(self) -> str:
        """Why nothing is taken yet, in words."""
        if self._progress is None:
            return "the store is being opened"
        percent = 100 * self._progress.done // max(1, self._progress.total)
        return f"migrating the database to this release's schema: {self._progress.what}, {percent} % done"


async def opened_before(opening: asyncio.Task[None], event: asyncio.Event) -> bool:
    """Wait until a store is open or the event is set; tell whether it is open. Raises what the opening does."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait((opening, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if opening.done():
        opening.result()
    return opening.done()
