"""llama.cpp with a real small model, on both wires."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.platform import running_platform
from tests.e2e.bot import Bot
from tests.e2e.conftest import started
from tests.real.dice import PROMPT
from tests.real.endurance import (
    a_stop_in_mid_stream_frees_the_slot,
    an_outage_delays_and_loses_nothing,
    ask,
    eight_sessions_at_once_are_all_answered,
    history,
    said,
    streamed,
    ten_turns_of_one_session,
)
from tests.real.foreign import ForeignServer

#: what makes a base model end its turn: a push to the end, or a stop where a wire has no push
DICE = {
    "openai": 'model = "openai:gemma3"\nbase_url = "{url}/v1"\nextra_body = {{logit_bias = [[106, 8]]}}',
    "anthropic": 'model = "anthropic:gemma3"\nbase_url = "{url}"\n'
    'extra_body = {{stop_sequences = ["</tool_call>", "."]}}',
}
#: it never ends its turn before its limit, or on the wire that has no field for that, hardly ever
STORIES = {
    "openai": 'model = "openai:gemma3"\nbase_url = "{url}/v1"\nextra_body = {{ignore_eos = true}}',
    "anthropic": 'model = "anthropic:gemma3"\nbase_url = "{url}"',
}


@contextlib.contextmanager
def gateway(directory: Path, section: str, url: str, prompt: str) -> Iterator[Bot]:
    """Start a gateway with one model."""
    (directory / "prompt.txt").write_text(prompt)
    path = directory / "gatehouse.toml"
    path.write_text(f"[models.local]\ntemperature = 0\noutput_limit = 100\n{section.format(url=url)}\n")
    settings = {
        "GATEHOUSE_CONFIG": str(path),
        "GATEHOUSE_MODEL": "local",
        "GATEHOUSE_SYSTEM_PROMPT": f"@{directory / 'prompt.txt'}",
        "GATEHOUSE_TOOLS": "tests.real.dice",
        "GATEHOUSE_WORKERS": "1",
        "GATEHOUSE_STALL_TIMEOUT": "40",
        "GATEHOUSE_API_KEYS": "a-key-for-the-tests-of-real-servers",
    }
    with running_platform() as platform, started(directory, platform, None, **settings) as running:
        yield running


@pytest.fixture(scope="module", params=list(DICE))
def bot(
    request: pytest.FixtureRequest, llama: ForeignServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bot]:
    """A gateway whose model rolls dice, on either wire."""
    with gateway(tmp_path_factory.mktemp("dice"), DICE[request.param], llama.url, PROMPT) as running:
        yield running


@pytest.fixture(scope="module", params=list(STORIES))
def teller(
    request: pytest.FixtureRequest, llama: ForeignServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bot]:
    """A gateway whose model writes on to its limit, on either wire."""
    with gateway(tmp_path_factory.mktemp("teller"), STORIES[request.param], llama.url, "You tell stories.") as running:
        yield running


def test_a_whole_answer_calls_a_tool_and_tells_its_result(bot: Bot) -> None:
    answer = ask(bot, "Roll a die with 12 sides.")
    assert said(answer).startswith("The die shows 9")
    assert answer["usage"]["completion_tokens"] > 0


def test_a_streamed_answer_is_the_whole_one_in_pieces(bot: Bot) -> None:
    assert streamed(bot, "Roll a die with 12 sides.").startswith("The die shows 9")


def test_a_clients_tool_is_offered_and_its_call_handed_over(bot: Bot) -> None:
    parameters = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}
    tools = [{"type": "function", "function": {"name": "weather", "description": "Tell.", "parameters": parameters}}]
    answer = ask(bot, "What is the weather in Rome?", tools=tools, tool_choice="required")
    [call] = answer["choices"][0]["message"]["tool_calls"][:1]
    assert (call["function"]["name"], answer["choices"][0]["finish_reason"]) == ("weather", "tool_calls")
    assert "city" in json.loads(call["function"]["arguments"])


def test_ten_turns_of_one_session(teller: Bot) -> None:
    ten_turns_of_one_session(teller)


def test_a_conversation_that_outgrows_the_context_goes_on(teller: Bot) -> None:
    for number in range(4):
        text = f"Chapter {number}: " + "the old oak stood on the hill and told nobody what it had seen. " * 30
        assert said(ask(teller, text, "long", max_tokens=20)), number
    teller.gateway.wait_for("context_compacted")
    assert history(teller, "long")[-1]["role"] == "assistant"


def test_stop_in_mid_stream_frees_the_servers_slot(teller: Bot, llama: ForeignServer) -> None:
    a_stop_in_mid_stream_frees_the_slot(teller, llama)


def test_eight_sessions_at_once_on_two_slots_are_all_answered(teller: Bot) -> None:
    eight_sessions_at_once_are_all_answered(teller)
    assert teller.gateway.events("model_failed") == []
    assert "the server has 2 slots" in str(teller.gateway.events("model_adapted"))


def test_a_server_that_is_away_for_twenty_seconds_delays_and_loses_nothing(teller: Bot, llama: ForeignServer) -> None:
    an_outage_delays_and_loses_nothing(teller, llama, llama)
