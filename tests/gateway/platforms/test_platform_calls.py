"""Webhooks of platforms that need an answer of theirs first: public keys, access tokens, rooms, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.platform_calls import PlatformCalls
from gateway.platforms import enabled_platforms
from gateway.platforms.port import ApiRequest, WebhookRequest
from shared.settings import parse_settings
from tests.gateway.edge import Edge, running_edge, serving
from tests.gateway.platforms.fixtures import matrix, teams
from tests.gateway.platforms.fixtures.tokens import jwk, token

MESSAGE = "X-Gatehouse-Message"


class PlatformSide:
    """Answers as identity providers and a homeserver do, and counts."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.url = ""
        self.members = 2
        self.away = False
        self.answering = asyncio.Event()  #: while it is not set, every answer is long in coming
        self.answering.set()

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self.answer, methods=["GET", "POST", "PUT"])])

    async def answer(self, request: Request) -> Response:
        path = request.url.path
        self.asked.append(path)
        await self.answering.wait()
        if self.away:
            return JSONResponse({}, 503)
        if path.endswith("openidconfiguration"):
            return JSONResponse({"issuer": "x", "jwks_uri": f"{self.url}/keys"})
        if path == "/keys":
            return JSONResponse({"keys": [json.loads(jwk())]})
        if path.endswith("/token"):
            return JSONResponse({"access_token": f"token {len(self.asked)}", "expires_in": 3600})
        if path.endswith("joined_members"):
            return JSONResponse({"joined": {f"@u{n}:gh.test": {} for n in range(self.members)}})
        return JSONResponse({"room_id": "!r:gh.test"})


@asynccontextmanager
async def platform_side(tmp_path: Path, **environment: str) -> AsyncIterator[tuple[PlatformSide, Edge]]:
    side = PlatformSide()
    async with serving(side.app()) as url:
        side.url = url
        settings = {name: value.replace("URL", url) for name, value in environment.items()}
        async with running_edge(tmp_path, {"GATEHOUSE_ALLOW": "*", **settings}) as edge:
            yield side, edge


TEAMS = {"TEAMS_APP_ID": teams.APP, "TEAMS_APP_PASSWORD": "app-password", "TEAMS_OPENID_BASE": "URL"}
MATRIX = {
    "MATRIX_AS_TOKEN": "as-token",
    "MATRIX_HS_TOKEN": matrix.TOKEN,
    "MATRIX_USER_ID": matrix.BOT,
    "MATRIX_API_BASE": "URL",
}


def bearer(**changes: Any) -> dict[str, str]:
    now = time.time()
    claims = {"iss": "https://api.botframework.com", "aud": teams.APP, "serviceurl": teams.SERVICE, "exp": now + 60}
    headers = {"kid": changes.pop("kid", "k1")}
    return {"authorization": f"Bearer {token({**claims, **changes}, **headers)}"}


async def test_a_teams_activity_is_verified_with_the_keys_that_the_platform_publishes(tmp_path: Path) -> None:
    """They are fetched once; a token for somebody else, of another key, or for another connector is refused."""
    async with platform_side(tmp_path, **TEAMS) as (side, edge):
        body = teams.activity("hi")
        answer = await edge.client.post("/webhooks/teams", content=body, headers=bearer())
        assert (answer.status_code, answer.content, MESSAGE in answer.headers) == (200, b"", True)
        for changes in (
            {"aud": "x"},
            {"iss": "x"},
            {"exp": time.time() - 400},
            {"serviceurl": "https://evil/"},
            {"kid": "k2"},
        ):
            refused = await edge.client.post("/webhooks/teams", content=body, headers=bearer(**changes))
            assert refused.status_code == 401, changes
        assert len(side.asked) == 2
        assert (await edge.client.get("/webhooks/teams")).status_code == 405


async def test_a_known_key_does_not_wait_while_a_strangers_is_asked_for() -> None:
    """Who shows a key id that nobody knows has the keys fetched again; the platform may be long in answering."""
    side = PlatformSide()
    async with serving(side.app()) as side.url:
        names = {**TEAMS, "TEAMS_OPENID_BASE": side.url, "TEAMS_LOGIN_BASE": side.url, "TEAMS_API_BASE": side.url}
        now = [1000.0]
        calls = PlatformCalls(lambda: now[0])
        platform = enabled_platforms(parse_settings(names))["teams"]
        genuine, strange = (WebhookRequest("POST", bearer(kid=kid), b"", 0) for kid in ("k1", "k2"))
        assert (await calls.with_keys(platform, genuine)).keys
        now[0] += 7200
        side.answering.clear()
        asking = asyncio.create_task(calls.with_keys(platform, strange))
        async with asyncio.timeout(20):
            while len(side.asked) < 3:  # noqa: ASYNC110 - the other side is no part of this loop's tasks
                await asyncio.sleep(0.01)
            assert (await calls.with_keys(platform, genuine)).keys
        assert not asking.done()
        side.answering.set()
        await asking
        await calls.close()


async def test_an_access_token_is_fetched_once_and_goes_with_every_call(tmp_path: Path) -> None:
    """Until shortly before its end; without one nothing is sent."""
    side = PlatformSide()
    async with serving(side.app()) as url:
        settings = parse_settings({**TEAMS, "TEAMS_OPENID_BASE": url, "TEAMS_LOGIN_BASE": url, "TEAMS_API_BASE": url})
        now = [1000.0]
        calls = PlatformCalls(lambda: now[0])
        platform = enabled_platforms(settings)["teams"]
        request = ApiRequest(f"{url}/x", {}, b"{}", needs_token=True)
        first = await calls.authorized(platform, request)
        assert first
        assert await calls.authorized(platform, request) == first
        now[0] += 3400
        later = await calls.authorized(platform, request)
        assert later
        assert later.headers["authorization"] != first.headers["authorization"]
        now[0], side.away = 10_000.0, True
        assert await calls.authorized(platform, request) is None
        await calls.close()


async def push(edge: Edge, number: int, *events: dict[str, Any]) -> httpx2.Response:
    headers = {"authorization": f"Bearer {matrix.TOKEN}"}
    path = f"/webhooks/matrix/_matrix/app/v1/transactions/{number}"
    return await edge.client.put(path, content=matrix.transaction(*events), headers=headers)


async def test_a_matrix_room_of_two_is_a_direct_chat_and_invites_are_taken(tmp_path: Path) -> None:
    """The homeserver is asked once a room; a transaction that comes again starts nothing."""
    async with platform_side(tmp_path, **MATRIX) as (side, edge):
        invite = matrix.event("", "m.room.member", state_key=matrix.BOT, content={"membership": "invite"})
        assert (await push(edge, 1, invite)).content == b"{}"
        joined, looked_back = side.asked[-2:]
        assert joined.endswith("/join/!r:gh.test")
        assert looked_back.endswith("/rooms/!r:gh.test/messages")
        first = await push(edge, 2, matrix.event("hello"))
        again = await push(edge, 2, matrix.event("hello"))
        assert first.headers[MESSAGE] == again.headers[MESSAGE]
        side.members = 3
        await push(edge, 3, matrix.event("not for the bot", event_id="$3", room_id="!other:gh.test"))
        named = {"m.mentions": {"user_ids": [matrix.BOT]}}
        await push(edge, 4, matrix.event("for the bot", event_id="$4", room_id="!other:gh.test", content=named))
        claims = await edge.claimed()
        assert sorted(message.text for claim in claims for message in claim.messages) == ["for the bot", "hello"]
        assert sum("joined_members" in path for path in side.asked) == 2


async def test_an_event_whose_room_cannot_be_asked_for_comes_again(tmp_path: Path) -> None:
    """503 and not a guess: the homeserver repeats the transaction, and nothing is lost."""
    async with platform_side(tmp_path, **MATRIX) as (side, edge):
        side.away = True
        assert (await push(edge, 1, matrix.event("hello"))).status_code == 503
        side.away = False
        assert MESSAGE in (await push(edge, 1, matrix.event("hello"))).headers


async def test_a_wrong_token_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    """And a path that is not the platform's is not there."""
    async with platform_side(tmp_path, **MATRIX) as (side, edge):
        path = "/webhooks/matrix/_matrix/app/v1/transactions/1"
        for headers in ({}, {"authorization": "Bearer wrong"}):
            assert (await edge.client.put(path, content=b"not json", headers=headers)).status_code == 401
        assert side.asked == []
        assert (await edge.client.post("/webhooks/slack/more", content=b"{}")).status_code == 404
