"""The table of dedupe keys."""

from __future__ import annotations

from shared.store.sqlite.database import Database

# Find the message a key belongs to.
FIND = "SELECT message_id FROM dedupe WHERE session_key = ? AND key = ? AND until > ?"
# Remember a key, over one whose time has passed.
REMEMBER = "INSERT OR REPLACE INTO dedupe (session_key, key, message_id, until) VALUES (?, ?, ?, ?)"
# Forget some keys whose time has passed.
EXPIRE = """
DELETE FROM dedupe WHERE (session_key, key) IN
  (SELECT session_key, key FROM dedupe WHERE until <= ? ORDER BY until LIMIT ?)
"""


def find(database: Database, session: str, keys: tuple[str, ...]) -> str | None:
    """Return the id of the message that any of the keys belongs to."""
    now = database.now()
    for key in keys:
        if row := database.one(FIND, (session, key, now)):
            return str(row[0])
    return None


def remember(database: Database, session: str, keys: tuple[str, ...], message_id: str, ttl_s: float) -> None:
    """Make the keys belong to the message for ``ttl_s`` seconds."""
    until = database.now() + ttl_s
    for key in keys:
        database.run(REMEMBER, (session, key, message_id, until))


def expire(database: Database, limit: int) -> int:
    """Forget up to ``limit`` keys whose time has passed; count them."""
    return database.run(EXPIRE, (database.now(), limit))
