"""The tool calls of a step that an earlier attempt began, as its journal knows them."""

from __future__ import annotations

from shared.messages import OpenStep
from worker.agent.context import transcript
from worker.agent.context.repair import OUTCOME_UNKNOWN
from worker.tools.spec import ToolCall


class ResumedCalls:
    """What became of each call: finished, begun with an unknown outcome, or not begun."""

    def __init__(self, step: OpenStep | None = None) -> None:
        self._known = {call.call_id: call for call in step.calls} if step else {}
        self.asked = _asked(step.messages[-1]) if step and step.messages else ()

    def result(self, call: ToolCall, *, repeatable: bool) -> bytes | None:
        """Return the transcript message that stands for a call, None for one that is to run.

        One whose outcome is unknown runs again if it may and can; else the model is told.
        """
        known = self._known.get(call.id)
        if known is None or (known.result is None and repeatable):
            return None
        return known.result or transcript.tool(call, OUTCOME_UNKNOWN)


def _asked(assistant: bytes) -> tuple[ToolCall, ...]:
    entries = transcript.read(assistant).tool_calls
    return tuple(ToolCall(entry.id, entry.function.name, entry.function.arguments) for entry in entries)
