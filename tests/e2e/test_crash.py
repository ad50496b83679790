"""SIGKILL of a worker and of the whole tree: what was acknowledged is answered, once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.e2e.bot import Bot


def test_sixty_messages_outlive_the_kill_of_the_whole_tree(model_bot: Bot) -> None:
    for number in range(60):
        assert model_bot.say(f"s{number}", f"[[sleep 1.5]] number {number}").status_code == 200
    model_bot.wait_for_model_calls(20)
    model_bot.gateway.kill_tree()
    model_bot.gateway.start()
    # at the start already: the lease of the dead host would hold them up for longer
    assert model_bot.gateway.wait_for("claims_adopted")["claims"] >= 20
    model_bot.wait_for_replies(60, within_s=60)
    for number in range(60):
        (reply,) = model_bot.replies(f"s{number}")
        assert f"number {number}" in reply.text
        assert reply.status == "replied"


def test_a_killed_worker_costs_its_turns_nothing_but_time(model_bot: Bot) -> None:
    for number in range(12):
        assert model_bot.say(f"s{number}", f"[[sleep 1]] number {number}").status_code == 200
    model_bot.wait_for_model_calls(12)
    before = model_bot.gateway.worker_pids()
    os.kill(before[0], signal.SIGKILL)
    model_bot.wait_for_replies(12, within_s=60)
    assert all(len(model_bot.replies(f"s{number}")) == 1 for number in range(12))
    assert model_bot.gateway.events("message_dead") == []
    assert set(model_bot.gateway.worker_pids()) != set(before)


def test_a_finished_tool_call_is_not_run_again_after_a_kill(model_bot: Bot, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    call = f'[[tool note {{"path": "{notes}", "line": "once"}}]]'
    assert model_bot.say("tools", f"{call} [[then]] [[sleep 3]] [[say all done]]").status_code == 200
    model_bot.wait_for_model_calls(2)
    model_bot.gateway.kill_tree()
    model_bot.gateway.start()
    model_bot.wait_for_replies(1, within_s=60)
    assert notes.read_text() == "once\n"
    (reply,) = model_bot.replies("tools")
    assert "all done" in reply.text


def test_no_worker_outlives_a_killed_gateway(model_bot: Bot) -> None:
    assert model_bot.say("orphan", "[[tool hold_the_gil {}]]").status_code == 200
    model_bot.wait_for_model_calls(1)
    workers = model_bot.gateway.worker_pids()
    model_bot.gateway.kill()
    model_bot.wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 10, "the workers are gone")
