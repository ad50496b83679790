"""Whose events are taken: what is said in threads, how much one may send, and who is turned away how."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from gateway.inbound_events import COMMAND_RATE
from gateway.sender_rates import SenderRates
from loadtests import signing
from loadtests.signing import SignedRequest
from shared.errors import SettingsError
from shared.messages import Ended, TurnStatus
from shared.platform_settings import SenderRate
from shared.settings import parse_settings
from shared.texts import ENGLISH
from tests.gateway.edge import LET_ALL_IN, SECRETS, Edge, running_edge, slack, standard, telegram
from tests.gateway.platforms.fixtures import discord
from tests.gateway.platforms.fixtures import slack as slack_fixture

MESSAGE = "x-gatehouse-message"


def threaded(number: int, text: str, thread: str = "1.5", **more: Any) -> SignedRequest:
    """A message of a thread in a channel, in which nobody names the bot unless the text does."""
    event = {"channel": "C1", "channel_type": "channel", "text": text, "ts": f"{number}.9", "thread_ts": thread, **more}
    body = msgspec.json.decode(slack_fixture.envelope(**event)) | {"event_id": f"Ev{number}"}
    return signing.sign_slack(SECRETS.slack_signing_secret, msgspec.json.encode(body), time.time())


@pytest.mark.parametrize(("setting", "answered"), [("", False), ("telegram", False), ("slack", True), ("*", True)])
async def test_a_thread_that_the_agent_is_in_is_answered_where_it_is_wanted(
    tmp_path: Path, setting: str, answered: bool
) -> None:
    """From the first mention on, each thread for itself; a bot's words never are."""
    async with running_edge(tmp_path, {**LET_ALL_IN, "GATEHOUSE_ANSWER_THREADS": setting}) as edge:
        assert MESSAGE not in (await edge.post(threaded(1, "lunch?"))).headers
        assert MESSAGE in (await edge.post(threaded(2, "<@U0BOT> hi"))).headers
        assert (MESSAGE in (await edge.post(threaded(3, "and now?"))).headers) is answered
        assert MESSAGE not in (await edge.post(threaded(4, "elsewhere", thread="7.5"))).headers
        assert MESSAGE not in (await edge.post(threaded(5, "beep", bot_id="B1"))).headers
        (claim,) = await edge.claimed()
        assert claim.ref.session == "slack:T1:C1:1.5"


async def test_a_guest_in_a_thread_who_does_not_speak_to_the_agent_is_told_nothing(tmp_path: Path) -> None:
    async with running_edge(tmp_path, {"GATEHOUSE_ANSWER_THREADS": "*"}) as edge:
        await edge.post(threaded(1, "<@U0BOT> hi"))
        assert MESSAGE not in (await edge.post(threaded(2, "what is that?", user="U9", user_team="T9"))).headers
        assert await edge.sent() == []
        assert MESSAGE not in (await edge.post(threaded(3, "<@U0BOT> hi", user="U9", user_team="T9"))).headers
        assert len(await edge.sent()) == 1


async def test_a_button_is_pressed_by_those_alone_who_may_talk(tmp_path: Path) -> None:
    async with running_edge(tmp_path, {"GATEHOUSE_ALLOW": "telegram:5"}) as edge:
        for user, may in ((6, False), (5, True)):
            message = {"message_id": 9, "chat": {"id": -5, "type": "group"}, "from": {"id": 777, "is_bot": True}}
            query = {"id": "77", "from": {"id": user}, "data": "/approve 0123456789abcdef", "message": message}
            body = msgspec.json.encode({"update_id": user, "callback_query": query})
            pressed = msgspec.structs.replace(telegram("hi", 1), body=body)
            assert (MESSAGE in (await edge.post(pressed)).headers) is may


async def test_a_sender_who_sends_too_many_is_told_once_and_may_always_stop(tmp_path: Path) -> None:
    async with running_edge(tmp_path, {**LET_ALL_IN, "GATEHOUSE_USER_RATE": "3/minute"}) as edge:
        for number in range(3):
            assert MESSAGE in (await edge.post(telegram(f"{number}", update_id=number))).headers
        known = (await edge.post(telegram("2", update_id=2))).headers[MESSAGE]
        for number in range(3, 9):
            answer = await edge.post(telegram(f"{number}", update_id=number))
            assert (answer.status_code, MESSAGE in answer.headers) == (200, False)
        assert (await edge.post(telegram("2", update_id=2))).headers[MESSAGE] == known
        (told,) = await edge.sent()
        assert told.startswith("I take 3 messages of yours within a minute. Please send this one again in ")
        assert MESSAGE in (await edge.post(telegram("/stop", update_id=10))).headers
        assert MESSAGE in (await edge.post(slack())).headers
        assert await edge.store.inbox.waiting() == 4


async def test_commands_of_one_sender_are_bounded_and_stops_apart_from_the_others(tmp_path: Path) -> None:
    """Each has an answer at once: a thousand would take the rate of the platform from everybody else's answers."""
    async with running_edge(tmp_path, LET_ALL_IN) as edge:
        for number in range(COMMAND_RATE.count + 20):
            command = ("/todo", "/help", "/new")[number % 3]
            assert (await edge.post(telegram(command, update_id=number))).status_code == 200
        answers = await edge.sent()
        assert len(answers) == COMMAND_RATE.count + 1
        assert sum(answer.startswith("I take 60 messages of yours within a minute.") for answer in answers) == 1
        assert MESSAGE in (await edge.post(telegram("/stop", update_id=1000))).headers
        assert MESSAGE in (await edge.post(telegram("hello", update_id=1001))).headers


async def test_a_program_that_sends_too_much_reads_a_429_and_may_come_again(tmp_path: Path) -> None:
    async with running_edge(tmp_path, {"GATEHOUSE_USER_RATE": "1/hour"}) as edge:
        assert (await edge.post(standard())).status_code == 200
        assert (await edge.post(standard())).status_code == 200
        answer = await edge.post(standard(webhook_id="wh_2"))
        assert answer.status_code == 429
        assert 3590 < int(answer.headers["retry-after"]) <= 3601


def test_a_redelivery_uses_nothing_of_the_rate_and_time_gives_it_back() -> None:
    now = [0.0]
    rates = SenderRates(SenderRate(2, 60.0, "a minute"), lambda: now[0])
    assert [rates.take("a"), rates.take("a"), rates.take("b")] == [0.0, 0.0, 0.0]
    rates.give_back("a")
    assert rates.take("a") == 0.0
    now[0] = 15.0
    assert rates.take("a") == 45.0
    assert [rates.is_to_be_told("a"), rates.is_to_be_told("a"), rates.is_to_be_told("b")] == [True, False, True]
    now[0] = 76.0
    assert rates.take("a") == 0.0
    assert rates.is_to_be_told("a")


@pytest.mark.parametrize("text", ["0/minute", "x", "5/week", "5", "-1/hour", "1.5/day"])
def test_a_rate_that_is_none_stops_the_start(text: str) -> None:
    with pytest.raises(SettingsError, match="GATEHOUSE_USER_RATE"):
        parse_settings({"GATEHOUSE_USER_RATE": text})
    with pytest.raises(SettingsError, match="GATEHOUSE_ANSWER_THREADS"):
        parse_settings({"GATEHOUSE_ANSWER_THREADS": text})


@contextlib.asynccontextmanager
async def with_discord(tmp_path: Path, environment: dict[str, str]) -> AsyncIterator[tuple[Edge, Any]]:
    adapter = discord.fixture().adapter
    async with running_edge(tmp_path, environment, more_platforms={"discord": adapter}) as edge:

        async def ask(text: str, number: int) -> httpx2.Response:
            body = msgspec.json.decode(discord.fixture().direct(text)) | {"id": f"{number}", "token": f"token{number}"}
            signed = discord.sign(msgspec.json.encode(body), time.time())
            return await edge.client.post("/webhooks/discord", content=signed.raw, headers=dict(signed.headers))

        yield edge, ask


async def test_nobody_who_is_turned_away_on_discord_is_left_with_thinking(tmp_path: Path) -> None:
    """A stranger reads the code every time, who is not listed that, who sends too many when to come again."""
    async with with_discord(tmp_path / "a", {}) as (edge, ask):
        told = [(await ask("hi", number)).json() for number in range(2)]
        ((_, code),) = await edge.store.sessions.strangers()
        assert [one["type"] for one in told] == [4, 4]
        assert all(one["data"]["content"].endswith(code) and one["data"]["flags"] == 64 for one in told)
        assert await edge.sent() == []
        await edge.pairings.approve(code)
        (claim,) = await edge.claimed()
        assert [message.text for message in claim.messages] == ["hi"]
        await edge.store.claims.settle(claim.ref, Ended(TurnStatus.REPLIED, "hello", ()))
        assert (await ask("again", 7)).json() == {"type": 5}
    async with with_discord(tmp_path / "b", {"GATEHOUSE_ALLOW": "slack:*"}) as (edge, ask):
        answer = (await ask("hi", 1)).json()
        assert (answer["type"], "may not" in answer["data"]["content"]) == (4, True)
    async with with_discord(tmp_path / "c", {**LET_ALL_IN, "GATEHOUSE_USER_RATE": "1/minute"}) as (edge, ask):
        kinds = [(await ask("hi", number)).json()["type"] for number in (1, 2, 3)]
        assert kinds == [5, 4, 4]
        assert await edge.sent() == []


@pytest.mark.parametrize("mode", [{"GATEHOUSE_WHEN_BUSY": "steer"}, {"GATEHOUSE_GATHER": "30"}])
async def test_who_shares_another_s_answer_on_discord_is_not_left_with_thinking(
    tmp_path: Path, mode: dict[str, str]
) -> None:
    """The first message waits for its answer; the next ones end with a word, each in its own place."""
    async with with_discord(tmp_path, {**LET_ALL_IN, **mode}) as (edge, ask):
        assert (await ask("hi", 1)).json() == {"type": 5}
        if "GATEHOUSE_WHEN_BUSY" in mode:
            await edge.claimed()
        assert await edge.sent() == []
        for number in (2, 3):
            assert (await ask("and this", number)).json() == {"type": 5}
            (due,) = (await edge.store.outbox.due("test", 10, 30)).replies
            assert (due.text, f"token{number}".encode() in due.address) == (ENGLISH.shared, True)
            await edge.store.outbox.delivered(due, "sent")


async def test_the_files_of_a_stranger_s_first_message_wait_with_it(tmp_path: Path) -> None:
    async with running_edge(tmp_path) as edge:
        message = msgspec.json.decode(telegram().body)["message"]
        photo = [{"file_id": "small", "file_size": 10}, {"file_id": "large", "file_size": 90}]
        del message["text"]
        update = {"update_id": 3, "message": {**message, "photo": photo, "caption": "what is this?"}}
        await edge.post(signing.sign_telegram(SECRETS.telegram_secret_token, update))
        ((_, code),) = await edge.store.sessions.strangers()
        await edge.pairings.approve(code)
        (claim,) = await edge.claimed()
        (pending,) = claim.messages
        assert pending.text == "what is this?\n(attached: photo)"
        assert [file.size_bytes for file in pending.attachments] == [90]


async def test_what_the_product_itself_says_is_in_the_language_of_its_people(tmp_path: Path) -> None:
    async with running_edge(tmp_path, {"GATEHOUSE_LANGUAGE": "de"}) as edge:
        await edge.post(telegram())
        (told,) = await edge.sent()
        assert told.startswith("Hallo!")
        await edge.pairings.approve(told.split()[-1])
        assert await edge.sent() == ["Du bist freigeschaltet: wir können reden."]
        await edge.post(telegram("/new", update_id=8))
        await edge.post(telegram("/help", update_id=9))
        assert "/stop: abbrechen, was ich gerade tue" in "".join(await edge.sent())
