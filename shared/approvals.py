"""Tool calls that somebody has to allow before they are made.

the model asks for a call ── AwaitsApproval ──> the turn rests: no slot, no lease ── /approve or /deny ──> it goes on
                                                             └── nobody says anything in time: refused
"""

from __future__ import annotations

import enum

import msgspec


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
