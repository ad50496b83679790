"""How a file gets the schema of ``shared/store/sql/schema.py``: versions are told apart by ``PRAGMA user_version``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

import apsw

from shared.errors import StoreOutdated, StoreUnusable
from shared.store.engine import OpeningProgress, Tell, tell_nobody
from shared.store.sql.schema import MIGRATIONS
from shared.store.sqlite.table_move import move_table, unmoved

#: tables that belong to one database alone
OWN_TABLES = frozenset({"hosts", "probe", "sequences"})
#: tables in this order; a deletion from the first of them takes rows of the second
FIRST = ("history", "summaries")


def migrate(db: apsw.Connection, path: Path, tell: Tell = tell_nobody) -> None:
    """Bring the database to the newest schema: one transaction a version, and many for the rows of large tables.

    A kill loses the transaction it falls into; the next call goes on behind the others. ``tell`` hears how far it is,
    and nothing of a new file. Raises StoreUnusable.
    """
    found = known_schema(db, path)
    heard = tell if found else tell_nobody
    for version in range(found + 1, len(MIGRATIONS) + 1):
        heard(OpeningProgress(f"schema {version}", version - 1, len(MIGRATIONS)))
        db.execute(f"BEGIN IMMEDIATE; {MIGRATIONS[version - 1]}; PRAGMA user_version = {version}; COMMIT")
    for table in unmoved(db):
        move_table(db, table, heard)


def known_schema(db: apsw.Connection, path: Path) -> int:
    """Return the version of the database's schema, 0 for an empty file. Raises StoreUnusable for an unknown one."""
    found = int(db.pragma("user_version"))
    if found > len(MIGRATIONS):
        raise StoreUnusable(
            f"{path} has schema {found}, written by a newer Gatehouse; this one knows {len(MIGRATIONS)} at most"
        )
    if found == 0 and db.execute("SELECT 1 FROM sqlite_schema").fetchone():
        raise StoreUnusable(f"{path} is a database of another program: it has tables, but none of Gatehouse's schemas")
    return found


def check_schema(db: apsw.Connection, path: Path) -> None:
    """Raise StoreUnusable unless the database has today's schema."""
    found = known_schema(db, path)
    if found != len(MIGRATIONS):
        raise StoreOutdated(
            f"{path} has schema {found}, and this release reads {len(MIGRATIONS)}: the next start brings it there"
        )
    if unmoved(db):
        raise StoreOutdated(f"{path} is on its way to this release's schema: the next start brings it there")


class Table(NamedTuple):
    """A table of today's schema."""

    name: str
    columns: tuple[str, ...]
    #: the columns of its primary key, in their order
    key: tuple[str, ...]
    #: those of them that hold text; the others hold integers
    text_keys: frozenset[str]


def tables() -> list[Table]:
    """Return the tables of today's schema, as every engine has them."""
    with contextlib.closing(apsw.Connection(":memory:")) as db:
        migrate(db, Path(":memory:"))
        names = [str(name) for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return [_table(db, name) for name in names if not name.startswith("sqlite_")]


def moved_tables() -> list[Table]:
    """Return the tables that are moved to another database, in the order in which that is done."""
    found = [table for table in tables() if table.name not in OWN_TABLES]
    return sorted(found, key=lambda table: (table.name not in FIRST, table.name))


def _table(db: apsw.Connection, name: str) -> Table:
    found = db.execute("SELECT name, pk, type FROM pragma_table_info(?) ORDER BY cid", (name,)).fetchall()
    key = sorted((int(str(number)), str(column)) for column, number, _ in found if number)
    texts = frozenset(str(column) for column, number, kind in found if number and kind == "TEXT")
    return Table(name, tuple(str(column) for column, *_ in found), tuple(column for _, column in key), texts)
