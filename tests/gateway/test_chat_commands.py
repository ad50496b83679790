"""Chat commands in a session of the OpenAI-compatible door, as the console gives them, over a real worker."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

Say = Callable[[str], str]

NUMBERS = itertools.count(1)


@pytest.fixture
def name() -> str:
    """A session of the test's own."""
    return f"commands-{next(NUMBERS)}"


@pytest.fixture
def say(web: httpx2.Client, name: str) -> Say:
    """Says something in that session and returns the answer."""

    def answer_to(text: str) -> str:
        body = {"model": "gatehouse", "messages": [{"role": "user", "content": text}]}
        answer = web.post("/v1/chat/completions", json=body, headers={"X-Gatehouse-Session": name})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    return answer_to


def roles(found: dict[str, Any]) -> list[str]:
    return [message["role"] for message in found["messages"]]


def session(web: httpx2.Client, name: str) -> dict[str, Any]:
    found: dict[str, Any] = web.get(f"/v1/sessions/api%3Adefault%3A{name}").json()
    return found


def test_todo_shows_the_list(say: Say) -> None:
    assert say("/todo") == "The todo list is empty."
    say("add buy milk")
    say("add call mum")
    say("done 1")
    assert say("/todo").splitlines() == ["Todo, 1 of 2 done:", "☑ buy milk", "☐ call mum"]


def test_undo_takes_back_words_answer_and_todo_change(say: Say, web: httpx2.Client, name: str) -> None:
    say("add buy milk")
    kept = session(web, name)
    say("add call mum")
    assert say("/undo") == "Your last message and what came of it are taken back."
    undone = session(web, name)
    assert (undone["messages"], undone["todos"]) == (kept["messages"], kept["todos"])
    assert "call mum" not in say("list")
    assert "buy milk" in say("list")


def test_retry_runs_the_last_message_again(say: Say, web: httpx2.Client, name: str) -> None:
    say("add buy milk")
    before = session(web, name)
    again = say("/retry")
    assert "buy milk" in again
    after = session(web, name)
    assert (roles(after), after["todos"]) == (roles(before), before["todos"])
    assert after["version"] != before["version"]


def test_new_begins_a_conversation_and_keeps_the_list_and_what_was_said(
    say: Say, web: httpx2.Client, name: str
) -> None:
    say("add buy milk")
    before = session(web, name)
    assert say("/new").startswith("A new conversation begins.")
    anew = session(web, name)
    assert (anew["messages"], anew["todos"]) == ([], before["todos"])
    earlier = web.get(f"/v1/sessions/api%3Adefault%3A{name}?earlier=1").json()
    assert earlier["earlier"] == before["messages"]
    assert say("/new") == "This conversation is new already."
    assert "buy milk" in say("list")


@pytest.mark.parametrize("text", ["/stop", "/undo", "/retry", "/status", "/help", "/start"])
def test_a_command_in_an_empty_session_calls_no_model(say: Say, web: httpx2.Client, name: str, text: str) -> None:
    told = say(text)
    assert told
    assert "echo" not in told
    found = web.get(f"/v1/sessions/api%3Adefault%3A{name}")
    assert found.status_code == 404 or found.json()["messages"] == []


def test_a_streamed_command_is_answered_in_the_stream(web: httpx2.Client, name: str) -> None:
    for text, told in (("/help", "/retry: run your last message again"), ("/stop", "Nothing is running here.")):
        body = {"model": "gatehouse", "stream": True, "messages": [{"role": "user", "content": text}]}
        answer = web.post("/v1/chat/completions", json=body, headers={"X-Gatehouse-Session": name})
        assert told in answer.text
        assert answer.text.endswith("data: [DONE]\n\n")


def test_without_a_session_a_command_is_a_message(web: httpx2.Client) -> None:
    body = {"model": "gatehouse", "messages": [{"role": "user", "content": "/status"}]}
    answer = web.post("/v1/chat/completions", json=body)
    assert "Nothing has been said here yet." not in answer.text


def test_a_command_that_changes_something_can_be_traced(web: httpx2.Client, name: str) -> None:
    body = {"model": "gatehouse", "messages": [{"role": "user", "content": "/undo"}]}
    answer = web.post("/v1/chat/completions", json=body, headers={"X-Gatehouse-Session": name})
    trace = web.get(f"/v1/messages/{answer.headers['x-gatehouse-message']}").json()
    assert (trace["state"], trace["usage"]["model_calls"]) == ("done", 0)


def test_a_mode_that_is_none_is_refused(web: httpx2.Client) -> None:
    body = {"model": "gatehouse", "messages": [{"role": "user", "content": "hi"}]}
    answer = web.post("/v1/chat/completions", json=body, headers={"X-Gatehouse-When-Busy": "shout"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "X-Gatehouse-When-Busy"
    assert "enqueue, interrupt, steer, reject" in answer.json()["error"]["message"]
