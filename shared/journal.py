"""The side-effect journal: what a step in progress leaves behind, entry by entry, before it is finished.

    StepOpening ── CallIntent, CallIntent … ── CallResult … ──> the step's checkpoint, which replaces them all

A claim brings it back as an ``OpenStep``.
"""

from __future__ import annotations

import msgspec

from shared.messages import Usage


class StepOpening(msgspec.Struct, frozen=True, tag=True):
    """The model asked for tool calls; ``messages`` open the step, the assistant's with its calls is the last.

    ``joined`` are the ids of the messages whose words joined the turn in this step.
    """

    step: int
    messages: tuple[bytes, ...]
    usage: Usage = Usage()
    joined: tuple[str, ...] = ()


class CallIntent(msgspec.Struct, frozen=True, tag=True):
    """A tool call of the open step is about to run; ``key`` is its idempotency key."""

    step: int
    call_id: str
    name: str
    key: str


class CallResult(msgspec.Struct, frozen=True, tag=True):
    """A tool call gave this transcript message; ``todo`` is the list (JSON array) if the step has changed it so far."""

    step: int
    call_id: str
    message: bytes
    todo: bytes | None = None


JournalEntry = StepOpening | CallIntent | CallResult


def idempotency_key(message_id: str, step: int, call_id: str) -> str:
    """Return the key of a tool call, the same on every attempt at its message.

    The step is in it because some servers give the calls of every step the same ids.
    """
    return f"{message_id}.{step}.{call_id}"
