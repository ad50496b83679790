"""What a turn's sender is told when it does not come to an answer: no secret, and what to do now."""

from __future__ import annotations

import traceback

from shared.errors import (
    ContextTooLong,
    GatehouseError,
    ModelRejected,
    ModelUnavailable,
    TurnInterrupted,
    TurnOverBudget,
)
from shared.messages import TurnStatus
from worker.agent.answer_format import FORMAT_MISSED, FormatMissed
from worker.agent.models.failures import EmptyAnswer

ERROR_LIMIT_CHARS = 1000

STOPPED = "Stopped."
TURN_TOO_LONG = "This took longer than I may work on one message, so I stopped. Ask for less at once, or try again."
MODEL_SILENT = "The model did not answer in time. Please send your message again in a while."
MODEL_AWAY = "The model cannot be reached at the moment. Please send your message again in a while."
MODEL_REFUSED = (
    "The model refused this request, and would again. Whoever runs this bot finds the reason in its log; "
    "try other words, or start a new conversation."
)
CONVERSATION_TOO_LONG = (
    "This conversation is too long for the model. Please send a shorter message, or start a new conversation."
)
STEPS_USED_UP = "I stopped after {steps} steps without coming to an answer. Send “go on” to let me continue."
NOTHING_SAID = "The model gave an empty answer. Please send your message again."
OUR_FAULT = "Something went wrong on our side. Please try again; whoever runs this bot finds the reason in its log."


class StepLimitReached(GatehouseError):
    """Raised when a turn has used all its steps and the model still asks for tools."""

    def __init__(self, steps: int) -> None:
        super().__init__(f"no answer after {steps} steps")
        self.steps = steps


def how_it_ended(error: BaseException, *, deadline_passed: bool = False) -> tuple[TurnStatus, str, str]:
    """Return the status, the text for the sender, and the error for the operator's log."""
    seen = f"{type(error).__name__}: {error}"[:ERROR_LIMIT_CHARS]
    match error:
        case TurnInterrupted():
            return TurnStatus.INTERRUPTED, STOPPED, ""
        case TurnOverBudget():
            return TurnStatus.OVER_BUDGET, error.text, str(error)
        case TimeoutError() if deadline_passed:
            return TurnStatus.TIMED_OUT, TURN_TOO_LONG, "turn timeout"
        case TimeoutError():
            return TurnStatus.TIMED_OUT, MODEL_SILENT, seen
        case EmptyAnswer():
            return TurnStatus.FAILED, NOTHING_SAID, seen
        case ModelUnavailable():
            return TurnStatus.FAILED, MODEL_AWAY, seen
        case ContextTooLong():
            return TurnStatus.FAILED, CONVERSATION_TOO_LONG, seen
        case ModelRejected():
            return TurnStatus.FAILED, MODEL_REFUSED, seen
        case FormatMissed():
            return TurnStatus.FAILED, FORMAT_MISSED.format(problem=error), seen
        case StepLimitReached():
            return TurnStatus.FAILED, STEPS_USED_UP.format(steps=error.steps), seen
        case _:
            return TurnStatus.FAILED, OUR_FAULT, "".join(traceback.format_exception(error))[-ERROR_LIMIT_CHARS:]
