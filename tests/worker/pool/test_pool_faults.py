"""Exceptions that nobody expected, planted wherever the pool acts: one message pays, and no loop ends."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.provider import RunningProvider, running_provider
from shared.errors import StoreUnavailable
from shared.events import Event, Events
from shared.messages import Ended, MessageState, Outcome
from shared.settings import parse_settings
from shared.store import open_store
from shared.store.sql.claims import Claims
from shared.store.sql.sessions import Sessions
from tests.shared.store.scratch import rewrite
from tests.worker.pool.conditions import until
from tests.worker.pool.test_pool import RecordingObserver, RunningPool
from worker.pool import Pool
from worker.pool.hang_detector import HangDetector
from worker.pool.turns.active_turn import ActiveTurn
from worker.pool.turns.claimer import LEASE_S, Claimer
from worker.pool.turns.turns import Turns

#: makes a step with a tool call, so a checkpoint and a journal, then an answer
TEXT = '[[tool todo {"todos": [{"id": "1", "content": "milk"}]}]] [[then]] [[say fine]]'
#: the same, with time for what is written behind the turn
SLOW_TEXT = TEXT.replace("[[then]]", '[[tool rest {"seconds": 1.5}]] [[then]] [[sleep 1.5]]')


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    with running_provider() as running:
        yield running


@pytest.fixture
async def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
async def running(tmp_path: Path, provider: RunningProvider, observer: RecordingObserver) -> AsyncIterator[RunningPool]:
    values = {
        "GATEHOUSE_DATA_DIR": str(tmp_path),
        "GATEHOUSE_WORKERS": "1",
        "GATEHOUSE_MODEL": "openai:scripted",
        "OPENAI_BASE_URL": provider.openai_url,
        "GATEHOUSE_TOOLS": "tests.e2e.hostile_tools",
        "GATEHOUSE_HEARTBEAT_TIMEOUT": "30",
        "GATEHOUSE_MAX_ATTEMPTS": "2",
    }
    store = open_store("", tmp_path, inbox_limit=1000)
    await store.open()
    events = Events()
    pool = Pool(parse_settings(values), store, events, observer, "host")
    await pool.start()
    made = RunningPool(pool, store, observer, events)
    await made.spare()
    yield made
    await pool.close()
    await store.close()


def plant(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, hits: Callable[..., bool]) -> None:
    """Have a method raise whenever its arguments are hit."""
    real = getattr(owner, method)

    @functools.wraps(real)
    def planted(*args: Any, **more: Any) -> Any:
        if hits(*args, **more):
            raise ZeroDivisionError(f"planted in {method}")
        return real(*args, **more)

    monkeypatch.setattr(owner, method, planted)


def of_turn(session: str) -> Callable[..., bool]:
    return lambda turn, *_: bool(turn.session == f"standard:a:{session}")


def of_claim(session: str) -> Callable[..., bool]:
    return lambda _, ref, *__: bool(ref.session == f"standard:a:{session}")


#: the session whose turn fails, and where
PLANTED: list[tuple[str, type, str, Callable[..., bool]]] = [
    ("settle", Claims, "settle", lambda _, ref, outcome: "settle" in ref.session and isinstance(outcome, Ended)),
    ("checkpoint", Claims, "checkpoint", of_claim("checkpoint")),
    ("journal", Claims, "journal", of_claim("journal")),
    ("history", Sessions, "context", lambda _, session, *__: bool(session == "standard:a:history")),
    ("claim", Turns, "begin", lambda _, claim: bool(claim.ref.session == "standard:a:claim")),
    ("start", ActiveTurn, "begin", of_turn("start")),
    ("step", ActiveTurn, "finish", of_turn("step")),
    ("tool", ActiveTurn, "take_result", of_turn("tool")),
    ("end", ActiveTurn, "whole", of_turn("end")),
]


async def test_what_goes_wrong_at_one_message_ends_as_its_dead_letter_and_holds_up_no_other(
    running: RunningPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # of a new session no history is read, and what a worker knows is not read again
    assert "fine" in await running.reply(await running.say("history", TEXT))
    await rewrite(running.store, "standard:a:history", await running.store.sessions.conversation("standard:a:history"))
    for _, owner, method, hits in PLANTED:
        plant(monkeypatch, owner, method, hits)
    poison = {session: await running.say(session, SLOW_TEXT) for session, *_ in PLANTED}
    healthy = [await running.say(f"healthy{n}", TEXT) for n in range(5)]
    for message in healthy:
        assert "fine" in await running.reply(message)
    for session, message in poison.items():
        assert (session, await running.reply_state(message)) == (session, MessageState.DEAD)
    letters = {letter.id: letter.error for letter in (await running.store.inbox.dead()).letters}
    assert all("planted in" in letters[message] for message in poison.values())
    assert running.events.counts[Event.POOL_FAULT] >= len(PLANTED)
    await until(lambda: running.pool.snapshot().running == 0, "no turn is left behind")
    assert "fine" in await running.reply(await running.say("later", TEXT))
    assert running.pool.ready
    assert running.events.counts[Event.WORKER_HUNG] == 0


async def test_a_step_that_cannot_be_written_of_a_turn_that_moves_ends_as_a_dead_letter_at_once(
    running: RunningPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, Claims, "checkpoint", of_claim("moving"))
    message = await running.say("moving", SLOW_TEXT)
    await until(lambda: "rest" in running.observer.tools, "it is in its first step")
    assert await running.pool.recycle_worker(0)
    await until(lambda: running.events.counts[Event.MESSAGE_DEAD] == 1, "it ends before its lease does", LEASE_S - 5)
    letters = {letter.id: letter.error for letter in (await running.store.inbox.dead()).letters}
    assert "planted in checkpoint" in letters[message]
    assert await running.reply(await running.say("moving", "[[say fine]]"))


async def test_a_loop_that_fails_is_told_and_goes_on(running: RunningPool, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = {"look": 2, "renew_if_due": 2}

    def first(method: str) -> bool:
        faults[method] -= 1
        return faults[method] >= 0

    plant(monkeypatch, Claimer, "look", lambda *_: first("look"))
    plant(monkeypatch, Claimer, "renew_if_due", lambda *_: first("renew_if_due"))
    running.pool.wake()
    await until(lambda: not running.pool.ready, "a pool that cannot claim is not ready")
    message = await running.say("s", TEXT)
    assert "fine" in await running.reply(message)
    await until(lambda: running.pool.ready, "it is ready again")


async def test_a_worker_that_cannot_be_watched_is_replaced(
    running: RunningPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = running.pool.snapshot().workers[0].pid
    plant(monkeypatch, HangDetector, "_look_at", lambda _, worker, *__: bool(worker.pid == first))
    await until(lambda: running.pool.snapshot().workers[0].pid not in {0, first}, "it is replaced")
    assert "fine" in await running.reply(await running.say("s", TEXT))


class Raising(RecordingObserver):
    """Records what it is told, then raises."""

    def turn_started(self, message_id: str, session: str, worker: str) -> None:
        super().turn_started(message_id, session, worker)
        raise ZeroDivisionError("planted")

    def delta(self, message_id: str, session: str, step: int, text: str) -> None:
        raise ZeroDivisionError("planted")

    def tool_said(self, message_id: str, session: str, name: str, text: str) -> None:
        """Not looked at."""

    def tool_started(self, message_id: str, session: str, name: str) -> None:
        raise ZeroDivisionError("planted")

    def todo_changed(self, session: str, todo: bytes) -> None:
        raise ZeroDivisionError("planted")

    def settled(self, message_id: str, session: str, outcome: Outcome) -> None:
        super().settled(message_id, session, outcome)
        raise ZeroDivisionError("planted")


class TestWithAnObserverThatRaises:
    @pytest.fixture
    async def observer(self) -> RecordingObserver:
        return Raising()

    async def test_who_only_watches_a_turn_cannot_end_it(self, running: RunningPool) -> None:
        messages = [await running.say(f"s{n}", TEXT) for n in range(2)]
        for message in messages:
            assert "fine" in await running.reply(message)
        await running.done(*messages)
        assert len(running.observer.started) == 2


async def test_a_store_that_is_away_is_said_once_and_no_fault_of_the_pool(running: RunningPool) -> None:
    await running.store.close()
    running.pool.wake()
    await until(lambda: running.events.counts[Event.STORE_UNAVAILABLE], "it is said")
    with pytest.raises(StoreUnavailable):
        await running.store.check()
    running.pool.wake()
    await until(lambda: running.pool._health.pause_s > 0.3, "it was asked again")
    assert running.events.counts[Event.STORE_UNAVAILABLE] == 1
    assert running.events.counts[Event.POOL_FAULT] == 0
    assert running.pool.ready


async def test_claims_that_come_while_claiming_stops_are_parked(running: RunningPool) -> None:
    for n in range(20):
        await running.say(f"s{n}", TEXT)
    await running.pool.drain(10)
    rows = await running.store.sessions.latest(100)
    assert [row.key for row in rows if row.running] == []
