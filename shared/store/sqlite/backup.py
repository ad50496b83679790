"""Copies of a database: made while a gateway writes it, verified, and put under their name only when they are whole.

    FILE.gatehouse-part  ── copied, verified, synced ──▶  FILE

A kill at any moment leaves at most such a part, and what lies beside it; the next copy into that directory removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import msgspec

from shared.errors import StoreUnusable
from shared.store.sqlite.reading import connect_to_read
from shared.store.sqlite.schema import known_schema
from shared.store.sqlite.synced_mark import connect_unchanged, log_of, mark_of

#: pages copied at a time: often enough to show progress
STEP_PAGES = 1024
#: what the name of a part ends with: nobody else's files do
PART = ".gatehouse-part"
#: what lies beside a part while it is written: SQLite's own files, and what a salvage works on
BESIDE_PART = ("-journal", "-wal", "-shm", "-work")
#: ids that a restore names at most; the kept file holds all
NAMED_LIMIT = 1000

# Verify every page, row and index.
INTEGRITY = "PRAGMA integrity_check(1)"
# Count what people look for in a backup.
COUNT_SESSIONS = "SELECT count(*) FROM sessions"
COUNT_MESSAGES = "SELECT count(*) FROM inbox"
# Find messages that another database does not have.
NOT_IN_OTHER = "SELECT id FROM inbox WHERE id NOT IN (SELECT id FROM other.inbox) ORDER BY at LIMIT ?"

#: told how many pages are done, and of how many
TellCopied = Callable[[int, int], None]


class BackupReport(msgspec.Struct, frozen=True):
    """What a verified copy holds."""

    #: the file it lies in
    path: str
    size_bytes: int
    #: its schema's version
    schema: int
    sessions: int
    messages: int


class RestoreReport(msgspec.Struct, frozen=True):
    """What was put in place, and what became of the database that was there."""

    restored: BackupReport
    #: where the database that was replaced is kept, empty if there was none
    kept: str
    #: ids of messages that the kept one has and the restored one has not, oldest first; None where it cannot be read
    only_in_kept: tuple[str, ...] | None = ()


def back_up(source: Path, target: Path, progress: TellCopied, *, replace: bool = False) -> BackupReport:
    """Copy a database as it is at this moment. Raises StoreUnusable, also where the copy is not sound, and OSError.

    It is read beside whoever writes it, in one transaction: commits go on meanwhile and are not in the copy.
    """
    if target.exists() and not replace:
        raise StoreUnusable(f"{target} exists already")
    with part_of(target) as part:
        _copy(source, part, progress)
        report = verified(part, named=target)
        put_in_place(part, target)
    return report


def remove_left_over(directory: Path) -> None:
    """Remove the parts of copies that a kill has left; one that is being written stays."""
    for part in directory.glob(f"*{PART}"):
        with contextlib.suppress(StoreUnusable, OSError), locked(part, "it is being written"):
            _remove_beside(part)
            part.unlink()


def _remove_beside(part: Path) -> None:
    for suffix in BESIDE_PART:
        beside = part.with_name(part.name + suffix)
        if beside.is_dir():
            shutil.rmtree(beside)
        else:
            beside.unlink(missing_ok=True)


def verified(path: Path, named: Path | None = None) -> BackupReport:
    """Read a database from end to end and return what it holds. Raises StoreUnusable where it is not sound."""
    named = named or path
    try:
        with contextlib.closing(connect_to_read(path)) as db:
            schema = known_schema(db, named)
            if schema == 0:
                raise StoreUnusable(f"{named} is empty: no database of a gateway")
            found = str(next(iter(db.execute(INTEGRITY)))[0])
            if found != "ok":
                raise StoreUnusable(f"{named} is damaged: {' '.join(found.split())}")
            sessions, messages = (next(iter(db.execute(sql)))[0] for sql in (COUNT_SESSIONS, COUNT_MESSAGES))
    except apsw.Error as error:
        raise StoreUnusable(f"{named} cannot be read as a database: {error}") from error
    return BackupReport(str(named), path.stat().st_size, schema, sessions, messages)


def restore(backup: Path, database: Path, progress: TellCopied) -> RestoreReport:
    """Put a backup in the place of a database that no gateway uses; the one that is there is kept beside it.

    Raises StoreUnusable where the backup is not sound or the database is in use, and OSError.
    """
    if not backup.is_file():
        raise StoreUnusable(f"there is no file {backup}")
    verified(backup)
    database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(database.with_name(database.name + ".lock"), f"{database} is in use by a gateway: stop it first"):
        report = None
        with part_of(database) as part:
            _copy(backup, part, progress)
            report = verified(part, named=database)
            kept, missing = _keep(database, part)
            put_in_place(part, database)
            mark_of(database).unlink(missing_ok=True)
    return RestoreReport(report, str(kept or ""), missing)


def _copy(source: Path, part: Path, progress: TellCopied) -> None:
    """Copy all pages of one moment. Raises StoreUnusable."""
    try:
        _copy_pages(source, part, progress)
    except apsw.FullError as error:  # it has no words of its own
        raise StoreUnusable(f"{source} cannot be copied: the disk of {part.parent} is full") from error
    except apsw.Error as error:
        raise StoreUnusable(f"{source} cannot be copied to {part}: {error}") from error


def _copy_pages(source: Path, part: Path, progress: TellCopied) -> None:
    with contextlib.closing(connect_to_read(source)) as read, contextlib.closing(apsw.Connection(str(part))) as write:
        read.execute("BEGIN")
        read.execute("SELECT count(*) FROM sqlite_schema")  # from here on the snapshot stands
        with write.backup("main", read, "main") as copying:
            while not copying.done:
                copying.step(STEP_PAGES)
                progress(copying.page_count - copying.remaining, copying.page_count)
        read.execute("ROLLBACK")
        write.pragma("journal_mode", "delete")  # one file, without a log beside it


@contextlib.contextmanager
def part_of(target: Path) -> Iterator[Path]:
    """Give the empty file that is to become the target, locked; it goes if that fails. Raises StoreUnusable.

    What dead ones have left beside it goes first, whatever they were to become.
    """
    remove_left_over(target.parent)
    part = target.with_name(target.name + PART)
    with locked(part, f"{part} is being written by another process"):
        os.truncate(part, 0)
        _remove_beside(part)
        try:
            yield part
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def locked(path: Path, otherwise: str) -> Iterator[None]:
    """Hold the lock of a file, made if it is not there. Raises StoreUnusable where another process holds it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreUnusable(otherwise) from None
        if not _is_named(lock, path):  # who held it has just given it another name, or removed it
            raise StoreUnusable(otherwise)
        yield
    finally:
        os.close(lock)


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def put_in_place(part: Path, target: Path) -> None:
    """Give a whole file its name, so that a loss of power leaves the old one or the new one."""
    _sync(part)
    part.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _keep(database: Path, replacement: Path) -> tuple[Path | None, tuple[str, ...] | None]:
    """Give the database that is to be replaced a second name; return that, and the messages it alone has.

    Its write-ahead log is copied into it first, or kept beside it where that fails or the log is damaged: a log that
    stays would be read as the new database's.
    """
    if not database.exists():
        return None, ()
    kept = _free_name(database.with_name(f"{database.name}.replaced-{time.strftime('%Y%m%d-%H%M%S')}"))
    missing: tuple[str, ...] | None = None
    with (
        contextlib.suppress(apsw.Error, StoreUnusable),
        contextlib.closing(connect_unchanged(database, str(database), apsw.SQLITE_OPEN_READWRITE)) as db,
    ):
        db.execute("ATTACH ? AS other", (str(replacement),))
        missing = tuple(str(row[0]) for row in db.execute(NOT_IN_OTHER, (NAMED_LIMIT,)))
        db.execute("DETACH other")
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    os.link(database, kept)
    if (mark := mark_of(database)).exists():
        shutil.copy2(mark, mark_of(kept))  # a kill here leaves a database that is known to lack its log
    if (log := log_of(database)).exists():
        log.rename(log_of(kept))
    database.with_name(database.name + "-shm").unlink(missing_ok=True)
    return kept, missing


def _free_name(path: Path) -> Path:
    names = (path, *(path.with_name(f"{path.name}.{number}") for number in range(1, 1000)))
    return next(name for name in names if not name.exists())
