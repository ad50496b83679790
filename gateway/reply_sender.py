"""Sends one reply: cuts it at its first send, calls its platform, and records what became of it."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec

from gateway.chat_moves import ChatMoves
from gateway.governor import Governor
from gateway.other_hosts import Alone, OtherHosts
from gateway.outgoing import Outgoing, outgoing
from gateway.platform_calls import PlatformCalls
from gateway.platform_client import NoAnswer, NotSent, PlatformClient, has_answered
from gateway.platforms.port import (
    EMPTY,
    Adapter,
    ApiRequest,
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
from gateway.receivers import Receivers
from shared.errors import NotFound, StaleClaim, StoreUnavailable
from shared.events import Event, Events
from shared.messages import PARTS, Reply
from shared.retry import backoff_s
from shared.store.port import Store
from shared.texts import ENGLISH, Texts

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 60.0

#: also for a platform that asks for no wait at all
LEAST_WAIT_S = 0.25

#: about three days at the longest backoff
MOST_ATTEMPTS = 5_000

#: the same for a file, about an hour: what is said later waits behind it
MOST_ATTEMPTS_OF_FILE = 60

#: how long a reply of a platform that is not on any more waits for it
OFF_RETRY_S = 300.0

#: addresses that one send tries: without its stream, its shown message, its thread
MOST_PLACES = 4
#: the same for a file, which takes more requests and longer ones
MOST_PLACES_OF_FILE = 2

#: a text longer than this is cut in a thread: the loop is late by a millisecond or two for a shorter one
LONG_TEXT = 8_000

#: how long a reply waits while gateways may not agree on which of them sends it, in seconds
UNSURE_S = 0.5

#: files of one platform that are sent at once, so that they take a bounded part of the memory; the wait of others
FILES_AT_ONCE = 4
FILE_ROOM_S = 0.5

#: how long a store that is away is left alone before a sent reply is recorded again, in seconds
RECORD_AGAIN_S = (0.2, 0.5, 1.0, 2.0, 5.0)


class NotNow(msgspec.Struct, frozen=True):
    """Nothing was sent: the chat or the receiver has no room before so many seconds."""

    after_s: float


class NotOurs(msgspec.Struct, frozen=True):
    """Nothing was sent: another gateway sends to this chat."""

    gateway: str


class LocalReceiver(Protocol):
    """A platform inside this process."""

    async def take(self, reply: Reply) -> str:
        """Take a reply and return its sent id."""

    async def taken(self, reply: Reply) -> None:
        """Know that a reply is recorded as sent."""


PlaceOf = Callable[[Reply], Awaitable[bytes]]


async def own_place(reply: Reply) -> bytes:
    """Return a row's own address: nothing shows the beginning of its answer."""
    return reply.address


#: returns what the product says to a sender in a session; the sender may be left open
TextsOf = Callable[[str, str], Texts]


def in_english(session: str, user: str) -> Texts:  # noqa: ARG001 - everybody's
    """Return the English texts."""
    return ENGLISH


class ReplySender:
    """Sends replies one by one; ``local`` takes those of platforms inside this process."""

    def __init__(
        self,
        store: Store,
        platforms: Mapping[str, Adapter],
        events: Events,
        local: Mapping[str, LocalReceiver],
        governor: Governor,
        receivers: Receivers,
        client: PlatformClient,
        calls: PlatformCalls,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._platforms = platforms
        self._events = events
        self._local = local
        self._governor = governor
        self._receivers = receivers
        self._client = client
        self.place_of: PlaceOf = own_place
        self.texts_of: TextsOf = in_english
        self.hosts: OtherHosts = Alone()
        self._calls = calls
        self._clock = clock
        self._moves = ChatMoves(store, events)
        self._files: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(FILES_AT_ONCE))

    async def send(self, reply: Reply) -> bool:
        """Send one row and record what became of it; once each it goes again at once in another way.

        Tells whether that changes what is due next: not where it was sent, and was the last of its session.
        Raises StaleClaim where another sends it now, and StoreUnavailable where nothing could be recorded.
        """
        try:
            reply = await self._cut(await self._placed(reply))
        except (StoreUnavailable, StaleClaim):
            raise
        except Exception as error:  # noqa: BLE001 - a text that cannot be cut is never sent
            return await self._refuse(reply, f"the reply could not be cut: {type(error).__name__}: {error}")
        tried: set[type[SendResult]] = set()
        places, most_places = {reply.address}, MOST_PLACES if reply.file is None else MOST_PLACES_OF_FILE
        while True:
            result = await self._attempt(reply, first=not tried, plain=Reformat in tried)
            again = type(result) not in tried
            tried.add(type(result))  # type: ignore[arg-type]
            match result:
                case NotNow(after_s):
                    await self._store.outbox.release(reply, after_s)
                    return True
                case NotOurs(gateway):
                    return await self._hand_over(reply, gateway)
                case Sent(sent_id):
                    return await self._record_sent(reply, sent_id)
                case TryLater() if reply.attempts < (MOST_ATTEMPTS if reply.file is None else MOST_ATTEMPTS_OF_FILE):
                    return await self._postpone(reply, result)
                case Reformat() if again:
                    pass
                case WithoutThread(address) if address not in places and len(places) < most_places:
                    places.add(address)
                    reply = msgspec.structs.replace(reply, address=address)
                case Moved(address, session) if again:
                    await self._store.outbox.readdress(reply, address)
                    if session and (platform := self._platforms.get(reply.platform)):
                        await self._moves.move(platform, reply.session, session, address)
                    reply = msgspec.structs.replace(reply, address=address)
                case Moved():
                    return await self._refuse(reply, "the conversation moved twice")
                case TryLater() | Reformat() | WithoutThread() | Gone() | Fail():
                    return await self._refuse(reply, result.reason)

    async def _placed(self, reply: Reply) -> Reply:
        """Return a row with the place that the beginning of its answer has by now."""
        return msgspec.structs.replace(reply, address=await self.place_of(reply))

    async def _cut(self, reply: Reply) -> Reply:
        """Cut a row that is not cut yet and return its first chunk."""
        platform = self._platforms.get(reply.platform)
        if reply.rendered or platform is None or reply.file is not None:
            return reply
        if len(reply.text) > LONG_TEXT:
            chunks = await asyncio.to_thread(platform.chunks, reply.text)
        else:
            chunks = platform.chunks(reply.text)
        if len(chunks) > PARTS:
            chunks[PARTS - 1 :] = [self._said_to(reply).rest_left_out]
        if chunks == [EMPTY]:
            chunks = [self._said_to(reply).empty_answer]
        if len(chunks) == 1:
            return msgspec.structs.replace(reply, text=chunks[0])
        return (await self._store.outbox.split(reply, chunks))[0]

    def _said_to(self, reply: Reply) -> Texts:
        """Return what the product says to the sender whom a row answers."""
        return self.texts_of(reply.session, reply.sender.partition(":")[2])

    async def _attempt(self, reply: Reply, *, first: bool, plain: bool) -> SendResult | NotNow | NotOurs:
        """Try once to send a row. What goes wrong inside an adapter refuses the row, and is said."""
        platform = self._platforms.get(reply.platform)
        try:
            if local := self._local.get(reply.platform):
                return Sent(await local.take(reply))
            if platform is None:
                return TryLater(f"the platform {reply.platform} is not on", OFF_RETRY_S)
            if reply.file is None:
                return await self._exchange(platform, reply, b"", first=first, plain=plain)
            if first and self._files[platform.name].locked():
                return NotNow(FILE_ROOM_S)
            async with self._files[platform.name]:
                data = await self._store.sessions.attachment(reply.session, reply.file.digest)
                return await self._exchange(platform, reply, data, first=first, plain=plain)
        except (StoreUnavailable, StaleClaim):
            raise
        except NotFound:
            return Fail("the file is not there any more")
        except Exception as error:  # noqa: BLE001 - the operator sees it among the dead letters, and may retry it
            return Fail(f"the adapter failed: {type(error).__name__}: {error}")

    async def _exchange(
        self, platform: Adapter, reply: Reply, data: bytes, *, first: bool, plain: bool
    ) -> SendResult | NotNow | NotOurs:
        """Send a row, with the ``data`` of its file, and read what came of it; only the ``first`` waits for room."""
        chat = platform.chat(reply.address)
        rates = (platform.name, platform.capabilities.app_rates, chat)
        if first and ((owner := self._governor.owner(*rates)).host or not owner.sure):
            return NotOurs(owner.host) if owner.sure else NotNow(UNSURE_S)
        out = outgoing(platform, reply, data, self._said_to(reply), self._clock(), plain=plain)
        if not isinstance(out, Outgoing):
            return out
        request = await self._calls.authorized(platform, out.first)
        if request is None:
            return TryLater(f"{platform.name} issued no access token")
        begin = self._receivers.begin if first else self._receivers.join
        exchange = begin(platform.name, request.url)
        if isinstance(exchange, float):
            return NotNow(exchange)
        answered = None
        try:
            if not first:
                self._governor.count(*rates)
            elif wait_s := self._governor.book(*rates, reply.idempotency_key, platform.method_of(request)):
                return NotNow(wait_s)
            result = await self._send(out, request)
            answered = has_answered(result) if isinstance(result, NotSent | NoAnswer) else True
        finally:
            self._receivers.end(exchange, answered=answered)
        match result:
            case NotSent(reason):
                return TryLater(reason)
            case NoAnswer(reason):
                self._emit(Event.REPLY_AMBIGUOUS, reply, reason=reason)
                return TryLater(reason)
            case TryLater(after_s=after_s) if after_s:
                self._governor.hold(platform.name, None if result.whole_app else chat, after_s)
        return result

    async def _send(self, out: Outgoing, request: ApiRequest) -> SendResult | NotSent | NoAnswer:
        """Send what a row sends first, with its token, and what follows that."""
        answers: list[ApiResponse] = []
        while True:
            if self.hosts.fenced:
                raise StaleClaim(out.reply.session, 0)
            answer = await self._client.send(request)
            if not isinstance(answer, ApiResponse):
                return answer
            answers.append(answer)
            following = out.after(answers)
            if not isinstance(following, ApiRequest):
                return following
            authorized = await self._calls.authorized(out.platform, following)
            if authorized is None:
                return TryLater(f"{out.platform.name} issued no access token")
            request = authorized

    async def _hand_over(self, reply: Reply, gateway: str) -> bool:
        """Give a row, and all of its session, to the gateway that keeps the rates of its chat."""
        await self._store.outbox.hand_over(reply, gateway)
        self.hosts.tell_senders()
        return True

    async def _record_sent(self, reply: Reply, sent_id: str) -> bool:
        """Record a sent row; a store that is away for a moment must not make it be sent twice."""
        for pause_s in RECORD_AGAIN_S:
            try:
                more = await self._store.outbox.delivered(reply, sent_id)
                break
            except StoreUnavailable:
                await asyncio.sleep(pause_s)
        else:
            more = await self._store.outbox.delivered(reply, sent_id)
        self._emit(Event.REPLY_SENT, reply, sent_id=sent_id)
        if local := self._local.get(reply.platform):
            await local.taken(reply)
        return more

    async def _postpone(self, reply: Reply, result: TryLater) -> bool:
        if result.after_s is None:
            delay_s = backoff_s(reply.attempts + 1, FIRST_BACKOFF_S, LONGEST_BACKOFF_S)
        else:
            delay_s = max(result.after_s, LEAST_WAIT_S)
        await self._store.outbox.postpone(reply, delay_s, result.reason)
        self._emit(Event.REPLY_POSTPONED, reply, reason=result.reason, delay_s=round(delay_s, 2))
        return True

    async def _refuse(self, reply: Reply, reason: str) -> bool:
        await self._store.outbox.refuse(reply, reason)
        self._emit(Event.REPLY_REFUSED, reply, reason=reason)
        return True

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
