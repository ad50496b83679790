"""The platforms that the plain load test leaves out: their webhooks, their APIs, and people who write there.

Written from the platforms' documents. Matrix, Teams and Google Chat are not among them: their webhooks are proven by
tokens or memberships that their own servers give; they are tried against real servers elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec
from locust import between

from loadtests.locustfile import ChatUser
from loadtests.platform_wire import JSON, Received
from loadtests.scenarios.further_settings import (
    ACCOUNT,
    APPLICATION,
    DISCORD_KEY,
    LINE_SECRET,
    MATTERMOST_TOKEN,
    NUMBER,
    TWILIO_TOKEN,
    WHATSAPP_SECRET,
)
from loadtests.signing import SignedRequest, sha256
from loadtests.wsgi_sink import ReplyDoor, StartResponse, read_headers

FORM = {"content-type": "application/x-www-form-urlencoded"}


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

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Any:
        return super().__call__(environ, start_response)


class DiscordUser(ChatUser):
    """Calls the bot's command on Discord."""

    platform = "discord"

    @property
    def conversation(self) -> str:
        return f"token-{self.number}"

    def sign(self, text: str) -> SignedRequest:
        options = [{"name": "prompt", "type": 3, "value": text}]
        body = msgspec.json.encode(
            {
                "type": 2, "id": f"{self.number}{time.time_ns()}", "application_id": APPLICATION, "version": 1,
                "token": self.conversation, "channel_id": str(10**17 + self.number), "context": 1,
                "user": {"id": str(10**17 + self.number)},
                "data": {"id": "771825006014889984", "name": "ask", "type": 1, "options": options},
            }
        )  # fmt: skip
        stamp = str(int(time.time()))
        signature = DISCORD_KEY.sign(stamp.encode() + body).hex()
        return SignedRequest(
            "/webhooks/discord", JSON | {"x-signature-ed25519": signature, "x-signature-timestamp": stamp}, body
        )


class WhatsAppUser(ChatUser):
    """Writes on WhatsApp; a person is sent ten messages a minute at most."""

    platform = "whatsapp"
    wait_time = between(6.5, 8.0)

    @property
    def conversation(self) -> str:
        return f"4915{self.number:09d}"

    def sign(self, text: str) -> SignedRequest:
        message = {
            "from": self.conversation, "id": f"wamid.{self.number}.{time.time_ns()}",
            "timestamp": str(int(time.time())), "type": "text", "text": {"body": text},
        }  # fmt: skip
        value = {
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": "15550783881", "phone_number_id": NUMBER},
            "contacts": [{"profile": {"name": "Ana"}, "wa_id": self.conversation}],
            "messages": [message],
        }
        entry = {"id": "1", "changes": [{"value": value, "field": "messages"}]}
        body = msgspec.json.encode({"object": "whatsapp_business_account", "entry": [entry]})
        signature = "sha256=" + sha256(WHATSAPP_SECRET.encode(), body).hex()
        return SignedRequest("/webhooks/whatsapp", JSON | {"x-hub-signature-256": signature}, body)


class LineUser(ChatUser):
    """Writes on LINE."""

    platform = "line"

    @property
    def conversation(self) -> str:
        return f"reply-{self.number}"

    def sign(self, text: str) -> SignedRequest:
        number = time.time_ns()
        event = {
            "type": "message", "message": {"type": "text", "id": str(number), "quoteToken": "q", "text": text},
            "timestamp": number // 1_000_000, "source": {"type": "user", "userId": f"U{self.number}"},
            "replyToken": self.conversation, "mode": "active", "webhookEventId": f"E{number}.{self.number}",
            "deliveryContext": {"isRedelivery": False},
        }  # fmt: skip
        body = msgspec.json.encode({"destination": "Ubot", "events": [event]})
        signature = base64.b64encode(sha256(LINE_SECRET.encode(), body)).decode()
        return SignedRequest("/webhooks/line", JSON | {"x-line-signature": signature}, body)


class TwilioUser(ChatUser):
    """Writes text messages; a number sends one a second at most, and so is answered."""

    platform = "twilio"
    wait_time = between(1.1, 1.6)

    @property
    def conversation(self) -> str:
        return f"+1415{self.number:07d}"

    def sign(self, text: str) -> SignedRequest:
        fields = {
            "MessageSid": f"SM{self.number:08x}{time.time_ns():024x}", "AccountSid": ACCOUNT,
            "From": self.conversation, "To": "+14155550199", "Body": text, "NumMedia": "0",
        }  # fmt: skip
        url = f"{self.host}/webhooks/twilio"
        content = url + "".join(name + value for name, value in sorted(fields.items()))
        digest = hmac.new(TWILIO_TOKEN.encode(), content.encode(), hashlib.sha1).digest()
        headers = FORM | {"x-twilio-signature": base64.b64encode(digest).decode()}
        return SignedRequest("/webhooks/twilio", headers, urlencode(fields).encode())


class MattermostUser(ChatUser):
    """Writes to the bot on Mattermost."""

    platform = "mattermost"

    @property
    def conversation(self) -> str:
        return f"channel{self.number}"

    def sign(self, text: str) -> SignedRequest:
        fields = {
            "token": MATTERMOST_TOKEN, "channel_id": self.conversation, "channel_name": f"bot__u{self.number}",
            "team_domain": "t", "team_id": "t1", "post_id": f"p{self.number}.{time.time_ns()}", "text": text,
            "timestamp": str(int(time.time())), "trigger_word": "", "user_id": f"u{self.number}",
            "user_name": f"u{self.number}",
        }  # fmt: skip
        return SignedRequest("/webhooks/mattermost", FORM, urlencode(fields).encode())
