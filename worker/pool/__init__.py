"""The parent wing: claims sessions, gives their turns to workers, settles what becomes of them."""

from worker.pool.listener import TurnListener
from worker.pool.pool import Pool
from worker.pool.snapshot import PoolSnapshot, TurnRow, WorkerRow, WorkerState

__all__ = ["Pool", "PoolSnapshot", "TurnListener", "TurnRow", "WorkerRow", "WorkerState"]
