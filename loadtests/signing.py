"""Signed webhooks as the platforms send them, and their redeliveries: pure functions, no clock, no I/O.

Written from the platforms' documents and independent of the gateway's adapters, so that a test compares the two.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any

import msgspec

TIMESTAMP_WINDOW_S = 300


class SignedRequest(msgspec.Struct, frozen=True):
    """One webhook ready to send: the path on the gateway, the headers, the exact bytes they sign, the HTTP method."""

    path: str
    headers: dict[str, str]
    body: bytes
    method: str = "POST"


def sha256(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def standard_signature(secret: str, webhook_id: str, timestamp: str, body: bytes) -> str:
    """Return the ``v1,…`` signature of a Standard Webhooks secret (``whsec_`` and base64)."""
    key = base64.b64decode(secret.removeprefix("whsec_") + "==")
    message = b"%s.%s.%s" % (webhook_id.encode(), timestamp.encode(), body)
    return "v1," + base64.b64encode(sha256(key, message)).decode()


def standard_verifies(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Tell whether a Standard Webhooks request (header names in lower case) is authentic and fresh."""
    timestamp = headers.get("webhook-timestamp", "")
    if not re.fullmatch(r"[0-9]{1,12}", timestamp) or abs(now - int(timestamp)) > TIMESTAMP_WINDOW_S:
        return False
    expected = standard_signature(secret, headers.get("webhook-id", ""), timestamp, body).encode()
    given = headers.get("webhook-signature", "").encode("utf-8", "surrogateescape")
    return any(hmac.compare_digest(expected, one) for one in given.split(b" "))


def sign_standard(secret: str, webhook_id: str, body: bytes, at: float) -> SignedRequest:
    """Sign any body the Standard Webhooks way; ``at`` is unix seconds."""
    timestamp = str(int(at))
    headers = {
        "content-type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": standard_signature(secret, webhook_id, timestamp, body),
    }
    return SignedRequest("/webhooks/standard", headers, body)


def standard(secret: str, webhook_id: str, at: float, *, session: str, user: str, text: str) -> SignedRequest:
    """Return a message for ``POST /webhooks/standard``."""
    body = msgspec.json.encode({"session": session, "user": user, "text": text})
    return sign_standard(secret, webhook_id, body, at)


def redeliver_standard(secret: str, first: SignedRequest, at: float) -> SignedRequest:
    """Return the same delivery again: same id and body, new timestamp and signature."""
    return sign_standard(secret, first.headers["webhook-id"], first.body, at)


def slack_signature(secret: str, timestamp: str, body: bytes) -> str:
    return "v0=" + sha256(secret.encode(), b"v0:%s:%s" % (timestamp.encode(), body)).hex()


def sign_slack(secret: str, body: bytes, at: float, content_type: str = "application/json") -> SignedRequest:
    """Sign any body the Slack way; ``at`` is unix seconds."""
    timestamp = str(int(at))
    headers = {
        "content-type": content_type,
        "x-slack-request-timestamp": timestamp,
        "x-slack-signature": slack_signature(secret, timestamp, body),
    }
    return SignedRequest("/webhooks/slack", headers, body)


def slack(
    secret: str, event_id: str, at: float, *, channel: str, user: str, text: str, ts: str = "", thread_ts: str = ""
) -> SignedRequest:
    """Return an Events API message: direct in a channel that begins with D, else a mention of the bot ``U0BOT``.

    ``ts`` names the message in its channel; by default it follows from ``at``.
    """
    ts = ts or f"{at:.6f}"
    event: dict[str, Any] = {"channel": channel, "user": user, "ts": ts, "event_ts": ts, "team": "T0LOAD"}
    if channel.startswith("D"):
        event |= {"type": "message", "channel_type": "im", "text": text}
    else:
        event |= {"type": "app_mention", "text": f"<@U0BOT> {text}"}
    if thread_ts:
        event["thread_ts"] = thread_ts
    authorization = {"enterprise_id": None, "team_id": "T0LOAD", "user_id": "U0BOT", "is_bot": True}
    envelope = {
        "token": "deprecated",
        "team_id": "T0LOAD",
        "api_app_id": "A0LOAD",
        "type": "event_callback",
        "event_id": event_id,
        "event_time": int(at),
        "authorizations": [authorization | {"is_enterprise_install": False}],
        "is_ext_shared_channel": False,
        "event": event,
    }
    return sign_slack(secret, msgspec.json.encode(envelope), at)


def redeliver_slack(
    secret: str, first: SignedRequest, at: float, *, number: int = 1, reason: str = "http_timeout"
) -> SignedRequest:
    """Return the same event again as Slack retries it: same body, new timestamp, the retry headers."""
    again = sign_slack(secret, first.body, at)
    retry = {"x-slack-retry-num": str(number), "x-slack-retry-reason": reason}
    return SignedRequest(again.path, again.headers | retry, again.body)


def sign_telegram(secret_token: str, update: dict[str, Any]) -> SignedRequest:
    """Return any Telegram update with the secret token that authenticates it."""
    headers = {"content-type": "application/json", "x-telegram-bot-api-secret-token": secret_token}
    return SignedRequest("/webhooks/telegram", headers, msgspec.json.encode(update))


def telegram(secret_token: str, update_id: int, at: float, *, chat: int, user: int, text: str) -> SignedRequest:
    """Return a private Telegram message; ``chat`` and ``user`` are ids."""
    sender = {"id": user, "is_bot": False, "first_name": f"User {user}", "language_code": "en"}
    message = {
        "message_id": update_id & 0x7FFF_FFFF,
        "date": int(at),
        "chat": {"id": chat, "type": "private", "first_name": f"User {user}"},
        "from": sender,
        "text": text,
    }
    return sign_telegram(secret_token, {"update_id": update_id, "message": message})


def redeliver_telegram(first: SignedRequest) -> SignedRequest:
    """Return the same update again, which Telegram repeats byte for byte."""
    return first
