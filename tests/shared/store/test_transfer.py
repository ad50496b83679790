"""Everything moves from one database to another and back: resumed, verified, and over nothing of somebody else."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path

import psycopg
import pytest

from gateway.cli.main import main
from shared.budgets import Budget, Budgets, BudgetWindow, Scope
from shared.command import CommandKind
from shared.errors import StoreUnusable
from shared.journal import CallIntent, StepOpening
from shared.messages import Parked, Step, Summary
from shared.store import Store, open_store, transfer
from shared.store.engine import Database
from shared.store.postgres.engine import TABLES
from shared.store.sql.schema import MIGRATIONS
from shared.store.sqlite.schema import OWN_TABLES, Table, moved_tables
from shared.traces import AuditEntry
from shared.usage import Usage
from tests.postgres_server import shared_server
from tests.shared.store.scratch import Scratch, ended, sqlite

BUDGETS = Budgets((Budget(Scope.USER, 10**6, False, BudgetWindow.DAY),))
USED = Usage(1, 0, 500, 100)
COLUMN_TYPES = "SELECT type FROM pragma_table_info(?) ORDER BY cid"


async def fill(scratch: Scratch) -> None:
    """Leave something in every table that a turn touches, in more rows than one chunk has."""
    store = scratch.store
    for number in range(3):
        message = await scratch.accept(f"a:b:{number}", f"nul \0 and {number}")
        claim = await scratch.claim_one()
        long = tuple(b"%d" % n for n in range(250))
        await store.claims.settle(claim.ref, ended("one", messages=long, todo=b"[1]", usage=USED))
        assert message
    await scratch.die("poison", "a:b:dead")
    await scratch.accept("a:b:0")
    (claim,) = (await store.claims.claim("host", 1, 30, budgets=BUDGETS)).claims
    await store.claims.checkpoint(claim.ref, [Step(1, (b"3",), usage=USED)], Summary(1, "one thing was said"))
    await store.claims.journal(claim.ref, [StepOpening(2, (b"4",)), CallIntent(2, "call_1", "note", "key")])
    await scratch.order(CommandKind.NEW, "a:b:0")
    await store.claims.settle(claim.ref, Parked())
    await store.sessions.pair("a:stranger", "123456")


def run(source: str, target: str, *options: str) -> int:
    """Run the command."""
    return main(["migrate", "--from", source, "--to", target, *options])


async def made(tmp_path: Path) -> str:
    """Make a database with something in it, and return its url."""
    scratch = Scratch(sqlite, tmp_path)
    scratch.clock.now = time.time()
    await scratch.open()
    await fill(scratch)
    await scratch.close()
    return f"sqlite:///{tmp_path}/data/gatehouse.db"


async def test_all_moves_to_a_server_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = await made(tmp_path)
    server, back = shared_server().url(), f"sqlite:///{tmp_path}/back.db"
    assert await asyncio.to_thread(run, source, server) == 0
    there = capsys.readouterr().out
    assert "moved and verified" in there
    assert "750 history" in there
    assert await asyncio.to_thread(run, server, back) == 0
    assert capsys.readouterr().out == there  # the counts and the checksum
    assert await asyncio.to_thread(run, source, f"{server}_none") == 1
    assert "does not exist" in capsys.readouterr().err
    assert await asyncio.to_thread(run, source, server) == 1  # the first was killed behind its end, say
    assert "was moved here before: start the gateway on it" in capsys.readouterr().err


async def test_every_table_of_both_engines_is_moved_and_back_or_belongs_to_one_database_alone(tmp_path: Path) -> None:
    moved = moved_tables()
    server = opened(shared_server().url())
    kept, back = Scratch(sqlite, tmp_path / "kept"), Scratch(sqlite, tmp_path / "back")
    stores = [await kept.open(), server, await back.open()]
    await server.open()
    found = await server.engine.run("", lambda database: database.all(TABLES))
    named = {table.name for table in moved} | OWN_TABLES | {"schema_version"}
    assert {name for (name,) in found} == named
    for table in moved:  # a value of its type in every column of every one
        types = await kept.store.engine.run("", lambda database, name: database.all(COLUMN_TYPES, (name,)), table.name)
        insert = f"INSERT INTO {table.name} VALUES ({', '.join('?' * len(types))})"
        values = tuple({"INTEGER": 7, "REAL": 7.5, "TEXT": "seven \0", "BLOB": b"7"}[str(kind)] for (kind,) in types)
        await kept.store.engine.run("", lambda database, *row: database.run(*row), insert, values)
    reports = []
    for one, two in itertools.pairwise(stores):
        moving = await begun(one, two)
        await moving.finish()
        reports.append(moving.report)
    assert [report.rows for report in reports] == [{table.name: 1 for table in moved}] * 2
    assert reports[0].checksum == reports[1].checksum
    for store in stores:
        await store.close()


async def test_the_moved_one_goes_on_where_the_old_one_was(tmp_path: Path) -> None:
    await made(tmp_path)
    scratch = Scratch(sqlite, tmp_path)
    scratch.clock.now = time.time()
    old = await scratch.open()
    target = shared_server().url()
    moved = opened(target)
    await moved.open()
    first = await begun(old, moved)
    again = await begun(old, moved)  # as a call that was killed goes on
    assert (again.is_verified, await again.copy(never), again.report) == (True, 0, first.report)
    await scratch.store.inbox.accept(scratch.arrival("a:b:late", id="msg_late", dedupe="late"))
    assert 0 < await again.catch_up() < 10
    await again.finish()
    last = await old.engine.run("", lambda database: database.last_epoch())
    assert (await moved.engine.run("", lambda database: database.next_epochs(1)))[0] > last
    await moved.close()
    reopened = opened(target)
    await reopened.open()
    assert await reopened.inbox.waiting() == await old.inbox.waiting()
    assert (await reopened.claims.claim("host", 10, 30)).claims[0].steps
    await reopened.close()
    await scratch.close()


@pytest.mark.parametrize("way", ["to a server", "and back"])
async def test_what_changes_beside_a_move_is_all_taken_over_and_nothing_else_is_looked_at(
    tmp_path: Path, way: str
) -> None:
    await made(tmp_path)
    scratch = Scratch(sqlite, tmp_path)
    scratch.clock.now = time.time()
    store, server = await scratch.open(), opened(shared_server().url())
    await server.open()
    if way == "and back":
        await (await begun(store, server)).finish()
        back = await Scratch(sqlite, tmp_path / "back").open()
        source, target = server, back
    else:
        source, target = store, server
    for table in moved_tables():  # a deletion and a change of every key, in every table
        await source.engine.run("", both_keys, table)
    moving = await begun(source, target)
    before = moving.report
    for table in moved_tables():
        await source.engine.run("", amend, table)
    await source.sessions.delete("a:b:1")  # history by hundreds, and what a trigger takes with it
    assert await moving.catch_up() > 300
    assert moving.report.checksum != before.checksum
    assert await moving.catch_up() == 0 or way == "and back"  # a server shows an entry until nobody is behind it
    for table in moved_tables():
        found = await transfer.compare(source, target, table, never)
        assert (table.name, found.differing) == (table.name, set())
        assert moving.report.rows[table.name] == found.held.count
    whole = {table.name: (await transfer.compare(source, target, table, never)).held for table in moved_tables()}
    assert sum(int(held.checksum, 16) for held in whole.values()) % 2**256 == int(moving.report.checksum, 16)
    for one in {id(each): each for each in (store, source, target)}.values():
        await one.close()


async def test_a_change_that_was_not_logged_and_a_log_of_an_older_copy_are_told(tmp_path: Path) -> None:
    await made(tmp_path)
    scratch = Scratch(sqlite, tmp_path)
    store, server = await scratch.open(), opened(shared_server().url())
    await server.open()
    moving = await transfer.Transfer.begun(store, server, "old")
    await moving.copy(never)
    other = "UPDATE todos SET todo = ?"
    await server.engine.run("", lambda database: database.run(other, (b"[9]",)))
    with pytest.raises(StoreUnusable, match="rows of todos differ after the copy, and no change of them was logged"):
        await moving.verify(never)
    moving = await begun(store, server)
    await store.engine.run("", lambda database: database.run(other, (b"[2]",)))
    await moving.catch_up()
    assert (await begun(store, server)).is_verified
    await store.engine.run("", lambda database: database.run("DELETE FROM change_log"))  # as in a backup of before
    assert not (await transfer.Transfer.begun(store, server, "old")).is_verified
    for one in (store, server):
        await one.close()


async def test_a_database_that_holds_something_of_its_own_is_not_taken(tmp_path: Path) -> None:
    moved = opened(shared_server().url())
    await moved.open()
    await transfer.begin(moved, "one")
    await transfer.begin(moved, "one")
    with pytest.raises(StoreUnusable, match="copy of one that is not whole"):
        await transfer.begin(moved, "two")
    await moved.close()
    with pytest.raises(StoreUnusable, match="copy of one that is not whole yet: stop the gateway there"):
        await moved.open()  # what it accepted would be lost
    other = Scratch(sqlite, tmp_path / "other")
    store = await other.open()
    await other.accept()
    with pytest.raises(StoreUnusable, match="lost, in dedupe, inbox, sessions"):
        await transfer.begin(store, "one")
    await other.close()
    audited = Scratch(sqlite, tmp_path / "audited")
    store = await audited.open()
    await store.audit.add(AuditEntry(1.0, "turn_interrupted", "ann", "a:b:c", "127.0.0.1"))
    with pytest.raises(StoreUnusable, match="lost, in audit"):
        await transfer.begin(store, "one")
    await audited.close()


@pytest.mark.parametrize("option", ["--from", "--to"])
async def test_a_servers_database_of_another_schema_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    source, url = await made(tmp_path), shared_server().url()
    older = opened(url)
    await older.open()
    await older.close()
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("UPDATE schema_version SET version = version - 1")
        assert await asyncio.to_thread(run, *((source, url) if option == "--to" else (url, source))) == 1
        assert f"has schema {len(MIGRATIONS) - 1}, and this release reads" in capsys.readouterr().err
        assert other.execute("SELECT version FROM schema_version").fetchall() == [(len(MIGRATIONS) - 1,)]


async def test_what_a_gateway_still_writes_is_copied_so_far_and_followed_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = await made(tmp_path)
    scratch = Scratch(sqlite, tmp_path)
    store = await scratch.open()
    target = shared_server().url()
    assert await asyncio.to_thread(run, source, target) == 0
    said = capsys.readouterr()
    assert "so far, while the gateway runs on" in said.out
    assert "stop the gateway" in said.err
    await store.inbox.accept(scratch.arrival("a:b:late", id="msg_late", dedupe="late"))
    following = asyncio.create_task(asyncio.to_thread(run, source, target, "--follow"))
    while "following" not in (said := capsys.readouterr()).err:
        assert not following.done(), said
        await asyncio.sleep(0.02)
    await store.inbox.accept(scratch.arrival("a:b:later", id="msg_later", dedupe="later"))
    await scratch.close()
    assert await following == 0
    assert "moved and verified" in capsys.readouterr().out
    reopened = opened(target)
    await reopened.open()
    assert {(await reopened.inbox.trace(name)).session for name in ("msg_late", "msg_later")} == {
        "a:b:late",
        "a:b:later",
    }
    await reopened.close()


async def test_a_move_that_is_given_up_leaves_no_log_behind(tmp_path: Path) -> None:
    source, target = await made(tmp_path), shared_server().url()
    scratch = Scratch(sqlite, tmp_path)
    store = await scratch.open()
    logs = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '%change%'"
    none = await store.engine.run("", lambda database: database.only(logs))
    assert await asyncio.to_thread(run, source, target) == 0
    assert await store.engine.run("", lambda database: database.only(logs)) != none
    assert await asyncio.to_thread(run, source, target, "--cancel") == 0
    assert await store.engine.run("", lambda database: database.only(logs)) == none
    await scratch.close()


def never(_: int) -> None:
    """Show no progress."""


async def begun(source: Store, target: Store) -> transfer.Transfer:
    """Copy and verify all that is there."""
    moving = await transfer.Transfer.begun(source, target, "old")
    await moving.copy(never)
    await moving.verify(never)
    return moving


def row_of(table: Table, number: int) -> tuple[object, ...]:
    """Return a row of a table whose key nobody else has."""
    return tuple(f"z{number}" if name in table.text_keys else number for name in table.key)


def both_keys(database: Database, table: Table) -> None:
    """Add two rows to a table, by copying one of it where it has any."""
    others = [name for name in table.columns if name not in table.key]
    unique = {"id": "id || ?"} if table.name == "inbox" else {}
    for number in (900, 901):
        values = [unique.get(name, name) for name in others]
        statement = (
            f"INSERT INTO {table.name} ({', '.join((*table.key, *others))}) SELECT "
            f"{', '.join((*['?'] * len(table.key), *values))} FROM {table.name} ORDER BY {', '.join(table.key)} LIMIT 1"
        )
        database.run(statement, (*row_of(table, number), *[f"z{number}"] * len(unique)))


def amend(database: Database, table: Table) -> None:
    """Remove one of these, and give the other one another key."""
    condition = " AND ".join(f"{name} = ?" for name in table.key)
    database.run(f"DELETE FROM {table.name} WHERE {condition}", row_of(table, 900))
    change = ", ".join(f"{name} = ?" for name in table.key)
    database.run(f"UPDATE {table.name} SET {change} WHERE {condition}", (*row_of(table, 902), *row_of(table, 901)))


def opened(url: str) -> Store:
    """Return the unopened store of a server's database."""
    return open_store(url, Path("/nowhere"), inbox_limit=10**6)
