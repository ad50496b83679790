"""The text of a turn as it grows before the reader's eyes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.openai_api.streamed_text import StreamedText


def shown_of(text: StreamedText, step: int, *deltas: str) -> str:
    return "".join(text.add(step, delta) for delta in deltas)


def test_deltas_are_shown_as_they_come_and_the_rest_at_the_end() -> None:
    text = StreamedText()
    assert shown_of(text, 1, "Hel", "lo") == "Hello"
    assert text.rest("Hello there") == " there"


def test_a_reply_that_was_not_streamed_is_shown_whole() -> None:
    assert StreamedText().rest("Hello") == "Hello"


def test_a_reply_that_was_streamed_is_not_shown_again() -> None:
    text = StreamedText()
    shown_of(text, 1, "Hello")
    assert text.rest("Hello") == ""


def test_steps_are_set_apart_by_a_blank_line() -> None:
    text = StreamedText()
    assert shown_of(text, 1, "I look it up.") + shown_of(text, 2, "It ", "is 6.") == "I look it up.\n\nIt is 6."
    assert text.rest("It is 6.") == ""


def test_a_final_reply_after_streamed_steps_is_set_apart_too() -> None:
    text = StreamedText()
    shown_of(text, 1, "I look it up.")
    assert text.rest("It is 6.") == "\n\nIt is 6."


def test_a_turn_that_runs_again_shows_nothing_twice() -> None:
    text = StreamedText()
    assert shown_of(text, 1, "Hello th") == "Hello th"
    text.begin_again()
    assert shown_of(text, 1, "Hel", "lo ", "there") == "ere"


def test_a_turn_that_goes_another_way_is_shown_in_full() -> None:
    text = StreamedText()
    shown_of(text, 1, "Hello")
    text.begin_again()
    assert shown_of(text, 1, "Good", " day") == "\n\nGood day"
    assert text.rest("Good day") == ""


@given(st.text(), st.data())
def test_however_a_reply_is_cut_and_repeated_the_reader_has_it_once(reply: str, data: st.DataObject) -> None:
    text = StreamedText()
    shown = ""
    for _ in range(data.draw(st.integers(1, 3))):
        text.begin_again()
        cuts = sorted(data.draw(st.lists(st.integers(0, len(reply)), max_size=5)))
        for begin, end in zip([0, *cuts], cuts, strict=False):
            shown += text.add(1, reply[begin:end])
    assert shown + text.rest(reply) == reply
