"""What models write, made fit for a transcript."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.agent.context import transcript
from worker.agent.sanitize import readable_call, sanitize_calls, sanitize_text
from worker.tools.spec import ToolCall

ANYTHING = st.text(st.characters(exclude_categories=[]))
ARGUMENTS = ANYTHING | st.dictionaries(st.text(), st.integers()).map(lambda value: msgspec.json.encode(value).decode())
CALLS = st.lists(st.builds(ToolCall, st.sampled_from(["", "a", "b"]) | ANYTHING, ANYTHING, ARGUMENTS), max_size=6)


@given(calls=CALLS)
@settings(max_examples=150)
def test_calls_get_ids_of_their_own_and_arguments_that_are_objects(calls: list[ToolCall]) -> None:
    sound = sanitize_calls(calls, "msg_1_1")
    message = transcript.read(transcript.assistant("", [readable_call(call) for call in sound]))
    assert len({call.id for call in sound}) == len(calls)
    assert [call.id for call in message.tool_calls] == [call.id for call in sound]
    assert all(call.id for call in sound)
    assert all(isinstance(msgspec.json.decode(call.function.arguments), dict) for call in message.tool_calls)


@given(text=ANYTHING)
@settings(max_examples=100)
def test_text_becomes_text_that_utf8_can_carry_and_sound_text_stays(text: str) -> None:
    sound = sanitize_text(text)
    assert len(sound) == len(text)
    assert sanitize_text(sound.encode().decode()) == sound


def test_readable_arguments_stay_as_the_model_wrote_them() -> None:
    call = ToolCall("x", "roll", '{ "sides":6 }')
    assert readable_call(call) == call
    assert readable_call(ToolCall("x", "roll", '{"sides"')).arguments == '{"unreadable":"{\\"sides\\""}'
    assert readable_call(ToolCall("x", "roll", "")).arguments == "{}"


def test_an_id_that_stands_in_the_transcript_is_not_given_again() -> None:
    calls = [ToolCall("call_0", "roll", "{}"), ToolCall("call_1", "roll", "{}")]
    messages = [transcript.user('"call_1" is what I say'), transcript.assistant("", calls[:1])]
    assert [call.id for call in sanitize_calls(calls, "msg_1_2", messages)] == ["msg_1_2_0", "call_1"]
