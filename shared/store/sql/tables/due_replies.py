"""The table of replies, as far as a look for what is due reads and leases it."""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from shared.attachments import Attachment
from shared.messages import LATE_S, Reply, ReplyStatus, Shares
from shared.retry import LONGEST_S
from shared.store.engine import MAX_LEASE_S, Database, Row

#: a place behind every other
MAX_PLACE = (1 << 62) - 1
# End the delays that are over.
WAKE_POSTPONED = """
UPDATE outbox SET state = 'due', until = NULL WHERE (session_key, seq, part) IN
  (SELECT session_key, seq, part FROM outbox WHERE state = 'postponed' AND (until <= ? OR until > ?)
   LIMIT 1000 /*SKIP LOCKED*/)
"""
# End the leases that are over: the row may have been sent, so it counts as one more attempt.
WAKE_LEASED = """
UPDATE outbox SET state = 'due', until = NULL, host = '', attempts = attempts + 1
WHERE (session_key, seq, part) IN
  (SELECT session_key, seq, part FROM outbox WHERE state = 'leased' AND (until <= ? OR until > ?)
   LIMIT 1000 /*SKIP LOCKED*/)
"""
# End the leases of hosts that are dead.
WAKE_LEASED_BY_DEAD = """
UPDATE outbox SET state = 'due', until = NULL, host = '', attempts = attempts + 1
WHERE (session_key, seq, part) IN
  (SELECT session_key, seq, part FROM outbox WHERE state = 'leased' AND until IS NOT NULL
     AND host IN (SELECT host FROM hosts WHERE lease_until <= ?) LIMIT 1000 /*SKIP LOCKED*/)
"""
# Rows that a host may send: not those of an answer whose receiver another live host has.
OWN = "(gateway = '' OR gateway = ? OR gateway NOT IN (SELECT host FROM hosts WHERE lease_until > ?))"
# The same, with a last place for rows that any host may send: no other than this one may send its own.
OWN_OR_LATE = """
(gateway = ? OR place <= ? AND (gateway = '' OR gateway NOT IN (SELECT host FROM hosts WHERE lease_until > ?)))
"""
# Lease the rows that are due, longest due first.
LEASE = """
UPDATE outbox SET state = 'leased', host = ?, until = ?, lease = lease + 1
WHERE (session_key, seq, part) IN
  (SELECT session_key, seq, part FROM outbox WHERE state = 'due' AND (own)
   ORDER BY place LIMIT ? /*SKIP LOCKED*/)
""".replace("(own)", OWN)
# Lease the rows of one platform that are due, those that were never tried first; longest due first.
LEASE_OF = """
UPDATE outbox SET state = 'leased', host = ?, until = ?, lease = lease + 1
WHERE (session_key, seq, part) IN
  (SELECT session_key, seq, part FROM outbox WHERE state = 'due' AND platform = ? AND (own)
   ORDER BY (CASE WHEN attempts > 0 THEN 1 ELSE 0 END), place LIMIT ? /*SKIP LOCKED*/)
""".replace("(own)", OWN_OR_LATE)
# Lease the rows of one platform that are due and were tried; longest due first.
LEASE_TRIED_OF = """
UPDATE outbox SET state = 'leased', host = ?, until = ?, lease = lease + 1
WHERE (session_key, seq, part) IN
  (SELECT session_key, seq, part FROM outbox
   WHERE state = 'due' AND platform = ? AND (CASE WHEN attempts > 0 THEN 1 ELSE 0 END) = 1
     AND (own)
   ORDER BY place LIMIT ? /*SKIP LOCKED*/)
""".replace("(own)", OWN_OR_LATE)
# Lease rows of platforms that are not among some.
LEASE_OF_OTHERS = """
UPDATE outbox SET state = 'leased', host = ?, until = ?, lease = lease + 1
WHERE (session_key, seq, part) IN
  (SELECT session_key, seq, part FROM outbox WHERE state = 'due' AND platform NOT IN ({platforms}) AND (own)
   ORDER BY place LIMIT ? /*SKIP LOCKED*/)
""".replace("(own)", OWN)
# Read the rows that a host has leased until then.
LEASED = """
SELECT session_key, message_id, part, platform, text, address, status, rendered, attempts, lease, question, seq,
  sender, file, place
FROM outbox WHERE state = 'leased' AND until = ? AND host = ?
"""
# Tell when the first and the last delay and lease end, and whether a host that holds one is dead.
ENDS = """
SELECT (SELECT min(until) FROM outbox WHERE state = 'postponed' AND until IS NOT NULL),
  (SELECT max(until) FROM outbox WHERE state = 'postponed' AND until IS NOT NULL),
  (SELECT min(until) FROM outbox WHERE state = 'leased' AND until IS NOT NULL),
  (SELECT max(until) FROM outbox WHERE state = 'leased' AND until IS NOT NULL),
  EXISTS (SELECT 1 FROM outbox WHERE state = 'leased' AND until IS NOT NULL
     AND host IN (SELECT host FROM hosts WHERE lease_until <= ?))
"""
# Tell whether any row is due.
ANY_DUE = "SELECT EXISTS (SELECT 1 FROM outbox WHERE state = 'due')"


class LeasedReplies(NamedTuple):
    """What one look for due rows has leased."""

    #: longest due first
    replies: list[Reply]
    #: seconds until a delay or a lease ends, or with no shares until a row is due; None for never
    next_in_s: float | None
    #: whether a delay or a lease has ended, so that rows are to be woken
    any_over: bool
    #: when the leases end, in unix seconds: what another look of the host has leased until then is among the replies
    until: float


def lease(database: Database, host: str, limit: int, lease_s: float) -> LeasedReplies:
    """Lease up to ``limit`` due rows, longest due first; tells also when a row is due, at once if one is now."""
    now = database.now()
    until = now + min(lease_s, MAX_LEASE_S)

    def take() -> list[Row]:
        database.run(LEASE, (host, until, host, now, limit))
        return database.all(LEASED, (until, host))

    ends, rows, (due,) = database.last(
        lambda: database.only(ENDS, (now,)),
        lambda: take() if limit > 0 else [],
        lambda: database.only(ANY_DUE),
    )
    found = _leased(now, until, ends, rows)
    return found._replace(next_in_s=0.0) if due else found


def lease_shares(database: Database, host: str, limit: int, lease_s: float, shares: Shares) -> LeasedReplies:
    """Lease up to ``limit`` due rows, and not more of any platform than its share.

    Tells also in how many seconds a delay or a lease ends, None if there is none.
    """
    now = database.now()
    until = now + min(lease_s, MAX_LEASE_S)
    lessee, late = (host, until), int((now - LATE_S) * 1e6)
    names = tuple(shares.platforms)
    others = LEASE_OF_OTHERS.format(platforms=", ".join("?" * len(names)))
    # where all that may be leased fits, nobody has to be told how much of it there was
    fits = sum(shares.platforms.values()) + shares.others <= limit and not shares.retries_first

    def leased(statement: str, values: Row, most: int) -> int:
        if fits:
            database.run(statement, (*lessee, *values, most))
            return most
        return database.changed(statement, (*lessee, *values, most)) if most > 0 else 0

    def take() -> None:
        left = limit
        for platform, share in shares.platforms.items():
            values = (platform, host, late if platform in shares.late_only else MAX_PLACE, now)
            room = min(share, left)
            left -= room
            for statement in (LEASE_TRIED_OF, LEASE_OF) if shares.retries_first else (LEASE_OF,):
                room -= leased(statement, values, room) if room > 0 else 0
            left += room
        if shares.others:
            leased(others, (*names, host, now), left)

    def read() -> list[Row]:
        if fits:
            take()
        return database.all(LEASED, (until, host))

    if not fits:
        take()
    ends, rows = database.last(lambda: database.only(ENDS, (now,)), read)
    return _leased(now, until, ends, rows)


def wake(database: Database) -> None:
    """Make due what is to be tried again, and what a sender that is gone has left."""
    now = database.now()
    over = _over(now, database.only(ENDS, (now,)))
    if over.postponed:
        database.run(WAKE_POSTPONED, (now, now + LONGEST_S))
    if over.leased:
        database.run(WAKE_LEASED, (now, now + MAX_LEASE_S))
    if over.dead:
        database.run(WAKE_LEASED_BY_DEAD, (now,))


def end_leases(database: Database) -> None:
    """End every lease: nobody who holds one is alive."""
    database.run(WAKE_LEASED, (math.inf, math.inf))


class _Over(NamedTuple):
    """What has ended of what keeps rows from being due."""

    #: whether a delay has
    postponed: bool
    #: whether a lease has
    leased: bool
    #: whether a host that holds one is dead
    dead: bool


def _over(now: float, ends: Row) -> _Over:
    """Return what has ended, from a row of ENDS."""
    first_delay, last_delay, first_lease, last_lease, dead = ends
    # one that ends later than any may was given before the clock was set back
    postponed = first_delay is not None and (first_delay <= now or last_delay > now + LONGEST_S)
    leased = first_lease is not None and (first_lease <= now or last_lease > now + MAX_LEASE_S)
    return _Over(postponed, leased, bool(dead))


def _leased(now: float, until: float, ends: Row, rows: list[Row]) -> LeasedReplies:
    """Return what a look has leased, and when what is not due ends, from a row of ENDS before it."""
    soonest = [end for end in (ends[0], ends[2]) if end is not None]
    next_in_s = _sooner(max(0.0, min(soonest) - now) if soonest else None, until - now if rows else None)
    replies = [_reply(row) for row in sorted(rows, key=lambda row: int(row[-1]))]
    return LeasedReplies(replies, next_in_s, any(_over(now, ends)), until)


def _sooner(one_s: float | None, other_s: float | None) -> float | None:
    return min((seconds for seconds in (one_s, other_s) if seconds is not None), default=None)


def _reply(row: Row) -> Reply:
    session, message_id, part, platform, text, address, status, rendered, attempts, lease, question, seq, *more = row
    sender, file, _ = more
    return Reply(
        session,
        message_id,
        part,
        platform,
        text,
        address,
        ReplyStatus(status),
        rendered=bool(rendered),
        attempts=attempts,
        lease=lease,
        question=question,
        seq=seq,
        sender=sender,
        file=msgspec.msgpack.decode(file, type=Attachment) if file else None,
    )
