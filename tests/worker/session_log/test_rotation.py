"""Session logs past a size: segments, their checksums, and kills in the middle."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.events import Event, Field
from shared.redaction import Redaction
from shared.session_files import logged_messages, session_log_path
from shared.session_segments import (
    checksum_file,
    has_log,
    log_lines,
    log_pieces,
    packed_segment,
    plain_segment,
    remove_log,
    segment_numbers,
    segments_dir,
)
from tests.worker.waiting import until
from worker.agent.session_log import SessionLog
from worker.session_log import rotation
from worker.session_log.file import append_lines
from worker.session_log.ring import HEADER_BYTES, LogRing, salvage
from worker.session_log.rotation import pack_waiting, rotate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return session_log_path(tmp_path / "logs", "test:a:s")


def silent(event: Event, **fields: Field) -> None:
    raise AssertionError((event, fields))


def grown(path: Path, *batches: range) -> None:
    """Make a log of these numbers, each batch but the last one a segment."""
    for batch in batches[:-1]:
        append_lines(path, [b"%d" % number for number in batch])
        rotate(path, 1)
    append_lines(path, [b"%d" % number for number in batches[-1]])


def numbers_in(path: Path) -> list[int]:
    return [int(line) for line in log_lines(path)]


def test_a_file_past_the_size_becomes_a_compressed_private_segment_with_a_checksum(path: Path) -> None:
    append_lines(path, [b"one", b"two"])
    rotate(path, 9)
    assert segment_numbers(path) == []
    rotate(path, 8)
    assert not path.exists()
    assert gzip.decompress(packed_segment(path, 1).read_bytes()) == b"one\ntwo\n"
    assert sorted(entry.name for entry in segments_dir(path).iterdir()) == [
        "000001.jsonl.gz",
        "000001.jsonl.gz.sha256",
    ]
    assert stat.S_IMODE(segments_dir(path).stat().st_mode) == 0o700
    assert stat.S_IMODE(packed_segment(path, 1).stat().st_mode) == 0o600
    if shutil.which("sha256sum"):
        told = ["sha256sum", "-c", checksum_file(path, 1).name]
        subprocess.run(told, cwd=segments_dir(path), check=True, capture_output=True)


def test_segments_are_read_before_the_live_file_oldest_first(path: Path) -> None:
    grown(path, range(3), range(3, 5), range(5, 9))
    assert numbers_in(path) == list(range(9))
    path.unlink()
    assert numbers_in(path) == list(range(5))
    assert has_log(path)
    remove_log(path)
    assert not has_log(path)
    assert not segments_dir(path).exists()
    with pytest.raises(FileNotFoundError):
        list(log_pieces(path))


def test_a_conversation_is_read_across_segments(path: Path) -> None:
    messages = [{"role": "user", "content": str(number)} for number in range(4)]
    for message in messages:
        append_lines(path, [json.dumps({"at": 1.0, "session": "test:a:s"} | message).encode()])
        rotate(path, 1)
    assert logged_messages(path) == messages


def spoil(segment: Path) -> None:
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (lambda path: spoil(packed_segment(path, 2)), "not what its checksum says"),
        (lambda path: packed_segment(path, 2).write_bytes(b""), "not what its checksum says"),
        (lambda path: checksum_file(path, 2).unlink(), "000002.jsonl.gz.sha256 is missing"),
        (lambda path: checksum_file(path, 2).write_bytes(b"\xff"), "cannot be read"),
        (lambda path: packed_segment(path, 2).unlink(), "000002.jsonl.gz is missing"),
    ],
    ids=["spoilt", "emptied", "unchecked", "garbled", "gone"],
)
def test_a_damaged_segment_is_told_in_its_place(path: Path, harm: Callable[[Path], None], what: str) -> None:
    grown(path, range(2), range(2, 4), range(4, 6), range(6, 8))
    harm(path)
    lines = list(log_lines(path))
    told = json.loads(lines.pop(2))
    assert (told["event"], told["segment"]) == ("log_segment_damaged", 2)
    assert what in told["error"]
    assert [int(line) for line in lines] == [0, 1, 4, 5, 6, 7]


def test_a_cut_off_compression_counts_as_not_begun_and_is_finished_by_the_next(path: Path) -> None:
    grown(path, range(3), range(3, 5))
    whole = gzip.decompress(packed_segment(path, 1).read_bytes())
    plain_segment(path, 1).write_bytes(whole)
    for cut in (b"", packed_segment(path, 1).read_bytes()[:10], packed_segment(path, 1).read_bytes()):
        packed_segment(path, 1).write_bytes(cut)
        checksum_file(path, 1).unlink(missing_ok=True)
        assert numbers_in(path) == list(range(5))
    rotate(path, 1)
    assert not plain_segment(path, 1).exists()
    assert numbers_in(path) == list(range(5))
    assert segment_numbers(path) == [1, 2]


def test_a_reader_sees_one_moment_whatever_is_rotated_meanwhile(path: Path) -> None:
    grown(path, range(3), range(3, 5))
    pieces = log_pieces(path)
    seen = next(pieces)
    rotate(path, 1)
    append_lines(path, [b"5"])
    rotate(path, 1)
    assert [int(line) for line in (seen + b"".join(pieces)).split()] == list(range(5))


def test_readers_and_writers_of_a_log_that_is_rotated_all_the_time_agree(path: Path) -> None:
    count, done = 400, threading.Event()
    problems: list[object] = []

    def write(name: int) -> None:
        for number in range(count):
            append_lines(path, [b"%d" % (name * count + number)])
            rotate(path, 40)

    def read() -> None:
        while not done.is_set():
            if has_log(path):
                seen = numbers_in(path)
                for name in range(2):
                    mine = [number for number in seen if number // count == name]
                    if mine != list(range(name * count, name * count + len(mine))):
                        problems.append(seen)

    writers = [threading.Thread(target=write, args=(name,)) for name in range(2)]
    reader = threading.Thread(target=read)
    for thread in (*writers, reader):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert problems == []
    assert sorted(numbers_in(path)) == list(range(2 * count))


def test_only_one_process_compresses_a_log(path: Path) -> None:
    append_lines(path, [b"1"])
    segments_dir(path).mkdir(parents=True)
    path.rename(plain_segment(path, 1))
    with rotation._claimed(segments_dir(path)) as is_ours:
        assert is_ours
        pack_waiting(path)
        assert plain_segment(path, 1).exists()
    pack_waiting(path)
    assert segment_numbers(path) == [1]
    assert not plain_segment(path, 1).exists()


async def test_the_batching_thread_rotates(path: Path) -> None:
    log = SessionLog(
        path.parent, LogRing(memoryview(bytearray(HEADER_BYTES + 65536))), 0.002, silent, segment_bytes=500
    )
    log.start()
    for number in range(2000):
        log.put("test:a:s", b"%d" % number)
    await until(lambda: log.rotated > 0)
    assert log.close()
    assert numbers_in(path) == list(range(2000))


def test_a_rotation_that_fails_is_said_once_and_the_file_grows_on(path: Path) -> None:
    said: list[Field] = []

    def say(event: Event, **fields: Field) -> None:
        assert event is Event.SESSION_LOG_FAILED
        said.append(fields["error"])

    log = SessionLog(path.parent, LogRing(memoryview(bytearray(HEADER_BYTES + 65536))), 60, say, segment_bytes=1)
    path.parent.mkdir(parents=True)
    segments_dir(path).write_text("in the way")
    for number in range(3):
        log.put("test:a:s", b"%d" % number)
        log.flush()
    assert len(said) == 1
    assert "not rotated" in str(said[0])
    assert path.read_bytes() == b"0\n1\n2\n"
    segments_dir(path).unlink()
    log.put("test:a:s", b"3")
    assert log.close()
    assert (log.rotated, log.failed) == (1, 0)
    assert numbers_in(path) == list(range(4))


def test_secrets_reach_neither_the_ring_nor_the_file(tmp_path: Path) -> None:
    memory = bytearray(HEADER_BYTES + 65536)
    log = SessionLog(tmp_path, LogRing(memoryview(memory)), 60, silent, redaction=Redaction(["the-model-key"]))
    log.put("s", b'{"content":"the-model-key and sk-proj-abcdefghijklmnopqrstuvwx"}')
    assert b"the-model-key" not in memory
    assert log.close()
    assert session_log_path(tmp_path, "s").read_bytes() == b'{"content":"*** and ***"}\n'


WRITER = """
import mmap, sys, time
from pathlib import Path
from worker.session_log import rotation
from worker.agent.session_log import SessionLog
from worker.session_log.ring import LogRing
rotation.PIECE_BYTES = 512  # so that kills find compressions half done
shared = mmap.mmap(int(sys.argv[1]), 0)
log = SessionLog(Path(sys.argv[2]), LogRing(memoryview(shared)), 0.001, print, segment_bytes=4000)
log.start()
number = int(sys.argv[3])
while True:
    log.put(f"s{number % 2}", b"%d" % number)
    number += 1
    if number % 20 == 0:
        print(number, log.rotated, flush=True)
        time.sleep(0.0005)
"""


def test_kills_in_the_middle_of_rotations_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    following = 0
    for round_number in range(8):
        shared = os.memfd_create("ring")
        os.ftruncate(shared, 1 << 20)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(shared), str(tmp_path), str(following)],
            pass_fds=[shared],
            stdout=subprocess.PIPE,
        )
        assert writer.stdout is not None
        announced = rotated = 0
        while rotated < 2 + round_number:
            announced, rotated = map(int, writer.stdout.readline().split())
        writer.send_signal(signal.SIGKILL)
        announced = max([announced, *(int(line.split()[0]) for line in writer.stdout.read().splitlines())])
        writer.wait(10)
        writer.stdout.close()
        memory = bytearray(os.pread(shared, 1 << 20, 0))
        os.close(shared)
        salvage(LogRing(memoryview(memory)), tmp_path)
        following = 0
        for place in range(2):
            path = session_log_path(tmp_path, f"s{place}")
            numbers = numbers_in(path)
            assert numbers == list(range(place, numbers[-1] + 1, 2))
            assert numbers[-1] >= announced - 2
            following = max(following, numbers[-1] + 1)
        for place in range(2):  # the two sessions go on from the same number
            path = session_log_path(tmp_path, f"s{place}")
            last = numbers_in(path)[-1]
            append_lines(path, [b"%d" % number for number in range(last + 2, following, 2)])


def test_lines_written_before_a_kill_and_rotated_by_another_writer_since_are_not_written_again(path: Path) -> None:
    ring = LogRing(memoryview(bytearray(HEADER_BYTES + 4096)))
    append_lines(path, [b"before"])
    for line in (b"one", b"two"):
        ring.append("test:a:s", line)
    records = ring.peek()
    append_lines(path, [record.line for record in records], lambda offset: ring.mark(records, offset))
    append_lines(path, [b"of another"])
    rotate(path, 1)
    append_lines(path, [b"more"])
    assert salvage(ring, path.parent) == 0
    assert list(log_lines(path)) == [b"before", b"one", b"two", b"of another", b"more"]
