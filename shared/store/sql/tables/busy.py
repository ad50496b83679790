"""The table of accepted messages once more: what those of a busy session do beside waiting for a turn of their own.

They join the turn of the one before them, are turned away, stop a turn, are taken back, or are chat commands.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import msgspec

from shared.command import Command
from shared.messages import Arrival, Ended, MessageState, Pending, Usage
from shared.store.sql.tables.inbox import DuplicateOf, pending
from shared.store.sqlite.database import Database
from shared.when_busy import WhenBusy

#: messages that join one turn at once, at most; more of them follow with the next look
MOST_AT_ONCE = 100

# Find the waiting messages behind one, in their order.
BEHIND = """
SELECT seq, joins, joined, quiet_until FROM inbox INDEXED BY inbox_waiting
WHERE session_key = ? AND state = 'waiting' AND seq > ? ORDER BY seq
"""
# Find the waiting messages behind one that are no chat commands.
SAID_BEHIND = """
SELECT seq, joined FROM inbox INDEXED BY inbox_waiting
WHERE session_key = ? AND state = 'waiting' AND seq > ? AND command IS NULL ORDER BY seq
"""
# Find the message before another, if it waits and is no chat command.
BEFORE = """
SELECT joined, quiet_until, user FROM inbox
WHERE session_key = ? AND seq = ? AND state = 'waiting' AND command IS NULL
"""
# Find the last of them.
LAST_SAID_BEHIND = """
SELECT seq, joined FROM inbox INDEXED BY inbox_waiting
WHERE session_key = ? AND state = 'waiting' AND seq > ? AND command IS NULL ORDER BY seq DESC LIMIT 1
"""
# Read until when more of a message may come.
QUIET_UNTIL = "SELECT quiet_until FROM inbox WHERE session_key = ? AND seq = ?"
# Let a message join a turn.
JOIN = """
UPDATE inbox SET joined = ?, claimed_at = ? WHERE session_key = ? AND seq = ?
RETURNING id, seq, user, text, at, attempts, suspect, traceparent, lost, stop
"""
# Find the last message that has joined a turn.
LAST_JOINED = """
SELECT max(seq) FROM inbox INDEXED BY inbox_joined WHERE session_key = ? AND joined = ? AND joined > 0
"""
# Find what has joined a turn.
JOINED = """
SELECT seq, id FROM inbox INDEXED BY inbox_joined
WHERE session_key = ? AND joined = ? AND joined > 0 AND state = 'waiting'
"""
# Settle a message with the turn it joined.
SETTLE_JOINED = """
UPDATE inbox SET state = 'done', settled_at = ?, worker = ?, error = ? WHERE session_key = ? AND seq = ?
"""
# Let a message that joined a turn wait for another one.
LET_GO = "UPDATE inbox SET joined = 0, claimed_at = NULL WHERE session_key = ? AND seq = ?"
# Ask for the end of a message's turn; the first who asks is heard.
STOP = "UPDATE inbox SET stop = ? WHERE session_key = ? AND seq = ? AND stop = ''"
# Close a message that waits, without a turn of its own.
CLOSE = """
UPDATE inbox SET state = ?, settled_at = ?, error = ?, usage = ?
WHERE session_key = ? AND seq = ? AND state = 'waiting' RETURNING id, platform, reply
"""
# Take back a message that was answered.
TAKE_BACK = "UPDATE inbox SET state = 'withdrawn' WHERE session_key = ? AND seq = ? AND state = 'done'"
# Take back what joined its turn.
TAKE_BACK_JOINED = """
UPDATE inbox SET state = 'withdrawn' WHERE session_key = ? AND joined = ? AND joined > 0 AND state = 'done'
"""
# Keep the todo list as it was before a message's turn.
KEEP_TODO = "UPDATE inbox SET todo_before = ? WHERE session_key = ? AND seq = ?"
# Read the todo list as it was before a message's turn changed it.
TODO_BEFORE = "SELECT todo_before FROM inbox WHERE session_key = ? AND seq = ?"
# Find the last message that came to its end, of those behind one and before another.
LAST_ENDED = """
SELECT seq, joined FROM inbox
WHERE session_key = ? AND seq > ? AND seq < ? AND command IS NULL AND state IN ('done', 'dead')
ORDER BY seq DESC LIMIT 1
"""
# Read a message's words.
WORDS = "SELECT text FROM inbox WHERE session_key = ? AND seq = ?"
# Read the words that joined its turn.
JOINED_WORDS = """
SELECT text FROM inbox INDEXED BY inbox_joined WHERE session_key = ? AND joined = ? AND joined > 0 ORDER BY seq
"""
# Keep a chat command with the message it is about.
AIM = "UPDATE inbox SET command = ? WHERE session_key = ? AND seq = ?"
# Make a chat command a message with these words.
RUN_AGAIN = "UPDATE inbox SET text = ?, command = NULL WHERE session_key = ? AND seq = ?"

CLOSED_USAGE = msgspec.json.encode(Usage())


class MessageBehind(NamedTuple):
    """A message that waits behind another: whether it joins the turn of the one before it, which turn it joined."""

    seq: int
    joins: int
    joined: int
    quiet_until: float


class Said(NamedTuple):
    """A message that is no chat command, and the number of the one whose turn it joined, 0 for none."""

    seq: int
    joined: int

    @property
    def turn(self) -> int:
        """The number of the message whose turn it belongs to."""
        return self.joined or self.seq


def followers(database: Database, session: str, head: int, after: int | None = None) -> list[MessageBehind]:
    """Return the messages that belong to the turn of another, joined already or not, in their order.

    With ``after`` only those behind that one, which belongs to the turn itself.
    """
    with database.rows(BEHIND, (session, head if after is None else after)) as rows:
        behind = (MessageBehind(*row) for row in rows)
        return list(itertools.takewhile(lambda row: row.joined == head or (row.joins and not row.joined), behind))


def join(database: Database, session: str, head: int, *, anew: bool = False) -> tuple[Pending, ...]:
    """Let what belongs to the turn of message ``head`` join it, and return all that has, or what did ``anew``."""
    # each look costs what is new, however much has joined before
    after = database.only(LAST_JOINED, (session, head))[0] if anew else None
    rows = followers(database, session, head, after)
    joined = [row for row in rows if row.joined]
    new = [row for row in rows if not row.joined][:MOST_AT_ONCE]
    now = database.now()
    return tuple(pending(database.only(JOIN, (head, now, session, row.seq))) for row in (*joined, *new))


def settle_joined(database: Database, session: str, head: int, ended: Ended) -> None:
    """Settle what joined a turn that ended and was taken in by it; the rest waits again."""
    taken_in = frozenset(ended.joined)
    for seq, message_id in database.all(JOINED, (session, head)):
        if message_id in taken_in:
            database.run(SETTLE_JOINED, (database.now(), ended.worker, ended.error, session, seq))
            database.waiting -= 1
        else:
            database.run(LET_GO, (session, seq))


def let_go(database: Database, session: str, head: int) -> None:
    """Let everything that joined a turn wait for one of its own."""
    for seq, _ in database.all(JOINED, (session, head)):
        database.run(LET_GO, (session, seq))


def goes_on(database: Database, arrival: Arrival, seq: int, running: int) -> bool:
    """Tell whether a new message is to share the turn of the one before it, which has not begun.

    That is so for a fragment, sent by the same user just after it, and for one that interrupts: what waits with it is
    newer than the running turn too. ``running`` is the message whose turn runs, 0 for none.
    """
    interrupts = arrival.when_busy is WhenBusy.INTERRUPT
    row = database.one(BEFORE, (arrival.session, seq - 1)) if arrival.quiet_s or interrupts else None
    if row is None or (running and running in {seq - 1, row[0]}):
        return False
    _, quiet_until, user = row
    return interrupts or bool(arrival.quiet_s and user == arrival.user and quiet_until > database.now())


def quiet_until(database: Database, session: str, head: int) -> float:
    """Return until when more of a message may come, 0 if nothing more is waited for."""
    row = database.one(QUIET_UNTIL, (session, head))
    return float(row[0]) if row else 0.0


def stop(database: Database, session: str, seq: int, text: str) -> None:
    """Ask for the end of a message's turn; its sender is told ``text``."""
    database.run(STOP, (text, session, seq))


def close(database: Database, session: str, seq: int, state: MessageState, error: str = "") -> DuplicateOf:
    """Close a message that waits, without a turn of its own."""
    row = database.only(CLOSE, (state.value, database.now(), error, CLOSED_USAGE, session, seq))
    database.waiting -= 1
    return DuplicateOf(*row)


def said_behind(database: Database, session: str, seq: int) -> list[Said]:
    """Return the waiting messages behind one that are no chat commands, in their order."""
    return [Said(*row) for row in database.all(SAID_BEHIND, (session, seq))]


def last_said(database: Database, session: str, head: int) -> Said:
    """Return the last waiting message that is no chat command: ``head`` itself if none is behind it."""
    row = database.one(LAST_SAID_BEHIND, (session, head))
    return Said(*row) if row else Said(head, 0)


def take_back(database: Database, session: str, seq: int) -> bool:
    """Withdraw a message that was answered, with what joined its turn; False if it is not known to have been."""
    database.run(TAKE_BACK_JOINED, (session, seq))
    return database.run(TAKE_BACK, (session, seq)) > 0


def keep_todo(database: Database, session: str, seq: int, todo: bytes) -> None:
    """Keep the todo list as it was before a message's turn changed it."""
    database.run(KEEP_TODO, (todo, session, seq))


def todo_before(database: Database, session: str, seq: int) -> bytes | None:
    """Return the todo list as it was before a message's turn, None if that left it as it was."""
    row = database.one(TODO_BEFORE, (session, seq))
    return row[0] if row else None


def last_ended(database: Database, session: str, after: int, before: int) -> int:
    """Return the number of the last message that came to its end between two others, 0 if there is none."""
    row = database.one(LAST_ENDED, (session, after, before))
    return Said(*row).turn if row else 0


def words(database: Database, session: str, seq: int) -> str:
    """Return a message's words and those that joined its turn, empty if they are not kept any more."""
    rows = database.all(WORDS, (session, seq)) + database.all(JOINED_WORDS, (session, seq))
    return "\n\n".join(text for (text,) in rows)


def aim(database: Database, session: str, seq: int, command: Command) -> None:
    """Keep a waiting chat command with the message it is about."""
    database.run(AIM, (msgspec.msgpack.encode(command), session, seq))


def run_again(database: Database, session: str, seq: int, text: str) -> None:
    """Make a chat command a message with these words, to be answered like any other."""
    database.run(RUN_AGAIN, (text, session, seq))
