"""Looks after workers and turns several times a second: finds what hangs, and what should be replaced."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from shared.settings import Settings
from worker.pool.faults import fault_text
from worker.pool.processes.death import Cause, Death
from worker.pool.processes.worker_process import WorkerProcess, WorkerState
from worker.pool.turns.active_turn import ActiveTurn

#: seconds between two looks, while turns run in workers and while none does
LOOK_S = 0.1
IDLE_LOOK_S = 0.25
#: a look that comes this late says that this process stood still: then nobody is judged for as long again
LATE_S = 1.0
MIB = 1024 * 1024
PAST = {
    Cause.OVERRAN: "the turn went on past its timeout and grace",
    Cause.UNSTOPPED: "the turn went on past its interrupt and grace",
}


class Limits(msgspec.Struct, frozen=True):
    """What is too long and too much."""

    #: the longest a turn may take, in seconds
    turn_timeout_s: float
    #: how long one that was told to end may go on, in seconds
    kill_grace_s: float
    #: how long a worker's loop may be silent, in seconds
    heartbeat_timeout_s: float
    #: resident memory past which a worker is replaced
    memory_bytes: int
    #: turns after which a worker is replaced
    turns: int

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Read them from the settings."""
        return cls(
            settings.turn_timeout_s,
            settings.kill_grace_s,
            settings.heartbeat_timeout_s,
            settings.worker_memory_mib * MIB,
            settings.worker_turns,
        )


class Heartbeat(msgspec.Struct, frozen=True):
    """What a worker's shared page says."""

    #: number of the turn whose code runs, 0 for none
    running: int
    #: when its loop ran last, on the monotonic clock
    beat_mono: float


class Hung(msgspec.Struct, frozen=True):
    """A worker is to be killed."""

    #: which
    worker: WorkerProcess
    #: what for
    death: Death


class Worn(msgspec.Struct, frozen=True):
    """A worker is to be replaced."""

    #: which
    worker: WorkerProcess
    #: why, for people
    reason: str


Finding = Hung | Worn


def ran_out(limits: Limits, turn: ActiveTurn, now: float) -> Cause | None:
    """Return for what a turn's time and grace are over, None while they are not."""
    if now - turn.started_mono > limits.turn_timeout_s + limits.kill_grace_s:
        return Cause.OVERRAN
    if turn.interrupted_mono is not None and now - turn.interrupted_mono > limits.kill_grace_s:
        return Cause.UNSTOPPED
    return None


def was_told(limits: Limits, turn: ActiveTurn, pulse: Heartbeat) -> bool:
    """Tell whether a turn's end has reached it: the loop ran on for a while then, or it holds up the loop itself."""
    told_mono = turn.started_mono + limits.turn_timeout_s
    if turn.interrupted_mono is not None:
        told_mono = min(told_mono, turn.interrupted_mono)
    return pulse.running == turn.number or pulse.beat_mono > told_mono + limits.kill_grace_s / 2


def hang_cause(limits: Limits, pulse: Heartbeat, turns: Sequence[ActiveTurn], now: float) -> Death | None:
    """Return what a worker is to be killed for; None if it may live.

    A turn that was told that its time is over and goes on hangs. One that cannot hear it, because another holds up
    the loop, is innocent: that one's own end, or the heartbeat's, ends the worker.
    """
    if len(turns) == 1:
        # who runs alone holds up the loop, named or not
        pulse = Heartbeat(turns[0].number, pulse.beat_mono)
    silent_s = now - pulse.beat_mono
    over = [(cause, turn) for turn in turns if (cause := ran_out(limits, turn, now))]
    for cause, turn in over:
        if was_told(limits, turn, pulse):
            return Death(cause, turn.number, PAST[cause])
    if silent_s > limits.heartbeat_timeout_s:
        return Death(Cause.HUNG, pulse.running, f"the worker gave no heartbeat for {silent_s:.1f} s")
    holder = next((turn for turn in turns if turn.number == pulse.running), None)
    if over and (holder is None or any(cause is Cause.UNSTOPPED for cause, _ in over)):
        return Death(Cause.HUNG, pulse.running, f"the worker's loop did not run for {silent_s:.1f} s")
    return None


class HangDetector:
    """Owns the look; it decides nothing about turns, it only tells who hangs and who is worn out."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._looked_mono = self._judge_from_mono = time.monotonic()

    def look(self, workers: Iterable[WorkerProcess], turns: Sequence[ActiveTurn]) -> Iterator[Finding]:
        """Look at every worker with the turns that it runs; to be done every LOOK_S seconds, or IDLE_LOOK_S."""
        now = time.monotonic()
        if now - self._looked_mono >= LATE_S:
            # the workers may have stood still too, and beat again only when they are scheduled
            self._judge_from_mono = now + LATE_S
        self._looked_mono = now
        if now < self._judge_from_mono:
            return
        for worker in workers:
            if not worker.usable:
                continue
            try:
                findings: list[Finding] = list(
                    self._look_at(worker, [turn for turn in turns if turn.worker is worker], now)
                )
            except Exception as error:  # noqa: BLE001 - a worker that nobody can watch must not keep others unwatched
                findings = [Hung(worker, Death(Cause.HUNG, error=f"it cannot be watched: {fault_text(error)}"))]
            yield from findings

    def _look_at(self, worker: WorkerProcess, turns: Sequence[ActiveTurn], now: float) -> Iterator[Finding]:
        pulse = Heartbeat(worker.page.running(), now - worker.page.beat_age_s())
        for turn in turns:
            turn.overdue = ran_out(self._limits, turn, now) is not None and was_told(self._limits, turn, pulse)
        if death := hang_cause(self._limits, pulse, turns, now):
            if worker.stopped:
                death = Death(Cause.KILLED, error="the worker was stopped from outside")
            yield Hung(worker, death)
        elif worker.state is WorkerState.READY and (reason := self._wear(worker)):
            yield Worn(worker, reason)

    def _wear(self, worker: WorkerProcess) -> str:
        if not worker.turns_done:
            # where a new worker is over the limit already, replacing it would go on for ever and run nothing
            return ""
        report = worker.report
        if report.leaked_threads:
            return f"{report.leaked_threads} hung tool threads"
        if report.rss_bytes > self._limits.memory_bytes:
            return f"{report.rss_bytes // MIB} MiB of memory"
        return f"{worker.turns_done} turns" if worker.turns_done >= self._limits.turns else ""
