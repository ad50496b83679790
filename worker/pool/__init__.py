"""The parent wing: claims sessions, gives their turns to workers, settles what becomes of them."""

from worker.pool.host_lease import HostRow
from worker.pool.pool import Pool
from worker.pool.processes.worker_process import WorkerState
from worker.pool.snapshot import PoolSnapshot, WorkerRow
from worker.pool.turns.active_turn import TurnRow
from worker.pool.turns.observer import TurnObserver

__all__ = ["HostRow", "Pool", "PoolSnapshot", "TurnObserver", "TurnRow", "WorkerRow", "WorkerState"]
