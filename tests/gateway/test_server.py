"""The gateway process: how it starts, refuses to start, and ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from loadtests.gateway_process import ROOT, GatewayProcess, descendants
from loadtests.provider import running_provider
from tests.e2e.command_line import run_inside


def run_gateway(data_dir: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m gateway`` until it ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        check=False,
        cwd=data_dir,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "GATEHOUSE_DATA_DIR": str(data_dir / "data"),
            "GATEHOUSE_WORKERS": "0",
            "PORT": "0",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=30,
    )


def is_one_line(text: str) -> bool:
    return text.startswith("gatehouse: ") and text.endswith("\n") and text.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("GATEHOUSE_WORKERS", "-1"),
        ("GATEHOUSE_MODEL", "gpt"),
        ("GATEHOUSE_MODLE", "offline"),
        ("GATEHOUSE_HOST", "0.0.0.0"),
        ("DATABASE_URL", "mysql://x"),
        ("SLACK_BOT_TOKEN", "xoxb-1"),
        ("STANDARD_WEBHOOK_SECRET", "short"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it_and_status_2(tmp_path: Path, name: str, value: str) -> None:
    settings = {"GATEHOUSE_DATA_DIR": str(tmp_path / "data"), "GATEHOUSE_WORKERS": "0", name: value}
    ended = run_inside(tmp_path, port=0, **settings)
    assert ended.returncode == 2
    assert is_one_line(ended.stderr)
    assert any(part in ended.stderr for part in (name, "SLACK_SIGNING_SECRET", "STANDARD_WEBHOOK_REPLY_URL"))
    assert ended.stdout == ""
    assert not (tmp_path / "data").exists()


def test_a_taken_port_is_one_line_and_status_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run_gateway(tmp_path, PORT=port)
    assert ended.returncode == 1
    assert is_one_line(ended.stderr)
    assert port in ended.stderr


def test_a_store_that_cannot_be_opened_is_one_line_and_status_1(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "gatehouse.db").write_bytes(b"this is no database, " * 1000)
    ended = run_gateway(tmp_path)
    assert ended.returncode == 1
    assert is_one_line(ended.stderr)
    assert "gatehouse.db" in ended.stderr


def test_a_misspelt_command_is_status_2(tmp_path: Path) -> None:
    assert run_gateway(tmp_path, "chekc").returncode == 2


def assert_gone(pids: list[int], within_s: float = 5) -> None:
    """Wait until none of these processes runs; one that nobody has reaped yet is gone."""
    deadline = time.monotonic() + within_s
    while left := [pid for pid in pids if runs(pid)]:
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.02)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def accepting(tmp_path: Path) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path, {"GATEHOUSE_WORKERS": "0", "GATEHOUSE_API_KEYS": "first-key,second-key"}) as gateway:
        yield gateway


def test_the_api_needs_a_key_and_the_probes_do_not(accepting: GatewayProcess) -> None:
    paths = ["sessions", "sessions/x", "workers", "dead", "pairings", "events", "models", "messages/x"]
    with httpx2.Client(base_url=accepting.url, trust_env=False) as web:
        for path in ["/metrics", *(f"/v1/{path}" for path in paths)]:
            assert web.get(path).status_code == 401, path
            assert web.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401, path
        assert web.post("/v1/chat/completions", content=b"{}").status_code == 401
        for path in ("/livez", "/readyz", "/", "/console.json"):
            assert web.get(path).status_code == 200, path
        answer = web.get("/v1/sessions", headers={"Authorization": "Bearer second-key"})
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_without_workers_a_call_is_told_so_and_webhooks_are_all_that_is_taken(accepting: GatewayProcess) -> None:
    headers = {"Authorization": "Bearer first-key"}
    answer = httpx2.post(f"{accepting.url}/v1/chat/completions", json={}, headers=headers)
    assert answer.status_code == 503
    assert "GATEHOUSE_WORKERS" in answer.json()["error"]["message"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0_and_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    with GatewayProcess(tmp_path, {"GATEHOUSE_WORKERS": "1"}) as gateway:
        below = descendants(gateway.pid)
        began = time.monotonic()
        os.kill(gateway.pid, number)
        gateway.wait_for("stopped")
        assert gateway.terminate() == 0
        assert time.monotonic() - began < 10
    assert [line["event"] for line in gateway.events("stopped")] == ["stopped"]
    assert below
    assert_gone(below)


def test_a_signal_before_the_workers_are_ready_ends_it_too(tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "PORT": "0",
        "GATEHOUSE_DATA_DIR": str(tmp_path),
        "GATEHOUSE_WORKERS": "1",
    }
    starting = subprocess.Popen(
        [sys.executable, "-m", "gateway"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    with starting as process:
        assert process.stdout is not None
        assert '"started"' in process.stdout.readline()
        below = descendants(process.pid)
        process.terminate()
        said = process.stdout.read()
        assert process.wait(20) == 0
    assert '"stopped"' in said
    assert_gone(below)


def test_an_open_page_is_told_goodbye(tmp_path: Path) -> None:
    with (
        GatewayProcess(tmp_path, {"GATEHOUSE_WORKERS": "0"}) as gateway,
        httpx2.stream("GET", f"{gateway.url}/v1/events", timeout=20) as page,
    ):
        lines = page.iter_lines()
        assert next(lines) == "event: hello"
        os.kill(gateway.pid, signal.SIGTERM)
        assert "event: bye" in list(lines)
        assert gateway.terminate() == 0


def test_readiness_ends_with_the_first_signal_and_the_second_ends_all_at_once(tmp_path: Path) -> None:
    with running_provider() as provider:
        model = {"GATEHOUSE_MODEL": "openai:test", "OPENAI_BASE_URL": provider.openai_url}
        with GatewayProcess(tmp_path, {"GATEHOUSE_WORKERS": "1", **model}) as gateway:
            url = gateway.url
            body = {"model": "gatehouse", "stream": True, "messages": [{"role": "user", "content": "[[stall]]"}]}
            headers = {"X-Gatehouse-Session": "stalls"}
            with httpx2.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers, timeout=30) as answer:
                gateway.wait_until(
                    lambda: bool(gateway.get("/v1/sessions/api%3Adefault%3Astalls")["turn"]), 20, "the turn runs"
                )
                os.kill(gateway.pid, signal.SIGTERM)
                gateway.wait_for("stopping")
                assert httpx2.get(f"{url}/readyz").status_code == 503
                assert httpx2.get(f"{url}/livez").status_code == 200
                assert httpx2.post(f"{url}/v1/chat/completions", json=body).status_code == 503
                began = time.monotonic()
                assert gateway.terminate() == 0
                assert time.monotonic() - began < 6
                assert "stopping" in answer.read().decode()


#: a gateway whose stop hangs for ever, and has a second for it
HUNG = """
import asyncio
import gateway.server as server
from gateway.app import Gateway
from shared.events import LogWriter
from shared.settings import load_settings

class Hung(Gateway):
    async def drain(self, hasten):
        await asyncio.Event().wait()

server.HARD_END_S = 1.0
settings = load_settings()
log = LogWriter(settings.secrets())
log.start()
server.serve(settings, log, Hung)
"""


def test_a_stop_that_hangs_ends_hard_in_its_time(tmp_path: Path) -> None:
    environment = {"GATEHOUSE_WORKERS": "0", "GATEHOUSE_DATA_DIR": str(tmp_path), "PORT": "0", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", HUNG], cwd=tmp_path, env=os.environ | environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if '"ready"' in line:
                break
        process.terminate()
        try:
            told, _ = process.communicate(timeout=15)
        finally:
            process.kill()
    assert process.returncode == 1
    assert '"hard":true' in told
