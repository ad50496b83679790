"""Each alert under docs/ fires at a real Prometheus when its fault is really made at a gateway that runs.

The durations of the rules are shortened: what they wait for, what they look back over and what they call late.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil

from gateway.platforms.standard import sign
from loadtests.gateway_process import GatewayProcess
from loadtests.program import free_port
from tests.prometheus_server import RULES, has_read, needs_prometheus, prometheus, query

#: fires now, or did
FIRED = 'max_over_time(ALERTS{{alertname="{name}", alertstate="firing"}}[10m])'
SECRET = "whsec_Z2F0ZWhvdXNlLXRlc3Qtc2VjcmV0LTMyLWJ5dGVzLWxvbmc="
#: their faults are no test's to make: a slow provider, a leak of the gateway, a full disk, days without a backup
NOT_MADE = {"GatehouseModelSlow", "GatehouseMemory", "GatehouseDiskLow", "GatehouseBackupOld"}
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
    """Return the rules with every duration made seconds."""
    rules = re.sub(r"for: \d+m", "for: 1s", rules)
    rules = re.sub(r"\[\d+m\]", "[20s]", rules).replace("offset 10m", "offset 10s")
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
    assert set(re.findall(r"- alert: (\w+)", rules)) - alerts.fired == NOT_MADE
