"""How a worker process ended."""

from __future__ import annotations

import enum

import msgspec


class Cause(enum.StrEnum):
    """Why a worker ended."""

    DIED = "died"  #: by itself, or by a signal of its own making
    KILLED = "killed"  #: by a SIGKILL that was not ours, or with its fork server
    HUNG = "hung"  #: its loop gave no heartbeat
    OVERRAN = "overran"  #: a turn did not end with its timeout and grace
    UNSTOPPED = "unstopped"  #: a turn did not end after an interrupt and the grace
    DRAINED = "drained"  #: it was told to park its turns and end, or was killed because it did not in time


class Death(msgspec.Struct, frozen=True):
    """How a worker ended."""

    #: why
    cause: Cause
    #: number of the turn named for it, 0 where none is
    culprit: int = 0
    #: what is known of it, for people
    error: str = ""
    #: every thread's stack, empty where none was dumped
    stacks: str = ""
