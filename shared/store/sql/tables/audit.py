"""The table of what operators did and what strangers tried, newest kept."""

from __future__ import annotations

from shared.store.engine import Database
from shared.traces import AuditEntry

#: entries that are kept
MOST_KEPT = 10_000

# Add an entry.
ADD = "INSERT INTO audit (place, at, action, actor, target, origin) VALUES (?, ?, ?, ?, ?, ?)"
# Find the oldest entry that is kept.
OLDEST_KEPT = "SELECT place FROM audit ORDER BY place DESC LIMIT 1 OFFSET ?"
# Forget what is older.
FORGET = "DELETE FROM audit WHERE place < ?"
# List the newest.
LATEST = "SELECT at, action, actor, target, origin FROM audit ORDER BY place DESC LIMIT ?"


def add(database: Database, entry: AuditEntry) -> None:
    """Add an entry, and forget the oldest past what is kept."""
    columns = (entry.at, entry.action, entry.actor, entry.target, entry.origin)
    database.run(ADD, (database.next_place(), *columns))
    if oldest := database.one(OLDEST_KEPT, (MOST_KEPT - 1,)):
        database.run(FORGET, oldest)


def latest(database: Database, limit: int) -> list[AuditEntry]:
    """Return entries, newest first."""
    return [AuditEntry(*row) for row in database.all(LATEST, (limit,))]
