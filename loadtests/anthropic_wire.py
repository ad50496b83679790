"""The Anthropic messages form of a scripted answer, streamed and whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from loadtests.answers import Answer, Asked, Event
from loadtests.openai_wire import text_of
from loadtests.wire_rules import anthropic_problem

PATH = "/v1/messages"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
MALFORMED = b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": \n\n'


def read_asked(body: bytes) -> Asked:
    """Read a request. Raises msgspec.DecodeError, KeyError and TypeError where it is none."""
    request: dict[str, Any] = msgspec.json.decode(body)
    messages: list[dict[str, Any]] = request["messages"]
    last = max((n for n, message in enumerate(messages) if is_words(message)), default=-1)
    after = messages[last + 1 :]
    blocks = [block for message in after if isinstance(message["content"], list) for block in message["content"]]
    names = {block["id"]: block["name"] for block in blocks if block["type"] == "tool_use"}
    results = tuple(
        (names.get(block["tool_use_id"], "unknown"), text_of(block.get("content")))
        for block in blocks
        if block["type"] == "tool_result"
    )
    step = sum(message["role"] == "assistant" for message in after)
    text = text_of(messages[last]["content"]) if last >= 0 else ""
    return Asked(request["model"], bool(request.get("stream")), text, step, results, len(body) // 4)


def is_words(message: dict[str, Any]) -> bool:
    """Tell whether a message is what a user said, not what a tool gave."""
    content = message["content"]
    if message["role"] != "user":
        return False
    return isinstance(content, str) or any(block["type"] == "text" for block in content)


def opening(answer: Answer) -> dict[str, Any]:
    return {
        "id": f"msg_{answer.id}",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage(answer, 1),
    }


def usage(answer: Answer, output_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": answer.input_tokens - answer.cached_tokens,
        "output_tokens": output_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": answer.cached_tokens,
    }


def stop_reason(answer: Answer) -> str:
    return "tool_use" if answer.calls else "end_turn"


def whole(answer: Answer) -> bytes:
    """Return the body of an answer that is not streamed; broken tool arguments become an empty object."""
    content: list[dict[str, Any]] = [{"type": "text", "text": answer.text}] if answer.text else []
    for index, call in enumerate(answer.calls):
        try:
            arguments = msgspec.json.decode(call.arguments)
        except msgspec.DecodeError:
            arguments = {}
        content.append({"type": "tool_use", "id": call_id(answer, index), "name": call.name, "input": arguments})
    ending = {"stop_reason": stop_reason(answer), "usage": usage(answer, answer.output_tokens)}
    return msgspec.json.encode(opening(answer) | {"content": content} | ending)


def call_id(answer: Answer, index: int) -> str:
    return f"toolu_{answer.id}_{index}"


def events(answer: Answer, piece_characters: int) -> Iterator[Event]:
    """Yield the streamed events."""
    yield event("message_start", message=opening(answer))
    index = 0
    if answer.text:
        yield event("content_block_start", index=index, content_block={"type": "text", "text": ""})
        for piece in answer.pieces(piece_characters):
            yield event("content_block_delta", index=index, delta={"type": "text_delta", "text": piece})
        yield event("content_block_stop", index=index)
        index += 1
    for number, call in enumerate(answer.calls):
        block = {"type": "tool_use", "id": call_id(answer, number), "name": call.name, "input": {}}
        yield event("content_block_start", index=index, content_block=block)
        delta = {"type": "input_json_delta", "partial_json": call.arguments}
        yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
        index += 1
    yield event(
        "message_delta",
        delta={"stop_reason": stop_reason(answer), "stop_sequence": None},
        usage={"output_tokens": answer.output_tokens},
    )
    yield event("message_stop")


def event(kind: str, **fields: Any) -> Event:
    data = msgspec.json.encode({"type": kind, **fields})
    is_text = kind == "content_block_delta" and fields["delta"]["type"] == "text_delta"
    return Event(b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n", is_text)


def problem(body: bytes) -> str:
    """Return what a real provider would refuse a request for, empty if nothing."""
    return anthropic_problem(msgspec.json.decode(body))


def error(status: int, message: str = "") -> bytes:
    """Return the body of an error answer."""
    kinds = {
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        529: "overloaded_error",
    }
    found = {"type": kinds.get(status, "api_error"), "message": message or f"scripted status {status}"}
    return msgspec.json.encode({"type": "error", "error": found})


def context_too_long() -> bytes:
    """Return the body of the 400 for a transcript that exceeds the context."""
    problem = {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"}
    return msgspec.json.encode({"type": "error", "error": problem})
