"""Webhooks over real HTTP into a real store."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from loadtests import further_settings, signing
from loadtests.bench.busy_acks import api_app
from loadtests.sender import Sender
from loadtests.signing import SignedRequest
from shared.errors import NotFound
from shared.events import Event
from shared.messages import Ended, MessageState, TurnStatus
from shared.platform_settings import PLATFORM_SETTINGS
from tests.gateway.edge import (
    LET_ALL_IN,
    SECRETS,
    Edge,
    raw_answer,
    running_edge,
    serving,
    signed_raw,
    slack,
    standard,
    telegram,
)

MESSAGE = "x-gatehouse-message"


@pytest.mark.parametrize("sign", [standard, telegram, slack])
async def test_a_message_is_kept_before_it_is_acknowledged(edge: Edge, sign: Callable[[], SignedRequest]) -> None:
    """The answer names it, and the pool is woken."""
    answer = await edge.post(sign())
    assert answer.status_code == 200
    message_id = answer.headers[MESSAGE]
    assert message_id.startswith("msg_")
    assert answer.json() == {"message": message_id}
    assert (await edge.store.inbox.trace(message_id)).user in {"ana", "5", "U1"}
    assert edge.pool.wakes == 1
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


async def test_on_every_platform_an_event_that_comes_again_and_again_is_one_message(tmp_path: Path) -> None:
    """Three times at once, then alone, and once more after a restart; each is answered as the first was."""
    published: dict[str, object] = {}
    async with serving(api_app(published)) as api:
        published |= further_settings.published(api)
        settings = LET_ALL_IN | further_settings.all_environment(api)
        async with running_edge(tmp_path, settings) as edge:
            host, sender = f"http://{edge.client.base_url.netloc.decode()}", Sender(SECRETS)
            signed = {name: sender.any(name, 7, "hi", host=host, api=api) for name in PLATFORM_SETTINGS}
            at_once = await asyncio.gather(*(edge.post(one) for one in list(signed.values()) * 3))
            alone = [await edge.post(one) for one in signed.values()]
            assert await edge.store.inbox.waiting() == len(signed)
        async with running_edge(tmp_path, settings | {"GATEHOUSE_PUBLIC_URL": host}) as edge:
            later = [await edge.post(one) for one in signed.values()]
            texts = [pending.text for claim in await edge.claimed() for pending in claim.messages]
            assert await edge.sent() == []
    assert texts == ["hi"] * len(signed)
    answers = [*at_once, *alone, *later]
    assert {answer.status_code for answer in answers} == {200}
    for number, name in enumerate(signed):
        seen = {(answer.content, answer.headers[MESSAGE]) for answer in answers[number :: len(signed)]}
        assert len(seen) == 1, name


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
        await edge.pairings.approve(code)
        assert MESSAGE in (await edge.post(telegram(update_id=8))).headers
        assert MESSAGE in (await edge.post(slack())).headers
        assert edge.events.counts[Event.STRANGER] == 1


async def test_the_approved_sender_is_told_and_the_first_message_is_answered(tmp_path: Path) -> None:
    """Once; a second approval of the code is refused, and so is one that was revoked."""
    async with running_edge(tmp_path) as edge:
        await edge.post(telegram("what is the plan?"))
        await edge.post(telegram("hello?", update_id=8))
        (announced,) = await edge.sent()
        code = announced.split()[-1]
        assert await edge.pairings.approve(code) == "telegram:5"
        (claim,) = await edge.claimed()
        assert [message.text for message in claim.messages] == ["what is the plan?"]
        assert await edge.sent() == ["You are let in now: we can talk."]
        with pytest.raises(NotFound):
            await edge.pairings.approve(code)
        await edge.pairings.revoke("telegram:5")
        assert MESSAGE not in (await edge.post(telegram(update_id=9))).headers
        with pytest.raises(NotFound):
            await edge.pairings.revoke("telegram:5")


async def test_a_pairing_code_runs_out(tmp_path: Path) -> None:
    """Then the next message brings a new one."""
    async with running_edge(tmp_path, {"GATEHOUSE_PAIRING_TTL": "0.2"}) as edge:
        await edge.post(telegram())
        ((_, code),) = await edge.store.sessions.strangers()
        async with asyncio.timeout(10):
            while await edge.store.sessions.strangers():  # noqa: ASYNC110 - time alone ends it
                await asyncio.sleep(0.02)
        with pytest.raises(NotFound):
            await edge.pairings.approve(code)
        await edge.post(telegram(update_id=8))
        (first, second) = await edge.sent()
        assert first.split()[-1] == code != second.split()[-1]


def edited(text: str, update_id: int, first: int = 7) -> SignedRequest:
    update = json.loads(telegram(text, update_id=first).body)
    return signing.sign_telegram(
        SECRETS.telegram_secret_token, {"update_id": update_id, "edited_message": update["message"]}
    )


async def test_an_edit_of_a_message_that_waits_changes_its_words(edge: Edge) -> None:
    """And makes no message of its own; one of a message that nobody knows does nothing."""
    await edge.post(telegram("at five"))
    assert MESSAGE not in (await edge.post(edited("at six", 8))).headers
    assert MESSAGE not in (await edge.post(edited("never said", 9, first=99))).headers
    (claim,) = await edge.claimed()
    assert [message.text for message in claim.messages] == ["at six"]


async def test_an_edit_of_a_message_whose_turn_runs_ends_it_for_the_new_words(edge: Edge) -> None:
    """Once, however often it comes; an edit that changes no word does nothing."""
    first = (await edge.post(telegram("at five"))).headers[MESSAGE]
    await edge.claimed()
    assert MESSAGE not in (await edge.post(edited("at five", 8))).headers
    new = (await edge.post(edited("at six", 9))).headers[MESSAGE]
    assert (await edge.post(edited("at six", 9))).headers[MESSAGE] == new != first
    assert edge.turn_control.stopped == [first]


async def test_a_message_that_is_taken_back_has_no_turn(edge: Edge) -> None:
    """It is undone as by a command: whoever claims it ends it."""
    signed = slack("never mind")
    first = (await edge.post(signed)).headers[MESSAGE]
    gone = {"type": "message", "subtype": "message_deleted", "channel": "D1", "ts": "2.5", "deleted_ts": "1.5"}
    envelope = {**json.loads(signed.body), "event_id": "Ev2", "event": {**gone, "previous_message": {"user": "U1"}}}
    taken_back = signing.sign_slack(SECRETS.slack_signing_secret, json.dumps(envelope).encode(), time.time())
    await edge.post(taken_back)
    (claim,) = await edge.claimed()
    assert [(message.id, bool(message.stop)) for message in claim.messages] == [(first, True)]


async def test_who_takes_back_a_message_that_waits_is_not_answered(edge: Edge) -> None:
    """There is nothing left to be said of it."""
    await edge.post(slack("what runs", "Ev0", ts="0.5"))
    (claim,) = await edge.claimed()
    waits = (await edge.post(signed := slack("never mind"))).headers[MESSAGE]
    gone = {"type": "message", "subtype": "message_deleted", "channel": "D1", "ts": "2.5", "deleted_ts": "1.5"}
    envelope = {**json.loads(signed.body), "event_id": "Ev2", "event": {**gone, "previous_message": {"user": "U1"}}}
    await edge.post(signing.sign_slack(SECRETS.slack_signing_secret, json.dumps(envelope).encode(), time.time()))
    assert (await edge.store.inbox.trace(waits)).state is MessageState.WITHDRAWN
    await edge.store.claims.settle(claim.ref, Ended(TurnStatus.REPLIED, "It ran.", ()))
    assert await edge.sent() == ["It ran."]
    assert await edge.claimed() == []


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


async def test_two_hundred_webhooks_at_once_are_all_kept(edge: Edge) -> None:
    """They share few commits."""
    signed = [standard(webhook_id=f"wh_{number}", session=f"s{number % 50}") for number in range(200)]
    answers = await asyncio.gather(*(edge.post(one) for one in signed))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers[MESSAGE] for answer in answers}) == 200
    assert await edge.store.inbox.waiting() == 200
