"""Conversations that outgrow the model's window: summarized once, kept whole, and right after every kill."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import apsw
import httpx2
import pytest

from loadtests.platform import RunningPlatform, running_platform
from loadtests.provider import RunningProvider, running_provider
from tests.e2e.bot import Bot
from tests.e2e.command_line import port_of, run_command
from tests.e2e.conftest import started
from tests.gateway.cli.test_session_export import talk
from worker.agent.context.prompts import HEAD, INSTRUCTION

SMALL = {"GATEHOUSE_CONTEXT_TOKENS": "1000", "GATEHOUSE_WORKERS": "1"}


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    with running_provider() as running:
        yield running


@pytest.fixture(scope="module")
def small_bot(tmp_path_factory: pytest.TempPathFactory, provider: RunningProvider) -> Iterator[Bot]:
    """A gateway whose model is shown a thousand tokens."""
    directory = tmp_path_factory.mktemp("small")
    with running_platform() as platform, started(directory, platform, provider, **SMALL) as running:
        yield running


def path_of(session: str, action: str = "") -> str:
    return f"/v1/sessions/{quote(f'standard:default:{session}', safe='')}{action}"


def summaries_asked(provider: RunningProvider, about: str) -> int:
    asked = [request.json()["messages"] for request in provider.requests]
    return sum(system["content"] == INSTRUCTION and about in told["content"] for system, told, *_ in asked)


def wait_for_reply(bot: Bot, session: str, count: int) -> str:
    bot.wait_until(lambda: len(bot.replies(session)) == count, 60, f"{count} replies in {session}")
    return bot.replies(session)[-1].text


def kept(bot: Bot, session: str) -> bool:
    """Whether a summary of the session is committed."""
    database = str(bot.gateway.data_dir / "gatehouse.db")
    with contextlib.closing(apsw.Connection(database, apsw.SQLITE_OPEN_READONLY)) as db:
        found = db.execute("SELECT covers FROM summaries WHERE session_key = ?", (f"standard:default:{session}",))
        return bool(found.fetchall())


@pytest.mark.parametrize("kill", ["worker", "tree"])
def test_a_summary_outlives_the_kill_of_who_made_it_and_is_paid_for_once(
    small_bot: Bot, provider: RunningProvider, kill: str
) -> None:
    small_bot.say(kill, f"first {kill} " + "x" * 1500)
    wait_for_reply(small_bot, kill, 1)
    small_bot.say(kill, f"[[sleep 3 times=1]] second {kill} " + "y" * 1500)
    small_bot.wait_until(lambda: summaries_asked(provider, kill) == 1 and provider.running == 1, 20, "it answers")
    small_bot.wait_until(lambda: provider.requests[-1].asked.text.startswith("[[sleep"), 20, "the turn goes on")
    small_bot.wait_until(lambda: kept(small_bot, kill), 20, "the summary is committed")
    asked = provider.requests[-1]
    assert asked.json()["messages"][1]["content"].startswith(HEAD)
    if kill == "worker":
        os.kill(small_bot.gateway.worker_pids()[0], signal.SIGKILL)
    else:
        small_bot.gateway.kill_tree()
        small_bot.gateway.start()
    wait_for_reply(small_bot, kill, 2)
    assert summaries_asked(provider, kill) == 1
    assert provider.requests[-1].body == asked.body  # a provider's prompt cache holds over the kill
    history = small_bot.gateway.get(path_of(kill))["messages"]
    assert [message["role"] for message in history] == ["user", "assistant"] * 2
    assert history[0]["content"].startswith("first")


def test_an_interrupt_while_it_summarizes_ends_the_turn_at_once(small_bot: Bot, provider: RunningProvider) -> None:
    small_bot.say("stopped", "[[say [[stall]] " + "x" * 2000)  # the reply is a directive to whoever summarizes it
    wait_for_reply(small_bot, "stopped", 1)
    small_bot.say("stopped", "y" * 2200)
    small_bot.wait_until(lambda: summaries_asked(provider, "[[stall") == 1 and provider.running == 1, 20, "it asks")
    asked_at = time.monotonic()
    assert small_bot.gateway.ask("POST", path_of("stopped", "/interrupt")).json()["interrupted"]
    assert wait_for_reply(small_bot, "stopped", 2) == "Stopped."
    assert time.monotonic() - asked_at < 10  # it would have stalled for a minute
    provider.wait_until(lambda now: now.running == 0)
    small_bot.say("stopped", "go on")
    small_bot.wait_until(lambda: summaries_asked(provider, "[[stall") == 2, 20, "it summarizes again")


def test_a_long_chat_without_a_key_goes_on_for_ever_and_is_taken_out_whole(
    tmp_path: Path, platform: RunningPlatform
) -> None:
    with (
        started(tmp_path, platform, None, **SMALL) as bot,
        httpx2.Client(base_url=bot.gateway.url, headers=bot.gateway.headers, timeout=30) as web,
    ):
        texts = ["add buy milk", *(f"{number} " + "chat " * 120 for number in range(12)), "add call Ann", "done 1"]
        session = talk(web, "chatty", *texts)
        answer = web.get(f"/v1/sessions/{quote(session, safe='')}").json()
        bot.gateway.wait_for("context_compacted", 2)
        assert bot.gateway.events("context_cut") == []
        said = [message["content"] for message in answer["messages"] if message["role"] == "user"]
        assert said == texts
        replies = [message["content"] for message in answer["messages"] if message["role"] == "assistant"]
        assert [text for text in replies if text and text.startswith("You said")] == [
            f"You said: {text}".strip() for text in texts[1:-2]
        ]
        assert [(todo["content"], todo["status"]) for todo in answer["todos"]] == [
            ("buy milk", "completed"),
            ("call Ann", "pending"),
        ]
        exported = run_command(tmp_path, "export", session, port=port_of(bot.gateway))
        assert json.loads(exported.stdout)["messages"] == answer["messages"]
        replayed = run_command(tmp_path, "replay", session, port=port_of(bot.gateway))
        assert (replayed.returncode, replayed.stdout) == (0, f"{len(texts)} turns replayed: no difference\n")
