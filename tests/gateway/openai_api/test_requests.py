"""What a completions body may be, and how it is split."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.openai_api.requests import parse_chat_request
from gateway.responses import Refused

MODELS = ("offline", "openai:gpt")


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "gatehouse", "messages": [{"role": "user", "content": "hi"}]} | fields).encode()


def refused(data: bytes, *, in_session: bool = False) -> Refused:
    with pytest.raises(Refused) as caught:
        parse_chat_request(data, MODELS, in_session=in_session)
    return caught.value


def test_the_last_user_message_is_the_text_and_the_earlier_ones_the_history() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": [{"type": "text", "text": "th"}, {"type": "text", "text": "ree"}]},
    ]
    chat = parse_chat_request(body(messages=messages), MODELS, in_session=False)
    assert chat.text == "three"
    assert [json.loads(message) for message in chat.history] == messages[:3]


def test_in_a_session_only_the_last_user_message_counts() -> None:
    messages = [
        {"role": "user", "content": "one"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "three"},
    ]
    chat = parse_chat_request(body(messages=messages), MODELS, in_session=True)
    assert (chat.text, chat.history) == ("two", ())


def test_tool_calls_of_the_past_stay_in_the_history() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "roll", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "roll"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "6"},
        {"role": "user", "content": "again"},
    ]
    chat = parse_chat_request(body(messages=messages), MODELS, in_session=False)
    past = [json.loads(message) for message in chat.history]
    assert past[1] == {"role": "assistant", "content": None, "tool_calls": [call]}
    assert past[2]["tool_call_id"] == "c1"


def test_a_developer_message_is_a_system_message() -> None:
    messages = [{"role": "developer", "content": "x"}, {"role": "user", "content": "y"}]
    chat = parse_chat_request(body(messages=messages), MODELS, in_session=False)
    assert json.loads(chat.history[0])["role"] == "system"


@pytest.mark.parametrize("model", ["gatehouse", *MODELS])
def test_the_models_that_are_listed_may_be_named(model: str) -> None:
    assert parse_chat_request(body(model=model), MODELS, in_session=False).model == model


def test_usage_is_sent_when_it_is_asked_for() -> None:
    chat = parse_chat_request(body(stream=True, stream_options={"include_usage": True}), MODELS, in_session=False)
    assert chat.stream
    assert chat.include_usage


def test_an_unknown_model_is_a_404_that_names_those_there_are() -> None:
    error = refused(body(model="gpt-9"))
    assert (error.status_code, error.code, error.param) == (404, "model_not_found", "model")
    assert "openai:gpt" in error.detail


def test_tools_of_the_client_are_refused_with_the_way_to_have_them() -> None:
    error = refused(body(tools=[{"type": "function", "function": {"name": "f"}}]))
    assert (error.status_code, error.param) == (400, "tools")
    assert "tools run on the server" in error.detail


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "  "}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "text": "x"}]}]}, "messages.0.content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, "messages"),
        ({"model": None}, "model"),
        ({"n": 3}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
    ],
)
def test_a_wrong_field_is_a_400_that_names_it(fields: dict[str, Any], param: str) -> None:
    error = refused(body(**fields))
    assert (error.status_code, error.param) == (400, param)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"hello", b'{"model": "\xff\xfe"}', b"[" * 100_000, b'{"messages": ' + b"[" * 100_000, b'{"a":1'],
)
def test_what_is_not_a_json_object_is_a_400(data: bytes) -> None:
    assert refused(data).status_code == 400


def test_a_session_without_a_user_message_is_a_400() -> None:
    messages = [{"role": "system", "content": "x"}]
    assert refused(body(messages=messages), in_session=True).param == "messages"
