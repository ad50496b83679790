"""The journal of a real worker process: what has left it when it is killed, and what the next one does with that."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.provider import RunningProvider, running_provider
from shared.messages import JournaledCall, OpenStep, TurnStatus
from tests.worker.agent.child_process import TOOLS, ChildProcess, child_process
from tests.worker.agent.scripted import decoded
from tests.worker.waiting import until
from worker.frames import (
    IntentCommitted,
    Interrupt,
    ModelSpec,
    StepDone,
    StepOpened,
    ToolEnded,
    ToolStarted,
    WorkerConfig,
)


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    with running_provider() as running:
        yield running


@pytest.fixture(params=["openai", "anthropic"])
def config(request: pytest.FixtureRequest, provider: RunningProvider, tmp_path: Path) -> WorkerConfig:
    url = provider.openai_url if request.param == "openai" else provider.url
    model = ModelSpec(request.param, "scripted", "sk-test", url)
    return WorkerConfig((model,), "be brief", tool_modules=(TOOLS,), log_dir=str(tmp_path / "logs"))


def call(name: str, **arguments: object) -> str:
    return f"[[tool {name} {json.dumps(arguments)}]]"


def journal_of(child: ChildProcess) -> OpenStep:
    """What the pool would have kept of the child's one turn, whose step is not finished."""
    (opened,) = child.all(StepOpened)
    results = {ended.result.call_id: ended.result.message for ended in child.all(ToolEnded)}
    calls = tuple(
        JournaledCall(begun.intent.call_id, begun.intent.name, begun.intent.key, results.get(begun.intent.call_id))
        for begun in child.all(ToolStarted)
    )
    return OpenStep(opened.opening.step, opened.opening.messages, opened.opening.usage, calls)


def result_of(child: ChildProcess, name: str) -> str:
    """What the model reads as the result of the one call of a tool."""
    (done,) = child.all(StepDone)
    named = [message for message in decoded(done.step.messages) if message.get("name") == name]
    return str(named[0]["content"])


async def test_a_step_is_told_from_its_opening_to_its_end(config: WorkerConfig, tmp_path: Path) -> None:
    async with child_process(config) as child:
        ended = await child.ended(child.run_turn(call("note", path=str(tmp_path / "notes"))))
        assert ended.status is TurnStatus.REPLIED
        frames = [
            frame for _, frame in child.frames if isinstance(frame, StepOpened | ToolStarted | ToolEnded | StepDone)
        ]
        opened, started, finished, done = frames
        assert isinstance(opened, StepOpened)
        assert isinstance(started, ToolStarted)
        assert isinstance(finished, ToolEnded)
        assert isinstance(done, StepDone)
        assert [message["role"] for message in decoded(opened.opening.messages)] == ["user", "assistant"]
        assert (started.intent.step, started.waits) == (1, False)
        assert started.intent.key == f"msg_1.1.{started.intent.call_id}"
        assert done.step.messages == (*opened.opening.messages, finished.result.message)


async def test_a_kill_in_the_middle_of_a_step_repeats_no_finished_call(
    config: WorkerConfig, provider: RunningProvider, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    asked = f"{call('note', path=str(notes))}{call('note_on_the_loop', path=str(notes))}{call('nap', seconds=60)}"
    async with child_process(config) as child:
        child.run_turn(asked)
        await until(lambda: len(child.all(ToolEnded)) == 2 and len(child.all(ToolStarted)) == 3)
        os.kill(child.pid, signal.SIGKILL)
        await until(lambda: child.closed)
        journal = journal_of(child)
    first_body, first_calls = provider.requests[-1].body, provider.calls
    napping = next(known for known in journal.calls if known.result is None)
    opening = journal.messages[-1].replace(b"60", b"0.01")
    async with child_process(config) as child:
        journal = OpenStep(1, (journal.messages[0], opening), journal.usage, journal.calls)
        ended = await child.ended(child.run_turn(asked, message_id="msg_1", open_step=journal))
        (started,) = child.all(ToolStarted)
        assert (started.intent.call_id, started.intent.key) == (napping.call_id, napping.key)
        assert child.all(StepOpened) == []
    assert ended.status is TurnStatus.REPLIED
    assert len(notes.read_text().splitlines()) == 2
    assert provider.calls == first_calls + 1
    assert prefix(provider.requests[-1].body) == prefix(first_body)


async def test_a_result_leaves_the_worker_before_the_next_tool_can_block_its_loop(
    config: WorkerConfig, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    async with child_process(config) as child:
        child.run_turn(call("note_on_the_loop", path=str(notes)) + call("block_the_loop"))
        await until(lambda: len(child.all(ToolStarted)) == 2)
        await until(lambda: len(child.all(ToolEnded)) == 1)
        await until(lambda: child.page.beat_age_s() > 0.5)
        assert [known.result is None for known in journal_of(child).calls] == [False, True]


async def test_a_call_that_must_not_be_repeated_runs_once_its_intent_is_kept(
    config: WorkerConfig, tmp_path: Path
) -> None:
    charges = tmp_path / "charges"
    async with child_process(config) as child:
        turn = child.run_turn(call("charge", path=str(charges)) + call("note", path=str(tmp_path / "notes")))
        await child.frame(ToolEnded)
        started = await child.frame(ToolStarted, lambda frame: frame.waits)
        assert not charges.exists()
        child.send(IntentCommitted(turn, "some other call"))
        child.send(IntentCommitted(turn, started.intent.call_id))
        await child.ended(turn)
        assert charges.read_text() == started.intent.key + "\n"


async def test_a_call_that_waits_for_its_intent_can_be_interrupted(config: WorkerConfig, tmp_path: Path) -> None:
    charges = tmp_path / "charges"
    async with child_process(config) as child:
        turn = child.run_turn(call("charge", path=str(charges)))
        started = await child.frame(ToolStarted)
        child.send(Interrupt(turn))
        assert (await child.ended(turn)).status is TurnStatus.INTERRUPTED
        child.send(IntentCommitted(turn, started.intent.call_id))
        await child.ended(child.run_turn("hello"))
        assert not charges.exists()


async def test_a_call_of_unknown_outcome_is_told_to_the_model(
    config: WorkerConfig, provider: RunningProvider, tmp_path: Path
) -> None:
    charges = tmp_path / "charges"
    async with child_process(config) as child:
        child.run_turn(call("charge", path=str(charges)))
        await child.frame(ToolStarted)
        journal = journal_of(child)
    async with child_process(config) as child:
        await child.ended(child.run_turn("charge me", message_id="msg_1", open_step=journal))
        assert "outcome unknown" in result_of(child, "charge")
    assert b"outcome unknown" in provider.requests[-1].body
    assert not charges.exists()


async def test_every_worker_sends_the_provider_the_same_prefix(config: WorkerConfig, provider: RunningProvider) -> None:
    bodies = []
    for text in ("one", "two"):
        async with child_process(config) as child:
            await child.ended(child.run_turn(text, session="test:a:s"))
            bodies.append(provider.requests[-1].body)
    assert prefix(bodies[0]) == prefix(bodies[1])
    assert b"be brief" in prefix(bodies[0])
    assert b"block_the_loop" in prefix(bodies[0])


def prefix(body: bytes) -> bytes:
    """The bytes of a request that a provider's cache holds whatever is said: model, tools, system prompt."""
    return body.partition(b'{"role":"user"')[0]
