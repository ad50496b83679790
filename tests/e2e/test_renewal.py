"""SIGHUP: every worker is replaced with the code on disk; nobody gets a 5xx, no turn is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.gateway_process import ROOT, descendants
from loadtests.platform import RunningPlatform
from loadtests.provider import RunningProvider
from tests.e2e.bot import Bot
from tests.e2e.conftest import started

TOOL = '''
from worker.tools import tool

@tool
def edition() -> str:
    """Tell which edition of this module is loaded."""
    return "edition {number}"
'''


def write_edition(directory: Path, number: int) -> None:
    # written anew, never over the old bytes: a half-written module must not be imported, nor a cached one believed
    new = directory / "new"
    new.write_text(TOOL.format(number=number) + "#" * number, encoding="utf-8")
    new.replace(directory / "renewed_tools.py")


@pytest.fixture
def editions(tmp_path: Path) -> Path:
    """A directory with the first edition of a tool module."""
    directory = tmp_path / "modules"
    directory.mkdir()
    write_edition(directory, 1)
    return directory


@pytest.fixture
def renewed_bot(tmp_path: Path, editions: Path, platform: RunningPlatform, provider: RunningProvider) -> Iterator[Bot]:
    """A bot with two workers whose tools lie in that directory."""
    settings = {
        "GATEHOUSE_TOOLS": "renewed_tools",
        "GATEHOUSE_WORKERS": "2",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(editions)]),
    }
    with started(tmp_path, platform, provider, **settings) as running:
        yield running


class Visitor:
    """Somebody who goes on writing and asking for readiness while the workers are replaced."""

    def __init__(self, bot: Bot) -> None:
        self._bot = bot
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._visit)
        self.statuses: list[int] = []

    def __enter__(self) -> Visitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self._thread.join()

    def _visit(self) -> None:
        while not self._leave.wait(0.05):
            number = len(self.statuses)
            self.statuses.append(self._bot.say(f"visitor{number % 7}", f"visit {number}.").status_code)
            self._bot.gateway.is_ready()


def test_a_changed_tool_is_in_use_after_a_sighup_and_nothing_is_lost(renewed_bot: Bot, editions: Path) -> None:
    bot = renewed_bot
    assert bot.say("before", "[[tool edition {}]]").status_code == 200
    bot.wait_until(lambda: bool(bot.replies("before")), 30, "the first edition's answer")
    assert "edition 1" in bot.replies("before")[0].text
    for number in range(6):
        assert bot.say(f"flight{number}", f"[[sleep 1.5]] flight {number}").status_code == 200
    bot.wait_for_model_calls(8)
    old = bot.gateway.worker_pids()

    write_edition(editions, 2)
    with Visitor(bot) as visitor:
        os.kill(bot.gateway.pid, signal.SIGHUP)
        bot.gateway.wait_for("renewed", within_s=60)
    assert set(visitor.statuses) == {200}
    assert not set(old) & set(bot.gateway.worker_pids())

    assert bot.say("after", "[[tool edition {}]]").status_code == 200
    bot.wait_for_replies(1 + 6 + len(visitor.statuses) + 1, within_s=30)
    assert "edition 2" in bot.replies("after")[0].text
    for number in range(6):
        (reply,) = bot.replies(f"flight{number}")
        assert (reply.status, f"flight {number}" in reply.text) == ("replied", True)
    assert bot.gateway.events("turn_retried") == bot.gateway.events("worker_died") == []
    assert bot.gateway.events("worker_failed_to_start") == []


def test_only_one_fork_server_remains_after_renewals(renewed_bot: Bot) -> None:
    before = len(descendants(renewed_bot.gateway.pid))
    for count in (1, 2):
        os.kill(renewed_bot.gateway.pid, signal.SIGHUP)
        renewed_bot.gateway.wait_for("renewed", count, within_s=60)
    renewed_bot.wait_until(
        lambda: len(descendants(renewed_bot.gateway.pid)) == before, 30, "the old fork servers are gone"
    )
    assert renewed_bot.say("s", "hello").status_code == 200
    renewed_bot.wait_for_replies(1)
    assert renewed_bot.gateway.terminate() == 0


def test_a_module_that_cannot_be_imported_leaves_the_workers_at_work(renewed_bot: Bot, editions: Path) -> None:
    old = renewed_bot.gateway.worker_pids()
    (editions / "renewed_tools.py").write_text("this is no Python\n", encoding="utf-8")
    os.kill(renewed_bot.gateway.pid, signal.SIGHUP)
    renewed_bot.gateway.wait_for("worker_failed_to_start", 2, within_s=60)
    assert renewed_bot.say("s", "[[tool edition {}]]").status_code == 200
    renewed_bot.wait_for_replies(1)
    assert "edition 1" in renewed_bot.replies("s")[0].text
    assert renewed_bot.gateway.worker_pids() == old
    write_edition(editions, 3)
    renewed_bot.gateway.wait_for("renewed", within_s=60)
