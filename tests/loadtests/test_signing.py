"""Signed webhooks against the platforms' own verifiers and published vectors."""

from __future__ import annotations

import json
import time

import pytest
import standardwebhooks
from slack_sdk.signature import SignatureVerifier

from loadtests import signing
from loadtests.platform_wire import Secrets
from loadtests.sender import Sender

SECRETS = Secrets()


def test_the_standard_signature_equals_the_published_vector() -> None:
    secret, webhook_id = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"
    signature = signing.standard_signature(secret, webhook_id, "1614265330", b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_slack_signature_equals_the_published_vector() -> None:
    body = (
        b'{"token":"xxx","team_id":"T0001","api_app_id":"A0001","event":{"type":"app_mention","user":"U0002",'
        b'"text":"<@U0BOT> hi \xf0\x9f\x91\x8b","ts":"1531420618.000200","channel":"C0003",'
        b'"event_ts":"1531420618.000200"},"type":"event_callback","event_id":"Ev0001","event_time":1531420618}'
    )
    signature = signing.slack_signature("8f742231b10e8888abcd99yyyzzz85a5", "1531420618", body)
    assert signature == "v0=74ee81c7bd28da0d240c8adbe9ac7f06f5fb7dd884f3bc19e061e1a8b1f7410e"


def test_the_official_verifier_accepts_a_standard_message_and_its_redelivery() -> None:
    first = Sender(SECRETS).standard("s1", "hi")
    again = signing.redeliver_standard(SECRETS.standard_secret, first, time.time() + 5)
    webhook = standardwebhooks.Webhook(SECRETS.standard_secret)
    for request in (first, again):
        assert webhook.verify(request.body, request.headers) == {"session": "s1", "user": "someone", "text": "hi"}
    assert again.headers["webhook-id"] == first.headers["webhook-id"]
    assert again.headers["webhook-timestamp"] != first.headers["webhook-timestamp"]


def test_the_official_verifier_accepts_a_slack_event_and_its_redelivery() -> None:
    first = Sender(SECRETS).slack("C1", "hi")
    again = signing.redeliver_slack(SECRETS.slack_signing_secret, first, time.time(), number=2)
    verifier = SignatureVerifier(SECRETS.slack_signing_secret)
    for request in (first, again):
        assert verifier.is_valid_request(request.body, request.headers)
    assert again.body == first.body
    assert again.headers["x-slack-retry-num"] == "2"


def test_telegram_repeats_an_update_byte_for_byte() -> None:
    first = Sender(SECRETS).telegram(7, "hi")
    assert signing.redeliver_telegram(first) == first
    assert json.loads(first.body)["message"]["chat"]["id"] == 7
    assert first.headers["x-telegram-bot-api-secret-token"] == SECRETS.telegram_secret_token


def test_two_senders_never_share_an_id() -> None:
    senders = [Sender(SECRETS) for _ in range(3)]
    ids = [sender.standard("s", "x").headers["webhook-id"] for sender in senders for _ in range(5)]
    ids += [str(json.loads(sender.telegram(1, "x").body)["update_id"]) for sender in senders for _ in range(5)]
    ids += [json.loads(sender.slack("D1", "x").body)["event_id"] for sender in senders for _ in range(5)]
    assert len(set(ids)) == len(ids) == 45


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("webhook-signature", "v1"),
        ("webhook-signature", "v1,  x"),
        ("webhook-signature", "v1,\u00e9"),
        ("webhook-timestamp", "abc"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-id", "another"),
    ],
)
def test_our_own_verifier_refuses_what_is_not_authentic(name: str, value: str) -> None:
    request = Sender(SECRETS).standard("s", "hi")
    now = time.time()
    assert signing.standard_verifies(SECRETS.standard_secret, request.headers, request.body, now)
    assert not signing.standard_verifies(SECRETS.standard_secret, request.headers | {name: value}, request.body, now)
    assert not signing.standard_verifies(SECRETS.standard_secret, request.headers, request.body + b" ", now)
