"""The table of dedupe keys."""

from __future__ import annotations

from collections.abc import Iterable

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


def known(database: Database, span: tuple[str, str]) -> list[Row]:
    """Return (session, key, message id, until) of what is known in a range of sessions."""
    return database.all(KNOWN, span)


def copy(database: Database, rows: Iterable[Row]) -> None:
    """Know in sessions what is known in others, each (session, key, message id, until)."""
    database.run_each(COPY, rows)


def expire(database: Database, limit: int) -> int:
    """Forget up to ``limit`` keys whose time has passed; count them."""
    return database.changed(EXPIRE, (database.now(), limit))
