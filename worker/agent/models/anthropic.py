"""Models of Anthropic's Messages API, and of the doors that other servers have for its clients."""

from __future__ import annotations

import itertools
import ssl
import time
from collections.abc import Callable
from typing import Any, ClassVar

import anthropic
import httpx2
import msgspec
from msgspec.json import encode

from shared.errors import ContextTooLong
from shared.events import Emit
from shared.loose_json import decode_loose
from shared.usage import NOTHING, Usage
from worker.agent.models.answer_text import AnswerText
from worker.agent.models.anthropic_blocks import BlockConverter
from worker.agent.models.failures import (
    EmptyAnswer,
    Endpoint,
    MalformedAnswer,
    Withheld,
    from_event,
    from_words,
)
from worker.agent.models.http_model import CollectsAnswer, HttpModel, Prepared, http_client_options
from worker.agent.models.paused_answer import (
    MOST_CONTINUED,
    PAUSES,
    end,
    going_on,
    join,
    without_open_calls,
)
from worker.agent.models.port import LENGTH, PAUSED, CallWatch, ModelReply, ModelRequest, finish_of, finish_with
from worker.agent.models.provider_state import ProviderState, encode_state, merge
from worker.agent.models.request_shape import CACHE_MARKS, STATE
from worker.agent.models.server import ModelServer
from worker.agent.models.sse import ErrorEvent, is_done
from worker.agent.models.tool_calls import PartialCall, arguments_text
from worker.agent.models.transport import SdkClient, Transport
from worker.agent.models.usage_counts import ToldCounts, estimate, is_count
from worker.agent.models.wire_options import anthropic_fields, format_instruction
from worker.agent.models.written_calls import WrittenCalls
from worker.frames import ModelSpec
from worker.tools.spec import ToolSpec

BASE_URL = "https://api.anthropic.com"


class _Block:
    """One content block while it is streamed: ``call`` where it is a tool call, else what it holds."""

    def __init__(self, start: dict[str, Any], call: PartialCall | None) -> None:
        self.start = start
        self.call = call
        self.text: list[str] = []
        #: the input of a tool that the server runs itself, as it came
        self.given = ""

    @property
    def takes_input(self) -> bool:
        """Whether it is a call, be it of a tool that the server runs itself."""
        return self.call is not None or str(self.start.get("type")).endswith("_use")

    @property
    def input(self) -> dict[str, Any]:
        """The input of a tool that the server runs itself; empty where it is no object."""
        try:
            found = decode_loose(self.given.encode("utf-8", "replace"))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def add_input(self, piece: str) -> None:
        """Take a piece of a call's arguments."""
        if self.call is not None:
            self.call.add(piece)
        else:
            self.given += piece


class AnthropicAnswer:
    """Collects the events of one message; ``sent_bytes`` is the size of what it answers."""

    def __init__(
        self,
        where: Endpoint,
        on_text: Callable[[str], None] | None,
        sent_bytes: int = 0,
        watch: CallWatch | None = None,
        written: WrittenCalls | None = None,
    ) -> None:
        self.finished = False
        self._sent_bytes = sent_bytes
        self._where = where
        self._text = AnswerText(on_text, watch or CallWatch(), written)
        self._blocks: list[_Block] = []
        self._by_index: dict[object, _Block] = {}
        self._counts = ToldCounts()
        self._told_end = False
        self._finish = ""
        self._refusal = ""
        self._container: dict[str, Any] = {}

    def take(self, event: bytes) -> bool:
        """Read one event; types that are new or not asked for (citations, pings) are passed over."""
        if is_done(event):
            self.finished = True
            return False
        if not event.strip():
            return False
        try:
            body = decode_loose(event)
        except ValueError:
            if type(event) is ErrorEvent:
                raise from_words(self._where, event.decode("utf-8", "replace")) from None
            raise
        if isinstance(body, list):
            body = next((one for one in body if isinstance(one, dict)), None)
        if isinstance(body, str) and body.strip():
            raise MalformedAnswer(f"{self._where.name} sent words that are no event: {body[:200]}")
        if not isinstance(body, dict):
            return False
        if type(event) is ErrorEvent:
            raise from_event(self._where, body) or from_words(self._where, event.decode("utf-8", "replace"))
        return self._take_event(body)

    def take_whole(self, body: bytes) -> None:
        """Read an answer that is not streamed."""
        self.take(body)

    def reply(self) -> ModelReply:
        """Return the whole answer. Raises EmptyAnswer, ContextTooLong, and Withheld for a bare refusal."""
        text = self._text.end()
        parts = [block.call for block in self._blocks if block.call is not None] or self._text.calls
        meant = [part.calls("toolu") for part in parts]
        calls = tuple(itertools.chain.from_iterable(meant))
        paused = self._finish in PAUSES and not calls and bool(self._blocks)
        if not calls and not text.strip() and not paused:
            match self._finish:
                case "refusal":
                    raise Withheld(f"{self._where.name} refused to answer{self._refusal}")
                case "model_context_window_exceeded":
                    raise ContextTooLong(f"{self._where.name} has no room left to answer")
            why = self._finish or "no stop reason"
            raise EmptyAnswer(f"{self._where.name} gave an empty answer ({why})", finish_of(self._finish))
        blocks = self._kept_blocks([len(some) for some in meant], whole=paused)
        if not (calls or paused):
            blocks = without_open_calls(blocks)
        state = ProviderState(self._where.name, blocks=blocks, container=self._container)
        return ModelReply(
            text,
            calls,
            self.usage(),
            self._where.provider,
            self._where.model,
            PAUSED if paused else finish_with(finish_of(self._finish), any_calls=bool(calls)),
            encode_state(state),
        )

    def usage(self) -> Usage:
        """Return what the call has used so far, an estimate where that is not told: of the answer, until its end.

        Anthropic's ``input_tokens`` leave out what the cache gave and took; ours hold it, as other providers' do.
        """
        counts = self._counts
        read, written = counts.get("input_tokens"), counts.get("output_tokens")
        if read is None and not self._blocks:
            return NOTHING
        from_cache = counts.get("cache_read_input_tokens") or 0
        to_cache = counts.get("cache_creation_input_tokens") or 0
        guess = estimate(self._sent_bytes, self._received_characters())
        whole = read is not None and written is not None and self._told_end
        output = written if whole and written is not None else max(written or 0, guess.output_tokens)
        return Usage(
            model_calls=1,
            input_tokens=guess.input_tokens if read is None else read + from_cache + to_cache,
            output_tokens=output,
            cached_tokens=from_cache,
            written_tokens=to_cache,
            estimated_calls=int(not whole),
        )

    @property
    def oddities(self) -> list[str]:
        """What cannot be true, or came in another place than it should."""
        return [*self._counts.odd, *self._text.oddities]

    def _received_characters(self) -> int:
        return self._text.characters + sum(len(block.call.arguments) for block in self._blocks if block.call)

    def _take_event(self, body: dict[str, Any]) -> bool:
        match body.get("type") or _type_of(body):
            case "content_block_delta":
                return self._take_delta(body.get("index"), body.get("delta"))
            case "content_block_start":
                return self._take_block(body.get("index"), body.get("content_block"))
            case "message_start":
                message = body.get("message")
                if isinstance(message, dict):
                    self._take_message(message)
            case "message":
                self._take_message(body)
                self._told_end = self.finished = True
            case "message_delta":
                usage = body.get("usage")
                self._counts.add(usage)
                self._told_end |= isinstance(usage, dict) and is_count(usage.get("output_tokens"))
                delta = body.get("delta")
                if isinstance(delta, dict):
                    self._take_particulars(delta)
                    if reason := delta.get("stop_reason"):
                        self._finish = str(reason)
                        self.finished = True
            case "message_stop":
                self.finished = True
            case "ping" | "content_block_stop":
                pass
            case _ if not self.finished and (error := from_event(self._where, body)) is not None:
                raise error
        return False

    def _take_message(self, message: dict[str, Any]) -> None:
        """Read what a message holds at its start, or all of one that is not streamed."""
        self._counts.add(message.get("usage"))
        self._take_particulars(message)
        content = message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        blocks = [blocks] if isinstance(blocks, dict) else blocks
        for index, block in enumerate(blocks if isinstance(blocks, list) else ()):
            self._take_block(index, block)
        if reason := message.get("stop_reason"):
            self._finish = str(reason)

    def _take_particulars(self, message: dict[str, Any]) -> None:
        details = message.get("stop_details")
        if isinstance(details, dict) and details.get("type") == "refusal":
            words = [str(word) for word in (details.get("category"), details.get("explanation")) if word]
            self._refusal = f" ({': '.join(words)})" if words else ""
        container = message.get("container")
        if isinstance(container, dict) and isinstance(container.get("id"), str):
            self._container = {name: container[name] for name in ("id", "expires_at") if name in container}

    def _take_delta(self, index: object, delta: Any) -> bool:
        if not isinstance(delta, dict):
            return False
        block = self._by_index.get(index) or (self._blocks[-1] if self._blocks else None)
        match _kind_of_delta(delta):
            case "text":
                if block is None or block.start.get("type") != "text":  # what it goes on with was never opened
                    block = self._open(index, {"type": "text", "text": ""}, None)
                self._add_text(block, delta.get("text"))
            case "partial_json":
                if block is None or not block.takes_input:
                    block = next((one for one in reversed(self._blocks) if one.call), None)
                if block is not None:
                    block.add_input(arguments_text(delta.get("partial_json")))
            case "thinking" if block is None or block.start.get("type") == "text":
                self._open(index, {"type": "thinking", "thinking": str(delta.get("thinking") or "")}, None)
            case "citations" if block is not None:
                block.start["citations"] = [*(block.start.get("citations") or ()), delta.get("citation")]
                return False
            case _ if block is not None:
                merge(block.start, {name: value for name, value in delta.items() if name != "type"})
                return False
        return True

    def _take_block(self, index: object, block: Any) -> bool:
        if not isinstance(block, dict):
            return False
        if block.get("type") != "tool_use":
            self._add_text(self._open(index, block, None), block.get("text"))
            return True
        id_, name, given = block.get("id"), block.get("name"), block.get("input")
        call = PartialCall(None, "" if id_ is None else str(id_), name if isinstance(name, str) else "")
        if given not in ({}, None, ""):
            call.add(arguments_text(given))
        self._open(index, block, call)
        return True

    def _open(self, index: object, start: dict[str, Any], call: PartialCall | None) -> _Block:
        block = self._by_index[index] = _Block(start, call)
        self._blocks.append(block)
        return block

    def _add_text(self, block: _Block, text: object) -> None:
        if block.start.get("type") == "text" and isinstance(text, str) and text:
            block.text.append(text)
            self._text.add(text)

    def _kept_blocks(self, counts: list[int], *, whole: bool) -> list[dict[str, Any]]:
        """Return the blocks as the provider gets them back; none where all that counts is in the transcript anyway.

        ``whole`` keeps them all the same.

        ``counts`` tells how many calls each block of one is.
        """
        kept: list[dict[str, Any]] = []
        counted = iter(counts)
        number = 0
        opaque = False
        for block in self._blocks:
            if block.call is not None:
                own = {name: value for name, value in block.start.items() if name not in _KNOWN_OF_CALLS}
                opaque = opaque or bool(own)
                kept.append({"type": "tool_use", "call": number} | own)
                number += next(counted)
            elif block.start.get("type") == "text":
                cited = {"citations": cited} if (cited := block.start.get("citations")) else {}
                kept.append({"type": "text", "text": "".join(block.text)} | cited)
            else:
                opaque = True
                kept.append(block.start | ({"input": block.input} if block.given else {}))
        return kept if opaque or whole else []


def _kind_of_delta(delta: dict[str, Any]) -> str:
    """Return which field a delta goes on with; not every server names its type, or names it alike."""
    match delta.get("type"):
        case "text_delta":  # mostly
            return "text"
        case "input_json_delta" | "input_json":
            return "partial_json"
        case None | "None":
            return next((name for name in ("text", "partial_json", "thinking") if name in delta), "")
        case named:
            return str(named).removesuffix("_delta")


def _type_of(body: dict[str, Any]) -> str:
    """Return what an event is whose name stands in the line before it alone."""
    match body:
        case {"content_block": _}:
            return "content_block_start"
        case {"delta": {"stop_reason": _}}:
            return "message_delta"
        case {"delta": _}:
            return "content_block_delta"
        case {"message": {"role": _} | {"usage": _}}:
            return "message_start"
        case {"role": "assistant", "content": _}:
            return "message"
        case _:
            return ""


_KNOWN_OF_CALLS = frozenset(("type", "id", "name", "input"))
#: the blocks that go back as provider state
_THINKING = ("thinking", "redacted_thinking")


class AnthropicModel(HttpModel):
    """One model of the Messages API, its prompt cache used for the tools, the system prompt and the transcript."""

    answers: ClassVar[CollectsAnswer] = AnthropicAnswer

    def __init__(self, spec: ModelSpec, ssl_context: ssl.SSLContext | None, emit: Emit, server: ModelServer) -> None:
        super().__init__(spec, emit, server)
        self._converter = BlockConverter(self.name)

        def client(limits: httpx2.Limits) -> SdkClient:
            http = anthropic.DefaultAioHttpClient(limits=limits, **http_client_options(ssl_context))
            made = anthropic.AsyncAnthropic(
                api_key=spec.api_key,
                base_url=spec.base_url or BASE_URL,
                max_retries=0,
                open_telemetry=False,
                http_client=http,
            )
            return SdkClient(made, http)

        self.transport = Transport(client, anthropic, "/v1/messages", self.where, server)

    async def call(
        self,
        request: ModelRequest,
        on_text: Callable[[str], None] | None = None,
        *,
        timeout: float = 300.0,
        stall_s: float = 60.0,
        watch: CallWatch | None = None,
    ) -> ModelReply:
        """Call the model, and again where it paused: the answer so far goes back, and what follows goes on with it."""
        ends_at = time.monotonic() + timeout
        reply = await super().call(request, on_text, timeout=timeout, stall_s=stall_s, watch=watch)
        for _ in range(MOST_CONTINUED):
            if reply.finish != PAUSED or not reply.state or not self.shape.takes(STATE):
                break
            left_s = max(0.0, ends_at - time.monotonic())
            try:
                more = await super().call(
                    going_on(request, reply), on_text, timeout=left_s, stall_s=stall_s, watch=watch
                )
            except EmptyAnswer as empty:
                if not reply.text.strip():
                    raise
                return end(reply, empty.finish or "stop")
            reply = join(reply, more)
        return end(reply, LENGTH) if reply.finish == PAUSED else reply

    def prepare(self, request: ModelRequest) -> Prepared:
        """Return the request as this server takes it."""
        marks = self.shape.takes(CACHE_MARKS)
        prompt = "\n\n".join(filter(None, (request.system, format_instruction(request.options))))
        system, messages, container = self._converter.system_and_messages(
            prompt, request.messages, marks=marks, takes_state=self.shape.takes(STATE)
        )
        settings = self._settings(request, marks=marks)
        if system != b"[]":
            settings["system"] = msgspec.Raw(system)
        settings["messages"] = msgspec.Raw(messages)
        if container:
            own = settings.get("container")  # of the settings' extra body, with skills
            settings["container"] = own | {"id": container} if isinstance(own, dict) else own or container
        sent = self.shape.apply(settings)
        opaque = [name for name in _THINKING if b'{"type":"' + name.encode() in messages]
        return Prepared(encode(sent), tuple(sent), self.limit(request), frozenset(opaque), request.tools)

    def _settings(self, request: ModelRequest, *, marks: bool) -> dict[str, Any]:
        limit = self.limit(request)
        settings: dict[str, Any] = {"model": self.where.model, "max_tokens": limit, "stream": True}
        if self.spec.temperature is not None:
            settings["temperature"] = self.spec.temperature
        if request.tools:
            settings["tools"] = _tools(request.tools, marks=marks)
        effort = {"reasoning_effort": self.spec.reasoning_effort} if self.spec.reasoning_effort else {}
        return settings | anthropic_fields(effort | dict(request.options)) | self.extra


def _tools(specs: tuple[ToolSpec, ...], *, marks: bool) -> list[dict[str, object]]:
    tools: list[dict[str, object]] = [
        {"name": spec.name, "description": spec.description, "input_schema": spec.parameters} for spec in specs
    ]
    if marks:
        tools[-1]["cache_control"] = {"type": "ephemeral"}
    return tools
