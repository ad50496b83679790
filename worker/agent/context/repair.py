"""Transcript messages as a provider takes them: about how many tokens they have, and each call with its result."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec

from worker.agent.attachments import attached_to
from worker.agent.context import transcript
from worker.tools.spec import ToolCall

#: what a model reads where a tool call has no result
OUTCOME_UNKNOWN = (
    '{"error": "outcome unknown: the run was cut off before this call gave a result; it may or may not have happened"}'
)


#: what an image of about a megapixel costs at Anthropic's and OpenAI's; larger ones are made smaller by both
IMAGE_TOKENS = 1_600


def estimate_tokens(message: bytes) -> int:
    """Estimate the tokens of a transcript message: a token is about four bytes of it; images count apart."""
    return len(message) // 4 + 4 + IMAGE_TOKENS * len(attached_to(message))


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
    and so is what is no transcript message at all. A call whose id stands earlier gets one of its own, and its result.
    """
    repaired: list[bytes] = []
    open_calls: list[_OpenCall] = []
    taken: set[str] = set()
    for message in messages:
        if open_calls or b'"tool_call' in message or b'"tool"' in message:
            seen = _read(message)
            if seen is not None and seen.role == "tool":
                if (call := _answered(open_calls, seen.tool_call_id)) is not None:
                    repaired.append(message if call.own_id == call.id else _with_ids(message, (call.own_id,)))
                continue
            repaired += _results(open_calls, missing)
            open_calls = _opened(seen, taken) if seen is not None else []
            if seen is None:
                continue
            if any(call.own_id != call.id for call in open_calls):
                repaired.append(_with_ids(message, [call.own_id for call in open_calls]))
                continue
        repaired.append(message)
    return repaired + _results(open_calls, missing)


class _OpenCall(msgspec.Struct):
    """A call that waits for its result, under the id it was made with and the one it has now."""

    id: str
    own_id: str
    entry: transcript.TranscriptFunction


def _read(message: bytes) -> transcript.TranscriptMessage | None:
    try:
        return transcript.read(message)
    except msgspec.DecodeError:
        return None


def _opened(message: transcript.TranscriptMessage, taken: set[str]) -> list[_OpenCall]:
    """Return the calls of a message, each with an id that is not taken yet, and take them."""
    calls = []
    for call in message.tool_calls:
        free = (f"{call.id}_{number}" for number in itertools.count(2))
        own_id = call.id if call.id not in taken else next(one for one in free if one not in taken)
        taken.add(own_id)
        calls.append(_OpenCall(call.id, own_id, call.function))
    return calls


def _answered(calls: list[_OpenCall], call_id: str) -> _OpenCall | None:
    """Take the call that a result answers out of those that wait."""
    found = next((call for call in calls if call.id == call_id), None)
    if found is not None:
        calls.remove(found)
    return found


def _with_ids(message: bytes, ids: Sequence[str]) -> bytes:
    """Return a message that makes its calls, or answers its call, under these ids."""
    fields = msgspec.json.decode(message)
    if fields["role"] == "tool":
        fields["tool_call_id"] = ids[0]
    else:
        fields["tool_calls"] = [call | {"id": own} for call, own in zip(fields["tool_calls"], ids, strict=True)]
    return msgspec.json.encode(fields)


def _results(calls: Sequence[_OpenCall], missing: str) -> list[bytes]:
    made = [ToolCall(call.own_id, call.entry.name, call.entry.arguments) for call in calls]
    return [transcript.tool(call, missing) for call in made]
