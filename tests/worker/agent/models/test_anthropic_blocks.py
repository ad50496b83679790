"""The transcript as Anthropic's blocks."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.agent.context import transcript
from worker.agent.models.anthropic_blocks import BlockConverter
from worker.tools.spec import ToolCall

MARK = {"cache_control": {"type": "ephemeral"}}


def system(text: str) -> bytes:
    return msgspec.json.encode({"role": "system", "content": text})


def converted(messages: list[bytes], prompt: str = "") -> tuple[Any, Any]:
    blocks, turns, _ = BlockConverter().system_and_messages(prompt, messages)
    return msgspec.json.decode(blocks), msgspec.json.decode(turns)


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def test_a_turn_with_tools() -> None:
    calls = [ToolCall("call_1", "roll", '{"sides": 6}'), ToolCall("call_2", "now", "{}")]
    messages = [
        transcript.user("roll “it”\n"),
        transcript.assistant("Rolling.", calls),
        transcript.tool(calls[0], "4"),
        transcript.tool(calls[1], ""),
        transcript.assistant("A four."),
        transcript.user("again"),
    ]
    blocks, turns = converted(messages, "Be brief.")
    assert blocks == [text("Be brief.") | MARK]
    assert turns == [
        {"role": "user", "content": [text("roll “it”\n")]},
        {
            "role": "assistant",
            "content": [
                text("Rolling."),
                {"type": "tool_use", "id": "call_1", "name": "roll", "input": {"sides": 6}},
                {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "4"},
                {"type": "tool_result", "tool_use_id": "call_2"} | MARK,
            ],
        },
        {"role": "assistant", "content": [text("A four.")]},
        {"role": "user", "content": [text("again") | MARK]},
    ]


def test_the_ends_of_this_call_and_of_the_one_before_are_marked_for_the_cache() -> None:
    calls = [ToolCall(f"c{number}", "now", "{}") for number in range(100)]
    messages = [transcript.user("now?")]
    _, first = converted(messages)
    messages += [transcript.assistant("", calls), *(transcript.tool(call, "noon") for call in calls)]
    _, second = converted(messages)
    assert second[: len(first)] == first  # what the first call left in the cache is found behind a mark
    assert second[-1]["content"][-1] == {"type": "tool_result", "tool_use_id": "c99", "content": "noon"} | MARK
    messages += [transcript.assistant("Noon."), transcript.user("thanks")]
    _, third = converted(messages)
    assert third[1 : len(second)] == second[1:]
    assert [str(turn).count("cache_control") for turn in third] == [0, 0, 1, 0, 1]


def test_arguments_that_are_no_object_are_sent_as_one() -> None:
    calls = [ToolCall("a", "roll", '{"sides": '), ToolCall("b", "roll", "[1]")]
    _, turns = converted([transcript.user("x"), transcript.assistant("", calls), transcript.user("y")])
    assert [block["input"] for block in turns[1]["content"]] == [
        {"unreadable_arguments": '{"sides": '},
        {"unreadable_arguments": "[1]"},
    ]


def test_ids_of_other_providers_are_made_safe_on_both_sides() -> None:
    call = ToolCall("functions.roll:0", "roll", "{}")
    _, turns = converted([transcript.user("x"), transcript.assistant("", [call]), transcript.tool(call, "4")])
    assert turns[1]["content"][0]["id"] == turns[2]["content"][0]["tool_use_id"] == "functions_roll_0"


def test_no_empty_text_is_sent() -> None:
    messages = [transcript.user(""), transcript.assistant(" \n"), transcript.user("hello"), transcript.assistant("")]
    blocks, turns = converted(messages, "  ")
    assert blocks == []
    assert turns == [{"role": "user", "content": [text("(no text)"), text("hello") | MARK]}]


def test_system_messages_join_the_prompt_or_keep_their_place() -> None:
    blocks, turns = converted([system("Summary: …"), transcript.user("hi"), system("It is late.")], "Be brief.")
    assert blocks == [text("Be brief."), text("Summary: …") | MARK]
    (turn,) = turns
    assert [block["text"] for block in turn["content"]] == ["hi", "<system>", "It is late.", "</system>"]


def test_a_window_that_begins_with_the_assistant_gets_a_user_first() -> None:
    _, turns = converted([transcript.assistant("As I said."), transcript.user("yes")])
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]


def test_content_in_parts_is_taken_as_it_is() -> None:
    message = msgspec.json.encode({"role": "user", "content": [text("one"), text("two")]})
    _, turns = converted([message])
    assert turns == [{"role": "user", "content": [text("one"), text("two") | MARK]}]


ROLES = st.sampled_from(["system", "user", "assistant", "tool"])


@settings(max_examples=200)
@given(st.lists(st.tuples(ROLES, st.text(max_size=12)), max_size=12), st.text(max_size=5))
def test_any_transcript_alternates_and_holds_no_blank_text(said: list[tuple[str, str]], prompt: str) -> None:
    call = ToolCall("c", "now", "{}")

    def message(role: str, words: str) -> bytes:
        match role:
            case "assistant":
                return transcript.assistant(words, [call] if len(words) % 2 else ())
            case "tool":
                return transcript.tool(call, words)
            case _:
                return system(words) if role == "system" else transcript.user(words)

    blocks, turns = converted([message(role, words) for role, words in said], prompt)
    roles = [turn["role"] for turn in turns]
    assert roles == [("user", "assistant")[place % 2] for place in range(len(roles))]
    assert all(turn["content"] for turn in turns)
    texts = [block["text"] for turn in turns for block in turn["content"] if block["type"] == "text"]
    assert all(words.strip(" \n\r\t") for words in texts)
    marks = bool(blocks) + 1 + ("user" in roles[:-1])
    assert str([blocks, turns]).count("cache_control") == marks


def test_messages_converted_before_are_not_converted_again() -> None:
    converter = BlockConverter()
    messages = [transcript.user(f"message {number}") for number in range(50)]
    first = converter.system_and_messages("", messages)
    assert converter.system_and_messages("", messages) == first
    assert converter.hits == 50
