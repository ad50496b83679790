"""What a turn's sender is told when it does not come to an answer: no secret, and what to do now."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

from shared.errors import (
    ContextTooLong,
    GatehouseError,
    ModelRejected,
    ModelUnavailable,
    TurnInterrupted,
    TurnOverBudget,
)
from shared.messages import TurnStatus
from shared.texts import ENGLISH, Texts
from worker.agent.answer_format import FormatMissed
from worker.agent.context import transcript
from worker.agent.context.repair import role_of
from worker.agent.cut_offs import AnswerCutOff
from worker.agent.models.failures import EmptyAnswer, Misconfigured, Stalled

ERROR_LIMIT_CHARS = 1000


class StepLimitReached(GatehouseError):
    """Raised when a turn has used all its steps and the model still asks for tools."""

    def __init__(self, steps: int) -> None:
        super().__init__(f"no answer after {steps} steps")
        self.steps = steps


def how_it_ended(
    error: BaseException, texts: Texts = ENGLISH, *, deadline_passed: bool = False, tools: Sequence[str] = ()
) -> tuple[TurnStatus, str, str]:
    """Return the status, the text for the sender, and the error for the operator's log.

    ``tools`` have run in this turn: what would make them run again is not asked of the sender.
    """
    seen = f"{type(error).__name__}: {error}"[:ERROR_LIMIT_CHARS]
    match error:
        case TurnInterrupted():
            return TurnStatus.INTERRUPTED, texts.stopped, ""
        case TurnOverBudget():
            return TurnStatus.OVER_BUDGET, error.text, str(error)
        case TimeoutError() if deadline_passed:
            return TurnStatus.TIMED_OUT, texts.turn_too_long, "turn timeout"
        case TimeoutError() | Stalled():
            return TurnStatus.TIMED_OUT, texts.model_silent, seen
        case EmptyAnswer() if tools:
            return TurnStatus.FAILED, texts.nothing_said_after.format(tools=", ".join(dict.fromkeys(tools))), seen
        case EmptyAnswer():
            return TurnStatus.FAILED, texts.nothing_said, seen
        case AnswerCutOff():
            return TurnStatus.FAILED, texts.cut_off, seen
        case ModelUnavailable():
            return TurnStatus.FAILED, texts.model_away, seen
        case ContextTooLong():
            return TurnStatus.FAILED, texts.conversation_too_long, seen
        case Misconfigured():
            return TurnStatus.FAILED, texts.model_misset, seen
        case ModelRejected():
            return TurnStatus.FAILED, texts.model_refused, seen
        case FormatMissed():
            return TurnStatus.FAILED, texts.format_missed.format(problem=error), seen
        case StepLimitReached():
            return TurnStatus.FAILED, texts.steps_used_up.format(steps=error.steps), seen
        case _:
            return TurnStatus.FAILED, texts.our_fault, "".join(traceback.format_exception(error))[-ERROR_LIMIT_CHARS:]


def leaves_unanswered(error: BaseException) -> bool:
    """Tell whether a turn that this ended was not answered by any model, and may be, later: a dead letter."""
    return isinstance(error, TimeoutError | ModelUnavailable | Misconfigured) and not isinstance(error, EmptyAnswer)


def tools_used(messages: Sequence[bytes]) -> list[str]:
    """Return the names of the tools whose results stand in a turn's transcript."""
    results = (transcript.read(message) for message in messages if role_of(message) == "tool")
    return [result.name for result in results if result.name]
