"""Which calls of a step wait for somebody's word, and what a refused one tells the model."""

from __future__ import annotations

from collections.abc import Sequence

from shared.approvals import Approval, Decision
from shared.errors import TurnEnded
from shared.messages import AwaitsApproval
from shared.texts import ENGLISH, Texts
from worker.tools.spec import ToolCall
from worker.tools.toolbox import Toolbox

#: characters of a call's arguments that its sender is shown
ARGUMENTS_CHARS = 600
REFUSALS = {
    Decision.DENIED: "Error: the user refused this call. Do not try it again unless the user asks for it.",
    Decision.EXPIRED: "Error: nobody allowed this call in time, so it was not made.",
}
NOBODY = "Error: this call needs the user's approval, and nobody can be asked here, so it was not made."


class TurnAwaitsApproval(TurnEnded):
    """Raised inside a turn whose step asks for calls that have to be allowed; nothing of the step has run."""

    def __init__(self, outcome: AwaitsApproval) -> None:
        super().__init__(outcome.text)
        self.outcome = outcome


class ApprovalGate:
    """Lets calls pass that need nobody's word, or have it; ``decided`` is None where nobody can be asked."""

    def __init__(self, toolbox: Toolbox, decided: Sequence[Approval] | None, texts: Texts = ENGLISH) -> None:
        self._toolbox = toolbox
        self._texts = texts
        self._decisions = None if decided is None else {(one.step, one.call_id): one.decision for one in decided}

    def check(self, step: int, calls: Sequence[ToolCall]) -> None:
        """Raise TurnAwaitsApproval if any of a step's calls waits for an answer."""
        if self._decisions is None:
            return
        waiting = [call for call in calls if self._decision(step, call) is Decision.WAITING]
        if waiting:
            asked = tuple(Approval(step, call.id) for call in waiting)
            labels = (self._texts.approve_button, self._texts.deny_button)
            limits = (self._toolbox.approval_within_s(call.name) or 0.0 for call in waiting)
            raise TurnAwaitsApproval(AwaitsApproval(asked, question(waiting, self._texts), min(limits), labels))

    def refusal(self, step: int, call: ToolCall) -> str:
        """Return what the model reads instead of a call's result, empty for a call that may be made."""
        decision = self._decision(step, call)
        if decision is Decision.WAITING:
            return NOBODY
        return "" if decision is None else REFUSALS.get(decision, "")

    def _decision(self, step: int, call: ToolCall) -> Decision | None:
        """Return what was decided about a call, None for one that needs nobody's word."""
        if self._toolbox.approval_within_s(call.name) is None:
            return None
        return (self._decisions or {}).get((step, call.id), Decision.WAITING)


def question(calls: Sequence[ToolCall], texts: Texts) -> str:
    """Return what the sender is asked."""
    asked = ((call.name, call.arguments.strip()[:ARGUMENTS_CHARS] or "{}") for call in calls)
    lines = [texts.approval_call.format(tool=name, arguments=arguments) for name, arguments in asked]
    return "\n".join([texts.approval_asked, *lines, texts.approval_how])
