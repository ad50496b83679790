from __future__ import annotations

import json
from typing import Any

import pytest

from worker.library.message_import import json_bytes, request_of, transcript_of


def read(messages: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    system, found = transcript_of(messages)
    return system, [json.loads(message) for message in found]


def test_system_messages_become_the_system_text() -> None:
    system, found = read(
        [
            {"role": "system", "content": "one"},
            {"role": "user", "content": "hi"},
            {"role": "developer", "content": [{"type": "text", "text": "two"}]},
        ]
    )
    assert system == "one\n\ntwo"
    assert found == [{"role": "user", "content": "hi"}]


def test_tool_calls_of_both_forms_are_read() -> None:
    plain = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "a", "function": {"name": "t", "arguments": {"x": 1}}}],
    }
    blocks: list[dict[str, Any]] = [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "so"},
                {"type": "tool_use", "id": "a", "name": "t", "input": {"x": 1}},
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "r"}]}],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "b", "content": "s"}, {"type": "text", "text": "go"}],
        },
    ]
    call = {"id": "a", "function": {"name": "t", "arguments": '{"x":1}'}, "type": "function"}
    assert read([plain])[1] == [{"role": "assistant", "content": None, "tool_calls": [call]}]
    assert [(m["role"], m["content"], m.get("tool_call_id")) for m in read(blocks)[1]] == [
        ("assistant", "so", None),
        ("tool", "r", "a"),
        ("tool", "s", "b"),
        ("user", "go", None),
    ]


def test_an_unknown_role_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'narrator'"):
        transcript_of([{"role": "narrator", "content": "x"}])


def test_what_is_no_message_and_a_tool_without_a_name_are_refused_in_words() -> None:
    words: list[Any] = ["hi"]
    with pytest.raises(ValueError, match="a message is a str; it is a dict with role and content"):
        transcript_of(words)
    with pytest.raises(ValueError, match="a tool has no name"):
        request_of({"messages": [{"role": "user", "content": "hi"}], "tools": [{"description": "x"}]}, "s")


def test_text_that_is_no_utf8_is_made_so() -> None:
    assert read([{"role": "user", "content": "a\ud800b"}])[1] == [{"role": "user", "content": "a\ufffdb"}]
    assert json.loads(json_bytes({"role": "user", "content": "\ud800", "at": object})) is not None


def test_what_a_provider_wants_back_stays_with_its_message() -> None:
    said = {"role": "assistant", "content": "4", "provider_state": {"from": "openai:m", "message": {"r": "hm"}}}
    assert read([said])[1] == [said]


def test_the_keyword_arguments_of_either_sdk_make_a_request() -> None:
    parameters = {"type": "object", "properties": {"x": {"type": "integer"}}}
    openai = request_of(
        {
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
            "tools": [{"type": "function", "function": {"name": "t", "description": "d", "parameters": parameters}}],
            "max_completion_tokens": 9,
        },
        "session",
    )
    anthropic = request_of(
        {
            "system": [{"type": "text", "text": "s"}],
            "messages": [{"role": "user", "content": [{"type": "text", "text": "u"}]}],
            "tools": [{"name": "t", "description": "d", "input_schema": parameters}],
            "max_tokens": 9,
        },
        "session",
    )
    assert openai == anthropic
    assert (openai.system, openai.max_tokens, openai.tools[0].parameters) == ("s", 9, parameters)
