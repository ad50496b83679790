"""MCP servers of others, called in real turns; our scripted provider asks for the calls."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from loadtests.parent_death import ends_with_parent
from loadtests.platform import running_platform
from loadtests.program import free_port
from loadtests.provider import running_provider
from tests.e2e.bot import Bot
from tests.e2e.conftest import started
from tests.real.foreign import SCRIPTS, installed

CHROMIUM = "/usr/bin/chromium"

#: calls of each server, and what their results say
CALLS: dict[str, list[tuple[str, dict[str, Any], str]]] = {
    "everything": [("get-sum", {"a": 2, "b": 40}, "42")],
    "filesystem": [("read_text_file", {"path": "FOLDER/note.txt"}, "bread and milk")],
    "memory": [("read_graph", {}, "entities")],
    "time": [("get_current_time", {"timezone": "Asia/Tokyo"}, "Asia/Tokyo")],
    "git": [("git_log", {"repo_path": "FOLDER"}, "Write a note")],
    "fetch": [("fetch", {"url": "GATEWAY/livez"}, "livez")],
    "thinking": [
        (
            "sequentialthinking",
            {"thought": "x", "thoughtNumber": 1, "totalThoughts": 1, "nextThoughtNeeded": False},
            "thoughtHistoryLength",
        )
    ],
    "browser": [
        ("browser_navigate", {"url": "GATEWAY"}, "Gatehouse"),
        ("browser_take_screenshot", {}, "image/"),
    ],
    "sqlite": [("create_table", {"query": "CREATE TABLE a (b)"}, "created"), ("list_tables", {}, "'a'")],
    "fast": [
        ("point", {"x": 1, "y": 2}, '{"x":1,"y":2}'),
        ("slow", {}, "slow done"),
        ("elicit", {}, "Error: elicitation"),
        ("media", {}, "[resource a: file:///a.txt]"),
        ("grow", {}, "grown"),
        ("born", {}, "born"),
    ],
    "fast_http": [("slow", {}, "slow done"), ("media", {}, "[audio of type audio/wav, which cannot be shown here]")],
    "first_http": [
        ("ask_back", {}, "ping answered; elicitation refused: Elicitation not supported; sampling refused"),
        ("large", {"size": 2_000_000}, "xxx"),
    ],
    "first_sse": [("ask_back", {}, "roots refused: List roots not supported")],
}
#: how many tools each has
OFFERED = {
    "everything": 13, "filesystem": 14, "memory": 9, "time": 2, "git": 12, "fetch": 1, "thinking": 1, "browser": 25,
    "sqlite": 6, "fast": 5, "fast_http": 5, "first_http": 2, "first_sse": 2,
}  # fmt: skip


def repository(folder: Path) -> None:
    """Make a repository with one commit."""
    (folder / "note.txt").write_text("bread and milk\n")
    who = ["-c", "user.name=Ana", "-c", "user.email=ana@example.org"]
    for command in (["init", "-q"], ["add", "note.txt"], [*who, "commit", "-q", "-m", "Write a note"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folder")
    repository(folder)
    return folder


@contextlib.contextmanager
def listening(directory: Path) -> Iterator[dict[str, int]]:
    """Run the servers over HTTP, and return the port of each."""
    fast, first = installed("mcp") / "bin" / "python", installed("mcp-first") / "bin" / "python"
    commands = {
        "fast_http": [fast, SCRIPTS / "fast_server.py", "http"],
        "first_http": [first, SCRIPTS / "first_sdk_server.py", "streamable-http"],
        "first_sse": [first, SCRIPTS / "first_sdk_server.py", "sse"],
    }
    with contextlib.ExitStack() as stack:
        ports = {name: free_port() for name in commands}
        for name, command in commands.items():
            log = stack.enter_context((directory / f"{name}.log").open("wb"))
            process = subprocess.Popen(
                [*ends_with_parent(), *map(str, command), str(ports[name])], stdout=log, stderr=log
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield ports


def servers_in(folder: Path, directory: Path, ports: dict[str, int]) -> dict[str, Any]:
    """Return the configuration of all servers."""
    node, python, first = installed("node") / "node_modules" / ".bin", installed("mcp") / "bin", installed("mcp-first")
    chromium = ["--executable-path", CHROMIUM, "--no-sandbox"]
    database = str(directory / "a.db")
    return {
        "everything": {"command": str(node / "mcp-server-everything")},
        "filesystem": {"command": str(node / "mcp-server-filesystem"), "args": [str(folder)]},
        "memory": {
            "command": str(node / "mcp-server-memory"),
            "env": {"MEMORY_FILE_PATH": str(directory / "memory.jsonl")},
        },
        "time": {"command": str(python / "mcp-server-time")},
        "git": {"command": str(python / "mcp-server-git"), "args": ["--repository", str(folder)]},
        "fetch": {
            "command": str(python / "mcp-server-fetch"),
            "args": ["--allow-private-ips", "--ignore-robots-txt"],
        },
        "thinking": {"command": str(node / "mcp-server-sequential-thinking")},
        "browser": {
            "command": str(node / "playwright-mcp"),
            "args": ["--headless", "--isolated", *chromium],
            "cwd": str(directory),
        },
        "sqlite": {"command": str(first / "bin" / "mcp-server-sqlite"), "args": ["--db-path", database]},
        "fast": {"command": str(python / "python"), "args": [str(SCRIPTS / "fast_server.py"), "stdio"]},
        "fast_http": {"url": f"http://127.0.0.1:{ports['fast_http']}/mcp"},
        "first_http": {"url": f"http://127.0.0.1:{ports['first_http']}/mcp"},
        "first_sse": {"type": "sse", "url": f"http://127.0.0.1:{ports['first_sse']}/sse"},
    }


@pytest.fixture(scope="module")
def bot(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    """A gateway with all servers."""
    directory = tmp_path_factory.mktemp("mcp")
    settings = {"GATEHOUSE_MCP_CONFIG": str(directory / "mcp.json"), "GATEHOUSE_WORKERS": "1"}
    settings["GATEHOUSE_API_KEYS"] = "a-key-for-the-tests-of-real-servers"
    with listening(directory) as ports, running_platform() as platform, running_provider() as provider:
        servers = servers_in(folder, directory, ports)
        (directory / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
        with started(directory, platform, provider, **settings) as running:
            running.wait_until(lambda: not down(running), 90, "all servers are up")
            yield running


def down(bot: Bot) -> list[str]:
    """Return the servers that are not up."""
    [worker] = bot.gateway.get("/v1/workers")["workers"]
    up = {row["server"] for row in worker["mcp"] if row["up"]}
    return sorted(CALLS.keys() - up)


@pytest.mark.parametrize("server", list(CALLS))
def test_a_server_of_others_is_called_in_turns(bot: Bot, folder: Path, server: str) -> None:
    def answered(session: str) -> bool:
        return bool(bot.replies(session))

    for number, (name, arguments, told) in enumerate(CALLS[server]):
        session = f"{server}{number}"
        written = json.dumps(arguments).replace("FOLDER", str(folder)).replace("GATEWAY", bot.gateway.url)
        bot.say(session, f"[[tool {server}__{name} {written}]] [[then]] [[say done]]")
        bot.wait_until(partial(answered, session), 60, f"{server} is answered")
        messages = bot.gateway.get(f"/v1/sessions/standard:default:{session}")["messages"]
        [result] = [message["content"] for message in messages if message["role"] == "tool"]
        assert told in str(result)


def test_every_tool_of_every_server_is_offered(bot: Bot) -> None:
    bot.say("offer", "[[say hello]]")
    bot.wait_until(lambda: bool(bot.replies("offer")), 30, "it is answered")
    assert bot.provider is not None
    offered = [tool["function"]["name"] for tool in bot.provider.requests[-1].json()["tools"]]
    offered = [name for name in offered if name != "fast__born"]  # it comes with a call of the test before
    counts = {server: sum(name.startswith(f"{server}__") for name in offered) for server in CALLS}
    assert counts == OFFERED
    assert not bot.gateway.events("mcp_tool_left_out")
    assert not bot.gateway.events("worker_hung")  # the beginning of all of them leaves the worker its beat
