"""The one thread that owns the database: jobs queue up, share a commit, and are answered together after it.

    caller ── future, job ──▶ SimpleQueue ──▶ BEGIN, job, job, …, COMMIT + fsync ──▶ one call to the loop

Nothing of a job is visible to its caller before the commit it is part of. While one commit is on its way to the
disk the next jobs gather, so the more callers there are, the less each one costs.

A commit of relaxed jobs alone is not synced. It is in the log, so it outlives every process, and in front of whatever
is committed later, so the next sync takes it along: what is durable never refers to something that is not. A loss of
power cuts the end off the log, unsynced commits alone (https://www.sqlite.org/pragma.html#pragma_synchronous, NORMAL).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import apsw

from shared.errors import StoreDamaged, StoreUnavailable
from shared.store.jobs import HalfDone, JobAnswer, JobQueue, give, refusals
from shared.store.sqlite.database import SqliteDatabase
from shared.store.sqlite.synced_mark import SyncedMark

P = ParamSpec("P")
T = TypeVar("T")

#: what SQLite raises for a file that is no sound database (any more)
DAMAGE = (apsw.CorruptError, apsw.NotADBError)

#: values of SQLite's ``synchronous``: with FULL each commit is on the disk, with NORMAL it is in the log's file
FULL, NORMAL = "full", "normal"

#: jobs that share one commit at most: bounds how long the first of them waits
BATCH_LIMIT = 256
#: pages in the write-ahead log from which it is copied back when nobody waits, and from which even if somebody does
IDLE_CHECKPOINT_PAGES = 1000
BUSY_CHECKPOINT_PAGES = 8000


class Job(NamedTuple):
    """What to run, and who waits for it."""

    future: asyncio.Future[Any]
    work: Callable[[SqliteDatabase], Any]
    #: whether its commit may be synced with a later one
    relaxed: bool = False


class _Life(NamedTuple):
    """What an open writer has: the loop of its callers, its thread, and what tells that it has ended."""

    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    ended: asyncio.Future[None]


class Writer:
    """Runs jobs on its own thread; ``open_database`` is called there, and closes with it.

    ``commits`` counts the transactions that have written something, ``synced_commits`` those that were synced.
    """

    def __init__(self, open_database: Callable[[], SqliteDatabase]) -> None:
        self._open_database = open_database
        self._jobs: JobQueue[Job] = JobQueue(BATCH_LIMIT)
        self._gathered: list[Job] = []
        self._life: _Life | None = None
        #: done once the database is open, or cannot be
        self._opened: asyncio.Future[None] | None = None
        self._wal_pages = 0
        self._damage = ""
        self._mark: SyncedMark | None = None
        self._synchronous = FULL
        self.commits = 0
        self.synced_commits = 0

    async def start(self) -> None:
        """Start the thread and wait until the database is open. Raises StoreUnusable."""
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        ended: asyncio.Future[None] = loop.create_future()
        thread = threading.Thread(target=self._main, args=(loop, opened, ended), name="store-writer", daemon=True)
        self._opened = opened
        thread.start()
        await asyncio.shield(opened)
        self._life = _Life(loop, thread, ended)

    async def run(self, work: Callable[Concatenate[SqliteDatabase, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a job and return its value once it is committed. Raises what it raises, and StoreUnavailable."""
        future = self._new_future()
        self._gather(Job(future, lambda database: work(database, *args, **kwargs)))
        return await future  # type: ignore[no-any-return]  # what the job returns

    async def run_relaxed(
        self, work: Callable[Concatenate[SqliteDatabase, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a job whose commit may be synced with a later one; else as ``run``."""
        future = self._new_future()
        self._gather(Job(future, lambda database: work(database, *args, **kwargs), relaxed=True))
        return await future  # type: ignore[no-any-return]  # what the job returns

    async def scrub(self) -> None:
        """Copy the write-ahead log into the database and cut it to nothing, behind what is queued."""
        with contextlib.suppress(StoreUnavailable):  # the next one does it
            await self.run(_ask_for_scrub)

    async def close(self) -> None:
        """Commit what is queued, close the database and end the thread, also where it is still being opened."""
        life, self._life = self._life, None
        if life is None:
            if self._opened is not None and not self._opened.done():
                self._jobs.close()
                await asyncio.wait([self._opened])
                self._opened.exception()
            return
        self._hand_over()
        self._jobs.close()
        await life.ended
        life.thread.join()

    def _gather(self, job: Job) -> None:
        """Queue a job with all others of this moment of the loop: they share a commit, and wake the thread once."""
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._gathered.append(job)

    def _hand_over(self) -> None:
        for job in self._gathered:
            self._jobs.put(job)
        self._gathered.clear()

    def _new_future(self) -> asyncio.Future[Any]:
        """Return what a job's caller waits for. Raises StoreUnavailable."""
        if self._damage:
            raise StoreDamaged(self._damage)
        if self._life is None:
            raise StoreUnavailable("the store is not open")
        return self._life.loop.create_future()

    # Everything below runs on the thread.

    def _main(self, loop: asyncio.AbstractEventLoop, opened: asyncio.Future[None], ended: asyncio.Future[None]) -> None:
        try:
            database = self._open_database()
        except Exception as error:  # noqa: BLE001 - the boundary of the thread: whoever opens the store handles it
            give(loop, [JobAnswer(opened, None, error)])
            return
        self._mark = database.mark
        database.db.set_wal_hook(self._count_wal_pages)
        give(loop, [JobAnswer(opened, None, None)])
        while jobs := self._jobs.take():
            if self._damage:
                give(loop, [JobAnswer(job.future, None, StoreDamaged(self._damage)) for job in jobs])
                continue
            give(loop, self._run_together(database, jobs))
            self._copy_back(database)
        if self._mark:
            with contextlib.suppress(apsw.Error):
                self._copy_all_back(database)
            self._mark.close()
        database.db.close()
        give(loop, [JobAnswer(ended, None, None)])

    def _run_together(self, database: SqliteDatabase, jobs: list[Job]) -> list[JobAnswer]:
        """Run jobs in one transaction; where one of them breaks it, each in its own.

        Jobs check before they write, so hardly any does break it. A savepoint a job would do the same at half as
        much again for every job, for the pages it has to keep.
        """
        waiting = database.waiting
        try:
            if database.db.in_transaction:
                database.db.execute("ROLLBACK")  # one that failed before
            self._set_synchronous(database, NORMAL if all(job.relaxed for job in jobs) else FULL)
            database.db.execute("BEGIN" if database.read_only else "BEGIN IMMEDIATE")
        except apsw.Error as error:
            return self._refuse_damaged(jobs, error) if isinstance(error, DAMAGE) else _refuse(jobs, error)
        try:
            answers = [_run_one(database, job) for job in jobs]
        except (apsw.Error, HalfDone) as error:
            _roll_back(database, waiting)
            if isinstance(error, DAMAGE):
                return self._refuse_damaged(jobs, error)
            if len(jobs) > 1:
                return [answer for job in jobs for answer in self._run_together(database, [job])]
            return _refuse(jobs, error)
        try:
            database.db.execute("COMMIT")
        except apsw.Error as error:
            _roll_back(database, waiting)
            return self._refuse_damaged(jobs, error) if isinstance(error, DAMAGE) else _refuse(jobs, error)
        return answers

    def _set_synchronous(self, database: SqliteDatabase, wanted: str) -> None:
        """Choose whether the next commit is synced; outside of a transaction alone."""
        if self._synchronous != wanted:
            # SQLite does this when it compiles the statement: a cached one would do nothing
            database.db.execute(f"PRAGMA synchronous = {wanted}", can_cache=False)
            self._synchronous = wanted

    def _refuse_damaged(self, jobs: list[Job], error: apsw.Error) -> list[JobAnswer]:
        """Refuse these jobs and all that come: what is written to a damaged file may never be read again."""
        self._damage = f"the database is damaged: {error}; put a backup in its place, or salvage what can be read"
        return [JobAnswer(job.future, None, StoreDamaged(self._damage)) for job in jobs]

    def _count_wal_pages(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        self.commits += 1
        if self._synchronous == FULL:
            self.synced_commits += 1
            if self._mark:
                self._mark.put(pages)
        return apsw.SQLITE_OK

    def _copy_back(self, database: SqliteDatabase) -> None:
        """Copy the write-ahead log into the database: after the answers, so that no caller waits for it."""
        if database.scrub_asked:
            database.scrub_asked = False
            with contextlib.suppress(apsw.Error):
                self._copy_all_back(database)
                database.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                self._wal_pages = 0
            return
        if self._wal_pages < (IDLE_CHECKPOINT_PAGES if self._jobs.empty else BUSY_CHECKPOINT_PAGES):
            return
        self._wal_pages = 0
        try:
            self._copy_all_back(database)
        except apsw.Error:
            return  # what is committed is safe in the log; the next commit counts its pages again

    def _copy_all_back(self, database: SqliteDatabase) -> None:
        """Copy the log into the database; once all of it is there, the next commit may begin the log anew."""
        pages, copied = database.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        if self._mark and pages == copied:
            self._mark.clear()


def _run_one(database: SqliteDatabase, job: Job) -> JobAnswer:
    """Run a job. Raises what the transaction must be rolled back for: apsw.Error, and HalfDone."""
    waiting = database.waiting
    changes = database.db.total_changes()
    try:
        return JobAnswer(job.future, job.work(database), None)
    except apsw.Error:
        raise
    except Exception as error:
        if database.db.total_changes() != changes:
            raise HalfDone from error
        database.waiting = waiting
        return JobAnswer(job.future, None, error)


def _roll_back(database: SqliteDatabase, waiting: int) -> None:
    """Undo the transaction, unless the database already did so by itself; what fails is tried again before the next."""
    database.waiting = waiting
    if database.db.in_transaction:
        with contextlib.suppress(apsw.Error):
            database.db.execute("ROLLBACK")


def _refuse(jobs: list[Job], cause: Exception) -> list[JobAnswer]:
    return refusals(jobs, cause, "the database cannot commit")


def _ask_for_scrub(database: SqliteDatabase) -> None:
    database.scrub_asked = True
