from __future__ import annotations

import json

import pytest
from hypothesis import given, settings

from tests.worker.agent.transcripts import PARTS, valid_for_a_provider
from worker.agent import transcript
from worker.agent.context import repair, role_of
from worker.agent.models.port import ToolCall


@settings(derandomize=True, max_examples=400)
@given(PARTS)
def test_a_repaired_transcript_is_valid_and_stays_as_it_is(messages: list[bytes]) -> None:
    repaired = repair(messages)
    sane = [message for message in repaired if role_of(message) in {"user", "assistant", "tool", "system"}]
    assert valid_for_a_provider(sane)
    assert repair(repaired) == repaired
    kept = [message for message in messages if role_of(message) in {"user", "assistant"}]
    assert [message for message in repaired if role_of(message) in {"user", "assistant"}] == kept


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
