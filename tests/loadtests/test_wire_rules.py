"""The rules of the wires: what a real provider answers 400 to, the scripted one refuses too."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from loadtests.provider import running_provider
from loadtests.wire_rules import anthropic_problem, openai_problem

Json = dict[str, Any]
USER: Json = {"role": "user", "content": "hi"}


def calls(*ids: str) -> Json:
    return {"role": "assistant", "content": None, "tool_calls": [{"id": one, "function": {}} for one in ids]}


def result(call: str) -> Json:
    return {"role": "tool", "tool_call_id": call, "content": "x"}


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([USER, calls("a", "b"), result("b"), result("a"), USER], ""),
        ([{"role": "system", "content": "s"}, USER, {"role": "assistant", "content": "x"}, USER], ""),
        ([USER, calls("a", "b"), result("a"), USER], "did not have response messages: b"),
        ([USER, calls("a")], "did not have response messages: a"),
        ([USER, calls("a"), result("a"), result("a")], "must be a response to"),
        ([USER, result("a")], "must be a response to"),
        ([USER, {"role": "assistant", "content": ""}], "needs content or tool_calls"),
        ([{"role": "user"}], "a user message needs content"),
    ],
)
def test_the_rules_of_chat_completions(messages: list[Json], problem: str) -> None:
    assert problem in openai_problem({"messages": messages})
    assert bool(problem) == bool(openai_problem({"messages": messages}))


def use(*ids: str, **extra: object) -> Json:
    return {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": one, "name": "t", "input": {}} | extra for one in ids],
    }


def given(*ids: str, before: str = "", after: str = "") -> Json:
    texts = [[{"type": "text", "text": text}] if text else [] for text in (before, after)]
    results = [{"type": "tool_result", "tool_use_id": one} for one in ids]
    return {"role": "user", "content": [*texts[0], *results, *texts[1]]}


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([USER, use("a", "b"), given("b", "a", after="go on")], ""),
        ([USER, use("a"), given("a"), use("b"), given("b")], ""),
        ([USER, use("a"), given("a"), use("a"), given("a")], "must be unique"),
        ([USER, use("a b"), given("a b")], "must be unique and match"),
        ([USER, use("a", "b"), given("a")], "ids differ"),
        ([USER, use("a"), USER], "ids differ"),
        ([USER, given("a")], "roles must alternate"),
        ([given("a")], "ids differ"),
        ([USER, use("a"), given("a", before="first")], "must come first"),
        ([USER, use("a", input="{}"), given("a")], "must be an object"),
        ([USER, {"role": "assistant", "content": "x"}], "must end with a user message"),
        ([{"role": "assistant", "content": "x"}, USER], "must use the user role"),
        ([{"role": "user", "content": " "}], "non-whitespace"),
        ([{"role": "user", "content": []}], "must not be empty"),
        ([], "must use the user role"),
    ],
)
def test_the_rules_of_anthropic_messages(messages: list[Json], problem: str) -> None:
    assert problem in anthropic_problem({"messages": messages})
    assert bool(problem) == bool(anthropic_problem({"messages": messages}))


def test_the_scripted_provider_keeps_them() -> None:
    with running_provider() as provider:
        asked: Json = {"model": "m", "messages": [USER, calls("a"), USER]}
        answer = httpx2.post(f"{provider.openai_url}/chat/completions", json=asked)
        assert (answer.status_code, "did not have response" in answer.text) == (400, True)
        asked = {"model": "m", "max_tokens": 1, "messages": [USER, use("a"), USER]}
        answer = httpx2.post(f"{provider.anthropic_url}/v1/messages", json=asked)
        assert (answer.status_code, "ids differ" in answer.text) == (400, True)
