"""Both SDKs against a provider over HTTP: good answers, and every way in which one can go wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from loadtests.provider import RunningProvider
from shared.errors import ContextTooLong, ModelRejected, ModelUnavailable
from tests.worker.agent.models.conftest import KEY, asking
from worker.agent.context import transcript
from worker.agent.models import open_link
from worker.agent.models.chain import Link
from worker.agent.models.failures import BrokenOff, EmptyAnswer, MalformedAnswer, ProviderAway, Stalled
from worker.agent.models.openai import OpenAIModel
from worker.agent.models.port import ModelRequest
from worker.frames import ModelSpec


async def test_an_answer_is_streamed_and_returned_whole(link: Link) -> None:
    heard: list[str] = []
    reply = await link.call(asking("good morning to all of you"), heard.append)
    assert reply.text == "echo: good morning to all of you"
    assert "".join(heard) == reply.text
    assert len(heard) > 1
    assert reply.tool_calls == ()
    assert f"{reply.provider}:{reply.model}" == link.name
    assert reply.finish in {"stop", "end_turn"}


async def test_usage_is_counted(link: Link) -> None:
    usage = (await link.call(asking("hello " * 100))).usage
    assert usage.model_calls == 1
    assert usage.input_tokens > 50
    assert usage.output_tokens > 50


async def test_cached_tokens_mean_the_same_of_both_providers(link: Link) -> None:
    usage = (await link.call(asking("[[cached 40]] hello " * 10))).usage
    assert usage.cached_tokens == 40
    assert usage.input_tokens > 40  # the cached ones are among them
    whole = (await link.call(asking("[[cached 1000000]] hello"))).usage
    assert whole.cached_tokens == whole.input_tokens


async def test_tool_calls_come_with_their_arguments_as_written(link: Link) -> None:
    reply = await link.call(asking('[[tool roll {"sides":  6}]] [[tool roll {"sides": "ü"}]]'))
    assert [(call.name, msgspec.json.decode(call.arguments)) for call in reply.tool_calls] == [
        ("roll", {"sides": 6}),
        ("roll", {"sides": "ü"}),
    ]
    assert len({call.id for call in reply.tool_calls}) == 2
    assert reply.finish in {"tool_calls", "tool_use"}


async def test_a_thousand_tool_calls_come_through(link: Link) -> None:
    reply = await link.call(asking('[[tools 1000 roll {"sides": 6}]]'))
    assert len({call.id for call in reply.tool_calls}) == 1000


async def test_broken_arguments_are_passed_on_as_text(link: Link) -> None:
    reply = await link.call(asking('[[tool roll {"sides": ]]'))
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [("roll", '{"sides":')]


async def test_results_of_tools_reach_the_model(link: Link) -> None:
    first = await link.call(asking('[[tools 2 roll {"sides": 6}]]'))
    messages = [
        transcript.user('[[tools 2 roll {"sides": 6}]]'),
        transcript.assistant(first.text, first.tool_calls),
        *(transcript.tool(call, str(number)) for number, call in enumerate(first.tool_calls, 4)),
    ]
    reply = await link.call(ModelRequest("", messages, (), "s"))
    assert reply.text == "result of roll: 4; result of roll: 5"


async def test_a_connection_is_used_again(link: Link, provider: RunningProvider) -> None:
    for number in range(3):
        await link.call(asking(f"message {number}"))
    assert provider.open_connections == 1


@pytest.mark.parametrize("silence", ["[[sleep 30]]", "[[stall]] words", "[[stall mid]] words"])
async def test_a_stall_is_seen_and_its_connection_closed(link: Link, provider: RunningProvider, silence: str) -> None:
    began = time.monotonic()
    with pytest.raises(Stalled, match=r"0\.3 s"):
        await link.call(asking(silence), timeout=20, stall_s=0.3)
    assert time.monotonic() - began < 5
    await provider.until(lambda p: p.open_connections == 0)


@pytest.mark.parametrize("drip", ["[[dribble 0.02]] word", "[[ping 0.02]] word", "[[stall mid]] word"])
async def test_no_server_outlives_the_timeout(link: Link, provider: RunningProvider, drip: str) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"0\.5 s"):
        await link.call(asking(drip), timeout=0.5, stall_s=20)
    assert time.monotonic() - began < 5
    await provider.until(lambda p: p.open_connections == 0)


@pytest.mark.parametrize("moment", ["[[sleep 30]]", "[[stall mid]] word", "[[dribble 0.02]] word"])
async def test_a_cancelled_call_closes_its_connection(link: Link, provider: RunningProvider, moment: str) -> None:
    calls = [asyncio.create_task(link.call(asking(moment))) for _ in range(8)]
    await provider.until(lambda p: p.running == 8)
    for call in calls:
        call.cancel()
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in done)
    await provider.until(lambda p: p.open_connections == 0)
    assert (await link.call(asking("still there?"))).text == "echo: still there?"


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("[[reset]]", ProviderAway, "closed the connection before it answered"),
        ("[[reset mid]] word", BrokenOff, "the connection was lost"),
        ("[[malformed]] word", MalformedAnswer, "malformed event"),
    ],
)
async def test_a_broken_stream_is_named_for_what_it_is(link: Link, fault: str, kind: type, words: str) -> None:
    with pytest.raises(ModelUnavailable, match=words) as raised:
        await link.call(asking(fault))
    assert type(raised.value) is kind
    assert link.name in str(raised.value)


async def test_an_empty_answer_is_told_apart(link: Link) -> None:
    with pytest.raises(EmptyAnswer, match="empty answer"):
        await link.call(asking("[[empty]]"))


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
async def test_statuses_that_may_pass(link: Link, status: int) -> None:
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match=str(status)) as raised:
            await link.call(asking(f"[[status {status}]]"))
        assert raised.value.retry_after_s is None
        await link.call(asking("hello"))  # what answers the calls behind the first is told the same


@pytest.mark.parametrize(("status", "wish"), [(429, 60.5), (529, 600)])
async def test_retry_after_is_passed_on_and_not_slept(link: Link, status: int, wish: float) -> None:
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(ModelUnavailable) as raised:
            await link.call(asking(f"[[status {status} retry-after={wish}]]"))
        assert raised.value.retry_after_s == wish
        await link.call(asking("hello"))
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("status", "setting"), [(401, "_API_KEY"), (403, "_API_KEY"), (404, "GATEHOUSE_MODEL"), (400, "GATEHOUSE_MODEL")]
)
async def test_refusals_name_the_setting_to_look_at_and_never_the_key(link: Link, status: int, setting: str) -> None:
    for _ in range(2):
        with pytest.raises(ModelRejected, match=setting) as raised:
            await link.call(asking(f"[[status {status}]]"))
        assert link.name in str(raised.value)
        assert KEY not in str(raised.value)
        await link.call(asking("hello"))


async def test_a_transcript_that_is_too_long_is_told_apart(link: Link) -> None:
    with pytest.raises(ContextTooLong):
        await link.call(asking("[[context]]"))


@pytest.mark.parametrize("provider_name", ["anthropic", "openai"])
async def test_a_server_that_is_not_there(provider_name: str, unused_url: Callable[[], str]) -> None:
    link = open_link(ModelSpec(provider_name, "m", KEY, unused_url()))
    try:
        with pytest.raises(ModelUnavailable, match="cannot be reached") as raised:
            await link.call(asking("hello"))
    finally:
        await link.close()
    assert not isinstance(raised.value, Stalled)


async def test_thirty_two_calls_at_once_do_not_mix(link: Link) -> None:
    replies = await asyncio.gather(*(link.call(asking(f"I am {number}")) for number in range(32)))
    assert [reply.text for reply in replies] == [f"echo: I am {number}" for number in range(32)]


def test_openai_itself_is_told_which_conversation_it_is_and_no_other_server(provider: RunningProvider) -> None:
    def body(url: str, session: str) -> dict[str, Any]:
        link = open_link(ModelSpec("openai", "m", KEY, url))
        assert isinstance(link, OpenAIModel)
        return dict(msgspec.json.decode(link.body(msgspec.structs.replace(asking("hi"), session=session))))

    one, other = body("", "slack:T1:C1"), body("https://api.openai.com/v1", "slack:T1:C2")
    assert one["prompt_cache_key"] != other["prompt_cache_key"]
    assert one["prompt_cache_key"] == body("", "slack:T1:C1")["prompt_cache_key"]
    assert "T1" not in one["prompt_cache_key"]
    assert "prompt_cache_key" not in body(provider.openai_url, "slack:T1:C1")
    assert ("max_completion_tokens" in one, "max_tokens" in body(provider.openai_url, "s")) == (True, True)


async def test_the_key_travels_as_the_sdk_sends_it(link: Link, provider: RunningProvider) -> None:
    await link.call(asking("hello"))
    call = provider.requests[-1]
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert "traceparent" not in call.headers
    assert call.json()["stream"] is True


async def test_later_requests_are_the_first_one_of_the_sdk_with_another_body(
    link: Link, provider: RunningProvider
) -> None:
    for words in ("hello", "and more than that", "hello"):
        assert (await link.call(asking(words))).text == f"echo: {words}"
    first, *later = provider.requests[-3:]
    for request in later:
        assert request.path == first.path
        assert {name: value for name, value in request.headers.items() if name != "content-length"} == {
            name: value for name, value in first.headers.items() if name != "content-length"
        }
    assert later[0].headers["content-length"] != first.headers["content-length"]
    assert any(name.startswith("x-stainless-") for name in first.headers)
