"""Hostile requests over real HTTP: a 4xx each, never a 5xx, and nothing secret in the log or in a child."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from loadtests.gateway_process import descendants
from tests.e2e.bot import Bot
from tests.e2e.conftest import MODEL_KEY

HOSTILE_BODIES = {
    "empty": b"",
    "not JSON": b"hello",
    "not UTF-8": b'{"session": "\xff\xfe", "user": "u", "text": "t"}',
    "deeply nested": b"[" * 200_000,
    "huge": b'{"text": "' + b"a" * 3_000_000 + b'"}',
    "a list": b"[]",
    "wrong types": b'{"session": 1, "user": [], "text": {}}',
    "a lone surrogate": b'{"session": "\\ud800", "user": "u", "text": "t"}',
    "a huge number": b'{"session": 1e999999, "user": "u", "text": "t"}',
}


@pytest.mark.parametrize("body", HOSTILE_BODIES.values(), ids=HOSTILE_BODIES.keys())
def test_a_signed_hostile_body_is_a_4xx(hostile_bot: Bot, body: bytes) -> None:
    answer = hostile_bot.post(hostile_bot.signed(body))
    assert 400 <= answer.status_code < 500


HOSTILE_HEADERS = [
    {},
    {"webhook-id": "a", "webhook-timestamp": "abc", "webhook-signature": "v1,AAAA"},
    {"webhook-id": "a", "webhook-timestamp": "1614265330", "webhook-signature": "v1"},
    {"webhook-id": "a", "webhook-timestamp": "1614265330", "webhook-signature": "v1,a  v1,b"},
    {"webhook-id": "a", "webhook-timestamp": "9" * 400, "webhook-signature": "v1,\u00e9"},
    {"x-slack-request-timestamp": "abc", "x-slack-signature": "v0=\u00e9"},
    {"x-telegram-bot-api-secret-token": "\u00e9"},
]


@pytest.mark.parametrize("platform", ["standard", "slack", "telegram"])
@pytest.mark.parametrize("headers", HOSTILE_HEADERS)
def test_an_unverified_request_is_refused_before_its_body_is_read(
    hostile_bot: Bot, platform: str, headers: dict[str, str]
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answer = httpx2.post(
        f"{hostile_bot.gateway.url}/webhooks/{platform}", content=b'{"text": "caf\xe9"}', headers=raw, timeout=30
    )
    assert answer.status_code in {401, 403}


def test_no_secret_is_in_the_log_nor_in_the_environment_of_a_process(hostile_bot: Bot) -> None:
    assert hostile_bot.say("leak", f"my secret is {hostile_bot.secrets()[0]}").status_code == 200
    hostile_bot.wait_for_replies(1)
    secrets = hostile_bot.secrets()
    assert not [secret for secret in secrets if secret in hostile_bot.gateway.log()]
    with_model_keys = []
    for pid in (hostile_bot.gateway.pid, *descendants(hostile_bot.gateway.pid)):
        inherited = first_environment(pid)
        assert not [secret for secret in secrets if secret in inherited]
        if MODEL_KEY in inherited:
            with_model_keys.append(Path(f"/proc/{pid}/cmdline").read_bytes())
    assert all(b"multiprocess.forkserver" in command for command in with_model_keys)  # it and its forks, the workers


def first_environment(pid: int) -> str:
    """Return the environment that a process was started with, empty where only root may read it."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "replace")
    except PermissionError:
        return ""
