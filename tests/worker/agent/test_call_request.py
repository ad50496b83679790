"""What a client of the API asks of a turn: its own tools, the fields of a model, the form of the answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.call_options import AnswerFormat, CallOptions, ClientCall, ClientTool
from shared.messages import Ended, TurnStatus
from tests.worker.agent.scripted import Recorded, ScriptedModel, asks, decoded, says
from worker.agent.answer_format import MOST_PARTS, read_answer
from worker.agent.context import transcript
from worker.agent.models.wire_options import anthropic_fields, cut
from worker.agent.todo import TodoStore
from worker.agent.turn import Turn
from worker.agent.turn_request import TurnRequest
from worker.tools.toolbox import Toolbox

ROLL = ClientTool("roll", "Roll a die.", {"type": "object", "properties": {"sides": {"type": "integer"}}})
PERSON = {
    "$defs": {"Age": {"type": "integer", "minimum": 0}},
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "(a+)+$"}, "age": {"$ref": "#/$defs/Age"}, "format": {}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
FORM = AnswerFormat("person", PERSON)


def turn_of(model: ScriptedModel, options: CallOptions, **more: Any) -> tuple[Turn, Recorded]:
    request = TurnRequest("s:1:2", "msg_1", ("hi",), system="Be kind.", options=options, **more)
    recorded = Recorded()
    return Turn(request, model, Toolbox(), TodoStore(), recorded), recorded


async def end_of(turn: Turn) -> Ended:
    outcome = await turn.run()
    assert isinstance(outcome, Ended)
    return outcome


async def test_a_call_of_the_clients_tool_ends_the_turn_and_is_handed_over() -> None:
    model = ScriptedModel(asks(("todo", "{}"), ("roll", '{"sides": 6}'), text="Let me see."))
    turn, _ = turn_of(model, CallOptions(tools=(ROLL,), fields={"tool_choice": "required"}))
    outcome = await end_of(turn)
    assert (outcome.status, outcome.finish, outcome.text) == (TurnStatus.REPLIED, "tool_calls", "Let me see.")
    assert outcome.calls == (ClientCall("call_1", "roll", '{"sides": 6}'),)
    # the worker's own call has run, and the client's waits for its result in the transcript
    assert [message["role"] for message in decoded(turn.messages)] == ["user", "assistant", "tool"]
    assert model.requests[0].options == {"tool_choice": "required"}
    assert {"todo", "roll"} <= {spec.name for spec in model.requests[0].tools}


async def test_results_of_the_clients_tools_open_the_next_turn() -> None:
    call = '{"id": "c1", "type": "function", "function": {"name": "roll", "arguments": "{}"}}'
    history = (transcript.user("roll"), f'{{"role":"assistant","content":null,"tool_calls":[{call}]}}'.encode())
    result = b'{"role":"tool","tool_call_id":"c1","name":"roll","content":"6"}'
    model = ScriptedModel(says("You rolled 6."))
    turn, _ = turn_of(model, CallOptions(tools=(ROLL,), opening=(result,)), history=history)
    assert (await end_of(turn)).text == "You rolled 6."
    assert [message["role"] for message in decoded(model.requests[0].messages)] == ["user", "assistant", "tool"]


async def test_a_clients_tool_stands_in_the_place_of_the_workers_of_its_name() -> None:
    model = ScriptedModel(asks(("todo", '{"mine": 1}')))
    turn, _ = turn_of(model, CallOptions(tools=(ClientTool("todo"),)))
    assert [call.arguments for call in (await end_of(turn)).calls] == ['{"mine": 1}']


async def test_fields_and_the_limit_reach_the_model_and_a_cut_answer_says_so_without_a_note() -> None:
    model = ScriptedModel(says("half an ans", "length"))
    options = CallOptions(max_tokens=3, fields={"temperature": 0.1, "seed": 7}, system="And brief.")
    turn, _ = turn_of(model, options)
    outcome = await end_of(turn)
    assert (outcome.text, outcome.finish) == ("half an ans", "length")
    (request,) = model.requests
    assert (request.max_tokens, request.options) == (3, {"temperature": 0.1, "seed": 7})
    assert request.system == "Be kind.\n\nAnd brief."


async def test_an_answer_in_the_form_asked_for_comes_without_its_fence() -> None:
    model = ScriptedModel(says('```json\n{"name": "Ann", "age": 4}\n```'))
    turn, recorded = turn_of(model, CallOptions(format=FORM))
    assert (await end_of(turn)).text == '{"name": "Ann", "age": 4}'
    assert model.requests[0].options["response_format"]["json_schema"]["schema"] == PERSON
    assert recorded.texts == []


async def test_a_model_that_missed_the_form_is_asked_once_more_and_the_transcript_has_the_right_one() -> None:
    model = ScriptedModel(says("Ann is four."), says('{"name": "Ann", "age": 4}'))
    turn, _ = turn_of(model, CallOptions(format=FORM))
    assert (await end_of(turn)).text == '{"name": "Ann", "age": 4}'
    assert len(turn.messages) == 2
    assert "no JSON" in decoded(model.requests[1].messages)[-1]["content"]
    assert turn.usage.model_calls == 2


async def test_a_model_that_misses_it_twice_is_a_failure_that_says_what_is_wrong() -> None:
    model = ScriptedModel(says('{"name": "Ann", "age": -1}'), says('{"name": "Ann"}'))
    turn, _ = turn_of(model, CallOptions(format=FORM))
    outcome = await end_of(turn)
    assert outcome.status is TurnStatus.FAILED
    assert "'age' is a required property" in outcome.text


@pytest.mark.parametrize(
    ("text", "schema", "problem"),
    [
        ('{"name": "a", "age": 1, "format": 2}', PERSON, ""), ('{"name": "a", "age": "1"}', PERSON, "/age"),
        ('{"name": "a", "age": 1, "more": 2}', PERSON, "'more'"), ("[1", PERSON, "no JSON"),
        ("[" * 100_000, None, "JSON"), ("[]", None, "no JSON object"), ("{}", None, ""),
        ("{}", {"type": "nonsense"}, ""),
        ("{}", {"$ref": "https://elsewhere.example/schema"}, ""),
        ('{"a": {"a": {}}}', {"$defs": {"N": {"properties": {"a": {"$ref": "#/$defs/N"}}}}, "$ref": "#/$defs/N"}, ""),
    ],
)  # fmt: skip
def test_an_answer_is_held_against_its_schema(text: str, schema: dict[str, Any] | None, problem: str) -> None:
    found = read_answer(text, AnswerFormat("x", schema))[1]
    assert problem in found
    assert bool(found) == bool(problem)


def test_a_schema_that_unfolds_without_end_is_not_checked() -> None:
    bomb = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 10} for n in range(12)}
    assert MOST_PARTS < 10**12
    assert read_answer("{}", AnswerFormat("bomb", {"$defs": bomb, "$ref": "#/$defs/d0"}))[1] == ""


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_no_schema_makes_the_check_fail(schema: Any) -> None:
    assert isinstance(
        read_answer('{"a": [1]}', AnswerFormat("x", {"properties": {"a": schema}} | {"x": schema}))[1], str
    )


def test_the_messages_api_gets_the_fields_under_its_own_names() -> None:
    options = {
        "stop": "\n", "tool_choice": {"type": "function", "function": {"name": "roll"}},
        "parallel_tool_calls": False, "reasoning_effort": "high",
    }  # fmt: skip
    assert anthropic_fields(options) == {
        "stop_sequences": ["\n"],
        "tool_choice": {"type": "tool", "name": "roll", "disable_parallel_tool_use": True},
        "output_config": {"effort": "high"},
    }
    assert anthropic_fields({}) == {}


def test_a_text_is_cut_where_it_stops_or_is_full() -> None:
    assert cut("one two three", {"stop": ["three", " two"]}, 100) == ("one", "stop")
    assert cut("one two three", {}, 5) == ("one t", "length")
    assert cut("one", {"stop": "x"}, 3) == ("one", "stop")
