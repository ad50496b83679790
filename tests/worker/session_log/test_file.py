from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from worker.session_log.file import append_lines, lines_written


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_file_and_its_directories_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        append_lines(tmp_path / "data" / "logs" / "a.jsonl", [b"1"])
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "data") == mode_of(tmp_path / "data" / "logs") == 0o700
    assert mode_of(tmp_path / "data" / "logs" / "a.jsonl") == 0o600


def test_batches_follow_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    offsets: list[int] = []
    append_lines(path, [b"one", b"two"], offsets.append)
    append_lines(path, [b"three"], offsets.append)
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    assert offsets == [0, 8]


def test_a_batch_behind_a_torn_line_starts_on_a_fresh_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"one\nto")
    offsets: list[int] = []
    append_lines(path, [b"two"], offsets.append)
    assert path.read_bytes() == b"one\nto\ntwo\n"
    assert offsets == [7]


def test_lines_of_a_write_that_was_cut_off_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [b"one", b"two", b"three"]
    assert lines_written(path, 0, lines) == 0
    whole = b"old\none\ntwo\nthree\n"
    for size, expected in [(4, 0), (7, 0), (8, 1), (11, 1), (12, 2), (17, 2), (18, 3)]:
        path.write_bytes(whole[:size])
        assert lines_written(path, 4, lines) == expected
    path.write_bytes(b"old\nother\none\n")
    assert lines_written(path, 4, lines) == 0


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="Too many levels"):
        append_lines(tmp_path / "a.jsonl", [b"one"])
    assert not (tmp_path / "elsewhere").exists()


WRITE_PAST_THE_LIMIT = """
import resource, sys
from pathlib import Path
from worker.session_log.file import append_lines
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
try:
    append_lines(Path(sys.argv[1]), [b"three", b"four", b"five"])
except OSError as error:
    print(error.errno)
"""


def test_a_batch_that_the_disk_takes_only_a_part_of_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append_lines(path, [b"one"])
    told = subprocess.run(
        [sys.executable, "-c", WRITE_PAST_THE_LIMIT, str(path)], capture_output=True, text=True, check=True, timeout=30
    )
    assert told.stdout.strip() == "27"  # EFBIG
    assert path.read_bytes() == b"one\n"


def test_writers_of_one_file_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"

    def write(name: bytes) -> None:
        for number in range(100):
            append_lines(path, [b"%s %d %d" % (name, number, half) for half in (0, 1)])

    threads = [threading.Thread(target=write, args=(name,)) for name in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = path.read_bytes().splitlines()
    assert len(lines) == 600
    assert all(lines[place][:-1] == lines[place + 1][:-1] for place in range(0, 600, 2))
