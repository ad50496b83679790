"""``POST /v1/responses`` and ``GET /v1/responses/{id}``: the common subset of OpenAI's Responses API, over sessions.

A response that is stored (all but those with ``store: false``) begins a session, or goes on with that of
``previous_response_id``; the header ``X-Gatehouse-Session`` names one as it does for chat completions.
"""

from __future__ import annotations

import secrets
from contextlib import suppress

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.keys import Caller
from gateway.openai_api.call_reader import CallReader
from gateway.openai_api.calls import Call, Calls
from gateway.openai_api.chat_answers import end_of, failed_response, is_answer
from gateway.openai_api.completions import ChatStream, answer_or_leave, read_call
from gateway.openai_api.headers import session_name, told_session
from gateway.openai_api.json_body import invalid
from gateway.openai_api.requests import ChatRequest
from gateway.openai_api.response_events import (
    PREFIX,
    ended_response,
    kept_items,
    message_of_item,
    response_of,
    stream,
)
from gateway.openai_api.responses_body import InputItem, ResponsesBody, as_chat, forms_of
from gateway.readiness import Readiness
from gateway.responses import Refused, json_response
from gateway.turn_broadcast import Follower
from shared.errors import NotFound
from shared.messages import Ended, session_key
from shared.store.port import Store

#: earlier responses whose items one call may name; each is looked for in the store
MOST_RESPONSES = 1000


class ResponsesApi:
    """Serves the routes; ``session_from`` is as for Completions."""

    def __init__(self, store: Store, calls: Calls, reader: CallReader, readiness: Readiness, session_from: str) -> None:
        self._store = store
        self._calls = calls
        self._reader = reader
        self._readiness = readiness
        self._session_from = session_from

    async def create(self, request: Request) -> Response:
        """Answer ``POST /v1/responses``."""
        if reason := self._readiness.refuses_calls():
            raise Refused(503, reason, code="not_running", headers={"Retry-After": "5"})
        named, raw = session_name(request), await read_call(request)
        body = await self._with_kept_items(await self._reader.decode(raw, ResponsesBody), request.state.caller)
        name = named or told_session(self._session_from, body.user or "", body.metadata or {})
        chat = await self._read(request, raw, body, name)
        call = await self._calls.begin(request, chat, raw, name, await self._session(request, body, name))
        if body.stream:
            return ChatStream(stream(call, body), call.headers, lambda: self._calls.finish(call))
        try:
            return await answer_or_leave(request, whole(call, body))
        finally:
            self._calls.finish(call)

    async def retrieve(self, request: Request) -> Response:
        """Answer ``GET /v1/responses/{id}`` with what is kept of it: its output, its usage and its state."""
        response_id = request.path_params["id"]
        caller: Caller = request.state.caller
        session = await self._session_of(response_id, caller, "id")
        message_id = response_id.removeprefix(PREFIX)
        answered = await self._store.inbox.answer(message_id)
        trace = await self._store.inbox.trace(message_id)
        call = Call(message_id, session, ChatRequest("gatehouse", "", (), False, False), Follower(), 0, caller.name)
        call = msgspec.structs.replace(call, created=int(trace.accepted_at))
        body = ResponsesBody("gatehouse", "")
        if isinstance(answered.outcome, Ended) and is_answer(answered.outcome):
            return json_response(ended_response(call, body, answered.outcome))
        if answered.outcome is None:
            return json_response(response_of(call, body, "in_progress", []))
        error = {"code": "server_error", "message": answered.outcome.text}
        return json_response(response_of(call, body, "failed", [], error=error))

    async def _read(self, request: Request, raw: bytes, body: ResponsesBody, name: str | None) -> ChatRequest:
        """Return what a call asks for. Raises Refused."""
        caller: Caller = request.state.caller
        goes_on = body.previous_response_id is not None
        in_session = name is not None or goes_on
        try:
            chat = await self._reader.read(as_chat(body), raw, caller.name, in_session=in_session, all_new=goes_on)
        except Refused as refused:
            if refused.param is not None and refused.param.startswith("messages"):
                refused.param = "input"  # as this body has it, where an item may be more or less than a message
            raise
        system = "\n\n".join(part for part in (body.instructions, chat.options.system) if part)
        options = msgspec.structs.replace(chat.options, system=system)
        return msgspec.structs.replace(chat, options=options, forms=forms_of(body.tools or []))

    async def _with_kept_items(self, body: ResponsesBody, caller: Caller) -> ResponsesBody:
        """Return the body with the items themselves where it names items of earlier responses.

        Raises Refused where there is no such item, or it is somebody else's.
        """
        if isinstance(body.input, str) or not any(item.kind == "item_reference" for item in body.input):
            return body
        named = {number: item.id or "" for number, item in enumerate(body.input) if item.kind == "item_reference"}
        responses = {message_of_item(item) for item in named.values()}
        if len(responses) > MOST_RESPONSES:
            raise invalid(f"the input names items of more than {MOST_RESPONSES} responses", "input")
        kept: dict[str, InputItem] = {}
        for message_id in responses:
            kept |= await self._items_of(message_id, caller)
        for number, item in named.items():
            if item not in kept:
                raise Refused(404, f"there is no item {item!r}", param=f"input.{number}.id", code="item_not_found")
        items = [kept[named[number]] if number in named else item for number, item in enumerate(body.input)]
        return msgspec.structs.replace(body, input=items)

    async def _items_of(self, message_id: str, caller: Caller) -> dict[str, InputItem]:
        """Return the items of a response of the caller's, none where there is no such response."""
        with suppress(Refused, NotFound):
            await self._session_of(PREFIX + message_id, caller, "id")
            outcome = (await self._store.inbox.answer(message_id)).outcome
            if isinstance(outcome, Ended) and is_answer(outcome):
                return kept_items(message_id, outcome)
        return {}

    async def _session(self, request: Request, body: ResponsesBody, name: str | None) -> str | None:
        """Return the key of the session of a call that no header names, None where its name or nothing does."""
        caller: Caller = request.state.caller
        if body.previous_response_id is not None:
            session = await self._session_of(body.previous_response_id, caller, "previous_response_id")
            if await self._store.inbox.latest(session) != body.previous_response_id.removeprefix(PREFIX):
                raise invalid("this is not the last response of its conversation", "previous_response_id")
            return session
        if name is not None:
            return session_key("api", caller.account, name)
        if body.store is False:
            return None
        return session_key("api", caller.account, f"response-{secrets.token_hex(12)}")

    async def _session_of(self, response_id: str, caller: Caller, param: str) -> str:
        """Return the session of a response of the caller's. Raises Refused where there is no such response."""
        try:
            trace = await self._store.inbox.trace(response_id.removeprefix(PREFIX))
        except NotFound:
            trace = None
        own = session_key("api", caller.account, "")
        if trace is None or not response_id.startswith(PREFIX) or not trace.session.startswith(own):
            raise Refused(404, f"there is no response {response_id!r}", param=param, code="response_not_found")
        return trace.session


async def whole(call: Call, body: ResponsesBody) -> Response:
    """Wait for the end of a call and answer it at once."""
    match await end_of(call):
        case Ended() as ended if is_answer(ended):
            return json_response(ended_response(call, body, ended), headers=call.headers)
        case failed:
            return failed_response(call, failed)
