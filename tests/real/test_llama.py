"""llama.cpp with a real small model, on both wires."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from loadtests.platform import running_platform
from tests.e2e.bot import Bot
from tests.e2e.conftest import started
from tests.real.dice import PROMPT
from tests.real.foreign import ForeignServer, wait_until

#: what makes a base model end its turn: a push to the end, or a stop where a wire has no push
DICE = {
    "openai": 'model = "openai:gemma3"\nbase_url = "{url}/v1"\nextra_body = {{logit_bias = [[106, 8]]}}',
    "anthropic": 'model = "anthropic:gemma3"\nbase_url = "{url}"\n'
    'extra_body = {{stop_sequences = ["</tool_call>", "."]}}',
}
#: it never ends its turn before its limit
STORIES = 'model = "openai:gemma3"\nbase_url = "{url}/v1"\nextra_body = {{ignore_eos = true}}'


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


@pytest.fixture(scope="module")
def teller(llama: ForeignServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    """A gateway whose model writes on to its limit."""
    with gateway(tmp_path_factory.mktemp("teller"), STORIES, llama.url, "You tell stories.") as running:
        yield running


def ask(bot: Bot, text: str, session: str = "", **fields: Any) -> dict[str, Any]:
    """Return the whole answer of the chat API."""
    headers = bot.gateway.headers | ({"X-Gatehouse-Session": session} if session else {})
    body = {"model": "local", "messages": [{"role": "user", "content": text}], **fields}
    answer = httpx2.post(f"{bot.gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=120)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def said(answer: dict[str, Any]) -> str:
    text: str = answer["choices"][0]["message"]["content"]
    return text


def history(bot: Bot, session: str) -> list[dict[str, Any]]:
    """Return a session's messages."""
    key = next(row["key"] for row in bot.gateway.get("/v1/sessions")["sessions"] if row["key"].endswith(f":{session}"))
    found: list[dict[str, Any]] = bot.gateway.get(f"/v1/sessions/{key}")["messages"]
    return found


def busy_slots(llama: ForeignServer) -> int:
    """Return how many slots of the server work."""
    return sum(slot["is_processing"] for slot in httpx2.get(f"{llama.url}/slots", timeout=10).json())


def writes(llama: ForeignServer) -> bool:
    """Tell whether the server is in the middle of an answer."""
    slots = httpx2.get(f"{llama.url}/slots", timeout=10).json()
    return any(token["n_decoded"] > 5 for slot in slots if slot["is_processing"] for token in slot["next_token"])


def test_a_whole_answer_calls_a_tool_and_tells_its_result(bot: Bot) -> None:
    answer = ask(bot, "Roll a die with 12 sides.")
    assert said(answer).startswith("The die shows 9")
    assert answer["usage"]["completion_tokens"] > 0


def test_a_streamed_answer_is_the_whole_one_in_pieces(bot: Bot) -> None:
    body = {"model": "local", "stream": True, "messages": [{"role": "user", "content": "Roll a die with 12 sides."}]}
    pieces = []
    url = f"{bot.gateway.url}/v1/chat/completions"
    with httpx2.stream("POST", url, json=body, headers=bot.gateway.headers, timeout=120) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                pieces += [choice["delta"].get("content") or "" for choice in json.loads(line[6:])["choices"]]
    assert "".join(pieces).startswith("The die shows 9")


def test_a_clients_tool_is_offered_and_its_call_handed_over(bot: Bot) -> None:
    parameters = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}
    tools = [{"type": "function", "function": {"name": "weather", "description": "Tell.", "parameters": parameters}}]
    answer = ask(bot, "What is the weather in Rome?", tools=tools, tool_choice="required")
    [call] = answer["choices"][0]["message"]["tool_calls"][:1]
    assert (call["function"]["name"], answer["choices"][0]["finish_reason"]) == ("weather", "tool_calls")
    assert "city" in json.loads(call["function"]["arguments"])


def test_ten_turns_of_one_session(teller: Bot) -> None:
    for number in range(10):
        assert said(ask(teller, f"What came in year {number}?", "ten", max_tokens=20)), number
    messages = history(teller, "ten")
    assert [message["role"] for message in messages] == ["user", "assistant"] * 10


def test_a_conversation_that_outgrows_the_context_goes_on(teller: Bot) -> None:
    for number in range(4):
        text = f"Chapter {number}: " + "the old oak stood on the hill and told nobody what it had seen. " * 30
        assert said(ask(teller, text, "long", max_tokens=20)), number
    compacted = teller.gateway.events("context_compacted")
    assert compacted, teller.gateway.log()
    assert history(teller, "long")[-1]["role"] == "assistant"


def test_stop_in_mid_stream_frees_the_servers_slot(teller: Bot, llama: ForeignServer) -> None:
    teller.say("stopped", "Tell me a long story.")
    teller.wait_until(lambda: writes(llama), 60, "the server writes")
    teller.say("stopped", "/stop")
    teller.wait_until(lambda: len(teller.replies("stopped")) == 2, 10, "both are answered")
    assert {reply.text.partition(" ")[0] for reply in teller.replies("stopped")} >= {"Stopped."}
    teller.wait_until(lambda: busy_slots(llama) == 0, 5, "the slot is free")


def test_eight_sessions_at_once_on_two_slots_are_all_answered(teller: Bot) -> None:
    sessions = [f"queue-{number}" for number in range(8)]
    for session in sessions:
        teller.say(session, "Tell me a story.")
    teller.wait_until(lambda: all(teller.replies(session) for session in sessions), 180, "all are answered")
    assert [teller.replies(session)[0].status for session in sessions] == ["replied"] * 8


def test_a_server_that_is_away_for_twenty_seconds_delays_and_loses_nothing(teller: Bot, llama: ForeignServer) -> None:
    teller.say("mid-stream", "Tell me a story.")
    teller.wait_until(lambda: writes(llama), 60, "the server writes")
    llama.kill()
    back_at = time.monotonic() + 20
    teller.say("while-away", "Tell me a story.")
    wait_until(lambda: time.monotonic() > back_at, 30, "twenty seconds are over")
    assert not teller.replies("while-away")
    llama.start()
    sessions = ("mid-stream", "while-away")
    teller.wait_until(lambda: all(teller.replies(session) for session in sessions), 120, "both are answered")
    assert [[reply.status for reply in teller.replies(session)] for session in sessions] == [["replied"]] * 2
    assert teller.gateway.get("/v1/dead")["dead"] == []
