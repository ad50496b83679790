"""MCP servers that all workers of a machine share: one run, whoever calls, dies or hangs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.gateway_process import descendants
from loadtests.provider import RunningProvider, running_provider
from shared.events import Event, Events
from shared.settings import parse_settings
from shared.store import open_store
from tests.worker.pool.conditions import until
from tests.worker.pool.test_pool import RecordingObserver, RunningPool
from tests.worker.tools.mcp.serving import BARE, ODD, gone
from worker.pool import Pool


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    with running_provider() as running:
        yield running


class Said:
    """Keeps the events of some kinds."""

    def __init__(self, events: Events) -> None:
        self._kept: list[tuple[Event, dict[str, Any]]] = []
        events.subscribe(lambda event, fields: self._kept.append((event, dict(fields))))

    def __call__(self, event: Event) -> list[dict[str, Any]]:
        return [fields for kept, fields in self._kept if kept is event]


@pytest.fixture
async def running(tmp_path: Path, provider: RunningProvider) -> AsyncIterator[RunningPool]:
    program = {"command": sys.executable, "scope": "host"}
    servers = {
        "h": program | {"args": ["-S", BARE, "--starts", str(tmp_path / "starts")]},
        "odd": program | {"args": ["-S", ODD], "includeTools": ["picture", "progress", "fits"]},
        "gone": {"command": "no-such-program", "scope": "host"},
    }
    values = {
        "GATEHOUSE_DATA_DIR": str(tmp_path),
        "GATEHOUSE_WORKERS": "2",
        "GATEHOUSE_MODEL": "openai:scripted",
        "OPENAI_BASE_URL": provider.openai_url,
        "GATEHOUSE_MCP_CONFIG": str(tmp_path / "mcp.json"),
        "GATEHOUSE_HEARTBEAT_TIMEOUT": "3",
    }
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
    store = open_store("", tmp_path, inbox_limit=1000)
    await store.open()
    observer, events = RecordingObserver(), Events()
    pool = Pool(parse_settings(values), store, events, observer, "host")
    try:
        await pool.start()
        made = RunningPool(pool, store, observer, events)
        await made.spare()
        yield made
    finally:
        await pool.close()
        await store.close()


async def result(running: RunningPool, session: str, tool: str) -> str:
    """Return what a call of a tool gave in a turn of its own."""
    message = await running.say(session, f"[[tool {tool}]] [[then]] [[say done]]")
    await running.done(message)
    told = [json.loads(one) for one in (await running.store.sessions.conversation(f"standard:a:{session}")).messages]
    return str([one["content"] for one in told if one["role"] == "tool"][-1])


async def server_pid(running: RunningPool, session: str) -> int:
    return int(json.loads(await result(running, session, "h__who"))["pid"])


async def seen(running: RunningPool) -> dict[str, int]:
    """Return what the server has seen of the calls that hang."""
    told: dict[str, int] = json.loads(await result(running, "looking", "h__who"))
    return told


async def hangs_there(running: RunningPool) -> None:
    """Wait until a call hangs at the server: the pool is told of one before it is made."""
    while not (await seen(running))["hanging"]:
        pass


def process_of(server: int) -> int:
    """Return the process that runs a server."""
    return int(Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[1])


async def test_all_workers_share_one_run_whose_state_is_seen_and_a_killed_worker_costs_its_own_calls_alone(
    running: RunningPool, tmp_path: Path
) -> None:
    said = Said(running.events)
    pids = {await server_pid(running, f"s{n}") for n in range(4)}
    assert len(pids) == 1
    await until(lambda: [one.up for one in running.pool.snapshot().mcp] == [True, True, False], "their state is seen")
    assert "no-such-program" in running.pool.snapshot().mcp[2].problem
    assert all(row.mcp == () for row in running.pool.snapshot().workers)
    assert await result(running, "picture", "odd__picture") == "[image of type image/png, shown with this result]"
    assert await result(running, "fits", "odd__fits") == '{"n":1}'

    hanging = await running.say("hanging", "[[tool h__hang]] [[then]] [[say over]]")
    await hangs_there(running)
    row = running.pool.running_turn("standard:a:hanging")
    assert row is not None
    assert row.worker is not None
    assert await running.pool.kill_worker(row.worker)
    assert {await server_pid(running, f"other{n}") for n in range(4)} == pids
    await running.done(hanging)
    assert "over" in await running.reply(hanging)
    told = (await running.store.sessions.conversation("standard:a:hanging")).messages
    assert b"outcome" in b"".join(told)  # the model is told that nobody knows
    assert (await seen(running))["cancelled"] == 1  # and the server that nobody waits
    assert (tmp_path / "starts").read_text().split() == [str(pid) for pid in pids]
    assert said(Event.MCP_SERVER_LOST) == [] or {one["server"] for one in said(Event.MCP_SERVER_LOST)} == {"gone"}


async def test_a_server_and_its_process_are_started_again_when_they_die_or_hang(
    running: RunningPool, tmp_path: Path
) -> None:
    said = Said(running.events)
    first = await server_pid(running, "s")
    assert "was lost during the call; it may or may not have happened" in await result(running, "d", "h__die")
    second = await server_pid(running, "s")
    assert second != first

    os.kill(process_of(second), signal.SIGKILL)
    await until(lambda: bool(said(Event.WORKER_DIED)), "its process has died")
    third = await server_pid(running, "s")
    assert third not in {first, second}
    await until(lambda: gone(second), "and the server with it")
    (died,) = said(Event.WORKER_DIED)
    assert died["process"] == "mcp"
    assert "n" not in died

    hanging = await running.say("hanging", "[[tool h__hang]] [[then]] [[say over]]")
    await until(lambda: "h__hang" in running.observer.tools, "its call runs")
    os.kill(process_of(third), signal.SIGSTOP)
    await running.done(hanging, within_s=30)
    assert b"was lost during the call" in b"".join(
        (await running.store.sessions.conversation("standard:a:hanging")).messages
    )
    assert await server_pid(running, "s") not in {first, second, third}
    assert running.pool.snapshot().restarts == 0
    assert len((tmp_path / "starts").read_text().split()) == 4


async def test_a_call_is_ended_at_the_server_by_a_stop_and_nothing_is_left_at_the_end(running: RunningPool) -> None:
    pid = await server_pid(running, "s")
    stopped = await running.say("stopped", "[[tool h__hang]]")
    await hangs_there(running)
    assert await running.pool.interrupt("standard:a:stopped")
    await running.done(stopped)
    assert await server_pid(running, "s") == pid
    assert (await seen(running))["cancelled"] == 1
    family = [process_of(pid), pid]
    await running.pool.close()
    await until(lambda: all(map(gone, family)), "the process and its servers are gone")
    with contextlib.suppress(ProcessLookupError):
        assert not set(descendants(os.getpid())) & set(family)
