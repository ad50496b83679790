"""The table of accepted messages, as far as messages share a turn: those that join the turn of the one before them."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import msgspec

from shared.messages import Arrival, Ended, Pending
from shared.store.engine import Database
from shared.store.sql.tables.begun_messages import pending
from shared.store.sql.tables.inbox import ASKED_FOR
from shared.usage import Usage
from shared.when_busy import WhenBusy

#: messages that join one turn at once, at most; more of them follow with the next look
MOST_AT_ONCE = 100

# Find the waiting messages behind one, in their order.
BEHIND = """
SELECT seq, joins, joined, quiet_until FROM inbox INDEXED BY inbox_waiting
WHERE session_key = ? AND state = 'waiting' AND seq > ? ORDER BY seq
"""
# Find the message before another, if it waits and is no chat command.
BEFORE = """
SELECT joined, quiet_until, user_id FROM inbox
WHERE session_key = ? AND seq = ? AND state = 'waiting' AND command IS NULL
"""
# Read until when more of a message may come.
QUIET_UNTIL = "SELECT quiet_until FROM inbox WHERE session_key = ? AND seq = ?"
# Let a message join a turn.
JOIN = """
UPDATE inbox SET joined = ?, claimed_at = ? WHERE session_key = ? AND seq = ?
RETURNING id, seq, user_id, text, at, attempts, suspect, traceparent, lost, stop, options, attachments, gateway
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
UPDATE inbox SET state = 'done', settled_at = ?, worker = ?, error = ?, answer = CASE WHEN (asked for) THEN ? END
WHERE session_key = ? AND seq = ?
""".replace("(asked for)", ASKED_FOR)
# Let a message that joined a turn wait for another one.
RELEASE = "UPDATE inbox SET joined = 0, claimed_at = NULL WHERE session_key = ? AND seq = ?"


class MessageBehind(NamedTuple):
    """A message that waits behind another."""

    #: its number in the session
    seq: int
    #: whether it belongs to the turn of the one before it
    joins: int
    #: the number of the message whose turn it joined, 0 for none
    joined: int
    #: until when more of it may come, 0 if nothing is waited for
    quiet_until: float


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
    return tuple(
        database.each(lambda row: pending(database.only(JOIN, (head, now, session, row.seq))), [*joined, *new])
    )


def settle(database: Database, session: str, head: int, ended: Ended) -> None:
    """Settle what joined a turn that ended and was taken in by it; the rest waits again."""
    absorbed, now = frozenset(ended.joined), database.now()
    # what the turn spent is counted once
    answer = msgspec.msgpack.encode(msgspec.structs.replace(ended, messages=(), todo=None, summary=None, usage=Usage()))
    for seq, message_id in database.all(JOINED, (session, head)):
        if message_id in absorbed:
            database.run(SETTLE_JOINED, (now, ended.worker, ended.error, answer, session, seq))
            database.add_waiting(-1)
        else:
            database.run(RELEASE, (session, seq))


def release(database: Database, session: str, head: int) -> None:
    """Let everything that joined a turn wait for one of its own."""
    for seq, _ in database.all(JOINED, (session, head)):
        database.run(RELEASE, (session, seq))


def continues_previous(database: Database, arrival: Arrival, seq: int, running: int) -> bool:
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
