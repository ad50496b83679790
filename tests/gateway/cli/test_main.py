"""The command line beside a gateway that runs, over its database alone, and beside what is no gateway at all."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest

from gateway.cli.main import COMMANDS, parser
from loadtests.gateway_process import GatewayProcess
from shared.printable import printable
from shared.version import VERSION
from tests.e2e.command_line import port_of, run_command, run_inside

ASKING = [
    ("status",),
    ("trace", "msg_0"),
    ("sessions",),
    ("dead", "list"),
    ("dead", "retry", "msg_0"),
    ("dead", "purge", "--all"),
    ("export", "api:default:nobody"),
    ("replay", "api:default:nobody"),
]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a gateway that ran and answered one message."""
    data_dir: Path = tmp_path_factory.mktemp("stopped")
    with GatewayProcess(data_dir, {"GATEHOUSE_WORKERS": "1", "GATEHOUSE_SPARES": "0"}) as gateway:
        say(gateway.url, "add buy milk")
        gateway.terminate()
    return data_dir


def say(url: str, text: str, session: str = "cli") -> str:
    body = {"model": "gatehouse", "messages": [{"role": "user", "content": text}]}
    with httpx2.Client(base_url=url, timeout=30, trust_env=False) as web:
        answer = web.post("/v1/chat/completions", json=body, headers={"X-Gatehouse-Session": session})
    answer.raise_for_status()
    return str(answer.headers["x-gatehouse-message"])


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def test_every_command_has_a_help_with_examples() -> None:
    for command in COMMANDS:
        assert command.examples, command.name
        assert any(f"gateway {command.name}" in line for line in command.examples)
        assert parser().parse_args([command.name] if command.name in {"serve", "check"} else ["check"])


def test_the_version_is_told_and_a_wrong_word_is_status_2(tmp_path: Path) -> None:
    assert run_command(tmp_path, "--version").stdout == f"gatehouse {VERSION}\n"
    assert run_command(tmp_path, "serv").returncode == 2


def test_asking_without_a_database_creates_none_and_names_it(tmp_path: Path) -> None:
    for arguments in ASKING:
        ended = run_inside(tmp_path, *arguments)
        assert (ended.returncode, ended.stdout) == (1, ""), arguments
        assert f"there is no database {tmp_path}/gatehouse.db yet" in ended.stderr
        assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    checked = run_inside(tmp_path, "check")
    assert (checked.returncode, list(tmp_path.iterdir())) == (0, [])
    assert f"the start makes {tmp_path}/gatehouse.db" in checked.stdout


def test_asking_a_database_changes_nothing_in_its_directory(stopped: Path) -> None:
    before = contents(stopped)
    for arguments in [*ASKING, ("export", "api:default:cli"), ("sessions", "--json"), ("search", "milk")]:
        if "retry" in arguments or "purge" in arguments:
            continue
        ended = run_inside(stopped, *arguments)
        assert f"{stopped}/gatehouse.db" in ended.stderr, arguments
        assert "Traceback" not in ended.stderr
    assert contents(stopped) == before


def test_a_database_of_an_older_schema_is_not_migrated_by_asking(stopped: Path, tmp_path: Path) -> None:
    (tmp_path / "gatehouse.db").write_bytes((stopped / "gatehouse.db").read_bytes())
    with sqlite3.connect(tmp_path / "gatehouse.db") as db:
        db.execute("PRAGMA user_version = 3")
    ended = run_inside(tmp_path, "sessions")
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "has schema 3" in ended.stderr
    with sqlite3.connect(tmp_path / "gatehouse.db") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)


def test_the_database_tells_the_same_as_the_gateway_that_runs(
    stopped: Path, running: GatewayProcess, tmp_path: Path
) -> None:
    message_id = say(running.url, "hello")
    port = port_of(running)
    traced = run_command(tmp_path, "trace", message_id, port=port)
    assert [line.split()[0] for line in traced.stdout.splitlines()][:4] == [
        message_id,
        "accepted",
        "claimed",
        "settled",
    ]
    assert json.loads(run_inside(tmp_path, "trace", "--json", message_id, port=port).stdout)["state"] == "done"
    for directory, asked in ((stopped, 0), (tmp_path, port)):
        found = json.loads(run_inside(directory, "sessions", "--json", port=asked).stdout)["sessions"]
        assert "api:default:cli" in {row["key"] for row in found}
        assert "api:default:cli" in run_inside(directory, "sessions", "--platform", "api", port=asked).stdout
        assert run_inside(directory, "sessions", "--platform", "slack", port=asked).stdout == ""
        listed = run_inside(directory, "dead", "list", port=asked)
        assert (listed.returncode, listed.stdout) == (0, "")


def test_status_says_whether_the_gateway_is_ready(stopped: Path, running: GatewayProcess, tmp_path: Path) -> None:
    up = run_command(tmp_path, "status", port=port_of(running))
    assert (up.returncode, up.stdout.splitlines()[0]) == (0, "gateway   ready")
    down = json.loads(run_inside(stopped, "status", "--json").stdout)
    assert (down["ready"], down["database"], down["dead"]) == (False, f"{stopped}/gatehouse.db", 0)


def test_what_is_not_there_is_one_line_and_status_1(running: GatewayProcess, stopped: Path) -> None:
    for port in (0, port_of(running)):
        for arguments in (("trace", "msg_0"), ("dead", "retry", "msg_0"), ("dead", "purge", "msg_0")):
            ended = run_inside(stopped, *arguments, port=port)
            assert ended.returncode == 1
            assert ended.stderr.startswith("gatehouse: there is no ")
            assert ended.stderr.count("\n") == 1


class Stranger(BaseHTTPRequestHandler):
    """Another program, which answers everything with 200."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        """Say nothing."""


@pytest.fixture
def web_server() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def no_http() -> Iterator[int]:
    """A program that speaks first and speaks no HTTP, as a database or a mail server does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    peer.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_another_program_on_the_port_is_told_from_a_gateway(web_server: int, no_http: int, stopped: Path) -> None:
    before = contents(stopped)
    for port in (web_server, no_http):
        for arguments in [("check",), ("trace", "msg_0"), ("dead", "list"), ("export", "api:default:cli")]:
            ended = run_inside(stopped, *arguments, port=port)
            assert (ended.returncode, ended.stdout) == (1, ""), arguments
            assert f"http://127.0.0.1:{port} is no Gatehouse" in ended.stderr
            assert ended.stderr.count("\n") == 1
    assert contents(stopped) == before


def test_check_fails_as_the_start_would(tmp_path: Path) -> None:
    servers = tmp_path / "mcp.json"
    servers.write_text(json.dumps({"mcpServers": {"board": {"command": "no-such-program"}}}))
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    settings = {"GATEHOUSE_TOOLS": "broken", "GATEHOUSE_MCP_CONFIG": str(servers)}
    ended = run_command(tmp_path, "check", port=0, **settings)
    assert ended.returncode == 1
    assert "GATEHOUSE_TOOLS: " in ended.stderr
    assert "nothing_of_this_name" in ended.stderr
    assert "server 'board': there is no program 'no-such-program'" in ended.stderr
    found = json.loads(run_command(tmp_path, "check", "--json", port=0, **settings).stdout)
    assert [one["part"] for one in found["findings"] if not one["ok"]] == ["tools", "mcp servers"]


def test_check_finds_a_broken_database_and_one_that_is_held(running: GatewayProcess, tmp_path: Path) -> None:
    (tmp_path / "gatehouse.db").write_bytes(b"this is no database, " * 1000)
    ended = run_inside(tmp_path, "check")
    assert ended.returncode == 1
    assert "gatehouse.db" in ended.stderr
    beside = run_inside(tmp_path, "check", port=port_of(running))
    assert beside.returncode == 0
    assert "in use by the gateway that runs" in beside.stdout
    held = run_inside(running.data_dir, "check")
    assert held.returncode == 1
    assert "in use by another process" in held.stderr


def test_a_reader_that_goes_away_and_an_unexpected_failure_are_no_traceback(stopped: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gateway", "export", "api:default:cli"]
    piped = subprocess.run(
        f"{' '.join(command)} | true",
        shell=True,
        cwd=stopped,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": ":".join(sys.path),
            "GATEHOUSE_DATA_DIR": str(stopped),
            "PORT": "0",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in piped.stderr
    (tmp_path / "gatehouse.db").mkdir()
    assert run_inside(tmp_path, "sessions").stderr.startswith("gatehouse: there is no database")


def test_what_would_steer_a_terminal_is_shown_escaped() -> None:
    assert printable("a\x1b[2Jb\x9b\x00") == "a\\x1b[2Jb\\x9b\\x00"
    assert printable("grüße 😀\t→") == "grüße 😀\t→"
    assert printable("a\r\nb\u202ec") == "a\\r\nb\\u202ec"


def test_a_backup_is_made_beside_a_gateway_and_put_back_without_one(
    running: GatewayProcess, stopped: Path, tmp_path: Path
) -> None:
    say(running.url, "keep this", "kept")
    copy = tmp_path / "copy.db"
    made = run_command(running.data_dir, "backup", str(copy), "--json", port=port_of(running))
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["messages"] >= 1
    again = run_inside(running.data_dir, "backup", str(copy))
    assert (again.returncode, "exists already" in again.stderr) == (1, True)
    refused = run_inside(running.data_dir, "restore", str(copy))
    assert (refused.returncode, "in use by a gateway" in refused.stderr) == (1, True)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    assert run_command(fresh, "restore", str(copy)).returncode == 0
    assert "keep this" in run_inside(fresh, "export", "api:default:kept").stdout
    replaced = run_inside(fresh, "restore", str(stopped / "gatehouse.db"))
    assert "messages are in that one alone:\n  msg_" in replaced.stdout


def test_a_damaged_database_is_salvaged_and_put_back(stopped: Path, tmp_path: Path) -> None:
    content = bytearray((stopped / "gatehouse.db").read_bytes())
    content[30 * 4096 : 31 * 4096] = b"\xff" * 4096
    (tmp_path / "gatehouse.db").write_bytes(content)
    done = run_command(tmp_path, "salvage")
    assert (done.returncode, f"{tmp_path}/gatehouse.db.salvaged: written and verified" in done.stdout) == (0, True)
    assert "restore" in done.stderr
    assert run_inside(tmp_path, "restore", str(tmp_path / "gatehouse.db.salvaged")).returncode == 0
    assert "database: ok" in run_inside(tmp_path, "check").stdout


def test_a_command_is_found_without_what_serves_and_sends_over_http() -> None:
    """They take longer to load than most commands do."""
    found = "import sys, gateway.cli.main; print(*{'starlette', 'uvicorn', 'aiohttp'} & sys.modules.keys())"
    loaded = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout.split() == []
