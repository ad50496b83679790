"""Chat commands and places in the queue, over real HTTP into a real store."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loadtests import signing
from loadtests.signing import SignedRequest
from shared.messages import Ended, Reply, TurnStatus, Usage
from shared.texts import ENGLISH, Texts, names_in
from tests.gateway.edge import SECRETS, Edge, running_edge

LET_ALL_IN = {"GATEHOUSE_ALLOW": "*"}
MESSAGE = "x-gatehouse-message"


def standard(text: str, webhook_id: str, session: str = "s1") -> SignedRequest:
    return signing.standard(SECRETS.standard_secret, webhook_id, time.time(), session=session, user="ana", text=text)


def telegram(text: str, update_id: int, chat: int = 5) -> SignedRequest:
    token = SECRETS.telegram_secret_token
    return signing.telegram(token, update_id, time.time(), chat=chat, user=chat, text=text)


async def sent(edge: Edge) -> list[Reply]:
    """Send every reply that is due."""
    replies = []
    while due := (await edge.store.outbox.due("test", 10, 30)).replies:
        for reply in due:
            await edge.store.outbox.delivered(reply, "sent")
            replies.append(reply)
    return replies


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    """An edge that lets everybody in, with room for one turn at a time."""
    async with running_edge(tmp_path, LET_ALL_IN, slots=1) as edge:
        yield edge


async def test_trace_tells_where_the_last_message_is_without_a_turn(edge: Edge) -> None:
    message = (await edge.post(standard("hello", "wh_1"))).headers[MESSAGE]
    (claim,) = await edge.claimed()
    outcome = Ended(TurnStatus.REPLIED, "hi", (), usage=Usage(2, 1, 30, 4, 0), worker="0:77")
    await edge.store.claims.settle(claim.ref, outcome)
    await sent(edge)
    asked = await edge.post(standard("/trace", "wh_2"))
    assert (asked.status_code, asked.json()) == (200, {"ignored": "it starts no turn"})
    (reply,) = await sent(edge)
    first, *rest = reply.text.splitlines()
    assert first.startswith(f"{message}  done  session standard:default:s1")
    assert [line.split()[0] for line in rest] == ["accepted", "claimed", "settled", "reply"]
    assert "2 model calls, 1 tool calls, 30 tokens in, 4 out" in reply.text
    assert "worker 0:77" in reply.text
    assert await edge.claimed() == []


async def test_trace_shows_people_what_went_wrong_and_no_stack(edge: Edge) -> None:
    message = (await edge.post(standard("hello", "wh_1"))).headers[MESSAGE]
    (claim,) = await edge.claimed()
    error = 'Traceback (most recent call last):\n  File "/srv/bot/tools.py", line 7, in run\nValueError: no such order'
    await edge.store.claims.settle(claim.ref, Ended(TurnStatus.FAILED, "sorry", (), worker="0:77", error=error))
    await sent(edge)
    await edge.post(standard("/trace", "wh_2"))
    (reply,) = await sent(edge)
    assert reply.text.splitlines()[-1].split(maxsplit=1) == ["error", "ValueError: no such order"]
    assert "tools.py" not in reply.text
    assert (await edge.store.inbox.trace(message)).error == error


async def test_a_redelivered_command_is_answered_once(edge: Edge) -> None:
    for _ in range(3):
        assert (await edge.post(standard("/help", "wh_1"))).status_code == 200
    (reply,) = await sent(edge)
    names = ["/new", "/stop", "/retry", "/undo", "/approve", "/deny", "/todo", "/status", "/trace", "/help"]
    assert [line.split(":")[0] for line in reply.text.splitlines()] == names


async def test_only_a_message_of_the_same_conversation_is_traced(edge: Edge) -> None:
    other = (await edge.post(standard("hello", "wh_1", session="theirs"))).headers[MESSAGE]
    mine = (await edge.post(standard("hello", "wh_2"))).headers[MESSAGE]
    for number, words in enumerate((f"/trace {other}", "/trace msg_none", f"/TRACE {mine}")):
        await edge.post(standard(words, f"wh_trace_{number}"))
    refused, unknown, shown = (reply.text for reply in await sent(edge))
    assert refused == f"There is no message {other} here."
    assert unknown == "There is no message msg_none here."
    assert shown.startswith(f"{mine}  waiting")


@pytest.mark.parametrize("text", ["/trace it back please", "what is /trace", "/nonsense", "/help me", "/" * 5000])
async def test_what_is_not_exactly_a_command_goes_to_the_agent(edge: Edge, text: str) -> None:
    assert MESSAGE in (await edge.post(standard(text, "wh_1"))).headers
    (claim,) = await edge.claimed()
    assert claim.messages[0].text == text


async def test_status_tells_what_the_conversation_does(edge: Edge) -> None:
    await edge.post(standard("/status", "wh_1"))
    await edge.post(standard("one", "wh_2"))
    await edge.post(standard("two", "wh_3"))
    await edge.post(standard("/status", "wh_4"))
    assert [reply.text for reply in await sent(edge)] == [
        "Nothing has been said here yet.",
        "Status: waiting for a worker; 1 more message waits.",
    ]


async def test_a_person_who_has_to_wait_is_told_the_place_once(edge: Edge) -> None:
    for number in range(4):
        assert MESSAGE in (await edge.post(telegram("hi", number, chat=number + 1))).headers
    for number in (10, 10, 11):
        assert MESSAGE in (await edge.post(telegram("and?", number, chat=4))).headers
    assert MESSAGE in (await edge.post(standard("hi", "wh_1"))).headers
    replies = await sent(edge)
    assert [(reply.session, reply.text) for reply in replies] == [
        ("telegram:" + claimed_account() + ":4", "You are number 4 in the queue.")
    ]


def claimed_account() -> str:
    """The bot's id, the account part of its session keys."""
    return SECRETS.telegram_bot_token.partition(":")[0]


async def test_an_answer_to_a_question_is_an_order_that_names_it(edge: Edge) -> None:
    """As the buttons under it say; the agent never reads it."""
    for number, text in enumerate(("/approve 0123456789abcdef", "/deny 0123456789abcdef")):
        await edge.post(telegram(text, number + 1))
    assert [reply.text for reply in await sent(edge)] == [ENGLISH.not_asked] * 2
    assert await edge.claimed() == []


async def test_all_that_is_said_is_said_in_the_language_of_the_settings(tmp_path: Path) -> None:
    """In one whose every text is a sign and what is filled in, no English word is left."""
    filled = {
        field: "§" + "".join(f" {{{name}}}" for name in sorted(names_in(getattr(ENGLISH, field))))
        for field in Texts.__struct_fields__
    }
    config = tmp_path / "gatehouse.toml"
    config.write_text("[languages.signs]\n" + "\n".join(f'{name} = "{text}"' for name, text in filled.items()), "utf-8")
    settings = {"GATEHOUSE_CONFIG": str(config), "GATEHOUSE_LANGUAGE": "signs", "GATEHOUSE_USER_RATE": "9/minute"}
    texts = []
    async with running_edge(tmp_path / "a", {**LET_ALL_IN, **settings}, slots=1) as edge:
        await edge.post(telegram("hello", 1))
        (claim,) = await edge.claimed()
        asked = ("/help", "/status", "/trace", "/trace msg_no", "/todo")
        for number, text in enumerate(asked, 2):
            await edge.post(telegram(text, number))
        texts += [reply.text for reply in await sent(edge)]
        await edge.store.claims.settle(claim.ref, Ended(TurnStatus.REPLIED, "§ hi", ()))
        await edge.post(telegram("/undo", 8))
        for number in range(10, 16):
            await edge.post(telegram("more", number))
        texts += [reply.text for reply in await sent(edge)]
    async with running_edge(tmp_path / "b", settings) as edge:
        await edge.post(telegram("hello", 1))
        texts += [reply.text for reply in await sent(edge)]
        (code,) = [code for _, code in await edge.store.sessions.strangers()]
        await edge.pairings.approve(code)
        texts += [reply.text for reply in await sent(edge)]
    assert len(texts) >= 9
    known = "/new /stop /retry /undo /approve /deny /todo /status /trace /help".split()
    lines = [line for text in texts for line in text.splitlines()]
    assert all(line.startswith(("§", *known)) for line in lines)
    assert not [line for line in lines if re.search(r"\b(message|model|waits?|attempts|steps?|working)\b", line)]
