"""``connect`` against each platform over real HTTP: what it registers, what it prints, and how it says a refusal."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.cli import connect
from gateway.cli.command import Invocation
from gateway.cli.terminal import Terminal
from gateway.platforms import ADAPTERS
from gateway.platforms.port import WebhookRequest
from shared.command import CHAT_COMMANDS
from shared.errors import SignatureRejected
from shared.platform_settings import PlatformSettings
from shared.settings import Settings, parse_settings
from shared.texts import LANGUAGES
from tests.gateway.edge import serving
from tests.gateway.platforms.test_conformance import fixture_of

#: the calls that register each platform's webhook; the others are set up by hand
REGISTERS = {
    "telegram": ["setWebhook", *["setMyCommands"] * len(LANGUAGES)],
    "discord": ["@me", *["commands"] * (1 + len(CHAT_COMMANDS))],
    "line": ["endpoint", "test"],
    "matrix": ["register"],
}


class Outside:
    """A platform's API, and the gateway as it is reached from outside."""

    def __init__(self, *, refuses: bool = False, limits: int = 0) -> None:
        self.refuses = refuses
        self.limits = limits  #: how many calls are limited first
        self.called: list[str] = []
        self.bodies: list[dict[str, Any]] = []

    def app(self) -> Starlette:
        methods = ["GET", "POST", "PUT", "PATCH"]
        return Starlette(
            routes=[
                Route("/webhooks/{name}", self.gateway, methods=methods),
                Route("/webhooks/{name}/{rest:path}", self.gateway, methods=methods),
                Route("/v1/sessions", self.closed),
                Route("/{rest:path}", self.api, methods=methods),
            ]
        )

    async def gateway(self, request: Request) -> Response:
        """Answer as a gateway does that has the fixture's secrets."""
        adapter = fixture_of(request.path_params["name"]).adapter
        try:
            adapter.verify(WebhookRequest(request.method, request.headers, await request.body(), time.time()))
        except SignatureRejected as error:
            return JSONResponse({"error": {"message": str(error)}}, 401)
        return JSONResponse({})

    async def closed(self, _request: Request) -> Response:
        return JSONResponse({}, 401)

    async def api(self, request: Request) -> Response:
        if self.limits > 0:
            self.limits -= 1
            return JSONResponse({"retry_after": 0.05}, 429, {"retry-after": "0.05"})
        self.called.append(request.url.path.rpartition("/")[2])
        self.bodies.append(json.loads(await request.body() or b"{}"))
        # what a platform says may name the token that it refuses
        said = f"{request.url.path} {request.headers.get('authorization', '')} is not accepted"
        return JSONResponse({"ok": False, "description": said}, 401) if self.refuses else JSONResponse({"ok": True})


def settings_of(name: str, url: str) -> Settings:
    """Return the settings of one platform that is at a url."""
    known: PlatformSettings = fixture_of(name).adapter.settings  # type: ignore[attr-defined]
    values = {f"{known.prefix}_{field.upper()}": str(getattr(known, field)) for field in known.__struct_fields__}
    values |= {variable: url for variable in values if variable.endswith(("_BASE", "TOKEN_URL"))}
    return parse_settings({**values, "GATEHOUSE_PUBLIC_URL": url})


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("name", sorted(ADAPTERS))
async def test_it_registers_or_tells_and_shows_no_secret(
    name: str, refuses: bool, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    outside = Outside(refuses=refuses)
    async with serving(outside.app()) as url:
        settings = settings_of(name, url)
        asked = argparse.Namespace(platform=name)
        status = await connect.run(Invocation(settings, asked, Terminal(as_json=True)))
    shown = capfdbinary.readouterr().out.decode()
    found = msgspec.json.decode(shown)
    assert status == (1 if refuses and name in REGISTERS else 0), shown
    assert outside.called == REGISTERS.get(name, [])
    assert found["url"] == f"{url}/webhooks/{name}"
    told = "\n".join(found["lines"])
    assert f"/webhooks/{name}" in told or any(f"/webhooks/{name}" in json.dumps(body) for body in outside.bodies)
    assert ("FAILED" in told) == (refuses and name in REGISTERS)
    assert "from outside" in told
    assert not [secret for secret in settings.secrets() if secret in shown]


async def test_every_chat_command_is_in_the_menus_that_platforms_show(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    """By the one list of them; a platform that takes a few calls at once is waited for."""
    outside = Outside(limits=2)
    names = [name[1:] for name in CHAT_COMMANDS]
    async with serving(outside.app()) as url:
        for platform in ("telegram", "discord", "slack", "mattermost"):
            asked = argparse.Namespace(platform=platform)
            assert await connect.run(Invocation(settings_of(platform, url), asked, Terminal(as_json=True))) == 0
    english, german = [body for body in outside.bodies if "commands" in body]
    assert [one["command"] for one in english["commands"]] == [one["command"] for one in german["commands"]] == names
    assert german["language_code"] == "de"
    commands = [body for body in outside.bodies if "name" in body]
    assert [body["name"] for body in commands] == ["ask", *names]
    assert all(1 <= len(body["description"]) <= 100 for body in commands)
    told = capfdbinary.readouterr().out.decode()
    for name in set(names) - {"status"}:  # Slack has one of its own
        assert f'\\"/{name}\\"' in told
    assert " ".join(CHAT_COMMANDS) in told
