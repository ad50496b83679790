"""Takes claims from the store as fast as there is room for them, and keeps their leases alive.

No look for claims comes before a renewal that is overdue: after a store that was away, or a host that stood still,
the leases of turns that still run here have ended, and claiming first would run those turns twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from shared.budgets import Budgets
from shared.errors import StoreUnavailable
from shared.events import Event, Events
from shared.messages import Claim, ClaimBatch, ClaimRef
from shared.store.port import Store
from worker.pool.store_health import StoreHealth

LEASE_S = 30.0
RENEW_EVERY_S = 10.0
#: the longest wait for a wake, in seconds: another host may have left work
POLL_S = 1.0
#: the shortest wait after a look that found nothing to take although something is ready
PAUSE_S = 0.05
#: claims taken in one transaction at most
BATCH = 64


class Claimer:
    """Owns the claim loop and the renewals of one host.

    ``room`` tells how many more turns fit, ``suspect_room`` how many more suspects; ``on_claim`` gets each
    claim; ``held`` lists the claims to keep; ``on_lost`` is told of each that is not this host's any more; each turn
    holds a part of ``budgets``. ``clock`` is the store's, in unix seconds: it may jump where the monotonic one does
    not, and leases end by it.
    """

    def __init__(
        self,
        store: Store,
        events: Events,
        watch: StoreHealth,
        host: str,
        *,
        room: Callable[[], int],
        suspect_room: Callable[[], int],
        on_claim: Callable[[Claim], None],
        held: Callable[[], list[ClaimRef]],
        on_lost: Callable[[ClaimRef], None],
        budgets: Budgets | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._events = events
        self._watch = watch
        self._host = host
        self._room = room
        self._suspect_room = suspect_room
        self._on_claim = on_claim
        self._held = held
        self._on_lost = on_lost
        self._budgets = budgets
        self._clock = clock
        self._wake = asyncio.Event()
        self._suspects_after_mono = 0.0
        self._renewing = asyncio.Lock()
        self._renewed = self._clocks()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def broken(self) -> bool:
        """Tell whether a loop has ended: by an error, if nobody stopped it."""
        return any(task.done() for task in self._tasks)

    def start(self) -> None:
        """Begin to claim and to renew."""
        self._tasks = [
            asyncio.create_task(self._always(self._claim), name="claims"),
            asyncio.create_task(self._always(self._renew), name="renewals"),
        ]
        for task in self._tasks:
            task.add_done_callback(report_broken)

    def wake(self) -> None:
        """Look again: there may be work, or room."""
        self._wake.set()

    def expect_suspect(self) -> None:
        """Look for a suspect at the next look."""
        self._suspects_after_mono = 0.0
        self._wake.set()

    async def stop_claiming(self) -> None:
        """Take no more claims; those held are still renewed."""
        await self._end(self._tasks[:1])

    async def close(self) -> None:
        """Stop altogether."""
        await self._end(self._tasks)

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _always(self, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await look()
            except StoreUnavailable as error:
                self._watch.failed(error)
                await asyncio.sleep(self._watch.pause_s)

    async def _claim(self) -> None:
        """Take what there is room for, then wait until it is worth looking again."""
        self._wake.clear()
        await self._renew_if_due()
        found = [await self._take_suspects()]
        room = self._room()
        if room > 0:
            found.append(await self._take(min(room, BATCH)))
        self._watch.worked()
        room = self._room()
        next_s = min((batch.next_in_s for batch in found if batch.next_in_s is not None), default=None)
        if room <= 0 or next_s != 0 or not any(batch.claims for batch in found):
            await self._wait(next_s if room > 0 else None)

    async def _take(self, count: int, *, suspects: bool = False) -> ClaimBatch:
        # once asked for, a claim must reach the turn it is for: a cancelled look would leave it to its lease
        look = self._store.claims.claim(self._host, count, LEASE_S, suspects=suspects, budgets=self._budgets)
        asked = asyncio.ensure_future(look)
        try:
            batch = await asyncio.shield(asked)
        except asyncio.CancelledError:
            with suppress(StoreUnavailable):
                self._begin(await asked)
            raise
        return self._begin(batch)

    def _begin(self, batch: ClaimBatch) -> ClaimBatch:
        for claim in batch.claims:
            self._events.emit(Event.SESSION_CLAIMED, session=claim.ref.session, epoch=claim.ref.epoch)
            self._on_claim(claim)
        return batch

    async def _take_suspects(self) -> ClaimBatch:
        room = self._suspect_room()
        if time.monotonic() < self._suspects_after_mono or room <= 0:
            return ClaimBatch()
        batch = await self._take(room, suspects=True)
        if not batch.claims:
            self._suspects_after_mono = time.monotonic() + POLL_S
        return batch

    async def _wait(self, next_s: float | None) -> None:
        wait_s = POLL_S if next_s is None else min(max(next_s, PAUSE_S), POLL_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._wake.wait()

    async def _renew(self) -> None:
        await asyncio.sleep(POLL_S)
        await self._renew_if_due()

    async def _renew_if_due(self) -> None:
        async with self._renewing:
            now = self._clocks()
            if not (held := self._held()):
                self._renewed = now
            if max(abs(new - old) for new, old in zip(now, self._renewed, strict=True)) < RENEW_EVERY_S:
                return
            for ref in await self._store.claims.renew(self._host, held, LEASE_S):
                self._on_lost(ref)
            self._renewed = now
            self._watch.worked()

    def _clocks(self) -> tuple[float, float]:
        return time.monotonic(), self._clock()


def report_broken(task: asyncio.Task[None]) -> None:
    """Have the event loop tell of a loop that ended by an error: nothing else would say that no claim is taken."""
    if not task.cancelled() and (error := task.exception()) is not None:
        message = f"the pool's loop of {task.get_name()} broke"
        asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error, "task": task})
