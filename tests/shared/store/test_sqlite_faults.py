"""What the embedded engine does when its disk, its file or its process fails: say so, lose nothing, go on."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import apsw
import msgspec
import pytest

from shared.errors import StoreDamaged, StoreUnavailable, StoreUnusable
from shared.messages import Receipt
from shared.store import Store, open_store
from shared.store.sql.schema import MIGRATIONS
from shared.store.sqlite.database import SqliteDatabase
from shared.store.sqlite.engine import SqliteEngine
from shared.store.sqlite.schema import migrate
from tests.shared.store.acceptor import Report
from tests.shared.store.scratch import Scratch, ended, sqlite

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
async def scratch(tmp_path: Path) -> AsyncIterator[Scratch]:
    """An open, empty database of the embedded engine."""
    scratch = Scratch(sqlite, tmp_path)
    await scratch.open()
    yield scratch
    await scratch.close()


@pytest.fixture
def store(scratch: Scratch) -> Store:
    """The store of the scratch database."""
    return scratch.store


@pytest.fixture
def engine(store: Store) -> SqliteEngine:
    """Its engine, for tests that reach into the connection."""
    assert isinstance(store.engine, SqliteEngine)
    return store.engine


@pytest.fixture
def database(scratch: Scratch, tmp_path: Path) -> Path:
    """The path of the scratch database."""
    return tmp_path / "data" / "gatehouse.db"


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A directory that every user may enter."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def start(what: str, directory: Path) -> subprocess.Popen[bytes]:
    """Start the acceptor."""
    command = [sys.executable, "-m", "tests.shared.store.acceptor", what, str(directory)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE)


def report(what: str, directory: Path) -> Report:
    """Run the acceptor to its end and return what it reports."""
    with start(what, directory) as process:
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    return msgspec.json.decode(output, type=Report)


def make_other_database(path: Path, script: str) -> None:
    """Write a database of another program or another time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = apsw.Connection(str(path))
    db.execute(script)
    db.close()


@contextlib.contextmanager
def damaged(path: Path, offset: int, size_bytes: int) -> Iterator[bytes]:
    """Overwrite a part of a file, yield what the file holds then, and put the part back."""
    whole = path.read_bytes()
    broken = whole[:offset] + b"\xff" * size_bytes + whole[offset + size_bytes :]
    path.write_bytes(broken)
    yield broken
    path.write_bytes(path.read_bytes()[:offset] + whole[offset : offset + size_bytes] + whole[offset + size_bytes :])


def content(path: Path) -> bytes:
    """Return what a file holds."""
    return path.read_bytes()


def root_page(path: Path, table: str) -> int:
    """Return the number of a table's first page."""
    db = apsw.Connection(str(path))
    page = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).get
    db.close()
    assert isinstance(page, int)
    return page


class TestKill:
    @pytest.mark.parametrize("acknowledged", [1, 300, 2000])
    async def test_a_killed_process_loses_nothing_it_acknowledged(self, tmp_path: Path, acknowledged: int) -> None:
        with start("accept", tmp_path) as process:
            assert process.stdout
            ids = [process.stdout.readline() for _ in range(acknowledged)]
            process.send_signal(signal.SIGKILL)
            ids += process.stdout.readlines()
        store = open_store("", tmp_path, inbox_limit=1_000_000)
        await store.open()
        try:
            for line in ids:
                if line.endswith(b"\n"):
                    assert (await store.inbox.trace(line.decode().strip())).state == "waiting"
            assert await store.inbox.waiting() >= acknowledged
        finally:
            await store.close()

    async def test_a_second_process_is_refused_until_the_first_is_gone(self, tmp_path: Path) -> None:
        with start("accept", tmp_path) as process:
            assert process.stdout
            process.stdout.readline()
            store = open_store("", tmp_path, inbox_limit=10)
            with pytest.raises(StoreUnusable, match=f"{tmp_path}/gatehouse.db is in use by another process"):
                await store.open()
            with pytest.raises(StoreUnavailable):
                await store.check()
            process.kill()
            process.communicate(timeout=30)
        await store.open()
        await store.check()
        await store.close()


class TestRestart:
    async def test_a_restart_ends_the_leases_of_the_dead(self, scratch: Scratch) -> None:
        await scratch.answer("hello")
        await scratch.store.outbox.due("host", 1, 30)
        store = await scratch.open()
        (reply,) = (await store.outbox.due("host", 1, 30)).replies
        assert reply.attempts == 1


class TestFull:
    def test_a_full_disk_refuses_and_loses_nothing_and_ends(self, tmp_path: Path) -> None:
        fault = report("full", tmp_path)
        assert fault.refused > 0
        assert fault.waiting_in_fault == fault.before
        assert fault.after == fault.refused
        assert fault.waiting_after == 400

    async def test_a_full_database_fails_every_write_and_no_read(
        self, scratch: Scratch, store: Store, engine: SqliteEngine
    ) -> None:
        first = await scratch.accept()
        await engine.writer.run(limit_pages, 0)
        arrivals = [scratch.arrival(f"a:b:{n}", text="x" * 5000) for n in range(50)]
        results = await asyncio.gather(*(store.inbox.accept(a) for a in arrivals), return_exceptions=True)
        assert any(isinstance(result, StoreUnavailable) for result in results)
        assert all(isinstance(result, StoreUnavailable | Receipt) for result in results)
        accepted = sum(isinstance(result, Receipt) for result in results)
        assert await store.inbox.waiting() == 1 + accepted
        assert (await store.inbox.trace(first)).id == first
        await engine.writer.run(limit_pages, 1_000_000)
        for arrival in arrivals:
            await store.inbox.accept(arrival)
        assert await store.inbox.waiting() == 51

    async def test_a_full_database_fails_a_settle_whole(
        self, scratch: Scratch, store: Store, engine: SqliteEngine
    ) -> None:
        claim = await scratch.accept_and_claim()
        await engine.writer.run(limit_pages, 0)
        big = ended("hello", messages=(b"x" * 100_000,) * 10)
        with pytest.raises(StoreUnavailable):
            await store.claims.settle(claim.ref, big)
        assert (await store.sessions.conversation("a:b:c")).messages == ()
        await engine.writer.run(limit_pages, 1_000_000)
        await store.claims.settle(claim.ref, big)
        assert len((await store.sessions.conversation("a:b:c")).messages) == 10
        assert await store.inbox.waiting() == 0


def limit_pages(database: SqliteDatabase, pages: int) -> None:
    """Let the database have no more pages than this, or than it has now."""
    database.db.pragma("max_page_count", max(pages, database.db.pragma("page_count")))


class TestReadOnly:
    def test_a_read_only_file_is_unusable(self, open_to_all: Path) -> None:
        database = open_to_all / "gatehouse.db"
        make_other_database(database, MIGRATIONS[0] + "; PRAGMA user_version = 1")
        database.chmod(0o444)
        open_to_all.chmod(0o555)
        assert str(database) in report("readonly", open_to_all).error


class TestCorrupt:
    async def test_a_file_that_is_no_database_is_unusable(self, tmp_path: Path) -> None:
        (tmp_path / "gatehouse.db").write_bytes(b"this is no database at all" * 1000)
        with pytest.raises(StoreUnusable, match=f"{tmp_path}/gatehouse.db cannot be used as a database"):
            await open_store("", tmp_path, inbox_limit=10).open()

    async def test_a_damaged_file_is_unusable_and_kept(self, scratch: Scratch, database: Path) -> None:
        await scratch.accept()
        await scratch.close()
        with damaged(database, 100, 4000) as bytes_before:
            with pytest.raises(StoreUnusable, match="cannot be used as a database"):
                await scratch.open()
            assert content(database) == bytes_before
        store = await scratch.open()
        assert await store.inbox.waiting() == 1

    async def test_damage_that_an_opening_does_not_meet_is_found_by_verifying(
        self, scratch: Scratch, database: Path
    ) -> None:
        await scratch.answer("hello", messages=(b"x" * 500,) * 100)
        await scratch.store.verify()
        await scratch.close()
        with damaged(database, (root_page(database, "history") - 1) * 4096, 4096):
            store = await scratch.open()
            with pytest.raises(StoreUnusable, match=f"{database} is damaged"):
                await store.verify()
            await scratch.close()

    async def test_a_damaged_page_ends_all_acceptance_once_it_is_found(self, scratch: Scratch, database: Path) -> None:
        await scratch.answer("hello", messages=(b"x" * 500,) * 100)
        await scratch.close()
        with damaged(database, (root_page(database, "history") - 1) * 4096, 4096):
            store = await scratch.open()
            await scratch.accept("a:b:before")
            with pytest.raises(StoreDamaged):
                await store.sessions.conversation("a:b:c")
            results = await asyncio.gather(*(scratch.accept(f"a:b:{n}") for n in range(9)), return_exceptions=True)
        assert all(isinstance(result, StoreDamaged) for result in results)

    async def test_a_newer_schema_is_unusable(self, tmp_path: Path) -> None:
        make_other_database(tmp_path / "gatehouse.db", "PRAGMA user_version = 999")
        with pytest.raises(StoreUnusable, match="schema 999, written by a newer Gatehouse"):
            await open_store("", tmp_path, inbox_limit=10).open()

    async def test_another_programs_database_is_unusable(self, tmp_path: Path) -> None:
        make_other_database(tmp_path / "gatehouse.db", "CREATE TABLE bookmarks (url TEXT)")
        with pytest.raises(StoreUnusable, match="another program"):
            await open_store("", tmp_path, inbox_limit=10).open()

    async def test_a_path_that_cannot_be_written_is_unusable(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        for directory in (tmp_path / "file", Path("/proc/nowhere")):
            with pytest.raises(StoreUnusable, match=str(directory)):
                await open_store("", directory, inbox_limit=10).open()


class TestLocked:
    async def test_a_lock_of_another_tool_is_waited_for_and_then_said(
        self, scratch: Scratch, store: Store, database: Path
    ) -> None:
        tool = apsw.Connection(str(database))
        tool.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="locked"):
            await scratch.accept()
        assert time.monotonic() - started < 5
        tool.execute("ROLLBACK")
        tool.close()
        await scratch.accept()
        assert await store.inbox.waiting() == 1


def test_a_clock_that_jumps_ten_days_and_back_keeps_every_length(tmp_path: Path) -> None:
    shown, passed = 1_800_000_000.0, 50.0
    with contextlib.closing(apsw.Connection(str(tmp_path / "gatehouse.db"))) as db:
        migrate(db, tmp_path)
        database = SqliteDatabase(db, lambda: shown, steady=lambda: passed)
        began = database.now()
        for jump_s in (864_000, -864_000, -864_000, 864_000):
            shown, passed = shown + 5 + jump_s, passed + 5
            assert database.now() - began <= passed - 50
        assert database.now() >= began
        shown, passed = shown + 864_000, passed + 864_000  # a machine that slept
        assert database.now() - began == pytest.approx(864_010, abs=11)
