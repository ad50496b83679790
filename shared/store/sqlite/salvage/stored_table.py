"""How the rows of a table lie in a file, and whether a record can be one of them."""

from __future__ import annotations

from typing import Any

import apsw
import msgspec

from shared.store.sqlite.salvage.btree import StoredRow, Value

#: columns that hold JSON: what an overflow page that was damaged makes of it would fail every later turn
JSON_COLUMNS = {"history": ("message",), "todos": ("todo",)}


class StoredTable(msgspec.Struct, frozen=True):
    """A table as it is stored: its columns in the order of a record, and their defaults."""

    name: str
    root: int
    #: the columns in the order that a record has
    stored: tuple[str, ...]
    types: tuple[str, ...]
    #: what a row written before a column was added has of it
    defaults: tuple[Value, ...]
    required: tuple[bool, ...]
    #: the column that is the rowid itself, empty if none is
    rowid_column: str
    has_rowid: bool

    def row(self, found: StoredRow) -> tuple[Value, ...] | None:
        """Return a record's values, one a column; None where the record cannot be a row of this table."""
        missing = len(self.stored) - len(found.values)
        if missing < 0 or (found.rowid is not None) is not self.has_rowid:
            return None
        values = [*found.values, *self.defaults[len(found.values) :]]
        if self.rowid_column:
            values[self.stored.index(self.rowid_column)] = found.rowid
        fits = all(map(_fits, values, self.types, self.required))
        whole = fits and all(_is_json(values[self.stored.index(name)]) for name in JSON_COLUMNS.get(self.name, ()))
        return tuple(values) if whole else None

    def name_of(self, row: tuple[Value, ...]) -> str:
        """Return what a row is called: its id, or what its key begins with."""
        if "id" in self.stored:
            return str(row[self.stored.index("id")])
        return " ".join(str(value) for value in row[:2])


def described(db: apsw.Connection, name: str, root: int) -> StoredTable:
    """Return how a table of this database is stored."""
    columns = list(db.execute(f'PRAGMA table_info("{name}")'))
    (without_rowid,) = [bool(row[4]) for row in db.execute("PRAGMA table_list") if row[1] == name]
    key = sorted((column for column in columns if column[5]), key=lambda column: int(str(column[5])))
    ordered = [*key, *(column for column in columns if not column[5])] if without_rowid else columns
    is_rowid = not without_rowid and len(key) == 1 and str(key[0][2]).upper() == "INTEGER"
    return StoredTable(
        name=name,
        root=root,
        stored=tuple(str(column[1]) for column in ordered),
        types=tuple(str(column[2]).upper() for column in ordered),
        defaults=tuple(_default(db, column[4]) for column in ordered),
        required=tuple(bool(column[3]) for column in ordered),
        rowid_column=str(key[0][1]) if is_rowid else "",
        has_rowid=not without_rowid,
    )


def _is_json(value: Value) -> bool:
    try:
        msgspec.json.decode(value if isinstance(value, bytes | str) else b"")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def _default(db: apsw.Connection, expression: Any) -> Value:
    return db.execute(f"SELECT {expression}").get if expression is not None else None


def _fits(value: Value, kind: str, required: bool) -> bool:
    """Tell whether a value may stand in a column of a STRICT table."""
    if value is None:
        return not required
    match kind:
        case "INTEGER" | "INT":
            return isinstance(value, int)
        case "REAL":
            return isinstance(value, int | float)  # whole numbers are stored as such
        case "TEXT":
            return isinstance(value, str)
        case "BLOB":
            return isinstance(value, bytes)
        case _:
            return True
