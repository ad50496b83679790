"""The heartbeats of a worker's loop, and how late they come: a loop that is held up beats late."""

from __future__ import annotations

import asyncio
import time

from worker.shared_page import SharedPage

#: seconds between two beats until the configuration says
FIRST_BEAT_S = 0.1
#: how long the latest beat counts, in seconds: at the least, and twice this at the most
LAG_WINDOW_S = 15.0


class Heartbeats:
    """Owns the timer that beats; ``interval_s`` may be set at any time and holds from the next beat on."""

    def __init__(self, page: SharedPage, loop: asyncio.AbstractEventLoop) -> None:
        self.interval_s = FIRST_BEAT_S
        self._page = page
        self._loop = loop
        self._due_mono = time.monotonic()
        self._window_ends_mono = self._due_mono + LAG_WINDOW_S
        self._worst_s = self._worst_before_s = 0.0

    def forget_lag(self) -> None:
        """Count lateness from now on: what held up the loop before it was ready held up nobody."""
        self._due_mono = time.monotonic() + self.interval_s
        self._worst_s = self._worst_before_s = 0.0

    def beat(self) -> None:
        """Beat, and go on beating."""
        now = time.monotonic()
        if now >= self._window_ends_mono:
            self._window_ends_mono = now + LAG_WINDOW_S
            self._worst_before_s, self._worst_s = self._worst_s, 0.0
        self._worst_s = max(self._worst_s, now - self._due_mono)
        self._page.beat(self.interval_s, max(self._worst_s, self._worst_before_s))
        self._due_mono = now + self.interval_s
        self._loop.call_later(self.interval_s, self.beat)
