"""The quarantine: workers of their own in which suspects run, each alone.

One is opened for each suspect that comes, with a spare, and closed once none has come for a while.
"""

from __future__ import annotations

import time

from worker.pool.processes.worker_process import WorkerProcess, WorkerState
from worker.pool.supervisor import Supervisor
from worker.pool.turns.active_turn import ActiveTurn

#: suspects that run at the same time; those behind them wait in the store
WIDTH = 4
#: seconds without a suspect after which a worker ends
IDLE_S = 5.0


class Quarantine:
    """Owns the quarantine slots, the ``WIDTH`` numbers from ``first`` on, and the suspects that hold them."""

    def __init__(self, supervisor: Supervisor, first: int) -> None:
        self._supervisor = supervisor
        self._slots = range(first, first + WIDTH)
        self._turns: dict[int, ActiveTurn] = {}
        self._free_since: dict[int, float] = {}

    @property
    def room(self) -> int:
        """How many more suspects may come."""
        return len(self._slots) - len(self._turns)

    def __contains__(self, n: int) -> bool:
        """Tell whether this is the number of a quarantine slot."""
        return n in self._slots

    def admit(self, turn: ActiveTurn) -> WorkerProcess | None:
        """Take a suspect; return the worker it can run in now, None if one is being made ready."""
        free = [n for n in self._slots if n not in self._turns]
        n = next((n for n in free if self._worker(n)), free[0])
        self._turns[n] = turn
        self._supervisor.add_slot(n)
        return self._worker(n)

    def placed(self, n: int, worker: WorkerProcess) -> ActiveTurn | None:
        """Take the worker that is ready; return the suspect that waits for it."""
        worker.state = WorkerState.QUARANTINE
        turn = self._turns.get(n)
        return turn if turn is not None and turn.worker is None else None

    def leave(self, turn: ActiveTurn) -> None:
        """Forget a turn that is done or whose worker ended, if it was here."""
        for n, held in list(self._turns.items()):
            if held is turn:
                del self._turns[n]
                self._free_since[n] = time.monotonic()

    def close_idle(self) -> None:
        """End the workers to whom no suspect has come for a while."""
        now = time.monotonic()
        for n in self._slots:
            idle = n in self._supervisor.slots and n not in self._turns
            if idle and now - self._free_since.get(n, 0.0) > IDLE_S:
                self._supervisor.remove_slot(n)

    def _worker(self, n: int) -> WorkerProcess | None:
        worker = self._supervisor.slots.get(n)
        return worker if worker is not None and worker.usable else None
