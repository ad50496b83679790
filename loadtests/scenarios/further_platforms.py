"""The platforms that the plain load test leaves out: their webhooks, their APIs, and people who write there.

Written from the platforms' documents. Matrix, Teams and Google Chat are not among them: their servers would have to
publish keys and tell who is in a room. ``python -m loadtests.bench busy_acks`` has them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from locust import between

from loadtests import further_signing
from loadtests.further_signing import FORM
from loadtests.locustfile import ChatUser
from loadtests.platform_wire import JSON, Received
from loadtests.signing import SignedRequest
from loadtests.wsgi_sink import ReplyDoor, read_headers


class Api(msgspec.Struct, frozen=True):
    """How a platform's API takes a message: its path, and what conversation and text are in path and body."""

    name: str
    path: re.Pattern[str]
    read: Callable[[dict[str, str], dict[str, Any]], tuple[str, str]]
    answer: dict[str, Any]


APIS = (
    Api(
        "discord",
        re.compile(r"/discord/webhooks/\d+/(?P<token>[^/]+).*"),
        lambda path, body: (path["token"], body["content"]),
        {"id": "42", "content": "x"},
    ),
    Api(
        "whatsapp",
        re.compile(r"/whatsapp/[^/]+/\d+/messages"),
        lambda _, body: (body.get("to", ""), body.get("text", {}).get("body", "")),
        {"messages": [{"id": "wamid.9"}]},
    ),
    Api(
        "line",
        re.compile(r"/line/v2/bot/message/(reply|push)"),
        lambda _, body: (body.get("replyToken") or body["to"], body["messages"][0]["text"]),
        {"sentMessages": [{"id": "9"}]},
    ),
    Api(
        "twilio",
        re.compile(r"/twilio/2010-04-01/Accounts/\w+/Messages\.json"),
        lambda _, body: (body["To"], body["Body"]),
        {"sid": "SM9", "status": "queued"},
    ),
    Api(
        "mattermost",
        re.compile(r"/mattermost/api/v4/posts"),
        lambda _, body: (body["channel_id"], body["message"]),
        {"id": "p9"},
    ),
)


class FurtherDoor(ReplyDoor):
    """Receives the replies of these platforms too; whatever else they are asked is answered with nothing."""

    def _answer(self, environ: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        path = environ["PATH_INFO"]
        for api in APIS:
            if not path.startswith(f"/{api.name}/"):
                continue
            raw = environ["wsgi.input"].read()
            if found := api.path.fullmatch(path):
                form = environ.get("CONTENT_TYPE", "").startswith(FORM["content-type"])
                body = dict(parse_qsl(raw.decode())) if form else msgspec.json.decode(raw)
                conversation, text = api.read(found.groupdict(), body)
                if text:
                    headers = read_headers(environ)
                    self._on_reply(Received(time.time(), api.name, "", conversation, text, "", "", body, headers))
                return 200, JSON, msgspec.json.encode(api.answer)
            return 200, JSON, b'{"id": "bot"}'
        return super()._answer(environ)


class DiscordUser(ChatUser):
    """Calls the bot's command on Discord."""

    platform = "discord"

    @property
    def conversation(self) -> str:
        return f"token-{self.number}"

    def sign(self, text: str) -> SignedRequest:
        return further_signing.discord(self.number, text, time.time())


class WhatsAppUser(ChatUser):
    """Writes on WhatsApp; a person is sent ten messages a minute at most."""

    platform = "whatsapp"
    wait_time = between(6.5, 8.0)

    @property
    def conversation(self) -> str:
        return f"4915{self.number:09d}"

    def sign(self, text: str) -> SignedRequest:
        return further_signing.whatsapp(self.number, text, time.time())


class LineUser(ChatUser):
    """Writes on LINE."""

    platform = "line"

    @property
    def conversation(self) -> str:
        return f"reply-{self.number}"

    def sign(self, text: str) -> SignedRequest:
        return further_signing.line(self.number, text, time.time())


class TwilioUser(ChatUser):
    """Writes text messages; a number sends one a second at most, and so is answered."""

    platform = "twilio"
    wait_time = between(1.1, 1.6)

    @property
    def conversation(self) -> str:
        return f"+1415{self.number:07d}"

    def sign(self, text: str) -> SignedRequest:
        return further_signing.twilio(self.number, text, time.time(), str(self.host))


class MattermostUser(ChatUser):
    """Writes to the bot on Mattermost."""

    platform = "mattermost"

    @property
    def conversation(self) -> str:
        return f"channel{self.number}"

    def sign(self, text: str) -> SignedRequest:
        return further_signing.mattermost(self.number, text, time.time())
