"""A database of any earlier schema is brought forward with all its data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import msgspec
import pytest

from shared.errors import StoreUnusable
from shared.journal import CallIntent, StepOpening
from shared.messages import Conversation, Parked, Step
from shared.store.engine import OpeningProgress
from shared.store.sql.schema import MIGRATIONS
from shared.store.sqlite.salvage import salvage
from shared.store.sqlite.schema import check_schema, migrate
from shared.store.sqlite.table_move import ROWID_TABLES
from tests.shared.store.scratch import Scratch, sqlite

STEP = Step(1, (b'{"role":"user"}',), b"[1]")
#: the schema that has another name for the column ``user``
RENAMED_IN = 7
CONTENT = """
INSERT INTO sessions (session_key, platform, state, place, head, epoch, version, next_seq, updated_at, host, until)
  VALUES ('a:b:c', 'a', 'claimed', 1, 2, 8, 7, 3, 1.0, 'dead', 2.0);
INSERT INTO inbox (session_key, seq, id, platform, user, text, reply, at, traceparent)
  VALUES ('a:b:c', 2, 'msg_2', 'a', 'ann', 'go on', x'7b7d', 1.0, '');
INSERT INTO history (session_key, position, message) VALUES ('a:b:c', 0, x'7b7d');
INSERT INTO todos (session_key, todo) VALUES ('a:b:c', x'5b5d');
UPDATE sequences SET last = 8 WHERE name = 'epoch';
"""


@contextmanager
def connection(database: Path) -> Iterator[apsw.Connection]:
    with closing(apsw.Connection(str(database))) as db:
        yield db


def write_database(database: Path, version: int) -> None:
    """Write a database as the schema of a version had it, with a turn in it that a killed host left behind."""
    database.parent.mkdir(parents=True)
    with connection(database) as db:
        db.pragma("journal_mode", "wal")
        for script in MIGRATIONS[:version]:
            db.execute(script)
        db.execute(CONTENT if version < RENAMED_IN else CONTENT.replace(" user,", " user_id,"))
        db.execute("INSERT INTO checkpoints VALUES ('a:b:c', 1, ?)", (msgspec.msgpack.encode(STEP),))
        db.pragma("user_version", version)


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
async def test_an_older_database_is_migrated_with_its_data(tmp_path: Path, version: int) -> None:
    database = tmp_path / "data" / "gatehouse.db"
    write_database(database, version)
    scratch = Scratch(sqlite, tmp_path)
    store = await scratch.open()
    try:
        assert await store.sessions.conversation("a:b:c") == Conversation(7, (b"{}",), b"[]")
        assert await store.inbox.waiting() == 1
        claim = await scratch.claim_one()
        assert (claim.ref.epoch, claim.version, claim.messages[0].text) == (9, 7, "go on")
        assert (claim.steps, claim.open_step) == ((STEP,), None)
        await store.claims.journal(claim.ref, [StepOpening(2, (b"{}",)), CallIntent(2, "call_1", "note", "key")])
        await store.claims.settle(claim.ref, Parked())
        assert (await scratch.claim_one()).open_step is not None
    finally:
        await scratch.close()
    with connection(database) as db:
        assert db.pragma("user_version") == len(MIGRATIONS)
        kinds = db.execute("SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite%'")
        assert {name for name, without_rowid in kinds if not without_rowid} >= set(ROWID_TABLES)
        assert db.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall() == [("summaries_follow",)]


async def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    database = tmp_path / "data" / "gatehouse.db"
    write_database(database, 1)
    with connection(database) as db:
        db.execute("CREATE TABLE tool_calls (in_the_way TEXT)")
    scratch = Scratch(sqlite, tmp_path)
    with pytest.raises(Exception, match="tool_calls"):
        await scratch.open()
    with connection(database) as db:
        assert db.pragma("user_version") == 2
        assert db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'open_steps'").fetchone() == (0,)
        db.execute("DROP TABLE tool_calls")
    store = await scratch.open()
    assert await store.inbox.waiting() == 1
    await scratch.close()


class Killed(Exception):
    """What the test raises where a kill would fall."""


def write_long_database(database: Path, rows: int) -> None:
    """Write one of the first schema whose tables take many transactions to bring forward."""
    write_database(database, 1)
    with connection(database) as db:
        db.execute("BEGIN")
        for number in range(rows):
            session = f"a:b:{number % 7}"
            db.execute("INSERT INTO history VALUES (?, ?, ?)", (session, number + 1, b"{}"))
            values = (session, number + 9, f"msg_long_{number}", b"{}", "done")
            columns = "session_key, seq, id, platform, user, text, reply, at, traceparent, state"
            db.execute(f"INSERT INTO inbox ({columns}) VALUES (?, ?, ?, 'a', 'u', 'words', ?, 1.0, '', ?)", values)
        db.execute("COMMIT")


def migrate_until(database: Path, step: int) -> bool:
    """Bring a database forward and die at this step of it; tell whether it came to its end before."""
    heard: list[OpeningProgress] = []

    def die(progress: OpeningProgress) -> None:
        heard.append(progress)
        if len(heard) == step:
            raise Killed

    with connection(database) as db:
        try:
            migrate(db, database, die)
        except Killed:
            return False
    return True


def content(database: Path) -> dict[str, list[tuple[object, ...]]]:
    with connection(database) as db:
        found = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'").fetchall()
        return {str(name): sorted(db.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for (name,) in found}


def schema(database: Path) -> set[tuple[str, ...]]:
    with connection(database) as db:
        found = db.execute("SELECT type, name, replace(sql, '\"', '') FROM sqlite_schema WHERE sql IS NOT NULL")
        return {(str(kind), str(name), str(sql)) for kind, name, sql in found.fetchall()}


def test_a_migration_goes_on_wherever_it_was_killed_and_nobody_reads_the_half_of_it(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole" / "gatehouse.db", tmp_path / "killed" / "gatehouse.db"
    for database in (whole, killed):
        write_long_database(database, 700)
    assert migrate_until(whole, 0)
    kills = 0
    while not migrate_until(killed, 2):  # each try comes one step further
        kills += 1
        with connection(killed) as db, pytest.raises(StoreUnusable, match="the next start brings it there"):
            check_schema(db, killed)
    assert kills > 20
    assert (content(killed), schema(killed)) == (content(whole), schema(whole))


def test_a_database_half_way_is_salvaged_whole(tmp_path: Path) -> None:
    whole, half, new = (tmp_path / name / "gatehouse.db" for name in ("whole", "half", "new"))
    for database in (whole, half):
        write_long_database(database, 700)
    assert migrate_until(whole, 0)
    with connection(half) as db:
        assert not migrate_until(half, len(MIGRATIONS) + 1)
        assert db.execute("SELECT count(*) FROM inbox_new").get in range(1, 701)
    new.parent.mkdir()
    salvage(half, new, lambda _done, _total: None)
    assert migrate_until(new, 0)
    assert content(new)["history"] == content(whole)["history"]
    assert len(content(new)["inbox"]) == len(content(whole)["inbox"]) == 701
