"""The scripted provider, asked by the real SDKs and over raw HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import anthropic
import httpx2
import openai
import pytest

from loadtests.program import running_program
from loadtests.provider import RunningProvider, Script, running_provider

Ask = Callable[[str], Awaitable[str]]


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    with running_provider() as running:
        yield running


@pytest.fixture
async def openai_client(provider: RunningProvider) -> AsyncIterator[openai.AsyncOpenAI]:
    client = openai.AsyncOpenAI(api_key="k", base_url=provider.openai_url, max_retries=0, timeout=10)
    yield client
    await client.close()


@pytest.fixture
async def anthropic_client(provider: RunningProvider) -> AsyncIterator[anthropic.AsyncAnthropic]:
    client = anthropic.AsyncAnthropic(api_key="k", base_url=provider.anthropic_url, max_retries=0, timeout=10)
    yield client
    await client.close()


@pytest.fixture(params=["openai whole", "openai streamed", "anthropic whole", "anthropic streamed"])
def ask(
    request: pytest.FixtureRequest, openai_client: openai.AsyncOpenAI, anthropic_client: anthropic.AsyncAnthropic
) -> Ask:
    """Ask in each dialect, streamed and whole; returns the text, and ``name(arguments)`` of each tool call."""
    doors: dict[str, Ask] = {
        "openai whole": lambda text: openai_whole(openai_client, text),
        "openai streamed": lambda text: openai_streamed(openai_client, text),
        "anthropic whole": lambda text: anthropic_whole(anthropic_client, text),
        "anthropic streamed": lambda text: anthropic_streamed(anthropic_client, text),
    }
    return doors[request.param]


async def openai_whole(client: openai.AsyncOpenAI, text: str) -> str:
    answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])
    message = answer.choices[0].message
    assert answer.usage is not None
    assert answer.usage.total_tokens > 0
    calls = [call.function for call in message.tool_calls or () if call.type == "function"]
    return (message.content or "") + "".join(f"{call.name}({call.arguments})" for call in calls)


async def openai_streamed(client: openai.AsyncOpenAI, text: str) -> str:
    parts, usage = [], 0
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    stream = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": text}], stream=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        usage += chunk.usage.total_tokens if chunk.usage else 0
        for choice in chunk.choices:
            parts.append(choice.delta.content or "")
            for call in choice.delta.tool_calls or ():
                assert call.function is not None
                names[call.index] = call.function.name or names[call.index]
                arguments[call.index] = arguments.get(call.index, "") + (call.function.arguments or "")
    assert usage > 0
    return "".join(parts) + "".join(f"{names[index]}({arguments[index]})" for index in names)


def anthropic_words(message: anthropic.types.Message) -> str:
    assert message.usage.output_tokens > 0
    parts = []
    for block in message.content:
        if block.type == "text":
            parts.append(block.text)
        elif block.type == "tool_use":
            parts.append(f"{block.name}({json.dumps(block.input)})")
    return "".join(parts)


async def anthropic_whole(client: anthropic.AsyncAnthropic, text: str) -> str:
    answer = await client.messages.create(model="m", max_tokens=99, messages=[{"role": "user", "content": text}])
    return anthropic_words(answer)


async def anthropic_streamed(client: anthropic.AsyncAnthropic, text: str) -> str:
    async with client.messages.stream(model="m", max_tokens=99, messages=[{"role": "user", "content": text}]) as stream:
        return anthropic_words(await stream.get_final_message())


async def test_a_plain_message_is_echoed(ask: Ask) -> None:
    assert await ask("hello over there, how are you today?") == "echo: hello over there, how are you today?"


async def test_it_says_what_it_is_told_to_say(ask: Ask) -> None:
    assert await ask("ignored [[say exactly this]]") == "exactly this"
    assert len(await ask("[[long 500]]")) == 500
    assert await ask("[[empty]]") == ""


async def test_it_asks_for_several_tool_calls_at_once(ask: Ask) -> None:
    answer = await ask('[[tool roll {"sides": 6}]] [[tool roll {"sides": 20}]] [[tools 2 look]]')
    assert answer == 'roll({"sides": 6})roll({"sides": 20})look({})look({})'


async def test_it_sleeps_before_the_answer(ask: Ask) -> None:
    began = time.monotonic()
    assert await ask("[[sleep 0.2]] late") == "echo: late"
    assert time.monotonic() - began >= 0.2


async def test_a_status_is_an_error_of_the_sdk(ask: Ask) -> None:
    for status in (400, 401, 429, 500, 529):
        with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as caught:
            await ask(f"[[status {status} retry-after=7]]")
        assert isinstance(caught.value, openai.APIStatusError | anthropic.APIStatusError)
        assert caught.value.status_code == status
        assert caught.value.response.headers["retry-after"] == "7"


async def test_a_context_that_is_too_long_is_said_in_the_providers_words(ask: Ask) -> None:
    with pytest.raises((openai.BadRequestError, anthropic.BadRequestError), match=r"maximum context|too long"):
        await ask("[[context]]")


@pytest.mark.parametrize("directive", ["[[reset]]", "[[reset mid]]"])
async def test_a_reset_is_a_broken_connection(ask: Ask, directive: str) -> None:
    with pytest.raises((openai.APIConnectionError, anthropic.APIConnectionError, httpx2.TransportError)):
        await ask(directive)


async def test_a_malformed_answer_cannot_be_read(ask: Ask) -> None:
    with pytest.raises(ValueError, match="char"):
        await ask("[[malformed]]")


@pytest.mark.parametrize("directive", ["[[stall]]", "[[stall mid]]", "[[dribble 0.05]]", "[[ping 0.05]]"])
async def test_an_answer_that_never_ends_ends_with_its_client(
    ask: Ask, directive: str, provider: RunningProvider
) -> None:
    await provider.until(lambda p: p.running == 0)
    left = provider.left
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.25):
            await ask(directive)
    await provider.until(lambda p: p.running == 0 and p.left == left + 1)


async def test_a_directive_may_hold_for_the_first_calls_only(ask: Ask, request: pytest.FixtureRequest) -> None:
    text = f"{request.node.name} [[status 500 times=2]]"
    for _ in range(2):
        with pytest.raises((openai.InternalServerError, anthropic.InternalServerError)):
            await ask(text)
    assert (await ask(text)).startswith("echo: ")


async def test_closed_clients_leave_no_connection(provider: RunningProvider) -> None:
    async with openai.AsyncOpenAI(api_key="k", base_url=provider.openai_url) as client:
        await openai_whole(client, "hi")
        assert provider.open_connections >= 1
    await provider.until(lambda p: p.open_connections == 0)


async def test_openai_steps_follow_the_transcript(openai_client: openai.AsyncOpenAI) -> None:
    question = 'go [[tool a {"x": 1}]] [[then]] [[tool b]] [[tool c]]'
    transcript: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": question}]
    names = []
    for _ in range(5):
        answer = await openai_client.chat.completions.create(model="m", messages=transcript)
        message = answer.choices[0].message
        calls = [call for call in message.tool_calls or () if call.type == "function"]
        if not calls:
            assert message.content == "result of a: done a; result of b: done b; result of c: done c"
            break
        names.append([call.function.name for call in calls])
        transcript.append(message.to_dict())  # type: ignore[arg-type]  # the SDK's own way to feed an answer back
        transcript += [
            {"role": "tool", "tool_call_id": call.id, "content": f"done {call.function.name}"} for call in calls
        ]
    assert names == [["a"], ["b", "c"]]
    transcript.append({"role": "user", "content": "next"})
    assert await answer_text(openai_client, transcript) == "echo: next"


async def answer_text(
    client: openai.AsyncOpenAI, transcript: list[openai.types.chat.ChatCompletionMessageParam]
) -> str | None:
    return (await client.chat.completions.create(model="m", messages=transcript)).choices[0].message.content


async def test_anthropic_steps_follow_the_transcript(anthropic_client: anthropic.AsyncAnthropic) -> None:
    transcript: list[anthropic.types.MessageParam] = [{"role": "user", "content": "[[tool a]] [[then]] [[tool b]]"}]
    names = []
    for _ in range(5):
        answer = await anthropic_client.messages.create(model="m", max_tokens=99, messages=transcript)
        calls = [block for block in answer.content if block.type == "tool_use"]
        if not calls:
            assert anthropic_words(answer) == "result of a: 1; result of b: 2"
            break
        names += [call.name for call in calls]
        transcript.append(answer.to_param())
        results: list[anthropic.types.ToolResultBlockParam] = [
            {"type": "tool_result", "tool_use_id": call.id, "content": str(len(names))} for call in calls
        ]
        transcript.append({"role": "user", "content": results})
    assert names == ["a", "b"]


async def test_a_script_holds_for_every_message_or_for_one_model(openai_client: openai.AsyncOpenAI) -> None:
    with running_provider(Script(latency_s=0.1, always="[[say always]]", models={"down": "[[status 503]]"})) as own:
        client = openai_client.with_options(base_url=own.openai_url)
        began = time.monotonic()
        assert await openai_whole(client, "hi") == "always"
        assert time.monotonic() - began >= 0.1
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="down", messages=[{"role": "user", "content": "hi"}])
        own.set_script(Script())
        assert await openai_whole(client, "hi") == "echo: hi"
        assert [call.asked.model for call in own.requests] == ["m", "down", "m"]
        assert own.calls == 3


async def test_both_sdks_read_the_model_list(
    openai_client: openai.AsyncOpenAI, anthropic_client: anthropic.AsyncAnthropic
) -> None:
    assert [model.id for model in (await openai_client.models.list()).data] == ["scripted"]
    assert [model.id for model in (await anthropic_client.models.list()).data] == ["scripted"]


def test_what_is_no_request_is_refused(provider: RunningProvider) -> None:
    for body in (b"", b"[]", b"{}", b'{"model": "m"}', b"\xff"):
        for path in ("/v1/chat/completions", "/v1/messages"):
            assert httpx2.post(provider.url + path, content=body).status_code == 400


def test_a_dribbled_body_comes_byte_by_byte(provider: RunningProvider) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "[[dribble 0.02]]"}]}
    with httpx2.stream("POST", provider.openai_url + "/chat/completions", json=body) as answer:
        pieces = answer.iter_raw()
        assert [next(pieces) for _ in range(3)] == [b" ", b" ", b" "]


def test_another_process_scripts_it_over_http() -> None:
    with running_program("loadtests.provider") as program, httpx2.Client(base_url=program.url) as client:
        assert program.url.startswith("http://127.0.0.1:")
        assert client.post("/script", json={"always": "[[say scripted]]"}).status_code == 200
        assert client.post("/script", json={"alway": ""}).status_code == 400
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        answer = client.post("/v1/chat/completions", json=body).json()
        assert answer["choices"][0]["message"]["content"] == "scripted"
        stats = client.get("/stats").json()
        assert (stats["calls"], stats["left"], stats["open_connections"]) == (1, 0, 1)
        assert client.get("/requests").json()["requests"][0]["body"] == body
