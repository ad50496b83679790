"""Gives a table row numbers, in transactions of a fraction of a second each, however many rows it has.

    drop its indexes ─▶ move rows to TABLE_new, some at a time ─▶ index those ─▶ TABLE_new takes the place and the name

A row is in one of the two tables at every moment, so whoever finds both goes on where a kill has cut off. Rows leave
the old table as they are copied: the pages they free, overwritten like all that is deleted, take the next ones.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import apsw

from shared.store.engine import OpeningProgress, Tell, tell_nobody
from shared.store.sql.schema import MIGRATIONS

#: what ends the script of a table that is kept in its key's own order
WITHOUT_ROWID = ", WITHOUT ROWID"
#: tables of bodies that may be large: in a table without row numbers a seek reads every body on its way in whole
ROWID_TABLES = (
    "inbox",
    "history",
    "todos",
    "checkpoints",
    "outbox",
    "open_steps",
    "tool_calls",
    "summaries",
    "attachments",
)
#: what the new table is called until it takes the place
MOVING = "_new"

#: what hangs on a table and goes with it
DEPENDENTS = ("index", "trigger")
#: rows that the first transaction moves, and how long each of the others may take, in seconds
FIRST_ROWS = 64
CHUNK_S = 0.25


def unmoved(db: apsw.Connection) -> list[str]:
    """Return the tables that still have to be given row numbers."""
    return [table for table in ROWID_TABLES if (script := _script(db, table)) and script.endswith(WITHOUT_ROWID)]


def finish_moves(db: apsw.Connection) -> None:
    """Finish what a kill has cut off, and begin nothing."""
    for table in unmoved(db):
        if _script(db, table + MOVING):
            move_table(db, table, tell_nobody)


def move_table(db: apsw.Connection, table: str, tell: Tell) -> None:
    """Do it; what was begun before is gone on with."""
    ordinary = _script(db, table).removesuffix(WITHOUT_ROWID).replace(table, table + MOVING, 1)
    begun = bool(_script(db, table + MOVING))
    with _old_names(db):
        if not begun and not db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():  # noqa: S608 - our own tables
            further = [script for kind in DEPENDENTS for script in _scripts(db, table, kind).values()]
            _take_place(db, table, [ordinary], further)
            return
        for kind in DEPENDENTS:
            for name in _scripts(db, table, kind):
                db.execute(f"DROP {kind} {name}")
        if not begun:
            db.execute(ordinary)
        _move_rows(db, table, tell)
        today = _scripts_of_today(table)
        there = _scripts(db, table + MOVING, "index")
        for name, script in today["index"].items():
            if name not in there:
                tell(OpeningProgress(f"index {name}", 0, 1))
                db.execute(script.replace(f" ON {table} ", f" ON {table}{MOVING} ", 1))
        _take_place(db, table, [], list(today["trigger"].values()))


def _take_place(db: apsw.Connection, table: str, before: list[str], after: list[str]) -> None:
    """Let the new table take the place of the old one, which has no rows, and run these scripts with it."""
    swap = [f"DROP TABLE {table}", f"ALTER TABLE {table}{MOVING} RENAME TO {table}"]
    with _transaction(db):
        db.execute("; ".join([*before, *swap, *after]))


def _move_rows(db: apsw.Connection, table: str, tell: Tell) -> None:
    """Move rows in the order of their key until none is left; each transaction is sized by what the last one took."""
    columns = _key(db, table)
    key, falling = ", ".join(columns), ", ".join(f"{column} DESC" for column in columns)
    first = f"SELECT {key} FROM {table} ORDER BY {key} LIMIT ?"  # noqa: S608 - names of our own tables
    last = f"SELECT * FROM ({first}) ORDER BY {falling} LIMIT 1"  # noqa: S608
    upto = f"({key}) <= ({', '.join('?' for _ in columns)})"
    copied = f"{table}{MOVING} SELECT * FROM {table}"  # noqa: S608 - names of our own tables
    done = _number(db, f"SELECT coalesce(max(rowid), 0) FROM {table}{MOVING}")  # noqa: S608
    left, rows = _number(db, f"SELECT count(*) FROM {table}"), FIRST_ROWS  # noqa: S608
    total = done + left
    while left:
        began = time.monotonic()
        with _transaction(db):
            until = db.execute(last, (rows,)).fetchone()
            db.execute(f"INSERT INTO {copied} WHERE {upto} ORDER BY {key} ON CONFLICT DO NOTHING", until)
            db.execute(f"DELETE FROM {table} WHERE {upto}", until)  # noqa: S608
            left -= db.changes()
        tell(OpeningProgress(f"rows of {table}", total - left, total))
        took_s = max(time.monotonic() - began, 0.001)
        rows = max(1, min(4 * rows, int(rows * CHUNK_S / took_s)))


@contextlib.contextmanager
def _transaction(db: apsw.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(apsw.Error):
            db.execute("ROLLBACK")
        raise


def _number(db: apsw.Connection, statement: str) -> int:
    """Return the one number that a statement gives."""
    ((number,),) = db.execute(statement).fetchall()
    return int(str(number))


def _key(db: apsw.Connection, table: str) -> list[str]:
    """Return the columns of its primary key, in their order."""
    return [str(name) for (name,) in db.execute("SELECT name FROM pragma_table_info(?) WHERE pk ORDER BY pk", (table,))]


def _script(db: apsw.Connection, table: str) -> str:
    """Return what has created a table, empty where there is none."""
    row = db.execute("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?", (table,)).fetchone()
    return str(row[0]) if row else ""


def _scripts(db: apsw.Connection, table: str, kind: str) -> dict[str, str]:
    """Return what has created the indexes or the triggers of a table, by name."""
    found = "SELECT name, sql FROM sqlite_schema WHERE tbl_name = ? AND type = ? AND sql IS NOT NULL"
    return {str(name): str(sql) for name, sql in db.execute(found, (table, kind)).fetchall()}


def _scripts_of_today(table: str) -> dict[str, dict[str, str]]:
    """Return what creates the indexes and the triggers that today's schema gives a table, by kind and name."""
    with contextlib.closing(apsw.Connection(":memory:")) as db:
        for script in MIGRATIONS:
            db.execute(script)
        return {kind: _scripts(db, table, kind) for kind in DEPENDENTS}


@contextlib.contextmanager
def _old_names(db: apsw.Connection) -> Iterator[None]:
    """Let a table be renamed without a look at what refers to it: triggers of others name it as it will be called."""
    db.pragma("legacy_alter_table", True)
    try:
        yield
    finally:
        db.pragma("legacy_alter_table", False)
