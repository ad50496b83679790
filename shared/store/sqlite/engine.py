"""The embedded engine: one SQLite file, one process, one connection, one writer thread."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import apsw

from shared.errors import StoreUnavailable, StoreUnusable
from shared.signals import LocalSignals
from shared.store.engine import PROBE_BYTES, Database, OpeningProgress, Tell, tell_nobody
from shared.store.sql.tables import due_replies
from shared.store.sqlite import change_log
from shared.store.sqlite.database import SqliteDatabase
from shared.store.sqlite.reading import connect_to_read
from shared.store.sqlite.schema import check_schema, migrate, moved_tables
from shared.store.sqlite.synced_mark import SyncedMark, connect_unchanged
from shared.store.sqlite.writer import DAMAGE, FULL, Writer

P = ParamSpec("P")
T = TypeVar("T")

#: how long a write waits for another connection's lock (a backup tool), in milliseconds
BUSY_TIMEOUT_MS = 1000
#: the write-ahead log is cut back to this size, in bytes
WAL_SIZE_BYTES = 64 * 1024 * 1024

# Write the row of the health check.
PROBE = """
INSERT INTO probe (name, at, body) VALUES ('check', ?, ?)
ON CONFLICT (name) DO UPDATE SET at = excluded.at, body = excluded.body
"""
# Look for damage, up to the first that is found.
VERIFY = "PRAGMA quick_check(1)"
# Read it back.
PROBED = "SELECT at FROM probe WHERE name = 'check'"


class SqliteEngine:
    """The Engine in one file; a lock file beside it keeps every other process out.

    With ``private_dir`` the directory is the store's own, and closed to other users. With ``read_only`` the file is
    read as it is, beside whoever writes it: no lock, no migration, and what would write raises StoreUnavailable.
    """

    def __init__(
        self, path: Path, clock: Callable[[], float], *, private_dir: bool = False, read_only: bool = False
    ) -> None:
        self.shared = False
        self.signals = LocalSignals()
        self._path = path.absolute()  # as messages name it: who reads them is anywhere
        self._read_only = read_only
        self._private_dir = private_dir
        self._clock = clock
        self._lock = -1
        self._tell: Tell = tell_nobody
        #: the connection while it is being opened
        self._opening: apsw.Connection | None = None
        self._closing = False
        self.writer = Writer(self._open_database)

    async def open(self, tell: Tell = tell_nobody) -> None:
        """Open and migrate forward. Raises StoreUnusable."""
        loop = asyncio.get_running_loop()
        self._tell, self._closing = lambda progress: self._tell_on(loop, tell, progress), False
        await self.writer.start()

    async def close(self) -> None:
        """Commit what is queued and close; later calls raise StoreUnavailable."""
        self._closing = True
        if opening := self._opening:
            opening.interrupt()
        await self.signals.close()
        await self.writer.close()
        self._unlock()

    async def run(
        self,
        session: str,  # noqa: ARG002 - one writer serves all sessions
        job: Callable[Concatenate[Database, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a job and return its value once it is committed. Raises what it raises, and StoreUnavailable."""
        return await self.writer.run(job, *args, **kwargs)

    async def run_relaxed(
        self,
        session: str,  # noqa: ARG002 - one writer serves all sessions
        job: Callable[Concatenate[Database, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a job whose commit may wait for the sync of a later one. Raises what it raises, and StoreUnavailable."""
        return await self.writer.run_relaxed(job, *args, **kwargs)

    async def check(self) -> None:
        """Write and read back one row. Raises StoreUnavailable."""
        await self.writer.run(_probe)

    async def verify(self) -> None:
        """Read the whole file and verify that it is sound. Raises StoreUnusable and StoreUnavailable."""
        await self.writer.run(_verify, self._path)

    async def scrub(self) -> None:
        """Cut the write-ahead log to nothing: it holds pages as they were before a deletion."""
        await self.writer.scrub()

    async def begin_change_log(self) -> str:
        """Log which rows change from now on, and return the log's token. Raises StoreUnusable."""
        return await asyncio.to_thread(change_log.begin, self._path, moved_tables())

    async def end_change_log(self) -> None:
        """Log no more. Raises StoreUnusable."""
        await asyncio.to_thread(change_log.end, self._path)

    async def wait_for_writers(self) -> None:
        """Do nothing: who has the lock file writes alone."""

    def _open_database(self) -> SqliteDatabase:
        """Open the database, on the writer's thread. Raises StoreUnusable."""
        if self._read_only:
            return read_database(self._path, self._clock)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._private_dir:
                _make_private(self._path.parent)
            self._lock = _lock(self._path.with_name(self._path.name + ".lock"), self._path)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreUnusable(f"{self._path} cannot be opened for writing: {error.strerror}") from error
        try:
            return self._connect()
        except apsw.Error as error:
            self._unlock()
            raise StoreUnusable(f"{self._path} cannot be used as a database: {error}") from error
        except StoreUnusable:
            self._unlock()
            raise

    def _connect(self) -> SqliteDatabase:
        db = connect_unchanged(self._path, str(self._path), apsw.SQLITE_OPEN_READWRITE)
        mark = None
        try:
            db.set_busy_timeout(BUSY_TIMEOUT_MS)
            # or many statements are compiled anew whenever other values are bound: those might suit another plan
            db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
            db.pragma("journal_mode", "wal")
            db.pragma("synchronous", FULL)
            db.pragma("temp_store", "memory")
            db.pragma("secure_delete", True)
            db.pragma("journal_size_limit", WAL_SIZE_BYTES)
            mark = SyncedMark(self._path)
            mark.clear()  # what a migration writes is copied back on its way
            self._opening = db
            migrate(db, self._path, self._tell)
            steady = boot_time if self._clock is time.time else None
            database = SqliteDatabase(db, self._clock, steady=steady, mark=mark)
            # The lock says that no other process lives, so nobody is sending any more.
            due_replies.end_leases(database)
            mark.begin(db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0])
        except BaseException:
            self._opening = None
            db.close()
            if mark:
                mark.close()
            raise
        self._opening = None
        return database

    def _tell_on(self, loop: asyncio.AbstractEventLoop, tell: Tell, progress: OpeningProgress) -> None:
        """Tell of a migration on the loop. Raises StoreUnusable where nobody waits for its end any more."""
        if self._closing:
            raise StoreUnusable(f"{self._path} was closed on its way to this release's schema; the next start goes on")
        with contextlib.suppress(RuntimeError):  # a loop that is closed
            loop.call_soon_threadsafe(tell, progress)

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def boot_time() -> float:
    """Return seconds that nobody sets, those of a suspended machine included where the system counts them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def read_database(path: Path, clock: Callable[[], float]) -> SqliteDatabase:
    """Return a database opened for reading alone. Raises StoreUnusable, also where its schema is not today's."""
    try:
        db = connect_to_read(path)
    except apsw.Error as error:
        raise StoreUnusable(f"{path} cannot be read as a database: {error}") from error
    try:
        check_schema(db, path)
        return SqliteDatabase(db, clock, read_only=True)
    except apsw.Error as error:
        db.close()
        raise StoreUnusable(f"{path} cannot be read as a database: {error}") from error
    except BaseException:
        db.close()
        raise


def _make_private(directory: Path) -> None:
    """Close a directory to other users, unless it is a shared one or the one the process works in."""
    found = directory.stat()
    shared = found.st_mode & stat.S_ISVTX or found.st_uid != os.geteuid()
    if not shared and not Path.cwd().is_relative_to(directory.resolve()):
        directory.chmod(0o700)


def _lock(lock_path: Path, path: Path) -> int:
    """Lock a file for as long as its descriptor is open. Raises StoreUnusable if another process has it."""
    lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StoreUnusable(f"{path} is in use by another process, which holds {lock_path}") from None
    return lock


def is_locked(path: Path) -> bool:
    """Tell whether a process has a database open to write."""
    try:
        os.close(_lock(path.with_name(path.name + ".lock"), path))
    except StoreUnusable:
        return True
    return False


def _verify(database: Database, path: Path) -> None:
    try:
        found = str(database.only(VERIFY)[0])
    except DAMAGE as error:
        found = str(error)
    if found != "ok":
        told = found.replace("\n", " ")
        raise StoreUnusable(
            f"{path} is damaged: {told}; `restore` puts a backup in its place, `salvage` reads what can be read of it"
        )


def _probe(database: Database) -> None:
    now = database.now()
    database.run(PROBE, (now, bytes(PROBE_BYTES)))
    if database.only(PROBED)[0] != now:
        raise StoreUnavailable("the database does not give back what was written")
