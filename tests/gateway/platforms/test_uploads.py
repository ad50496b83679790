"""Files that go out: over real HTTP to a server that takes them as each platform does, its forms read by Starlette."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gateway.delivery import Delivery
from gateway.platforms.port import Adapter, ApiRequest, ApiResponse
from shared.attachments import attach, with_files
from shared.events import Events
from shared.ids import new_message_id
from shared.messages import Arrival, Ended, Reply, ReplyState, ReplyStatus, TurnStatus
from shared.store import Store
from tests.gateway.edge import open_test_store, serving
from tests.gateway.platforms.test_conformance import NAMES, fixture_of, only

DATA = b"x,y\r\n\x00\xff\r\n--\r\n" * 1000
FILE = attach('Bericht "é".csv', "text/csv", DATA)

#: its name and type in a form
SHOWN = ["Bericht 'é'.csv", "text/csv"]


@dataclass
class Server:
    """A platform's API: what it took, and how often it still fails at what posts the file."""

    url: str = ""
    faults: int = 1
    #: bytes that were given, by what the platform calls them
    files: dict[str, bytes] = field(default_factory=dict)
    #: what was posted: path, fields, bytes
    posted: list[tuple[str, Any, bytes]] = field(default_factory=list)
    names: dict[str, Any] = field(default_factory=dict)
    sizes: int = 0
    texts: int = 0

    async def take(self, request: Request) -> Response:
        """Answer a call as its platform does."""
        path = request.url.path
        kind = request.headers.get("content-type", "")
        fields: dict[str, Any] = {}
        data = b""
        if kind.startswith("multipart/"):
            async with request.form() as form:
                for name, value in form.items():
                    if isinstance(value, UploadFile):
                        data = await value.read()
                        fields[name] = [value.filename, value.content_type]
                    else:
                        fields[name] = value
        elif kind.startswith("application/json"):
            fields = await request.json()
        else:
            data = await request.body()
        return self._answer(path, fields, data)

    def _post(self, path: str, fields: Any, data: bytes, answer: dict[str, Any], status: int = 200) -> Response:
        if self.faults:
            self.faults -= 1
            return JSONResponse({}, 503, headers={"retry-after": "0"})
        self.posted.append((path, fields, data))
        return JSONResponse(answer, status)

    def _answer(self, path: str, fields: Any, data: bytes) -> Response:
        match path.rsplit("/", 1)[-1]:
            case "sendDocument":
                return self._post(path, fields, data, {"ok": True, "result": {"message_id": 8}})
            case _ if "files[0]" in fields:
                if "/webhooks/" in path:
                    return JSONResponse({"code": 10015, "message": "Unknown Webhook"}, 404)
                return self._post(path, fields, data, {"id": "8"})
            case "files.getUploadURLExternal":
                asked = dict(parse_qsl(data.decode()))
                self.names["F8"] = asked["filename"]
                self.sizes = int(asked["length"])
                return JSONResponse({"ok": True, "upload_url": f"{self.url}/up/F8", "file_id": "F8"})
            case "F8":
                self.files["F8"] = data
                return PlainTextResponse(f"OK - {len(data)}")
            case "files.completeUploadExternal":
                assert self.sizes == len(DATA)
                return self._post(path, fields, self.files["F8"], {"ok": True, "files": [{"id": "F8"}]})
            case "upload" | "files" | "media":
                self.files["8"] = data
                self.names["8"] = fields
                answers = {"content_uri": "mxc://here/8", "file_infos": [{"id": "8"}], "id": "8"}
                return JSONResponse(answers, 201 if path.endswith("/files") else 200)
            case matrix if "/m.room.message/" in path and self.files:
                assert matrix.endswith(".1000")
                return self._post(path, fields, self.files["8"], {"event_id": "$8"})
            case "posts" | "messages" if self.files:
                answer = {"id": "p8", "messages": [{"id": "wamid.8"}]}
                return self._post(path, fields, self.files["8"], answer)
            case _:
                self.texts += 1
                answer = {"id": "7", "event_id": "$7", "ts": "7.7", "messages": [{"id": "wamid.7"}]}
                return JSONResponse({"ok": True, "result": {"message_id": 7}, **answer})


#: where the file of a direct message arrives, by platform: the path, and what of the request is the platform's own
ARRIVES: dict[str, Callable[[str, Any], bool]] = {
    "telegram": lambda path, said: path.endswith("/sendDocument") and said == {"chat_id": "5", "document": SHOWN},
    "discord": lambda _, said: said["files[0]"] == SHOWN and "payload_json" in said,
    "slack": lambda _, said: said["files"] == [{"id": "F8", "title": FILE.name}] and bool(said["channel_id"]),
    "matrix": lambda _, said: (
        (said["msgtype"], said["filename"], said["url"], said["info"]["mimetype"])
        == ("m.file", FILE.name, "mxc://here/8", "text/csv")
    ),
    "mattermost": lambda path, said: path == "/api/v4/posts" and said["file_ids"] == ["8"] and bool(said["channel_id"]),
    "whatsapp": lambda _, said: said["document"] == {"id": "8", "filename": FILE.name} and bool(said["to"]),
}


async def give(store: Store, platform: Adapter, address: bytes) -> str:
    """Settle a turn whose tool gave a file; return its message's id."""
    message_id = new_message_id()
    session = f"{platform.name}:a:b"
    arrival = Arrival(
        id=message_id,
        session=session,
        platform=platform.name,
        user="u",
        text="x",
        reply=address,
        dedupe=(message_id,),
        dedupe_ttl_s=60.0,
        at=time.time(),
    )
    await store.inbox.accept(arrival)
    (claim,) = (await store.claims.claim("test", 1, 60.0)).claims
    await store.sessions.keep_attachments(session, {FILE.digest: DATA})
    result = with_files(b'{"role":"tool","content":"\\"files\\":"}', [FILE, FILE])
    await store.claims.settle(claim.ref, Ended(TurnStatus.REPLIED, "here it is", (b'{"role":"user"}', result)))
    return message_id


def at(adapter: Adapter, url: str) -> Adapter:
    """Return an adapter whose platform is a server of the test."""
    settings = msgspec.structs.replace(adapter.settings, api_base=url)  # type: ignore[attr-defined]
    return msgspec.structs.replace(adapter, settings=settings)


@pytest.mark.parametrize("name", ARRIVES)
async def test_a_file_goes_out_once_behind_the_answer_and_its_bytes_arrive(name: str, tmp_path: Path) -> None:
    """Also where what posts it fails at first."""
    fixture, server = fixture_of(name), Server()
    app = Starlette(routes=[Route("/{path:path}", server.take, methods=["GET", "POST", "PUT", "PATCH"])])
    async with serving(app) as url, open_test_store(tmp_path) as store:
        server.url = url
        platform = at(fixture.adapter, url)
        delivery = Delivery(store, {name: platform}, Events(), "test")
        message_id = await give(store, platform, only(fixture, fixture.direct("hi")).reply)
        await delivery.start()
        try:
            async with asyncio.timeout(20):
                while True:
                    replies = (await store.inbox.trace(message_id)).replies
                    if all(one.state is not ReplyState.PENDING for one in replies):
                        break
                    await asyncio.sleep(0.02)
        finally:
            await delivery.close()
    assert [(one.part, one.state, one.error) for one in replies] == [
        (0, ReplyState.SENT, ""),
        (1000, ReplyState.SENT, replies[1].error),
    ]
    (posted,) = server.posted
    assert ARRIVES[name](posted[0], posted[1]), posted[:2]
    assert posted[2] == DATA
    assert server.texts >= 1


def answered(adapter: Adapter, reply: Reply, answers: Sequence[ApiResponse]) -> object:
    return adapter.upload(reply, FILE, DATA, answers)


@pytest.mark.parametrize("name", NAMES)
def test_an_upload_is_the_same_request_each_time_holds_no_secret_in_its_body_and_reads_a_failure(name: str) -> None:
    fixture = fixture_of(name)
    address = only(fixture, fixture.direct("hi")).reply
    names = (fixture.session, "msg_1", 1000, name, FILE.name, address, ReplyStatus.REPLIED)
    reply = Reply(*names, file=FILE)
    first = answered(fixture.adapter, reply, ())
    assert (name in ARRIVES) == (first is not None)
    if isinstance(first, ApiRequest):
        assert first == answered(fixture.adapter, reply, ())
        assert not any(secret.encode() in first.body for secret in fixture.secrets)
        assert answered(fixture.adapter, reply, (fixture.limited,)) == fixture.adapter.result(reply, fixture.limited)
        assert answered(fixture.adapter, reply, (fixture.gone,)) == fixture.adapter.result(reply, fixture.gone)
