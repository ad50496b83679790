"""The alert rules and the dashboard under docs/, with Debian's Prometheus and a gateway that runs."""

from __future__ import annotations

import json
import re
import subprocess
from functools import partial
from pathlib import Path

import httpx2

from loadtests.gateway_process import ROOT, GatewayProcess
from loadtests.provider import RunningProvider, Script, running_provider
from tests.prometheus_server import DIRECTORY, RULES, has_read, needs_prometheus, prometheus, query

DASHBOARD = ROOT / "docs" / "grafana" / "gatehouse.json"
#: what only some gateways have something to tell of
SOMETIMES = {"up"}
REFUSES = Script(always="[[status 400]]")
TOOL = '''
from worker.tools import tool

@tool
def boom() -> str:
    """Fail."""
    raise ValueError("boom")
'''


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", RULES.read_text("utf-8"))


def dashboard_queries() -> list[str]:
    """Return what the panels ask, with Grafana's variables filled in."""
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [one.replace("$instance", ".*").replace("$__rate_interval", "1m") for one in asked]


def say(gateway: GatewayProcess, text: str) -> None:
    body = {"model": "gatehouse", "messages": [{"role": "user", "content": text}]}
    sent = gateway.ask("POST", "/v1/chat/completions", json=body, headers={"X-Gatehouse-Session": "m"})
    assert sent.status_code == 200, sent.text


@needs_prometheus
def test_every_alert_fires_when_its_fault_is_made_and_not_before() -> None:
    tested = (DIRECTORY / "rules_test.yml").read_text("utf-8")
    assert [name for name in alerts() if f"- name: {name}\n" not in tested] == []
    ended = subprocess.run(
        ["promtool", "test", "rules", "rules_test.yml"], cwd=DIRECTORY, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def has_data(client: httpx2.Client, expression: str) -> bool:
    return query(client, expression) != []


def model_of(provider: RunningProvider) -> dict[str, str]:
    """Return the settings of a model that refuses what it is told to refuse, before one that answers."""
    keys = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{provider.url}/v1"}
    return keys | {"GATEHOUSE_MODEL": "openai:refuses,offline"}


@needs_prometheus
def test_a_real_prometheus_reads_a_gateway_loads_the_rules_and_answers_the_dashboard(tmp_path: Path) -> None:
    (tmp_path / "copies").mkdir()
    (tmp_path / "failing.py").write_text(TOOL)
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"gone": {"command": "false"}}}))
    settings = {
        "GATEHOUSE_TOOLS": "failing",
        "GATEHOUSE_MCP_CONFIG": str(tmp_path / "mcp.json"),
        "GATEHOUSE_WORKERS": "1",
        "GATEHOUSE_SPARES": "0",
        "GATEHOUSE_BACKUP_DIR": str(tmp_path / "copies"),
        "GATEHOUSE_HOUR_BUDGET": "1000000",
    }
    with running_provider(REFUSES) as provider, GatewayProcess(tmp_path, model_of(provider) | settings) as gateway:
        port = int(gateway.url.rpartition(":")[2])
        say(gateway, "boom")  # the first model refuses, the other one calls the tool, which fails
        gateway.wait_for("backup_made")
        told = httpx2.get(f"{gateway.url}/metrics", timeout=30).text
        with prometheus(tmp_path, port) as client:
            gateway.wait_until(lambda: has_read(client), 60, "Prometheus has read the gateway")
            groups = client.get("/api/v1/rules").json()["data"]["groups"]
            rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
            assert sorted(rules) == sorted(alerts())
            assert query(client, "gatehouse_turn_seconds_count")[0]["metric"]["platform"] == "api"
            assert query(client, "gatehouse_model_call_seconds_count")[0]["metric"]["model"] == "offline"
            for rule in rules.values():
                query(client, rule["query"])
            say(gateway, "boom")  # what is counted has to grow
            for asked in dashboard_queries():
                gateway.wait_until(partial(has_data, client, asked), 30, asked)
            bad = [rule["lastError"] for rule in rules.values() if rule.get("lastError")]
            assert bad == []
            gateway.terminate()
            down = 'ALERTS{alertname="GatehouseDown"}'
            gateway.wait_until(lambda: query(client, down) != [], 60, "the alert is pending")
    families = set(re.findall(r"^# TYPE (\S+)", told, re.MULTILINE))
    used = {
        name
        for text in [*dashboard_queries(), RULES.read_text("utf-8")]
        for name in re.findall(r"\b((?:gatehouse|process)_[a-z_]+)\b(?=[{\[ )])", text)
    }
    known = families | {f"{name}{end}" for name in families for end in ("_bucket", "_count", "_sum")} | SOMETIMES
    assert used - known == set()
