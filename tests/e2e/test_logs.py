"""Session logs after the death of everything that held their last lines."""

from __future__ import annotations

from pathlib import Path

from loadtests.platform import RunningPlatform
from shared.session_files import logged_messages, read_log, session_log_path
from shared.session_segments import has_log
from tests.e2e.conftest import started

SESSION = "standard:default:kitchen"


def test_what_a_killed_host_had_not_written_is_in_the_log_after_the_next_start(
    tmp_path: Path, platform: RunningPlatform
) -> None:
    path = session_log_path(tmp_path / "logs", SESSION)
    with started(tmp_path, platform, GATEHOUSE_LOG_FLUSH_INTERVAL="6", GATEHOUSE_WORKERS="1") as bot:
        bot.say("kitchen", "add buy milk")
        bot.wait_until(lambda: has_log(path) and len(logged_messages(path)) > 2, 60, "the first turn is logged")
        bot.say("kitchen", "done 1")
        bot.wait_for_replies(2)
        bot.gateway.kill_tree()
        lost = len(logged_messages(path))
        bot.gateway.start()
        history = bot.gateway.get(f"/v1/sessions/{SESSION}")["messages"]
        assert lost < len(history)
        bot.gateway.wait_for("session_log_repaired")
        assert logged_messages(path) == history
        bot.say("kitchen", "list")
        bot.wait_for_replies(3)
        more = bot.gateway.get(f"/v1/sessions/{SESSION}")["messages"]
        bot.wait_until(lambda: len(logged_messages(path)) >= len(more), 60, "the next turn is logged")
        assert logged_messages(path) == more
    assert [line for line in read_log(path) if line.get("repaired")]
