"""Two hosts on one database: each with its own pool and workers, on a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from gateway.intake import Intake
from loadtests.provider import RunningProvider, running_provider
from shared.errors import StoreUnavailable
from shared.events import Event, Events
from shared.messages import Arrival, ClaimBatch, MessageState
from shared.settings import parse_settings
from shared.store import Store
from shared.when_busy import BusyRules
from tests.shared.store.scratch import postgres, postgres_url
from tests.worker.pool.conditions import until
from tests.worker.pool.test_pool import RecordingObserver, RunningPool
from worker.pool import Pool
from worker.pool.host_lease import LEASE_S

StartHost = Callable[..., Awaitable[RunningPool]]


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    with running_provider() as running:
        yield running


@pytest.fixture
async def start_host(tmp_path: Path, provider: RunningProvider) -> AsyncIterator[StartHost]:
    async with AsyncExitStack() as stack:

        async def start(name: str, **changed: str) -> RunningPool:
            values = {
                "GATEHOUSE_DATA_DIR": str(tmp_path / name),
                "GATEHOUSE_WORKERS": "1",
                "GATEHOUSE_MODEL": "openai:scripted",
                "OPENAI_BASE_URL": provider.openai_url,
                "GATEHOUSE_TOOLS": "tests.e2e.hostile_tools",
                "GATEHOUSE_HEARTBEAT_TIMEOUT": "30",
            }
            store: Store = postgres(tmp_path, time.time, 1000)
            await store.open()
            stack.push_async_callback(store.close)
            observer, events = RecordingObserver(), Events()
            pool = Pool(parse_settings(values | changed), store, events, observer, name)
            stack.push_async_callback(pool.close)
            await pool.start()
            made = RunningPool(pool, store, observer, events)
            if pool.snapshot().workers:
                await made.spare()
            return made

        yield start


async def test_hosts_share_the_work_and_each_hears_what_another_is_asked(start_host: StartHost) -> None:
    web = await start_host("web", GATEHOUSE_WORKERS="0")
    worker = await start_host("worker")
    await until(lambda: web.pool.other_hosts == 1, "they know each other")
    assert "fine" in await web.reply(await web.say("s", "[[say fine]]"))
    assert web.observer.started == []
    hung = await web.say("hung", "[[stall]]")
    await until(lambda: hung in worker.observer.started, "it runs on the other host")
    assert await web.pool.interrupt("standard:a:hung")
    assert await web.reply_state(hung) is MessageState.DONE
    web.pool.stop("standard:a:later", f"msg_{3:032}")
    assert await web.reply_state(await web.say("later", "[[stall]]")) is MessageState.DONE


async def test_a_host_that_joins_or_leaves_moves_nothing_of_another(start_host: StartHost) -> None:
    first = await start_host("first")
    running = await first.say("s", "[[sleep 3]] fine")
    await until(lambda: first.observer.started == [running], "it runs")
    second = await start_host("second")
    await second.store.claims.adopt("second")
    await second.pool.close()
    assert "fine" in await first.reply(running)
    assert first.observer.started == [running]
    assert (await first.trace(running)).attempts == 0


async def test_a_host_without_its_database_ends_its_turns_before_another_runs_them(
    start_host: StartHost, tmp_path: Path
) -> None:
    cut_off, other = await start_host("cut_off"), None
    note = tmp_path / "notes"
    call = msgspec.json.encode({"path": str(note), "line": "ran"}).decode()
    text = f'[[tool rest {{"seconds": 12}}]] [[then]] [[tool note {call}]] [[then]] [[say on]]'
    message = await cut_off.say("s", text)
    await until(lambda: "rest" in cut_off.observer.tools, "its tool runs")
    (worker,) = [row.pid for row in cut_off.pool.snapshot().workers]
    other = await start_host("other")

    async def no_answer(*_: object) -> None:
        await asyncio.sleep(3600)

    cut_off.store.hosts.beat = no_answer  # type: ignore[method-assign,assignment] # its answers are lost on the way
    began = time.monotonic()
    await until(lambda: cut_off.events.counts[Event.HOST_FENCED] == 1, "its turns end", LEASE_S)
    assert other.observer.started == []
    await until(lambda: other.observer.started == [message], "the other host runs it", LEASE_S)
    assert time.monotonic() - began > LEASE_S - 2
    assert worker not in {row.pid for row in cut_off.pool.snapshot().workers}
    assert "on" in await other.reply(message)
    assert note.read_text() == "ran\n"
    assert cut_off.observer.settled_ids == []


async def test_a_claim_whose_answer_was_lost_is_given_back_by_its_living_host(start_host: StartHost) -> None:
    host = await start_host("host")
    claim = host.store.claims.claim

    async def lost_once(*given: Any, **named: Any) -> ClaimBatch:
        batch = await claim(*given, **named)
        if not batch.claims:
            return batch
        host.store.claims.claim = claim  # type: ignore[method-assign]
        return ClaimBatch((), batch.next_in_s)

    host.store.claims.claim = lost_once  # type: ignore[method-assign]
    assert "fine" in await host.reply(await host.say("s", "[[say fine]]"))


def intake_of(host: RunningPool) -> Intake:
    """Return what accepts messages on a host."""
    intake = Intake(host.store, host.pool, host.observer, host.events, BusyRules(), host.pool, host.pool)
    intake.runner = host.pool
    return intake


def arrival(number: int) -> Arrival:
    """Return a message of a session of its own."""
    session = f"standard:a:{number}"
    names = {"id": f"msg_{number}", "session": session, "platform": "standard", "user": "someone", "reply": b"{}"}
    return Arrival(**names, text="[[say fine]]", dedupe=(session,), dedupe_ttl_s=60, at=time.time())  # type: ignore[arg-type]


async def test_a_message_that_is_alone_runs_on_the_host_that_accepts_it(start_host: StartHost) -> None:
    first, other = await start_host("first"), await start_host("other")
    await until(lambda: first.pool.other_hosts == other.pool.other_hosts == 1, "they know each other")
    receipt = await intake_of(first).accept(arrival(1))
    assert receipt.claim is not None
    assert await first.reply_state("msg_1") is MessageState.DONE
    assert (first.observer.started, other.observer.started) == (["msg_1"], [])
    await other.pool.close()
    assert other.pool.idle_host == ""


async def test_a_server_that_stands_still_is_told_of_in_time(
    start_host: StartHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a message that it has all the same is found by its keys."""
    web = await start_host("web", GATEHOUSE_WORKERS="0")
    intake = intake_of(web)
    assert web.pool.idle_host == ""
    monkeypatch.setattr("shared.store.postgres.engine.CHECK_WITHIN_S", 0.3)
    monkeypatch.setattr("gateway.intake.ANSWER_WITHIN_S", 0.3)
    with psycopg.connect(postgres_url(tmp_path)) as other:
        other.execute("LOCK TABLE probe, sessions IN ACCESS EXCLUSIVE MODE")  # as if it stood still
        with pytest.raises(StoreUnavailable, match="has not answered"):
            await web.store.check()
        with pytest.raises(StoreUnavailable, match="has not answered"):
            await intake.accept(arrival(1))
    monkeypatch.undo()
    receipt = await intake.accept(arrival(1))
    assert (receipt.message_id, receipt.duplicate) == ("msg_1", True)
    await web.store.check()
