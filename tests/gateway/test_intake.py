"""What messages and commands ask of a busy session, from every platform, over real HTTP into a real store."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlencode

import pytest

from loadtests import signing
from loadtests.signing import SignedRequest
from shared.events import Event
from shared.messages import Ended, MessageState, TurnStatus
from tests.gateway.edge import LET_ALL_IN, SECRETS, Edge, running_edge, slack, standard

Signs = Callable[[str], SignedRequest]

MESSAGE = "x-gatehouse-message"
NUMBERS = itertools.count(1000)
MODES = {"GATEHOUSE_WHEN_BUSY": "reject, slack=steer, telegram=interrupt, standard:default:patient=enqueue"}


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    async with running_edge(tmp_path, LET_ALL_IN | MODES) as edge:
        yield edge


def direct(text: str) -> SignedRequest:
    """Slack, written to the bot alone."""
    number = next(NUMBERS)
    return slack(text, event_id=f"Ev{number}", ts=f"{number}.5")


def slash(text: str) -> SignedRequest:
    """The same conversation, by a slash command of Slack's."""
    command, _, words = text.partition(" ")
    form = {"team_id": "T0LOAD", "channel_id": "D1", "user_id": "U1", "command": command, "text": words}
    body = urlencode(form | {"trigger_id": f"{next(NUMBERS)}.1"}).encode()
    return signing.sign_slack(SECRETS.slack_signing_secret, body, time.time(), "application/x-www-form-urlencoded")


def mention(text: str) -> SignedRequest:
    """A thread of a channel, where the bot is named."""
    number = next(NUMBERS)
    return signing.slack(
        SECRETS.slack_signing_secret, f"Ev{number}", time.time(), channel="C1", user="U1", text=text,
        ts=f"{number}.5", thread_ts="7.5",
    )  # fmt: skip


def group(text: str) -> SignedRequest:
    """A Telegram group, where a command names the bot it is for."""
    number = next(NUMBERS)
    text = f"{text}@gatehouse_bot" if text.startswith("/") else f"@gatehouse_bot {text}"
    kind = "bot_command" if text.startswith("/") else "mention"
    message = {
        "message_id": number, "date": 1, "chat": {"id": -9, "type": "group"}, "text": text,
        "from": {"id": 5, "is_bot": False},
        "entities": [{"type": kind, "offset": 0, "length": len(text.split()[0])}],
    }  # fmt: skip
    return signing.sign_telegram(SECRETS.telegram_secret_token, {"update_id": number, "message": message})


def telegram(text: str, chat: int = 5) -> SignedRequest:
    token = SECRETS.telegram_secret_token
    return signing.telegram(token, next(NUMBERS), time.time(), chat=chat, user=chat, text=text)


def plain(text: str, session: str = "s1") -> SignedRequest:
    return standard(text, f"wh_{next(NUMBERS)}", session)


WAYS = [(direct, direct), (direct, slash), (mention, mention), (group, group), (telegram, telegram), (plain, plain)]


@pytest.mark.parametrize(("say", "order"), WAYS, ids=lambda way: getattr(way, "__name__", ""))
async def test_stop_reaches_the_running_turn_from_every_platform(edge: Edge, say: Signs, order: Signs) -> None:
    message = (await edge.post(say("hello"))).headers[MESSAGE]
    (claim,) = await edge.claimed()
    stop = order("/stop")
    answers = [await edge.post(stop) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {200}
    assert edge.turn_control.stopped == [message]
    assert len({answer.headers[MESSAGE] for answer in answers}) == 1
    await edge.store.claims.settle(claim.ref, Ended(TurnStatus.INTERRUPTED, "Stopped.", (b"{}",)))
    assert sorted(await edge.sent()) == ["I stop what I was doing.", "Stopped."]


@pytest.mark.parametrize("order", [slash, mention, group, telegram, plain])
async def test_every_command_is_answered_on_every_platform(edge: Edge, order: Signs) -> None:
    for text in ("/new", "/stop", "/retry", "/undo", "/todo", "/status", "/trace", "/help"):
        assert (await edge.post(order(text))).status_code == 200
        assert await edge.claimed() == []
        (told,) = await edge.sent()
        assert told


async def test_a_bots_greeting_is_answered_with_help(edge: Edge) -> None:
    await edge.post(telegram("/start"))
    await edge.post(telegram("/start from_a_link"))
    assert [told.splitlines()[0] for told in await edge.sent()] == [
        "/new: begin a new conversation; the todo list stays"
    ] * 2


async def test_a_platforms_mode_holds_for_its_messages(edge: Edge) -> None:
    first = {}
    for name, say in (("slack", direct), ("telegram", telegram), ("standard", plain)):
        first[name] = (await edge.post(say("one"))).headers[MESSAGE]
    await edge.claimed()
    second = {}
    for name, say in (("slack", direct), ("telegram", telegram), ("standard", plain)):
        second[name] = (await edge.post(say("two"))).headers[MESSAGE]
    assert edge.turn_control.stopped == [first["telegram"]]
    assert edge.turn_control.steered == ["slack:T0LOAD:D1"]
    states = {name: (await edge.store.inbox.trace(message)).state for name, message in second.items()}
    waits = MessageState.WAITING
    assert states == {"slack": waits, "telegram": waits, "standard": MessageState.REJECTED}
    assert await edge.sent() == ["I am still working on an earlier message. Please send this one again later."]
    assert edge.events.counts[Event.MESSAGE_REJECTED] == 1


async def test_a_sessions_own_mode_goes_before_its_platforms(edge: Edge) -> None:
    for text in ("one", "two"):
        await edge.post(plain(text, "patient"))
    assert await edge.store.inbox.waiting() == 2
    assert await edge.sent() == []


async def test_todo_shows_the_list_of_the_turn_that_runs(edge: Edge) -> None:
    await edge.post(plain("hello"))
    (claim,) = await edge.claimed()
    edge.turn_control.todos["standard:default:s1"] = b'[{"id":"1","content":"now","status":"in_progress"}]'
    await edge.post(plain("/todo"))
    edge.turn_control.todos.clear()
    todo = b'[{"id":"1","content":"then","status":"completed"},{"id":"2","content":"a\\nb"}]'
    await edge.store.claims.settle(claim.ref, Ended(TurnStatus.REPLIED, "", (b"{}",), todo))
    await edge.post(plain("/todo"))
    assert await edge.sent() == ["Todo, 0 of 1 done:\n▶ now", "Todo, 1 of 2 done:\n☑ then\n☐ a b"]


async def test_fragments_wait_for_the_quiet_and_commands_do_not(tmp_path: Path) -> None:
    async with running_edge(tmp_path, LET_ALL_IN | {"GATEHOUSE_GATHER": "60"}) as edge:
        for text in ("buy", "milk"):
            await edge.post(plain(text))
        assert await edge.claimed() == []
        await edge.post(plain("/stop"))
        (claim,) = await edge.claimed()
        assert [message.text for message in claim.messages] == ["buy", "milk"]
        assert claim.messages[0].stop == "Stopped."
