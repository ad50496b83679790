"""What every engine has to do: the port's promises about the side-effect journal."""

from __future__ import annotations

import pytest

from shared.errors import StaleClaim
from shared.journal import CallIntent, CallResult, StepOpening
from shared.messages import Dead, JournaledCall, OpenStep, Outcome, Parked, Retry, Step, Usage
from shared.store import Store
from tests.shared.store.scratch import Scratch, ended

SESSION = "a:b:c"
OPENING = StepOpening(2, (b'{"role":"assistant"}',), Usage(1, 0, 3))
FIRST = CallIntent(2, "call_1", "note", "msg.2.call_1")
SECOND = CallIntent(2, "call_2", "wait", "msg.2.call_2")
RESULT = CallResult(2, "call_1", b'{"role":"tool"}', b"[1]")


async def test_a_later_attempt_gets_the_step_in_progress(scratch: Scratch, store: Store) -> None:
    claim = await scratch.accept_and_claim()
    assert claim.open_step is None
    await store.claims.journal(claim.ref, [OPENING, FIRST])
    await store.claims.journal(claim.ref, [SECOND, RESULT])
    await store.claims.settle(claim.ref, Parked())
    assert (await scratch.claim_one()).open_step == OpenStep(
        2,
        OPENING.messages,
        OPENING.usage,
        (
            JournaledCall("call_1", "note", "msg.2.call_1", RESULT.message),
            JournaledCall("call_2", "wait", "msg.2.call_2"),
        ),
        b"[1]",
    )


@pytest.mark.parametrize("end", ["lease", "restart", "retry"])
async def test_the_journal_outlives_every_way_to_lose_a_turn(scratch: Scratch, store: Store, end: str) -> None:
    claim = await scratch.accept_and_claim()
    await store.claims.journal(claim.ref, [OPENING, FIRST, RESULT])
    if end == "lease":
        scratch.clock.now += 31
    elif end == "restart":
        store = await scratch.open()
        await scratch.adopt("other")
    else:
        await store.claims.settle(claim.ref, Retry(0, 1, suspect=False, error="died"))
    again = await scratch.claim_one("other")
    assert again.open_step is not None
    assert again.open_step.results == (RESULT.message,)


async def test_a_trace_shows_what_a_turn_has_done_so_far_running_or_not(scratch: Scratch, store: Store) -> None:
    claim = await scratch.accept_and_claim()
    message = claim.messages[0].id
    await store.claims.checkpoint(claim.ref, [Step(1, (b"{}",), None, Usage(1, 2, 5))])
    await store.claims.journal(claim.ref, [OPENING, FIRST, SECOND])
    scratch.clock.now += 3
    await store.claims.journal(claim.ref, [RESULT])
    for running in (True, False):
        trace = await store.inbox.trace(message)
        assert (trace.running, trace.steps, trace.usage) == (running, 1, Usage(2, 2, 8))
        began = scratch.clock.now - 3
        assert [(call.step, call.name, call.started_at, call.ended_at) for call in trace.calls] == [
            (2, "note", began, scratch.clock.now),
            (2, "wait", began, None),
        ]
        if running:
            await store.claims.settle(claim.ref, Retry(0, 1, suspect=False, error="died"))
    await store.claims.settle((await scratch.claim_one()).ref, Dead(3, "died", "sorry", "", Usage(4, 2), "0:7"))
    trace = await store.inbox.trace(message)
    assert (trace.usage, trace.worker, trace.calls) == (Usage(4, 2), "0:7", ())
    await store.inbox.retry_dead(message)
    assert (await store.inbox.trace(message)).usage == Usage()


async def test_an_intent_of_a_later_attempt_keeps_the_first_ones_key_and_gets_the_result(
    scratch: Scratch, store: Store
) -> None:
    claim = await scratch.accept_and_claim()
    await store.claims.journal(claim.ref, [OPENING, FIRST])
    await store.claims.settle(claim.ref, Parked())
    claim = await scratch.claim_one()
    await store.claims.journal(claim.ref, [FIRST, RESULT])
    await store.claims.settle(claim.ref, Parked())
    again = await scratch.claim_one()
    assert again.open_step is not None
    assert again.open_step.calls == (JournaledCall("call_1", "note", FIRST.key, RESULT.message),)


async def test_a_finished_step_takes_its_journal_along(scratch: Scratch, store: Store) -> None:
    claim = await scratch.accept_and_claim()
    await store.claims.journal(claim.ref, [OPENING, FIRST, RESULT])
    await store.claims.checkpoint(claim.ref, [Step(2, (b"{}",))])
    await store.claims.settle(claim.ref, Parked())
    again = await scratch.claim_one()
    assert again.open_step is None
    assert again.steps == (Step(2, (b"{}",)),)


async def test_the_checkpoint_of_an_earlier_step_leaves_the_journal(scratch: Scratch, store: Store) -> None:
    claim = await scratch.accept_and_claim()
    await store.claims.journal(claim.ref, [OPENING, FIRST])
    await store.claims.checkpoint(claim.ref, [Step(1, (b"{}",))])
    await store.claims.settle(claim.ref, Parked())
    assert (await scratch.claim_one()).open_step is not None


async def test_an_opening_replaces_the_step_that_was_open(scratch: Scratch, store: Store) -> None:
    claim = await scratch.accept_and_claim()
    later = StepOpening(3, (b"{}",))
    await store.claims.journal(claim.ref, [OPENING, FIRST, RESULT, later])
    await store.claims.settle(claim.ref, Parked())
    assert (await scratch.claim_one()).open_step == OpenStep(3, (b"{}",))


async def test_what_belongs_to_a_step_that_is_not_open_is_dropped(scratch: Scratch, store: Store) -> None:
    claim = await scratch.accept_and_claim()
    await store.claims.journal(claim.ref, [FIRST, RESULT])
    await store.claims.journal(claim.ref, [OPENING, CallIntent(1, "old", "note", "key"), RESULT])
    await store.claims.settle(claim.ref, Parked())
    again = await scratch.claim_one()
    assert again.open_step is not None
    assert again.open_step.calls == ()


@pytest.mark.parametrize("outcome", [ended("hello"), Dead(3, "died", "sorry")], ids=["ended", "dead"])
async def test_the_next_message_starts_without_a_journal(scratch: Scratch, store: Store, outcome: Outcome) -> None:
    claim = await scratch.accept_and_claim()
    await scratch.accept()
    await store.claims.journal(claim.ref, [OPENING, FIRST, RESULT])
    await store.claims.settle(claim.ref, outcome)
    assert (await scratch.claim_one()).open_step is None


async def test_a_deleted_session_leaves_no_journal(scratch: Scratch, store: Store) -> None:
    claim = await scratch.accept_and_claim()
    await store.claims.journal(claim.ref, [OPENING, FIRST])
    await store.sessions.delete(SESSION)
    assert (await scratch.accept_and_claim()).open_step is None


async def test_a_stale_owner_cannot_write_the_journal(scratch: Scratch, store: Store) -> None:
    stale = await scratch.accept_and_claim()
    await store.claims.settle(stale.ref, Parked())
    owner = await scratch.claim_one()
    with pytest.raises(StaleClaim):
        await store.claims.journal(stale.ref, [OPENING, FIRST])
    await store.claims.settle(owner.ref, Parked())
    assert (await scratch.claim_one()).open_step is None


async def test_sessions_do_not_share_a_journal(scratch: Scratch, store: Store) -> None:
    one = await scratch.accept_and_claim("a:b:1")
    other = await scratch.accept_and_claim("a:b:2")
    await store.claims.journal(one.ref, [OPENING, FIRST])
    await store.claims.journal(other.ref, [OPENING, SECOND])
    await store.claims.settle(one.ref, ended("hello"))
    await store.claims.settle(other.ref, Parked())
    again = await scratch.claim_one()
    assert again.open_step is not None
    assert [call.call_id for call in again.open_step.calls] == ["call_2"]
