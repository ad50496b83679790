"""Directives: what a message scripts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loadtests.directives import WantedCall, read_script


def test_a_message_without_directives_is_one_step_of_plain_text() -> None:
    (segment,) = read_script("hello [[there]]")
    assert segment.directives == ()
    assert segment.text == "hello [[there]]"


def test_brackets_in_a_tool_calls_arguments_do_not_close_it() -> None:
    (segment,) = read_script('go [[tool roll {"sides": [[6]]}]] now')
    assert [d.call for d in segment.directives] == [WantedCall("roll", '{"sides": [[6]]}')]
    assert segment.text == "go now"


def test_broken_arguments_are_kept_as_they_are_written() -> None:
    (segment,) = read_script('[[tool roll {"sides": ]]')
    assert segment.directives[0].call == WantedCall("roll", '{"sides":')


def test_a_tool_call_without_arguments_has_an_empty_object() -> None:
    (segment,) = read_script("[[tools 3 roll]]")
    assert segment.directives[0].call == WantedCall("roll", "{}", 3)


def test_options_stand_at_the_end_of_a_directive() -> None:
    (segment,) = read_script("[[status 529 retry-after=1 times=2]]")
    (directive,) = segment.directives
    assert (directive.name, directive.words) == ("status", "529")
    assert directive.options == {"retry-after": "1", "times": "2"}
    assert directive.times == 2


def test_then_separates_the_steps_of_a_turn() -> None:
    first, second, third = read_script("do it [[tool a]] [[then]] [[sleep 1]] [[tool b]] [[then]] [[say done]]")
    assert [d.name for d in first.directives] == ["tool"]
    assert [d.name for d in second.directives] == ["sleep", "tool"]
    assert third.directives[0].words == "done"
    assert first.text == "do it"


@given(st.text(alphabet='[]{}" toolsaythn0123=', max_size=60))
def test_no_text_breaks_the_reading(text: str) -> None:
    segments = read_script(text)
    assert segments
    assert sum(len(segment.directives) for segment in segments) <= text.count("[[")
