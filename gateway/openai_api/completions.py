"""The OpenAI-compatible door: ``POST /v1/chat/completions`` (streamed or not), ``GET /v1/models`` and one of them.

A call is a message like any other: it is accepted into the inbox, a worker runs its turn, and this module follows it
to its end. With ``X-Gatehouse-Session`` the session outlives the call; without it the call brings its own history,
and its session is removed after the answer; no log is written of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.keys import Caller
from gateway.openai_api.call_reader import CallReader
from gateway.openai_api.calls import Calls
from gateway.openai_api.chat_answers import stream, whole
from gateway.openai_api.chat_body import ChatBody
from gateway.openai_api.headers import session_name, told_session
from gateway.openai_api.json_body import inflate
from gateway.openai_api.requests import ANY_MODEL, TEXT_LIMIT_BYTES
from gateway.openai_api.tool_forms import knows_functions, with_tools
from gateway.readiness import Readiness
from gateway.responses import Refused, json_response, read_body, too_large

BODY_LIMIT_BYTES = 8 * 1024 * 1024
BODY_TIMEOUT_S = 30.0
#: what a body holds that may be larger than any text
DATA_URL = b";base64,"


class Completions:
    """Serves the routes; ``models`` are the names clients may ask for.

    ``session_from`` tells which field of a body names its session: ``user``, ``metadata:KEY``, or none.
    """

    def __init__(
        self, calls: Calls, models: tuple[str, ...], reader: CallReader, readiness: Readiness, session_from: str
    ) -> None:
        self._calls = calls
        self._models = models
        self._reader = reader
        self._readiness = readiness
        self._session_from = session_from

    async def models(self, _: Request) -> Response:
        """Answer ``GET /v1/models``."""
        return json_response({"object": "list", "data": [model_entry(name) for name in (ANY_MODEL, *self._models)]})

    async def model(self, request: Request) -> Response:
        """Answer ``GET /v1/models/{id}``."""
        name = request.path_params["id"]
        if name not in {ANY_MODEL, *self._models}:
            raise Refused(404, f"there is no model {name!r}", param="model", code="model_not_found")
        return json_response(model_entry(name))

    async def create(self, request: Request) -> Response:
        """Answer ``POST /v1/chat/completions``."""
        if reason := self._readiness.refuses_calls():
            raise Refused(503, reason, code="not_running", headers={"Retry-After": "5"})
        named = session_name(request)
        body = await read_call(request)
        chat = await self._reader.decode(body, ChatBody)
        name = named or told_session(self._session_from, chat.user or "", chat.metadata or {})
        caller: Caller = request.state.caller
        if knows_functions(chat):
            chat = with_tools(chat, await self._calls.open_calls(caller, name))
        asked = await self._reader.read(lambda: chat, body, caller.name, in_session=name is not None)
        call = await self._calls.begin(request, asked, body, name)
        if call.request.stream:
            return ChatStream(stream(call), call.headers, lambda: self._calls.finish(call))
        try:
            return await answer_or_leave(request, whole(call))
        finally:
            self._calls.finish(call)


def model_entry(name: str) -> dict[str, Any]:
    """Return a model as clients list them."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "gatehouse"}


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


async def read_call(request: Request) -> bytes:
    """Return the body of a call, inflated. Raises Refused when it is too large, too slow or of another encoding."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await read_body(request, BODY_LIMIT_BYTES)
    except TimeoutError:
        raise Refused(408, f"the body took longer than {BODY_TIMEOUT_S:g} s", headers={"Connection": "close"}) from None
    if encoding := request.headers.get("content-encoding", ""):  # little may become much: not on the loop
        body = await asyncio.to_thread(inflate, body, encoding, BODY_LIMIT_BYTES)
    if len(body) > TEXT_LIMIT_BYTES and DATA_URL not in body:
        raise too_large(TEXT_LIMIT_BYTES)
    return body


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
    """Return once the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
