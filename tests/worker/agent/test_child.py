"""A worker's child as a real process: frames in, frames out, and its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtests.provider import RunningProvider, running_provider
from shared.messages import Dead, DeadKind, Parked, Step, TurnStatus
from shared.session_files import session_log_path
from tests.worker.agent.child_process import TOOLS, ChildProcess, alive, child_process
from tests.worker.agent.scripted import decoded, unanswered
from tests.worker.tools.mcp.serving import bare
from tests.worker.waiting import until
from worker.agent.context import transcript
from worker.agent.delta_stream import DELTA_INTERVAL_S
from worker.frames import (
    Delta,
    Drain,
    Drained,
    Forget,
    History,
    IntentCommitted,
    Interrupt,
    ModelSpec,
    NeedHistory,
    Ready,
    Report,
    Serve,
    StepDone,
    ToolEnded,
    ToolStarted,
    TurnDone,
    WorkerConfig,
)
from worker.tools.spec import ToolCall

KEY = "sk-not-to-be-seen-anywhere"


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    with running_provider() as running:
        yield running


@pytest.fixture
def config(provider: RunningProvider, tmp_path: Path) -> WorkerConfig:
    model = ModelSpec("openai", "scripted", KEY, provider.openai_url)
    return WorkerConfig((model,), "be brief", tool_modules=(TOOLS,), log_dir=str(tmp_path / "logs"))


@pytest.fixture
async def child(config: WorkerConfig) -> AsyncIterator[ChildProcess]:
    async with child_process(config) as running:
        yield running


def call(name: str, **arguments: object) -> str:
    return f"[[tool {name} {json.dumps(arguments)}]]"


def log_lines(config: WorkerConfig, session: str) -> list[dict[str, Any]]:
    path = session_log_path(Path(config.log_dir), session)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def test_a_child_is_ready_with_the_preload_and_its_tools(child: ChildProcess) -> None:
    ready = child.all(Ready)[0]
    assert ready.pid == child.pid
    assert ready.preloaded
    assert {"todo", "current_time", "roll", "nap"} <= set(ready.tools)
    assert (await child.frame(Report)).rss_bytes > 1 << 20


async def test_a_turn_asks_for_its_history_once_and_then_knows_it(child: ChildProcess) -> None:
    child.histories[1] = History(1, 4, (), None)
    first = await child.ended(child.run_turn("one", session="test:a:s", version=4, epoch=5))
    assert first.status is TurnStatus.REPLIED
    assert decoded(first.messages) == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "echo: one"},
    ]
    await child.ended(child.run_turn("two", session="test:a:s", version=5, epoch=6))
    assert len(child.all(NeedHistory)) == 1
    report = await child.frame(Report, lambda report: report.cache_hits == 1)
    assert report.cache_misses == 1
    assert report.cache_size == 1


async def test_the_turn_of_a_new_session_asks_for_nothing(child: ChildProcess) -> None:
    first = await child.ended(child.run_turn(call("todo"), session="test:a:s", epoch=5))
    assert '"total":0' in first.text
    await child.ended(child.run_turn("two", session="test:a:s", version=5, epoch=6))
    assert not child.all(NeedHistory)
    assert (await child.frame(Report, lambda report: report.cache_hits == 1)).cache_misses == 1


async def test_the_cached_conversation_is_what_the_model_sees(child: ChildProcess, provider: RunningProvider) -> None:
    known = (transcript.user("known"), transcript.assistant("indeed"))
    child.histories[1] = History(1, 3, known, b'[{"id":"1","content":"milk","status":"pending"}]')
    await child.ended(child.run_turn("one", session="test:a:s", version=3, epoch=5))
    second = await child.ended(child.run_turn(call("todo"), session="test:a:s", version=5, epoch=6))
    assert len(child.all(NeedHistory)) == 1
    assert "milk" in second.text
    shown = [message["content"] for message in provider.requests[-2].json()["messages"] if message["role"] == "user"]
    assert shown == ["known", "one", call("todo")]


async def test_another_version_forgetting_and_parking_miss_the_cache(child: ChildProcess) -> None:
    await child.ended(child.run_turn("one", session="test:a:s", epoch=5))
    child.histories[2] = History(2, 4, (), None)
    await child.ended(child.run_turn("two", session="test:a:s", version=4, epoch=6))
    child.send(Forget("test:a:s"))
    child.histories[3] = History(3, 6, (), None)
    await child.ended(child.run_turn("three", session="test:a:s", version=6, epoch=7))
    assert [need.turn for need in child.all(NeedHistory)] == [2, 3]


async def test_a_history_of_another_version_parks_the_turn(child: ChildProcess) -> None:
    child.histories[1] = History(1, 9, (), None)
    assert isinstance(await child.outcome(child.run_turn("one", version=3)), Parked)


async def test_a_todo_list_found_in_a_bare_history_becomes_the_sessions_own(child: ChildProcess) -> None:
    asked = ToolCall("call_1", "todo", "{}")
    result = '{"todos":[{"id":"1","content":"milk","status":"pending"}],"summary":{}}'
    found = (transcript.user("x"), transcript.assistant("", [asked]), transcript.tool(asked, result))
    child.histories[1] = History(1, 3, found, None)
    ended = await child.ended(child.run_turn("one", version=3))
    assert ended.todo is not None
    assert "milk" in ended.todo.decode()


async def test_an_old_list_in_the_history_never_takes_the_place_of_the_sessions_own(child: ChildProcess) -> None:
    asked = ToolCall("call_1", "todo", "{}")
    result = '{"todos":[{"id":"1","content":"milk","status":"pending"}],"summary":{}}'
    old = (transcript.user("x"), transcript.assistant("", [asked]), transcript.tool(asked, result))
    child.histories[1] = History(1, 3, old, b"[]")
    emptied = await child.ended(child.run_turn(call("todo"), version=3))
    assert '"total":0' in emptied.text
    assert emptied.todo is None
    child.histories[2] = History(2, 3, (transcript.user("x"),), None)
    assert (await child.ended(child.run_turn("hello", version=3))).todo == b"[]"


async def test_steps_and_tool_calls_are_told_and_the_last_step_ends_the_turn(child: ChildProcess) -> None:
    turn = child.run_turn(f"{call('roll', sides=6)} [[then]] {call('nap', seconds=0)}")
    ended = await child.ended(turn)
    kinds = [
        type(frame) for _, frame in child.frames if isinstance(frame, StepDone | ToolStarted | ToolEnded | TurnDone)
    ]
    assert kinds == [ToolStarted, ToolEnded, StepDone, ToolStarted, ToolEnded, StepDone, TurnDone]
    steps = [done.step for done in child.all(StepDone)]
    assert [step.number for step in steps] == [1, 2]
    assert decoded(steps[0].messages)[0] == {
        "role": "user",
        "content": steps and f"{call('roll', sides=6)} [[then]] {call('nap', seconds=0)}",
    }
    assert decoded(steps[0].messages)[2]["content"] == "rolled 6 for test:a:1"
    assert [message["role"] for message in decoded(ended.messages)] == ["assistant"]
    assert ended.usage.model_calls == 1


async def test_a_resumed_turn_does_not_repeat_its_steps(child: ChildProcess) -> None:
    text = f"{call('roll', sides=6)} [[then]] {call('nap', seconds=0)}"
    await child.ended(child.run_turn(text))
    first: Step = child.all(StepDone)[0].step
    again = child.run_turn(
        text, steps=(msgspec.structs.replace(first, todo=b'[{"id":"1","content":"m","status":"pending"}]'),)
    )
    await child.ended(again)
    assert [done.step.number for done in child.all(StepDone) if done.turn == again] == [2]
    assert [started.intent.name for started in child.all(ToolStarted) if started.turn == again] == ["nap"]


async def test_text_is_streamed_in_few_frames_to_those_who_ask(child: ChildProcess) -> None:
    quiet = child.run_turn("[[long 2000]]")
    await child.ended(quiet)
    assert child.all(Delta) == []
    began = time.monotonic()
    turn = child.run_turn("[[slow 0.002]] [[say " + "abcdefghij" * 10 + "]]", stream=True)
    ended = await child.ended(turn)
    deltas = child.all(Delta)
    assert "".join(delta.text for delta in deltas) == ended.text
    assert len(deltas) >= 2
    assert len(deltas) <= (time.monotonic() - began) / DELTA_INTERVAL_S + 2


async def test_many_turns_run_at_once(child: ChildProcess) -> None:
    started = time.monotonic()
    turns = [child.run_turn(f"[[sleep 1]] number {number}") for number in range(30)]
    endings = [await child.ended(turn) for turn in turns]
    assert [ended.text for ended in endings] == [f"echo: number {number}" for number in range(30)]
    assert time.monotonic() - started < 15


async def test_an_interrupt_ends_a_model_call_and_closes_its_connection(
    child: ChildProcess, provider: RunningProvider
) -> None:
    left = provider.left
    turn = child.run_turn("[[stall]]")
    await provider.until(lambda provider: provider.running == 1)
    started = time.monotonic()
    child.send(Interrupt(turn))
    ended = await child.ended(turn)
    assert time.monotonic() - started < 5
    assert ended.status is TurnStatus.INTERRUPTED
    assert unanswered(ended.messages) == []
    await provider.until(lambda provider: provider.left == left + 1)


async def test_an_interrupted_tool_thread_is_left_behind_and_counted(child: ChildProcess, tmp_path: Path) -> None:
    turn = child.run_turn(call("sleep_in_a_thread", pid_file=str(tmp_path / "pid")))
    other = child.run_turn(call("nap", seconds=0.3))
    await until((tmp_path / "pid").exists)
    started = time.monotonic()
    child.send(Interrupt(turn))
    ended = await child.ended(turn)
    assert time.monotonic() - started < 5
    assert ended.text == "Stopped."
    assert unanswered(ended.messages) == []
    assert "rested" in (await child.ended(other)).text
    assert (await child.frame(Report, lambda report: report.leaked_threads == 1)).leaked_threads == 1
    assert "sleep_in_a_thread" in str(child.said("tool_leaked")[0].fields["stack"])


async def test_the_deadline_ends_a_turn(child: ChildProcess) -> None:
    ended = await child.ended(child.run_turn(call("nap", seconds=60), deadline_s=0.2))
    assert ended.status is TurnStatus.TIMED_OUT


async def test_a_tool_that_cancels_every_task_leaves_no_turn_without_an_end(child: ChildProcess) -> None:
    neighbour = child.run_turn(call("nap", seconds=20))
    await child.frame(ToolStarted, lambda started: started.turn == neighbour)
    for turn in (child.run_turn(call("cancel_everybody")), neighbour):
        outcome = await child.ended(turn)
        assert outcome.status is TurnStatus.FAILED
        assert "CancelledError" in outcome.error
    assert (await child.ended(child.run_turn("still there?"))).status is TurnStatus.REPLIED


async def test_a_panic_whose_words_are_no_utf_8_is_a_result_of_its_tool(child: ChildProcess) -> None:
    ended = await child.ended(child.run_turn(f"{call('panic', file='Jörg')} [[then]] [[say went on]]"))
    assert (ended.status, ended.text) == (TurnStatus.REPLIED, "went on")
    assert "PanicException: J" in str(child.said("tool_failed")[0].fields["error"])
    assert child.said("worker_said")


async def test_a_refused_key_is_told_without_the_key(child: ChildProcess) -> None:
    outcome = await child.outcome(child.run_turn("[[status 401]]"))
    assert isinstance(outcome, Dead)
    assert outcome.kind is DeadKind.MODEL
    assert "_API_KEY" in outcome.error
    assert all(KEY not in repr(frame) for _, frame in child.frames)


async def test_what_is_too_large_for_a_frame_fails_its_turn_alone(child: ChildProcess) -> None:
    other = child.run_turn(call("nap", seconds=1), epoch=1)
    turn = child.run_turn(f"{call('roll', sides=6)} [[then]] {call('large', mebibytes=65)}", epoch=2)
    ended = await child.ended(turn)
    assert ended.status is TurnStatus.FAILED
    assert "too large" in ended.text
    assert [message["role"] for message in decoded(ended.messages)] == ["assistant"]
    alone = await child.ended(child.run_turn(call("large", mebibytes=65)))
    assert [message["role"] for message in decoded(alone.messages)] == ["user", "assistant"]
    assert (await child.ended(other)).status is TurnStatus.REPLIED


async def test_a_conversation_that_cannot_be_read_fails_its_turn_alone(child: ChildProcess) -> None:
    child.histories[1] = History(1, 3, (), b"not a todo list")
    ended = await child.ended(child.run_turn("one", version=3))
    assert ended.status is TurnStatus.FAILED
    assert decoded(ended.messages)[0] == {"role": "user", "content": "one"}
    assert (await child.ended(child.run_turn("two"))).status is TurnStatus.REPLIED


async def test_a_turn_whose_conversation_has_not_come_yet_ends_at_once_when_it_is_stopped(child: ChildProcess) -> None:
    child.gives_history = False
    turn = child.run_turn("hello", version=3)
    await child.frame(NeedHistory)
    child.send(Interrupt(turn))
    assert (await child.ended(turn)).status is TurnStatus.INTERRUPTED
    parked = child.run_turn("hello", version=3)
    await child.frame(NeedHistory, lambda frame: frame.turn == parked)
    child.send(Drain())
    assert isinstance(await child.outcome(parked), Parked)


async def test_a_session_that_is_deleted_while_its_turn_runs_leaves_nothing_in_the_cache(child: ChildProcess) -> None:
    gone = child.run_turn(call("nap", seconds=0.5), session="test:a:gone")
    kept = child.run_turn(call("nap", seconds=0.5), session="test:a:kept")
    stateless = child.run_turn("hello", session="api:stateless:msg_1")
    await child.frame(ToolStarted, lambda started: started.turn == gone)
    child.send(Forget("test:a:gone"))
    for turn in (gone, kept, stateless):
        assert (await child.ended(turn)).status is TurnStatus.REPLIED
    await child.frame(Report, lambda report: report.cache_misses == 3 and report.cache_size == 1)


async def test_tools_that_fork_behave_as_anywhere(child: ChildProcess) -> None:
    await child.ended(child.run_turn(call("fork_a_pool")))
    assert "[0,1,4,9,16,-15]" in child.all(ToolEnded)[0].result.message.decode().replace(" ", "")
    await child.ended(child.run_turn(call("fork_on_the_loop")))
    assert child.said("worker_said") == []  # a forked process has no part in what its worker says
    assert (await child.ended(child.run_turn("well"))).status is TurnStatus.REPLIED


async def test_what_a_worker_starts_inherits_its_standard_descriptors_alone(config: WorkerConfig) -> None:
    async with child_process(msgspec.structs.replace(config, mcp_servers=(bare("t"),))) as running:
        running.send(Serve())
        await until(lambda: bool(running.said("mcp_server_ready")))
        turn = running.run_turn(f"{call('descriptors')} {call('t__descriptors')}")
        started = await running.frame(ToolStarted, lambda frame: frame.waits)
        running.send(IntentCommitted(turn, started.intent.call_id))
        await running.ended(turn)
        told = {ended.result.call_id: json.loads(ended.result.message)["content"] for ended in running.all(ToolEnded)}
        assert sorted(told.values()) == ["[0, 1, 2]", "[]"]


async def test_warnings_of_libraries_reach_the_host_without_secrets(child: ChildProcess) -> None:
    await child.ended(child.run_turn(call("complain", about=KEY)))
    await until(lambda: bool(child.said("worker_said")))
    fields = child.said("worker_said")[0].fields
    assert fields == {"logger": "some.library", "level": "warning", "text": "something is wrong with ***"}


async def test_the_log_holds_every_message_and_the_end(child: ChildProcess, config: WorkerConfig) -> None:
    turn = child.run_turn(call("roll", sides=6))
    await child.ended(turn)
    await until(lambda: len(log_lines(config, "test:a:1")) == 5)
    lines = log_lines(config, "test:a:1")
    assert [line.get("role") or line["event"] for line in lines] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "turn_ended",
    ]
    assert all(line["session"] == "test:a:1" and line["message"] == "msg_1" and line["turn"] == 1 for line in lines)
    assert lines[-1]["status"] == "replied"
    assert lines[-1]["model_calls"] == 2


async def test_a_drain_parks_at_the_step_boundary_writes_the_logs_and_ends_in_peace(
    config: WorkerConfig, tmp_path: Path
) -> None:
    slow_log = msgspec.structs.replace(config, log_flush_interval_s=60.0)
    async with child_process(slow_log) as child:
        parked = child.run_turn(f"{call('nap', seconds=0.2)} [[then]] [[stall]]")
        finished = child.run_turn("[[sleep 0.2]] last words")
        hung = child.run_turn(call("sleep_in_a_thread", pid_file=str(tmp_path / "pid")))
        await child.frame(ToolStarted, lambda started: started.turn == parked)
        await until((tmp_path / "pid").exists)
        child.send(Drain())
        late = child.run_turn("too late")
        assert isinstance(await child.outcome(late), Parked)
        assert isinstance(await child.outcome(parked), Parked)
        assert "last words" in (await child.ended(finished)).text
        assert child.all(Drained) == []
        child.send(Interrupt(hung))
        await child.frame(Drained)
        assert isinstance(child.frames[-1][1], Drained)
        assert await child.exit_status() == 0
        assert log_lines(config, f"test:a:{finished}")[-1]["event"] == "turn_ended"
        grandchild = int((tmp_path / "pid").read_text())
        await until(lambda: not alive(grandchild))


async def test_an_idle_child_drains_at_once(child: ChildProcess) -> None:
    child.send(Drain())
    await child.frame(Drained, within_s=2)
    assert await child.exit_status() == 0


async def test_when_its_parent_is_gone_a_child_writes_its_logs_and_ends_its_whole_group(
    config: WorkerConfig, tmp_path: Path
) -> None:
    async with child_process(msgspec.structs.replace(config, log_flush_interval_s=60.0)) as child:
        await child.ended(child.run_turn("to be kept"))
        child.run_turn(call("sleep_in_a_thread", pid_file=str(tmp_path / "pid")))
        await until((tmp_path / "pid").exists)
        grandchild = int((tmp_path / "pid").read_text())
        assert alive(grandchild)
        child.hang_up()
        await until(lambda: not alive(child.pid) and not alive(grandchild))
        assert log_lines(config, "test:a:1")[-1]["event"] == "turn_ended"


async def test_signals_meant_for_the_parent_do_not_end_a_child(child: ChildProcess) -> None:
    os.kill(child.pid, signal.SIGTERM)
    os.kill(child.pid, signal.SIGINT)
    assert (await child.ended(child.run_turn("still here"))).text == "echo: still here"


async def test_a_blocked_loop_names_its_turn_and_shows_its_stack(child: ChildProcess) -> None:
    innocent = child.run_turn("[[stall]]")
    turn = child.run_turn(call("block_the_loop"))
    await until(lambda: child.page.beat_age_s() > 0.5)
    assert child.page.running() == turn != innocent
    os.kill(child.pid, signal.SIGUSR1)
    await until(lambda: "block_the_loop" in child.stacks())


async def test_a_held_gil_names_nobody_and_shows_its_stack(child: ChildProcess) -> None:
    child.run_turn(call("hold_the_gil"))
    await until(lambda: child.page.beat_age_s() > 0.5)
    assert child.page.running() == 0
    os.kill(child.pid, signal.SIGUSR1)
    await until(lambda: "hold_the_gil" in child.stacks())


async def test_a_child_beats_while_it_is_idle_and_while_it_works(child: ChildProcess) -> None:
    turns = [child.run_turn(call("nap", seconds=0.5)) for _ in range(5)]
    worst = 0.0
    for _ in range(100):
        worst = max(worst, child.page.beat_age_s())
        await asyncio.sleep(0.01)
    assert 0.0 < worst < 1.0
    for turn in turns:
        await child.ended(turn)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"tool_modules": ("no.such.module",)}, "GATEHOUSE_TOOLS: no.such.module"),
        ({"models": (ModelSpec("nobody", "x"),)}, "nobody"),
    ],
)
async def test_a_child_that_cannot_start_says_why(config: WorkerConfig, changed: dict[str, Any], problem: str) -> None:
    async with child_process(msgspec.structs.replace(config, **changed), ready=False) as child:
        assert await child.exit_status() == 1
        assert problem in str(child.said("worker_failed_to_start")[0].fields["error"])
        assert child.all(Ready) == []
