"""What is tried for real, and what was said is found again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import httpx2

from loadtests.gateway_process import GatewayProcess
from tests.e2e.command_line import run_command, run_inside

#: a port that nothing listens on
NOWHERE = "http://127.0.0.1:9"
ROOT = Path(__file__).parent.parent.parent.parent


def test_what_cannot_be_reached_is_named_and_what_can_is_told(tmp_path: Path) -> None:
    server = {"command": sys.executable, "args": [str(ROOT / "tests/worker/tools/mcp/server.py")], "cwd": str(ROOT)}
    servers = {"good": server | {"env": {"PYTHONPATH": str(ROOT)}}, "bad": {"command": "false"}}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
    settings = {
        "GATEHOUSE_MODEL": "openai:gpt-test,offline",
        "OPENAI_API_KEY": "sk-secret-of-the-test",
        "OPENAI_BASE_URL": f"{NOWHERE}/v1",
        "TELEGRAM_BOT_TOKEN": "123456:secret-of-the-test",
        "TELEGRAM_SECRET_TOKEN": "s",
        "TELEGRAM_API_BASE": NOWHERE,
        "GATEHOUSE_PUBLIC_URL": NOWHERE,
        "GATEHOUSE_MCP_CONFIG": str(tmp_path / "mcp.json"),
    }
    for command in (("doctor", "--json"), ("check", "--live", "--json")):
        ended = run_command(tmp_path, *command, port=0, **settings)
        assert ended.returncode == 1
        found = {one["part"]: one for one in json.loads(ended.stdout)["findings"]}
        wrong = {part for part, one in found.items() if not one["ok"]}
        assert wrong == {"model openai:gpt-test", "platform telegram", f"from outside ({NOWHERE})", "mcp server bad"}
        assert found["model offline"]["text"].startswith("answers in")
        assert found["mcp server good"]["text"].endswith("tools")
        assert "secret-of-the-test" not in ended.stdout + ended.stderr

    assert run_inside(tmp_path, "check", port=0, **settings).returncode == 0


def test_what_was_said_is_found_in_every_session_beside_a_gateway(running: GatewayProcess) -> None:
    with httpx2.Client(base_url=running.url, timeout=30, trust_env=False) as web:
        for name, text in (
            ("first", "the invoice 4711 is late"),
            ("second", "Ünïcode INVOICE 4711"),
            ("third", "/new"),
        ):
            body = {"model": "gatehouse", "messages": [{"role": "user", "content": text}]}
            web.post("/v1/chat/completions", json=body, headers={"X-Gatehouse-Session": name}).raise_for_status()
    found = run_inside(running.data_dir, "search", "invoice", "4711", "--json")
    assert found.returncode == 0, found.stderr
    assert "no gateway runs" not in found.stderr
    assert str(running.data_dir / "gatehouse.db") in found.stderr
    hits = json.loads(found.stdout)["hits"]
    assert {(hit["session"], hit["role"]) for hit in hits} >= {
        ("api:default:first", "user"),
        ("api:default:second", "user"),
    }
    shown = run_inside(running.data_dir, "search", "ünïcode", "--limit", "1")
    assert "Ünïcode INVOICE 4711" in shown.stdout
    nothing = run_inside(running.data_dir, "search", "nobody said this")
    assert (nothing.returncode, nothing.stdout) == (1, "")
