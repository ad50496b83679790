"""Whatever the types of the installed SDKs say that a server may send is read, kept, or named: no kind is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import anthropic.types as stable
import anthropic.types.beta as beta
import msgspec
import openai.types.chat as chat
import pytest
from anthropic.types.beta.beta_raw_content_block_delta import BetaRawContentBlockDelta
from openai.types.chat.chat_completion import Choice
from openai.types.chat.chat_completion_chunk import ChoiceDelta, ChoiceDeltaToolCall
from openai.types.chat.chat_completion_message_tool_call import ChatCompletionMessageToolCallUnion

from shared.errors import ContextTooLong
from worker.agent.models.anthropic import AnthropicAnswer
from worker.agent.models.failures import EmptyAnswer, Endpoint, Withheld
from worker.agent.models.openai import OpenAIAnswer
from worker.agent.models.port import LENGTH, PAUSED, ModelReply
from worker.agent.models.provider_state import opaque_of_message

TEXT = {"type": "text", "text": "Here."}
#: how each stop reason ends an answer with words, and what a bare one raises
ENDS: dict[str, tuple[str, type[Exception]]] = {
    "end_turn": ("stop", EmptyAnswer),
    "stop_sequence": ("stop", EmptyAnswer),
    "tool_use": ("stop", EmptyAnswer),
    "max_tokens": (LENGTH, EmptyAnswer),
    "pause_turn": (PAUSED, EmptyAnswer),
    "compaction": (PAUSED, EmptyAnswer),
    "refusal": ("content_filter", Withheld),
    "model_context_window_exceeded": (LENGTH, ContextTooLong),
}
#: a piece of each kind of delta, and where it is found again: in the text, a call's arguments, or a field of the state
DELTAS: dict[str, tuple[dict[str, Any], str]] = {
    "text_delta": ({"text": "words"}, "text"),
    "input_json_delta": ({"partial_json": '{"a":"words"}'}, "arguments"),
    "citations_delta": ({"citation": {"cited_text": "words"}}, "citations"),
    "thinking_delta": ({"thinking": "words"}, "thinking"),
    "signature_delta": ({"signature": "words"}, "signature"),
    "compaction_delta": ({"content": "words"}, "content"),
}
#: what the messages of chat completions hold, and how it is taken
FIELDS: dict[str, Any] = {
    "content": "words",
    "refusal": "words",
    "audio": {"id": "a", "transcript": "words"},
    "function_call": {"name": "roll", "arguments": "{}"},
    "tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "roll", "arguments": "{}"}}],
}
#: what is for the reader of an answer alone: it counts for nothing and does not go back
LEFT_OUT = frozenset(("role", "annotations"))


def kinds(union: Any) -> Iterator[str]:
    """Yield the ``type`` of each member of a union of the SDKs' models."""
    members, _ = get_args(union)
    for model in get_args(members):
        yield get_args(model.model_fields["type"].annotation)[0]


def answered(
    *blocks: dict[str, Any], reason: str | None = "end_turn", streamed: dict[str, Any] | None = None
) -> ModelReply:
    """Return what is made of a message of these blocks, with a delta of the last one where it is streamed."""
    answer = AnthropicAnswer(Endpoint("anthropic", "m"), None)
    for index, block in enumerate(blocks):
        answer.take(msgspec.json.encode({"type": "content_block_start", "index": index, "content_block": block}))
    if streamed is not None:
        event = {"type": "content_block_delta", "index": len(blocks) - 1, "delta": streamed}
        answer.take(msgspec.json.encode(event))
    answer.take(msgspec.json.encode({"type": "message_delta", "delta": {"stop_reason": reason}}))
    return answer.reply()


def test_every_stop_reason_has_an_end() -> None:
    known = {*get_args(stable.StopReason), *get_args(beta.BetaStopReason)}
    assert known <= ENDS.keys()
    for reason in known:
        finish, failure = ENDS[reason]
        assert answered(TEXT, reason=reason).finish == finish
        with pytest.raises(failure):
            answered(reason=reason)


def test_every_kind_of_block_is_read_or_kept_for_its_provider() -> None:
    found = {*kinds(stable.ContentBlock), *kinds(beta.BetaContentBlock)}
    assert len(found) > 15
    for kind in found - {"text", "tool_use"}:
        result = {"type": "any_result", "tool_use_id": "srv_1"}
        block = {"type": kind, "id": "srv_1", "name": "find", "own": "words"}
        state = msgspec.json.decode(answered(block, result, TEXT).state)
        assert state["blocks"][0] == block
    assert answered(TEXT).text == "Here."
    call = {"type": "tool_use", "id": "t", "name": "roll", "input": {}}
    assert [one.name for one in answered(call, reason="tool_use").tool_calls] == ["roll"]


def test_every_kind_of_delta_goes_on_with_its_block() -> None:
    found = {*kinds(stable.RawContentBlockDelta), *kinds(BetaRawContentBlockDelta)}
    assert found <= DELTAS.keys()
    thought = {"type": "thinking", "thinking": ""}
    for kind in found:
        piece, place = DELTAS[kind]
        match place:
            case "text":
                assert answered(TEXT, streamed=piece | {"type": kind}).text == "Here.words"
            case "arguments":
                call = {"type": "tool_use", "id": "t", "name": "roll", "input": {}}
                reply = answered(call, streamed=piece | {"type": kind})
                assert reply.tool_calls[0].arguments == '{"a":"words"}'
            case _:
                opened = TEXT if place == "citations" else {"type": kind.removesuffix("_delta")}
                reply = answered(TEXT, thought, opened, streamed=piece | {"type": kind})
                assert "words" in str(msgspec.json.decode(reply.state)["blocks"][-1][place])


def test_a_refusal_says_what_its_provider_says_of_it() -> None:
    answer = AnthropicAnswer(Endpoint("anthropic", "m"), None)
    details = {"type": "refusal", "category": "cyber", "explanation": "It would do harm."}
    answer.take(
        msgspec.json.encode({"type": "message_delta", "delta": {"stop_reason": "refusal", "stop_details": details}})
    )
    with pytest.raises(Withheld, match=r"refused to answer \(cyber: It would do harm\.\)"):
        answer.reply()


@pytest.mark.parametrize("streamed", [True, False])
def test_every_field_of_a_chat_completion_is_read_or_known_to_be_left_out(*, streamed: bool) -> None:
    model = ChoiceDelta if streamed else chat.ChatCompletionMessage
    for field in set(model.model_fields) - LEFT_OUT:
        choice = {"index": 0, "delta" if streamed else "message": {field: FIELDS[field]}, "finish_reason": "stop"}
        answer = OpenAIAnswer(Endpoint("openai", "m"), None)
        answer.take(msgspec.json.encode({"choices": [choice]}))
        reply = answer.reply()
        assert reply.text == "words" or [call.name for call in reply.tool_calls] == ["roll"]
        assert reply.state == b""
    assert opaque_of_message(dict.fromkeys(LEFT_OUT, "words")) == {}


def test_every_kind_of_call_of_a_chat_completion_is_read() -> None:
    whole = set(kinds(ChatCompletionMessageToolCallUnion))
    pieces = set(get_args(get_args(ChoiceDeltaToolCall.model_fields["type"].annotation)[0]))
    assert whole | pieces == {"function", "custom"}
    for kind, given in (("function", "arguments"), ("custom", "input")):
        answer = OpenAIAnswer(Endpoint("openai", "m"), None)
        for piece in ({"id": "c", "type": kind, kind: {"name": "run", given: "a"}}, {kind: {given: "b"}}):
            answer.take(msgspec.json.encode({"choices": [{"delta": {"tool_calls": [{"index": 0, **piece}]}}]}))
        (call,) = answer.reply().tool_calls
        assert (call.name, call.arguments) == ("run", "ab")


def test_every_finish_of_a_chat_completion_is_one_of_ours() -> None:
    for reason in get_args(Choice.model_fields["finish_reason"].annotation):
        answer = OpenAIAnswer(Endpoint("openai", "m"), None)
        delta = {"content": "words"}
        answer.take(msgspec.json.encode({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}))
        expected = reason if reason in {"length", "content_filter"} else "stop"
        assert answer.reply().finish == expected
