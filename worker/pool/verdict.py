"""What a worker's death means for the turns that ran in it; pure.

A culprit is named when the heartbeat names the turn that ran, or when a turn ran alone: it alone uses an attempt, and
its neighbours go on elsewhere as if their worker had drained. Where several ran and none is named, all are suspects.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

import msgspec

from shared.messages import Dead, Ended, Outcome, Parked, Retry, Step, TurnStatus, Usage

TIMED_OUT_TEXT = "Sorry, this took too long and was stopped."
INTERRUPTED_TEXT = "Stopped."

#: the longest a suspect waits before it runs again, in seconds
LONGEST_DELAY_S = 60.0


class Cause(enum.StrEnum):
    """Why a worker ended."""

    DIED = "died"  #: by itself, or by a signal that was not ours
    HUNG = "hung"  #: its loop gave no heartbeat
    OVERRAN = "overran"  #: a turn did not end with its timeout and grace
    UNSTOPPED = "unstopped"  #: a turn did not end after an interrupt and the grace
    DRAINED = "drained"  #: it was told to park its turns and end, or was killed because it did not in time


class Death(msgspec.Struct, frozen=True):
    """How a worker ended: ``culprit`` is the turn named for it (0: none), ``stacks`` every thread's stack if dumped."""

    cause: Cause
    culprit: int = 0
    error: str = ""
    stacks: str = ""


class RanTurn(msgspec.Struct, frozen=True):
    """What the verdict has to know of one turn that ran in the worker.

    ``attempts`` counts past executions; ``steps`` are the finished ones, then what is known of the one it was in;
    ``overdue`` says that it is past its timeout and grace, culprit or not.
    """

    turn: int
    attempts: int
    steps: tuple[Step, ...] = ()
    interrupted: bool = False
    overdue: bool = False


def judge(death: Death, turns: Sequence[RanTurn], max_attempts: int, worker: str = "") -> Mapping[int, Outcome]:
    """Return the outcome of each turn that was running in the worker when it ended."""
    culprit = death.culprit or (turns[0].turn if len(turns) == 1 else 0)
    named = any(ran.turn == culprit for ran in turns)
    return {ran.turn: outcome(death, ran, max_attempts, worker, culprit if named else 0) for ran in turns}


def outcome(death: Death, ran: RanTurn, max_attempts: int, worker: str, culprit: int) -> Outcome:
    """Return what becomes of one turn; ``culprit`` is 0 where no turn is to blame."""
    if ran.interrupted:
        return cut_short(ran, TurnStatus.INTERRUPTED, INTERRUPTED_TEXT, death, worker)
    if ran.overdue:
        # where several turns hang in one worker the first found is the culprit; the others have had their time too
        return cut_short(ran, TurnStatus.TIMED_OUT, TIMED_OUT_TEXT, death, worker)
    match death.cause:
        case Cause.DRAINED:
            return Parked()
        case Cause.OVERRAN | Cause.UNSTOPPED if ran.turn == culprit:
            return cut_short(ran, TurnStatus.TIMED_OUT, TIMED_OUT_TEXT, death, worker)
        case Cause.OVERRAN | Cause.UNSTOPPED:
            return Parked()
        case Cause.DIED | Cause.HUNG if culprit in {0, ran.turn}:
            return strike(ran, max_attempts, death, alone=culprit == ran.turn)
        case Cause.DIED | Cause.HUNG:
            return Parked()


def cut_short(ran: RanTurn, status: TurnStatus, text: str, death: Death, worker: str) -> Ended:
    """End a turn with what its steps did; a call without a result is repaired when the history is read."""
    return Ended(
        status,
        text,
        messages=tuple(message for step in ran.steps for message in step.messages),
        todo=latest_todo(ran.steps),
        usage=sum((step.usage for step in ran.steps), Usage()),
        worker=worker,
        error=death.error,
    )


def latest_todo(steps: Sequence[Step]) -> bytes | None:
    """Return the todo list as the last step that changed it left it; None if none did."""
    return next((step.todo for step in reversed(steps) if step.todo is not None), None)


def strike(ran: RanTurn, max_attempts: int, death: Death, *, alone: bool) -> Outcome:
    """Use one attempt: the turn runs again as a suspect, after a while if it was to blame, or is given up.

    One that is only suspected is never given up: alone it shows what it is.
    """
    attempts = ran.attempts + 1
    if alone and attempts >= max_attempts:
        return Dead(attempts, death.error, given_up_text(attempts), death.stacks)
    delay_s = min(2.0 ** (attempts - 1), LONGEST_DELAY_S) if alone else 0.0
    return Retry(delay_s, attempts, suspect=True, error=death.error)


def given_up_text(attempts: int) -> str:
    """Return what tells the sender that a message used up its attempts."""
    times = "once" if attempts == 1 else f"{attempts} times"
    return (
        f"Sorry, I could not answer this: the attempt failed {times}, and it was set aside for the operator to look at."
    )
