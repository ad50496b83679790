"""What every engine has to do for requests of the API: keep what they ask for, and know one that asks again."""

from __future__ import annotations

import pytest

from shared.call_options import AnswerFormat, CallOptions, ClientCall, ClientTool
from shared.errors import NotFound
from shared.messages import Dead, Ended, MessageState, RepeatedRequest, TurnStatus, Usage
from shared.store import Store
from shared.traces import Exchange
from tests.shared.store.scratch import Scratch

SESSION = "a:b:c"
OPTIONS = CallOptions(
    tools=(ClientTool("roll", "Roll a die.", {"type": "object"}),),
    format=AnswerFormat("dice", {"type": "object"}, strict=True),
    max_tokens=7,
    fields={"temperature": 0.5, "stop": ["\n"]},
    system="Be brief.",
    opening=(b'{"role":"tool"}',),
    fingerprint="f1",
)
HANDED = Ended(
    TurnStatus.REPLIED, "", usage=Usage(1, 0, 5, 6), messages=(b"1",), finish="tool_calls",
    calls=(ClientCall("c1", "roll", "{}"),),
)  # fmt: skip


async def test_a_claim_carries_what_its_client_asks_for(scratch: Scratch, store: Store) -> None:
    await store.inbox.accept(scratch.arrival(options=OPTIONS))
    assert (await scratch.claim_one()).messages[0].options == OPTIONS


async def test_a_request_that_comes_again_is_told_by_its_fingerprint(scratch: Scratch, store: Store) -> None:
    first = scratch.arrival(options=OPTIONS)
    await store.inbox.accept(first)
    await store.inbox.accept(scratch.arrival("a:b:other", options=OPTIONS))
    await scratch.accept()
    now = scratch.clock.now
    assert await store.inbox.repeated(SESSION, "f1", now) == first.id
    assert await store.inbox.repeated(SESSION, "f1", now + 1) == ""
    assert await store.inbox.repeated(SESSION, "f2", now) == ""


@pytest.mark.parametrize("outcome", [HANDED, Dead(3, "died", "sorry", "stacks")], ids=["ended", "dead"])
async def test_what_a_request_was_answered_is_kept(scratch: Scratch, store: Store, outcome: Ended | Dead) -> None:
    await store.inbox.accept(scratch.arrival(options=OPTIONS))
    claim = await scratch.claim_one()
    message = claim.messages[0].id
    assert await store.inbox.answer(message) == RepeatedRequest(MessageState.WAITING, fingerprint="f1")
    await store.claims.settle(claim.ref, outcome)
    kept = await store.inbox.answer(message)
    assert kept.outcome is not None
    assert kept.outcome.text == outcome.text
    if isinstance(outcome, Ended) and isinstance(kept.outcome, Ended):
        assert (kept.outcome.calls, kept.outcome.finish) == (outcome.calls, outcome.finish)
        assert kept.outcome.usage == outcome.usage


async def test_nothing_is_kept_for_a_message_that_nobody_asks_for_again(scratch: Scratch, store: Store) -> None:
    message = await scratch.answer("hello")
    assert await store.inbox.answer(message) == RepeatedRequest(MessageState.DONE)
    with pytest.raises(NotFound):
        await store.inbox.answer("msg_none")


async def test_an_exchange_is_read_and_removed_by_its_messages_id(scratch: Scratch, store: Store) -> None:
    first = await scratch.answer("one", messages=(b"q1", b"a1"))
    second = await scratch.answer("two", messages=(b"q2", b"a2"), todo=b'[{"id":"1"}]')
    found = await store.sessions.exchange(SESSION, second, 10)
    assert found == Exchange((b"q1", b"a1"), (b"q2", b"a2"))
    assert len((await store.sessions.exchange(SESSION, second, 3)).own) == 1
    version = (await store.sessions.conversation(SESSION)).version
    assert not await store.sessions.remove_exchange(SESSION, first)  # the second goes on with it
    waiting = await scratch.accept()
    assert (await store.sessions.exchange(SESSION, waiting, 10)).own == (b'{"role":"user","content":"hello"}',)
    assert not await store.sessions.remove_exchange(SESSION, waiting)
    claim = await scratch.claim_one()
    await store.claims.settle(claim.ref, Dead(3, "died", "sorry"))
    assert await store.sessions.remove_exchange(SESSION, waiting)
    assert await store.sessions.remove_exchange(SESSION, second)
    left = await store.sessions.conversation(SESSION)
    assert (left.messages, left.todo) == (found.before, b"[]")
    assert left.version != version
    assert await store.sessions.remove_exchange(SESSION, first)
    for gone in (store.sessions.summary(SESSION), store.sessions.remove_exchange(SESSION, first)):
        with pytest.raises(NotFound):
            await gone


async def test_a_message_is_stopped_by_its_id_wherever_its_turn_is(scratch: Scratch, store: Store) -> None:
    head, behind = await scratch.accept(), await scratch.accept()
    assert await store.inbox.stop(SESSION, behind, "stopped")
    assert await store.inbox.stop(SESSION, head, "stopped")
    claim = await scratch.claim_one()
    assert claim.messages[0].stop == "stopped"
    await store.claims.settle(claim.ref, HANDED)
    assert not await store.inbox.stop(SESSION, head, "stopped")
    assert (await scratch.claim_one()).messages[0].stop == "stopped"
    with pytest.raises(NotFound):
        await store.inbox.stop(SESSION, "msg_none", "stopped")
