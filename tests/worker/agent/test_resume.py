"""A turn that goes on in the middle of a step: what the journal knows is not done again."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Iterator

import msgspec
import pytest

from shared.journal import CallIntent, CallResult, StepOpening
from shared.messages import Ended, JournaledCall, OpenStep, Step, TurnStatus, Usage
from tests.worker.agent.scripted import Hang, Recorded, ScriptedModel, asks, decoded, ended, says
from tests.worker.waiting import until
from worker.agent.context import transcript
from worker.agent.models.port import ModelReply
from worker.agent.todo import TodoStore
from worker.agent.turn import Turn
from worker.agent.turn_request import TurnRequest
from worker.tools import ToolContext, tool
from worker.tools.spec import ToolCall
from worker.tools.toolbox import Toolbox

CALLS = (ToolCall("c1", "note", "{}"), ToolCall("c2", "charge", "{}"), ToolCall("c3", "note", "{}"))
OPENING = (transcript.user("hello"), transcript.assistant("on it", CALLS))
TODO = b'[{"id":"1","content":"milk","status":"pending"}]'


class Journaled(Recorded):
    """Keeps the journal of a turn as well; ``hold`` keeps calls that are made once from beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.journal: list[StepOpening | CallIntent | CallResult] = []
        self.once: list[str] = []
        self.hold = asyncio.Event()
        self.hold.set()

    def step_opened(self, opening: StepOpening) -> None:
        self.journal.append(opening)

    async def begin_call(self, call: ToolCall, intent: CallIntent, *, once: bool) -> None:
        self.journal.append(intent)
        if once:
            self.once.append(call.id)
            await self.hold.wait()
        await super().begin_call(call, intent, once=once)

    def end_call(self, call: ToolCall, result: CallResult) -> None:
        self.journal.append(result)
        super().end_call(call, result)


class Till:
    """Tools for these tests, and the idempotency keys they ran under."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def module(self) -> types.ModuleType:
        module = types.ModuleType("till")

        @tool
        async def note(context: ToolContext) -> str:
            self.keys.append(context.idempotency_key)
            return "noted"

        @tool(retry_safe=False)
        async def charge(context: ToolContext) -> str:
            self.keys.append(context.idempotency_key)
            return "charged"

        for function in (note, charge):
            setattr(module, function.__name__, function)
        return module


@pytest.fixture
def till() -> Iterator[Till]:
    made = Till()
    sys.modules["till"] = made.module()
    yield made
    del sys.modules["till"]


@pytest.fixture
def toolbox(till: Till) -> Iterator[Toolbox]:
    made = Toolbox(["till"])
    yield made
    made.close()


def make_turn(
    toolbox: Toolbox, *script: ModelReply | Hang, todo: TodoStore | None = None, **request: object
) -> tuple[Turn, ScriptedModel, Journaled]:
    model, progress = ScriptedModel(*script), Journaled()
    fields = TurnRequest("a:b:c", "msg_1", ("hello",))
    turn = Turn(msgspec.structs.replace(fields, **request), model, toolbox, todo or TodoStore(), progress)
    return turn, model, progress


async def replied(turn: Turn) -> Ended:
    outcome = await ended(turn)
    assert outcome.status is TurnStatus.REPLIED
    return outcome


def journaled(call_id: str, result: str | None = None) -> JournaledCall:
    call = next(call for call in CALLS if call.id == call_id)
    return JournaledCall(call_id, call.name, "key", transcript.tool(call, result) if result else None)


def results(turn: Turn) -> dict[str, str]:
    return {
        message["tool_call_id"]: message["content"] for message in decoded(turn.messages) if message["role"] == "tool"
    }


async def test_a_step_is_journaled_before_during_and_after_its_calls(toolbox: Toolbox) -> None:
    turn, _, progress = make_turn(toolbox, asks(CALLS[0], text="on it"), says("done"))
    await replied(turn)
    opening, intent, result = progress.journal
    assert opening == StepOpening(1, (OPENING[0], transcript.assistant("on it", CALLS[:1])), Usage(model_calls=1))
    assert intent == CallIntent(1, "c1", "note", "msg_1.1.c1")
    assert result == CallResult(1, "c1", transcript.tool(CALLS[0], "noted"))


async def test_an_answer_without_tools_is_not_journaled(toolbox: Toolbox) -> None:
    turn, _, progress = make_turn(toolbox, says("hi"))
    await replied(turn)
    assert progress.journal == []


async def test_finished_calls_keep_their_result_and_the_model_is_not_asked_again(toolbox: Toolbox, till: Till) -> None:
    opened = OpenStep(1, OPENING, Usage(model_calls=1), (journaled("c1", "first"), journaled("c2", "second")))
    turn, model, progress = make_turn(toolbox, says("done"), open_step=opened)
    await replied(turn)
    assert till.keys == ["msg_1.1.c3"]
    assert results(turn) == {"c1": "first", "c2": "second", "c3": "noted"}
    assert len(model.requests) == 1
    assert [message["role"] for message in decoded(model.requests[0].messages)] == ["user", "assistant", *["tool"] * 3]
    assert progress.steps == [Step(1, tuple(turn.messages[:5]), None, Usage(model_calls=1, tool_calls=3))]
    assert [type(entry) for entry in progress.journal] == [CallIntent, CallResult]


async def test_a_begun_call_that_is_safe_runs_again_under_its_first_key(toolbox: Toolbox, till: Till) -> None:
    first, _, progress = make_turn(toolbox, asks(CALLS[0]), says("done"))
    await replied(first)
    opening, intent = progress.journal[:2]
    assert isinstance(opening, StepOpening)
    assert isinstance(intent, CallIntent)
    call = JournaledCall(intent.call_id, intent.name, intent.key)
    opened = OpenStep(opening.step, opening.messages, opening.usage, (call,))
    again, _, _ = make_turn(toolbox, says("done"), open_step=opened)
    await replied(again)
    assert till.keys == [intent.key, intent.key]


async def test_a_begun_call_that_must_not_be_repeated_is_told_as_unknown(toolbox: Toolbox, till: Till) -> None:
    opened = OpenStep(1, OPENING, calls=(journaled("c1", "first"), journaled("c2"), journaled("c3", "third")))
    turn, model, _ = make_turn(toolbox, says("done"), open_step=opened)
    await replied(turn)
    assert till.keys == []
    assert "outcome unknown" in results(turn)["c2"]
    assert "outcome unknown" in decoded(model.requests[0].messages)[3]["content"]


async def test_a_call_that_must_not_be_repeated_runs_if_it_had_not_begun(toolbox: Toolbox, till: Till) -> None:
    turn, _, progress = make_turn(toolbox, says("done"), open_step=OpenStep(1, OPENING, calls=(journaled("c1", "x"),)))
    await replied(turn)
    assert sorted(till.keys) == ["msg_1.1.c2", "msg_1.1.c3"]
    assert progress.once == ["c2"]


async def test_a_call_that_is_made_once_waits_for_its_intent_and_no_other_does(toolbox: Toolbox, till: Till) -> None:
    turn, _, progress = make_turn(toolbox, asks(*CALLS), says("done"))
    progress.hold.clear()
    running = asyncio.create_task(replied(turn))
    await until(lambda: len(progress.ended) == 2)
    assert till.keys == ["msg_1.1.c1", "msg_1.1.c3"]
    progress.hold.set()
    await running
    assert till.keys[2:] == ["msg_1.1.c2"]


async def test_a_step_resumes_behind_finished_ones_and_a_known_history(toolbox: Toolbox, till: Till) -> None:
    done = ToolCall("c0", "note", "{}")
    step = Step(1, (transcript.user("hello"), transcript.assistant("", [done]), transcript.tool(done, "noted")))
    opened = OpenStep(2, OPENING[1:], calls=(journaled("c1", "first"), journaled("c2", "second")))
    history = (transcript.user("before"), transcript.assistant("indeed"))
    turn, model, _ = make_turn(toolbox, says("done"), history=history, steps=(step,), open_step=opened)
    outcome = await replied(turn)
    assert till.keys == ["msg_1.2.c3"]
    shown = [message["role"] for message in decoded(model.requests[0].messages)]
    assert shown == ["user", "assistant", "user", "assistant", "tool", "assistant", "tool", "tool", "tool"]
    assert decoded(outcome.messages) == [{"role": "assistant", "content": "done"}]


async def test_the_todo_list_as_a_finished_call_left_it_is_the_steps_own(toolbox: Toolbox) -> None:
    asked = ToolCall("t1", "todo", '{"todos": ' + TODO.decode() + "}")
    first, _, progress = make_turn(toolbox, asks(asked), says("done"))
    await replied(first)
    result = progress.journal[-1]
    assert isinstance(result, CallResult)
    assert result.todo == TODO
    todo = TodoStore()
    todo.restore(TODO)
    finished = JournaledCall("t1", "todo", "key", result.message)
    opened = OpenStep(1, (OPENING[0], transcript.assistant("", [asked])), calls=(finished,))
    again, _, progress = make_turn(toolbox, says("done"), todo=todo, open_step=opened)
    await replied(again)
    assert progress.steps[0].todo == TODO


async def test_the_next_step_asks_the_model_as_ever(toolbox: Toolbox, till: Till) -> None:
    opened = OpenStep(1, OPENING, calls=(journaled("c1", "x"), journaled("c2", "x"), journaled("c3", "x")))
    again = msgspec.structs.replace(CALLS[0], id="c4")
    turn, model, progress = make_turn(toolbox, asks(again), says("done"), open_step=opened)
    await replied(turn)
    assert till.keys == ["msg_1.2.c4"]
    assert [step.number for step in progress.steps] == [1, 2]
    assert len(model.requests) == 2


async def test_a_begun_call_whose_tool_is_gone_is_told_as_unknown(toolbox: Toolbox) -> None:
    gone = ToolCall("c1", "gone", "{}")
    opened = OpenStep(1, (OPENING[0], transcript.assistant("", [gone])), calls=(JournaledCall("c1", "gone", "key"),))
    turn, _, _ = make_turn(toolbox, says("done"), open_step=opened)
    await replied(turn)
    assert "outcome unknown" in results(turn)["c1"]
