"""The tables of the side-effect journal: the step that a turn has begun and not finished, and its tool calls."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from shared.journal import CallIntent, CallResult, JournalEntry, StepOpening
from shared.messages import JournaledCall, OpenStep, Step
from shared.store.engine import Database
from shared.traces import CallTrace

# Open a step.
OPEN = "INSERT INTO open_steps (session_key, step, opening) VALUES (?, ?, ?)"
# Keep the intent of a call of the open step; one that is kept already stays as it is.
START = """
INSERT INTO tool_calls (session_key, step, call_id, idempotency_key, name, started_at)
SELECT session_key, step, ?, ?, ?, ? FROM open_steps WHERE session_key = ? AND step = ?
ON CONFLICT DO NOTHING
"""
# Keep the result of a call.
END = "UPDATE tool_calls SET result = ?, ended_at = ? WHERE session_key = ? AND step = ? AND call_id = ?"
# Keep the todo list as a call left it.
SET_TODO = "UPDATE open_steps SET todo = ? WHERE session_key = ? AND step = ?"
# Read the open step.
READ = "SELECT opening, todo FROM open_steps WHERE session_key = ?"
# Read its calls.
READ_CALLS = "SELECT call_id, name, idempotency_key, result FROM tool_calls WHERE session_key = ?"
# Read when its calls began and ended.
TRACE = "SELECT step, call_id, name, started_at, ended_at FROM tool_calls WHERE session_key = ?"
# Remove the open step if it is no later than this.
REMOVE = "DELETE FROM open_steps WHERE session_key = ? AND step <= ?"
# Remove its calls.
REMOVE_CALLS = "DELETE FROM tool_calls WHERE session_key = ? AND step <= ?"

LAST_STEP = (1 << 63) - 1

_DECODER = msgspec.msgpack.Decoder(StepOpening)


def add(database: Database, session: str, entries: Sequence[JournalEntry]) -> None:
    """Append entries to a session's journal."""
    for entry in entries:
        match entry:
            case StepOpening():
                remove(database, session)
                database.run(OPEN, (session, entry.step, msgspec.msgpack.encode(entry)))
            case CallIntent(step, call_id, name, key):
                database.run(START, (call_id, key, name, database.now(), session, step))
            case CallResult(step, call_id, message, todo):
                database.run(END, (message, database.now(), session, step, call_id))
                if todo is not None:
                    database.run(SET_TODO, (todo, session, step))


def read(database: Database, session: str) -> OpenStep | None:
    """Return the step that a session's turn has begun and not finished."""
    row = database.one(READ, (session,))
    if row is None:
        return None
    opening, todo = _DECODER.decode(row[0]), row[1]
    calls = tuple(JournaledCall(*call) for call in database.all(READ_CALLS, (session,)))
    return OpenStep(opening.step, opening.messages, opening.usage, calls, todo, opening.joined)


def trace(database: Database, session: str) -> tuple[CallTrace, ...]:
    """Return the calls of a session's open step, in the order in which they began."""
    calls = (CallTrace(*row) for row in database.all(TRACE, (session,)))
    return tuple(sorted(calls, key=lambda call: (call.started_at, call.call_id)))


def finish(database: Database, session: str, steps: Sequence[Step]) -> None:
    """Remove the journal of a step that is finished."""
    remove(database, session, max((step.number for step in steps), default=0))


def remove(database: Database, session: str, up_to_step: int = LAST_STEP) -> None:
    """Remove a session's journal unless it is of a later step."""
    database.run(REMOVE_CALLS, (session, up_to_step))
    database.run(REMOVE, (session, up_to_step))
