from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.agent import transcript
from worker.agent.context import estimate_tokens, repair, role_of, window
from worker.agent.models.port import ToolCall

PARTS = st.lists(
    st.one_of(
        st.builds(transcript.user, st.text(max_size=200)),
        st.builds(transcript.assistant, st.text(max_size=200)),
        st.builds(
            lambda ids: transcript.assistant("", [ToolCall(call_id, "t", "{}") for call_id in ids]),
            st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True),
        ),
        st.builds(
            lambda call_id, text: transcript.tool(ToolCall(call_id, "t", "{}"), text),
            st.sampled_from("abcd"),
            st.text(max_size=200),
        ),
        st.sampled_from([b"", b"nonsense", b'{"role":"tool"}', b'{"role":"who"}', b'{"tool_calls":7}', b"[]"]),
    ),
    max_size=25,
)


def valid_for_a_provider(messages: list[bytes]) -> bool:
    """Whether behind every assistant message stands exactly one result for each of its calls, and no other result."""
    waiting: list[str] = []
    for message in map(json.loads, messages):
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                return False
            waiting.remove(message["tool_call_id"])
        elif waiting:
            return False
        else:
            waiting = [call["id"] for call in message.get("tool_calls", ())]
    return not waiting


@settings(derandomize=True, max_examples=400)
@given(PARTS)
def test_a_repaired_transcript_is_valid_and_stays_as_it_is(messages: list[bytes]) -> None:
    repaired = repair(messages)
    sane = [message for message in repaired if role_of(message) in {"user", "assistant", "tool", "system"}]
    assert valid_for_a_provider(sane)
    assert repair(repaired) == repaired
    kept = [message for message in messages if role_of(message) in {"user", "assistant"}]
    assert [message for message in repaired if role_of(message) in {"user", "assistant"}] == kept


@settings(derandomize=True, max_examples=400)
@given(PARTS, st.integers(1, 400))
def test_a_window_is_a_valid_end_of_the_transcript_that_starts_with_a_user(messages: list[bytes], budget: int) -> None:
    repaired = [
        message
        for message in repair([transcript.user("start"), *messages])
        if role_of(message) in {"user", "assistant", "tool"}
    ]
    shown = window(repaired, budget)
    assert valid_for_a_provider(shown)
    assert role_of(shown[0]) == "user"
    assert shown[-1] == repaired[-1]
    if sum(map(estimate_tokens, repaired)) <= budget:
        assert shown == repaired
    tail = shown[1:] if shown != repaired[-len(shown) :] else shown  # a long turn's user message is moved up
    assert tail == repaired[len(repaired) - len(tail) :]


def test_a_cut_window_leaves_room_so_that_the_next_turns_keep_its_start() -> None:
    shown = window([transcript.user(f"{number:0400}") for number in range(200)], 10_000)
    assert 65 <= len(shown) <= 70
    starts = {shown[0]}
    for number in range(20):
        shown = window([*shown, transcript.user(f"{number:0400}")], 10_000)
        starts.add(shown[0])
    assert len(starts) == 1
    assert len(shown) >= 85


def test_a_long_turn_keeps_its_question_and_its_newest_steps() -> None:
    steps = []
    for number in range(50):
        call = ToolCall(f"c{number}", "t", "{}")
        steps += [transcript.assistant("", [call]), transcript.tool(call, "x" * 400)]
    shown = window([transcript.user("old"), transcript.assistant("done"), transcript.user("question"), *steps], 1000)
    assert json.loads(shown[0])["content"] == "question"
    assert 2 < len(shown) < 20
    assert shown[1:] == steps[-len(shown) + 1 :]
    assert valid_for_a_provider(shown)


def test_a_last_message_larger_than_the_budget_is_kept() -> None:
    call = ToolCall("a", "t", "{}")
    messages = [transcript.user("q"), transcript.assistant("", [call]), transcript.tool(call, "x" * 100_000)]
    assert window(messages, 100) == messages
    assert window([], 100) == []


def test_a_cut_off_call_is_told_to_be_of_unknown_outcome() -> None:
    call = ToolCall("a", "send", "{}")
    repaired = repair([transcript.user("q"), transcript.assistant("", [call]), transcript.user("and?")])
    result = json.loads(repaired[2])
    assert (result["role"], result["tool_call_id"], result["name"]) == ("tool", "a", "send")
    assert "outcome unknown" in result["content"]
    assert repair([transcript.assistant("", [call])], "gone")[-1] == transcript.tool(call, "gone")


@pytest.mark.parametrize("message", [b"", b"{", b"7", b'{"role": 7}', b"\xff"])
def test_what_is_no_message_has_no_role(message: bytes) -> None:
    assert role_of(message) == ""
