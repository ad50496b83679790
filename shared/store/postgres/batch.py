"""One transaction of many jobs, which run in lockstep: each to its next read, then one round trip for all of them.

    BEGIN, lock the sessions in the order of their keys, clock ─┐
    job ── writes … read ─┐                                     ├─ sync ─▶ every read answered ─▶ jobs go on
    job ── writes … read ─┴─────────────────────────────────────┘
    job ── writes … last reads ─┐
    job ── writes … its end ────┴── COMMIT ── sync ─▶ answers

At 2.5 ms of round trip that is 1,019 turns a second where statement by statement it is 38. Jobs of one session run one
after the other, as do those of none: what one of them has locked another would not skip. Where no job may write any
more the COMMIT goes with the reads that are left; the mark that goes before it tells whether it was done, should its
answer be lost, and keeps one from being done that was given up.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import greenlet

from shared.store.engine import Database
from shared.store.jobs import HalfDone, JobAnswer
from shared.store.postgres.connection import Connection, ConnectionLost, DatabaseError, Outcome
from shared.store.postgres.database import BatchClock, Fork, PostgresDatabase, Read, Shared

LOCK = "SELECT session_key FROM sessions WHERE session_key = ANY(?) ORDER BY session_key FOR UPDATE"
# Leave the number of this transaction in the row of its connection, unless it has changed nothing; fail where the row
# has not the number of the one before it: then the connection was given up, and so was this transaction.
MARK = """
WITH marked AS (
  INSERT INTO probe (name, at, body)
  SELECT ?, EXTRACT(EPOCH FROM clock_timestamp()), ? WHERE pg_current_xact_id_if_assigned() IS NOT NULL
  ON CONFLICT (name) DO UPDATE SET at = excluded.at, body = excluded.body WHERE probe.body = ?
  RETURNING name)
SELECT count(*), CASE WHEN count(*) = 0 AND pg_current_xact_id_if_assigned() IS NOT NULL
  THEN CAST('Gatehouse gave this connection up: ' || count(*) AS int8) END FROM marked
"""


class Job(NamedTuple):
    """What to run, and who waits for it."""

    future: asyncio.Future[Any]
    #: the session whose rows it touches, empty for many or none
    session: str
    work: Callable[[Database], Any]


class CommitMark(NamedTuple):
    """What a transaction leaves behind, so that it can be found: the name of a connection's row, and a number in it."""

    name: str
    number: bytes
    #: the number of the last transaction that left one, empty for none
    before: bytes = b""


class CommitUnknown(Exception):
    """Raised when the connection was lost at the COMMIT; the mark tells what became of it."""


class Batch:
    """One transaction; ``run`` returns the answers, and raises what it has to be rolled back for.

    ``marked`` tells whether it has left its mark, once it is committed.
    """

    def __init__(
        self, shared: Shared, connection: Connection, jobs: list[Job], mark: CommitMark, *, read_only: bool
    ) -> None:
        self._mark = mark
        self._read_only = read_only
        self._shared = shared
        self._connection = connection
        self._mark_left: Outcome | None = None
        self._commit_sent = False
        self._jobs = jobs
        self._hub = greenlet.getcurrent()
        self._answers: list[JobAnswer] = []
        self._databases: list[PostgresDatabase] = []
        #: how greenlets go on: by a switch with what they are given, or by what is thrown into them
        self._ready: deque[tuple[greenlet.greenlet, Callable[[], object]]] = deque()
        self._waiting: list[tuple[greenlet.greenlet, Read]] = []
        self._living: set[greenlet.greenlet] = set()
        #: those that run jobs and may write yet, and of these the ones whose job is the last of its session
        self._writing: set[greenlet.greenlet] = set()
        self._at_last_job: set[greenlet.greenlet] = set()

    @property
    def marked(self) -> bool:
        """Whether the mark was left."""
        return self._mark_left is not None and bool(self._mark_left.rows) and self._mark_left.rows[0][0] > 0

    def run(self) -> list[JobAnswer]:
        """Run all jobs and commit. Raises DatabaseError, HalfDone, ConnectionLost and CommitUnknown."""
        sessions = sorted({job.session for job in self._jobs if job.session})
        self._connection.send("BEGIN READ ONLY" if self._read_only else "BEGIN")
        if sessions and not self._read_only:
            self._connection.send(LOCK, (sessions,))
        self._clock = BatchClock(self._shared, self._connection)
        chains: dict[str, list[Job]] = {}
        for job in self._jobs:
            chains.setdefault(job.session, []).append(job)
        for chain in chains.values():
            self._writing.add(self._start(self._run_chain, chain))
        try:
            self._advance()
            if not self._commit_sent:
                self._sync()
        except CommitUnknown:
            raise  # the jobs may be answered yet
        except BaseException:
            self.give_up()
            raise
        return self._answers

    def answer_again(self, connection: Connection) -> list[JobAnswer]:
        """Ask for the answers that were lost with the connection, though the transaction was committed.

        Raises DatabaseError and ConnectionLost; then it may be called again.
        """
        asked = [(read.outcome, connection.send(read.sql, read.values)) for _, read in self._waiting]
        connection.sync()
        for outcome, found in asked:
            outcome.rows, outcome.changed = found.rows, found.changed
        for database in self._databases:
            database.asked_again = True
        self._wake_readers()
        self._advance()
        return self._answers

    def give_up(self) -> None:
        """End the jobs that are left."""
        for left in list(self._living):
            left.throw(greenlet.GreenletExit)

    def uncount(self) -> None:
        """Count back the waiting messages of jobs that are rolled back."""
        self._shared.add_waiting(-sum(database.added for database in self._databases))
        self._databases.clear()

    def _sync(self) -> None:
        """Wait for all answers; with the COMMIT, where nobody may write any more."""
        if not self._writing:
            self._commit_sent = True
            if not self._read_only:
                self._mark_left = self._connection.send(MARK, self._mark)
            self._connection.send("COMMIT")
        try:
            self._connection.sync()
        except ConnectionLost as error:
            if self._commit_sent and not self._read_only:
                raise CommitUnknown("the connection was lost at the commit") from error
            raise
        self._clock.note()

    def _advance(self) -> None:
        """Let every job go on to its next read, again and again, until all have come to their end."""
        while self._ready or self._waiting:
            while self._ready:
                running, go_on = self._ready.popleft()
                self._heed(running, go_on())
            if self._waiting:
                self._sync()
                self._wake_readers()

    def _wake_readers(self) -> None:
        woken, self._waiting = self._waiting, []
        self._ready.extend((waiter, functools.partial(waiter.switch, None)) for waiter, _ in woken)

    def _heed(self, asker: greenlet.greenlet, asked: object) -> None:
        """Do what a greenlet asks for that has stopped."""
        match asked:
            case Read():
                self._waiting.append((asker, asked))
            case Fork(work, items, last):
                if last and asker in self._at_last_job:
                    self._writing.discard(asker)
                self._fork(asker, work, items, last=last)
            case _:
                self._living.discard(asker)
                self._writing.discard(asker)

    def _fork(self, parent: greenlet.greenlet, work: Callable[[Any], Any], items: Any, *, last: bool) -> None:
        """Do the work for all items at once; the parent goes on once the last is done."""
        results: list[Any] = [None] * len(items)
        errors: list[Exception] = []
        left = len(items)

        def child(number: int, item: Any) -> None:
            nonlocal left
            try:
                results[number] = work(item)
            except Exception as error:  # noqa: BLE001 - it is the parent's, which waits for all
                errors.append(error)
                if last:
                    self._writing.add(parent)  # what was to be written is not whole
            left -= 1
            if not left:
                resume = (
                    functools.partial(parent.throw, errors[0]) if errors else functools.partial(parent.switch, results)
                )
                self._ready.append((parent, resume))

        for number, item in enumerate(items):
            self._start(child, number, item)

    def _start(self, work: Callable[..., None], *given: Any) -> greenlet.greenlet:
        started = greenlet.greenlet(work, self._hub)
        self._living.add(started)
        self._ready.append((started, functools.partial(started.switch, *given)))
        return started

    def _run_chain(self, jobs: list[Job]) -> None:
        """Run jobs one after the other."""
        for number, job in enumerate(jobs, 1):
            if number == len(jobs):
                self._at_last_job.add(greenlet.getcurrent())
            database = PostgresDatabase(self._shared, self._connection, self._clock, self._hub)
            self._databases.append(database)
            try:
                value = job.work(database)
            except (DatabaseError, ConnectionLost):
                raise
            except Exception as error:
                if database.wrote and not database.ended and not self._commit_sent:
                    raise HalfDone from error
                database.add_waiting(-database.added)
                self._answers.append(JobAnswer(job.future, None, error))
            else:
                self._answers.append(JobAnswer(job.future, value, None))
