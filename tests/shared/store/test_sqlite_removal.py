"""What a session leaves in the tables of the embedded engine, once it is deleted and once its messages are old."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from shared.budgets import Budget, Budgets, Scope, Window
from shared.command import CommandKind
from shared.journal import CallIntent, StepOpening
from shared.messages import Step, Summary
from shared.store import Store
from shared.usage import Usage
from shared.when_busy import WhenBusy
from tests.shared.store.bench import Bench, ended, sqlite

USED = Usage(model_calls=1, input_tokens=5)
BUDGETS = Budgets((Budget(Scope.USER, 1_000_000, False, Window.DAY),))
A_WEEK_S = 7 * 86_400.0


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(sqlite, tmp_path)
    await made.open()
    yield made
    await made.close()


#: tables that have no row of a session, or that turns alone make which wait for an approval
ELSEWHERE = {"aliases", "approvals", "audit", "charges", "hosts", "pairings", "probe"}


async def live(bench: Bench, store: Store) -> None:
    """Leave something of one session in every table."""
    claim = await bench.accept_and_claim()
    await store.claims.settle(claim.ref, ended("one", messages=(b"1", b"2"), todo=b"[1]", usage=USED))
    await bench.accept()
    (claim,) = (await store.claims.claim("host", 1, 30, budgets=BUDGETS)).claims
    await store.inbox.accept(bench.arrival(text="and this", when_busy=WhenBusy.STEER))
    await store.claims.join(claim.ref)
    await store.claims.checkpoint(claim.ref, [Step(1, (b"3",), usage=USED)], Summary(1, "one thing was said"))
    await store.claims.journal(claim.ref, [StepOpening(2, (b"4",)), CallIntent(2, "call_1", "note", "key")])
    await store.sessions.keep_attachments("a:b:c", {"digest": b"an image"})
    await bench.order(CommandKind.NEW)


def rows(tmp_path: Path) -> dict[str, int]:
    """Count the rows of every table."""
    db = apsw.Connection(str(tmp_path / "data" / "gatehouse.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name: len(db.execute(f"SELECT 1 FROM {name}").fetchall()) for name in tables}
    finally:
        db.close()


async def test_a_deleted_session_leaves_no_row_but_its_keys_and_what_its_users_spent(
    bench: Bench, tmp_path: Path
) -> None:
    await live(bench, bench.store)
    before = rows(tmp_path)
    assert all(before[name] for name in before.keys() - ELSEWHERE), before
    await bench.store.sessions.delete("a:b:c")
    left = {name for name, count in rows(tmp_path).items() if count}
    assert left == {"dedupe", "spending", "sequences"}
    bench.clock.now += A_WEEK_S + 86_400
    await bench.store.inbox.expire(A_WEEK_S)
    await bench.store.spending.expire(A_WEEK_S)
    assert {name for name, count in rows(tmp_path).items() if count} == {"sequences"}


async def test_of_an_old_session_its_conversation_and_what_it_used_stay(bench: Bench, tmp_path: Path) -> None:
    await live(bench, bench.store)
    bench.clock.now += 31
    claim = await bench.claim_one()
    joined = tuple(message.id for message in claim.messages[1:])
    await bench.store.claims.settle(claim.ref, ended("two", usage=USED, joined=joined))
    await bench.send_all()
    bench.clock.now += A_WEEK_S + 86_400
    await bench.store.inbox.expire(A_WEEK_S)
    await bench.store.spending.expire(A_WEEK_S)
    left = {name for name, count in rows(tmp_path).items() if count}
    assert left == {"sessions", "history", "todos", "summaries", "usage", "sequences", "attachments"}


async def test_the_words_of_a_deleted_session_are_gone_from_the_files(bench: Bench, tmp_path: Path) -> None:
    await bench.accept_and_claim("a:b:other")
    word = b"the dentist at noon"
    await bench.store.inbox.accept(bench.arrival(text=word.decode()))
    (claim,) = (await bench.store.claims.claim("host", 1, 30)).claims
    long = ended(f"{word.decode()}, yes", messages=(word, word * 1000, *(word for _ in range(2500))))
    await bench.store.claims.settle(claim.ref, long)
    assert any(word in path.read_bytes() for path in (tmp_path / "data").iterdir())
    await bench.store.sessions.delete("a:b:c")
    await bench.store.check()
    assert not [path.name for path in (tmp_path / "data").iterdir() if word in path.read_bytes()]


async def test_a_seek_past_large_bodies_reads_none_of_them(bench: Bench) -> None:
    store, large = bench.store, b"x" * 4_000_000
    await store.inbox.accept(bench.arrival("a:b:c", history=(large,) * 3))
    began = time.process_time()
    await store.inbox.accept(bench.arrival("a:b:d", history=(b"small",) * 20_000))
    for number in range(100):
        await bench.accept(f"a:b:{number}")
    assert time.process_time() - began < 3
    assert len((await store.sessions.conversation("a:b:d")).messages) == 20_000
