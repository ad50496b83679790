"""How a file logs which rows change, beside the gateway that writes it: triggers, made over a connection of their own.

https://www.sqlite.org/lang_createtrigger.html
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw

from shared.errors import StoreUnusable
from shared.store.sqlite.schema import Table
from shared.store.sqlite.synced_mark import connect_unchanged

#: how long the writer's transaction is waited for, in milliseconds
BUSY_TIMEOUT_MS = 20_000
#: triggers of one table: for what is added, changed and removed
TRIGGERS = 3

MAKE = """
CREATE TABLE change_log (
  number INTEGER PRIMARY KEY, mark INTEGER NOT NULL DEFAULT (random()), name TEXT NOT NULL, row_key TEXT NOT NULL
) STRICT;
CREATE VIEW logged_changes AS SELECT number AS written, number, mark, name, row_key FROM change_log;
"""
# One writer at a time: what is committed later has a greater number.
MAKE_STATE = """
CREATE VIEW change_log_state AS SELECT '{token}' AS token,
  (SELECT coalesce(max(number), 0) + 1 FROM change_log) AS horizon,
  (SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name GLOB 'change_log_*') AS triggers
"""
FOUND = "SELECT 1 FROM sqlite_schema WHERE name = 'change_log_state'"
READ = "SELECT token, triggers FROM change_log_state"
TRIGGERS_FOUND = "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name GLOB 'change_log_*'"


def begin(path: Path, tables: Sequence[Table]) -> str:
    """Log from now on the key of every row that changes, unless that is done; return the log's token.

    Raises StoreUnusable.
    """
    with _connected(path) as db:
        if db.execute(FOUND).fetchone():
            token, triggers = db.execute(READ).fetchall()[0]
            if triggers == TRIGGERS * len(tables):
                return str(token)
        _remove(db)
        token = secrets.token_hex(8)
        db.execute(MAKE)
        for table in tables:
            db.execute(_triggers(table))
        db.execute(MAKE_STATE.format(token=token))
        return token


def end(path: Path) -> None:
    """Log no more, and forget what was logged. Raises StoreUnusable."""
    with _connected(path) as db:
        _remove(db)


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[apsw.Connection]:
    """Give a connection in a transaction that is on the disk afterwards. Raises StoreUnusable."""
    try:
        with contextlib.closing(connect_unchanged(path, str(path), apsw.SQLITE_OPEN_READWRITE)) as db:
            db.set_busy_timeout(BUSY_TIMEOUT_MS)
            db.pragma("synchronous", "full")
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
    except apsw.Error as error:
        raise StoreUnusable(f"{path} cannot log what changes while it is moved: {error}") from error


def _remove(db: apsw.Connection) -> None:
    for (name,) in db.execute(TRIGGERS_FOUND).fetchall():
        db.execute(f"DROP TRIGGER {name}")
    db.execute("DROP VIEW IF EXISTS change_log_state; DROP VIEW IF EXISTS logged_changes")
    db.execute("DROP TABLE IF EXISTS change_log")


def _triggers(table: Table) -> str:
    """Return the triggers of a table; a key that changes is logged as it was and as it is."""
    events = {"insert": ("NEW",), "update": ("OLD", "NEW"), "delete": ("OLD",)}
    return "".join(
        f"CREATE TRIGGER change_log_{event}_{table.name} AFTER {event.upper()} ON {table.name} BEGIN "
        + "".join(
            f"INSERT INTO change_log (name, row_key) SELECT '{table.name}', {_key(table, row)}"
            + (f" WHERE {_key(table, 'OLD')} <> {_key(table, 'NEW')}; " if len(rows) > 1 and row == "OLD" else "; ")
            for row in rows
        )
        + "END; "
        for event, rows in events.items()
    )


def _key(table: Table, row: str) -> str:
    return " || ',' || ".join(
        f"'x' || hex({row}.{name})" if name in table.text_keys else f"{row}.{name}" for name in table.key
    )
