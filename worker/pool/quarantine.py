"""The quarantine: one worker of its own in which suspects run, one at a time and alone.

It is opened for the first suspect, with a spare, and closed once none has come for a while.
"""

from __future__ import annotations

import time

from worker.pool.active_turn import ActiveTurn
from worker.pool.process import WorkerProcess
from worker.pool.snapshot import WorkerState
from worker.pool.supervisor import Supervisor

#: seconds without a suspect after which its worker ends
IDLE_S = 5.0


class Quarantine:
    """Owns the quarantine slot, number ``n``, and the suspect that holds it."""

    def __init__(self, supervisor: Supervisor, n: int) -> None:
        self._supervisor = supervisor
        self.n = n
        self.turn: ActiveTurn | None = None
        self._free_since = 0.0

    @property
    def is_free(self) -> bool:
        """Tell whether a suspect may come."""
        return self.turn is None

    @property
    def worker(self) -> WorkerProcess | None:
        """The worker that waits for its suspect or runs it, None while none is ready."""
        worker = self._supervisor.slots.get(self.n)
        return worker if worker is not None and worker.usable else None

    def admit(self, turn: ActiveTurn) -> WorkerProcess | None:
        """Take a suspect; return the worker it can run in now, None if one is being made ready."""
        self.turn = turn
        self._supervisor.add_slot(self.n)
        return self.worker

    def placed(self, worker: WorkerProcess) -> ActiveTurn | None:
        """Take the worker that is ready; return the suspect that waits for it."""
        worker.state = WorkerState.QUARANTINE
        return self.turn if self.turn is not None and self.turn.worker is None else None

    def leave(self, turn: ActiveTurn) -> bool:
        """Forget a suspect that is done or whose worker ended; tell whether it was here."""
        if self.turn is not turn:
            return False
        self.turn, self._free_since = None, time.monotonic()
        return True

    def close_if_idle(self) -> None:
        """End the worker if no suspect has come for a while."""
        idle_s = time.monotonic() - self._free_since
        if self.turn is None and self.n in self._supervisor.slots and idle_s > IDLE_S:
            self._supervisor.remove_slot(self.n)
