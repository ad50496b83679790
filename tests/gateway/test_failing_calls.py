"""Calls whose turn fails, and calls whose reader leaves, against a scripted provider."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import httpx2
import openai
import pytest

from loadtests.gateway_process import GatewayProcess
from loadtests.provider import RunningProvider, running_provider


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def gateway(provider: RunningProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    settings = {
        "GATEHOUSE_MODEL": "openai:scripted",
        "OPENAI_BASE_URL": provider.openai_url,
        "GATEHOUSE_WORKERS": "1",
        "GATEHOUSE_TURN_TIMEOUT": "3",
    }
    with GatewayProcess(tmp_path_factory.mktemp("failing"), settings) as process:
        yield process


@pytest.fixture(scope="module")
def sdk(gateway: GatewayProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none") as client:  # with its own two retries
        yield client


def body(text: str, *, stream: bool = False) -> dict[str, object]:
    return {"model": "gatehouse", "stream": stream, "messages": [{"role": "user", "content": text}]}


def test_an_answer_of_a_real_model_is_streamed_step_by_step(sdk: openai.OpenAI) -> None:
    chunks = sdk.chat.completions.create(
        model="gatehouse", messages=[{"role": "user", "content": "hello there"}], stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "echo: hello there"


def test_a_refused_turn_is_a_502_that_the_sdk_does_not_repeat(sdk: openai.OpenAI, provider: RunningProvider) -> None:
    before = provider.calls
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.chat.completions.create(model="gatehouse", messages=[{"role": "user", "content": "[[status 400]]"}])
    assert (caught.value.status_code, caught.value.code) == (502, "failed")
    assert provider.calls == before + 1


def test_a_turn_that_runs_out_of_time_is_a_504(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.chat.completions.create(model="gatehouse", messages=[{"role": "user", "content": "[[stall]]"}])
    assert (caught.value.status_code, caught.value.code) == (504, "timed_out")


def test_a_streamed_turn_that_fails_ends_with_an_error_event(sdk: openai.OpenAI) -> None:
    chunks = sdk.chat.completions.create(
        model="gatehouse", messages=[{"role": "user", "content": "[[status 400]]"}], stream=True
    )
    with pytest.raises(openai.APIError, match=r"."):
        list(chunks)


def test_an_answer_that_broke_off_is_read_once(sdk: openai.OpenAI, gateway: GatewayProcess) -> None:
    headers = {"X-Gatehouse-Session": "broken"}
    asked = "[[reset mid times=1]] an answer that is longer than one piece of it"
    chunks = sdk.chat.completions.create(
        model="gatehouse", messages=[{"role": "user", "content": asked}], stream=True, extra_headers=headers
    )
    answer = "echo: an answer that is longer than one piece of it"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer
    path = f"/v1/sessions/{quote('api:default:broken', safe='')}"
    gateway.wait_until(lambda: len(gateway.get(path)["messages"]) == 2, 10, "the turn is settled")
    assert gateway.get(path)["messages"][1]["content"] == answer


def test_a_model_that_is_away_is_waited_for(sdk: openai.OpenAI, provider: RunningProvider) -> None:
    before = provider.calls
    asked = "[[status 503 times=2]] back again"
    reply = sdk.chat.completions.create(model="gatehouse", messages=[{"role": "user", "content": asked}])
    assert reply.choices[0].message.content == "echo: back again"
    assert provider.calls == before + 3


def test_what_no_model_answered_in_its_turns_time_is_a_dead_letter_of_its_kind(
    sdk: openai.OpenAI, gateway: GatewayProcess
) -> None:
    headers = {"X-Gatehouse-Session": "away"}
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.chat.completions.create(
            model="gatehouse", messages=[{"role": "user", "content": "[[status 503]] gone"}], extra_headers=headers
        )
    assert (caught.value.status_code, caught.value.code) == (503, "no_model")
    letter = next(one for one in gateway.get("/v1/dead")["dead"] if one["session"] == "api:default:away")
    assert letter["kind"] == "model"
    assert "503" in letter["error"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_stateless_call_whose_reader_leaves_stops_its_turn(
    gateway: GatewayProcess, provider: RunningProvider, stream: bool
) -> None:
    running, left = provider.running, provider.left
    with httpx2.Client(timeout=1) as leaving, pytest.raises(httpx2.ReadTimeout):
        leaving.post(f"{gateway.url}/v1/chat/completions", json=body("[[stall]]", stream=stream))
    provider.wait_until(lambda now: now.left > left and now.running == running, within_s=1.5)


def test_a_session_call_whose_reader_leaves_is_finished(gateway: GatewayProcess) -> None:
    headers = {"X-Gatehouse-Session": "left"}
    with httpx2.Client(timeout=0.5) as leaving, pytest.raises(httpx2.ReadTimeout):
        leaving.post(f"{gateway.url}/v1/chat/completions", json=body("[[sleep 1.5]] [[say later]]"), headers=headers)
    path = f"/v1/sessions/{quote('api:default:left', safe='')}"
    gateway.wait_until(lambda: len(gateway.get(path)["messages"]) == 2, 10, "the turn is settled")
    assert gateway.get(path)["messages"][1]["content"] == "later"


def test_an_interrupt_ends_a_session_call_at_once(gateway: GatewayProcess) -> None:
    headers = {"X-Gatehouse-Session": "stopped"}
    path = f"/v1/sessions/{quote('api:default:stopped', safe='')}"
    url = f"{gateway.url}/v1/chat/completions"
    with httpx2.stream("POST", url, json=body("[[stall]]", stream=True), headers=headers, timeout=20) as answer:
        gateway.wait_until(lambda: bool(gateway.get(path)["turn"]), 10, "the turn runs")
        turn = gateway.get(path)["turn"]
        assert turn["session"] == "api:default:stopped"
        assert httpx2.post(f"{gateway.url}{path}/interrupt").json()["interrupted"] is True
        assert answer.read().decode().rstrip().endswith("data: [DONE]")
    assert gateway.get(path)["turn"] is None
