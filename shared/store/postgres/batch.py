"""One transaction of many jobs, which run in lockstep: each to its next read, then one round trip for all of them.

    BEGIN, lock the sessions in the order of their keys, clock ─┐
    job ── writes … read ─┐                                     ├─ sync ─▶ every read answered ─▶ jobs go on … COMMIT
    job ── writes … read ─┴─────────────────────────────────────┘

At 2.5 ms of round trip that is 1,019 turns a second where statement by statement it is 38. Jobs of one session run one
after the other, as do those of none: what one of them has locked another would not skip.
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
TRANSACTION_ID = "SELECT CAST(pg_current_xact_id() AS text)"
# Tell the number of this transaction, none while it has changed nothing: a look that finds nothing needs none.
TRANSACTION_ID_IF_ANY = "SELECT CAST(pg_current_xact_id_if_assigned() AS text)"
# Leave the number of this transaction in the row of its lane.
MARK = """
INSERT INTO probe (name, at, body) VALUES (?, EXTRACT(EPOCH FROM clock_timestamp()), ?)
ON CONFLICT (name) DO UPDATE SET at = excluded.at, body = excluded.body
"""


class Job(NamedTuple):
    """What to run, and who waits for it."""

    future: asyncio.Future[Any]
    #: the session whose rows it touches, empty for many or none
    session: str
    work: Callable[[Database], Any]


class CommitMark(NamedTuple):
    """What a transaction leaves behind, so that it can be found: the name of a lane's row, and a number in it."""

    name: str
    number: bytes


class CommitUnknown(Exception):
    """Raised when the connection was lost at the COMMIT; ``transaction_id`` and the mark ask what became of it."""

    def __init__(self, transaction_id: str, answers: list[JobAnswer]) -> None:
        super().__init__("the connection was lost at the commit")
        self.transaction_id = transaction_id
        self.answers = answers


class Batch:
    """One transaction; ``run`` returns the answers, and raises what it has to be rolled back for."""

    def __init__(
        self, shared: Shared, connection: Connection, jobs: list[Job], mark: CommitMark, *, read_only: bool
    ) -> None:
        self._mark = mark
        self._read_only = read_only
        self._shared = shared
        self._connection = connection
        self._named: Outcome | None = None
        #: whether no job is of a session, so that nothing may be changed at all
        self._looks = False
        self._jobs = jobs
        self._hub = greenlet.getcurrent()
        self._answers: list[JobAnswer] = []
        self._databases: list[PostgresDatabase] = []
        #: how greenlets go on: by a switch with what they are given, or by what is thrown into them
        self._ready: deque[tuple[greenlet.greenlet, Callable[[], object]]] = deque()
        self._waiting: list[tuple[greenlet.greenlet, Read]] = []
        self._living: set[greenlet.greenlet] = set()

    def run(self) -> list[JobAnswer]:
        """Run all jobs and commit. Raises DatabaseError, HalfDone, ConnectionLost and CommitUnknown."""
        sessions = sorted({job.session for job in self._jobs if job.session})
        self._looks = not sessions and not self._read_only
        self._connection.send("BEGIN READ ONLY" if self._read_only else "BEGIN")
        if sessions and not self._read_only:
            self._connection.send(LOCK, (sessions,))
            self._named = self._connection.send(TRANSACTION_ID)
        self._clock = BatchClock(self._shared, self._connection)
        chains: dict[str, list[Job]] = {}
        for job in self._jobs:
            chains.setdefault(job.session, []).append(job)
        for chain in chains.values():
            self._start(self._run_chain, chain)
        try:
            self._advance()
        finally:
            for left in self._living:
                left.throw(greenlet.GreenletExit)
        self._commit(self._transaction_id)
        return self._answers

    def uncount(self) -> None:
        """Count back the waiting messages of jobs that are rolled back."""
        self._shared.add_waiting(-sum(database.added for database in self._databases))
        self._databases.clear()

    @property
    def _transaction_id(self) -> str:
        """The number of this transaction as far as it is known, empty while it has none."""
        rows = self._named.rows if self._named is not None else []
        return str(rows[0][0] or "") if rows else ""

    def _commit(self, transaction_id: str) -> None:
        if transaction_id:
            self._connection.send(MARK, self._mark)
        self._connection.send("COMMIT")
        try:
            self._connection.sync()
        except ConnectionLost as error:
            if transaction_id:
                raise CommitUnknown(transaction_id, self._answers) from error
            raise

    def _advance(self) -> None:
        """Let every job go on to its next read, again and again, until all have come to their end."""
        while self._ready or self._waiting:
            while self._ready:
                running, go_on = self._ready.popleft()
                self._heed(running, go_on())
            if self._waiting:
                if self._looks and not self._transaction_id:
                    self._named = self._connection.send(TRANSACTION_ID_IF_ANY)
                self._connection.sync()
                woken, self._waiting = self._waiting, []
                self._ready.extend((waiter, functools.partial(waiter.switch, None)) for waiter, _ in woken)

    def _heed(self, asker: greenlet.greenlet, asked: object) -> None:
        """Do what a greenlet asks for that has stopped."""
        match asked:
            case Read():
                self._waiting.append((asker, asked))
            case Fork(work, items):
                self._fork(asker, work, items)
            case _:
                self._living.discard(asker)

    def _fork(self, parent: greenlet.greenlet, work: Callable[[Any], Any], items: Any) -> None:
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
            left -= 1
            if not left:
                resume = (
                    functools.partial(parent.throw, errors[0]) if errors else functools.partial(parent.switch, results)
                )
                self._ready.append((parent, resume))

        for number, item in enumerate(items):
            self._start(child, number, item)

    def _start(self, work: Callable[..., None], *given: Any) -> None:
        started = greenlet.greenlet(work, self._hub)
        self._living.add(started)
        self._ready.append((started, functools.partial(started.switch, *given)))

    def _run_chain(self, jobs: list[Job]) -> None:
        """Run jobs one after the other."""
        for job in jobs:
            database = PostgresDatabase(self._shared, self._connection, self._clock, self._hub)
            self._databases.append(database)
            try:
                value = job.work(database)
            except (DatabaseError, ConnectionLost):
                raise
            except Exception as error:
                if database.wrote:
                    raise HalfDone from error
                database.add_waiting(-database.added)
                self._answers.append(JobAnswer(job.future, None, error))
            else:
                self._answers.append(JobAnswer(job.future, value, None))
