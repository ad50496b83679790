"""What every job works with on the embedded engine: the one connection, the time, the counters.

The clock given may jump (a machine's clock is set); the database's does not: it goes on from where it was, so that
leases, delays and dedupe times keep their length. What has an order has it by number, never by time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import apsw

from shared.store.engine import Row
from shared.store.sql.tables.inbox import COUNT_WAITING
from shared.store.sql.tables.sessions import LATEST_PLACE_US
from shared.store.sqlite.synced_mark import SyncedMark

T = TypeVar("T")
U = TypeVar("U")

#: a clock that gains more than this at once was set, in seconds; smaller steps are believed
JUMP_S = 600.0

# Draw the next numbers of a counter.
DRAW = "UPDATE sequences SET last = last + ? WHERE name = ? RETURNING last"
# Read the last epoch.
LAST_EPOCH = "SELECT last FROM sequences WHERE name = 'epoch'"
# Let epochs go on behind another one.
RAISE_EPOCH = "UPDATE sequences SET last = ? WHERE name = 'epoch' AND last < ?"
# Find the greatest number that anything unfinished is ordered by.
LAST_PLACE = """
SELECT max(coalesce((SELECT max(place) FROM sessions WHERE state <> 'idle'), 0),
           coalesce((SELECT max(place) FROM outbox WHERE closed_at IS NULL), 0))
"""


class SqliteDatabase:
    """The Database of the embedded engine: one open connection.

    The count of waiting messages is a walk over all of them, once at the start.
    """

    def __init__(
        self,
        db: apsw.Connection,
        clock: Callable[[], float],
        *,
        read_only: bool = False,
        steady: Callable[[], float] | None = None,
        mark: SyncedMark | None = None,
    ) -> None:
        self.db = db
        #: how far its log was synced; None where it is only read
        self.mark = mark
        self.read_only = read_only
        self.last_platform = ""
        self.likely_platforms: tuple[str, ...] = ()
        self.reads_wait = self.asked_again = False
        #: whether the write-ahead log is to be cut after the commit
        self.scrub_asked = False
        self._clock = clock
        #: what nobody sets, beside which a jump ahead shows; None where the clock is believed
        self._steady = steady
        self._steady_s = steady() if steady else 0.0
        self._latest = 0.0
        self._set_back_s = 0.0
        self.waiting = int(self.only(COUNT_WAITING)[0])
        last = int(self.only(LAST_PLACE)[0])
        # what lies ahead of the clock, as far as a place may, is of a sender who has many: nobody waits behind that
        self._place = max(min(last, int(clock() * 1e6)), last - LATEST_PLACE_US)

    def add_waiting(self, count: int) -> None:
        """Count messages that wait from now on, or do not any more."""
        self.waiting += count

    def recount_waiting(self) -> int:
        """Return the count: nobody else changes it."""
        return self.waiting

    def lock(self, name: str) -> None:
        """Do nothing: one transaction at a time is what this engine has."""

    def now(self) -> float:
        """Return unix seconds that never run backwards, nor far ahead of what has passed."""
        shown = self._clock()
        if self._steady is not None:
            steady = self._steady()
            expected, self._steady_s = self._latest + steady - self._steady_s, steady
            if self._latest and shown + self._set_back_s > expected + JUMP_S:
                self._set_back_s = expected - shown
        if shown + self._set_back_s < self._latest:
            self._set_back_s = self._latest - shown
        self._latest = shown + self._set_back_s
        return self._latest

    def next_place(self) -> int:
        """Return a number greater than every earlier one."""
        self._place = max(self._place + 1, int(self.now() * 1e6))
        return self._place

    def next_epochs(self, count: int) -> list[int]:
        """Return ``count`` epochs no claim ever had, rising."""
        last = int(self.only(DRAW, (count, "epoch"))[0])
        return list(range(last - count + 1, last + 1))

    def reserve_epochs(self, count: int) -> Sequence[int | None]:
        """Return ``count`` epochs no claim ever had, rising."""
        return self.next_epochs(count)

    def last_epoch(self) -> int:
        """Return the last epoch that was given."""
        return int(self.only(LAST_EPOCH)[0])

    def begin_epochs_after(self, epoch: int) -> None:
        """Give no epoch up to this one any more."""
        self.run(RAISE_EPOCH, (epoch, epoch))

    def one(self, sql: str, values: Row = ()) -> Row | None:
        """Return the first row."""
        return self.db.execute(sql, values).fetchone()

    def only(self, sql: str, values: Row = ()) -> Row:
        """Return the first row of a statement that always has one."""
        row = self.one(sql, values)
        if row is None:
            raise RuntimeError(f"no row from a statement that always has one: {sql}")
        return row

    def all(self, sql: str, values: Row = ()) -> list[Row]:
        """Return all rows."""
        return self.db.execute(sql, values).fetchall()

    @contextmanager
    def rows(self, sql: str, values: Row = ()) -> Iterator[Iterator[Row]]:
        """Give the rows one by one, for who may not need all of them."""
        cursor = self.db.execute(sql, values)
        try:
            yield cursor
        finally:
            cursor.close()

    def run(self, sql: str, values: Row = ()) -> None:
        """Execute a statement."""
        self.db.execute(sql, values)

    def changed(self, sql: str, values: Row = ()) -> int:
        """Execute a statement and return how many rows it changed."""
        self.db.execute(sql, values)
        return self.db.changes()

    def each(self, work: Callable[[T], U], items: Sequence[T]) -> list[U]:
        """Do the work for every item, one after the other."""
        return [work(item) for item in items]

    def last(self, *works: Callable[[], Any]) -> list[Any]:
        """Do works one after the other."""
        return [work() for work in works]

    def run_each(self, sql: str, values: Iterable[Row]) -> None:
        """Execute a statement once for each of the values."""
        self.db.executemany(sql, values)
