"""What every engine has to do: chat commands that change a conversation, each in its place and with its answer."""

from __future__ import annotations

import msgspec
import pytest

from shared.approvals import Approval, Decision
from shared.attachments import Attachment
from shared.command import Command, CommandKind
from shared.errors import InboxFull, NotFound
from shared.journal import StepOpening
from shared.messages import (
    AwaitsApproval,
    CommandAnswer,
    Conversation,
    Dead,
    DeadKind,
    Ended,
    MessageState,
    Parked,
    ReplyStatus,
    Step,
    TurnStatus,
    Usage,
)
from shared.store import Store
from tests.shared.store.scratch import Scratch, ended

SESSION = "a:b:c"
INTERRUPTED = ended("cut", status=TurnStatus.INTERRUPTED, messages=(b"cut",))


async def replies(scratch: Scratch) -> list[str]:
    return [reply.text for reply in await scratch.send_all()]


async def said(store: Store) -> list[str]:
    return [message.decode() for message in (await store.sessions.conversation(SESSION)).messages]


class TestWhileTheSessionRests:
    @pytest.mark.parametrize("kind", CommandKind)
    async def test_a_command_in_a_new_session_finds_nothing(
        self, scratch: Scratch, store: Store, kind: CommandKind
    ) -> None:
        receipt = await scratch.order(kind)
        assert (receipt.state, receipt.answer, receipt.stops) == (MessageState.DONE, "nothing", "")
        assert await replies(scratch) == ["nothing"]
        assert (await store.claims.claim("host", 10, 30)).claims == ()
        assert await store.inbox.waiting() == 0
        trace = await store.inbox.trace(receipt.message_id)
        assert (trace.state, trace.running) == (MessageState.DONE, False)

    @pytest.mark.parametrize("kind", CommandKind)
    async def test_a_redelivered_command_acts_once(self, scratch: Scratch, store: Store, kind: CommandKind) -> None:
        for number in range(3):
            await scratch.answer("", messages=(f"{number}".encode(),))
        arrival = scratch.arrival(dedupe="again", command=Command(kind, "done", "nothing"))
        first = await store.inbox.accept(arrival)
        seen = await store.sessions.conversation(SESSION)
        again = await store.inbox.accept(msgspec.structs.replace(arrival, id="msg_again"))
        assert (again.duplicate, again.message_id, again.answer) == (True, first.message_id, "")
        assert await store.sessions.conversation(SESSION) == seen

    async def test_a_new_conversation_is_empty_and_the_old_one_is_kept(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("", messages=(b"1", b"2"), todo=b"[1]")
        before = await store.sessions.conversation(SESSION)
        assert (await scratch.order(CommandKind.NEW)).answer == "done"
        anew = await store.sessions.conversation(SESSION)
        assert (anew.messages, anew.todo) == ((), b"[1]")
        assert anew.version > before.version
        assert await store.sessions.earlier(SESSION) == (b"1", b"2")
        await scratch.answer("", messages=(b"3",))
        assert await said(store) == ["3"]
        assert (await store.sessions.conversation(SESSION, 10)).messages == (b"3",)
        assert (await scratch.order(CommandKind.NEW)).answer == "done"
        assert await store.sessions.earlier(SESSION) == (b"1", b"2", b"3")
        assert (await scratch.order(CommandKind.NEW)).answer == "nothing"

    async def test_undo_takes_back_one_exchange_after_the_other(self, scratch: Scratch, store: Store) -> None:
        first = await scratch.answer("one", messages=(b"1", b"2"), todo=b"[1]")
        await scratch.answer("two", messages=(b"3",))
        third = await scratch.answer("three", messages=(b"4", b"5"), todo=b"[2]")
        versions = {(await store.sessions.conversation(SESSION)).version}
        for left, todo in ((["1", "2", "3"], b"[1]"), (["1", "2"], b"[1]"), ([], b"[]")):
            assert (await scratch.order(CommandKind.UNDO)).answer == "done"
            found = await store.sessions.conversation(SESSION)
            assert (await said(store), found.todo) == (left, todo)
            versions.add(found.version)
        assert len(versions) == 4
        assert (await scratch.order(CommandKind.UNDO)).answer == "nothing"
        for message in (first, third):
            assert (await store.inbox.trace(message)).state is MessageState.WITHDRAWN

    async def test_undo_does_not_reach_into_an_earlier_conversation(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("one", messages=(b"1",), todo=b"[1]")
        await scratch.order(CommandKind.NEW)
        assert (await scratch.order(CommandKind.UNDO)).answer == "nothing"
        assert (await scratch.order(CommandKind.RETRY)).answer == "nothing"
        assert await store.sessions.earlier(SESSION) == (b"1",)
        assert (await store.sessions.conversation(SESSION)).todo == b"[1]"

    async def test_undo_leaves_what_no_message_of_here_wrote(self, scratch: Scratch, store: Store) -> None:
        await store.inbox.accept(scratch.arrival(history=(b"old",)))
        await store.claims.settle((await scratch.claim_one()).ref, ended("", messages=(b"1",)))
        assert (await scratch.order(CommandKind.UNDO)).answer == "done"
        assert (await scratch.order(CommandKind.UNDO)).answer == "nothing"
        assert await said(store) == ["old"]

    async def test_retry_runs_the_last_words_again_in_place_of_their_exchange(
        self, scratch: Scratch, store: Store
    ) -> None:
        await scratch.answer("one", messages=(b"1",))
        await store.inbox.accept(scratch.arrival(text="buy milk"))
        await store.claims.settle((await scratch.claim_one()).ref, ended("no", messages=(b"2", b"3"), todo=b"[1]"))
        receipt = await scratch.order(CommandKind.RETRY)
        assert (receipt.state, receipt.answer) == (MessageState.WAITING, "")
        claim = await scratch.claim_one()
        assert [(message.id, message.text) for message in claim.messages] == [(receipt.message_id, "buy milk")]
        found = await store.sessions.conversation(SESSION)
        assert found == Conversation(claim.version, (b"1",), b"[]")
        await store.claims.settle(claim.ref, ended("yes", messages=(b"4",)))
        assert await said(store) == ["1", "4"]
        assert await replies(scratch) == ["one", "no", "yes"]
        assert (await scratch.order(CommandKind.RETRY)).state is MessageState.WAITING
        assert (await scratch.claim_one()).messages[0].text == "buy milk"
        assert await said(store) == ["1"]

    async def test_a_retry_that_was_claimed_and_lost_takes_nothing_back_twice(
        self, scratch: Scratch, store: Store
    ) -> None:
        await scratch.answer("one", messages=(b"1",))
        await scratch.answer("two", messages=(b"2",))
        await scratch.order(CommandKind.RETRY)
        for _ in range(3):
            await store.claims.settle((await scratch.claim_one()).ref, Parked())
            await scratch.open()
            store = scratch.store
        assert (await scratch.claim_one()).messages[0].text == "hello"
        assert await said(store) == ["1"]

    @pytest.mark.parametrize("by", ["command", "operator"])
    async def test_what_a_dead_letter_without_a_model_has_done_is_not_done_again(
        self, scratch: Scratch, store: Store, by: str
    ) -> None:
        image = Attachment("a.png", "image/png", 3, "d1")
        arrival = scratch.arrival(text="pay", attachments=(image,), attachment_data={"d1": b"png"})
        await store.inbox.accept(arrival)
        (claim,) = (await store.claims.claim("host", 10, 30)).claims
        step = Step(1, (b"asked", b"paid"), b"[]", Usage(5, 1))
        await store.claims.checkpoint(claim.ref, [step])
        await store.claims.settle(claim.ref, Dead(1, "away", "sorry", kind=DeadKind.MODEL))
        if by == "command":
            await scratch.order(CommandKind.RETRY)
        else:
            await scratch.answer("meanwhile", messages=(b"meanwhile",), todo=b'["others"]')
            await store.inbox.retry_dead(arrival.id)
        (again,) = (await store.claims.claim("host", 10, 30)).claims
        assert (again.messages[0].text, again.messages[0].attachments) == ("pay", (image,))
        (kept,) = again.steps
        assert (kept.messages, kept.usage) == (step.messages, Usage())
        assert kept.todo == (b"[]" if by == "command" else None)
        await store.claims.settle(again.ref, Dead(1, "lost", "sorry"))
        await store.inbox.retry_dead(again.messages[0].id)
        (anew,) = (await store.claims.claim("host", 10, 30)).claims
        assert anew.steps == ()

    async def test_retry_runs_a_dead_letters_words(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("one", messages=(b"1",))
        dead = await scratch.die("poison")
        await scratch.order(CommandKind.RETRY)
        assert (await scratch.claim_one()).messages[0].text == "poison"
        assert await said(store) == ["1"]
        assert (await store.inbox.trace(dead)).state is MessageState.DEAD


class TestApprovals:
    async def test_a_turn_that_awaits_a_word_rests_until_somebody_decides(self, scratch: Scratch, store: Store) -> None:
        await scratch.accept()
        claim = await scratch.claim_one()
        await store.claims.journal(claim.ref, [StepOpening(1, (b"{}",))])
        waits = AwaitsApproval((Approval(1, "c1"), Approval(1, "c2")), "may I?", within_s=60)
        await store.claims.settle(claim.ref, waits)
        assert [reply.text for reply in (await store.outbox.due("host", 10, 30)).replies] == ["may I?"]
        assert (await store.claims.claim("host", 10, 30)).claims == ()
        receipt = await store.inbox.accept(scratch.arrival(command=Command(CommandKind.APPROVE, "ok", "nothing")))
        assert (receipt.state, receipt.answer) == (MessageState.DONE, "ok")
        (act,) = await store.audit.latest(10)
        assert (act.action, act.actor, act.target) == ("calls_approved", "a:ann", "a:b:c")
        again = await scratch.claim_one()
        assert again.approvals == (Approval(1, "c1", Decision.APPROVED), Approval(1, "c2", Decision.APPROVED))
        assert (again.messages[0].attempts, again.open_step and again.open_step.number) == (0, 1)

    async def test_who_is_asked_is_asked_once_and_no_answer_is_a_refusal(self, scratch: Scratch, store: Store) -> None:
        await scratch.accept()
        for _ in range(2):
            claim = await scratch.claim_one()
            await store.claims.journal(claim.ref, [StepOpening(1, (b"{}",))])
            await store.claims.settle(claim.ref, AwaitsApproval((Approval(1, "c1"),), "may I?", within_s=60))
            scratch.clock.now += 61
        late = await store.inbox.accept(scratch.arrival(command=Command(CommandKind.APPROVE, "ok", "nothing")))
        assert late.answer == "nothing"
        claim = await scratch.claim_one()
        assert claim.approvals == (Approval(1, "c1", Decision.EXPIRED),)
        assert len((await store.outbox.due("host", 10, 30)).replies) == 1
        await store.claims.settle(claim.ref, ended("done"))
        receipt = await store.inbox.accept(scratch.arrival(command=Command(CommandKind.DENY, "ok", "nothing")))
        assert receipt.answer == "nothing"


class TestWhileTheSessionIsBusy:
    async def test_stop_asks_for_the_end_of_the_running_turn_and_is_answered_at_once(
        self, scratch: Scratch, store: Store
    ) -> None:
        claim = await scratch.accept_and_claim()
        receipt = await scratch.order(CommandKind.STOP)
        assert (receipt.stops, receipt.answer) == (claim.messages[0].id, "done")
        assert (await store.claims.settle(claim.ref, INTERRUPTED)).answers == ()
        assert await replies(scratch) == ["done", "stopped"]

    @pytest.mark.parametrize("claimed", [True, False])
    async def test_a_stop_outlives_the_host_that_was_told(self, scratch: Scratch, store: Store, claimed: bool) -> None:
        message = await scratch.accept()
        if claimed:
            await scratch.claim_one()
        await scratch.order(CommandKind.STOP)
        await scratch.open()
        await scratch.adopt("later")
        claim = await scratch.claim_one()
        assert (claim.messages[0].id, claim.messages[0].stop) == (message, "stopped")

    async def test_a_turn_that_ended_before_the_stop_reached_it_keeps_its_answer(
        self, scratch: Scratch, store: Store
    ) -> None:
        claim = await scratch.accept_and_claim()
        await scratch.order(CommandKind.STOP)
        await store.claims.settle(claim.ref, ended("an answer"))
        assert sorted(await replies(scratch)) == ["an answer", "done"]

    async def test_stop_gets_through_a_full_inbox(self, scratch: Scratch) -> None:
        await scratch.open(1)
        claim = await scratch.accept_and_claim()
        with pytest.raises(InboxFull):
            await scratch.order(CommandKind.NEW)
        assert (await scratch.order(CommandKind.STOP)).stops == claim.messages[0].id

    async def test_new_stops_what_runs_takes_back_what_waits_and_then_begins(
        self, scratch: Scratch, store: Store
    ) -> None:
        await scratch.answer("one", messages=(b"1",))
        claim = await scratch.accept_and_claim()
        waiting = [await scratch.accept(), await scratch.accept()]
        receipt = await scratch.order(CommandKind.NEW)
        assert (receipt.state, receipt.stops) == (MessageState.WAITING, claim.messages[0].id)
        assert [told.message_id for told in receipt.withdrawn] == waiting
        later = await scratch.accept(text="after it")
        assert (await store.claims.settle(claim.ref, INTERRUPTED)).answers == (
            CommandAnswer(receipt.message_id, "done"),
        )
        assert (await store.sessions.conversation(SESSION)).messages == ()
        assert await store.sessions.earlier(SESSION) == (b"1", b"cut")
        claim = await scratch.claim_one()
        assert [message.id for message in claim.messages] == [later]
        assert claim.version == (await store.sessions.conversation(SESSION)).version
        sent = await scratch.send_all()
        assert [reply.text for reply in sent] == ["one", "stopped", "withdrawn", "withdrawn", "done"]
        assert {reply.status for reply in sent} == {ReplyStatus.REPLIED}
        assert [(await store.inbox.trace(message)).state for message in waiting] == [MessageState.WITHDRAWN] * 2
        assert await store.inbox.waiting() == 1

    async def test_undo_takes_back_the_exchange_that_runs(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("one", messages=(b"1",), todo=b"[1]")
        claim = await scratch.accept_and_claim()
        receipt = await scratch.order(CommandKind.UNDO)
        assert receipt.stops == claim.messages[0].id
        cut = msgspec.structs.replace(INTERRUPTED, todo=b"[2]")
        assert (await store.claims.settle(claim.ref, cut)).answers == (CommandAnswer(receipt.message_id, "done"),)
        assert await store.sessions.conversation(SESSION) == Conversation(
            (await store.sessions.summary(SESSION)).version, (b"1",), b"[1]"
        )

    async def test_undo_of_a_turn_that_never_began_leaves_the_exchange_before_it(
        self, scratch: Scratch, store: Store
    ) -> None:
        await scratch.answer("one", messages=(b"1",))
        await scratch.accept()
        await scratch.order(CommandKind.UNDO)
        claim = await scratch.claim_one()
        assert claim.messages[0].stop == "stopped"
        await store.claims.settle(claim.ref, Ended(TurnStatus.INTERRUPTED, "Stopped.", ()))
        assert await said(store) == ["1"]
        assert await replies(scratch) == ["one", "stopped", "done"]

    async def test_undo_takes_back_a_message_that_waits_and_lets_the_turn_go_on(
        self, scratch: Scratch, store: Store
    ) -> None:
        claim = await scratch.accept_and_claim()
        waiting = await scratch.accept()
        receipt = await scratch.order(CommandKind.UNDO)
        assert (receipt.stops, receipt.answer) == ("", "done")
        assert [told.message_id for told in receipt.withdrawn] == [waiting]
        await store.claims.settle(claim.ref, ended("one"))
        assert (await store.claims.claim("host", 10, 30)).claims == ()
        assert await replies(scratch) == ["withdrawn", "one", "done"]

    async def test_retry_ends_the_turn_that_runs_and_runs_it_again(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("one", messages=(b"1",))
        await store.inbox.accept(scratch.arrival(text="buy milk"))
        claim = await scratch.claim_one()
        receipt = await scratch.order(CommandKind.RETRY)
        assert receipt.stops == claim.messages[0].id
        assert (await store.claims.settle(claim.ref, INTERRUPTED)).answers == ()
        again = await scratch.claim_one()
        assert [(message.id, message.text) for message in again.messages] == [(receipt.message_id, "buy milk")]
        assert await said(store) == ["1"]

    async def test_retry_does_not_run_what_has_not_begun(self, scratch: Scratch) -> None:
        await scratch.accept_and_claim()
        await scratch.accept()
        receipt = await scratch.order(CommandKind.RETRY)
        assert (receipt.state, receipt.answer, receipt.stops) == (MessageState.DONE, "waits", "")

    async def test_commands_are_carried_out_in_their_order(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("one", messages=(b"1",))
        claim = await scratch.accept_and_claim()
        undo = await scratch.order(CommandKind.UNDO)
        more = await scratch.order(CommandKind.UNDO)
        new = await scratch.order(CommandKind.NEW)
        told = (await store.claims.settle(claim.ref, INTERRUPTED)).answers
        assert told == (
            CommandAnswer(undo.message_id, "done"), CommandAnswer(more.message_id, "nothing"),
            CommandAnswer(new.message_id, "done")
        )  # fmt: skip
        assert (await store.claims.claim("host", 10, 30)).claims == ()

    @pytest.mark.parametrize("kind", [CommandKind.RETRY, CommandKind.UNDO])
    async def test_what_waits_behind_a_new_reaches_into_no_earlier_conversation(
        self, scratch: Scratch, store: Store, kind: CommandKind
    ) -> None:
        await scratch.answer("one", messages=(b"1",), todo=b"[1]")
        claim = await scratch.accept_and_claim()
        new = await scratch.order(CommandKind.NEW)
        behind = await scratch.order(kind)
        assert behind.state is MessageState.WAITING
        cut = msgspec.structs.replace(INTERRUPTED, todo=b"[2]")
        assert (await store.claims.settle(claim.ref, cut)).answers == (
            CommandAnswer(new.message_id, "done"), CommandAnswer(behind.message_id, "nothing"),
        )  # fmt: skip
        assert (await store.claims.claim("host", 10, 30)).claims == ()
        anew = await store.sessions.conversation(SESSION)
        assert (anew.messages, anew.todo) == ((), b"[2]")
        assert await store.sessions.earlier(SESSION) == (b"1", b"cut")
        assert (await store.inbox.trace(claim.messages[0].id)).state is MessageState.DONE

    async def test_old_commands_and_withdrawn_messages_go(self, scratch: Scratch, store: Store) -> None:
        await scratch.answer("one", messages=(b"1",))
        undo = await scratch.order(CommandKind.UNDO)
        await scratch.send_all()
        scratch.clock.now += 8 * 86_400
        await store.inbox.expire(7 * 86_400)
        with pytest.raises(NotFound):
            await store.inbox.trace(undo.message_id)
