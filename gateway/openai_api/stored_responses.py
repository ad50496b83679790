"""Responses that are kept: each is a message of a session of its caller's, with the answer to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request

from gateway.keys import Caller
from gateway.openai_api.calls import Call
from gateway.openai_api.chat_answers import is_answer
from gateway.openai_api.json_body import invalid
from gateway.openai_api.requests import MOST_MESSAGES, TEXT_LIMIT_BYTES, ChatRequest
from gateway.openai_api.response_events import PREFIX, ended_response, response_of
from gateway.openai_api.response_items import KeptMessage, items_of
from gateway.openai_api.responses_body import ResponsesBody, forms_of
from gateway.responses import Refused
from gateway.turn_broadcast import Follower
from shared.errors import NotFound
from shared.messages import Ended, MessageState, session_key
from shared.store.port import Store
from shared.traces import MessageTrace

#: the states of messages whose answers nobody reads any more
GONE = {MessageState.WITHDRAWN, MessageState.REJECTED}
#: what a message's JSON holds that shows images
IMAGES = b'"attachments"'
#: items of a page, where nothing else is asked for, and at most
PAGE, MOST_ITEMS = "20", 100


class StoredResponses:
    """Finds them in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def session_of(self, response_id: str, caller: Caller, param: str) -> str:
        """Return the session of a response of the caller's. Raises Refused where there is no such response."""
        return (await self._trace(response_id, caller, param)).session

    async def find(self, response_id: str, caller: Caller) -> tuple[Call, ResponsesBody]:
        """Return the call that a response of the caller's answers, and what it asked for but its input.

        Raises Refused.
        """
        trace = await self._trace(response_id, caller, "id")
        options = await self._store.inbox.options(trace.id)
        asked = options.request if options else b""
        body = msgspec.json.decode(asked, type=ResponsesBody) if asked else ResponsesBody("gatehouse", "")
        forms = forms_of(body.tools or [])
        request = ChatRequest(body.model, "", (), stream=False, include_usage=False, forms=forms)
        return Call(trace.id, trace.session, request, Follower(), int(trace.accepted_at), caller.name), body

    async def response(self, call: Call, body: ResponsesBody) -> dict[str, Any]:
        """Return the response object as it is now."""
        answered = await self._store.inbox.answer(call.id)
        if isinstance(answered.outcome, Ended) and is_answer(answered.outcome):
            return ended_response(call, body, answered.outcome)
        if answered.outcome is not None:
            error = {"code": "server_error", "message": answered.outcome.text}
            return response_of(call, body, "failed", [], error=error)
        begun = (await self._store.inbox.trace(call.id)).claimed_at is not None
        return response_of(call, body, "in_progress" if begun else "queued", [])

    async def conversation(self, message_id: str, session: str) -> tuple[tuple[bytes, ...], dict[str, bytes]]:
        """Return a transcript up to the answer to this message, with the bytes of its images by their digests.

        Raises Refused where that is not there yet.
        """
        answered = await self._store.inbox.answer(message_id)
        if answered.state is MessageState.WAITING:
            raise invalid("this response is not over yet", "previous_response_id")
        found = await self._store.sessions.exchange(session, message_id, MOST_MESSAGES + 1)
        history = found.before + found.own
        if len(history) > MOST_MESSAGES or sum(map(len, history)) > TEXT_LIMIT_BYTES:
            raise invalid("its conversation is too long to go on with from there", "previous_response_id")
        shown = (msgspec.json.decode(message, type=KeptMessage) for message in history if IMAGES in message)
        digests = {image.digest for message in shown for image in message.attachments}
        return history, {digest: await self._store.sessions.attachment(session, digest) for digest in digests}

    async def input_items(self, call: Call) -> list[dict[str, Any]]:
        """Return what the model was given to answer, oldest first, its conversation included. Raises Refused."""
        found = await self._store.sessions.exchange(call.session, call.id, MOST_MESSAGES + 1)
        if len(found.before) > MOST_MESSAGES:
            raise invalid(f"its conversation has more than {MOST_MESSAGES} messages", "id")
        return await asyncio.to_thread(items_of, found, call.id)

    async def _trace(self, response_id: str, caller: Caller, param: str) -> MessageTrace:
        own = session_key("api", caller.account, "")
        try:
            trace = await self._store.inbox.trace(response_id.removeprefix(PREFIX))
        except NotFound:
            trace = None
        known = trace is not None and response_id.startswith(PREFIX) and trace.session.startswith(own)
        if trace is None or not known or trace.state in GONE:
            raise Refused(404, f"there is no response {response_id!r}", param=param, code="response_not_found")
        return trace


def page_of(items: Sequence[dict[str, Any]], request: Request) -> dict[str, Any]:
    """Return the page of a list of items that a request asks for. Raises Refused."""
    order, after = request.query_params.get("order", "desc"), request.query_params.get("after", "")
    if order not in {"asc", "desc"}:
        raise invalid("order is asc or desc", "order")
    asked = request.query_params.get("limit", PAGE)
    if not (asked.isascii() and asked.isdigit() and len(asked) < 4 and 0 < int(asked) <= MOST_ITEMS):
        raise invalid(f"limit has to be a whole number from 1 to {MOST_ITEMS}", "limit")
    limit = int(asked)
    ordered = list(items) if order == "asc" else list(reversed(items))
    places = {item["id"]: place for place, item in enumerate(ordered)}
    if after and after not in places:
        raise invalid(f"there is no item {after!r}", "after")
    begin = places[after] + 1 if after else 0
    page = ordered[begin : begin + limit]
    edges = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return {"object": "list", "data": page, "has_more": len(ordered) > begin + limit, **edges}
