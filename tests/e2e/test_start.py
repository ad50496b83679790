"""The start: mistakes are named in one line, and the Procfile's ways to run it work."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import psutil
import psycopg
import pytest

from loadtests.gateway_process import ROOT
from shared.messages import Arrival
from shared.store import open_store
from shared.store.postgres.schema import MIGRATION_LOCK
from tests.e2e.command_line import run_command, run_inside
from tests.postgres_server import shared_server


def environment(tmp_path: Path, **settings: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "PYTHONPATH": str(ROOT), "GATEHOUSE_DATA_DIR": str(tmp_path / "data"), **settings}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("GATEHOUSE_HOST", "0.0.0.0"),
        ("GATEHOUSE_TOOLS", "no.such.module"),
        ("GATEHOUSE_MODEL", "anthropic:claude"),
        ("GATEHOUSE_WORKERS", "many"),
        ("GATEHOUSE_TURN_TIMEOUT", "-5"),
        ("SLACK_SIGNING_SECRET", "x" * 32),
        ("GATEHOUSE_TYPO", "1"),
    ],
)
def test_a_bad_setting_is_one_line_and_status_two_before_anything_listens(
    tmp_path: Path, name: str, value: str
) -> None:
    run = run_command if name in {"PORT", "GATEHOUSE_TOOLS"} else run_inside
    ended = run(tmp_path, port=0, **{"GATEHOUSE_DATA_DIR": str(tmp_path / "data"), name: value})
    assert ended.returncode == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert any(word in line for word in (name, "ANTHROPIC_API_KEY", "SLACK_BOT_TOKEN"))
    assert not (tmp_path / "data").exists()


def test_a_host_that_is_not_this_machine_is_a_mistake_of_its_setting(tmp_path: Path) -> None:
    for host in ("no-such-host.invalid", "192.0.2.1"):
        ended = run_command(tmp_path, GATEHOUSE_HOST=host, GATEHOUSE_API_KEYS="a-key-of-a-test")
        assert ended.returncode == 2
        assert ended.stderr.startswith(f"gatehouse: GATEHOUSE_HOST: '{host}' is not ")


def test_a_slip_in_the_env_file_is_one_line_and_status_two(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GATEHOUSE_WORKERS=1\nPORT 8000\n")
    ended = run_inside(tmp_path)
    assert (ended.returncode, ended.stderr) == (2, "gatehouse: .env: line 2 is not of the form NAME=value\n")


def test_a_worker_host_without_a_database_url_says_so_in_one_line_and_stays_up_idle(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "worker"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as host:
        assert host.stderr is not None
        assert "DATABASE_URL" in host.stderr.readline()
        assert host.poll() is None
        host.terminate()
        assert host.wait(30) == 0
        assert host.stderr.read() == ""


def test_a_worker_host_serves_health_runs_what_others_accept_and_hides_its_environment(tmp_path: Path) -> None:
    url = shared_server().url()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = environment(tmp_path) | {"DATABASE_URL": url, "PORT": str(port), "GATEHOUSE_WORKERS": "1"}
    variables |= {"TELEGRAM_BOT_TOKEN": "42:secret-of-telegram", "TELEGRAM_SECRET_TOKEN": "secret-of-a-webhook"}
    for name in ("shared", "random"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the package of the user was imported')\n")
    other_host = psycopg.connect(url)  # brings the schema forward, which takes its time
    other_host.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
    host = subprocess.Popen(
        [sys.executable, "-m", "worker"],
        cwd=tmp_path,
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with other_host:
            wait_until_ready(f"http://127.0.0.1:{port}/livez")
            assert "migrating the database" in httpx2.get(f"http://127.0.0.1:{port}/readyz").text
        wait_until_ready(f"http://127.0.0.1:{port}/readyz")
        assert "gatehouse_spares" in httpx2.get(f"http://127.0.0.1:{port}/metrics").text
        assert asyncio.run(reply_of_another_host(url, tmp_path)).startswith("You said: hello")
        family = [psutil.Process(host.pid), *psutil.Process(host.pid).children(recursive=True)]
        environments = [Path(f"/proc/{process.pid}/environ").read_bytes() for process in family]
        assert len(family) > 2
        assert not [read for read in environments if b"secret-of" in read or url.encode() in read]
    finally:
        host.terminate()
        assert host.wait(30) == 0


async def reply_of_another_host(url: str, directory: Path) -> str:
    """Accept a message in the database and return what is replied to it."""
    store = open_store(url, directory, inbox_limit=10)
    await store.open()
    try:
        await store.inbox.accept(Arrival("msg_1", "standard:a:s", "standard", "ann", "hello", b"{}", (), 60.0, 1.0))
        async with asyncio.timeout(30):
            while not (due := await store.outbox.due("test", 1, 30)).replies:  # noqa: ASYNC110 (the store's to know)
                await asyncio.sleep(0.05)
        return due.replies[0].text
    finally:
        await store.close()


@pytest.mark.parametrize(("name", "module", "port"), [("web", "gateway", "5100"), ("worker", "worker", "5100")])
def test_the_procfile_runs_the_python_of_its_own_virtual_environment(
    tmp_path: Path, name: str, module: str, port: str
) -> None:
    """``.venv/bin/honcho start web`` works without activating anything first."""
    shutil.copy(ROOT / "Procfile", tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "ours: $PORT $*"\n')
    python.chmod(0o700)
    ended = subprocess.run(
        [sys.executable, "-m", "honcho", "-e", "/dev/null", "start", "-p", port, name],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert f"ours: {port} -m {module}" in ended.stdout


def test_honcho_starts_the_web_process_on_the_port_it_gives(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    honcho = subprocess.Popen(
        [sys.executable, "-m", "honcho", "-d", str(ROOT), "-e", "/dev/null", "start", "-p", str(port), "web"],
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/readyz")
        assert "Gatehouse" in httpx2.get(f"http://127.0.0.1:{port}/").text
    finally:
        honcho.send_signal(signal.SIGTERM)
        honcho.wait(30)


def wait_until_ready(url: str, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if httpx2.get(url, timeout=5).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"{url} was not ready within {within_s:g} s")
