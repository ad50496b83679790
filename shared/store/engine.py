"""The port to a database: what each engine gives to the statements of ``shared/store/sql``, which all engines share.

    Store ── its five objects ──▶ Engine.run(session, job) ── one transaction ──▶ job(Database) ── statements ──▶ rows

A job is a plain function of a Database: first it reads all that it needs, then it writes. It sees nothing of threads,
connections, batches or commits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import msgspec

from shared.signals import Signals

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")

Row = tuple[Any, ...]

#: no lease is longer, in seconds; one that seems to be was written before the clock was set back, and has ended
MAX_LEASE_S = 3600.0
#: no delay is longer, in seconds; one that seems to be is over
MAX_DELAY_S = 86_400.0
#: what a health check writes: the size of a message with its history, so that a disk that takes it takes those
PROBE_BYTES = 32_768
#: a limit on rows that is none
ALL_ROWS = (1 << 62) - 1


class OpeningProgress(msgspec.Struct, frozen=True):
    """How far a database has come on its way to today's schema."""

    #: what is being brought forward
    what: str
    #: how much of it is done, and of how much in all
    done: int
    total: int


#: who hears how far it has come
Tell = Callable[[OpeningProgress], None]


def tell_nobody(_: OpeningProgress) -> None:
    """Do nothing."""


class Database(Protocol):
    """What a job works with: statements inside its transaction, the time, the counters.

    Statements have ``?`` for their values, and are written so that every engine takes them as they are: a bool is an
    integer, ``ON CONFLICT`` names its table in expressions, and ``/*SKIP LOCKED*/`` stands behind the LIMIT of a
    subselect whose rows other hosts may be looking at, ``/*LOCK*/`` behind a statement whose rows have to stay.
    """

    #: the platform whose session was leased last, so that the next one's turn comes
    last_platform: str
    #: platforms that had ready sessions lately, where asking which have some costs as much as asking these for theirs
    likely_platforms: tuple[str, ...]
    #: whether a job that reads waits, so that statements which do more than most need are cheaper than another read
    reads_wait: bool
    #: whether the answers of the last works were lost, and were asked for when all was committed
    asked_again: bool

    @property
    def waiting(self) -> int:
        """The number of waiting messages, kept so that no accept has to count them."""

    def add_waiting(self, count: int) -> None:
        """Count messages that wait from now on, or do not any more; undone with the transaction."""

    def recount_waiting(self) -> int:
        """Count the waiting messages anew where other hosts change them too, and return how many there are."""

    def lock(self, name: str) -> None:
        """Wait until no other transaction of any host holds this lock; it ends with the transaction."""

    def now(self) -> float:
        """Return unix seconds of the store's own clock, which never runs backwards."""

    def next_place(self) -> int:
        """Return a number greater than every earlier one, to order by: microseconds, as far as the clock goes on."""

    def next_epochs(self, count: int) -> list[int]:
        """Return ``count`` epochs no claim ever had, rising."""

    def reserve_epochs(self, count: int) -> Sequence[int | None]:
        """Return the same for a statement with ``coalesce(?, /*EPOCH*/ NULL)``, None for one that is drawn there."""

    def last_epoch(self) -> int:
        """Return an epoch that no claim has passed."""

    def begin_epochs_after(self, epoch: int) -> None:
        """Give no epoch up to this one any more."""

    def one(self, sql: str, values: Row = ()) -> Row | None:
        """Return the first row."""

    def only(self, sql: str, values: Row = ()) -> Row:
        """Return the first row of a statement that always has one."""

    def all(self, sql: str, values: Row = ()) -> list[Row]:
        """Return all rows."""

    def rows(self, sql: str, values: Row = ()) -> AbstractContextManager[Iterator[Row]]:
        """Give the rows one by one, for who may not need all of them."""

    def run(self, sql: str, values: Row = ()) -> None:
        """Execute a statement; nobody waits for it before the commit."""

    def run_each(self, sql: str, values: Iterable[Row]) -> None:
        """Execute a statement once for each of the values."""

    def changed(self, sql: str, values: Row = ()) -> int:
        """Execute a statement and return how many rows it changed."""

    def each(self, work: Callable[[T], U], items: Sequence[T]) -> list[U]:
        """Do the work for every item, in any order or at once; they touch no row in common."""

    def last(self, *works: Callable[[], Any]) -> list[Any]:
        """Do the last works of a job in this order, and return their values; the job has no statement after them.

        None sees what another has read, each reads once behind all that it writes, and what is read changes nothing: so
        an engine may commit before it has the answers, and ask again for those that were lost.
        """


def at_once(database: Database, *works: Callable[[], Any]) -> list[Any]:
    """Do works that touch no row in common side by side, so that their reads share round trips; return their values."""
    return database.each(lambda work: work(), works)


class Engine(Protocol):
    """One database and its life. Every method raises StoreUnavailable when the database does not answer."""

    @property
    def shared(self) -> bool:
        """Whether other hosts may have it open too; one that has this host alone runs jobs in the order given."""

    @property
    def signals(self) -> Signals:
        """How this host and others tell each other something at once."""

    async def open(self, tell: Tell = tell_nobody) -> None:
        """Open and migrate forward; ``tell`` is called on the loop, and not before there is something to migrate.

        Raises StoreUnusable, also where ``close`` comes before the end.
        """

    async def close(self) -> None:
        """Commit what is queued and close; later calls raise StoreUnavailable."""

    async def run(
        self, session: str, job: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a job in a transaction and return its value once that is committed; raises what the job raises.

        ``session`` is the one whose rows it touches, empty for a job that touches rows of many or of none. Jobs of one
        session run in the order in which they were given. Raises StoreUnavailable when nothing was committed.
        """

    async def run_relaxed(
        self, session: str, job: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a job as ``run`` does, but an engine may let its commit reach the disk with the next one that must.

        It outlives every process at once; a loss of power may take it. So it is for what nobody outside was told of,
        and what is done again where it is missing.
        """

    async def check(self) -> None:
        """Write and read back one row. Raises StoreUnavailable."""

    async def verify(self) -> None:
        """Read all there is and verify that it is sound; takes its time. Raises StoreUnusable."""

    async def scrub(self) -> None:
        """Let nothing that has been deleted be left in the files, as far as that is the engine's to decide."""

    async def begin_change_log(self) -> str:
        """Log the key of every row of a moved table that changes from now on, unless that is done; return its token.

        Also where it is open for reading alone, beside those that write it. Raises StoreUnusable.
        """

    async def end_change_log(self) -> None:
        """Log no more, and forget what was logged. Raises StoreUnusable."""

    async def wait_for_writers(self) -> None:
        """Wait until what hosts that are gone have left under way is committed or not. Raises StoreUnusable."""
