"""The chain over real models over HTTP: retries, fallback, breakers and time."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from loadtests.provider import RunningProvider, Script
from shared.errors import ContextTooLong, ModelRejected, ModelUnavailable
from shared.events import Event
from shared.prices import Price
from tests.worker.agent.models.conftest import asking, own_tasks
from worker.agent.models import build_chain, open_link
from worker.agent.models.breaker import BreakerPolicy
from worker.agent.models.chain import Chain, ChainPolicy
from worker.agent.models.failures import EmptyAnswer
from worker.agent.models.port import CallWatch
from worker.frames import ModelSpec, WorkerConfig

PROBES = BreakerPolicy(first_probe_s=0.01, longest_probe_s=0.05)
QUICK = ChainPolicy(first_delay_s=0.01, longest_delay_s=0.05, longest_wait_s=1.0, breaker=PROBES)


class ChainSetup:
    """Builds chains over the scripted provider and keeps what they say."""

    def __init__(self, provider: RunningProvider, tls: ssl.SSLContext) -> None:
        self.provider = provider
        self.tls = tls
        self.said: list[dict[str, Any]] = []
        self.chains: list[Chain] = []
        self.spoke = asyncio.Event()

    def chain(self, *models: str, policy: ChainPolicy = QUICK, **limits: Any) -> Chain:
        urls = {"anthropic": self.provider.url, "openai": self.provider.openai_url}
        specs = [ModelSpec(name.partition(":")[0], name.partition(":")[2]) for name in models]
        links = [open_link(ModelSpec(spec.provider, spec.model, "k", urls[spec.provider]), self.tls) for spec in specs]
        self.chains.append(Chain(links, self._say, policy=policy, **limits))
        return self.chains[-1]

    def _say(self, event: Event, **fields: Any) -> None:
        assert event is Event.MODEL_FAILED
        self.said.append(fields)
        self.spoke.set()

    @property
    def failed(self) -> list[str]:
        return [fields["model"] for fields in self.said]


class Waiting(CallWatch):
    """Keeps what a call waited for, and how often its text began again."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for: set[str] = set()
        self.restarts = 0

    def waiting(self, model: str, failure: Exception) -> None:
        self.waited_for.add(model)

    def restarted(self) -> None:
        self.restarts += 1


@pytest.fixture
async def setup(provider: RunningProvider, tls: ssl.SSLContext) -> AsyncIterator[ChainSetup]:
    setup = ChainSetup(provider, tls)
    yield setup
    provider.set_script(Script())
    assert own_tasks() == []
    for chain in setup.chains:
        await chain.close()
    await provider.until(lambda p: p.running == 0 and p.open_connections == 0)


@pytest.fixture(autouse=True)
def fresh_script(provider: RunningProvider) -> Iterator[None]:
    yield
    provider.set_script(Script())


@pytest.mark.parametrize(
    "fault", ["status 529", "status 429 retry-after=0.1", "reset", "reset mid", "malformed", "empty"]
)
async def test_a_fault_that_passes_is_tried_again(setup: ChainSetup, fault: str) -> None:
    reply = await setup.chain("anthropic:a").reply(asking(f"[[{fault} times=1]] {fault} and hello"))
    assert reply.text == f"echo: {fault} and hello"
    assert setup.failed == ["anthropic:a"]
    assert setup.said[0]["session"] == "s"
    assert setup.said[0]["retry_in_s"] is not None


async def test_retry_after_is_honoured(setup: ChainSetup) -> None:
    began = time.monotonic()
    await setup.chain("openai:b").reply(asking("[[status 429 retry-after=0.5 times=1]] honour it"))
    assert time.monotonic() - began >= 0.5


@pytest.mark.parametrize("fault", ["status 529 retry-after=600", "status 429 retry-after=600"])
async def test_nobody_waits_for_a_long_retry_after(setup: ChainSetup, fault: str) -> None:
    began = time.monotonic()
    with pytest.raises(ModelUnavailable) as raised:
        await setup.chain("anthropic:a").reply(asking(f"[[{fault}]] hello"))
    assert raised.value.retry_after_s == 600
    assert len(setup.said) == 1
    assert time.monotonic() - began < 10


async def test_the_tries_of_the_last_model_are_bounded(setup: ChainSetup) -> None:
    for fault, tries in (("status 425", QUICK.last_attempts), ("reset mid", QUICK.paid_attempts), ("malformed", 2)):
        setup.said.clear()
        with pytest.raises(ModelUnavailable):
            await setup.chain("openai:b").reply(asking(f"[[{fault}]] word"))
        assert len(setup.said) == tries
        assert setup.said[-1]["retry_in_s"] is None


@pytest.mark.parametrize("fault", ["status 500", "status 503", "status 529", "status 429 retry-after=0.01", "reset"])
async def test_a_server_that_is_away_for_longer_than_any_number_of_tries_is_waited_for(
    setup: ChainSetup, fault: str
) -> None:
    watch = Waiting()
    reply = await setup.chain("openai:b").reply(asking(f"[[{fault} times=12]] {fault} then well"), watch=watch)
    assert reply.text == f"echo: {fault} then well"
    assert watch.waited_for == {"openai:b"}


async def test_an_empty_answer_gets_one_more_chance(setup: ChainSetup) -> None:
    with pytest.raises(EmptyAnswer, match="openai:b gave an empty answer"):
        await setup.chain("openai:b").reply(asking("[[empty]]"))
    assert len(setup.said) == 2


@pytest.mark.parametrize("fault", ["[[status 500]]", "[[status 401]]", "[[status 529 retry-after=600]]", "[[empty]]"])
async def test_the_next_model_answers(setup: ChainSetup, fault: str) -> None:
    setup.provider.set_script(Script(models={"bad": fault}))
    reply = await setup.chain("anthropic:bad", "openai:good").reply(asking("hello"))
    assert (reply.text, reply.provider, reply.model) == ("echo: hello", "openai", "good")
    assert set(setup.failed) == {"anthropic:bad"}


async def test_a_stalled_model_leaves_time_for_the_next(setup: ChainSetup) -> None:
    setup.provider.set_script(Script(models={"bad": "[[stall mid]]"}))
    chain = setup.chain("openai:bad", "anthropic:good", stall_timeout_s=0.3)
    began = time.monotonic()
    assert (await chain.reply(asking("hello"))).model == "good"
    assert time.monotonic() - began < 15
    assert setup.failed == ["openai:bad"]


async def test_a_dribbling_model_is_left_at_the_call_timeout(setup: ChainSetup) -> None:
    setup.provider.set_script(Script(models={"bad": "[[dribble 0.02]]"}))
    chain = setup.chain("openai:bad", "anthropic:good", call_timeout_s=0.4)
    assert (await chain.reply(asking("hello"), timeout=30)).model == "good"
    assert len(setup.said) == 1


async def test_a_dead_model_costs_one_timeout_and_not_one_per_message(setup: ChainSetup) -> None:
    setup.provider.set_script(Script(models={"bad": "[[stall]]"}))
    chain = setup.chain("openai:bad", "anthropic:good", stall_timeout_s=0.5)
    await chain.reply(asking("first"))
    began = time.monotonic()
    await asyncio.gather(*(chain.reply(asking(f"message {number}")) for number in range(20)))
    assert time.monotonic() - began < 15
    assert setup.failed == ["openai:bad"]


async def test_those_that_wait_for_the_only_model_ask_it_once_for_all(setup: ChainSetup) -> None:
    setup.provider.set_script(Script(always="[[status 503]]"))
    policy = ChainPolicy(breaker=BreakerPolicy(first_probe_s=0.4, longest_probe_s=0.4))
    chain = setup.chain("openai:b", policy=policy)
    waiting = [Waiting() for _ in range(20)]
    before = setup.provider.calls
    asked = [asyncio.create_task(chain.reply(asking(str(n)), watch=watch)) for n, watch in enumerate(waiting)]
    await setup.provider.until(lambda p: p.calls >= before + 22)  # each once, and two probes for all
    setup.provider.set_script(Script())
    replies = await asyncio.gather(*asked)
    assert [reply.text for reply in replies] == [f"echo: {number}" for number in range(20)]
    assert setup.provider.calls <= before + 20 + 20 + 4
    assert all(watch.waited_for == {"openai:b"} for watch in waiting)


async def test_a_message_that_comes_while_the_only_model_is_away_waits_unsent(setup: ChainSetup) -> None:
    setup.provider.set_script(Script(always="[[status 503]]"))
    policy = ChainPolicy(breaker=BreakerPolicy(first_probe_s=0.3, longest_probe_s=0.3))
    chain = setup.chain("openai:b", policy=policy)
    first = asyncio.create_task(chain.reply(asking("first")))
    await asyncio.wait_for(setup.spoke.wait(), 10)
    later = [asyncio.create_task(chain.reply(asking(f"later {number}"))) for number in range(10)]
    await asyncio.sleep(0)
    setup.provider.set_script(Script())
    assert {reply.text for reply in await asyncio.gather(first, *later)} >= {"echo: first", "echo: later 9"}
    assert len(setup.said) <= 2  # only the first was ever refused


async def test_a_model_that_came_back_is_used_again(setup: ChainSetup) -> None:
    policy = ChainPolicy(breaker=BreakerPolicy(cool_off_s=0.2), first_delay_s=0.01)
    setup.provider.set_script(Script(models={"first": "[[stall]]"}))
    chain = setup.chain("openai:first", "anthropic:second", policy=policy, stall_timeout_s=0.3)
    assert (await chain.reply(asking("one"))).model == "second"
    setup.provider.set_script(Script())
    deadline = time.monotonic() + 5
    while (await chain.reply(asking("two"))).model != "first":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_hung_calls_do_not_keep_the_only_model_from_a_healthy_one(setup: ChainSetup) -> None:
    chain = setup.chain("openai:b", stall_timeout_s=0.3)
    hung = [asyncio.create_task(chain.reply(asking(f"[[stall]] {number}"), timeout=2)) for number in range(6)]
    assert (await chain.reply(asking("healthy"))).text == "echo: healthy"
    outcomes = await asyncio.gather(*hung, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {TimeoutError}
    assert (await chain.reply(asking("healthy again"))).text == "echo: healthy again"
    assert all("healthy" not in fields["problem"] for fields in setup.said)


@pytest.mark.parametrize(
    "fault", ["[[dribble 0.02]]", "[[stall mid]]", "[[sleep 30]]", "[[status 529 retry-after=0.3]]"]
)
async def test_time_is_out_when_it_is_out(setup: ChainSetup, fault: str) -> None:
    began = time.monotonic()
    with pytest.raises((TimeoutError, ModelUnavailable)) as raised:
        await setup.chain("anthropic:a", "openai:b").reply(asking(f"{fault} word"), timeout=0.8)
    assert time.monotonic() - began < 15
    assert isinstance(raised.value, ModelUnavailable) == ("529" in fault)


async def test_a_model_that_stays_silent_ends_as_a_timeout(setup: ChainSetup) -> None:
    with pytest.raises(TimeoutError, match="openai:b sent nothing"):
        await setup.chain("openai:b", stall_timeout_s=0.2).reply(asking("[[stall]] word"), timeout=0.9)


async def test_refusals_are_not_tried_again(setup: ChainSetup) -> None:
    with pytest.raises(ModelRejected, match="OPENAI_API_KEY"):
        await setup.chain("openai:b").reply(asking("[[status 401]]"))
    assert len(setup.said) == 1


async def test_if_every_model_refuses_each_is_named(setup: ChainSetup) -> None:
    with pytest.raises(ModelRejected, match=r"ANTHROPIC_API_KEY.*OPENAI_API_KEY"):
        await setup.chain("anthropic:a", "openai:b").reply(asking("[[status 401]]"))


async def test_a_context_that_is_too_long_is_the_turns_to_cut(setup: ChainSetup) -> None:
    with pytest.raises(ContextTooLong):
        await setup.chain("anthropic:a", "openai:b").reply(asking("[[context]]"))
    assert setup.said == []


async def test_the_text_of_the_try_that_succeeded_is_the_reply(setup: ChainSetup) -> None:
    heard: list[str] = []
    watch = Waiting()
    asked = asking("[[reset mid times=1]] once more from the start")
    reply = await setup.chain("openai:b").reply(asked, heard.append, watch=watch)
    assert reply.text == "echo: once more from the start"
    assert "".join(heard).endswith(reply.text)
    assert len("".join(heard)) > len(reply.text)
    assert watch.restarts == 1
    assert watch.usage == reply.usage


async def test_cancelling_a_chain_that_waits_to_retry_ends_it_at_once(setup: ChainSetup) -> None:
    policy = ChainPolicy(first_delay_s=20, longest_delay_s=20)
    call = asyncio.create_task(setup.chain("openai:b", policy=policy).reply(asking("[[status 500]]")))
    await asyncio.wait_for(setup.spoke.wait(), 10)
    began = time.monotonic()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert time.monotonic() - began < 5


async def test_what_was_used_is_priced_by_the_model_that_used_it(setup: ChainSetup) -> None:
    setup.provider.set_script(Script(models={"bad": "[[empty]]"}))
    price = Price(input_nanos=10**12, output_nanos=10**12, cached_nanos=0)
    links = [
        open_link(ModelSpec("anthropic", "bad", "k", setup.provider.url, price), setup.tls),
        open_link(ModelSpec("openai", "good", "k", setup.provider.openai_url), setup.tls),
    ]
    setup.chains.append(Chain(links, setup._say, policy=QUICK))
    usage = (await setup.chains[0].reply(asking("[[cached 10]] hello"))).usage
    bad, good = usage.models["anthropic:bad"], usage.models["openai:good"]
    assert (bad.model_calls, bad.unpriced_calls) == (2, 0)
    assert bad.cost_nanos == (bad.tokens - bad.cached_tokens) * 10**6
    assert (good.model_calls, good.unpriced_calls, good.cost_nanos) == (1, 1, 0)
    assert usage.cost is None
    assert (usage.model_calls, usage.tokens) == (3, bad.tokens + good.tokens)


async def test_a_workers_config_becomes_a_chain(provider: RunningProvider) -> None:
    specs = (
        ModelSpec("openai", "a", "k", provider.openai_url),
        ModelSpec("anthropic", "b", "k", provider.url),
        ModelSpec("offline", "offline"),
    )
    chain = build_chain(WorkerConfig(specs, ""), lambda *_, **__: None)
    assert chain.name == "openai:a,anthropic:b,offline"
    assert (await chain.reply(asking("hello"))).provider == "openai"
    await chain.close()


def test_an_unknown_provider_is_refused() -> None:
    with pytest.raises(ValueError, match="acme"):
        open_link(ModelSpec("acme", "m"))
