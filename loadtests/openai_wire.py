"""The chat completions form of a scripted answer, streamed and whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from loadtests.answers import Answer, Asked, Event
from loadtests.directives import WantedCall
from loadtests.wire_rules import openai_problem

PATH = "/v1/chat/completions"
PING = b": keep-alive\n\n"
MALFORMED = b'data: {"id": "chatcmpl", "choices": [{"delta": {"content": \n\n'
CREATED = 1_760_000_000


def read_asked(body: bytes) -> Asked:
    """Read a request. Raises msgspec.DecodeError, KeyError and TypeError where it is none."""
    request: dict[str, Any] = msgspec.json.decode(body)
    messages: list[dict[str, Any]] = request["messages"]
    last = max((n for n, message in enumerate(messages) if message["role"] == "user"), default=-1)
    after = messages[last + 1 :]
    names = {call["id"]: call["function"]["name"] for message in after for call in message.get("tool_calls") or ()}
    results = tuple(
        (names.get(message["tool_call_id"], "unknown"), text_of(message["content"]))
        for message in after
        if message["role"] == "tool"
    )
    step = sum(message["role"] == "assistant" for message in after)
    text = text_of(messages[last]["content"]) if last >= 0 else ""
    return Asked(request["model"], bool(request.get("stream")), text, step, results, len(body) // 4)


def text_of(content: object) -> str:
    """Return the text of a content that is a string or a list of parts."""
    match content:
        case str():
            return content
        case list():
            return "\n".join(part["text"] for part in content if part.get("type") == "text")
        case _:
            return ""


def call_entry(answer: Answer, index: int, call: WantedCall) -> dict[str, Any]:
    return {
        "id": f"call_{answer.id}_{index}",
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def usage(answer: Answer) -> dict[str, Any]:
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.input_tokens + answer.output_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
    }


def whole(answer: Answer) -> bytes:
    """Return the body of an answer that is not streamed."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None, "refusal": None}
    if answer.calls:
        message["tool_calls"] = [call_entry(answer, index, call) for index, call in enumerate(answer.calls)]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish(answer)}
    return msgspec.json.encode(
        envelope(answer, "chat.completion") | {"choices": [choice], "usage": usage(answer)},
    )


def envelope(answer: Answer, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{answer.id}", "object": kind, "created": CREATED, "model": answer.model}


def finish(answer: Answer) -> str:
    return "tool_calls" if answer.calls else "stop"


def events(answer: Answer, piece_characters: int) -> Iterator[Event]:
    """Yield the streamed events; usage comes last, as with ``include_usage``."""
    yield chunk(answer, {"role": "assistant", "content": ""})
    for piece in answer.pieces(piece_characters):
        yield chunk(answer, {"content": piece}, text=True)
    for index, call in enumerate(answer.calls):
        entry = call_entry(answer, index, call)
        opening = entry | {"index": index, "function": {"name": call.name, "arguments": ""}}
        yield chunk(answer, {"tool_calls": [opening]})
        yield chunk(answer, {"tool_calls": [{"index": index, "function": {"arguments": call.arguments}}]})
    yield chunk(answer, {}, finish_reason=finish(answer))
    last = envelope(answer, "chat.completion.chunk") | {"choices": [], "usage": usage(answer)}
    yield Event(b"data: " + msgspec.json.encode(last) + b"\n\n")
    yield Event(b"data: [DONE]\n\n")


def chunk(answer: Answer, delta: dict[str, Any], *, finish_reason: str | None = None, text: bool = False) -> Event:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    body = envelope(answer, "chat.completion.chunk") | {"choices": [choice]}
    return Event(b"data: " + msgspec.json.encode(body) + b"\n\n", text)


def problem(body: bytes) -> str:
    """Return what a real provider would refuse a request for, empty if nothing."""
    return openai_problem(msgspec.json.decode(body))


def error(status: int, message: str = "") -> bytes:
    """Return the body of an error answer."""
    kinds = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error"}
    found = {"message": message or f"scripted status {status}", "type": kinds.get(status, "server_error"), "code": None}
    return msgspec.json.encode({"error": found | {"param": None}})


def context_too_long() -> bytes:
    """Return the body of the 400 for a transcript that exceeds the context."""
    message = "This model's maximum context length is 128000 tokens. However, your messages resulted in 140000 tokens."
    problem = {"message": message, "type": "invalid_request_error", "param": "messages"}
    return msgspec.json.encode({"error": problem | {"code": "context_length_exceeded"}})
