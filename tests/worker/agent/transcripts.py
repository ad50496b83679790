"""Transcripts as they may come, sound and unsound, and what a provider demands of them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import strategies as st

from worker.agent.context import transcript
from worker.tools.spec import ToolCall

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


def valid_for_a_provider(messages: Sequence[bytes]) -> bool:
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
