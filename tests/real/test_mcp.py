"""The official reference servers of MCP, called in real turns; our scripted provider asks for the calls."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.platform import running_platform
from loadtests.provider import running_provider
from tests.e2e.bot import Bot
from tests.e2e.conftest import started
from tests.real.foreign import installed

#: one call of each server, and what its result says
CALLS: dict[str, tuple[str, dict[str, Any], str]] = {
    "everything": ("get-sum", {"a": 2, "b": 40}, "42"),
    "filesystem": ("read_text_file", {"path": "FOLDER/note.txt"}, "bread and milk"),
    "memory": ("read_graph", {}, "entities"),
    "time": ("get_current_time", {"timezone": "Asia/Tokyo"}, "Asia/Tokyo"),
    "git": ("git_log", {"repo_path": "FOLDER"}, "Write a note"),
}


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


@pytest.fixture(scope="module")
def bot(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    """A gateway with all five servers."""
    node, python = installed("node") / "node_modules" / ".bin", installed("mcp") / "bin"
    directory = tmp_path_factory.mktemp("mcp")
    servers: dict[str, Any] = {
        "everything": {"command": str(node / "mcp-server-everything")},
        "filesystem": {"command": str(node / "mcp-server-filesystem"), "args": [str(folder)]},
        "memory": {
            "command": str(node / "mcp-server-memory"),
            "env": {"MEMORY_FILE_PATH": str(directory / "memory.jsonl")},
        },
        "time": {"command": str(python / "mcp-server-time")},
        "git": {"command": str(python / "mcp-server-git"), "args": ["--repository", str(folder)]},
    }
    (directory / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
    settings = {"GATEHOUSE_MCP_CONFIG": str(directory / "mcp.json"), "GATEHOUSE_WORKERS": "1"}
    settings["GATEHOUSE_API_KEYS"] = "a-key-for-the-tests-of-real-servers"
    with (
        running_platform() as platform,
        running_provider() as provider,
        started(directory, platform, provider, **settings) as running,
    ):
        running.wait_until(lambda: not down(running), 60, "all servers are up")
        yield running


def down(bot: Bot) -> list[str]:
    """Return the servers that are not up."""
    [worker] = bot.gateway.get("/v1/workers")["workers"]
    up = {row["server"] for row in worker["mcp"] if row["up"]}
    return sorted(CALLS.keys() - up)


@pytest.mark.parametrize("server", list(CALLS))
def test_a_reference_server_is_called_in_a_turn(bot: Bot, folder: Path, server: str) -> None:
    name, arguments, told = CALLS[server]
    written = json.dumps(arguments).replace("FOLDER", str(folder))
    bot.say(server, f"[[tool {server}__{name} {written}]] [[then]] [[say done]]")
    bot.wait_until(lambda: bool(bot.replies(server)), 60, f"{server} is answered")
    [reply] = bot.replies(server)
    assert reply.text == "done"
    messages = bot.gateway.get(f"/v1/sessions/standard:default:{server}")["messages"]
    [result] = [message["content"] for message in messages if message["role"] == "tool"]
    assert told in str(result)


def test_every_tool_of_every_server_is_offered(bot: Bot) -> None:
    bot.say("offer", "[[say hello]]")
    bot.wait_until(lambda: bool(bot.replies("offer")), 30, "it is answered")
    assert bot.provider is not None
    offered = [tool["function"]["name"] for tool in bot.provider.requests[-1].json()["tools"]]
    counts = {server: sum(name.startswith(f"{server}__") for name in offered) for server in CALLS}
    assert counts == {"everything": 13, "filesystem": 14, "memory": 9, "time": 2, "git": 12}
    assert not bot.gateway.events("mcp_tool_left_out")
