"""Writes what turns did: checkpoints behind them in batches, then their outcome; tried until committed or stale.

Each turn's writes are in order; those of different turns share the store's commits. A finished turn stays in memory
while the store is away.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass, field

from shared.errors import StaleClaim
from shared.messages import Dead, Ended, Outcome, Step
from shared.store.port import Claims
from worker.pool.outage import Outage
from worker.pool.turns import Turn


@dataclass(slots=True)
class Page:
    """What is to be written of one turn."""

    turn: Turn
    steps: list[Step] = field(default_factory=list)
    outcome: Outcome | None = None


class Ledger:
    """Owns the unwritten steps and outcomes.

    ``on_settled`` is called after an outcome's commit, ``on_stale`` when a write came too late: the claim is another's.
    """

    def __init__(
        self,
        claims: Claims,
        outage: Outage,
        on_settled: Callable[[Turn, Outcome], None],
        on_stale: Callable[[Turn], None],
    ) -> None:
        self._claims = claims
        self._outage = outage
        self._on_settled = on_settled
        self._on_stale = on_stale
        self._pages: dict[int, Page] = {}
        self._writers: set[asyncio.Task[None]] = set()

    @property
    def unwritten(self) -> int:
        """Count the turns with something to write."""
        return len(self._pages)

    def checkpoint(self, turn: Turn, step: Step) -> None:
        """Have a finished step written, with others of its turn that wait."""
        self._page(turn).steps.append(step)

    def settle(self, turn: Turn, outcome: Outcome) -> None:
        """Have the outcome written after the steps that wait."""
        page = self._page(turn)
        page.outcome = outcome
        if isinstance(outcome, Ended | Dead):
            # settling removes the checkpoints, so those that wait need not be written first
            page.steps.clear()

    async def flush(self, within_s: float) -> bool:
        """Wait until all is written; False if it is not within this many seconds."""
        try:
            async with asyncio.timeout(within_s):
                while self._writers:
                    await asyncio.wait(self._writers)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Stop trying; what is not written is left to the leases' end."""
        for writer in list(self._writers):
            writer.cancel()
        await asyncio.gather(*self._writers, return_exceptions=True)

    def _page(self, turn: Turn) -> Page:
        page = self._pages.get(turn.number)
        if page is None:
            page = self._pages[turn.number] = Page(turn)
            writer = asyncio.get_running_loop().create_task(self._write(page))
            self._writers.add(writer)
            writer.add_done_callback(self._writers.discard)
        return page

    async def _write(self, page: Page) -> None:
        """Write a page until nothing of it waits."""
        turn = page.turn
        try:
            while page.steps:
                batch, page.steps = page.steps, []
                await self._outage.outlast(functools.partial(self._claims.checkpoint, turn.ref, batch))
            # from here to the end of the settle no step can come: an outcome is a turn's last word
            del self._pages[turn.number]
            if page.outcome is not None:
                await self._outage.outlast(functools.partial(self._claims.settle, turn.ref, page.outcome))
                self._on_settled(turn, page.outcome)
        except StaleClaim:
            self._pages.pop(turn.number, None)
            self._on_stale(turn)
