"""Sends replies: leases due outbox rows, one a session, sends many at once, and records what became of each.

    due rows ─lease─▶ cut into chunks at the first send ─▶ call ─▶ answer ─▶ result ─▶ sent, put off, or refused

A platform that asks to wait delays that session alone. A send whose answer was lost is repeated under the same
idempotency key and counted as ambiguous.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Protocol

import msgspec

from gateway.platform_client import NoAnswer, NotSent, PlatformClient
from gateway.platforms.port import (
    Adapter,
    ApiResponse,
    Fail,
    Gone,
    Moved,
    Reformat,
    SendResult,
    Sent,
    TryLater,
    WithoutThread,
)
from shared.errors import StaleClaim, StoreUnavailable
from shared.events import Event, Events
from shared.messages import PARTS, Outcome, Reply
from shared.retry import backoff_s
from shared.store.port import Store

MOST_AT_ONCE = 128

#: how many are begun in one go: the loop sees to others in between
BEGUN_AT_ONCE = 8

#: covers three exchanges of 15 s: the first, one more as plain text, one more to a new address
LEASE_S = 60.0

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 60.0

#: also for a platform that asks for no wait at all
LEAST_WAIT_S = 0.25

#: about three days at the longest backoff
MOST_ATTEMPTS = 5_000

#: how long a reply of a platform that is not on any more waits for it
OFF_RETRY_S = 300.0

LEFT_OUT = "(the rest was too long to be sent)"

#: a text longer than this is cut in a thread: the loop is late by a millisecond or two for a shorter one
LONG_TEXT = 8_000

STORE_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)


class LocalReceiver(Protocol):
    """A platform inside this process."""

    async def take(self, reply: Reply) -> str:
        """Take a reply and return its sent id."""

    async def taken(self, reply: Reply) -> None:
        """Know that a reply is recorded as sent."""


class Delivery:
    """Owns the sending of replies; ``local`` takes those of platforms inside this process."""

    def __init__(
        self,
        store: Store,
        platforms: MutableMapping[str, Adapter],
        events: Events,
        host: str,
        local: Mapping[str, LocalReceiver] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._platforms = platforms
        self._events = events
        self._host = host
        self._local = local or {}
        self._clock = clock
        self._woken = asyncio.Event()
        self._idle = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._client: PlatformClient | None = None
        self._store_failures = 0

    async def start(self) -> None:
        """Begin to send."""
        self._client = PlatformClient(MOST_AT_ONCE)
        self._loops = [asyncio.create_task(self._run(), name="delivery")]
        for name, platform in self._platforms.items():
            if platform.identity_call():
                self._loops.append(asyncio.create_task(self._identify(name), name=f"identity of {name}"))

    def wake(self) -> None:
        """Look for due replies now."""
        self._woken.set()

    def settled(self, session: str, outcome: Outcome) -> None:  # noqa: ARG002 - every outcome may have written a reply
        """Look for the replies that the settle of a turn wrote."""
        self.wake()

    async def drain(self, within_s: float) -> None:
        """Return once nothing is due or being sent, or after this many seconds."""
        if not self._loops:
            return
        self._idle.clear()
        self.wake()
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

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            wait_s = await self._send_due()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()

    async def _send_due(self) -> float | None:
        """Start to send what is due; return the seconds to wait for more, None to wait for a wake."""
        free = MOST_AT_ONCE - len(self._sending)
        if not free:
            return None
        try:
            due = await self._store.outbox.due(self._host, min(free, BEGUN_AT_ONCE), LEASE_S)
        except StoreUnavailable as error:
            return self._store_failed(error)
        self._store_works()
        for reply in due.replies:
            task = asyncio.create_task(self._send(reply), name=f"send {reply.idempotency_key}")
            self._sending.add(task)
            task.add_done_callback(self._sent_one)
        if not self._sending and due.next_in_s != 0:
            self._idle.set()
        return None if due.next_in_s is None else max(due.next_in_s, 0.001)

    def _sent_one(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self.wake()

    async def _send(self, reply: Reply) -> None:
        try:
            await self._deliver(reply)
        except StaleClaim:
            self._events.emit(Event.CLAIM_LOST, session=reply.session, message=reply.message_id, part=reply.part)
        except StoreUnavailable as error:
            self._store_failed(error)  # the lease will end, and the row be sent again

    async def _deliver(self, reply: Reply) -> None:
        """Send one row and record what became of it; a reformatted or moved one is sent once more at once."""
        reply = await self._cut(reply)
        plain = moved = without_thread = False
        while True:
            match await self._attempt(reply, plain=plain):
                case Sent(sent_id):
                    return await self._record_sent(reply, sent_id)
                case TryLater(reason, after_s) if reply.attempts < MOST_ATTEMPTS:
                    return await self._postpone(reply, reason, after_s)
                case Reformat() if not plain:
                    plain = True
                case WithoutThread(address) if not without_thread:
                    without_thread = True
                    reply = msgspec.structs.replace(reply, address=address)
                case Moved(address) if not moved:
                    moved = True
                    await self._store.outbox.readdress(reply, address)
                    reply = msgspec.structs.replace(reply, address=address)
                case TryLater(reason) | Reformat(reason) | WithoutThread(_, reason) | Gone(reason) | Fail(reason):
                    return await self._refuse(reply, reason)
                case Moved():
                    return await self._refuse(reply, "the conversation moved twice")

    async def _cut(self, reply: Reply) -> Reply:
        """Cut a row that is not cut yet and return its first chunk."""
        platform = self._platforms.get(reply.platform)
        if reply.rendered or platform is None:
            return reply
        if len(reply.text) > LONG_TEXT:
            chunks = await asyncio.to_thread(platform.chunks, reply.text)
        else:
            chunks = platform.chunks(reply.text)
        if len(chunks) > PARTS:
            chunks[PARTS - 1 :] = [LEFT_OUT]
        if len(chunks) == 1:
            return msgspec.structs.replace(reply, text=chunks[0])
        return (await self._store.outbox.split(reply, chunks))[0]

    async def _attempt(self, reply: Reply, *, plain: bool) -> SendResult:
        """Try once to send a row. What goes wrong inside an adapter puts the row off and is said."""
        try:
            if local := self._local.get(reply.platform):
                return Sent(await local.take(reply))
            if platform := self._platforms.get(reply.platform):
                return await self._exchange(platform, reply, plain=plain)
        except (StoreUnavailable, StaleClaim):
            raise
        except Exception as error:  # noqa: BLE001 - one bad row must not end the sending; _deliver puts it off
            return TryLater(f"the adapter failed: {type(error).__name__}")
        return TryLater(f"the platform {reply.platform} is not on", OFF_RETRY_S)

    async def _exchange(self, platform: Adapter, reply: Reply, *, plain: bool) -> SendResult:
        assert self._client is not None, "start() comes first"  # noqa: S101 - for the type checker
        match await self._client.send(platform.call(reply, self._clock(), plain=plain)):
            case ApiResponse() as answer:
                return platform.result(reply, answer)
            case NotSent(reason):
                return TryLater(reason)
            case NoAnswer(reason):
                self._emit(Event.REPLY_AMBIGUOUS, reply, reason=reason)
                return TryLater(reason)

    async def _record_sent(self, reply: Reply, sent_id: str) -> None:
        """Record a sent row; a store that is away for a moment must not make it be sent twice."""
        for pause_s in STORE_BACKOFF_S:
            try:
                await self._store.outbox.delivered(reply, sent_id)
                break
            except StoreUnavailable as error:
                self._store_failed(error)
                await asyncio.sleep(pause_s)
        else:
            await self._store.outbox.delivered(reply, sent_id)
        self._emit(Event.REPLY_SENT, reply, sent_id=sent_id)
        if local := self._local.get(reply.platform):
            await local.taken(reply)

    async def _postpone(self, reply: Reply, reason: str, after_s: float | None) -> None:
        delay_s = (
            backoff_s(reply.attempts + 1, FIRST_BACKOFF_S, LONGEST_BACKOFF_S)
            if after_s is None
            else max(after_s, LEAST_WAIT_S)
        )
        await self._store.outbox.postpone(reply, delay_s, reason)
        self._emit(Event.REPLY_POSTPONED, reply, reason=reason, delay_s=round(delay_s, 2))

    async def _refuse(self, reply: Reply, reason: str) -> None:
        await self._store.outbox.refuse(reply, reason)
        self._emit(Event.REPLY_REFUSED, reply, reason=reason)

    def _emit(self, event: Event, reply: Reply, **fields: str | float) -> None:
        self._events.emit(
            event,
            platform=reply.platform,
            session=reply.session,
            message=reply.message_id,
            part=reply.part,
            attempts=reply.attempts + 1,
            **fields,
        )

    def _store_failed(self, error: StoreUnavailable) -> float:
        """Say once that the store is away; return how long to leave it alone."""
        if not self._store_failures:
            self._events.emit(Event.STORE_UNAVAILABLE, part="delivery", error=str(error))
        self._store_failures += 1
        return STORE_BACKOFF_S[min(self._store_failures, len(STORE_BACKOFF_S)) - 1]

    def _store_works(self) -> None:
        if self._store_failures:
            self._store_failures = 0
            self._events.emit(Event.STORE_RECOVERED, part="delivery")

    async def _identify(self, name: str) -> None:
        """Ask a platform who the bot is, until it answers; meanwhile the adapter does with what it knows."""
        assert self._client is not None, "start() comes first"  # noqa: S101 - for the type checker
        for attempt in range(MOST_ATTEMPTS):
            platform = self._platforms[name]
            call = platform.identity_call()
            if call is None:
                return
            answer = await self._client.send(call)
            if isinstance(answer, ApiResponse) and answer.status < 500 and answer.status != 429:
                self._platforms[name] = platform.identified(answer)
                return
            await asyncio.sleep(backoff_s(attempt + 1, FIRST_BACKOFF_S, LONGEST_BACKOFF_S))
