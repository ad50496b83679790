"""The session log of a worker: lines are put into a ring in memory, and one thread brings them to their files.

A put is a copy into shared memory. The thread writes what waits ``flush_interval_s`` seconds after the first line of
it, one write a session, so rapid puts share a write and no log is written more often; without lines it sleeps. A line
leaves the ring only after its write: what a killed worker had not written yet, its parent finds there
(worker.session_log.ring.salvage). A file past a size becomes a compressed segment, by the same thread
(worker.session_log.rotation).
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from shared.events import Emit, Event
from shared.redaction import Redaction
from shared.session_files import session_log_path
from worker.session_log.file import append_lines
from worker.session_log.ring import LogRecord, LogRing, by_session
from worker.session_log.rotation import SEGMENT_BYTES, rotate

#: bytes of lines kept in the process while the ring is full
OVERFLOW_BYTES = 16 * 1024 * 1024


class SessionLog:
    """Owns the writing of session logs; put from one thread only.

    ``written`` counts file writes, ``lines`` the lines in them, ``failed`` writes that failed (their lines are kept and
    tried again), ``lost`` lines for which there was no room left at all, ``rotated`` files that became segments.
    ``emit`` is called on the log's own thread; what ``redaction`` finds never reaches the ring.
    """

    def __init__(
        self,
        log_dir: Path,
        ring: LogRing,
        flush_interval_s: float,
        emit: Emit,
        *,
        redaction: Redaction | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._redaction = redaction or Redaction()
        self._segment_bytes = segment_bytes
        self._log_dir = log_dir
        self._ring = ring
        self._flush_interval_s = flush_interval_s
        self._emit = emit
        self._overflow: dict[str, list[LogRecord]] = {}
        self._overflow_bytes = 0
        self._overflow_lock = threading.Lock()
        self._failing: set[str] = set()
        self._unrotated: set[str] = set()
        self._closing = threading.Event()
        self._resting = False
        self._woken = threading.Event()
        self._writing = threading.Lock()
        self._due_at = time.monotonic() + flush_interval_s
        self._thread: threading.Thread | None = None
        self.written = 0
        self.lines = 0
        self.failed = 0
        self.lost = 0
        self.rotated = 0

    def start(self) -> None:
        """Start the thread; in a worker only after the fork."""
        self._thread = threading.Thread(target=self._run, name="session-log", daemon=True)
        self._thread.start()

    def put(self, session: str, line: bytes) -> None:
        """Add a line (one JSON value, no newline) to the session's log; never blocks and never touches the disk."""
        line = self._redaction.clean(line)
        if b"\n" in line:
            line = line.replace(b"\n", b" ")  # in JSON a bare newline is white space
        if session in self._overflow or not self._ring.append(session, line):
            self._put_aside(session, line)
        if self._resting:
            self._woken.set()

    def flush(self) -> None:
        """Write what waits now, on the caller's time."""
        with self._writing:
            with self._overflow_lock:
                aside = {session: list(records) for session, records in self._overflow.items()}
            waiting = by_session(self._ring.peek())  # after the look aside: a line there is newer than one missed here
            for session in waiting | aside:
                self._write(session, waiting.get(session, []), aside.get(session, []))
            self._due_at = time.monotonic() + self._flush_interval_s

    def flush_when_due(self) -> None:
        """Write what waits once the interval since the last write is over, and hold the caller until then."""
        while not self._closing.wait(max(0.0, self._due_at - time.monotonic())):
            if time.monotonic() >= self._due_at:
                break
        self.flush()

    def close(self, timeout_s: float = 5.0) -> bool:
        """Write what waits and end the thread; return whether everything was written in that time."""
        self._closing.set()
        self._woken.set()
        if self._thread is None:
            self.flush()
        elif self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        if self._thread is not None and self._thread.is_alive():
            return False  # it writes as soon as it can, and ends
        return not self._ring.peek() and not self._overflow

    def _run(self) -> None:
        while not self._closing.is_set():
            self._rest()
            self.flush_when_due()
        self.flush()

    def _rest(self) -> None:
        """Wait until there is a line to write: a worker without turns has nothing to wake for."""
        self._woken.clear()
        self._resting = True
        if not (self._ring.used_bytes or self._overflow or self._closing.is_set()):
            self._woken.wait()
            self._due_at = time.monotonic() + self._flush_interval_s
        self._resting = False

    def _write(self, session: str, waiting: list[LogRecord], aside: list[LogRecord]) -> None:
        """Write a session's waiting lines, those set aside among them; they stay where they are if that fails."""
        records = sorted(aside + waiting, key=lambda record: record.position)

        def mark(offset: int) -> None:
            if waiting:
                lead = (record for record in aside if record.position <= waiting[0].position)
                self._ring.mark(waiting, offset + sum(len(record.line) + 1 for record in lead))

        try:
            path = session_log_path(self._log_dir, session)
            size = append_lines(path, [record.line for record in records], mark)
        except OSError as error:
            self._note_failure(session, error)
            self._make_room(session, waiting)
            return
        self.written += 1
        self.lines += len(records)
        self._failing.discard(session)
        self._ring.consume(waiting)
        self._drop_aside(session, len(aside))
        if size >= self._segment_bytes:
            self._rotate(session, path)

    def _rotate(self, session: str, path: Path) -> None:
        """Make a segment of a file that has grown; where that fails it grows on, and is tried again."""
        try:
            rotate(path, self._segment_bytes)
        except OSError as error:
            if session not in self._unrotated:
                self._unrotated.add(session)
                self._emit(Event.SESSION_LOG_FAILED, session=session, error=f"not rotated: {error}")
            return
        self.rotated += 1
        self._unrotated.discard(session)

    def _note_failure(self, session: str, error: OSError) -> None:
        """Count it; say it once a file until the file works again."""
        self.failed += 1
        if session not in self._failing:
            self._failing.add(session)
            self._emit(Event.SESSION_LOG_FAILED, session=session, error=str(error))

    def _make_room(self, session: str, waiting: list[LogRecord]) -> None:
        """Set lines of a file that does not work aside, before they keep the ring from all others."""
        if waiting and self._ring.used_bytes > self._ring.size_bytes // 2:
            with self._overflow_lock:
                kept = [record for record in waiting if self._has_room(record)]
                self._overflow[session] = kept + self._overflow.get(session, [])
            self._ring.consume(waiting)

    def _put_aside(self, session: str, line: bytes) -> None:
        record = LogRecord(self._ring.end, session, line)
        with self._overflow_lock:
            if self._has_room(record):
                self._overflow.setdefault(session, []).append(record)

    def _has_room(self, record: LogRecord) -> bool:
        if self._overflow_bytes + len(record.line) > OVERFLOW_BYTES:
            self.lost += 1
            return False
        self._overflow_bytes += len(record.line)
        return True

    def _drop_aside(self, session: str, count: int) -> None:
        """Forget a session's first lines that were set aside; once none is left its lines go to the ring again."""
        if not count:
            return
        with self._overflow_lock:
            aside = self._overflow[session]
            self._overflow_bytes -= sum(len(record.line) for record in aside[:count])
            if aside[count:]:
                self._overflow[session] = aside[count:]
            else:
                del self._overflow[session]
