"""What is tried for real, and what was said is found again."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.platforms import ADAPTERS
from loadtests import further_settings
from loadtests.gateway_process import GatewayProcess
from loadtests.platform import platform_environment
from loadtests.platform_wire import Secrets
from loadtests.program import free_port
from tests.e2e.command_line import run_command, run_inside
from tests.gateway.edge import serving

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
    assert nothing.stderr.endswith("nobody said that\n")
    listed = run_inside(running.data_dir, "sessions", "first")
    assert listed.stdout.splitlines()[0].split() == ["SESSION", "LAST", "USED", "STATE", "WAITING", "NAME"]
    assert run_inside(running.data_dir, "sessions", "nobody").stderr.endswith("no session fits\n")


class Platforms:
    """The APIs of all platforms: what each says by the last part of its path, and what most say."""

    def __init__(self, answers: dict[str, tuple[int, object]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self.answer, methods=["GET", "POST"])])

    async def answer(self, request: Request) -> Response:
        self.asked.append(request.url.path)
        status, body = self.answers.get(request.url.path.rpartition("/")[2], (200, {"ok": True}))
        return JSONResponse(body, status)


async def test_each_platform_is_asked_for_its_token_and_its_webhook_and_the_way_in_is_tried(tmp_path: Path) -> None:
    """All is well beside a gateway; then each fault is named, with what to do."""
    platforms = Platforms({})
    async with serving(platforms.app()) as api:
        port = free_port()
        public = f"http://127.0.0.1:{port}"
        settings = (
            platform_environment(api, Secrets())
            | further_settings.all_environment(api)
            | {
                "PORT": str(port),
                "GATEHOUSE_WORKERS": "0",
                "GATEHOUSE_PUBLIC_URL": public,
            }
        )
        hooks = {name: f"{public}/webhooks/{name}" for name in ("telegram", "line", "discord")}
        platforms.answers |= {
            "getWebhookInfo": (200, {"ok": True, "result": {"url": hooks["telegram"]}}),
            "endpoint": (200, {"endpoint": hooks["line"], "active": True}),
            "@me": (200, {"interactions_endpoint_url": hooks["discord"]}),
        }
        with GatewayProcess(tmp_path, settings):
            good = await findings(tmp_path, settings)
            assert [part for part, (ok, _) in good.items() if not ok] == []
            assert good["proxy headers"] == (True, "there is no proxy")
            assert {part.removeprefix("way in of ") for part in good if part.startswith("way in")} == set(ADAPTERS)
            tried = {part.removeprefix("platform ") for part, (_, text) in good.items() if text == "takes its token"}
            assert tried == set(ADAPTERS) - {"standard"}

            platforms.answers |= {
                "getWebhookInfo": (200, {"ok": True, "result": {"url": ""}}),
                "endpoint": (200, {"endpoint": hooks["line"], "active": False}),
                "@me": (200, {"interactions_endpoint_url": "https://elsewhere.example/x"}),
                "auth.test": (200, {"ok": False, "error": "invalid_auth"}),
            }
            bad = await findings(tmp_path, settings | {"LINE_CHANNEL_SECRET": "another"})
        wrong = {part: text for part, (ok, text) in bad.items() if not ok}
        assert set(wrong) == {
            "webhook of telegram", "webhook of line", "webhook of discord", "platform slack", "way in of line",
        }  # fmt: skip
        assert "python -m gateway connect telegram" in wrong["webhook of telegram"]
        assert "'Use webhook' is off" in wrong["webhook of line"]
        assert f"elsewhere.example/x, not to {hooks['discord']}" in wrong["webhook of discord"]
        assert "SLACK_BOT_TOKEN" in wrong["platform slack"]
        assert "invalid_auth" in wrong["platform slack"]
        assert "LINE_CHANNEL_SECRET must be this channel's" in wrong["way in of line"]


async def findings(directory: Path, settings: dict[str, str]) -> dict[str, tuple[bool, str]]:
    """Return what the doctor finds of platforms and the way in."""
    own = {name: value for name, value in settings.items() if name != "PORT"}
    ended = await asyncio.to_thread(run_command, directory, "doctor", "--json", port=int(settings["PORT"]), **own)
    found = json.loads(ended.stdout)["findings"]
    parts = {one["part"]: (one["ok"], one["text"]) for one in found}
    return {
        part: one for part, one in parts.items() if part.startswith(("platform", "webhook", "way", "from", "proxy"))
    }
