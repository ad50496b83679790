"""What people see while a turn runs, and that the final text always arrives whole and once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.delivery import Delivery
from gateway.governor import Governor
from gateway.life_signs import LifeSigns
from gateway.platforms import enabled_platforms
from shared.events import Events
from shared.ids import new_message_id
from shared.messages import Arrival, Claim, Ended, TurnStatus
from shared.settings import parse_settings
from shared.store import Store
from tests.gateway.edge import open_test_store, serving

ANSWER = "The answer is long enough to be shown while it is written, **boldly**, and goes on."
ADDRESSES = {
    "slack": b'{"channel":"C1","thread_ts":"1.5"}',
    "telegram": b'{"chat_id":5,"message_id":9}',
}


class ChatServer:
    """Takes calls of Slack and Telegram; a method named in ``held`` answers once it is let go."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.held: dict[str, asyncio.Event] = {}
        self.limited: set[str] = set()  #: methods that are to wait for half a minute

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self.answer, methods=["POST"])])

    async def answer(self, request: Request) -> Response:
        method = request.url.path.rpartition("/")[2]
        self.calls.append((method, json.loads(await request.body())))
        if held := self.held.get(method):
            await held.wait()
        if method in self.limited:
            said = {"ok": False, "error": "ratelimited", "parameters": {"retry_after": 30}, "retry_after": 30}
            return JSONResponse(said, 429, {"retry-after": "30"})
        return JSONResponse({"ok": True, "ts": f"7.{len(self.calls)}", "result": {"message_id": len(self.calls)}})

    def of(self, method: str) -> list[dict[str, Any]]:
        return [body for name, body in self.calls if name == method]

    async def arrived(self, method: str, count: int = 1) -> list[dict[str, Any]]:
        async with asyncio.timeout(15):
            while len(self.of(method)) < count:  # noqa: ASYNC110 - what is waited for comes over a socket
                await asyncio.sleep(0.02)
        return self.of(method)


class TurnsHere:
    """Ends no turn: none runs here."""

    async def interrupt(self, session: str) -> bool:
        return bool(session)


class Running:
    """A running turn, and what shows it."""

    def __init__(self, server: ChatServer, store: Store, signs: LifeSigns, delivery: Delivery, claim: Claim) -> None:
        self.server, self.store, self.signs, self.delivery = server, store, signs, delivery
        self.claim = claim
        self.session = claim.ref.session

    def begin(self) -> None:
        self.signs.turn_started(self.claim.messages[0].id, self.session)

    async def settle(self, text: str) -> None:
        ended = Ended(TurnStatus.REPLIED, text, ())
        await self.store.claims.settle(self.claim.ref, ended)
        self.delivery.wake()
        self.signs.settled(self.session, ended)


@asynccontextmanager
async def running(tmp_path: Path, platform: str) -> AsyncIterator[Running]:
    server = ChatServer()
    async with serving(server.app()) as url, open_test_store(tmp_path) as store:
        secrets = {"SLACK_SIGNING_SECRET": "s" * 32, "SLACK_BOT_TOKEN": "xoxb", "SLACK_API_BASE": f"{url}/api"}
        secrets |= {"TELEGRAM_BOT_TOKEN": "1:t", "TELEGRAM_SECRET_TOKEN": "secret", "TELEGRAM_API_BASE": url}
        platforms, governor = enabled_platforms(parse_settings(secrets)), Governor()
        delivery = Delivery(store, platforms, Events(), "test", governor=governor)
        signs = LifeSigns(store, platforms, governor, delivery.platform_calls, TurnsHere())
        delivery.place_of = signs.place_of
        message_id = new_message_id()
        arrival = Arrival(
            message_id, f"{platform}:1:2", platform, "u", "x", ADDRESSES[platform], (message_id,), 60.0, time.time()
        )
        await store.inbox.accept(arrival)
        (claim,) = (await store.claims.claim("test", 1, 60.0)).claims
        await delivery.start()
        try:
            yield Running(server, store, signs, delivery, claim)
        finally:
            await signs.close()
            await delivery.close()


async def test_slack_shows_what_the_agent_does_and_the_answer_in_one_message(tmp_path: Path) -> None:
    """A status, then the beginning of the answer, which the whole of it is written over."""
    async with running(tmp_path, "slack") as turn:
        first_answer = turn.server.held["assistant.threads.setStatus"] = asyncio.Event()
        turn.begin()
        (status,) = await turn.server.arrived("assistant.threads.setStatus")
        assert (status["status"], status["thread_ts"]) == ("is thinking…", "1.5")
        turn.signs.tool_started(turn.session, "search")  # while the first status is on its way
        first_answer.set()
        assert (await turn.server.arrived("assistant.threads.setStatus", 2))[1]["status"] == "is using search…"
        turn.signs.delta(turn.session, 1, ANSWER[:60])
        (first,) = await turn.server.arrived("chat.postMessage")
        assert first["markdown_text"] == ANSWER[:60].strip()
        await turn.settle(ANSWER)
        (last, *_) = (await turn.server.arrived("chat.update"))[-1:]
        assert (last["markdown_text"], last["ts"][:2]) == (ANSWER, "7.")
        assert len(turn.server.of("chat.postMessage")) == 1


async def test_an_answer_that_is_ready_while_its_beginning_is_on_its_way_is_not_there_twice(tmp_path: Path) -> None:
    """The delivery waits for the message to write over; nothing else does."""
    async with running(tmp_path, "slack") as turn:
        turn.server.held["chat.postMessage"] = asyncio.Event()
        turn.begin()
        turn.signs.delta(turn.session, 1, ANSWER[:60])
        await turn.server.arrived("chat.postMessage")
        await turn.settle(ANSWER)
        await asyncio.sleep(0.2)
        turn.server.held["chat.postMessage"].set()
        (last,) = await turn.server.arrived("chat.update")
        assert last["markdown_text"] == ANSWER
        assert len(turn.server.of("chat.postMessage")) == 1


async def test_telegram_types_and_shows_a_person_a_draft(tmp_path: Path) -> None:
    """The message itself is sent once; a turn that is over shows nothing more."""
    async with running(tmp_path, "telegram") as turn:
        turn.begin()
        (typing,) = await turn.server.arrived("sendChatAction")
        assert typing == {"chat_id": 5, "action": "typing"}
        turn.signs.delta(turn.session, 1, ANSWER[:70])
        (draft,) = await turn.server.arrived("sendMessageDraft")
        assert draft["draft_id"] > 0
        await turn.settle(ANSWER)
        (sent,) = await turn.server.arrived("sendMessage")
        assert "<b>boldly</b>" in sent["text"]
        shown = len(turn.server.calls)
        turn.signs.delta(turn.session, 1, ANSWER * 3)
        await asyncio.sleep(1.2)
        assert len(turn.server.calls) == shown


@pytest.mark.parametrize(
    ("platform", "typing", "send"),
    [
        ("slack", "assistant.threads.setStatus", "chat.postMessage"),
        ("telegram", "sendChatAction", "sendMessage"),
    ],
)
async def test_an_answer_does_not_wait_for_what_only_the_typing_is_limited_to(
    tmp_path: Path, platform: str, typing: str, send: str
) -> None:
    """These platforms limit their methods apart."""
    async with running(tmp_path, platform) as turn:
        turn.server.limited.add(typing)
        turn.begin()
        await turn.server.arrived(typing)
        await turn.settle("Here it is.")
        (sent,) = await turn.server.arrived(send)
        assert "Here it is." in json.dumps(sent)


async def test_a_turn_that_ends_at_once_shows_nothing_but_its_answer(tmp_path: Path) -> None:
    """Typing would come after it."""
    async with running(tmp_path, "telegram") as turn:
        turn.begin()
        await turn.settle("quick")
        await turn.server.arrived("sendMessage")
        await asyncio.sleep(1.2)
        assert [name for name, _ in turn.server.calls if name != "getMe"] == ["sendMessage"]
