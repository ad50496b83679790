"""Budgets from webhook to reply: who is over is told and can come back, and no kill loses or doubles what was spent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from loadtests.platform import RunningPlatform, running_platform
from loadtests.provider import RunningProvider, running_provider
from tests.e2e.bot import Bot
from tests.e2e.conftest import started

PRICED = {"GATEHOUSE_PRICES": "openai:scripted=1000/1000", "GATEHOUSE_TOOLS": "tests.e2e.hostile_tools"}


def budgets(bot: Bot) -> dict[str, dict[str, Any]]:
    return {row["budget"]: row for row in bot.gateway.get("/v1/budgets")["budgets"]}


def answer(bot: Bot, session: str, text: str) -> str:
    """Say something and return what comes back."""
    before = len(bot.replies(session))
    message = bot.say(session, text)
    assert message.status_code == 200
    bot.wait_until(lambda: len(bot.replies(session)) > before, 30, f"a reply in {session}")
    return bot.replies(session)[-1].text


def usage(bot: Bot, session: str) -> dict[str, Any]:
    found: dict[str, Any] = bot.gateway.get(f"/v1/sessions/{quote(f'standard:default:{session}', safe='')}")["usage"]
    return found


@pytest.fixture(scope="module")
def bounded_bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    limits = {
        "GATEHOUSE_SESSION_BUDGET": "500",
        "GATEHOUSE_USER_BUDGET": "6000",
        "GATEHOUSE_HOUR_BUDGET": "$1000000",
    }
    directory = tmp_path_factory.mktemp("bounded")
    with (
        running_platform() as platform,
        running_provider() as provider,
        started(directory, platform, provider, **PRICED, **limits) as bot,
    ):
        yield bot


def test_who_is_over_budget_is_told_and_goes_on_with_a_new_conversation(bounded_bot: Bot) -> None:
    bot = bounded_bot
    began = budgets(bot)
    long = "word " * 300
    assert "word" in answer(bot, "talk", long)
    message = bot.say("talk", "more")
    bot.wait_until(lambda: len(bot.replies("talk")) == 2, 30, "the second reply")
    told = bot.replies("talk")[-1]
    assert told.text == "This conversation has used up its budget of 500 tokens. Send /new to begin a new one."
    assert told.status == "failed"
    found = bot.gateway.get(f"/v1/messages/{message.headers['x-gatehouse-message']}")
    assert (found["state"], found["usage"]["model_calls"]) == ("done", 0)
    assert "GATEHOUSE_SESSION_BUDGET" in found["error"]
    answer(bot, "talk", "/new")
    assert "again" in answer(bot, "talk", "again")
    used = usage(bot, "talk")
    assert used["cost"] == pytest.approx((used["input_tokens"] + used["output_tokens"]) / 1000)
    board = budgets(bot)
    if board["hour"]["free_at"] == began["hour"]["free_at"]:
        assert board["hour"]["spent"] == [{"by": "", "amount": pytest.approx(used["cost"])}]
    assert board["session"]["limit"] == 500
    assert board["hour"]["held"] == 0
    metrics = bot.gateway.ask("GET", "/metrics").text
    assert 'gatehouse_messages_total{outcome="over_budget",platform="standard"} 1.0' in metrics
    assert 'gatehouse_budget_limit{budget="session",unit="tokens"} 500.0' in metrics


def test_a_call_that_is_stopped_before_its_first_byte_counts_against_the_budget(bounded_bot: Bot) -> None:
    bot = bounded_bot
    bot.say("stopped", "[[stall]] " + "word " * 500)
    bot.wait_for_running_model_call()
    bot.say("stopped", "/stop")
    bot.wait_until(lambda: len(bot.replies("stopped")) == 2, 30, "the turn's end and the command's answer")
    used = usage(bot, "stopped")
    assert (used["model_calls"], used["estimated_calls"]) == (1, 1)
    assert 600 < used["input_tokens"] < 2000
    assert used["cost"] == pytest.approx((used["input_tokens"] + used["output_tokens"]) / 1000)
    assert "has used up its budget of 500 tokens" in answer(bot, "stopped", "more")
    assert budgets(bot)["hour"]["held"] == 0


def test_the_api_answers_429_once_a_budget_is_used_up(bounded_bot: Bot) -> None:
    body = {"model": "gatehouse", "messages": [{"role": "user", "content": "word " * 5000}]}
    path = "/v1/chat/completions"
    assert bounded_bot.gateway.ask("POST", path, json=body).status_code == 200
    refused = bounded_bot.gateway.ask("POST", path, json=body)
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["code"], error["type"]) == ("over_budget", "insufficient_quota")
    assert "for this day. Please come back at 00:00 UTC" in error["message"]
    assert refused.headers["x-should-retry"] == "false"


def test_a_kill_of_the_whole_tree_neither_loses_nor_doubles_what_was_spent(
    tmp_path: Path, platform: RunningPlatform, provider: RunningProvider
) -> None:
    with started(tmp_path, platform, provider, **PRICED, GATEHOUSE_USER_BUDGET="300000") as bot:
        text = "[[tool todo {}]] [[then]] [[tool todo {}]] [[then]] [[sleep 1]] [[say done]]"
        count = 12
        for number in range(count):
            assert bot.say(f"s{number}", text).status_code == 200
        bot.wait_for_model_calls(2 * count)
        assert budgets(bot)["user"]["held"] > 0
        bot.gateway.kill_tree()
        bot.gateway.start()
        bot.wait_for_replies(count, within_s=60)
        used = [usage(bot, f"s{number}") for number in range(count)]
        assert [row["model_calls"] for row in used] == [3] * count
        board = budgets(bot)["user"]
        assert board["held"] == 0
        assert [row["amount"] for row in board["spent"]] == [
            sum(row["input_tokens"] + row["output_tokens"] for row in used)
        ]
