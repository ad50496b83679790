"""The doors that messages come through: how each platform words and signs one, and what it calls the conversation."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

import msgspec

from loadtests.platform import API_KEY
from loadtests.platform_wire import Secrets
from loadtests.signing import SignedRequest, slack, standard, telegram


class Door(enum.StrEnum):
    """Through which door a session speaks."""

    STANDARD = "standard"
    SLACK = "slack"
    TELEGRAM = "telegram"
    API = "api"


class Spoken(msgspec.Struct, frozen=True):
    """One message as every delivery of it is: ``number`` is unique in a run, ``name`` names it to its platform."""

    session: str
    number: int
    name: str
    user: str
    text: str
    streamed: bool = False


def conversation(door: Door, session: str) -> str:
    """Return what the platform calls the conversation of a session ``r<number>s<number>``."""
    round_number, _, place = session[1:].partition("s")
    match door:
        case Door.SLACK:
            return "D" + session.upper()
        case Door.TELEGRAM:
            return str(1_000_000 + int(round_number) * 10 + int(place))
        case _:
            return session


def session_key(door: Door, session: str) -> str:
    """Return the key of the session in the gateway."""
    account = {Door.STANDARD: "default", Door.SLACK: "T0LOAD", Door.TELEGRAM: "123456", Door.API: "default"}[door]
    return f"{door.value}:{account}:{conversation(door, session)}"


def request(door: Door, secrets: Secrets, spoken: Spoken, now: float) -> SignedRequest:
    """Return one delivery, signed now."""
    return _REQUESTS[door](secrets, spoken, now)


def _standard(secrets: Secrets, spoken: Spoken, now: float) -> SignedRequest:
    named = {"session": spoken.session, "user": spoken.user, "text": spoken.text}
    return standard(secrets.standard_secret, f"msg_{spoken.name}", now, **named)


def _slack(secrets: Secrets, spoken: Spoken, now: float) -> SignedRequest:
    channel = conversation(Door.SLACK, spoken.session)
    named = {"channel": channel, "user": "U0" + spoken.session.upper(), "text": spoken.text}
    return slack(secrets.slack_signing_secret, f"Ev{spoken.name}", now, ts=f"1790000000.{spoken.number:06d}", **named)


def _telegram(secrets: Secrets, spoken: Spoken, _now: float) -> SignedRequest:
    chat = int(conversation(Door.TELEGRAM, spoken.session))
    token = secrets.telegram_secret_token
    return telegram(token, 100_000_000 + spoken.number, 1_790_000_000, chat=chat, user=chat, text=spoken.text)


def _api(_: Secrets, spoken: Spoken, _now: float) -> SignedRequest:
    body = {"model": "gatehouse", "messages": [{"role": "user", "content": spoken.text}], "stream": spoken.streamed}
    headers = {
        "authorization": f"Bearer {API_KEY}",
        "content-type": "application/json",
        "idempotency-key": spoken.name,
        "x-gatehouse-session": spoken.session,
    }
    return SignedRequest("/v1/chat/completions", headers, msgspec.json.encode(body))


_REQUESTS: Mapping[Door, Callable[[Secrets, Spoken, float], SignedRequest]] = {
    Door.STANDARD: _standard,
    Door.SLACK: _slack,
    Door.TELEGRAM: _telegram,
    Door.API: _api,
}


class _Message(msgspec.Struct, frozen=True):
    content: str | None = ""


class _Choice(msgspec.Struct, frozen=True):
    message: _Message = _Message()
    delta: _Message = _Message()
    finish_reason: str | None = None


class _Completion(msgspec.Struct, frozen=True):
    choices: list[_Choice] = []


def completed_text(body: bytes, *, streamed: bool) -> str | None:
    """Return the text of an answered call, None where it was not answered to its end."""
    if not streamed:
        (choice,) = msgspec.json.decode(body, type=_Completion).choices
        return choice.message.content
    text, ended = "", False
    for line in body.split(b"\n"):
        if line.startswith(b"data: {"):
            for choice in msgspec.json.decode(line[6:], type=_Completion).choices:
                text += choice.delta.content or ""
                ended = ended or choice.finish_reason == "stop"
    return text if ended else None
