"""The log ring: session log lines that wait for their file, in memory that outlives the process that wrote them.

A ring of records over one piece of shared memory; one thread appends, one thread writes the files. All state is in that
memory, so after a SIGKILL the parent finds what waited and writes it, neither losing a line nor doubling one:

    header   head, tail, and the mark of a file write that was under way (all u64; head and mark are stored last)
    record   line bytes u32 · crc u32 · session bytes u16 · written u8 · session · line, padded to 16 bytes

Positions count bytes ever appended, so head - tail is what is held. A record never wraps: the end of the memory is
skipped. The crc covers the record and its position, so that nothing of an earlier lap passes for a record.
"""

from __future__ import annotations

import contextlib
import functools
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from shared.events import Emit, Event
from shared.session_files import session_log_path
from worker.session_log.file import append_lines, lines_written

HEADER_BYTES = 64
_HEAD, _TAIL, _MARK_END, _MARK_FIRST, _MARK_OFFSET = range(5)
_RECORD = struct.Struct("<IIHB5x")
_WRITTEN_AT = 10  #: offset of a record's written flag
_SKIP = 0xFFFF_FFFF  #: stands for the line bytes where the rest of the memory is unused


class LogRecord(msgspec.Struct, frozen=True):
    """One line that waits; ``position`` is where in the ring it lies."""

    position: int
    session: str
    line: bytes


class LogRing:
    """Lines in shared memory, first in, first out; zeroed memory is an empty ring, and used memory goes on as it was.

    One producer calls ``append``, one consumer everything else; neither waits for the other.
    """

    def __init__(self, memory: memoryview) -> None:
        self._header = memory[:HEADER_BYTES].cast("Q")
        self._size = (len(memory) - HEADER_BYTES) // 16 * 16
        self._data = memory[HEADER_BYTES : HEADER_BYTES + self._size]

    @property
    def end(self) -> int:
        """The position after everything appended so far: no record that comes later has a smaller one."""
        return self._header[_HEAD]

    @property
    def used_bytes(self) -> int:
        """Bytes held by waiting records, and by written ones behind them."""
        return self._header[_HEAD] - self._header[_TAIL]

    @property
    def size_bytes(self) -> int:
        """Bytes the ring can hold, record heads included."""
        return self._size

    def append(self, session: str, line: bytes) -> bool:
        """Add a line; return False, and add nothing, if there is no room for it now."""
        name = session.encode("utf-8", "surrogatepass")
        payload = name + line
        length = (_RECORD.size + len(payload) + 15) & ~15
        head = self._header[_HEAD]
        start = head % self._size
        gap = self._size - start if start + length > self._size else 0
        if head + gap + length - self._header[_TAIL] > self._size or len(name) > 0xFFFF:
            return False
        if gap:
            _RECORD.pack_into(self._data, start, _SKIP, 0, 0, 0)
            head, start = head + gap, 0
        _RECORD.pack_into(self._data, start, len(line), _crc(payload, head), len(name), 0)
        self._data[start + _RECORD.size : start + _RECORD.size + len(payload)] = payload
        self._header[_HEAD] = head + length
        return True

    def peek(self) -> list[LogRecord]:
        """Return the records that wait, oldest first."""
        return [record for record, written in self._records() if not written]

    def consume(self, records: Sequence[LogRecord]) -> None:
        """Take these records out: their lines are in their files, or kept elsewhere."""
        for record in records:
            self._data[record.position % self._size + _WRITTEN_AT] = 1
        self._header[_MARK_END] = 0
        self._free()

    def mark(self, records: Sequence[LogRecord], offset: int) -> None:
        """Note that these records, all of one session, are about to be written at this offset of its file."""
        self._header[_MARK_END] = 0
        self._header[_MARK_FIRST] = records[0].position
        self._header[_MARK_OFFSET] = offset
        self._header[_MARK_END] = records[-1].position + 1

    def marked(self) -> tuple[list[LogRecord], int]:
        """Return the records of a write that was cut off or has failed, and its offset; none if there is none."""
        end = self._header[_MARK_END]
        records = [record for record, _ in self._records() if self._header[_MARK_FIRST] <= record.position < end]
        return [record for record in records if record.session == records[0].session], self._header[_MARK_OFFSET]

    def release(self) -> None:
        """Let go of the memory, so that it can be closed; the ring is of no use afterwards."""
        self._header.release()
        self._data.release()

    def _records(self) -> Iterator[tuple[LogRecord, bool]]:
        """Yield every record held and whether it is written already; end at a torn one."""
        position, head = self._header[_TAIL], self._header[_HEAD]
        while position < head:
            start = position % self._size
            length, crc, name_length, written = _RECORD.unpack_from(self._data, start)
            if length == _SKIP:
                position += self._size - start
                continue
            end = start + _RECORD.size + name_length + length
            payload = bytes(self._data[start + _RECORD.size : end])
            if end > self._size or _crc(payload, position) != crc:
                return
            session = payload[:name_length].decode("utf-8", "surrogatepass")
            yield LogRecord(position, session, payload[name_length:]), bool(written)
            position += (end - start + 15) & ~15

    def _free(self) -> None:
        """Give the room of the oldest records that are written back to the producer."""
        position, head = self._header[_TAIL], self._header[_HEAD]
        while position < head:
            start = position % self._size
            length, _, name_length, written = _RECORD.unpack_from(self._data, start)
            if length == _SKIP:
                position += self._size - start
            elif written:
                position += (_RECORD.size + name_length + length + 15) & ~15
            else:
                break
        self._header[_TAIL] = min(position, head)


def salvage(ring: LogRing, log_dir: Path, emit: Emit | None = None) -> int:
    """Write what a dead worker left in its ring to the session logs; return the number of lines written.

    Lines of a write that the death cut off are not written again. A file that cannot be written is said, and its
    lines stay in the ring. Blocks on the disk: call it in a thread.
    """
    count = 0
    _finish_marked(ring, log_dir)
    for session, records in by_session(ring.peek()).items():
        path = session_log_path(log_dir, session)
        try:
            append_lines(path, [record.line for record in records], functools.partial(ring.mark, records))
        except OSError as error:
            if emit is not None:
                emit(Event.SESSION_LOG_FAILED, session=session, error=str(error))
            continue
        ring.consume(records)
        count += len(records)
    return count


def by_session(records: Sequence[LogRecord]) -> dict[str, list[LogRecord]]:
    """Group records by their session, each group in its order."""
    groups: dict[str, list[LogRecord]] = {}
    for record in records:
        groups.setdefault(record.session, []).append(record)
    return groups


def _finish_marked(ring: LogRing, log_dir: Path) -> None:
    """Take out the records whose lines a write that was cut off has brought to the file."""
    records, offset = ring.marked()
    if not records:
        return
    with contextlib.suppress(OSError):  # salvage meets the same error again when it writes them, and says it
        path = session_log_path(log_dir, records[0].session)
        ring.consume(records[: lines_written(path, offset, [record.line for record in records])])


def _crc(payload: bytes, position: int) -> int:
    return zlib.crc32(payload, position & 0xFFFF_FFFF)
