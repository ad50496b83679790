"""The OpenAI-compatible door: ``POST /v1/chat/completions`` (streamed or not) and ``GET /v1/models``.

A call is a message like any other: it is accepted into the inbox, a worker runs its turn, and this module follows it
to its end. With ``X-Gatehouse-Session`` the session outlives the call; without it the call brings its own history,
and its session is removed after the answer; no log is written of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.commands import Asked, Commands
from gateway.intake import Intake
from gateway.keys import Caller
from gateway.openai_api.headers import session_name, when_busy_wanted
from gateway.openai_api.requests import ANY_MODEL, ChatRequest, parse_chat_request
from gateway.openai_api.stateless_sessions import StatelessSessions
from gateway.openai_api.streamed_text import StreamedText
from gateway.readiness import Readiness
from gateway.responses import Refused, error_body, json_response, read_body
from gateway.turn_broadcast import Follower, Started, Stopped, Text, TurnBroadcast
from shared.command import Command
from shared.ids import new_message_id
from shared.messages import (
    Arrival,
    Dead,
    Ended,
    MessageState,
    TurnStatus,
    Usage,
    is_stateless,
    session_key,
    stateless_key,
)
from shared.when_busy import WhenBusy
from worker.pool import Pool

BODY_LIMIT_BYTES = 4 * 1024 * 1024
BODY_TIMEOUT_S = 30.0
KEEP_ALIVE_S = 15.0


class Call(msgspec.Struct, frozen=True):
    """One accepted call on its way to the answer."""

    id: str
    session: str
    request: ChatRequest
    follower: Follower
    created: int
    kept: bool = True  #: whether the message is in the inbox, where it can be traced

    @property
    def stateless(self) -> bool:
        """Whether the session ends with the call."""
        return is_stateless(self.session)

    @property
    def headers(self) -> dict[str, str]:
        """What every answer to the call carries; the key as it stands in urls, for a header is not of any letters."""
        named = {"X-Gatehouse-Message": self.id} if self.kept else {}
        return named | {"X-Gatehouse-Session-Key": quote(self.session, safe=":")}


class Completions:
    """Serves the two routes; ``models`` are the names clients may ask for."""

    def __init__(
        self,
        pool: Pool,
        broadcast: TurnBroadcast,
        intake: Intake,
        commands: Commands,
        models: tuple[str, ...],
        readiness: Readiness,
        stateless: StatelessSessions,
    ) -> None:
        self._pool = pool
        self._broadcast = broadcast
        self._intake = intake
        self._commands = commands
        self._models = models
        self._readiness = readiness
        self._stateless = stateless
        self._cleaning: set[asyncio.Task[None]] = set()

    async def models(self, _: Request) -> Response:
        """Answer ``GET /v1/models``."""
        rows = [
            {"id": name, "object": "model", "created": 0, "owned_by": "gatehouse"}
            for name in (ANY_MODEL, *self._models)
        ]
        return json_response({"object": "list", "data": rows})

    async def create(self, request: Request) -> Response:
        """Answer ``POST /v1/chat/completions``."""
        if reason := self._readiness.refuses_calls():
            raise Refused(503, reason, code="not_running", headers={"Retry-After": "5"})
        caller: Caller = request.state.caller
        name, when_busy = session_name(request), when_busy_wanted(request)
        body = await read_in_time(request)
        chat = parse_chat_request(body, self._models, in_session=name is not None)
        command = self._commands.find(chat.text) if name is not None else None
        if isinstance(command, Asked):
            call = await self._tell(chat, session_of(name, "", caller.account), command)
        else:
            call = await self._accept(chat, name, command, when_busy, caller)
        if call.request.stream:
            return ChatStream(stream(call), call.headers, lambda: self._finish(call))
        try:
            return await answer_or_leave(request, whole(call))
        finally:
            self._finish(call)

    async def close(self) -> None:
        """Wait for what ended calls left to clean."""
        await asyncio.gather(*self._cleaning, return_exceptions=True)

    async def _tell(self, chat: ChatRequest, session: str, asked: Asked) -> Call:
        """Answer a question that is a chat command."""
        follower = Follower()
        follower.put(Ended(TurnStatus.REPLIED, await self._commands.tell(session, asked), ()))
        return Call(new_message_id(), session, chat, follower, int(time.time()), kept=False)

    async def _accept(
        self, chat: ChatRequest, name: str | None, command: Command | None, when_busy: WhenBusy | None, caller: Caller
    ) -> Call:
        message_id = new_message_id()
        session = session_of(name, message_id, caller.account)
        call = Call(message_id, session, chat, self._broadcast.follow(message_id), int(time.time()))
        arrival = Arrival(
            id=message_id,
            session=session,
            platform="api",
            user=caller.name,
            text=chat.text,
            reply=b"{}",
            dedupe=(),
            dedupe_ttl_s=0,
            at=time.time(),
            history=chat.history,
            command=command,
        )
        try:
            receipt = await self._intake.accept(arrival, when_busy)
            if receipt.state is MessageState.REJECTED:
                raise Refused(409, receipt.answer, code="busy", headers=call.headers | {"x-should-retry": "false"})
        except BaseException:
            self._broadcast.unfollow(message_id)
            raise
        return call

    def _finish(self, call: Call) -> None:
        """Stop following; a stateless call that lost its reader before the end does not go on."""
        self._broadcast.unfollow(call.id)
        if call.stateless and not call.follower.ended:
            self._remove_soon(call.session)

    def _remove_soon(self, session: str) -> None:
        task = asyncio.get_running_loop().create_task(self._remove(session))
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)

    async def _remove(self, session: str) -> None:
        await self._pool.interrupt(session)
        await self._stateless.remove(session)


class ChatStream(StreamingResponse):
    """A streamed answer that says when it is over, however it ended."""

    def __init__(self, content: AsyncGenerator[bytes], headers: dict[str, str], on_over: Callable[[], None]) -> None:
        super().__init__(content, headers=headers | {"Cache-Control": "no-store"}, media_type="text/event-stream")
        self._on_over = on_over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_over()


def session_of(name: str | None, message_id: str, account: str) -> str:
    """Return the key of an account's session of this name, or of one that ends with the call."""
    return stateless_key(message_id) if name is None else session_key("api", account, name)


async def read_in_time(request: Request) -> bytes:
    """Return the body. Raises Refused when it is too large or too slow."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await read_body(request, BODY_LIMIT_BYTES)
    except TimeoutError:
        raise Refused(408, f"the body took longer than {BODY_TIMEOUT_S:g} s", headers={"Connection": "close"}) from None


async def answer_or_leave(request: Request, answer: Coroutine[Any, Any, Response]) -> Response:
    """Return the answer, or an empty one as soon as the client is gone."""
    answering = asyncio.create_task(answer)
    leaving = asyncio.create_task(disconnected(request))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        return answering.result() if answering.done() else Response(status_code=499)
    finally:
        answering.cancel()
        leaving.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)


async def disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def whole(call: Call) -> Response:
    """Wait for the end of a call and answer it at once."""
    while True:
        match await call.follower.next(KEEP_ALIVE_S):
            case Ended(status=TurnStatus.REPLIED | TurnStatus.INTERRUPTED) as ended:
                message = {"role": "assistant", "content": ended.text, "refusal": None}
                choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
                body = envelope(call, "chat.completion") | {"choices": [choice], "usage": usage_entry(ended.usage)}
                return json_response(body, headers=call.headers)
            case Ended() | Dead() | Stopped() as failed:
                status, error = failure(call, failed)
                # the SDKs repeat a 5xx by themselves, which here would be a second turn
                return json_response(error, status, call.headers | {"x-should-retry": "false"})


async def stream(call: Call) -> AsyncGenerator[bytes]:
    """Follow a call and yield its server-sent events."""
    yield chunk(call, {"role": "assistant", "content": ""})
    shown = StreamedText()
    while True:
        match await call.follower.next(KEEP_ALIVE_S):
            case None:
                yield b": keep-alive\n\n"
            case Started():
                shown.begin_again()
            case Text(step, text):
                if new := shown.add(step, text):
                    yield chunk(call, {"content": new})
            case Ended(status=TurnStatus.REPLIED | TurnStatus.INTERRUPTED) as ended:
                if rest := shown.rest(ended.text):
                    yield chunk(call, {"content": rest})
                for last in closing_chunks(call, ended.usage):
                    yield last
                return
            case Ended() | Dead() | Stopped() as failed:
                yield event(failure(call, failed)[1])
                return


def closing_chunks(call: Call, usage: Usage) -> list[bytes]:
    chunks = [chunk(call, {}, finish="stop")]
    if call.request.include_usage:
        chunks.append(event(envelope(call, "chat.completion.chunk") | {"choices": [], "usage": usage_entry(usage)}))
    return [*chunks, b"data: [DONE]\n\n"]


def failure(call: Call, failed: Ended | Dead | Stopped) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and the body of a call that got no answer."""
    match failed:
        case Ended(status=TurnStatus.TIMED_OUT):
            return 504, error_body(504, failed.text or "the turn timed out", kind="timeout", code="timed_out")
        case Ended(status=TurnStatus.OVER_BUDGET):
            return 429, error_body(429, failed.text, kind="insufficient_quota", code="over_budget")
        case Ended():
            return 502, error_body(502, failed.text or "the turn failed", kind="turn_failed", code="failed")
        case Dead():
            return 502, error_body(502, failed.text or "the turn failed", kind="turn_failed", code="dead_letter")
        case Stopped():
            kept = "" if call.stateless else f"; message {call.id} is kept and will be answered in its session"
            return 503, error_body(503, f"the gateway is stopping{kept}", code="stopping")


def envelope(call: Call, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{call.id}",
        "object": kind,
        "created": call.created,
        "model": call.request.model,
        "system_fingerprint": None,
    }


def chunk(call: Call, delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    body = envelope(call, "chat.completion.chunk") | {"choices": [choice]}
    return event(body | {"usage": None} if call.request.include_usage else body)


def event(body: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def usage_entry(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
