"""Rotates a session log past a size: the live file becomes a segment, which is compressed and gets a checksum.

    KEY.jsonl ─ rename ─> 000002.jsonl ─ compress ─> 000002.jsonl.gz ─ checksum ─ then 000002.jsonl goes

Every arrow is atomic and the uncompressed segment counts while it is there, so whatever a kill cuts off loses and
doubles nothing; the log's next rotation, in whichever process, finishes it (shared.session_segments reads them).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from shared.session_segments import checksum_file, packed_segment, plain_segment, segment_numbers, segments_dir
from worker.session_log.file import locked_log, make_private

#: bytes past which a live file becomes a segment
SEGMENT_BYTES = 8 * 1024 * 1024
#: of gzip; such a segment of chat takes 160 ms and becomes 29 % of its size, at level 6 390 ms and 26 %
LEVEL = 3
PIECE_BYTES = 256 * 1024
_GZIP = 31  #: zlib's window bits for the gzip format


def rotate(path: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
    """Make a segment of the live file if it has this size, and compress what waits. Blocks on the disk; raises OSError.

    Writers of the log wait for the rename alone, never for the compression.
    """
    with locked_log(path) as log:
        if os.fstat(log).st_size >= segment_bytes:
            make_private(segments_dir(path))
            numbers = segment_numbers(path)
            path.rename(plain_segment(path, numbers[-1] + 1 if numbers else 1))
    pack_waiting(path)


def pack_waiting(path: Path) -> None:
    """Compress every segment that is not compressed yet, unless another process is at it. Raises OSError."""
    with _claimed(segments_dir(path)) as is_ours:
        if is_ours:
            for number in segment_numbers(path):
                if plain_segment(path, number).exists():
                    _pack(path, number)


def _pack(path: Path, number: int) -> None:
    source, target, checksum = plain_segment(path, number), packed_segment(path, number), checksum_file(path, number)
    part = target.with_suffix(".part")
    digest = hashlib.sha256()
    with source.open("rb") as lines, _private(part) as packed:
        for piece in _compressed(lines.fileno()):
            digest.update(piece)
            _write(packed, piece)
        os.fsync(packed)
    part.replace(target)
    with _private(part) as written:
        _write(written, f"{digest.hexdigest()}  {target.name}\n".encode())
        os.fsync(written)
    part.replace(checksum)
    _sync_directory(target.parent)  # what takes the segment's place outlives a power loss before the segment goes
    source.unlink()


def _compressed(source: int) -> Iterator[bytes]:
    packer = zlib.compressobj(LEVEL, wbits=_GZIP)
    while piece := os.read(source, PIECE_BYTES):
        yield packer.compress(piece)
    yield packer.flush()


@contextlib.contextmanager
def _private(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def _write(file: int, piece: bytes) -> None:
    while piece:
        piece = piece[os.write(file, piece) :]


def _sync_directory(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextlib.contextmanager
def _claimed(directory: Path) -> Iterator[bool]:
    """Hold the directory's lock; yield False where another process holds it, or there is no directory."""
    try:
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(opened)
