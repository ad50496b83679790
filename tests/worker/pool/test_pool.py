"""The whole pool over the real store, real workers and a scripted provider."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtests.provider import RunningProvider, running_provider
from shared.command import Command, CommandKind
from shared.events import Event, Events
from shared.messages import Arrival, Claim, ClaimRef, MessageState, Outcome, Pending, Retry
from shared.session_files import session_log_path
from shared.settings import parse_settings
from shared.store import Store, open_store
from shared.traces import MessageTrace
from shared.when_busy import WhenBusy
from tests.worker.pool.conditions import until
from worker.pool import Pool, WorkerState
from worker.pool.hang_detector import LATE_S, HangDetector, Hung, Limits
from worker.pool.turns.active_turn import ActiveTurn
from worker.pool.turns.claimer import LEASE_S


def arrival(session: str) -> Arrival:
    message = f"msg_{session:>032}".replace(" ", "0")
    return Arrival(message, f"standard:a:{session}", "standard", "ann", "hello", b"{}", (), 60.0, 1.0)


class RecordingObserver:
    """Keeps what the pool tells of its turns."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.tools: list[str] = []
        self.settled_ids: list[str] = []
        self.todos: list[bytes] = []

    def turn_started(self, message_id: str, session: str, worker: str) -> None:
        self.started.append(message_id)

    def delta(self, message_id: str, session: str, step: int, text: str) -> None: ...

    def tool_said(self, message_id: str, session: str, name: str, text: str) -> None:
        """Not looked at."""

    def text_restarted(self, message_id: str, session: str, step: int) -> None: ...

    def model_away(self, message_id: str, session: str, model: str, problem: str) -> None: ...

    def tool_started(self, message_id: str, session: str, name: str) -> None:
        self.tools.append(name)

    def todo_changed(self, session: str, todo: bytes) -> None:
        self.todos.append(todo)

    def settling(self, session: str) -> None: ...

    def settled(self, message_id: str, session: str, outcome: Outcome) -> None:
        self.settled_ids.append(message_id)


class RunningPool:
    """A pool with its store, and what tests ask of both."""

    def __init__(self, pool: Pool, store: Store, observer: RecordingObserver, events: Events) -> None:
        self.pool = pool
        self.store = store
        self.observer = observer
        self.events = events
        self._count = 0

    async def say(self, session: str, text: str, **more: Any) -> str:
        """Accept a message, ``more`` of its fields as given, and wake the pool; return its id."""
        self._count += 1
        message = f"msg_{self._count:032}"
        key = f"standard:a:{session}"
        arrival = Arrival(message, key, "standard", "ann", text, b"{}", (message,), 60.0, 1.0)
        await self.store.inbox.accept(msgspec.structs.replace(arrival, **more))
        self.pool.wake()
        return message

    async def trace(self, message: str) -> MessageTrace:
        return await self.store.inbox.trace(message)

    async def done(self, *messages: str, within_s: float = 20.0) -> None:
        await until(lambda: set(messages) <= set(self.observer.settled_ids), f"{messages} are settled", within_s)

    async def reply(self, message: str) -> str:
        """Return what was replied to a message, however often it had to run."""
        await self.reply_state(message)
        key = (await self.trace(message)).session
        return (await self.store.sessions.conversation(key)).messages[-1].decode()

    async def reply_state(self, message: str) -> MessageState:
        """Return where a message is once it does not wait any more."""
        async with asyncio.timeout(30):
            while (state := (await self.trace(message)).state) is MessageState.WAITING:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # the store's to know
        return state

    def silent_s(self) -> float:
        """Return for how long the loop of the first worker has not run."""
        worker = self.pool._supervisor.slots[0]
        return worker.page.beat_age_s() if worker else 0.0

    async def spare(self) -> None:
        await until(lambda: self.pool.ready and self.pool.snapshot().spares == 1, "a spare is ready", 30)


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    with running_provider() as running:
        yield running


StartPool = Callable[..., Awaitable[RunningPool]]


@pytest.fixture
async def start_pool(tmp_path: Path, provider: RunningProvider) -> AsyncIterator[StartPool]:
    async with AsyncExitStack() as stack:

        async def make(*, clock: Callable[[], float] = time.time, **changed: str) -> RunningPool:
            values = {
                "GATEHOUSE_DATA_DIR": str(tmp_path),
                "GATEHOUSE_WORKERS": "1",
                "GATEHOUSE_MODEL": "openai:scripted",
                "OPENAI_BASE_URL": provider.openai_url,
                "GATEHOUSE_TOOLS": "tests.e2e.hostile_tools",
                "GATEHOUSE_HEARTBEAT_TIMEOUT": "30",
            }
            store = open_store("", tmp_path, inbox_limit=1000, clock=clock)
            await store.open()
            stack.push_async_callback(store.close)
            observer, events = RecordingObserver(), Events()
            pool = Pool(parse_settings(values | changed), store, events, observer, "host")
            stack.push_async_callback(pool.close)
            await pool.start()
            made = RunningPool(pool, store, observer, events)
            await made.spare()
            return made

        yield make


async def test_a_suspect_runs_once_and_in_a_worker_of_its_own(start_pool: StartPool, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    call = msgspec.json.encode({"path": str(notes), "line": "ran"}).decode()
    store = open_store("", tmp_path, inbox_limit=10)
    await store.open()
    key, suspect = "standard:a:s", f"msg_{0:032}"
    await store.inbox.accept(Arrival(suspect, key, "standard", "ann", f"[[tool note {call}]]", b"{}", (), 60.0, 1.0))
    (claim,) = (await store.claims.claim("host", 1, 30)).claims
    # long enough for a spare to stand ready when the quarantine is opened
    await store.claims.settle(claim.ref, Retry(2.5, 1, True, "its worker died"))
    await store.close()
    again = await start_pool()
    await until(lambda: suspect in again.observer.settled_ids, "the suspect is settled", 20)
    assert notes.read_text("utf-8") == "ran\n"
    assert again.observer.started == [suspect]
    assert WorkerState.QUARANTINE in {row.state for row in again.pool.snapshot().workers}


async def test_what_a_killed_worker_had_not_written_to_its_logs_yet_is_written(
    start_pool: StartPool, tmp_path: Path
) -> None:
    made = await start_pool(GATEHOUSE_LOG_FLUSH_INTERVAL="60")
    path = session_log_path(tmp_path / "logs", "standard:a:logged")
    await made.done(await made.say("logged", "these words wait in the ring"))
    assert not path.exists()
    assert await made.pool.kill_worker(0)
    await until(lambda: path.exists() and "these words" in path.read_text("utf-8"), "they are salvaged", 20)


async def test_nobody_is_judged_right_after_this_process_stood_still(start_pool: StartPool) -> None:
    made = await start_pool()
    worker = made.pool._supervisor.slots[0]
    assert worker is not None
    overdue = ActiveTurn(7, Claim(ClaimRef("s", 7), "p", 0, (Pending("m", 1, "ann", "hi", 0.0),)))
    overdue.started_mono, overdue.worker = time.monotonic() - 100, worker
    limits = Limits(turn_timeout_s=1, kill_grace_s=1, heartbeat_timeout_s=5, memory_bytes=1 << 40, turns=1000)
    detector = HangDetector(limits)
    assert [type(found) for found in detector.look([worker], [overdue])] == [Hung]
    detector._looked_mono -= LATE_S  # as if this process had been stopped since
    assert list(detector.look([worker], [overdue])) == []
    await asyncio.sleep(0)
    detector._judge_from_mono -= LATE_S
    assert [type(found) for found in detector.look([worker], [overdue])] == [Hung]


async def test_a_killed_workers_turns_go_on_at_once_in_the_spare_and_use_no_attempt(start_pool: StartPool) -> None:
    made = await start_pool()
    messages = [await made.say(f"s{n}", f"[[sleep 2]] answer {n}") for n in range(3)]
    await until(lambda: len(made.observer.started) == 3, "they run")
    await made.spare()
    assert await made.pool.kill_worker(0)
    await until(lambda: sorted(made.observer.started) == sorted(messages * 2), "they run again", 3.5)
    for n, message in enumerate(messages):
        assert f"answer {n}" in await made.reply(message)
        assert (await made.trace(message)).attempts == 0
    assert made.pool.snapshot().restarts == 1


async def test_neighbours_of_a_turn_that_ends_its_worker_use_no_attempt(start_pool: StartPool) -> None:
    made = await start_pool(GATEHOUSE_MAX_ATTEMPTS="1")
    neighbours = [await made.say(f"n{n}", f"[[sleep 2]] neighbour {n}") for n in range(3)]
    await until(lambda: len(made.observer.started) == 3, "they run")
    poison = await made.say("poison", "[[tool block_the_loop {}]]")
    await until(lambda: made.silent_s() > 1, "it holds up the loop")
    await made.pool.kill_worker(0)
    for n, message in enumerate(neighbours):
        assert f"neighbour {n}" in await made.reply(message)
        assert (await made.trace(message)).attempts == 0
    assert (await made.trace(poison)).state is MessageState.DEAD
    assert sorted(made.observer.started) == sorted([*neighbours * 2, poison])


async def test_a_tool_that_kills_its_worker_unseen_is_a_dead_letter_after_its_attempts(start_pool: StartPool) -> None:
    made = await start_pool()
    neighbours = [await made.say(f"n{n}", f"[[sleep 2]] neighbour {n}") for n in range(2)]
    await until(lambda: len(made.observer.started) == 2, "they run")
    poison = await made.say("poison", "[[tool die {}]]")
    await made.done(poison)
    await until(lambda: made.observer.started.count(poison) == 3, "it ran as often as it may", 30)
    for n, message in enumerate(neighbours):
        assert f"neighbour {n}" in await made.reply(message)
        assert (await made.trace(message)).attempts == 0
    await until(lambda: made.events.counts[Event.MESSAGE_DEAD] == 1, "it is given up")
    (letter,) = (await made.store.inbox.dead()).letters
    assert (letter.id, letter.attempts) == (poison, 3)
    assert made.observer.started.count(poison) == 3


async def test_who_is_kept_from_its_end_by_a_neighbours_hang_runs_again(start_pool: StartPool) -> None:
    made = await start_pool(GATEHOUSE_TURN_TIMEOUT="2", GATEHOUSE_KILL_GRACE="0.5")
    innocent = [await made.say(f"n{n}", f"[[sleep 1.5]] fine {n}") for n in range(3)]
    await until(lambda: len(made.observer.started) == 3, "they run")
    hung = await made.say("blocker", "[[tool block_the_loop {}]]")
    for n, message in enumerate(innocent):
        assert f"fine {n}" in await made.reply(message)
        assert (await made.trace(message)).attempts == 0
    assert (await made.trace(hung)).state is MessageState.DONE
    assert sorted(made.observer.started) == sorted([*innocent * 2, hung])


async def test_a_message_under_which_its_host_died_as_often_as_it_may_is_given_up(
    start_pool: StartPool, tmp_path: Path
) -> None:
    store = open_store("", tmp_path, inbox_limit=10)
    await store.open()
    await store.inbox.accept(arrival("s"))
    (claim,) = (await store.claims.claim("host", 1, 30)).claims
    await store.claims.settle(claim.ref, Retry(0, 2, True, "its worker died"))
    await store.claims.claim("host", 1, 30, suspects=True)
    assert await store.claims.adopt("another") == 1
    await store.close()
    made = await start_pool()
    await made.done(arrival("s").id)
    assert made.observer.started == []
    (letter,) = (await made.store.inbox.dead()).letters
    assert (letter.id, letter.attempts) == (arrival("s").id, 3)


async def test_suspects_run_side_by_side_and_each_alone(start_pool: StartPool) -> None:
    made = await start_pool(GATEHOUSE_HEARTBEAT_TIMEOUT="1", GATEHOUSE_MAX_ATTEMPTS="2")
    innocent = [await made.say(f"s{n}", '[[tool rest {"seconds": 3}]]') for n in range(2)]
    await until(lambda: made.observer.tools == ["rest"] * 2, "their tools run")
    culprit = await made.say("culprit", "[[tool hold_the_gil {}]]")
    await until(lambda: len(made.observer.started) == 6, "they run again")
    rows = [row for row in made.pool.snapshot().workers if row.state is WorkerState.QUARANTINE]
    assert [row.turns for row in rows] == [1, 1, 1]
    await until(lambda: made.events.counts[Event.MESSAGE_DEAD] == 1, "the culprit is given up")
    assert (await made.trace(culprit)).state is MessageState.DEAD
    for message in innocent:
        assert "rested" in await made.reply(message)
        assert (await made.trace(message)).attempts == 0


async def test_a_spare_that_stands_still_is_replaced_before_it_is_needed(start_pool: StartPool) -> None:
    made = await start_pool(GATEHOUSE_HEARTBEAT_TIMEOUT="1")
    (spare,) = made.pool._supervisor.spares
    os.kill(spare.pid, signal.SIGSTOP)
    await until(lambda: made.events.counts[Event.WORKER_DIED] == 1, "it is found and killed")
    await made.spare()
    assert "well" in await made.reply(await made.say("s", "well"))


async def test_a_fork_server_that_is_killed_costs_its_workers_turns_no_attempt(start_pool: StartPool) -> None:
    made = await start_pool()
    messages = [await made.say(f"s{n}", f"[[sleep 1]] answer {n}") for n in range(2)]
    await until(lambda: len(made.observer.started) == 2, "they run")
    worker = made.pool._supervisor.slots[0]
    assert worker is not None
    os.kill(worker.server_pid, signal.SIGKILL)
    for n, message in enumerate(messages):
        assert f"answer {n}" in await made.reply(message)
        trace = await made.trace(message)
        assert (trace.attempts, trace.suspect) == (0, False)


async def test_a_drain_parks_and_a_later_pool_answers_without_an_attempt(start_pool: StartPool) -> None:
    made = await start_pool()
    messages = [await made.say(f"s{n}", f"[[sleep 3]] answer {n}") for n in range(4)]
    await until(lambda: len(made.observer.started) == 4, "they run")
    await made.pool.drain(0.5)
    assert not made.pool.ready
    assert {(await made.trace(message)).state for message in messages} == {MessageState.WAITING}
    await made.pool.close()
    await made.store.close()
    again = await start_pool()
    for n, message in enumerate(messages):
        assert f"answer {n}" in await again.reply(message)
        assert (await again.trace(message)).attempts == 0


async def test_a_stopped_worker_is_found_killed_and_its_turns_answered(start_pool: StartPool) -> None:
    made = await start_pool(GATEHOUSE_HEARTBEAT_TIMEOUT="1")
    message = await made.say("s", "[[sleep 1]] fine")
    await until(lambda: made.observer.started, "it runs")
    os.kill(made.pool.snapshot().workers[0].pid, signal.SIGSTOP)
    assert "fine" in await made.reply(message)
    assert made.events.counts[Event.WORKER_HUNG] == 1
    assert (await made.trace(message)).attempts == 0


async def test_the_todo_list_is_told_while_the_step_that_changes_it_still_runs(start_pool: StartPool) -> None:
    made = await start_pool()
    milk = '{"todos": [{"id": "1", "content": "milk"}]}'
    message = await made.say("s", f"[[tool todo {milk}]] [[tool sleep_on_the_loop]]")
    await until(lambda: made.observer.todos, "the list is told")
    listed = b'[{"id":"1","content":"milk","status":"pending"}]'
    assert made.pool.todo("standard:a:s") == listed
    assert (await made.store.sessions.conversation("standard:a:s")).todo is None
    assert await made.pool.interrupt("standard:a:s")
    await made.done(message)
    assert made.observer.todos == [listed]
    assert made.pool.todo("standard:a:s") is None
    assert (await made.store.sessions.conversation("standard:a:s")).todo == listed


async def test_what_a_dead_turn_did_to_the_todo_list_goes_with_it(start_pool: StartPool) -> None:
    made = await start_pool(GATEHOUSE_MAX_ATTEMPTS="1")
    milk = '{"todos": [{"id": "1", "content": "milk"}]}'
    message = await made.say("s", f"[[tool todo {milk}]] [[then]] [[sleep 1 times=1]] [[tool die {{}}]]")
    await until(lambda: made.observer.todos, "the list is told")
    assert made.pool.todo("standard:a:s") is not None
    await made.done(message)
    assert (await made.trace(message)).state is MessageState.DEAD
    assert made.pool.todo("standard:a:s") is None
    assert (await made.store.sessions.conversation("standard:a:s")).todo is None


async def test_an_interrupt_ends_the_turn_and_no_other(start_pool: StartPool) -> None:
    made = await start_pool()
    stopped, other = await made.say("stopped", "[[sleep 60]]"), await made.say("other", "[[sleep 1]] on")
    await until(lambda: len(made.observer.started) == 2, "both run")
    assert await made.pool.interrupt("standard:a:stopped")
    await made.done(stopped, within_s=15)
    assert not await made.pool.interrupt("standard:a:stopped")
    assert "on" in await made.reply(other)


async def test_a_turn_that_waits_for_a_worker_is_interrupted_at_once(start_pool: StartPool) -> None:
    made = await start_pool(GATEHOUSE_TURNS_PER_WORKER="1", GATEHOUSE_WAITING_TURNS="0")
    await made.done(await made.say("first", "hello"), await made.say("second", "hello"))
    await made.say("first", "[[sleep 60]]")
    await until(lambda: len(made.observer.started) == 3, "the only place is taken")
    # a worker that stops takes no turn, so what is claimed for its place waits in the backlog
    turns = made.pool._turns
    store_claim = (await made.store.inbox.accept(arrival("waits"))).message_id
    (claim,) = (await made.store.claims.claim("host", 1, 30)).claims
    made.pool._scheduler.begin(claim)
    assert turns.of_session(claim.ref.session) is not None
    assert await made.pool.interrupt(claim.ref.session)
    await made.done(store_claim, within_s=15)


async def test_a_worker_is_replaced_after_a_set_number_of_turns_and_no_user_notices(
    start_pool: StartPool, tmp_path: Path
) -> None:
    made = await start_pool(GATEHOUSE_WORKER_TURNS="2")
    first = made.pool.snapshot().workers[0].pid
    call = msgspec.json.encode({"path": str(tmp_path / "notes"), "line": "ran"}).decode()
    long = await made.say(
        "long", f"[[tool note {call}]] [[then]] [[sleep 1.5]] [[tool note {call}]] [[then]] [[say on]]"
    )
    await until(lambda: made.observer.tools, "its first step is done")
    await made.done(await made.say("a", "hello"), await made.say("b", "hello"))
    await until(lambda: made.pool.snapshot().workers[0].pid not in {0, first}, "it is replaced")
    assert "on" in await made.reply(long)
    assert (tmp_path / "notes").read_text("utf-8") == "ran\nran\n"
    assert (await made.trace(long)).attempts == 0
    assert (made.observer.started.count(long), made.pool.snapshot().restarts) == (2, 0)


async def test_a_worker_over_its_memory_is_replaced_between_turns_and_not_before_one(start_pool: StartPool) -> None:
    made = await start_pool(GATEHOUSE_WORKER_MEMORY="128", GATEHOUSE_TOOLS="tests.worker.pool.heavy_tools")
    first = made.pool.snapshot().workers[0].pid
    await asyncio.sleep(1.5)  # a report with the memory comes each second
    assert made.pool.snapshot().workers[0].pid == first
    await made.done(await made.say("s", "hello"))
    await until(lambda: made.pool.snapshot().workers[0].pid not in {0, first}, "it is replaced")
    assert made.pool.snapshot().workers[0].state is WorkerState.READY
    assert "again" in await made.reply(await made.say("s", "again"))
    assert made.pool.snapshot().restarts == 0


async def test_pieces_of_one_thought_make_one_turn(start_pool: StartPool, provider: RunningProvider) -> None:
    made = await start_pool()
    calls = provider.calls
    pieces = [await made.say("s", text, quiet_s=0.5) for text in ("buy", "milk", "[[say bought]]")]
    await made.done(*pieces)
    assert provider.calls == calls + 1
    said = [message["content"] for message in provider.requests[-1].json()["messages"] if message["role"] == "user"]
    assert said == ["buy\n\nmilk\n\n[[say bought]]"]  # one message: templates take no two of one role in a row
    assert [(await made.trace(piece)).joined for piece in pieces] == ["", pieces[0], pieces[0]]
    assert {(await made.trace(piece)).state for piece in pieces} == {MessageState.DONE}


async def test_a_thought_that_is_stopped_before_its_turn_begins_is_stopped_with_all_its_pieces(
    start_pool: StartPool, provider: RunningProvider
) -> None:
    made = await start_pool()
    calls = provider.calls
    pieces = [await made.say("s", text, quiet_s=60.0) for text in ("buy", "milk", "[[say bought]]")]
    stop = Command(CommandKind.STOP, "Stopped.", "Nothing runs.", stopped="Stopped.")
    await made.say("s", "/stop", command=stop)
    await made.done(*pieces)
    assert provider.calls == calls
    assert [(await made.trace(piece)).joined for piece in pieces] == ["", pieces[0], pieces[0]]
    assert {(await made.trace(piece)).state for piece in pieces} == {MessageState.DONE}


async def test_what_is_asked_of_a_turn_before_its_claim_is_here_is_not_forgotten(
    start_pool: StartPool, provider: RunningProvider
) -> None:
    made = await start_pool()
    calls = provider.calls
    made.pool.stop("standard:a:s", f"msg_{1:032}")
    await made.done(await made.say("s", "[[stall]]"))
    assert provider.calls == calls
    made.pool.steer("standard:a:s")
    first = await made.say("s", "[[tool note {}]] [[then]] [[say one]]")
    second = await made.say("s", "[[say both]]", when_busy=WhenBusy.STEER)
    await made.done(first, second)
    assert (await made.trace(second)).state is MessageState.DONE


async def test_a_turn_whose_session_its_own_host_takes_again_is_ended_and_leaves_nothing(
    start_pool: StartPool, tmp_path: Path
) -> None:
    stood_still_s = 0.0
    made = await start_pool(clock=lambda: time.time() + stood_still_s)
    call = msgspec.json.encode({"path": str(tmp_path / "notes"), "line": "ran"}).decode()
    message = await made.say("s", f"[[tool note {call}]] [[then]] [[sleep 60 times=1]] [[say on]]")
    async with asyncio.timeout(10):
        while (await made.trace(message)).steps < 1:  # noqa: ASYNC110 (the store's to know)
            await asyncio.sleep(0.01)
    # the host stands still between its look for leases to renew and its look for claims
    stood_still_s = 2 * LEASE_S
    made.pool.wake()
    await until(lambda: made.observer.started.count(message) == 2, "it is claimed again")
    assert "on" in await made.reply(message)
    await until(lambda: made.pool.snapshot().workers[0].turns_done == 2, "the worker has ended the earlier one too")
    assert (tmp_path / "notes").read_text("utf-8") == "ran\n"
    assert made.observer.settled_ids == [message]
    assert [reply.text for reply in (await made.store.outbox.due("host", 10, 30)).replies] == ["on"]
    assert (await made.trace(message)).attempts == 0
    assert made.pool.snapshot().running == made.pool.snapshot().waiting == 0
    assert made.events.counts[Event.CLAIM_LOST] == 1


async def test_a_claim_that_is_lost_is_said_once_whenever_that_is_found(start_pool: StartPool) -> None:
    made = await start_pool()
    later = await made.say("later", "[[sleep 1 times=1]] [[say too late]]")
    await until(lambda: made.observer.started == [later], "it runs")
    await made.store.sessions.delete("standard:a:later")
    await until(lambda: made.events.counts[Event.CLAIM_LOST] > 0, "its end is stale")
    step = await made.say("step", '[[tool rest {"seconds": 1}]] [[then]] [[sleep 60]]')
    await until(lambda: step in made.observer.started and made.observer.tools, "it runs")
    await made.store.sessions.delete("standard:a:step")
    await until(lambda: made.pool.snapshot().running == 0, "its step is stale")
    await until(lambda: made.pool.snapshot().workers[0].turns_done == 2, "its worker has ended it")
    assert made.events.counts[Event.CLAIM_LOST] == 2
