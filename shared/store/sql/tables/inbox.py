"""The table of accepted messages, each in the order of its session."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from shared.command import Command
from shared.errors import NotFound
from shared.messages import Arrival, Dead, Ended, Pending, Retry
from shared.store.sqlite.database import Database, Row
from shared.traces import DeadLetter
from shared.usage import Usage

#: executions lost with their host before a message is a suspect itself
LOST_LIMIT = 3

# Keep an accepted message.
ADD = """
INSERT INTO inbox (session_key, seq, id, platform, user, text, reply, at, traceparent, joins, quiet_until, command)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# Count the waiting messages of all sessions.
COUNT_WAITING = "SELECT count(*) FROM inbox WHERE state = 'waiting'"
# Count the waiting messages of one session.
COUNT_WAITING_OF = "SELECT count(*) FROM inbox WHERE session_key = ? AND state = 'waiting'"
# Find the first waiting message of a session.
FIRST_WAITING = """
SELECT seq, suspect, quiet_until, command FROM inbox INDEXED BY inbox_waiting
WHERE session_key = ? AND state = 'waiting' ORDER BY seq LIMIT 1
"""
# Find the last message of a session that is no chat command.
LATEST = "SELECT id FROM inbox WHERE session_key = ? AND command IS NULL ORDER BY seq DESC LIMIT 1"
# Name a message.
ID = "SELECT id FROM inbox WHERE session_key = ? AND seq = ?"
# Tell who sent a message.
SENDER = "SELECT platform || ':' || user FROM inbox WHERE session_key = ? AND seq = ?"
# Hand a message to a turn.
TAKE = """
UPDATE inbox SET claimed_at = ? WHERE session_key = ? AND seq = ?
RETURNING id, seq, user, text, at, attempts, suspect, traceparent, lost, stop
"""
# Count an execution lost with its host; an attempt only for one that was a suspect before.
LOSE = """
UPDATE inbox SET lost = lost + (NOT suspect), attempts = attempts + suspect, suspect = suspect OR lost + 1 >= ?
WHERE session_key = ? AND seq = ? RETURNING suspect
"""
# Record what a lost execution means for the message.
RETRY = "UPDATE inbox SET attempts = ?, lost = ?, suspect = ?, error = ? WHERE session_key = ? AND seq = ?"
# Record that a turn came to an end.
FINISH = """
UPDATE inbox SET state = 'done', settled_at = ?, worker = ?, error = ?, usage = ? WHERE session_key = ? AND seq = ?
RETURNING id, platform, reply, platform || ':' || user, stop
"""
# Make a message a dead letter.
BURY = """
UPDATE inbox SET state = 'dead', settled_at = ?, attempts = ?, error = ?, stacks = ?, worker = ?, usage = ?
WHERE session_key = ? AND seq = ?
RETURNING id, platform, reply, platform || ':' || user
"""
# Make a dead letter wait again.
REVIVE = """
UPDATE inbox SET state = 'waiting', settled_at = NULL, attempts = 0, lost = 0, suspect = 0, error = '', stacks = '',
  usage = NULL, joins = 0, stop = '', quiet_until = 0
WHERE id = ? AND state = 'dead' RETURNING session_key, seq
"""
# Remove a dead letter.
PURGE = "DELETE FROM inbox WHERE id = ? AND state = 'dead' RETURNING session_key, seq"
# List dead letters, newest first.
DEAD = """
SELECT id, session_key, platform, user, text, attempts, error, stacks, at, settled_at FROM inbox
WHERE state = 'dead' AND settled_at IS NOT NULL ORDER BY settled_at DESC LIMIT ?
"""
# Read every stage of a message.
TRACE = """
SELECT session_key, seq, platform, user, state, attempts, suspect, worker, error, at, claimed_at, settled_at, usage,
  joined
FROM inbox WHERE id = ?
"""
# Find messages of a state that were settled long ago, some at a time.
SETTLED = """
SELECT settled_at, session_key, seq FROM inbox
WHERE state = ? AND settled_at <= ? AND (settled_at, session_key, seq) > (?, ?, ?)
ORDER BY settled_at, session_key, seq LIMIT ?
"""
# Remove a message.
REMOVE = "DELETE FROM inbox WHERE session_key = ? AND seq = ?"
# Remove every message of a session.
REMOVE_ALL = "DELETE FROM inbox WHERE session_key = ?"


class DuplicateOf(NamedTuple):
    """What is needed of a message that is answered: id, platform, the address for the answer, and whose it was."""

    message_id: str
    platform: str
    address: bytes
    sender: str = ""
    stop: str = ""


class Next(NamedTuple):
    """A waiting message whose turn has come: its number, what it is, and until when more of it may come."""

    seq: int
    suspect: bool
    quiet_until: float
    command: Command | None


class WaitingMark(NamedTuple):
    """A place in the settled messages, for those who walk over them some at a time."""

    settled_at: float = 0.0
    session: str = ""
    seq: int = 0


def add(database: Database, seq: int, arrival: Arrival, *, joins: bool = False) -> None:
    """Keep an accepted message as number ``seq`` of its session; with ``joins`` for the turn of the one before it."""
    a = arrival
    quiet_until = database.now() + a.quiet_s if a.quiet_s else 0.0
    command = msgspec.msgpack.encode(a.command) if a.command else None
    told = (a.id, a.platform, a.user, a.text, a.reply, a.at, a.traceparent)
    database.run(ADD, (a.session, seq, *told, joins, quiet_until, command))
    database.waiting += 1


def count_waiting(database: Database) -> int:
    """Count the waiting messages of all sessions: a walk over all of them, for the start alone."""
    return int(database.only(COUNT_WAITING)[0])


def count_waiting_of(database: Database, session: str) -> int:
    """Count the waiting messages of one session."""
    return int(database.only(COUNT_WAITING_OF, (session,))[0])


def first_waiting(database: Database, session: str) -> Next | None:
    """Return a session's first waiting message."""
    row = database.one(FIRST_WAITING, (session,))
    return Next(row[0], bool(row[1]), row[2], decode_command(row[3])) if row else None


def latest(database: Database, session: str) -> str:
    """Return the id of a session's last message that is no chat command. Raises NotFound."""
    row = database.one(LATEST, (session,))
    if row is None:
        raise NotFound(f"there is no message in session {session}")
    return str(row[0])


def sender(database: Database, session: str, seq: int) -> str:
    """Return who sent a message, as ``platform:user``."""
    return str(database.only(SENDER, (session, seq))[0])


def id_of(database: Database, session: str, seq: int) -> str:
    """Return the id of a message, empty if it is not kept any more."""
    row = database.one(ID, (session, seq))
    return str(row[0]) if row else ""


def take(database: Database, session: str, seq: int) -> Pending:
    """Return a message for a turn."""
    return pending(database.only(TAKE, (database.now(), session, seq)))


def pending(row: Row) -> Pending:
    """Return a message as TAKE gives it."""
    message_id, seq, user, text, at, attempts, suspect, traceparent, lost, stop = row
    return Pending(message_id, seq, user, text, at, attempts, bool(suspect), traceparent, lost, stop)


def lose(database: Database, session: str, seq: int) -> bool:
    """Count an execution that was lost with its host; tell whether the message is a suspect now."""
    return bool(database.only(LOSE, (LOST_LIMIT, session, seq))[0])


def retry(database: Database, session: str, seq: int, lost: Retry) -> None:
    """Record what a lost execution means for the message."""
    database.run(RETRY, (lost.attempts, lost.lost, lost.suspect, lost.error, session, seq))


def finish(database: Database, session: str, seq: int, ended: Ended) -> DuplicateOf:
    """Record that the turn of a message came to an end."""
    usage = msgspec.json.encode(ended.usage)
    row = database.only(FINISH, (database.now(), ended.worker, ended.error, usage, session, seq))
    database.waiting -= 1
    return DuplicateOf(*row)


def bury(database: Database, session: str, seq: int, dead: Dead) -> DuplicateOf:
    """Make a message a dead letter."""
    usage = msgspec.json.encode(dead.usage)
    row = database.only(
        BURY, (database.now(), dead.attempts, dead.error, dead.stacks, dead.worker, usage, session, seq)
    )
    database.waiting -= 1
    return DuplicateOf(*row)


def revive(database: Database, message_id: str) -> tuple[str, int]:
    """Make a dead letter wait again and return its session and number. Raises NotFound."""
    session, seq = _found(database.one(REVIVE, (message_id,)), message_id)
    database.waiting += 1
    return session, seq


def purge(database: Database, message_id: str) -> tuple[str, int]:
    """Remove a dead letter and return its session and number. Raises NotFound."""
    session, seq = _found(database.one(PURGE, (message_id,)), message_id)
    return session, seq


def dead(database: Database, limit: int) -> list[DeadLetter]:
    """Return dead letters, newest first."""
    return [DeadLetter(*row) for row in database.all(DEAD, (limit,))]


def trace(database: Database, message_id: str) -> Row:
    """Return the columns of TRACE. Raises NotFound."""
    row = database.one(TRACE, (message_id,))
    if row is None:
        raise NotFound(f"there is no message {message_id}")
    return row


def usage(body: bytes | None) -> Usage:
    """Decode what a message's turn has spent; nothing before it came to an end."""
    return msgspec.json.decode(body, type=Usage) if body else Usage()


def settled_before(
    database: Database, state: str, settled_at: float, after: WaitingMark, limit: int
) -> list[WaitingMark]:
    """Return (settled at, session, number) of messages that came to a state by then, oldest first, behind a mark."""
    return [WaitingMark(*row) for row in database.all(SETTLED, (state, settled_at, *after, limit))]


def remove(database: Database, session: str, seq: int) -> None:
    """Remove a settled message."""
    database.run(REMOVE, (session, seq))


def remove_all(database: Database, session: str) -> None:
    """Remove every message of a session."""
    database.waiting -= count_waiting_of(database, session)
    database.run(REMOVE_ALL, (session,))


def decode_command(body: bytes | None) -> Command | None:
    """Return a chat command as it was kept."""
    return msgspec.msgpack.decode(body, type=Command) if body else None


def _found(row: Row | None, message_id: str) -> Row:
    if row is None:
        raise NotFound(f"there is no dead letter {message_id}")
    return row
