"""What a session log lost, found by its history and appended."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.redaction import Redaction
from shared.session_files import log_line, logged_messages, read_log, session_log_path
from shared.session_segments import remove_log, segment_numbers
from worker.agent.context import transcript
from worker.session_log import repair
from worker.session_log.file import append_lines
from worker.session_log.repair import repair_log
from worker.session_log.rotation import rotate
from worker.tools.spec import ToolCall

SESSION = "test:a:s"


def said(*texts: str) -> list[bytes]:
    """Return a conversation whose messages are the user's and the assistant's in turn."""
    return [transcript.assistant(text) if place % 2 else transcript.user(text) for place, text in enumerate(texts)]


def log_of(path: Path, messages: list[bytes]) -> None:
    append_lines(path, [log_line(1.0, SESSION, message, "msg_1") for message in messages])


def repaired(path: Path, history: list[bytes], *secrets: str) -> int:
    return repair_log(path, SESSION, history, Redaction(secrets), 2.0)


def shown(messages: list[bytes]) -> list[dict[str, Any]]:
    return [json.loads(message) for message in messages]


def test_a_lost_tail_is_appended_and_marked(tmp_path: Path) -> None:
    path = session_log_path(tmp_path, SESSION)
    call = ToolCall("c1", "roll", '{"sides": 6}')
    history = [*said("one", "1", "two"), transcript.assistant("", [call]), transcript.tool(call, "4"), *said("it is 4")]
    log_of(path, history[:3])
    append_lines(path, [b'{"at":1.0,"session":"test:a:s","message":"msg_1","event":"turn_ended"}', b'{"at":1.0,"torn'])
    assert repaired(path, history) == 3
    assert logged_messages(path) == shown(history)
    assert [line.get("repaired") for line in read_log(path) if "role" in line] == [None] * 3 + [True] * 3
    assert repaired(path, history) == 0


def test_a_log_that_was_lost_whole_is_written_again(tmp_path: Path) -> None:
    path = session_log_path(tmp_path, SESSION)
    history = said("one", "1")
    assert repaired(path, history) == 2
    assert logged_messages(path) == shown(history)
    assert repaired(path, []) == 0


def test_a_hole_is_filled_in_its_place(tmp_path: Path) -> None:
    path = session_log_path(tmp_path, SESSION)
    history = said("one", "1", "two", "2", "three", "3")
    log_of(path, history[:2] + history[4:])
    assert repaired(path, history) == 2
    assert logged_messages(path) == shown(history)
    assert [line["later"] for line in read_log(path) if "repaired" in line] == [2, 2]
    log_of(path, said("four"))
    more = [*history, *said("four", "4")]
    assert repaired(path, more) == 1
    assert logged_messages(path) == shown(more)


def test_what_the_history_does_not_hold_any_more_stays(tmp_path: Path) -> None:
    path = session_log_path(tmp_path, SESSION)
    log_of(path, said("one", "1", "undone", "2", "new", "3"))
    for history in (said("one", "1", "new", "3"), said("new", "3"), []):
        assert repaired(path, history) == 0
    assert repaired(path, [*said("new", "3", "last", "4")]) == 2
    assert [message["content"] for message in logged_messages(path)][-2:] == ["last", "4"]


def test_redacted_lines_are_recognised_and_repaired_ones_are_redacted(tmp_path: Path) -> None:
    path = session_log_path(tmp_path, SESSION)
    history = said("my key is the-model-key", "1", "again the-model-key", "2")
    log_of(path, [Redaction(["the-model-key"]).clean(message) for message in history[:2]])
    assert repaired(path, history, "the-model-key") == 2
    assert b"the-model-key" not in path.read_bytes()


def test_of_a_long_log_its_end_is_compared(tmp_path: Path) -> None:
    path = session_log_path(tmp_path, SESSION)
    texts = [str(number) for number in range(3 * repair.HISTORY_WINDOW)]
    history = said(*texts)
    for start in range(0, len(history), 400):
        rotate(path, 1)
        log_of(path, history[start : start + 400])
    assert len(segment_numbers(path)) == 3
    lost = said("lost", "last")
    window = [*history, *lost][-repair.HISTORY_WINDOW :]
    assert repaired(path, window) == 2
    assert logged_messages(path) == shown([*history, *lost])
    assert repaired(path, window) == 0


def test_a_writer_that_goes_on_meanwhile_disturbs_nothing(tmp_path: Path) -> None:
    path = session_log_path(tmp_path, SESSION)
    history = said("one", "1", "lost", "2")
    log_of(path, history[:2])
    following = said(*[str(number) for number in range(300)])

    def write() -> None:
        for message in following:
            log_of(path, [message])

    writer = threading.Thread(target=write)
    writer.start()
    found = repaired(path, history)
    writer.join()
    assert found == 2
    assert logged_messages(path) == shown([*history, *following])


@settings(max_examples=150)
@given(st.lists(st.sampled_from("abc"), max_size=12), st.data())
def test_whatever_was_lost_is_there_in_the_end_and_nothing_twice(
    tmp_path_factory: Any, texts: list[str], data: st.DataObject
) -> None:
    path = session_log_path(tmp_path_factory.getbasetemp() / "law", SESSION)
    remove_log(path)
    history = said(*texts)
    kept = data.draw(st.lists(st.booleans(), min_size=len(history), max_size=len(history)))
    if any(kept):
        log_of(path, [message for message, stays in zip(history, kept, strict=True) if stays])
    assert repaired(path, history) == kept.count(False)
    assert not history or logged_messages(path) == shown(history)
    assert repaired(path, history) == 0
