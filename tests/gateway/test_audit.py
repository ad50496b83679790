"""Who changes something, and who shows a wrong key, leaves a row, a log line and a count."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gateway.command_acts import CommandActs, leave_act
from loadtests.gateway_process import GatewayProcess
from shared.errors import StoreUnavailable
from shared.store import open_store
from tests.e2e.command_line import port_of, run_inside

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


def rows(data_dir: Path) -> list[tuple[str, str, str]]:
    with contextlib.closing(sqlite3.connect(data_dir / "gatehouse.db")) as db:
        return list(db.execute("SELECT action, actor, target FROM audit ORDER BY place"))


def test_acts_of_commands_are_kept_whether_a_gateway_runs_or_not(tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy.db"
    data.mkdir()
    assert run_inside(data, "key", "add", "early", "--role", "read").returncode == 0  # there is no database yet
    settings = {"GATEHOUSE_WORKERS": "0", "GATEHOUSE_API_KEYS": KEY}
    with GatewayProcess(data, settings) as gateway:
        assert run_inside(data, "key", "add", "ana", port=port_of(gateway)).returncode == 0
        assert run_inside(data, "key", "revoke", "early", port=port_of(gateway)).returncode == 0
        assert run_inside(data, "key", "revoke", "nobody", port=port_of(gateway)).returncode == 1
        told = [(entry["action"], entry["actor"], entry["target"]) for entry in reversed(entries(gateway))]
        assert told == [
            ("key_added", "command", "early read"),
            ("key_added", "command", "ana chat"),
            ("key_revoked", "command", "early"),
        ]
        gateway.wait_for("audit", len(told))
        assert [line["action"] for line in gateway.events("audit")] == [action for action, _, _ in told]
        assert 'gatehouse_audit_total{action="key_added"} 2.0' in gateway.ask("GET", "/metrics").text
        assert run_inside(data, "backup", str(copy), port=port_of(gateway)).returncode == 0
        assert gateway.terminate() == 0
    assert run_inside(data, "key", "revoke", "ana").returncode == 0
    assert rows(data) == [*told, ("key_revoked", "command", "ana")]
    assert run_inside(data, "restore", str(copy)).returncode == 0
    assert rows(data) == [*told, ("database_restored", "command", f"from {copy}")]
    assert run_inside(data, "salvage").returncode == 0
    assert rows(data)[-1][0] == "database_restored"  # a damaged database is not written
    assert run_inside(data, "key", "add", "ana").returncode == 0
    assert [action for action, _, _ in rows(data)[-2:]] == ["database_salvaged", "key_added"]
    assert not list(data.glob("acts.*"))


async def test_an_act_of_a_command_waits_for_a_store_that_is_away(tmp_path: Path) -> None:
    store = open_store("", tmp_path, inbox_limit=10)
    acts = CommandActs(tmp_path)
    for number in range(3):
        leave_act(tmp_path, "key_added", f"k{number}")
    with (tmp_path / "acts.jsonl").open("ab") as file:
        file.write(b'{"at": 1.0, "act')  # cut off by a kill
    with pytest.raises(StoreUnavailable):
        await acts.take(store)
    assert acts.waiting
    await store.open()
    assert [entry.target for entry in await CommandActs(tmp_path).take(store)] == ["k0", "k1", "k2"]
    assert len(await store.audit.latest(10)) == 3
    assert not acts.waiting
    assert await acts.take(store) == []
    await store.close()
