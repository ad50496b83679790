"""SIGKILL in the middle of a step with three tool calls: finished ones run once, and the model is asked once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from loadtests.platform import RunningPlatform
from loadtests.provider import RunningProvider
from tests.e2e.bot import Bot
from tests.e2e.conftest import started

Kill = Callable[[Bot], None]


@pytest.fixture
def careful_bot(tmp_path: Path, platform: RunningPlatform, provider: RunningProvider) -> Iterator[Bot]:
    """A gateway with one worker, whose tools leave a trace of every run."""
    settings = {"GATEHOUSE_TOOLS": "tests.e2e.careful_tools", "GATEHOUSE_WORKERS": "1"}
    with started(tmp_path, platform, provider, **settings) as running:
        yield running


def kill_worker(bot: Bot) -> None:
    os.kill(bot.gateway.worker_pids()[0], signal.SIGKILL)


def kill_tree(bot: Bot) -> None:
    bot.gateway.kill_tree()
    bot.gateway.start()


def call(name: str, **arguments: object) -> str:
    return f"[[tool {name} {json.dumps(arguments)}]]"


def runs(path: Path) -> list[str]:
    """The idempotency keys a tool ran under, once a run."""
    return path.read_text().splitlines() if path.exists() else []


def journaled(directory: Path) -> int:
    """How many results of tool calls are committed."""
    with contextlib.closing(apsw.Connection(str(directory / "gatehouse.db"), apsw.SQLITE_OPEN_READONLY)) as db:
        return len(db.execute("SELECT call_id FROM tool_calls WHERE result IS NOT NULL").fetchall())


def tool_results(provider: RunningProvider) -> dict[str, str]:
    """What the model was last told of each tool, by the tool's name."""
    messages: list[dict[str, Any]] = provider.requests[-1].json()["messages"]
    return {message["name"]: message["content"] for message in messages if message["role"] == "tool"}


@pytest.mark.parametrize("kill", [kill_worker, kill_tree])
def test_only_the_call_that_was_running_runs_again_and_under_its_key(
    careful_bot: Bot, provider: RunningProvider, tmp_path: Path, kill: Kill
) -> None:
    one, two, slow = (tmp_path / name for name in ("one", "two", "slow"))
    calls = call("write_down", path=str(one)) + call("write_down", path=str(two))
    calls += call("write_down_slowly", path=str(slow), seconds=2)
    assert careful_bot.say("step", calls).status_code == 200
    careful_bot.wait_until(lambda: journaled(tmp_path) == 2, 30, "two results")
    careful_bot.wait_until(lambda: len(runs(slow)) == 1, 30, "the third tool runs")
    kill(careful_bot)
    careful_bot.wait_for_replies(1, within_s=60)
    assert len(runs(one)) == len(runs(two)) == 1
    first, again = runs(slow)
    assert first == again
    assert len({first, *runs(one), *runs(two)}) == 3
    asked = [request for request in provider.requests if request.json()["messages"][-1]["role"] == "user"]
    assert len(asked) == 1
    told = [message["role"] for message in provider.requests[-1].json()["messages"]]
    assert told == ["system", "user", "assistant", "tool", "tool", "tool"]
    assert tool_results(provider)["write_down_slowly"] == "wrote slow at last"
    assert provider.requests[-1].body.startswith(asked[0].body.removesuffix(b"]}"))
    (reply,) = careful_bot.replies("step")
    assert reply.status == "replied"


@pytest.mark.parametrize("kill", [kill_worker, kill_tree])
def test_a_payment_under_way_is_not_repeated_and_the_model_is_told(
    careful_bot: Bot, provider: RunningProvider, tmp_path: Path, kill: Kill
) -> None:
    notes, paid = tmp_path / "notes", tmp_path / "paid"
    calls = call("write_down", path=str(notes)) + call("pay", path=str(paid), seconds=600)
    assert careful_bot.say("payment", calls).status_code == 200
    careful_bot.wait_until(lambda: len(runs(paid)) == 1, 30, "the payment runs")
    careful_bot.wait_until(lambda: journaled(tmp_path) == 1, 30, "one result")
    kill(careful_bot)
    careful_bot.wait_for_replies(1, within_s=60)
    assert len(runs(paid)) == 1
    assert len(runs(notes)) == 1
    results = tool_results(provider)
    assert "outcome unknown" in results["pay"]
    assert results["write_down"] == "wrote notes"
