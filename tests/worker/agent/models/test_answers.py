"""Events of servers that keep to the protocol in their own ways, fed to the two answers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shared.errors import ContextTooLong, ModelRejected, ModelUnavailable
from worker.agent.models.anthropic import AnthropicAnswer
from worker.agent.models.failures import EmptyAnswer, Endpoint
from worker.agent.models.openai import OpenAIAnswer
from worker.agent.models.port import ModelReply

OPENAI = Endpoint("openai", "m")
ANTHROPIC = Endpoint("anthropic", "m")


def openai_reply(*events: dict[str, Any]) -> ModelReply:
    answer = OpenAIAnswer(OPENAI, None)
    for event in events:
        answer.take(msgspec.json.encode(event))
    return answer.reply()


def anthropic_reply(*events: dict[str, Any]) -> ModelReply:
    answer = AnthropicAnswer(ANTHROPIC, None)
    for event in events:
        answer.take(msgspec.json.encode(event))
    return answer.reply()


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"delta": fields, "finish_reason": None}]}


def call_part(**fields: Any) -> dict[str, Any]:
    function = {name: fields.pop(name) for name in ("name", "arguments") if name in fields}
    return delta(tool_calls=[fields | {"function": function}])


def test_calls_that_are_all_numbered_zero_are_told_by_their_ids() -> None:
    reply = openai_reply(
        call_part(index=0, id="a", name="roll", arguments='{"sides":6}'),
        call_part(index=0, id="b", name="roll", arguments='{"sides":8}'),
    )
    assert [(call.id, call.arguments) for call in reply.tool_calls] == [("a", '{"sides":6}'), ("b", '{"sides":8}')]


def test_calls_without_numbers_follow_each_other() -> None:
    reply = openai_reply(
        call_part(id="a", name="roll"), call_part(arguments='{"sides'), call_part(arguments='":6}'),
        call_part(id="b", name="now", arguments=""),
    )  # fmt: skip
    assert [(call.id, call.name, call.arguments) for call in reply.tool_calls] == [
        ("a", "roll", '{"sides":6}'),
        ("b", "now", "{}"),
    ]


def test_calls_without_ids_get_their_own() -> None:
    reply = openai_reply(call_part(index=0, name="now"), call_part(index=1, name="now"))
    assert len({call.id for call in reply.tool_calls}) == 2
    assert all(call.id for call in reply.tool_calls)


def test_an_answer_that_is_not_streamed_is_taken_whole() -> None:
    reply = openai_reply(
        {
            "choices": [{"message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 5}},
        }
    )
    assert reply.text == "hello"
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.cached_tokens) == (7, 2, 5)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "upstream overloaded", "code": 502}, ModelUnavailable),
        ({"message": "slow down", "code": "rate_limit_exceeded"}, ModelUnavailable),
        ({"message": "maximum context length is 5", "code": 400}, ContextTooLong),
        ({"message": "too long: maximum context length", "code": "context_length_exceeded"}, ContextTooLong),
        ({"message": "no such key", "code": 401}, ModelRejected),
        ("it broke", ModelUnavailable),
    ],
)
def test_an_error_inside_an_openai_stream(error: object, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        openai_reply(delta(content="hel"), {"error": error})


@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        ("overloaded_error", ModelUnavailable),
        ("rate_limit_error", ModelUnavailable),
        ("api_error", ModelUnavailable),
        ("authentication_error", ModelRejected),
        ("request_too_large", ContextTooLong),
    ],
)
def test_an_error_inside_an_anthropic_stream(type_: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="anthropic:m"):
        anthropic_reply({"type": "error", "error": {"type": type_, "message": "words"}})


def test_anthropic_usage_counts_the_cache_and_keeps_what_is_told_once() -> None:
    start = {"input_tokens": 3, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20, "output_tokens": 1}
    reply = anthropic_reply(
        {"type": "message_start", "message": {"usage": start}},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Four."}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    )
    assert reply.text == "Four."
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.cached_tokens) == (123, 9, 100)


def test_refusals_and_full_windows_are_told_apart_from_emptiness() -> None:
    def ends(reason: str) -> dict[str, Any]:
        return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": None}

    with pytest.raises(ModelRejected, match="refused"):
        anthropic_reply(ends("refusal"))
    with pytest.raises(ContextTooLong):
        anthropic_reply(ends("model_context_window_exceeded"))
    with pytest.raises(EmptyAnswer, match="end_turn"):
        anthropic_reply(ends("end_turn"))
    with pytest.raises(ModelRejected, match="content_filter"):
        openai_reply({"choices": [{"delta": {}, "finish_reason": "content_filter"}]})
