"""What a completions body may be, and how it is split."""

from __future__ import annotations

import base64
import gzip
import json
import time
import zlib
from collections.abc import Iterator
from itertools import chain
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.openai_api.chat_body import ChatBody
from gateway.openai_api.content import FileBatch
from gateway.openai_api.json_body import decode, inflate
from gateway.openai_api.requests import ChatRequest, links_shown, read_chat
from gateway.openai_api.responses_body import ResponsesBody
from gateway.responses import Refused
from shared.attachments import Upload
from shared.loose_json import has_more_values

MODELS = ("offline", "openai:gpt")


def read(data: bytes, models: tuple[str, ...] = MODELS, *, in_session: bool) -> ChatRequest:
    return read_chat(decode(data, ChatBody), models, in_session=in_session)


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "gatehouse", "messages": [{"role": "user", "content": "hi"}]} | fields).encode()


def refused(data: bytes, *, in_session: bool = False) -> Refused:
    with pytest.raises(Refused) as caught:
        read(data, in_session=in_session)
    return caught.value


def nested(levels: int) -> dict[str, Any]:
    """Return objects in each other."""
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"properties": value}
    return value


FULL = 4_000_000
TOOL = b'"tools": [{"function": {"name": "roll", "parameters": {"enum": [%s]}}}]'


@pytest.mark.parametrize(
    ("field", "one"),
    [
        (b'"messages": [{"role": "user", "content": [%s]}]', b'{"type": "text", "text": "hi"}'),
        (b'"messages": [{"role": "assistant", "tool_calls": [%s]}]', b'{"id": "a", "function": {"name": "roll"}}'),
        (b'"tools": [%s]', b'{"function": {"name": "roll"}}'),
        (b'"tools": [%s]', b'{"type": "custom", "custom": {"name": "roll"}}'),
        (b'"stop": [%s]', b'"a"'),
        (b'"metadata": {%s}', b'"a": "b"'),
        (b'"logit_bias": {%s}', b'"a": 1e300'),
        (b'"nobody": [%s]', b"[]"),
        (TOOL, b"[]"),
        (TOOL, b'{"a": {}}'),
        (TOOL, b"1e300"),
    ],
    ids=str,
)
def test_a_body_of_very_many_values_is_refused_before_they_are_read(field: bytes, one: bytes) -> None:
    """Reading them is one step that nothing interrupts; numbers like 1e300 alone took half a minute of it."""
    started = time.thread_time()
    for kind, key in ((ChatBody, b'"messages": []'), (ResponsesBody, b'"input": ""')):
        with pytest.raises(Refused, match="more than 100000 names and values"):
            decode(b'{"model": "a", %s, %s}' % (key, field % b",".join([one] * (FULL // len(one)))), kind)
    assert time.thread_time() - started < 2
    largest = b'{"model": "a", "messages": [], %s}' % (TOOL % b",".join([b"1e300"] * 99_000))
    started = time.thread_time()
    decode(largest, ChatBody)
    assert time.thread_time() - started < 0.3  # msgspec's own way takes 0.7 s


def test_words_are_no_values_whatever_stands_in_them() -> None:
    text = 'for (i = [0, 1]; {"a": "\\"}) "\u00e4"' * 60_000
    assert read(body(messages=[{"role": "user", "content": text}]), in_session=False).text == text
    pair = [{"role": "user", "content": "roll"}, {"role": "assistant", "content": "6, it says"}]
    assert len(read(body(messages=[*pair * 2_499, pair[0]]), in_session=False).history) == 4_998


def test_a_number_past_the_largest_is_refused_in_a_body_of_any_size() -> None:
    for filler in ("", "x" * 10_000):
        error = refused(
            b'{"model": "%s", "messages": [], "metadata": {}, "prompt_cache_options": {"a": 1e999}}' % filler.encode()
        )
        assert error.status_code == 400
    assert refused(body(logit_bias={"106": "much"})).param == "logit_bias"


@settings(max_examples=40)
@given(
    st.recursive(
        st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_names_and_values_are_counted_as_they_are(value: Any) -> None:
    text = json.dumps(value).encode()
    starts = starts_of(value)
    assert not has_more_values(text, starts)
    assert starts == 0 or has_more_values(text, starts - 1)


def starts_of(value: Any) -> int:
    """Return the brackets that open, commas and colons of a value."""
    match value:
        case dict():
            return max(1, 2 * len(value)) + sum(map(starts_of, value.values()))
        case list():
            return max(1, len(value)) + sum(map(starts_of, value))
        case _:
            return 0


def test_the_last_user_message_is_the_text_and_the_earlier_ones_the_history() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": [{"type": "text", "text": "th"}, {"type": "text", "text": "ree"}]},
    ]
    chat = read(body(messages=messages), in_session=False)
    assert chat.text == "three"
    assert [json.loads(message) for message in chat.history] == messages[:3]


def test_in_a_session_only_the_last_user_message_counts() -> None:
    messages = [
        {"role": "user", "content": "one"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "three"},
    ]
    chat = read(body(messages=messages), in_session=True)
    assert (chat.text, chat.history) == ("two", ())


def test_tool_calls_of_the_past_stay_in_the_history() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "roll", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "roll"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "6"},
        {"role": "user", "content": "again"},
    ]
    chat = read(body(messages=messages), in_session=False)
    past = [json.loads(message) for message in chat.history]
    assert past[1] == {"role": "assistant", "content": None, "tool_calls": [call]}
    assert past[2]["tool_call_id"] == "c1"


def test_a_developer_message_is_a_system_message() -> None:
    messages = [{"role": "developer", "content": "x"}, {"role": "user", "content": "y"}]
    chat = read(body(messages=messages), in_session=False)
    assert json.loads(chat.history[0])["role"] == "system"


@pytest.mark.parametrize("model", ["gatehouse", *MODELS])
def test_the_models_that_are_listed_may_be_named(model: str) -> None:
    assert read(body(model=model), in_session=False).model == model


def test_usage_is_sent_when_it_is_asked_for() -> None:
    chat = read(body(stream=True, stream_options={"include_usage": True}), in_session=False)
    assert chat.stream
    assert chat.include_usage


def test_an_unknown_model_is_a_404_that_names_those_there_are() -> None:
    error = refused(body(model="gpt-9"))
    assert (error.status_code, error.code, error.param) == (404, "model_not_found", "model")
    assert "openai:gpt" in error.detail


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "  "}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "text": "x"}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
        ({"messages": [{"role": "assistant", "content": "y"}]}, "messages"),
        ({"model": None}, "model"),
        ({"n": 3}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"temprature": 1}, "temprature"),
        ({"temperature": 3}, "temperature"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"logprobs": True}, "logprobs"),
        ({"functions": [{}]}, "functions.0.name"),
        ({"modalities": ["audio"]}, "modalities.0"),
        ({"audio": {}}, "audio"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "custom"}]}, "tools.0.custom"),
        ({"tools": [{"type": "mcp"}]}, "tools.0.type"),
        ({"tools": [{"function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 2**64}, "max_tokens"),
        ({"seed": -(2**64)}, "seed"),
        ({"tools": [{"function": {"name": "a", "parameters": {"x": [1, 2**64]}}}]}, "tools.0.function.parameters"),
        ({"tools": [{"function": {"name": "a", "parameters": nested(101)}}]}, "tools.0.function.parameters"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": nested(900)}}},
            "response_format.json_schema.schema",
        ),
        ({"messages": [{"role": "user", "content": "x"}] * 5_001}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages.0.content.0"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y"}}]}]},
            "messages.0.content.0.image_url.url",
        ),
    ],
)
def test_a_wrong_field_is_a_400_that_names_it(fields: dict[str, Any], param: str) -> None:
    error = refused(body(**fields))
    assert (error.status_code, error.param) == (400, param)
    assert "Expected" not in error.detail or error.detail.startswith(f"{param}: ")


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"hello", b'{"model": "\xff\xfe"}', b"[" * 100_000, b'{"messages": ' + b"[" * 100_000, b'{"a":1'],
)
def test_what_is_not_a_json_object_is_a_400(data: bytes) -> None:
    assert refused(data).status_code == 400


def test_a_session_without_a_user_message_is_a_400() -> None:
    messages = [{"role": "system", "content": "x"}]
    assert refused(body(messages=messages), in_session=True).param == "messages"


PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n and more").decode()
IMAGE: dict[str, Any] = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "roll", "arguments": "{}"}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "6"}


def parts(messages: list[dict[str, Any]], *, in_session: bool) -> tuple[list[str], list[str], str]:
    """Return the roles of the history and of what is new, and the text."""
    chat = read(body(messages=messages), in_session=in_session)
    return (
        [json.loads(one)["role"] for one in chat.history],
        [json.loads(one)["role"] for one in chat.options.opening],
        chat.text,
    )


def test_results_of_the_clients_tools_are_what_is_new() -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "roll"}, CALLED, RESULT]
    assert parts(messages, in_session=False) == (["user", "assistant"], ["tool"], "roll")
    assert parts(messages, in_session=True) == (["user", "assistant"], ["tool"], "roll")
    more = [*messages, {"role": "user", "content": "and again"}]
    assert parts(more, in_session=True) == (["user", "assistant"], ["tool", "user"], "and again")
    assert parts(more, in_session=False) == (["user", "assistant", "tool"], [], "and again")


def test_a_begun_answer_and_a_late_system_message_are_taken() -> None:
    begun = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    assert parts(begun, in_session=False) == ([], ["user", "assistant"], "x")
    assert parts(begun, in_session=True) == ([], ["user", "assistant"], "x")
    late = [{"role": "user", "content": "x"}, {"role": "system", "content": "be brief"}]
    assert parts(late, in_session=False) == ([], ["user", "system"], "x")
    assert parts(late, in_session=True) == ([], [], "x")
    chat = read(body(messages=late), in_session=True)
    assert chat.options.system == "be brief"


def test_images_are_attached_to_the_messages_that_show_them_and_what_cannot_be_read_of_old_ones_is_named() -> None:
    new = {"role": "user", "content": [{"type": "text", "text": "what is it"}, IMAGE]}
    short: Any = {**IMAGE, "image_url": IMAGE["image_url"]["url"]}
    assert read(body(messages=[{"role": "user", "content": [short]}]), in_session=False).uploads.attachments
    chat = read(body(messages=[new]), in_session=False)
    (attachment,) = chat.uploads.attachments
    assert (chat.text, attachment.media_type) == ("what is it", "image/png")
    assert chat.uploads.data[attachment.digest].startswith(b"\x89PNG")
    sound = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
    bad = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    old = {"role": "user", "content": [{"type": "text", "text": "and"}, bad, sound]}
    later = read(body(messages=[new, old, {"role": "user", "content": "well"}]), in_session=False)
    shown, named = map(json.loads, later.history)
    assert [one["digest"] for one in shown["attachments"]] == [attachment.digest] == list(later.uploads.data)
    assert named["content"].count("not read") == 2
    assert later.uploads.attachments == ()
    kept = read(body(messages=[new, CALLED, RESULT]), in_session=True)  # a session has its own history
    assert "not shown any more" in json.loads(kept.history[0])["content"]
    assert kept.uploads.data == {}


def test_linked_files_are_those_of_the_messages_that_show_them() -> None:
    def linked(role: str, url: str) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "image_url", "image_url": {"url": url}}]}

    messages = [linked("user", "http://a/1"), linked("assistant", "http://a/2"), linked("user", "HTTPS://a/3")]
    chat = decode(body(messages=messages), ChatBody)
    assert links_shown(chat, MODELS, in_session=False) == ["HTTPS://a/3", "http://a/1"]
    assert links_shown(chat, MODELS, in_session=True) == ["HTTPS://a/3"]
    files = FileBatch({"HTTPS://a/3": Upload("3", "image/png", base64.b64decode(PIXEL))})
    read_chat_now = read_chat(chat, MODELS, in_session=False, files=files)
    assert [one.media_type for one in read_chat_now.uploads.attachments] == ["image/png"]
    assert "too many files" in json.loads(read_chat_now.history[0])["content"]


def test_what_steers_a_model_is_passed_on_and_what_it_does_not_take_is_refused_by_name() -> None:
    given = {"temperature": 0.2, "top_p": 0.5, "seed": 3, "stop": "x", "reasoning_effort": "low", "presence_penalty": 0}
    chat = read(body(**given, max_tokens=9), ("openai:gpt",), in_session=False)
    assert chat.options.fields == {name: value for name, value in given.items() if name != "presence_penalty"}
    assert chat.options.max_tokens == 9
    with pytest.raises(Refused) as caught:
        read(body(temperature=0.2), ("anthropic:claude",), in_session=False)
    assert (caught.value.param, caught.value.status_code) == ("temperature", 400)
    read(body(temperature=1, stop=["x"]), ("anthropic:claude",), in_session=False)


def structs_below(kind: Any) -> Iterator[type[msgspec.Struct]]:
    """Yield a struct and those that its fields hold."""
    for field in msgspec.structs.fields(kind):
        for part in {field.type, *get_args(field.type), *chain(*map(get_args, get_args(field.type)))}:
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                yield from structs_below(part)
    yield kind


@pytest.mark.parametrize("kind", [ChatBody, ResponsesBody])
def test_null_stands_for_whatever_may_be_left_out(kind: type[msgspec.Struct]) -> None:
    structs = set(structs_below(kind))
    assert len(structs) > 5
    for struct in structs:
        for field in msgspec.structs.fields(struct):
            if not field.required:
                assert msgspec.convert(None, field.type) is None, f"{struct.__name__}.{field.name}"


def test_messages_without_a_word_are_passed_over() -> None:
    said = [
        {"role": "system", "content": None}, {"role": "user", "content": "a"}, {"role": "assistant", "content": ""},
        {"role": "user", "content": "b"}, {"role": "assistant"}, {"role": "user", "content": "c"},
        {"role": "assistant", "content": [{"type": "text", "text": None}]},
    ]  # fmt: skip
    chat = read(body(messages=said), in_session=False)
    assert ([json.loads(message)["content"] for message in chat.history], chat.text) == (["a", "b"], "c")
    assert refused(body(messages=[*said, {"role": "user", "content": " "}])).param == "messages.7.content"


def test_calls_of_the_past_are_read_however_their_arguments_are_written() -> None:
    functions: list[Any] = [{"name": "f", "arguments": written} for written in ('{"a": 1}', {"a": 1}, {}, "", None)]
    calls = [{"id": f"c{number}", "function": function} for number, function in enumerate(functions)]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": None} for call in calls]
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": calls}, *results]
    chat = read(body(messages=said), in_session=False)
    arguments = [call["function"]["arguments"] for call in json.loads(chat.history[-1])["tool_calls"]]
    assert arguments == ['{"a": 1}', '{"a":1}', "{}", "", "{}"]
    assert [json.loads(message)["content"] for message in chat.options.opening] == [""] * 5


def test_a_choice_may_allow_some_of_the_tools() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("roll", "draw")]
    choice: Any = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": tools[1:]}}
    asked = read(body(tools=tools, tool_choice=choice), in_session=False)
    assert [tool.name for tool in asked.options.tools] == ["draw"]
    assert asked.options.fields == {"tool_choice": "required"}
    assert refused(body(tools=tools[:1], tool_choice=choice)).param == "tool_choice"


def test_a_choice_of_no_tool_offers_none() -> None:
    tools = [{"type": "function", "function": {"name": "roll"}}]
    asked = read(body(tools=tools, tool_choice="none"), in_session=False)
    assert (asked.options.tools, asked.options.fields) == ((), {})
    named = {"type": "function", "function": {"name": "roll"}}
    asked = read(body(tools=tools, tool_choice=named), in_session=False)
    assert asked.options.fields == {"tool_choice": named}


def test_halves_of_a_character_become_whole_or_are_replaced() -> None:
    raw = b'{"model": "gatehouse", "messages": [{"role": "user", "content": "\\ud83d\\ude00 \\ud83d"}]}'
    for mark in (b"", b"\xef\xbb\xbf"):
        assert read(mark + raw, in_session=False).text == "\U0001f600 \ufffd"


def test_a_schema_of_many_levels_is_taken() -> None:
    tools = [{"function": {"name": "a", "parameters": nested(90)}}]
    asked = read(body(tools=tools), in_session=False)
    assert asked.options.tools[0].parameters == nested(90)


@given(st.binary(max_size=200))
def test_whatever_is_said_to_be_compressed_is_read_or_refused(raw: bytes) -> None:
    assert inflate(gzip.compress(raw), "gzip", 1000) == raw
    assert inflate(gzip.compress(raw) + gzip.compress(b"more"), "gzip", 1000) == raw + b"more"
    assert inflate(zlib.compress(raw), "deflate", 1000) == raw
    assert inflate(zlib.compress(raw, wbits=-15), "deflate", 1000) == raw
    for encoding, data, status in (("br", raw, 415), ("gzip", b"x" + raw, 400), ("gzip", gzip.compress(raw)[:-4], 400)):
        with pytest.raises(Refused) as caught:
            inflate(data, encoding, 1000)
        assert caught.value.status_code == status


def test_a_small_body_that_inflates_without_end_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        inflate(gzip.compress(bytes(10_000_000)), "gzip", 1_000_000)
    assert caught.value.status_code == 413
    with pytest.raises(Refused, match="more than 64 members"):
        inflate(gzip.compress(b"") * 300_000, "gzip", 1_000_000)


@pytest.mark.parametrize("in_session", [False, True])
def test_what_a_call_costs_grows_with_its_messages_and_not_with_their_square(*, in_session: bool) -> None:
    """The gateway's loop reads it: four times the messages may keep others waiting four times as long."""

    def seconds(count: int) -> float:
        pairs = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * (count // 2)
        data = body(messages=[*pairs, {"role": "user", "content": "c"}])
        taken = []
        for _ in range(5):
            began = time.process_time()
            read(data, in_session=in_session)
            taken.append(time.process_time() - began)
        return min(taken)

    # what grows with the square takes sixteen times as long, whatever else the machine does meanwhile
    assert any(seconds(4800) < 8 * seconds(1200) for _ in range(5))
