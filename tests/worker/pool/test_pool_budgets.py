"""Budgets over the real pool: turns side by side, runaway turns, and workers that die under them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from loadtests.provider import RunningProvider, running_provider
from shared.budgets import Budget, Budgets, BudgetWindow, Scope, Spend
from shared.events import Events
from shared.settings import parse_settings
from shared.store import open_store
from shared.traces import MessageTrace
from tests.worker.pool.conditions import until
from tests.worker.pool.test_pool import RecordingObserver, RunningPool
from worker.pool import Pool

USER = Budgets((Budget(Scope.USER, 20_000, False, BudgetWindow.DAY),))


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    with running_provider() as running:
        yield running


@pytest.fixture
async def running(tmp_path: Path, provider: RunningProvider) -> AsyncIterator[RunningPool]:
    values = {
        "GATEHOUSE_DATA_DIR": str(tmp_path),
        "GATEHOUSE_WORKERS": "2",
        "GATEHOUSE_MODEL": "openai:scripted",
        "OPENAI_BASE_URL": provider.openai_url,
        "GATEHOUSE_TOOLS": "tests.e2e.hostile_tools",
        "GATEHOUSE_HEARTBEAT_TIMEOUT": "30",
        "GATEHOUSE_USER_BUDGET": "20000",
    }
    store = open_store("", tmp_path, inbox_limit=1000)
    await store.open()
    observer, events = RecordingObserver(), Events()
    pool = Pool(parse_settings(values), store, events, observer, "host")
    await pool.start()
    made = RunningPool(pool, store, observer, events)
    await made.spare()
    yield made
    await pool.close()
    await store.close()


async def ends(running: RunningPool, messages: list[str]) -> list[MessageTrace]:
    """Wait until every message has come to its end."""
    await running.done(*messages, within_s=60)
    return [await running.trace(message) for message in messages]


async def spent(running: RunningPool) -> Spend:
    ((account),) = await running.store.spending.accounts(USER)
    assert account.held == Spend()
    ((_, spend),) = account.spenders
    return spend


def waiting(running: RunningPool) -> int:
    return sum(row.waiting for row in running.pool.snapshot().workers)


async def test_fifty_sessions_of_one_user_cannot_overrun_a_budget_together(running: RunningPool) -> None:
    messages = [await running.say(f"s{number}", f"[[sleep 0.05]] number {number}") for number in range(50)]
    traces = await ends(running, messages)
    refused = [trace for trace in traces if "GATEHOUSE_USER_BUDGET" in trace.error]
    answered = [trace for trace in traces if not trace.error]
    assert len(refused) + len(answered) == 50
    assert refused
    assert answered
    step = max(trace.usage.tokens for trace in answered)
    total = (await spent(running)).tokens
    assert total == sum(trace.usage.tokens for trace in traces)
    assert 20_000 <= total < 20_000 + step
    assert all(trace.usage.tokens == 0 and trace.worker == "" for trace in refused)
    (reply,) = [
        reply for reply in (await running.store.outbox.due("h", 100, 60)).replies if reply.message_id == refused[0].id
    ]
    assert "You have used up your budget of 20,000 tokens for this day. Please come back at 00:00 UTC" in reply.text


async def test_a_runaway_turn_ends_one_step_past_its_budget(running: RunningPool) -> None:
    (trace,) = await ends(running, [await running.say("runaway", " [[then]] ".join(["[[tool todo {}]]"] * 90))])
    assert "GATEHOUSE_USER_BUDGET" in trace.error
    step = trace.usage.tokens / trace.usage.model_calls
    assert 20_000 <= trace.usage.tokens < 20_000 + 2 * step
    conversation = await running.store.sessions.conversation("standard:a:runaway")
    assert b"used up your budget" in conversation.messages[-1]


async def test_a_first_call_that_a_kill_cut_off_counts(running: RunningPool, provider: RunningProvider) -> None:
    called = provider.calls
    message = await running.say("s", "[[stall times=1]] [[say done]]")
    await until(lambda: provider.calls == called + 1, "it is in its call")
    await until(lambda: waiting(running) == 1, "the pool has heard so")
    (worker,) = [row.n for row in running.pool.snapshot().workers if row.turns]
    await running.pool.kill_worker(worker)
    assert "done" in await running.reply(message)
    trace = await running.trace(message)
    assert (trace.usage.model_calls, trace.usage.estimated_calls) == (2, 1)
    assert (await spent(running)).tokens == trace.usage.tokens
    conversation = await running.store.sessions.conversation("standard:a:s")
    assert len(conversation.messages) == 2


async def test_a_worker_that_dies_neither_loses_nor_doubles_what_was_spent(
    running: RunningPool, provider: RunningProvider
) -> None:
    text = "[[tool todo {}]] [[then]] [[tool todo {}]] [[then]] [[sleep 60 times=2]] [[say done]]"
    called = provider.calls
    messages = [await running.say(f"s{number}", text) for number in range(2)]
    await until(lambda: provider.calls == called + 6, "both are in their third step")
    await until(lambda: waiting(running) == 2, "the pool has heard so")
    for n in range(2):
        await running.pool.kill_worker(n)
    for message in messages:
        assert "done" in await running.reply(message)
    traces = [await running.trace(message) for message in messages]
    assert [trace.usage.model_calls for trace in traces] == [4, 4], "the calls that were cut off count too"
    assert [trace.usage.estimated_calls for trace in traces] == [1, 1]
    assert (await spent(running)).tokens == sum(trace.usage.tokens for trace in traces)
