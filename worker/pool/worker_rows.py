"""The worker table: how the pool looks from outside, put together from its parts."""

from __future__ import annotations

from worker.pool.dispatcher import Dispatcher
from worker.pool.processes.worker_process import WorkerProcess
from worker.pool.snapshot import PoolSnapshot, WorkerRow, WorkerState
from worker.pool.supervisor import Supervisor
from worker.pool.turns.turns import Turns


def worker_table(supervisor: Supervisor, dispatcher: Dispatcher, turns: Turns) -> PoolSnapshot:
    """Return every slot with its worker, and the workers that drain."""
    counts: dict[int, int] = {}
    for turn in turns:
        if turn.worker is not None:
            counts[turn.worker.pid] = counts.get(turn.worker.pid, 0) + 1
    holders: dict[int, WorkerProcess] = {}
    for holder in supervisor.workers:
        if holder.n is not None:
            # slots come first: a worker that drains shows only while nobody holds its slot
            holders.setdefault(holder.n, holder)
    rows = [
        worker_row(n, worker, counts.get(worker.pid, 0), dispatcher.sessions(n))
        if (worker := holders.get(n))
        else WorkerRow(n, 0, WorkerState.STARTING, 0, 0, 0, 0, 0.0, 0, 0, 0)
        for n in sorted({*holders, *supervisor.slots})
    ]
    running = sum(counts.values())
    return PoolSnapshot(tuple(rows), supervisor.spares, supervisor.restarts, running, len(turns) - running)


def worker_row(n: int, worker: WorkerProcess, turns: int, sessions: int) -> WorkerRow:
    """Return one worker's row."""
    report = worker.report
    return WorkerRow(
        n=n,
        pid=worker.pid,
        state=worker.state,
        turns=turns,
        turns_done=worker.turns_done,
        sessions=sessions,
        rss_bytes=report.rss_bytes,
        started_at=worker.started_at,
        cache_hits=report.cache_hits,
        cache_misses=report.cache_misses,
        cache_size=report.cache_size,
        log_writes=report.log_written,
        log_failures=report.log_failed,
        log_lost=report.log_lost,
        leaked_threads=report.leaked_threads,
    )
