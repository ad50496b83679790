"""Profiles: who writes, and where, decides on model, prompt, tools and budgets of the turn."""

from __future__ import annotations

from pathlib import Path

from loadtests.platform import RunningPlatform
from loadtests.provider import RunningProvider
from tests.e2e.conftest import started

FILE = """
[profiles.support]
platform = "standard"
channel = ["ana", "eve"]
model = "openai:second"
prompt = "You answer questions on orders."
tools = ["draw", "shell*"]
when_busy = "reject"

[profiles.short]
channel = "bob"
session_budget = "1"
"""


def test_a_profile_chooses_model_prompt_tools_and_budget(
    tmp_path: Path, platform: RunningPlatform, provider: RunningProvider
) -> None:
    file = tmp_path / "gatehouse.toml"
    file.write_text(FILE, "utf-8")
    settings = {"GATEHOUSE_CONFIG": str(file), "GATEHOUSE_TOOLS": "tests.e2e.hostile_tools", "OPENAI_API_KEY": "sk-x"}
    with started(tmp_path, platform, provider, **settings) as bot:
        for session in ("ana", "carl", "bob"):
            bot.seconds_to_reply(session, "hello")
            bot.say(session, "/status")
            bot.wait_until(lambda of=session: len(bot.replies(of)) == 2, 20, "its status")  # type: ignore[misc]
        asked = {call["messages"][-1]["content"]: call for call in (request.json() for request in provider.requests)}
        assert len(asked) == 1  # they all said hello
        by_model = {call["model"]: call for call in (request.json() for request in provider.requests)}
        assert by_model["second"]["messages"][0]["content"] == "You answer questions on orders."
        assert [tool["function"]["name"] for tool in by_model["second"]["tools"]] == ["draw"]
        assert {"todo", "draw"} < {tool["function"]["name"] for tool in by_model["scripted"]["tools"]}
        assert bot.replies("ana")[1].text.endswith("Profile: support.")
        assert "Profile" not in bot.replies("carl")[1].text
        assert bot.replies("bob")[1].text.endswith("Profile: short.")
        assert bot.gateway.get("/v1/sessions/standard:default:ana")["profile"] == "support"
        # what a profile does not offer is not run either
        bot.say("ana", "[[tool todo {}]]")
        bot.wait_until(lambda: len(bot.replies("ana")) == 3, 20, "an answer")
        results = [one for one in provider.requests[-1].json()["messages"] if one["role"] == "tool"]
        assert "there is no tool named 'todo'" in results[-1]["content"]
        # its budget is its own
        bot.say("bob", "more")
        bot.wait_until(lambda: len(bot.replies("bob")) == 3, 20, "a refusal")
        assert "budget of 1 tokens" in bot.replies("bob")[2].text
