"""The journal behind the turns: in order, before the outcome, and not at all where the step is finished already."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from shared.events import Event, Events
from shared.journal import CallIntent, CallResult, StepOpening
from shared.messages import Claim, Parked, Step, Summary
from shared.store import Store
from shared.store.sqlite.engine import SqliteEngine
from tests.shared.store.faulty_disk import faulty_disk
from tests.shared.store.scratch import Scratch, ended, sqlite
from tests.worker.waiting import until
from worker.host import NobodyWatches
from worker.pool.store_health import StoreHealth
from worker.pool.turns.settler import ClaimSettled, ClaimStale, CommittedIntent, Settler, SettlerNews

OPENING = StepOpening(1, (b"{}",))
INTENT = CallIntent(1, "c1", "note", "key")
RESULT = CallResult(1, "c1", b"result")


class Writing:
    """A settler over a real store, with one claim to write for."""

    def __init__(self, scratch: Scratch, claim: Claim) -> None:
        self.scratch = scratch
        self.ref = claim.ref
        self.events = Events()
        self.settler = Settler(scratch.store, StoreHealth(self.events), NobodyWatches())
        self._told: list[SettlerNews] = []

    def journal(self, *entries: StepOpening | CallIntent | CallResult) -> None:
        for entry in entries:
            self.settler.journal(self.ref, entry, waits=isinstance(entry, CallIntent))

    @property
    def told(self) -> list[SettlerNews]:
        self._told += self.settler.news.left()
        return self._told

    @property
    def kept(self) -> list[str]:
        return [news.call_id for news in self.told if isinstance(news, CommittedIntent)]

    @property
    def ends(self) -> list[SettlerNews]:
        return [news for news in self.told if not isinstance(news, CommittedIntent)]

    async def claim_again(self) -> Claim:
        self.settler.settle(self.ref, Parked())
        await self.settler.flush()
        return await self.scratch.claim_one()


@pytest.fixture
async def writing(tmp_path: Path) -> AsyncIterator[Writing]:
    scratch = Scratch(sqlite, tmp_path)
    await scratch.open()
    made = Writing(scratch, await scratch.accept_and_claim())
    yield made
    await made.settler.close()
    await scratch.close()


async def test_the_journal_is_written_in_order_and_before_the_outcome(writing: Writing) -> None:
    writing.journal(OPENING)
    writing.journal(INTENT, RESULT)
    claim = await writing.claim_again()
    assert claim.open_step is not None
    assert claim.open_step.results == (b"result",)
    assert writing.ends == [ClaimSettled(writing.ref, Parked())]


async def test_who_waits_is_told_only_after_the_commit(writing: Writing) -> None:
    writing.journal(OPENING, INTENT)
    assert writing.kept == []
    await writing.settler.flush()
    assert writing.kept == ["c1"]
    writing.scratch.clock.now += 31
    claim = await writing.scratch.claim_one()
    assert claim.open_step is not None
    assert [call.key for call in claim.open_step.calls] == ["key"]


async def test_a_finished_step_needs_no_journal_any_more(writing: Writing) -> None:
    writing.journal(OPENING, INTENT, RESULT)
    writing.settler.checkpoint(writing.ref, Step(1, (b"{}", b"result")))
    assert writing.kept == []
    claim = await writing.claim_again()
    assert (len(claim.steps), claim.open_step) == (1, None)
    assert writing.kept == []


async def test_a_step_that_ends_while_its_journal_is_written_leaves_the_next_ones_journal(writing: Writing) -> None:
    writing.journal(OPENING, INTENT)
    await until(lambda: bool(writing.settler.refs))
    writing.settler.checkpoint(writing.ref, Step(1, (b"{}",)))
    writing.journal(StepOpening(2, (b"next",)), CallIntent(2, "c2", "note", "key 2"))
    claim = await writing.claim_again()
    assert len(claim.steps) == 1
    assert claim.open_step is not None
    assert (claim.open_step.number, claim.open_step.messages) == (2, (b"next",))
    assert [call.call_id for call in claim.open_step.calls] == ["c2"]


async def test_a_finished_step_is_committed_before_the_journal_of_the_next(writing: Writing) -> None:
    engine = writing.scratch.store.engine
    assert isinstance(engine, SqliteEngine)
    commits = itertools.count()
    # the first commit is made and no other: what is there then is what a crash would leave
    await engine.writer.run(lambda database: database.db.set_commit_hook(lambda: next(commits) > 1))
    writing.settler.checkpoint(writing.ref, Step(1, (b"{}",)))
    writing.journal(StepOpening(2, (b"next",)), CallIntent(2, "c2", "note", "key 2"))
    await until(lambda: writing.events.counts[Event.STORE_UNAVAILABLE] > 0)
    await engine.writer.run(lambda database: database.db.set_commit_hook(None))
    await writing.settler.close()
    writing.scratch.clock.now += 31
    claim = await writing.scratch.claim_one("other")
    assert [step.number for step in claim.steps] == [1]


async def test_an_end_makes_the_journal_superfluous(writing: Writing) -> None:
    writing.journal(OPENING, INTENT)
    writing.settler.settle(writing.ref, ended("hello"))
    await writing.settler.flush()
    assert writing.kept == []
    assert (await writing.scratch.accept_and_claim()).open_step is None


async def test_nobody_is_told_of_a_stale_intent(writing: Writing) -> None:
    writing.scratch.clock.now += 31
    await writing.scratch.claim_one("other")
    writing.journal(OPENING, INTENT)
    await writing.settler.flush()
    assert writing.kept == []
    assert writing.ends == [ClaimStale(writing.ref)]


async def test_a_full_disk_holds_the_intent_back_until_it_is_kept(tmp_path: Path) -> None:
    with faulty_disk() as disk:
        scratch = Scratch(sqlite, tmp_path)
        await scratch.open()
        writing = Writing(scratch, await scratch.accept_and_claim())
        disk.on_sync = apsw.FullError("the disk is full")
        writing.journal(OPENING, INTENT)
        await until(lambda: writing.events.counts[Event.STORE_UNAVAILABLE] == 1)
        assert writing.kept == []
        disk.mend()
        await writing.settler.flush()
        assert writing.kept == ["c1"]
        store: Store = scratch.store
        await store.claims.settle(writing.ref, Parked())
        assert (await scratch.claim_one()).open_step is not None
        await scratch.close()


async def test_the_bytes_of_a_file_are_there_before_what_refers_to_them(tmp_path: Path) -> None:
    """Also where the disk is full for a while: no outcome names a file that is not there."""
    with faulty_disk() as disk:
        scratch = Scratch(sqlite, tmp_path)
        await scratch.open()
        writing = Writing(scratch, await scratch.accept_and_claim())
        disk.on_sync = apsw.FullError("the disk is full")
        for digest in ("one", "two"):
            writing.settler.keep(writing.ref, digest, digest.encode())
        writing.settler.settle(writing.ref, ended("here it is"))
        await until(lambda: writing.events.counts[Event.STORE_UNAVAILABLE] == 1)
        assert writing.ends == []
        disk.mend()
        await writing.settler.flush()
        kept = [await scratch.store.sessions.attachment(writing.ref.session, name) for name in ("one", "two")]
        assert (kept, len(writing.ends)) == ([b"one", b"two"], 1)
        await scratch.close()


async def test_a_summary_is_written_with_the_steps_it_was_made_after(writing: Writing) -> None:
    steps = (Step(1, (b"1", b"2")), Step(2, (b"3",)))
    for step, summary in zip(steps, (Summary(1, "first"), Summary(2, "second")), strict=True):
        writing.settler.checkpoint(writing.ref, step)
        writing.settler.summarize(writing.ref, summary)
    claim = await writing.claim_again()
    assert claim.steps == steps
    found = await writing.scratch.store.sessions.context(writing.ref.session, 10, 1000)
    assert found.summary == Summary(2, "second")


async def test_a_full_disk_keeps_a_summary_waiting(tmp_path: Path) -> None:
    with faulty_disk() as disk:
        scratch = Scratch(sqlite, tmp_path)
        await scratch.open()
        writing = Writing(scratch, await scratch.accept_and_claim())
        disk.on_sync = apsw.FullError("the disk is full")
        writing.settler.summarize(writing.ref, Summary(1, "so far"))
        await until(lambda: writing.events.counts[Event.STORE_UNAVAILABLE] == 1)
        disk.mend()
        await writing.settler.flush()
        found = await scratch.store.sessions.context(writing.ref.session, 10, 1000)
        assert found.summary == Summary(1, "so far")
        await scratch.close()
