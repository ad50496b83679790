"""Appending to a session's log file: private, whole batches, one write each."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path


def append_lines(path: Path, lines: Sequence[bytes], before: Callable[[int], None] | None = None) -> None:
    """Append lines to the file, all of them or none. Raises OSError.

    The file is made with mode 0600, missing directories with 0700. Where the file ends in a torn line the batch
    starts on a fresh one. ``before`` is told the offset of the batch right before it is written. Writers of one file
    take turns (flock). Nothing is synced: a power loss may cost the last lines of a log, a killed process does not.
    """
    with _opened(path) as log:
        size = os.fstat(log).st_size
        torn = b"\n" if size and os.pread(log, 1, size - 1) != b"\n" else b""
        if before is not None:
            before(size + len(torn))
        _write_whole(log, size, torn + _joined(lines))


def lines_written(path: Path, offset: int, lines: Sequence[bytes]) -> int:
    """Return how many of the lines stand whole in the file from that offset on. Raises OSError."""
    try:
        with path.open("rb") as log:
            log.seek(offset)
            found = log.read(sum(map(len, lines)) + len(lines)).split(b"\n")[:-1]
    except FileNotFoundError:
        return 0
    pairs = itertools.zip_longest(lines, found)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _joined(lines: Sequence[bytes]) -> bytes:
    return b"".join([line + b"\n" for line in lines])


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open the file for reading and appending and hold its lock."""
    try:
        log = _open(path)
    except FileNotFoundError:
        _make_private(path.parent)
        log = _open(path)
    try:
        fcntl.flock(log, fcntl.LOCK_EX)
        yield log
    finally:
        os.close(log)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _make_private(directory: Path) -> None:
    if not directory.parent.exists():
        _make_private(directory.parent)
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
