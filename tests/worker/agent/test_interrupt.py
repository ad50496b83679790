"""An interrupt in every phase of a turn: it ends at once, and both wires take the transcript that it leaves."""

from __future__ import annotations

import asyncio
import sys
import threading
import types
from collections.abc import AsyncIterator, Callable, Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.provider import RunningProvider, running_provider
from loadtests.wire_rules import anthropic_problem, openai_problem
from shared.events import Event, Field
from shared.messages import Ended, TurnStatus
from tests.worker.agent.models.conftest import spec_for
from tests.worker.agent.scripted import Recorded, ScriptedModel, asks, decoded, says
from tests.worker.tools.mcp.serving import bare
from tests.worker.waiting import until
from worker.agent.context import transcript
from worker.agent.context.prompts import INSTRUCTION
from worker.agent.context.repair import repair
from worker.agent.models import build_chain
from worker.agent.models.anthropic_blocks import BlockConverter
from worker.agent.models.port import Model
from worker.agent.todo import TodoStore
from worker.agent.turn import Turn
from worker.agent.turn_request import TurnRequest
from worker.frames import WorkerConfig
from worker.tools import tool
from worker.tools.mcp import McpServers
from worker.tools.toolbox import Toolbox

#: seconds in which a turn has to be over; it takes a few milliseconds, and the rest is for a busy machine
AT_ONCE_S = 0.5
WIRES = ("anthropic", "openai")


def silent(event: Event, **fields: Field) -> None:
    """Hear nothing."""


@pytest.fixture(scope="module")
def gate() -> Iterator[threading.Event]:
    """Holds the sync tools of this module until its tests are over."""
    event = threading.Event()
    module = types.ModuleType("tools_to_interrupt")

    @tool
    def hang() -> str:
        event.wait()
        return "too late"

    @tool
    async def nap(seconds: float = 60) -> str:
        await asyncio.sleep(seconds)
        return "rested"

    @tool
    async def note() -> str:
        return "noted"

    for function in (hang, nap, note):
        setattr(module, function.__name__, function)
    sys.modules[module.__name__] = module
    yield event
    event.set()
    del sys.modules[module.__name__]


@pytest.fixture(scope="module")
async def toolbox(gate: threading.Event) -> AsyncIterator[Toolbox]:
    """Sync and async tools, and those of an MCP server."""
    made = Toolbox(["tools_to_interrupt"])
    servers = McpServers([bare("t")], made, silent)
    await servers.start(20)
    yield made
    await servers.close()
    made.close()


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    with running_provider() as running:
        yield running


@pytest.fixture(scope="module")
async def models(provider: RunningProvider) -> AsyncIterator[dict[str, Model]]:
    """A model of each wire, with its retries."""
    made = {wire: build_chain(WorkerConfig((spec_for(wire, provider),), ""), silent) for wire in WIRES}
    yield made
    for model in made.values():
        await model.close()


Reached = Callable[[RunningProvider, Recorded], bool]


def model_waits(provider: RunningProvider, _progress: Recorded) -> bool:
    return provider.running == 1


def text_came(_provider: RunningProvider, progress: Recorded) -> bool:
    return bool(progress.texts)


def model_refused(provider: RunningProvider, _progress: Recorded) -> bool:
    return provider.running == 0 and "[[status" in str(provider.requests[-1:])


def tools_run(count: int) -> Reached:
    return lambda _provider, progress: len(progress.started) == count


def summary_waits(provider: RunningProvider, _progress: Recorded) -> bool:
    return provider.running == 1 and INSTRUCTION[:60].encode() in provider.requests[-1].body


#: what fills a small window, and makes whoever summarizes it wait
LONG = tuple(
    say(f"[[stall]] {number} " + "word " * 50)
    for number in range(10)
    for say in (transcript.user, transcript.assistant)
)
SMALL_WINDOW_TOKENS = 600

NOTE, HANG, NAP, FAR = ("[[tool " + name + " {}]]" for name in ("note", "hang", "nap", "t__hang"))
PHASES: dict[str, tuple[str, Reached]] = {
    "before the first byte": ("[[stall]]", model_waits),
    "amid the text": ("[[stall mid]] [[say a rather long answer, whose end never comes]]", text_came),
    "in the pause before a retry": ("[[status 529 retry-after=20]]", model_refused),
    "in a sync tool": (HANG, tools_run(1)),
    "in an async tool": (NAP, tools_run(1)),
    "in a call of an MCP server": (FAR, tools_run(1)),
    "in tools of every kind": (f"{NOTE} {HANG} {NAP} {FAR} [[tool nap {{]] [[tool nobody {{}}]] {NOTE}", tools_run(7)),
    "in compaction": ("go on", summary_waits),
    "in a later step's model call": (f"{NOTE} {NOTE} [[then]] [[stall]]", model_waits),
    "in a later step's tool": (f"{NOTE} [[then]] {NOTE} {NAP}", tools_run(3)),
}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("phase", PHASES)
async def test_an_interrupt_ends_the_turn_at_once_and_the_conversation_goes_on(
    wire: str, phase: str, toolbox: Toolbox, models: dict[str, Model], provider: RunningProvider
) -> None:
    text, reached = PHASES[phase]
    progress, tasks = Recorded(), asyncio.all_tasks()
    history = LONG if phase == "in compaction" else ()
    small = {"window_tokens": SMALL_WINDOW_TOKENS} if history else {}
    request = TurnRequest("a:b:c", "msg_1", (text,), history)
    turn = Turn(msgspec.structs.replace(request, **small), models[wire], toolbox, TodoStore(), progress)
    running = asyncio.create_task(turn.run())
    await until(lambda: reached(provider, progress))
    began = asyncio.get_running_loop().time()
    turn.interrupt()
    ended = await running
    assert asyncio.get_running_loop().time() - began < AT_ONCE_S
    assert isinstance(ended, Ended)
    assert (ended.status, ended.text) == (TurnStatus.INTERRUPTED, "Stopped.")
    await until(lambda: provider.running == 0 and asyncio.all_tasks() <= tasks)
    for name, model in models.items():  # the transcript of one wire is taken by the other: a chain may change over
        request = TurnRequest("a:b:c", "msg_2", ("and now?",), (*history, *turn.messages))
        answer = await Turn(request, model, toolbox, TodoStore()).run()
        assert isinstance(answer, Ended)
        assert (answer.text, answer.error) == ("echo: and now?", ""), name


def problems(messages: list[bytes]) -> list[str]:
    """Return what the providers would say of a transcript that another message follows."""
    follow_up = [*messages, b'{"role":"user","content":"go on"}']
    _, blocks, _ = BlockConverter().system_and_messages("", follow_up)
    found = (
        openai_problem({"messages": decoded(follow_up)}),
        anthropic_problem({"messages": msgspec.json.decode(blocks)}),
    )
    return [problem for problem in found if problem]


CALLS = st.sampled_from(
    [("note", "{}"), ("note", "{"), ("nope", "{}"), ("nap", '{"seconds": 0}'), ("nap", "{}"), ("hang", "")]
)
TURNS = st.lists(
    st.tuples(st.lists(st.lists(CALLS, min_size=1, max_size=3), max_size=3), st.integers(0, 30)), min_size=1, max_size=4
)
#: tokens of a window: one that everything fits into, and one that is soon full, so that summaries are asked for
WINDOWS = st.sampled_from([100_000, 300])


@settings(max_examples=60)
@given(turns=TURNS, window_tokens=WINDOWS)
def test_interrupts_at_any_moments_of_a_conversation_leave_it_valid_on_both_wires(
    gate: threading.Event, turns: list[tuple[list[list[tuple[str, str]]], int]], window_tokens: int
) -> None:
    """A scripted model gives its calls the same ids in every step, as some servers do."""

    async def run() -> None:
        toolbox, history = Toolbox(["tools_to_interrupt"]), list[bytes]()
        for number, (steps, rounds) in enumerate(turns):
            model = ScriptedModel(*(asks(*calls) for calls in steps), says("done"))
            request = TurnRequest("a:b:c", f"msg_{number}", ("go",), tuple(history), window_tokens=window_tokens)
            turn = Turn(request, model, toolbox, TodoStore())
            running = asyncio.create_task(turn.run())
            for _ in range(rounds):
                await asyncio.sleep(0)
            turn.interrupt()
            assert isinstance(await running, Ended)
            history += turn.messages
            assert problems(repair(history)) == []
            assert [problems(list(asked.messages)) for asked in model.requests if problems(list(asked.messages))] == []
        toolbox.close()

    asyncio.run(run())
