"""Messages of a transcript as input items of the Responses API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from shared.attachments import Attachment
from shared.traces import Exchange


class KeptFunction(msgspec.Struct, frozen=True):
    """The function of a call."""

    name: str
    arguments: str = "{}"


class KeptCall(msgspec.Struct, frozen=True):
    """A tool call of an assistant's message."""

    id: str
    function: KeptFunction


class KeptMessage(msgspec.Struct, frozen=True):
    """A message of a transcript, as far as an item tells of it."""

    role: str
    content: str | None = None
    tool_calls: list[KeptCall] = []
    tool_call_id: str = ""
    attachments: list[Attachment] = []


def items_of(exchange: Exchange, message_id: str) -> list[dict[str, Any]]:
    """Return what the model was given to answer a message, oldest first; each item has an id of its own place."""
    messages = [msgspec.json.decode(message, type=KeptMessage) for message in exchange.before]
    for message in exchange.own:  # what is new ends where the answer begins
        read = msgspec.json.decode(message, type=KeptMessage)
        if read.role == "assistant":
            break
        messages.append(read)
    items = (item for message in messages for item in _items(message))
    return [{"id": f"in_{message_id}_{number}", "status": "completed"} | item for number, item in enumerate(items)]


def _items(message: KeptMessage) -> Iterator[dict[str, Any]]:
    words = message.content or ""
    match message.role:
        case "tool":
            yield {"type": "function_call_output", "call_id": message.tool_call_id, "output": words}
        case "assistant":
            if words:
                part = {"type": "output_text", "text": words, "annotations": [], "logprobs": []}
                yield {"type": "message", "role": "assistant", "content": [part]}
            for call in message.tool_calls:
                named = {"name": call.function.name, "arguments": call.function.arguments}
                yield {"type": "function_call", "call_id": call.id, **named}
        case role:
            images = [{"type": "input_image", "detail": "auto", "image_url": None} for _ in message.attachments]
            yield {"type": "message", "role": role, "content": [{"type": "input_text", "text": words}, *images]}
