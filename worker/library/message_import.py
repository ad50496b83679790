"""Messages from elsewhere, as dicts of the chat-completions or the Anthropic form, made into transcript messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from worker.agent.context import transcript
from worker.agent.models.port import ModelRequest
from worker.agent.models.provider_state import FIELD
from worker.agent.sanitize import sanitize_text
from worker.tools.spec import ToolCall, ToolSpec

MAX_TOKENS = 4096


def transcript_of(messages: Sequence[Mapping[str, Any]]) -> tuple[str, list[bytes]]:
    """Return the system text of the messages and the transcript of the others. Raises ValueError."""
    system: list[str] = []
    found: list[bytes] = []
    for message in messages:
        if not isinstance(message, Mapping):
            raise ValueError(f"a message is a {type(message).__name__}; it is a dict with role and content")
        match message.get("role"):
            case "system" | "developer":
                system.append(_text(message.get("content")))
            case "user":
                found += _user(message.get("content"))
            case "assistant":
                state = message.get(FIELD)
                kept = json_bytes(state) if isinstance(state, Mapping) else b""
                found.append(transcript.assistant(_text(message.get("content")), list(_calls(message)), kept))
            case "tool" | "function":
                call = ToolCall(str(message.get("tool_call_id") or ""), str(message.get("name") or ""), "")
                found.append(transcript.tool(call, _text(message.get("content"))))
            case role:
                raise ValueError(f"a message has the role {role!r}; it is one of system, user, assistant and tool")
    return "\n\n".join(filter(None, system)), found


def json_bytes(message: Mapping[str, Any]) -> bytes:
    """Return a message as JSON whatever is in it: objects that JSON has no form for become their text."""
    try:
        return msgspec.json.encode(message, enc_hook=str)
    except (TypeError, UnicodeEncodeError):
        return json.dumps(message, default=str).encode()


def request_of(api_kwargs: Mapping[str, Any], session: str) -> ModelRequest:
    """Return the model call that the keyword arguments of either SDK ask for. Raises ValueError."""
    system, messages = transcript_of(api_kwargs.get("messages") or ())
    given = _text(api_kwargs.get("system"))
    limit = api_kwargs.get("max_tokens") or api_kwargs.get("max_completion_tokens") or MAX_TOKENS
    tools = tuple(_tool_spec(tool) for tool in api_kwargs.get("tools") or ())
    return ModelRequest("\n\n".join(filter(None, (given, system))), messages, tools, session, int(limit))


def _tool_spec(tool: Mapping[str, Any]) -> ToolSpec:
    spec = tool.get("function") or tool
    if not spec.get("name"):
        raise ValueError("a tool has no name; it is {name, description, input_schema}, or {function: {name, …}}")
    parameters = spec.get("parameters") or spec.get("input_schema") or {"type": "object", "properties": {}}
    return ToolSpec(str(spec["name"]), str(spec.get("description") or ""), dict(parameters))


def _user(content: object) -> Iterator[bytes]:
    """Yield the tool results inside a user message of the Anthropic form, then its text."""
    results = list(_blocks(content, "tool_result"))
    for block in results:
        yield transcript.tool(ToolCall(str(block.get("tool_use_id") or ""), "", ""), _text(block.get("content")))
    text = _text(content)
    if text or not results:
        yield transcript.user(text)


def _calls(message: Mapping[str, Any]) -> Iterator[ToolCall]:
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        yield ToolCall(str(call.get("id") or ""), str(function.get("name") or ""), _json(function.get("arguments")))
    for block in _blocks(message.get("content"), "tool_use"):
        yield ToolCall(str(block.get("id") or ""), str(block.get("name") or ""), _json(block.get("input")))


def _json(arguments: Any) -> str:
    """Return the arguments as JSON text: some servers give an object."""
    return sanitize_text(arguments) if isinstance(arguments, str) else json_bytes(arguments or {}).decode()


def _blocks(content: object, kind: str) -> Iterator[Mapping[str, Any]]:
    if isinstance(content, Sequence) and not isinstance(content, str):
        yield from (block for block in content if isinstance(block, Mapping) and block.get("type") == kind)


def _text(content: object) -> str:
    """Return the text of a message's content; what is no text in it is left out."""
    if isinstance(content, str):
        return sanitize_text(content)
    return sanitize_text("\n".join(str(block.get("text") or "") for block in _blocks(content, "text")))
