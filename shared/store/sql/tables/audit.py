"""The table of what operators did and what strangers tried, newest kept."""

from __future__ import annotations

from shared.store.engine import Database
from shared.traces import AuditEntry

#: entries that are kept of acts, and of what was refused to strangers: those never push acts out
MOST_KEPT, MOST_REFUSED_KEPT = 10_000, 1_000

# Add an entry.
ADD = "INSERT INTO audit (place, at, action, actor, target, origin) VALUES (?, ?, ?, ?, ?, ?)"
# Find the oldest act that is kept: it has an actor.
OLDEST_ACT = "SELECT place FROM audit WHERE actor <> '' ORDER BY place DESC LIMIT 1 OFFSET ?"
# Forget the acts that are older.
FORGET_ACTS = "DELETE FROM audit WHERE actor <> '' AND place < ?"
# Find the oldest entry of a stranger that is kept.
OLDEST_REFUSED = "SELECT place FROM audit WHERE actor = '' ORDER BY place DESC LIMIT 1 OFFSET ?"
# Forget those of strangers that are older.
FORGET_REFUSED = "DELETE FROM audit WHERE actor = '' AND place < ?"
# List the newest.
LATEST = "SELECT at, action, actor, target, origin FROM audit ORDER BY place DESC LIMIT ?"


def add(database: Database, entry: AuditEntry) -> None:
    """Add an entry, and forget the oldest past what is kept."""
    columns = (entry.at, entry.action, entry.actor, entry.target, entry.origin)
    database.run(ADD, (database.next_place(), *columns))
    of_acts, of_refused = (OLDEST_ACT, FORGET_ACTS, MOST_KEPT), (OLDEST_REFUSED, FORGET_REFUSED, MOST_REFUSED_KEPT)
    find, forget, kept = of_acts if entry.actor else of_refused
    if oldest := database.one(find, (kept - 1,)):
        database.run(forget, oldest)


def latest(database: Database, limit: int) -> list[AuditEntry]:
    """Return entries, newest first."""
    return [AuditEntry(*row) for row in database.all(LATEST, (limit,))]
