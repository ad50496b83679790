"""What every job of the writer works with: the one connection, the time, the counters.

The clock given may jump back (a machine's clock is set); the database's never does: it goes on from where it was, so
that leases, delays and dedupe times keep their length. What has an order has it by number, never by time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import apsw

Row = tuple[Any, ...]

#: no lease is longer, in seconds; one that seems to be was written before the clock was set back, and has ended
MAX_LEASE_S = 3600.0
#: no delay is longer, in seconds; one that seems to be is over
MAX_DELAY_S = 86_400.0

# Draw the next numbers of a counter.
DRAW = "UPDATE sequences SET last = last + ? WHERE name = ? RETURNING last"


class Database:
    """One open database.

    ``waiting`` is the number of waiting messages, kept so that no accept has to count them; ``last_platform`` is the
    one whose session was leased last, so that the next one's turn comes.
    """

    def __init__(self, db: apsw.Connection, clock: Callable[[], float], *, read_only: bool = False) -> None:
        self.db = db
        self.read_only = read_only
        self.waiting = 0
        self.last_platform = ""
        self._clock = clock
        self._latest = 0.0
        self._set_back_s = 0.0
        # Places only have to grow, so each opening has its own range of them and none is written down.
        self._place = 0 if read_only else int(self.only(DRAW, (1, "opened"))[0]) << 32

    def now(self) -> float:
        """Return unix seconds that never run backwards."""
        shown = self._clock()
        if shown + self._set_back_s < self._latest:
            self._set_back_s = self._latest - shown
        self._latest = shown + self._set_back_s
        return self._latest

    def next_place(self) -> int:
        """Return a number greater than every earlier one, to order by."""
        self._place += 1
        return self._place

    def next_epoch(self, count: int = 1) -> int:
        """Reserve ``count`` epochs no claim ever had and return the last of them."""
        return int(self.only(DRAW, (count, "epoch"))[0])

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

    def run(self, sql: str, values: Row = ()) -> int:
        """Execute a statement and return how many rows it changed."""
        self.db.execute(sql, values)
        return self.db.changes()

    def run_each(self, sql: str, values: Iterable[Row]) -> None:
        """Execute a statement once for each of the values."""
        self.db.executemany(sql, values)
