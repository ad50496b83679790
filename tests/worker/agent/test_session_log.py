from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.events import Event, Field
from shared.session_files import session_log_path
from worker.agent.session_log import SessionLog
from worker.session_log.ring import HEADER_BYTES, LogRing


class Said:
    def __init__(self) -> None:
        self.events: list[tuple[Event, dict[str, Field]]] = []

    def __call__(self, event: Event, **fields: Field) -> None:
        self.events.append((event, fields))


def until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def lines_of(log_dir: Path, session: str) -> list[bytes]:
    path = session_log_path(log_dir, session)
    return path.read_bytes().splitlines() if path.exists() else []


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def make(tmp_path: Path, said: Said) -> Iterator[Callable[..., SessionLog]]:
    logs: list[SessionLog] = []

    def make_log(flush_interval_s: float = 60.0, ring_bytes: int = 1 << 16) -> SessionLog:
        ring = LogRing(memoryview(bytearray(HEADER_BYTES + ring_bytes)))
        logs.append(SessionLog(tmp_path, ring, flush_interval_s, said))
        return logs[-1]

    yield make_log
    for log in logs:
        log.close()


def test_ten_rapid_puts_make_one_write_or_two(make: Callable[..., SessionLog], tmp_path: Path) -> None:
    log = make(0.5)
    log.start()
    for number in range(10):
        log.put("a", b"%d" % number)
    until(lambda: len(lines_of(tmp_path, "a")) == 10)
    assert log.written in {1, 2}
    assert log.lines == 10


def test_a_log_is_never_written_more_often_than_its_interval(make: Callable[..., SessionLog], tmp_path: Path) -> None:
    log = make(0.1)
    log.start()
    started = time.monotonic()
    while time.monotonic() < started + 0.65:
        log.put("a", b"x")
        time.sleep(0.001)
    assert 1 <= log.written <= 6


def test_a_put_touches_no_disk_and_waits_for_nobody(make: Callable[..., SessionLog], tmp_path: Path) -> None:
    log = make()
    log.start()
    for number in range(100):
        log.put("a", b"%d" % number)
    assert list(tmp_path.iterdir()) == []
    assert log.close()
    assert lines_of(tmp_path, "a") == [b"%d" % number for number in range(100)]


def test_closing_writes_what_waits_with_and_without_a_thread(make: Callable[..., SessionLog], tmp_path: Path) -> None:
    for start, session in ((True, "a"), (False, "b")):
        log = make()
        if start:
            log.start()
        log.put(session, b"one")
        assert log.close()
        assert lines_of(tmp_path, session) == [b"one"]
    assert not [thread for thread in threading.enumerate() if thread.name == "session-log"]


def test_a_line_with_a_newline_stays_one_line(make: Callable[..., SessionLog], tmp_path: Path) -> None:
    log = make()
    log.put("a", b'{\n"a": 1}')
    log.close()
    assert lines_of(tmp_path, "a") == [b'{ "a": 1}']


def test_an_unwritable_file_is_counted_said_once_and_written_when_it_works(
    make: Callable[..., SessionLog], tmp_path: Path, said: Said
) -> None:
    log = make(0.01)
    blocked = session_log_path(tmp_path, "bad")
    blocked.mkdir()
    log.start()
    log.put("bad", b"one")
    log.put("good", b"fine")
    until(lambda: log.failed >= 3)
    log.put("bad", b"two")
    assert lines_of(tmp_path, "good") == [b"fine"]
    assert [(event, fields["session"]) for event, fields in said.events] == [(Event.SESSION_LOG_FAILED, "bad")]
    blocked.rmdir()
    until(lambda: len(lines_of(tmp_path, "bad")) == 2)
    assert lines_of(tmp_path, "bad") == [b"one", b"two"]
    blocked.unlink()
    blocked.mkdir()
    log.put("bad", b"three")
    until(lambda: len(said.events) == 2)
    blocked.rmdir()


def test_a_full_ring_keeps_lines_in_the_process_in_their_order(make: Callable[..., SessionLog], tmp_path: Path) -> None:
    log = make(ring_bytes=256)
    for number in range(200):
        log.put(f"s{number % 2}", b"%d" % number)
    log.flush()
    log.put("s0", b"200")
    log.put("s1", b"201")
    assert log.close()
    assert lines_of(tmp_path, "s0") == [b"%d" % number for number in range(0, 201, 2)]
    assert lines_of(tmp_path, "s1") == [b"%d" % number for number in range(1, 202, 2)]
    assert log.lost == 0


def test_a_file_that_does_not_work_does_not_keep_the_ring_from_others(
    make: Callable[..., SessionLog], tmp_path: Path
) -> None:
    log = make(ring_bytes=512)
    blocked = session_log_path(tmp_path, "bad")
    blocked.mkdir()
    for number in range(30):
        log.put("bad", b"%d" % number)
        if number % 7 == 0:
            log.flush()
    log.put("good", b"fine")
    log.flush()
    assert lines_of(tmp_path, "good") == [b"fine"]
    assert not log.close()
    blocked.rmdir()
    assert log.close()
    assert lines_of(tmp_path, "bad") == [b"%d" % number for number in range(30)]


def test_past_all_limits_lines_are_lost_and_counted(
    make: Callable[..., SessionLog], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.agent.session_log.OVERFLOW_BYTES", 1000)
    log = make(ring_bytes=256)
    for number in range(300):
        log.put("a", b"%09d" % number)
    assert log.close()
    assert len(lines_of(tmp_path, "a")) + log.lost == 300
    assert log.lost > 100
    log.put("a", b"again")
    log.flush()
    assert lines_of(tmp_path, "a")[-1] == b"again"


def test_lines_put_while_the_thread_writes_come_once_and_in_order(
    make: Callable[..., SessionLog], tmp_path: Path
) -> None:
    log = make(0.001, ring_bytes=2048)
    log.start()
    stop = threading.Event()

    def block_and_free() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                session_log_path(tmp_path, "s2").mkdir()
                time.sleep(0.003)
                session_log_path(tmp_path, "s2").rmdir()

    blocker = threading.Thread(target=block_and_free)
    blocker.start()
    for number in range(9000):
        log.put(f"s{number % 3}", b"%d" % number)
        if number % 100 == 0:
            os.sched_yield()
    stop.set()
    blocker.join()
    assert log.close()
    for place in range(3):
        assert lines_of(tmp_path, f"s{place}") == [b"%d" % number for number in range(place, 9000, 3)]
