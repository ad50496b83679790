"""Sends replies: leases due outbox rows, one a session, sends many at once, and records what became of each.

    due rows ─lease─▶ cut into chunks at the first send ─▶ call ─▶ answer ─▶ result ─▶ sent, put off, or refused

No receiver waits for another: each platform and each host has its own share of sends, a silent host is tried by one at
a time (gateway/receivers.py), and what a platform allows a chat delays that chat alone (gateway/governor.py). What it
allows the app goes to senders by turns: no more is leased than may leave now, each sender's in its place. Rows that
were never tried go before those that were, in three rounds of four. A send whose answer was lost is repeated under the
same idempotency key and counted as ambiguous. What is refused for good, or fails inside, is a dead letter.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress

from gateway.governor import Governor
from gateway.identity import identify
from gateway.other_hosts import Alone, OtherHosts
from gateway.platform_calls import PlatformCalls
from gateway.platform_client import PlatformClient
from gateway.platforms.port import Adapter
from gateway.receivers import Receivers
from gateway.reply_sender import LocalReceiver, PlaceOf, ReplySender, TextsOf, in_english, own_place
from shared.errors import StaleClaim, StoreDamaged, StoreUnavailable
from shared.events import Event, Events
from shared.messages import DueReplies, Outcome, Reply, ReplyLease, Shares
from shared.store.port import Store
from shared.waking import until_woken

#: how many are begun in one go, one of each platform at the least: the loop sees to others in between
BEGUN_AT_ONCE, MOST_AT_ONCE = 8, 32

#: covers seven exchanges of 15 s: the first, at three more places, as plain text, at a new address, and one to spare
LEASE_S = 120.0

#: how often replies of platforms that are not on any more are looked for
OFF_LOOK_S = 2.0

#: every so many looks what was tried before goes first, so that it does not wait for ever behind what is new
RETRIES_FIRST_EVERY = 4

#: how often a host without its lease looks whether it has one again
FENCED_LOOK_S = 0.2

#: how often a host on a shared database compares what it has leased with what it sends, in seconds
COMPARE_EVERY_S = 3.0

STORE_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)


class Delivery:
    """Owns the sending of replies; ``local`` takes those of platforms inside this process."""

    def __init__(
        self,
        store: Store,
        platforms: MutableMapping[str, Adapter],
        events: Events,
        host: str,
        local: Mapping[str, LocalReceiver] | None = None,
        governor: Governor | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._platforms = platforms
        self._events = events
        self._host = host
        self._local = local or {}
        self._governor = governor or Governor()
        self._receivers = Receivers()
        self.platform_calls = PlatformCalls(clock)
        self.hosts: OtherHosts = Alone()
        self.place_of: PlaceOf = own_place  #: where the beginning of an answer is shown already
        self.texts_of: TextsOf = in_english  #: what the product says to a session
        self._clock = clock
        self._woken = asyncio.Event()
        self._idle = asyncio.Event()
        self._sending: set[asyncio.Task[bool]] = set()
        self._wants_room = True  #: whether the last look may have left something for want of room
        self._tasks: Counter[str] = Counter()  #: tasks by platform
        self._leases: Counter[ReplyLease] = Counter()  #: of what is being sent
        self._loops: list[asyncio.Task[None]] = []
        self._client: PlatformClient | None = None
        self._store_failures = 0
        self._looks = 0
        self._looked_for_off_at = 0.0

    async def start(self) -> None:
        """Begin to send."""
        client = self._client = PlatformClient()
        sender = ReplySender(
            self._store,
            self._platforms,
            self._events,
            self._local,
            self._governor,
            self._receivers,
            client,
            self.platform_calls,
            self._clock,
        )
        sender.place_of, sender.hosts, sender.texts_of = self.place_of, self.hosts, self.texts_of
        self._loops = [asyncio.create_task(self._run(sender), name="delivery")]
        if self._store.engine.shared:
            self._loops.append(asyncio.create_task(self._give_back(), name="leases of replies"))
        for name, platform in self._platforms.items():
            if platform.identity_call():
                self._loops.append(
                    asyncio.create_task(identify(client, self._platforms, name), name=f"identity of {name}")
                )

    def gateway_of(self, platform: Adapter, address: bytes) -> str:
        """Return the gateway that sends to an address of a platform, empty for this one."""
        rates = platform.capabilities.app_rates
        return self._governor.owner(platform.name, rates, platform.chat(address)).host

    def wake(self) -> None:
        """Look for due replies now, here and at the gateways that send for their platforms."""
        self.look()
        self.hosts.tell_senders()

    def look(self) -> None:
        """Look for due replies now."""
        self._woken.set()

    def settling(self) -> None:
        """Look for the replies that the settle of a turn writes: behind it, in the same commit."""
        if not self._store.engine.shared:
            self.look()

    def settled(self, session: str, outcome: Outcome) -> None:  # noqa: ARG002 - every outcome may have written a reply
        """Look for the replies that the settle of a turn wrote; the pool tells other gateways."""
        if self._store.engine.shared:
            self.look()

    async def drain(self, within_s: float) -> None:
        """Return once nothing is due or being sent, or after this many seconds."""
        if not self._loops:
            return
        self._idle.clear()
        self.look()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._idle.wait()

    async def close(self) -> None:
        """Stop at once; what was being sent is sent again after the next start."""
        tasks = [*self._loops, *self._sending]
        self._loops = []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client:
            await self._client.close()
            self._client = None
        await self.platform_calls.close()

    async def _run(self, sender: ReplySender) -> None:
        while True:
            self._woken.clear()
            try:
                wait_s = await self._send_due(sender)
            except Exception as error:  # noqa: BLE001 - whatever it is, the other replies are still to be sent
                wait_s = self._failed(error)
            await until_woken(self._woken, wait_s)

    async def _give_back(self) -> None:
        """Give back, for ever, rows that this host has leased and does not send: the leases are long.

        The answer to such a lease was lost, or what became of the send could not be recorded in time. One that is found
        twice in a row is none on its way here.
        """
        found: set[ReplyLease] = set()
        while True:
            await asyncio.sleep(COMPARE_EVERY_S)
            try:
                left = set(await self._store.outbox.held(self._host)) - set(self._leases)
                if lost := left & found:
                    await self._store.outbox.give_back(self._host, lost)
                    self.wake()
                found = left - lost
            except StoreUnavailable:
                continue
            except Exception as error:  # noqa: BLE001 - the next look is as good
                self._failed(error)

    async def _send_due(self, sender: ReplySender) -> float | None:
        """Start to send what is due; return the seconds to wait for more, None to wait for a wake."""
        if self.hosts.fenced:
            return FENCED_LOOK_S
        shares = self._shares()
        try:
            due = await self._store.outbox.due(self._host, MOST_AT_ONCE, LEASE_S, shares)
        except StoreUnavailable as error:
            return self._store_failed(error)
        self._store_works()
        for reply in due.replies:
            self._leases[reply.leased] += 1
            task = asyncio.create_task(self._send(sender, reply), name=f"send {reply.idempotency_key}")
            self._sending.add(task)
            self._tasks[reply.platform] += 1
            task.add_done_callback(self._sent_one)
        if not self._sending:
            self._idle.set()
        begun = Counter(reply.platform for reply in due.replies)
        self._wants_room = any(begun[name] >= share for name, share in shares.platforms.items())
        return self._wait_s(due, shares, begun)

    def _shares(self) -> Shares:
        """Return how many rows of each platform may be begun now."""
        self._looks += 1
        names = [*self._platforms, *self._local]
        each = max(1, BEGUN_AT_ONCE // len(names)) if names else 0
        now = time.monotonic()
        if look_for_off := now - self._looked_for_off_at >= OFF_LOOK_S:
            self._looked_for_off_at = now
        return Shares(
            {name: min(each, self._room(name)) for name in names},
            late_only=frozenset(name for name in self._platforms if not self.hosts.sends(name)),
            others=look_for_off,
            retries_first=self._looks % RETRIES_FIRST_EVERY == 0,
        )

    def _room(self, platform: str) -> int:
        """Return how many rows of a platform may be begun now: no more than its receivers and its rates have room for.

        The others stay where they are: what comes meanwhile of a sender who has few goes before them.
        """
        room = self._receivers.room(platform)
        if adapter := self._platforms.get(platform):
            room = self._governor.room(platform, adapter.capabilities.app_rates, room)
        not_begun = self._tasks[platform] - self._receivers.open(platform)
        return max(0, room - not_begun)

    def _wait_s(self, due: DueReplies, shares: Shares, begun: Counter[str]) -> float | None:
        """Return the seconds until the next look finds something, None where only a wake can change that."""
        if any(share == begun[name] and self._room(name) for name, share in shares.platforms.items()):
            return 0.0  # there may be more of it
        fulls = [
            self._governor.full_s(name, adapter.capabilities.app_rates) for name, adapter in self._platforms.items()
        ]
        look_again_s = None if shares.others else OFF_LOOK_S
        waits = [due.next_in_s, self._receivers.next_probe_s(), look_again_s, *(full_s for full_s in fulls if full_s)]
        return min((max(wait, 0.001) for wait in waits if wait is not None), default=None)

    def _sent_one(self, task: asyncio.Task[bool]) -> None:
        self._sending.discard(task)
        # what the look before has left, or this send has made due; and who drains waits for a look that finds nothing
        if self._wants_room or task.cancelled() or task.result() or not self._idle.is_set():
            self.look()

    async def _send(self, sender: ReplySender, reply: Reply) -> bool:
        try:
            return await sender.send(reply)
        except StaleClaim:
            self._events.emit(Event.CLAIM_LOST, session=reply.session, message=reply.message_id, part=reply.part)
        except StoreUnavailable as error:
            self._store_failed(error)  # the lease will end, and the row be sent again
        except Exception as error:  # noqa: BLE001 - one bad row harms no other; its lease ends, and it is tried again
            self._failed(error, reply)
        finally:
            self._tasks[reply.platform] -= 1
            self._leases[reply.leased] -= 1
            if not self._leases[reply.leased]:
                del self._leases[reply.leased]
        return True

    def _failed(self, error: Exception, reply: Reply | None = None) -> float:
        """Say that something went wrong that nothing here expects; return how long to wait before the next look."""
        message_id = reply.message_id if reply else None
        self._events.emit(Event.DELIVERY_FAILED, message=message_id, error=f"{type(error).__name__}: {error}")
        return STORE_BACKOFF_S[-1]

    def _store_failed(self, error: StoreUnavailable) -> float:
        """Say once that the store is away, damage aside: the storage watch does; return how long to leave it alone."""
        if not self._store_failures and not isinstance(error, StoreDamaged):
            self._events.emit(Event.STORE_UNAVAILABLE, part="delivery", error=str(error))
        self._store_failures += 1
        return STORE_BACKOFF_S[min(self._store_failures, len(STORE_BACKOFF_S)) - 1]

    def _store_works(self) -> None:
        if self._store_failures:
            self._store_failures = 0
            self._events.emit(Event.STORE_RECOVERED, part="delivery")
