"""The alert rules and the dashboard under docs/, with Debian's Prometheus and a gateway that runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from loadtests.gateway_process import ROOT, GatewayProcess

RULES = ROOT / "docs" / "prometheus"
DASHBOARD = ROOT / "docs" / "grafana" / "gatehouse.json"
#: what only some gateways have something to tell of
SOMETIMES = {"up"}

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None and not os.environ.get("CI"), reason="Debian's prometheus is not installed"
)


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", (RULES / "rules.yml").read_text("utf-8"))


def dashboard_queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


@needs_prometheus
def test_every_alert_fires_when_its_fault_is_made_and_not_before() -> None:
    tested = (RULES / "rules_test.yml").read_text("utf-8")
    assert [name for name in alerts() if f"- name: {name}\n" not in tested] == []
    ended = subprocess.run(
        ["promtool", "test", "rules", "rules_test.yml"], cwd=RULES, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@contextmanager
def prometheus(directory: Path, gateway_port: int) -> Iterator[httpx2.Client]:
    """Run Debian's Prometheus with the configuration of docs/, for a gateway on this port."""
    config = (RULES / "prometheus.yml").read_text("utf-8").replace("127.0.0.1:8000", f"127.0.0.1:{gateway_port}")
    (directory / "prometheus.yml").write_text(config.replace("15s", "1s"))
    shutil.copy(RULES / "rules.yml", directory)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={directory}/prometheus.yml",
            f"--storage.tsdb.path={directory}/tsdb",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            yield client
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def query(client: httpx2.Client, expression: str) -> list[dict[str, Any]]:
    answer = client.get("/api/v1/query", params={"query": expression})
    assert answer.status_code == 200, f"{expression}: {answer.text}"
    found: list[dict[str, Any]] = answer.json()["data"]["result"]
    return found


def is_up(client: httpx2.Client) -> bool:
    try:
        if client.get("/-/ready").status_code != 200:
            return False
        return [row["value"][1] for row in query(client, 'up{job="gatehouse"}')] == ["1"]
    except httpx2.TransportError:
        return False


@needs_prometheus
def test_a_real_prometheus_reads_a_gateway_loads_the_rules_and_answers_the_dashboard(tmp_path: Path) -> None:
    (tmp_path / "copies").mkdir()
    settings = {
        "GATEHOUSE_WORKERS": "1",
        "GATEHOUSE_SPARES": "0",
        "GATEHOUSE_BACKUP_DIR": str(tmp_path / "copies"),
        "GATEHOUSE_HOUR_BUDGET": "1000000",
    }
    with GatewayProcess(tmp_path, settings) as gateway:
        port = int(gateway.url.rpartition(":")[2])
        body = {"model": "gatehouse", "messages": [{"role": "user", "content": "add buy milk"}]}
        sent = httpx2.post(
            f"{gateway.url}/v1/chat/completions", json=body, headers={"X-Gatehouse-Session": "m"}, timeout=30
        )
        assert sent.status_code == 200
        gateway.wait_for("backup_made")
        told = httpx2.get(f"{gateway.url}/metrics", timeout=30).text
        with prometheus(tmp_path, port) as client:
            gateway.wait_until(lambda: is_up(client), 60, "Prometheus has read the gateway")
            groups = client.get("/api/v1/rules").json()["data"]["groups"]
            rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
            assert sorted(rules) == sorted(alerts())
            assert query(client, "gatehouse_turn_seconds_count")[0]["metric"]["platform"] == "api"
            assert query(client, "gatehouse_model_call_seconds_count")[0]["metric"]["model"] == "offline"
            for expression in [*dashboard_queries(), *(rule["query"] for rule in rules.values())]:
                query(client, expression.replace("$instance", ".*").replace("$__rate_interval", "1m"))
            bad = [rule["lastError"] for rule in rules.values() if rule.get("lastError")]
            assert bad == []
            gateway.terminate()
            down = 'ALERTS{alertname="GatehouseDown"}'
            gateway.wait_until(lambda: query(client, down) != [], 60, "the alert is pending")
    families = set(re.findall(r"^# TYPE (\S+)", told, re.MULTILINE))
    used = {
        name
        for text in [*dashboard_queries(), (RULES / "rules.yml").read_text("utf-8")]
        for name in re.findall(r"\b((?:gatehouse|process)_[a-z_]+)\b(?=[{\[ )])", text)
    }
    known = families | {f"{name}{end}" for name in families for end in ("_bucket", "_count", "_sum")} | SOMETIMES
    assert used - known == set()
