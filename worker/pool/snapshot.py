"""How the pool looks from outside: the rows of the worker table, put together from its parts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from worker.mcp_server import McpStatus
from worker.pool.dispatcher import Dispatcher
from worker.pool.processes.worker_process import WorkerProcess, WorkerState
from worker.pool.supervisor import Supervisor
from worker.pool.turns.active_turn import ActiveTurn, TurnRow
from worker.pool.turns.turns import Turns, longest_waiting


class WorkerRow(msgspec.Struct, frozen=True):
    """One slot of the pool, or a worker that drains."""

    #: number of the slot
    n: int
    #: its process, 0 while there is none
    pid: int
    #: where it is in its life
    state: WorkerState
    #: turns that run in it now
    turns: int
    #: turns it has run
    turns_done: int
    #: sessions that stay with it
    sessions: int
    #: resident memory
    rss_bytes: int
    #: unix seconds, 0 while there is none
    started_at: float
    #: turns whose conversation it held
    cache_hits: int
    #: turns whose conversation it did not hold
    cache_misses: int
    #: sessions it holds
    cache_size: int
    #: writes to session logs
    log_writes: int = 0
    #: writes to session logs that are to be tried again
    log_failures: int = 0
    #: lines of session logs that nobody could write
    log_lost: int = 0
    #: threads of tools that were given up and go on
    leaked_threads: int = 0
    #: how late its loop ran a timer at the most in the last half minute, or is now, in seconds
    loop_lag_s: float = 0.0
    #: how its MCP servers are, in the order of the configuration
    mcp: tuple[McpStatus, ...] = ()
    #: those of its turns that wait for a model or a tool
    waiting: int = 0
    #: where it holds as many turns as it may: the turns that have waited longest
    longest_waiting: tuple[TurnRow, ...] = ()


class PoolSnapshot(msgspec.Struct, frozen=True):
    """The pool at one moment."""

    #: every slot, and workers that drain where nobody holds theirs
    workers: tuple[WorkerRow, ...]
    #: spares that are ready
    spares: int
    #: workers that ended without being asked to, so far
    restarts: int
    #: turns that run in a worker
    running: int = 0
    #: turns that were claimed and wait for a slot
    waiting: int = 0
    #: how the MCP servers are that all workers share, in the order of the configuration
    mcp: tuple[McpStatus, ...] = ()


def take_snapshot(
    supervisor: Supervisor, dispatcher: Dispatcher, turns: Turns, mcp: tuple[McpStatus, ...] = ()
) -> PoolSnapshot:
    """Return every slot with its worker, the workers that drain, and the servers that they share."""
    running: dict[WorkerProcess, list[ActiveTurn]] = {}
    for turn in turns:
        if turn.worker is not None:
            running.setdefault(turn.worker, []).append(turn)
    holders: dict[int, WorkerProcess] = {}
    for holder in supervisor.workers:
        if holder.n is not None:
            # slots come first: a worker that drains shows only while nobody holds its slot
            holders.setdefault(holder.n, holder)
    held_up = dispatcher.held_up()
    rows = [
        worker_row(worker, n, running.get(worker, []), dispatcher.sessions(n), held_up=n in held_up)
        if (worker := holders.get(n))
        else WorkerRow(n, 0, WorkerState.STARTING, 0, 0, 0, 0, 0.0, 0, 0, 0)
        for n in sorted({*holders, *supervisor.slots})
    ]
    count = sum(len(those) for those in running.values())
    return PoolSnapshot(tuple(rows), len(supervisor.spares), supervisor.restarts, count, len(turns) - count, mcp)


def turn_rows(turns: Turns, limit: int) -> list[TurnRow]:
    """Return up to ``limit`` turns as they look from outside, those that have run longest first."""
    return sorted((turn.row() for turn in turns), key=lambda row: row.started_at or math.inf)[:limit]


def worker_row(
    worker: WorkerProcess, n: int, turns: Sequence[ActiveTurn], sessions: int, *, held_up: bool
) -> WorkerRow:
    """Return one worker's row."""
    report = worker.report
    return WorkerRow(
        n=n,
        pid=worker.pid,
        state=worker.state,
        turns=len(turns),
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
        loop_lag_s=worker.loop_lag_s,
        mcp=report.mcp,
        waiting=sum(bool(turn.waits_for) for turn in turns),
        longest_waiting=longest_waiting(turns, n) if held_up else (),
    )
