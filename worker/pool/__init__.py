"""The parent wing: claims sessions, gives their turns to workers, settles what becomes of them."""

from worker.pool.pool import Pool
from worker.pool.snapshot import PoolSnapshot, TurnRow, WorkerRow, WorkerState
from worker.pool.turns.observer import TurnObserver

__all__ = ["Pool", "PoolSnapshot", "TurnObserver", "TurnRow", "WorkerRow", "WorkerState"]
