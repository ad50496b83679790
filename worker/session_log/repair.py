"""Compares a session log with the history the store holds, and appends what the log lost.

Lines can be lost where a whole host dies: those of the last moment were in its memory alone. A line that is appended
later says so: it has ``"repaired": true``, and ``"later": n`` where n messages of the log before it came after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from shared.redaction import Redaction
from shared.session_segments import has_log, log_lines, segment_numbers
from worker.session_log.file import append_locked, locked_log

#: messages of the history and of the log that are compared, from the end
HISTORY_WINDOW = 500
LOG_WINDOW = 1000
#: segments of the log that are read for it
SEGMENTS = 1
_BODY = b',"role":'  #: a message begins so behind its head; in a head's values the quotes would be escaped
_LATER = re.compile(rb',"later":([0-9]+)')


def repair_log(path: Path, session: str, history: Sequence[bytes], redaction: Redaction, at: float) -> int:
    """Append the messages of the history that the log does not hold; return how many. Blocks; raises OSError.

    ``history`` are a session's last messages, at most HISTORY_WINDOW; ``at`` is now, in unix seconds. Every line that
    a live writer holds of them has to be in the file, or it would be there twice.
    """
    bodies = [b"," + redaction.clean(message)[1:].replace(b"\n", b" ") for message in history]
    while True:
        seen = _state(path)
        logged = _logged(path) if has_log(path) else []
        whole = len(bodies) < HISTORY_WINDOW and len(logged) <= LOG_WINDOW
        whole = whole and len(segment_numbers(path)) <= SEGMENTS
        lost = list(_lost(bodies, logged[-LOG_WINDOW:], whole=whole))
        if not lost:
            return 0
        with locked_log(path) as log:
            if _state(path) == seen:
                append_locked(log, [_line(session, at, later) + bodies[place] for place, later in lost])
                return len(lost)


def _state(path: Path) -> tuple[int, int] | None:
    """Return what changes when somebody writes or rotates the file, None for no file or an empty one."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return (status.st_ino, status.st_size) if status.st_size else None


def _logged(path: Path) -> list[bytes]:
    """Return the messages of a log's end as they stand behind their heads, in the order they came."""
    logged: list[bytes] = []
    for line in log_lines(path, SEGMENTS):
        start = line.find(_BODY)
        if start >= 0:
            later = _LATER.search(line, 0, start)
            logged.insert(len(logged) - int(later[1]) if later else len(logged), line[start:])
    return logged


def _lost(history: Sequence[bytes], logged: Sequence[bytes], *, whole: bool) -> Iterator[tuple[int, int]]:
    """Yield the places in the history of what the log lacks, and how many logged messages came after each.

    What else the log holds (a step that was run again, messages that were undone) stays. ``whole`` says that both
    begin with the first message there was; else nothing is known of what came before the first one both hold.
    """
    first = _common(history, logged) if whole else 0
    last = _common(history[first:][::-1], logged[first:][::-1])
    rest, held = history[first : len(history) - last], logged[first : len(logged) - last]
    for place, passed in _unmatched(rest, held):
        if whole or passed:
            yield first + place, len(logged) - first - passed


def _unmatched(rest: Sequence[bytes], held: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Yield the places in ``rest`` outside the longest common subsequence, with how much of ``held`` lies before."""
    lengths = [[0] * (len(held) + 1) for _ in range(len(rest) + 1)]
    for i in reversed(range(len(rest))):
        row, below, message = lengths[i], lengths[i + 1], rest[i]
        for j in reversed(range(len(held))):
            row[j] = below[j + 1] + 1 if message == held[j] else max(below[j], row[j + 1])
    j = 0
    for i, message in enumerate(rest):
        while lengths[i][j] and message != held[j] and lengths[i][j + 1] >= lengths[i + 1][j]:
            j += 1
        if lengths[i][j] and message == held[j]:
            j += 1
        else:
            yield i, j


def _common(one: Sequence[bytes], other: Sequence[bytes]) -> int:
    """Return with how many equal messages both begin."""
    length = min(len(one), len(other))
    return next((place for place in range(length) if one[place] != other[place]), length)


def _line(session: str, at: float, later: int) -> bytes:
    head: dict[str, object] = {"at": round(at, 3), "session": session, "message": "", "repaired": True}
    if later:
        head["later"] = later
    return msgspec.json.encode(head)[:-1]
