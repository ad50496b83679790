"""CPU of one streamed model call: the SDKs' chunk objects beside the worker's raw events, on both transports.

Beside them the same events read strictly, as before servers were read by what they mean: the difference is what
tolerance costs. The ways take turns, A B C A B C, in one run.

The provider runs as its own process, so the CPU measured is the client's alone. BENCH_CALLS and BENCH_ROUNDS bound it.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anthropic
import msgspec
import openai
import uvloop

from loadtests.bench.strict_answers import StrictAnthropicAnswer, StrictOpenAIAnswer
from loadtests.measuring import interleaved, print_table
from loadtests.program import running_program
from worker.agent.context import transcript
from worker.agent.models.anthropic import AnthropicAnswer, AnthropicModel
from worker.agent.models.failures import Endpoint
from worker.agent.models.openai import OpenAIAnswer, OpenAIModel
from worker.agent.models.port import ModelRequest
from worker.agent.models.server import ModelServer
from worker.agent.models.transport import HttpResponse, SdkClient, Transport
from worker.frames import ModelSpec
from worker.tools.spec import ToolSpec

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))
CALLS = int(os.environ.get("BENCH_CALLS", "5"))
DELTAS = 100
AT_ONCE = f"[[long {DELTAS * 16}]]"
AS_TOKENS_COME = f"[[slow 0.001]] [[say {'x' * DELTAS}]]"

Call = Callable[[], Awaitable[str]]
A = TypeVar("A", bound=HttpResponse)


def say_nothing(*_: object, **__: object) -> None:
    """Take an event of a model, and tell nobody."""


def request_of(words: str, history: int) -> ModelRequest:
    """Return a request with a history of so many messages and five tools."""
    schema = {"type": "object", "properties": {"path": {"type": "string"}, "count": {"type": "integer"}}}
    tools = tuple(ToolSpec(f"tool_{number}", "What it does, in a sentence or two.", schema) for number in range(5))
    says = [transcript.user, transcript.assistant]
    said = [says[number % 2](f"message {number}, as people write them " * 3) for number in range(history)]
    return ModelRequest("Be brief.", [*said, transcript.user(words)], tools)


def over(
    line: Transport, body_of: Callable[[], bytes], answer_of: Callable[[], A], text_of: Callable[[A], str]
) -> Call:
    """Return a call over a line: its body is encoded, and its answer read, for each anew."""

    async def call() -> str:
        answer = answer_of()
        await line.run(body_of(), answer, timeout=60, stall_s=60)
        return text_of(answer)

    return call


def openai_calls(url: str, request: ModelRequest, clients: list[Any]) -> dict[str, Call]:
    """Return the ways to make one call of an OpenAI-compatible server."""
    model = OpenAIModel(ModelSpec("openai", "m", "k", url), None, say_nothing, ModelServer(url))
    body_of = functools.partial(model.body, request)
    fields = msgspec.json.decode(body_of())

    def with_sdk(client: openai.AsyncOpenAI) -> Call:
        async def call() -> str:
            stream = await client.chat.completions.create(**fields)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

        return call

    def line_of(client: openai.AsyncOpenAI) -> Transport:
        return Transport(
            lambda _: SdkClient(client, http_of[client]),
            openai,
            "/chat/completions",
            Endpoint("openai", "m"),
            ModelServer(url),
        )

    def raw(client: openai.AsyncOpenAI) -> Call:
        line = line_of(client)
        return over(line, body_of, lambda: OpenAIAnswer(line.where, None), lambda answer: answer.reply().text)

    def strict(client: openai.AsyncOpenAI) -> Call:
        return over(line_of(client), body_of, StrictOpenAIAnswer, lambda answer: "".join(answer.pieces))

    transports = {"httpx2": openai.DefaultAsyncHttpxClient(), "aiohttp": openai.DefaultAioHttpClient()}
    made = {name: openai.AsyncOpenAI(api_key="k", base_url=url, http_client=http) for name, http in transports.items()}
    http_of = dict(zip(made.values(), transports.values(), strict=True))
    clients += made.values()
    return ways(made, with_sdk, strict, raw)


def anthropic_calls(url: str, request: ModelRequest, clients: list[Any]) -> dict[str, Call]:
    """Return the ways to make one call of the Messages API."""
    model = AnthropicModel(ModelSpec("anthropic", "m", "k", url), None, say_nothing, ModelServer(url))
    body_of = functools.partial(model.body, request)
    fields = msgspec.json.decode(body_of())

    def with_sdk(client: anthropic.AsyncAnthropic) -> Call:
        async def call() -> str:
            stream = await client.messages.create(**fields)
            return "".join([event.delta.text async for event in stream if event.type == "content_block_delta"])

        return call

    def line_of(client: anthropic.AsyncAnthropic) -> Transport:
        return Transport(
            lambda _: SdkClient(client, http_of[client]),
            anthropic,
            "/v1/messages",
            Endpoint("anthropic", "m"),
            ModelServer(url),
        )

    def raw(client: anthropic.AsyncAnthropic) -> Call:
        line = line_of(client)
        return over(line, body_of, lambda: AnthropicAnswer(line.where, None), lambda answer: answer.reply().text)

    def strict(client: anthropic.AsyncAnthropic) -> Call:
        return over(line_of(client), body_of, StrictAnthropicAnswer, lambda answer: "".join(answer.pieces))

    transports = {"httpx2": anthropic.DefaultAsyncHttpxClient(), "aiohttp": anthropic.DefaultAioHttpClient()}
    made = {
        name: anthropic.AsyncAnthropic(api_key="k", base_url=url, http_client=http) for name, http in transports.items()
    }
    http_of = dict(zip(made.values(), transports.values(), strict=True))
    clients += made.values()
    return ways(made, with_sdk, strict, raw)


def ways(clients: dict[str, Any], *makers: Callable[[Any], Call]) -> dict[str, Call]:
    """Return each way over each transport; the last is what a worker does."""
    names = ("the SDK's chunk objects", "raw events read strictly", "raw events")
    return {
        f"{name} over {transport}": make(client)
        for name, make in zip(names, makers, strict=True)
        for transport, client in clients.items()
    }


def cpu_ms(call: Call) -> Callable[[], Awaitable[float]]:
    """Return a measure of the CPU milliseconds of one call."""

    async def measure() -> float:
        began = time.process_time()
        for _ in range(CALLS):
            assert len(await call()) >= DELTAS
        return (time.process_time() - began) / CALLS * 1e3

    return measure


async def compare(title: str, calls: dict[str, Call]) -> None:
    """Measure the ways in turn and print them beside each other."""
    contenders = {name: cpu_ms(call) for name, call in calls.items()}
    await interleaved(1, contenders)
    print_table(title, "ms", await interleaved(ROUNDS, contenders))


async def measure(url: str) -> None:
    """Print every table."""
    clients: list[Any] = []
    for arrival, words in (("in one go", AT_ONCE), ("one by one", AS_TOKENS_COME)):
        request = request_of(words, 8)
        await compare(f"openai, {DELTAS} deltas {arrival}", openai_calls(url + "/v1", request, clients))
        await compare(f"anthropic, {DELTAS} deltas {arrival}", anthropic_calls(url, request, clients))
    request = request_of(AT_ONCE, 800)
    await compare("openai, history of 800 messages", openai_calls(url + "/v1", request, clients))
    await compare("anthropic, history of 800 messages", anthropic_calls(url, request, clients))
    await asyncio.gather(*(client.close() for client in clients))


if __name__ == "__main__":
    with running_program("loadtests.provider") as provider:
        uvloop.run(measure(provider.url))
