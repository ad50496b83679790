"""The rows of ``probe`` by which a database tells whose copy it is: not whole yet, or moved here."""

from __future__ import annotations

import enum

from shared.store.engine import Database


class CopyState(enum.StrEnum):
    """How far a copy is; its row's name begins so."""

    UNFINISHED = "copy of "
    MOVED = "moved from "


# Tell whose copy it is.
ADD = "INSERT INTO probe (name, at) VALUES (?, ?) ON CONFLICT (name) DO NOTHING"
# Keep how far it is.
NOTE = "UPDATE probe SET body = ? WHERE name = ?"
# Read it.
PROGRESS = "SELECT body FROM probe WHERE name = ?"
# Tell it no more.
REMOVE = "DELETE FROM probe WHERE name = ?"
# Read whose copy it is.
READ = "SELECT name FROM probe WHERE name >= ? AND name < ?"


def begin(database: Database, source: str) -> None:
    """Take note that this is a copy of a database, not whole yet."""
    database.run(ADD, (CopyState.UNFINISHED + source, database.now()))


def note(database: Database, source: str, body: bytes) -> None:
    """Keep how far it is, as bytes that whoever copies understands."""
    database.run(NOTE, (body, CopyState.UNFINISHED + source))


def progress(database: Database, source: str) -> bytes | None:
    """Return how far it is."""
    row = database.one(PROGRESS, (CopyState.UNFINISHED + source,))
    return bytes(row[0]) if row is not None and row[0] is not None else None


def finish(database: Database, source: str) -> None:
    """Take note that all of it was moved here."""
    database.run(REMOVE, (CopyState.UNFINISHED + source,))
    database.run(ADD, (CopyState.MOVED + source, database.now()))


def unfinished(database: Database) -> list[str]:
    """Return the databases that this is a copy of, not whole yet: one at most."""
    return _read(database, CopyState.UNFINISHED)


def moved(database: Database) -> list[str]:
    """Return the databases that were moved here."""
    return _read(database, CopyState.MOVED)


def _read(database: Database, kind: CopyState) -> list[str]:
    beyond = kind[:-1] + chr(ord(kind[-1]) + 1)
    return [str(name).removeprefix(kind) for (name,) in database.all(READ, (kind, beyond))]
