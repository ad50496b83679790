"""The receiving platform: what it takes, refuses, and scripts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from loadtests.platform import Fault, RunningPlatform, running_platform
from loadtests.program import running_program
from loadtests.signing import sign_standard


@pytest.fixture
def platform() -> Iterator[RunningPlatform]:
    with running_platform() as running:
        yield running


def reply(platform: RunningPlatform, text: str, key: str = "msg_1.0") -> httpx2.Response:
    body = b'{"session":"s1","message":"msg_1","text":"%s","status":"replied"}' % text.encode()
    signed = sign_standard(platform.secrets.standard_secret, key, body, time.time())
    return httpx2.post(platform.url + "/standard", content=signed.body, headers=signed.headers)


def telegram(platform: RunningPlatform, method: str, **body: Any) -> httpx2.Response:
    return httpx2.post(f"{platform.url}/bot{platform.secrets.telegram_bot_token}/{method}", json=body)


def slack(platform: RunningPlatform) -> WebClient:
    return WebClient(token=platform.secrets.slack_bot_token, base_url=platform.url + "/api/")


def test_a_signed_reply_is_recorded_with_its_key_and_time(platform: RunningPlatform) -> None:
    before = time.time()
    assert reply(platform, "hello").status_code == 200
    (received,) = platform.wait(1, "standard", "s1")
    assert (received.text, received.key, received.body["status"]) == ("hello", "msg_1.0", "replied")
    assert before <= received.at <= time.time()


def test_a_wrongly_signed_reply_is_refused(platform: RunningPlatform) -> None:
    signed = sign_standard("whsec_" + "AAAA" * 10, "k", b"{}", time.time())
    assert httpx2.post(platform.url + "/standard", content=b"{}", headers=signed.headers).status_code == 401
    assert platform.refused == 1
    assert platform.received() == []


def test_telegram_answers_as_the_bot_api_does(platform: RunningPlatform) -> None:
    sent = [telegram(platform, "sendMessage", chat_id=5, text=text).json() for text in ("one", "two")]
    assert all(answer["ok"] for answer in sent)
    assert sent[0]["result"]["message_id"] != sent[1]["result"]["message_id"]
    assert telegram(platform, "sendChatAction", chat_id=5, action="typing").json() == {"ok": True, "result": True}
    assert telegram(platform, "getMe").json()["result"]["username"] == "load_bot"
    assert [message.text for message in platform.received("telegram", "5")] == ["one", "two"]
    wrong = httpx2.post(f"{platform.url}/bot1:wrong/sendMessage", json={"chat_id": 5, "text": "x"})
    assert (wrong.status_code, wrong.json()["description"]) == (401, "Unauthorized")


def test_slack_answers_as_the_web_api_does(platform: RunningPlatform) -> None:
    client = slack(platform)
    answer = client.chat_postMessage(channel="C1", text="hi", thread_ts="1.2")
    (received,) = platform.wait(1, "slack", "C1")
    assert answer["ts"] == received.sent_id
    assert received.body["thread_ts"] == "1.2"
    assert client.auth_test()["user_id"] == "U0BOT"
    platform.script("slack", Fault(error="channel_not_found"))
    with pytest.raises(SlackApiError, match="channel_not_found"):
        client.chat_postMessage(channel="C9", text="hi")
    wrong = WebClient(token="xoxb-wrong", base_url=platform.url + "/api/")
    with pytest.raises(SlackApiError, match="invalid_auth"):
        wrong.chat_postMessage(channel="C1", text="hi")


def test_faults_hit_one_request_each_in_the_platforms_own_form(platform: RunningPlatform) -> None:
    platform.script("telegram", Fault(status=429, retry_after_s=7), Fault(error="Bad Request: can't parse entities: x"))
    slowed = telegram(platform, "sendMessage", chat_id=5, text="a")
    assert (slowed.status_code, slowed.headers["retry-after"]) == (429, "7")
    assert slowed.json()["parameters"] == {"retry_after": 7}
    assert "can't parse" in telegram(platform, "sendMessage", chat_id=5, text="b").json()["description"]
    assert telegram(platform, "sendMessage", chat_id=5, text="c").status_code == 200
    assert [message.text for message in platform.received()] == ["c"]


def test_a_reset_may_come_before_or_after_the_reply_was_taken(platform: RunningPlatform) -> None:
    platform.script("standard", Fault(reset=True), Fault(reset=True, taken=True), Fault(status=503, taken=True))
    for text in ("lost", "taken"):
        with pytest.raises(httpx2.TransportError):
            reply(platform, text)
    assert reply(platform, "unsure").status_code == 503
    assert [message.text for message in platform.received()] == ["taken", "unsure"]


def test_a_stalled_request_does_not_hold_up_the_end() -> None:
    errors: list[Exception] = []

    def ask() -> None:
        try:
            reply(stalled, "x")
        except httpx2.TransportError as error:
            errors.append(error)

    with running_platform() as stalled:
        stalled.script("standard", Fault(stall=True))
        waiting = threading.Thread(target=ask)
        waiting.start()
        while not stalled.requests:
            time.sleep(0.001)
        began = time.monotonic()
    waiting.join(5)
    assert time.monotonic() - began < 3
    assert len(errors) == 1


def test_waiting_ends_with_an_error_that_counts(platform: RunningPlatform) -> None:
    reply(platform, "one")
    with pytest.raises(TimeoutError, match="1 of 2 replies"):
        platform.wait(2, within_s=0.05)


async def test_an_async_test_waits_without_blocking(platform: RunningPlatform) -> None:
    reply(platform, "one")
    assert len(await platform.arrived(1)) == 1
    platform.forget()
    assert platform.received() == []


def test_another_process_uses_it_over_http() -> None:
    with running_program("loadtests.platform") as program, httpx2.Client(base_url=program.url) as client:
        assert client.post("/script", json={"telegram": [{"status": 500}]}).status_code == 200
        assert client.post("/script", json={"teletext": []}).status_code == 400
        assert client.post("/script", json={"slack": [{"satus": 500}]}).status_code == 400
        send = "/bot123456:loadtests-bot-token/sendMessage"
        assert client.post(send, json={"chat_id": 1, "text": "a"}).status_code == 500
        assert client.post(send, json={"chat_id": 1, "text": "b"}).status_code == 200
        found = client.get("/replies", params={"count": 1, "platform": "telegram", "within_s": 5}).json()
        assert [row["text"] for row in found["replies"]] == ["b"]
        assert client.get("/replies", params={"count": 2}).status_code == 504
        assert client.get("/stats").json() == {"requests": 2, "refused": 0, "received": {"telegram": 1}}
        client.delete("/replies").raise_for_status()
        assert client.get("/replies").json() == {"replies": []}
