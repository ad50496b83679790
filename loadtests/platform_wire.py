"""How each platform's API words what it takes and what it refuses: pure functions over decoded requests."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from loadtests.signing import standard_verifies

JSON = {"content-type": "application/json"}
PLATFORMS = ("standard", "telegram", "slack")
UNAUTHORIZED = {"standard": "wrong signature", "telegram": "Unauthorized", "slack": "invalid_auth"}

Answer = tuple[int, dict[str, str], bytes]


class Secrets(msgspec.Struct, frozen=True):
    """The secrets the platform and a gateway under test share."""

    standard_secret: str = "whsec_bG9hZHRlc3RzLXN0YW5kYXJkLXNlY3JldC0wMQ=="
    telegram_bot_token: str = "123456:loadtests-bot-token"
    telegram_secret_token: str = "loadtests-Secret_token-0123456789"
    slack_signing_secret: str = "loadtests-slack-signing-secret"
    slack_bot_token: str = "xoxb-loadtests-bot-token"


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one coming request gets instead of success.

    ``status`` answers so in the platform's own form, with ``retry_after_s``; ``error`` is the platform's own words for
    the problem; ``reset`` breaks the connection; ``stall`` answers never; ``taken`` has the reply recorded all the
    same, so that the sender cannot know.
    """

    status: int = 0
    retry_after_s: int | None = None
    error: str = ""
    reset: bool = False
    stall: bool = False
    taken: bool = False


class Received(msgspec.Struct, frozen=True):
    """One reply the platform took: ``at`` in unix seconds; ``conversation`` is session, chat id or channel.

    ``key`` is the request's webhook id where it has one; ``sent_id`` what the platform called the message.
    """

    at: float
    platform: str
    method: str
    conversation: str
    text: str
    key: str
    sent_id: str
    body: dict[str, Any]
    headers: dict[str, str]


def authentic(name: str, secrets: Secrets, headers: Mapping[str, str], path: Mapping[str, str], raw: bytes) -> bool:
    """Tell whether a call of a platform's API carries the right signature or token."""
    match name:
        case "standard":
            return standard_verifies(secrets.standard_secret, headers, raw, time.time())
        case "telegram":
            return path["token"] == secrets.telegram_bot_token
        case _:
            return headers.get("authorization") == f"Bearer {secrets.slack_bot_token}"


def read_body(raw: bytes) -> dict[str, Any]:
    """Decode a call's body: JSON, a form with a file, or the form that Slack's SDK sends.

    A file is its name and its bytes in Latin-1. Raises msgspec.DecodeError.
    """
    if raw.startswith(b"{"):
        return msgspec.json.decode(raw, type=dict[str, Any])
    if raw.startswith(b"--"):
        return read_form(raw)
    return dict(parse_qsl(raw.decode("utf-8", "replace")))


def read_form(raw: bytes) -> dict[str, Any]:
    """Decode a form with files (RFC 7578), whose boundary is its first line."""
    boundary, _, rest = raw.partition(b"\r\n")
    fields: dict[str, Any] = {}
    for part in rest.split(b"\r\n" + boundary)[:-1]:
        head, _, value = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        names = dict(re.findall(r'; (name|filename)="([^"]*)"', head.decode()))
        content = value.decode("latin-1")
        fields[names["name"]] = {"name": names["filename"], "data": content} if "filename" in names else content
    return fields


def read_message(name: str, method: str, number: int, headers: dict[str, str], body: dict[str, Any]) -> Received | None:
    """Read the message a call sends, None where it sends none; ``number`` makes the sent id unique."""
    match name, method:
        case "standard", _:
            conversation, sent_id = str(body["session"]), headers["webhook-id"]
        case "telegram", "sendMessage":
            conversation, sent_id = str(body["chat_id"]), str(number)
        case "telegram", "sendDocument":
            conversation, sent_id = str(body["chat_id"]), str(number)
            body = {**body, "text": body["document"]["name"]}
        case "slack", "chat.postMessage":
            conversation, sent_id = str(body["channel"]), f"{time.time():.0f}.{number:06d}"
        case _:
            return None
    text = str(body.get("text") or body.get("markdown_text") or "")
    key = headers.get("webhook-id", "")
    return Received(time.time(), name, method, conversation, text, key, sent_id, body, headers)


#: what a platform says of the bot that asks
IDENTITIES: dict[tuple[str, str], dict[str, Any]] = {
    ("telegram", "getMe"): {
        "ok": True,
        "result": {"id": 123456, "is_bot": True, "first_name": "Load", "username": "load_bot"},
    },
    ("slack", "auth.test"): {"ok": True, "team_id": "T0LOAD", "user_id": "U0BOT", "user": "load", "bot_id": "B0LOAD"},
}


def success(name: str, method: str, taken: Received | None) -> Answer:
    """Answer a call the platform took."""
    answer: dict[str, Any] = IDENTITIES.get((name, method), {})
    match name:
        case _ if answer:
            pass
        case "telegram" if taken is not None:
            chat = {"id": taken.body["chat_id"], "type": "private"}
            message = {"message_id": int(taken.sent_id), "date": int(taken.at), "chat": chat, "text": taken.text}
            answer = {"ok": True, "result": message}
        case "telegram":
            answer = {"ok": True, "result": True}
        case "slack" if taken is not None:
            message = {"type": "message", "text": taken.text, "ts": taken.sent_id}
            answer = {"ok": True, "channel": taken.conversation, "ts": taken.sent_id, "message": message}
        case "slack":
            answer = {"ok": True}
        case _:
            pass
    return 200, JSON, msgspec.json.encode(answer)


def refusal(name: str, fault: Fault) -> Answer:
    """Word a refusal as the platform does: Slack says most of them with a 200."""
    status, wait = fault.status or 400, fault.retry_after_s
    headers = JSON | ({"retry-after": str(wait)} if wait is not None else {})
    match name:
        case "telegram":
            words = fault.error or (f"Too Many Requests: retry after {wait}" if status == 429 else "Bad Request")
            problem: dict[str, Any] = {"ok": False, "error_code": status, "description": words}
            if wait is not None:
                problem["parameters"] = {"retry_after": wait}
            return status, headers, msgspec.json.encode(problem)
        case "slack":
            words = fault.error or ("ratelimited" if status == 429 else "internal_error")
            said = status if status == 429 or status >= 500 else 200
            return said, headers, msgspec.json.encode({"ok": False, "error": words})
        case _:
            return status, headers, msgspec.json.encode({"error": fault.error or f"scripted status {status}"})
