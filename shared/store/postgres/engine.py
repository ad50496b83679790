"""The engine that many hosts share: one PostgreSQL database, a few connections a host.

    run(session, job) ── by the session's key ──▶ two lanes of accepts and settles
                      └─ of many or none ───────▶ one lane of looks, so that a slow one holds no accept

https://www.postgresql.org/docs/current/ is the source of what is said of the server here.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg

from shared.errors import StoreUnavailable, StoreUnusable
from shared.store.engine import PROBE_BYTES, Database, OpeningProgress, Tell, tell_nobody
from shared.store.postgres import change_log
from shared.store.postgres.batch import Job
from shared.store.postgres.connection import Connection, ConnectionLost
from shared.store.postgres.database import Shared
from shared.store.postgres.lane import MARKS, Lane
from shared.store.postgres.schema import migrate
from shared.store.postgres.signals import PostgresSignals
from shared.store.sql.tables.inbox import COUNT_WAITING
from shared.store.sqlite.schema import moved_tables

P = ParamSpec("P")
T = TypeVar("T")

#: the oldest server that has what is asked of it (pg_current_xact_id), as it tells its version
LEAST_VERSION = 130_000
#: the encoding of a database that holds every text
ENCODING = "UTF8"
#: lanes for jobs of one session; there is one more for looks
SESSION_LANES = 2
#: how long a server may take to answer the health check, in seconds: whoever probes does not wait for long
CHECK_WITHIN_S = 3.0
#: the parameter of the url that says what stands between here and the server
POOLER = "pooler"

# Find the last place, but none that is yet to come: sessions of one sender are put minutes apart, and what this host
# writes would look to others as if it had only just been due.
LAST_PLACE = """
SELECT least(greatest((SELECT max(place) FROM sessions WHERE state <> 'idle'),
                      (SELECT max(place) FROM outbox WHERE closed_at IS NULL), 0),
             CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS int8))
"""
# Tell whether this server takes writes.
READ_ONLY = "SELECT pg_is_in_recovery()"
# Write the row of the health check, and read it back.
PROBE = """
INSERT INTO probe (name, at, body) VALUES ('check', ?, ?)
ON CONFLICT (name) DO UPDATE SET at = excluded.at, body = excluded.body RETURNING at
"""
# Remove the marks of lanes that have ended without doing so.
REMOVE_MARKS = "DELETE FROM probe WHERE name LIKE %s AND at < EXTRACT(EPOCH FROM clock_timestamp()) - 86400"
# Read all of a table.
READ_ALL = "SELECT count(*), sum(length(CAST(t.* AS text))) FROM {} AS t"
TABLES = "SELECT CAST(tablename AS text) FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename"


class PostgresEngine:
    """The Engine on a server; with ``pooler=transaction`` in the url it keeps nothing on a connection.

    Signals need a session of their own: behind such a pooler ``direct_url`` leads to the server itself, else none come.
    ``clock`` takes the place of the server's, for tests. With ``read_only`` it migrates and changes nothing.
    """

    def __init__(
        self, url: str, clock: Callable[[], float] | None = None, *, direct_url: str = "", read_only: bool = False
    ) -> None:
        self.shared = True
        self._read_only = read_only
        self._conninfo, self._pooled = read_url(url)
        direct = direct_url or ("" if self._pooled else url)
        self.signals = PostgresSignals(read_url(direct)[0] if direct and not read_only else None)
        self._shared = Shared(clock)
        names = [*(f"lane-{number}" for number in range(SESSION_LANES)), "looks"]
        self._lanes = [Lane(name, self._connect, self._shared, read_only=read_only) for name in names]
        self._opened = False

    @property
    def connections(self) -> int:
        """How many connections it keeps: its lanes, and one for signals."""
        return len(self._lanes) + 1

    def traffic(self) -> tuple[int, int, int]:
        """Return how many statements, round trips and committed transactions there have been."""
        statements, round_trips = map(sum, zip(*(lane.traffic for lane in self._lanes), strict=True))
        return statements, round_trips, sum(lane.transactions for lane in self._lanes)

    async def open(self, tell: Tell = tell_nobody) -> None:
        """Connect and migrate forward. Raises StoreUnusable."""
        loop = asyncio.get_running_loop()

        def tell_loop(progress: OpeningProgress) -> None:
            loop.call_soon_threadsafe(tell, progress)

        connections = await asyncio.to_thread(self._open, tell_loop)
        for lane, connection in zip(self._lanes, connections, strict=True):
            lane.start(connection)
        self._opened = True

    async def close(self) -> None:
        """Commit what is queued and disconnect; later calls raise StoreUnavailable."""
        self._opened = False
        await self.signals.close()
        await asyncio.gather(*(lane.close() for lane in self._lanes))

    async def run(
        self, session: str, job: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a job and return its value once it is committed. Raises what it raises, and StoreUnavailable."""
        if not self._opened:
            raise StoreUnavailable("the store is not open")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        lane = zlib.crc32(session.encode(errors="replace")) % SESSION_LANES if session else SESSION_LANES
        self._lanes[lane].put(Job(future, session, lambda database: job(database, *args, **kwargs)))
        return await future

    async def run_relaxed(
        self, session: str, job: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a job as every other: a server has its own settings for when a commit is on the disk."""
        return await self.run(session, job, *args, **kwargs)

    async def check(self) -> None:
        """Write and read back one row. Raises StoreUnavailable, also where the server does not answer in time."""
        try:
            async with asyncio.timeout(CHECK_WITHIN_S):
                await self.run("", _probe)
        except TimeoutError:
            raise StoreUnavailable(f"the database has not answered for {CHECK_WITHIN_S:.0f} s") from None

    async def verify(self) -> None:
        """Read every row there is. Raises StoreUnusable and StoreUnavailable."""
        for table in await self.run("", lambda database: [str(name) for (name,) in database.all(TABLES)]):
            try:
                await self.run("", lambda database, sql: database.only(sql), READ_ALL.format(table))
            except StoreUnavailable as error:
                raise StoreUnusable(f"the table {table} cannot be read: {error}") from error

    async def scrub(self) -> None:
        """Do nothing: the server's vacuum frees what was deleted, and overwrites it in time."""

    async def begin_change_log(self) -> str:
        """Log which rows change from now on, and return the log's token. Raises StoreUnusable."""
        return await asyncio.to_thread(self._with_connection, lambda opened: change_log.begin(opened, moved_tables()))

    async def end_change_log(self) -> None:
        """Log no more. Raises StoreUnusable."""
        await asyncio.to_thread(self._with_connection, lambda opened: change_log.end(opened, moved_tables()))

    async def wait_for_writers(self) -> None:
        """Wait for what hosts that are gone have left under way. Raises StoreUnusable."""
        await asyncio.to_thread(self._with_connection, change_log.wait_for_writers)

    def _with_connection(self, act: Callable[[psycopg.Connection[tuple[object, ...]]], T]) -> T:
        """Do something over a connection of its own. Raises StoreUnusable."""
        try:
            with psycopg.connect(self._conninfo, connect_timeout=5, autocommit=True, prepare_threshold=None) as opened:
                return act(opened)
        except psycopg.Error as error:
            problem = " ".join(str(error).split())
            raise StoreUnusable(f"{self._server()} cannot log what changes while it is moved: {problem}") from error

    def _open(self, tell: Tell) -> list[Connection]:
        """Migrate, and connect every lane. Raises StoreUnusable."""
        try:
            with psycopg.connect(self._conninfo, connect_timeout=5, autocommit=True, prepare_threshold=None) as opened:
                self._check(opened)
                migrate(opened, self._server(), tell, read_only=self._read_only)
                if not self._read_only:
                    opened.execute(REMOVE_MARKS, (f"{MARKS}%",))
                ((waiting,),) = opened.execute(COUNT_WAITING).fetchall()
                ((place,),) = opened.execute(LAST_PLACE).fetchall()
        except psycopg.errors.InsufficientPrivilege as error:
            raise StoreUnusable(
                f"the role of the url may not do what has to be done at {self._server()}: let it own the database, or "
                f"GRANT CREATE ON SCHEMA public TO it ({str(error).splitlines()[0]})"
            ) from error
        except psycopg.errors.ReadOnlySqlTransaction as error:
            raise StoreUnusable(
                f"{self._server()} takes no writes: it is a replica, or set to read only; the url has to lead to the "
                f"server that is written to (target_session_attrs=read-write finds it among several)"
            ) from error
        except psycopg.Error as error:
            problem = " ".join(str(error).split())
            raise StoreUnusable(f"the database at {self._server()} cannot be used: {problem}") from error
        self._shared.begin(int(waiting), int(place))
        try:
            return [self._connect() for _ in self._lanes]
        except ConnectionLost as error:
            raise StoreUnusable(f"the database at {self._server()} takes no more connections: {error}") from error

    def _check(self, opened: psycopg.Connection[tuple[object, ...]]) -> None:
        """Raise StoreUnusable for a server that is too old, or a database that cannot hold every text."""
        if (version := opened.info.server_version) < LEAST_VERSION:
            raise StoreUnusable(
                f"{self._server()} is PostgreSQL {version // 10_000}: "
                f"Gatehouse needs {LEAST_VERSION // 10_000} or newer"
            )
        if (encoding := opened.info.parameter_status("server_encoding")) != ENCODING:
            raise StoreUnusable(
                f"{self._server()} has the encoding {encoding}, which cannot hold every message: make a database with "
                f"ENCODING '{ENCODING}' TEMPLATE template0"
            )

    def _connect(self) -> Connection:
        return Connection(self._conninfo, prepares=not self._pooled, application="gatehouse")

    def _server(self) -> str:
        """Return where the database is, without what is secret of its url."""
        known = psycopg.conninfo.conninfo_to_dict(self._conninfo)
        return f"{known.get('host', 'localhost')}:{known.get('port', 5432)}/{known.get('dbname', '')}"


def read_url(url: str) -> tuple[str, bool]:
    """Return the url for libpq, and whether a pooler gives each transaction another session. Raises ValueError."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    pooler = query.pop(POOLER, "")
    if pooler not in {"", "session", "transaction"}:
        raise ValueError(f"{POOLER}={pooler} is none of session, transaction")
    conninfo = urlunsplit(("postgresql", *parts[1:3], urlencode(query), parts.fragment))
    try:
        psycopg.conninfo.conninfo_to_dict(conninfo)
    except psycopg.Error as error:
        raise ValueError(" ".join(str(error).split())) from error
    return conninfo, pooler == "transaction"


def _probe(database: Database) -> None:
    if database.only(READ_ONLY)[0]:
        raise StoreUnavailable("the database takes no writes: it is a replica")
    now = database.now()
    if database.only(PROBE, (now, bytes(PROBE_BYTES)))[0] != now:
        raise StoreUnavailable("the database does not give back what was written")
