"""Answers that were cut off at the output limit, and answers that say nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shared.messages import Ended, TurnStatus
from shared.texts import ENGLISH
from tests.worker.agent.scripted import ScriptedModel, asks, decoded, ended, says
from worker.agent.cut_offs import ANSWER_CUT_OFF, CALL_CUT_OFF, NOTHING_SAID
from worker.agent.models.failures import EmptyAnswer
from worker.agent.todo import TodoStore
from worker.agent.turn import Turn
from worker.agent.turn_request import TurnRequest
from worker.tools.spec import ToolCall
from worker.tools.toolbox import Toolbox

CUT = ToolCall("call_0", "todo", '{"todos": [{"id": "1", "con')
LISTED = ToolCall("call_1", "todo", "{}")


@pytest.fixture
def toolbox() -> Iterator[Toolbox]:
    made = Toolbox([])
    yield made
    made.close()


async def run(toolbox: Toolbox, *script: object) -> tuple[Ended, ScriptedModel]:
    model = ScriptedModel(*script)  # type: ignore[arg-type]
    turn = Turn(TurnRequest("s", "msg_1", ("go",)), model, toolbox, TodoStore())
    return await ended(turn), model


def cut_off() -> object:
    reply = asks(CUT)
    return type(reply)(reply.text, reply.tool_calls, reply.usage, reply.provider, reply.model, "length")


async def test_a_call_that_was_cut_off_does_not_run_and_its_model_is_told(toolbox: Toolbox) -> None:
    outcome, model = await run(toolbox, cut_off(), says("shorter then"))
    assert outcome.text == "shorter then"
    assert decoded(model.requests[1].messages)[-1]["content"] == CALL_CUT_OFF


async def test_the_sender_is_told_after_the_model_was_told_twice(toolbox: Toolbox) -> None:
    outcome, model = await run(toolbox, *(cut_off() for _ in range(5)))
    assert (outcome.status, outcome.text) == (TurnStatus.FAILED, ENGLISH.cut_off)
    assert len(model.requests) == 3


async def test_an_answer_that_its_thoughts_used_up_is_asked_for_again_twice(toolbox: Toolbox) -> None:
    outcome, model = await run(toolbox, *(EmptyAnswer("nothing", "length") for _ in range(5)))
    assert outcome.text == ENGLISH.cut_off
    assert [decoded(asked.messages)[-1]["content"] for asked in model.requests] == ["go", *[ANSWER_CUT_OFF] * 2]


async def test_an_empty_answer_after_a_tool_is_asked_for_once_more_in_other_words(toolbox: Toolbox) -> None:
    outcome, model = await run(toolbox, asks(LISTED), EmptyAnswer("nothing"), says("You have nothing to do."))
    assert outcome.text == "You have nothing to do."
    assert decoded(model.requests[2].messages)[-1]["content"] == NOTHING_SAID
    assert NOTHING_SAID.encode() not in b"".join(outcome.messages)


async def test_nobody_is_asked_to_send_again_what_would_run_a_tool_again(toolbox: Toolbox) -> None:
    outcome, model = await run(toolbox, asks(LISTED), EmptyAnswer("nothing"), EmptyAnswer("nothing"))
    assert outcome.text == ENGLISH.nothing_said_after.format(tools="todo")
    assert len(model.requests) == 3
