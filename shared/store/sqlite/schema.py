"""How a file gets the schema of ``shared/store/sql/schema.py``: versions are told apart by ``PRAGMA user_version``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

import apsw

from shared.errors import StoreUnusable
from shared.store.sql.schema import MIGRATIONS

#: what ends the script of a table that is kept in its key's own order
WITHOUT_ROWID = ", WITHOUT ROWID"
#: tables of bodies that may be large: in a table without row numbers a seek reads every body on its way in whole
ROWID_TABLES = ("inbox", "history", "todos", "checkpoints", "outbox", "open_steps", "tool_calls", "summaries")


def migrate(db: apsw.Connection, path: Path) -> None:
    """Bring the database to the newest schema, one transaction a version. Raises StoreUnusable."""
    found = known_schema(db, path)
    for version in range(found + 1, len(MIGRATIONS) + 1):
        db.execute(f"BEGIN IMMEDIATE; {MIGRATIONS[version - 1]}; PRAGMA user_version = {version}; COMMIT")
    db.pragma("legacy_alter_table", True)
    for table in ROWID_TABLES:
        _give_rowid(db, table)
    db.pragma("legacy_alter_table", False)


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
        raise StoreUnusable(
            f"{path} has schema {found}, and this release reads {len(MIGRATIONS)}: the next start brings it there"
        )


def _give_rowid(db: apsw.Connection, table: str) -> None:
    """Make a table WITHOUT ROWID an ordinary one, in one transaction; nothing to do for one that is."""
    (created,) = _scripts(db, table, "table")
    if not created.endswith(WITHOUT_ROWID):
        return
    ordinary = created.removesuffix(WITHOUT_ROWID).replace(table, f"{table}_new", 1)
    further = "; ".join([*_scripts(db, table, "index"), *_scripts(db, table, "trigger")])
    db.execute(
        f"BEGIN IMMEDIATE; {ordinary}; INSERT INTO {table}_new SELECT * FROM {table}; DROP TABLE {table}; "  # noqa: S608
        f"ALTER TABLE {table}_new RENAME TO {table}; {further}; COMMIT"
    )


def _scripts(db: apsw.Connection, table: str, kind: str) -> list[str]:
    """Return what has created a table, or its indexes or triggers."""
    statement = "SELECT sql FROM sqlite_schema WHERE tbl_name = ? AND type = ? AND sql IS NOT NULL"
    return [str(sql) for (sql,) in db.execute(statement, (table, kind))]


class Table(NamedTuple):
    """A table of today's schema."""

    name: str
    columns: tuple[str, ...]
    #: the columns of its primary key, in their order
    key: tuple[str, ...]


def tables() -> list[Table]:
    """Return the tables of today's schema, as every engine has them."""
    with contextlib.closing(apsw.Connection(":memory:")) as db:
        migrate(db, Path(":memory:"))
        names = [str(name) for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return [_table(db, name) for name in names if not name.startswith("sqlite_")]


def _table(db: apsw.Connection, name: str) -> Table:
    found = db.execute("SELECT name, pk FROM pragma_table_info(?) ORDER BY cid", (name,)).fetchall()
    key = sorted((int(str(number)), str(column)) for column, number in found if number)
    return Table(name, tuple(str(column) for column, _ in found), tuple(column for _, column in key))
