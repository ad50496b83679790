"""Models of Anthropic's Messages API."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Callable
from typing import Any

import anthropic
import msgspec
from msgspec.json import encode

from shared.errors import ContextTooLong, ModelRejected
from shared.usage import NOTHING, Usage
from worker.agent.models.anthropic_blocks import BlockConverter
from worker.agent.models.failures import EmptyAnswer, Endpoint, from_status
from worker.agent.models.port import ModelReply, ModelRequest
from worker.agent.models.transport import Transport
from worker.agent.models.usage_on_error import estimate
from worker.agent.models.wire_options import anthropic_fields, format_instruction
from worker.frames import ModelSpec
from worker.tools.spec import ToolCall, ToolSpec

BASE_URL = "https://api.anthropic.com"

#: the HTTP status that stands for an error event inside a stream
_STATUS_OF = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Message(msgspec.Struct):
    usage: _Usage | None = None


class _Block(msgspec.Struct):
    type: str = ""
    text: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")


class _Delta(msgspec.Struct):
    type: str = ""
    text: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class _Error(msgspec.Struct):
    type: str = ""
    message: str = ""


class _Event(msgspec.Struct):
    type: str
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: _Error | None = None


class _ToolUse:
    """A tool call while it is streamed."""

    def __init__(self, block: _Block) -> None:
        self.block = block
        self.arguments: list[str] = []

    def whole(self) -> ToolCall:
        """Return the call; a block that streamed no arguments holds them itself."""
        arguments = "".join(self.arguments) or bytes(self.block.input).decode() or "{}"
        return ToolCall(self.block.id or f"toolu_{secrets.token_hex(12)}", self.block.name, arguments)


_EVENTS = msgspec.json.Decoder(_Event)


class AnthropicAnswer:
    """Collects the events of one message; ``sent_bytes`` is the size of what it answers."""

    def __init__(self, where: Endpoint, on_text: Callable[[str], None] | None, sent_bytes: int = 0) -> None:
        self.finished = False
        self._sent_bytes = sent_bytes
        self._where = where
        self._on_text = on_text
        self._texts: list[str] = []
        self._tool_uses: dict[int, _ToolUse] = {}
        self._usage = _Usage()
        self._told = False
        self._finish = ""

    def take(self, event: bytes) -> None:
        """Read one event; types that are new or not asked for (thinking, citations, pings) are passed over."""
        read = _EVENTS.decode(event)
        match read.type:
            case "content_block_delta" if read.delta is not None:
                self._take_delta(read.index, read.delta)
            case "content_block_start" if read.content_block is not None:
                self._take_block(read.index, read.content_block)
            case "message_start" if read.message is not None:
                self._take_usage(read.message.usage)
            case "message_delta":
                self._take_usage(read.usage)
                self._told = read.usage is not None
                if read.delta is not None and read.delta.stop_reason:
                    self._finish = read.delta.stop_reason
                    self.finished = True
            case "message_stop":
                self.finished = True
            case "error":
                error = read.error or _Error()
                words = f"{error.type}: {error.message}"
                raise from_status(self._where, _STATUS_OF.get(error.type, 500), words, {})

    def reply(self) -> ModelReply:
        """Return the whole answer. Raises EmptyAnswer, ContextTooLong, and ModelRejected for a bare refusal."""
        text = "".join(self._texts)
        if not self._tool_uses and not text.strip():
            match self._finish:
                case "refusal":
                    raise ModelRejected(f"{self._where.name} refused to answer")
                case "model_context_window_exceeded":
                    raise ContextTooLong(f"{self._where.name} has no room left to answer")
            raise EmptyAnswer(f"{self._where.name} gave an empty answer ({self._finish or 'no stop reason'})")
        calls = tuple(use.whole() for _, use in sorted(self._tool_uses.items()))
        usage = self.usage()
        return ModelReply(text, calls, usage, self._where.provider, self._where.model, self._finish or "end_turn")

    def usage(self) -> Usage:
        """Return what the call has used so far, an estimate where that is not told: of the answer, until its end.

        Anthropic's ``input_tokens`` leave out what the cache gave and took; ours hold it, as other providers' do.
        """
        told = self._usage
        if told.input_tokens is None and not self._texts and not self._tool_uses:
            return NOTHING
        cached, written = told.cache_read_input_tokens or 0, told.cache_creation_input_tokens or 0
        guess = estimate(self._sent_bytes, self._received_characters())
        if told.input_tokens is not None:
            guess = msgspec.structs.replace(guess, input_tokens=told.input_tokens + cached + written)
        output = max(told.output_tokens or 0, 0 if self._told else guess.output_tokens)
        whole = self._told and told.input_tokens is not None
        return msgspec.structs.replace(
            guess, output_tokens=output, cached_tokens=cached, written_tokens=written, estimated_calls=int(not whole)
        )

    def _received_characters(self) -> int:
        arguments = (piece for use in self._tool_uses.values() for piece in use.arguments)
        return sum(map(len, self._texts)) + sum(map(len, arguments))

    def _take_delta(self, index: int, delta: _Delta) -> None:
        if delta.type == "text_delta" and delta.text:
            self._say(delta.text)
        elif delta.type == "input_json_delta" and index in self._tool_uses:
            self._tool_uses[index].arguments.append(delta.partial_json)

    def _take_block(self, index: int, block: _Block) -> None:
        if block.type == "tool_use":
            self._tool_uses[index] = _ToolUse(block)
        elif block.type == "text" and block.text:
            self._say(block.text)

    def _say(self, text: str) -> None:
        self._texts.append(text)
        if self._on_text is not None:
            self._on_text(text)

    def _take_usage(self, usage: _Usage | None) -> None:
        """Take the counts given; they are cumulative, and a later event may leave out what an earlier one told."""
        for name in _Usage.__struct_fields__:
            count = getattr(usage, name, None)
            if count is not None:
                setattr(self._usage, name, count)


class AnthropicModel:
    """One model of the Messages API, its prompt cache used for the tools, the system prompt and the transcript."""

    def __init__(self, spec: ModelSpec, ssl_context: ssl.SSLContext | None = None) -> None:
        self._where = Endpoint("anthropic", spec.model, spec.api_key)
        self.name = self._where.name
        self.price = spec.price
        self._converter = BlockConverter()
        transport: dict[str, Any] = {} if ssl_context is None else {"verify": ssl_context}
        client = anthropic.AsyncAnthropic(
            api_key=spec.api_key,
            base_url=spec.base_url or BASE_URL,
            max_retries=0,
            open_telemetry=False,
            http_client=anthropic.DefaultAioHttpClient(**transport),
        )
        self._line = Transport(client, anthropic, "/v1/messages", self._where)

    async def call(
        self,
        request: ModelRequest,
        on_text: Callable[[str], None] | None = None,
        *,
        timeout: float = 300.0,
        stall_s: float = 60.0,
    ) -> ModelReply:
        """Call the model once, as ``worker.agent.models.chain.Link`` describes."""
        body = self.body(request)
        answer = AnthropicAnswer(self._where, on_text, len(body))
        return await self._line.run(body, answer, timeout=timeout, stall_s=stall_s)

    async def close(self) -> None:
        """Close every connection."""
        await self._line.close()

    def body(self, request: ModelRequest) -> bytes:
        """Return the call's JSON."""
        prompt = "\n\n".join(filter(None, (request.system, format_instruction(request.options))))
        system, messages = self._converter.system_and_messages(prompt, request.messages)
        settings: dict[str, object] = {"model": self._where.model, "max_tokens": request.max_tokens, "stream": True}
        if request.tools:
            settings["tools"] = _tools(request.tools)
        if system != b"[]":
            settings["system"] = msgspec.Raw(system)
        settings |= anthropic_fields(request.options)
        settings["messages"] = msgspec.Raw(messages)
        return encode(settings)


def _tools(specs: tuple[ToolSpec, ...]) -> list[dict[str, object]]:
    tools: list[dict[str, object]] = [
        {"name": spec.name, "description": spec.description, "input_schema": spec.parameters} for spec in specs
    ]
    tools[-1]["cache_control"] = {"type": "ephemeral"}
    return tools
