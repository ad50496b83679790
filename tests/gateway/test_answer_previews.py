"""Answers that are streamed by the platform itself: whatever becomes of the stream, the final text is there, whole."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.delivery import Delivery
from gateway.governor import Governor
from gateway.life_signs import LifeSigns
from gateway.platforms import enabled_platforms
from gateway.platforms.slack import Slack
from gateway.platforms.teams import Teams
from shared.events import Events
from shared.ids import new_message_id
from shared.messages import Arrival, Claim, Ended, TurnStatus
from shared.settings import parse_settings
from shared.store import Store
from tests.gateway.edge import open_test_store, serving

LINES = [
    f"Line {number} of an answer that is **long** enough to be shown while it is written.\n\n" for number in range(6)
]
ANSWER = "".join(LINES).rstrip()


class Message(msgspec.Struct):
    """One message as people see it."""

    text: str = ""
    streaming: bool = False
    pieces: int = 0


class ChatServer:
    """Slack's and Teams' streams by their own rules; what breaks one of them is in ``broken``."""

    def __init__(self) -> None:
        self.messages: dict[str, Message] = {}
        self.broken: list[str] = []
        self.calls: list[str] = []
        self.expired = False  #: every stream ends by itself
        self.refused = False  #: no stream may begin
        self.stopped = False  #: the person presses the button
        #: what is answered to a piece of a stream that is shown all the same
        self.unclear: Callable[[], Response] | None = None
        self._lock = asyncio.Lock()

    @property
    def texts(self) -> list[str]:
        return [message.text for message in self.messages.values()]

    def app(self) -> Starlette:
        activities = "/v3/conversations/{chat}/activities"
        return Starlette(
            routes=[
                Route("/api/{method}", self.slack, methods=["POST"]),
                Route(activities, self.teams, methods=["POST"]),
                Route(activities + "/{id}", self.teams, methods=["POST", "PUT"]),
                Route("/{rest:path}", self.token, methods=["POST"]),
            ]
        )

    async def token(self, _request: Request) -> Response:
        return JSONResponse({"access_token": "token", "expires_in": 3600})

    async def slack(self, request: Request) -> Response:
        method, body = request.path_params["method"], json.loads(await request.body())
        self.calls.append(method)
        async with self._lock:
            error = self._slack(method, body)
        if self.unclear and method == "chat.appendStream":
            return self.unclear()
        ts = body.get("ts") or list(self.messages)[-1:] or [""]
        return JSONResponse({"ok": not error, "error": error, "ts": ts if isinstance(ts, str) else ts[0]})

    def _slack(self, method: str, body: dict[str, Any]) -> str:
        text, message = body.get("markdown_text", ""), self.messages.get(body.get("ts", ""))
        if message and self.expired:
            message.streaming = False
        match method:
            case "chat.startStream" if self.refused:
                return "streaming_not_allowed"
            case "chat.startStream":
                if not (body["recipient_user_id"] and body["recipient_team_id"] and body["thread_ts"]):
                    self.broken.append("nobody is named")
                self.messages[f"{len(self.messages)}.5"] = Message(text, streaming=True)
            case "chat.postMessage":
                self.messages[f"{len(self.messages)}.5"] = Message(text)
            case "chat.appendStream" | "chat.stopStream" if message and message.streaming:
                message.text += text
                message.streaming = method == "chat.appendStream"
            case "chat.appendStream" | "chat.stopStream":
                return "message_not_in_streaming_state"
            case "chat.update" if message and message.streaming:
                return "streaming_state_conflict"
            case "chat.update" if message:
                message.text = text
        return ""

    async def teams(self, request: Request) -> Response:
        body, name = json.loads(await request.body()), request.path_params.get("id", "")
        info = next((one for one in body.get("entities", []) if one["type"] == "streaminfo"), None)
        self.calls.append(f"{request.method} {info['streamType'] if info else body['type']}")
        async with self._lock:
            status, answer = self._teams(request.method, body, name, info)
        if self.unclear and info and info["streamType"] == "streaming":
            return self.unclear()
        return JSONResponse(answer, status)

    def _teams(
        self, method: str, body: dict[str, Any], name: str, info: dict[str, Any] | None
    ) -> tuple[int, dict[str, Any]]:
        if method == "PUT":
            self.messages[name].text, self.messages[name].streaming = body["text"], False
            return 200, {"id": name}
        if info is None:
            if body["type"] == "message":
                self.messages[str(len(self.messages))] = Message(body["text"])
            return 201, {"id": str(len(self.messages) - 1)}
        message = self.messages.get(info.get("streamId", ""))
        wrong = self._refuses(message, body["text"], info)
        if wrong:
            return 403, {"error": {"code": "ContentStreamNotAllowed", "message": wrong}}
        if message is None:
            message = self.messages[str(len(self.messages))] = Message()
        message.text, message.pieces = body["text"], message.pieces + 1
        message.streaming = info["streamType"] != "final"
        return (201, {"id": str(len(self.messages) - 1)}) if message.pieces == 1 else (202, {})

    def _refuses(self, message: Message | None, text: str, info: dict[str, Any]) -> str:
        if self.stopped:
            return "Content stream was canceled by user"
        if self.refused:
            return "Content stream is not allowed"
        if self.expired and message:
            return "Content stream finished due to exceeded streaming time."
        if message and not text.startswith(message.text):
            return "Request streamed content should contain the previously streamed content"
        if info["streamType"] != "final" and info["streamSequence"] != (message.pieces if message else 0) + 1:
            self.broken.append("a number is left out")
        return ""


def broken_off() -> Response:
    """Return an answer within which the connection ends."""
    return Response(b"{", headers={"content-length": "9"})


def failed() -> Response:
    """Return the answer of a server that failed behind what it did."""
    return JSONResponse({"ok": False, "error": "fatal_error"}, 500)


ADDRESSES = {
    "slack": b'{"channel":"C1","thread_ts":"1.5","user":"U1","team":"T1"}',
    "teams": b'{"service_url":"URL","conversation":"a:1","activity":"9","bot":"28:b","personal":true}',
}


class Process:
    """What one process has of the gateway."""

    def __init__(self, store: Store, url: str) -> None:
        secrets = {"SLACK_SIGNING_SECRET": "s" * 32, "SLACK_BOT_TOKEN": "xoxb", "SLACK_API_BASE": f"{url}/api"}
        secrets |= {"TEAMS_APP_ID": "a", "TEAMS_APP_PASSWORD": "p", "TEAMS_API_BASE": url, "TEAMS_LOGIN_BASE": url}
        platforms, governor = enabled_platforms(parse_settings(secrets)), Governor(lambda: 20 * time.monotonic())
        self.interrupted: list[str] = []
        self.delivery = Delivery(store, platforms, Events(), "test", governor=governor)
        self.signs = LifeSigns(store, platforms, governor, self.delivery.platform_calls, self)
        self.delivery.place_of = self.signs.place_of

    async def interrupt(self, session: str) -> bool:
        self.interrupted.append(session)
        return True

    async def close(self) -> None:
        await self.signs.close()
        await self.delivery.close()


class Turn:
    """A running turn of a platform, in a process that may be replaced."""

    def __init__(self, server: ChatServer, store: Store, url: str, claim: Claim) -> None:
        self.server, self.store, self.claim, self._url = server, store, claim, url
        self.session = claim.ref.session
        self.process = Process(store, url)

    async def begin(self) -> None:
        self.process.signs.turn_started(self.claim.messages[0].id, self.session)
        await self.process.delivery.start()

    async def die(self) -> None:
        """Lose all that is in memory, and begin anew."""
        await self.process.close()
        self.process = Process(self.store, self._url)
        await self.begin()

    def write(self, text: str, step: int = 1) -> None:
        self.process.signs.delta(self.session, step, text)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():  # noqa: ASYNC110 - what is waited for comes over a socket
                await asyncio.sleep(0.02)

    async def settle(self, text: str) -> None:
        ended = Ended(TurnStatus.REPLIED, text, ())
        await self.store.claims.settle(self.claim.ref, ended)
        self.process.delivery.wake()
        self.process.signs.settled(self.session, ended)
        message_id = self.claim.messages[0].id
        async with asyncio.timeout(20):
            while not all(reply.sent_id for reply in (await self.store.inbox.trace(message_id)).replies):  # noqa: ASYNC110
                await asyncio.sleep(0.02)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty times as often as elsewhere."""
    monkeypatch.setattr("gateway.life_signs.FIRST_S", 0.05)
    monkeypatch.setattr("gateway.life_signs.LEAST_GAP_S", 0.05)
    for adapter in (Slack, Teams):
        monkeypatch.setattr(adapter, "capabilities", msgspec.structs.replace(adapter.capabilities, stream_gap_s=0.05))


@pytest.fixture(params=["slack", "teams"])
async def turn(request: pytest.FixtureRequest, tmp_path: Path, quick: None) -> AsyncIterator[Turn]:
    async with started(str(request.param), tmp_path) as turn:
        yield turn


@asynccontextmanager
async def started(platform: str, tmp_path: Path) -> AsyncIterator[Turn]:
    server = ChatServer()
    async with serving(server.app()) as url, open_test_store(tmp_path) as store:
        message_id, address = new_message_id(), ADDRESSES[platform].replace(b"URL", url.encode())
        arrival = Arrival(message_id, f"{platform}:1:2", platform, "u", "x", address, (message_id,), 60.0, time.time())
        await store.inbox.accept(arrival)
        (claim,) = (await store.claims.claim("test", 1, 60.0)).claims
        turn = Turn(server, store, url, claim)
        await turn.begin()
        try:
            yield turn
        finally:
            await turn.process.close()


def streamed(turn: Turn) -> bool:
    return any(message.streaming and message.text for message in turn.server.messages.values())


async def test_an_answer_grows_in_one_message_and_ends_whole(turn: Turn) -> None:
    turn.write(LINES[0] + LINES[1])
    await turn.until(lambda: streamed(turn))
    before = turn.server.texts[0]
    turn.write(LINES[2])
    await turn.until(lambda: turn.server.texts[0] != before)
    await turn.settle(ANSWER)
    assert turn.server.texts == [ANSWER]
    assert not turn.server.broken
    assert not any(name in turn.server.calls for name in ("chat.update", "PUT message"))


@pytest.mark.parametrize("fault", ["expired", "refused"])
async def test_a_stream_that_ends_by_itself_or_may_not_begin_gives_way_to_edits(turn: Turn, fault: str) -> None:
    if fault == "refused":
        turn.server.refused = True
    turn.write(LINES[0] + LINES[1])
    await turn.until(lambda: bool(turn.server.messages))
    setattr(turn.server, fault, True)
    turn.write(LINES[2])
    await turn.until(lambda: "Line 2" in turn.server.texts[0])
    assert not streamed(turn)
    await turn.settle(ANSWER)
    assert turn.server.texts == [ANSWER]


async def test_a_stream_that_has_expired_when_the_answer_is_ready_is_written_over(turn: Turn) -> None:
    turn.write(LINES[0] + LINES[1])
    await turn.until(lambda: streamed(turn))
    turn.server.expired = True
    await turn.settle(ANSWER)
    assert turn.server.texts == [ANSWER]


@pytest.mark.parametrize("unclear", [broken_off, failed])
async def test_a_piece_that_nobody_knows_to_be_shown_is_there_once_in_the_whole_answer(
    turn: Turn, unclear: Callable[[], Response]
) -> None:
    turn.write(LINES[0] + LINES[1])
    await turn.until(lambda: streamed(turn))
    turn.server.unclear = unclear
    turn.write(LINES[2])
    await turn.until(lambda: "Line 2" in turn.server.texts[0])
    await turn.settle(ANSWER)
    assert turn.server.texts == [ANSWER]
    assert not turn.server.broken


async def test_after_a_kill_in_the_middle_of_a_stream_the_text_is_whole_and_once(turn: Turn) -> None:
    turn.write(LINES[0] + LINES[1])
    await turn.until(lambda: streamed(turn))
    await turn.die()
    turn.write("".join(LINES[:4]))
    await asyncio.sleep(0.3)
    await turn.settle(ANSWER)
    assert turn.server.texts == [ANSWER]
    assert not turn.server.broken


async def test_what_a_later_step_writes_takes_the_place_of_the_earlier_one(turn: Turn) -> None:
    turn.write("First I have to look something up, in three places at the least.")
    await turn.until(lambda: streamed(turn))
    turn.write(LINES[0] + LINES[1], step=2)
    await asyncio.sleep(0.3)
    await turn.settle(ANSWER)
    assert turn.server.texts == [ANSWER]


async def test_an_answer_of_two_messages_is_streamed_and_followed_by_the_second(turn: Turn) -> None:
    turn.write(LINES[0] + LINES[1])
    await turn.until(lambda: streamed(turn))
    long = LINES[0] * 300
    await turn.settle(LINES[0] + LINES[1] + long)
    assert len(turn.server.texts) == 2
    assert "".join(turn.server.texts).count("Line 0") == 301


async def test_what_closes_a_block_that_is_still_written_is_not_shown(turn: Turn) -> None:
    turn.write(LINES[0] + "```py\nfirst = 1  # and enough of it to be shown\n")
    await turn.until(lambda: "first" in "".join(turn.server.texts))
    for piece in ("second = 2  # and more of it, also to be shown\n", "```\n", LINES[1], LINES[2]):
        turn.write(piece)
        await asyncio.sleep(0.2)
    await turn.until(lambda: "Line 1" in turn.server.texts[0])
    assert streamed(turn)  # no piece was refused for what it took back
    assert turn.server.texts[0].count("```") == 2
    assert not turn.server.broken


async def test_who_stops_a_stream_on_teams_stops_the_turn(tmp_path: Path, quick: None) -> None:
    async with started("teams", tmp_path) as turn:
        turn.write(LINES[0] + LINES[1])
        await turn.until(lambda: streamed(turn))
        turn.server.stopped = True
        turn.write(LINES[2])
        await turn.until(lambda: bool(turn.process.interrupted))
        await turn.settle("Stopped.")
        assert turn.process.interrupted == [turn.session]
        assert turn.server.texts == ["Stopped."]
