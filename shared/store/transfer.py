"""Moves everything from one database to another, of whatever engines, while a gateway writes to the first.

    begin    the source logs the key of every row that changes from here on
    copy     chunk by chunk in the order of the keys; a chunk that is the same on both sides is left as it is
    verify   once more; what differs has to be in the log, and of every row of the target count and checksum are taken
    catch_up the logged rows alone are looked at: count and checksum follow, and each is read back
    finish   the target goes on where the source has ended

Copy and verify are as long as there are rows; the rest is as long as what has changed since, so the pause between the
stop of the old gateway and the start of the new one does not grow with the rows. What is done is noted in the target,
in one transaction with what it is about: a move that was killed goes on there, and one whose log is another by then
begins anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from shared.errors import StoreUnusable
from shared.store.engine import Database, Row
from shared.store.port import Store
from shared.store.sql.tables import change_log, copies
from shared.store.sql.tables.change_log import LogEntry, LoggedKey
from shared.store.sqlite.schema import Table, moved_tables

#: rows of one chunk at the least and at most, and the bytes it is meant to have
LEAST_ROWS, MOST_ROWS = 20, 1000
CHUNK_BYTES = 4 * 2**20
#: logged keys that are looked at in one transaction
KEYS_AT_ONCE = 200
#: a catch-up of fewer keys than this is followed by no other while a gateway runs on
FEW_KEYS = 100
#: catch-ups in a row, at most, while a gateway runs on
MOST_CATCH_UPS = 20
#: a checksum is a sum, so that it follows a row that changes without a look at the others
CHECKSUM_MODULUS = 2**256
#: the table whose rows the trigger of another one removes
FOLLOWING = "summaries"


class Chunk(NamedTuple):
    """The rows of a range of keys: behind ``after`` up to ``last``, without end where either is None."""

    after: Row | None
    last: Row | None
    rows: list[Row]


class TableSum(msgspec.Struct, frozen=True):
    """The rows of one table, in any order."""

    count: int = 0
    #: the sum of their SHA-256 digests, as hexadecimal
    checksum: str = "0"

    def with_rows(self, name: str, rows: Iterable[Row], *, sign: int = 1) -> TableSum:
        """Return the sum with more rows, or with fewer of them."""
        digests = [_digest(name, row) for row in rows]
        total = (int(self.checksum, 16) + sign * sum(digests)) % CHECKSUM_MODULUS
        return TableSum(self.count + sign * len(digests), f"{total:x}")


class Progress(msgspec.Struct, frozen=True):
    """How far a move is; the target keeps it."""

    #: the log of the source that it counts on
    token: str = ""
    #: entries of the log before this one have been looked at
    horizon: int = 0
    #: the last entry that was read, by which a log that lost some is told
    last: LogEntry | None = None
    copied: tuple[str, ...] = ()
    #: what the target holds of the tables that were verified
    verified: dict[str, TableSum] = {}


class TransferReport(msgspec.Struct, frozen=True):
    """What is moved."""

    #: rows, by table
    rows: dict[str, int]
    #: a checksum over all rows
    checksum: str


async def begin(target: Store, source_name: str) -> None:
    """Mark a database as a copy of another. Raises StoreUnusable for one that holds something of its own."""
    held = moved_tables()

    def job(database: Database) -> str:
        begun = copies.unfinished(database)
        if begun == [source_name]:
            return ""
        if begun:
            return f"it is a copy of {begun[0]} that is not whole yet"
        if source_name in copies.moved(database):
            return f"all of {source_name} was moved here before: start the gateway on it"
        if own := [table.name for table in held if database.all(f"SELECT 1 FROM {table.name} LIMIT 1")]:  # noqa: S608
            return f"it holds something of its own, which would be lost, in {', '.join(own)}"
        copies.begin(database, source_name)
        return ""

    if problem := await target.engine.run("", job):
        raise StoreUnusable(f"the database to move to cannot be taken: {problem}")


async def count(source: Store) -> dict[str, int]:
    """Return how many rows there are to move, by table."""
    found = {}
    for table in moved_tables():
        statement = f"SELECT count(*) FROM {table.name}"  # noqa: S608 - the schema's own name
        found[table.name] = int((await source.engine.run("", lambda database, sql: database.only(sql), statement))[0])
    return found


class Transfer:
    """One move, of a source whose log was begun to a target that was marked as its copy."""

    def __init__(self, source: Store, target: Store, source_name: str, progress: Progress) -> None:
        self._source = source
        self._target = target
        self._name = source_name
        self._progress = progress
        self._tables = {table.name: table for table in moved_tables()}

    @classmethod
    async def begun(cls, source: Store, target: Store, source_name: str) -> Transfer:
        """Begin a move, or go on with one. Raises StoreUnusable."""
        await begin(target, source_name)
        token = await source.engine.begin_change_log()
        body = await target.engine.run("", copies.progress, source_name)
        progress = msgspec.msgpack.decode(body, type=Progress) if body else Progress()
        lost = progress.last is not None and not await source.engine.run("", change_log.holds, progress.last)
        if progress.token != token or lost:
            if lost:  # an older copy of the source is in its place: what it logs goes on from another state
                await source.engine.end_change_log()
                token = await source.engine.begin_change_log()
            horizon = (await source.engine.run("", change_log.state)).horizon
            progress = Progress(token, horizon)
        return cls(source, target, source_name, progress)

    @property
    def is_verified(self) -> bool:
        """Whether nothing is left but to catch up."""
        return len(self._progress.verified) == len(self._tables)

    @property
    def report(self) -> TransferReport:
        """What the target holds, as far as it was verified."""
        verified = self._progress.verified
        whole = sum(int(verified[name].checksum, 16) for name in sorted(verified)) % CHECKSUM_MODULUS
        return TransferReport({name: verified[name].count for name in verified}, f"{whole:064x}")

    async def copy(self, tell: Callable[[int], object]) -> int:
        """Copy the tables that were not; ``tell`` is told of rows that were looked at. Return how many were written."""
        written = 0
        for table in self._tables.values():
            if table.name not in self._progress.copied:
                written += len((await compare(self._source, self._target, table, tell)).differing)
                await self._note(copied=(*self._progress.copied, table.name))
        return written

    async def verify(self, tell: Callable[[int], object]) -> None:
        """Read both once more, where that was not done. Raises StoreUnusable for a difference that was not logged."""
        for table in self._tables.values():
            if table.name in self._progress.verified:
                continue
            found = await compare(self._source, self._target, table, tell)
            if found.differing:
                changes = await self._source.engine.run("", change_log.since, self._progress.horizon)
                logged = {_key_of(table, key)[1] for key in changes.keys.get(table.name, [])}
                if unlogged := found.differing - logged:
                    raise StoreUnusable(
                        f"{len(unlogged)} rows of {table.name} differ after the copy, and no change of them was "
                        f"logged: something else writes to one of the databases"
                    )
            await self._note(verified={**self._progress.verified, table.name: found.held})

    async def catch_up(self) -> int:
        """Look at all that was logged since the last look; return how many rows that were. Raises StoreUnusable."""
        changes = await self._source.engine.run("", change_log.since, self._progress.horizon)
        if changes.last is None:
            return 0
        keys = {name: [_key_of(self._tables[name], key) for key in found] for name, found in changes.keys.items()}
        # what a trigger would remove beside a row goes first, and comes back when all such rows are gone
        for name in sorted(keys, key=lambda name: name != FOLLOWING):
            for some in _parts(keys[name]):
                await self._remove(self._tables[name], some)
        for name in sorted(keys, key=lambda name: name == FOLLOWING):
            for some in _parts(keys[name]):
                await self._put(self._tables[name], some)
        await self._note(horizon=changes.horizon, last=changes.last)
        return sum(map(len, keys.values()))

    async def catch_up_nearly(self) -> None:
        """Catch up until little is left, beside a gateway that runs on."""
        for _ in range(MOST_CATCH_UPS):
            if await self.catch_up() < FEW_KEYS:
                return

    async def finish(self) -> None:
        """Take over the last changes of a source that nobody writes to any more, and let the target be opened.

        Its numbers go on behind those that the source gave. Raises StoreUnusable.
        """
        await self._source.engine.wait_for_writers()
        await self.catch_up()
        last = await self._source.engine.run("", lambda database: database.last_epoch())

        def job(database: Database) -> None:
            database.begin_epochs_after(last)
            copies.finish(database, self._name)

        await self._target.engine.run("", job)
        await self._source.engine.end_change_log()

    async def _remove(self, table: Table, keys: Sequence[tuple[Row, Row]]) -> None:
        """Remove the rows of keys that the source has no more; all of them where a trigger might."""
        there = await self._source.engine.run("", _read_keys, table, [key for key, _ in keys])
        held = {_row_key(table, row) for row in there}
        gone = [key for _, key in keys if table.name == FOLLOWING or key not in held]
        if gone:
            await self._amend(table, [], gone)

    async def _put(self, table: Table, keys: Sequence[tuple[Row, Row]]) -> None:
        """Write the rows of keys as the source has them, and read them back. Raises StoreUnusable."""
        rows = await self._source.engine.run("", _read_keys, table, [key for key, _ in keys])
        await self._amend(table, rows, [])
        found = await self._target.engine.run("", _read_keys, table, [_row_key(table, row) for row in rows])
        if found != rows:
            raise StoreUnusable(f"rows of {table.name} are not in the target as they were written there")

    async def _amend(self, table: Table, rows: list[Row], gone: list[Row]) -> None:
        """Write rows and remove others, and let count and checksum follow, in one transaction."""
        held = self._progress.verified.get(table.name)
        keys = [*gone, *(_row_key(table, row) for row in rows)]

        def job(database: Database) -> Progress:
            before = _read_keys(database, table, keys) if held else []
            _write(database, table, rows, gone)
            if held is None:
                return self._progress
            follows = held.with_rows(table.name, before, sign=-1).with_rows(table.name, rows)
            changed = msgspec.structs.replace(self._progress, verified={**self._progress.verified, table.name: follows})
            copies.note(database, self._name, msgspec.msgpack.encode(changed))
            return changed

        self._progress = await self._target.engine.run("", job)

    async def _note(self, **changes: Any) -> None:
        """Keep how far it is."""
        self._progress = msgspec.structs.replace(self._progress, **changes)
        await self._target.engine.run("", copies.note, self._name, msgspec.msgpack.encode(self._progress))


class Comparison(NamedTuple):
    """What one reading of a table in both databases has found."""

    #: what the target holds now
    held: TableSum
    #: keys of the rows that differed and were written or removed
    differing: set[Row]


async def compare(source: Store, target: Store, table: Table, tell: Callable[[int], object]) -> Comparison:
    """Make the target hold what the source holds of a table; ``tell`` is told of rows that were looked at."""
    held, differing = TableSum(), set[Row]()
    after: Row | None = None
    limit = LEAST_ROWS
    while True:
        chunk = await source.engine.run("", _read_chunk, table, after, limit)
        found = await target.engine.run("", _read_range, table, chunk)
        if found != chunk.rows:
            here, there = (dict(zip(map(_keys(table), rows), rows, strict=True)) for rows in (chunk.rows, found))
            gone = [key for key in there if key not in here]
            rows = [row for key, row in here.items() if there.get(key) != row]
            await target.engine.run("", _write, table, rows, gone)
            differing.update(gone, map(_keys(table), rows))
            found = await target.engine.run("", _read_range, table, chunk)
        held = held.with_rows(table.name, found)
        tell(len(chunk.rows))
        if chunk.last is None:
            return Comparison(held, differing)
        after, limit = chunk.last, _next_limit(chunk.rows)


def _parts(keys: list[tuple[Row, Row]]) -> Iterator[list[tuple[Row, Row]]]:
    """Give keys in parts of one transaction each."""
    for begin_at in range(0, len(keys), KEYS_AT_ONCE):
        yield keys[begin_at : begin_at + KEYS_AT_ONCE]


def _next_limit(rows: list[Row]) -> int:
    """Return how many rows the next chunk has, by the bytes of this one's."""
    size = sum(len(value) for row in rows for value in row if isinstance(value, (str, bytes)))
    fitting = CHUNK_BYTES * len(rows) // max(size, 1)
    return max(1, min(fitting, len(rows) * 4, MOST_ROWS))


def _read_chunk(database: Database, table: Table, after: Row | None, limit: int) -> Chunk:
    """Read the next chunk; the last one has no end."""
    condition, values = _behind(table, after)
    statement = f"{_select(table)} WHERE {condition} ORDER BY {_key(table)} LIMIT ?"
    rows = [_neutral(row) for row in database.all(statement, (*values, limit))]
    return Chunk(after, _row_key(table, rows[-1]) if len(rows) == limit else None, rows)


def _read_range(database: Database, table: Table, chunk: Chunk) -> list[Row]:
    condition, values = _behind(table, chunk.after)
    if chunk.last is not None:
        condition += f" AND ({_key(table)}) <= ({', '.join('?' * len(chunk.last))})"
        values = (*values, *chunk.last)
    statement = f"{_select(table)} WHERE {condition} ORDER BY {_key(table)}"
    return [_neutral(row) for row in database.all(statement, values)]


def _read_keys(database: Database, table: Table, keys: Sequence[Row]) -> list[Row]:
    """Read the rows of keys that are there, in the order of the keys."""
    condition = " AND ".join(f"{name} = ?" for name in table.key)
    statement = f"{_select(table)} WHERE {condition}"
    found = database.each(lambda key: database.one(statement, key), keys)
    return [_neutral(row) for row in found if row is not None]


def _write(database: Database, table: Table, rows: Sequence[Row], gone: Sequence[Row]) -> None:
    """Remove the rows of keys and write others; a row that is there is changed, so no trigger on deletions sees it."""
    condition = " AND ".join(f"{name} = ?" for name in table.key)
    database.run_each(f"DELETE FROM {table.name} WHERE {condition}", gone)  # noqa: S608 - the schema's own names
    others = [name for name in table.columns if name not in table.key]
    change = f"DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in others)}" if others else "DO NOTHING"
    marks = ", ".join("?" * len(table.columns))
    insert = f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES ({marks}) "  # noqa: S608
    database.run_each(f"{insert} ON CONFLICT ({_key(table)}) {change}", rows)


def _select(table: Table) -> str:
    return f"SELECT {', '.join(table.columns)} FROM {table.name}"  # noqa: S608 - the schema's own names


def _key(table: Table) -> str:
    return ", ".join(table.key)


def _keys(table: Table) -> Callable[[Row], Row]:
    """Return what finds the key of a row."""
    places = [table.columns.index(name) for name in table.key]
    return lambda row: tuple([row[place] for place in places])


def _row_key(table: Table, row: Row) -> Row:
    return _keys(table)(row)


def _key_of(table: Table, logged: LoggedKey) -> tuple[Row, Row]:
    """Return a logged key as the source has it, and as the target does."""
    key = tuple(
        part.decode() if isinstance(part, bytes) and name in table.text_keys else part
        for name, part in zip(table.key, logged, strict=True)
    )
    return key, _neutral(key)


def _behind(table: Table, after: Row | None) -> tuple[str, Row]:
    """Return the condition for rows behind a key, and its values."""
    if after is None:
        return "1 = 1", ()
    return f"({_key(table)}) > ({', '.join('?' * len(after))})", after


def _neutral(row: Row) -> Row:
    """Return a row as any engine holds it: a server's texts have no U+0000."""
    return tuple(_neutral_values(row))


def _neutral_values(row: Row) -> Iterator[Any]:
    for value in row:
        yield value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value


def _digest(name: str, row: Row) -> int:
    return int.from_bytes(hashlib.sha256(msgspec.msgpack.encode((name, row))).digest())
