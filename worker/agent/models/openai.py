"""Models behind an OpenAI-compatible server: OpenAI itself, vLLM, Ollama, OpenRouter, LM Studio and the like."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import httpx2
import openai
from msgspec.json import encode

from shared.events import Emit
from shared.loose_json import decode_loose
from shared.usage import NOTHING, Usage
from worker.agent.models.answer_text import AnswerText
from worker.agent.models.failures import (
    BrokenOff,
    EmptyAnswer,
    Endpoint,
    MalformedAnswer,
    Withheld,
    from_event,
    from_words,
)
from worker.agent.models.http_model import CollectsAnswer, HttpModel, Prepared, http_client_options
from worker.agent.models.openai_messages import as_sent
from worker.agent.models.port import CallWatch, ModelReply, ModelRequest, finish_of, finish_with
from worker.agent.models.provider_state import (
    ProviderState,
    encode_state,
    merge,
    opaque_of_call,
    opaque_of_message,
)
from worker.agent.models.request_shape import STATE, SYSTEM_ROLE
from worker.agent.models.server import ModelServer
from worker.agent.models.sse import BYTE_ORDER_MARK, ErrorEvent, is_done
from worker.agent.models.tool_calls import StreamedCalls, arguments_text
from worker.agent.models.transport import SdkClient, Transport
from worker.agent.models.usage_counts import ToldCounts, estimate
from worker.agent.models.written_calls import WrittenCalls
from worker.frames import ModelSpec
from worker.tools.spec import ToolCall

BASE_URL = "https://api.openai.com/v1"
#: reasons of an end that are failures of the server: OpenRouter's, SGLang's, DeepSeek's, Zhipu's
FAILED = frozenset(("error", "abort", "insufficient_system_resource", "network_error"))
#: reasons of an end that say there is none: DashScope's and Python's words for nothing
UNFINISHED = frozenset(("null", "none"))


class OpenAIAnswer:
    """Collects the chunks of one chat completion; ``sent_bytes`` is the size of what it answers."""

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
        self._calls = StreamedCalls()
        self._opaque: dict[str, Any] = {}
        self._counts = ToldCounts()
        self._began = False
        self._in_deltas = False
        self._finish = ""
        self._index: Any = None

    def take(self, event: bytes) -> bool:
        """Read one chunk, or the ``[DONE]`` that ends the stream."""
        if is_done(event):
            self.finished = True
            return False
        if not event.strip():
            return False
        if type(event) is ErrorEvent:
            return self._take_error(event)
        body = decode_loose(event)
        if type(body) is not dict:
            return self._take_odd(body)
        return self._take_chunk(body)

    def take_whole(self, body: bytes) -> None:
        """Read an answer that is not streamed: one object, or some servers' lines of them."""
        body = body.removeprefix(BYTE_ORDER_MARK)
        try:
            self.take(body)
        except ValueError:
            lines = body.splitlines()
            if len(lines) < 2:
                raise
            for line in lines:
                self.take(line)
        self.finished = self.finished or self._began

    def reply(self) -> ModelReply:
        """Return the whole answer. Raises EmptyAnswer, and Withheld for one that the provider withheld."""
        text = self._text.end()
        parts = [part for part in self._calls.calls if part.name or part.arguments]
        if not parts:
            parts = self._text.calls
        if not parts and not text.strip():
            if finish_of(self._finish) == "content_filter":
                raise Withheld(f"{self._where.name} withheld its answer ({self._finish})")
            why = self._finish or "no finish reason"
            raise EmptyAnswer(f"{self._where.name} gave an empty answer ({why})", finish_of(self._finish))
        calls, opaque = list[ToolCall](), list[dict[str, Any] | None]()
        for part in parts:
            meant = part.calls("call")
            calls += meant
            opaque += [part.opaque or None, *([None] * (len(meant) - 1))]
        state = ProviderState(self._where.name, self._opaque, opaque)
        return ModelReply(
            text,
            tuple(calls),
            self.usage(),
            self._where.provider,
            self._where.model,
            finish_with(finish_of(self._finish), any_calls=bool(calls)),
            encode_state(state),
        )

    def usage(self) -> Usage:
        """Return what the call has used so far: as told with the last chunk, an estimate until then or without it."""
        counts = self._counts
        read, written = counts.get("prompt_tokens"), counts.get("completion_tokens")
        if read is None and not self._began:
            return NOTHING
        guess = estimate(self._sent_bytes, self._received_characters())
        cached = counts.get("prompt_tokens_details.cached_tokens")
        if cached is None:
            cached = counts.get("prompt_cache_hit_tokens")  # DeepSeek's name for them
        sent = guess.input_tokens if read is None else read
        return Usage(
            model_calls=1,
            input_tokens=sent,
            output_tokens=guess.output_tokens if written is None else written,
            cached_tokens=min(cached or 0, sent),
            estimated_calls=int(read is None or written is None),
        )

    @property
    def oddities(self) -> list[str]:
        """What cannot be true, or came in another place than it should."""
        return [*self._counts.odd, *self._text.oddities]

    def _received_characters(self) -> int:
        return self._text.characters + sum(len(call.arguments) for call in self._calls.calls)

    def _take_error(self, event: bytes) -> bool:
        try:
            body = decode_loose(event)
        except ValueError:
            raise from_words(self._where, event.decode("utf-8", "replace")) from None
        error = from_event(self._where, body) if isinstance(body, dict) else None
        raise error or from_words(self._where, event.decode("utf-8", "replace"))

    def _take_odd(self, body: Any) -> bool:
        """Read an event that is no object: a list of chunks or of errors (Gemini), or nothing at all."""
        match body:
            case [*chunks]:
                held_some = [self._take_chunk(chunk) for chunk in chunks if isinstance(chunk, dict)]
                return any(held_some)
            case str() if body.strip():
                raise MalformedAnswer(f"{self._where.name} sent words that are no event: {body[:200]}")
            case _:
                return False

    def _take_chunk(self, body: dict[str, Any]) -> bool:
        if (usage := body.get("usage")) is not None:
            self._counts.add(usage)
        if type(more := body.get("x_groq")) is dict:
            self._counts.add(more.get("usage"))
        choices = body.get("choices")
        if (not choices or body.get("error") or body.get("x_groq")) and not self.finished:
            error = from_event(self._where, body)
            if error is not None:
                raise error
        if type(choices) is list and len(choices) == 1 and type(choices[0]) is dict:  # mostly
            found = choices
        elif choices is None and isinstance(body.get("message"), dict):  # Ollama's own protocol
            found = [{"message": body["message"], "finish_reason": body.get("done_reason")}]
        else:  # a null before it, none at all, or more than one
            found = list(_objects(choices))
        held = False
        for choice in found:
            # of several answers the first one counts; what has no number, or the same, is a part of it
            index = choice.get("index")
            self._index = index if self._index is None else self._index
            if index is None or index == self._index:
                self._began = True
                held = self._take_choice(choice) or held
        return held

    def _take_choice(self, choice: dict[str, Any]) -> bool:
        if isinstance(choice.get("error"), dict) and not self.finished:
            raise from_event(self._where, choice) or BrokenOff(f"{self._where.name} broke off its answer")
        delta = choice.get("delta")
        if delta:
            self._in_deltas = True
        elif not self._in_deltas or not self._received_characters():  # some send all of it once more at the end
            delta = choice.get("message") or {"content": choice.get("text")}
        if isinstance(delta, str):
            delta = {"content": delta}
        held = isinstance(delta, dict) and self._take_delta(delta)
        if "usage" in choice:  # Moonshot's
            self._counts.add(choice["usage"])
        finish = choice.get("finish_reason")
        if isinstance(finish, dict):
            finish = finish.get("type")
        if isinstance(finish, str) and finish in FAILED and not self.finished:
            raise BrokenOff(f"{self._where.name} broke off its answer: its server says that it failed ({finish})")
        if finish and isinstance(finish, str) and finish.lower() not in UNFINISHED:
            self._finish = finish.lower()
            self.finished = True
        return held

    def _take_delta(self, delta: dict[str, Any]) -> bool:
        content = delta.get("content") or delta.get("refusal") or _transcript(delta.get("audio"))
        if type(content) is str:
            self._text.add(content)
            if len(delta) == 1:
                return True
        elif content:
            for text in _texts(content):
                self._text.add(text)
        if delta.get("tool_calls"):
            self._calls.begin_chunk()
            for part in _objects(delta["tool_calls"]):
                self._take_call(part)
        legacy = delta.get("function_call")
        if isinstance(legacy, dict):
            self._take_call({"index": 0, "function": legacy})
        if delta.keys() - _PLAIN:
            merge(self._opaque, opaque_of_message(delta))
        return bool(content or delta.get("tool_calls") or legacy)

    def _take_call(self, part: dict[str, Any]) -> None:
        # a tool without a schema (custom) has its whole input as one text
        function = part.get("function") or part.get("custom")
        function = function if isinstance(function, dict) else part
        index, id_, name = part.get("index"), part.get("id"), function.get("name")
        call = self._calls.add(
            index if type(index) is int else None,
            "" if id_ is None else str(id_),
            name if isinstance(name, str) else "",
            arguments_text(function.get("arguments", function.get("input"))),
        )
        merge(call.opaque, opaque_of_call(part))


#: fields of a delta that say nothing beyond the answer itself
_PLAIN = frozenset(("role", "content", "refusal", "tool_calls", "function_call"))


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects of what should be a list of them."""
    if isinstance(value, dict):
        yield value
    elif isinstance(value, list):
        yield from (one for one in value if isinstance(one, dict))


def _transcript(audio: Any) -> Any:
    """Return the words of an answer that is spoken."""
    return audio.get("transcript") if isinstance(audio, dict) else None


def _texts(content: Any) -> Iterator[str]:
    """Yield the text of a content: a string, or parts of which some are text (Mistral, LiteLLM)."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list | dict):
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, str):
                yield part
            elif isinstance(part, dict) and part.get("type", "text") in {"text", "output_text"}:
                text = part.get("text")
                if isinstance(text, str):
                    yield text


class OpenAIModel(HttpModel):
    """One model of an OpenAI-compatible server."""

    answers: ClassVar[CollectsAnswer] = OpenAIAnswer

    def __init__(self, spec: ModelSpec, ssl_context: ssl.SSLContext | None, emit: Emit, server: ModelServer) -> None:
        super().__init__(spec, emit, server)
        self._is_openai = not spec.base_url or "api.openai.com" in spec.base_url
        # OpenAI's reasoning models refuse max_tokens; most compatible servers know nothing else.
        self._limit_field = "max_completion_tokens" if self._is_openai else "max_tokens"

        def client(limits: httpx2.Limits) -> SdkClient:
            http = openai.DefaultAioHttpClient(limits=limits, **http_client_options(ssl_context))
            made = openai.AsyncOpenAI(
                api_key=spec.api_key,
                base_url=spec.base_url or BASE_URL,
                max_retries=0,
                http_client=http,
            )
            return SdkClient(made, http)

        self.transport = Transport(client, openai, "/chat/completions", self.where, server)

    def prepare(self, request: ModelRequest) -> Prepared:
        """Return the request as this server takes it."""
        messages, opaque = as_sent(
            request.system,
            request.messages,
            self.name,
            takes_system=self.shape.takes(SYSTEM_ROLE),
            takes_state=self.shape.takes(STATE),
        )
        settings = self._settings(request)
        sent = self.shape.apply(settings)
        body = encode(sent)[:-1] + b',"messages":[' + b",".join(messages) + b"]}"
        return Prepared(body, tuple(sent), self.limit(request), frozenset(opaque), request.tools)

    def _settings(self, request: ModelRequest) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "model": self.where.model,
            "stream": True,
            "stream_options": {"include_usage": True},
            self._limit_field: self.limit(request),
        }
        if self.spec.temperature is not None:
            settings["temperature"] = self.spec.temperature
        if self.spec.reasoning_effort:
            settings["reasoning_effort"] = self.spec.reasoning_effort
        if self._is_openai and request.session:
            # calls with one key go where the conversation is in the prompt cache; the session's own name stays here
            settings["prompt_cache_key"] = hashlib.blake2b(request.session.encode(), digest_size=16).hexdigest()
        if request.tools:
            settings["tools"] = [{"type": "function", "function": spec} for spec in request.tools]
        return settings | dict(request.options) | self.extra
