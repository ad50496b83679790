"""A session log on disk: the live file, and before it the numbered segments it was rotated into.

    KEY.jsonl                              the live file
    KEY.segments/000001.jsonl.gz           a segment, compressed
    KEY.segments/000001.jsonl.gz.sha256    its checksum, as ``sha256sum -c`` reads it
    KEY.segments/000002.jsonl              a segment not compressed yet: while it is there it is the one that counts

So a rotation (worker.session_log.rotation) that is cut off anywhere leaves every line in one place that counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import io
import os
import re
import shutil
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path

import msgspec

PIECE_BYTES = 65_536
_NAME = re.compile(r"(\d{6,})\.jsonl(?:\.gz)?")


class DamagedSegment(OSError):
    """Raised when a segment is not what was written; the text says which and why."""


def segments_dir(path: Path) -> Path:
    """Return the directory of a log's segments."""
    return path.with_suffix(".segments")


def plain_segment(path: Path, number: int) -> Path:
    """Return where a segment lies before it is compressed."""
    return segments_dir(path) / f"{number:06}.jsonl"


def packed_segment(path: Path, number: int) -> Path:
    """Return where a compressed segment lies."""
    return segments_dir(path) / f"{number:06}.jsonl.gz"


def checksum_file(path: Path, number: int) -> Path:
    """Return where the checksum of a compressed segment lies."""
    return segments_dir(path) / f"{number:06}.jsonl.gz.sha256"


def segment_numbers(path: Path) -> list[int]:
    """Return the numbers of a log's segments, oldest first."""
    try:
        names = [entry.name for entry in segments_dir(path).iterdir()]
    except FileNotFoundError:
        return []
    return sorted({int(found[1]) for name in names if (found := _NAME.fullmatch(name))})


def has_log(path: Path) -> bool:
    """Tell whether there is anything of this log."""
    return path.is_file() or bool(segment_numbers(path))


def open_segment(path: Path, number: int) -> io.BufferedReader:
    """Open a segment's lines for reading, its checksum verified. Raises DamagedSegment."""
    with contextlib.suppress(FileNotFoundError):
        return plain_segment(path, number).open("rb")
    _verify(path, number)
    return io.BufferedReader(gzip.open(packed_segment(path, number), "rb"))


def log_pieces(path: Path, segments: int | None = None) -> Generator[bytes]:
    """Yield a log as it is now, oldest line first; a segment that is damaged is one line that says so.

    With ``segments`` only so many of them are read, the newest ones.
    What is appended or rotated meanwhile changes nothing. Raises FileNotFoundError where there is no log.
    """
    with contextlib.ExitStack() as opened:
        live, size, numbers = _seen_now(path, opened)
        if live is None and not numbers:
            raise FileNotFoundError(path)
        wanted = range(numbers[0], numbers[-1] + 1) if numbers else range(0)
        for number in wanted if segments is None else wanted[-segments:]:
            piece = b"\n"
            try:
                with open_segment(path, number) as segment:
                    while read := segment.read(PIECE_BYTES):
                        piece = read
                        yield piece
            except (OSError, EOFError, zlib.error) as error:
                torn = b"" if piece.endswith(b"\n") else b"\n"
                yield torn + _damage(number, error)
        while live is not None and size > 0 and (piece := live.read(min(size, PIECE_BYTES))):
            size -= len(piece)
            yield piece


def log_lines(path: Path, segments: int | None = None) -> Iterator[bytes]:
    """Yield the lines of ``log_pieces``, a torn last one included. Raises FileNotFoundError."""
    rest = b""
    for piece in log_pieces(path, segments):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    if rest:
        yield rest


def remove_log(path: Path) -> None:
    """Remove a log with all its segments. Raises OSError."""
    path.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(segments_dir(path))


def remove_old_logs(log_dir: Path, before: float) -> int:
    """Remove the segments and live files last written before this (unix seconds); count them, pass over what fails."""
    removed = 0
    for path in [*log_dir.glob("*.segments/*.jsonl*"), *log_dir.glob("*.jsonl")]:
        with contextlib.suppress(OSError):
            removed += _remove_if_old(path, before)
    for emptied in log_dir.glob("*.segments"):
        with contextlib.suppress(OSError):
            emptied.rmdir()
    return removed


def _remove_if_old(path: Path, before: float) -> bool:
    """Remove a file that was last written before this; its writer, if it has one, is kept out meanwhile."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_mtime >= before:
            return False
        path.unlink()
        return not path.name.endswith(".sha256")


def _seen_now(path: Path, opened: contextlib.ExitStack) -> tuple[io.BufferedReader | None, int, list[int]]:
    """Return the live file, its size and the segments' numbers of one moment: writers hold the file's lock."""
    while True:
        try:
            live = opened.enter_context(path.open("rb"))
        except FileNotFoundError:
            return None, 0, segment_numbers(path)
        fcntl.flock(live, fcntl.LOCK_SH)
        try:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(live.fileno()), path.stat()):
                    return live, os.fstat(live.fileno()).st_size, segment_numbers(path)
        finally:
            fcntl.flock(live, fcntl.LOCK_UN)


def _verify(path: Path, number: int) -> None:
    segment = packed_segment(path, number)
    try:
        expected = checksum_file(path, number).read_text("ascii").split()[0]
        with segment.open("rb") as packed:
            found = hashlib.file_digest(packed, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise DamagedSegment(f"{Path(error.filename).name} is missing") from None
    except (UnicodeDecodeError, IndexError):
        raise DamagedSegment(f"the checksum of {segment.name} cannot be read") from None
    if found != expected:
        raise DamagedSegment(f"{segment.name} is not what its checksum says")


def _damage(number: int, error: Exception) -> bytes:
    said = {"event": "log_segment_damaged", "segment": number, "error": str(error)}
    return msgspec.json.encode(said) + b"\n"
