"""Where is my message: asked over HTTP, by command and in chat, while it runs and after it."""

from __future__ import annotations

from pathlib import Path

from loadtests.provider import RunningProvider
from tests.e2e.bot import Bot
from tests.e2e.command_line import port_of, run_command


def test_every_stage_of_a_message_can_be_seen_from_everywhere(
    model_bot: Bot, provider: RunningProvider, tmp_path: Path
) -> None:
    bot = model_bot
    note = f'[[tool note {{"path": "{tmp_path / "notes"}", "line": "x"}}]]'
    accepted = bot.say("s", f"{note} [[then]] [[sleep 1.5]] [[say all done]]")
    message = accepted.headers["x-gatehouse-message"]
    bot.wait_for_model_calls(2)
    bot.wait_until(lambda: bot.gateway.get(f"/v1/messages/{message}")["usage"]["model_calls"] == 1, 10, "one step")
    running = bot.gateway.get(f"/v1/messages/{message}")
    assert (running["state"], running["running"], running["settled_at"]) == ("waiting", True, None)
    assert running["worker"] in {str(row["n"]) for row in bot.gateway.get("/v1/workers")["workers"]}

    bot.wait_for_replies(1)
    bot.wait_until(lambda: bot.gateway.get(f"/v1/messages/{message}")["replies"][0]["sent_id"] is not None, 10, "sent")
    done = bot.gateway.get(f"/v1/messages/{message}")
    assert (done["state"], done["running"], done["attempts"]) == ("done", False, 0)
    assert (done["usage"]["model_calls"], done["usage"]["tool_calls"]) == (2, 1)
    assert done["accepted_at"] <= done["claimed_at"] <= done["settled_at"] <= done["replies"][0]["sent_at"]
    assert done["worker"]

    told = run_command(tmp_path, "trace", message, port=port_of(bot.gateway))
    assert [line.split()[0] for line in told.stdout.splitlines()] == [
        message, "accepted", "claimed", "settled", "reply",
    ]  # fmt: skip
    calls = provider.calls
    assert bot.say("s", "/trace").status_code == 200
    bot.wait_for_replies(2)
    assert bot.replies("s")[1].text.splitlines()[:4] == told.stdout.splitlines()[:4]
    assert provider.calls == calls
