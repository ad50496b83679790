"""SIGTERM and a new start: turns park at their next step and go on, and what came meanwhile is kept."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import msgspec

from tests.e2e.bot import Bot


def test_an_upgrade_loses_nothing_repeats_no_tool_call_and_uses_no_attempt(model_bot: Bot, tmp_path: Path) -> None:
    bot, notes = model_bot, tmp_path / "notes"
    ids = []
    for number in range(6):
        steps = [
            f"[[tool note {msgspec.json.encode({'path': str(notes), 'line': f'{number}.{step}'}).decode()}]]"
            for step in range(3)
        ]
        answer = bot.say(f"s{number}", " [[then]] [[sleep 0.7]] ".join([*steps, f"[[say answer {number}]]"]))
        ids.append(answer.headers["x-gatehouse-message"])
    bot.wait_until(notes.exists, 20, "the first tool has run")

    began = time.monotonic()
    os.kill(bot.gateway.pid, signal.SIGTERM)
    bot.gateway.wait_for("stopping")
    late = bot.say("late", "[[say late]]")
    assert late.status_code == 200
    assert bot.gateway.wait_for_end() == 0
    assert time.monotonic() - began < 10
    assert bot.gateway.events("turn_parked")
    assert len(bot.replies()) < 7

    bot.gateway.start()
    bot.wait_for_replies(7)
    assert Counter(notes.read_text("utf-8").split()) == {f"{n}.{step}": 1 for n in range(6) for step in range(3)}
    for number, message in enumerate(ids):
        (reply,) = bot.replies(f"s{number}")
        assert (reply.message, reply.text) == (message, f"answer {number}")
        trace = bot.gateway.get(f"/v1/messages/{message}")
        assert (trace["attempts"], trace["suspect"]) == (0, False)
