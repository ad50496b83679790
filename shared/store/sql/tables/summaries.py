"""The table of summaries: what stands for the beginning of a session's transcript when a model is shown it.

All that were made are kept, so that an earlier one holds again when a conversation is taken back past a later one; a
trigger of the schema removes each with the messages it was made of.
"""

from __future__ import annotations

import msgspec

from shared.messages import Summary
from shared.store.engine import Database

# Keep a summary that was made when the transcript had so many settled messages.
ADD = """
INSERT INTO summaries (session_key, covers, settled, body)
VALUES (?, ?, (SELECT coalesce(max(position) + 1, 0) FROM history WHERE session_key = ?), ?)
ON CONFLICT (session_key, covers) DO UPDATE SET settled = excluded.settled, body = excluded.body
"""
# Read the one that covers most, if it covers anything behind a position.
READ = "SELECT body FROM summaries WHERE session_key = ? AND covers > ? ORDER BY covers DESC LIMIT 1"
# Remove those that were made since the last settle.
REMOVE_UNSETTLED = """
DELETE FROM summaries WHERE session_key = ?
  AND settled >= (SELECT coalesce(max(position) + 1, 0) FROM history WHERE session_key = ?)
"""
# Remove all of a session.
REMOVE = "DELETE FROM summaries WHERE session_key = ?"

_DECODER = msgspec.msgpack.Decoder(Summary)


def add(database: Database, session: str, summary: Summary) -> None:
    """Keep a summary that the session's running turn has made."""
    database.run(ADD, (session, summary.covers, session, msgspec.msgpack.encode(summary)))


def read(database: Database, session: str, begin: int) -> Summary | None:
    """Return the summary that covers most of a session's transcript from a position on."""
    row = database.one(READ, (session, begin))
    return _DECODER.decode(row[0]) if row else None


def remove_unsettled(database: Database, session: str) -> None:
    """Remove what a turn has summarized that leaves nothing behind: its steps may be in it."""
    database.run(REMOVE_UNSETTLED, (session, session))


def remove(database: Database, session: str) -> None:
    """Remove a session's summaries."""
    database.run(REMOVE, (session,))
