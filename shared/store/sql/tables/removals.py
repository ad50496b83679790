"""The table of removed sessions: what hosts that were away still have to forget."""

from __future__ import annotations

from shared.hosts import REMOVALS_LIMIT, Removal
from shared.store.engine import Database

# Remember a removal.
ADD = """
INSERT INTO removals (session_key, at) VALUES (?, ?) ON CONFLICT (session_key) DO UPDATE SET at = excluded.at
"""
# List the removals since a time, oldest first.
SINCE = "SELECT session_key, at FROM removals WHERE at > ? ORDER BY at LIMIT ?"
# Forget removals that every host has heard of, or never will.
EXPIRE = "DELETE FROM removals WHERE at < ?"


def add(database: Database, session: str) -> None:
    """Remember that a session is removed now."""
    database.run(ADD, (session, database.now()))


def since(database: Database, at: float) -> tuple[Removal, ...]:
    """Return removals since a time, oldest first."""
    return tuple(Removal(*row) for row in database.all(SINCE, (at, REMOVALS_LIMIT)))


def expire(database: Database, keep_s: float) -> int:
    """Forget removals longer ago than this; count them."""
    return database.changed(EXPIRE, (database.now() - keep_s,))
