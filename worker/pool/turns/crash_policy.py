"""What a worker's death means for the turns that ran in it; pure.

A culprit is named when the heartbeat names the turn that ran, or when a turn ran alone: it alone uses an attempt, and
its neighbours go on elsewhere as if their worker had drained. Where several ran and none is named, those with a tool
call in progress are suspects, for only a tool can do what the loop does not see; all are where none had one. The
others go on at once, but not for ever: what was there too often is a suspect too. Who is only suspected uses no
attempt; whose guilt is proven, by dying alone, pays for every execution that was lost under it before.

SIGKILL from outside, by a person or for want of memory, proves nothing, unless a turn had held up the loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from shared.messages import Dead, Ended, Outcome, Parked, Retry, Step, TurnStatus, Usage
from shared.retry import doubled_s
from shared.texts import ENGLISH, Texts
from worker.pool.processes.death import Cause, Death

#: how long a suspect waits before it runs again, at first and at the longest, in seconds
FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 60.0


class RanTurn(msgspec.Struct, frozen=True):
    """What has to be known of one turn that ran in a worker."""

    #: its number
    turn: int
    #: past executions of its message that ended by its own fault
    attempts: int
    #: the finished steps, then what is known of the one it was in
    steps: tuple[Step, ...] = ()
    #: whether its sender stopped it
    interrupted: bool = False
    #: whether it was told to end and is past its grace, culprit or not
    overdue: bool = False
    #: whether a tool call was in progress
    calling: bool = False
    #: whether it ran in a worker of its own
    suspect: bool = False
    #: past executions that ended with their worker or host and nobody proven guilty
    lost: int = 0
    #: what the product says to its sender
    texts: Texts = ENGLISH


def judge(death: Death, turns: Sequence[RanTurn], max_attempts: int, worker: str = "") -> Mapping[int, Outcome]:
    """Return the outcome of each turn that was running in the worker when it ended."""
    culprit = proven(death, turns)
    suspects = frozenset[int]() if culprit else suspected(death, turns, max_attempts)
    return {
        ran.turn: outcome(death, ran, max_attempts, worker, culprit=culprit, suspect=ran.turn in suspects)
        for ran in turns
    }


def proven(death: Death, turns: Sequence[RanTurn]) -> int:
    """Return the turn that is to blame, 0 where that is not proven."""
    if death.culprit:
        return death.culprit if any(ran.turn == death.culprit for ran in turns) else 0
    alone = len(turns) == 1 and (turns[0].suspect or death.cause is not Cause.KILLED)
    return turns[0].turn if alone else 0


def suspected(death: Death, turns: Sequence[RanTurn], max_attempts: int) -> frozenset[int]:
    """Return the turns that have to run alone, where none is named."""
    calling = [ran for ran in turns if ran.calling]
    likely = [] if death.cause is Cause.KILLED else calling or turns
    too_often = [ran for ran in turns if ran.lost + 1 >= max_attempts - ran.calling]
    return frozenset(ran.turn for ran in (*likely, *too_often))


def outcome(death: Death, ran: RanTurn, max_attempts: int, worker: str, *, culprit: int, suspect: bool) -> Outcome:
    """Return what becomes of one turn; ``culprit`` is 0 where no turn is proven to be it."""
    if ran.interrupted:
        return cut_short(ran, TurnStatus.INTERRUPTED, ran.texts.stopped, death, worker)
    if ran.overdue:
        # where several turns hang in one worker the first found is the culprit; the others have had their time too
        return cut_short(ran, TurnStatus.TIMED_OUT, ran.texts.turn_killed, death, worker)
    match death.cause:
        case Cause.DRAINED:
            return Parked()
        case Cause.OVERRAN | Cause.UNSTOPPED if ran.turn == culprit:
            return cut_short(ran, TurnStatus.TIMED_OUT, ran.texts.turn_killed, death, worker)
        case Cause.OVERRAN | Cause.UNSTOPPED:
            return Parked()
        case Cause.DIED | Cause.KILLED | Cause.HUNG if ran.turn == culprit:
            return strike(ran, max_attempts, death, worker)
        case Cause.DIED | Cause.KILLED | Cause.HUNG if culprit:
            return Parked()
        case Cause.DIED | Cause.KILLED | Cause.HUNG:
            return Retry(0.0, ran.attempts, suspect=suspect, error=death.error, lost=ran.lost + 1)


def cut_short(ran: RanTurn, status: TurnStatus, text: str, death: Death, worker: str) -> Ended:
    """End a turn with what its steps did; a call without a result is repaired when the history is read."""
    return Ended(
        status,
        text,
        messages=tuple(message for step in ran.steps for message in step.messages),
        todo=latest_todo(ran.steps),
        usage=used(ran.steps),
        worker=worker,
        error=death.error,
        joined=tuple(message_id for step in ran.steps for message_id in step.joined),
    )


def latest_todo(steps: Sequence[Step]) -> bytes | None:
    """Return the todo list as the last step that changed it left it; None if none did."""
    return next((step.todo for step in reversed(steps) if step.todo is not None), None)


def used(steps: Sequence[Step]) -> Usage:
    """Return what the steps used."""
    return sum((step.usage for step in steps), Usage())


def strike(ran: RanTurn, max_attempts: int, death: Death, worker: str) -> Outcome:
    """Use an attempt, and those that were lost before: the turn runs again alone after a while, or is given up."""
    attempts = ran.attempts + ran.lost + 1
    if attempts >= max_attempts:
        return Dead(attempts, death.error, given_up_text(attempts, ran.texts), death.stacks, used(ran.steps), worker)
    return Retry(doubled_s(attempts, FIRST_DELAY_S, LONGEST_DELAY_S), attempts, suspect=True, error=death.error)


def went_wrong(ran: RanTurn, max_attempts: int, error: str, worker: str) -> Outcome:
    """Use an attempt for a fault of the pool's own at a turn: it runs again after a while, or is given up."""
    attempts = ran.attempts + 1
    if attempts >= max_attempts:
        return Dead(attempts, error, given_up_text(attempts, ran.texts), usage=used(ran.steps), worker=worker)
    return Retry(
        doubled_s(attempts, FIRST_DELAY_S, LONGEST_DELAY_S), attempts, suspect=False, error=error, lost=ran.lost
    )


def given_up_text(attempts: int, texts: Texts) -> str:
    """Return what tells the sender that a message used up its attempts."""
    return texts.given_up_once if attempts == 1 else texts.given_up.format(attempts=attempts)
