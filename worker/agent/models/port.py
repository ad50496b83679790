"""The port to a model: one call, streamed inside, whole outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from shared.usage import NOTHING, Usage
from worker.tools.spec import ToolCall, ToolSpec

#: what a reply's ``finish`` says of an answer that was cut off at the model's output limit
LENGTH = "length"
#: what it says of an answer that its provider broke off to be asked to go on; no caller of a model sees it
PAUSED = "paused"

#: why an answer ended, in the words of chat completions, for the words of other providers
_FINISHES = {
    "max_tokens": LENGTH,
    "max_output_tokens": LENGTH,
    "model_length": LENGTH,
    "token_limit": LENGTH,
    "model_context_window_exceeded": LENGTH,
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "refusal": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "prohibited_content": "content_filter",
    "blocklist": "content_filter",
    "spii": "content_filter",
    "sensitive": "content_filter",
    "error_toxic": "content_filter",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
    "max_length": LENGTH,
    "pause_turn": LENGTH,
    "compaction": LENGTH,
    "tool_call": "tool_calls",
}


def finish_of(finish: str) -> str:
    """Return why an answer ended: stop, length, content_filter or tool_calls."""
    said = finish.lower()
    known = _FINISHES.get(said, said)
    return known if known in {LENGTH, "content_filter", "tool_calls"} else "stop"


def finish_with(finish: str, *, any_calls: bool) -> str:
    """Return why an answer ended that has calls, or has none: servers say stop for the one, and calls for the other."""
    if any_calls:
        return "tool_calls" if finish == "stop" else finish
    return "stop" if finish == "tool_calls" else finish


class ModelRequest(msgspec.Struct, frozen=True):
    """One model call: ``messages`` are transcript messages (JSON bytes of the chat-completions form), oldest first."""

    system: str
    messages: Sequence[bytes]
    tools: tuple[ToolSpec, ...]
    #: the key of the conversation, for the provider's prompt cache and the log
    session: str = ""
    #: tokens the answer may have; None is what the model's own settings say
    max_tokens: int | None = None
    #: the bytes of the images that the messages refer to, by digest, as far as they are here
    images: Mapping[str, bytes] = {}
    #: by how many bytes ``messages`` are longer than their tokens tell, for the images in them
    image_bytes: int = 0
    #: what else the caller asks for, under the names of chat completions (temperature, stop, tool_choice …)
    options: Mapping[str, Any] = {}


class ModelReply(msgspec.Struct, frozen=True):
    """What a model answered: text, or tool calls, or both."""

    text: str
    tool_calls: tuple[ToolCall, ...]
    #: what all tries of the call have used
    usage: Usage
    provider: str
    model: str
    #: why it ended, in the words of chat completions: stop, length, tool_calls or content_filter
    finish: str
    #: what its provider has to get back with this answer (worker.agent.models.provider_state), empty for nothing
    state: bytes = b""


class CallWatch:
    """What the caller of a model learns beside the text; override what is of interest. None may block."""

    def __init__(self) -> None:
        #: what the call has used so far, whatever comes of it
        self.usage = NOTHING

    def spend(self, usage: Usage) -> None:
        """Count what a try has used."""
        self.usage += usage

    def sent(self, usage: Usage) -> None:
        """A request goes out; so much the call has used if it is cut off before anything comes."""

    def heard_of(self) -> None:
        """Some of an answer has come."""

    def restarted(self) -> None:
        """The text told so far is void: the answer begins again."""

    def waiting(self, model: str, failure: Exception) -> None:
        """No model can answer now, for this reason; the call waits for this one."""


class Model(Protocol):
    """One model, or a chain of them."""

    @property
    def name(self) -> str:
        """The name of the model, ``provider:model``."""

    async def reply(
        self,
        request: ModelRequest,
        on_text: Callable[[str], None] | None = None,
        *,
        timeout: float = 300.0,
        watch: CallWatch | None = None,
    ) -> ModelReply:
        """Call the model once; ``timeout`` seconds bound the whole call, ``on_text`` gets its text as it comes.

        Cancelling the call closes its connection. Raises TimeoutError, ModelUnavailable, ModelRejected, ContextTooLong;
        what it used until then is ``watch.usage``.
        """

    async def close(self) -> None:
        """Close every connection."""
