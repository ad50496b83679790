"""Tools behind a real gateway: MCP servers, their deaths, that none outlives its worker, and pages that are fetched."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.gateway_process import descendants
from loadtests.platform import running_platform
from loadtests.provider import running_provider
from tests.e2e.bot import Bot
from tests.e2e.command_line import run_command
from tests.e2e.conftest import started
from tests.worker.tools.fetch.web import Web, running_web
from tests.worker.tools.mcp.serving import BARE, ODD, gone

SECRET = "mcp-secret-4711"


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with running_web() as running:
        yield running


@pytest.fixture(scope="module")
def tool_bot(tmp_path_factory: pytest.TempPathFactory, web: Web) -> Iterator[Bot]:
    """One gateway with one worker, a small web, and a server that stays, hangs, dies or will not end, as it is told."""
    directory = tmp_path_factory.mktemp("mcp")
    config = directory / "mcp.json"
    starts = ["--starts", str(directory / "starts")]
    server = {"command": sys.executable, "args": ["-S", BARE, "--deaf", *starts], "env": {"MINE": SECRET}}
    odd = {"command": sys.executable, "args": ["-S", ODD], "includeTools": ["descriptors", "remember"]}
    config.write_text(json.dumps({"mcpServers": {"t": server, "odd": odd, "gone": {"command": "no-such-program"}}}))
    settings = {
        "GATEHOUSE_MCP_CONFIG": str(config),
        "GATEHOUSE_FETCH_ALLOW": f"127.0.0.1:{web.port}",
        "GATEHOUSE_TOOLS": "tests.e2e.careful_tools,tests.e2e.hostile_tools",
        "GATEHOUSE_WORKERS": "1",
        "GATEHOUSE_SPARES": "1",
    }
    with (
        running_platform() as platform,
        running_provider() as provider,
        started(directory, platform, provider, **settings) as bot,
    ):
        yield bot


def answer(bot: Bot, session: str, text: str) -> str:
    """Say something in a new session and return the reply."""
    assert bot.say(session, text).status_code == 200
    bot.wait_until(lambda: bool(bot.replies(session)), 30, f"a reply in {session}")
    (reply,) = bot.replies(session)
    return reply.text


def transcript(bot: Bot, session: str) -> list[dict[str, str]]:
    messages: list[dict[str, str]] = bot.gateway.get(f"/v1/sessions/standard:default:{session}")["messages"]
    return messages


def who(bot: Bot, session: str) -> dict[str, int]:
    """Ask the server for its process, through a turn."""
    answer(bot, session, "[[tool t__who]]")
    (result,) = [message["content"] for message in transcript(bot, session) if message["role"] == "tool"]
    found: dict[str, int] = json.loads(result)
    return found


def test_a_tool_of_a_server_answers_in_a_turn_from_the_group_of_its_worker(tool_bot: Bot) -> None:
    (worker,) = tool_bot.gateway.worker_pids()
    assert who(tool_bot, "who")["group"] == worker


def test_a_spare_starts_no_server_and_which_server_is_down_is_seen(tool_bot: Bot) -> None:
    tool_bot.wait_until(lambda: tool_bot.gateway.get("/v1/workers")["spares"] == 1, 30, "the spare is ready")
    answer(tool_bot, "first", "[[tool t__who]]")
    assert len((tool_bot.gateway.data_dir / "starts").read_text().splitlines()) == 1

    def seen() -> bool:
        (row,) = tool_bot.gateway.get("/v1/workers")["workers"]
        return [(one["server"], one["up"]) for one in row["mcp"]] == [("t", True), ("odd", True), ("gone", False)]

    tool_bot.wait_until(seen, 20, "the state of the servers")
    (row,) = tool_bot.gateway.get("/v1/workers")["workers"]
    assert "no-such-program" in row["mcp"][2]["problem"]
    metrics = tool_bot.gateway.ask("GET", "/metrics").text
    assert 'gatehouse_mcp_server_up{server="t",worker="0"} 1.0' in metrics
    assert 'gatehouse_mcp_server_up{server="gone",worker="0"} 0.0' in metrics


def test_a_program_of_a_server_inherits_nothing_of_its_worker_but_three_pipes(tool_bot: Bot) -> None:
    answer(tool_bot, "descriptors", "[[tool odd__descriptors]]")
    (result,) = [message["content"] for message in transcript(tool_bot, "descriptors") if message["role"] == "tool"]
    assert list(json.loads(result)) == ["0", "1", "2"], result


def test_what_a_tool_tells_is_seen_while_its_turn_runs(tool_bot: Bot) -> None:
    key = "standard:default:telling"
    accepted = tool_bot.say("telling", '[[tool tell {"text": "page 3 of 6"}]]')
    told = lambda: (tool_bot.gateway.get(f"/v1/sessions/{key}")["turn"] or {}).get("said") == "page 3 of 6"  # noqa: E731
    tool_bot.wait_until(told, 20, "what the tool tells")
    trace = tool_bot.gateway.get(f"/v1/messages/{accepted.headers['x-gatehouse-message']}")
    assert trace["said"] == "page 3 of 6"
    assert tool_bot.gateway.ask("POST", f"/v1/sessions/{key}/interrupt").status_code == 200
    tool_bot.wait_until(lambda: bool(tool_bot.replies("telling")), 20, "the turn is stopped")


def test_forks_and_pools_of_a_tool_end_as_they_would_anywhere(tool_bot: Bot) -> None:
    tools = ("use_a_pool", "terminate_forks", "what_programs_inherit", "what_forks_inherit")
    answer(tool_bot, "forks", " [[then]] ".join(f"[[tool {name}]]" for name in tools))
    pool, terminated, programs, forks = [
        message["content"] for message in transcript(tool_bot, "forks") if message["role"] == "tool"
    ]
    assert (pool, json.loads(terminated)) == ("[1,2,3]", [-15] * 10)
    assert programs.split() == ["0", "1", "2", "3"]
    assert tool_bot.gateway.pid not in json.loads(forks)  # whose end of the channel it would be
    assert tool_bot.gateway.events("worker_died") == []


def test_a_page_of_a_listed_host_is_fetched_and_no_other(tool_bot: Bot, web: Web) -> None:
    answer(
        tool_bot, "reader", f'[[tool fetch {{"url": "{web.url}/page"}}]] [[tool fetch {{"url": "{web.url}1/page"}}]]'
    )
    fetched, refused = [message["content"] for message in transcript(tool_bot, "reader") if message["role"] == "tool"]
    assert "# Hello" in fetched
    assert refused.startswith("Error: ")


INTERRUPTED = {
    "before the first byte": ("[[stall]]", ""),
    "amid the text": ("[[stall mid]] [[say a rather long answer, whose end never comes]]", ""),
    "in an async tool": ('[[tool write_down_slowly {"path": "/dev/null", "seconds": 60}]]', "write_down_slowly"),
    "in a call of an MCP server": ("[[tool t__who]] [[then]] [[tool t__who]] [[tool t__hang]]", "t__hang"),
    "in a sync tool": ("[[tool sleep_in_a_thread]]", "sleep_in_a_thread"),
}


@pytest.mark.parametrize("phase", INTERRUPTED)
def test_an_interrupt_ends_the_turn_and_the_provider_takes_the_next_one(tool_bot: Bot, phase: str) -> None:
    text, running_tool = INTERRUPTED[phase]
    session = phase.replace(" ", "-")
    key = f"standard:default:{session}"
    assert tool_bot.say(session, text).status_code == 200
    if running_tool:
        told = lambda: running_tool in str(tool_bot.gateway.get(f"/v1/sessions/{key}")["turn"])  # noqa: E731
        tool_bot.wait_until(told, 20, "the tool runs")
    else:
        tool_bot.wait_for_running_model_call()
    assert tool_bot.gateway.ask("POST", f"/v1/sessions/{key}/interrupt").status_code == 200
    tool_bot.wait_until(lambda: bool(tool_bot.replies(session)), 10, "the turn is stopped")
    assert tool_bot.replies(session)[0].text.endswith("Stopped.")
    tool_bot.say(session, "and now?")
    tool_bot.wait_until(lambda: len(tool_bot.replies(session)) == 2, 20, "the next turn is answered")
    assert (tool_bot.replies(session)[1].status, tool_bot.replies(session)[1].text) == ("replied", "echo: and now?")
    answered = [message for message in transcript(tool_bot, session) if message["role"] == "tool"]
    assert not running_tool or "interrupted" in answered[-1]["content"]
    if phase == "in a sync tool":  # its thread was left behind, so the worker is replaced
        tool_bot.gateway.wait_for("worker_recycled")
        tool_bot.wait_until(lambda: len(tool_bot.gateway.worker_pids()) == 1, 20, "the new worker is there")


def test_a_server_that_dies_in_a_call_is_told_to_the_model_and_is_back_for_the_next(tool_bot: Bot) -> None:
    before = who(tool_bot, "before")["pid"]
    answer(tool_bot, "dying", "[[tool t__die]]")
    assert "was lost during the call" in transcript(tool_bot, "dying")[2]["content"]
    assert who(tool_bot, "after")["pid"] != before
    tool_bot.gateway.wait_for("mcp_server_lost")
    assert tool_bot.gateway.events("worker_died") == []


def test_no_secret_of_a_server_is_in_a_log(tool_bot: Bot) -> None:
    answer(tool_bot, "secretive", "[[tool t__environment]]")
    answer(tool_bot, "dying of it", "[[tool t__die]]")
    lost = tool_bot.gateway.wait_for("mcp_server_lost")
    assert "about to die of ***" in lost["output"]
    assert SECRET not in tool_bot.gateway.log()
    logs = tool_bot.gateway.data_dir / "logs"
    tool_bot.wait_until(lambda: any("t__environment" in path.read_text() for path in logs.iterdir()), 20, "a log")
    assert not [path for path in logs.iterdir() if SECRET in path.read_text()]


def test_a_worker_has_nothing_of_a_server_s_environment(tool_bot: Bot) -> None:
    (worker,) = tool_bot.gateway.worker_pids()
    assert SECRET.encode() not in Path(f"/proc/{worker}/environ").read_bytes()


def test_kill_9_of_a_worker_leaves_no_server_behind_and_its_turn_goes_on(tool_bot: Bot) -> None:
    server = who(tool_bot, "doomed")["pid"]
    family = [server, *descendants(server)]
    assert len(family) == 2
    (worker,) = tool_bot.gateway.worker_pids()
    os.kill(worker, signal.SIGKILL)
    tool_bot.wait_until(lambda: all(map(gone, family)), 10, "the server and what it started are gone")
    assert who(tool_bot, "reborn")["pid"] != server


def test_nothing_is_left_when_the_gateway_ends(tool_bot: Bot) -> None:
    server = who(tool_bot, "last")["pid"]
    family = [server, *descendants(server)]
    assert tool_bot.gateway.terminate() == 0
    tool_bot.wait_until(lambda: all(map(gone, family)), 10, "the server and what it started are gone")


def test_a_bad_config_is_one_line_that_names_the_setting_before_anything_listens(tmp_path: Path) -> None:
    config = tmp_path / "mcp.json"
    for command, text, problem in (
        ((), '{"mcpServers": {"a": {}}}', "server 'a': it needs either a command or a url"),
        (("check",), "{", "cannot read"),
    ):
        config.write_text(text)
        ended = run_command(tmp_path, *command, GATEHOUSE_MCP_CONFIG=str(config))
        assert ended.returncode == 2, ended.stderr
        (line,) = ended.stderr.splitlines()
        assert "GATEHOUSE_MCP_CONFIG: " in line
        assert problem in line
        assert ended.stdout == ""
        assert not list(tmp_path.glob("*.db"))
