"""How the table of sessions is listed and searched: by their last change, some thousand rows at a look."""

from __future__ import annotations

import re

from shared.store.engine import Database, Row
from shared.traces import SessionQuery

#: a place in the list: ``updated_at`` and key of a session
Mark = tuple[float, str]

# Find the session that is so many places behind one of the list.
EDGE = """
SELECT updated_at, session_key FROM sessions
WHERE updated_at <= ? AND (updated_at < ? OR session_key < ?)
ORDER BY updated_at DESC, session_key DESC LIMIT 1 OFFSET ?
"""
# List sessions behind one of the list and up to another one that are of a platform, in a state and called so.
LIST = """
SELECT session_key, platform, version, updated_at, state = 'claimed', title FROM sessions
WHERE updated_at <= ? AND (updated_at < ? OR session_key < ?)
  AND updated_at >= ? AND (updated_at > ? OR session_key >= ?)
  AND (? = '' OR platform = ?)
  AND (? = '' OR (? = 'running' AND state = 'claimed') OR (? = 'waiting' AND state NOT IN ('idle', 'claimed')))
  AND (lower(session_key) LIKE ? ESCAPE '!' OR lower(title) LIKE ? ESCAPE '!')
ORDER BY updated_at DESC, session_key DESC LIMIT ?
"""


def edge(database: Database, after: Mark, places: int) -> Mark | None:
    """Return the session that is so many places behind one of the list, None where it ends before."""
    updated_at, key = after
    row = database.one(EDGE, (updated_at, updated_at, key, places - 1))
    return (row[0], row[1]) if row else None


def between(database: Database, after: Mark, last: Mark | None, query: SessionQuery, limit: int) -> list[Row]:
    """Return (session, platform, version, updated_at, claimed, title) of sessions behind one and up to another.

    Of those that are asked for; of words in other letters than ASCII's, whose case not every engine knows, of all.
    """
    begin, end = (after[0], *after), last or (-1e12, "")
    words = re.sub("[!%_]", r"!\g<0>", query.words.casefold()) if query.words.isascii() else ""
    state, pattern = query.state, f"%{words}%"
    wanted = (query.platform, query.platform, state, state, state, pattern, pattern)
    return database.all(LIST, (*begin, end[0], *end, *wanted, limit))
