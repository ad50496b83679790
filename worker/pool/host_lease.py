"""The lease of this host in a database that many hosts share: one beat a second, and what becomes of turns without it.

    age of the last beat that was answered, in parts of the lease
    0 ────────── 0.7 ─────────────── 0.9 ──────────── 1
      turns run      turns are ended     workers die    another host may run the turns

The age counts from when the beat was sent, on the monotonic clock: the database may have taken it as early as that.
"""

from __future__ import annotations

import contextlib
import enum
import time

import msgspec

from shared.hosts import Beat, HostNews, LiveHost
from shared.messages import ClaimRef
from shared.signals import Signal
from shared.store.port import Store

#: how long a host is believed to live without a beat, in seconds
LEASE_S = 10.0
BEAT_EVERY_S = 1.0
#: the parts of the lease after which turns are ended, and workers killed
END_TURNS_AT = 0.7
KILL_WORKERS_AT = 0.9


class Fence(enum.IntEnum):
    """What a host may still do without an answer to its beats."""

    OPEN = 0  #: everything
    TURNS_ENDED = 1  #: run nothing: its turns are told to end
    WORKERS_KILLED = 2  #: nothing that has not ended may go on


class HostLease:
    """Owns the beats of this host; ``gateway`` says whether it accepts messages, ``workers`` how many it has."""

    def __init__(self, store: Store, host: str, *, gateway: bool, workers: int) -> None:
        self._store = store
        self._host = host
        self._gateway = gateway
        self._workers = workers
        self._renewed_mono: float | None = None
        self._hosts: tuple[LiveHost, ...] = ()

    @property
    def shared(self) -> bool:
        """Whether other hosts may use the database; without them there is nothing to renew."""
        return self._store.engine.shared

    @property
    def ends_mono(self) -> float:
        """When nothing of this host may go on any more, on the monotonic clock; 0 where it needs no lease."""
        return 0.0 if self._renewed_mono is None else self._renewed_mono + KILL_WORKERS_AT * LEASE_S

    @property
    def fence(self) -> Fence:
        """What this host may still do."""
        if self._renewed_mono is None:
            return Fence.OPEN
        age = (time.monotonic() - self._renewed_mono) / LEASE_S
        return Fence((age >= END_TURNS_AT) + (age >= KILL_WORKERS_AT))

    @property
    def others(self) -> tuple[LiveHost, ...]:
        """The other hosts that have workers and lived at the last beat."""
        return tuple(one for one in self._hosts if one.workers and one.host != self._host)

    @property
    def rows(self) -> tuple[HostRow, ...]:
        """Every host that lived at the last beat, this one too; none on a database of one host."""
        return tuple(host_row(one) for one in self._hosts)

    async def beat(self, view: HostView | None = None) -> HostNews:
        """Renew the lease, or join; return what this host has to know. Raises StoreUnavailable."""
        sent_mono = time.monotonic()
        snapshot = msgspec.json.encode(view) if view else b""
        beat = Beat(self._host, self._gateway, self._workers, snapshot=snapshot)
        news = await self._store.hosts.beat(beat, LEASE_S)
        self._renewed_mono, self._hosts = sent_mono, news.hosts
        return news

    async def held(self) -> list[ClaimRef]:
        """Return what this host has claimed as the database has it. Raises StoreUnavailable."""
        return await self._store.claims.held(self._host)

    def tell_others(self, signal: Signal) -> None:
        """Signal every other host with workers, without waiting."""
        for one in self.others:
            self._store.signals.send(one.host, signal)

    async def leave(self) -> None:
        """End the lease: what is left is free at once. Raises StoreUnavailable."""
        await self._store.hosts.leave(self._host)


class HostView(msgspec.Struct, frozen=True):
    """What other hosts see of this one."""

    #: turns that run
    running: int
    #: turns that were claimed and wait for a slot
    waiting: int


class HostRow(msgspec.Struct, frozen=True):
    """One live host, as the worker table shows it."""

    #: its id
    host: str
    #: whether it accepts messages
    gateway: bool
    #: how many workers it has
    workers: int
    #: when it joined, in unix seconds
    joined_at: float
    #: turns that run there
    running: int
    #: turns that were claimed there and wait for a slot
    waiting: int


def host_row(live: LiveHost) -> HostRow:
    """Return a host's row; one that has not told how it is has nothing to do yet."""
    view = HostView(0, 0)
    if live.snapshot:
        with contextlib.suppress(msgspec.DecodeError):  # of another release
            view = msgspec.json.decode(live.snapshot, type=HostView)
    return HostRow(live.host, live.gateway, live.workers, live.joined_at, view.running, view.waiting)
