"""What real providers demand of a transcript, and answer 400 to: the scripted one refuses the same."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

_ID = re.compile(r"[a-zA-Z0-9_-]+")


def openai_problem(request: Json) -> str:
    """Return what is wrong with the messages of a chat completion, empty if nothing is."""
    waiting: list[str] = []
    for message in request["messages"]:
        if message["role"] == "tool":
            if message.get("tool_call_id") not in waiting:
                return "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
            waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            break
        if message["role"] == "assistant":
            waiting = [call["id"] for call in message.get("tool_calls") or ()]
            if not waiting and not message.get("content"):
                return "an assistant message needs content or tool_calls"
        elif message.get("content") is None:
            return f"a {message['role']} message needs content"
    return f"these tool_call_ids did not have response messages: {', '.join(waiting)}" if waiting else ""


def anthropic_problem(request: Json) -> str:
    """Return what is wrong with the messages of an Anthropic request, empty if nothing is."""
    messages = [(message["role"], _blocks(message["content"])) for message in request["messages"]]
    if not messages or messages[0][0] != "user":
        return "the first message must use the user role"
    if messages[-1][0] != "user":
        return "the conversation must end with a user message"
    ids = [block["id"] for _, blocks in messages for block in blocks if block["type"] == "tool_use"]
    if not all(map(_ID.fullmatch, ids)) or max(Counter(ids).values(), default=1) > 1:
        return "tool_use ids must be unique and match [a-zA-Z0-9_-]+"
    return next((problem for problem in map(_problem_with, [("", []), *messages], messages) if problem), "")


def _problem_with(before: tuple[str, list[Json]], message: tuple[str, list[Json]]) -> str:
    """Return what is wrong with a message behind another."""
    role, blocks = message
    asked = [block["id"] for block in before[1] if block["type"] == "tool_use"]
    leading = list(_leading_results(blocks))
    results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
    if role == before[0]:
        return "roles must alternate"
    if not blocks:
        return "content must not be empty"
    if any(block["type"] == "text" and not block["text"].strip() for block in blocks):
        return "text content blocks must contain non-whitespace text"
    if any(block["type"] == "tool_use" and not isinstance(block["input"], dict) for block in blocks):
        return "tool_use input must be an object"
    if sorted(results) != sorted(asked):
        return f"tool_use and tool_result ids differ: {sorted(asked)} were asked, {sorted(results)} given"
    return "" if results == leading else "tool_result blocks must come first"


def _leading_results(blocks: list[Json]) -> Iterator[str]:
    for block in blocks:
        if block["type"] != "tool_result":
            return
        yield block["tool_use_id"]


def _blocks(content: str | list[Json]) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
