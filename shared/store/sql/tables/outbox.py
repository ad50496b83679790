"""The table of replies: one order per session, and one row of it at a time on its way out.

    queued ──the row before it is closed──▶ due ──leased to a sender──▶ leased ──▶ sent, or failed
                                             ▲                            │
                                             └── postponed, or the lease ended

A row of a session is queued while an earlier one is not closed, so what is due is an index walk however much waits.
Rows that are due go by their places: microseconds of the clock, of each sender some seconds apart, so that one whose
replies fill all that a platform takes is overtaken by those who have one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from shared.errors import StaleClaim
from shared.messages import PARTS, Reply, ReplyLease, ReplyState
from shared.retry import LONGEST_S
from shared.store.engine import Database, Row
from shared.traces import ReplyTrace

#: how far a sender's next reply is put behind the last one of theirs that is due, in microseconds of places
SENDER_SPACING_US = 10 * 10**6
#: the farthest that any is put behind what is due now, so that none waits for ever
FARTHEST_US = 600 * 10**6

#: the number of replies that answer no message
UNSOLICITED = 0

# Find where a message's next reply starts, and whether any reply of its session is on its way.
NEXT_PART = """
SELECT (SELECT max(part) FROM outbox WHERE session_key = ? AND seq = ?),
  EXISTS (SELECT 1 FROM outbox INDEXED BY outbox_unsent WHERE session_key = ? AND closed_at IS NULL)
"""
# Choose a place: now, but behind the sender's last reply that is due, and before the farthest there is.
REPLY_PLACE = """
(SELECT CASE WHEN coalesce(max(one.place), 0) < ? THEN ? WHEN max(one.place) > ? THEN ? ELSE max(one.place) + ? END
 FROM outbox AS one WHERE one.sender = (sender) AND one.sender <> '' AND one.state = 'due')
"""
# Put a reply on its way.
ADD = """
INSERT INTO outbox (session_key, seq, part, message_id, platform, text, address, status, rendered, question, sender,
  file, state, place, gateway)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, (place),
  coalesce((SELECT gateway FROM inbox WHERE session_key = ? AND seq = ?), ''))
""".replace("(place)", REPLY_PLACE).replace("(sender)", "?")
# List what a host has leased.
HELD = """
SELECT session_key, message_id, part, lease FROM outbox WHERE state = 'leased' AND until IS NOT NULL AND host = ?
"""
# End one lease of a host that does not send the row: it may have been sent, so it counts as one more attempt.
GIVE_BACK = """
UPDATE outbox SET state = 'due', until = NULL, host = '', attempts = attempts + 1
WHERE session_key = ? AND message_id = ? AND part = ? AND lease = ? AND state = 'leased' AND host = ?
"""
# Find a leased row again by what its sender knows of it.
FENCE = """
SELECT seq FROM outbox INDEXED BY outbox_unsent
WHERE session_key = ? AND part = ? AND message_id = ? AND lease = ? AND closed_at IS NULL
"""
# Tell whether a row was sent like this under this lease, and whether another of its session is on its way.
SENT_UNDER = """
SELECT EXISTS (SELECT 1 FROM outbox WHERE session_key = ? AND seq = ? AND part = ? AND message_id = ? AND lease = ?
    AND state = 'sent' AND sent_id = ?),
  EXISTS (SELECT 1 FROM outbox WHERE session_key = ? AND closed_at IS NULL)
"""
# Make a row its first chunk, ready-made.
RENDER = "UPDATE outbox SET text = ?, question = ?, rendered = 1 WHERE session_key = ? AND seq = ? AND part = ?"
# Add a further chunk behind it.
ADD_CHUNK = """
INSERT INTO outbox (session_key, seq, part, message_id, platform, text, address, status, rendered, question, state,
  place, gateway, sender)
SELECT session_key, seq, ?, message_id, platform, ?, address, status, 1, ?, 'queued', place, gateway, sender FROM outbox
WHERE session_key = ? AND seq = ? AND part = ?
"""
# Record that the platform took a row, if it is still leased by who says so.
SENT = """
UPDATE outbox SET state = 'sent', sent_id = ?, closed_at = ?, until = NULL, host = ''
WHERE session_key = ? AND seq = ? AND part = ? AND message_id = ? AND lease = ? AND closed_at IS NULL
"""
# Give a row back for later.
POSTPONE = """
UPDATE outbox SET state = 'postponed', until = ?, host = '', attempts = attempts + 1, error = ?
WHERE session_key = ? AND seq = ? AND part = ?
"""
# Give a row back untried for later.
RELEASE = """
UPDATE outbox SET state = 'postponed', until = ?, host = '' WHERE session_key = ? AND seq = ? AND part = ?
"""
# Give a row back untried, to be sent from where it is shown.
HAND_OVER = """
UPDATE outbox SET state = 'due', until = NULL, host = '', address = ? WHERE session_key = ? AND seq = ? AND part = ?
"""
# Let another gateway send the rows of a session and a platform.
SET_GATEWAY = "UPDATE outbox SET gateway = ? WHERE session_key = ? AND closed_at IS NULL AND platform = ?"
# Record that a row and the chunks behind it can never be sent.
REFUSE = """
UPDATE outbox SET state = 'failed', closed_at = ?, until = NULL, host = '', error = ?
WHERE session_key = ? AND seq = ? AND part >= ? AND part < ? AND closed_at IS NULL
"""
# Let the next row of a session go, where none is on its way.
NEXT = """
UPDATE outbox SET state = 'due', place = (place) WHERE (session_key, seq, part) IN
  (SELECT session_key, seq, part FROM outbox WHERE session_key = ? AND closed_at IS NULL ORDER BY seq, part LIMIT 1)
AND NOT EXISTS
  (SELECT 1 FROM outbox WHERE session_key = ? AND closed_at IS NULL AND state <> 'queued')
""".replace("(place)", REPLY_PLACE).replace("(sender)", "outbox.sender")
# Give a row and all behind it a new address.
READDRESS = """
UPDATE outbox INDEXED BY outbox_unsent SET address = ?
WHERE session_key = ? AND closed_at IS NULL AND (seq, part) >= (?, ?)
"""
# List where the replies of a range of sessions go that are still to be sent.
ADDRESSES = """
SELECT address, session_key, seq, part FROM outbox
WHERE closed_at IS NULL AND session_key >= ? AND session_key <= ?
"""
# Give one row a new address.
READDRESS_ROW = """
UPDATE outbox SET address = ? WHERE session_key = ? AND seq = ? AND part = ? AND closed_at IS NULL
"""
# Read the way of a message's replies.
TRACE = """
SELECT part, state, attempts, sent_id, closed_at, error FROM outbox WHERE session_key = ? AND seq = ? ORDER BY part
"""
# Tell whether any reply to a message is on its way, or is a dead letter, and how many bytes they have.
SIZE_IF_CLOSED = """
SELECT EXISTS (SELECT 1 FROM outbox WHERE session_key = ? AND seq = ? AND (closed_at IS NULL OR state = 'failed')),
  (SELECT CAST(coalesce(sum(octet_length(text)), 0) AS BIGINT) FROM outbox WHERE session_key = ? AND seq = ?)
"""
# Remove the replies to a message.
REMOVE = "DELETE FROM outbox WHERE session_key = ? AND seq = ?"
# Remove some replies that answered no message and were closed long ago.
EXPIRE_UNSOLICITED = """
DELETE FROM outbox WHERE (session_key, seq, part) IN
  (SELECT session_key, seq, part FROM outbox WHERE seq = 0 AND state = 'sent' AND closed_at <= ?
   LIMIT ? /*SKIP LOCKED*/)
"""
# Remove every reply of a session.
REMOVE_ALL = "DELETE FROM outbox WHERE session_key = ?"

# Count the rows that are not sent yet; the id of a message tells when it was made.
UNSENT = "SELECT count(*), min(message_id) FROM outbox WHERE closed_at IS NULL"


class NextPart(NamedTuple):
    """Where a message's next reply goes."""

    #: the last part of its replies, None if there is none
    last: int | None
    #: whether any reply of the session is on its way
    any_unsent: bool

    @property
    def part(self) -> int:
        """The part of that reply."""
        return 0 if self.last is None else (self.last // PARTS + 1) * PARTS

    @property
    def following(self) -> NextPart:
        """Where the reply behind it goes."""
        return NextPart(self.part, any_unsent=True)


def add(database: Database, seq: int, reply: Reply, next_part: NextPart | None = None) -> None:
    """Put a reply to message ``seq`` of its session on its way; its part is set here.

    ``next_part`` is for who knows it already.
    """
    place = next_part or NextPart(*database.only(NEXT_PART, (reply.session, seq, reply.session)))
    state = "queued" if place.any_unsent else "due"
    address = (reply.message_id, reply.platform, reply.text, reply.address, reply.status.value)
    file = msgspec.msgpack.encode(reply.file) if reply.file else None
    columns = (*address, int(reply.rendered), reply.question, reply.sender, file)
    place_of = (*_place(database), reply.sender)
    database.run(ADD, (reply.session, seq, place.part, *columns, state, *place_of, reply.session, seq))


def held(database: Database, host: str) -> list[ReplyLease]:
    """Return what a host has leased."""
    return [ReplyLease(*row) for row in database.all(HELD, (host,))]


def give_back(database: Database, host: str, leases: Sequence[ReplyLease]) -> None:
    """End leases of a host, as if their time were over."""
    database.run_each(GIVE_BACK, ((one.session, one.message_id, one.part, one.lease, host) for one in leases))


def split(database: Database, reply: Reply, texts: Sequence[str]) -> None:
    """Make a leased row the first of ``texts`` and queue the others behind it. Raises StaleClaim."""
    if not 0 < len(texts) <= PARTS:
        raise ValueError(f"a reply has 1 to {PARTS} chunks, not {len(texts)}")
    seq = _fence(database, reply)
    questions = [*[""] * (len(texts) - 1), reply.question]  # the buttons stand under the last chunk
    database.run(RENDER, (texts[0], questions[0], reply.session, seq, reply.part))
    for number, text in enumerate(texts[1:], 1):
        database.run(ADD_CHUNK, (reply.part + number, text, questions[number], reply.session, seq, reply.part))


def mark_sent(database: Database, reply: Reply, sent_id: str) -> bool:
    """Record that the platform took a row, and let the next of its session go, if there is one.

    To record the same once more changes nothing. Raises StaleClaim.
    """
    session, row = reply.session, (reply.session, reply.seq, reply.part, reply.message_id, reply.lease)

    def record() -> Row:
        database.run(SENT, (sent_id, database.now(), *row))
        if database.reads_wait:  # it finds out for itself whether there is one
            release_next(database, session)
        found = database.only(SENT_UNDER, (*row, sent_id, session))
        if found[1] and not database.reads_wait:
            release_next(database, session)
        return found

    ((recorded, more),) = database.last(record)
    if not recorded:
        raise StaleClaim(session, reply.lease)
    return bool(more)


def postpone(database: Database, reply: Reply, delay_s: float, error: str) -> None:
    """Give a row back, due again after ``delay_s`` seconds. Raises StaleClaim."""
    seq = _fence(database, reply)
    until = database.now() + min(max(delay_s, 0.0), LONGEST_S)
    database.run(POSTPONE, (until, error, reply.session, seq, reply.part))


def release(database: Database, reply: Reply, delay_s: float) -> None:
    """Give a row back untried, due again after ``delay_s`` seconds. Raises StaleClaim."""
    seq = _fence(database, reply)
    until = database.now() + min(max(delay_s, 0.0), LONGEST_S)
    database.run(RELEASE, (until, reply.session, seq, reply.part))


def hand_over(database: Database, reply: Reply, gateway: str) -> None:
    """Give a row back, due at once for another gateway, with the later ones of its session. Raises StaleClaim."""
    seq = _fence(database, reply)
    database.run(HAND_OVER, (reply.address, reply.session, seq, reply.part))
    database.run(SET_GATEWAY, (gateway, reply.session, reply.platform))


def refuse(database: Database, reply: Reply, error: str) -> None:
    """Close a row and the chunks behind it unsent, and let the next of its session go. Raises StaleClaim."""
    seq = _fence(database, reply)
    end = (reply.part // PARTS + 1) * PARTS
    database.run(REFUSE, (database.now(), error, reply.session, seq, reply.part, end))
    release_next(database, reply.session)


def readdress(database: Database, reply: Reply, address: bytes) -> None:
    """Give a row and all that are behind it a new address. Raises StaleClaim."""
    seq = _fence(database, reply)
    database.run(READDRESS, (address, reply.session, seq, reply.part))


def addresses(database: Database, span: tuple[str, str]) -> list[Row]:
    """Return (address, session, seq, part) of the replies of a range of sessions that are still to be sent."""
    return database.all(ADDRESSES, span)


def readdress_each(database: Database, rows: Iterable[Row]) -> None:
    """Give rows other addresses, each (address, session, seq, part)."""
    database.run_each(READDRESS_ROW, rows)


def trace(database: Database, session: str, seq: int) -> tuple[ReplyTrace, ...]:
    """Return the way of a message's replies, chunk by chunk."""
    return tuple(_trace(*row) for row in database.all(TRACE, (session, seq)))


def closed_bytes(database: Database, session: str, seq: int) -> int | None:
    """Return the bytes of the replies to a message; None where any is on its way, or is a dead letter."""
    kept, size = database.only(SIZE_IF_CLOSED, (session, seq, session, seq))
    return None if kept else int(size)


def remove(database: Database, session: str, seq: int) -> None:
    """Remove the replies to a message, and let the next of its session go."""
    database.run(REMOVE, (session, seq))
    release_next(database, session)


def expire_unsolicited(database: Database, closed_at: float, limit: int) -> int:
    """Remove replies that answered no message and were closed by then; count them."""
    return database.changed(EXPIRE_UNSOLICITED, (closed_at, limit))


def remove_all(database: Database, session: str) -> None:
    """Remove every reply of a session."""
    database.run(REMOVE_ALL, (session,))


def _fence(database: Database, reply: Reply) -> int:
    """Return the number of the message a leased row answers. Raises StaleClaim if the lease is another's."""
    row = database.one(FENCE, (reply.session, reply.part, reply.message_id, reply.lease))
    if row is None:
        raise StaleClaim(reply.session, reply.lease)
    return int(row[0])


def release_next(database: Database, session: str) -> None:
    """Let the next row of a session go, where none is on its way."""
    database.run(NEXT, (*_place(database), session, session))


def _place(database: Database) -> Row:
    """Return the values of REPLY_PLACE, its sender aside."""
    now = database.next_place()
    return now - SENDER_SPACING_US, now, now + FARTHEST_US - SENDER_SPACING_US, now + FARTHEST_US, SENDER_SPACING_US


def _trace(
    part: int, state: str, attempts: int, sent_id: str | None, closed_at: float | None, error: str
) -> ReplyTrace:
    shown = ReplyState(state) if state in {"sent", "failed"} else ReplyState.PENDING
    return ReplyTrace(part, shown, attempts, sent_id, closed_at if shown is ReplyState.SENT else None, error)


def unsent(database: Database) -> tuple[int, str]:
    """Return how many rows are not sent yet, and the message id of the oldest, empty if there is none."""
    count, oldest = database.only(UNSENT)
    return int(count), str(oldest or "")
