"""What a provider wants back with its own answer: reasoning, signatures, and whatever else it put there.

It travels inside the assistant's transcript message, under ``provider_state``, through checkpoints, store and exports:

    {"from": "openai:deepseek-reasoner", "message": {"reasoning_content": …}, "calls": [{"extra_content": …}, null]}
    {"from": "anthropic:claude-…", "blocks": [{"type": "thinking", …}, {"type": "tool_use", "call": 0}],
     "container": {"id": "container_…", "expires_at": "2026-…"}}

The model it is from gets it back as it was; no other one ever sees it. Opaque means opaque: nothing here reads it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.loose_json import mend_all

FIELD = "provider_state"
MARK = b'"provider_state"'
#: bytes of state that are kept of one message
LIMIT_BYTES = 1 << 20

#: what chat completions put into an answer that is for the reader, not for the next request
_KNOWN = frozenset(
    "role content refusal tool_calls function_call audio annotations citations logprobs token_ids name images "
    "stop_reason index finish_reason".split()
)
_KNOWN_OF_CALLS = frozenset(("index", "id", "type", "function", "custom"))
_KNOWN_OF_FUNCTIONS = frozenset(("name", "arguments"))
#: what a later piece of a stream replaces; other strings go on
_REPLACED = frozenset(("type", "id", "index", "format", "role", "name", "object"))


class ProviderState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of one message; see above."""

    #: the model it came from
    origin: str = msgspec.field(name="from", default="")
    #: fields of the message, of chat completions
    message: dict[str, Any] = {}
    #: fields of each of its tool calls, in their order
    calls: list[dict[str, Any] | None] = []
    #: content blocks in their order, of Anthropic's messages; a ``tool_use`` names its call by number
    blocks: list[dict[str, Any]] = []
    #: where Anthropic ran code for it: its id, and when it ends
    container: dict[str, Any] = {}


def opaque_of_message(message: dict[str, Any]) -> dict[str, Any]:
    """Return what a message, or a piece of one, holds beside what chat completions say."""
    return {name: value for name, value in message.items() if value is not None and name not in _KNOWN}


def opaque_of_call(call: dict[str, Any]) -> dict[str, Any]:
    """Return what a tool call, or a piece of one, holds beside what chat completions say."""
    found = {name: value for name, value in call.items() if value is not None and name not in _KNOWN_OF_CALLS}
    function = call.get("function")
    if isinstance(function, dict) and (inside := {k: v for k, v in function.items() if k not in _KNOWN_OF_FUNCTIONS}):
        found["function"] = inside
    return found


def merge(into: dict[str, Any], piece: dict[str, Any]) -> None:
    """Add a piece of a stream: strings go on, objects are merged, lists too where their parts are numbered."""
    for name, value in piece.items():
        known = into.get(name)
        if known is None or name in _REPLACED:
            into[name] = value
        elif isinstance(known, str) and isinstance(value, str):
            into[name] = known + value
        elif isinstance(known, dict) and isinstance(value, dict):
            merge(known, value)
        elif isinstance(known, list) and isinstance(value, list):
            _merge_lists(known, value)
        elif value is not None:
            into[name] = value


def _merge_lists(into: list[Any], pieces: list[Any]) -> None:
    for piece in pieces:
        number = piece.get("index") if isinstance(piece, dict) else None
        found = [one for one in into if number is not None and isinstance(one, dict) and one.get("index") == number]
        if found:
            merge(found[0], piece)
        else:
            into.append(piece)


def encode_state(state: ProviderState) -> bytes:
    """Return the state as JSON, empty where there is none, or where it is past LIMIT_BYTES."""
    if not (state.message or any(state.calls) or state.blocks):
        return b""
    encoded = msgspec.json.encode(mend_all(msgspec.to_builtins(state)))
    return encoded if len(encoded) <= LIMIT_BYTES else b""


def decode_state(value: object) -> ProviderState:
    """Return the state that a transcript message holds; nothing where it is none of ours."""
    try:
        return msgspec.convert(value, ProviderState)
    except msgspec.ValidationError:
        return ProviderState()
