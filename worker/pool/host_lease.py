"""The lease of this host in a database that many hosts share: one beat a second, and what becomes of turns without it.

    age of the last beat that was answered, in parts of the lease
    0 ────────── 0.7 ─────────────── 0.9 ──────────── 1
      turns run      turns are ended     workers die    another host may run the turns

The age counts from when the beat was sent, on the monotonic clock: the database may have taken it as early as that.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import math
import time

import msgspec
from cachetools import LRUCache

from shared.hosts import REMOVALS_LIMIT, Beat, ChatOwner, HostNews, LiveHost, Removal
from shared.messages import ClaimRef
from shared.signals import Signal
from shared.store.port import Store
from worker.pool.snapshot import PoolSnapshot
from worker.pool.turns.active_turn import TurnRow

#: how long a host is believed to live without a beat, in seconds
LEASE_S = 10.0
BEAT_EVERY_S = 1.0
#: how long after a gateway has joined or left another may not know of it, in seconds: none sends by an older beat
SEEN_S = 3.0
#: how long the transaction of a removal may take to be seen after its time, in seconds
LATE_S = 60.0
#: removals that are remembered, so that none is told twice
MOST_HEARD = 10_000
#: the parts of the lease after which turns are ended, and workers killed
END_TURNS_AT = 0.7
KILL_WORKERS_AT = 0.9


#: gateways that live by their id, each with the platforms that it has on, None where it does not tell them
Gateways = dict[str, tuple[str, ...] | None]


class Fence(enum.IntEnum):
    """What a host may still do without an answer to its beats."""

    OPEN = 0  #: everything
    TURNS_ENDED = 1  #: run nothing: its turns are told to end
    WORKERS_KILLED = 2  #: nothing that has not ended may go on


class HostLease:
    """Owns the beats of this host; ``gateway`` says whether it accepts messages, ``workers`` how many it has."""

    def __init__(self, store: Store, host: str, *, gateway: bool, workers: int) -> None:
        self._store = store
        self.host = host  #: this one's id
        self._gateway = gateway
        self._workers = workers
        self._renewed_mono: float | None = None
        self._hosts: tuple[LiveHost, ...] = ()
        self._gateways: Gateways = {}
        self._gateways_before: Gateways = {}
        self._gateways_changed_mono = -math.inf
        self.joined_mono: float | None = None  #: when it joined other gateways, None where there were none
        self._watchers: dict[str, tuple[str, ...]] = {}
        self._heard_until = 0.0
        self._heard: LRUCache[Removal, bool] = LRUCache(MOST_HEARD)

    @property
    def shared(self) -> bool:
        """Whether other hosts may use the database; without them there is nothing to renew."""
        return self._store.engine.shared

    @property
    def joined(self) -> bool:
        """Whether it has beaten among hosts that may be there."""
        return self._renewed_mono is not None

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
        return tuple(one for one in self._hosts if one.workers and one.host != self.host)

    @property
    def gateways(self) -> int:
        """How many gateways live, this host among them; those that have just left are counted for a moment."""
        before = self._gateways_before if self._changed_lately else {}
        return max(1, len(before), len(self._gateways))

    def chat_owner(self, platform: str, chat: str) -> ChatOwner:
        """Return the gateway that sends to a chat, so that one alone keeps its rates; with no chat to a platform."""
        if not self._gateways:
            return ChatOwner()
        owner = self._owner(self._gateways, platform, chat)
        alone = len(self._gateways) < 2 and not self._changed_lately
        fresh = alone or self._renewed_mono is None or time.monotonic() - self._renewed_mono < SEEN_S
        if owner != self.host:
            return ChatOwner(owner, fresh and not self._changed_lately)
        kept = bool(self._gateways_before) and self._owner(self._gateways_before, platform, chat) == owner
        return ChatOwner("", fresh, None if kept else self._gateways_changed_mono)

    def _owner(self, gateways: Gateways, platform: str, chat: str) -> str:
        """Return the gateway whose name, with those of platform and chat, has the greatest digest.

        Where one joins or leaves, the others keep theirs (https://en.wikipedia.org/wiki/Rendezvous_hashing).
        """
        names = [host for host, platforms in gateways.items() if platforms is None or platform in platforms]
        return max(names, key=lambda host: digest(f"{platform} {chat} {host}"), default=self.host)

    @property
    def _changed_lately(self) -> bool:
        return time.monotonic() - self._gateways_changed_mono < SEEN_S

    def sends(self, platform: str) -> bool:
        """Tell whether this gateway sends what belongs to none, of a platform: it is one's alone.

        What belongs to none answers no message, or one whose gateway is gone.
        """
        return self._owner(self._gateways, platform, "") == self.host

    def gateway_for(self, accepted_by: str) -> str:
        """Return the gateway that accepted a message, or another one that lives where it does not; empty for none."""
        gateways = [one.host for one in self._hosts if one.gateway]
        return accepted_by if accepted_by in gateways else next(iter(gateways), "")

    def tell_gateways(self, signal: Signal) -> None:
        """Signal every other gateway, without waiting."""
        for one in self._hosts:
            if one.gateway and one.host != self.host:
                self._store.signals.send(one.host, signal)

    @property
    def on_duty(self) -> bool:
        """Whether this host is the first of the gateways that live; a host that is alone always is."""
        return self.host == next((one.host for one in self._hosts if one.gateway), self.host)

    @property
    def hosts(self) -> tuple[LiveHost, ...]:
        """Every host that lived at the last beat, this one too; none on a database of one host."""
        return self._hosts

    @property
    def load(self) -> tuple[int, int]:
        """How many turns run on all hosts together, and how many they run at once."""
        briefs = [brief_of(one) for one in self._hosts]
        return sum(brief.running for brief in briefs), sum(brief.slots for brief in briefs)

    def watchers(self, session: str = "") -> tuple[str, ...]:
        """Return the other gateways on which a page is open; with a session those where a page shows that one."""
        return self._watchers.get(session, ())

    async def beat(self, told: HostBrief, view: HostView) -> HostNews:
        """Renew the lease, or join; return what this host has to know. Raises StoreUnavailable."""
        sent_mono = time.monotonic()
        brief, snapshot = msgspec.json.encode(told), msgspec.json.encode(view)
        beat = Beat(self.host, self._gateway, self._workers, "", snapshot, brief, self._heard_until)
        news = await self._store.hosts.beat(beat, LEASE_S)
        self._renewed_mono, self._hosts = sent_mono, news.hosts
        self._see_gateways({one.host: brief_of(one).platforms for one in news.hosts if one.gateway})
        self._watchers = self._watched()
        return msgspec.structs.replace(news, removals=self._unheard(news.removals))

    def _see_gateways(self, gateways: Gateways) -> None:
        """Take note of which gateways live, and of a change."""
        if gateways == self._gateways:
            return
        if not self._gateways and gateways.keys() == {self.host}:
            self._gateways = gateways  # nobody has sent to any chat
        elif not self._gateways and self.host in gateways:
            self.joined_mono = time.monotonic()
        self._gateways_before, self._gateways = self._gateways, gateways
        if self._gateways_before != gateways:
            self._gateways_changed_mono = time.monotonic()

    def _watched(self) -> dict[str, tuple[str, ...]]:
        """Return the other gateways with pages, by the session that a page shows, and all of them under no session."""
        found: dict[str, tuple[str, ...]] = {}
        for one in self._hosts:
            brief = brief_of(one)
            if brief.watched and one.host != self.host:
                for session in {"", *brief.sessions}:
                    found[session] = (*found.get(session, ()), one.host)
        return found

    def _unheard(self, removals: tuple[Removal, ...]) -> tuple[Removal, ...]:
        """Return those that were not told before: the last seconds are asked for again, for commits take their time."""
        new = tuple(one for one in removals if one not in self._heard)
        self._heard.update(dict.fromkeys(new, True))
        if removals:
            self._heard_until = removals[-1].at - (LATE_S if len(removals) < REMOVALS_LIMIT else 0.0)
        return new

    async def held(self) -> list[ClaimRef]:
        """Return what this host has claimed as the database has it. Raises StoreUnavailable."""
        return await self._store.claims.held(self.host)

    def tell_others(self, signal: Signal) -> None:
        """Signal every other host with workers, without waiting."""
        for one in self.others:
            self._store.signals.send(one.host, signal)

    async def leave(self) -> None:
        """End the lease: what is left is free at once. Raises StoreUnavailable."""
        await self._store.hosts.leave(self.host)


class HostBrief(msgspec.Struct, frozen=True):
    """What every host is told of each other one, once a second."""

    #: turns that run
    running: int = 0
    #: turns that were claimed and wait for a slot
    waiting: int = 0
    #: turns that it runs at once
    slots: int = 0
    #: whether a page of the console is open there
    watched: bool = False
    #: sessions that such pages show
    sessions: tuple[str, ...] = ()
    #: the platforms that a gateway has on, None where it does not tell them
    platforms: tuple[str, ...] | None = None


class HostView(msgspec.Struct, frozen=True):
    """What a host shows of itself to whoever asks."""

    #: its workers
    pool: PoolSnapshot = PoolSnapshot((), 0, 0)
    #: its turns that have run longest
    turns: tuple[TurnRow, ...] = ()


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
    #: what it told at its last beat
    brief: HostBrief
    #: its workers and turns
    view: HostView


def digest(text: str) -> bytes:
    """Return a digest to choose by."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def brief_of(live: LiveHost) -> HostBrief:
    """Return what a host told of itself; one of another release may tell nothing."""
    with contextlib.suppress(msgspec.DecodeError):
        return msgspec.json.decode(live.brief, type=HostBrief) if live.brief else HostBrief()
    return HostBrief()


def host_row(live: LiveHost) -> HostRow:
    """Return a host's row; one that has not told how it is shows no workers yet."""
    view = HostView()
    with contextlib.suppress(msgspec.DecodeError):  # of another release
        view = msgspec.json.decode(live.snapshot, type=HostView) if live.snapshot else view
    return HostRow(live.host, live.gateway, live.workers, live.joined_at, brief_of(live), view)
