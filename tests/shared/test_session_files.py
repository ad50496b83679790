from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.session_files import log_line, logged_messages, read_log, session_log_path

LOGS = Path("/logs")
ANY_TEXT = st.text(st.characters(), max_size=400)


@settings(max_examples=300)
@given(ANY_TEXT)
@example("..")
@example(".")
@example("../../etc/passwd")
@example("/etc/passwd")
@example("")
@example("\x00")
@example("\ud800")
@example("x" * 10_000)
def test_no_session_key_leaves_the_directory_or_is_too_long(session: str) -> None:
    path = session_log_path(LOGS, session)
    assert path.parent == LOGS
    assert path.resolve().parent == LOGS
    assert not path.name.startswith(".")
    assert len(path.name.encode()) <= 255
    assert path.name.isprintable()
    assert path.name.isascii()


@settings(max_examples=300)
@given(ANY_TEXT, ANY_TEXT)
@example("a" * 300, "a" * 301)
@example("a b", "a%20b")
@example(".a", "%2Ea")
@example("", "+e3b0c44298fc1c149afbf4c8996fb92427ae41e4")
def test_two_sessions_never_share_a_file(one: str, other: str) -> None:
    assert (session_log_path(LOGS, one) == session_log_path(LOGS, other)) == (one == other)


def test_a_plain_session_key_can_be_read_in_its_file_name() -> None:
    assert session_log_path(LOGS, "slack:T1:C2:170.5").name == "slack:T1:C2:170.5.jsonl"


def test_a_log_is_read_back_past_events_and_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    first = log_line(1.0, "s", b'{"role":"user","content":"hi"}', "msg_1")
    path.write_bytes(
        b"\n".join([first, first[:17], b'{"event":"turn_ended"}', log_line(2.0, "s", b"{}"), b"7", first, b""])
    )
    assert [line.get("message") for line in read_log(path)] == ["msg_1", None, "", "msg_1"]
    assert logged_messages(path) == [{"role": "user", "content": "hi"}] * 2


def test_a_later_line_replaces_its_place_and_all_after_it(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = [log_line(1.0, "s", b'{"role":"user","content":"%d"}' % place, index=place) for place in (0, 1, 2)]
    new = [log_line(2.0, "s", b'{"role":"user","content":"new"}', index=1), log_line(2.0, "s", b'{"role":"user"}')]
    path.write_bytes(b"\n".join([*lines, *new, b""]))
    assert [message.get("content") for message in logged_messages(path)] == ["0", "new", None]


def test_a_missing_log_is_an_error_of_the_file_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        logged_messages(tmp_path / "none.jsonl")
