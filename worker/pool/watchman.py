"""Looks after workers and turns several times a second: finds what hangs, and what should be replaced."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import msgspec

from shared.settings import Settings
from worker.pool.active_turn import ActiveTurn
from worker.pool.process import WorkerProcess
from worker.pool.snapshot import WorkerState
from worker.pool.verdict import Cause, Death

#: seconds between two looks
LOOK_S = 0.1
#: a look that comes this late says that this process stood still: then nobody is judged for as long again
LATE_S = 1.0
#: turns after which a worker is replaced, so that nothing it leaks grows for ever
TURNS_LIMIT = 5_000
MIB = 1024 * 1024


class Limits(msgspec.Struct, frozen=True):
    """What is too long and too much; seconds and bytes."""

    turn_timeout_s: float
    kill_grace_s: float
    heartbeat_timeout_s: float
    memory_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Read them from the settings."""
        return cls(
            settings.turn_timeout_s,
            settings.kill_grace_s,
            settings.heartbeat_timeout_s,
            settings.worker_memory_mib * MIB,
        )


class Watchman:
    """Owns the look; it decides nothing about turns, it only tells who hangs and who is worn out.

    ``workers`` and ``turns`` are asked anew at each look; ``on_hung`` gets a worker and its death sentence, ``on_worn``
    a worker that should be replaced, ``on_look`` is called at the end of each look.
    """

    def __init__(
        self,
        limits: Limits,
        workers: Callable[[], Iterable[WorkerProcess]],
        turns: Callable[[], Iterable[ActiveTurn]],
        *,
        on_hung: Callable[[WorkerProcess, Death], None],
        on_worn: Callable[[WorkerProcess, str], object],
        on_look: Callable[[], None],
    ) -> None:
        self._limits = limits
        self._workers = workers
        self._turns = turns
        self._on_hung = on_hung
        self._on_worn = on_worn
        self._on_look = on_look

    async def watch(self) -> None:
        """Look, for ever."""
        before = time.monotonic()
        judge_from = before
        while True:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            if now - before >= LATE_S:
                # the workers may have stood still too, and beat again only when they are scheduled
                judge_from = now + LATE_S
            if now >= judge_from:
                self._look(now)
            before = now

    def _look(self, now: float) -> None:
        for worker in list(self._workers()):
            if worker.usable:
                self._look_at(worker)
        for turn in list(self._turns()):
            if turn.worker is not None and turn.worker.usable:
                turn.overdue = self._over_s(turn, now) > 0
                self._look_at_turn(turn, turn.worker, now)
        self._on_look()

    def _look_at(self, worker: WorkerProcess) -> None:
        silent_s = worker.page.beat_age_s()
        if silent_s > self._limits.heartbeat_timeout_s:
            error = f"the worker gave no heartbeat for {silent_s:.1f} s"
            self._on_hung(worker, Death(Cause.HUNG, worker.page.running(), error))
        elif worker.state is WorkerState.READY and (reason := self._wear(worker)):
            self._on_worn(worker, reason)

    def _over_s(self, turn: ActiveTurn, now: float) -> float:
        return now - turn.started_mono - self._limits.turn_timeout_s - self._limits.kill_grace_s

    def _wear(self, worker: WorkerProcess) -> str:
        if not worker.turns_done:
            # where a new worker is over the limit already, replacing it would go on for ever and run nothing
            return ""
        report = worker.report
        if report.leaked_threads:
            return f"{report.leaked_threads} hung tool threads"
        if report.rss_bytes > self._limits.memory_bytes:
            return f"{report.rss_bytes // MIB} MiB of memory"
        return f"{worker.turns_done} turns" if worker.turns_done >= TURNS_LIMIT else ""

    def _look_at_turn(self, turn: ActiveTurn, worker: WorkerProcess, now: float) -> None:
        if turn.overdue:
            error = "the turn went on past its timeout and grace"
            self._on_hung(worker, Death(Cause.OVERRAN, turn.number, error))
        elif turn.interrupted_mono is not None and now - turn.interrupted_mono > self._limits.kill_grace_s:
            error = "the turn went on past its interrupt and grace"
            self._on_hung(worker, Death(Cause.UNSTOPPED, turn.number, error))
