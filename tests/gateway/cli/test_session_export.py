"""The commands that take a session out, beside a gateway that runs and over its database alone."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import httpx2
import pytest

from loadtests.gateway_process import GatewayProcess
from shared.session_files import session_log_path
from shared.session_segments import checksum_file, packed_segment, segments_dir
from tests.e2e.command_line import port_of, run_command, run_inside

KEYS = [
    *("session_id", "model", "base_url", "platform", "session_start", "last_updated", "system_prompt", "tools"),
    *("message_count", "messages", "earlier_messages", "todos"),
]
SECRET = "sk-proj-abcdefghijklmnopqrstuvwx"
BOARD_KEY = "key of the board"


def talk(web: httpx2.Client, name: str, *texts: str) -> str:
    """Say these in a session and return its key."""
    for text in texts:
        body = {"model": "gatehouse", "messages": [{"role": "user", "content": text}]}
        web.post("/v1/chat/completions", json=body, headers={"X-Gatehouse-Session": name}).raise_for_status()
    return f"api:default:{name}"


def test_export_writes_one_document_of_the_first_logs_keys(
    running: GatewayProcess, web: httpx2.Client, tmp_path: Path
) -> None:
    session = talk(
        web, "taken out", "add buy milk", f"my key is {SECRET}", f"that is the {BOARD_KEY}", "turned \u202e about"
    )
    servers = tmp_path / "mcp.json"
    servers.write_text(json.dumps({"mcpServers": {"board": {"command": "board", "env": {"KEY": BOARD_KEY}}}}))
    settings = {
        "GATEHOUSE_SYSTEM_PROMPT": "be brief",
        "GATEHOUSE_FETCH_ALLOW": "example.com,*.example.org",
        "GATEHOUSE_MCP_CONFIG": str(servers),
    }
    ended = run_command(tmp_path, "export", session, port=port_of(running), **settings)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert list(found) == KEYS
    assert (found["session_id"], found["platform"], found["model"]) == (session, "api", "offline")
    assert found["system_prompt"] == "be brief"
    assert found["message_count"] == len(found["messages"]) > 4
    assert found["messages"][0] == {"role": "user", "content": "add buy milk"}
    assert found["session_start"] <= found["last_updated"]
    assert {"todo", "current_time", "fetch"} <= {tool["name"] for tool in found["tools"]}
    assert "example.com, *.example.org" in str(found["tools"])
    assert [todo["content"] for todo in found["todos"]] == ["buy milk"]
    assert SECRET not in ended.stdout
    assert BOARD_KEY not in ended.stdout
    assert "turned \u202e about" in [message["content"] for message in found["messages"]]
    assert "\u202e" not in ended.stdout  # it would turn what a terminal shows


def test_replay_of_a_session_finds_no_difference(running: GatewayProcess, web: httpx2.Client, tmp_path: Path) -> None:
    session = talk(web, "replayed", "hello", "add buy milk", "add call Ann", "done 1", "list", "what time is it")
    ended = run_command(tmp_path, "replay", session, port=port_of(running))
    assert (ended.returncode, ended.stdout) == (0, "6 turns replayed: no difference\n"), ended.stderr


def test_without_a_gateway_the_database_is_read(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path, {"GATEHOUSE_WORKERS": "1", "GATEHOUSE_SPARES": "0"}) as gateway:
        with httpx2.Client(base_url=gateway.url, timeout=30, trust_env=False) as web:
            session = talk(web, "kept", "add buy milk")
        gateway.terminate()
    document = json.loads(run_inside(tmp_path, "export", session).stdout)
    assert (list(document), document["message_count"]) == (KEYS, len(document["messages"]))
    assert run_command(tmp_path, "replay", session).stdout == "1 turns replayed: no difference\n"


@pytest.mark.parametrize("command", ["export", "replay"])
def test_a_session_that_is_not_there_is_one_line_and_status_1(running: GatewayProcess, command: str) -> None:
    for port in (0, port_of(running)):
        ended = run_inside(running.data_dir, command, "api:default:nobody", port=port)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr.startswith("gatehouse: ")
        assert ended.stderr.count("\n") == 1


def test_a_damaged_log_costs_an_export_nothing_but_what_is_damaged(
    running: GatewayProcess, web: httpx2.Client, tmp_path: Path
) -> None:
    session = talk(web, "damaged", "hello")
    for name, content in {
        "not utf-8": b'{"at": 1e9, "role": "\xff\xfe"}\n',
        "no line": b"\x00" * 5000,
        "no date": b'{"at": 1e300, "role": "user"}\n{"at": "yesterday"}\n{"at": null}\n',
        "deep": b"[" * 100_000,
    }.items():
        logs = tmp_path / "logs"
        logs.mkdir(exist_ok=True)
        session_log_path(logs, session).write_bytes(content)
        ended = run_inside(tmp_path, "export", session, port=port_of(running))
        assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), f"{name}: {ended.stderr}"
        assert json.loads(ended.stdout)["message_count"] == 2


def test_a_damaged_segment_costs_an_export_nothing_and_is_told(
    running: GatewayProcess, web: httpx2.Client, tmp_path: Path
) -> None:
    session = talk(web, "torn", "hello")
    path = session_log_path(tmp_path / "logs", session)
    segments_dir(path).mkdir(parents=True)
    torn = gzip.compress(b'{"at": 1.5, "role": "user", "content": "x"}\n' * 100)[:-40] + b"\xff" * 40
    packed_segment(path, 1).write_bytes(torn)
    checksum_file(path, 1).write_text(f"{hashlib.sha256(torn).hexdigest()}  000001.jsonl.gz\n")
    ended = run_inside(tmp_path, "export", session, port=port_of(running))
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert json.loads(ended.stdout)["message_count"] == 2
