"""What lies beside the database: copies, session logs, and the database as an older release has left it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import apsw
import msgspec

from loadtests.crash.renames import BACKUPS, LOGS
from loadtests.crash.shadow_disk import take_as_synced
from shared.errors import StoreUnusable
from shared.session_files import log_line, session_log_path
from shared.store.sqlite.backup import verified
from shared.store.sqlite.table_move import ROWID_TABLES, WITHOUT_ROWID

#: lines of a log before the round, and the size of each: together they fill a segment
OLD_LINES = 9
OLD_LINE_BYTES = 1_000_000


def fill_log(directory: Path, session: str) -> None:
    """Give a session a log that is full, so that its next line rotates it."""
    path = session_log_path(directory / LOGS, session)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with path.open("wb") as file:
        for number in range(OLD_LINES):
            message = {"role": "user", "content": f"old line {number} " + "x" * OLD_LINE_BYTES}
            file.write(log_line(1.0, session, msgspec.json.encode(message), "msg_old", number) + b"\n")


def missing_lines(log: bytes) -> Iterator[str]:
    """Say which of the old lines do not stand in a session's log exactly once."""
    found = [int(number) for number in re.findall(rb'"old line (\d+) x', log)]
    if sorted(found) != list(range(OLD_LINES)):
        yield f"the log that was rotated has the old lines {found}"


def unsound_copies(directory: Path) -> Iterator[str]:
    """Say which copies of the database have their name and are not whole."""
    for copy in sorted((directory / BACKUPS).glob("*.db")):
        try:
            verified(copy)
        except (StoreUnusable, FileNotFoundError) as error:
            if copy.exists():  # else newer ones took its place meanwhile
                yield f"a backup is not whole: {error}"


def make_old(database: Path) -> None:
    """Make of a database at rest one as an older release has left it; it is on the disk at once."""
    with contextlib.closing(apsw.Connection(str(database))) as db:
        db.pragma("legacy_alter_table", True)
        for table in ROWID_TABLES:
            scripts = dict(
                db.execute("SELECT name, sql FROM sqlite_schema WHERE tbl_name = ? AND sql NOT NULL", (table,))
            )
            created = str(scripts.pop(table, ""))
            if not created or created.endswith(WITHOUT_ROWID):
                continue
            old = created.replace(table, f"{table}_old", 1) + WITHOUT_ROWID
            further = "; ".join(str(script) for script in scripts.values())
            db.execute(
                f"BEGIN; {old}; INSERT INTO {table}_old SELECT * FROM {table}; DROP TABLE {table}; "
                f"ALTER TABLE {table}_old RENAME TO {table}; {further}; COMMIT"
            )
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    take_as_synced(database)
