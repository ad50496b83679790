"""Who changes something, and who shows a wrong key, leaves a row, a log line and a count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loadtests.gateway_process import GatewayProcess

KEY = "a-key-of-an-operator-0123"


def entries(gateway: GatewayProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = gateway.get("/v1/audit?limit=50")["audit"]
    return found


def test_acts_and_refused_keys_are_kept_told_and_counted(tmp_path: Path) -> None:
    settings = {"GATEHOUSE_WORKERS": "1", "GATEHOUSE_SPARES": "0", "GATEHOUSE_API_KEYS": KEY}
    with GatewayProcess(tmp_path, settings) as gateway:
        wrong = {"Authorization": "Bearer somebody-elses-key-0000"}
        for _ in range(3):
            assert gateway.ask("GET", "/v1/sessions", headers=wrong).status_code == 401
        assert gateway.ask("POST", "/v1/login", json={"key": "another-wrong-one"}).status_code == 401
        answer = gateway.ask(
            "POST", "/v1/chat/completions",
            json={"model": "gatehouse", "messages": [{"role": "user", "content": "hi"}]},
            headers={"X-Gatehouse-Session": "s"},
        )  # fmt: skip
        assert answer.status_code == 200
        assert gateway.ask("POST", "/v1/workers/0/kill").status_code == 200
        assert gateway.ask("DELETE", f"/v1/sessions/{answer.headers['x-gatehouse-session-key']}").status_code == 200
        assert gateway.ask("POST", "/v1/pairings/NOSUCHCODE/approve").status_code == 404
        kept = entries(gateway)
        assert [(entry["action"], entry["target"]) for entry in kept] == [
            ("session_deleted", "api:default:s"),
            ("worker_killed", "0"),
            ("key_refused", "/v1/sessions"),
        ]
        assert all(entry["origin"] == "127.0.0.1" for entry in kept)
        assert kept[0]["actor"].startswith("key-")
        assert kept[-1]["actor"] == ""
        lines = gateway.events("audit")
        assert [line["action"] for line in lines] == ["key_refused"] * 4 + ["worker_killed", "session_deleted"]
        metrics = gateway.ask("GET", "/metrics").text
        assert 'gatehouse_audit_total{action="key_refused"} 4.0' in metrics
        assert 'gatehouse_audit_total{action="session_deleted"} 1.0' in metrics
        assert "somebody-elses" not in gateway.log()
        for number in range(15):  # a made-up address each time
            forged = wrong | {"X-Forwarded-For": f"1.2.3.{number}"}
            assert gateway.ask("GET", "/v1/sessions", headers=forged).status_code == 401
        assert len([entry for entry in entries(gateway) if entry["action"] == "key_refused"]) == 10
        assert 'gatehouse_audit_total{action="key_refused"} 19.0' in gateway.ask("GET", "/metrics").text
