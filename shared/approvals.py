"""Tool calls that somebody has to allow before they are made.

the model asks for a call ── AwaitsApproval ──> the turn rests: no slot, no lease ── /approve or /deny ──> it goes on
                                                             └── nobody says anything in time: refused
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence

import msgspec

from shared.command import CommandKind
from shared.texts import ENGLISH

#: characters of a question's id; a button's text with it has to fit the 64 bytes that platforms take
ID_CHARS = 16


class Decision(enum.StrEnum):
    """What became of a question."""

    WAITING = "waiting"  #: nobody has answered it yet
    APPROVED = "approved"  #: the call may be made
    DENIED = "denied"  #: somebody refused it
    EXPIRED = "expired"  #: nobody answered in time


class Approval(msgspec.Struct, frozen=True):
    """The question about one call of a turn, and what was decided."""

    #: the step that asked for the call
    step: int
    #: the model's id of the call
    call_id: str
    decision: Decision = Decision.WAITING


class Question(msgspec.Struct, frozen=True):
    """What the sender of a message is asked about calls of its turn."""

    #: names it, so that the answer to an earlier one decides nothing of a later one
    id: str
    #: what is asked
    text: str


class Choice(msgspec.Struct, frozen=True):
    """One button under a question."""

    #: what stands on it
    label: str
    #: what pressing it says
    says: str
    #: whether it refuses
    refuses: bool = False


def question_id(message_id: str, calls: Sequence[Approval]) -> str:
    """Return the name of the question about these calls of a message's turn."""
    asked = "".join(f"\n{call.step} {call.call_id}" for call in calls)
    return hashlib.sha256(f"{message_id}{asked}".encode()).hexdigest()[:ID_CHARS]


def with_labels(question: str, labels: tuple[str, str]) -> str:
    """Return the id of a question with what stands on its buttons, as a reply carries it: a line each."""
    return "\n".join((question, *labels))


def choices(question: str) -> tuple[Choice, ...]:
    """Return the buttons under a question with this id, none where the id is empty; its labels may follow it."""
    if not question:
        return ()
    name, *labels = question.split("\n")
    approve, deny = labels or (ENGLISH.approve_button, ENGLISH.deny_button)
    return (
        Choice(approve, f"/{CommandKind.APPROVE} {name}"),
        Choice(deny, f"/{CommandKind.DENY} {name}", refuses=True),
    )
