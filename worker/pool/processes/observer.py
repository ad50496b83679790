"""Who is told what workers do."""

from __future__ import annotations

from typing import Protocol

from worker.frames import ToPool
from worker.pool.processes.worker_process import WorkerProcess
from worker.pool.turns.crash_policy import Death


class WorkerObserver(Protocol):
    """Who is told what workers do; called on the loop, never blocks."""

    def worker_placed(self, worker: WorkerProcess) -> None:
        """A ready worker took the slot ``worker.n``."""

    def worker_said(self, worker: WorkerProcess, frame: ToPool) -> None:
        """A frame came."""

    def worker_writable(self, worker: WorkerProcess) -> None:
        """The channel of a worker is not full any more."""

    def worker_ended(self, worker: WorkerProcess, death: Death) -> None:
        """The process is gone and its last frame was handed over; the slot is filled again after this returns."""
