"""Whether a turn waits: the pool gives the place of one that does to another turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from shared.usage import NOTHING, Usage
from worker.agent.pool_channel import PoolChannel
from worker.frames import TurnGoesOn, TurnWaits

#: a wait is told to the pool when it has lasted so long, in seconds: shorter ones keep nobody from a place
WAIT_TOLD_S = 0.005


class TurnWait:
    """Tells the pool that a turn waits, and that it goes on; calls that wait side by side are one wait."""

    def __init__(self, turn: int, pool: PoolChannel) -> None:
        self._turn = turn
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._waits: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_told = False
        self._usage = NOTHING

    @contextlib.contextmanager
    def waiting(self, waits_for: str) -> Iterator[None]:
        """Count the body as a wait for this; one that is over very soon is not told."""
        if not self._waits:
            self._timer = self._loop.call_later(WAIT_TOLD_S, self._tell)
        self._waits.append(waits_for)
        try:
            yield
        finally:
            self._waits.remove(waits_for)
            if not self._waits:
                self._go_on()

    def call_sent(self, usage: Usage) -> None:
        """Take what the step has used if the model call that goes out is cut off."""
        self._usage = usage
        self.tell_again()

    def tell_again(self) -> None:
        """Tell the pool that the turn waits still, if it does."""
        if self._is_told:
            self._tell()

    def _tell(self) -> None:
        self._timer = None
        self._is_told = True
        self._pool.send(TurnWaits(self._turn, self._waits[0], self._usage))

    def _go_on(self) -> None:
        self._usage = NOTHING
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_told:
            self._is_told = False
            self._pool.send(TurnGoesOn(self._turn))
