from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.events import Event, Field
from shared.session_files import session_log_path
from worker.session_log.ring import HEADER_BYTES, LogRing, salvage


def ring_of(size_bytes: int) -> tuple[bytearray, LogRing]:
    memory = bytearray(HEADER_BYTES + size_bytes)
    return memory, LogRing(memoryview(memory))


def lines_of(ring: LogRing) -> list[tuple[str, bytes]]:
    return [(record.session, record.line) for record in ring.peek()]


@settings(max_examples=200)
@given(
    st.integers(64, 400),
    st.lists(
        st.one_of(
            st.tuples(st.text(max_size=8), st.binary(max_size=60)),
            st.integers(0, 5),
            st.just("again"),
        ),
        max_size=60,
    ),
)
def test_the_ring_is_a_queue_with_a_limit(size_bytes: int, deeds: list[tuple[str, bytes] | int | str]) -> None:
    memory, ring = ring_of(size_bytes)
    model: deque[tuple[str, bytes]] = deque()
    for deed in deeds:
        match deed:
            case (session, line):
                if ring.append(session, line):
                    model.append((session, line))
                else:
                    assert model or len(line) > 0
            case int():
                ring.consume(ring.peek()[:deed])
                for _ in range(min(deed, len(model))):
                    model.popleft()
            case _:
                ring = LogRing(memoryview(memory))
        assert lines_of(ring) == list(model)
        assert 0 <= ring.used_bytes <= ring.size_bytes
    ring.consume(ring.peek())
    assert ring.used_bytes == 0


def test_a_full_ring_refuses_and_takes_again_once_there_is_room() -> None:
    _, ring = ring_of(256)
    taken = 0
    while ring.append("s", b"%020d" % taken):
        taken += 1
    assert taken == 5
    assert not ring.append("s", b"x")
    ring.consume(ring.peek()[:1])
    assert ring.append("s", b"next")
    assert [line for _, line in lines_of(ring)] == [*(b"%020d" % n for n in range(1, 5)), b"next"]


def test_records_behind_one_that_waits_keep_their_room_until_it_is_gone() -> None:
    _, ring = ring_of(1024)
    for session in ("a", "b", "a", "b"):
        ring.append(session, session.encode())
    ring.consume([record for record in ring.peek() if record.session == "b"])
    assert lines_of(ring) == [("a", b"a"), ("a", b"a")]
    assert ring.used_bytes == 4 * 32
    ring.consume(ring.peek())
    assert ring.used_bytes == 0


def test_a_torn_record_ends_what_is_read() -> None:
    memory, ring = ring_of(1024)
    for number in range(3):
        ring.append("s", b"line %d" % number)
    memory[HEADER_BYTES + 32 + 16 + 3] ^= 1
    assert lines_of(ring) == [("s", b"line 0")]
    memory[HEADER_BYTES : HEADER_BYTES + 4] = b"\xf0\xff\xff\xff"
    assert lines_of(ring) == []


def test_a_record_of_an_earlier_lap_is_none() -> None:
    memory, ring = ring_of(128)
    ring.append("s", b"first")
    lap = bytes(memory[HEADER_BYTES:])
    ring.consume(ring.peek())
    for number in range(3):
        ring.append("s", b"other %d" % number)
    ring.consume(ring.peek())
    ring.append("s", b"fifth")
    memory[HEADER_BYTES:] = lap
    assert lines_of(ring) == []


def test_one_thread_appends_while_another_takes_out() -> None:
    _, ring = ring_of(4096)
    count = 20_000
    taken: list[bytes] = []

    def take() -> None:
        while len(taken) < count:
            records = ring.peek()
            taken.extend(record.line for record in records)
            ring.consume(records)

    taker = threading.Thread(target=take)
    taker.start()
    for number in range(count):
        while not ring.append(f"s{number % 7}", b"%d" % number):
            time.sleep(0)
    taker.join(30)
    assert taken == [b"%d" % number for number in range(count)]


def test_released_memory_can_be_closed() -> None:
    memory, ring = ring_of(256)
    ring.release()
    memory.extend(b"x")  # a bytearray with views on it refuses


def test_salvage_writes_what_waits_once(tmp_path: Path) -> None:
    memory, ring = ring_of(4096)
    for number in range(5):
        ring.append(f"s{number % 2}", b"%d" % number)
    assert salvage(LogRing(memoryview(memory)), tmp_path) == 5
    assert salvage(ring, tmp_path) == 0
    assert session_log_path(tmp_path, "s0").read_bytes() == b"0\n2\n4\n"
    assert session_log_path(tmp_path, "s1").read_bytes() == b"1\n3\n"


def test_salvage_skips_what_a_cut_off_write_brought_to_the_file_wherever_it_was_cut(tmp_path: Path) -> None:
    whole = b"same\nsame\nsame\nlast\n"
    for cut in range(len(whole) + 1):
        path = session_log_path(tmp_path, f"cut:{cut}")
        path.write_bytes(b"same\n" + whole[:cut])  # the file already ended with an equal line
        _, ring = ring_of(1024)
        ring.append("other", b"o")
        for line in whole.splitlines():
            ring.append(f"cut:{cut}", line)
        records = ring.peek()[1:]
        ring.append(f"cut:{cut}", b"later")
        ring.mark(records, 5)
        salvage(ring, tmp_path)
        lines = path.read_bytes().split(b"\n")
        torn = cut % 5
        expected = [b"same", *whole.splitlines(), b"later", b""]
        if torn:
            expected.insert(1 + cut // 5, whole.splitlines()[cut // 5][:torn])
        assert lines == expected


def test_a_file_that_cannot_be_written_is_said_and_keeps_its_lines(tmp_path: Path) -> None:
    said: list[tuple[Event, Field]] = []

    def say(event: Event, **fields: Field) -> None:
        said.append((event, fields["session"]))

    session_log_path(tmp_path, "bad").mkdir()
    _, ring = ring_of(1024)
    for session in ("bad", "good", "bad"):
        ring.append(session, b"line")
    assert salvage(ring, tmp_path, say) == 1
    assert said == [(Event.SESSION_LOG_FAILED, "bad")]
    assert lines_of(ring) == [("bad", b"line"), ("bad", b"line")]
    session_log_path(tmp_path, "bad").rmdir()
    assert salvage(ring, tmp_path, say) == 2


WRITER = """
import mmap, sys, time
from pathlib import Path
from worker.agent.session_log import SessionLog
from worker.session_log.ring import LogRing
shared = mmap.mmap(int(sys.argv[1]), 0)
log = SessionLog(Path(sys.argv[2]), LogRing(memoryview(shared)), 0.002, lambda event, **fields: None)
log.start()
number = 0
while True:
    log.put(f"s{number % 3}", b"%d" % number)
    number += 1
    if number % 50 == 0:
        print(number, flush=True)
        time.sleep(0.0005)
"""


def test_a_killed_writer_loses_nothing_and_nothing_is_written_twice(tmp_path: Path) -> None:
    for round_number in range(6):
        log_dir = tmp_path / str(round_number)
        shared = os.memfd_create("ring")
        os.ftruncate(shared, 1 << 20)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(shared), str(log_dir)], pass_fds=[shared], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        announced = 0
        while announced < 200 + 400 * round_number:
            announced = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        announced = max([announced, *map(int, writer.stdout.read().split())])
        writer.wait(10)
        writer.stdout.close()
        memory = bytearray(os.pread(shared, 1 << 20, 0))
        os.close(shared)
        salvage(LogRing(memoryview(memory)), log_dir)
        for place in range(3):
            numbers = [int(line) for line in session_log_path(log_dir, f"s{place}").read_bytes().splitlines()]
            assert numbers == list(range(place, numbers[-1] + 1, 3))
            assert numbers[-1] >= announced - 3
