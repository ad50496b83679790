"""Where suspects run: one at a time, alone in a worker of their own, which ends when no suspect is left."""

from __future__ import annotations

from collections.abc import Callable

from worker.pool.process import WorkerProcess
from worker.pool.snapshot import WorkerState
from worker.pool.supervisor import Supervisor
from worker.pool.turns import Turn


class Quarantine:
    """Owns the quarantine slot; ``run`` sends a turn to a worker."""

    def __init__(self, slot: int, supervisor: Supervisor, run: Callable[[Turn, WorkerProcess], None]) -> None:
        self.slot = slot
        self._supervisor = supervisor
        self._run = run
        self._turn: Turn | None = None

    @property
    def free(self) -> bool:
        """Tell whether a suspect may come."""
        return self._turn is None

    @property
    def waiting(self) -> Turn | None:
        """The suspect that has no worker yet."""
        return self._turn if self._turn is not None and not self._turn.running else None

    def take(self, turn: Turn) -> None:
        """Run a suspect as soon as the slot has a worker."""
        self._turn = turn
        worker = self._supervisor.slots.get(self.slot)
        if worker is not None and worker.usable:
            self._run(turn, worker)
        else:
            self._supervisor.add_slot(self.slot)

    def placed(self, worker: WorkerProcess) -> None:
        """Use the worker that took the slot."""
        worker.state = WorkerState.QUARANTINE
        if turn := self.waiting:
            self._run(turn, worker)

    def finish(self, turn: Turn) -> None:
        """Forget a suspect that came to an end."""
        if self._turn is turn:
            self._turn = None

    def retire(self) -> None:
        """Give the slot up while no suspect is here."""
        if self._turn is None and self.slot in self._supervisor.slots:
            self._supervisor.remove_slot(self.slot)
