"""The port to a model: one call, streamed inside, whole outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from shared.messages import Usage
from worker.tools.spec import ToolCall, ToolSpec


class ModelRequest(msgspec.Struct, frozen=True):
    """One model call: ``messages`` are transcript messages (JSON bytes of the chat-completions form), oldest first."""

    system: str
    messages: Sequence[bytes]
    tools: tuple[ToolSpec, ...]
    session: str = ""
    max_tokens: int = 4096


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
