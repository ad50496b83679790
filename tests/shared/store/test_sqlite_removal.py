"""What a session leaves in the tables of the embedded engine, once it is deleted and once its messages are old."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from shared.budgets import Budget, Budgets, BudgetWindow, Scope
from shared.command import CommandKind
from shared.errors import NotFound
from shared.journal import CallIntent, StepOpening
from shared.messages import Step, Summary
from shared.store import Store
from shared.store.sql import small_deletes
from shared.store.sqlite.engine import SqliteEngine
from shared.usage import Usage
from shared.when_busy import WhenBusy
from tests.shared.store.scratch import Scratch, ended, sqlite

USED = Usage(model_calls=1, input_tokens=5)
BUDGETS = Budgets((Budget(Scope.USER, 1_000_000, False, BudgetWindow.DAY),))
A_WEEK_S = 7 * 86_400.0


@pytest.fixture
async def scratch(tmp_path: Path) -> AsyncIterator[Scratch]:
    made = Scratch(sqlite, tmp_path)
    await made.open()
    yield made
    await made.close()


#: tables that have no row of a session, or that turns alone make which wait for an approval
ELSEWHERE = {"aliases", "approvals", "audit", "charges", "hosts", "pairings", "probe", "removals"}


async def live(scratch: Scratch, store: Store) -> None:
    """Leave something of one session in every table."""
    claim = await scratch.accept_and_claim()
    await store.claims.settle(claim.ref, ended("one", messages=(b"1", b"2"), todo=b"[1]", usage=USED))
    await store.spending.accounts(BUDGETS)
    await scratch.accept()
    (claim,) = (await store.claims.claim("host", 1, 30, budgets=BUDGETS)).claims
    await store.inbox.accept(scratch.arrival(text="and this", when_busy=WhenBusy.STEER))
    await store.claims.join(claim.ref)
    await store.claims.checkpoint(claim.ref, [Step(1, (b"3",), usage=USED)], Summary(1, "one thing was said"))
    await store.claims.journal(claim.ref, [StepOpening(2, (b"4",)), CallIntent(2, "call_1", "note", "key")])
    await store.sessions.keep_attachments("a:b:c", {"digest": b"an image"})
    await scratch.order(CommandKind.NEW)


def rows(tmp_path: Path) -> dict[str, int]:
    """Count the rows of every table."""
    db = apsw.Connection(str(tmp_path / "data" / "gatehouse.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name: len(db.execute(f"SELECT 1 FROM {name}").fetchall()) for name in tables}
    finally:
        db.close()


async def test_a_deleted_session_leaves_no_row_but_its_keys_and_what_its_users_spent(
    scratch: Scratch, tmp_path: Path
) -> None:
    await live(scratch, scratch.store)
    before = rows(tmp_path)
    assert all(before[name] for name in before.keys() - ELSEWHERE), before
    await scratch.store.sessions.delete("a:b:c")
    left = {name for name, count in rows(tmp_path).items() if count}
    assert left == {"dedupe", "spending", "sequences"}
    scratch.clock.now += A_WEEK_S + 86_400
    await scratch.store.inbox.expire(A_WEEK_S)
    await scratch.store.spending.expire(A_WEEK_S)
    assert {name for name, count in rows(tmp_path).items() if count} == {"sequences"}


async def test_a_large_session_goes_in_transactions_of_few_bytes(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else waits for all of it: its words, its files, and what was asked in it."""
    monkeypatch.setattr(small_deletes, "DELETE_BYTES", 3000)
    for number in range(8):
        await scratch.store.inbox.accept(scratch.arrival(text="x" * 1000))
        claim = await scratch.claim_one()
        await scratch.store.claims.settle(claim.ref, ended("y", messages=(b"1" * 1000,)))
        await scratch.store.sessions.keep_attachments("a:b:c", {f"digest {number}": b"an image" * 150})
    assert isinstance(scratch.store.engine, SqliteEngine)
    writer = scratch.store.engine.writer
    before = writer.commits
    await scratch.store.sessions.delete("a:b:c")
    assert writer.commits - before >= 3 * 2 + 1
    with pytest.raises(NotFound):
        await scratch.store.sessions.summary("a:b:c")


async def test_large_old_messages_go_in_transactions_of_few_bytes(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_deletes, "DELETE_BYTES", 3000)
    for number in range(8):
        await scratch.store.inbox.accept(scratch.arrival(f"a:b:{number}", text="x" * 1000))
        await scratch.store.claims.settle((await scratch.claim_one()).ref, ended("y" * 1000))
    await scratch.send_all()
    scratch.clock.now += A_WEEK_S + 1
    assert isinstance(scratch.store.engine, SqliteEngine)
    writer = scratch.store.engine.writer
    before = writer.commits
    assert await scratch.store.inbox.expire(A_WEEK_S) >= 8
    assert writer.commits - before >= 8


async def test_of_an_old_session_its_conversation_and_what_it_used_stay(scratch: Scratch, tmp_path: Path) -> None:
    await live(scratch, scratch.store)
    scratch.clock.now += 31
    claim = await scratch.claim_one()
    joined = tuple(message.id for message in claim.messages[1:])
    await scratch.store.claims.settle(claim.ref, ended("two", usage=USED, joined=joined))
    await scratch.send_all()
    scratch.clock.now += A_WEEK_S + 86_400
    await scratch.store.inbox.expire(A_WEEK_S)
    await scratch.store.spending.expire(A_WEEK_S)
    left = {name for name, count in rows(tmp_path).items() if count}
    assert left == {"sessions", "history", "todos", "summaries", "usage", "sequences", "attachments"}


async def test_the_words_of_a_deleted_session_are_gone_from_the_files(scratch: Scratch, tmp_path: Path) -> None:
    await scratch.accept_and_claim("a:b:other")
    word = b"the dentist at noon"
    await scratch.store.inbox.accept(scratch.arrival(text=word.decode()))
    (claim,) = (await scratch.store.claims.claim("host", 1, 30)).claims
    long = ended(f"{word.decode()}, yes", messages=(word, word * 1000, *(word for _ in range(2500))))
    await scratch.store.claims.settle(claim.ref, long)
    assert any(word in path.read_bytes() for path in (tmp_path / "data").iterdir())
    await scratch.store.sessions.delete("a:b:c")
    await scratch.store.check()
    assert not [path.name for path in (tmp_path / "data").iterdir() if word in path.read_bytes()]


async def test_a_seek_past_large_bodies_reads_none_of_them(scratch: Scratch) -> None:
    store, large = scratch.store, b"x" * 4_000_000
    await store.inbox.accept(scratch.arrival("a:b:c", history=(large,) * 3))
    began = time.process_time()
    await store.inbox.accept(scratch.arrival("a:b:d", history=(b"small",) * 20_000))
    for number in range(100):
        await scratch.accept(f"a:b:{number}")
    assert time.process_time() - began < 3
    assert len((await store.sessions.conversation("a:b:d")).messages) == 20_000
