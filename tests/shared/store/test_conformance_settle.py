"""What every engine has to do: the port's promises about fences and what a turn leaves behind."""

from __future__ import annotations

import asyncio

import pytest

from shared.attachments import attach, with_files
from shared.errors import StaleClaim
from shared.messages import Conversation, Dead, Outcome, Parked, ReplyStatus, Retry, Step, TurnStatus, Usage
from shared.store import Store
from tests.shared.store.scratch import Scratch, ended

SESSION = "a:b:c"
STEP_1 = Step(1, (b'{"role":"user"}', b'{"role":"assistant"}'), b"[1]", Usage(1, 2, 3, 4, 5))
STEP_2 = Step(2, (b'{"role":"tool"}',))


class TestCheckpoints:
    async def test_a_later_attempt_gets_the_finished_steps(self, scratch: Scratch, store: Store) -> None:
        claim = await scratch.accept_and_claim()
        await store.claims.checkpoint(claim.ref, [STEP_1])
        await store.claims.checkpoint(claim.ref, [STEP_2])
        await store.claims.settle(claim.ref, Parked())
        assert (await scratch.claim_one()).steps == (STEP_1, STEP_2)

    async def test_a_step_that_is_kept_twice_counts_once(self, scratch: Scratch, store: Store) -> None:
        claim = await scratch.accept_and_claim()
        await store.claims.checkpoint(claim.ref, [STEP_1, STEP_2])
        await store.claims.checkpoint(claim.ref, [STEP_2])
        scratch.clock.now += 31
        assert (await scratch.claim_one()).steps == (STEP_1, STEP_2)

    @pytest.mark.parametrize("outcome", [ended("hello"), Dead(3, "died", "sorry")], ids=["ended", "dead"])
    async def test_the_next_message_starts_without_steps(
        self, scratch: Scratch, store: Store, outcome: Outcome
    ) -> None:
        claim = await scratch.accept_and_claim()
        await scratch.accept()
        await store.claims.checkpoint(claim.ref, [STEP_1])
        await store.claims.settle(claim.ref, outcome)
        assert (await scratch.claim_one()).steps == ()


class TestSettle:
    async def test_an_ended_turn_writes_everything_at_once(self, scratch: Scratch, store: Store) -> None:
        claim = await scratch.accept_and_claim()
        await store.claims.settle(claim.ref, ended("hello", messages=(b"1", b"2"), todo=b"[1]"))
        assert await store.sessions.conversation(SESSION) == Conversation(claim.ref.epoch, (b"1", b"2"), b"[1]")
        assert await store.inbox.waiting() == 0
        (reply,) = (await store.outbox.due("host", 10, 30)).replies
        assert (reply.text, reply.message_id, reply.part) == ("hello", claim.messages[0].id, 0)
        assert (reply.platform, reply.address, reply.rendered) == ("a", b'{"to": "ann"}', False)

    async def test_a_later_turn_adds_to_the_history_and_keeps_the_todo(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("one", messages=(b"1", b"2"), todo=b"[1]")
        claim = await scratch.accept_and_claim()
        assert claim.version == (await store.sessions.conversation(SESSION)).version
        await store.claims.settle(claim.ref, ended("two", messages=(b"3",)))
        assert await store.sessions.conversation(SESSION) == Conversation(claim.ref.epoch, (b"1", b"2", b"3"), b"[1]")

    async def test_a_turn_that_changed_nothing_leaves_the_version(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("one", messages=(b"1",))
        before = (await store.sessions.summary(SESSION)).version
        await scratch.answer("two", messages=())
        await scratch.die("three")
        assert (await store.sessions.summary(SESSION)).version == before

    @pytest.mark.parametrize("text", ["hello", ""])
    async def test_files_of_a_turn_go_out_behind_its_text_each_once_and_alone(
        self, scratch: Scratch, store: Store, text: str
    ) -> None:
        one, other = attach("a.csv", "text/csv", b"1"), attach("b.bin", "application/octet-stream", b"2")
        tool = b'{"role":"tool","content":"x"}'
        given = (with_files(tool, [one]), b'{"role":"user","files":[1]}', with_files(tool, [other, one]))
        await scratch.answer(text, messages=given)
        await scratch.answer("later", messages=())
        sent = []
        for _ in range(4 if text else 3):
            (reply,) = (await store.outbox.due("host", 10, 30)).replies
            if reply.file == one:
                await store.outbox.refuse(reply, "too large")
            else:
                await store.outbox.delivered(reply, "1")
            sent.append((reply.text, reply.file, reply.part % 1000))
        files = [("a.csv", one, 0), ("b.bin", other, 0)]
        assert sent == [*([(text, None, 0)] if text else []), *files, ("later", None, 0)]
        (letter,) = (await store.inbox.dead()).letters
        assert letter.text == "a.csv"

    async def test_a_turn_without_a_text_sends_nothing(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("", messages=(b"1",))
        assert await store.inbox.waiting() == 0
        assert (await store.outbox.due("host", 10, 30)).replies == ()

    @pytest.mark.parametrize(
        ("status", "shown"),
        [
            (TurnStatus.REPLIED, ReplyStatus.REPLIED),
            (TurnStatus.INTERRUPTED, ReplyStatus.REPLIED),
            (TurnStatus.TIMED_OUT, ReplyStatus.FAILED),
            (TurnStatus.FAILED, ReplyStatus.FAILED),
        ],
    )
    async def test_a_reply_says_whether_it_failed(
        self, scratch: Scratch, store: Store, status: TurnStatus, shown: ReplyStatus
    ) -> None:
        await store.claims.settle((await scratch.accept_and_claim()).ref, ended("hello", status=status))
        assert [reply.status for reply in await scratch.send_all()] == [shown]

    async def test_a_parked_turn_runs_on_at_once_and_first(self, scratch: Scratch, store: Store) -> None:
        claim = await scratch.accept_and_claim("a:b:parked")
        await scratch.accept("a:b:later")
        await store.claims.settle(claim.ref, Parked())
        again, _ = (await store.claims.claim("other", 10, 30)).claims
        assert again.messages == claim.messages

    async def test_a_parked_suspect_is_still_one(self, scratch: Scratch, store: Store) -> None:
        await store.claims.settle((await scratch.accept_and_claim()).ref, Retry(0, 1, suspect=True, error="died"))
        await store.claims.settle((await scratch.claim_one(suspects=True)).ref, Parked())
        assert (await scratch.claim_one(suspects=True)).messages[0].suspect

    async def test_a_retry_waits_and_remembers(self, scratch: Scratch, store: Store) -> None:
        claim = await scratch.accept_and_claim()
        await store.claims.settle(claim.ref, Retry(5, 2, suspect=True, error="worker died"))
        assert (await store.claims.claim("host", 10, 30, suspects=True)).claims == ()
        scratch.clock.now += 6
        message = (await scratch.claim_one(suspects=True)).messages[0]
        assert (message.id, message.attempts, message.suspect) == (claim.messages[0].id, 2, True)
        trace = await store.inbox.trace(message.id)
        assert (trace.attempts, trace.suspect, trace.error) == (2, True, "worker died")

    async def test_a_dead_message_lets_the_next_one_run(self, scratch: Scratch, store: Store) -> None:
        claim = await scratch.accept_and_claim()
        second = await scratch.accept()
        await store.claims.settle(claim.ref, Dead(3, "died", ""))
        assert (await scratch.claim_one()).messages[0].id == second
        assert (await store.outbox.due("host", 10, 30)).replies == ()


class TestFence:
    OUTCOMES: tuple[Outcome, ...] = (
        ended("too late", todo=b"[9]"),
        Parked(),
        Retry(0, 1, suspect=True, error="died"),
        Dead(3, "died", "sorry"),
    )

    @pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: type(outcome).__name__)
    async def test_a_stale_owner_writes_nothing(self, scratch: Scratch, store: Store, outcome: Outcome) -> None:
        stale = await scratch.accept_and_claim()
        scratch.clock.now += 31
        owner = await scratch.claim_one("other")
        with pytest.raises(StaleClaim) as refusal:
            await store.claims.settle(stale.ref, outcome)
        assert (refusal.value.session, refusal.value.epoch) == (SESSION, stale.ref.epoch)
        with pytest.raises(StaleClaim):
            await store.claims.checkpoint(stale.ref, [STEP_1])
        await store.claims.settle(owner.ref, ended("in time", messages=(b"1",)))
        assert await store.sessions.conversation(SESSION) == Conversation(owner.ref.epoch, (b"1",), None)
        assert [reply.text for reply in await scratch.send_all()] == ["in time"]

    @pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: type(outcome).__name__)
    async def test_a_claim_is_settled_once(self, scratch: Scratch, store: Store, outcome: Outcome) -> None:
        claim = await scratch.accept_and_claim()
        await store.claims.settle(claim.ref, outcome)
        for late in self.OUTCOMES:
            with pytest.raises(StaleClaim):
                await store.claims.settle(claim.ref, late)

    async def test_a_stale_settle_takes_nobody_of_its_batch_with_it(self, scratch: Scratch, store: Store) -> None:
        stale = await scratch.accept_and_claim()
        await scratch.adopt("nobody")
        writes = [store.inbox.accept(scratch.arrival(f"a:b:{n}")) for n in range(10)]
        results = await asyncio.gather(
            *writes[:5], store.claims.settle(stale.ref, ended("late")), *writes[5:], return_exceptions=True
        )
        assert isinstance(results.pop(5), StaleClaim)
        assert not any(isinstance(result, BaseException) for result in results)
        assert await store.inbox.waiting() == 11
