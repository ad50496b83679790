"""The log of changed keys, which a database has while it is being moved: what the next pass has to look at again.

Each engine makes it with triggers of its own, and a view ``change_log_state`` as the last of it, so where that is the
log is whole. A change and its entry are of one transaction.
"""

from __future__ import annotations

import msgspec

from shared.store.engine import Database

# Read whose log it is, from where the next look begins that misses nothing, and how many triggers write it.
STATE = "SELECT token, horizon, triggers FROM change_log_state"
# Read what was logged from a horizon on.
SINCE = "SELECT written, number, mark, name, row_key FROM logged_changes WHERE written >= ? ORDER BY written, number"
# Find one entry.
FIND = "SELECT 1 FROM logged_changes WHERE written = ? AND number = ? AND mark = ?"

#: a key as it is logged: the bytes of a text or a number, for each of its columns
LoggedKey = tuple[bytes | int, ...]


class LogEntry(msgspec.Struct, frozen=True):
    """One entry, told from any other one that was ever written in its place."""

    written: int
    number: int
    mark: int


class LogState(msgspec.Struct, frozen=True):
    """What a log says of itself."""

    #: drawn when it was begun
    token: str
    #: entries before it are all there, and none is added
    horizon: int
    #: triggers that write it
    triggers: int


class Changes(msgspec.Struct, frozen=True):
    """The keys that have changed since a horizon, by table, each once."""

    keys: dict[str, list[LoggedKey]]
    #: from where the next look begins
    horizon: int
    #: the last entry, None where there is none
    last: LogEntry | None


def state(database: Database) -> LogState:
    """Return what the log says of itself."""
    return LogState(*database.only(STATE))


def since(database: Database, horizon: int) -> Changes:
    """Return what has changed since a horizon."""
    behind = state(database).horizon  # read first: what is committed later is at it or behind it
    found: dict[str, dict[LoggedKey, None]] = {}
    last = None
    for written, number, mark, name, key in database.all(SINCE, (horizon,)):
        found.setdefault(name, {})[_decode(key)] = None
        last = LogEntry(written, number, mark)
    return Changes({name: list(keys) for name, keys in found.items()}, behind, last)


def holds(database: Database, entry: LogEntry) -> bool:
    """Tell whether an entry is there; a database of which an older copy was put in its place has lost it."""
    return database.one(FIND, (entry.written, entry.number, entry.mark)) is not None


def _decode(key: str) -> LoggedKey:
    return tuple(bytes.fromhex(part[1:]) if part.startswith("x") else int(part) for part in key.split(","))
