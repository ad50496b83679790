"""The OpenAI-compatible door, asked by the real SDK."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from loadtests.gateway_process import GatewayProcess
from shared.session_files import session_log_path


@pytest.fixture(scope="module")
def sdk(running: GatewayProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def user(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def in_session(name: str) -> dict[str, str]:
    return {"X-Gatehouse-Session": name}


def test_the_sdk_lists_the_models(sdk: openai.OpenAI) -> None:
    assert [model.id for model in sdk.models.list()] == ["gatehouse", "offline"]


def test_the_sdk_gets_an_answer(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="gatehouse", messages=user("good morning"))
    assert answer.choices[0].finish_reason == "stop"
    assert "good morning" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_streamed_answer_is_the_same_text_in_pieces(sdk: openai.OpenAI) -> None:
    chunks = list(
        sdk.chat.completions.create(
            model="offline", messages=user("good evening"), stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "good evening" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None


def test_an_answer_tells_why_it_ended(sdk: openai.OpenAI) -> None:
    cut = sdk.chat.completions.create(model="gatehouse", messages=user("good morning to you all"), max_tokens=2)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("You said", "length")
    stopped = sdk.chat.completions.create(model="gatehouse", messages=user("one two"), stop=[" two"])
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("You said: one", "stop")


def test_the_offline_model_fills_a_form_and_calls_a_clients_tool(sdk: openai.OpenAI) -> None:
    schema: Any = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    formed = sdk.chat.completions.create(
        model="gatehouse",
        messages=user("a plan"),
        response_format={"type": "json_schema", "json_schema": {"name": "plan", "schema": schema}},
    )
    assert json.loads(formed.choices[0].message.content or "") == {"title": "a plan"}
    asked = sdk.chat.completions.create(
        model="gatehouse",
        messages=user("anything"),
        tools=[{"type": "function", "function": {"name": "plan", "parameters": schema}}],
        tool_choice="required",
    )
    (call,) = asked.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"title": "anything"}


def test_a_session_keeps_its_history_on_the_server(sdk: openai.OpenAI) -> None:
    headers = in_session("kept")
    sdk.chat.completions.create(model="gatehouse", messages=user("add buy milk"), extra_headers=headers)
    sdk.chat.completions.create(model="gatehouse", messages=user("add call mum"), extra_headers=headers)
    answer = sdk.chat.completions.create(model="gatehouse", messages=user("list"), extra_headers=headers)
    text = answer.choices[0].message.content or ""
    assert "buy milk" in text
    assert "call mum" in text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["買い物", "a b/c?d%", "Zoë"])
def test_a_session_of_any_name_is_told_as_urls_have_it(web: httpx2.Client, name: str, stream: bool) -> None:
    headers = {b"X-Gatehouse-Session": name.encode()}
    body = {"model": "gatehouse", "messages": user("hello"), "stream": stream}
    answer = web.post("/v1/chat/completions", headers=headers, json=body)
    assert answer.status_code == 200
    found = web.get(f"/v1/sessions/{answer.headers['x-gatehouse-session-key']}")
    assert found.json()["key"] == f"api:default:{name}"


def test_a_stateless_call_brings_its_own_history_and_leaves_no_session(
    sdk: openai.OpenAI, running: GatewayProcess
) -> None:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "how are you"},
    ]
    answer = sdk.chat.completions.with_raw_response.create(model="gatehouse", messages=messages)
    key = answer.headers["x-gatehouse-session-key"]
    running.wait_until(
        lambda: httpx2.get(f"{running.url}/v1/sessions/{key}").status_code == 404, 10, "the session is removed"
    )


def test_a_stateless_call_leaves_no_log(sdk: openai.OpenAI, running: GatewayProcess) -> None:
    logs = running.data_dir / "logs"
    answer = sdk.chat.completions.with_raw_response.create(model="gatehouse", messages=user("hello"))
    sdk.chat.completions.create(model="gatehouse", messages=user("hello"), extra_headers=in_session("behind it"))
    running.wait_until(session_log_path(logs, "api:default:behind it").exists, 10, "what came later is logged")
    assert not session_log_path(logs, answer.headers["x-gatehouse-session-key"]).exists()


def test_fifty_calls_at_once_are_all_answered(running: GatewayProcess) -> None:
    import asyncio

    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
            calls = (
                client.chat.completions.create(model="gatehouse", messages=user(f"number {n}.")) for n in range(50)
            )
            return [answer.choices[0].message.content or "" for answer in await asyncio.gather(*calls)]

    texts = asyncio.run(ask_all())
    assert all(f"number {n}." in text for n, text in enumerate(texts))


def test_the_sdk_reads_our_refusals(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        sdk.chat.completions.create(model="gpt-9", messages=user("x"))
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as unserved:
        sdk.chat.completions.create(model="gatehouse", messages=user("x"), logprobs=True)
    assert unserved.value.param == "logprobs"
    assert unserved.value.request_id


@pytest.mark.parametrize("name", ["", "x" * 201])
def test_a_session_name_has_to_be_one(web: httpx2.Client, name: str) -> None:
    body = {"model": "gatehouse", "messages": user("x")}
    answer = web.post("/v1/chat/completions", json=body, headers=in_session(name))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "X-Gatehouse-Session"


@pytest.mark.parametrize("content", [b"", b"\xff", b"[[[[", b'{"model": "gatehouse"}', b"[" * 200_000])
def test_a_hostile_body_is_a_400(web: httpx2.Client, content: bytes) -> None:
    answer = web.post("/v1/chat/completions", content=content)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_stream_is_what_the_protocol_says_byte_by_byte(web: httpx2.Client) -> None:
    body = {"model": "gatehouse", "messages": user("hi"), "stream": True}
    answer = web.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line for line in answer.text.split("\n\n") if line]
    assert all(event.startswith("data: ") for event in events)
    assert events[-1] == "data: [DONE]"
    assert json.loads(events[0].removeprefix("data: "))["choices"][0]["delta"] == {"role": "assistant", "content": ""}


def test_a_stream_comes_while_the_turn_runs(sdk: openai.OpenAI) -> None:
    began = time.monotonic()
    stream = sdk.chat.completions.create(model="gatehouse", messages=user("quick"), stream=True)
    next(iter(stream))
    assert time.monotonic() - began < 5
    stream.close()
