"""The context of a model call: what of a transcript fits, and what makes it valid for a provider."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from worker.agent import transcript
from worker.agent.models.port import ToolCall

#: what a model reads where a tool call has no result
OUTCOME_UNKNOWN = (
    '{"error": "outcome unknown: the run was cut off before this call gave a result; it may or may not have happened"}'
)

#: how much of the budget is kept when a window is cut: cutting rarely keeps the prefix that a provider caches
KEPT_SHARE = 0.75


def estimate_tokens(message: bytes) -> int:
    """Estimate the tokens of a transcript message: a token is about four bytes of it."""
    return len(message) // 4 + 4


def window(messages: Sequence[bytes], budget_tokens: int) -> list[bytes]:
    """Return the newest messages that fit into the budget, oldest first; all of them if they do.

    A tool call and its results stay together, and the window starts with a user message, never with a tool's result.
    The last message and its call are kept whatever they cost. A cut leaves a quarter of the budget free.
    """
    if sum(map(estimate_tokens, messages)) <= budget_tokens:
        return list(messages)
    left = int(budget_tokens * KEPT_SHARE)
    kept: list[list[bytes]] = []
    groups = _newest_groups(messages)
    for group in groups:
        left -= sum(map(estimate_tokens, group))
        if kept and left < 0:
            return _starting_with_user(kept, [group, *groups])
        kept.append(group)
    return [message for group in reversed(kept) for message in group]


def _starting_with_user(kept: list[list[bytes]], older: list[list[bytes]]) -> list[bytes]:
    """Flatten groups (newest first) so that a user message leads: the oldest kept, else the nearest older one."""
    newest_first = list(kept)
    if any(role_of(group[0]) == "user" for group in newest_first):
        while role_of(newest_first[-1][0]) != "user":
            newest_first.pop()
    else:
        newest_first += next(([group] for group in older if role_of(group[0]) == "user"), [])
    return [message for group in reversed(newest_first) for message in group]


def _newest_groups(messages: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Yield the messages in groups that must not be torn, newest first: an assistant's calls with their results."""
    group: list[bytes] = []
    for message in reversed(messages):
        group.insert(0, message)
        if role_of(message) != "tool":
            yield group
            group = []
    if group:
        yield group


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
