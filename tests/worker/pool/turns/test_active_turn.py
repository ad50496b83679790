"""How a turn ends that no worker runs: with all that its earlier attempts did, and all that joined it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shared.budgets import Allowance, Budget, BudgetWindow, Refusal, Scope, Spend
from shared.messages import Claim, ClaimRef, Ended, JournaledCall, OpenStep, Pending, Step, TurnStatus
from shared.usage import Usage
from worker.pool.turns.active_turn import ActiveTurn

ONE = Usage(model_calls=1)
REFUSED = Allowance(Spend(), Refusal(Budget(Scope.USER, 1, False, BudgetWindow.DAY), 2e9))


def resumed() -> ActiveTurn:
    """Return a turn whose earlier attempt died in its second step, with two pieces joined and a third that waits."""
    pieces = tuple(Pending(f"m{n}", n, "ann", str(n), 0.0) for n in range(1, 5))
    steps = (Step(1, (b"first",), b"[1]", ONE, joined=("m2",)),)
    call = JournaledCall("c", "todo", "k", b"result")
    opened = OpenStep(2, (b"second",), ONE, (call,), b"[2]", joined=("m3",))
    return ActiveTurn(1, Claim(ClaimRef("s", 1), "p", 0, pieces, steps, opened, REFUSED))


@pytest.mark.parametrize(
    ("end", "status", "joined"),
    [
        (lambda turn: turn.over_budget(), TurnStatus.OVER_BUDGET, ("m2", "m3", "m4")),
        (lambda turn: turn.stopped("Stopped."), TurnStatus.INTERRUPTED, ("m2", "m3", "m4")),
        (lambda turn: turn.too_large("too large", "0:1"), TurnStatus.FAILED, ("m2", "m3")),
    ],
    ids=["over budget", "stopped", "too large"],
)
def test_a_turn_that_ends_without_a_worker_keeps_what_was_done(
    end: Callable[[ActiveTurn], Ended], status: TurnStatus, joined: tuple[str, ...]
) -> None:
    ended = end(resumed())
    assert (ended.status, ended.messages, ended.todo) == (status, (b"first", b"second", b"result"), b"[2]")
    assert (ended.usage.model_calls, ended.joined) == (2, joined)
