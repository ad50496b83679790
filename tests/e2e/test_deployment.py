"""The files for deployment, tried with what reads them: Debian's nginx and Caddy, systemd-analyze, honcho."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from loadtests import signing
from loadtests.gateway_process import ROOT, GatewayProcess
from loadtests.program import free_port

DEPLOY = ROOT / "deploy"
SECRET = "whsec_" + "c2VjcmV0" * 4
SETTINGS = {
    "GATEHOUSE_WORKERS": "1",
    "GATEHOUSE_SPARES": "0",
    "STANDARD_WEBHOOK_SECRET": SECRET,
    "STANDARD_WEBHOOK_REPLY_URL": "http://127.0.0.1:9/replies",
}
#: what a stranger may send to reach what is not published
PATHS = [
    "/",
    "/v1/sessions",
    "/metrics",
    "/readyz",
    "/webhooks",
    "/webhooks/../v1/sessions",
    "/webhooks/..%2fv1/sessions",
    "/webhooks/%2e%2e/v1/sessions",
    "/v1/sessions/..%2f..%2fwebhooks/x",
    "/v1/sessions/%2e%2e/%2e%2e/webhooks/x",
    "//webhooks/../v1/sessions",
    "/webhooks/..;/v1/sessions",
    "/webhooks\\..\\v1\\sessions",
]


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        shutil.which(program) is None and not os.environ.get("CI"), reason=f"{program} is not installed"
    )


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """Run a program until it listens on a port, and end it with all it has started."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, f"{command[0]} ended"
            time.sleep(0.05)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def nginx(directory: Path, gateway_port: int, port: int) -> list[str]:
    """Return the command that runs Debian's nginx with the published file, on loopback and without TLS."""
    server = (DEPLOY / "nginx.conf").read_text("utf-8").replace("127.0.0.1:8000", f"127.0.0.1:{gateway_port}")
    server = re.sub(r"^ *(listen \[::\]|http2|ssl_).*\n", "", server, flags=re.MULTILINE)
    server = server.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    (directory / "nginx.conf").write_text(
        f"daemon off; user root; pid {directory}/pid; error_log {directory}/log; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;\n"
        f"{server}}}"
    )
    return ["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf")]


def caddy(directory: Path, gateway_port: int, port: int) -> list[str]:
    """Return the command that runs Debian's Caddy with the published file, on loopback and without TLS."""
    text = (DEPLOY / "Caddyfile").read_text("utf-8").replace("127.0.0.1:8000", f"127.0.0.1:{gateway_port}")
    site = text.replace("bot.example.com {", f"http://bot.example.com:{port} {{\n\tbind 127.0.0.1")
    (directory / "Caddyfile").write_text("{\n\tadmin off\n}\n" + site)
    return ["caddy", "run", "--config", str(directory / "Caddyfile"), "--adapter", "caddyfile"]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("published"), SETTINGS) as process:
        yield process


def raw_status(port: int, path: str) -> int:
    """Send a path as it is written, which no client library does, and return the status of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: bot.example.com\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        return int(connection.makefile("rb").readline().split()[1])


@pytest.mark.parametrize(
    "proxy", [pytest.param(nginx, marks=needs("nginx")), pytest.param(caddy, marks=needs("caddy"))]
)
def test_a_proxy_publishes_webhooks_and_nothing_else(
    gateway: GatewayProcess, tmp_path: Path, proxy: Callable[[Path, int, int], list[str]]
) -> None:
    port = free_port()
    gateway_port = int(gateway.url.rpartition(":")[2])
    name = getattr(proxy, "__name__", "")
    signed = signing.standard(SECRET, f"wh_{name}", time.time(), session="team", user="ana", text="hello")
    with running(proxy(tmp_path, gateway_port, port), port):
        with httpx2.Client(trust_env=False, timeout=30, headers={"Host": "bot.example.com"}) as web:
            url = f"http://127.0.0.1:{port}"
            accepted = web.post(url + signed.path, content=signed.body, headers=signed.headers)
            assert (accepted.status_code, "x-gatehouse-message" in accepted.headers) == (200, True), accepted.text
            assert web.post(f"{url}/webhooks/standard", content=signed.body).status_code == 401
        found = {path: raw_status(port, path) for path in PATHS}
    assert {path: status for path, status in found.items() if status not in {301, 400, 404}} == {}


@needs("systemd-analyze")
def test_the_unit_is_one_that_systemd_takes_and_finds_hardened(tmp_path: Path) -> None:
    unit = tmp_path / "gatehouse.service"
    unit.write_text(
        (DEPLOY / "gatehouse.service").read_text("utf-8").replace("/opt/gatehouse/bin/gatehouse", "/bin/true")
    )
    for arguments in (["verify", str(unit)], ["security", "--offline=true", "--threshold=25", str(unit)]):
        ended = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)
        assert (ended.returncode, "gatehouse.service:" in ended.stderr) == (0, False), ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("settings", "host"),
    [
        ({}, ""),
        ({"GATEHOUSE_API_KEYS": "k" * 20}, "0.0.0.0"),
        ({"GATEHOUSE_API_KEYS": "k", "GATEHOUSE_HOST": "::1"}, "::1"),
    ],
)
def test_the_web_process_of_a_platform_listens_for_others_where_a_key_keeps_them_out(
    tmp_path: Path, settings: dict[str, str], host: str
) -> None:
    shutil.copy(ROOT / "Procfile", tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "host=$GATEHOUSE_HOST port=$PORT"\n')
    python.chmod(0o700)
    ended = subprocess.run(
        [sys.executable, "-m", "honcho", "-e", "/dev/null", "start", "-p", "5123", "web"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], **settings},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert f"host={host} port=5123" in ended.stdout


def test_the_buildpack_files_name_the_python_and_the_pins_that_are_tested() -> None:
    version = (ROOT / ".python-version").read_text("utf-8").strip()
    assert f'requires-python = ">={version}"' in (ROOT / "pyproject.toml").read_text("utf-8")
    assert f"python:{version}-slim" in (ROOT / "Dockerfile").read_text("utf-8")
    lines = [line for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert lines == ["-c constraints.txt", ".[postgres]"]


def test_both_process_types_run_on_one_machine_until_they_are_stopped(tmp_path: Path) -> None:
    port = free_port()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {"GATEHOUSE_DATA_DIR": str(tmp_path), "GATEHOUSE_WORKERS": "1", "GATEHOUSE_SPARES": "0"}
    honcho = subprocess.Popen(
        [sys.executable, "-m", "honcho", "-e", "/dev/null", "start", "-p", str(port)],
        cwd=ROOT,
        env={"PATH": path, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while (status := ready_status(port)) != 200:
            assert honcho.poll() is None, honcho.communicate()[0]
            assert time.monotonic() < deadline, status
            time.sleep(0.1)
        honcho.send_signal(signal.SIGTERM)
        said, _ = honcho.communicate(timeout=40)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(honcho.pid, signal.SIGKILL)
    assert "worker.1 | gatehouse: nothing to do here" in said
    assert "web.1 stopped (rc=0)" in said or "web.1    stopped (rc=0)" in said, said


def ready_status(port: int) -> int:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code
    except httpx2.TransportError:
        return 0
