"""Transcript messages: JSON bytes of the chat-completions form, made here and read here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from worker.tools.spec import ToolCall


class TranscriptFunction(msgspec.Struct, frozen=True):
    """The function of a tool call; ``arguments`` is JSON text."""

    name: str
    arguments: str


class TranscriptCall(msgspec.Struct, frozen=True):
    """One tool call inside an assistant message."""

    id: str
    function: TranscriptFunction
    type: str = "function"


class TranscriptMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a transcript."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    tool_calls: tuple[TranscriptCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""


_DECODER = msgspec.json.Decoder(TranscriptMessage)


def read(message: bytes) -> TranscriptMessage:
    """Decode one message. Raises msgspec.DecodeError."""
    return _DECODER.decode(message)


def user(text: str) -> bytes:
    """Return a user message."""
    return msgspec.json.encode({"role": "user", "content": text})


def assistant(text: str, calls: Sequence[ToolCall] = (), state: bytes = b"") -> bytes:
    """Return an assistant message with the tool calls it asked for, and what its provider wants back with it.

    ``state`` is a JSON object (worker.agent.models.provider_state), empty for none.
    """
    message: dict[str, object] = {"role": "assistant", "content": text or (None if calls else "")}
    if calls:
        message["tool_calls"] = [
            TranscriptCall(call.id, TranscriptFunction(call.name, call.arguments)) for call in calls
        ]
    if state:
        message["provider_state"] = msgspec.Raw(state)
    return msgspec.json.encode(message)


def tool(call: ToolCall, content: str) -> bytes:
    """Return the result of a tool call."""
    return msgspec.json.encode({"role": "tool", "tool_call_id": call.id, "name": call.name, "content": content})
