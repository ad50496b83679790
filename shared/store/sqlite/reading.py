"""A connection that reads a database file and leaves nothing behind, whether somebody writes it or not."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import apsw

from shared.store.sqlite.synced_mark import connect_unchanged, log_of


def connect_to_read(path: Path) -> apsw.Connection:
    """Return a read-only connection to an existing database. Raises apsw.Error, and StoreUnusable for a damaged log.

    In WAL mode even a reader makes the ``-wal`` and ``-shm`` files where nobody has made them. Where there is no log
    to read, nobody writes and the file is read as one that does not change.
    """
    immutable = "" if log_of(path).exists() else "&immutable=1"
    url = f"file:{quote(str(path.absolute()))}?mode=ro{immutable}"
    return connect_unchanged(path, url, apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
