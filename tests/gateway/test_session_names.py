"""What people call a session is asked of the platforms that do not tell it with a message, once, and shown."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from loadtests import further_settings, further_signing, signing
from loadtests.signing import SignedRequest
from tests.gateway.edge import SECRETS, Edge, running_edge, serving

#: what the platforms know, by the end of the url that is asked; of all else they know nothing
KNOWN: dict[str, object] = {
    "/v2/bot/profile/U7": {"userId": "U7", "displayName": "Ana Lucía"},
    "/conversations.info?channel=C7": {"ok": True, "channel": {"id": "C7", "name": "incidents"}},
    "/users.info?user=U8": {
        "ok": True,
        "user": {"name": "priya", "profile": {"display_name": ""}, "real_name": "Priya N"},
    },
    "/users.info?user=U9": {"ok": False, "error": "missing_scope"},
    "/profile/%40u7%3Aload.test/displayname": {"displayname": "Kenji"},
    "/rooms/%21r8%3Aload.test/state/m.room.name": {"name": "Allotment committee"},
    "/rooms/%21r7%3Aload.test/joined_members": {"joined": {"@u7:load.test": {}, further_settings.MATRIX_BOT: {}}},
    "/rooms/%21r8%3Aload.test/joined_members": {"joined": {f"@u{number}:load.test": {} for number in range(9)}},
}


class Platforms:
    """Every platform's API; it counts what it is asked."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self.answer, methods=["GET", "POST"])])

    async def answer(self, request: Request) -> Response:
        path = request.scope["raw_path"].decode()
        query = request.url.query if path.startswith("/api/") else ""
        asked = f"{path}?{query}" if query else path
        found = next((body for end, body in KNOWN.items() if asked.endswith(end)), None)
        self.asked[next((end for end in KNOWN if asked.endswith(end)), asked)] += 1
        return JSONResponse(found or {"errcode": "M_NOT_FOUND"}, 200 if found else 404)


def messages(at: float) -> list[SignedRequest]:
    """Return a message of each kind of conversation."""

    def slack(channel: str, user: str, thread: str = "") -> SignedRequest:
        secret, event = SECRETS.slack_signing_secret, f"E{channel}{user}{thread}{at}"
        ts = f"{at + float(thread or 0) / 1000:.6f}"
        return signing.slack(secret, event, at, channel=channel, user=user, text="hi", ts=ts, thread_ts=thread)

    return [
        further_signing.line(7, "hi", at),
        further_signing.matrix(7, "hi", at),
        further_signing.matrix(8, "hi", at),
        slack("C7", "U8", "1.1"),
        slack("C7", "U9", "2.2"),
        slack("D8", "U8"),
        slack("D9", "U9"),
    ]


async def titles(edge: Edge) -> dict[str, str]:
    return {row.key: row.title for row in await edge.store.sessions.latest()}


async def test_a_session_is_called_as_its_platform_calls_it_and_that_is_asked_once(tmp_path: Path) -> None:
    platforms = Platforms()
    async with serving(platforms.app()) as url:
        environment = further_settings.all_environment(url) | {"SLACK_API_BASE": f"{url}/api", "GATEHOUSE_ALLOW": "*"}
        async with running_edge(tmp_path, environment) as edge:
            expected = {
                "line:Ubot:U7": "Ana Lucía",
                "matrix:load.test:!r7%3Aload.test": "Kenji",
                "matrix:load.test:!r8%3Aload.test": "Allotment committee",
                "slack:T0LOAD:C7:1.1": "incidents",
                "slack:T0LOAD:C7:2.2": "incidents",
                "slack:T0LOAD:D8": "Priya N",
                "slack:T0LOAD:D9": "",
            }
            for at in (time.time() - 2, time.time()):
                for signed in messages(at):
                    answer = await edge.post(signed)
                    assert answer.status_code == 200, answer.text
                async with asyncio.timeout(20):
                    while await titles(edge) != expected:  # noqa: ASYNC110 - the store has no event for it
                        await asyncio.sleep(0.02)
    lookups = {path: count for path, count in platforms.asked.items() if "joined_members" not in path}
    assert set(lookups.values()) == {1}, lookups
