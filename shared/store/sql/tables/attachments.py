"""The table of the bytes that messages refer to: images that people sent and tools returned, once each in a session."""

from __future__ import annotations

from collections.abc import Mapping

from shared.errors import NotFound
from shared.store.engine import Database
from shared.store.sql.small_deletes import DELETE_LIMIT, last_of_some

# Keep the bytes of an attachment, unless they are kept.
ADD = """
INSERT INTO attachments (session_key, digest, data) VALUES (?, ?, ?) ON CONFLICT (session_key, digest) DO NOTHING
"""
# Read them.
READ = "SELECT data FROM attachments WHERE session_key = ? AND digest = ?"
# Remove one.
REMOVE_ONE = "DELETE FROM attachments WHERE session_key = ? AND digest = ?"
# Read how large some of a session are.
SIZES = "SELECT digest, length(data) FROM attachments WHERE session_key = ? ORDER BY digest LIMIT ?"
# Remove some of a session.
REMOVE_SOME = "DELETE FROM attachments WHERE session_key = ? AND digest <= ?"
# Remove all of a session.
REMOVE = "DELETE FROM attachments WHERE session_key = ?"


def add(database: Database, session: str, data: Mapping[str, bytes]) -> None:
    """Keep bytes by their digests."""
    for digest, content in data.items():
        database.run(ADD, (session, digest, content))


def read(database: Database, session: str, digest: str) -> bytes:
    """Return the bytes of an attachment. Raises NotFound."""
    row = database.one(READ, (session, digest))
    if row is None:
        raise NotFound(f"there is no attachment {digest} in session {session}")
    return bytes(row[0])


def take(database: Database, session: str, digest: str) -> bytes:
    """Return the bytes of an attachment and remove it. Raises NotFound."""
    data = read(database, session, digest)
    database.run(REMOVE_ONE, (session, digest))
    return data


def remove_some(database: Database, session: str) -> bool:
    """Remove some of a session's attachments; False where those that are left are little."""
    last = last_of_some(database.all(SIZES, (session, DELETE_LIMIT + 1)))
    return last is not None and database.changed(REMOVE_SOME, (session, last)) > 0


def remove(database: Database, session: str) -> None:
    """Remove a session's attachments."""
    database.run(REMOVE, (session,))
