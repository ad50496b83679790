"""Turns that wait for a model or a tool take no place from turns that could run."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from loadtests.provider import RunningProvider, running_provider
from shared.events import Event, Events
from shared.settings import parse_settings
from shared.store import open_store
from tests.worker.pool.conditions import until
from tests.worker.pool.test_pool import RecordingObserver, RunningPool
from worker.pool import Pool

#: what one answer takes, in seconds: long enough that a busy machine is a small part of it
ANSWER_S = 1.5
#: how often the two times are taken at most, until the ratio of the least is as it should be
ROUNDS = 6
StartPool = Callable[..., Awaitable[RunningPool]]


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    with running_provider() as running:
        yield running


@pytest.fixture
async def start_pool(tmp_path: Path, provider: RunningProvider) -> AsyncIterator[StartPool]:
    async with AsyncExitStack() as stack:

        async def start(**changed: str) -> RunningPool:
            values = {
                "GATEHOUSE_DATA_DIR": str(tmp_path),
                "GATEHOUSE_WORKERS": "2",
                "GATEHOUSE_TURNS_PER_WORKER": "2",
                "GATEHOUSE_MODEL": "openai:scripted",
                "OPENAI_BASE_URL": provider.openai_url,
                "GATEHOUSE_TOOLS": "tests.e2e.hostile_tools",
                "GATEHOUSE_HEARTBEAT_TIMEOUT": "30",
            }
            store = open_store("", tmp_path, inbox_limit=1000)
            await store.open()
            stack.push_async_callback(store.close)
            observer, events = RecordingObserver(), Events()
            pool = Pool(parse_settings(values | changed), store, events, observer, "host")
            stack.push_async_callback(pool.close)
            await pool.start()
            made = RunningPool(pool, store, observer, events)
            await made.spare()
            return made

        yield start


async def seconds_of(running: RunningPool, count: int, sessions: str) -> float:
    """Have so many messages answered, and return the seconds from the first one's arrival to the last answer."""
    began = time.monotonic()
    messages = [await running.say(f"{sessions}{n}", f"[[sleep {ANSWER_S}]] fine") for n in range(count)]
    await running.done(*messages, within_s=60)
    took_s = time.monotonic() - began
    for message in messages:
        assert "fine" in await running.reply(message)
    return took_s


def in_calls(running: RunningPool) -> int:
    return sum(row.waiting for row in running.pool.snapshot().workers)


async def test_healthy_messages_wait_no_longer_for_hung_calls_in_any_number(start_pool: StartPool) -> None:
    running = await start_pool()
    await seconds_of(running, 4, "warm")
    alone_s, beside_s = [], []
    for turn in range(ROUNDS):  # the least of some rounds: what else runs on the machine takes its part of each
        alone_s.append(await seconds_of(running, 50, f"alone{turn}."))
        hung = [await running.say(f"hung{n}", "[[stall]]") for n in range(60)]
        await until(lambda: in_calls(running) == 60, "they hang")
        beside_s.append(await seconds_of(running, 50, f"beside{turn}."))
        assert in_calls(running) == 60
        for n in range(60):
            assert await running.pool.interrupt(f"standard:a:hung{n}")
        await running.done(*hung)
        if min(beside_s) <= 1.1 * min(alone_s):
            break
    assert min(beside_s) <= 1.1 * min(alone_s)


async def test_tools_that_sleep_in_every_place_keep_no_new_session_waiting(start_pool: StartPool) -> None:
    running = await start_pool()
    for n in range(140):  # more than the threads of two workers used to be
        await running.say(f"asleep{n}", '[[tool rest {"seconds": 60}]]')
    await until(lambda: running.observer.tools.count("rest") == 140, "they all sleep", 30)
    assert "fine" in await running.reply(
        await running.say("new", '[[tool rest {"seconds": 0.1}]] [[then]] [[say fine]]')
    )
    assert len(running.observer.settled_ids) == 1


async def test_where_more_calls_hang_than_may_wait_a_new_message_finds_a_place_and_they_go_on_later(
    start_pool: StartPool, provider: RunningProvider
) -> None:
    running = await start_pool(
        GATEHOUSE_WORKERS="1", GATEHOUSE_TURNS_PER_WORKER="2", GATEHOUSE_WAITING_TURNS="4", GATEHOUSE_TURN_TIMEOUT="9"
    )

    async def wait_s(session: str) -> float:
        began = time.monotonic()
        await running.done(await running.say(session, "[[sleep 0.4]] fine"))
        return time.monotonic() - began

    alone_s = min([await wait_s(f"alone{n}") for n in range(4)])
    before = provider.running
    hung = [
        await running.say(f"hung{n}", f"[[stall times=1]] fine {n}" if n % 2 else f"[[stall]] {n}") for n in range(20)
    ]
    await until(lambda: set(hung) <= set(running.observer.started), "all have begun", 30)
    waits_s: list[float] = []
    while len(waits_s) < 4 or (min(waits_s) > 1.1 * alone_s and len(waits_s) < 10):
        waits_s.append(await wait_s(f"beside{len(waits_s)}"))
    assert min(waits_s) <= 1.1 * alone_s
    assert max(waits_s) <= alone_s + 2
    assert provider.running - before <= 6, "a worker holds no more turns than it may"
    silent = [n for n in range(0, 20, 2) if running.pool.running_turn(f"standard:a:hung{n}") is None]
    assert await running.pool.interrupt(f"standard:a:hung{silent[0]}")
    await running.done(hung.pop(silent[0]), within_s=5)
    await running.done(*hung, within_s=30)
    answered = 0
    for message in hung:
        n = int((await running.trace(message)).session.removeprefix("standard:a:hung"))
        trace = await running.trace(message)
        assert trace.attempts == 0
        assert trace.settled_at is not None
        assert trace.claimed_at is not None
        assert trace.settled_at - trace.claimed_at < 12
        if not trace.error:
            assert n % 2, "a call that always hangs has no answer"
            assert "fine" in await running.reply(message)
            answered += 1
        else:
            assert trace.error == "turn timeout"
            assert trace.usage.estimated_calls >= 1
    assert answered >= 3, "who was let go goes on and is answered: all but those whose place nobody wanted"
    assert 14 <= running.events.counts[Event.TURN_LET_GO] <= 20 * 5, "none of them churns"


async def test_where_as_many_tools_sleep_as_may_the_longest_waiting_are_named(start_pool: StartPool) -> None:
    running = await start_pool(GATEHOUSE_WORKERS="1", GATEHOUSE_TURNS_PER_WORKER="1", GATEHOUSE_WAITING_TURNS="2")
    first = await running.say("first", '[[tool rest {"seconds": 60}]]')
    await until(lambda: running.observer.tools == ["rest"], "the first sleeps")
    for session in ("second", "third"):
        await running.say(session, '[[tool rest {"seconds": 60}]]')

    def waits() -> list[str]:
        return [turn.waits_for for turn in running.pool.snapshot().workers[0].longest_waiting]

    await until(lambda: waits() == ["rest", "rest", "rest"], "all wait")
    last = await running.say("last", "fine")
    (row, *_) = running.pool.snapshot().workers
    assert {(turn.session, turn.waits_for) for turn in row.longest_waiting} == {
        ("standard:a:first", "rest"),
        ("standard:a:second", "rest"),
        ("standard:a:third", "rest"),
    }
    assert row.longest_waiting[0].message_id == first
    await until(lambda: running.events.counts[Event.WAITING_LIMIT_REACHED] == 1, "it is said")
    assert last not in running.observer.started
    assert await running.pool.interrupt("standard:a:third")
    assert "fine" in await running.reply(last)
