"""What models write, made fit for a transcript: one that a provider refuses once it would refuse for ever."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from shared.loose_json import mend_surrogates
from worker.tools.spec import ToolCall

#: what providers take as the name of a tool; one that a model made up would be refused in every later call
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_UNFIT = re.compile(r"[^a-zA-Z0-9_-]")


def sanitize_text(text: str) -> str:
    """Return the text without lone surrogates, which JSON can carry and UTF-8 cannot."""
    return mend_surrogates(text)


def sanitize_name(name: str) -> str:
    """Return the name of a tool as every provider takes it."""
    return name if _NAME.fullmatch(name) else _UNFIT.sub("_", name)[:64] or "unnamed"


def sanitize_calls(calls: Sequence[ToolCall], prefix: str, messages: Sequence[bytes] = ()) -> tuple[ToolCall, ...]:
    """Give every call an id that the transcript so far does not hold, made of ``prefix`` where a server's is none.

    Some servers begin to count anew in every answer; Anthropic refuses a transcript in which an id stands twice.
    """
    asked = [message for message in messages if b'"tool_calls"' in message]
    seen: set[str] = set()
    sound = []
    for index, call in enumerate(calls):
        quoted = msgspec.json.encode(sanitize_text(call.id))
        known = not call.id or call.id in seen or any(quoted in message for message in asked)
        call_id = f"{prefix}_{index}" if known else call.id
        seen.add(call_id)
        sound.append(ToolCall(call_id, sanitize_name(call.name), sanitize_text(call.arguments)))
    return tuple(sound)


def readable_call(call: ToolCall) -> ToolCall:
    """Return the call with arguments that are a JSON object: templates of some servers fail on anything else."""
    try:
        msgspec.json.decode(call.arguments, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        kept = {"unreadable": call.arguments} if call.arguments.strip() else {}
        return ToolCall(call.id, call.name, msgspec.json.encode(kept).decode())
    return call
