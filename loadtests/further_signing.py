"""Signed webhooks of the platforms beside Standard Webhooks, Slack and Telegram: pure functions, no I/O.

Written from the platforms' documents and independent of the gateway's adapters. ``person`` is who writes, by number,
and has a chat of their own; ``at`` is unix seconds and, with the person, makes every id.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

import jwt
import msgspec

from loadtests.further_settings import (
    ACCOUNT,
    APPLICATION,
    CHAT_PROJECT,
    DISCORD_KEY,
    KEY_ID,
    LINE_SECRET,
    MATRIX_BOT,
    MATRIX_TOKEN,
    MATTERMOST_TOKEN,
    NUMBER,
    TEAMS_APP,
    TWILIO_TOKEN,
    WHATSAPP_SECRET,
    private_key,
)
from loadtests.platform_wire import JSON
from loadtests.signing import SignedRequest, sha256

FORM = {"content-type": "application/x-www-form-urlencoded"}


def discord(person: int, text: str, at: float) -> SignedRequest:
    """Return a call of the bot's command."""
    options = [{"name": "prompt", "type": 3, "value": text}]
    body = msgspec.json.encode(
        {
            "type": 2, "id": f"{person}{nanoseconds(at)}", "application_id": APPLICATION, "version": 1,
            "token": f"token-{person}", "channel_id": str(10**17 + person), "context": 1,
            "user": {"id": str(10**17 + person)},
            "data": {"id": "771825006014889984", "name": "ask", "type": 1, "options": options},
        }
    )  # fmt: skip
    stamp = str(int(at))
    signature = DISCORD_KEY.sign(stamp.encode() + body).hex()
    return SignedRequest(
        "/webhooks/discord", JSON | {"x-signature-ed25519": signature, "x-signature-timestamp": stamp}, body
    )


def whatsapp(person: int, text: str, at: float) -> SignedRequest:
    """Return a message of a person."""
    number = f"4915{person:09d}"
    message = {
        "from": number, "id": f"wamid.{person}.{nanoseconds(at)}", "timestamp": str(int(at)), "type": "text",
        "text": {"body": text},
    }  # fmt: skip
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550783881", "phone_number_id": NUMBER},
        "contacts": [{"profile": {"name": "Ana"}, "wa_id": number}],
        "messages": [message],
    }
    entry = {"id": "1", "changes": [{"value": value, "field": "messages"}]}
    body = msgspec.json.encode({"object": "whatsapp_business_account", "entry": [entry]})
    signature = "sha256=" + sha256(WHATSAPP_SECRET.encode(), body).hex()
    return SignedRequest("/webhooks/whatsapp", JSON | {"x-hub-signature-256": signature}, body)


def line(person: int, text: str, at: float) -> SignedRequest:
    """Return a message of a person, whose reply token is ``reply-`` and their number."""
    number = nanoseconds(at)
    event = {
        "type": "message", "message": {"type": "text", "id": str(number), "quoteToken": "q", "text": text},
        "timestamp": number // 1_000_000, "source": {"type": "user", "userId": f"U{person}"},
        "replyToken": f"reply-{person}", "mode": "active", "webhookEventId": f"E{number}.{person}",
        "deliveryContext": {"isRedelivery": False},
    }  # fmt: skip
    body = msgspec.json.encode({"destination": "Ubot", "events": [event]})
    signature = base64.b64encode(sha256(LINE_SECRET.encode(), body)).decode()
    return SignedRequest("/webhooks/line", JSON | {"x-line-signature": signature}, body)


def twilio(person: int, text: str, at: float, host: str) -> SignedRequest:
    """Return a text message; the signature covers the url, which begins with ``host``."""
    fields = {
        "MessageSid": f"SM{person:08x}{nanoseconds(at):024x}", "AccountSid": ACCOUNT, "From": f"+1415{person:07d}",
        "To": "+14155550199", "Body": text, "NumMedia": "0",
    }  # fmt: skip
    content = f"{host}/webhooks/twilio" + "".join(name + value for name, value in sorted(fields.items()))
    digest = hmac.new(TWILIO_TOKEN.encode(), content.encode(), hashlib.sha1).digest()
    headers = FORM | {"x-twilio-signature": base64.b64encode(digest).decode()}
    return SignedRequest("/webhooks/twilio", headers, urlencode(fields).encode())


def mattermost(person: int, text: str, at: float) -> SignedRequest:
    """Return what an outgoing webhook tells of a direct message."""
    fields = {
        "token": MATTERMOST_TOKEN, "channel_id": f"channel{person}", "channel_name": f"bot__u{person}",
        "team_domain": "t", "team_id": "t1", "post_id": f"p{person}.{nanoseconds(at)}", "text": text,
        "timestamp": str(int(at)), "trigger_word": "", "user_id": f"u{person}", "user_name": f"u{person}",
    }  # fmt: skip
    return SignedRequest("/webhooks/mattermost", FORM, urlencode(fields).encode())


def teams(person: int, text: str, at: float, service_url: str) -> SignedRequest:
    """Return a personal message; ``service_url`` is where its answer goes, in the token and in the activity."""
    activity = {
        "type": "message", "id": str(nanoseconds(at)), "timestamp": "2025-12-23T03:19:23.0597717Z",
        "channelId": "msteams", "serviceUrl": service_url, "text": text, "textFormat": "plain",
        "from": {"id": f"29:{person}", "name": "Ana", "aadObjectId": f"u{person}"},
        "recipient": {"id": f"28:{TEAMS_APP}", "name": "Bot"},
        "conversation": {"conversationType": "personal", "tenantId": "t1", "id": f"a:{person}"},
        "channelData": {"tenant": {"id": "t1"}},
    }  # fmt: skip
    claims = {"iss": "https://api.botframework.com", "aud": TEAMS_APP, "serviceurl": service_url, "nbf": int(at)}
    return SignedRequest("/webhooks/teams", JSON | bearer(claims, at), msgspec.json.encode(activity))


def google_chat(person: int, text: str, at: float) -> SignedRequest:
    """Return a message of a direct space."""
    space = {"name": f"spaces/S{person}", "type": "DM"}
    user = {"name": f"users/{person}", "type": "HUMAN", "displayName": "Ana"}
    message = {
        "name": f"spaces/S{person}/messages/{nanoseconds(at)}", "sender": user, "text": text, "argumentText": text,
        "thread": {"name": f"spaces/S{person}/threads/T"}, "space": space,
    }  # fmt: skip
    event = {"type": "MESSAGE", "eventTime": "2025-12-23T02:54:05.755455Z", "space": space, "user": user}
    body = msgspec.json.encode({**event, "message": message})
    claims = {"iss": "chat@system.gserviceaccount.com", "aud": CHAT_PROJECT, "iat": int(at)}
    return SignedRequest("/webhooks/google_chat", JSON | bearer(claims, at), body)


def matrix(person: int, text: str, at: float) -> SignedRequest:
    """Return a transaction with a message that mentions the bot."""
    number = f"{person}.{nanoseconds(at)}"
    content = {"msgtype": "m.text", "body": f"{MATRIX_BOT}: {text}", "m.mentions": {"user_ids": [MATRIX_BOT]}}
    event = {
        "type": "m.room.message", "event_id": f"${number}", "room_id": f"!r{person}:load.test",
        "sender": f"@u{person}:load.test", "origin_server_ts": int(at * 1000), "content": content,
    }  # fmt: skip
    path = f"/webhooks/matrix/_matrix/app/v1/transactions/{number}"
    headers = JSON | {"authorization": f"Bearer {MATRIX_TOKEN}"}
    return SignedRequest(path, headers, msgspec.json.encode({"events": [event]}), "PUT")


def bearer(claims: dict[str, Any], at: float) -> dict[str, str]:
    """Return the header with a token of an hour."""
    token = jwt.encode({**claims, "exp": int(at) + 3600}, private_key(), "RS256", headers={"kid": KEY_ID})
    return {"authorization": f"Bearer {token}"}


def nanoseconds(at: float) -> int:
    return int(at * 1e9)


#: those that need no url to sign
SIGNERS: Mapping[str, Callable[[int, str, float], SignedRequest]] = MappingProxyType(
    {
        "discord": discord,
        "whatsapp": whatsapp,
        "line": line,
        "mattermost": mattermost,
        "google_chat": google_chat,
        "matrix": matrix,
    }
)
