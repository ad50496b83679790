"""Which calls of a step wait for somebody's word: all of one step at once, and none that was decided."""

from __future__ import annotations

import pytest

from shared.approvals import Approval, Decision
from worker.agent.approval_gate import NOBODY, REFUSALS, ApprovalGate, TurnAwaitsApproval
from worker.tools.declaration import ToolOptions
from worker.tools.spec import ToolCall, ToolSpec
from worker.tools.toolbox import Toolbox

PAY, SEND, READ = ToolCall("c1", "pay", '{"to": "ana"}'), ToolCall("c2", "send", "{}"), ToolCall("c3", "read", "{}")


@pytest.fixture
def toolbox() -> Toolbox:
    made = Toolbox()

    async def run(*_: object) -> str:
        return "done"

    for name, within_s in (("pay", 60.0), ("send", 5.0)):
        made.add(ToolSpec(name, "", {}), run, ToolOptions(name, approve=True, approve_within_s=within_s))
    made.add(ToolSpec("read", "", {}), run)
    return made


def test_a_step_asks_once_for_all_its_calls_that_need_a_word_within_the_shortest_time(toolbox: Toolbox) -> None:
    with pytest.raises(TurnAwaitsApproval) as waits:
        ApprovalGate(toolbox, ()).check(3, [PAY, READ, SEND])
    outcome = waits.value.outcome
    assert outcome.calls == (Approval(3, "c1"), Approval(3, "c2"))
    assert outcome.within_s == 5.0
    assert '- `pay` with `{"to": "ana"}`' in outcome.text
    assert "read" not in outcome.text


def test_what_was_decided_holds_for_its_step_alone(toolbox: Toolbox) -> None:
    gate = ApprovalGate(toolbox, [Approval(3, "c1", Decision.APPROVED), Approval(3, "c2", Decision.DENIED)])
    gate.check(3, [PAY, SEND, READ])
    assert gate.refusal(3, PAY) == gate.refusal(3, READ) == ""
    assert gate.refusal(3, SEND) == REFUSALS[Decision.DENIED]
    with pytest.raises(TurnAwaitsApproval):
        gate.check(4, [PAY])


def test_where_nobody_can_be_asked_the_call_is_refused(toolbox: Toolbox) -> None:
    gate = ApprovalGate(toolbox, None)
    gate.check(1, [PAY])
    assert (gate.refusal(1, PAY), gate.refusal(1, READ)) == (NOBODY, "")
