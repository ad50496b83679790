"""What every engine has to do: the port's promises about replies on their way out."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from shared.errors import NotFound, StaleClaim
from shared.hosts import Beat
from shared.messages import LATE_S, Dead, DeadKind, Reply, ReplyState, ReplyStatus, Shares
from shared.store import Store
from tests.shared.store.scratch import Scratch, ended

SESSION = "a:b:c"


async def lease_one(store: Store, host: str = "host") -> Reply:
    """Lease the one reply that is due."""
    (reply,) = (await store.outbox.due(host, 10, 30)).replies
    return reply


class TestHandedOver:
    async def test_another_gateway_sends_the_rest_of_a_session_from_where_it_is_shown(
        self, scratch: Scratch, store: Store
    ) -> None:
        """The row counts no attempt, and its order is kept."""
        for host in ("one", "two"):
            await store.hosts.beat(Beat(host, gateway=True), 600)
        await scratch.answer("one two")
        await scratch.answer("three")
        first, _ = await store.outbox.split(await lease_one(store, "one"), ["one", "two"])
        await store.outbox.hand_over(msgspec.structs.replace(first, address=b"shown"), "two")
        sent = []
        for _ in range(3):
            assert (await store.outbox.due("one", 10, 30)).replies == ()
            reply = await lease_one(store, "two")
            sent.append((reply.text, reply.attempts, reply.rendered, reply.address == b"shown"))
            await store.outbox.delivered(reply, "id")
        assert sent == [("one", 0, True, True), ("two", 0, True, False), ("three", 0, False, False)]


class TestRefused:
    async def test_a_refused_reply_is_a_dead_letter_with_all_its_parts(self, scratch: Scratch, store: Store) -> None:
        """It is sent again part by part, in its order, and ends once it is sent or purged."""
        await scratch.answer("one two three")
        first, *_ = await store.outbox.split(await lease_one(store), ["one", "two", "three"])
        await store.outbox.delivered(first, "id")
        await scratch.answer("later")
        await store.outbox.refuse(await lease_one(store), "chat not found")
        (letter,) = (await store.inbox.dead()).letters
        assert (letter.kind, letter.text, letter.error) == (DeadKind.REPLY, "two\nthree", "chat not found")
        assert letter.session == SESSION
        on_its_way = await lease_one(store)
        await store.inbox.retry_dead(letter.id)
        assert (await store.inbox.dead()).letters == ()
        assert (await store.outbox.due("host", 10, 30)).replies == ()  # one of a session at a time
        await store.outbox.delivered(on_its_way, "id")
        sent = [on_its_way.text, *[reply.text for reply in await scratch.send_all()]]
        assert sent == ["later", "two", "three"]

    async def test_a_refused_reply_stays_until_it_is_purged(self, scratch: Scratch, store: Store) -> None:
        """Also one that answers no message, and however old it grows."""
        await scratch.answer("hello")
        await store.outbox.refuse(await lease_one(store), "gone")
        scratch.clock.now += 1
        reply = Reply("a:b:d", "msg_unasked", 0, "a", "code", b"{}", ReplyStatus.REPLIED)
        assert await store.inbox.announce(reply, (), 60)
        await store.outbox.refuse(await lease_one(store), "blocked")
        scratch.clock.now += 100 * 86_400
        await store.inbox.expire(60)
        letters = (await store.inbox.dead()).letters
        assert [(letter.error, letter.kind) for letter in letters] == [
            ("blocked", DeadKind.REPLY),
            ("gone", DeadKind.REPLY),
        ]
        for letter in letters:
            await store.inbox.purge_dead(letter.id)
        assert (await store.inbox.dead()).letters == ()
        with pytest.raises(NotFound):
            await store.inbox.retry_dead("msg_unasked")

    async def test_pages_of_dead_letters_of_every_kind_hold_each_once(self, scratch: Scratch, store: Store) -> None:
        """Also of those that died at one moment."""
        made = set()
        for number in range(3):
            made.add(await scratch.die(f"{number}", f"a:b:dead{number}"))
            reply = Reply("a:b:d", f"msg_unasked{number}", 0, "a", "code", b"{}", ReplyStatus.REPLIED)
            assert await store.inbox.announce(reply, (), 60)
            made.add(reply.message_id)
        while due := (await store.outbox.due("host", 10, 30)).replies:
            for leased in due:
                await store.outbox.refuse(leased, "blocked")
        everything = await store.inbox.dead()
        assert (everything.after, {letter.id for letter in everything.letters}) == (None, made)
        for limit in (1, 2, 4, 6):
            page = await store.inbox.dead(limit)
            found = [*page.letters]
            while page.after is not None:
                page = await store.inbox.dead(limit, page.after)
                assert 0 < len(page.letters) <= limit
                found += page.letters
            assert found == list(everything.letters)

    async def test_a_reply_to_a_dead_letter_is_none_of_its_own(self, scratch: Scratch, store: Store) -> None:
        await scratch.accept()
        dead = Dead(3, "TimeoutError", "no model answered", kind=DeadKind.MODEL)
        await store.claims.settle((await scratch.claim_one()).ref, dead)
        await store.outbox.refuse(await lease_one(store), "gone")
        (letter,) = (await store.inbox.dead()).letters
        assert (letter.kind, letter.error) == (DeadKind.MODEL, "TimeoutError")


class TestDue:
    async def test_a_session_has_one_reply_on_its_way_at_a_time(self, scratch: Scratch, store: Store) -> None:
        for text in ("one", "two", "three"):
            await scratch.answer(text)
        first = await lease_one(store)
        assert (await store.outbox.due("other", 10, 30)).replies == ()
        await store.outbox.delivered(first, "id")
        assert (first.text, (await lease_one(store)).text) == ("one", "two")

    async def test_replies_go_in_the_order_they_were_written(self, scratch: Scratch, store: Store) -> None:
        for number in range(10):
            scratch.clock.now -= 1
            await scratch.answer(f"{number}")
        assert [reply.text for reply in await scratch.send_all()] == [f"{number}" for number in range(10)]

    async def test_sessions_do_not_wait_for_each_other(self, scratch: Scratch, store: Store) -> None:
        for number in range(5):
            await scratch.answer(f"{number}", f"a:b:{number}")
        first = (await store.outbox.due("host", 2, 30)).replies
        rest = (await store.outbox.due("host", 10, 30)).replies
        assert [reply.text for reply in [*first, *rest]] == list("01234")

    async def test_senders_at_once_never_share_a_reply(self, scratch: Scratch, store: Store) -> None:
        for number in range(20):
            await scratch.answer("hello", f"a:b:{number}")
        leased = await asyncio.gather(*(store.outbox.due(f"host-{n}", 6, 30) for n in range(5)))
        assert len({reply.session for due in leased for reply in due.replies}) == 20

    async def test_each_platform_has_its_share(self, scratch: Scratch, store: Store) -> None:
        """However much of another waits, and fresh replies go before those that were tried, or behind them."""
        for number in range(6):
            await scratch.answer(f"a{number}", f"a:b:{number}")
            await scratch.answer(f"b{number}", f"b:b:{number}")
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
        self, scratch: Scratch, store: Store
    ) -> None:
        await scratch.answer("hello")
        await store.outbox.release(await lease_one(store), 7)
        due = await store.outbox.due("host", 9, 30)
        assert (due.replies, due.next_in_s) == ((), 7)
        scratch.clock.now += 7
        assert (await lease_one(store)).attempts == 0

    async def test_a_lease_that_ended_is_leased_again_and_counts_as_sent(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("hello")
        await lease_one(store)
        scratch.clock.now += 31
        again = await lease_one(store, "other")
        assert (again.attempts, again.lease) == (1, 2)

    async def test_a_host_gives_back_what_it_has_leased_and_does_not_send(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("hi")
        (reply,) = (await store.outbox.due("host", 10, 120)).replies
        assert await store.outbox.held("host") == [reply.leased]
        assert await store.outbox.held("other") == []
        await store.outbox.give_back("other", [reply.leased])
        assert (await store.outbox.due("other", 10, 120)).replies == ()
        await store.outbox.give_back("host", [reply.leased])
        (again,) = (await store.outbox.due("other", 10, 120)).replies
        assert (again.message_id, again.attempts) == (reply.message_id, 1)
        await store.outbox.give_back("host", [reply.leased])
        assert await store.outbox.held("other") == [again.leased]

    async def test_what_another_gateway_sends_is_left_to_it_for_a_while(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("hi")
        shares = Shares({"a": 5}, late_only=frozenset({"a"}))
        assert (await store.outbox.due("host", 10, 30, shares)).replies == ()
        scratch.clock.now += LATE_S + 0.1
        assert len((await store.outbox.due("host", 10, 30, shares)).replies) == 1

    async def test_the_gateway_that_accepted_a_message_sends_its_reply_at_once_and_no_other_does(
        self, scratch: Scratch, store: Store
    ) -> None:
        for host in ("one", "two"):
            await store.hosts.beat(Beat(host, gateway=True, workers=0), 10)
        await store.inbox.accept(scratch.arrival(gateway="one"))
        await store.claims.settle((await scratch.claim_one()).ref, ended("hi"))
        assert (await store.outbox.due("two", 10, 30, Shares({"a": 5}))).replies == ()
        late = Shares({"a": 5}, late_only=frozenset({"a"}), retries_first=True)
        assert len((await store.outbox.due("one", 10, 30, late)).replies) == 1

    async def test_next_due_tells_when_to_come_again(self, scratch: Scratch, store: Store) -> None:
        assert await scratch.next_due_in_s() is None
        await scratch.answer("hello")
        assert await scratch.next_due_in_s() == 0
        reply = await lease_one(store)
        assert await scratch.next_due_in_s() == pytest.approx(30)
        await store.outbox.postpone(reply, 7, "429")
        assert await scratch.next_due_in_s() == pytest.approx(7)
        scratch.clock.now += 8
        await scratch.send_all()
        assert await scratch.next_due_in_s() is None

    async def test_nothing_waits_for_ever_when_the_clock_was_set_back_meanwhile(
        self, scratch: Scratch, store: Store
    ) -> None:
        await scratch.answer("due", "a:b:1")
        await scratch.answer("postponed", "a:b:2")
        replies = (await store.outbox.due("host", 10, 30)).replies
        await store.outbox.postpone(replies[1], 60, "429")
        await scratch.close()
        scratch.clock.now -= 10 * 86_400
        store = await scratch.open()
        assert {reply.text for reply in await scratch.send_all()} == {"due", "postponed"}


class TestOutcome:
    async def test_a_delivered_reply_keeps_its_sent_id(self, scratch: Scratch, store: Store) -> None:
        message = await scratch.answer("hello")
        scratch.clock.now += 2
        await store.outbox.delivered(await lease_one(store), "ts-1")
        (trace,) = (await store.inbox.trace(message)).replies
        assert (trace.state, trace.sent_id, trace.sent_at) == (ReplyState.SENT, "ts-1", scratch.clock.now)

    async def test_a_postponed_reply_comes_again_after_its_delay(self, scratch: Scratch, store: Store) -> None:
        message = await scratch.answer("one")
        await scratch.answer("two")
        await store.outbox.postpone(await lease_one(store), 10, "429 slow down")
        assert (await store.outbox.due("host", 10, 30)).replies == ()
        (trace,) = (await store.inbox.trace(message)).replies
        assert (trace.state, trace.attempts, trace.error) == (ReplyState.PENDING, 1, "429 slow down")
        scratch.clock.now += 11
        again = await lease_one(store)
        assert (again.text, again.attempts) == ("one", 1)

    async def test_a_refused_reply_lets_the_next_message_go(self, scratch: Scratch, store: Store) -> None:
        message = await scratch.answer("one")
        await scratch.answer("two")
        reply = await lease_one(store)
        await store.outbox.split(reply, ["o", "n", "e"])
        await store.outbox.refuse(reply, "chat not found")
        traces = (await store.inbox.trace(message)).replies
        assert [(trace.state, trace.error) for trace in traces] == [(ReplyState.FAILED, "chat not found")] * 3
        assert (await lease_one(store)).text == "two"

    async def test_refusing_a_later_chunk_leaves_what_was_sent(self, scratch: Scratch, store: Store) -> None:
        message = await scratch.answer("one")
        reply = await lease_one(store)
        await store.outbox.split(reply, ["o", "n", "e"])
        await store.outbox.delivered(reply, "id")
        await store.outbox.refuse(await lease_one(store), "gone")
        states = [trace.state for trace in (await store.inbox.trace(message)).replies]
        assert states == [ReplyState.SENT, ReplyState.FAILED, ReplyState.FAILED]
        assert await scratch.next_due_in_s() is None

    async def test_a_new_address_holds_for_all_that_is_behind(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("zero")
        await scratch.send_all()
        await scratch.answer("one")
        await scratch.answer("two")
        await scratch.answer("elsewhere", "a:b:d")
        one, elsewhere = (await store.outbox.due("host", 10, 30)).replies
        await store.outbox.readdress(one, b"new")
        await store.outbox.delivered(one, "id")
        await store.outbox.postpone(elsewhere, 0, "")
        addresses = {reply.text: reply.address for reply in await scratch.send_all()}
        assert addresses == {"two": b"new", "elsewhere": b'{"to": "ann"}'}


class TestSplit:
    async def test_chunks_are_sent_one_after_the_other(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("a long text")
        await scratch.answer("next")
        reply = await lease_one(store)
        chunks = await store.outbox.split(reply, ["a", "long", "text"])
        assert [(chunk.part, chunk.text, chunk.rendered) for chunk in chunks] == [
            (0, "a", True),
            (1, "long", True),
            (2, "text", True),
        ]
        assert (await store.outbox.due("other", 10, 30)).replies == ()
        await store.outbox.delivered(chunks[0], "id")
        rest = await scratch.send_all()
        assert [(r.text, r.rendered) for r in rest] == [("long", True), ("text", True), ("next", False)]
        assert [r.address for r in rest] == [reply.address] * 3

    async def test_chunks_have_keys_of_their_own(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("a long text")
        chunks = await store.outbox.split(await lease_one(store), ["a", "b"])
        assert len({chunk.idempotency_key for chunk in chunks}) == 2

    async def test_one_chunk_only_renders_the_row(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("*hello*")
        (chunk,) = await store.outbox.split(await lease_one(store), ["<b>hello</b>"])
        await store.outbox.postpone(chunk, 0, "reset")
        again = await lease_one(store)
        assert (again.text, again.rendered, again.attempts) == ("<b>hello</b>", True, 1)

    async def test_a_reply_cannot_be_split_into_nothing(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("hello")
        with pytest.raises(ValueError, match="not 0"):
            await store.outbox.split(await lease_one(store), [])


class TestFence:
    async def test_a_sender_whose_lease_was_given_away_writes_nothing(self, scratch: Scratch, store: Store) -> None:
        message = await scratch.answer("hello")
        stale = await lease_one(store)
        scratch.clock.now += 31
        owner = await lease_one(store, "other")
        for write in (
            store.outbox.delivered(stale, "late"),
            store.outbox.postpone(stale, 5, "late"),
            store.outbox.refuse(stale, "late"),
            store.outbox.readdress(stale, b"late"),
            store.outbox.hand_over(stale, "other"),
        ):
            with pytest.raises(StaleClaim):
                await write
        with pytest.raises(StaleClaim):
            await store.outbox.split(stale, ["late"])
        await store.outbox.delivered(owner, "in time")
        (trace,) = (await store.inbox.trace(message)).replies
        assert (trace.sent_id, trace.error) == ("in time", "")

    async def test_a_late_sender_that_nobody_forestalled_counts(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("hello")
        reply = await lease_one(store)
        scratch.clock.now += 31
        await store.outbox.delivered(reply, "id")
        assert (await store.outbox.due("other", 10, 30)).replies == ()

    async def test_a_reply_is_closed_once(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("hello")
        reply = await lease_one(store)
        await store.outbox.delivered(reply, "id")
        await store.outbox.delivered(reply, "id")  # as after a commit whose answer was lost
        with pytest.raises(StaleClaim):
            await store.outbox.delivered(reply, "another")

    async def test_a_reply_of_a_deleted_session_is_stale(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("hello")
        reply = await lease_one(store)
        await store.sessions.delete(SESSION)
        await scratch.answer("hello again")
        await lease_one(store)
        with pytest.raises(StaleClaim):
            await store.outbox.delivered(reply, "id")


async def test_replies_of_senders_go_by_turns(store: Store) -> None:
    """Whoever has few overtakes whoever has many, whose own stay in order; and after a while nobody overtakes."""

    async def announce(user: str, name: str) -> None:
        reply = Reply(f"a:b:{name}", f"msg_{name}", 0, "a", name, b"{}", ReplyStatus.REPLIED, sender=f"a:{user}")
        assert await store.inbox.announce(reply, (), 60)

    for number in range(100):
        await announce("many", f"m{number}")
    await announce("few", "f0")
    await announce("other", "o0")
    await announce("few", "f1")
    order = [reply.text for reply in (await store.outbox.due("host", 103, 30)).replies]
    assert order[:3] == ["m0", "f0", "o0"]
    assert order.index("f1") < 5
    assert [name for name in order if name.startswith("m")] == [f"m{number}" for number in range(100)]
