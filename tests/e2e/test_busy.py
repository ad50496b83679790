"""Messages and commands that come while a turn runs, over a real gateway and worker."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from loadtests.platform import running_platform
from loadtests.provider import RunningProvider, running_provider
from tests.e2e.bot import Bot
from tests.e2e.conftest import started

Kill = Callable[[Bot], None]

#: generous: the machine of a test does much else
STOP_WITHIN_S = 1.0


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    with running_provider() as running:
        yield running


@pytest.fixture(scope="module")
def busy_bot(tmp_path_factory: pytest.TempPathFactory, provider: RunningProvider) -> Iterator[Bot]:
    """One bot for all: a session's name chooses its mode."""
    sessions = {"interrupt": ("interrupt",), "reject": ("reject",), "steer": ("steer", "steer-joined", "steer-coming")}
    modes = (f"standard:default:{name}={mode}" for mode, names in sessions.items() for name in names)
    settings = {"GATEHOUSE_TOOLS": "tests.e2e.careful_tools", "GATEHOUSE_WORKERS": "1"}
    settings["GATEHOUSE_WHEN_BUSY"] = ",".join(modes)
    directory = tmp_path_factory.mktemp("busy")
    with running_platform() as platform, started(directory, platform, provider, **settings) as running:
        yield running


def say(bot: Bot, session: str, text: str) -> str:
    """Say something and return its message's id."""
    return bot.say(session, text).headers["x-gatehouse-message"]


def begin(bot: Bot, provider: RunningProvider, session: str, text: str) -> str:
    """Say something and wait until the model is asked for it."""
    calls = provider.calls
    message = say(bot, session, text)
    bot.wait_for_model_calls(calls + 1)
    return message


def trace(bot: Bot, message: str) -> dict[str, Any]:
    found: dict[str, Any] = bot.gateway.get(f"/v1/messages/{message}")
    return found


def texts(bot: Bot, session: str, count: int) -> list[str]:
    """Wait for a session's replies and return them, each once: what a kill cut off may come again, with its id."""

    def told() -> dict[str, str]:
        return {reply.key: reply.text for reply in bot.platform.received("standard", session)}

    bot.wait_until(lambda: len(told()) >= count, 30, f"{count} replies in {session}")
    return list(told().values())


def slow_call(path: Path, seconds: float = 1.0) -> str:
    return f"[[tool write_down_slowly {json.dumps({'path': str(path), 'seconds': seconds})}]] [[then]]"


@pytest.mark.parametrize("running", ["[[stall]]", "[[dribble]]", "tool"])
def test_stop_ends_a_running_turn_at_once(
    busy_bot: Bot, provider: RunningProvider, tmp_path: Path, running: str
) -> None:
    session = f"stop-{running.strip('[]')}"
    text = slow_call(tmp_path / "slow", 60) if running == "tool" else running
    message = begin(busy_bot, provider, session, text)
    if running == "tool":
        busy_bot.wait_until((tmp_path / "slow").exists, 30, "the tool runs")
    asked_at = time.time()
    say(busy_bot, session, "/stop")
    assert set(texts(busy_bot, session, 2)) == {"Stopped.", "I stop what I was doing."}
    settled = trace(busy_bot, message)
    assert settled["state"] == "done"
    assert settled["settled_at"] - asked_at < STOP_WITHIN_S


def test_a_retry_behind_a_new_does_not_run_the_old_conversations_message(
    busy_bot: Bot, provider: RunningProvider
) -> None:
    begin(busy_bot, provider, "anew", "[[stall]] secret of old")
    os.kill(busy_bot.gateway.worker_pids()[0], signal.SIGSTOP)  # both wait until the turn has heard of its end
    for command in ("/new", "/retry"):
        say(busy_bot, "anew", command)
    calls = provider.calls
    os.kill(busy_bot.gateway.worker_pids()[0], signal.SIGCONT)
    say(busy_bot, "anew", "hello")
    told = texts(busy_bot, "anew", 4)
    assert told[0] == "Stopped."
    assert told[-1] == "echo: hello"
    assert provider.calls == calls + 1
    found = busy_bot.gateway.get("/v1/sessions/standard%3Adefault%3Aanew?earlier=1")
    assert [message["content"] for message in found["messages"]] == ["hello", "echo: hello"]
    assert found["earlier"][0]["content"] == "[[stall]] secret of old"


def test_a_newer_message_interrupts(busy_bot: Bot, provider: RunningProvider) -> None:
    begin(busy_bot, provider, "interrupt", "[[stall]]")
    say(busy_bot, "interrupt", "hello")
    assert texts(busy_bot, "interrupt", 2) == ["I stopped this to turn to a newer message.", "echo: hello"]


def test_a_message_is_rejected_and_can_be_seen(busy_bot: Bot, provider: RunningProvider) -> None:
    begin(busy_bot, provider, "reject", "[[sleep 2]] [[say one]]")
    rejected = say(busy_bot, "reject", "two")
    told = "I am still working on an earlier message. Please send this one again later."
    assert texts(busy_bot, "reject", 2) == [told, "one"]
    assert (busy_bot.replies("reject")[0].status, trace(busy_bot, rejected)["state"]) == ("failed", "rejected")
    metrics = busy_bot.gateway.ask("GET", "/metrics").text
    assert 'gatehouse_messages_total{outcome="rejected",platform="standard"} 1.0' in metrics


def test_new_words_join_the_running_turn_at_its_next_step(
    busy_bot: Bot, provider: RunningProvider, tmp_path: Path
) -> None:
    message = begin(busy_bot, provider, "steer", slow_call(tmp_path / "slow") + " [[say done]]")
    joined = say(busy_bot, "steer", "[[say with both]]")
    busy_bot.wait_until(lambda: trace(busy_bot, joined)["joined"] == message, 10, "it joins")
    assert texts(busy_bot, "steer", 1) == ["with both"]
    roles = [entry["role"] for entry in provider.requests[-1].json()["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]  # as every template takes it
    assert [trace(busy_bot, one)["state"] for one in (message, joined)] == ["done", "done"]
    assert trace(busy_bot, joined)["replies"] == []
    assert f"joined    the turn of {message}" in trace_text(busy_bot, "steer", joined)


def test_words_that_come_too_late_are_answered_on_their_own(busy_bot: Bot, provider: RunningProvider) -> None:
    begin(busy_bot, provider, "steer", "[[sleep 1]] [[say the answer]]")
    before = len(busy_bot.replies("steer"))
    say(busy_bot, "steer", "and this?")
    assert texts(busy_bot, "steer", before + 2)[before:] == ["the answer", "echo: and this?"]


def call(bot: Bot, text: str, mode: str = "enqueue", session: str = "api") -> httpx2.Response:
    """Say something in a session of the API and wait for the answer."""
    body = {"model": "gatehouse", "messages": [{"role": "user", "content": text}]}
    headers = {"X-Gatehouse-Session": session, "X-Gatehouse-When-Busy": mode}
    return bot.gateway.ask("POST", "/v1/chat/completions", json=body, headers=headers)


def answered(response: httpx2.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    ("mode", "told", "first"),
    [("enqueue", "echo: hi", "one"), ("interrupt", "echo: hi", "Stopped."), ("steer", "echo: hi", "echo: hi")],
)
def test_a_call_chooses_its_mode_and_every_call_is_answered(
    busy_bot: Bot, provider: RunningProvider, tmp_path: Path, mode: str, told: str, first: str
) -> None:
    with ThreadPoolExecutor(1) as other:
        calls = provider.calls
        text = slow_call(tmp_path / "slow", 1) + " [[say one]]"
        waiting = other.submit(call, busy_bot, text, session=f"api-{mode}")
        busy_bot.wait_for_model_calls(calls + 1)
        busy_bot.wait_until((tmp_path / "slow").exists, 30, "the tool runs")
        assert answered(call(busy_bot, "hi", mode, f"api-{mode}")) == told
        assert answered(waiting.result()) == first


def test_a_rejected_call_is_a_conflict(busy_bot: Bot, provider: RunningProvider) -> None:
    with ThreadPoolExecutor(1) as other:
        calls = provider.calls
        waiting = other.submit(call, busy_bot, "[[sleep 3]] [[say one]]")
        busy_bot.wait_for_model_calls(calls + 1)
        rejected = call(busy_bot, "two", "reject")
        assert (rejected.status_code, rejected.json()["error"]["code"]) == (409, "busy")
        assert trace(busy_bot, rejected.headers["x-gatehouse-message"])["state"] == "rejected"
        assert answered(call(busy_bot, "/status")) == "Status: working, step 1."
        assert answered(waiting.result()) == "one"


def trace_text(bot: Bot, session: str, message: str) -> str:
    before = len(bot.replies(session))
    bot.say(session, f"/trace {message}")
    return texts(bot, session, before + 1)[-1]


def kill_worker(bot: Bot) -> None:
    os.kill(bot.gateway.worker_pids()[0], signal.SIGKILL)


def kill_tree(bot: Bot) -> None:
    bot.gateway.kill_tree()
    bot.gateway.start()


@pytest.mark.parametrize("kill", [kill_worker, kill_tree])
def test_words_that_join_a_turn_outlive_a_kill_and_join_once(
    busy_bot: Bot, provider: RunningProvider, tmp_path: Path, kill: Kill
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    told: dict[str, tuple[str, str]] = {}
    before = {session: len(busy_bot.replies(session)) for session in ("steer-joined", "steer-coming")}
    for session, seconds in (("steer-joined", 0.5), ("steer-coming", 3)):
        path = first / session
        first.mkdir(exist_ok=True)
        message = begin(busy_bot, provider, session, slow_call(path, seconds) + " [[say alone]]")
        busy_bot.wait_until(path.exists, 30, "the first tool runs")
        words = say(busy_bot, session, slow_call(second, 3) + " [[say all of it]]")
        told[session] = (message, words)
    busy_bot.wait_until(
        lambda: all(trace(busy_bot, words)["joined"] == message for message, words in told.values()), 30, "they join"
    )
    busy_bot.wait_until(second.exists, 30, "the tool that the new words asked for runs")
    kill(busy_bot)
    for session, ids in told.items():
        assert texts(busy_bot, session, before[session] + 1)[before[session] :] == ["all of it"]
        assert [trace(busy_bot, one)["state"] for one in ids] == ["done", "done"]
        found = busy_bot.gateway.get(f"/v1/sessions/standard%3Adefault%3A{session}")["messages"]
        roles = [message["role"] for message in found]
        assert roles[-7:] == ["user", "assistant", "tool", "user", "assistant", "tool", "assistant"]


def test_stops_and_commands_outlive_a_kill_and_act_once(busy_bot: Bot, provider: RunningProvider) -> None:
    commands = ("/stop", "/undo", "/new")
    requests = {f"wait{text.replace('/', '-')}": text for text in commands}
    for session in requests:
        say(busy_bot, session, "hello there")
        texts(busy_bot, session, 1)
        begin(busy_bot, provider, session, "[[stall]]")
    os.kill(busy_bot.gateway.worker_pids()[0], signal.SIGSTOP)  # nobody hears of the stop before the kill
    for session, text in requests.items():
        assert busy_bot.post(busy_bot.request(session, text, f"wh{text}")).status_code == 200
    kill_tree(busy_bot)
    for session, text in requests.items():
        assert busy_bot.post(busy_bot.request(session, text, f"wh{text}")).status_code == 200
        told = texts(busy_bot, session, 3)
        assert told[0] == "echo: hello there"
        assert "Stopped." in told
        found = busy_bot.gateway.get(f"/v1/sessions/standard%3Adefault%3A{session}?earlier=1")
        assert (found["running"], found["waiting"], len(told)) == (False, 0, 3)
        said = [message["content"] for message in found["messages"]]
        assert said == ([] if text == "/new" else ["hello there", "echo: hello there"])
        earlier = [message["content"] for message in found["earlier"]]
        assert earlier == (["hello there", "echo: hello there"] if text == "/new" else [])
