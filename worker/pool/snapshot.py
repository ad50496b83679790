"""How the pool looks from outside: the rows of the worker table."""

from __future__ import annotations

import enum

import msgspec


class WorkerState(enum.StrEnum):
    """Where a worker is in its life."""

    STARTING = "starting"  #: no worker is ready in this slot yet
    SPARE = "spare"  #: ready, holds no slot
    READY = "ready"  #: takes turns
    QUARANTINE = "quarantine"  #: runs suspects, one at a time
    DRAINING = "draining"  #: parks its turns, then ends
    DYING = "dying"  #: being killed


class WorkerRow(msgspec.Struct, frozen=True):
    """One slot of the pool, or a worker that drains; ``turns`` run now, ``started_at`` is unix seconds, 0 if none."""

    n: int
    pid: int
    state: WorkerState
    turns: int
    turns_done: int
    sessions: int
    rss_bytes: int
    started_at: float
    cache_hits: int
    cache_misses: int
    cache_size: int
    log_writes: int = 0
    log_failures: int = 0
    log_lost: int = 0
    leaked_threads: int = 0


class PoolSnapshot(msgspec.Struct, frozen=True):
    """The pool at one moment: its workers, how many spares are ready, how many workers had to be replaced so far."""

    workers: tuple[WorkerRow, ...]
    spares: int
    restarts: int
    running: int = 0
    waiting: int = 0


class TurnRow(msgspec.Struct, frozen=True):
    """A turn that runs now: ``started_at`` is unix seconds, ``step`` counts from 1, ``tool`` is the last one begun."""

    message_id: str
    session: str
    worker: int | None
    started_at: float
    step: int
    tool: str
    attempt: int
