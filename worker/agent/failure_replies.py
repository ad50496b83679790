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
from worker.agent.answer_format import FORMAT_MISSED, FormatMissed
from worker.agent.context import transcript
from worker.agent.context.repair import role_of
from worker.agent.cut_offs import AnswerCutOff
from worker.agent.models.failures import EmptyAnswer, Misconfigured, Stalled

ERROR_LIMIT_CHARS = 1000

STOPPED = "Stopped."
TURN_TOO_LONG = "This took longer than I may work on one message, so I stopped. Ask for less at once, or try again."
MODEL_SILENT = "The model did not answer in time. Your message is kept, and can be answered once it does."
MODEL_AWAY = "The model cannot be reached at the moment. Your message is kept, and can be answered once it is back."
MODEL_MISSET = (
    "The model cannot be used as it is set up. Your message is kept; whoever runs this bot finds the reason in its log."
)
MODEL_REFUSED = (
    "The model refused this request, and would again. Whoever runs this bot finds the reason in its log; "
    "try other words, or start a new conversation."
)
CONVERSATION_TOO_LONG = (
    "This conversation is too long for the model. Please send a shorter message, or start a new conversation."
)
STEPS_USED_UP = "I stopped after {steps} steps without coming to an answer. Send “go on” to let me continue."
NOTHING_SAID = "The model gave an empty answer. Please send your message again."
NOTHING_SAID_AFTER = (
    "I have used {tools}, and the model said nothing about what came of it. Nothing has to be sent again: "
    "ask me what came of it."
)
CUT_OFF = (
    "The model's answer was cut off at its output limit again and again. Ask for less at once; whoever runs this bot "
    "can raise the limit."
)
OUR_FAULT = "Something went wrong on our side. Please try again; whoever runs this bot finds the reason in its log."


class StepLimitReached(GatehouseError):
    """Raised when a turn has used all its steps and the model still asks for tools."""

    def __init__(self, steps: int) -> None:
        super().__init__(f"no answer after {steps} steps")
        self.steps = steps


def how_it_ended(
    error: BaseException, *, deadline_passed: bool = False, tools: Sequence[str] = ()
) -> tuple[TurnStatus, str, str]:
    """Return the status, the text for the sender, and the error for the operator's log.

    ``tools`` have run in this turn: what would make them run again is not asked of the sender.
    """
    seen = f"{type(error).__name__}: {error}"[:ERROR_LIMIT_CHARS]
    match error:
        case TurnInterrupted():
            return TurnStatus.INTERRUPTED, STOPPED, ""
        case TurnOverBudget():
            return TurnStatus.OVER_BUDGET, error.text, str(error)
        case TimeoutError() if deadline_passed:
            return TurnStatus.TIMED_OUT, TURN_TOO_LONG, "turn timeout"
        case TimeoutError() | Stalled():
            return TurnStatus.TIMED_OUT, MODEL_SILENT, seen
        case EmptyAnswer() if tools:
            return TurnStatus.FAILED, NOTHING_SAID_AFTER.format(tools=", ".join(dict.fromkeys(tools))), seen
        case EmptyAnswer():
            return TurnStatus.FAILED, NOTHING_SAID, seen
        case AnswerCutOff():
            return TurnStatus.FAILED, CUT_OFF, seen
        case ModelUnavailable():
            return TurnStatus.FAILED, MODEL_AWAY, seen
        case ContextTooLong():
            return TurnStatus.FAILED, CONVERSATION_TOO_LONG, seen
        case Misconfigured():
            return TurnStatus.FAILED, MODEL_MISSET, seen
        case ModelRejected():
            return TurnStatus.FAILED, MODEL_REFUSED, seen
        case FormatMissed():
            return TurnStatus.FAILED, FORMAT_MISSED.format(problem=error), seen
        case StepLimitReached():
            return TurnStatus.FAILED, STEPS_USED_UP.format(steps=error.steps), seen
        case _:
            return TurnStatus.FAILED, OUR_FAULT, "".join(traceback.format_exception(error))[-ERROR_LIMIT_CHARS:]


def leaves_unanswered(error: BaseException) -> bool:
    """Tell whether a turn that this ended was not answered by any model, and may be, later: a dead letter."""
    return isinstance(error, TimeoutError | ModelUnavailable | Misconfigured) and not isinstance(error, EmptyAnswer)


def tools_used(messages: Sequence[bytes]) -> list[str]:
    """Return the names of the tools whose results stand in a turn's transcript."""
    results = (transcript.read(message) for message in messages if role_of(message) == "tool")
    return [result.name for result in results if result.name]
