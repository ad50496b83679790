"""The tables of transcripts and todo lists: a session's conversation."""

from __future__ import annotations

from collections.abc import Sequence

from shared.store.engine import ALL_ROWS, Database
from shared.store.sql.small_deletes import DELETE_LIMIT, last_of_some
from shared.traces import LoggedMessage

# Find where a session's transcript goes on.
NEXT_POSITION = "SELECT coalesce(max(position) + 1, 0) FROM history WHERE session_key = ?"
# Add one message to a transcript.
ADD = "INSERT INTO history (session_key, position, message, seq, at) VALUES (?, ?, ?, ?, ?)"
# Read the end of a transcript, last message first.
READ_BACK = """
SELECT message FROM history WHERE session_key = ? AND position >= ? ORDER BY position DESC LIMIT ?
"""
# Read when the end of a transcript was kept, last message first.
READ_TIMES = "SELECT at FROM history WHERE session_key = ? AND position >= ? ORDER BY position DESC LIMIT ?"
# Read the end of a transcript from a position on, last message first.
READ_END = """
SELECT position, message FROM history WHERE session_key = ? AND position >= ? ORDER BY position DESC LIMIT ?
"""
# Read what is before a position, oldest first.
READ_BEFORE = "SELECT message FROM history WHERE session_key = ? AND position < ? ORDER BY position"
# Read a transcript from a position on, each message with the id of the one whose turn wrote it, and when that ended.
READ_WITH_TURNS = """
SELECT history.position, history.message, inbox.id, inbox.settled_at FROM history
LEFT JOIN inbox ON inbox.session_key = history.session_key AND inbox.seq = history.seq
WHERE history.session_key = ? AND history.position >= ? ORDER BY history.position LIMIT ?
"""
# Read a transcript from a position on as far as a message's turn, each message with the number of whose turn wrote it.
READ_TO_TURN = """
SELECT seq, message FROM history WHERE session_key = ? AND position >= ? AND seq <= ? ORDER BY position LIMIT ?
"""
# Find which turn wrote the end of a transcript.
LAST_SEQ = "SELECT seq FROM history WHERE session_key = ? AND position >= ? ORDER BY position DESC LIMIT 1"
# Find the last message that another turn wrote.
LAST_OF_OTHERS = """
SELECT position FROM history WHERE session_key = ? AND position >= ? AND seq <> ? ORDER BY position DESC LIMIT 1
"""
# Remove the end of a transcript.
CUT = "DELETE FROM history WHERE session_key = ? AND position >= ?"
# Read how large the last messages of a transcript are.
SIZES = "SELECT position, length(message) FROM history WHERE session_key = ? ORDER BY position DESC LIMIT ?"
# Remove a transcript.
REMOVE = "DELETE FROM history WHERE session_key = ?"
# Write a todo list.
WRITE_TODO = """
INSERT INTO todos (session_key, todo) VALUES (?, ?) ON CONFLICT (session_key) DO UPDATE SET todo = excluded.todo
"""
# Read a todo list.
READ_TODO = "SELECT todo FROM todos WHERE session_key = ?"
# Remove a todo list.
REMOVE_TODO = "DELETE FROM todos WHERE session_key = ?"


def append(database: Database, session: str, messages: Sequence[bytes], seq: int = 0, start: int | None = None) -> None:
    """Add messages to the end of a session's transcript; the turn of message ``seq`` wrote them.

    ``start`` is the position behind that end, for who knows it already.
    """
    now = database.now()
    if start is None:
        start = next_position(database, session)
    rows = ((session, position, message, seq, now) for position, message in enumerate(messages, start))
    database.run_each(ADD, rows)


def next_position(database: Database, session: str) -> int:
    """Return the position behind the end of a session's transcript."""
    return int(database.only(NEXT_POSITION, (session,))[0])


def read(database: Database, session: str, begin: int, last: int | None) -> tuple[bytes, ...]:
    """Return a session's transcript from a position on, at most its ``last`` messages, oldest first."""
    rows = database.all(READ_BACK, (session, begin, ALL_ROWS if last is None else max(last, 0)))
    return tuple(message for (message,) in reversed(rows))


def read_times(database: Database, session: str, begin: int, last: int) -> tuple[float, ...]:
    """Return when the ``last`` messages of a transcript from a position on were kept, oldest first; 0 if unknown."""
    return tuple(at for (at,) in reversed(database.all(READ_TIMES, (session, begin, last))))


def read_end(
    database: Database, session: str, start: int, last: int, limit_bytes: int, least: int
) -> tuple[int, tuple[bytes, ...]]:
    """Return the newest messages from ``start`` on, oldest first, behind the position of the first of them.

    They are ``last`` at most, and as many as fit into ``limit_bytes``, ``least`` at the least; where there are none it
    is the position of the next message to come.
    """
    found: list[bytes] = []
    first, size = int(database.only(NEXT_POSITION, (session,))[0]), 0
    with database.rows(READ_END, (session, start, max(last, 0))) as rows:
        for position, message in rows:
            size += len(message)
            if len(found) >= least and size > limit_bytes:
                break
            found.append(message)
            first = position
    return first, tuple(reversed(found))


def read_before(database: Database, session: str, position: int) -> tuple[bytes, ...]:
    """Return a session's transcript before a position, oldest first."""
    return tuple(message for (message,) in database.all(READ_BEFORE, (session, position)))


def read_with_turns(database: Database, session: str, begin: int, limit: int) -> list[tuple[int, LoggedMessage]]:
    """Return messages from a position on with their positions, earlier conversations too, oldest first."""
    rows = database.all(READ_WITH_TURNS, (session, begin, limit))
    return [(position, LoggedMessage(message, id_ or "", at or 0.0)) for position, message, id_, at in rows]


def read_to_turn(database: Database, session: str, begin: int, seq: int, limit: int) -> list[tuple[int, bytes]]:
    """Return messages from a position on up to those of message ``seq``'s turn, each behind whose turn wrote it."""
    return [(of, message) for of, message in database.all(READ_TO_TURN, (session, begin, seq, limit))]


def last_seq(database: Database, session: str, begin: int) -> int:
    """Return the number of the message whose turn wrote the end of a transcript, 0 if nobody knows."""
    row = database.one(LAST_SEQ, (session, begin))
    return int(row[0]) if row else 0


def cut(database: Database, session: str, begin: int, seq: int) -> int:
    """Remove what the turn of message ``seq`` wrote, if that is the end of the transcript; count the messages.

    What is before the position ``begin`` stays.
    """
    other = database.one(LAST_OF_OTHERS, (session, begin, seq))
    return database.changed(CUT, (session, other[0] + 1 if other else begin))


def cut_some(database: Database, session: str) -> bool:
    """Remove some of the end of a session's transcript; False where what is left of it is little."""
    last = last_of_some(database.all(SIZES, (session, DELETE_LIMIT + 1)))
    return last is not None and database.changed(CUT, (session, last)) > 0


def write_todo(database: Database, session: str, todo: bytes) -> None:
    """Write a session's todo list, as JSON."""
    database.run(WRITE_TODO, (session, todo))


def read_todo(database: Database, session: str) -> bytes | None:
    """Return a session's todo list, as JSON."""
    row = database.one(READ_TODO, (session,))
    return row[0] if row else None


def remove(database: Database, session: str) -> None:
    """Remove a session's transcript and todo list."""
    database.run(REMOVE, (session,))
    database.run(REMOVE_TODO, (session,))
