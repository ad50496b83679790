"""The turn: steps until a reply, whatever the model and its tools do."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import types
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import ModelRejected, ModelUnavailable
from shared.messages import Ended, Parked, TurnStatus
from tests.worker.agent.scripted import Hang, Recorded, ScriptedModel, asks, decoded, ended, says, unanswered
from tests.worker.waiting import until
from worker.agent.context import transcript
from worker.agent.models.port import ModelReply
from worker.agent.todo import TodoStore
from worker.agent.turn import CALLS_AT_ONCE, Turn
from worker.agent.turn_request import TurnRequest
from worker.tools import ToolContext, tool
from worker.tools.spec import ToolCall
from worker.tools.toolbox import Toolbox

ADD_MILK = '{"todos": [{"id": "1", "content": "milk", "status": "pending"}], "merge": true}'
ADD_EGGS = '{"todos": [{"id": "2", "content": "eggs", "status": "pending"}], "merge": true}'


class ScriptedTools:
    """Tools for these tests, and what they did."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.gate = threading.Event()
        self.most = self.running = 0
        self.stubborn_ended = asyncio.Event()

    def module(self) -> types.ModuleType:
        module = types.ModuleType("tools")

        @tool
        async def note(word: str) -> str:
            self.ran.append(word)
            return f"noted {word}"

        @tool
        async def nap(seconds: float) -> str:
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await asyncio.sleep(seconds)
            finally:
                self.running -= 1
            return "rested"

        @tool
        def hang(context: ToolContext) -> str:
            context.say("hanging")
            self.gate.wait()
            return "too late"

        @tool
        async def stubborn() -> str:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                await self.stubborn_ended.wait()
            return "at last"

        @tool
        async def breaks() -> str:
            raise ValueError("it broke")

        @tool
        async def cancels() -> str:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(30)
            return "too late"

        for function in (note, nap, hang, stubborn, breaks, cancels):
            setattr(module, function.__name__, function)
        return module


@pytest.fixture
def tools() -> Iterator[ScriptedTools]:
    made = ScriptedTools()
    sys.modules["tools"] = made.module()
    yield made
    made.gate.set()
    del sys.modules["tools"]


@pytest.fixture
def toolbox(tools: ScriptedTools) -> Iterator[Toolbox]:
    made = Toolbox(["tools"])
    yield made
    made.close()


def make_turn(
    toolbox: Toolbox, *script: ModelReply | Exception | Hang, todo: TodoStore | None = None, **request: object
) -> tuple[Turn, ScriptedModel, Recorded]:
    model, progress = ScriptedModel(*script), Recorded()
    fields = TurnRequest("a:b:c", "msg_1", ("hello",))
    turn = Turn(msgspec.structs.replace(fields, **request), model, toolbox, todo or TodoStore(), progress)
    return turn, model, progress


async def test_a_reply_without_tool_calls_ends_the_turn(toolbox: Toolbox) -> None:
    turn, model, progress = make_turn(toolbox, says("hi there"), system="be kind")
    outcome = await ended(turn)
    assert outcome.status is TurnStatus.REPLIED
    assert outcome.text == "hi there"
    assert decoded(outcome.messages) == [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi there"},
    ]
    assert outcome.usage.model_calls == 1
    assert outcome.usage.input_tokens == 3
    assert progress.texts == [(1, "hi there")]
    assert model.requests[0].system == "be kind"
    assert model.requests[0].tools == toolbox.specs()


async def test_the_model_sees_the_results_of_its_calls_and_each_step_is_told(
    toolbox: Toolbox, tools: ScriptedTools
) -> None:
    turn, model, progress = make_turn(
        toolbox, asks(("note", '{"word": "a"}'), ("note", '{"word": "b"}')), asks(("breaks", "")), says("done")
    )
    outcome = await ended(turn)
    assert tools.ran == ["a", "b"]
    assert [step.number for step in progress.steps] == [1, 2]
    assert [message["role"] for message in decoded(progress.steps[0].messages)] == ["user", "assistant", "tool", "tool"]
    assert decoded(progress.steps[1].messages)[1]["content"] == "Error: ValueError: it broke"
    assert decoded(outcome.messages) == [{"role": "assistant", "content": "done"}]
    assert model.requests[2].messages == turn.messages[:-1]
    assert progress.steps[0].usage.tool_calls == 2
    assert turn.usage.model_calls == 3
    assert [call.name for call in progress.started] == ["note", "note", "breaks"]
    assert progress.ended == [message for message in turn.messages if b'"role":"tool"' in message]


async def test_calls_of_one_step_run_at_once_but_not_without_bound(toolbox: Toolbox, tools: ScriptedTools) -> None:
    turn, _, _ = make_turn(toolbox, asks(*[("nap", '{"seconds": 0.01}')] * 100), says("done"))
    await ended(turn)
    assert tools.most == CALLS_AT_ONCE


async def test_todo_calls_change_the_list_and_only_changes_are_told(toolbox: Toolbox) -> None:
    todo = TodoStore()
    turn, _, progress = make_turn(
        toolbox,
        asks(("todo", ADD_MILK), ("todo", ADD_EGGS)),
        asks(("todo", "{}")),
        asks(("todo", ADD_EGGS.replace("pending", "completed"))),
        says("done"),
        todo=todo,
    )
    outcome = await ended(turn)
    told = [step.todo for step in progress.steps]
    assert told[0] is not None
    assert [item["content"] for item in msgspec.json.decode(told[0])] == ["milk", "eggs"]
    assert told[1] is None
    assert told[2] == todo.to_bytes()
    assert outcome.todo is None


async def test_a_resumed_turn_goes_on_after_its_last_step(toolbox: Toolbox, tools: ScriptedTools) -> None:
    history = (transcript.user("before"), transcript.assistant("yes"))
    script = asks(("note", '{"word": "a"}'), text="first"), asks(("note", '{"word": "b"}')), says("done")
    whole, _, progress = make_turn(toolbox, *script, history=history)
    expected = await ended(whole)
    resumed, model, second = make_turn(toolbox, *script[1:], history=history, steps=tuple(progress.steps[:1]))
    outcome = await ended(resumed)
    assert tools.ran == ["a", "b", "b"]
    assert outcome == expected
    assert resumed.messages == whole.messages
    assert [step.number for step in second.steps] == [2]
    assert model.requests[0].messages == [*history, *progress.steps[0].messages]


async def test_a_transcript_cut_between_a_call_and_its_result_is_repaired(toolbox: Toolbox) -> None:
    call = ToolCall("call_9", "note", "{}")
    history = (transcript.user("x"), transcript.assistant("", [call]))
    turn, model, _ = make_turn(toolbox, says("fine"), history=history)
    await ended(turn)
    assert unanswered(model.requests[0].messages) == []


async def test_a_drained_turn_parks_at_its_next_step_boundary(toolbox: Toolbox, tools: ScriptedTools) -> None:
    turn, model, progress = make_turn(toolbox, asks(("nap", '{"seconds": 0.02}')), says("never asked"))
    running = asyncio.create_task(turn.run())
    await progress.tool_running.wait()
    turn.park()
    assert isinstance(await running, Parked)
    assert len(progress.steps) == 1
    assert len(model.requests) == 1


async def test_a_turn_that_comes_to_its_end_does_not_park(toolbox: Toolbox) -> None:
    turn, model, _ = make_turn(toolbox, Hang())
    model.script.append(says("x"))
    running = asyncio.create_task(turn.run())
    await model.called.wait()
    turn.park()
    turn.interrupt()
    outcome = await running
    assert isinstance(outcome, Ended)


async def test_an_interrupt_before_the_first_byte_ends_the_turn_at_once(toolbox: Toolbox) -> None:
    turn, model, _ = make_turn(toolbox, Hang())
    running = asyncio.create_task(ended(turn))
    await model.called.wait()
    started = time.monotonic()
    turn.interrupt()
    outcome = await running
    assert time.monotonic() - started < 5
    assert outcome.status is TurnStatus.INTERRUPTED
    assert outcome.text == "Stopped."
    assert model.cancelled == 1
    assert [message["role"] for message in decoded(outcome.messages)] == ["user", "assistant"]
    assert running.cancelling() == 0


async def test_an_interrupt_amid_the_text_keeps_what_was_said(toolbox: Toolbox) -> None:
    turn, model, _ = make_turn(toolbox, Hang("The answer is"))
    running = asyncio.create_task(ended(turn))
    await model.called.wait()
    turn.interrupt()
    outcome = await running
    assert outcome.text == "Stopped."
    assert decoded(outcome.messages)[-1] == {"role": "assistant", "content": "The answer is\n\nStopped."}


@pytest.mark.parametrize("hung", ["hang", "nap"])
async def test_an_interrupt_in_a_tool_ends_the_turn_at_once_with_a_valid_transcript(
    toolbox: Toolbox, tools: ScriptedTools, hung: str
) -> None:
    arguments = '{"seconds": 30}' if hung == "nap" else "{}"
    turn, _, progress = make_turn(toolbox, asks(("note", '{"word": "a"}'), (hung, arguments), ("todo", ADD_MILK)))
    running = asyncio.create_task(ended(turn))
    await progress.tool_running.wait()
    await until(lambda: len(progress.ended) == 2)
    started = time.monotonic()
    turn.interrupt()
    outcome = await running
    assert time.monotonic() - started < 5
    assert outcome.status is TurnStatus.INTERRUPTED
    results = [message["content"] for message in decoded(outcome.messages) if message["role"] == "tool"]
    assert results[0] == "noted a"
    assert "interrupted" in results[1]
    assert "milk" in results[2]
    assert outcome.todo is not None
    assert len(progress.ended) == 3


async def test_an_interrupt_of_one_turn_leaves_the_tools_of_another_alone(
    toolbox: Toolbox, tools: ScriptedTools
) -> None:
    stopped, _, first = make_turn(toolbox, asks(("hang", "{}")))
    other, _, second = make_turn(toolbox, asks(("hang", "{}"), ("nap", '{"seconds": 0.05}')), says("done"), session="o")
    tasks = asyncio.create_task(ended(stopped)), asyncio.create_task(ended(other))
    await first.tool_running.wait()
    await second.tool_running.wait()
    stopped.interrupt()
    assert (await tasks[0]).status is TurnStatus.INTERRUPTED
    tools.gate.set()
    assert (await tasks[1]).text == "done"
    assert "too late" in decoded(second.ended)[-1]["content"] + decoded(second.ended)[0]["content"]


async def test_a_tool_that_will_not_be_cancelled_is_left_behind(toolbox: Toolbox, tools: ScriptedTools) -> None:
    turn, _, progress = make_turn(toolbox, asks(("stubborn", "{}")))
    running = asyncio.create_task(ended(turn))
    await progress.tool_running.wait()
    await asyncio.sleep(0)
    turn.interrupt()
    assert (await running).status is TurnStatus.INTERRUPTED
    assert "interrupted" in decoded(turn.messages)[-2]["content"]
    assert toolbox.leaked == 1
    tools.stubborn_ended.set()
    await until(lambda: toolbox.leaked == 0)


@pytest.mark.parametrize("deadline_s", [60, 0.2])
async def test_a_second_end_while_tools_clean_up_leaves_the_transcript_whole(
    toolbox: Toolbox, tools: ScriptedTools, deadline_s: float
) -> None:
    calls = asks(("note", '{"word": "a"}'), ("stubborn", "{}"))
    turn, _, progress = make_turn(toolbox, calls, deadline_s=deadline_s)
    running = asyncio.create_task(ended(turn))
    await until(lambda: len(progress.started) == 2 and len(progress.ended) == 1)
    turn.interrupt()
    for _ in range(3):
        await asyncio.sleep(0)
    turn.interrupt()
    outcome = await running
    assert outcome.status is TurnStatus.INTERRUPTED
    assert "noted a" in decoded(turn.messages)[2]["content"]
    assert "interrupted" in decoded(turn.messages)[3]["content"]
    assert len(progress.ended) == 2
    tools.stubborn_ended.set()
    await until(lambda: toolbox.leaked == 0)


async def test_a_tool_that_cancels_its_own_task_ends_its_call_alone(toolbox: Toolbox) -> None:
    turn, model, _ = make_turn(toolbox, asks(("cancels", "{}"), ("note", '{"word": "a"}')), says("done"))
    assert (await ended(turn)).text == "done"
    assert "cancelled by the tool itself" in decoded(model.requests[1].messages)[2]["content"]


async def test_an_early_interrupt_asks_no_model(toolbox: Toolbox) -> None:
    turn, model, _ = make_turn(toolbox, says("never"))
    turn.interrupt()
    assert (await ended(turn)).status is TurnStatus.INTERRUPTED
    assert model.requests == []


async def test_cancelling_the_task_itself_is_no_outcome(toolbox: Toolbox) -> None:
    turn, model, _ = make_turn(toolbox, Hang())
    running = asyncio.create_task(turn.run())
    await model.called.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_the_deadline_ends_the_turn_in_a_tool_and_in_a_model_call(toolbox: Toolbox, tools: ScriptedTools) -> None:
    for script in ([asks(("hang", "{}"))], [asks(("nap", '{"seconds": 30}'))], [Hang("so far")]):
        turn, _, _ = make_turn(toolbox, *script, deadline_s=0.05)
        outcome = await ended(turn)
        assert outcome.status is TurnStatus.TIMED_OUT
        assert "longer than I may work" in outcome.text
        assert outcome.error == "turn timeout"


@pytest.mark.parametrize(
    ("failure", "status", "told"),
    [
        (TimeoutError("no answer after 300 s"), TurnStatus.TIMED_OUT, "did not answer in time"),
        (ModelUnavailable("529 sk-secret"), TurnStatus.FAILED, "cannot be reached"),
        (ModelRejected("401 sk-secret"), TurnStatus.FAILED, "refused this request"),
        (KeyError("sk-secret"), TurnStatus.FAILED, "went wrong on our side"),
        (says("  "), TurnStatus.FAILED, "empty answer"),
    ],
)
async def test_a_failure_is_told_in_words_that_hold_no_secret(
    toolbox: Toolbox, failure: Exception | ModelReply, status: TurnStatus, told: str
) -> None:
    turn, _, _ = make_turn(toolbox, failure)
    outcome = await ended(turn)
    assert outcome.status is status
    assert told in outcome.text
    assert outcome.error
    assert all(b"sk-secret" not in message for message in outcome.messages)
    assert decoded(outcome.messages)[-1] == {"role": "assistant", "content": outcome.text}


async def test_the_step_limit_ends_a_model_that_never_comes_to_an_answer(toolbox: Toolbox) -> None:
    turn, _, progress = make_turn(toolbox, *[asks(("note", '{"word": "a"}'))] * 5, step_limit=3)
    outcome = await ended(turn)
    assert outcome.status is TurnStatus.FAILED
    assert "after 3 steps" in outcome.text
    assert len(progress.steps) == 3


async def test_an_answer_cut_by_the_model_says_so(toolbox: Toolbox) -> None:
    turn, _, _ = make_turn(toolbox, says("It is", finish="length"))
    assert "cut at the model's output limit" in (await ended(turn)).text


async def test_calls_of_careless_servers_become_a_valid_transcript(toolbox: Toolbox) -> None:
    careless = [
        ToolCall("", "note", '{"word": "a"}'),
        ToolCall("x", "note", '{"word"'),
        ToolCall("x", "no\udc80pe", "[1]"),
        ToolCall("", "note", ""),
    ]
    turn, model, _ = make_turn(toolbox, asks(*careless, text="\udc80"), says("done \udc80"), texts=("hi \udc80",))
    outcome = await ended(turn)
    assert outcome.text == "done \ufffd"
    calls = decoded(model.requests[1].messages)[1]["tool_calls"]
    assert len({call["id"] for call in calls}) == 4
    assert all(isinstance(msgspec.json.decode(call["function"]["arguments"]), dict) for call in calls)


@pytest.mark.parametrize("hook", ["step_done", "tool_started", "tool_ended"])
async def test_hooks_that_fail_do_not_lose_the_turn(toolbox: Toolbox, hook: str) -> None:
    class Failing(Recorded):
        pass

    def fail(*_: object) -> None:
        raise OSError("nobody listens")

    setattr(Failing, hook, fail)

    turn = Turn(
        TurnRequest("a:b:c", "msg_1", ("x",)),
        ScriptedModel(asks(("note", '{"word": "a"}'))),
        toolbox,
        TodoStore(),
        Failing(),
    )
    outcome = await ended(turn)
    assert outcome.status is TurnStatus.FAILED
    assert "nobody listens" in outcome.error


CALLS = st.sampled_from(
    [
        ("note", '{"word": "w"}'),
        ("note", "{"),
        ("nope", "{}"),
        ("breaks", ""),
        ("todo", ADD_MILK),
        ("nap", '{"seconds": 0}'),
    ]
)


@given(steps=st.lists(st.lists(CALLS, min_size=1, max_size=4), max_size=5), stop_after=st.integers(0, 40))
@settings(max_examples=60)
def test_an_interrupt_at_any_moment_leaves_a_valid_transcript(
    steps: list[list[tuple[str, str]]], stop_after: int
) -> None:
    async def run() -> None:
        tools = ScriptedTools()
        sys.modules["shelf_of_law"] = tools.module()
        toolbox = Toolbox(["shelf_of_law"])
        turn, _, progress = make_turn(toolbox, *(asks(*calls) for calls in steps), says("done"))
        running = asyncio.create_task(turn.run())
        for _ in range(stop_after):
            await asyncio.sleep(0)
        turn.interrupt()
        outcome = await running
        assert isinstance(outcome, Ended)
        kept = [message for step in progress.steps for message in step.messages] + list(outcome.messages)
        assert kept == turn.messages
        assert unanswered(kept) == []
        toolbox.close()

    asyncio.run(run())
