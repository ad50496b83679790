"""Events become log lines and counts, and no line shows a secret."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator, Mapping

import pytest

from shared.events import Event, Events, Field, LogWriter

SECRET = "xoxb-very-secret"


class Terminal(io.StringIO):
    """A stream that says people read it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


def written(stream: io.StringIO, event: Event, **fields: str | int) -> str:
    writer = LogWriter([SECRET], stream)
    writer.start()
    Events().emit(event, **fields)
    writer.stop()
    return stream.getvalue()


@pytest.mark.usefixtures("root_logger")
def test_an_event_is_one_json_line_with_its_fields() -> None:
    (line,) = written(io.StringIO(), Event.WORKER_KILLED, n=3, reason="hung").splitlines()
    record = json.loads(line)
    assert record["event"] == "worker_killed"
    assert record["level"] == "warning"
    assert (record["n"], record["reason"]) == (3, "hung")


@pytest.mark.usefixtures("root_logger")
def test_people_on_a_terminal_get_a_plain_line() -> None:
    assert "message_accepted session=standard:default:a" in written(
        Terminal(), Event.MESSAGE_ACCEPTED, session="standard:default:a"
    )


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_secret_is_hidden_wherever_it_stands(stream: io.StringIO) -> None:
    text = written(stream, Event.REQUEST_FAILED, error=f"401 for token {SECRET}!")
    assert SECRET not in text
    assert "***" in text


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_secret_that_json_writes_otherwise_is_hidden_too(stream: io.StringIO) -> None:
    secret = 'a"quote\\and a slash'
    writer = LogWriter([secret], stream)
    writer.start()
    Events().emit(Event.REQUEST_FAILED, error=f"401 for token {secret}!")
    writer.stop()
    assert "401 for token ***!" in stream.getvalue()


@pytest.mark.usefixtures("root_logger")
def test_a_line_break_in_a_field_does_not_forge_a_second_json_line() -> None:
    assert len(written(io.StringIO(), Event.WEBHOOK_REJECTED, error='x\n{"event": "started"}').splitlines()) == 1


HOSTILE = 'x\n12:00:00 info    started \x1b[2J\x9b31m \u202e\r\x7f\t"'


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_nothing_in_a_field_steers_a_terminal_or_forges_a_line(stream: io.StringIO) -> None:
    """In the JSON that people read with ``tail``, too, which still says what it was."""
    text = written(stream, Event.WEBHOOK_REJECTED, error=HOSTILE)
    assert text.count("\n") == 1
    assert text.rstrip("\n").isprintable()
    if not stream.isatty():
        assert json.loads(text)["error"] == HOSTILE


@pytest.mark.usefixtures("root_logger")
def test_a_trace_is_shown_to_people_in_lines_that_cannot_pass_for_events() -> None:
    text = written(Terminal(), Event.WORKER_STACKS, stacks="Thread 1\n  File x\x1b[2J\n12:00:00 info started")
    first, *rest = text.splitlines()
    assert first.endswith("stacks=")
    assert rest == ["    Thread 1", "      File x\\x1b[2J", "    12:00:00 info started"]


@pytest.mark.usefixtures("root_logger")
def test_an_exception_of_a_library_keeps_its_traceback_in_one_line() -> None:
    stream = io.StringIO()
    writer = LogWriter([SECRET], stream)
    writer.start()
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger("uvicorn.error").exception("failed")
    writer.stop()
    (line,) = stream.getvalue().splitlines()
    assert "ValueError" in json.loads(line)["exception"]
    assert SECRET not in line


@pytest.mark.usefixtures("root_logger")
def test_a_subscriber_that_raises_harms_nobody_and_is_said_once() -> None:
    stream, told = io.StringIO(), []
    writer = LogWriter([SECRET], stream)
    writer.start()
    events = Events()

    def broken(event: Event, fields: Mapping[str, Field]) -> None:
        raise ValueError(f"{event} {dict(fields)} {SECRET}")

    events.subscribe(broken)
    events.subscribe(lambda event, fields: told.append((event, dict(fields))))
    for n in (1, 2):
        events.emit(Event.WORKER_READY, n=n)
    writer.stop()
    assert told == [(Event.WORKER_READY, {"n": 1}), (Event.WORKER_READY, {"n": 2})]
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["worker_ready", "subscriber_failed", "worker_ready"]
    assert lines[1]["told"] == "worker_ready"
    assert "ValueError" in lines[1]["exception"]
    assert SECRET not in stream.getvalue()
    assert events.counts[Event.SUBSCRIBER_FAILED] == 2


def test_events_are_counted_by_name() -> None:
    events = Events(logging.getLogger("test.silent"))
    events.emit(Event.REPLY_SENT)
    events.emit(Event.REPLY_SENT)
    assert events.counts[Event.REPLY_SENT] == 2


class Pieces(io.StringIO):
    """A stream that notes how often it is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.written = threading.Event()

    def write(self, text: str) -> int:
        self.writes += 1
        length = super().write(text)
        self.written.set()
        return length


@pytest.mark.usefixtures("root_logger")
def test_lines_of_one_moment_are_one_write_in_their_order() -> None:
    stream, events = Pieces(), Events()
    writer = LogWriter([], stream)
    writer.start()
    for number in range(200):
        events.emit(Event.MESSAGE_ACCEPTED, n=number)
    writer.stop()
    assert [json.loads(line)["n"] for line in stream.getvalue().splitlines()] == list(range(200))
    assert stream.writes < 100


@pytest.mark.usefixtures("root_logger")
def test_a_line_is_written_though_nothing_follows_it_and_a_warning_takes_what_is_before_it_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, events = Pieces(), Events()
    writer = LogWriter([], stream)
    writer.start()
    events.emit(Event.MESSAGE_ACCEPTED, n=1)
    assert stream.written.wait(10)
    stream.written.clear()
    monkeypatch.setattr("shared.events.GATHER_S", 60.0)
    events.emit(Event.MESSAGE_ACCEPTED, n=2)
    events.emit(Event.WORKER_KILLED, n=3)
    assert stream.written.wait(10)
    writer.stop()
    assert [json.loads(line)["n"] for line in stream.getvalue().splitlines()] == [1, 2, 3]


@pytest.mark.usefixtures("root_logger")
def test_a_record_that_cannot_be_written_costs_no_other_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    stream = io.StringIO()
    writer = LogWriter([], stream)
    writer.start()
    logging.getLogger("other").warning("%d of them", "no number")
    Events().emit(Event.WORKER_KILLED, n=1)
    writer.stop()
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["n"] == 1


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_letters_that_the_stream_does_not_have_cost_no_line(encoding: str) -> None:
    sink = io.BytesIO()
    writer = LogWriter([], io.TextIOWrapper(sink, encoding, write_through=True))
    writer.start()
    Events().emit(Event.WORKER_SAID, text="Größe 😀 of J\udcf6rg")
    writer.stop()
    said = sink.getvalue().decode(encoding)
    assert said.count('"event":"worker_said"') == 1
    assert said.endswith("\n")
