"""Claims sessions for the room there is, and renews what is held: one loop, so that renewing always comes first.

After an outage or a suspended host the leases may have ended; claiming before renewing would claim a session whose
turn still runs here.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from shared.errors import StoreUnavailable
from shared.messages import Claim, ClaimRef
from shared.store.port import Claims
from worker.pool.outage import Outage

#: how long a claim is leased, and how often leases are renewed, in seconds
LEASE_S = 30.0
RENEW_S = 10.0
#: the longest between two looks for work, in seconds; what is accepted here wakes the loop at once
LOOK_S = 1.0
#: the pause after the store refused, in seconds
REFUSED_S = 0.5


class Holder(Protocol):
    """Who wants claims and keeps them; called on the loop."""

    def room(self) -> int:
        """Count the sessions that may be claimed now."""

    def suspect_room(self) -> int:
        """Count the suspects that may be claimed now."""

    def refs(self) -> Sequence[ClaimRef]:
        """Return the claims held."""

    def take(self, claim: Claim, *, suspect: bool) -> None:
        """Take a claim."""

    def no_suspects(self) -> None:
        """No suspect is ready to be claimed."""

    def lose(self, ref: ClaimRef) -> None:
        """A claim is not this host's any more."""


class Leases:
    """Owns the claim loop of one host."""

    def __init__(self, claims: Claims, host: str, holder: Holder, outage: Outage, lease_s: float = LEASE_S) -> None:
        self._claims = claims
        self._host = host
        self._holder = holder
        self._outage = outage
        self._lease_s = lease_s
        self._renew_s = lease_s * RENEW_S / LEASE_S
        self._renewed_mono = time.monotonic()
        self._suspects_mono = 0.0
        self._wanted = asyncio.Event()

    def wake(self) -> None:
        """Look for work at once."""
        self._wanted.set()

    def expect_suspect(self) -> None:
        """Look for suspects at the next look."""
        self._suspects_mono = 0.0
        self.wake()

    async def run(self) -> None:
        """Renew and claim until cancelled."""
        while True:
            self._wanted.clear()
            try:
                await self._renew()
                await self._claim()
                wait_s = await self._next_look_s()
            except StoreUnavailable as error:
                self._outage.seen(error)
                await asyncio.sleep(REFUSED_S)
                continue
            self._outage.over()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), wait_s)

    async def _renew(self) -> None:
        """Renew every lease once in a while, all in one call, and give up those that went to another host."""
        now = time.monotonic()
        refs = self._holder.refs()
        if not refs:
            self._renewed_mono = now
        if now - self._renewed_mono < self._renew_s:
            return
        for ref in await self._claims.renew(self._host, refs, self._lease_s):
            self._holder.lose(ref)
        self._renewed_mono = now

    async def _claim(self) -> None:
        room = self._holder.room()
        if room > 0:
            for claim in await self._claims.claim(self._host, room, self._lease_s):
                self._holder.take(claim, suspect=False)
        if self._holder.suspect_room() > 0 and time.monotonic() - self._suspects_mono >= LOOK_S:
            await self._claim_suspects()

    async def _claim_suspects(self) -> None:
        room = self._holder.suspect_room()
        claims = await self._claims.claim(self._host, room, self._lease_s, suspects=True)
        for claim in claims:
            self._holder.take(claim, suspect=True)
        if not claims:
            self._suspects_mono = time.monotonic()
            self._holder.no_suspects()

    async def _next_look_s(self) -> float:
        """Return the seconds to wait; a session that is ready now was not claimed for want of room, so no hurry."""
        if self._wanted.is_set() or self._holder.room() <= 0:
            return LOOK_S
        ready_in_s = await self._claims.next_ready_in_s()
        return min(ready_in_s, LOOK_S) if ready_in_s else LOOK_S
