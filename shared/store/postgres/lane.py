"""A thread with one connection: jobs queue up, share a transaction, and are answered together after its commit.

A deadlock or a broken batch is run again, at last job by job, and so is one whose connection was lost before its
COMMIT; where no new connection can be made every job raises StoreUnavailable. Of a COMMIT whose answer was lost the
mark tells that is part of the transaction: a row of the connection, with a number that rises with each. Whoever asks
waits for a transaction that has the row, and closes it: one that comes to it later fails.
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
#: how long a commit whose answer was lost is asked for, in seconds, and how often: a host that has not reached the
#: database for longer has lost its lease, and looks for what it has claimed
FATE_S = 10.0
FATE_EVERY_S = 0.2

# Read the mark of a connection that was lost, and let it leave no other.
CLOSE_MARK = """
INSERT INTO probe (name, at, body) VALUES (?, EXTRACT(EPOCH FROM clock_timestamp()), ?)
ON CONFLICT (name) DO UPDATE SET at = excluded.at,
  body = CASE WHEN probe.body = ? THEN probe.body ELSE excluded.body END
RETURNING body
"""
#: what stands in the row of a connection that was given up
CLOSED = b"closed"
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
        self._mark = CommitMark("", b"")
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
            self._answer(answers)
        self._drop()

    def _answer(self, answers: list[JobAnswer]) -> None:
        assert self._loop is not None  # noqa: S101 - for the type checker
        give(self._loop, answers)

    def _run_together(self, jobs: list[Job]) -> list[JobAnswer]:
        """Run jobs in one transaction; where one of them breaks it, each in its own."""
        began_mono = time.monotonic()
        broken: Exception
        for _ in range(TRIES):
            self._batches += 1
            try:
                connection = self._connected()
            except ConnectionLost as error:
                return refusals(jobs, error, NO_ANSWER)
            mark = self._mark._replace(number=b"%d" % self._batches)
            batch = Batch(self._shared, connection, jobs, mark, read_only=self._read_only)
            try:
                answers = self._run(batch, mark)
            except ConnectionLost as error:
                batch.uncount()
                self._drop()
                broken = error
                if time.monotonic() - began_mono > PATIENCE_S:
                    return refusals(jobs, error, NO_ANSWER)
            except CommitUnknown as error:
                batch.uncount()
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

    def _run(self, batch: Batch, mark: CommitMark) -> list[JobAnswer]:
        """Run a batch; one whose connection was lost is known not to be committed. Raises what ``Batch.run`` does."""
        try:
            answers = batch.run()
        except CommitUnknown as unknown:
            self._drop()
            try:
                found = self._answers_of_committed(batch, mark)
            finally:
                batch.give_up()
            if found is None:
                raise ConnectionLost(str(unknown)) from unknown
            return found
        if batch.marked:
            self._mark = mark._replace(before=mark.number)
        return answers

    def _connected(self) -> Connection:
        """Return the connection, made anew if it was lost. Raises ConnectionLost.

        The server at its other end may be another one, with a clock and marks of its own.
        """
        if self._connection is not None and self._connection.is_lost:
            self._drop()
        if self._connection is None:
            self._shared.reading = None
            self._connection = self._connect()
        if not self._mark.name:
            self._mark = CommitMark(MARKS + secrets.token_hex(8), b"")
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._mark = CommitMark("", b"")

    def _roll_back(self) -> None:
        """Undo the transaction, by ending the connection if nothing else does."""
        if self._connection is None:
            return
        try:
            self._connection.send("ROLLBACK")
            self._connection.sync()
        except (DatabaseError, ConnectionLost):
            self._drop()

    def _answers_of_committed(self, batch: Batch, mark: CommitMark) -> list[JobAnswer] | None:
        """Return the answers of a batch whose commit was not answered, None if it was not done and will not be.

        Raises CommitUnknown where the server cannot be asked.
        """
        until = time.monotonic() + FATE_S
        problem = ""
        while time.monotonic() < until:
            try:
                connection = self._connected()
            except ConnectionLost as error:
                problem = str(error)
                self._answer(refusals(self._jobs.take_waiting(), error, NO_ANSWER))
                time.sleep(FATE_EVERY_S)
                continue
            try:
                found = connection.send(CLOSE_MARK, (mark.name, CLOSED, mark.number))
                connection.sync()
                return batch.answer_again(connection) if found.rows[0][0] == mark.number else None
            except (DatabaseError, ConnectionLost) as error:
                problem = str(error)
                self._drop()
            time.sleep(FATE_EVERY_S)
        raise CommitUnknown(f"nobody can tell what became of the commit: {problem}")
