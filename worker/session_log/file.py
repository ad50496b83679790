"""Appending to a session's log file: private, whole batches, one write each."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from shared.session_segments import DamagedSegment, open_segment, segment_numbers

#: how many rotations of one log may come between a worker's death and the look at what it left, plus one
ROTATED_SINCE = 4


def append_lines(path: Path, lines: Sequence[bytes], before: Callable[[int], None] | None = None) -> int:
    """Append lines to the file, all of them or none; return its size in bytes. Raises OSError.

    The file is made with mode 0600, missing directories with 0700. Where the file ends in a torn line the batch
    starts on a fresh one. ``before`` is told the offset of the batch right before it is written. Writers of one file
    take turns (flock). Nothing is synced: a power loss may cost the last lines of a log, a killed process does not.
    """
    with locked_log(path) as log:
        return append_locked(log, lines, before)


def append_locked(log: int, lines: Sequence[bytes], before: Callable[[int], None] | None = None) -> int:
    """Append lines as ``append_lines`` does, for a caller who holds the lock."""
    size = os.fstat(log).st_size
    torn = b"\n" if size and os.pread(log, 1, size - 1) != b"\n" else b""
    if before is not None:
        before(size + len(torn))
    batch = torn + _joined(lines)
    _write_whole(log, size, batch)
    return size + len(batch)


def lines_written(path: Path, offset: int, lines: Sequence[bytes]) -> int:
    """Return how many of the lines stand whole in the file from that offset on. Raises OSError.

    Another writer may have rotated the file since: its newest segments are looked at too.
    """
    with contextlib.suppress(FileNotFoundError), path.open("rb") as log:
        if count := _lines_at(log, offset, lines):
            return count
    for number in segment_numbers(path)[:-ROTATED_SINCE:-1]:
        with contextlib.suppress(DamagedSegment), open_segment(path, number) as segment:
            if count := _lines_at(segment, offset, lines):
                return count
    return 0


def _lines_at(log: IO[bytes], offset: int, lines: Sequence[bytes]) -> int:
    log.seek(offset)
    found = log.read(sum(map(len, lines)) + len(lines)).split(b"\n")[:-1]
    pairs = itertools.zip_longest(lines, found)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _joined(lines: Sequence[bytes]) -> bytes:
    return b"".join([line + b"\n" for line in lines])


@contextlib.contextmanager
def locked_log(path: Path) -> Iterator[int]:
    """Open the file for reading and appending, made if missing, and hold its lock. Raises OSError."""
    while True:
        try:
            log = _open(path)
        except FileNotFoundError:
            make_private(path.parent)
            log = _open(path)
        try:
            fcntl.flock(log, fcntl.LOCK_EX)
            if _is_still(log, path):
                yield log
                return
        finally:
            os.close(log)


def _is_still(log: int, path: Path) -> bool:
    """Tell whether the open file is the one of that name: it may have been rotated while its lock was waited for."""
    try:
        return os.path.samestat(os.fstat(log), path.stat())
    except FileNotFoundError:
        return False


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def make_private(directory: Path) -> None:
    """Make a directory, and what is missing above it, for this user alone. Raises OSError."""
    if not directory.parent.exists():
        make_private(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)


def _write_whole(log: int, size: int, batch: bytes) -> None:
    try:
        written = os.write(log, batch)
        while written < len(batch):
            written += os.write(log, batch[written:])
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(log, size)  # a batch that is tried again must not stand in the file twice
        raise
