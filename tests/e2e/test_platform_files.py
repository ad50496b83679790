"""A photo and a text file sent in a chat reach the model; the platform is answered before they are fetched."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import apsw
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from loadtests.gateway_process import GatewayProcess
from loadtests.loopback import Loopback
from loadtests.platform import RunningPlatform
from loadtests.provider import RunningProvider
from loadtests.signing import SignedRequest, sign_telegram
from tests.e2e.conftest import started
from tests.e2e.test_attachments import PNG, SHOWN, last_messages
from tests.e2e.test_resume import call, journaled, kill_tree, runs
from tests.postgres_server import shared_server


class BotApi:
    """Telegram's API with files, which it gives when it is let."""

    def __init__(self) -> None:
        self.may_answer = False
        self.asked = 0
        self.server = Loopback(Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST"])]))

    async def _answer(self, request: Request) -> Response:
        path = request.url.path
        if path.endswith("/getFile"):
            self.asked += 1
            while not self.may_answer:  # noqa: ASYNC110 - a flag of another thread
                await asyncio.sleep(0.01)
            file = (await request.json())["file_id"]
            if file == "gone":
                return JSONResponse({"ok": False, "error_code": 400, "description": "file is too big"}, 400)
            return JSONResponse({"ok": True, "result": {"file_id": file, "file_path": f"documents/{file}"}})
        if path.endswith("/documents/dot.png"):
            return Response(PNG)
        if path.endswith("/documents/a.csv"):
            return Response(b"x,y")
        return JSONResponse({"ok": True, "result": {"message_id": 1}})


def message(secret: str, number: int, **content: object) -> SignedRequest:
    sender = {"id": 7, "is_bot": False, "first_name": "Ana"}
    chat = {"id": 7, "type": "private", "first_name": "Ana"}
    said = {"message_id": number, "date": int(time.time()), "chat": chat, "from": sender, **content}
    return sign_telegram(secret, {"update_id": number, "message": said})


def test_a_host_of_workers_has_files_fetched_by_the_gateway(
    tmp_path: Path, platform: RunningPlatform, provider: RunningProvider
) -> None:
    api = BotApi()
    api.may_answer = True
    settings = {"DATABASE_URL": shared_server().url(), "TELEGRAM_API_BASE": api.server.url, "GATEHOUSE_WORKERS": "0"}
    own = {**settings, "GATEHOUSE_WORKERS": "1", "GATEHOUSE_MODEL": "openai:scripted", "GATEHOUSE_SPARES": "0"}
    (tmp_path / "worker").mkdir()
    with (
        api.server.in_thread(),
        started(tmp_path, platform, provider, **settings) as bot,
        GatewayProcess(tmp_path / "worker", own | {"OPENAI_BASE_URL": provider.openai_url}, ("worker",)),
    ):
        photo = [{"file_id": "dot.png", "file_size": len(PNG)}]
        secret = platform.secrets.telegram_secret_token
        assert bot.post(message(secret, 1, photo=photo, caption="look")).status_code == 200
        bot.wait_for_model_calls(1)
        *_, asked = last_messages(provider)
        assert asked["content"][1:] == [SHOWN]


def test_a_file_that_a_tool_gives_arrives_once_behind_the_answer_over_two_kills(
    tmp_path: Path, platform: RunningPlatform, provider: RunningProvider
) -> None:
    """The first while another tool of the step runs, the second between the answer and the file."""
    slow, secret, settings = tmp_path / "slow", platform.secrets.telegram_secret_token, dict[str, str]()
    settings |= {"GATEHOUSE_TOOLS": "tests.e2e.careful_tools", "GATEHOUSE_WORKERS": "1"}
    calls = call("send_report", title="<a> é.csv", text="x,y\r\n--1\r\n") + call("send_report", title="b.txt", text="b")
    calls += call("write_down_slowly", path=str(slow), seconds=1)
    with started(tmp_path, platform, provider, **settings) as bot:
        assert bot.post(message(secret, 1, text=calls)).status_code == 200
        bot.wait_until(lambda: journaled(tmp_path) == 2 and len(runs(slow)) == 1, 30, "a tool runs")
        kill_tree(bot)
        bot.wait_until(lambda: sent_rows(tmp_path) == 1, 60, "the answer is sent")
        kill_tree(bot)
        bot.wait_until(lambda: sent_rows(tmp_path) == 3, 60, "the files are sent")
        answer, *files = (one for one in platform.received("telegram") if one.method.startswith("send"))
        assert answer.method == "sendMessage"
        assert [(one.method, one.conversation, one.body["document"]) for one in files] == [
            ("sendDocument", "7", {"name": "<a> é.csv", "data": "x,y\r\n--1\r\n"}),
            ("sendDocument", "7", {"name": "b.txt", "data": "b"}),
        ]
        # the standard webhook takes none: its reader is told
        bot.say("here", call("send_report", title="c.txt", text="c"))
        bot.wait_until(lambda: len(bot.replies("here")) == 2, 20, "two replies")
        assert bot.replies("here")[1].text == "The file `c.txt` cannot be sent here."


def sent_rows(directory: Path) -> int:
    """How many replies are recorded as sent."""
    with contextlib.closing(apsw.Connection(str(directory / "gatehouse.db"), apsw.SQLITE_OPEN_READONLY)) as db:
        return len(db.execute("SELECT part FROM outbox WHERE state = 'sent'").fetchall())


def test_files_of_a_chat_reach_the_model_and_the_ack_waits_for_none(
    tmp_path: Path, platform: RunningPlatform, provider: RunningProvider
) -> None:
    api = BotApi()
    secret = platform.secrets.telegram_secret_token
    with (
        api.server.in_thread(),
        started(tmp_path, platform, provider, TELEGRAM_API_BASE=api.server.url) as bot,
    ):
        photo = [{"file_id": "dot.png", "file_size": len(PNG)}]
        assert bot.post(message(secret, 1, photo=photo, caption="look")).status_code == 200
        bot.wait_until(lambda: api.asked == 1, 20, "the photo is asked for")
        assert provider.calls == 0
        api.may_answer = True
        bot.wait_for_model_calls(1)
        *_, asked = last_messages(provider)
        assert asked["content"][1:] == [SHOWN]
        assert asked["content"][0]["text"] == "look\n(attached: photo)"
        table = {"file_id": "a.csv", "file_name": "a.csv", "mime_type": "text/csv"}
        assert bot.post(message(secret, 2, document=table)).status_code == 200
        bot.wait_for_model_calls(2)
        assert last_messages(provider)[-1]["content"].endswith("[file a.csv]\nx,y\n[end of file a.csv]")
        # the photo is still seen, from the store
        assert [one["content"][1:] for one in last_messages(provider) if isinstance(one["content"], list)] == [[SHOWN]]
        gone = {"file_id": "gone", "file_name": "film.mp4", "mime_type": "video/mp4"}
        assert bot.post(message(secret, 3, document=gone)).status_code == 200
        bot.wait_for_model_calls(3)
        told = "[file film.mp4: not read, telegram answered 400 for it]"
        assert told in last_messages(provider)[-1]["content"]
        assert api.asked == 3
