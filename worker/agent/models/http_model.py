"""What the models of all providers that are asked over HTTP have in common: one call, and what is learned from it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import msgspec

from shared.errors import ContextTooLong
from shared.events import Emit, Event
from shared.prices import Price
from shared.usage import NOTHING, Usage
from worker.agent.models.failures import Endpoint, RequestRefused
from worker.agent.models.port import CallWatch, ModelReply, ModelRequest
from worker.agent.models.request_shape import RequestShape, room_left
from worker.agent.models.server import ModelServer
from worker.agent.models.transport import HttpResponse, Transport
from worker.agent.models.usage_counts import estimate
from worker.agent.models.written_calls import WrittenCalls
from worker.frames import ModelSpec
from worker.tools.spec import ToolSpec

#: refusals of one call that something may be learned from; each is of another field, and none is paid for
LESSONS = 8
#: the least an answer may have of a context that is nearly full, and how much of it is left free
LEAST_ANSWER_TOKENS, SPARE_TOKENS = 256, 16


#: fields of a caller's own that may be left out where a server refuses them: the turn sees to their effect itself. Any
#: other that it asked for is refused with the server's words, not dropped in silence
REPLACED = frozenset(("response_format", "tool_choice", "parallel_tool_calls"))


#: hosts of the providers whose wires these are
OWN_HOSTS = ("api.openai.com", "api.anthropic.com", "openai.azure.com")

#: how llama.cpp names itself in its answers, and seconds for what it tells of itself
LLAMA_CPP = "llama.cpp"
PROPS_S = 2.0


class ServerProps(msgspec.Struct, frozen=True):
    """What of llama.cpp's ``/props`` is read."""

    #: calls that it answers at once
    total_slots: int = 0


class Prepared(msgspec.Struct, frozen=True):
    """A request as it goes out."""

    #: its JSON
    body: bytes
    #: the names of its fields
    fields: tuple[str, ...]
    #: the tokens its answer may have
    limit: int
    #: the names inside the provider state that goes back with it
    opaque: frozenset[str] = frozenset()
    #: the tools that it offers
    tools: tuple[ToolSpec, ...] = ()


class HttpAnswer(HttpResponse, Protocol):
    """What the answers of all wires are."""

    def reply(self) -> ModelReply:
        """Return the whole answer. Raises ModelError for one that is none."""

    def usage(self) -> Usage:
        """Return what the call has used so far, an estimate where that is not told."""

    @property
    def oddities(self) -> list[str]:
        """What in the answer was passed over because it cannot be true."""


class CollectsAnswer(Protocol):
    """Makes what collects the answer to a request of this size; ``written`` reads calls out of its text."""

    def __call__(
        self,
        where: Endpoint,
        on_text: Callable[[str], None] | None,
        sent_bytes: int,
        watch: CallWatch,
        written: WrittenCalls | None,
    ) -> HttpAnswer:
        """Make it."""


class HttpModel(ABC):
    """One model of a provider; ``emit`` is told once what its server sends or takes in its own way."""

    #: the answers of its wire
    answers: ClassVar[CollectsAnswer]

    def __init__(self, spec: ModelSpec, emit: Emit, server: ModelServer) -> None:
        self.where = Endpoint(spec.provider, spec.model, spec.api_key, spec.section, spec.key_variable)
        self.name = self.where.name
        self.price: Price | None = spec.price
        self.spec = spec
        self.extra: dict[str, Any] = msgspec.json.decode(spec.extra_body)
        self.shape = RequestShape()
        # the providers themselves read their own models' calls
        self._is_compatible = bool(spec.base_url) and not any(host in spec.base_url for host in OWN_HOSTS)
        self.transport: Transport
        self._server = server
        self._emit = emit
        self._said: set[str] = set()
        self._asked_slots = False

    async def call(
        self,
        request: ModelRequest,
        on_text: Callable[[str], None] | None = None,
        *,
        timeout: float = 300.0,
        stall_s: float = 60.0,
        watch: CallWatch | None = None,
    ) -> ModelReply:
        """Call the model once, as ``worker.agent.models.chain.Link`` describes."""
        watch = watch or CallWatch()
        async with self._server.place():
            for _ in range(LESSONS):
                prepared = self.prepare(request)
                try:
                    return await self._once(prepared, request.image_bytes, on_text, watch, timeout, stall_s)
                except RequestRefused as refused:
                    ours = [name for name in prepared.fields if name not in request.options or name in REPLACED]
                    learned = self.shape.learn(refused, ours, prepared.limit, prepared.opaque)
                    if not learned:
                        raise
                    self._say_once(
                        Event.MODEL_ADAPTED, f"the server refused the request; it gets {learned} from now on"
                    )
                except ContextTooLong as full:
                    room = room_left(str(full))
                    limit = (room or 0) - SPARE_TOKENS
                    if not LEAST_ANSWER_TOKENS <= limit < prepared.limit:
                        raise
                    request = msgspec.structs.replace(request, max_tokens=limit)
            return await self._once(self.prepare(request), request.image_bytes, on_text, watch, timeout, stall_s)

    async def close(self) -> None:
        """Close every connection."""
        await self.transport.close()

    @abstractmethod
    def prepare(self, request: ModelRequest) -> Prepared:
        """Return the request as this server takes it."""

    def limit(self, request: ModelRequest) -> int:
        """Return the tokens that the answer may have."""
        return request.max_tokens or self.spec.output_limit

    def body(self, request: ModelRequest) -> bytes:
        """Return the call's JSON."""
        return self.prepare(request).body

    async def _once(
        self,
        prepared: Prepared,
        image_bytes: int,
        on_text: Callable[[str], None] | None,
        watch: CallWatch,
        timeout: float,
        stall_s: float,
    ) -> ModelReply:
        sent_bytes = max(0, len(prepared.body) - image_bytes)
        written = WrittenCalls(prepared.tools) if prepared.tools and self._is_compatible else None
        answer = self.answers(self.where, on_text, sent_bytes, watch, written)
        watch.sent(estimate(sent_bytes, 0))
        try:
            await self.transport.run(prepared.body, answer, timeout=timeout, stall_s=stall_s, began=watch.heard_of)
            reply = answer.reply()
        except BaseException as failure:
            watch.spend(_used_by(answer, failure, sent_bytes))
            raise
        finally:
            for oddity in answer.oddities:
                self._say_once(Event.MODEL_ODDITY, oddity)
        watch.spend(reply.usage)
        if self._server.parallel is None and self.transport.served_by == LLAMA_CPP:
            await self._learn_slots()
        return reply

    async def _learn_slots(self) -> None:
        """Make no more calls at once than the server has slots for, where the settings say nothing; asked once."""
        if self._asked_slots:
            return
        self._asked_slots = True
        with contextlib.suppress(msgspec.DecodeError):
            told = msgspec.json.decode(await self.transport.get("/props", PROPS_S), type=ServerProps)
            if told.total_slots > 0:
                self._server.parallel = told.total_slots
                words = f"the server has {told.total_slots} slots; it gets no more calls at once from now on"
                self._say_once(Event.MODEL_ADAPTED, words)

    def _say_once(self, event: Event, words: str) -> None:
        kind = words.partition(" is ")[0]  # the same count is odd in another way each time
        if kind not in self._said:
            self._said.add(kind)
            self._emit(event, model=self.name, problem=words)


def _used_by(answer: HttpAnswer, failure: BaseException, sent_bytes: int) -> Usage:
    """Return what a call used that failed: one that is stopped before any answer has its prompt read, and paid for.

    A server that refuses or stays silent is away: nothing is counted of it.
    """
    used = answer.usage()
    if used == NOTHING and isinstance(failure, asyncio.CancelledError | TimeoutError):
        return estimate(sent_bytes, 0)
    return used


def http_client_options(ssl_context: ssl.SSLContext | None) -> dict[str, Any]:
    """Return what every HTTP client of a worker is made with."""
    return {} if ssl_context is None else {"verify": ssl_context}
