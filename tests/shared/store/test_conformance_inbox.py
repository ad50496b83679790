"""What every engine has to do: the port's promises about accepted messages."""

from __future__ import annotations

import asyncio

import pytest

from shared.command import CommandKind
from shared.errors import InboxFull, NotFound, SenderShareFull
from shared.messages import MessageState, Receipt, Reply, ReplyStatus, Step, Usage
from shared.store import Store
from tests.shared.store.scratch import Scratch, ended

SESSION = "a:b:c"


class TestAccept:
    async def test_a_new_message_waits(self, scratch: Scratch, store: Store) -> None:
        arrival = scratch.arrival()
        assert await store.inbox.accept(arrival) == Receipt(arrival.id, duplicate=False, ahead=0)
        assert await store.inbox.waiting() == 1

    async def test_a_receipt_tells_how_many_wait_before_it(self, scratch: Scratch, store: Store) -> None:
        await scratch.accept("a:b:1")
        await scratch.accept("a:b:2")
        receipt = await store.inbox.accept(scratch.arrival("a:b:3"))
        assert receipt.ahead == 2

    async def test_a_redelivery_gets_the_first_ones_id(self, scratch: Scratch, store: Store) -> None:
        first = await store.inbox.accept(scratch.arrival(dedupe="event-1"))
        again = await store.inbox.accept(scratch.arrival(dedupe="event-1"))
        assert again == Receipt(first.message_id, duplicate=True)
        assert await store.inbox.waiting() == 1

    async def test_five_deliveries_at_once_are_one_message(self, scratch: Scratch, store: Store) -> None:
        arrivals = [scratch.arrival(dedupe="event-1") for _ in range(5)]
        receipts = await asyncio.gather(*(store.inbox.accept(arrival) for arrival in arrivals))
        assert [receipt.duplicate for receipt in receipts].count(False) == 1
        assert len({receipt.message_id for receipt in receipts}) == 1
        assert await store.inbox.waiting() == 1

    async def test_a_redelivery_after_a_restart_is_a_duplicate(self, scratch: Scratch, store: Store) -> None:
        first = await store.inbox.accept(scratch.arrival(dedupe="event-1"))
        store = await scratch.open()
        again = await store.inbox.accept(scratch.arrival(dedupe="event-1"))
        assert again == Receipt(first.message_id, duplicate=True)

    async def test_any_of_several_keys_makes_a_duplicate(self, scratch: Scratch, store: Store) -> None:
        first = await store.inbox.accept(scratch.arrival(dedupe=("event-1", "channel:ts")))
        again = await store.inbox.accept(scratch.arrival(dedupe=("event-2", "channel:ts")))
        assert again == Receipt(first.message_id, duplicate=True)

    async def test_a_key_counts_in_its_own_session_only(self, scratch: Scratch, store: Store) -> None:
        await store.inbox.accept(scratch.arrival("a:b:1", dedupe="7"))
        assert not (await store.inbox.accept(scratch.arrival("a:b:2", dedupe="7"))).duplicate

    async def test_a_key_past_its_time_makes_no_duplicate(self, scratch: Scratch, store: Store) -> None:
        await store.inbox.accept(scratch.arrival(dedupe="event-1"))
        scratch.clock.now += 3601
        assert not (await store.inbox.accept(scratch.arrival(dedupe="event-1"))).duplicate

    async def test_messages_without_keys_are_never_duplicates(self, scratch: Scratch, store: Store) -> None:
        receipts = [await store.inbox.accept(scratch.arrival(dedupe=())) for _ in range(2)]
        assert not any(receipt.duplicate for receipt in receipts)

    async def test_a_sender_fills_its_share_of_the_inbox_and_others_the_rest(
        self, scratch: Scratch, store: Store
    ) -> None:
        store = await scratch.open(inbox_limit=8, sender_share=0.25)
        await scratch.accept("a:b:1")
        await scratch.accept("a:b:2")
        with pytest.raises(SenderShareFull, match="this sender's share"):
            await scratch.accept("a:b:3")
        with pytest.raises(SenderShareFull):
            await scratch.order(CommandKind.NEW, "a:b:1")
        await store.inbox.accept(scratch.arrival("a:b:4", user="bob"))
        await store.claims.settle((await store.claims.claim("host", 1, 30)).claims[0].ref, ended("done"))
        await scratch.accept("a:b:3")

    async def test_past_the_limit_only_the_first_stop_of_a_turn_is_taken(self, scratch: Scratch, store: Store) -> None:
        await scratch.open(inbox_limit=1)
        await scratch.accept_and_claim()
        assert (await scratch.order(CommandKind.STOP)).stops
        for session in ("a:b:c", "a:b:other"):
            with pytest.raises(InboxFull):
                await scratch.order(CommandKind.STOP, session)

    async def test_a_full_inbox_refuses_new_messages_only(self, scratch: Scratch) -> None:
        store = await scratch.open(inbox_limit=2)
        first = await store.inbox.accept(scratch.arrival(dedupe="event-1"))
        await scratch.accept()
        with pytest.raises(InboxFull) as refusal:
            await store.inbox.accept(scratch.arrival(dedupe="event-3"))
        assert refusal.value.waiting == 2
        assert refusal.value.retry_after_s > 0
        assert await store.inbox.accept(scratch.arrival(dedupe="event-1")) == Receipt(first.message_id, duplicate=True)

    async def test_a_refused_message_is_taken_once_there_is_room(self, scratch: Scratch) -> None:
        store = await scratch.open(inbox_limit=1)
        await scratch.accept()
        with pytest.raises(InboxFull):
            await store.inbox.accept(scratch.arrival(dedupe="event-2"))
        await store.claims.settle((await scratch.claim_one()).ref, ended("done"))
        assert not (await store.inbox.accept(scratch.arrival(dedupe="event-2"))).duplicate

    async def test_the_limit_holds_after_a_restart_and_among_callers_at_once(self, scratch: Scratch) -> None:
        await scratch.accept("a:b:0")
        store = await scratch.open(inbox_limit=3)
        arrivals = [scratch.arrival(f"a:b:{n}") for n in range(1, 9)]
        results = await asyncio.gather(*(store.inbox.accept(a) for a in arrivals), return_exceptions=True)
        assert sum(isinstance(result, InboxFull) for result in results) == 6
        assert await store.inbox.waiting() == 3

    async def test_every_kind_of_text_comes_back_as_it_was(self, scratch: Scratch, store: Store) -> None:
        text = "nul \0, quote ', emoji 🦉, a right-to-left mark \u202e and a long tail " + "x" * 100_000
        await scratch.accept(text=text)
        assert (await scratch.claim_one()).messages[0].text == text.replace("\0", "\N{REPLACEMENT CHARACTER}")

    async def test_a_history_seeds_a_session_that_does_not_exist_yet(self, scratch: Scratch, store: Store) -> None:
        await store.inbox.accept(scratch.arrival(history=(b'{"n":1}', b'{"n":2}')))
        await store.inbox.accept(scratch.arrival(history=(b'{"n":3}',)))
        conversation = await store.sessions.conversation(SESSION)
        assert conversation.messages == (b'{"n":1}', b'{"n":2}')
        claim = await scratch.claim_one()
        assert claim.version == conversation.version != 0

    async def test_what_cannot_be_written_fails_alone(self, scratch: Scratch, store: Store) -> None:
        good = [scratch.arrival(f"a:b:{n}") for n in range(20)]
        bad = scratch.arrival("a:b:bad", text="a lone surrogate \ud800")
        results = await asyncio.gather(*(store.inbox.accept(a) for a in [*good, bad]), return_exceptions=True)
        assert isinstance(results[-1], UnicodeEncodeError)
        assert [r.message_id for r in results[:-1] if isinstance(r, Receipt)] == [a.id for a in good]
        assert await store.inbox.waiting() == 20
        with pytest.raises(NotFound):
            await store.sessions.summary("a:b:bad")


class TestAnnounce:
    REPLY = Reply("a:b:c", "msg_code", 0, "a", "Your code is 123", b"{}", ReplyStatus.REPLIED)

    async def test_an_announcement_is_sent_once_and_makes_no_session(self, store: Store) -> None:
        assert await store.inbox.announce(self.REPLY, ("event-1",), 60)
        assert not await store.inbox.announce(self.REPLY, ("event-1",), 60)
        (reply,) = (await store.outbox.due("host", 10, 30)).replies
        assert (reply.text, reply.message_id) == ("Your code is 123", "msg_code")
        assert await store.sessions.latest() == []

    async def test_announcements_and_replies_of_a_session_do_not_collide(self, scratch: Scratch, store: Store) -> None:
        for number in range(3):
            await store.inbox.announce(self.REPLY, (f"event-{number}",), 60)
        await scratch.answer("hello")
        texts = [reply.text for reply in await scratch.send_all()]
        assert texts == ["Your code is 123"] * 3 + ["hello"]


class TestTrace:
    async def test_every_stage_of_a_message_can_be_seen(self, scratch: Scratch, store: Store) -> None:
        message = await scratch.accept()
        fresh = await store.inbox.trace(message)
        assert (fresh.state, fresh.running, fresh.claimed_at) == (MessageState.WAITING, False, None)
        scratch.clock.now += 1
        claim = await scratch.claim_one()
        running = await store.inbox.trace(message)
        assert (running.state, running.running, running.claimed_at) == (MessageState.WAITING, True, scratch.clock.now)
        scratch.clock.now += 1
        await store.claims.settle(claim.ref, ended("hello", usage=Usage(2, 1, 30, 4, 5), worker="w1", error="late"))
        scratch.clock.now += 1
        await scratch.send_all()
        done = await store.inbox.trace(message)
        assert (done.state, done.running, done.settled_at) == (MessageState.DONE, False, scratch.clock.now - 1)
        assert (done.usage, done.worker, done.error) == (Usage(2, 1, 30, 4, 5), "w1", "late")
        assert (done.session, done.platform, done.user) == (SESSION, "a", "ann")
        (reply,) = done.replies
        assert (reply.part, reply.state, reply.sent_id, reply.sent_at) == (0, "sent", "sent-1", scratch.clock.now)

    async def test_a_running_turn_shows_what_it_spent_so_far(self, scratch: Scratch, store: Store) -> None:
        claim = await scratch.accept_and_claim()
        steps = [Step(number, (), usage=Usage(1, number, 10, 1, 0)) for number in (1, 2)]
        await store.claims.checkpoint(claim.ref, steps)
        found = await store.inbox.trace(claim.messages[0].id)
        assert (found.running, found.usage) == (True, Usage(2, 3, 20, 2, 0))

    async def test_a_sessions_last_message_is_found(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("hello")
        last = await scratch.accept()
        await scratch.accept("a:b:other")
        assert await store.inbox.latest(SESSION) == last
        with pytest.raises(NotFound):
            await store.inbox.latest("a:b:none")

    async def test_an_unknown_message_is_not_found(self, store: Store) -> None:
        with pytest.raises(NotFound):
            await store.inbox.trace("msg_none")


class TestDeadLetters:
    async def test_a_dead_letter_is_listed_with_its_stacks(self, scratch: Scratch, store: Store) -> None:
        message = await scratch.die("first")
        scratch.clock.now += 1
        later = await scratch.die("second")
        letters = (await store.inbox.dead()).letters
        assert [letter.id for letter in letters] == [later, message]
        assert (letters[1].text, letters[1].attempts, letters[1].error) == ("first", 3, "worker died")
        assert (letters[1].stacks, letters[1].dead_at) == ("File …", scratch.clock.now - 1)
        assert [letter.id for letter in (await store.inbox.dead(limit=1)).letters] == [later]

    async def test_the_sender_of_a_dead_letter_is_told(self, scratch: Scratch) -> None:
        await scratch.die("first")
        (reply,) = await scratch.send_all()
        assert (reply.text, reply.status) == ("It failed.", ReplyStatus.FAILED)

    async def test_a_retried_dead_letter_starts_afresh(self, scratch: Scratch, store: Store) -> None:
        message = await scratch.die("first")
        await store.inbox.retry_dead(message)
        assert (await store.inbox.dead()).letters == ()
        assert await store.inbox.waiting() == 1
        claim = await scratch.claim_one()
        assert claim.messages[0].id == message
        assert (claim.messages[0].attempts, claim.messages[0].suspect, claim.steps) == (0, False, ())

    async def test_the_answer_of_a_retried_dead_letter_has_a_key_of_its_own(
        self, scratch: Scratch, store: Store
    ) -> None:
        message = await scratch.die("first")
        await store.inbox.retry_dead(message)
        await store.claims.settle((await scratch.claim_one()).ref, ended("at last"))
        replies = await scratch.send_all()
        assert [reply.text for reply in replies] == ["It failed.", "at last"]
        assert len({reply.idempotency_key for reply in replies}) == 2

    async def test_a_retried_dead_letter_does_not_disturb_a_running_turn(self, scratch: Scratch, store: Store) -> None:
        message = await scratch.die("first")
        second = await scratch.accept(text="second")
        claim = await scratch.claim_one()
        await store.inbox.retry_dead(message)
        assert (await store.inbox.trace(second)).running
        assert not (await store.inbox.trace(message)).running
        await store.claims.settle(claim.ref, ended("two"))
        assert (await scratch.claim_one()).messages[0].id == message

    async def test_a_purged_dead_letter_is_gone(self, scratch: Scratch, store: Store) -> None:
        message = await scratch.die("first")
        await store.inbox.purge_dead(message)
        for gone in (store.inbox.trace, store.inbox.retry_dead, store.inbox.purge_dead):
            with pytest.raises(NotFound):
                await gone(message)

    async def test_purging_lets_the_next_reply_of_the_session_go(self, scratch: Scratch, store: Store) -> None:
        message = await scratch.die("first")
        await scratch.answer("second")
        await store.inbox.purge_dead(message)
        assert [reply.text for reply in await scratch.send_all()] == ["second"]

    async def test_what_is_not_dead_can_be_neither_retried_nor_purged(self, scratch: Scratch, store: Store) -> None:
        message = await scratch.accept()
        with pytest.raises(NotFound):
            await store.inbox.retry_dead(message)
        with pytest.raises(NotFound):
            await store.inbox.purge_dead(message)
        assert await store.inbox.waiting() == 1


class TestExpire:
    async def test_old_settled_messages_and_their_replies_go(self, scratch: Scratch, store: Store) -> None:
        old = [await scratch.answer("hello") for _ in range(3)]
        await scratch.send_all()
        scratch.clock.now += 100
        young = await scratch.answer("hello again")
        await scratch.send_all()
        assert await store.inbox.expire(50) == 3
        for message in old:
            with pytest.raises(NotFound):
                await store.inbox.trace(message)
        assert (await store.inbox.trace(young)).replies

    async def test_a_message_whose_reply_is_not_sent_stays(self, scratch: Scratch, store: Store) -> None:
        message = await scratch.answer("hello")
        scratch.clock.now += 100
        assert await store.inbox.expire(50) == 0
        assert (await store.inbox.trace(message)).state == MessageState.DONE
        assert [reply.text for reply in await scratch.send_all()] == ["hello"]

    async def test_waiting_and_dead_messages_stay(self, scratch: Scratch, store: Store) -> None:
        dead = await scratch.die("first")
        waiting = await scratch.accept()
        await scratch.send_all()
        scratch.clock.now += 100
        await store.inbox.expire(50)
        assert (await store.inbox.trace(dead)).state == MessageState.DEAD
        assert (await store.inbox.trace(waiting)).state == MessageState.WAITING

    async def test_keys_go_after_their_time_and_not_before(self, scratch: Scratch, store: Store) -> None:
        await store.inbox.accept(scratch.arrival(dedupe=("one", "two")))
        scratch.clock.now += 3599
        assert await store.inbox.expire(0) == 0
        scratch.clock.now += 2
        assert await store.inbox.expire(0) == 2

    async def test_old_announcements_go(self, scratch: Scratch, store: Store) -> None:
        await store.inbox.announce(TestAnnounce.REPLY, (), 60)
        await scratch.send_all()
        scratch.clock.now += 100
        assert await store.inbox.expire(50) == 1

    async def test_more_than_one_transactions_worth_goes(self, scratch: Scratch, store: Store) -> None:
        store = await scratch.open(inbox_limit=2000)
        arrivals = [scratch.arrival(f"a:b:{number}", user=f"user-{number}") for number in range(1100)]
        await asyncio.gather(*(store.inbox.accept(arrival) for arrival in arrivals))
        claims = (await store.claims.claim("host", 1100, 30)).claims
        replies = (ended("" if number % 2 else "hello") for number in range(1100))
        settled = zip(claims, replies, strict=True)
        await asyncio.gather(*(store.claims.settle(claim.ref, reply) for claim, reply in settled))
        for reply in (await store.outbox.due("host", 1100, 30)).replies:
            await store.outbox.delivered(reply, "sent")
        scratch.clock.now += 100
        assert await store.inbox.expire(50) == 1100
