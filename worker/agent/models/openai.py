"""Models behind an OpenAI-compatible server: OpenAI itself, vLLM, Ollama, OpenRouter, LM Studio and the like."""

from __future__ import annotations

import hashlib
import re
import secrets
import ssl
from collections.abc import Callable
from typing import Any

import msgspec
import openai
from msgspec.json import encode

from shared.errors import ModelRejected
from shared.usage import NOTHING, Usage
from worker.agent.models.failures import EmptyAnswer, Endpoint, from_status
from worker.agent.models.port import ModelReply, ModelRequest
from worker.agent.models.transport import Transport
from worker.agent.models.usage_on_error import estimate
from worker.frames import ModelSpec
from worker.tools.spec import ToolCall

BASE_URL = "https://api.openai.com/v1"


class _FunctionPart(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _CallPart(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _FunctionPart | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_CallPart] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None  # what a server sends that does not stream
    finish_reason: str | None = None


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None
    prompt_cache_hit_tokens: int | None = None  # DeepSeek's name for the cached ones


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None  # an object, or bare words


class _Call:
    """A tool call while it is streamed."""

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.name = ""
        self.arguments: list[str] = []

    def whole(self) -> ToolCall:
        """Return the call; some servers give no id, and no arguments for a function that takes none."""
        return ToolCall(self.id or f"call_{secrets.token_hex(12)}", self.name, "".join(self.arguments) or "{}")


_CHUNKS = msgspec.json.Decoder(_Chunk)


class OpenAIAnswer:
    """Collects the chunks of one chat completion; ``sent_bytes`` is the size of what it answers."""

    def __init__(self, where: Endpoint, on_text: Callable[[str], None] | None, sent_bytes: int = 0) -> None:
        self.finished = False
        self._sent_bytes = sent_bytes
        self._where = where
        self._on_text = on_text
        self._texts: list[str] = []
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._usage: _Usage | None = None
        self._began = False
        self._finish = ""

    def take(self, event: bytes) -> None:
        """Read one chunk, or the ``[DONE]`` that ends the stream."""
        if event == b"[DONE]":
            self.finished = True
            return
        chunk = _CHUNKS.decode(event)
        if chunk.choices:
            self._began = True
            self._take_choice(chunk.choices[0])
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.error is not None:
            raise self._error(chunk.error)

    def reply(self) -> ModelReply:
        """Return the whole answer. Raises EmptyAnswer, and ModelRejected for one the provider withheld."""
        text = "".join(self._texts)
        if not self._calls and not text.strip():
            if self._finish == "content_filter":
                raise ModelRejected(f"{self._where.name} withheld its answer (content_filter)")
            raise EmptyAnswer(f"{self._where.name} gave an empty answer ({self._finish or 'no finish reason'})")
        calls, usage = tuple(call.whole() for call in self._calls), self.usage()
        return ModelReply(text, calls, usage, self._where.provider, self._where.model, self._finish or "stop")

    def usage(self) -> Usage:
        """Return what the call has used so far: as told with the last chunk, an estimate until then or without it."""
        told = self._usage
        if told is None:
            return estimate(self._sent_bytes, self._received_characters()) if self._began else NOTHING
        details = told.prompt_tokens_details
        cached = (details.cached_tokens if details else None) or told.prompt_cache_hit_tokens
        return Usage(
            model_calls=1,
            input_tokens=told.prompt_tokens or 0,
            output_tokens=told.completion_tokens or 0,
            cached_tokens=min(cached or 0, told.prompt_tokens or 0),
        )

    def _received_characters(self) -> int:
        arguments = (piece for call in self._calls for piece in call.arguments)
        return sum(map(len, self._texts)) + sum(map(len, arguments))

    def _take_choice(self, choice: _Choice) -> None:
        delta = choice.delta or choice.message
        if delta is not None:
            text = delta.content or delta.refusal
            if text:
                self._texts.append(text)
                if self._on_text is not None:
                    self._on_text(text)
            for part in delta.tool_calls or ():
                self._take_call(part)
        if choice.finish_reason:
            self._finish = choice.finish_reason
            self.finished = True

    def _take_call(self, part: _CallPart) -> None:
        call = self._call_of(part)
        if part.function is not None:
            call.name = part.function.name or call.name
            if part.function.arguments:
                call.arguments.append(part.function.arguments)

    def _call_of(self, part: _CallPart) -> _Call:
        """Return the call this part belongs to: some servers number every call 0, or none, and tell them by id."""
        index = part.index if part.index is not None else (len(self._calls) if part.id else len(self._calls) - 1)
        known = self._by_index.get(index)
        if known is None or (part.id and known.id and part.id != known.id):
            known = self._by_index[index] = _Call(part.id or "")
            self._calls.append(known)
        return known

    def _error(self, error: object) -> Exception:
        """Return what an error inside the stream means: its code is an HTTP status, a word, or missing."""
        code = str(error.get("code")) if isinstance(error, dict) else ""
        status = int(code) if re.fullmatch(r"[45][0-9]{2}", code) else 500
        if code == "context_length_exceeded":
            status = 400
        return from_status(self._where, status, encode({"error": error}).decode(), {})


class OpenAIModel:
    """One model of an OpenAI-compatible server; the transcript's bytes are sent as they are."""

    def __init__(self, spec: ModelSpec, ssl_context: ssl.SSLContext | None = None) -> None:
        self._where = Endpoint("openai", spec.model, spec.api_key)
        self.name = self._where.name
        self.price = spec.price
        self._is_openai = not spec.base_url or "api.openai.com" in spec.base_url
        # OpenAI's reasoning models refuse max_tokens; most compatible servers know nothing else.
        self._limit = "max_completion_tokens" if self._is_openai else "max_tokens"
        transport: dict[str, Any] = {} if ssl_context is None else {"verify": ssl_context}
        client = openai.AsyncOpenAI(
            api_key=spec.api_key,
            base_url=spec.base_url or BASE_URL,
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(**transport),
        )
        self._line = Transport(client, openai, "/chat/completions", self._where)

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
        answer = OpenAIAnswer(self._where, on_text, len(body))
        return await self._line.run(body, answer, timeout=timeout, stall_s=stall_s)

    async def close(self) -> None:
        """Close every connection."""
        await self._line.close()

    def body(self, request: ModelRequest) -> bytes:
        """Return the call's JSON."""
        messages = list(request.messages)
        if request.system:
            messages.insert(0, encode({"role": "system", "content": request.system}))
        settings: dict[str, object] = {
            "model": self._where.model,
            "stream": True,
            "stream_options": {"include_usage": True},
            self._limit: request.max_tokens,
            **request.options,
        }
        if self._is_openai and request.session:
            # calls with one key go where the conversation is in the prompt cache; the session's own name stays here
            settings["prompt_cache_key"] = hashlib.blake2b(request.session.encode(), digest_size=16).hexdigest()
        if request.tools:
            settings["tools"] = [{"type": "function", "function": spec} for spec in request.tools]
        return encode(settings)[:-1] + b',"messages":[' + b",".join(messages) + b"]}"
