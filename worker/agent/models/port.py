"""The port to a model: one call, streamed inside, whole outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from shared.messages import Usage
from worker.tools.spec import ToolCall, ToolSpec

#: why an answer ended, in the words of chat completions, for the words of other providers
_FINISHES = {
    "max_tokens": "length",
    "model_length": "length",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "refusal": "content_filter",
    "safety": "content_filter",
}


def finish_of(finish: str) -> str:
    """Return why an answer ended: stop, length, content_filter or tool_calls."""
    said = finish.lower()
    known = _FINISHES.get(said, said)
    return known if known in {"length", "content_filter", "tool_calls"} else "stop"


class ModelRequest(msgspec.Struct, frozen=True):
    """One model call: ``messages`` are transcript messages (JSON bytes of the chat-completions form), oldest first."""

    system: str
    messages: Sequence[bytes]
    tools: tuple[ToolSpec, ...]
    session: str = ""
    max_tokens: int = 4096
    #: what else the caller asks for, under the names of chat completions (temperature, stop, tool_choice …)
    options: Mapping[str, Any] = {}


class ModelReply(msgspec.Struct, frozen=True):
    """What a model answered: text, or tool calls, or both; ``finish`` is the provider's stop reason."""

    text: str
    tool_calls: tuple[ToolCall, ...]
    usage: Usage
    provider: str
    model: str
    finish: str


class Model(Protocol):
    """One model, or a chain of them."""

    @property
    def name(self) -> str:
        """The name of the model, ``provider:model``."""

    async def reply(
        self, request: ModelRequest, on_text: Callable[[str], None] | None = None, *, timeout: float = 300.0
    ) -> ModelReply:
        """Call the model once; ``timeout`` seconds bound the whole call, ``on_text`` gets its text as it comes.

        Cancelling the call closes its connection. Raises TimeoutError, ModelUnavailable, ModelRejected, ContextTooLong.
        """

    async def close(self) -> None:
        """Close every connection."""
