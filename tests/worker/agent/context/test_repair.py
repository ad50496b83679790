from __future__ import annotations

import json

import pytest
from hypothesis import given, settings

from tests.worker.agent.transcripts import PARTS, valid_for_a_provider
from worker.agent.context import transcript
from worker.agent.context.repair import repair, role_of
from worker.tools.spec import ToolCall


@settings(max_examples=400)
@given(PARTS)
def test_a_repaired_transcript_is_valid_and_stays_as_it_is(messages: list[bytes]) -> None:
    repaired = repair(messages)
    sane = [message for message in repaired if role_of(message) in {"user", "assistant", "tool", "system"}]
    assert valid_for_a_provider(sane)
    assert repair(repaired) == repaired
    ids = [call["id"] for message in map(json.loads, sane) for call in message.get("tool_calls", ())]
    assert len(set(ids)) == len(ids)
    assert without_ids(repaired) == without_ids(messages)


def without_ids(messages: list[bytes]) -> list[str]:
    """Return what user and assistant said and which tools were called."""
    said = [json.loads(message) for message in messages if role_of(message) in {"user", "assistant"}]
    return [f"{one['content']} {[call['function'] for call in one.get('tool_calls', ())]}" for one in said]


def test_calls_that_share_an_id_get_one_each_and_keep_their_results() -> None:
    first, second = ToolCall("call_0", "a", "{}"), ToolCall("call_0", "b", "{}")
    messages = [
        transcript.assistant("", [first, second]),
        transcript.tool(first, "of a"),
        transcript.tool(second, "of b"),
        transcript.assistant("", [ToolCall("call_0_2", "c", "{}")]),
    ]
    repaired = repair(messages)
    asked = [[call["id"] for call in json.loads(message).get("tool_calls", ())] for message in repaired]
    results = [(one["tool_call_id"], one["content"]) for one in map(json.loads, repaired) if one["role"] == "tool"]
    assert asked == [["call_0", "call_0_2"], [], [], ["call_0_2_2"], []]
    assert results[:2] == [("call_0", "of a"), ("call_0_2", "of b")]
    assert results[2][0] == "call_0_2_2"


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
