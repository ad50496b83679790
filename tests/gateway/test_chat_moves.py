"""Chats that get another id at their platform: the conversation, and all that waits in it, goes on at the new place."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from loadtests import signing
from loadtests.signing import SignedRequest
from shared.messages import Ended, TurnStatus
from tests.gateway.edge import LET_ALL_IN, SECRETS, Edge, running_edge, serving
from tests.gateway.platforms.fixtures import matrix, slack

OLD, NEW = -5, -1001234567890
ANA = {"id": 7, "is_bot": False, "first_name": "Ana"}


def update(update_id: int, chat_id: int, **content: Any) -> SignedRequest:
    chat = {"id": chat_id, "type": "group" if chat_id == OLD else "supergroup", "title": "Ops"}
    message = {"message_id": update_id, "date": 1, "chat": chat, "from": ANA, **content}
    return signing.sign_telegram(SECRETS.telegram_secret_token, {"update_id": update_id, "message": message})


def said(update_id: int, chat_id: int, text: str) -> SignedRequest:
    command = {"type": "bot_command", "offset": 0, "length": 4}
    return update(update_id, chat_id, text=f"/ask {text}", entities=[command])


async def answered(edge: Edge, text: str) -> str:
    """Let the agent answer what waits; return the session."""
    (claim,) = await edge.claimed()
    await edge.store.claims.settle(claim.ref, Ended(TurnStatus.REPLIED, text, (b'"hi"', b'"ho"'), todo=b"[]"))
    return claim.ref.session


async def addresses(edge: Edge) -> list[dict[str, Any]]:
    due = (await edge.store.outbox.due("test", 10, 30)).replies
    for reply in due:
        await edge.store.outbox.delivered(reply, "sent")
    return [msgspec.json.decode(reply.address) for reply in due]


@pytest.mark.parametrize("note", [{"migrate_to_chat_id": NEW}, {"migrate_from_chat_id": OLD}])
async def test_a_supergroup_goes_on_where_its_group_was(edge: Edge, note: dict[str, int]) -> None:
    await edge.post(said(1, OLD, "first"))
    session = await answered(edge, "one")
    await edge.post(said(2, OLD, "second"))
    moved = await edge.post(update(3, OLD if "migrate_to_chat_id" in note else NEW, **note))
    assert moved.status_code == 200
    assert (await edge.post(update(3, OLD if "migrate_to_chat_id" in note else NEW, **note))).status_code == 200
    accepted = await edge.post(said(4, NEW, "third"))
    (message_id,) = accepted.headers["x-gatehouse-message"].split(", ")
    assert (await edge.store.inbox.trace(message_id)).session == session
    # the answer that was on its way, and those to what waited, go to the new chat and quote nothing there
    assert await addresses(edge) == [{"chat_id": NEW, "message_id": 0}]
    assert await answered(edge, "two") == session
    assert await addresses(edge) == [{"chat_id": NEW, "message_id": 0}]
    assert await answered(edge, "three") == session
    assert await addresses(edge) == [{"chat_id": NEW, "message_id": 4}]
    conversation = await edge.store.sessions.conversation(session)
    assert (len(conversation.messages), conversation.todo) == (6, b"[]")


async def test_what_came_before_the_note_is_still_known_after_it(edge: Edge) -> None:
    await edge.post(said(1, OLD, "first"))
    early = await edge.post(said(2, NEW, "early"))
    await edge.post(update(3, OLD, migrate_to_chat_id=NEW))
    again = await edge.post(said(2, NEW, "early"))
    assert again.headers["x-gatehouse-message"] == early.headers["x-gatehouse-message"]
    assert len(await edge.claimed()) == 2


async def test_other_chats_are_left_alone(edge: Edge) -> None:
    await edge.post(said(1, OLD * 10, "elsewhere"))
    await edge.post(said(2, OLD, "here"))
    await edge.post(update(3, OLD, migrate_to_chat_id=NEW))
    sessions = {claim.ref.session: claim for claim in await edge.claimed()}
    bot = SECRETS.telegram_bot_token.partition(":")[0]
    address = await edge.store.inbox.address(f"telegram:{bot}:-50", sessions[f"telegram:{bot}:-50"].messages[0].id)
    assert msgspec.json.decode(address)["chat_id"] == OLD * 10


async def test_a_slack_channel_that_is_shared_keeps_its_threads(edge: Edge) -> None:
    def event(number: int, **content: Any) -> SignedRequest:
        body = msgspec.json.decode(slack.envelope(**content)) | {"event_id": f"Ev{number}"}
        return signing.sign_slack(SECRETS.slack_signing_secret, msgspec.json.encode(body), time.time())

    def mention(number: int, channel: str) -> SignedRequest:
        return event(number, type="app_mention", channel=channel, text="<@U0BOT> hi", ts=f"{number}.5", thread_ts="1.5")

    await edge.post(mention(1, "G1"))
    await edge.post(event(2, type="channel_id_changed", old_channel_id="G1", new_channel_id="C1"))
    await edge.post(mention(3, "C1"))
    for _ in range(2):
        assert await answered(edge, "ok") == "slack:T1:G1:1.5"
        (address,) = await addresses(edge)
        assert (address["channel"], address["thread_ts"]) == ("C1", "1.5")


async def test_a_matrix_room_goes_on_only_where_the_new_one_says_so(tmp_path: Path) -> None:
    """Else whoever runs a room could lead what is said in another one into theirs."""
    befores = {"!new:gh.test": "!r:gh.test", "!victim:gh.test": "!other:gh.test"}
    joined: list[str] = []

    async def answer(request: Request) -> Response:
        room = request.path_params["room"]
        if "join/" in request.url.path:
            joined.append(room)
        return JSONResponse({"joined": {"a": {}, "b": {}}, "predecessor": {"room_id": befores.get(room, "")}})

    routes = [
        Route("/_matrix/client/v3/join/{room}", answer, methods=["POST"]),
        Route("/_matrix/client/v3/rooms/{room}/{rest:path}", answer),
    ]
    fixture = matrix.fixture()
    async with serving(Starlette(routes=routes)) as url:
        settings = msgspec.structs.replace(fixture.adapter.settings, api_base=url)  # type: ignore[attr-defined]
        adapter = msgspec.structs.replace(fixture.adapter, settings=settings)
        async with running_edge(tmp_path, LET_ALL_IN, more_platforms={"matrix": adapter}) as edge:

            async def push(number: int, *events: Any) -> httpx2.Response:
                path = f"/webhooks/matrix/_matrix/app/v1/transactions/{number}"
                signed = matrix.sign(matrix.transaction(*events))
                return await edge.client.put(path, content=signed.raw, headers=dict(signed.headers))

            def stone(room: str) -> dict[str, Any]:
                content = {"replacement_room": room}
                return matrix.event("", "m.room.tombstone", state_key="", content=content, event_id=f"${room}")

            assert (await push(1, matrix.event("hi"))).status_code == 200
            await push(2, stone("!victim:gh.test"), matrix.event("mine", room_id="!victim:gh.test", event_id="$2"))
            await push(3, stone("!new:gh.test"), matrix.event("go on", room_id="!new:gh.test", event_id="$3"))
            sessions = [claim.ref.session for claim in await edge.claimed()]
            assert sorted(sessions) == ["matrix:gh.test:!r%3Agh.test", "matrix:gh.test:!victim%3Agh.test"]
            assert joined == ["!victim:gh.test", "!new:gh.test"]
            waiting = await edge.store.inbox.unanswered("matrix:gh.test:!r%3Agh.test")
            assert [message.text for message in waiting] == ["hi", "go on"]
            assert b"!new" in await edge.store.inbox.address("matrix:gh.test:!r%3Agh.test", waiting[0].id)
