"""What every engine has to do: the port's promises about conversations, pairings and its own life."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from shared.attachments import attach
from shared.errors import NotFound, StaleClaim, StoreUnavailable
from shared.messages import Conversation, Dead, stateless_key
from shared.store import Store
from shared.store.sql.tables import pairings
from shared.traces import Backlog, SessionQuery
from tests.shared.store.scratch import Scratch, ended

SESSION = "a:b:c"


class TestSessions:
    async def test_sessions_are_listed_latest_first(self, scratch: Scratch, store: Store) -> None:
        for number in range(3):
            scratch.clock.now += 1
            await scratch.accept(f"a:b:{number}")
        await scratch.accept("a:b:1")
        listed = await store.sessions.latest()
        assert [(row.key, row.waiting) for row in listed] == [("a:b:2", 1), ("a:b:1", 2), ("a:b:0", 1)]
        assert len(await store.sessions.latest(limit=2)) == 2

    async def test_a_chat_that_moves_keeps_its_sessions(self, scratch: Scratch, store: Store) -> None:
        """With the threads in it; what waits goes to its new place, and a second move leads to the same sessions."""
        await store.inbox.accept(scratch.arrival("a:b:old", reply=b"old"))
        await store.claims.settle((await scratch.claim_one()).ref, ended("one"))
        await store.inbox.accept(scratch.arrival("a:b:old:thread", reply=b"old"))
        await store.inbox.accept(scratch.arrival("a:b:older", reply=b"other"))
        await store.inbox.accept(scratch.arrival("a:b:new", dedupe="early"))
        await store.sessions.move("a:b:old", "a:b:new", lambda address: address + b" moved")
        await store.sessions.move("a:b:new", "a:b:newer", lambda address: address + b" again")
        await store.sessions.move("a:b:old", "a:b:new", lambda _: b"too late")
        keys = ["a:b:newer", "a:b:new:thread", "a:b:old", "a:b:older", "a:c:new"]
        found = [await store.sessions.resolve(key) for key in keys]
        assert found == ["a:b:old", "a:b:old:thread", "a:b:old", "a:b:older", "a:c:new"]
        assert (await store.inbox.accept(scratch.arrival("a:b:old", dedupe="early"))).duplicate
        addresses = [reply.address for reply in (await store.outbox.due("host", 10, 30)).replies]
        claims = (await store.claims.claim("host", 10, 30)).claims
        addresses += [await store.inbox.address(row.ref.session, row.messages[0].id) for row in claims]
        assert sorted(addresses)[-4:] == [b"old moved again", b"old moved again", b"other", b'{"to": "ann"}']

    async def test_pages_of_a_search_hold_every_session_that_fits_once(self, scratch: Scratch, store: Store) -> None:
        for number in range(7):
            scratch.clock.now += number % 2  # some have the same time
            await scratch.accept(f"{'ab'[number % 2]}:bot:Room{number}")
        await scratch.accept(stateless_key("msg_1"))
        found: list[str] = []
        query = SessionQuery(words="bot:ROOM", platform="a", limit=3)
        while True:
            page = await store.sessions.page(query)
            found += [row.key for row in page.sessions]
            if page.after is None:
                break
            query = msgspec.structs.replace(query, after=page.after)
        assert found == ["a:bot:Room6", "a:bot:Room4", "a:bot:Room2", "a:bot:Room0"]
        assert len((await store.sessions.page(SessionQuery())).sessions) == 7

    async def test_a_session_is_called_and_found_by_what_its_platform_told_last(
        self, scratch: Scratch, store: Store
    ) -> None:
        for title in ("Ops", "", "Öffentlich"):
            await store.inbox.accept(scratch.arrival("chat:a:42", title=title))
        await scratch.accept("chat:a:43")
        assert (await store.sessions.summary("chat:a:42")).title == "Öffentlich"
        found = await store.sessions.page(SessionQuery(words="öffent"))
        assert [(row.key, row.title) for row in found.sessions] == [("chat:a:42", "Öffentlich")]

    async def test_it_is_known_when_each_message_was_kept(self, scratch: Scratch, store: Store) -> None:
        began = scratch.clock.now
        await scratch.answer("one", messages=(b"1", b"2"))
        scratch.clock.now += 60
        await scratch.answer("two", messages=(b"3",))
        assert await store.sessions.times("a:b:c", 2) == (began, began + 60)

    async def test_the_images_of_a_message_come_with_its_claim_and_go_with_its_session(
        self, scratch: Scratch, store: Store
    ) -> None:
        image = attach("cat.png", "image/png", b"the bytes")
        arrival = scratch.arrival(SESSION, attachments=(image,), attachment_data={image.digest: b"the bytes"})
        await store.inbox.accept(arrival)
        claim = await scratch.claim_one()
        assert claim.messages[0].attachments == (image,)
        assert await store.sessions.attachment(SESSION, image.digest) == b"the bytes"
        await store.sessions.keep_attachments(SESSION, {"other": b"of a tool", image.digest: b"the bytes"})
        assert await store.sessions.attachment(SESSION, "other") == b"of a tool"
        with pytest.raises(NotFound):
            await store.sessions.attachment("a:b:other", image.digest)
        await store.sessions.delete(SESSION)
        with pytest.raises(NotFound):
            await store.sessions.attachment(SESSION, image.digest)

    async def test_sessions_are_found_by_what_they_do(self, scratch: Scratch, store: Store) -> None:
        await scratch.accept("a:b:runs")
        await scratch.claim_one()
        await scratch.accept("a:b:waits")
        for state, key in (("running", "a:b:runs"), ("waiting", "a:b:waits")):
            page = await store.sessions.page(SessionQuery(state=state))
            assert [row.key for row in page.sessions] == [key]

    async def test_the_backlog_counts_what_is_not_done(self, scratch: Scratch, store: Store) -> None:
        assert await store.inbox.backlog() == Backlog(0, 0.0, 0, 0, dead_by_kind={"message": 0, "model": 0, "reply": 0})
        await scratch.accept("a:b:answered")
        claim = await scratch.claim_one()
        scratch.clock.now += 7
        await scratch.accept("a:b:waits")
        scratch.clock.now += 3
        backlog = await store.inbox.backlog()
        assert (backlog.waiting, backlog.undelivered, round(backlog.oldest_s)) == (2, 0, 3)
        await store.claims.settle(claim.ref, ended("hello"))
        given_up = await scratch.claim_one()
        await store.claims.settle(given_up.ref, Dead(3, "died", "sorry"))
        assert await store.inbox.backlog() == Backlog(0, 0.0, 2, 1, dead_by_kind={"message": 1, "model": 0, "reply": 0})

    async def test_what_is_not_answered_is_told_in_its_order(self, scratch: Scratch, store: Store) -> None:
        await scratch.accept("a:b:c", text="first")
        claim = await scratch.claim_one()
        await scratch.accept("a:b:c", text="second")
        waiting = await store.inbox.unanswered("a:b:c")
        assert [(one.text, one.claimed_at is None) for one in waiting] == [("first", False), ("second", True)]
        await store.claims.settle(claim.ref, ended("hello"))
        assert [one.text for one in await store.inbox.unanswered("a:b:c")] == ["second"]

    async def test_a_summary_tells_what_runs(self, scratch: Scratch, store: Store) -> None:
        await scratch.accept()
        claim = await scratch.claim_one()
        running = await store.sessions.summary(SESSION)
        assert (running.platform, running.version, running.running, running.waiting) == ("a", 0, True, 1)
        await store.claims.settle(claim.ref, ended("hello"))
        idle = await store.sessions.summary(SESSION)
        assert (idle.version, idle.running, idle.waiting) == (claim.ref.epoch, False, 0)

    async def test_a_new_session_has_an_empty_conversation(self, store: Store) -> None:
        assert await store.sessions.conversation("a:b:none") == Conversation(0, (), None)
        with pytest.raises(NotFound):
            await store.sessions.summary("a:b:none")

    async def test_a_conversation_can_be_read_from_its_end(self, scratch: Scratch, store: Store) -> None:
        await store.inbox.accept(scratch.arrival(history=tuple(b"%d" % n for n in range(10))))
        assert (await store.sessions.conversation(SESSION, last=3)).messages == (b"7", b"8", b"9")
        assert (await store.sessions.conversation(SESSION, last=0)).messages == ()
        assert len((await store.sessions.conversation(SESSION)).messages) == 10

    async def test_a_deleted_session_is_gone_with_all_it_had(self, scratch: Scratch, store: Store) -> None:
        message = await scratch.answer("hello", messages=(b"1",), todo=b"[1]")
        await scratch.accept()
        await store.sessions.delete(SESSION)
        assert await store.sessions.conversation(SESSION) == Conversation(0, (), None)
        assert await store.inbox.waiting() == 0
        assert (await store.outbox.due("host", 10, 30)).replies == ()
        with pytest.raises(NotFound):
            await store.inbox.trace(message)
        with pytest.raises(NotFound):
            await store.sessions.delete(SESSION)

    async def test_a_redelivery_to_a_deleted_session_starts_no_turn(self, scratch: Scratch, store: Store) -> None:
        await store.inbox.accept(scratch.arrival(dedupe="event-1"))
        await store.sessions.delete(SESSION)
        assert (await store.inbox.accept(scratch.arrival(dedupe="event-1"))).duplicate

    async def test_a_turn_of_a_deleted_session_is_stale_even_when_it_exists_again(
        self, scratch: Scratch, store: Store
    ) -> None:
        await scratch.accept()
        old = await scratch.claim_one()
        await store.sessions.delete(SESSION)
        with pytest.raises(StaleClaim):
            await store.claims.settle(old.ref, ended("too late"))
        await scratch.accept()
        new = await scratch.claim_one()
        assert new.ref.epoch != old.ref.epoch
        with pytest.raises(StaleClaim):
            await store.claims.settle(old.ref, ended("too late"))


class TestPairings:
    async def test_the_first_code_of_a_stranger_stands(self, store: Store) -> None:
        assert await store.sessions.pair("telegram:1", "AAA") == "AAA"
        assert await store.sessions.pair("telegram:1", "BBB") == "AAA"
        assert await store.sessions.strangers() == [("telegram:1", "AAA")]

    async def test_an_approved_stranger_may_talk(self, store: Store) -> None:
        await store.sessions.pair("telegram:1", "AAA")
        assert not await store.sessions.approved("telegram:1")
        assert await store.sessions.approve("AAA") == "telegram:1"
        assert await store.sessions.approved("telegram:1")
        assert await store.sessions.strangers() == []

    async def test_a_code_lets_nobody_in_who_does_not_have_it_alone(self, store: Store) -> None:
        await store.sessions.pair("telegram:1", "AAA")
        await store.sessions.pair("telegram:2", "AAA")
        for code in ("AAA", "BBB", ""):
            with pytest.raises(NotFound):
                await store.sessions.approve(code)

    async def test_strangers_that_wait_are_few_and_those_whose_time_is_over_are_forgotten(
        self, scratch: Scratch, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pairings, "MOST_WAITING", 2)
        for sender, code in (("a:1", "A1"), ("a:2", "A2"), ("a:3", ""), ("b:1", "B1"), ("a:1", "A1")):
            assert await store.sessions.pair(sender, f"{sender[0].upper()}{sender[2]}", 60.0) == code
        await store.sessions.approve("A1")
        assert await store.sessions.pair("a:3", "A3", 600.0) == "A3"
        scratch.clock.now += 61
        assert await store.sessions.pair("a:4", "A4", 600.0) == "A4"
        assert await store.sessions.strangers() == [("a:3", "A3"), ("a:4", "A4")]
        assert await store.sessions.let_in() == ["a:1"]


async def test_sessions_of_a_kind_that_rest_are_found_however_many_are_newer(scratch: Scratch, store: Store) -> None:
    await store.inbox.accept(scratch.arrival("api:stateless:key_1"))
    await store.claims.settle((await scratch.claim_one()).ref, ended("done"))
    scratch.clock.now += 100
    await scratch.answer("hello")
    await store.inbox.accept(scratch.arrival("api:stateless:key_2"))
    assert await store.sessions.unused("api:stateless:key_", 50.0, 10) == ["api:stateless:key_1"]
    scratch.clock.now += 100
    assert await store.sessions.unused("api:stateless:key_", 50.0, 10) == ["api:stateless:key_1"]


class TestLife:
    async def test_a_healthy_store_passes_its_check(self, store: Store) -> None:
        await store.check()
        await store.check()

    async def test_a_closed_store_is_unavailable(self, store: Store) -> None:
        await store.close()
        with pytest.raises(StoreUnavailable):
            await store.inbox.waiting()
        await store.close()

    async def test_closing_commits_what_is_queued(self, scratch: Scratch, store: Store) -> None:
        accepts = [asyncio.ensure_future(store.inbox.accept(scratch.arrival(f"a:b:{n}"))) for n in range(500)]
        await asyncio.sleep(0)
        await store.close()
        assert len(await asyncio.gather(*accepts)) == 500
        store = await scratch.open()
        assert await store.inbox.waiting() == 500

    async def test_a_caller_that_gives_up_harms_nobody(self, scratch: Scratch, store: Store) -> None:
        gone = asyncio.ensure_future(store.inbox.accept(scratch.arrival("a:b:1")))
        await asyncio.sleep(0)
        gone.cancel()
        await scratch.accept("a:b:2")
        assert await store.inbox.waiting() == 2

    async def test_all_of_it_survives_a_restart(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("hello", messages=(b"1",), todo=b"[1]")
        await store.claims.settle((await scratch.accept_and_claim("a:b:d")).ref, Dead(3, "died", "sorry"))
        before = [await store.sessions.latest(), await store.inbox.dead(), await store.sessions.conversation(SESSION)]
        store = await scratch.open()
        after = [await store.sessions.latest(), await store.inbox.dead(), await store.sessions.conversation(SESSION)]
        assert after == before
        assert sorted(reply.text for reply in await scratch.send_all()) == ["hello", "sorry"]
