"""What every engine has to do: the port's promises about what a turn is shown of its session."""

from __future__ import annotations

import pytest

from shared.command import CommandKind
from shared.errors import StaleClaim
from shared.messages import Claim, Context, Conversation, Dead, Parked, Retry, Step, Summary
from shared.store import Store
from tests.shared.store.scratch import Scratch, ended, rewrite

SESSION = "a:b:c"
PLENTY = 1 << 20


def summary(covers: int, text: str = "so far") -> Summary:
    return Summary(covers, f"{text} {covers}", b"[1]", "what they asked")


async def with_history(scratch: Scratch, count: int) -> Claim:
    """Accept a message of a session with so many messages before it, and claim it."""
    await scratch.store.inbox.accept(scratch.arrival(history=tuple(b"%d" % n for n in range(count))))
    return await scratch.claim_one()


class TestContext:
    async def test_without_a_summary_it_is_the_newest_messages(self, scratch: Scratch, store: Store) -> None:
        assert await store.sessions.context(SESSION, 100, PLENTY) == Context(0, 0, ())
        claim = await with_history(scratch, 10)
        assert await store.sessions.context(SESSION, 3, PLENTY) == Context(claim.version, 7, (b"7", b"8", b"9"))
        assert (await store.sessions.context(SESSION, 0, PLENTY)).first == 10

    async def test_it_fits_into_its_bytes_but_for_one_message(self, scratch: Scratch, store: Store) -> None:
        messages = (b"x" * 100, b"y" * 100, b"z" * 100)
        await scratch.answer("hello", messages=messages, todo=b"[1]")
        for limit_bytes, first in ((1000, 0), (300, 0), (299, 1), (100, 2), (1, 2)):
            found = await store.sessions.context(SESSION, 100, limit_bytes)
            assert (found.first, found.messages, found.todo) == (first, messages[first:], b"[1]")
        assert (await store.sessions.context(SESSION, 100, 1, least=2)).first == 1
        assert (await store.sessions.context(SESSION, 1, 1, least=2)).first == 2

    async def test_with_a_summary_it_is_what_is_behind_it(self, scratch: Scratch, store: Store) -> None:
        claim = await with_history(scratch, 10)
        await store.claims.checkpoint(claim.ref, (), summary(8))
        expected = Context(claim.version, 8, (b"8", b"9"), None, summary(8))
        assert await store.sessions.context(SESSION, 100, PLENTY) == expected
        assert len((await store.sessions.conversation(SESSION)).messages) == 10


class TestSummaries:
    async def test_the_latest_holds_for_later_turns_and_after_a_restart(self, scratch: Scratch, store: Store) -> None:
        claim = await with_history(scratch, 4)
        await store.claims.checkpoint(claim.ref, (), summary(2))
        await store.claims.settle(claim.ref, ended("hello", messages=(b"4", b"5")))
        store = await scratch.open()
        assert (await store.sessions.context(SESSION, 100, PLENTY)).summary == summary(2)
        claim = await scratch.accept_and_claim()
        await store.claims.checkpoint(claim.ref, (), summary(5))
        found = await store.sessions.context(SESSION, 100, PLENTY)
        assert (found.summary, found.first, found.messages) == (summary(5), 5, (b"5",))

    async def test_one_that_covers_steps_of_its_turn_is_committed_with_them(
        self, scratch: Scratch, store: Store
    ) -> None:
        claim = await with_history(scratch, 2)
        await store.claims.checkpoint(claim.ref, [Step(1, (b"2", b"3", b"4"))], summary(4))
        scratch.clock.now += 31
        again = await scratch.claim_one()
        found = await store.sessions.context(SESSION, 100, PLENTY)
        assert (found.summary, found.first, found.messages) == (summary(4), 2, ())
        assert again.steps == (Step(1, (b"2", b"3", b"4")),)
        await store.claims.settle(again.ref, ended("hello", messages=(b"2", b"3", b"4", b"5")))
        found = await store.sessions.context(SESSION, 100, PLENTY)
        assert (found.summary, found.first, found.messages) == (summary(4), 4, (b"4", b"5"))

    async def test_an_end_brings_its_own(self, scratch: Scratch, store: Store) -> None:
        claim = await with_history(scratch, 2)
        outcome = ended("hello", messages=(b"2", b"3"))
        await store.claims.settle(claim.ref, type(outcome)(outcome.status, "x", (b"2", b"3"), summary=summary(3)))
        found = await store.sessions.context(SESSION, 100, PLENTY)
        assert (found.summary, found.messages) == (summary(3), (b"3",))

    async def test_a_stale_claim_writes_none(self, scratch: Scratch, store: Store) -> None:
        claim = await with_history(scratch, 2)
        scratch.clock.now += 31
        await scratch.claim_one()
        with pytest.raises(StaleClaim):
            await store.claims.checkpoint(claim.ref, (), summary(1))
        assert (await store.sessions.context(SESSION, 100, PLENTY)).summary is None

    @pytest.mark.parametrize("outcome", [Parked(), Retry(0, 1, suspect=False, error="died")], ids=["parked", "retry"])
    async def test_a_turn_that_goes_on_later_keeps_it(
        self, scratch: Scratch, store: Store, outcome: Parked | Retry
    ) -> None:
        claim = await with_history(scratch, 2)
        await store.claims.checkpoint(claim.ref, (), summary(1))
        await store.claims.settle(claim.ref, outcome)
        assert (await store.sessions.context(SESSION, 100, PLENTY)).summary == summary(1)

    async def test_what_a_dead_turn_summarized_goes_with_its_steps(self, scratch: Scratch, store: Store) -> None:
        claim = await with_history(scratch, 4)
        await store.claims.checkpoint(claim.ref, (), summary(2))
        await store.claims.settle(claim.ref, ended("hello", messages=(b"4",)))
        claim = await scratch.accept_and_claim()
        await store.claims.checkpoint(claim.ref, [Step(1, (b"5", b"6"))], summary(6))
        await store.claims.checkpoint(claim.ref, (), summary(3))
        await store.claims.settle(claim.ref, Dead(3, "died", "sorry"))
        found = await store.sessions.context(SESSION, 100, PLENTY)
        assert (found.summary, found.first, found.messages) == (summary(2), 2, (b"2", b"3", b"4"))

    async def test_it_goes_with_the_history_it_was_made_of(self, scratch: Scratch, store: Store) -> None:
        claim = await with_history(scratch, 4)
        await store.claims.checkpoint(claim.ref, (), summary(2))
        await store.claims.settle(claim.ref, ended("hello", messages=(b"4",)))
        before = await store.sessions.conversation(SESSION)
        await rewrite(store, SESSION, Conversation(before.version, before.messages))
        assert (await store.sessions.context(SESSION, 100, PLENTY)).summary is None
        claim = await scratch.accept_and_claim()
        await store.claims.checkpoint(claim.ref, (), summary(2))
        await store.sessions.delete(SESSION)
        assert await store.sessions.context(SESSION, 100, PLENTY) == Context(0, 0, ())


async def turn(scratch: Scratch, number: int, *, covers: int | None = None) -> None:
    """Answer a message with two messages of the transcript, after a summary if it covers any."""
    claim = await scratch.accept_and_claim()
    if covers is not None:
        await scratch.store.claims.checkpoint(claim.ref, (), summary(covers))
    messages = (b"%d" % (2 * number), b"%d" % (2 * number + 1))
    await scratch.store.claims.settle(claim.ref, ended("hello", messages=messages))


async def shown(store: Store) -> tuple[Summary | None, int, tuple[bytes, ...]]:
    found = await store.sessions.context(SESSION, 100, PLENTY)
    return found.summary, found.first, found.messages


class TestCommands:
    async def test_undo_takes_a_summary_along_that_was_made_in_what_is_undone(
        self, scratch: Scratch, store: Store
    ) -> None:
        await turn(scratch, 0)
        await turn(scratch, 1, covers=1)
        await turn(scratch, 2)
        await turn(scratch, 3, covers=4)
        assert (await shown(store))[0] == summary(4)
        await scratch.order(CommandKind.UNDO)
        assert await shown(store) == (summary(1), 1, (b"1", b"2", b"3", b"4", b"5"))
        await scratch.order(CommandKind.UNDO)
        assert await shown(store) == (summary(1), 1, (b"1", b"2", b"3"))
        await scratch.order(CommandKind.UNDO)
        assert await shown(store) == (None, 0, (b"0", b"1"))

    async def test_a_position_that_is_written_anew_has_no_summary_of_what_was_there(
        self, scratch: Scratch, store: Store
    ) -> None:
        await turn(scratch, 0)
        claim = await scratch.accept_and_claim()
        await store.claims.checkpoint(claim.ref, [Step(1, (b"2", b"3", b"4"))], summary(4))
        await store.claims.settle(claim.ref, ended("hello", messages=(b"2", b"3", b"4", b"5")))
        await scratch.order(CommandKind.RETRY)
        claim = await scratch.claim_one()
        assert await shown(store) == (None, 0, (b"0", b"1"))
        await store.claims.settle(claim.ref, ended("hello", messages=(b"6", b"7", b"8", b"9")))
        assert await shown(store) == (None, 0, (b"0", b"1", b"6", b"7", b"8", b"9"))

    async def test_a_new_conversation_is_not_shown_a_summary_of_the_old_one(
        self, scratch: Scratch, store: Store
    ) -> None:
        await turn(scratch, 0)
        await turn(scratch, 1, covers=2)
        await scratch.order(CommandKind.NEW)
        assert await shown(store) == (None, 4, ())
        await turn(scratch, 2)
        await turn(scratch, 3, covers=6)
        assert await shown(store) == (summary(6), 6, (b"6", b"7"))
        await scratch.order(CommandKind.UNDO)
        assert await shown(store) == (None, 4, (b"4", b"5"))
