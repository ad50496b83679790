"""A damaged write-ahead log is told from its end: damage is refused and salvaged, a loss of power never called one."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import StoreUnusable
from shared.store.sqlite.backup import back_up, restore
from shared.store.sqlite.salvage import salvage
from shared.store.sqlite.salvage.report import lines_of
from shared.store.sqlite.synced_mark import read_mark
from tests.shared.store.recorded_disk import RecordedDisk, recorded_disk
from tests.shared.store.scratch import Scratch, ended, sqlite

NAME = "gatehouse.db"
PAGE = 4096
FRAME = 24 + PAGE
#: where in a frame a bit may flip: its page's number, the size of the commit, the salts, the checksum, the page
IN_FRAME = (3, 7, 10, 18, 24 + 5, 24 + 2000, FRAME - 3)


def silent(_done: int, _total: int) -> None:
    """Show no progress."""


async def crash(directory: Path) -> list[str]:
    """Leave in ``crashed`` what a killed gateway leaves; return what was acknowledged."""
    scratch = Scratch(sqlite, directory)
    store = await scratch.open()
    told = [await scratch.accept(f"a:b:{number}", "w" * 900) for number in range(6)]
    await store.engine.scrub()
    for number in range(12):
        told.append(await scratch.accept(f"a:b:{number % 8}", f"{number} " + "v" * 700))
        claim, *_ = (await store.claims.claim("host", 1, 30)).claims
        if number % 3:
            await store.claims.settle(claim.ref, ended("answer", messages=(b'"' + b"h" * 3000 + b'"',)))
    await store.claims.claim("host", 1, 30)  # its commit is synced with a later one
    shutil.copytree(directory / "data", directory / "crashed")
    await scratch.close()
    return told


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    directory: Path = tmp_path_factory.mktemp("crash")
    told = asyncio.run(crash(directory))
    for ending in ("-shm", ".lock"):
        (directory / "crashed" / f"{NAME}{ending}").unlink()
    return directory / "crashed", told


@pytest.fixture
def data(tmp_path: Path, crashed: tuple[Path, list[str]]) -> Path:
    shutil.copytree(crashed[0], tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def told(crashed: tuple[Path, list[str]]) -> list[str]:
    return crashed[1]


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 0x10]))


def contents(directory: Path) -> dict[str, bytes]:
    names = (NAME, f"{NAME}-wal", f"{NAME}-synced")
    return {name: (directory / name).read_bytes() for name in names if (directory / name).exists()}


def ids(path: Path) -> set[str]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return {str(row[0]) for row in db.execute("SELECT id FROM inbox")}


def marked(data: Path) -> int:
    mark = read_mark(data / NAME)
    assert mark
    return mark.frames


async def open_it(data: Path) -> None:
    scratch = Scratch(sqlite, data.parent)
    try:
        await scratch.open()
    finally:
        await scratch.close()


async def test_a_flipped_bit_anywhere_in_what_was_synced_is_refused_and_nothing_is_touched(
    data: Path, tmp_path: Path
) -> None:
    log = data / f"{NAME}-wal"
    whole = log.read_bytes()
    frames = marked(data)
    assert frames > 30
    assert len(whole) > 32 + frames * FRAME  # the last claim lies behind
    some = (0, frames // 2, frames - 1)
    places = [*range(0, 32, 5), *(32 + frame * FRAME + place for frame in some for place in IN_FRAME)]
    for place in places:
        log.write_bytes(whole)
        flip(log, place)
        before = contents(data)
        with pytest.raises(StoreUnusable, match="is damaged: of its write-ahead log"):
            await open_it(data)
        assert contents(data) == before, place
    with pytest.raises(StoreUnusable, match="is damaged"):
        back_up(data / NAME, tmp_path / "copy.db", silent)
    assert contents(data) == before
    log.write_bytes(whole)
    await open_it(data)


@pytest.mark.parametrize("left", [0, 1, 20, 32, 32 + 3 * FRAME, 32 + 10 * FRAME + 100, None])
async def test_a_log_that_was_cut_or_removed_is_refused(data: Path, told: list[str], left: int | None) -> None:
    log = data / f"{NAME}-wal"
    log.unlink() if left is None else log.write_bytes(log.read_bytes()[:left])
    before = contents(data)
    with pytest.raises(StoreUnusable, match="is damaged"):
        await open_it(data)
    assert contents(data) == before
    report = salvage(data / NAME, data / "salvaged.db", silent)
    assert not report.whole
    assert any("were synced" in line for line in lines_of(report))
    assert ids(data / "salvaged.db") < set(told)


async def test_an_older_copy_put_in_place_without_its_log_is_opened_once_the_mark_is_removed(
    data: Path, told: list[str]
) -> None:
    (data / f"{NAME}-wal").unlink()
    with pytest.raises(StoreUnusable, match=f"another copy, put here without its log, remove {NAME}-synced"):
        await open_it(data)
    (data / f"{NAME}-synced").unlink()
    await open_it(data)
    assert ids(data / NAME) < set(told)


async def test_a_flip_behind_what_was_synced_is_the_end(data: Path, told: list[str]) -> None:
    flip(data / f"{NAME}-wal", 32 + marked(data) * FRAME + 500)
    await open_it(data)
    assert ids(data / NAME) == set(told)


async def test_what_another_program_copied_back_is_no_damage(data: Path, told: list[str]) -> None:
    with closing(sqlite3.connect(data / NAME, isolation_level=None)) as other:
        other.execute("UPDATE sequences SET last = last + 1")
    assert not (data / f"{NAME}-wal").exists()
    assert marked(data)
    await open_it(data)
    assert ids(data / NAME) == set(told)
    assert not read_mark(data / NAME)


def one_bit(chance: random.Random, log: bytearray) -> None:
    log[chance.randrange(32, len(log))] ^= 1 << chance.randrange(8)


def one_page(chance: random.Random, log: bytearray) -> None:
    begin = 32 + chance.randrange((len(log) - 32) // FRAME) * FRAME
    log[begin : begin + FRAME] = chance.choice((bytes(FRAME), chance.randbytes(FRAME)))


def the_header(chance: random.Random, log: bytearray) -> None:
    log[:32] = chance.randbytes(32)


@pytest.mark.parametrize(
    ("damage", "seed"), [(one_bit, 1), (one_bit, 2), (one_page, 3), (one_page, 4), (one_page, 5), (the_header, 6)]
)
async def test_a_damaged_log_is_kept_by_a_restore_and_read_by_a_salvage(
    data: Path, told: list[str], tmp_path: Path, damage: Callable[[random.Random, bytearray], None], seed: int
) -> None:
    back_up(data / NAME, tmp_path / "whole.db", silent)
    log = bytearray((data / f"{NAME}-wal").read_bytes()[: 32 + marked(data) * FRAME])
    damage(random.Random(seed), log)
    (data / f"{NAME}-wal").write_bytes(log)
    before = contents(data)
    kept = restore(tmp_path / "whole.db", data / NAME, silent)
    assert kept.only_in_kept is None
    path = Path(kept.kept)
    assert {name: (data / name.replace(NAME, path.name)).read_bytes() for name in before} == before
    await open_it(data)
    served = tmp_path / "served" / "data"
    served.mkdir(parents=True)
    report = salvage(path, served / NAME, silent)
    said = "\n".join(lines_of(report))
    assert "of the write-ahead log" in said
    lost = set(told) - ids(served / NAME)
    assert lost <= set(report.lost_messages), said
    assert len(lost) < 8, said
    scratch = Scratch(sqlite, served.parent)
    store = await scratch.open()
    await store.engine.verify()
    await scratch.close()


async def work(directory: Path, disk: RecordedDisk) -> None:
    """Do a little of everything, with logs that are begun anew in both ways."""
    scratch = Scratch(sqlite, directory)
    store = await scratch.open()
    for number in range(30):
        size = 150_000 if number % 3 else 300
        disk.acknowledge(await scratch.accept(f"a:b:{number % 7}", "w" * size))
        if claims := (await store.claims.claim("host", 1, 30)).claims:
            await store.claims.claim("host", 0, 30)
            await store.claims.settle(claims[0].ref, ended("answer"))
        if number in {8, 26}:
            await store.engine.scrub()
    await scratch.close()


async def look(directory: Path, told: list[str]) -> None:
    scratch = Scratch(sqlite, directory)
    store = await scratch.open()
    for message_id in told:
        await store.inbox.trace(message_id)
    await store.engine.verify()
    await scratch.close()


def test_a_loss_of_power_is_never_called_damage_and_takes_nothing_that_was_told(tmp_path: Path) -> None:
    database = tmp_path / "data" / NAME
    with recorded_disk(database) as disk:
        asyncio.run(work(tmp_path, disk))
    assert sum(step.size == 0 for step in disk.steps) >= 2
    numbers = iter(range(1_000_000))

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(after=st.integers(0, len(disk.steps)), seed=st.integers(0, 2**32))
    def any_moment(after: int, seed: int) -> None:
        left = tmp_path / f"left{next(numbers)}"
        disk.lose_power(after, random.Random(seed), left / "data")
        asyncio.run(look(left, [name for name, steps in disk.acknowledged.items() if steps <= after]))
        shutil.rmtree(left)

    any_moment()
