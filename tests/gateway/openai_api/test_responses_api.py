"""The Responses API, asked by the official client against a gateway whose model is a scripted server."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest

from loadtests.gateway_process import GatewayProcess
from loadtests.provider import RunningProvider, running_provider
from tests.gateway.openai_api.test_official_sdk import settings
from tests.gateway.test_api import wait_until

TOOL: Any = {
    "type": "function",
    "name": "roll",
    "description": "Roll a die.",
    "parameters": {"type": "object", "properties": {"sides": {"type": "integer"}}},
}
PIXEL = (
    f"data:image/png;base64,{base64.b64encode(bytes([137]) + b'PNG' + bytes([13, 10, 26, 10]) + b' and more').decode()}"
)
ROLL_ONCE = '[[tool roll {"sides": 6}]] [[then]] [[say six it is]]'


class Person(pydantic.BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def gateway(provider: RunningProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("responses"), settings(provider)) as process:
        yield process


@pytest.fixture(scope="module")
def sdk(gateway: GatewayProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=3) as client:
        yield client


def test_a_conversation_goes_on_from_its_last_response(sdk: openai.OpenAI, provider: RunningProvider) -> None:
    first = sdk.responses.create(model="gatehouse", input="my name is Ann", instructions="Be brief.")
    assert (first.status, first.output_text) == ("completed", "echo: my name is Ann")
    second = sdk.responses.create(model="gatehouse", input="who am I", previous_response_id=first.id)
    assert second.output_text == "echo: who am I"
    sent = provider.requests[-1].json()["messages"]
    assert [message["content"] for message in sent if message["role"] == "user"] == ["my name is Ann", "who am I"]
    assert "Be brief." not in json.dumps(sent)
    assert sdk.responses.retrieve(second.id).output_text == "echo: who am I"


@pytest.mark.parametrize("store", [True, False])
def test_a_conversation_branches_off_from_an_earlier_response(
    sdk: openai.OpenAI, provider: RunningProvider, store: bool
) -> None:
    picture: Any = [{"type": "input_text", "text": "a picture"}, {"type": "input_image", "image_url": PIXEL}]
    first = sdk.responses.create(model="gatehouse", input=[{"role": "user", "content": picture}])
    sdk.responses.create(model="gatehouse", input="go left", previous_response_id=first.id)
    branch = sdk.responses.create(model="gatehouse", input="go right", previous_response_id=first.id, store=store)
    assert branch.output_text == "echo: go right"
    sent = [message for message in provider.requests[-1].json()["messages"] if message["role"] != "system"]
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]
    assert PIXEL in json.dumps(sent[0])
    assert "go left" not in json.dumps(sent)


def test_a_stored_response_is_shown_as_it_was_asked_for(sdk: openai.OpenAI) -> None:
    made = sdk.responses.create(
        model="gatehouse", input="hello", instructions="Be brief.", metadata={"a": "b"}, tools=[TOOL], temperature=0.5
    )
    shown = sdk.responses.retrieve(made.id)
    assert shown.to_dict() == made.to_dict()
    again = list(sdk.responses.retrieve(made.id, stream=True))
    assert [again[0].type, again[-1].type] == ["response.created", "response.completed"]
    with pytest.raises(openai.BadRequestError) as refused:
        list(sdk.responses.retrieve(made.id, stream=True, starting_after=3))
    assert refused.value.param == "starting_after"


def test_what_the_model_was_given_is_listed_in_pages(sdk: openai.OpenAI) -> None:
    asked = sdk.responses.create(model="gatehouse", input=ROLL_ONCE, tools=[TOOL])
    (call,) = [item for item in asked.output if item.type == "function_call"]
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "6"}
    done = sdk.responses.create(model="gatehouse", input=[result], tools=[TOOL], previous_response_id=asked.id)
    listed = list(sdk.responses.input_items.list(done.id, order="asc", limit=1))  # a page each
    assert [item.type for item in listed] == ["message", "function_call", "function_call_output"]
    assert [item.id for item in sdk.responses.input_items.list(done.id)] == [item.id for item in reversed(listed)]
    (words,) = sdk.responses.input_items.list(asked.id)
    assert words.type == "message"
    assert words.content[0].to_dict()["text"] == ROLL_ONCE
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.responses.input_items.list(done.id, after="in_none")
    assert refused.value.param == "after"


def test_a_response_in_the_background_is_asked_for_and_cancelled(
    sdk: openai.OpenAI,
) -> None:
    slow = sdk.responses.create(model="gatehouse", input="[[sleep 60]] [[say late]]", background=True)
    assert (slow.status, slow.background, slow.output) == ("queued", True, [])
    wait_until(lambda: sdk.responses.retrieve(slow.id).status == "in_progress")
    with pytest.raises(openai.ConflictError):
        sdk.with_options(max_retries=0).responses.delete(slow.id)
    behind = sdk.responses.create(model="gatehouse", input="hi", background=True, previous_response_id=slow.id)
    assert sdk.responses.cancel(slow.id).status == "cancelled"
    assert sdk.responses.cancel(slow.id).status == "cancelled"
    wait_until(lambda: sdk.responses.retrieve(behind.id).status == "completed")
    assert sdk.responses.cancel(behind.id).output_text == "echo: hi"
    running = sdk.responses.create(model="gatehouse", input="[[sleep 60]]", background=True)
    waits = sdk.responses.create(
        model="gatehouse", input="[[sleep 60]]", background=True, previous_response_id=running.id
    )
    assert [item.type for item in sdk.responses.input_items.list(waits.id)] == ["message"]
    ends = threading.Timer(0.1, sdk.responses.cancel, [running.id])
    ends.start()
    assert sdk.responses.cancel(waits.id).status == "cancelled"
    ends.join()
    with pytest.raises(openai.BadRequestError):
        sdk.responses.create(model="gatehouse", input="x", background=True, store=False)


def test_a_deleted_response_is_gone_and_its_conversation_goes_on_without_it(
    sdk: openai.OpenAI, gateway: GatewayProcess, provider: RunningProvider
) -> None:
    first = sdk.responses.create(model="gatehouse", input="keep this")
    second = sdk.responses.create(model="gatehouse", input="a secret word", previous_response_id=first.id)
    with pytest.raises(openai.ConflictError):
        sdk.with_options(max_retries=0).responses.delete(first.id)
    sdk.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(second.id)
    third = sdk.responses.create(model="gatehouse", input="go on", previous_response_id=first.id)
    sent = json.dumps(provider.requests[-1].json()["messages"])
    assert ("keep this" in sent, "a secret word" in sent) == (True, False)
    sdk.responses.delete(third.id)
    sdk.responses.delete(first.id)
    for gone in (sdk.responses.retrieve, sdk.responses.delete, sdk.responses.cancel):
        with pytest.raises(openai.NotFoundError):
            gone(first.id)
    files = b"".join(path.read_bytes() for path in gateway.data_dir.glob("gatehouse.db*"))
    assert b"a secret word" not in files


def test_nothing_is_kept_of_a_response_that_is_not_stored(sdk: openai.OpenAI) -> None:
    answer = sdk.responses.create(model="gatehouse", input="hello", store=False)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.create(model="gatehouse", input="x", previous_response_id=answer.id)


@pytest.mark.parametrize("stored", [True, False])
def test_the_clients_tools_are_called_and_their_results_taken(sdk: openai.OpenAI, stored: bool) -> None:
    asked = sdk.responses.create(model="gatehouse", input=ROLL_ONCE, tools=[TOOL], store=stored)
    (call,) = [item for item in asked.output if item.type == "function_call"]
    assert (call.name, json.loads(call.arguments)) == ("roll", {"sides": 6})
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "6"}
    if stored:
        answer = sdk.responses.create(model="gatehouse", input=[result], tools=[TOOL], previous_response_id=asked.id)
    else:
        items: Any = [{"role": "user", "content": ROLL_ONCE}, *(item.to_dict() for item in asked.output), result]
        answer = sdk.responses.create(model="gatehouse", input=items, tools=[TOOL], store=False)
    assert answer.output_text == "six it is"


def test_custom_tools_and_those_of_a_namespace_are_called_as_the_client_knows_them(sdk: openai.OpenAI) -> None:
    tools: Any = [
        {"type": "custom", "name": "shout", "description": "Shout."},
        {"type": "namespace", "name": "dice", "description": "Dice.", "tools": [TOOL]},
    ]
    script = '[[tool shout {"input": "hey"}]] [[tool dice__roll {"sides": 6}]] [[then]] [[say heard]]'
    with sdk.responses.stream(model="gatehouse", input=script, tools=tools) as stream:
        kinds = {event.type for event in stream}
        asked = stream.get_final_response()
    shout, roll = asked.output
    assert shout.type == "custom_tool_call"
    assert (shout.name, shout.input) == ("shout", "hey")
    assert roll.type == "function_call"
    assert (roll.namespace, roll.name, roll.arguments) == ("dice", "roll", '{"sides": 6}')
    assert {"response.custom_tool_call_input.done", "response.function_call_arguments.done"} <= kinds
    results: Any = [
        {"type": "custom_tool_call_output", "call_id": shout.call_id, "output": "ok"},
        {"type": "function_call_output", "call_id": roll.call_id, "output": "6"},
    ]
    items: Any = [{"role": "user", "content": script}, shout.to_dict(), roll.to_dict(), *results]
    assert sdk.responses.create(model="gatehouse", input=items, tools=tools, store=False).output_text == "heard"
    after = sdk.responses.create(model="gatehouse", input=results, tools=tools, previous_response_id=asked.id)
    assert after.output_text == "heard"


def test_a_streamed_response_is_assembled_by_the_client(sdk: openai.OpenAI) -> None:
    with sdk.responses.stream(model="gatehouse", input=ROLL_ONCE, tools=[TOOL]) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert [item.type for item in final.output] == ["function_call"]
    with sdk.responses.stream(model="gatehouse", input="hello there") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == text == "echo: hello there"


def test_an_answer_is_parsed_into_the_clients_model(sdk: openai.OpenAI) -> None:
    parsed = sdk.responses.parse(model="gatehouse", input='[[say {"name": "Ann", "age": 4}]]', text_format=Person)
    assert parsed.output_parsed == Person(name="Ann", age=4)


def test_a_clients_own_retries_are_one_turn(gateway: GatewayProcess, provider: RunningProvider) -> None:
    before = provider.calls
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", timeout=0.7, max_retries=5) as client:
        assert client.responses.create(model="gatehouse", input="[[sleep 1.5]] [[say done]]").output_text == "done"
    assert provider.calls == before + 1


def test_items_of_earlier_responses_are_named_by_their_ids(sdk: openai.OpenAI, provider: RunningProvider) -> None:
    asked = sdk.responses.create(
        model="gatehouse", input='[[say let me]] [[tool roll {"sides": 6}]] [[then]] [[say six it is]]', tools=[TOOL]
    )
    words, call = asked.output
    assert call.type == "function_call"
    items: Any = [
        {"role": "user", "content": ROLL_ONCE},
        {"type": "item_reference", "id": words.id},
        {"id": call.id},
        {"type": "function_call_output", "call_id": call.call_id, "output": "6"},
    ]
    done = sdk.responses.create(model="gatehouse", input=items, tools=[TOOL])
    assert done.output_text == "six it is"
    sent = provider.requests[-1].json()["messages"]
    assert [message["role"] for message in sent][-3:] == ["user", "assistant", "tool"]
    assert (sent[-2]["content"], sent[-2]["tool_calls"][0]["id"]) == ("let me", call.call_id)
    missing: Any = [{"type": "item_reference", "id": f"{call.id}0"}]
    with pytest.raises(openai.NotFoundError, match="there is no item"):
        sdk.responses.create(model="gatehouse", input=missing)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"), ({"conversation": "x"}, "conversation"),
        ({"nonsense": 1}, "nonsense"), ({"input": [{"type": "web_search_call", "id": "x"}]}, "input.0.type"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"type": "function", "function": {"name": "roll"}}]}, "tools.0.name"),
        ({"max_output_tokens": 0}, "max_output_tokens"), ({"include": ["message.output_text.logprobs"]}, "include.0"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "mcp"}]}]}, "tools.0.tools.0.type"),
        ({"tools": [{"type": "namespace", "name": "n" * 60, "tools": [TOOL]}]}, "tools.0.tools.0.name"),
    ],
)  # fmt: skip
def test_what_is_not_served_is_refused_by_its_name(gateway: GatewayProcess, fields: dict[str, Any], param: str) -> None:
    answer = gateway.ask("POST", "/v1/responses", json={"model": "gatehouse", "input": "x"} | fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
