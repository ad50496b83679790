"""The commands, with and without a gateway that runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from loadtests.gateway_process import ROOT, GatewayProcess


def command(data_dir: Path, *arguments: str, port: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        check=False,
        cwd=data_dir,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "GATEHOUSE_DATA_DIR": str(data_dir),
            "PORT": str(port),
        },
        capture_output=True,
        text=True,
        timeout=30,
    )


def port_of(gateway: GatewayProcess) -> int:
    port = urlsplit(gateway.url).port
    assert port is not None
    return port


def test_check_says_that_all_is_well(tmp_path: Path) -> None:
    ended = command(tmp_path, "check")
    assert (ended.returncode, ended.stdout) == (0, "settings: ok\ndatabase: ok\n"), ended.stderr


def test_check_finds_a_broken_database(tmp_path: Path) -> None:
    (tmp_path / "gatehouse.db").write_bytes(b"this is no database, " * 1000)
    ended = command(tmp_path, "check")
    assert ended.returncode == 1
    assert "gatehouse.db" in ended.stderr


def test_check_beside_a_running_gateway_says_who_holds_the_database(running: GatewayProcess, tmp_path: Path) -> None:
    ended = command(tmp_path, "check", port=port_of(running))
    assert ended.returncode == 0
    assert "in use by the gateway that runs" in ended.stdout


def test_trace_asks_the_running_gateway(running: GatewayProcess, web: httpx2.Client, tmp_path: Path) -> None:
    body = {"model": "gatehouse", "messages": [{"role": "user", "content": "hello"}]}
    answer = web.post("/v1/chat/completions", json=body, headers={"X-Gatehouse-Session": "cli"})
    message_id = answer.headers["x-gatehouse-message"]
    ended = command(tmp_path, "trace", message_id, port=port_of(running))
    assert ended.returncode == 0, ended.stderr
    assert [line.split()[0] for line in ended.stdout.splitlines()][:4] == [message_id, "accepted", "claimed", "settled"]


def test_what_is_not_there_is_one_line_and_status_1(running: GatewayProcess, tmp_path: Path) -> None:
    for port in (0, port_of(running)):
        for arguments in (("trace", "msg_0"), ("dead", "retry", "msg_0"), ("dead", "purge", "msg_0")):
            ended = command(tmp_path, *arguments, port=port)
            assert ended.returncode == 1
            assert ended.stderr.startswith("gatehouse: ")
            assert ended.stderr.count("\n") == 1


def test_an_empty_list_of_dead_letters_is_empty(running: GatewayProcess, tmp_path: Path) -> None:
    for port in (0, port_of(running)):
        ended = command(tmp_path, "dead", "list", port=port)
        assert (ended.returncode, ended.stdout) == (0, "")
