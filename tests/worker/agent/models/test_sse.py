"""The event decoder: the same events however the stream is cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import ModelUnavailable
from worker.agent.models import sse
from worker.agent.models.sse import EventDecoder

#: a line of data; one that says so itself is a line that a proxy wrapped once more
LINES = st.binary(min_size=1, max_size=8).filter(
    lambda data: not {*b"\r\n"} & {*data} and not data.startswith(b"data:")
)
EVENTS = st.lists(st.lists(LINES, min_size=1, max_size=3), max_size=5)


def decode(stream: bytes, cuts: list[int]) -> list[bytes]:
    decoder = EventDecoder()
    marks = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(marks)]
    return [event for piece in pieces for event in decoder.feed(piece)]


@settings(max_examples=200)
@given(EVENTS, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(0, 200), max_size=8))
def test_events_survive_any_cut_and_line_end(events: list[list[bytes]], line_end: bytes, cuts: list[int]) -> None:
    stream = b"".join(
        b"event: x" + line_end + b"".join(b"data: " + line + line_end for line in event) + line_end for event in events
    )
    # A lone CR at the very end waits for the LF that may follow it.
    stream += b":" if line_end == b"\r" else b""
    assert decode(stream, cuts) == [b"\n".join(event) for event in events]


def test_comments_other_fields_and_data_without_a_blank() -> None:
    stream = b": ping\n\nid: 7\nretry: 10\ndata:{}\n\ndata:  two blanks\n\ndata\n\n"
    assert EventDecoder().feed(stream) == [b"{}", b" two blanks"]


def test_an_event_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    decoder = EventDecoder()
    decoder.feed(b"data: " + b"x" * 900)
    with pytest.raises(ModelUnavailable):
        decoder.feed(b"x" * 200)
