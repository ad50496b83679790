"""``/v1/responses``: the common subset of OpenAI's Responses API, over sessions.

A response that is stored (all but those with ``store: false``) begins a session, or goes on with that of
``previous_response_id``; from an earlier one of a conversation another session branches off. The header
``X-Gatehouse-Session`` names one as it does for chat completions.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.commands import Asker
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
from gateway.openai_api.stored_responses import StoredResponses, page_of
from gateway.readiness import Readiness
from gateway.responses import Refused, json_response
from shared.errors import NotFound
from shared.messages import Ended, session_key
from shared.store.port import Store

#: how long a cancelled response is waited for, seconds
CANCEL_WITHIN_S = 10.0
#: earlier responses whose items one call may name; each is looked for in the store
MOST_RESPONSES = 1000


class Place(msgspec.Struct, frozen=True):
    """Where a call is kept."""

    #: the session's key, None where nothing is kept
    session: str | None
    #: the transcript that it branches off from (JSON bytes each), empty where its session has its own
    history: tuple[bytes, ...] = ()
    #: the bytes of its images, by their digests
    images: dict[str, bytes] = {}


class ResponsesApi:
    """Serves the routes; ``session_from`` is as for Completions."""

    def __init__(self, store: Store, calls: Calls, reader: CallReader, readiness: Readiness, session_from: str) -> None:
        self._store = store
        self._calls = calls
        self._reader = reader
        self._readiness = readiness
        self._session_from = session_from
        self._stored = StoredResponses(store)

    async def create(self, request: Request) -> Response:
        """Answer ``POST /v1/responses``."""
        if reason := self._readiness.refuses_calls():
            raise Refused(503, reason, code="not_running", headers={"Retry-After": "5"})
        named, raw = session_name(request), await read_call(request)
        body = await self._with_kept_items(await self._reader.decode(raw, ResponsesBody), request.state.caller)
        name = named or told_session(self._session_from, body.user or "", body.metadata or {})
        chat = await self._read(request, raw, body, name)
        place = await self._place(request, body, name)
        if place.history:
            chat, name = branched(chat, place), None
        call = await self._calls.begin(request, kept(chat, body), raw, name, place.session)
        if body.background and not body.stream:
            self._calls.finish_later(call)
            return json_response(response_of(call, body, "queued", []), headers=call.headers)
        if body.stream:
            return ChatStream(stream(call, body), call.headers, lambda: self._calls.finish(call))
        try:
            return await answer_or_leave(request, whole(call, body))
        finally:
            self._calls.finish(call)

    async def retrieve(self, request: Request) -> Response:
        """Answer ``GET /v1/responses/{id}``: the response as it is now, or its events once more."""
        response_id, caller = request.path_params["id"], request.state.caller
        if "starting_after" in request.query_params:
            raise invalid("a stream that is read again begins with its first event", "starting_after")
        call, body = await self._stored.find(response_id, caller)
        if request.query_params.get("stream", "false").lower() != "true":
            return json_response(await self._stored.response(call, body))
        call = await self._calls.read_again(call.id, call.session, call.request)
        return ChatStream(stream(call, body), call.headers, lambda: self._calls.finish(call))

    async def remove(self, request: Request) -> Response:
        """Answer ``DELETE /v1/responses/{id}``: its words are gone, and so is its session where that has no others."""
        response_id = request.path_params["id"]
        call, _ = await self._stored.find(response_id, request.state.caller)
        if not await self._store.sessions.remove_exchange(call.session, call.id):
            text = "this response is not over, or others go on with it: cancel it, or delete those first"
            raise Refused(409, text, param="id", code="response_in_use")
        return json_response({"id": response_id, "object": "response", "deleted": True})

    async def cancel(self, request: Request) -> Response:
        """Answer ``POST /v1/responses/{id}/cancel`` with the response; one that is over stays as it is."""
        caller: Caller = request.state.caller
        call, body = await self._stored.find(request.path_params["id"], caller)
        running = await self._calls.read_again(call.id, call.session, call.request)
        try:
            await self._calls.stop(call.id, Asker(call.session, caller.name))
            with suppress(TimeoutError):
                async with asyncio.timeout(CANCEL_WITHIN_S):
                    await end_of(running)
        finally:
            self._calls.finish(running)
        return json_response(await self._stored.response(call, body))

    async def input_items(self, request: Request) -> Response:
        """Answer ``GET /v1/responses/{id}/input_items`` with a page of what the model was given, latest first."""
        call, _ = await self._stored.find(request.path_params["id"], request.state.caller)
        return json_response(page_of(await self._stored.input_items(call), request))

    async def _read(self, request: Request, raw: bytes, body: ResponsesBody, name: str | None) -> ChatRequest:
        """Return what a call asks for. Raises Refused."""
        caller: Caller = request.state.caller
        goes_on = body.previous_response_id is not None
        in_session = name is not None or goes_on
        try:
            as_call = partial(as_chat, body)
            chat = await self._reader.read(as_call, raw, caller.name, in_session=in_session, all_new=goes_on)
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
            await self._stored.session_of(PREFIX + message_id, caller, "id")
            outcome = (await self._store.inbox.answer(message_id)).outcome
            if isinstance(outcome, Ended) and is_answer(outcome):
                return kept_items(message_id, outcome)
        return {}

    async def _place(self, request: Request, body: ResponsesBody, name: str | None) -> Place:
        """Return where a call is to be kept, and what it goes on with. Raises Refused."""
        caller: Caller = request.state.caller
        previous = body.previous_response_id
        if previous is not None:
            session = await self._stored.session_of(previous, caller, "previous_response_id")
            is_last = await self._store.inbox.latest(session) == previous.removeprefix(PREFIX)
            if is_last and body.store is not False:
                return Place(session)
            branch = await self._stored.conversation(previous.removeprefix(PREFIX), session)
            return Place(None if body.store is False else self._new_session(caller), *branch)
        if name is not None:
            return Place(session_key("api", caller.account, name))
        return Place(None if body.store is False else self._new_session(caller))

    @staticmethod
    def _new_session(caller: Caller) -> str:
        return session_key("api", caller.account, f"response-{secrets.token_hex(12)}")


def branched(chat: ChatRequest, place: Place) -> ChatRequest:
    """Return what a call asks for that goes on with an earlier conversation in a session of its own."""
    uploads = msgspec.structs.replace(chat.uploads, data=place.images | chat.uploads.data)
    return msgspec.structs.replace(chat, history=place.history, uploads=uploads)


def kept(chat: ChatRequest, body: ResponsesBody) -> ChatRequest:
    """Return what a call asks for with its request kept, where somebody may read its answer later."""
    if body.store is False:
        return chat
    request = msgspec.json.encode(msgspec.structs.replace(body, input=""))
    return msgspec.structs.replace(chat, options=msgspec.structs.replace(chat.options, request=request))


async def whole(call: Call, body: ResponsesBody) -> Response:
    """Wait for the end of a call and answer it at once."""
    match await end_of(call):
        case Ended() as ended if is_answer(ended):
            return json_response(ended_response(call, body, ended), headers=call.headers)
        case failed:
            return failed_response(call, failed)
