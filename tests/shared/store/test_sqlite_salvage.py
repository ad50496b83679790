"""Salvage: whatever is damaged, all else is read, waits or is answered as before, and what is lost is named."""

from __future__ import annotations

import asyncio
import random
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from shared.errors import StoreUnusable
from shared.messages import Ended, TurnStatus
from shared.store.sqlite.salvage import salvage
from shared.store.sqlite.salvage.report import SalvageReport
from tests.shared.store.scratch import Scratch, sqlite

PAGE = 4096
SESSIONS = 40


def silent(_done: int, _total: int) -> None:
    """Show no progress."""


async def fill(directory: Path) -> None:
    """Write a database with answered, waiting and dead messages, small and large."""
    scratch = Scratch(sqlite, directory)
    await scratch.open()
    for number in range(SESSIONS):
        session = f"a:b:{number:03}"
        message = b'{"role": "user", "content": "' + b"x" * (number * 300) + b'"}'
        await scratch.answer(f"answer {number} " + "y" * number * 50, session, messages=(message, message), todo=b"[]")
    await scratch.die("poison", "a:b:dead")
    for number in range(0, SESSIONS, 2):
        await asyncio.gather(*(scratch.accept(f"a:b:{number:03}", "w" * 700) for _ in range(3)))
    await scratch.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory: Path = tmp_path_factory.mktemp("whole")
    asyncio.run(fill(directory))
    return (directory / "data" / "gatehouse.db").read_bytes()


@pytest.fixture
def source(tmp_path: Path, whole: bytes) -> Path:
    path = tmp_path / "damaged.db"
    path.write_bytes(whole)
    return path


def rows(path: Path) -> dict[str, set[tuple[object, ...]]]:
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as db:
        names = [str(row[0]) for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name: set(db.execute(f'SELECT * FROM "{name}"')) for name in names}


def ids(path: Path) -> set[str]:
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as db:
        return {str(row[0]) for row in db.execute("SELECT id FROM inbox")}


def root_of(path: Path, name: str) -> int:
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as db:
        return int(db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).get)


def overwrite(path: Path, page: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(content)


def salvaged(source: Path) -> tuple[Path, SalvageReport]:
    before = source.read_bytes()
    target = source.with_name("salvaged.db")
    report = salvage(source, target, silent, replace=True)
    assert source.read_bytes() == before
    assert {path.name for path in source.parent.iterdir()} >= {source.name, target.name}
    assert not list(source.parent.glob("*-part*"))
    return target, report


def put_in_place(path: Path, directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "gatehouse.db").write_bytes(path.read_bytes())


async def served(path: Path, directory: Path) -> list[str]:
    """Put a database in place and serve it to its end; return the ids of the messages that were claimed."""
    put_in_place(path, directory / "data")
    scratch = Scratch(sqlite, directory)
    store = await scratch.open()
    claimed = []
    while claims := (await store.claims.claim("host", 100, 30)).claims:
        for claim in claims:
            claimed.append(claim.messages[0].id)
            await store.claims.settle(claim.ref, ended())
    assert await store.inbox.waiting() == 0
    await store.verify()
    await store.inbox.accept(scratch.arrival("a:b:new", id="msg_fresh", dedupe="fresh"))
    assert (await scratch.claim_one()).messages[0].id == "msg_fresh"
    await scratch.close()
    return claimed


def ended() -> Ended:
    return Ended(TurnStatus.REPLIED, "late", ())


def test_a_whole_database_is_read_whole(source: Path) -> None:
    target, report = salvaged(source)
    assert report.whole, report
    found, before = rows(target), rows(source)
    assert {name: found[name] for name in before if name != "sequences"} == {
        name: before[name] for name in before if name != "sequences"
    }
    assert sum(table.rows for table in report.tables) == sum(map(len, found.values()))


def test_what_lies_in_the_log_alone_is_read_too(source: Path) -> None:
    writer = apsw.Connection(str(source))
    writer.pragma("journal_mode", "wal")
    writer.execute("UPDATE todos SET todo = x'5b315d'")
    target, report = salvaged(source)
    assert report.whole, report
    assert {row[1] for row in rows(target)["todos"]} == {b"[1]"}
    writer.close()


@pytest.mark.parametrize("seed", range(7))
def test_any_damage_costs_what_it_hit_alone_and_the_lost_messages_are_named(
    source: Path, whole: bytes, seed: int
) -> None:
    chance = random.Random(seed)
    count = len(whole) // PAGE
    hit = chance.sample(range(2, count + 1), k=chance.choice((1, 2, 5, count // 8)))
    for page in hit:
        overwrite(source, page, chance.choice((b"\x00" * PAGE, b"\xff" * PAGE, chance.randbytes(PAGE), b"\x0d" * 60)))
    before = source.with_name("whole.db")
    before.write_bytes(whole)
    target, report = salvaged(source)
    kept = ids(target)
    assert kept <= ids(before)
    missing = ids(before) - kept
    if not any("inbox_id" in note for note in report.notes):
        assert set(report.lost_messages) >= missing
    if not any("outbox_unsent" in note for note in report.notes):
        unsent = {row[:3] for row in rows(before)["outbox"]} - {row[:3] for row in rows(target)["outbox"]}
        assert set(report.lost_replies) == unsent
    for name, found in rows(target).items():
        if name in {"history", "todos", "dedupe", "summaries"}:
            assert found <= rows(before)[name], name
    assert not report.whole
    claimed = asyncio.run(served(target, source.parent / "served"))
    waiting = {str(row[2]) for row in rows(target)["inbox"] if "waiting" in row}
    assert set(claimed) == waiting


@pytest.mark.parametrize("table", ["inbox", "history", "sessions", "outbox"])
def test_a_lost_root_costs_no_row_of_the_pages_below_it(source: Path, whole: bytes, table: str) -> None:
    overwrite(source, root_of(source, table), b"\xff" * PAGE)
    before = source.with_name("whole.db")
    before.write_bytes(whole)
    target, report = salvaged(source)
    (told,) = [one for one in report.tables if one.name == table]
    assert told.damages == 1
    found = {row[:2] for row in rows(target)[table]}
    if told.from_lone_pages:
        assert len(found) > 0.8 * len(rows(before)[table])
    assert asyncio.run(served(target, source.parent / "served"))


@pytest.mark.parametrize("size", [100, PAGE])
def test_a_lost_header_or_first_page_is_no_end(source: Path, whole: bytes, size: int) -> None:
    overwrite(source, 1, b"\xff" * size)
    target, report = salvaged(source)
    assert report.notes
    assert len(ids(target)) > 0 if size == 100 else report.notes


def test_a_file_that_ends_early_is_read_to_there(source: Path, whole: bytes) -> None:
    source.write_bytes(whole[: len(whole) * 2 // 3 + 100])
    target, report = salvaged(source)
    assert ids(target)
    assert not report.whole


def test_what_cannot_be_salvaged_is_one_error_and_leaves_nothing(tmp_path: Path, source: Path) -> None:
    with pytest.raises(StoreUnusable, match="there is no file"):
        salvage(tmp_path / "none.db", tmp_path / "new.db", silent)
    (tmp_path / "new.db").write_text("precious")
    with pytest.raises(StoreUnusable, match="exists already"):
        salvage(source, tmp_path / "new.db", silent)
    assert (tmp_path / "new.db").read_text() == "precious"
    foreign = tmp_path / "foreign.db"
    foreign.write_bytes(b"no database at all, a text\n" * 1000)
    with pytest.raises(StoreUnusable, match="nothing could be read of it"):
        salvage(foreign, tmp_path / "more.db", silent)
    assert not (tmp_path / "more.db").exists()
