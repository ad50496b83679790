"""Webhooks over real HTTP into a real store."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests import signing
from loadtests.signing import SignedRequest
from shared.events import Event
from tests.gateway.edge import SECRETS, Edge, running_edge

LET_ALL_IN = {"GATEHOUSE_ALLOW": "*"}
MESSAGE = "x-gatehouse-message"
DEEP = b"[" * 200_000


def standard(text: str = "hi", webhook_id: str = "wh_1", session: str = "s1") -> SignedRequest:
    return signing.standard(SECRETS.standard_secret, webhook_id, time.time(), session=session, user="ana", text=text)


def telegram(text: str = "hi", update_id: int = 7) -> SignedRequest:
    return signing.telegram(SECRETS.telegram_secret_token, update_id, time.time(), chat=5, user=5, text=text)


def slack(text: str = "hi", event_id: str = "Ev1", channel: str = "D1", ts: str = "1.5") -> SignedRequest:
    return signing.slack(
        SECRETS.slack_signing_secret, event_id, time.time(), channel=channel, user="U1", text=text, ts=ts
    )


def signed_raw(platform: str, raw: bytes) -> SignedRequest:
    match platform:
        case "standard":
            return signing.sign_standard(SECRETS.standard_secret, "wh_raw", raw, time.time())
        case "slack":
            return signing.sign_slack(SECRETS.slack_signing_secret, raw, time.time())
        case _:
            signed = signing.sign_telegram(SECRETS.telegram_secret_token, {})
            return SignedRequest(signed.path, signed.headers, raw)


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    """An edge that lets everybody in."""
    async with running_edge(tmp_path, LET_ALL_IN) as edge:
        yield edge


@pytest.mark.parametrize("signed", [standard(), telegram(), slack()], ids=lambda signed: signed.path)
async def test_a_message_is_kept_before_it_is_acknowledged(edge: Edge, signed: SignedRequest) -> None:
    """The answer names it, and the pool is woken."""
    answer = await edge.post(signed)
    assert answer.status_code == 200
    message_id = answer.headers[MESSAGE]
    assert message_id.startswith("msg_")
    assert answer.json() == {"message": message_id}
    assert (await edge.store.inbox.trace(message_id)).user in {"ana", "5", "U1"}
    assert edge.wakes == 1
    (claim,) = await edge.claimed()
    assert [pending.text for pending in claim.messages] == ["hi"]


async def test_a_redelivery_gets_the_same_answer_and_starts_no_second_turn(edge: Edge) -> None:
    """Five times at once, and later with a new time and signature."""
    first = standard()
    answers = await asyncio.gather(*(edge.post(first) for _ in range(5)))
    answers.append(await edge.post(signing.redeliver_standard(SECRETS.standard_secret, first, time.time() + 60)))
    assert {(answer.status_code, answer.text, answer.headers[MESSAGE]) for answer in answers} == {
        (200, answers[0].text, answers[0].headers[MESSAGE])
    }
    assert await edge.store.inbox.waiting() == 1
    assert edge.wakes == 1
    assert edge.events.counts[Event.MESSAGE_DUPLICATE] == 5


async def test_a_redelivery_after_a_restart_starts_no_second_turn(tmp_path: Path) -> None:
    """What was seen is in the same commit as the message."""
    signed = slack()
    async with running_edge(tmp_path, LET_ALL_IN) as edge:
        first = await edge.post(signed)
    again = signing.redeliver_slack(SECRETS.slack_signing_secret, signed, time.time())
    async with running_edge(tmp_path, LET_ALL_IN) as edge:
        assert (await edge.post(again)).headers[MESSAGE] == first.headers[MESSAGE]
        assert await edge.store.inbox.waiting() == 1


async def test_a_slack_mention_and_its_message_copy_are_one_message(edge: Edge) -> None:
    """In either order, and though the copy of an unaddressed message is ignored first."""
    mention = json.loads(slack(channel="C1", event_id="Ev1").body)
    copy = json.loads(slack(channel="C1", event_id="Ev2").body)
    copy["event"] |= {"type": "message", "channel_type": "channel"}
    ids = set()
    for body in (copy, mention, copy):
        signed = signing.sign_slack(SECRETS.slack_signing_secret, json.dumps(body).encode(), time.time())
        ids.add((await edge.post(signed)).headers[MESSAGE])
    assert len(ids) == 1
    assert await edge.store.inbox.waiting() == 1


async def test_an_ignored_copy_does_not_swallow_the_mention(edge: Edge) -> None:
    """Its place is remembered only once something there was accepted."""
    mention = json.loads(slack(channel="C1", event_id="Ev1").body)
    copy = json.loads(slack(channel="C1", event_id="Ev2").body)
    copy["event"] |= {"type": "message", "channel_type": "channel", "text": "hi"}
    answers = []
    for body in (copy, mention):
        signed = signing.sign_slack(SECRETS.slack_signing_secret, json.dumps(body).encode(), time.time())
        answers.append(await edge.post(signed))
    assert answers[0].json() == {"ignored": "nothing was addressed to the bot"}
    assert MESSAGE not in answers[0].headers
    assert MESSAGE in answers[1].headers


async def test_the_slack_handshake_is_answered_byte_for_byte(edge: Edge) -> None:
    """And only if it is signed."""
    signed = signed_raw("slack", b'{"type":"url_verification","challenge":"abc"}')
    answer = await edge.post(signed)
    assert (answer.status_code, answer.content) == (200, b"abc")
    assert answer.headers["content-type"].startswith("text/plain")
    assert (await edge.post(signed, {"x-slack-signature": "v0=0"})).status_code == 401


HOSTILE_BODIES = {
    "empty": b"", "not json": b"hello", "not utf-8": b'{"session":"\xff","user":"u","text":"t"}', "deep array": DEEP,
    "deep object": b'{"a":' * 100_000, "deep and whole": b"[" * 50_000 + b"]" * 50_000, "number": b"1", "null": b"null",
    "string": b'"x"', "array": b"[]", "nul": b"\0", "lone surrogate": b'{"session":"\\ud800","user":"u","text":"t"}',
    "huge number": b'{"session":1e999,"user":"u","text":"t"}', "huge integer": b"9" * 100_000, "bom": b"\xef\xbb\xbf{}",
    "empty object": b"{}", "nul in session": b'{"session":"a\\u0000","user":"u","text":"t"}',
    "cut off": b'{"session":"a',
    "empty text": b'{"session":"s","user":"u","text":""}',
    "long text": b'{"session":"s","user":"u","text":"%s"}' % (b"x" * 200_000),
}  # fmt: skip


@pytest.mark.parametrize("platform", ["standard", "slack", "telegram"])
async def test_a_hostile_body_with_a_good_signature_is_a_400(edge: Edge, platform: str) -> None:
    """Never a 5xx, and the answer says what is wrong."""
    for name, raw in HOSTILE_BODIES.items():
        answer = await edge.post(signed_raw(platform, raw))
        assert answer.status_code == 400, (name, answer.text)
        assert answer.json()["error"]["message"], name
    assert await edge.store.inbox.waiting() == 0
    assert edge.events.counts[Event.WEBHOOK_REJECTED] == len(HOSTILE_BODIES)


@pytest.mark.parametrize("platform", ["standard", "slack", "telegram"])
async def test_a_hostile_body_with_a_bad_signature_is_a_401(edge: Edge, platform: str) -> None:
    """Whatever it holds: it is not read."""
    for name, raw in HOSTILE_BODIES.items():
        signed = signed_raw(platform, raw + b" ")
        headers = signed.headers | {"x-telegram-bot-api-secret-token": "wrong"}
        assert (await edge.post(SignedRequest(signed.path, headers, raw))).status_code == 401, name


async def test_a_genuine_update_that_is_of_no_use_is_acknowledged(edge: Edge) -> None:
    """A refusal would block the chat."""
    hostile: list[Any] = [10**400, {"id": "x"}, [[]], None, "x\0", {"a": {"b": [1.5e300]}}]
    for value in hostile:
        for field in ("chat", "from", "text", "message_id", "entities", "photo"):
            update = {"update_id": 9, "message": {"message_id": 1, "chat": {"id": 1}, "from": {"id": 1}, field: value}}
            answer = await edge.post(signed_raw("telegram", json.dumps(update).encode()))
            assert answer.status_code == 200, (field, value, answer.text)


@pytest.mark.parametrize(
    ("platform", "name", "value"),
    [
        ("slack", "x-slack-request-timestamp", "abc"), ("slack", "x-slack-signature", "é"),
        ("slack", "x-slack-signature", "v0=é"), ("standard", "webhook-signature", "v1"),
        ("standard", "webhook-signature", "v1,a  v1,b"), ("standard", "webhook-timestamp", "٣"),
        ("standard", "webhook-id", "é"), ("telegram", "x-telegram-bot-api-secret-token", "é"),
    ],
)  # fmt: skip
async def test_headers_that_make_official_verifiers_raise_are_a_401(
    edge: Edge, platform: str, name: str, value: str
) -> None:
    """Every row of the list that concerns these platforms."""
    signed = signed_raw(platform, b"\xff\xfe{}")
    headers = {key.encode(): text.encode() for key, text in (signed.headers | {name: value}).items()}
    answer = await edge.client.post(signed.path, content=signed.body, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("signed", [standard(), telegram(), slack()], ids=lambda signed: signed.path)
async def test_a_signature_header_that_comes_twice_is_refused(edge: Edge, signed: SignedRequest) -> None:
    """Even if both are right: two parts of a system could read different ones."""
    name = next(name for name in signed.headers if "signature" in name or "secret" in name)
    headers = [*signed.headers.items(), (name, signed.headers[name])]
    answer = await edge.client.post(signed.path, content=signed.body, headers=headers)
    assert answer.status_code == 401
    assert "more than once" in answer.json()["error"]["message"]


async def test_a_platform_that_is_not_on_is_a_404_in_json(edge: Edge) -> None:
    """It says how to turn it on."""
    answer = await edge.client.post("/webhooks/discord", content=b"{}")
    assert answer.status_code == 404
    assert "discord" in answer.json()["error"]["message"]


async def test_a_body_over_a_mebibyte_is_a_413(edge: Edge) -> None:
    """With a declared length and without one."""
    signed = signed_raw("standard", b"x" * 1_048_577)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(signed.body), 65_536):
            yield signed.body[start : start + 65_536]

    assert (await edge.post(signed)).status_code == 413
    answer = await edge.client.post(signed.path, content=pieces(), headers=signed.headers)
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "too_large"
    endless = await edge.client.post(signed.path, content=b"x" * 20_000_000, headers=signed.headers)
    assert endless.status_code == 413


async def raw_answer(edge: Edge, request: bytes) -> bytes:
    """Send bytes over a socket of their own and return all that comes back."""
    host, port = edge.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    await writer.drain()
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_body_that_does_not_come_is_a_408(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is closed."""
    monkeypatch.setattr("gateway.webhook.BODY_TIMEOUT_S", 0.1)
    answer = await raw_answer(edge, b"POST /webhooks/standard HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_sender_that_leaves_before_its_body_is_complete_is_counted(edge: Edge) -> None:
    """Nothing of it is accepted, and it is no error of ours."""
    host, port = edge.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /webhooks/standard HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with asyncio.timeout(10):
        while not edge.events.counts[Event.WEBHOOK_REJECTED]:  # noqa: ASYNC110 - the count has no waiter
            await asyncio.sleep(0.01)
    assert not edge.events.counts[Event.REQUEST_FAILED]


async def test_hostile_hosts_and_paths_are_no_error_of_ours(edge: Edge) -> None:
    """They are refused, or sent to the path without its last slash, which is as well."""
    hosts = [b"[", b"a b", b"\xff", b"", b"x" * 5000, b"//evil/?#"]
    paths = [b"standard", b"%ff%00", b"..%2f", b"x" * 5000]
    for host, path in itertools.product(hosts, paths):
        lines = [b"POST /webhooks/%s HTTP/1.1" % path, b"Host: " + host, b"Content-Length: 2", b"Connection: close"]
        status = (await raw_answer(edge, b"\r\n".join([*lines, b"", b"{}"]))).split(b" ")[1]
        assert status.startswith(b"4") or status == b"307", (host, path)


async def test_a_body_of_a_mebibyte_is_read(edge: Edge) -> None:
    """Chunked as well; it is then judged by its content."""
    raw = json.dumps({"session": "s", "user": "u", "text": "x"}).encode().ljust(1_048_576)
    signed = signed_raw("standard", raw)

    async def pieces() -> AsyncIterator[bytes]:
        yield raw[:1000]
        yield raw[1000:]

    assert (await edge.client.post(signed.path, content=pieces(), headers=signed.headers)).status_code == 200


async def test_a_full_inbox_is_an_honest_503_and_redeliveries_still_get_their_answer(tmp_path: Path) -> None:
    """With the time to come again."""
    async with running_edge(tmp_path, LET_ALL_IN, inbox_limit=2) as edge:
        for number in range(2):
            assert (await edge.post(standard(webhook_id=f"wh_{number}"))).status_code == 200
        answer = await edge.post(standard(webhook_id="wh_9"))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["error"]["code"] == "inbox_full"
        assert (await edge.post(standard(webhook_id="wh_0"))).status_code == 200


async def test_a_store_that_cannot_commit_is_a_503_and_no_false_200(tmp_path: Path) -> None:
    """It is closed here; nothing was accepted."""
    async with running_edge(tmp_path, LET_ALL_IN) as edge:
        await edge.store.close()
        answer = await edge.post(standard())
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "2"
        assert answer.json()["error"]["code"] == "store_unavailable"
        await edge.store.open()


async def test_a_stranger_on_telegram_gets_a_code_and_no_turn(tmp_path: Path) -> None:
    """Members of workspaces and holders of the secret need none."""
    async with running_edge(tmp_path) as edge:
        answer = await edge.post(telegram())
        assert answer.status_code == 200
        assert MESSAGE not in answer.headers
        assert await edge.store.inbox.waiting() == 0
        ((sender, code),) = await edge.store.sessions.strangers()
        assert sender == "telegram:5"
        await edge.store.sessions.approve(code)
        assert MESSAGE in (await edge.post(telegram(update_id=8))).headers
        assert MESSAGE in (await edge.post(slack())).headers
        assert edge.events.counts[Event.STRANGER] == 1


async def test_who_is_not_listed_is_ignored_and_counted(tmp_path: Path) -> None:
    """Politely: 200, so that the platform does not come again."""
    async with running_edge(tmp_path, {"GATEHOUSE_ALLOW": "standard:bob"}) as edge:
        answer = await edge.post(standard())
        assert answer.status_code == 200
        assert "ignored" in answer.json()
        assert await edge.store.inbox.waiting() == 0
        assert edge.events.counts[Event.MESSAGE_REFUSED] == 1


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",) * 2,
        ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", ""), ("x" * 5000, ""), ("", ""),
    ],
)  # fmt: skip
async def test_a_traceparent_goes_with_the_message(edge: Edge, header: str, kept: str) -> None:
    """If it is one."""
    await edge.post(standard(), {"traceparent": header})
    (claim,) = await edge.claimed()
    assert claim.messages[0].traceparent == kept


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """All that is logged."""
    with caplog.at_level(logging.DEBUG):
        yield caplog


async def test_no_secret_reaches_a_log_line_or_an_answer(tmp_path: Path, lines: pytest.LogCaptureFixture) -> None:
    """Neither our secrets nor what people wrote."""
    async with running_edge(tmp_path, LET_ALL_IN) as edge:
        bodies = [
            signed_raw(name, raw) for name in ("standard", "slack", "telegram") for raw in HOSTILE_BODIES.values()
        ]
        answers = [await edge.post(signed) for signed in [standard("my-own-words"), telegram(), slack(), *bodies]]
    said = " ".join(str(record.__dict__) for record in lines.records if record.name == "gatehouse")
    said += " ".join(answer.text for answer in answers)
    for secret in (*vars_of_secrets(), "my-own-words"):
        assert secret not in said


def vars_of_secrets() -> list[str]:
    return [getattr(SECRETS, name) for name in SECRETS.__struct_fields__]


async def test_two_hundred_webhooks_at_once_are_all_kept(edge: Edge) -> None:
    """They share few commits."""
    signed = [standard(webhook_id=f"wh_{number}", session=f"s{number % 50}") for number in range(200)]
    answers = await asyncio.gather(*(edge.post(one) for one in signed))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers[MESSAGE] for answer in answers}) == 200
    assert await edge.store.inbox.waiting() == 200
