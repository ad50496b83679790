"""Each alert under docs/ fires at a real Prometheus when its fault is really made at a gateway that runs.

The durations of the rules are shortened: what they wait for, what they look back over and what they call late.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import secrets
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest

from gateway.platforms.standard import sign
from loadtests.gateway_process import GatewayProcess
from loadtests.program import free_port
from loadtests.provider import running_provider
from tests.prometheus_server import RULES, has_read, needs_prometheus, prometheus, query

#: fires now, or did
FIRED = 'max_over_time(ALERTS{{alertname="{name}", alertstate="firing"}}[10m])'
SECRET = "whsec_Z2F0ZWhvdXNlLXRlc3Qtc2VjcmV0LTMyLWJ5dGVzLWxvbmc="
#: what runs short or is slow: a model that takes its time, memory, a disk, and backups that it has no room for
OF_RESOURCES = {"GatehouseModelSlow", "GatehouseMemory", "GatehouseDiskLow", "GatehouseBackupOld"}
#: the gateway's own memory that the shortened rule takes as too much: at rest it has less than half of that
MEMORY_LIMIT_BYTES = 200 * 1024 * 1024
#: requests whose bodies stay unfinished, and the bytes of each that a gateway holds meanwhile
UNFINISHED, UNFINISHED_BYTES = 30, 6 * 1024 * 1024
SMALL_DISK_BYTES = 16 * 1024 * 1024
#: between two scrapes, and how long one may take: two seconds while the store cannot commit
INTERVAL = "3s"
TOOLS = '''
import os
import time

from worker.tools import tool

@tool
def boom() -> str:
    """Fail."""
    raise ValueError("boom")

@tool
def die() -> str:
    """End the worker."""
    os._exit(3)

@tool
def slow() -> str:
    """Take four seconds."""
    time.sleep(4)
    return "done"
'''


def shortened(rules: str) -> str:
    """Return the rules with every duration made seconds, less memory as too much, and only a share of a disk as low."""
    rules = re.sub(r"for: \d+m", "for: 1s", rules)
    rules = re.sub(r"\[\d+m\]", "[20s]", rules).replace("offset 10m", "offset 10s")
    rules = rules.replace("> 1024 * 1024 * 1024", f"> {MEMORY_LIMIT_BYTES}").replace("< 512 * 1024 * 1024", "< 0")
    return re.sub(r"> (?:300|60)\b", "> 2", rules)


def say(gateway: GatewayProcess, session: str, text: str, user: str = "ana") -> int:
    """Send one signed message, and return the status of the answer."""
    body = json.dumps({"session": session, "user": user, "text": text}).encode()
    webhook_id, now = f"msg_{secrets.token_hex(8)}", str(int(time.time()))
    headers = {"webhook-id": webhook_id, "webhook-timestamp": now, "content-type": "application/json"}
    headers["webhook-signature"] = sign(SECRET, webhook_id, now, body)
    return httpx2.post(f"{gateway.url}/webhooks/standard", content=body, headers=headers, timeout=30).status_code


class Alerts:
    """Waits for alerts at a Prometheus, and keeps which fired."""

    def __init__(self, gateway: GatewayProcess, client: httpx2.Client) -> None:
        self._gateway = gateway
        self._client = client
        self.fired: set[str] = set()

    def wait_for(self, *names: str, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait until each fires, and make its fault again until then."""
        for name in names:

            def fires(name: str = name) -> bool:
                meanwhile()
                return query(self._client, FIRED.format(name=name)) != []

            self._gateway.wait_until(fires, 60, name)
            self.fired.add(name)

    def wait_until_read(self, series: str) -> None:
        """Wait until Prometheus has a sample of the series."""
        self._gateway.wait_until(lambda: query(self._client, series) != [], 60, series)


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold the database's write lock, as another program may."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()


def stop_for_a_moment(pid: int) -> None:
    """Let a process stand still for a fifth of a second."""
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.2)
    os.kill(pid, signal.SIGCONT)
    time.sleep(0.1)


@contextmanager
def few_descriptors(pid: int) -> Iterator[None]:
    """Let a process open hardly more files than it has open."""
    process = psutil.Process(pid)
    before = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 4, before[1]))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_NOFILE, before)


def make_faults_of_a_dead_model(gateway: GatewayProcess, alerts: Alerts) -> None:
    """No model answers, so messages wait; no program speaks MCP."""
    assert [say(gateway, f"s{number}", "hello") for number in range(6)] == [200] * 6
    alerts.wait_for("GatehouseMcpServerDown", "GatehouseMessagesWait", "GatehouseInboxFillsUp", "GatehouseModelErrors")


def make_faults_of_tools(gateway: GatewayProcess, alerts: Alerts) -> None:
    """Tools fail, end their worker and are slow; nobody takes replies; a user spends a budget."""
    say(gateway, "b", "boom")
    alerts.wait_until_read('gatehouse_tool_errors_total{tool="boom"}')  # what grew before its first sample did not grow
    for number in range(30):
        say(gateway, f"b{number}", "boom", user=f"u{number}")
    alerts.wait_for("GatehouseToolErrors", "GatehouseRepliesNotDelivered")
    say(gateway, "money", "a word " * 1000, user="spender")
    alerts.wait_for("GatehouseBudgetNearlySpent")
    for number in range(2):
        say(gateway, f"d{number}", "die", user=f"d{number}")
    alerts.wait_for("GatehouseWorkersDie", "GatehouseDeadLetters")
    for number in range(8):
        say(gateway, f"s{number}", "slow", user=f"s{number}")
    alerts.wait_for("GatehouseTurnsSlow")


def make_faults_of_the_machine(gateway: GatewayProcess, alerts: Alerts) -> None:
    """No directory for logs, no CPU, no descriptors, no commit, no worker that can start, and no gateway."""
    logs = gateway.data_dir / "logs"
    logs.rename(gateway.data_dir / "logs.away")
    logs.write_text("no directory")
    for number in range(3):
        say(gateway, f"l{number}", "hello", user=f"l{number}")
    alerts.wait_for("GatehouseSessionLogsFail")
    logs.unlink()
    alerts.wait_for("GatehouseLoopLag", meanwhile=lambda: stop_for_a_moment(gateway.pid))
    with few_descriptors(gateway.pid):
        alerts.wait_for("GatehouseDescriptorsLow")
    with locked(gateway.data_dir / "gatehouse.db"):
        alerts.wait_for("GatehouseStoreUnavailable", "GatehouseNotReady")
    gateway.wait_until(gateway.is_ready, 60, "the gateway is ready again")
    (gateway.data_dir / "faults.py").write_text("this is no Python\n")
    os.kill(gateway.pid, signal.SIGHUP)
    gateway.wait_for("worker_failed_to_start")
    for pid in gateway.worker_pids():
        os.kill(pid, signal.SIGKILL)
    alerts.wait_for("GatehouseWorkersMissing")
    gateway.kill_tree()


@needs_prometheus
def test_alerts_fire_when_their_faults_are_really_made(tmp_path: Path) -> None:
    directories = [tmp_path / name for name in ("dead_model", "faulty")]
    for directory in directories:
        directory.mkdir()
    common = {
        "GATEHOUSE_WORKERS": "1",
        "GATEHOUSE_SPARES": "0",
        "STANDARD_WEBHOOK_SECRET": SECRET,
        "STANDARD_WEBHOOK_REPLY_URL": f"http://127.0.0.1:{free_port()}/",
    }
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"gone": {"command": "false"}}}))
    dead_model = common | {
        "GATEHOUSE_MODEL": "openai:gone",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{free_port()}/v1",
        "GATEHOUSE_TURNS_PER_WORKER": "1",
        "GATEHOUSE_WAITING_TURNS": "0",
        "GATEHOUSE_INBOX_LIMIT": "6",
        "GATEHOUSE_SENDER_SHARE": "1",
        "GATEHOUSE_MCP_CONFIG": str(tmp_path / "mcp.json"),
    }
    (directories[1] / "faults.py").write_text(TOOLS)
    faulty = common | {"GATEHOUSE_TOOLS": "faults", "GATEHOUSE_USER_BUDGET": "3000"}
    rules = shortened(RULES.read_text("utf-8"))
    with GatewayProcess(directories[0], dead_model) as first, GatewayProcess(directories[1], faulty) as second:
        ports = [int(gateway.url.rpartition(":")[2]) for gateway in (first, second)]
        with prometheus(tmp_path, *ports, rules=rules, interval=INTERVAL) as client:
            first.wait_until(lambda: has_read(client, 2), 60, "Prometheus has read both")
            alerts = Alerts(second, client)
            make_faults_of_a_dead_model(first, alerts)
            make_faults_of_tools(second, alerts)
            make_faults_of_the_machine(second, alerts)
            alerts.wait_for("GatehouseDown")
    assert set(re.findall(r"- alert: (\w+)", rules)) - alerts.fired == OF_RESOURCES


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """Mount a disk in memory with room for some backups; skip where that is forbidden."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", str(directory)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def fill_up(disk: Path) -> None:
    """Leave no room on a disk, and let the copies on it be days old, as they are when it has been full for days."""
    with (disk / "of somebody else").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(65536)):
            pass
    for copy in disk.glob("gatehouse-*.db"):
        days_ago = time.time() - 3 * 86400
        os.utime(copy, (days_ago, days_ago))


@contextmanager
def unfinished_requests(gateway: GatewayProcess) -> Iterator[None]:
    """Send large requests, each but its end, which the gateway holds in memory for as long as it waits for that."""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {UNFINISHED_BYTES + 1}\r\n\r\n"
    port = int(gateway.url.rpartition(":")[2])
    with contextlib.ExitStack() as connections:
        for _ in range(UNFINISHED):
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            connection.sendall(head.encode() + b" " * UNFINISHED_BYTES)
        yield


@needs_prometheus
def test_alerts_of_what_is_slow_or_runs_short_fire_when_it_really_does(tmp_path: Path) -> None:
    rules = shortened(RULES.read_text("utf-8"))
    (tmp_path / "data").mkdir()
    with small_disk(tmp_path / "copies") as disk, running_provider() as provider:
        settings = {
            "GATEHOUSE_MODEL": "openai:slow",
            "OPENAI_BASE_URL": f"{provider.url}/v1",
            "OPENAI_API_KEY": "k",
            "GATEHOUSE_WORKERS": "1",
            "GATEHOUSE_SPARES": "0",
            "GATEHOUSE_BACKUP_DIR": str(disk),
            "PORT": str(free_port()),
            "STANDARD_WEBHOOK_SECRET": SECRET,
            "STANDARD_WEBHOOK_REPLY_URL": f"http://127.0.0.1:{free_port()}/",
        }
        with GatewayProcess(tmp_path / "data", settings) as gateway:
            gateway.wait_for("backup_made")
            with prometheus(tmp_path, int(settings["PORT"]), rules=rules, interval=INTERVAL) as client:
                gateway.wait_until(lambda: has_read(client), 60, "Prometheus has read it")
                alerts = Alerts(gateway, client)
                alerts.wait_until_read("gatehouse_last_backup_timestamp_seconds > 0")
                assert [name for name in OF_RESOURCES if query(client, FIRED.format(name=name))] == []
                fill_up(disk)
                gateway.terminate()
                gateway.start()  # it looks at once whether a backup is due
                gateway.wait_for("backup_failed")
                alerts.wait_for("GatehouseDiskLow", "GatehouseBackupOld")
                numbers = itertools.count()
                alerts.wait_for(
                    "GatehouseModelSlow", meanwhile=lambda: say(gateway, f"s{next(numbers)}", "[[sleep 3]] so slow")
                )
                with unfinished_requests(gateway):
                    alerts.wait_for("GatehouseMemory")
    assert alerts.fired == OF_RESOURCES
