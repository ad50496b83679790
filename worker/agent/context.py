"""Transcript messages as a provider takes them: about how many tokens they have, and each call with its result."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from worker.agent import transcript
from worker.agent.models.port import ToolCall

#: what a model reads where a tool call has no result
OUTCOME_UNKNOWN = (
    '{"error": "outcome unknown: the run was cut off before this call gave a result; it may or may not have happened"}'
)


def estimate_tokens(message: bytes) -> int:
    """Estimate the tokens of a transcript message: a token is about four bytes of it."""
    return len(message) // 4 + 4


class _Role(msgspec.Struct):
    role: str = ""


_ROLES = msgspec.json.Decoder(_Role)


def role_of(message: bytes) -> str:
    """Return the role of a transcript message, or nothing if it has none."""
    try:
        return _ROLES.decode(message).role
    except msgspec.DecodeError:
        return ""


def repair(messages: Sequence[bytes], missing: str = OUTCOME_UNKNOWN) -> list[bytes]:
    """Return the transcript with exactly one result behind every tool call, as every provider demands.

    A call without a result gets ``missing`` as its result; a result without its call, or a second one, is dropped,
    and so is what is no transcript message at all.
    """
    repaired: list[bytes] = []
    open_calls: dict[str, ToolCall] = {}
    for message in messages:
        if open_calls or b'"tool_call' in message or b'"tool"' in message:
            role, calls, answers = _calls_of(message)
            if role == "tool":
                if open_calls.pop(answers, None):
                    repaired.append(message)
                continue
            repaired += _results(open_calls, missing)
            open_calls = calls
            if not role:
                continue
        repaired.append(message)
    return repaired + _results(open_calls, missing)


def _calls_of(message: bytes) -> tuple[str, dict[str, ToolCall], str]:
    """Read a message's role, the tool calls it makes and the one it answers."""
    try:
        seen = transcript.read(message)
    except msgspec.DecodeError:
        return "", {}, ""
    calls = {call.id: ToolCall(call.id, call.function.name, call.function.arguments) for call in seen.tool_calls}
    return seen.role, calls, seen.tool_call_id


def _results(calls: dict[str, ToolCall], missing: str) -> list[bytes]:
    return [transcript.tool(call, missing) for call in calls.values()]
