"""The table of dedupe keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from shared.store.engine import Database, Row

# Find the message a key belongs to.
FIND = "SELECT message_id FROM dedupe WHERE session_key = ? AND key = ? AND until > ?"
# Remember a key, unless it is known; over one whose time has passed. Tells whose it is now.
REMEMBER = """
INSERT INTO dedupe (session_key, key, message_id, until) VALUES (?, ?, ?, ?)
ON CONFLICT (session_key, key) DO UPDATE SET
  message_id = CASE WHEN dedupe.until <= ? THEN excluded.message_id ELSE dedupe.message_id END,
  until = CASE WHEN dedupe.until <= ? THEN excluded.until ELSE dedupe.until END
RETURNING message_id
"""
# Find the message that one of two keys belongs to.
FIND_EITHER = "SELECT message_id FROM dedupe WHERE session_key = ? AND key IN (?, ?) AND until > ?"
# Find another message than this one that one of two keys belongs to.
FIND_OTHER = "SELECT message_id FROM dedupe WHERE session_key = ? AND key IN (?, ?) AND message_id <> ?"
# Whether two keys that were remembered for a message are its own, and it has not been accepted before.
IS_NEW = """
NOT EXISTS (SELECT 1 FROM dedupe WHERE dedupe.session_key = ? AND dedupe.key IN (?, ?) AND dedupe.message_id <> ?)
AND NOT EXISTS (SELECT 1 FROM inbox AS accepted WHERE accepted.id = ?)
"""
# Give a message's keys to the one that another of them belongs to.
ASSIGN_ALL = """
UPDATE dedupe SET message_id =
  (SELECT other.message_id FROM dedupe AS other
   WHERE other.session_key = ? AND other.key IN (?, ?) AND other.message_id <> ? LIMIT 1)
WHERE session_key = ? AND key IN (?, ?) AND message_id = ? AND EXISTS
  (SELECT 1 FROM dedupe AS other WHERE other.session_key = ? AND other.key IN (?, ?) AND other.message_id <> ?)
"""
# Give a key to the message that another key of the same redelivery belongs to.
ASSIGN = "UPDATE dedupe SET message_id = ? WHERE session_key = ? AND key = ?"
# List what is known in a range of sessions.
KNOWN = "SELECT session_key, key, message_id, until FROM dedupe WHERE session_key >= ? AND session_key <= ?"
# Know in a session what is known in another one.
COPY = """
INSERT INTO dedupe (session_key, key, message_id, until) VALUES (?, ?, ?, ?) ON CONFLICT (session_key, key) DO NOTHING
"""
# Forget some keys whose time has passed.
EXPIRE = """
DELETE FROM dedupe WHERE (session_key, key) IN
  (SELECT session_key, key FROM dedupe WHERE until <= ? ORDER BY until LIMIT ? /*SKIP LOCKED*/)
"""


def find(database: Database, session: str, keys: tuple[str, ...]) -> str | None:
    """Return the id of the message that any of the keys belongs to."""
    now = database.now()
    for key in keys:
        if row := database.one(FIND, (session, key, now)):
            return str(row[0])
    return None


def remember(database: Database, session: str, keys: tuple[str, ...], message_id: str, ttl_s: float) -> str:
    """Make the keys belong to a message for ``ttl_s`` seconds, or to the one that any of them belongs to already.

    Returns whose they are. Of two gateways that get the same message at once, one waits here for the other.
    """
    now = database.now()
    for number, key in enumerate(keys):
        owner = str(database.only(REMEMBER, (session, key, message_id, now + ttl_s, now, now))[0])
        if owner != message_id:
            for earlier in keys[:number]:
                database.run(ASSIGN, (owner, session, earlier))
            return owner
    return message_id


class TwoKeys(NamedTuple):
    """The keys of a message that has two at the most, the same one twice if it has one."""

    session: str
    key: str
    other_key: str
    message_id: str

    @property
    def if_new(self) -> Row:
        """The values of IS_NEW."""
        return (*self, self.message_id)


def two_keys(session: str, keys: tuple[str, ...], message_id: str) -> TwoKeys:
    """Return the keys of a message that has two at the most."""
    first, *others = keys or ("",)
    return TwoKeys(session, first, others[0] if others else first, message_id)


def find_either(database: Database, keys: TwoKeys) -> str | None:
    """Return the id of the message that one of the keys belongs to."""
    row = database.one(FIND_EITHER, (*keys[:3], database.now()))
    return str(row[0]) if row else None


def remember_all(database: Database, keys: TwoKeys, ttl_s: float) -> None:
    """Make the keys belong to their message, or to the one that either of them belongs to already."""
    now = database.now()
    for key in dict.fromkeys(filter(None, keys[1:3])):
        database.run(REMEMBER, (keys.session, key, keys.message_id, now + ttl_s, now, now))
    if keys.key != keys.other_key:
        database.run(ASSIGN_ALL, (*keys, *keys, *keys))


def find_other(database: Database, keys: TwoKeys) -> str | None:
    """Return the id of another message that the keys belong to since they were to be remembered for theirs."""
    row = database.one(FIND_OTHER, keys)
    return str(row[0]) if row else None


def known(database: Database, span: tuple[str, str]) -> list[Row]:
    """Return (session, key, message id, until) of what is known in a range of sessions."""
    return database.all(KNOWN, span)


def copy(database: Database, rows: Iterable[Row]) -> None:
    """Know in sessions what is known in others, each (session, key, message id, until)."""
    database.run_each(COPY, rows)


def expire(database: Database, limit: int) -> int:
    """Forget up to ``limit`` keys whose time has passed; count them."""
    return database.changed(EXPIRE, (database.now(), limit))
