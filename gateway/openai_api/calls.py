"""Calls of the API on their way from the request to the answer: accepted once, followed to their end, and let go.

A client that asks again gets the answer of its first request: by its Idempotency-Key, in whatever process; and where it
counts its tries, as the official clients do, by the request itself. A stateless call that has lost its reader ends with
it, at once where nobody will ask again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

import msgspec
from cachetools import TTLCache
from starlette.requests import Request

from gateway.commands import AskedQuery, Asker, Commands
from gateway.intake import Intake
from gateway.keys import Caller
from gateway.openai_api.headers import asks_again, digest, fingerprint, idempotency_key, when_busy_wanted
from gateway.openai_api.requests import ChatRequest
from gateway.openai_api.stateless_sessions import StatelessSessions, keyed_session
from gateway.responses import Refused
from gateway.turn_broadcast import Follower, GatewayStopping, TurnBroadcast
from shared.call_options import CallOptions
from shared.command import Command
from shared.errors import NotFound
from shared.ids import new_message_id
from shared.messages import (
    Arrival,
    Dead,
    Ended,
    MessageState,
    RepeatedRequest,
    TurnStatus,
    Usage,
    is_stateless,
    session_key,
    stateless_key,
)
from shared.store.port import Store
from shared.when_busy import WhenBusy
from worker.pool import Pool

#: how long an Idempotency-Key is known, and how long after a request one that asks again is known, seconds
KEY_TTL_S = 86_400.0
AGAIN_WITHIN_S = 3600.0
#: how long a stateless turn goes on for a client that counts its tries, after it has left, seconds
GRACE_S = 10.0
#: sessions known that calls began without a name
MOST_SESSIONS = 10_000
NO_RETRY = {"x-should-retry": "false"}
KEY_REUSED = "another request was sent with this Idempotency-Key before; a new request needs a new key"


class Call(msgspec.Struct, frozen=True):
    """One accepted call on its way to the answer."""

    id: str
    session: str
    request: ChatRequest
    follower: Follower
    created: int
    caller: str
    #: whether the message is in the inbox, where it can be traced
    kept: bool = True
    #: whether it is answered with what an earlier request brought about
    again: bool = False
    #: what a stateless call is known by that may be asked for again, empty for none
    shared: str = ""

    @property
    def stateless(self) -> bool:
        """Whether the session ends with the call."""
        return is_stateless(self.session)

    @property
    def headers(self) -> dict[str, str]:
        """What every answer to the call carries; the key as it stands in urls, for a header is not of any letters."""
        named = {"X-Gatehouse-Message": self.id} if self.kept else {}
        return named | {"X-Gatehouse-Session-Key": quote(self.session, safe=":")}


@dataclass(slots=True)
class SharedCall:
    """A stateless call that its client may ask for again."""

    call: Call
    #: requests that wait for its answer
    readers: int = 1
    #: ends it where nobody asks again
    timer: asyncio.TimerHandle | None = None


class Calls:
    """Begins and ends calls; ``on_usage`` is told what each key has used."""

    def __init__(
        self,
        store: Store,
        pool: Pool,
        broadcast: TurnBroadcast,
        intake: Intake,
        commands: Commands,
        stateless: StatelessSessions,
        on_usage: Callable[[str, Usage], None],
    ) -> None:
        self._store = store
        self._pool = pool
        self._broadcast = broadcast
        self._intake = intake
        self._commands = commands
        self._stateless = stateless
        self._on_usage = on_usage
        self._shared: dict[str, SharedCall] = {}
        self._sessions: TTLCache[str, str] = TTLCache(MOST_SESSIONS, AGAIN_WITHIN_S)
        self._cleaning: set[asyncio.Task[None]] = set()
        self._unread: set[asyncio.Task[None]] = set()

    async def begin(
        self, request: Request, chat: ChatRequest, body: bytes, name: str | None, session: str | None = None
    ) -> Call:
        """Accept a call, or find the one that it repeats. Raises Refused, InboxFull, StoreUnavailable.

        Its session is the one given, or has this name, or ends with it.
        """
        caller: Caller = request.state.caller
        when_busy = when_busy_wanted(request)
        message_id, key = new_message_id(), idempotency_key(request, caller.name)
        known_by = fingerprint(request, caller.name, body)
        if session is not None:
            known_by = known_by or digest(caller.name, request.url.path, body)  # its answer is kept
            session = self._stored(session, key, known_by, again=asks_again(request))
        elif name is not None:
            session = session_key("api", caller.account, name)
        else:
            session = keyed_session(key) if key else stateless_key(message_id)
        asker = Asker(session, caller.name)
        command = self._commands.find(chat.text, asker) if name is not None and not chat.options.opening else None
        if isinstance(command, AskedQuery):
            return await self._tell(chat, session, command, caller)
        kept = not is_stateless(session)
        if asks_again(request) and (found := await self._find(session, known_by, chat, named=kept)):
            return found
        shared = "" if kept or key else known_by
        call = Call(
            message_id, session, chat, self._broadcast.follow(message_id), int(time.time()), caller.name, shared=shared
        )
        return await self._accept(call, arrival_of(call, key, known_by, command), when_busy)

    async def read_again(self, message_id: str, session: str, chat: ChatRequest) -> Call:
        """Return a call that is answered as an earlier one is. Raises Refused where its answer is not kept."""
        return await self._join(message_id, session, chat, "")

    async def stop(self, message_id: str, asker: Asker) -> None:
        """End a call's turn, now or when it begins; nothing for one that is over. Raises NotFound."""
        if await self._store.inbox.stop(asker.session, message_id, self._commands.texts_of(asker).stopped):
            self._pool.stop(asker.session, message_id)
            self._pool.wake()

    def finish_later(self, call: Call) -> None:
        """Let a call go once it is over, for a reader who does not wait for that."""
        task = asyncio.get_running_loop().create_task(self._finish_at_end(call))
        self._unread.add(task)
        task.add_done_callback(self._unread.discard)

    async def _finish_at_end(self, call: Call) -> None:
        try:
            while not isinstance(await call.follower.next(AGAIN_WITHIN_S), Ended | Dead | GatewayStopping):
                continue
        finally:
            self.finish(call)

    async def open_calls(self, caller: Caller, name: str | None) -> dict[str, str]:
        """Return the ids of the calls that the last answer of a session handed over, by the names of the tools."""
        if name is None:
            return {}
        try:
            latest = await self._store.inbox.latest(session_key("api", caller.account, name))
            outcome = (await self._store.inbox.answer(latest)).outcome
        except NotFound:
            return {}
        return {call.name: call.id for call in outcome.calls} if isinstance(outcome, Ended) else {}

    def _stored(self, session: str, key: str, known_by: str, *, again: bool) -> str:
        """Return the session of a call that no name tells: for one that asks again, that of its first request."""
        known = key or known_by
        if not known:
            return session
        if key or again:
            session = self._sessions.get(known, session)
        self._sessions[known] = session
        return session

    async def close(self) -> None:
        """Wait for what ended calls left to clean."""
        for unread in tuple(self._unread):
            unread.cancel()
        for shared in self._shared.values():
            if shared.timer is not None:
                shared.timer.cancel()
        await asyncio.gather(*self._cleaning, *self._unread, return_exceptions=True)

    def finish(self, call: Call) -> None:
        """Let a call go whose answer is read, or whose reader has left."""
        outcome = call.follower.outcome
        if outcome is not None and not call.again:
            self._on_usage(call.caller, outcome.usage)
        if call.stateless and outcome is not None and not outcome.text:
            self._remove_soon(call.session)  # it has no reply that would be recorded as sent
        shared = self._shared.get(call.shared) if call.shared else None
        if shared is None or call.again:
            self._broadcast.unfollow(call.id, call.follower)
        if shared is None:
            if call.stateless and outcome is None and not self._stateless.is_keyed(call.session):
                self._remove_soon(call.session)
            return
        shared.readers -= 1
        if shared.readers == 0:
            shared.timer = asyncio.get_running_loop().call_later(GRACE_S, self._give_up, call.shared)

    async def _tell(self, chat: ChatRequest, session: str, asked: AskedQuery, caller: Caller) -> Call:
        """Answer a question that is a chat command."""
        follower = Follower()
        follower.put(Ended(TurnStatus.REPLIED, await self._commands.tell(Asker(session, caller.name), asked), ()))
        return Call(new_message_id(), session, chat, follower, int(time.time()), caller.name, kept=False)

    async def _accept(self, call: Call, arrival: Arrival, when_busy: WhenBusy | None) -> Call:
        try:
            receipt = await self._intake.accept(arrival, when_busy)
            if receipt.duplicate:
                self._broadcast.unfollow(call.id, call.follower)
                return await self._join(receipt.message_id, call.session, call.request, call.caller, arrival.options)
            if receipt.state is MessageState.REJECTED:
                raise Refused(409, receipt.answer, code="busy", headers=call.headers | NO_RETRY)
            if receipt.resumes and not self._broadcast.is_followed(receipt.resumes):
                self._broadcast.unfollow(call.id, call.follower)  # it is answered with what it lets go on
                resumed = await self._join(receipt.resumes, call.session, call.request, call.caller)
                return msgspec.structs.replace(resumed, again=False)
        except BaseException:
            self._broadcast.unfollow(call.id, call.follower)
            raise
        if call.shared:
            self._shared[call.shared] = SharedCall(call)
        return call

    async def _find(self, session: str, known_by: str, chat: ChatRequest, *, named: bool) -> Call | None:
        """Return the call of an earlier request that this one repeats, None if there is none."""
        if shared := self._shared.get(known_by):
            shared.readers += 1
            if shared.timer is not None:
                shared.timer.cancel()
                shared.timer = None
            follower = self._broadcast.follow(shared.call.id)
            if shared.call.follower.outcome is not None:
                follower.put(shared.call.follower.outcome)
            return msgspec.structs.replace(shared.call, request=chat, follower=follower, again=True)
        if not (named and known_by):
            return None
        earlier = await self._store.inbox.repeated(session, known_by, time.time() - AGAIN_WITHIN_S)
        return await self._join(earlier, session, chat, "") if earlier else None

    async def _join(
        self, message_id: str, session: str, chat: ChatRequest, caller: str, options: CallOptions | None = None
    ) -> Call:
        """Return a call that is answered as an earlier one is.

        Raises Refused where that answer is not kept, and where the earlier one asked for something else under the same
        key, as ``options`` tell.
        """
        follower = self._broadcast.follow(message_id)
        call = Call(message_id, session, chat, follower, int(time.time()), caller, again=True)
        try:
            answered = await self._store.inbox.answer(message_id)
        except NotFound:
            answered = RepeatedRequest(MessageState.WITHDRAWN)
        except BaseException:
            self._broadcast.unfollow(message_id, follower)
            raise
        if options and answered.fingerprint not in {"", options.fingerprint}:
            self._broadcast.unfollow(message_id, follower)
            raise Refused(422, KEY_REUSED, param="Idempotency-Key", code="idempotency_key_reused", headers=NO_RETRY)
        if answered.question is not None:
            follower.ask(answered.question)
        if answered.outcome is not None and not follower.ended:
            follower.put(answered.outcome)
        elif answered.state is not MessageState.WAITING and not follower.ended:
            self._broadcast.unfollow(message_id, follower)
            text = "this request was sent before, and its answer is not kept any more"
            raise Refused(409, text, code="answer_gone", headers=call.headers | NO_RETRY)
        return call

    def _give_up(self, known_by: str) -> None:
        call = self._shared.pop(known_by).call
        self._broadcast.unfollow(call.id, call.follower)
        if call.follower.outcome is None:
            self._remove_soon(call.session)

    def _remove_soon(self, session: str) -> None:
        task = asyncio.get_running_loop().create_task(self._remove(session))
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)

    async def _remove(self, session: str) -> None:
        await self._pool.interrupt(session)
        await self._stateless.remove(session)


def arrival_of(call: Call, key: str, known_by: str, command: Command | None) -> Arrival:
    """Return what the inbox keeps of a call."""
    chat = call.request
    return Arrival(
        id=call.id,
        session=call.session,
        platform="api",
        user=call.caller,
        text=chat.text,
        reply=b"{}",
        dedupe=(f"idempotency:{key}",) if key else (),
        dedupe_ttl_s=KEY_TTL_S if key else 0,
        at=time.time(),
        history=chat.history,
        command=command,
        attachments=chat.uploads.attachments,
        attachment_data=chat.uploads.data,
        options=msgspec.structs.replace(chat.options, fingerprint=known_by),
    )
