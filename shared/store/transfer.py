"""Moves everything from one database to another, of whatever engines: chunk by chunk, and only what differs.

    source chunk ── rows in the order of their key ──▶ digest ─┐
    target chunk ── the same range of keys ──────────▶ digest ─┴─ equal: next; else replaced, in one transaction

So a copy that was broken off goes on where it was, a second pass over a database that lived on meanwhile takes over
what has changed, and a last one that finds no difference is the proof that both hold the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from shared.errors import StoreUnusable
from shared.store.engine import Database, Row
from shared.store.port import Store
from shared.store.sql.tables import copies
from shared.store.sqlite.schema import Table, tables

#: rows of one chunk
CHUNK_ROWS = 200
#: tables that belong to one database alone
OWN_TABLES = frozenset({"hosts", "probe", "sequences"})
#: tables in this order; a deletion from the first of them takes rows of the second
FIRST = ("history", "summaries")


class Chunk(NamedTuple):
    """The rows of a range of keys: behind ``after`` up to ``last``, without end where either is None."""

    after: Row | None
    last: Row | None
    rows: list[Row]


class TransferReport(msgspec.Struct, frozen=True):
    """What a pass over all tables has found."""

    #: rows of the source, by table
    rows: dict[str, int]
    #: chunks that were not the same and were replaced
    replaced: int
    #: a digest over all rows of the source, in order
    checksum: str


async def begin(target: Store, source_name: str) -> None:
    """Mark a database as a copy of another. Raises StoreUnusable for one that holds something of its own."""
    held = moved_tables()

    def job(database: Database) -> str:
        begun = copies.unfinished(database)
        if begun == [source_name]:
            return ""
        if begun:
            return f"it is a copy of {begun[0]} that is not whole yet"
        if source_name in copies.moved(database):
            return f"all of {source_name} was moved here before: start the gateway on it"
        if own := [table.name for table in held if database.all(f"SELECT 1 FROM {table.name} LIMIT 1")]:  # noqa: S608
            return f"it holds something of its own, which would be lost, in {', '.join(own)}"
        copies.begin(database, source_name)
        return ""

    if problem := await target.engine.run("", job):
        raise StoreUnusable(f"the database to move to cannot be taken: {problem}")


async def finish(source: Store, target: Store, source_name: str) -> None:
    """Let the target go on with numbers that the source never gave; now it may be opened."""
    last = await source.engine.run("", lambda database: database.last_epoch())

    def job(database: Database) -> None:
        database.begin_epochs_after(last)
        copies.finish(database, source_name)

    await target.engine.run("", job)


async def count(source: Store) -> dict[str, int]:
    """Return how many rows there are to move, by table."""
    found = {}
    for table in moved_tables():
        statement = f"SELECT count(*) FROM {table.name}"  # noqa: S608 - the schema's own name
        found[table.name] = int((await source.engine.run("", lambda database, sql: database.only(sql), statement))[0])
    return found


async def copy(source: Store, target: Store, progress: Callable[[int], object]) -> TransferReport:
    """Make the target hold what the source holds; ``progress`` is told of rows that were looked at."""
    rows: dict[str, int] = {}
    replaced, whole = 0, hashlib.sha256()
    for table in moved_tables():
        rows[table.name] = 0
        after: Row | None = None
        while True:
            chunk = await source.engine.run("", _read_chunk, table, after)
            held = await target.engine.run("", _read_range, table, chunk)
            whole.update(_digest(chunk.rows))
            if _digest(held) != _digest(chunk.rows):
                replaced += 1
                await target.engine.run("", _replace, table, chunk)
            rows[table.name] += len(chunk.rows)
            progress(len(chunk.rows))
            if chunk.last is None:
                break
            after = chunk.last
    return TransferReport(rows, replaced, whole.hexdigest())


def moved_tables() -> list[Table]:
    """Return the tables that are moved, in their order."""
    found = [table for table in tables() if table.name not in OWN_TABLES]
    return sorted(found, key=lambda table: (table.name not in FIRST, table.name))


def _read_chunk(database: Database, table: Table, after: Row | None) -> Chunk:
    """Read the next chunk; the last one has no end."""
    condition, values = _behind(table, after)
    statement = f"{_select(table)} WHERE {condition} ORDER BY {_key(table)} LIMIT ?"
    rows = [_neutral(row) for row in database.all(statement, (*values, CHUNK_ROWS))]
    places = [table.columns.index(name) for name in table.key]
    last = tuple(rows[-1][place] for place in places) if len(rows) == CHUNK_ROWS else None
    return Chunk(after, last, rows)


def _read_range(database: Database, table: Table, chunk: Chunk) -> list[Row]:
    condition, values = _within(table, chunk)
    statement = f"{_select(table)} WHERE {condition} ORDER BY {_key(table)}"
    return [_neutral(row) for row in database.all(statement, values)]


def _replace(database: Database, table: Table, chunk: Chunk) -> None:
    condition, values = _within(table, chunk)
    database.run(f"DELETE FROM {table.name} WHERE {condition}", values)  # noqa: S608 - the schema's own names
    marks = ", ".join("?" * len(table.columns))
    insert = f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES ({marks})"  # noqa: S608
    database.run_each(insert, chunk.rows)


def _select(table: Table) -> str:
    return f"SELECT {', '.join(table.columns)} FROM {table.name}"  # noqa: S608 - the schema's own names


def _key(table: Table) -> str:
    return ", ".join(table.key)


def _behind(table: Table, after: Row | None) -> tuple[str, Row]:
    """Return the condition for rows behind a key, and its values."""
    if after is None:
        return "1 = 1", ()
    return f"({_key(table)}) > ({', '.join('?' * len(after))})", after


def _within(table: Table, chunk: Chunk) -> tuple[str, Row]:
    """Return the condition for the rows of a chunk's range, and its values."""
    condition, values = _behind(table, chunk.after)
    if chunk.last is None:
        return condition, values
    return f"{condition} AND ({_key(table)}) <= ({', '.join('?' * len(chunk.last))})", (*values, *chunk.last)


def _neutral(row: Row) -> Row:
    """Return a row as any engine holds it: a server's texts have no U+0000."""
    return tuple(_neutral_values(row))


def _neutral_values(row: Row) -> Iterator[Any]:
    for value in row:
        yield value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value


def _digest(rows: list[Row]) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode(rows)).digest()
