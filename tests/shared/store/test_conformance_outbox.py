"""What every engine has to do: the port's promises about replies on their way out."""

from __future__ import annotations

import asyncio

import pytest

from shared.errors import NotFound, StaleClaim
from shared.messages import Dead, DeadKind, Reply, ReplyState, ReplyStatus, Shares
from shared.store import Store
from tests.shared.store.bench import Bench

SESSION = "a:b:c"


async def lease_one(store: Store, host: str = "host") -> Reply:
    """Lease the one reply that is due."""
    (reply,) = (await store.outbox.due(host, 10, 30)).replies
    return reply


class TestRefused:
    async def test_a_refused_reply_is_a_dead_letter_with_all_its_parts(self, bench: Bench, store: Store) -> None:
        """It is sent again part by part, in its order, and ends once it is sent or purged."""
        await bench.answer("one two three")
        first, *_ = await store.outbox.split(await lease_one(store), ["one", "two", "three"])
        await store.outbox.delivered(first, "id")
        await bench.answer("later")
        await store.outbox.refuse(await lease_one(store), "chat not found")
        (letter,) = await store.inbox.dead()
        assert (letter.kind, letter.text, letter.error) == (DeadKind.REPLY, "two\nthree", "chat not found")
        assert letter.session == SESSION
        on_its_way = await lease_one(store)
        await store.inbox.retry_dead(letter.id)
        assert await store.inbox.dead() == []
        assert (await store.outbox.due("host", 10, 30)).replies == ()  # one of a session at a time
        await store.outbox.delivered(on_its_way, "id")
        sent = [on_its_way.text, *[reply.text for reply in await bench.send_all()]]
        assert sent == ["later", "two", "three"]

    async def test_a_refused_reply_stays_until_it_is_purged(self, bench: Bench, store: Store) -> None:
        """Also one that answers no message, and however old it grows."""
        await bench.answer("hello")
        await store.outbox.refuse(await lease_one(store), "gone")
        bench.clock.now += 1
        reply = Reply("a:b:d", "msg_unasked", 0, "a", "code", b"{}", ReplyStatus.REPLIED)
        assert await store.inbox.announce(reply, (), 60)
        await store.outbox.refuse(await lease_one(store), "blocked")
        bench.clock.now += 100 * 86_400
        await store.inbox.expire(60)
        letters = await store.inbox.dead()
        assert [(letter.error, letter.kind) for letter in letters] == [
            ("blocked", DeadKind.REPLY),
            ("gone", DeadKind.REPLY),
        ]
        for letter in letters:
            await store.inbox.purge_dead(letter.id)
        assert await store.inbox.dead() == []
        with pytest.raises(NotFound):
            await store.inbox.retry_dead("msg_unasked")

    async def test_a_reply_to_a_dead_letter_is_none_of_its_own(self, bench: Bench, store: Store) -> None:
        await bench.accept()
        dead = Dead(3, "TimeoutError", "no model answered", kind=DeadKind.MODEL)
        await store.claims.settle((await bench.claim_one()).ref, dead)
        await store.outbox.refuse(await lease_one(store), "gone")
        (letter,) = await store.inbox.dead()
        assert (letter.kind, letter.error) == (DeadKind.MODEL, "TimeoutError")


class TestDue:
    async def test_a_session_has_one_reply_on_its_way_at_a_time(self, bench: Bench, store: Store) -> None:
        for text in ("one", "two", "three"):
            await bench.answer(text)
        first = await lease_one(store)
        assert (await store.outbox.due("other", 10, 30)).replies == ()
        await store.outbox.delivered(first, "id")
        assert (first.text, (await lease_one(store)).text) == ("one", "two")

    async def test_replies_go_in_the_order_they_were_written(self, bench: Bench, store: Store) -> None:
        for number in range(10):
            bench.clock.now -= 1
            await bench.answer(f"{number}")
        assert [reply.text for reply in await bench.send_all()] == [f"{number}" for number in range(10)]

    async def test_sessions_do_not_wait_for_each_other(self, bench: Bench, store: Store) -> None:
        for number in range(5):
            await bench.answer(f"{number}", f"a:b:{number}")
        first = (await store.outbox.due("host", 2, 30)).replies
        rest = (await store.outbox.due("host", 10, 30)).replies
        assert [reply.text for reply in [*first, *rest]] == list("01234")

    async def test_senders_at_once_never_share_a_reply(self, bench: Bench, store: Store) -> None:
        for number in range(20):
            await bench.answer("hello", f"a:b:{number}")
        leased = await asyncio.gather(*(store.outbox.due(f"host-{n}", 6, 30) for n in range(5)))
        assert len({reply.session for due in leased for reply in due.replies}) == 20

    async def test_each_platform_has_its_share(self, bench: Bench, store: Store) -> None:
        """However much of another waits, and fresh replies go before those that were tried, or behind them."""
        for number in range(6):
            await bench.answer(f"a{number}", f"a:b:{number}")
            await bench.answer(f"b{number}", f"b:b:{number}")
        (tried,) = (await store.outbox.due("host", 9, 30, Shares({"a": 1, "b": 0}))).replies
        await store.outbox.postpone(tried, 0, "not now")
        due = await store.outbox.due("host", 9, 30, Shares({"b": 2, "a": 3}))
        assert [reply.text for reply in due.replies] == ["b0", "a1", "b1", "a2", "a3"]
        assert due.next_in_s == 30
        (first, _) = (await store.outbox.due("host", 9, 30, Shares({"a": 2, "b": 0}, retries_first=True))).replies
        assert (first.text, first.attempts) == ("a0", 1)
        elsewhere = (await store.outbox.due("host", 9, 30, Shares({"a": 9}, others=True))).replies
        assert {reply.text for reply in elsewhere} == {"a5", "b2", "b3", "b4", "b5"}

    async def test_a_reply_that_is_given_back_untried_is_due_later_with_no_attempt(
        self, bench: Bench, store: Store
    ) -> None:
        await bench.answer("hello")
        await store.outbox.release(await lease_one(store), 7)
        due = await store.outbox.due("host", 9, 30)
        assert (due.replies, due.next_in_s) == ((), 7)
        bench.clock.now += 7
        assert (await lease_one(store)).attempts == 0

    async def test_a_lease_that_ended_is_leased_again_and_counts_as_sent(self, bench: Bench, store: Store) -> None:
        await bench.answer("hello")
        await lease_one(store)
        bench.clock.now += 31
        again = await lease_one(store, "other")
        assert (again.attempts, again.lease) == (1, 2)

    async def test_next_due_tells_when_to_come_again(self, bench: Bench, store: Store) -> None:
        assert await bench.next_due_in_s() is None
        await bench.answer("hello")
        assert await bench.next_due_in_s() == 0
        reply = await lease_one(store)
        assert await bench.next_due_in_s() == pytest.approx(30)
        await store.outbox.postpone(reply, 7, "429")
        assert await bench.next_due_in_s() == pytest.approx(7)
        bench.clock.now += 8
        await bench.send_all()
        assert await bench.next_due_in_s() is None

    async def test_nothing_waits_for_ever_when_the_clock_was_set_back_meanwhile(
        self, bench: Bench, store: Store
    ) -> None:
        await bench.answer("due", "a:b:1")
        await bench.answer("postponed", "a:b:2")
        replies = (await store.outbox.due("host", 10, 30)).replies
        await store.outbox.postpone(replies[1], 60, "429")
        await bench.close()
        bench.clock.now -= 10 * 86_400
        store = await bench.open()
        assert {reply.text for reply in await bench.send_all()} == {"due", "postponed"}


class TestOutcome:
    async def test_a_delivered_reply_keeps_its_sent_id(self, bench: Bench, store: Store) -> None:
        message = await bench.answer("hello")
        bench.clock.now += 2
        await store.outbox.delivered(await lease_one(store), "ts-1")
        (trace,) = (await store.inbox.trace(message)).replies
        assert (trace.state, trace.sent_id, trace.sent_at) == (ReplyState.SENT, "ts-1", bench.clock.now)

    async def test_a_postponed_reply_comes_again_after_its_delay(self, bench: Bench, store: Store) -> None:
        message = await bench.answer("one")
        await bench.answer("two")
        await store.outbox.postpone(await lease_one(store), 10, "429 slow down")
        assert (await store.outbox.due("host", 10, 30)).replies == ()
        (trace,) = (await store.inbox.trace(message)).replies
        assert (trace.state, trace.attempts, trace.error) == (ReplyState.PENDING, 1, "429 slow down")
        bench.clock.now += 11
        again = await lease_one(store)
        assert (again.text, again.attempts) == ("one", 1)

    async def test_a_refused_reply_lets_the_next_message_go(self, bench: Bench, store: Store) -> None:
        message = await bench.answer("one")
        await bench.answer("two")
        reply = await lease_one(store)
        await store.outbox.split(reply, ["o", "n", "e"])
        await store.outbox.refuse(reply, "chat not found")
        traces = (await store.inbox.trace(message)).replies
        assert [(trace.state, trace.error) for trace in traces] == [(ReplyState.FAILED, "chat not found")] * 3
        assert (await lease_one(store)).text == "two"

    async def test_refusing_a_later_chunk_leaves_what_was_sent(self, bench: Bench, store: Store) -> None:
        message = await bench.answer("one")
        reply = await lease_one(store)
        await store.outbox.split(reply, ["o", "n", "e"])
        await store.outbox.delivered(reply, "id")
        await store.outbox.refuse(await lease_one(store), "gone")
        states = [trace.state for trace in (await store.inbox.trace(message)).replies]
        assert states == [ReplyState.SENT, ReplyState.FAILED, ReplyState.FAILED]
        assert await bench.next_due_in_s() is None

    async def test_a_new_address_holds_for_all_that_is_behind(self, bench: Bench, store: Store) -> None:
        await bench.answer("zero")
        await bench.send_all()
        await bench.answer("one")
        await bench.answer("two")
        await bench.answer("elsewhere", "a:b:d")
        one, elsewhere = (await store.outbox.due("host", 10, 30)).replies
        await store.outbox.readdress(one, b"new")
        await store.outbox.delivered(one, "id")
        await store.outbox.postpone(elsewhere, 0, "")
        addresses = {reply.text: reply.address for reply in await bench.send_all()}
        assert addresses == {"two": b"new", "elsewhere": b'{"to": "ann"}'}


class TestSplit:
    async def test_chunks_are_sent_one_after_the_other(self, bench: Bench, store: Store) -> None:
        await bench.answer("a long text")
        await bench.answer("next")
        reply = await lease_one(store)
        chunks = await store.outbox.split(reply, ["a", "long", "text"])
        assert [(chunk.part, chunk.text, chunk.rendered) for chunk in chunks] == [
            (0, "a", True),
            (1, "long", True),
            (2, "text", True),
        ]
        assert (await store.outbox.due("other", 10, 30)).replies == ()
        await store.outbox.delivered(chunks[0], "id")
        rest = await bench.send_all()
        assert [(r.text, r.rendered) for r in rest] == [("long", True), ("text", True), ("next", False)]
        assert [r.address for r in rest] == [reply.address] * 3

    async def test_chunks_have_keys_of_their_own(self, bench: Bench, store: Store) -> None:
        await bench.answer("a long text")
        chunks = await store.outbox.split(await lease_one(store), ["a", "b"])
        assert len({chunk.idempotency_key for chunk in chunks}) == 2

    async def test_one_chunk_only_renders_the_row(self, bench: Bench, store: Store) -> None:
        await bench.answer("*hello*")
        (chunk,) = await store.outbox.split(await lease_one(store), ["<b>hello</b>"])
        await store.outbox.postpone(chunk, 0, "reset")
        again = await lease_one(store)
        assert (again.text, again.rendered, again.attempts) == ("<b>hello</b>", True, 1)

    async def test_a_reply_cannot_be_split_into_nothing(self, bench: Bench, store: Store) -> None:
        await bench.answer("hello")
        with pytest.raises(ValueError, match="not 0"):
            await store.outbox.split(await lease_one(store), [])


class TestFence:
    async def test_a_sender_whose_lease_was_given_away_writes_nothing(self, bench: Bench, store: Store) -> None:
        message = await bench.answer("hello")
        stale = await lease_one(store)
        bench.clock.now += 31
        owner = await lease_one(store, "other")
        for write in (
            store.outbox.delivered(stale, "late"),
            store.outbox.postpone(stale, 5, "late"),
            store.outbox.refuse(stale, "late"),
            store.outbox.readdress(stale, b"late"),
        ):
            with pytest.raises(StaleClaim):
                await write
        with pytest.raises(StaleClaim):
            await store.outbox.split(stale, ["late"])
        await store.outbox.delivered(owner, "in time")
        (trace,) = (await store.inbox.trace(message)).replies
        assert (trace.sent_id, trace.error) == ("in time", "")

    async def test_a_late_sender_that_nobody_forestalled_counts(self, bench: Bench, store: Store) -> None:
        await bench.answer("hello")
        reply = await lease_one(store)
        bench.clock.now += 31
        await store.outbox.delivered(reply, "id")
        assert (await store.outbox.due("other", 10, 30)).replies == ()

    async def test_a_reply_is_closed_once(self, bench: Bench, store: Store) -> None:
        await bench.answer("hello")
        reply = await lease_one(store)
        await store.outbox.delivered(reply, "id")
        with pytest.raises(StaleClaim):
            await store.outbox.delivered(reply, "id")

    async def test_a_reply_of_a_deleted_session_is_stale(self, bench: Bench, store: Store) -> None:
        await bench.answer("hello")
        reply = await lease_one(store)
        await store.sessions.delete(SESSION)
        await bench.answer("hello again")
        await lease_one(store)
        with pytest.raises(StaleClaim):
            await store.outbox.delivered(reply, "id")
