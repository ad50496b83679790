"""What every engine has to do with a message whose session is busy: it waits, stops, joins or is rejected."""

from __future__ import annotations

import pytest

from shared.errors import StaleClaim
from shared.journal import StepOpening
from shared.messages import Claim, Dead, MessageState, Parked, ReplyStatus, Retry, Step, TurnStatus
from shared.store import Store
from shared.when_busy import WhenBusy
from tests.shared.store.scratch import Scratch, ended

SESSION = "a:b:c"
QUIET_S = 2.0


async def say(scratch: Scratch, text: str, mode: WhenBusy = WhenBusy.ENQUEUE, user: str = "ann") -> str:
    arrival = scratch.arrival(text=text, when_busy=mode, busy_text="busy", user=user)
    return (await scratch.store.inbox.accept(arrival)).message_id


async def fragment(scratch: Scratch, text: str, user: str = "ann") -> str:
    return (await scratch.store.inbox.accept(scratch.arrival(text=text, quiet_s=QUIET_S, user=user))).message_id


def texts(claim: Claim) -> list[str]:
    return [message.text for message in claim.messages]


@pytest.mark.parametrize("mode", WhenBusy)
async def test_a_session_that_rests_takes_a_message_whatever_its_mode(scratch: Scratch, mode: WhenBusy) -> None:
    for text in ("one", "two"):
        receipt = await scratch.store.inbox.accept(scratch.arrival(text=text, when_busy=mode, busy_text="busy"))
        assert (receipt.state, receipt.stops, receipt.joins) == (MessageState.WAITING, "", False)
        claim = await scratch.claim_one()
        assert texts(claim) == [text]
        await scratch.store.claims.settle(claim.ref, ended(text))


class TestReject:
    async def test_a_rejected_message_is_told_so_and_can_be_seen(self, scratch: Scratch, store: Store) -> None:
        claim = await scratch.accept_and_claim()
        receipt = await store.inbox.accept(scratch.arrival(when_busy=WhenBusy.REJECT, busy_text="busy", dedupe="k"))
        assert (receipt.state, receipt.answer) == (MessageState.REJECTED, "busy")
        trace = await store.inbox.trace(receipt.message_id)
        assert (trace.state, trace.error, trace.running) == (MessageState.REJECTED, "its session was busy", False)
        assert trace.settled_at is not None
        assert await store.inbox.waiting() == 1
        (reply,) = await scratch.send_all()
        assert (reply.text, reply.status, reply.message_id) == ("busy", ReplyStatus.FAILED, receipt.message_id)
        again = await store.inbox.accept(scratch.arrival(when_busy=WhenBusy.REJECT, busy_text="busy", dedupe="k"))
        assert (again.duplicate, again.message_id) == (True, receipt.message_id)
        await store.claims.settle(claim.ref, ended("one"))
        assert (await store.claims.claim("host", 10, 30)).claims == ()

    async def test_old_rejections_go(self, scratch: Scratch, store: Store) -> None:
        await scratch.accept_and_claim()
        await say(scratch, "two", WhenBusy.REJECT)
        await scratch.send_all()
        scratch.clock.now += 8 * 86_400
        assert await store.inbox.expire(7 * 86_400) >= 1


class TestInterrupt:
    async def test_the_running_turn_is_stopped_and_its_sender_told_why(self, scratch: Scratch, store: Store) -> None:
        claim = await scratch.accept_and_claim()
        receipt = await store.inbox.accept(scratch.arrival(text="two", when_busy=WhenBusy.INTERRUPT, busy_text="busy"))
        assert (receipt.stops, receipt.state) == (claim.messages[0].id, MessageState.WAITING)
        await store.claims.settle(claim.ref, ended("cut", status=TurnStatus.INTERRUPTED))
        assert [reply.text for reply in await scratch.send_all()] == ["busy"]
        assert texts(await scratch.claim_one()) == ["two"]

    async def test_what_has_not_begun_is_not_stopped_but_shares_the_turn(self, scratch: Scratch, store: Store) -> None:
        await say(scratch, "one")
        receipt = await store.inbox.accept(scratch.arrival(text="two", when_busy=WhenBusy.INTERRUPT, busy_text="busy"))
        assert receipt.stops == ""
        claim = await scratch.claim_one()
        assert (texts(claim), claim.messages[0].stop) == (["one", "two"], "")

    async def test_what_runs_is_stopped_whatever_waits_behind_it(self, scratch: Scratch, store: Store) -> None:
        claim = await scratch.accept_and_claim()
        await say(scratch, "two")
        receipt = await store.inbox.accept(
            scratch.arrival(text="three", when_busy=WhenBusy.INTERRUPT, busy_text="busy")
        )
        assert receipt.stops == claim.messages[0].id
        await store.claims.settle(claim.ref, ended("cut", status=TurnStatus.INTERRUPTED))
        assert texts(await scratch.claim_one()) == ["two", "three"]

    async def test_several_that_interrupt_one_turn_have_the_next_one_together(
        self, scratch: Scratch, store: Store
    ) -> None:
        claim = await scratch.accept_and_claim()
        for text in ("two", "three", "four"):
            await say(scratch, text, WhenBusy.INTERRUPT)
        assert await store.claims.join(claim.ref) == ()
        await store.claims.settle(claim.ref, ended("cut", status=TurnStatus.INTERRUPTED))
        assert texts(await scratch.claim_one()) == ["two", "three", "four"]


class TestSteer:
    async def test_words_join_the_running_turn_and_are_settled_with_it(self, scratch: Scratch, store: Store) -> None:
        claim = await scratch.accept_and_claim()
        receipt = await store.inbox.accept(scratch.arrival(text="two", when_busy=WhenBusy.STEER))
        assert receipt.joins
        (joined,) = await store.claims.join(claim.ref)
        assert (joined.id, joined.text) == (receipt.message_id, "two")
        assert await store.claims.join(claim.ref) == ()
        trace = await store.inbox.trace(joined.id)
        assert (trace.state, trace.running, trace.joined) == (MessageState.WAITING, True, claim.messages[0].id)
        assert await store.inbox.waiting() == 2
        await store.claims.settle(claim.ref, ended("both", joined=(joined.id,), worker="0:7"))
        trace = await store.inbox.trace(joined.id)
        assert (trace.state, trace.worker, trace.joined) == (MessageState.DONE, "0:7", claim.messages[0].id)
        assert await store.inbox.waiting() == 0
        assert [reply.text for reply in await scratch.send_all()] == ["both"]
        assert (await store.claims.claim("host", 10, 30)).claims == ()

    @pytest.mark.parametrize("joins", [True, False], ids=["joined", "on its way"])
    async def test_words_that_came_too_late_have_a_turn_of_their_own(
        self, scratch: Scratch, store: Store, joins: bool
    ) -> None:
        claim = await scratch.accept_and_claim()
        late = await say(scratch, "two", WhenBusy.STEER)
        if joins:
            await store.claims.join(claim.ref)
        await store.claims.settle(claim.ref, ended("one"))
        own = await scratch.claim_one()
        assert [message.id for message in own.messages] == [late]
        assert (await store.inbox.trace(late)).joined == ""
        with pytest.raises(StaleClaim):
            await store.claims.join(claim.ref)

    @pytest.mark.parametrize("outcome", [Parked(), Retry(0, 1, suspect=False, error="died"), None])
    async def test_a_later_attempt_carries_what_joined_and_where(
        self, scratch: Scratch, store: Store, outcome: Parked | Retry | None
    ) -> None:
        claim = await scratch.accept_and_claim()
        first = await say(scratch, "two", WhenBusy.STEER)
        await store.claims.join(claim.ref)
        await store.claims.checkpoint(claim.ref, [Step(1, (b"{}",)), Step(2, (b"{}",), joined=(first,))])
        second = await say(scratch, "three", WhenBusy.STEER)
        await store.claims.join(claim.ref)
        await store.claims.journal(claim.ref, [StepOpening(3, (b"{}",), joined=(second,))])
        third = await say(scratch, "four", WhenBusy.STEER)
        if outcome is not None:
            await store.claims.settle(claim.ref, outcome)
        else:
            scratch.clock.now += 31
        again = await scratch.claim_one()
        assert texts(again) == ["hello", "two", "three", "four"]
        assert [step.joined for step in again.steps] == [(), (first,)]
        assert again.open_step is not None
        assert again.open_step.joined == (second,)
        await store.claims.settle(again.ref, ended("all", joined=(first, second, third)))
        assert await store.inbox.waiting() == 0

    async def test_what_joined_a_dead_letter_has_a_turn_of_its_own(self, scratch: Scratch, store: Store) -> None:
        claim = await scratch.accept_and_claim()
        joined = await say(scratch, "two", WhenBusy.STEER)
        await store.claims.join(claim.ref)
        await store.claims.settle(claim.ref, Dead(3, "died", "sorry"))
        own = await scratch.claim_one()
        assert [message.id for message in own.messages] == [joined]

    async def test_words_join_however_many_have_joined_before(self, scratch: Scratch, store: Store) -> None:
        claim = await scratch.accept_and_claim()
        said = [await say(scratch, str(number), WhenBusy.STEER) for number in range(150)]
        joined: list[str] = []
        while some := await store.claims.join(claim.ref):
            joined += [message.id for message in some]
        assert joined == said
        await store.claims.settle(claim.ref, Parked())
        assert [message.id for message in (await scratch.claim_one()).messages[1:]] == said

    async def test_words_do_not_overtake_what_waits(self, scratch: Scratch, store: Store) -> None:
        claim = await scratch.accept_and_claim()
        await say(scratch, "two")
        await say(scratch, "three", WhenBusy.STEER)
        assert await store.claims.join(claim.ref) == ()
        await store.claims.settle(claim.ref, ended("one"))
        assert texts(await scratch.claim_one()) == ["two", "three"]


class TestGather:
    async def test_fragments_of_one_thought_make_one_turn_once_it_is_quiet(
        self, scratch: Scratch, store: Store
    ) -> None:
        ids = []
        for text in ("buy", "milk", "and bread"):
            ids.append(await fragment(scratch, text))
            assert (await store.claims.claim("host", 10, 30)).claims == ()
            assert await scratch.next_ready_in_s() == pytest.approx(QUIET_S)
            scratch.clock.now += QUIET_S - 0.1
        scratch.clock.now += 0.2
        claim = await scratch.claim_one()
        assert texts(claim) == ["buy", "milk", "and bread"]
        assert await fragment(scratch, "oh") not in ids
        assert await store.claims.join(claim.ref) == ()
        await store.claims.settle(claim.ref, ended("ok", joined=tuple(ids[1:])))
        assert (await store.inbox.trace(ids[2])).state is MessageState.DONE

    async def test_what_comes_after_the_quiet_or_from_another_is_no_fragment(self, scratch: Scratch) -> None:
        await fragment(scratch, "one")
        await fragment(scratch, "two", user="bob")
        scratch.clock.now += QUIET_S + 0.1
        await fragment(scratch, "three", user="bob")
        assert texts(await scratch.claim_one()) == ["one"]

    async def test_fragments_that_come_while_a_turn_runs_make_one_turn_after_it(
        self, scratch: Scratch, store: Store
    ) -> None:
        claim = await scratch.accept_and_claim()
        for text in ("buy", "milk"):
            await fragment(scratch, text)
        await store.claims.settle(claim.ref, ended("one"))
        assert (await store.claims.claim("host", 10, 30)).claims == ()
        scratch.clock.now += QUIET_S + 0.1
        assert texts(await scratch.claim_one()) == ["buy", "milk"]

    async def test_who_never_pauses_is_answered_all_the_same(self, scratch: Scratch) -> None:
        for number in range(12):
            await fragment(scratch, str(number))
            scratch.clock.now += QUIET_S - 0.1
        assert len(texts(await scratch.claim_one())) > 8

    async def test_it_goes_on_after_a_restart(self, scratch: Scratch) -> None:
        await fragment(scratch, "one")
        await scratch.open()
        assert (await scratch.store.claims.claim("host", 10, 30)).claims == ()
        await fragment(scratch, "two")
        scratch.clock.now += QUIET_S + 0.1
        assert texts(await scratch.claim_one()) == ["one", "two"]
