"""What a job works with on PostgreSQL, and what the lanes of a process share.

A job is a greenlet. Where it reads, it hands its statement to the batch it runs in and stands still until the round
trip that answers all reads of the batch; where it writes, it goes on at once. Its last reads come with the COMMIT.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import greenlet

from shared.store.engine import Row
from shared.store.postgres.connection import Connection, Outcome
from shared.store.postgres.statements import statement
from shared.store.sql.tables.inbox import COUNT_WAITING

T = TypeVar("T")
U = TypeVar("U")

NEXT_EPOCHS = "SELECT nextval('epoch') FROM generate_series(1, ?)"
ADVISORY_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(?, 0))"
LAST_EPOCH = "SELECT last_value FROM epoch"
RAISE_EPOCH = "SELECT setval('epoch', greatest(?, (SELECT last_value FROM epoch)))"
#: how far the server's clock may step back without being followed, in seconds
MOMENT_S = 1.0
#: how long the clock of a server is carried on before it has to be read again, in seconds
READING_S = 5.0
CLOCK = "SELECT CAST(extract(epoch FROM clock_timestamp()) AS float8)"


#: platforms that are remembered to have had ready sessions
MOST_PLATFORMS = 8


class Read(NamedTuple):
    """What a job asks of its batch: to be woken once this outcome is there."""

    outcome: Outcome
    #: the statement, to be asked again
    sql: str
    values: Row


class Fork(NamedTuple):
    """What a job asks of its batch: to do this work for every item, and to be woken with the results."""

    work: Callable[[Any], Any]
    items: Sequence[Any]
    #: whether the job has no statement after these
    last: bool = False


class ClockReading(NamedTuple):
    """What the server's clock has shown."""

    #: unix seconds
    shown: float
    #: when the answer was there, on the monotonic clock
    at_mono: float


class Shared:
    """What all lanes of a process share: the count of waiting messages, the last place, the clock.

    ``clock`` takes the place of the server's in tests; the server's is read in the first round trip of every batch, and
    carried on by the monotonic one until the next.
    """

    def __init__(self, clock: Callable[[], float] | None) -> None:
        self.clock = clock
        self.last_platform = ""
        self.waiting = 0
        self._lock = threading.Lock()
        self._place = 0
        self._latest = 0.0
        self._set_back_s = 0.0
        self._reading: ClockReading | None = None
        self._platforms: dict[str, None] = {}

    @property
    def likely_platforms(self) -> tuple[str, ...]:
        """The platforms that had ready sessions last."""
        return tuple(self._platforms)

    @likely_platforms.setter
    def likely_platforms(self, names: tuple[str, ...]) -> None:
        seen = [*names, *(name for name in self._platforms if name not in names)]
        self._platforms = dict.fromkeys(seen[:MOST_PLATFORMS])

    @property
    def reading(self) -> ClockReading | None:
        """What the server's clock last showed, None where that is too long ago."""
        reading = self._reading
        return reading if reading is not None and time.monotonic() - reading.at_mono < READING_S else None

    @reading.setter
    def reading(self, reading: ClockReading | None) -> None:
        self._reading = reading

    def begin(self, waiting: int, place: int) -> None:
        """Start with what the database has."""
        self.waiting, self._place = waiting, place

    def add_waiting(self, count: int) -> None:
        """Count what a job adds or takes; what is rolled back is counted back."""
        with self._lock:
            self.waiting += count

    def forward(self, shown: float) -> float:
        """Return a time of the clock that is not before any that was returned.

        The server's is followed where it steps back by more than a moment, as after a failover: others follow it too,
        and a host whose clock is ahead of theirs would take their leases to have ended.
        """
        with self._lock:
            if self.clock is None:
                self._latest = shown if shown < self._latest - MOMENT_S else max(shown, self._latest)
                return self._latest
            if shown + self._set_back_s < self._latest:
                self._set_back_s = self._latest - shown
            self._latest = shown + self._set_back_s
            return self._latest

    def next_place(self, now: float) -> int:
        """Return a number greater than every earlier one of this process."""
        with self._lock:
            self._place = max(self._place + 1, int(now * 1e6))
            return self._place


class BatchClock:
    """The server's clock in one batch: as this one or an earlier has read it, carried on from when that was there.

    It may be behind by the time that the answer took, and is never ahead: an answer that a cut link has held up for
    twenty seconds must not make every other host's lease look as if it had ended.
    """

    def __init__(self, shared: Shared, connection: Connection) -> None:
        self._shared = shared
        self._reading = shared.reading
        self._read: Outcome | None = None if shared.clock else connection.send(CLOCK)

    @property
    def pending(self) -> Outcome | None:
        """The outcome that has to be there before ``now``, None if it is or none is needed."""
        unread = self._read is not None and not self._read.rows
        return self._read if unread and self._reading is None else None

    def note(self) -> None:
        """Keep what was read for the batches to come, once the answer is there."""
        if self._read is not None and self._read.rows:
            self._reading = self._shared.reading = ClockReading(float(self._read.rows[0][0]), time.monotonic())
            self._read = None

    def now(self) -> float:
        """Return unix seconds that never run backwards in this process."""
        if self._shared.clock:
            return self._shared.forward(self._shared.clock())
        self.note()
        assert self._reading is not None  # noqa: S101 - for the type checker
        return self._shared.forward(self._reading.shown + time.monotonic() - self._reading.at_mono)


class PostgresDatabase:
    """The Database of PostgreSQL for one job."""

    def __init__(self, shared: Shared, connection: Connection, clock: BatchClock, hub: greenlet.greenlet) -> None:
        self._shared = shared
        self._connection = connection
        self._clock = clock
        self._hub = hub
        #: waiting messages that the job has added or taken, and that are not committed
        self.added = 0
        #: whether the job has sent what may change something
        self.wrote = False
        self.reads_wait, self.asked_again = True, False
        #: whether the job does its last works, may send no statement any more, and has done them all
        self._last = self._closed = self.ended = False

    @property
    def waiting(self) -> int:
        """The number of waiting messages."""
        return self._shared.waiting

    def add_waiting(self, count: int) -> None:
        """Count messages that wait from now on, or do not any more."""
        self._shared.add_waiting(count)
        self.added += count

    def recount_waiting(self) -> int:
        """Count the waiting messages of all hosts; what lanes do meanwhile is mended by the next count."""
        counted = int(self.only(COUNT_WAITING)[0])
        self._shared.add_waiting(counted - self._shared.waiting)
        return counted

    def lock(self, name: str) -> None:
        """Wait for a lock of the whole database; it ends with the transaction, also behind a pooler."""
        self.all(ADVISORY_LOCK, (name,))

    @property
    def last_platform(self) -> str:
        """The platform whose session was leased last by this process."""
        return self._shared.last_platform

    @last_platform.setter
    def last_platform(self, name: str) -> None:
        self._shared.last_platform = name

    @property
    def likely_platforms(self) -> tuple[str, ...]:
        """The platforms that had ready sessions last, as far as this process has seen."""
        return self._shared.likely_platforms

    @likely_platforms.setter
    def likely_platforms(self, names: tuple[str, ...]) -> None:
        self._shared.likely_platforms = names

    def now(self) -> float:
        """Return unix seconds of the server's clock."""
        if (pending := self._clock.pending) is not None:
            self._hub.switch(Read(pending, CLOCK, ()))
        return self._clock.now()

    def next_place(self) -> int:
        """Return a number to order by: microseconds of the server's clock."""
        return self._shared.next_place(self.now())

    def next_epochs(self, count: int) -> list[int]:
        """Return ``count`` epochs no claim ever had, rising."""
        return sorted(int(epoch) for (epoch,) in self.all(NEXT_EPOCHS, (count,)))

    def reserve_epochs(self, count: int) -> list[None]:
        """Leave epochs to the statements that need one."""
        return [None] * count

    def last_epoch(self) -> int:
        """Return the last epoch that was given."""
        return int(self.only(LAST_EPOCH)[0])

    def begin_epochs_after(self, epoch: int) -> None:
        """Give no epoch up to this one any more."""
        self.all(RAISE_EPOCH, (epoch,))

    def one(self, sql: str, values: Row = ()) -> Row | None:
        """Return the first row."""
        rows = self.all(sql, values)
        return rows[0] if rows else None

    def only(self, sql: str, values: Row = ()) -> Row:
        """Return the first row of a statement that always has one."""
        row = self.one(sql, values)
        if row is None:
            raise RuntimeError(f"no row from a statement that always has one: {sql}")
        return row

    def all(self, sql: str, values: Row = ()) -> list[Row]:
        """Return all rows."""
        return self._read(sql, values).rows

    @contextmanager
    def rows(self, sql: str, values: Row = ()) -> Iterator[Iterator[Row]]:
        """Give the rows one by one."""
        yield iter(self.all(sql, values))

    def run(self, sql: str, values: Row = ()) -> None:
        """Execute a statement; nobody waits for it before the commit."""
        self._send(sql, values)

    def run_each(self, sql: str, values: Iterable[Row]) -> None:
        """Execute a statement once for each of the values."""
        for row in values:
            self._send(sql, row)

    def changed(self, sql: str, values: Row = ()) -> int:
        """Execute a statement and return how many rows it changed."""
        return self._read(sql, values).changed

    def each(self, work: Callable[[T], U], items: Sequence[T]) -> list[U]:
        """Do the work for every item, all at once."""
        if len(items) < 2:
            return [work(item) for item in items]
        results: list[U] = self._hub.switch(Fork(work, items))
        return results

    def last(self, *works: Callable[[], Any]) -> list[Any]:
        """Do works at once; if nobody else of the batch may write any more, their reads come with the COMMIT."""
        self.now()  # a clock that has to be read is no last read
        self._last = True
        results: list[Any] = self._hub.switch(Fork(lambda work: work(), works, last=True))
        self._closed = self.ended = True
        return results

    def _send(self, sql: str, values: Row) -> Outcome:
        if self._closed:
            raise RuntimeError(f"a statement after the last ones of a job: {sql}")
        self.wrote = self.wrote or statement(sql).writes
        return self._connection.send(sql, values)

    def _read(self, sql: str, values: Row) -> Outcome:
        outcome = self._send(sql, values)
        self._hub.switch(Read(outcome, sql, values))
        self._closed = self._last
        return outcome
