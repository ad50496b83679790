"""A model provider over HTTP that does what the last user message tells it to.

Speaks OpenAI chat completions and Anthropic messages, streamed and whole; ``python -m loadtests.provider --port 0``
runs one, ``running_provider()`` gives one to a test. Directives are described in docs/load-testing.md.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from loadtests import anthropic_wire, openai_wire
from loadtests.answers import PIECE_CHARACTERS, Answer, Asked, compose, current_segment
from loadtests.directives import Directive, read_script
from loadtests.loopback import HOST, ClientLeft, Exchange, Loopback, exchange, port_argument

KEPT_REQUESTS = 5000
JSON = {"content-type": "application/json"}
EVENT_STREAM = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


class ModelCall(msgspec.Struct, frozen=True):
    """One request the provider got: ``at`` in unix seconds, headers in lower case, the body as sent."""

    at: float
    path: str
    headers: dict[str, str]
    body: bytes
    asked: Asked

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What holds beside a message's own directives: seconds before every answer, and directives for all or by model."""

    latency_s: float = 0.0
    always: str = ""
    models: dict[str, str] = {}

    def directives(self, model: str) -> tuple[Directive, ...]:
        words = f"{self.always} {self.models.get(model, '')}"
        return read_script(words)[0].directives if "[[" in words else ()


class Provider:
    """The provider's state: its script, what it was asked, and what it is doing."""

    def __init__(self) -> None:
        self.script = Script()
        self.calls = 0
        self.running = 0
        self.left = 0  #: clients that left before their answer was complete
        self.requests: collections.deque[ModelCall] = collections.deque(maxlen=KEPT_REQUESTS)
        self._held: collections.Counter[tuple[str, str, str, str]] = collections.Counter()
        self._numbers = itertools.count(1)

    def app(self) -> Starlette:
        """Return the provider as an application, with its control routes."""
        return Starlette(
            routes=[
                Route(openai_wire.PATH, Dialect(self, openai_wire), methods=["POST"]),
                Route(anthropic_wire.PATH, Dialect(self, anthropic_wire), methods=["POST"]),
                Route("/v1/models", list_models),
                Route("/script", self._set_script, methods=["POST"]),
                Route("/stats", self._stats),
                Route("/requests", self._requests),
            ]
        )

    def next_number(self) -> int:
        return next(self._numbers)

    def in_force(self, asked: Asked, own: tuple[Directive, ...]) -> tuple[Directive, ...]:
        """Return the directives that hold for this call, and count those that hold a number of times."""
        return tuple(
            directive
            for directive in (*self.script.directives(asked.model), *own)
            if directive.times is None or self._holds_once_more(asked, directive, directive.times)
        )

    def _holds_once_more(self, asked: Asked, directive: Directive, times: int) -> bool:
        key = (asked.model, asked.text, directive.name, directive.words)
        self._held[key] += 1
        return self._held[key] <= times

    async def _set_script(self, request: Request) -> Response:
        try:
            self.script = msgspec.json.decode(await request.body(), type=Script)
        except msgspec.DecodeError as problem:
            return JSONResponse({"error": str(problem)}, 400)
        return JSONResponse(msgspec.to_builtins(self.script))

    async def _stats(self, request: Request) -> Response:
        counts = {"calls": self.calls, "running": self.running, "left": self.left}
        return JSONResponse(counts | {"open_connections": request.app.state.server.open_connections})

    async def _requests(self, _request: Request) -> Response:
        rows = [{"at": call.at, "path": call.path, "body": call.json()} for call in self.requests]
        return JSONResponse({"requests": rows})


async def list_models(_request: Request) -> Response:
    """Answer the model list in a form that clients of both dialects read."""
    model = {"id": "scripted", "object": "model", "type": "model", "created": openai_wire.CREATED}
    model |= {"owned_by": "loadtests", "display_name": "Scripted", "created_at": "2025-10-09T08:53:20Z"}
    page = {"has_more": False, "first_id": "scripted", "last_id": "scripted"}
    return JSONResponse({"object": "list", "data": [model], **page})


class Dialect:
    """An ASGI endpoint that answers model calls in one wire form."""

    def __init__(self, provider: Provider, wire: ModuleType) -> None:
        self._provider = provider
        self._wire = wire

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._provider.running += 1
        try:
            async with exchange(scope, receive, send) as out:
                await self._count_leaving(out)
        finally:
            self._provider.running -= 1

    async def _count_leaving(self, out: Exchange) -> None:
        try:
            await self._answer(out, await out.body())
        except ClientLeft:
            self._provider.left += 1
            raise

    async def _answer(self, out: Exchange, body: bytes) -> None:
        provider = self._provider
        provider.calls += 1
        try:
            asked: Asked = self._wire.read_asked(body)
            problem = self._wire.problem(body)
        except (msgspec.DecodeError, KeyError, TypeError):
            return await out.answer(400, JSON, self._wire.error(400))
        provider.requests.append(ModelCall(time.time(), self._wire.PATH, dict(out.headers), body, asked))
        if problem:
            return await out.answer(400, JSON, self._wire.error(400, problem))
        segment = current_segment(asked)
        directives = provider.in_force(asked, segment.directives)
        if provider.script.latency_s:
            await out.pause(provider.script.latency_s)
        for directive in directives:
            if await self._fails(out, directive):
                return None
        answer = compose(provider.next_number(), asked, segment, directives)
        faults = {directive.name: directive for directive in directives}
        if asked.stream:
            return await self._stream(out, answer, faults)
        return await self._whole(out, answer, faults)

    async def _fails(self, out: Exchange, directive: Directive) -> bool:
        """Do what a directive says before the answer; True where it was all of the answer."""
        match directive.name, directive.words:
            case "sleep", _:
                await out.pause(directive.seconds(1))
            case "stall", "":
                await out.pause(None)
            case "reset", "":
                await out.reset()
            case "context", _:
                await out.answer(400, JSON, self._wire.context_too_long())
                return True
            case "status", code:
                wait = directive.options.get("retry-after")
                await out.answer(int(code), JSON | ({"retry-after": wait} if wait else {}), self._wire.error(int(code)))
                return True
            case _:
                pass
        return False

    async def _whole(self, out: Exchange, answer: Answer, faults: dict[str, Directive]) -> None:
        body: bytes = self._wire.whole(answer)
        if "malformed" in faults:
            return await out.answer(200, JSON, body[: len(body) // 2])
        await out.begin(200, JSON)
        for name in ("dribble", "ping"):
            while name in faults:  # a blank before a JSON document is still JSON
                await out.write(b" ")
                await out.pause(faults[name].seconds(1))
        half = len(body) // 2
        await out.write(body[:half])
        await self._interrupt(out, faults)
        if "slow" in faults:
            await out.pause(faults["slow"].seconds(0.01) * len(answer.text))
        await out.write(body[half:])
        return await out.end()

    async def _stream(self, out: Exchange, answer: Answer, faults: dict[str, Directive]) -> None:
        await out.begin(200, EVENT_STREAM)
        slowed = faults.get("dribble") or faults.get("slow")
        interrupted = False
        for event in self._wire.events(answer, 1 if slowed else PIECE_CHARACTERS):
            await out.write(event.data)
            if not interrupted and (event.text or not answer.text):
                interrupted = True
                await self._interrupt(out, faults)
                await self._go_on_for_ever(out, event.data, faults)
            if event.text and slowed:
                await out.pause(slowed.seconds(0.01))
        await out.end()

    async def _interrupt(self, out: Exchange, faults: dict[str, Directive]) -> None:
        """Do what a directive says in the middle of an answer."""
        if "stall" in faults:
            await out.pause(None)
        if "reset" in faults:
            await out.pause(0.01)  # what was written has to leave before the reset overtakes it
            await out.reset()
        if "malformed" in faults:
            await out.write(self._wire.MALFORMED)

    async def _go_on_for_ever(self, out: Exchange, data: bytes, faults: dict[str, Directive]) -> None:
        """Repeat a streamed event, or pings, for as long as the client stays."""
        for name, repeated in (("dribble", data), ("ping", self._wire.PING)):
            while name in faults:
                await out.pause(faults[name].seconds(1))
                await out.write(repeated)


class RunningProvider:
    """A provider that listens; ``url`` is for the Anthropic SDK, ``openai_url`` for the OpenAI SDK."""

    def __init__(self, provider: Provider, server: Loopback) -> None:
        self._provider = provider
        self._server = server
        self.url = server.url
        self.anthropic_url = server.url
        self.openai_url = server.url + "/v1"

    @property
    def calls(self) -> int:
        """Count the model calls that came in."""
        return self._provider.calls

    @property
    def running(self) -> int:
        """Count the model calls that are being answered."""
        return self._provider.running

    @property
    def left(self) -> int:
        """Count the clients that left before their answer was complete."""
        return self._provider.left

    @property
    def open_connections(self) -> int:
        """Count the TCP connections that are open."""
        return self._server.open_connections

    @property
    def requests(self) -> list[ModelCall]:
        """Return the latest requests, oldest first."""
        return list(self._provider.requests)

    def set_script(self, script: Script) -> None:
        """Set what holds for every message from now on."""
        self._provider.script = script

    def wait_until(self, condition: Callable[[RunningProvider], bool], within_s: float = 10.0) -> None:
        """Wait for a condition on this provider. Raises TimeoutError."""
        end = time.monotonic() + within_s
        while not condition(self):
            if time.monotonic() > end:
                raise TimeoutError(f"calls {self.calls}, running {self.running}, connections {self.open_connections}")
            time.sleep(0.005)

    async def until(self, condition: Callable[[RunningProvider], bool], within_s: float = 10.0) -> None:
        """Wait as ``wait_until`` does, without blocking the loop. Raises TimeoutError."""
        await asyncio.to_thread(self.wait_until, condition, within_s)


def serve(port: int = 0, address: str = HOST) -> tuple[Provider, Loopback]:
    """Make a provider and the server it listens on."""
    provider = Provider()
    app = provider.app()
    server = app.state.server = Loopback(app, port, address)
    return provider, server


@contextlib.contextmanager
def running_provider(script: Script | None = None, address: str = HOST) -> Iterator[RunningProvider]:
    """Run a provider in a thread while the context is open."""
    provider, server = serve(address=address)
    provider.script = script or Script()
    with server.in_thread():
        yield RunningProvider(provider, server)


if __name__ == "__main__":
    serve(port_argument("loadtests.provider"))[1].run()
