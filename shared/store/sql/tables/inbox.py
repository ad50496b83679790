"""The table of accepted messages, each in the order of its session."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from shared.call_options import CallOptions
from shared.command import Command
from shared.errors import NotFound
from shared.messages import (
    Arrival,
    Dead,
    DeadKind,
    Ended,
    MessageState,
    RepeatedRequest,
    Retry,
    TurnStatus,
)
from shared.store.engine import Database, Row
from shared.store.sql.small_deletes import DELETE_LIMIT, last_of_some
from shared.store.sql.tables.checkpoints import FinishedSteps
from shared.store.sql.tables.dedupe import IS_NEW, TwoKeys
from shared.traces import DeadLetter, DeadMark, UnansweredMessage
from shared.usage import Usage

#: executions lost with their host before a message is a suspect itself
LOST_LIMIT = 3

# Whether somebody may ask for the answer of a message: a client that asks again, or a gateway that waits for it.
ASKED_FOR = "fingerprint <> '' OR (gateway <> '' AND platform = 'api')"
# Keep an accepted message.
ADD = """
INSERT INTO inbox (session_key, seq, id, platform, user_id, text, reply, at, traceparent, joins, quiet_until, command,
  options, fingerprint, gateway, attachments)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# Keep a message that is new, under the number that its session has given last.
ADD_IF_NEW = """
INSERT INTO inbox (session_key, seq, id, platform, user_id, text, reply, at, traceparent, joins, quiet_until, command,
  options, fingerprint, gateway, attachments)
SELECT ?, next_seq - 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM sessions WHERE session_key = ? AND (is new)
""".replace("(is new)", IS_NEW)
# Read where the answer to a message goes.
REPLY_ADDRESS = "SELECT reply FROM inbox WHERE session_key = ? AND id = ?"
# Let the answer to a waiting message go elsewhere.
READDRESS = "UPDATE inbox SET reply = ? WHERE session_key = ? AND id = ? AND state = 'waiting'"
# List where the answers to the waiting messages of a range of sessions go.
ADDRESSES = "SELECT reply, session_key, id FROM inbox WHERE state = 'waiting' AND session_key >= ? AND session_key <= ?"
# Change the text of a message whose turn has not begun.
AMEND = """
UPDATE inbox SET text = ? WHERE session_key = ? AND id = ? AND state = 'waiting' AND claimed_at IS NULL
RETURNING id
"""
# Read what a message says and whether it is still to be answered.
WORDS = "SELECT text, state = 'waiting' FROM inbox WHERE session_key = ? AND id = ? AND command IS NULL"
# Count the waiting messages of all sessions.
COUNT_WAITING = "SELECT count(*) FROM inbox WHERE state = 'waiting'"
# Count the waiting messages of one session.
COUNT_WAITING_OF = "SELECT count(*) FROM inbox WHERE session_key = ? AND state = 'waiting'"
# Find the first waiting message of a session.
FIRST_WAITING = """
SELECT seq, suspect, quiet_until, command, platform || ':' || user_id FROM inbox INDEXED BY inbox_waiting
WHERE session_key = ? AND state = 'waiting' ORDER BY seq LIMIT 1
"""
# Find the first waiting message of a session but the one that it is claimed for.
FIRST_BEHIND_HEAD = FIRST_WAITING.replace(
    "ORDER BY", "AND seq <> (SELECT head FROM sessions WHERE sessions.session_key = inbox.session_key) ORDER BY"
)
# Find when the oldest message was accepted whose turn has not begun.
OLDEST = "SELECT min(at) FROM inbox WHERE state = 'waiting' AND claimed_at IS NULL"
# Count dead letters.
COUNT_DEAD = "SELECT dead_kind, count(*) FROM inbox WHERE state = 'dead' AND settled_at IS NOT NULL GROUP BY dead_kind"
# Read the messages of a session that are not answered yet, in their order.
UNANSWERED = """
SELECT id, user_id, text, at, claimed_at FROM inbox
WHERE session_key = ? AND state = 'waiting' AND command IS NULL ORDER BY seq LIMIT ?
"""
# Find the last message of a session that is no chat command.
LATEST = "SELECT id FROM inbox WHERE session_key = ? AND command IS NULL ORDER BY seq DESC LIMIT 1"
# Find the last request of a session that has this fingerprint, unless it is older than that.
REPEATED = "SELECT id FROM inbox WHERE session_key = ? AND fingerprint = ? AND at >= ? ORDER BY seq DESC LIMIT 1"
# Read what became of a request.
ANSWER = "SELECT state, answer, fingerprint, session_key FROM inbox WHERE id = ?"
# Read what a client asks for beside its words.
OPTIONS = "SELECT options FROM inbox WHERE id = ?"
# Count the waiting messages of one sender, up to a limit.
COUNT_WAITING_BY = """
SELECT count(*) FROM
  (SELECT 1 FROM inbox WHERE platform = ? AND user_id = ? AND state = 'waiting' LIMIT ?) AS one_row
"""
# Ask for the end of a message's turn; the first who asks is heard.
REQUEST_STOP = "UPDATE inbox SET stop = ? WHERE session_key = ? AND seq = ? AND stop = ''"
# Tell whether the end of a message's turn has been asked for.
STOP_REQUESTED = "SELECT stop <> '' FROM inbox WHERE session_key = ? AND seq = ?"
# Close a message that waits, without a turn of its own.
CLOSE = """
UPDATE inbox SET state = ?, settled_at = ?, error = ?, usage = ?, answer = CASE WHEN (asked for) THEN ? END
WHERE session_key = ? AND seq = ? AND state = 'waiting' RETURNING id, platform, reply, platform || ':' || user_id
""".replace("(asked for)", ASKED_FOR)
# Name a message.
ID = "SELECT id FROM inbox WHERE session_key = ? AND seq = ?"
# Tell who sent a message.
SENDER = "SELECT platform || ':' || user_id FROM inbox WHERE session_key = ? AND seq = ?"
# Keep the steps that a message's turn has finished, or forget them.
SET_FINISHED = "UPDATE inbox SET finished = ? WHERE session_key = ? AND seq = ?"
# Count an execution lost with its host; an attempt only for one that was a suspect before.
COUNT_LOST = """
UPDATE inbox SET lost = lost + 1 - suspect, attempts = attempts + suspect,
  suspect = CASE WHEN suspect = 1 OR lost + 1 >= ? THEN 1 ELSE 0 END
WHERE session_key = ? AND seq = ? RETURNING suspect
"""
# Record what a lost execution means for the message.
RETRY = "UPDATE inbox SET attempts = ?, lost = ?, suspect = ?, error = ? WHERE session_key = ? AND seq = ?"
# Record that a turn came to an end.
MARK_DONE = """
UPDATE inbox SET state = 'done', settled_at = ?, worker = ?, error = ?, usage = ?,
  todo_before = coalesce(?, todo_before), answer = CASE WHEN (asked for) THEN ? END WHERE session_key = ? AND seq = ?
""".replace("(asked for)", ASKED_FOR)
# Read where a message's answer goes.
ADDRESS = "SELECT id, platform, reply, platform || ':' || user_id FROM inbox WHERE session_key = ? AND seq = ?"
# Make a message a dead letter.
MARK_DEAD = """
UPDATE inbox SET state = 'dead', settled_at = ?, attempts = ?, error = ?, stacks = ?, worker = ?, usage = ?,
  answer = CASE WHEN (asked for) THEN ? END, dead_kind = ?
WHERE session_key = ? AND seq = ?
""".replace("(asked for)", ASKED_FOR)
# Find the session of a dead letter.
SESSION_OF_DEAD = "SELECT session_key FROM inbox WHERE id = ? AND state = 'dead'"
# Make a dead letter wait again.
REQUEUE = """
UPDATE inbox SET state = 'waiting', settled_at = NULL, attempts = 0, lost = 0, suspect = 0, error = '', stacks = '',
  usage = NULL, answer = NULL, joins = 0, stop = '', quiet_until = 0
WHERE id = ? AND state = 'dead' RETURNING session_key
"""
# Remove a dead letter.
PURGE = "DELETE FROM inbox WHERE id = ? AND state = 'dead' RETURNING session_key, seq"
# List dead letters behind one of them, newest first.
DEAD = """
SELECT id, session_key, platform, user_id, text, attempts, error, stacks, at, settled_at, dead_kind, seq FROM inbox
WHERE state = 'dead' AND settled_at IS NOT NULL AND (settled_at, session_key, seq) < (?, ?, ?)
ORDER BY settled_at DESC, session_key DESC, seq DESC LIMIT ?
"""
# Read every stage of a message.
TRACE = """
SELECT session_key, seq, platform, user_id, state, attempts, suspect, worker, error, at, claimed_at, settled_at, usage,
  joined, substr(text, 1, 2000), stacks
FROM inbox WHERE id = ?
"""
# Find messages of a state that were settled long ago, some at a time, with the bytes of each.
SETTLED = """
SELECT settled_at, session_key, seq, octet_length(text) + coalesce(octet_length(answer), 0) FROM inbox
WHERE state = ? AND settled_at <= ? AND (settled_at, session_key, seq) > (?, ?, ?)
ORDER BY settled_at, session_key, seq LIMIT ?
"""
# Remove a message.
REMOVE = "DELETE FROM inbox WHERE session_key = ? AND seq = ?"
# Read how large some answered messages of a session are.
SIZES = "SELECT seq, octet_length(text) FROM inbox WHERE session_key = ? AND state = 'done' ORDER BY seq LIMIT ?"
# Remove some answered messages of a session.
REMOVE_SOME = "DELETE FROM inbox WHERE session_key = ? AND state = 'done' AND seq <= ?"
# Remove every message of a session.
REMOVE_ALL = "DELETE FROM inbox WHERE session_key = ?"

CLOSED_USAGE = msgspec.json.encode(Usage())


class SettledMessage(NamedTuple):
    """A message that came to its end, as far as its answer needs to know it."""

    #: its message id
    message_id: str
    platform: str
    #: where the answer goes, as the platform wrote it
    address: bytes
    #: who sent it, as ``platform:user``
    sender: str = ""
    #: what its sender is told if its turn was stopped, empty if nobody asked for that
    stop: str = ""


class NextMessage(NamedTuple):
    """The waiting message of a session whose turn has come."""

    #: its number in the session
    seq: int
    #: whether it runs on a worker of its own
    suspect: bool
    #: until when more of it may come, 0 if nothing is waited for
    quiet_until: float
    #: the chat command it is, None for a message that a turn answers
    command: Command | None
    #: who sent it, as ``platform:user``
    sender: str


class SettledMark(NamedTuple):
    """A place in the settled messages, for those who walk over them some at a time."""

    settled_at: float = 0.0
    session: str = ""
    seq: int = 0


def add(database: Database, seq: int, arrival: Arrival, *, joins: bool = False) -> None:
    """Keep a message, counted as waiting, as number ``seq`` of its session; with ``joins`` for the turn before it."""
    quiet_until = database.now() + arrival.quiet_s if arrival.quiet_s else 0.0
    database.run(ADD, (arrival.session, seq, *_columns(arrival, joins=joins, quiet_until=quiet_until)))


def add_if_new(database: Database, arrival: Arrival, keys: TwoKeys) -> None:
    """Keep a message that no other is waited for with, counted as waiting, if it is new and has its number."""
    columns = _columns(arrival, joins=False, quiet_until=0.0)
    database.run(ADD_IF_NEW, (arrival.session, *columns, arrival.session, *keys.if_new))


def _columns(arrival: Arrival, *, joins: bool, quiet_until: float) -> Row:
    """Return what is kept of a message, without its session and number."""
    a = arrival
    command = msgspec.msgpack.encode(a.command) if a.command else None
    options = msgspec.msgpack.encode(a.options) if a.options else None
    fingerprint = a.options.fingerprint if a.options else ""
    attached = msgspec.msgpack.encode(a.attachments) if a.attachments else None
    columns = (a.id, a.platform, a.user, a.text, a.reply, a.at, a.traceparent)
    more = (command, options, fingerprint, a.gateway, attached)
    return (*columns, int(joins), quiet_until, *more)


def oldest(database: Database) -> float | None:
    """Return when the oldest message was accepted whose turn has not begun, in unix seconds; None if there is none."""
    return database.only(OLDEST)[0]  # type: ignore[no-any-return]  # the statement's own column


def count_dead(database: Database) -> dict[str, int]:
    """Return how many messages are dead letters, by their kind."""
    return {str(kind): int(count) for kind, count in database.all(COUNT_DEAD)}


def unanswered(database: Database, session: str, limit: int) -> list[UnansweredMessage]:
    """Return the messages of a session that wait or are in their turn, oldest first."""
    return [UnansweredMessage(*row) for row in database.all(UNANSWERED, (session, limit))]


def count_waiting_of(database: Database, session: str) -> int:
    """Count the waiting messages of one session."""
    return int(database.only(COUNT_WAITING_OF, (session,))[0])


def count_waiting_by(database: Database, platform: str, user: str, limit: int) -> int:
    """Count the waiting messages of one sender, up to a limit."""
    return int(database.only(COUNT_WAITING_BY, (platform, user, limit))[0])


def first_waiting(database: Database, session: str) -> NextMessage | None:
    """Return a session's first waiting message."""
    return _next(database.one(FIRST_WAITING, (session,)))


def first_behind_head(database: Database, session: str) -> NextMessage | None:
    """Return a session's first waiting message but the one that it is claimed for."""
    return _next(database.one(FIRST_BEHIND_HEAD, (session,)))


def _next(row: Row | None) -> NextMessage | None:
    return NextMessage(row[0], bool(row[1]), row[2], decode_command(row[3]), row[4]) if row else None


def latest(database: Database, session: str) -> str:
    """Return the id of a session's last message that is no chat command. Raises NotFound."""
    row = database.one(LATEST, (session,))
    if row is None:
        raise NotFound(f"there is no message in session {session}")
    return str(row[0])


def is_unused(database: Database, session: str) -> bool:
    """Tell whether a session has no message that is no chat command."""
    return database.one(LATEST, (session,)) is None


def repeated(database: Database, session: str, fingerprint: str, since: float) -> str:
    """Return the id of a session's last request that has this fingerprint, empty if there is none since then."""
    row = database.one(REPEATED, (session, fingerprint, since))
    return str(row[0]) if row else ""


def answer(database: Database, message_id: str) -> tuple[RepeatedRequest, str]:
    """Return what became of a request, and its session. Raises NotFound."""
    row = database.one(ANSWER, (message_id,))
    if row is None:
        raise NotFound(f"there is no message {message_id}")
    outcome = msgspec.msgpack.decode(row[1], type=Ended | Dead) if row[1] else None
    return RepeatedRequest(MessageState(row[0]), outcome, row[2]), str(row[3])


def options(database: Database, message_id: str) -> CallOptions | None:
    """Return what a client of the API asks for beside its words, None for nothing. Raises NotFound."""
    (packed,) = _found(database.one(OPTIONS, (message_id,)), message_id)
    return msgspec.msgpack.decode(packed, type=CallOptions) if packed else None


def sender(database: Database, session: str, seq: int) -> str:
    """Return who sent a message, as ``platform:user``."""
    return str(database.only(SENDER, (session, seq))[0])


def id_of(database: Database, session: str, seq: int) -> str:
    """Return the id of a message, empty if it is not kept any more."""
    row = database.one(ID, (session, seq))
    return str(row[0]) if row else ""


def keep_finished(database: Database, session: str, seq: int, finished: FinishedSteps | None) -> None:
    """Keep what a dead letter's turn has done, or forget it."""
    kept = msgspec.msgpack.encode(finished) if finished else None
    database.run(SET_FINISHED, (kept, session, seq))


def count_lost(database: Database, session: str, seq: int) -> bool:
    """Count an execution that was lost with its host; tell whether the message is a suspect now."""
    return bool(database.only(COUNT_LOST, (LOST_LIMIT, session, seq))[0])


def retry(database: Database, session: str, seq: int, lost: Retry) -> None:
    """Record what a lost execution means for the message."""
    database.run(RETRY, (lost.attempts, lost.lost, int(lost.suspect), lost.error, session, seq))


def mark_done(database: Database, session: str, seq: int, ended: Ended, todo_before: bytes | None) -> None:
    """Record that the turn of a message came to an end; with the todo list before it where the turn changed that."""
    usage = msgspec.json.encode(ended.usage)
    answer = msgspec.msgpack.encode(msgspec.structs.replace(ended, messages=(), todo=None, summary=None))
    columns = (ended.worker, ended.error, usage, todo_before, answer)
    database.run(MARK_DONE, (database.now(), *columns, session, seq))
    database.add_waiting(-1)


def read_address(database: Database, session: str, seq: int) -> SettledMessage:
    """Return where something that is told about a message goes."""
    return SettledMessage(*database.only(ADDRESS, (session, seq)))


def mark_dead(database: Database, session: str, seq: int, dead: Dead) -> None:
    """Make a message a dead letter."""
    usage = msgspec.json.encode(dead.usage)
    answer = msgspec.msgpack.encode(msgspec.structs.replace(dead, stacks=""))
    columns = (dead.attempts, dead.error, dead.stacks, dead.worker, usage, answer, dead.kind.value)
    database.run(MARK_DEAD, (database.now(), *columns, session, seq))
    database.add_waiting(-1)


def request_stop(database: Database, session: str, seq: int, text: str) -> None:
    """Ask for the end of a message's turn; its sender is told ``text``."""
    database.run(REQUEST_STOP, (text, session, seq))


def stop_requested(database: Database, session: str, seq: int) -> bool:
    """Tell whether the end of a message's turn has been asked for."""
    row = database.one(STOP_REQUESTED, (session, seq))
    return bool(row and row[0])


def close(
    database: Database, session: str, seq: int, state: MessageState, text: str, error: str = ""
) -> SettledMessage:
    """Close a message that waits, without a turn of its own; ``text`` tells its sender, empty for nothing."""
    status = TurnStatus.INTERRUPTED if state is MessageState.WITHDRAWN else TurnStatus.REPLIED
    answer = msgspec.msgpack.encode(Ended(status, text, ())) if text else b""
    row = database.only(CLOSE, (state.value, database.now(), error, CLOSED_USAGE, answer, session, seq))
    database.add_waiting(-1)
    return SettledMessage(*row)


def session_of_dead(database: Database, message_id: str) -> str:
    """Return the session of a dead letter. Raises NotFound."""
    return str(_found(database.one(SESSION_OF_DEAD, (message_id,)), message_id)[0])


def requeue(database: Database, message_id: str) -> str:
    """Make a dead letter wait again and return its session. Raises NotFound."""
    session = str(_found(database.one(REQUEUE, (message_id,)), message_id)[0])
    database.add_waiting(1)
    return session


def purge(database: Database, message_id: str) -> tuple[str, int]:
    """Remove a dead letter and return its session and number. Raises NotFound."""
    session, seq = _found(database.one(PURGE, (message_id,)), message_id)
    return session, seq


def dead(database: Database, after: DeadMark, limit: int) -> list[tuple[DeadMark, DeadLetter]]:
    """Return dead letters behind a place, newest first, each with its own place."""
    letters = []
    for row in database.all(DEAD, (*after[:3], limit)):
        message_id, session, platform, user, text, attempts, error, stacks, at, dead_at, kind, seq = row
        letter = DeadLetter(
            message_id, session, platform, user, text, attempts, error, stacks, at, dead_at, DeadKind(kind)
        )
        letters.append(((dead_at, session, seq, message_id), letter))
    return letters


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
    database: Database, state: str, settled_at: float, after: SettledMark, limit: int
) -> list[tuple[SettledMark, int]]:
    """Return the messages that came to a state by then, oldest first, behind a mark; of each the mark and its bytes."""
    rows = database.all(SETTLED, (state, settled_at, *after, limit))
    return [(SettledMark(*row[:3]), row[3]) for row in rows]


def remove(database: Database, session: str, seq: int) -> None:
    """Remove a settled message."""
    database.run(REMOVE, (session, seq))


def remove_some(database: Database, session: str) -> bool:
    """Remove some answered messages of a session; False where those that are left are little."""
    last = last_of_some(database.all(SIZES, (session, DELETE_LIMIT + 1)))
    return last is not None and database.changed(REMOVE_SOME, (session, last)) > 0


def remove_all(database: Database, session: str) -> None:
    """Remove every message of a session."""
    database.add_waiting(-count_waiting_of(database, session))
    database.run(REMOVE_ALL, (session,))


def decode_command(body: bytes | None) -> Command | None:
    """Return a chat command as it was kept."""
    return msgspec.msgpack.decode(body, type=Command) if body else None


def _found(row: Row | None, message_id: str) -> Row:
    if row is None:
        raise NotFound(f"there is no dead letter {message_id}")
    return row


def address(database: Database, session: str, message_id: str) -> bytes:
    """Return where the answer to a message goes. Raises NotFound."""
    if row := database.one(REPLY_ADDRESS, (session, message_id)):
        return bytes(row[0])
    raise NotFound(f"there is no message {message_id}")


def readdress(database: Database, session: str, message_id: str, place: bytes) -> None:
    """Let the answer to a waiting message go elsewhere."""
    database.run(READDRESS, (place, session, message_id))


def addresses(database: Database, span: tuple[str, str]) -> list[Row]:
    """Return (address, session, id) of the waiting messages of a range of sessions."""
    return database.all(ADDRESSES, span)


def readdress_each(database: Database, rows: Iterable[Row]) -> None:
    """Let the answers to waiting messages go elsewhere, each (address, session, id)."""
    database.run_each(READDRESS, rows)


def amend(database: Database, session: str, message_id: str, text: str) -> bool | None:
    """Change what a message says; True if its turn has not begun, False if it runs, None if it is over or the same."""
    words = database.one(WORDS, (session, message_id))
    if words is None or not words[1] or words[0] == text:
        return None
    return database.one(AMEND, (text, session, message_id)) is not None


def waits(database: Database, session: str, message_id: str) -> bool:
    """Tell whether a message is still to be answered."""
    words = database.one(WORDS, (session, message_id))
    return bool(words and words[1])
