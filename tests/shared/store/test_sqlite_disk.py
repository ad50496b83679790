"""What the embedded engine does on a disk that fails, on a write or only on the sync of a commit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from shared.errors import StoreDamaged, StoreUnavailable
from tests.shared.store.faulty_disk import FaultyDisk, faulty_disk
from tests.shared.store.scratch import Scratch, ended, sqlite


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    """The disk that the scratch database is on."""
    with faulty_disk() as disk:
        yield disk


@pytest.mark.parametrize("when", ["on_write", "on_sync"])
@pytest.mark.parametrize("fault", [apsw.FullError, apsw.IOError, apsw.ReadOnlyError])
async def test_a_commit_that_fails_is_acknowledged_to_nobody(
    tmp_path: Path, disk: FaultyDisk, when: str, fault: type[apsw.Error]
) -> None:
    scratch = Scratch(sqlite, tmp_path)
    store = await scratch.open()
    kept = await scratch.accept("a:b:kept")
    claim = await scratch.claim_one()
    setattr(disk, when, fault("the disk is broken"))
    arrivals = [scratch.arrival(f"a:b:{n}") for n in range(30)]
    writes = [store.claims.settle(claim.ref, ended("hello")), *(store.inbox.accept(a) for a in arrivals)]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert all(isinstance(result, StoreUnavailable) for result in results)
    with pytest.raises(StoreUnavailable):
        await store.check()
    assert await store.inbox.waiting() == 1
    assert (await store.inbox.trace(kept)).running

    disk.mend()
    await store.check()
    await store.claims.settle(claim.ref, ended("hello"))
    receipts = [await store.inbox.accept(arrival) for arrival in arrivals]
    assert not any(receipt.duplicate for receipt in receipts)
    store = await scratch.open()
    assert await store.inbox.waiting() == 30
    await scratch.close()


async def test_nothing_is_accepted_any_more_once_the_database_was_found_damaged(
    tmp_path: Path, disk: FaultyDisk
) -> None:
    scratch = Scratch(sqlite, tmp_path)
    store = await scratch.open()
    kept = await scratch.accept()
    disk.on_write = apsw.CorruptError("the disk is broken")
    results = await asyncio.gather(*(scratch.accept(f"a:b:{n}") for n in range(9)), return_exceptions=True)
    assert all(isinstance(result, StoreDamaged) for result in results)
    disk.mend()
    for call in (scratch.accept(), store.check(), store.inbox.waiting()):
        with pytest.raises(StoreDamaged, match="salvage"):
            await call
    store = await scratch.open()
    assert (await store.inbox.trace(kept)).state == "waiting"
    await scratch.close()


async def test_a_disk_that_fails_again_and_again_loses_nothing_it_acknowledged(
    tmp_path: Path, disk: FaultyDisk
) -> None:
    scratch = Scratch(sqlite, tmp_path)
    store = await scratch.open(inbox_limit=5000)
    accepted: list[str] = []

    async def caller(name: int) -> None:
        for number in range(60):
            with contextlib.suppress(StoreUnavailable):
                accepted.append(await scratch.accept(f"a:{name}:{number % 3}"))

    async def breaker(callers: asyncio.Future[list[None]]) -> None:
        while not callers.done():
            disk.on_sync = None if disk.on_sync else apsw.FullError("the disk is full")
            await asyncio.sleep(0.002)

    callers = asyncio.gather(*(caller(name) for name in range(16)))
    await breaker(callers)
    disk.mend()
    store = await scratch.open()
    assert 0 < len(accepted) < 16 * 60
    assert await store.inbox.waiting() == len(accepted)
    for message in accepted:
        assert (await store.inbox.trace(message)).state == "waiting"
    await scratch.close()
