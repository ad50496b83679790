"""Backups: made beside a writer, whole or not there, and put back without losing what was in their place."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from shared.errors import StoreUnusable
from shared.store.sqlite.backup import back_up, part_of, restore, verified
from shared.store.sqlite.salvage import salvage
from tests.shared.store.faulty_disk import faulty_disk
from tests.shared.store.scratch import Scratch, sqlite

REPOSITORY = Path(__file__).parent.parent.parent.parent


def silent(_done: int, _total: int) -> None:
    """Show no progress."""


@pytest.fixture
async def scratch(tmp_path: Path) -> AsyncIterator[Scratch]:
    scratch = Scratch(sqlite, tmp_path)
    await scratch.open()
    yield scratch
    await scratch.close()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "data" / "gatehouse.db"


async def accept(scratch: Scratch, count: int, session: str = "a:b:c", text: str = "hello") -> list[str]:
    receipts = await asyncio.gather(*(scratch.store.inbox.accept(scratch.arrival(session, text)) for _ in range(count)))
    return [receipt.message_id for receipt in receipts]


def message_ids(path: Path) -> set[str]:
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as db:
        return {str(row[0]) for row in db.execute("SELECT id FROM inbox")}


async def test_a_backup_is_one_moment_of_a_database_that_is_written_meanwhile(
    scratch: Scratch, database: Path, tmp_path: Path
) -> None:
    before = await accept(scratch, 50, text="x" * 20_000)
    target = tmp_path / "copy.db"
    copied = threading.Event()
    go_on = threading.Event()

    def progress(done: int, total: int) -> None:
        if not copied.is_set():
            copied.set()
            assert go_on.wait(30)

    copying = asyncio.create_task(asyncio.to_thread(back_up, database, target, progress))
    await asyncio.to_thread(copied.wait, 30)
    assert "copy.db" not in names(tmp_path)
    after = await accept(scratch, 50, text="x" * 20_000)
    go_on.set()
    report = await copying
    assert message_ids(target) == set(before)
    assert (report.messages, report.sessions, report.size_bytes) == (50, 1, len(content(target)))
    assert message_ids(database) == {*before, *after}
    assert names(tmp_path) == {"data", "copy.db"}


async def test_a_backup_never_takes_the_place_of_a_file_unasked(
    scratch: Scratch, database: Path, tmp_path: Path
) -> None:
    target = tmp_path / "copy.db"
    write(target, b"precious")
    with pytest.raises(StoreUnusable, match="exists already"):
        back_up(database, target, silent)
    assert content(target) == b"precious"
    assert back_up(database, target, silent, replace=True).messages == 0


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def content(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, harmed: bytes) -> None:
    path.write_bytes(harmed)


def run_killed(what: str, source: Path, target: Path) -> None:
    """Run a backup or a restore that is killed in its middle."""
    ended = subprocess.run([sys.executable, "-c", KILLED, what, source, target], cwd=REPOSITORY, check=False)
    assert ended.returncode == -9


KILLED = """
import os, signal, sys
from pathlib import Path
from shared.store.sqlite.backup import back_up, restore
from shared.store.sqlite.salvage import salvage
steps = 0
def progress(done, total):
    global steps
    steps += 1
    if steps == 2:
        os.kill(os.getpid(), signal.SIGKILL)
{"backup": back_up, "restore": restore, "salvage": salvage}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]), progress)
"""


async def test_a_kill_leaves_no_half_file_under_the_final_name(
    scratch: Scratch, database: Path, tmp_path: Path
) -> None:
    ids = await accept(scratch, 20, text="x" * 500_000)
    target = tmp_path / "copy.db"
    run_killed("backup", database, target)
    assert "copy.db" not in names(tmp_path)
    assert back_up(database, target, silent).messages == 20
    newer = await accept(scratch, 1)
    await scratch.close()
    run_killed("restore", target, database)
    assert verified(database).messages == 21
    report = restore(target, database, silent)
    assert (report.restored.messages, report.only_in_kept) == (20, tuple(newer))
    assert message_ids(database) == set(ids)
    assert message_ids(Path(report.kept)) == {*ids, *newer}


async def test_the_next_copy_removes_what_dead_ones_left_and_never_a_live_ones(
    scratch: Scratch, database: Path, tmp_path: Path
) -> None:
    await accept(scratch, 20, text="x" * 500_000)
    await scratch.close()
    copies = tmp_path / "copies"
    copies.mkdir()
    (copies / "film.part").touch()
    with part_of(copies / "live.db") as live:
        work = live.with_name(live.name + "-work")
        work.mkdir()
        held = {"film.part", live.name, work.name}
        run_killed("salvage", database, copies / "salvage.db")
        assert {"salvage.db.gatehouse-part", "salvage.db.gatehouse-part-work"} <= names(copies)
        run_killed("backup", database, copies / "backup.db")
        assert "backup.db.gatehouse-part" in names(copies)
        back_up(database, copies / "whole.db", silent)
        assert names(copies) == {*held, "whole.db"}
        with pytest.raises(StoreUnusable, match="being written by another process"):
            back_up(database, copies / "live.db", silent)
        work.rmdir()
    run_killed("restore", copies / "whole.db", database)
    restore(copies / "whole.db", database, silent)
    assert not [name for name in names(database.parent) if "-part" in name]
    run_killed("salvage", database, copies / "salvage.db")
    salvage(database, copies / "other.db", silent)
    assert names(copies) == {"film.part", "whole.db", "other.db"}


async def test_a_restore_is_refused_while_the_database_is_in_use(
    scratch: Scratch, database: Path, tmp_path: Path
) -> None:
    target = tmp_path / "copy.db"
    back_up(database, target, silent)
    with pytest.raises(StoreUnusable, match="in use by a gateway"):
        restore(target, database, silent)
    await accept(scratch, 1)


async def test_a_damaged_backup_is_refused_and_the_database_stays(
    scratch: Scratch, database: Path, tmp_path: Path
) -> None:
    await accept(scratch, 20, text="x" * 5000)
    target = tmp_path / "copy.db"
    back_up(database, target, silent)
    await scratch.close()
    whole = content(target)
    for harmed in (
        b"",
        b"no database" * 1000,
        whole[: len(whole) // 2],
        whole[:20_480] + b"\xff" * 8192 + whole[28_672:],
    ):
        write(target, harmed)
        with pytest.raises(StoreUnusable):
            restore(target, database, silent)
    with closing(apsw.Connection(str(target.with_name("other.db")))) as db:
        db.execute("CREATE TABLE books (title TEXT)")
    with pytest.raises(StoreUnusable, match="of another program"):
        restore(target.with_name("other.db"), database, silent)
    assert verified(database).messages == 20


async def test_a_damaged_database_makes_no_backup_and_is_kept_by_a_restore(
    scratch: Scratch, database: Path, tmp_path: Path
) -> None:
    target = tmp_path / "copy.db"
    await accept(scratch, 3)
    back_up(database, target, silent)
    await accept(scratch, 20, text="x" * 5000)
    await scratch.close()
    whole = content(database)
    readable, harmed = whole[:-4096] + b"\xff" * 4096, whole[:4096] + b"\xff" * (len(whole) - 4096)
    for damaged in (readable, harmed):  # the first is copied, and found out when it is verified
        write(database, damaged)
        with pytest.raises(StoreUnusable, match=r"damaged|cannot be"):
            back_up(database, tmp_path / "second.db", silent)
        assert names(tmp_path) == {"data", "copy.db"}
    report = restore(target, database, silent)
    assert report.only_in_kept is None
    assert content(Path(report.kept)) == harmed
    await scratch.open()
    assert await scratch.store.inbox.waiting() == 3


async def test_a_full_disk_is_named_and_leaves_nothing(scratch: Scratch, database: Path, tmp_path: Path) -> None:
    await accept(scratch, 3)
    await scratch.close()
    (tmp_path / "copies").mkdir()
    with faulty_disk() as disk:
        disk.on_write = apsw.FullError("no room")
        with pytest.raises(StoreUnusable, match=r"cannot be copied: the disk of .*/copies is full"):
            back_up(database, tmp_path / "copies" / "copy.db", silent)
    assert not names(tmp_path / "copies")


def test_a_backup_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable):
        back_up(tmp_path / "none.db", tmp_path / "copy.db", silent)
    assert names(tmp_path) == set()
