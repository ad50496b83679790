"""Answers that say nothing, or were cut off at the model's output limit: what the model is told, and how often."""

from __future__ import annotations

from collections.abc import Sequence

from shared.errors import GatehouseError
from worker.agent.context import transcript
from worker.agent.models.failures import EmptyAnswer
from worker.agent.models.port import LENGTH, ModelReply
from worker.agent.models.tool_calls import is_object
from worker.tools.spec import ToolCall

#: how often a model is told that its answer was cut off, before the sender is
MOST_TOLD = 2
CALL_CUT_OFF = (
    "Error: your answer was cut off at the output limit before this call was whole, so it did not run. "
    "Make it shorter, or do it in several smaller calls."
)
ANSWER_CUT_OFF = "(Your answer was cut off at the output limit before it said a word. Think less, and answer briefly.)"
NOTHING_SAID = "(You said nothing after the results of the tools. Tell the user now, in words, what came of it.)"


class AnswerCutOff(GatehouseError):
    """Raised when a model's answer is cut off at its output limit however often it is told so."""


class CutOffs:
    """Counts the answers of one turn that were cut off; one that was not begins the count anew."""

    def __init__(self) -> None:
        self._told = 0
        self._calls: frozenset[str] = frozenset()

    def take(self, reply: ModelReply, calls: Sequence[ToolCall]) -> None:
        """See which calls of an answer are not whole. Raises AnswerCutOff once the model was told MOST_TOLD times."""
        cut = [call.id for call in calls if not is_object(call.arguments)] if reply.finish == LENGTH else []
        self._calls = frozenset(cut)
        self._told = self._told + 1 if cut else 0
        if self._told > MOST_TOLD:
            raise AnswerCutOff(f"{reply.provider}:{reply.model} was cut off at its output limit, told so or not")

    def result(self, call: ToolCall) -> bytes | None:
        """Return the transcript message that stands for a call which is not whole, None for one that is."""
        return transcript.tool(call, CALL_CUT_OFF) if call.id in self._calls else None


def nudge(empty: EmptyAnswer, told: int, *, after_tool: bool) -> bytes:
    """Return what a model that said nothing is told, after so many times; raise what ends the turn instead."""
    cut_off = empty.finish == LENGTH
    if not cut_off and (told or not after_tool):
        raise empty
    if told == MOST_TOLD:
        raise AnswerCutOff(str(empty)) from None
    return transcript.user(ANSWER_CUT_OFF if cut_off else NOTHING_SAID)
