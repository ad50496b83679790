"""Whole turns of the real SDKs against a provider over HTTP that fails in every way: each ends in a clear reply."""

from __future__ import annotations

import asyncio
import gc
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from loadtests.provider import RunningProvider, Script
from shared.attachments import attach
from shared.messages import Ended, TurnStatus
from shared.texts import ENGLISH
from tests.worker.agent.models.conftest import own_tasks, spec_for
from tests.worker.agent.scripted import Recorded, unanswered
from worker.agent.attachments import with_attachments
from worker.agent.context import transcript
from worker.agent.context.repair import IMAGE_TOKENS, estimate_tokens
from worker.agent.models import open_link
from worker.agent.models.breaker import BreakerPolicy
from worker.agent.models.chain import Chain, ChainPolicy, Link
from worker.agent.models.images import ImageLink
from worker.agent.models.port import CallWatch, ModelRequest
from worker.agent.todo import TodoStore
from worker.agent.turn import Turn
from worker.agent.turn_request import TurnRequest
from worker.tools.toolbox import Toolbox

QUICK = ChainPolicy(
    first_delay_s=0.01,
    longest_delay_s=0.05,
    longest_wait_s=1.0,
    breaker=BreakerPolicy(first_probe_s=0.01, longest_probe_s=0.05),
)
STALL_S = 0.3
CALL_S = 0.8
#: no turn here may take longer, loaded machine or not
LIMIT_S = 60.0
DONE = TurnStatus.REPLIED
FAILED = TurnStatus.FAILED
TIMED_OUT = TurnStatus.TIMED_OUT

#: what the model does, how the turn ends, and what the sender reads
FAULTS = [
    ("[[stall mid]] word", TIMED_OUT, ENGLISH.model_silent),
    ("[[dribble 0.02]] word", TIMED_OUT, ENGLISH.model_silent),
    ("[[ping 0.02]] word", TIMED_OUT, ENGLISH.model_silent),
    ("[[reset mid]] word", FAILED, ENGLISH.model_away),
    ("[[malformed]] word", FAILED, ENGLISH.model_away),
    ("[[status 429 retry-after=600]]", FAILED, ENGLISH.model_away),
    ("[[status 529 retry-after=600]]", FAILED, ENGLISH.model_away),
    ("[[status 401]]", FAILED, ENGLISH.model_misset),
    ("[[status 405]]", FAILED, ENGLISH.model_refused),
    ("[[context]]", FAILED, ENGLISH.conversation_too_long),
    ("[[empty]]", FAILED, ENGLISH.nothing_said),
    ("[[reset times=1]] word", DONE, "echo: word"),
    ("[[reset mid times=1]] word", DONE, "echo: word"),
    ("[[malformed times=1]] word", DONE, "echo: word"),
    ("[[empty times=1]] word", DONE, "echo: word"),
    ("[[status 429 times=2]] word", DONE, "echo: word"),
    ("[[status 529 retry-after=0.1 times=1]] word", DONE, "echo: word"),
    ('[[tool todo {"todos": ]]', DONE, "result of todo: Error"),
    ("[[tools 1000 todo {}]] [[then]] [[say a thousand]]", DONE, "a thousand"),
]

#: those for whose end a turn waits as long as it may, which is short then
WAITED_FOR = [
    ("[[stall]] word", TIMED_OUT, ENGLISH.model_silent),
    ("[[reset]]", FAILED, ENGLISH.model_away),
    ("[[status 429]]", FAILED, ENGLISH.model_away),
    ("[[status 503]]", FAILED, ENGLISH.model_away),
]
WAIT_S = 1.0


class TurnSetup:
    """One model in two chains, and the tools, and the turns run with them.

    ``chain`` has time for a loaded machine; ``hasty`` is for what comes to its end by a time-out alone.
    """

    def __init__(self, link: Link) -> None:
        self.chain = Chain([link], lambda *_, **__: None, policy=QUICK)
        self.hasty = Chain([link], lambda *_, **__: None, call_timeout_s=CALL_S, stall_timeout_s=STALL_S, policy=QUICK)
        self.toolbox = Toolbox([])
        self.progress = Recorded()

    def turn(self, text: str, deadline_s: float = LIMIT_S, *, hasty: bool = False, **fields: Any) -> Turn:
        request = TurnRequest("s", "msg_1", (text,), deadline_s=deadline_s, **fields)
        return Turn(request, self.hasty if hasty else self.chain, self.toolbox, TodoStore(), self.progress)

    async def run(
        self, text: str, deadline_s: float = LIMIT_S, *, hasty: bool = False, **fields: Any
    ) -> tuple[Ended, Turn]:
        turn = self.turn(text, deadline_s, hasty=hasty, **fields)
        outcome = await turn.run()
        assert isinstance(outcome, Ended)
        return outcome, turn


@pytest.fixture(params=["anthropic", "openai"])
async def setup(
    request: pytest.FixtureRequest, provider: RunningProvider, tls: ssl.SSLContext
) -> AsyncIterator[TurnSetup]:
    """Give a chain over each SDK; when its test ends no call, connection or task of it may be left."""
    # a model of its own, so that the provider counts `times=1` for each of the two
    link = open_link(msgspec.structs.replace(spec_for(request.param, provider), model=request.param), tls)
    made = TurnSetup(link)
    yield made
    made.toolbox.close()
    await provider.until(lambda p: p.running == 0)
    assert own_tasks() == []
    await made.chain.close()
    await provider.until(lambda p: p.open_connections == 0)


@pytest.fixture(scope="module", autouse=True)
def nothing_unclosed() -> Iterator[None]:
    yield
    gc.collect()  # what was not closed warns here, and warnings are errors


@pytest.fixture(autouse=True)
def fresh_script(provider: RunningProvider) -> Iterator[None]:
    yield
    provider.set_script(Script())


@pytest.mark.parametrize(("text", "status", "said"), FAULTS, ids=[text for text, _, _ in FAULTS])
async def test_every_fault_ends_in_a_clear_reply(setup: TurnSetup, text: str, status: TurnStatus, said: str) -> None:
    began = time.monotonic()
    outcome, turn = await setup.run(text, hasty=status is TIMED_OUT)
    assert time.monotonic() - began < LIMIT_S
    assert outcome.status is status
    assert said in outcome.text
    assert outcome.text.strip() == outcome.text != ""
    assert bool(outcome.error) == (status is not DONE)
    assert unanswered(turn.messages) == []


@pytest.mark.parametrize(("text", "status", "said"), WAITED_FOR, ids=[text for text, _, _ in WAITED_FOR])
async def test_a_model_that_is_away_is_waited_for_inside_the_turns_time(
    setup: TurnSetup, text: str, status: TurnStatus, said: str
) -> None:
    outcome, turn = await setup.run(text, WAIT_S, hasty=status is TIMED_OUT)
    assert (outcome.status, outcome.text) == (status, said)
    assert turn.unanswered
    assert setup.progress.waited_for == {setup.chain.name}
    assert unanswered(turn.messages) == []


async def test_a_conversation_that_is_too_long_is_shortened_and_answered(setup: TurnSetup) -> None:
    said = [transcript.user("tell me more " * 50), transcript.assistant("and more " * 50)]
    outcome, turn = await setup.run("[[context times=1]] does it fit now?", history=said * 40)
    assert outcome.text == "echo: does it fit now?"
    assert turn.window.tokens < sum(map(estimate_tokens, said * 40))


async def test_what_the_model_began_to_say_stays_in_the_transcript(setup: TurnSetup) -> None:
    outcome, turn = await setup.run("[[stall mid]] a word that is said", hasty=True)
    assert outcome.status is TIMED_OUT
    assert b"echo: a word" in turn.messages[-1]
    assert ENGLISH.model_silent.encode() in turn.messages[-1]


async def test_a_turn_that_follows_a_fault_is_answered(setup: TurnSetup) -> None:
    for text in ("[[stall mid]] word", "[[reset]]", "[[reset mid]] word", "[[malformed]] word"):
        await setup.run(text, WAIT_S, hasty=True)
    outcome, _ = await setup.run("are you there?")
    assert outcome.text == "echo: are you there?"


@pytest.mark.parametrize("moment", ["[[sleep 30]]", "[[stall]] word", "[[stall mid]] word", "[[dribble 0.02]] word"])
async def test_an_interrupt_ends_the_call_and_closes_its_connection(
    setup: TurnSetup, provider: RunningProvider, moment: str
) -> None:
    turn = setup.turn(moment)
    running = asyncio.create_task(turn.run())
    await provider.until(lambda p: p.running == 1)
    began = time.monotonic()
    turn.interrupt()
    outcome = await running
    assert time.monotonic() - began < 5
    assert isinstance(outcome, Ended)
    assert outcome.status is TurnStatus.INTERRUPTED
    assert unanswered(turn.messages) == []
    await provider.until(lambda p: p.open_connections == 0)


async def test_a_turns_own_limit_ends_it_and_says_so(setup: TurnSetup) -> None:
    request = TurnRequest("s", "msg_1", ("[[sleep 30]]",), deadline_s=0.2)
    outcome = await Turn(request, setup.chain, setup.toolbox, TodoStore()).run()
    assert isinstance(outcome, Ended)
    assert (outcome.status, outcome.text) == (TIMED_OUT, ENGLISH.turn_too_long)
    assert (outcome.usage.estimated_calls, outcome.usage.input_tokens > 100) == (1, True)


async def test_an_answer_that_never_ends_leaves_the_next_model_its_turn(provider: RunningProvider) -> None:
    provider.set_script(Script(models={"bad": "[[dribble 0.02]]"}))
    bad = open_link(msgspec.structs.replace(spec_for("anthropic", provider), model="bad"))
    good = open_link(spec_for("openai", provider))
    chain = Chain([bad, good], lambda *_, **__: None, call_timeout_s=CALL_S, stall_timeout_s=5, policy=QUICK)
    toolbox = Toolbox([])
    turn = Turn(TurnRequest("s", "msg_1", ("word",), deadline_s=LIMIT_S), chain, toolbox, TodoStore())
    outcome = await turn.run()
    toolbox.close()
    await chain.close()
    assert isinstance(outcome, Ended)
    assert outcome.text == "echo: word"
    assert turn.usage.models.keys() == {"anthropic:bad", "openai:scripted"}
    assert turn.usage.models["anthropic:bad"].estimated_calls == 1
    await provider.until(lambda p: p.open_connections == 0)


@pytest.mark.parametrize(
    ("text", "calls", "estimated"),
    [
        ("word", 1, 0),
        ("[[empty]]", 2, 0),
        ("[[reset mid times=1]] counted", 2, 1),
        ("[[malformed times=1]] counted", 2, 1),
        ("[[status 529 times=1]] counted", 1, 0),
        ("[[stall mid]] word", 2, 2),
        ("[[status 401]]", 0, 0),
    ],
)
async def test_what_a_failed_try_used_is_counted(setup: TurnSetup, text: str, calls: int, estimated: int) -> None:
    outcome, turn = await setup.run(text, hasty="stall" in text)
    assert turn.usage.estimated_calls == estimated
    share = turn.usage.models[setup.chain.name] if calls else None
    assert (share.model_calls if share else 0) == calls
    assert outcome.usage.input_tokens == turn.usage.input_tokens
    assert (turn.usage.input_tokens > 100) == bool(calls)


@pytest.mark.parametrize("text", ["[[dribble 0.02]] a few words", "[[stall]] before the first byte"])
async def test_what_an_interrupted_call_used_is_counted(setup: TurnSetup, provider: RunningProvider, text: str) -> None:
    turn = setup.turn(text)
    running = asyncio.create_task(turn.run())
    async with asyncio.timeout(5):
        while not (provider.running if "stall" in text else setup.progress.texts):  # noqa: ASYNC110 - the turn's own loop
            await asyncio.sleep(0.005)
    turn.interrupt()
    outcome = await running
    assert isinstance(outcome, Ended)
    assert outcome.usage.estimated_calls == 1
    assert outcome.usage.input_tokens > 100


@pytest.mark.parametrize("sdk", ["anthropic", "openai"])
async def test_an_image_of_a_stopped_call_counts_by_its_tokens_and_not_by_its_bytes(
    provider: RunningProvider, sdk: str
) -> None:
    image = attach("a.png", "image/png", data := bytes(400_000))
    asked = with_attachments(transcript.user("[[stall]] what is this?"), [image])
    spec, watch = spec_for(sdk, provider), CallWatch()
    chain = Chain([ImageLink(open_link(spec), spec)], lambda *_, **__: None, policy=QUICK)
    with pytest.raises(TimeoutError):
        await chain.reply(ModelRequest("", (asked,), (), images={image.digest: data}), timeout=0.5, watch=watch)
    await chain.close()
    assert watch.usage.estimated_calls == 1
    assert IMAGE_TOKENS < watch.usage.input_tokens < IMAGE_TOKENS + 200
    await provider.until(lambda p: p.open_connections == 0)
