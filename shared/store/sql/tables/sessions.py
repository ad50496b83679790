"""The table of sessions: whose turn it is, who holds the lease, which epoch is the fence.

    idle ──message──▶ ready ──claim──▶ claimed ──settle──▶ idle, or ready again if more waits
     │                  ▲                 ├── parked, or the lease ended ──▶ ready, in its old place
     └──▶ gathering ────┴──── delayed ◀───┘ to be tried again later
          more of the same thought may come

A session's head is the message it is ready or claimed for; it changes only when that one is settled. Ready sessions are
taken by their places: microseconds of the clock, of each sender a minute apart, so that one who has thirty sessions
waiting is overtaken by those who have one.
"""

from __future__ import annotations

from typing import NamedTuple

from shared.errors import NotFound, StaleClaim
from shared.messages import ClaimRef
from shared.store.engine import MAX_DELAY_S, MAX_LEASE_S, Database, Row
from shared.store.sql.tables.dedupe import IS_NEW, TwoKeys

#: how far a sender's next session is put behind the one of theirs that is ready, in microseconds of places
SENDER_SPACING_US = 60 * 10**6
#: the farthest that anything is put behind what is ready now, so that nobody waits for ever
LATEST_PLACE_US = 3600 * 10**6

# Choose a place: now, but behind the sender's last session that is ready by a while, and before the latest there is.
PLACE = """
(SELECT CASE WHEN behind < ? THEN ? WHEN behind > ? THEN ? ELSE behind END FROM
  (SELECT coalesce(max(place), 0) + ? AS behind FROM sessions WHERE sender = ? AND state = 'ready') AS one_row)
"""
# Give a message its number; a new session is ready for it at once.
ARRIVE = """
INSERT INTO sessions (session_key, platform, state, sender, place, head, next_seq, updated_at)
VALUES (?, ?, 'ready', ?, (place), 1, 2, ?)
ON CONFLICT (session_key) DO UPDATE SET next_seq = sessions.next_seq + 1
RETURNING sessions.next_seq - 1, sessions.state, sessions.head
""".replace("(place)", PLACE)
# What a session that rests, and one that is busy, become by another message.
IS_READY_IF_IT_RESTED = """
state = CASE WHEN sessions.state = 'idle' THEN 'ready' ELSE sessions.state END,
sender = CASE WHEN sessions.state = 'idle' THEN excluded.sender ELSE sessions.sender END,
place = CASE WHEN sessions.state = 'idle' THEN excluded.place ELSE sessions.place END,
head = CASE WHEN sessions.state = 'idle' THEN sessions.next_seq ELSE sessions.head END,
updated_at = CASE WHEN sessions.state = 'idle' THEN excluded.updated_at ELSE sessions.updated_at END,
next_seq = sessions.next_seq + 1
"""
# Give a message its number; a session that is new or rests is ready for it at once, and then its head is this number.
ARRIVE_READY = """
INSERT INTO sessions (session_key, platform, state, sender, place, head, next_seq, updated_at)
VALUES (?, ?, 'ready', ?, (place), 1, 2, ?)
ON CONFLICT (session_key) DO UPDATE SET (is ready)
RETURNING sessions.next_seq - 1, sessions.state, sessions.head
""".replace("(place)", PLACE).replace("(is ready)", IS_READY_IF_IT_RESTED)
# Give a message that is new its number in the same way.
ARRIVE_IF_NEW = (
    """
INSERT INTO sessions (session_key, platform, state, sender, place, head, next_seq, updated_at)
SELECT ?, ?, 'ready', ?, (place), 1, 2, ? WHERE (is new)
ON CONFLICT (session_key) DO UPDATE SET (is ready)
""".replace("(place)", PLACE)
    .replace("(is new)", IS_NEW)
    .replace("(is ready)", IS_READY_IF_IT_RESTED)
)
# Make a session ready for its next message.
MAKE_READY = """
UPDATE sessions SET state = 'ready', sender = ?, place = (place), head = ?,
  suspect = ?, host = '', until = NULL, updated_at = ?
WHERE session_key = ?
""".replace("(place)", PLACE)
# Make a session ready again for the same message, in its old place.
RELEASE = """
UPDATE sessions SET state = 'ready', suspect = coalesce(?, suspect), host = '', until = NULL WHERE session_key = ?
"""
# Make a session ready for the same message, but only later.
DELAY = "UPDATE sessions SET state = 'delayed', suspect = ?, host = '', until = ? WHERE session_key = ?"
# Put a session off with its message, until somebody decides or the time is over.
PUT_OFF = "UPDATE sessions SET state = 'delayed', host = '', until = ? WHERE session_key = ?"
# Make a session ready for its next message once its sender has been quiet for a while.
GATHER = """
UPDATE sessions SET state = 'gathering', sender = ?, place = (place), head = ?,
  suspect = 0, host = '', until = ?, updated_at = ?
WHERE session_key = ?
""".replace("(place)", PLACE)
# Let a session rest: nothing waits.
MAKE_IDLE = (
    "UPDATE sessions SET state = 'idle', suspect = 0, host = '', until = NULL, updated_at = ?, "
    "version = coalesce(?, version) WHERE session_key = ?"
)
# End the delays that are over.
WAKE = """
UPDATE sessions SET state = 'ready', until = NULL WHERE session_key IN
  (SELECT session_key FROM sessions WHERE state = ? AND (until <= ? OR until > ?) LIMIT 1000 /*SKIP LOCKED*/)
"""
# Find the claims whose lease has ended.
LAPSED = """
SELECT session_key, head FROM sessions WHERE state = 'claimed' AND (until <= ? OR until > ?)
LIMIT 1000 /*SKIP LOCKED*/
"""
# Find the claims without a lease of their own whose host's has ended.
LAPSED_WITH_HOST = """
SELECT session_key, head FROM sessions WHERE state = 'claimed' AND until IS NULL
  AND host IN (SELECT host FROM hosts WHERE lease_until <= ? OR lease_until > ?) LIMIT 1000 /*SKIP LOCKED*/
"""
# List what a host has claimed.
HELD = "SELECT session_key, epoch FROM sessions WHERE state = 'claimed' AND host = ?"
# Find the claims of other hosts.
FOREIGN = "SELECT session_key, head FROM sessions WHERE state = 'claimed' AND host <> ?"
# Whether a session is claimed, for statements that find it by its key: a server must not take its small index of
# claimed sessions for that, which holds every claim that vacuum has not removed.
IS_CLAIMED = "(CASE WHEN sessions.state = 'claimed' THEN 1 ELSE 0 END) = 1"
# Extend a lease that is still this host's.
RENEW = """
UPDATE sessions SET until = ? WHERE session_key = ? AND epoch = ? AND host = ? AND (is claimed)
""".replace("(is claimed)", IS_CLAIMED)
# Check an epoch.
FENCE = """
SELECT head FROM sessions WHERE session_key = ? AND epoch = ? AND (is claimed) /*LOCK*/
""".replace("(is claimed)", IS_CLAIMED)
# Tell whether a host lives, when the first and the last delay, gathering and lease end, and whether a host that has
# claims is dead.
ENDS = """
SELECT EXISTS (SELECT 1 FROM hosts WHERE host = ? AND lease_until > ? AND lease_until <= ?),
  (SELECT min(until) FROM sessions WHERE state = 'delayed' AND until IS NOT NULL),
  (SELECT max(until) FROM sessions WHERE state = 'delayed' AND until IS NOT NULL),
  (SELECT min(until) FROM sessions WHERE state = 'gathering' AND until IS NOT NULL),
  (SELECT max(until) FROM sessions WHERE state = 'gathering' AND until IS NOT NULL),
  (SELECT min(until) FROM sessions WHERE state = 'claimed' AND until IS NOT NULL),
  (SELECT max(until) FROM sessions WHERE state = 'claimed' AND until IS NOT NULL),
  EXISTS (SELECT 1 FROM sessions WHERE state = 'claimed' AND until IS NULL
    AND host IN (SELECT host FROM hosts WHERE lease_until <= ? OR lease_until > ?))
"""
# Tell whether any session is ready, and when the next delay, gathering and lease end.
NEXT = """
SELECT EXISTS (SELECT 1 FROM sessions WHERE state = 'ready' AND suspect = ?),
  (SELECT min(until) FROM sessions WHERE state = 'delayed' AND until IS NOT NULL),
  (SELECT min(until) FROM sessions WHERE state = 'gathering' AND until IS NOT NULL),
  (SELECT min(until) FROM sessions WHERE state = 'claimed' AND until IS NOT NULL),
  (SELECT min(lease_until) FROM hosts WHERE lease_until > 0
    AND EXISTS (SELECT 1 FROM sessions WHERE sessions.host = hosts.host AND sessions.state = 'claimed'))
"""
# Name the conversation anew.
SET_VERSION = "UPDATE sessions SET version = ? WHERE session_key = ?"
# Begin a new conversation.
BEGIN_ANEW = "UPDATE sessions SET began_position = ?, began_seq = ? WHERE session_key = ?"
# Read where the present conversation begins.
BEGAN = "SELECT began_position, began_seq FROM sessions WHERE session_key = ?"
# Tell which message a session is busy with.
BUSY_WITH = "SELECT head FROM sessions WHERE session_key = ? AND state <> 'idle'"
# Read a session's version.
VERSION = "SELECT version FROM sessions WHERE session_key = ?"
# Tell which message a session is claimed for.
CLAIMED_FOR = "SELECT head FROM sessions WHERE session_key = ? AND state = 'claimed'"
# Tell which message a session is at.
HEAD = "SELECT head FROM sessions WHERE session_key = ?"
# Remove a session's row.
REMOVE = "DELETE FROM sessions WHERE session_key = ?"
# Find sessions whose keys begin in a way, of which no host that lives, or did of late, has accepted a message.
ABANDONED = """
SELECT session_key FROM sessions
WHERE session_key >= ? AND session_key < ? AND NOT EXISTS
  (SELECT 1 FROM inbox JOIN hosts ON hosts.host = inbox.gateway
   WHERE inbox.session_key = sessions.session_key AND hosts.lease_until > ?)
LIMIT ?
"""
# Find sessions whose keys begin in a way, that rest since before a time.
UNUSED = """
SELECT session_key FROM sessions
WHERE session_key >= ? AND session_key < ? AND state = 'idle' AND updated_at < ? LIMIT ?
"""
# Find sessions that rest, were last used before a time, and hold nothing that is still to be seen; oldest first.
OUT_OF_USE = """
SELECT session_key FROM sessions WHERE state = 'idle' AND updated_at < ?
AND NOT EXISTS (SELECT 1 FROM inbox WHERE inbox.session_key = sessions.session_key AND inbox.state = 'dead')
AND NOT EXISTS (
  SELECT 1 FROM outbox WHERE outbox.session_key = sessions.session_key
  AND (outbox.closed_at IS NULL OR outbox.state = 'failed'))
ORDER BY updated_at LIMIT ?
"""
# Tell whether a session still rests since before a time.
STILL_OUT_OF_USE = "SELECT 1 FROM sessions WHERE session_key = ? AND state = 'idle' AND updated_at < ?"
# Read what people call a session.
TITLE = "SELECT title FROM sessions WHERE session_key = ?"
# Call a session by another name.
RENAME = "UPDATE sessions SET title = ? WHERE session_key = ? AND title <> ?"
# Call a session by another name, if a message of it was accepted.
RENAME_IF_ACCEPTED = """
UPDATE sessions SET title = ? WHERE session_key = ? AND title <> ? AND EXISTS (SELECT 1 FROM inbox WHERE inbox.id = ?)
"""
# Read one session's line of the list.
SUMMARY = """
SELECT session_key, platform, version, updated_at, state = 'claimed', title FROM sessions WHERE session_key = ?
"""


class ArrivalPlace(NamedTuple):
    """What a new message finds in its session."""

    #: its number, 1 in a new session
    seq: int
    #: the session's state before it
    state: str
    #: the number of the message that the session was ready or claimed for
    head: int

    @property
    def finds_busy(self) -> bool:
        """Whether an earlier message of the session waits or runs."""
        return self.state != "idle"

    @property
    def finds_running(self) -> bool:
        """Whether an earlier message of the session runs."""
        return self.state == "claimed"


class Ends(NamedTuple):
    """What has come to an end when a look for claims begins."""

    #: whether the host that looks lives
    host_lives: bool
    #: whether a delay, a gathering or a lease is over
    any_over: bool


def arrive(database: Database, session: str, platform: str, sender: str, *, ready: bool) -> ArrivalPlace:
    """Give a new message its number; a new session is made ready for it, and with ``ready`` one that rests too."""
    columns = (session, platform, sender, *_place(database, sender), database.now())
    seq, state, head = database.only(ARRIVE_READY if ready else ARRIVE, columns)
    rested = seq == 1 or (ready and head == seq)
    return ArrivalPlace(seq, "idle" if rested else state, head)


def arrive_if_new(database: Database, platform: str, sender: str, keys: TwoKeys) -> None:
    """Give a message its number if it is new; a session that is new or rests is made ready for it."""
    columns = (keys.session, platform, sender, *_place(database, sender), database.now())
    database.run(ARRIVE_IF_NEW, (*columns, *keys.if_new))


def rename_if_accepted(database: Database, session: str, title: str, message_id: str) -> None:
    """Call a session by what people call it now, if a message of it was accepted."""
    database.run(RENAME_IF_ACCEPTED, (title, session, title, message_id))


def title(database: Database, session: str) -> str:
    """Return what people call a session, empty where nobody knows."""
    row = database.one(TITLE, (session,))
    return str(row[0]) if row else ""


def rename(database: Database, session: str, title: str) -> None:
    """Call a session by what people call it now."""
    database.run(RENAME, (title, session, title))


def busy_with(database: Database, session: str) -> int | None:
    """Return the number of the message that a session is ready, delayed or claimed for, None for one that is idle."""
    row = database.one(BUSY_WITH, (session,))
    return int(row[0]) if row else None


def make_ready(database: Database, session: str, head: int, sender: str, *, suspect: bool) -> None:
    """Make a session ready for another message, behind all of other senders that are ready now."""
    place = _place(database, sender)
    database.run(MAKE_READY, (sender, *place, head, int(suspect), database.now(), session))


def gather(database: Database, session: str, head: int, sender: str, until: float) -> None:
    """Make a session ready for another message at a time of the store's clock, if nothing of it comes before then."""
    latest = database.now() + MAX_DELAY_S
    place = _place(database, sender)
    database.run(GATHER, (sender, *place, head, min(until, latest), database.now(), session))


def release(database: Database, session: str, *, suspect: bool | None = None) -> None:
    """Make a session ready again for the same message, in its old place; None leaves open whether it is a suspect."""
    database.run(RELEASE, (None if suspect is None else int(suspect), session))


def delay(database: Database, session: str, delay_s: float, *, suspect: bool) -> None:
    """Make a session ready again for the same message after ``delay_s`` seconds."""
    if delay_s <= 0:
        release(database, session, suspect=suspect)
    else:
        database.run(DELAY, (int(suspect), database.now() + min(delay_s, MAX_DELAY_S), session))


def put_off(database: Database, session: str, delay_s: float) -> None:
    """Make a session ready again for the same message after ``delay_s`` seconds, or when it is released."""
    database.run(PUT_OFF, (database.now() + min(delay_s, MAX_DELAY_S), session))


def make_idle(database: Database, session: str, version: int | None = None) -> None:
    """Make a session idle; with a version where its conversation has a new one."""
    database.run(MAKE_IDLE, (database.now(), version, session))


def ends(database: Database, host: str) -> Ends:
    """Tell whether a host lives, and whether anything is over that is to be made ready."""
    now = database.now()
    latest = now + MAX_LEASE_S
    lives, *times, any_dead = database.only(ENDS, (host, now, latest, now, latest))
    # one that ends later than any may was given before the clock was set back
    limits = (MAX_DELAY_S, MAX_DELAY_S, MAX_LEASE_S)
    spans = zip(times[::2], times[1::2], limits, strict=True)
    over = any(first is not None and (first <= now or last > now + limit_s) for first, last, limit_s in spans)
    return Ends(bool(lives), over or bool(any_dead))


def wake_due(database: Database) -> None:
    """Make the sessions ready whose delay is over, or whose sender has been quiet."""
    now = database.now()
    for state in ("delayed", "gathering"):
        database.run(WAKE, (state, now, now + MAX_DELAY_S))


def lapsed(database: Database) -> list[tuple[str, int]]:
    """Return the claimed sessions whose lease has ended, each with its head."""
    now = database.now()
    found = database.each(lambda sql: database.all(sql, (now, now + MAX_LEASE_S)), (LAPSED, LAPSED_WITH_HOST))
    return [(session, head) for rows in found for session, head in rows]


def held(database: Database, host: str) -> list[ClaimRef]:
    """Return what a host has claimed."""
    return [ClaimRef(session, epoch) for session, epoch in database.all(HELD, (host,))]


def of_other_hosts(database: Database, host: str) -> list[tuple[str, int]]:
    """Return the sessions that other hosts have claimed, each with its head."""
    return [(session, head) for session, head in database.all(FOREIGN, (host,))]


def renew(database: Database, ref: ClaimRef, host: str, lease_s: float) -> bool:
    """Extend a lease; False if it is not this host's any more."""
    return database.changed(RENEW, (database.now() + min(lease_s, MAX_LEASE_S), ref.session, ref.epoch, host)) == 1


def fence(database: Database, ref: ClaimRef) -> int:
    """Return the head of a claimed session. Raises StaleClaim if the epoch is not its own any more."""
    row = database.one(FENCE, (ref.session, ref.epoch))
    if row is None:
        raise StaleClaim(ref.session, ref.epoch)
    return int(row[0])


def next_ready_in_s(database: Database, *, suspects: bool) -> float | None:
    """Return the seconds until a session is ready or a lease ends: 0 if one is now, None if there is none."""
    ready, *ends = database.only(NEXT, (int(suspects),))
    if ready:
        return 0.0
    now = database.now()
    left = [
        max(0.0, until - now) if until <= now + limit_s else 0.0
        for until, limit_s in zip(ends, (MAX_DELAY_S, MAX_DELAY_S, MAX_LEASE_S, MAX_LEASE_S), strict=True)
        if until is not None
    ]
    return min(left, default=None)


def set_version(database: Database, session: str, version: int) -> None:
    """Name a session's conversation anew."""
    database.run(SET_VERSION, (version, session))


def begin_anew(database: Database, session: str, position: int, seq: int) -> None:
    """Begin a new conversation with this position of the transcript; message ``seq`` asked for it."""
    database.run(BEGIN_ANEW, (position, seq, session))


def began(database: Database, session: str) -> tuple[int, int]:
    """Return where the present conversation begins: its first position, and the number of the message it follows."""
    row = database.one(BEGAN, (session,))
    return (row[0], row[1]) if row else (0, 0)


def version(database: Database, session: str) -> int:
    """Return the version of a session's conversation, 0 for a new session."""
    row = database.one(VERSION, (session,))
    return int(row[0]) if row else 0


def claimed_for(database: Database, session: str) -> int | None:
    """Return the number of the message a session is claimed for, None if it is not claimed."""
    row = database.one(CLAIMED_FOR, (session,))
    return int(row[0]) if row else None


def head(database: Database, session: str) -> int:
    """Return the number of the message that a session is ready, delayed or claimed for, or was before it rested."""
    return int(database.only(HEAD, (session,))[0])


def remove(database: Database, session: str) -> None:
    """Remove a session's row. Raises NotFound."""
    if not database.changed(REMOVE, (session,)):
        raise NotFound(f"there is no session {session}")


def abandoned(database: Database, prefix: str, dead_at: float, limit: int) -> list[str]:
    """Return sessions whose keys begin like this and whose accepting hosts had all died by then."""
    return [str(row[0]) for row in database.all(ABANDONED, (prefix, behind_all(prefix), dead_at, limit))]


def unused(database: Database, prefix: str, before: float, limit: int) -> list[str]:
    """Return sessions whose keys begin like this and that rest since before a time."""
    return [str(row[0]) for row in database.all(UNUSED, (prefix, behind_all(prefix), before, limit))]


def behind_all(prefix: str) -> str:
    """Return the first text behind all that begin like this."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def out_of_use(database: Database, before: float, limit: int) -> list[str]:
    """Return the sessions that rest and were last used before a time, oldest first; none with a dead letter."""
    return [str(row[0]) for row in database.all(OUT_OF_USE, (before, limit))]


def still_out_of_use(database: Database, session: str, before: float) -> bool:
    """Tell whether a session still rests since before a time."""
    return database.one(STILL_OUT_OF_USE, (session, before)) is not None


def summary(database: Database, session: str) -> Row:
    """Return (session, platform, version, updated_at, claimed, title) of one session. Raises NotFound."""
    row = database.one(SUMMARY, (session,))
    if row is None:
        raise NotFound(f"there is no session {session}")
    return row


def _place(database: Database, sender: str) -> Row:
    """Return the values of PLACE."""
    now = database.next_place()
    latest = now + LATEST_PLACE_US
    return now, now, latest, latest, SENDER_SPACING_US, sender
