"""MCP servers over stdio and HTTP: their tools, their deaths, their hangs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from mcp.shared import jsonrpc_dispatcher

from loadtests.program import free_port
from shared.events import Event
from tests.worker.tools.mcp.serving import (
    BARE,
    REAL,
    Worker,
    bare,
    gone,
    http_process,
    listening,
    nothing_left,
    over_http,
    over_sse,
    real,
    worker,
)
from tests.worker.waiting import until
from worker import os_processes
from worker.frames import McpServer
from worker.tools.mcp import connection, program

#: seconds in which a call has to be over; it takes a few milliseconds, and the rest is for a busy machine
AT_ONCE_S = 0.5
NAMES = {"t__add", "t__fail", "t__hang", "t__huge", "t__odd_name_here", "t__picture"}


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mcp") / "journal"
    path.touch()
    return path


@pytest.fixture(scope="module", params=["stdio", "http", "sse"])
async def served(request: pytest.FixtureRequest, journal: Path) -> AsyncIterator[Worker]:
    """A server made with the mcp package, for every test that does not end it."""
    if request.param == "stdio":
        async with worker(real("t", "--journal", str(journal))) as running:
            yield running
        return
    port = free_port()
    is_sse = request.param == "sse"
    with http_process(REAL, port, "--journal", str(journal), *(["--sse"] if is_sse else [])):
        await listening(port)
        async with worker(over_sse("t", port) if is_sse else over_http("t", port)) as running:
            yield running


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for servers that do not answer and for programs that do not end."""
    monkeypatch.setattr(program, "END_GRACE_S", 0.1)
    monkeypatch.setattr(connection, "LOOK_S", 0.1)
    monkeypatch.setattr(connection, "CALL_WAIT_S", 0.5)
    monkeypatch.setattr(jsonrpc_dispatcher, "_ABANDON_WRITE_TIMEOUT", 0.1)


def pid_of(who: str) -> int:
    pid: int = json.loads(who)["pid"]
    return pid


async def lost(running: Worker) -> str:
    """Wait until a server is lost and return what was said of it."""
    await until(lambda: bool(running.said(Event.MCP_SERVER_LOST)))
    return str(running.said(Event.MCP_SERVER_LOST)[0])


async def back(running: Worker) -> None:
    """Wait until a server that was lost is there again."""
    await until(lambda: len(running.said(Event.MCP_SERVER_READY)) > 1, 60)


async def test_the_tools_of_a_server_are_shown_and_called(served: Worker) -> None:
    specs = {spec.name: spec for spec in served.toolbox.specs()}
    assert set(specs) > NAMES
    assert specs["t__add"].description == "Add two numbers."
    assert specs["t__add"].parameters["required"] == ["a", "b"]
    assert specs["t__add"].parameters["properties"]["a"]["type"] == "integer"
    assert await served.call("t__add", '{"a": 20, "b": 22}') == "42"
    assert await served.call("t__odd_name_here") == "odd"
    assert await served.call("t__picture") == "[image of type image/png, which cannot be shown here]"
    assert served.toolbox.retry_safe("t__add")
    assert not served.toolbox.retry_safe("t__odd_name_here")


async def test_errors_of_a_server_reach_the_model_as_results(served: Worker) -> None:
    assert await served.call("t__fail") == "Error: Error executing tool fail"
    assert (await served.call("t__add", '{"a": "x"}')).startswith("Error: Error executing tool add: 2 validation")
    assert (await served.call("t__add", "[1]")).startswith("Error: the arguments are not a JSON object")
    assert (await served.call("t__add", '{"a": 1')).startswith("Error: the arguments are not a JSON object")


async def test_a_long_result_is_cut(served: Worker) -> None:
    result = await served.call("t__huge", '{"size": 400000}')
    assert result.endswith("[cut: 65536 of 400000 bytes are shown]")
    assert await served.call("t__add", '{"a": 1, "b": 1}') == "2"


async def test_an_interrupted_call_ends_at_once_and_is_cancelled_at_the_server(served: Worker, journal: Path) -> None:
    journal.write_text("")  # noqa: ASYNC240 - what an earlier test left
    call = asyncio.create_task(served.call("t__hang"))
    await until(lambda: journal.read_text() == "begun")
    began = asyncio.get_running_loop().time()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert asyncio.get_running_loop().time() - began < AT_ONCE_S
    await until(lambda: journal.read_text() == "cancelled")
    assert await served.call("t__add", '{"a": 1, "b": 1}') == "2"


async def test_calls_run_side_by_side(served: Worker) -> None:
    hung = asyncio.create_task(served.call("t__hang"))
    results = await asyncio.gather(*(served.call("t__add", f'{{"a": {n}, "b": 1}}') for n in range(50)))
    assert results == [str(n + 1) for n in range(50)]
    assert not hung.done()
    hung.cancel()
    await asyncio.wait([hung])


async def test_after_the_end_no_task_and_no_program_is_left() -> None:
    async with nothing_left(), worker(bare("t")) as running:
        hung = asyncio.create_task(running.call("t__hang"))
        assert pid_of(await running.call("t__who"))
    assert (await hung).startswith("Error: ")


async def test_a_hung_call_ends_at_its_deadline_and_harms_no_other() -> None:
    async with nothing_left(), worker(bare("t", timeout_s=0.2)) as running:
        assert await running.call("t__hang") == "Error: no result after 0.2 s; the call was given up"
        assert pid_of(await running.call("t__who"))
        assert running.said(Event.MCP_SERVER_LOST) == []


async def test_a_server_that_dies_in_a_call_is_started_again() -> None:
    async with nothing_left(), worker(bare("t")) as running:
        first = pid_of(await running.call("t__who"))
        assert await running.call("t__die") == (
            "Error: the MCP server t was lost during the call; it may or may not have happened"
        )
        said = await lost(running)
        assert "its program ended with status 3" in said
        assert "about to die" in said
        assert "t__who" in running.toolbox.names
        await back(running)
        assert pid_of(await running.call("t__who")) != first
        assert gone(first)


async def test_a_server_that_hangs_is_killed_and_started_again(short_grace: None) -> None:
    async with nothing_left(), worker(bare("t", timeout_s=0.8)) as running:
        first = pid_of(await running.call("t__who"))
        assert await running.call("t__freeze") == "Error: no result after 0.8 s; the call was given up"
        assert "no answer for" in await lost(running)
        await back(running)
        assert pid_of(await running.call("t__who")) != first
        assert gone(first)


async def test_a_server_that_hangs_is_noticed_though_calls_go_on_coming(short_grace: None) -> None:
    async with nothing_left(), worker(bare("t", timeout_s=0.8)) as running:
        first = pid_of(await running.call("t__who"))
        calls = [asyncio.create_task(running.call("t__freeze"))]
        while not running.said(Event.MCP_SERVER_LOST):
            calls.append(asyncio.create_task(running.call("t__who")))
            await asyncio.sleep(0.02)
        assert all(result.startswith("Error: ") for result in await asyncio.gather(*calls[:5]))
        await back(running)
        assert pid_of(await running.call("t__who")) != first
        await asyncio.gather(*calls)


async def test_a_killed_server_is_noticed_without_a_call_and_its_new_tools_are_shown(tmp_path: Path) -> None:
    more = tmp_path / "more"
    async with nothing_left(), worker(bare("t", "--more", str(more)), bare("u")) as running:
        before = running.toolbox.names
        more.touch()
        os.kill(pid_of(await running.call("t__who")), signal.SIGKILL)
        await until(lambda: "t__more" in running.toolbox.names, 60)
        assert await running.call("t__more") == "more"
        assert [name for name in running.toolbox.names if name != "t__more"] == list(before)


@pytest.mark.parametrize("end", ["t__leave", "t__endless"])
async def test_a_server_that_ends_or_floods_is_started_again(end: str) -> None:
    async with nothing_left(), worker(bare("t")) as running:
        first = pid_of(await running.call("t__who"))
        assert (await running.call(end)).startswith("Error: the MCP server t was lost during the call")
        await back(running)
        assert pid_of(await running.call("t__who")) != first
        assert gone(first)


async def test_a_server_over_http_is_found_when_it_comes_and_when_it_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LONGEST_PAUSE_S", 0.2)
    port, more = free_port(), tmp_path / "more"
    async with nothing_left(), worker(over_http("t", port)) as running:
        assert "t__who" not in running.toolbox.names
        assert running.said(Event.MCP_SERVER_LOST)
        with http_process(BARE, port) as process:
            await until(lambda: "t__who" in running.toolbox.names, 60)
            assert pid_of(await running.call("t__who")) == process.pid
            process.kill()
            await asyncio.to_thread(process.wait)
        assert (await running.call("t__who")).startswith("Error: ")
        more.touch()
        with http_process(BARE, port, "--more", str(more)):
            await until(lambda: "t__more" in running.toolbox.names, 60)
            assert await running.call("t__more") == "more"


async def test_a_server_of_the_older_transport_is_lost_and_found_again() -> None:
    port = free_port()
    async with nothing_left(), worker(over_sse("t", port), within_s=0.1) as running:
        for _ in range(2):
            with http_process(REAL, port, "--sse"):
                await until(lambda: running.servers.status[0].up, 60)
                assert await running.call("t__add", '{"a": 1, "b": 1}') == "2"
            await until(lambda: not running.servers.status[0].up)
        assert "HTTP 4" not in str(running.said(Event.MCP_SERVER_LOST))


async def test_a_program_that_cannot_be_started_holds_nobody_up() -> None:
    broken = McpServer("b", "/nowhere/to/be/found")
    async with nothing_left(), worker(broken, bare("t")) as running:
        assert pid_of(await running.call("t__who"))
        said = running.said(Event.MCP_SERVER_LOST)
        assert said[0]["server"] == "b"
        assert "FileNotFoundError" in str(said[0]["error"])
        await until(lambda: len(running.said(Event.MCP_SERVER_LOST)) >= 3)
        pauses = [float(str(fields["again_in_s"])) for fields in running.said(Event.MCP_SERVER_LOST)]
        assert pauses == sorted(set(pauses))


async def test_a_slow_server_is_not_waited_for_and_joins_later() -> None:
    async with nothing_left(), worker(bare("t", "--late", "0.5"), within_s=0.1) as running:
        assert "t__who" not in running.toolbox.names
        await until(lambda: "t__who" in running.toolbox.names)


async def test_what_is_no_message_is_passed_over() -> None:
    async with worker(bare("t", "--noise")) as running:
        assert pid_of(await running.call("t__who"))


async def test_a_server_lives_in_the_group_of_the_worker_with_a_scrubbed_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-not-for-servers")
    async with worker(bare("t", MINE="yes")) as running:
        who = json.loads(await running.call("t__who"))
        assert (who["group"], who["session"]) == (os.getpgrp(), os.getsid(0))
        environment = json.loads(await running.call("t__environment"))
        assert environment["MINE"] == "yes"
        assert environment["PATH"] == os.environ["PATH"]
        assert "ANTHROPIC_API_KEY" not in environment
    assert gone(who["pid"])


async def test_a_deaf_server_is_killed_with_what_it_started(short_grace: None) -> None:
    async with nothing_left():
        async with worker(bare("t", "--deaf")) as running:
            pid = pid_of(await running.call("t__who"))
            started = os_processes.descendants(pid)
        assert len(started) == 1
        assert gone(pid)
        await until(lambda: gone(started[0]))


async def test_the_death_of_a_server_is_noticed_though_what_it_started_holds_its_pipes(short_grace: None) -> None:
    async with worker(bare("t", "--deaf")) as running:
        pid = pid_of(await running.call("t__who"))
        (left_over,) = os_processes.descendants(pid)
        try:
            assert (await running.call("t__die")).startswith("Error: the MCP server t was lost during the call")
            await back(running)
            assert pid_of(await running.call("t__who")) != pid
        finally:
            os.kill(left_over, signal.SIGKILL)


async def test_a_stopped_server_does_not_keep_an_interrupted_call(short_grace: None) -> None:
    async with nothing_left(), worker(bare("t")) as running:
        pid = pid_of(await running.call("t__who"))
        os.kill(pid, signal.SIGSTOP)
        call = asyncio.create_task(running.call("t__who", json.dumps({"filler": "x" * 1_000_000})))
        await asyncio.wait([call], timeout=0.2)
        began = asyncio.get_running_loop().time()
        call.cancel()
        await asyncio.wait([call])
        assert asyncio.get_running_loop().time() - began < AT_ONCE_S
        await lost(running)
        await back(running)
        assert pid_of(await running.call("t__who")) != pid
    assert gone(pid)


async def test_a_call_to_a_server_that_is_down_says_so(short_grace: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE_S", 30.0)
    async with nothing_left(), worker(bare("t")) as running:
        await running.call("t__die")
        await lost(running)
        assert await running.call("t__who") == (
            "Error: the MCP server t is not running; it is started again in the background"
        )


def test_a_worker_without_servers_does_not_load_the_mcp_package() -> None:
    code = "import sys, worker.agent.child; sys.exit('mcp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
