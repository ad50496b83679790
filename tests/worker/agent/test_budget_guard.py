"""What a turn may use of the budgets: asked for before a step, and ended with where it is used up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
import pytest

from shared.budgets import BOUNDLESS, Allowance, Budget, BudgetWindow, Refusal, Scope, Spend
from shared.messages import Ended, TurnStatus
from shared.prices import Price
from shared.usage import Usage
from tests.worker.agent.scripted import Recorded, ScriptedModel, asks, decoded, says, unanswered
from worker.agent.models.port import ModelReply
from worker.agent.todo import TodoStore
from worker.agent.turn import Turn
from worker.agent.turn_request import TurnRequest
from worker.tools.toolbox import Toolbox

REFUSAL = Refusal(Budget(Scope.USER, 5000, False, BudgetWindow.DAY), 1.0)
TODO = ("todo", "{}")


class Host(Recorded):
    """A host that allows what its list says, one answer an ask."""

    def __init__(self, *allowed: int) -> None:
        super().__init__()
        self.allowed = list(allowed)
        self.asked: list[tuple[Spend, Spend]] = []
        self.waits = asyncio.Event()
        self.waits.set()

    async def more(self, used: Spend, wanted: Spend) -> Allowance:
        self.asked.append((used, wanted))
        await self.waits.wait()
        return tokens(self.allowed.pop(0))


def tokens(count: int) -> Allowance:
    return Allowance(Spend(count, BOUNDLESS), REFUSAL)


def costs(reply: ModelReply, count: int) -> ModelReply:
    return msgspec.structs.replace(reply, usage=Usage(1, 0, count))


@pytest.fixture
def toolbox() -> Iterator[Toolbox]:
    made = Toolbox([])
    yield made
    made.close()


def make(toolbox: Toolbox, host: Host, allowance: Allowance | None, *script: ModelReply) -> tuple[Turn, ScriptedModel]:
    model = ScriptedModel(*script)
    request = TurnRequest("a:b:c", "msg_1", ("hello",), allowance=allowance)
    return Turn(request, model, toolbox, TodoStore(), host), model


async def run(turn: Turn) -> Ended:
    outcome = await turn.run()
    assert isinstance(outcome, Ended)
    assert unanswered(turn.messages) == []
    return outcome


async def test_a_turn_that_nothing_bounds_asks_for_nothing(toolbox: Toolbox) -> None:
    host = Host()
    turn, _ = make(toolbox, host, None, costs(asks(TODO), 10**9), says("done"))
    assert (await run(turn)).status is TurnStatus.REPLIED
    assert host.asked == []


async def test_a_turn_that_stays_within_what_it_holds_asks_for_nothing(toolbox: Toolbox) -> None:
    host = Host()
    turn, _ = make(toolbox, host, tokens(50_000), costs(asks(TODO), 1000), says("done"))
    assert (await run(turn)).status is TurnStatus.REPLIED
    assert host.asked == []


async def test_a_turn_asks_before_a_step_that_may_use_more_than_it_holds(toolbox: Toolbox) -> None:
    host = Host(90_000)
    turn, _ = make(toolbox, host, tokens(20_000), costs(asks(TODO), 19_500), says("done"))
    assert (await run(turn)).status is TurnStatus.REPLIED
    ((used, wanted),) = host.asked
    assert used.tokens == 19_500
    assert wanted.tokens > used.tokens + 1000


async def test_a_long_conversation_asks_before_its_first_step(toolbox: Toolbox) -> None:
    host = Host(90_000)
    model = ScriptedModel(says("done"))
    history = [msgspec.json.encode({"role": "user", "content": "x" * 100_000})]
    request = TurnRequest("a:b:c", "msg_1", ("hello",), history=history, allowance=tokens(8000))
    await run(Turn(request, model, toolbox, TodoStore(), host))
    assert host.asked[0][0] == Spend()
    assert host.asked[0][1].tokens > 25_000


async def test_a_runaway_loop_passes_its_budget_by_one_step_at_the_most(toolbox: Toolbox) -> None:
    host = Host(*[5000] * 9)
    turn, model = make(toolbox, host, tokens(5000), *[costs(asks(TODO), 1500)] * 100)
    outcome = await run(turn)
    assert outcome.status is TurnStatus.OVER_BUDGET
    assert "budget of 5,000 tokens" in outcome.text
    assert "GATEHOUSE_USER_BUDGET" in outcome.error
    assert len(model.requests) == 4
    assert turn.usage.tokens == 6000
    assert decoded(turn.messages)[-1] == {"role": "assistant", "content": outcome.text}


async def test_money_ends_a_turn_as_tokens_do(toolbox: Toolbox) -> None:
    host = Host()
    reply = msgspec.structs.replace(asks(TODO), usage=Usage(1, 0, 10, cost_nanos=600))
    turn, model = make(toolbox, host, None, *[reply] * 9)
    request = TurnRequest("a:b:c", "msg_1", ("hi",), allowance=Allowance(Spend(BOUNDLESS, 1000), REFUSAL, Price(1)))

    async def more(used: Spend, wanted: Spend) -> Allowance:
        return Allowance(Spend(BOUNDLESS, 1000), REFUSAL)

    host.more = more  # type: ignore[method-assign]
    turn = Turn(request, model, toolbox, TodoStore(), host)
    assert (await run(turn)).status is TurnStatus.OVER_BUDGET
    assert turn.usage.cost_nanos == 1200


async def test_a_turn_that_waits_for_more_can_be_stopped(toolbox: Toolbox) -> None:
    host = Host(0)
    host.waits.clear()
    turn, _ = make(toolbox, host, tokens(10), says("never"))
    running = asyncio.create_task(turn.run())
    while not host.asked:  # noqa: ASYNC110 - the turn's own loop
        await asyncio.sleep(0)
    turn.interrupt()
    outcome = await running
    assert isinstance(outcome, Ended)
    assert outcome.status is TurnStatus.INTERRUPTED
