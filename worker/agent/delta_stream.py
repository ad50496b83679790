"""The text of a running turn on its way to the pool: gathered for a moment, in larger pieces for one that is behind."""

from __future__ import annotations

import asyncio

from worker.agent.pool_channel import PoolChannel
from worker.frames import Delta

#: seconds between two Delta frames of one turn at the least
DELTA_INTERVAL_S = 0.02


class DeltaStream:
    """Sends one turn's text as Delta frames; without readers (``is_read``) it sends none."""

    def __init__(self, turn: int, pool: PoolChannel, *, is_read: bool) -> None:
        self._turn = turn
        self._pool = pool
        self._is_read = is_read
        self._loop = asyncio.get_running_loop()
        self._unsent: list[str] = []
        self._step = 0
        self._restarts = False
        self._timer: asyncio.TimerHandle | None = None
        self._sent_at = 0.0

    def add(self, step: int, text: str) -> None:
        """Take more text of a step."""
        if not self._is_read:
            return
        self._unsent.append(text)
        self._step = step
        if self._timer is None:
            self._timer = self._loop.call_at(max(self._loop.time(), self._sent_at + DELTA_INTERVAL_S), self.flush)

    def restart(self, step: int) -> None:
        """Take back what was added of a step: it begins again."""
        self._unsent.clear()
        self._restarts = True
        self.add(step, "")

    def flush(self, *, last: bool = False) -> None:
        """Send what waits; behind the ``last`` text there comes an outcome that brings all of it anyway."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._unsent or (self._pool.full and last):
            return
        if self._pool.full:
            self._timer = self._loop.call_later(DELTA_INTERVAL_S, self.flush)
            return
        self._pool.send(Delta(self._turn, self._step, "".join(self._unsent), self._restarts))
        self._unsent.clear()
        self._restarts = False
        self._sent_at = self._loop.time()
