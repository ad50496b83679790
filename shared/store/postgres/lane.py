"""A thread with one connection: jobs queue up, share a transaction, and are answered together after its commit.

A deadlock or a broken batch is run again, at last job by job, and so is one whose connection was lost before its
COMMIT; where no new connection can be made every job raises StoreUnavailable. Of a COMMIT whose answer was lost the
server itself tells whether it has come to its end (``pg_xact_status``), and the mark that is part of the transaction
whether it was this one: a server that was killed gives the number of what it had not written out to another one.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable

from shared.store.jobs import HalfDone, JobAnswer, JobQueue, give, refusals
from shared.store.postgres.batch import Batch, CommitMark, CommitUnknown, Job
from shared.store.postgres.connection import Connection, ConnectionLost, DatabaseError
from shared.store.postgres.database import Shared

NO_ANSWER = "the database does not answer"
#: jobs that share one transaction at most
BATCH_LIMIT = 64
#: how often a batch is run again that others have locked out
TRIES = 3
#: what the server says of a transaction that may be run again: a deadlock, a failed serialization, a lock's time
RETRIABLE = frozenset({"40P01", "40001", "55P03"})
#: a batch whose connection was lost is run again on a new one if it was lost within this time, in seconds
PATIENCE_S = 5.0
#: how long a commit whose answer was lost is asked for, in seconds, and how often
FATE_S = 20.0
FATE_EVERY_S = 0.2

FATE = "SELECT pg_xact_status(CAST(CAST(? AS text) AS xid8))"
#: what the server says of the number of a transaction that nobody has had yet
FUTURE = "22023"
MARKED = "SELECT 1 FROM probe WHERE name = ? AND body = ?"
#: what the names of marks begin with
MARKS = "commit of "


class Lane:
    """Runs jobs on its own thread over its own connection, which it makes with ``connect``.

    ``transactions`` counts those that were committed.
    """

    def __init__(
        self, name: str, connect: Callable[[], Connection], shared: Shared, *, read_only: bool = False
    ) -> None:
        self._read_only = read_only
        self._name = name
        self._mark = MARKS + secrets.token_hex(8)
        self._batches = 0
        self._connect = connect
        self._shared = shared
        self._jobs: JobQueue[Job] = JobQueue(BATCH_LIMIT)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Connection | None = None
        self.transactions = 0

    @property
    def traffic(self) -> tuple[int, int]:
        """How many statements and round trips the present connection has had."""
        connection = self._connection
        return (connection.statements, connection.round_trips) if connection else (0, 0)

    def start(self, connection: Connection) -> None:
        """Start the thread, with a connection that is open."""
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._thread = threading.Thread(target=self._main, name=f"store-{self._name}", daemon=True)
        self._thread.start()

    def put(self, job: Job) -> None:
        """Queue a job."""
        self._jobs.put(job)

    async def close(self) -> None:
        """Commit what is queued, close the connection and end the thread."""
        if self._thread is not None:
            self._jobs.close()
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    # Everything below runs on the thread.

    def _main(self) -> None:
        while jobs := self._jobs.take():
            try:
                answers = self._run_together(jobs)
            except Exception as error:  # noqa: BLE001 - the lane lives on, whatever it was; these callers are told
                self._drop()
                answers = refusals(jobs, error, NO_ANSWER)
            assert self._loop is not None  # noqa: S101 - for the type checker
            give(self._loop, answers)
        self._drop()

    def _run_together(self, jobs: list[Job]) -> list[JobAnswer]:
        """Run jobs in one transaction; where one of them breaks it, each in its own."""
        began_mono = time.monotonic()
        broken: Exception
        for _ in range(TRIES):
            self._batches += 1
            mark = CommitMark(self._mark, b"%d" % self._batches)
            try:
                batch = Batch(self._shared, self._connected(), jobs, mark, read_only=self._read_only)
            except ConnectionLost as error:
                return refusals(jobs, error, NO_ANSWER)
            try:
                answers = batch.run()
            except CommitUnknown as unknown:
                self._drop()
                if self._was_committed(unknown.transaction_id, mark):
                    return unknown.answers
                batch.uncount()
                return refusals(jobs, unknown, NO_ANSWER)
            except ConnectionLost as error:
                batch.uncount()
                self._drop()
                broken = error
                if time.monotonic() - began_mono > PATIENCE_S:
                    return refusals(jobs, error, NO_ANSWER)
            except (DatabaseError, HalfDone) as error:
                batch.uncount()
                self._roll_back()
                broken = error
                if not (isinstance(error, DatabaseError) and error.sqlstate in RETRIABLE):
                    break
            else:
                self.transactions += 1
                return answers
        if len(jobs) > 1 and not isinstance(broken, ConnectionLost):
            return [answer for job in jobs for answer in self._run_together([job])]
        return refusals(jobs, broken, NO_ANSWER)

    def _connected(self) -> Connection:
        """Return the connection, made anew if it was lost. Raises ConnectionLost."""
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _roll_back(self) -> None:
        """Undo the transaction, by ending the connection if nothing else does."""
        if self._connection is None:
            return
        try:
            self._connection.send("ROLLBACK")
            self._connection.sync()
        except (DatabaseError, ConnectionLost):
            self._drop()

    def _was_committed(self, transaction_id: str, mark: CommitMark) -> bool:
        """Tell what became of a transaction, as soon as the server knows; not committed if it cannot be asked."""
        until = time.monotonic() + FATE_S
        while time.monotonic() < until:
            try:
                if not self._is_in_progress(transaction_id):
                    marked = self._connected().send(MARKED, mark)
                    self._connected().sync()
                    return bool(marked.rows)
            except (DatabaseError, ConnectionLost):
                self._drop()
            time.sleep(FATE_EVERY_S)
        return False

    def _is_in_progress(self, transaction_id: str) -> bool:
        """Tell whether a transaction runs. Raises DatabaseError and ConnectionLost."""
        asked = self._connected().send(FATE, (transaction_id,))
        try:
            self._connected().sync()
        except DatabaseError as error:
            if error.sqlstate == FUTURE:  # the server was killed, and has not come to this number again
                return False
            raise
        return bool(asked.rows[0][0] == "in progress")
