"""Takes claims from the store as fast as there is room for them, and keeps their leases alive.

No look for claims comes before a renewal that is overdue: after a store that was away, or a host that stood still,
the leases of turns that still run here have ended, and claiming first would run those turns twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec

from shared.budgets import Budgets
from shared.events import Event, Events
from shared.messages import Claim, ClaimBatch, ClaimRef
from shared.store.port import Store
from shared.waking import until_woken

LEASE_S = 30.0
RENEW_EVERY_S = 10.0
#: the longest wait for a wake, in seconds: another host may have left work
POLL_S = 1.0
#: the same where there is no other host, and whatever makes work wakes the claimer
POLL_ALONE_S = 5.0
#: the shortest wait after a look that found nothing to take although something is ready
PAUSE_S = 0.05
#: claims taken in one transaction at most
BATCH = 64


class Look(msgspec.Struct, frozen=True):
    """What one look brought."""

    #: sessions that are this host's now
    claims: tuple[Claim, ...] = ()
    #: claims that are not this host's any more; what they were for ends before anything else is claimed
    lost: tuple[ClaimRef, ...] = ()
    #: seconds until it is worth looking again, unless something wakes the claimer
    wait_s: float = 0.0


class Claimer:
    """Owns the looks for claims, and the renewals, of one host; each turn holds a part of ``budgets``.

    ``clock`` is the store's, in unix seconds: it may jump where the monotonic one does not, and leases end by it.
    Everything that asks the store raises StoreUnavailable.
    """

    def __init__(
        self,
        store: Store,
        events: Events,
        host: str,
        *,
        budgets: Budgets | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._events = events
        self._host = host
        self._budgets = budgets
        self._clock = clock
        self._wake = asyncio.Event()
        self._suspects_after_mono = 0.0
        #: whether the last look left something, or may have, for want of room: the end of a turn makes room
        self._wants_room = True
        self._renewing = asyncio.Lock()
        self._renewed = self._clocks()

    @property
    def bounded(self) -> bool:
        """Whether a claim has to hold a part of a budget."""
        return bool(self._budgets)

    def wake(self) -> None:
        """Look again: there may be work, or room."""
        self._wake.set()

    def turn_ended(self, *, goes_on: bool) -> None:
        """Look again if the end of a turn can have made a difference: its session ``goes_on``, or room was wanted."""
        if goes_on or self._wants_room:
            self._wake.set()

    def expect_suspect(self) -> None:
        """Look for a suspect at the next look."""
        self._suspects_after_mono = 0.0
        self._wake.set()

    async def look(self, held: Sequence[ClaimRef], room: int, suspect_room: int) -> Look:
        """Take up to ``room`` sessions, and up to ``suspect_room`` whose first message is a suspect.

        ``held`` are the claims to be kept; where their renewal was due and some are lost, that is all.
        """
        self._wake.clear()
        self._wants_room = True
        if lost := await self.renew_if_due(held):
            return Look(lost=tuple(lost))
        found = [await self._suspects(suspect_room)]
        if room > 0:
            found.append(await self._take(min(room, BATCH)))
        claims = tuple(claim for batch in found for claim in batch.claims)
        for claim in claims:
            self._events.emit(Event.SESSION_CLAIMED, session=claim.ref.session, epoch=claim.ref.epoch)
        next_s = min((batch.next_in_s for batch in found if batch.next_in_s is not None), default=None)
        # what a suspect waits for is a room of its own, and what a budget holds back is the end of another turn
        self._wants_room = room <= 0 or suspect_room <= 0 or next_s == 0 or bool(self._budgets)
        if next_s is None or room <= 0:
            return Look(claims, wait_s=POLL_S if self._store.engine.shared else POLL_ALONE_S)
        # what is ready and was not given is held up by something, unless it did not fit into the batch
        return Look(claims, wait_s=0.0 if next_s == 0 and claims else min(max(next_s, PAUSE_S), POLL_S))

    async def renew_if_due(self, held: Sequence[ClaimRef]) -> list[ClaimRef]:
        """Renew the leases once that is due; return those that are not this host's any more."""
        async with self._renewing:
            now = self._clocks()
            if not held:
                self._renewed = now
            if max(abs(new - old) for new, old in zip(now, self._renewed, strict=True)) < RENEW_EVERY_S:
                return []
            lost = await self._store.claims.renew(self._host, held, LEASE_S)
            self._renewed = now
            return lost

    async def until_woken(self, wait_s: float) -> None:
        """Wait so long, or until something wakes the claimer."""
        await until_woken(self._wake, wait_s)

    async def _suspects(self, room: int) -> ClaimBatch:
        early_s = self._suspects_after_mono - time.monotonic()
        if early_s > 0 or room <= 0:
            return ClaimBatch(next_in_s=early_s if early_s > 0 else None)
        found = await self._take(room, suspects=True)
        if not found.claims:
            self._suspects_after_mono = time.monotonic() + POLL_S
        return found

    async def _take(self, count: int, *, suspects: bool = False) -> ClaimBatch:
        return await self._store.claims.claim(self._host, count, LEASE_S, suspects=suspects, budgets=self._budgets)

    def _clocks(self) -> tuple[float, float]:
        return time.monotonic(), self._clock()
