"""How the embedded engine works: one thread, shared commits, index walks, private files, and a door that picks it."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import pkgutil
import re
import threading
import time
from pathlib import Path

import apsw
import pytest

from shared.store import open_store
from shared.store.sql import tables
from shared.store.sql.schema import MIGRATIONS
from shared.store.sqlite import change_log
from shared.store.sqlite.database import SqliteDatabase
from shared.store.sqlite.engine import SqliteEngine
from shared.store.sqlite.schema import migrate
from tests.shared.store.scratch import Scratch, ended, sqlite

#: statements that walk a whole table or index, and may: at the start, because they list or count what is not done, or
#: because the table has a row for each running turn alone
WALKS = {
    ("audit", "LATEST"),
    ("audit", "OLDEST_ACT"),
    ("audit", "OLDEST_REFUSED"),
    ("change_log", "STATE"),  # the schema, for the triggers of each table
    ("due_replies", "LEASE"),
    ("due_replies", "LEASE_OF_OTHERS"),
    ("hosts", "EXPIRE"),
    ("hosts", "LIVE"),
    ("hosts", "PEERS"),
    ("inbox", "COUNT_DEAD"),
    ("inbox", "COUNT_WAITING"),
    ("outbox", "COUNT_UNSENT"),
    ("outbox", "UNSENT"),
    ("pairings", "COUNT"),
    ("pairings", "LET_IN"),
    ("pairings", "WAITING"),
    ("refused_replies", "COUNT"),
    ("refused_replies", "LIST"),
    ("sessions", "FOREIGN"),
    ("spending", "SPENT_BY_ALL"),
    ("spending", "HELD"),
}


#: parts of statements
FRAGMENTS = {
    "ASKED_FOR",
    "IS_CLAIMED",
    "IS_NEW",
    "IS_READY_IF_IT_RESTED",
    "PLACE",
    "OWN",
    "OWN_OR_LATE",
    "REPLY_PLACE",
    "SPENT",
    "WAS_BEGUN",
}


def statements() -> list[tuple[str, str, str]]:
    """Return (table, name, sql) of every statement of the table modules."""
    found = []
    for module in pkgutil.iter_modules(tables.__path__):
        names = vars(importlib.import_module(f"{tables.__name__}.{module.name}"))
        constants = {name: value for name, value in names.items() if name.isupper() and name not in FRAGMENTS}
        found += [(module.name, name, sql) for name, sql in constants.items() if isinstance(sql, str)]
    return found


@pytest.mark.parametrize(("table", "name", "sql"), statements(), ids=lambda value: value if len(value) < 30 else "")
def test_no_statement_grows_with_all_sessions(table: str, name: str, sql: str) -> None:
    if (table, name) in WALKS:
        return
    db = apsw.Connection(":memory:")
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)  # as the engine has it: no plan depends on the values bound
    migrate(db, Path())
    db.execute(change_log.MAKE)  # as it is while a move is on
    bindings = (1,) * (len(set(re.findall(r"\?\d+", sql))) or sql.count("?"))
    plan = [str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", bindings)]
    db.close()
    scans = [
        line
        for line in plan
        if line.startswith("SCAN") and line not in {"SCAN CONSTANT ROW", "SCAN one_row", "SCAN hosts", "SCAN found"}
    ]
    # A walk in index order that stops at its limit is none over all rows.
    limited = "LIMIT" in sql or "EXISTS" in sql
    assert all(limited and "INDEX" in line for line in scans), plan
    assert not any("TEMP B-TREE" in line for line in plan), plan


def test_every_statement_says_what_it_is_for() -> None:
    for module in Path(tables.__path__[0]).glob("*.py"):
        lines = module.read_text().splitlines()
        for above, line in itertools.pairwise(lines):
            if re.match(r"[A-Z_]+ = \"", line):
                assert above.startswith("# "), f"{module.name}: {line}"


async def test_callers_at_once_share_commits(tmp_path: Path) -> None:
    scratch = Scratch(sqlite, tmp_path)
    store = await scratch.open()
    assert isinstance(store.engine, SqliteEngine)
    commits = itertools.count()
    await store.engine.writer.run(lambda database: database.db.set_commit_hook(lambda: next(commits) < 0))
    await asyncio.gather(*(scratch.accept(f"a:b:{number}") for number in range(400)))
    await scratch.close()
    assert 0 < next(commits) < 40


async def test_what_is_asked_for_behind_a_write_finds_it_and_shares_its_commit(tmp_path: Path) -> None:
    scratch = Scratch(sqlite, tmp_path)
    store = await scratch.open()
    assert isinstance(store.engine, SqliteEngine)
    commits = store.engine.writer.commits
    _, found = await asyncio.gather(scratch.accept("a:b:c"), store.claims.claim("host", 1, 30))
    assert [claim.ref.session for claim in found.claims] == ["a:b:c"]
    end = store.claims.settle(found.claims[0].ref, ended("well"))
    _, due = await asyncio.gather(end, store.outbox.due("host", 1, 30))
    assert [reply.text for reply in due.replies] == ["well"]
    assert store.engine.writer.commits == commits + 2
    await scratch.close()


async def test_the_loop_goes_on_while_the_store_is_busy(tmp_path: Path) -> None:
    scratch = Scratch(sqlite, tmp_path)
    store = await scratch.open()
    assert isinstance(store.engine, SqliteEngine)
    threads = []

    def hang(_: SqliteDatabase) -> None:
        threads.append(threading.current_thread())
        time.sleep(0.3)

    busy = asyncio.ensure_future(store.engine.writer.run(hang))
    turns = 0
    while not busy.done():
        await asyncio.sleep(0.001)
        turns += 1
    await scratch.close()
    assert turns > 50
    assert threads != [threading.current_thread()]


async def test_the_log_is_copied_back_into_the_database(tmp_path: Path) -> None:
    scratch = Scratch(sqlite, tmp_path)
    store = await scratch.open()
    for _ in range(40):
        claim = await scratch.accept_and_claim()
        await store.claims.settle(claim.ref, ended("", messages=(b"x" * 1_000_000,)))
    await store.check()
    log_size = (tmp_path / "data" / "gatehouse.db-wal").stat().st_size
    await scratch.close()
    assert log_size < 36_000_000


def mode(path: Path) -> int:
    """Return who may do what with a file."""
    return path.stat().st_mode & 0o777


def modes(directory: Path) -> dict[str, int]:
    """Return the same of every file in a directory."""
    return {path.name: mode(path) for path in directory.iterdir()}


@pytest.fixture
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory the test works in, which other users may enter."""
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    return tmp_path


async def test_files_are_private(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o755)
    scratch = Scratch(sqlite, tmp_path)
    await scratch.open()
    await scratch.accept()
    found = modes(directory)
    await scratch.close()
    assert mode(directory) == 0o700
    endings = ("", "-wal", "-shm", "-synced", ".lock")
    assert found == dict.fromkeys((f"gatehouse.db{ending}" for ending in endings), 0o600)


async def test_a_database_url_names_the_file_and_leaves_its_directory_alone(
    tmp_path: Path, working_directory: Path
) -> None:
    for url, path in (("sqlite:///near.db", "near.db"), (f"sqlite:///{tmp_path}/far.db", "far.db")):
        store = open_store(url, tmp_path / "data", inbox_limit=10)
        await store.open()
        await store.close()
        assert path in modes(tmp_path)
    assert mode(working_directory) == 0o755
    assert "data" not in modes(tmp_path)


async def test_the_working_directory_is_not_closed_to_others(working_directory: Path) -> None:
    store = open_store("", Path(), inbox_limit=10)
    await store.open()
    await store.close()
    assert mode(working_directory) == 0o755


async def test_a_database_of_every_earlier_schema_is_brought_forward(tmp_path: Path) -> None:
    for version in range(1, len(MIGRATIONS) + 1):
        path = tmp_path / f"{version}.db"
        db = apsw.Connection(str(path))
        db.execute(";".join(MIGRATIONS[:version]) + f"; PRAGMA user_version = {version}")
        db.close()
        store = open_store(f"sqlite:///{path}", tmp_path, inbox_limit=10)
        await store.open()
        await store.check()
        await store.close()
