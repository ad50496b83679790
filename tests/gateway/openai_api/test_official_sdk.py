"""The official client against a gateway whose model is a scripted server: tools, forms, fields, retries."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import openai
import pydantic
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from loadtests.gateway_process import GatewayProcess
from loadtests.provider import RunningProvider, running_provider

ROLL: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "roll",
        "description": "Roll a die.",
        "parameters": {"type": "object", "properties": {"sides": {"type": "integer"}}, "required": ["sides"]},
    },
}
ROLL_ONCE = '[[tool roll {"sides": 6}]] [[then]] [[say six it is]]'


class Person(pydantic.BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    with running_provider() as provider:
        yield provider


def settings(provider: RunningProvider) -> dict[str, str]:
    return {
        "GATEHOUSE_MODEL": "openai:scripted",
        "OPENAI_BASE_URL": provider.openai_url,
        "GATEHOUSE_WORKERS": "1",
        "GATEHOUSE_CORS_ORIGINS": "https://chat.example.com",
        "GATEHOUSE_SESSION_FROM": "metadata:chat",
    }


@pytest.fixture(scope="module")
def gateway(provider: RunningProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("official"), settings(provider)) as process:
        yield process


@pytest.fixture(scope="module")
def sdk(gateway: GatewayProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1/", api_key="none") as client:
        yield client


def user(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def in_session(name: str) -> dict[str, str]:
    return {"X-Gatehouse-Session": name}


@pytest.mark.parametrize("session", [None, "tools"])
def test_the_clients_tools_are_called_and_their_results_taken(sdk: openai.OpenAI, session: str | None) -> None:
    headers = in_session(session) if session else {}
    messages = user(ROLL_ONCE)
    asked = sdk.chat.completions.create(model="gatehouse", messages=messages, tools=[ROLL], extra_headers=headers)
    (choice,) = asked.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("roll", {"sides": 6})
    messages += [
        choice.message.to_dict(),  # type: ignore[list-item]  # as people send it back
        {"role": "tool", "tool_call_id": call.id, "content": "6"},
    ]
    answer = sdk.chat.completions.create(model="gatehouse", messages=messages, tools=[ROLL], extra_headers=headers)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("six it is", "stop")


@pytest.mark.parametrize("session", [None, "functions"])
def test_a_client_that_knows_functions_alone_is_served_as_one_with_tools(
    sdk: openai.OpenAI, provider: RunningProvider, session: str | None
) -> None:
    options: Any = {"model": "gatehouse", "extra_headers": in_session(session) if session else {}}
    options["functions"] = [ROLL["function"]]
    messages: Any = user(ROLL_ONCE)
    (choice,) = sdk.chat.completions.create(messages=messages, function_call={"name": "roll"}, **options).choices
    assert provider.requests[-1].json()["tool_choice"] == {"type": "function", "function": {"name": "roll"}}
    call = choice.message.function_call
    assert call is not None
    assert (choice.finish_reason, call.name, call.arguments) == ("function_call", "roll", '{"sides": 6}')
    messages += [choice.message.to_dict(), {"role": "function", "name": "roll", "content": "6"}]
    answer = sdk.chat.completions.create(messages=messages, **options)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("six it is", "stop")
    streamed = sdk.chat.completions.create(messages=user(ROLL_ONCE), stream=True, **options | {"extra_headers": {}})
    last, end = list(streamed)[-2:]
    assert last.choices[0].delta.function_call is not None
    assert (last.choices[0].delta.function_call.name, end.choices[0].finish_reason) == ("roll", "function_call")
    for wrong, param in (
        ({"tools": [ROLL]}, "functions"), ({"functions": openai.omit, "function_call": "auto"}, "function_call"),
        ({"messages": [*user("x"), {"role": "function", "name": "never", "content": "6"}]}, "messages.1.name"),
    ):  # fmt: skip
        with pytest.raises(openai.BadRequestError) as refused:
            sdk.chat.completions.create(**options | {"messages": user("x"), "extra_headers": {}} | wrong)
        assert refused.value.param == param


def test_a_custom_tool_takes_any_text(sdk: openai.OpenAI, provider: RunningProvider) -> None:
    grammar = {"type": "grammar", "grammar": {"syntax": "regex", "definition": "[a-z]+"}}
    tool: Any = {"type": "custom", "custom": {"name": "shout", "description": "Shout.", "format": grammar}}
    messages: Any = user('[[tool shout {"input": "hey"}]] [[then]] [[say heard]]')
    options: Any = {"model": "gatehouse", "messages": messages, "tools": [tool]}
    options["tool_choice"] = {"type": "custom", "custom": {"name": "shout"}}
    asked = sdk.chat.completions.create(**options).choices[0].message
    (call,) = asked.tool_calls or []
    assert call.type == "custom"
    assert (call.custom.name, call.custom.input) == ("shout", "hey")
    offered = next(
        one["function"] for one in provider.requests[-1].json()["tools"] if one["function"]["name"] == "shout"
    )
    assert "[a-z]+" in offered["description"]
    messages += [asked.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "ok"}]
    answer = sdk.chat.completions.create(model="gatehouse", messages=messages, tools=[tool])
    assert answer.choices[0].message.content == "heard"


def test_calls_are_streamed_as_the_client_assembles_them(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.stream(model="gatehouse", messages=user(ROLL_ONCE), tools=[ROLL]) as stream:
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or []
    assert (call.function.name, call.function.arguments) == ("roll", '{"sides": 6}')
    assert final.choices[0].finish_reason == "tool_calls"


def test_a_session_whose_calls_were_never_answered_goes_on(sdk: openai.OpenAI) -> None:
    headers = in_session("never answered")
    sdk.chat.completions.create(model="gatehouse", messages=user(ROLL_ONCE), tools=[ROLL], extra_headers=headers)
    answer = sdk.chat.completions.create(model="gatehouse", messages=user("never mind"), extra_headers=headers)
    assert "never mind" in (answer.choices[0].message.content or "")


def test_an_answer_is_parsed_into_the_clients_model(sdk: openai.OpenAI, provider: RunningProvider) -> None:
    said = '[[say {"name": "Ann", "age": 4}]]'
    parsed = sdk.chat.completions.parse(model="gatehouse", messages=user(said), response_format=Person)
    assert parsed.choices[0].message.parsed == Person(name="Ann", age=4)
    assert provider.requests[-1].json()["response_format"]["json_schema"]["strict"] is True


def test_an_answer_that_misses_the_form_twice_is_a_502(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match="no JSON"):
        sdk.chat.completions.create(
            model="gatehouse", messages=user("[[say no]]"), response_format={"type": "json_object"}
        )


def test_what_steers_a_model_reaches_it(sdk: openai.OpenAI, provider: RunningProvider) -> None:
    sdk.chat.completions.create(
        model="gatehouse", messages=user("hi"), temperature=0.3, top_p=0.9, seed=7, stop=["x"], max_tokens=99,
        presence_penalty=0.5, frequency_penalty=0.5, reasoning_effort="low", tools=[ROLL], tool_choice="required",
    )  # fmt: skip
    sent = provider.requests[-1].json()
    wanted = {"temperature": 0.3, "top_p": 0.9, "seed": 7, "stop": ["x"], "max_tokens": 99, "tool_choice": "required"}
    assert wanted.items() <= sent.items()
    assert (sent["presence_penalty"], sent["frequency_penalty"], sent["reasoning_effort"]) == (0.5, 0.5, "low")


async def test_the_asynchronous_client_streams_with_usage(gateway: GatewayProcess) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none") as client:
        stream = await client.chat.completions.create(
            model="gatehouse", messages=user("hello"), stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "echo: hello"
    assert chunks[-1].usage is not None


@pytest.mark.parametrize(
    "headers", [{"Idempotency-Key": "key-1"}, in_session("slow"), in_session("slow 2") | {"Idempotency-Key": "k2"}, {}]
)
def test_a_clients_own_retries_are_one_turn(
    gateway: GatewayProcess, provider: RunningProvider, headers: dict[str, str]
) -> None:
    before = provider.calls
    text = f"[[sleep 1.5]] [[say done]] {len(headers)} {sorted(headers.values())}"
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", timeout=0.7, max_retries=5) as client:
        answer = client.chat.completions.create(model="gatehouse", messages=user(text), extra_headers=headers)
    assert (answer.choices[0].message.content or "").startswith("done")
    assert provider.calls == before + 1


def test_requests_with_one_key_at_once_are_one_turn(gateway: GatewayProcess, provider: RunningProvider) -> None:
    before = provider.calls

    async def ask_all() -> list[str]:
        headers = {"Idempotency-Key": "together"}
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
            asking = (
                client.chat.completions.create(
                    model="gatehouse", messages=user("[[sleep 0.5]] [[say once]]"), extra_headers=headers
                )
                for _ in range(5)
            )
            return [answer.id for answer in await asyncio.gather(*asking)]

    assert len(set(asyncio.run(ask_all()))) == 1
    assert provider.calls == before + 1


@pytest.mark.parametrize("headers", [{}, in_session("reused")])
def test_a_key_of_another_request_gets_neither_its_answer_nor_a_turn(
    sdk: openai.OpenAI, provider: RunningProvider, headers: dict[str, str]
) -> None:
    keyed = headers | {"Idempotency-Key": f"reused {len(headers)}"}
    sdk.chat.completions.create(model="gatehouse", messages=user("mine"), extra_headers=keyed)
    before = provider.calls
    with pytest.raises(openai.UnprocessableEntityError, match="another request") as refused:
        sdk.chat.completions.create(model="gatehouse", messages=user("another"), extra_headers=keyed)
    assert (refused.value.param, refused.value.code) == ("Idempotency-Key", "idempotency_key_reused")
    assert provider.calls == before


def test_two_equal_requests_are_two_turns_and_a_later_retry_gets_the_answer_that_is_there(
    gateway: GatewayProcess, provider: RunningProvider
) -> None:
    before = provider.calls
    body = {"model": "gatehouse", "messages": user("yes")}

    def ask(tries: int) -> str:
        headers = in_session("twice") | {"x-stainless-retry-count": str(tries)}
        return str(gateway.ask("POST", "/v1/chat/completions", json=body, headers=headers).json()["id"])

    first, second = ask(0), ask(0)
    assert first != second
    assert ask(1) == second
    assert provider.calls == before + 2


def test_a_retry_after_a_restart_gets_the_first_ones_answer(tmp_path: Path, provider: RunningProvider) -> None:
    body = {"model": "gatehouse", "messages": user("[[sleep 2]] [[say after all]]")}
    kinds: list[dict[str, str]] = [{"Idempotency-Key": "over"}, in_session("over")]
    with GatewayProcess(tmp_path, settings(provider)) as gateway:
        for headers in kinds:
            with pytest.raises(httpx2.ReadTimeout), httpx2.Client(base_url=gateway.url, timeout=0.7) as client:
                client.post("/v1/chat/completions", json=body, headers=headers | {"x-stainless-retry-count": "0"})
        before = provider.calls
        gateway.kill_tree()
        gateway.start()
        for headers in kinds:
            again = headers | {"x-stainless-retry-count": "1"}
            answer = gateway.ask("POST", "/v1/chat/completions", json=body, headers=again)
            assert answer.json()["choices"][0]["message"]["content"] == "after all"
        assert provider.calls <= before + 2  # each turn was run again, once


def test_one_model_is_told_and_another_is_not(sdk: openai.OpenAI) -> None:
    assert sdk.models.retrieve("openai:scripted").id == "openai:scripted"
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("gpt-9")


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "//v1/chat/completions", "/v1//chat//completions"])
def test_slashes_too_many_are_passed_over(gateway: GatewayProcess, path: str) -> None:
    answer = gateway.ask("POST", path, json={"model": "gatehouse", "messages": user("hi")})
    assert answer.status_code == 200
    assert answer.headers["x-request-id"].startswith("req_")


def test_a_compressed_body_is_read(gateway: GatewayProcess) -> None:
    body = gzip.compress(json.dumps({"model": "gatehouse", "messages": user("squeezed")}).encode())
    answer = gateway.ask("POST", "/v1/chat/completions", content=body, headers={"Content-Encoding": "gzip"})
    assert "squeezed" in answer.text
    assert gateway.ask("POST", "/v1/models", content=b"").headers["x-request-id"]


def test_a_page_of_a_listed_origin_may_call_and_no_other(gateway: GatewayProcess) -> None:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-stainless-lang"}
    ours, theirs = {"Origin": "https://chat.example.com"}, {"Origin": "https://evil.example"}
    preflight = gateway.ask("OPTIONS", "/v1/chat/completions", headers=ours | asks)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://chat.example.com"
    assert "access-control-allow-credentials" not in preflight.headers
    assert gateway.ask("OPTIONS", "/v1/chat/completions", headers=theirs | asks).status_code == 400
    body: Any = {"model": "gatehouse", "messages": user("hi")}
    answer = gateway.ask("POST", "/v1/chat/completions", json=body, headers=ours)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://chat.example.com")
    assert gateway.ask("POST", "/v1/chat/completions", json=body, headers=theirs).status_code == 403


def test_a_session_is_named_by_the_body_where_the_settings_say_so(sdk: openai.OpenAI, gateway: GatewayProcess) -> None:
    sdk.chat.completions.create(model="gatehouse", messages=user("hello"), metadata={"chat": "from the body"})
    key = quote("api:default:from the body", safe="")
    assert len(gateway.get(f"/v1/sessions/{key}")["messages"]) == 2
