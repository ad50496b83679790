"""The claims of the port: who runs which session, and what a turn leaves behind."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence

from shared.approvals import Question, question_id, with_labels
from shared.attachments import Attachment, files_given
from shared.budgets import Allowance, Budgets, Spend
from shared.journal import JournalEntry
from shared.messages import (
    AwaitsApproval,
    Claim,
    ClaimBatch,
    ClaimRef,
    Dead,
    DeadKind,
    Ended,
    Outcome,
    Parked,
    Pending,
    Reply,
    ReplyStatus,
    Retry,
    Settlement,
    Step,
    Summary,
    TurnStatus,
)
from shared.store.engine import Database, Engine, at_once
from shared.store.sql.session_commands import start_next
from shared.store.sql.tables import (
    approvals,
    begun_messages,
    checkpoints,
    claim_ends,
    history,
    inbox,
    joins,
    journal,
    outbox,
    ready_sessions,
    sessions,
    spending,
    summaries,
)
from shared.store.sql.tables.checkpoints import FinishedSteps
from shared.store.sql.tables.claim_ends import ClaimEnd
from shared.usage import Usage

#: how long a session waits for what others hold of its budget, in seconds, before it is looked at again
HELD_S = 1.0
#: the lock of who holds a part of a budget: of two hosts that look at once, one sees what the other has taken
HOLDS = "holds"
#: how often what settled turns have used is counted with its hours and days, in seconds
ROLL_UP_EVERY_S = 1.0
#: the list of a session that never had one
NO_TODO = b"[]"


class Claims:
    """Leases on sessions. Every write carries the claim's epoch; a stale one raises StaleClaim and writes nothing.

    Claims and renewals are relaxed commits: without them a session is ready, and whoever held a claim that the power
    took went with it. What a turn leaves behind is committed after its claim, so it is never there without it.
    """

    def __init__(self, engine: Engine) -> None:
        self._run = engine.run
        self._run_relaxed = engine.run_relaxed
        self._shared = engine.shared
        self._rolled_up_mono = 0.0

    async def claim(
        self, host: str, limit: int, lease_s: float, *, suspects: bool = False, budgets: Budgets | None = None
    ) -> ClaimBatch:
        """Lease up to ``limit`` ready sessions, each with its first waiting message and those that join its turn.

        Platforms take turns, so that a flood of one starves no other; of each the longest waiting come first, and of
        each sender one session a minute ahead of those of others. With ``suspects`` only sessions whose first message
        is a suspect are leased, without it only the others. Sessions whose lease has ended are ready again: their
        message counts one more lost execution. A host that beats holds its claims while it lives; ``lease_s`` is for
        one that does not.

        With ``budgets`` each claim holds a part of them, named by its allowance; one whose budget is spent is leased
        with an allowance of nothing, to be refused. A session that has to wait for what others hold is not leased. A
        hold ends with its claim, however that ends.
        """
        now = time.monotonic()
        if roll_up := now - self._rolled_up_mono >= ROLL_UP_EVERY_S:
            self._rolled_up_mono = now
        return await self._run_relaxed(
            "", _claim, host, limit, lease_s, suspects=suspects, budgets=budgets, roll_up=roll_up
        )

    async def hold(self, ref: ClaimRef, used: Spend, wanted: Spend, budgets: Budgets) -> Allowance:
        """Hold more for a running turn: ``wanted`` in all, of which it has ``used`` a part.

        Returns what it may use in all: not more than it has used where a budget is spent, or where others hold what is
        left, which its refusal tells; then it may ask again.
        """
        return await self._run("", _hold, ref, used, wanted, budgets)

    async def held(self, host: str) -> list[ClaimRef]:
        """Return what a host has claimed, for one that has to know what is left after a lease that ended."""
        return await self._run("", sessions.held, host)

    async def renew(self, host: str, refs: Sequence[ClaimRef], lease_s: float) -> list[ClaimRef]:
        """Extend the leases that are still this host's; return those that are not any more."""
        return await self._run_relaxed("", _renew, host, tuple(refs), lease_s)

    async def adopt(self, host: str) -> int:
        """End the leases of every other host at once and count them; none where other hosts may live."""
        return 0 if self._shared else await self._run("", _adopt, host)

    async def checkpoint(self, ref: ClaimRef, steps: Sequence[Step], summary: Summary | None = None) -> None:
        """Append finished steps to the claim's turn; the journal of a finished step goes.

        ``summary`` was made after these steps; it holds from now on, unless the message ends as a dead letter.
        """
        await self._run(ref.session, _checkpoint, ref, tuple(steps), summary)

    async def journal(self, ref: ClaimRef, entries: Sequence[JournalEntry]) -> None:
        """Append to the side-effect journal of the claim's open step: its opening, then its calls' intents and results.

        A later claim of the message carries it as ``open_step``. An opening replaces the step that was open; what
        belongs to a step that is not open is dropped.
        """
        await self._run(ref.session, _journal, ref, tuple(entries))

    async def join(self, ref: ClaimRef) -> tuple[Pending, ...]:
        """Let the messages that wait to join the claim's turn do so, and return them; a later claim carries them too.

        They are settled with the turn if the outcome names them as ``joined``; else they wait again.
        """
        return await self._run(ref.session, _join, ref)

    async def settle(self, ref: ClaimRef, outcome: Outcome) -> Settlement:
        """End the claim in one transaction: history, todo, summary, inbox state, outbox rows; the rest goes.

        What the turn used is charged, in all its attempts together once, and what it held is free. Chat commands that
        waited for it are carried out with it, and returned; so is whether another message's turn has come.
        """
        return await self._run(ref.session, _settle, ref, outcome)


def _claim(
    database: Database, host: str, limit: int, lease_s: float, *, suspects: bool, budgets: Budgets | None, roll_up: bool
) -> ClaimBatch:
    if budgets and limit > 0:
        database.lock(HOLDS)
    ends, found, _ = at_once(
        database,
        lambda: sessions.ends(database, host),
        lambda: ready_sessions.ready(database, host, limit, suspects=suspects) if limit > 0 else [],
        lambda: spending.roll_up(database) if roll_up else None,
    )
    if ends.any_over:
        sessions.wake_due(database)
        release_lost(database, sessions.lapsed(database))
        found = ready_sessions.ready(database, host, limit, suspects=suspects) if limit > 0 else []
    own_lease_s = None if ends.host_lives else lease_s
    if not database.reads_wait or budgets or any(one.was_begun or one.is_followed for one in found):
        claims = _lease_each(database, found, host, own_lease_s, budgets, suspects=suspects)
        is_full = bool(claims) and len(claims) == limit
        return ClaimBatch(claims, 0.0 if is_full else sessions.next_ready_in_s(database, suspects=suspects))
    epochs = database.reserve_epochs(len(found)) if found else []
    *begun, next_in_s = database.last(
        *(
            functools.partial(_lease_plain, database, one, epoch, host, own_lease_s)
            for one, epoch in zip(found, epochs, strict=True)
        ),
        lambda: sessions.next_ready_in_s(database, suspects=suspects),
    )
    claims = tuple(claim for claim in begun if claim is not None)
    return ClaimBatch(claims, 0.0 if claims and len(claims) == limit else next_in_s)


def _lease_plain(
    database: Database, found: ready_sessions.ReadySession, epoch: int | None, host: str, lease_s: float | None
) -> Claim | None:
    """Lease a session whose turn is begun anew and joined by nothing; None where that is not so any more."""
    ready_sessions.lease_unbegun(database, found.session, epoch, host, lease_s)
    begun = begun_messages.begin(database, found.session, found.head, host)
    if begun is None:
        return None
    return Claim(ClaimRef(found.session, begun.epoch), found.platform, found.version, (begun.message,))


def _lease_each(
    database: Database,
    found: Sequence[ready_sessions.ReadySession],
    host: str,
    lease_s: float | None,
    budgets: Budgets | None,
    *,
    suspects: bool,
) -> tuple[Claim, ...]:
    """Lease sessions whose turn may go on, be joined, or hold a part of budgets; not those that wait for one."""

    def lease(epoch: int, session: str, platform: str, version: int, head: int) -> Claim | None:
        ref, allowance = ClaimRef(session, epoch), None
        if budgets:
            sender = inbox.sender(database, session, head)
            bounding = budgets.of(session, sender)
            allowance = spending.hold(database, session, sender, bounding, Spend(), bounding.first_hold)
            if allowance.refusal and allowance.refusal.held and not allowance.covers(Spend()):
                sessions.delay(database, session, HELD_S, suspect=suspects)
                return None
        ready_sessions.lease(database, ref, host, lease_s)
        first, was_begun, is_followed, finished = begun_messages.claim(database, session, head)
        was_begun = was_begun or _take_up(database, session, head, version, finished)
        joined, steps, open_step = at_once(
            database,
            lambda: joins.join(database, session, head) if is_followed else (),
            lambda: checkpoints.read(database, session) if was_begun else (),
            lambda: journal.read(database, session) if was_begun else None,
        )
        decided = approvals.read(database, session) if open_step else ()
        return Claim(ref, platform, version, (first, *joined), steps, open_step, allowance, decided)

    epochs = database.next_epochs(len(found)) if found else []
    rows = [(epoch, *one[:4]) for epoch, one in zip(epochs, found, strict=True)]
    # what one holds of a budget another cannot: then one after the other
    leased = [lease(*row) for row in rows] if budgets else database.each(lambda row: lease(*row), rows)
    return tuple(claim for claim in leased if claim is not None)


def _take_up(database: Database, session: str, head: int, version: int, finished: FinishedSteps | None) -> bool:
    """Let a turn go on behind the steps that no model went on with; False if there are none."""
    if finished is not None:
        checkpoints.add(database, session, finished.at(version))
        inbox.keep_finished(database, session, head, None)
    return finished is not None


def _hold(database: Database, ref: ClaimRef, used: Spend, wanted: Spend, budgets: Budgets) -> Allowance:
    database.lock(HOLDS)
    sender = inbox.sender(database, ref.session, sessions.fence(database, ref))
    return spending.hold(database, ref.session, sender, budgets.of(ref.session, sender), used, wanted)


def release_lost(database: Database, claimed: list[tuple[str, int]]) -> None:
    """Make sessions ready again whose host is gone; what their turns held is free."""
    for session, head in claimed:
        spending.release(database, session)
        suspect = inbox.count_lost(database, session, head)
        sessions.release(database, session, suspect=suspect)


def _renew(database: Database, host: str, refs: Sequence[ClaimRef], lease_s: float) -> list[ClaimRef]:
    kept = database.each(lambda ref: sessions.renew(database, ref, host, lease_s), refs)
    return [ref for ref, held in zip(refs, kept, strict=True) if not held]


def _adopt(database: Database, host: str) -> int:
    foreign = sessions.of_other_hosts(database, host)
    release_lost(database, foreign)
    return len(foreign)


def _checkpoint(database: Database, ref: ClaimRef, steps: Sequence[Step], summary: Summary | None) -> None:
    sessions.fence(database, ref)
    checkpoints.add(database, ref.session, steps)
    journal.finish(database, ref.session, steps)
    if summary is not None:
        summaries.add(database, ref.session, summary)


def _journal(database: Database, ref: ClaimRef, entries: Sequence[JournalEntry]) -> None:
    sessions.fence(database, ref)
    journal.add(database, ref.session, entries)


def _join(database: Database, ref: ClaimRef) -> tuple[Pending, ...]:
    return joins.join(database, ref.session, sessions.fence(database, ref), anew=True)


def _settle(database: Database, ref: ClaimRef, outcome: Outcome) -> Settlement:
    """Do all that may become of a claim."""
    end, following = at_once(
        database,
        lambda: claim_ends.read(database, ref),
        lambda: inbox.first_behind_head(database, ref.session),
    )
    head = end.head
    match outcome:
        case Ended():
            return _settle_ended(database, ref, end, outcome, following)
        case Parked():
            spending.release(database, ref.session)
            sessions.release(database, ref.session)
        case AwaitsApproval():
            spending.release(database, ref.session)
            _ask(database, ref.session, head, outcome)
            sessions.put_off(database, ref.session, outcome.within_s)
        case Retry():
            spending.release(database, ref.session)
            inbox.retry(database, ref.session, head, outcome)
            sessions.delay(database, ref.session, outcome.delay_s, suspect=outcome.suspect)
        case Dead():
            return _settle_dead(database, ref, end, outcome, following)
    return Settlement()


def _ask(database: Database, session: str, head: int, asks: AwaitsApproval) -> None:
    """Put a question about tool calls on its way, unless that was done."""
    asked = inbox.read_address(database, session, head)
    question = Question(question_id(asked.message_id, asks.calls), asks.text)
    if approvals.add(database, session, asked.message_id, question, asks):
        names = (asked.message_id, 0, asked.platform, question.text, asked.address, ReplyStatus.REPLIED)
        buttons = with_labels(question.id, asks.labels)
        outbox.add(database, head, Reply(session, *names, question=buttons, sender=asked.sender))


def _settle_ended(
    database: Database, ref: ClaimRef, end: ClaimEnd, ended: Ended, following: inbox.NextMessage | None
) -> Settlement:
    session, head = ref.session, end.head
    version = ref.epoch if ended.messages or ended.todo is not None else None
    inbox.mark_done(database, session, head, ended, (end.todo or NO_TODO) if ended.todo is not None else None)
    if end.has_joined:
        joins.settle(database, session, head, ended)
    _keep_conversation(database, session, end, ended)
    failed = ended.status in {TurnStatus.TIMED_OUT, TurnStatus.FAILED, TurnStatus.OVER_BUDGET}
    text = end.answered.stop if end.answered.stop and ended.status is TurnStatus.INTERRUPTED else ended.text
    status = ReplyStatus.FAILED if failed else ReplyStatus.REPLIED
    files = files_given(ended.messages)
    return _answer_and_go_on(database, session, end, following, text, status, ended.usage, version, files)


def _keep_conversation(database: Database, session: str, end: ClaimEnd, ended: Ended) -> None:
    """Append what a turn has said, and keep its summary and its todo list."""
    if ended.summary is not None:
        summaries.add(database, session, ended.summary)
    if ended.messages:
        history.append(database, session, ended.messages, end.head, end.next_position)
    if ended.todo is not None:
        history.write_todo(database, session, ended.todo)


def _settle_dead(
    database: Database, ref: ClaimRef, end: ClaimEnd, dead: Dead, following: inbox.NextMessage | None
) -> Settlement:
    summaries.remove_unsettled(database, ref.session)
    inbox.mark_dead(database, ref.session, end.head, dead)
    if end.has_joined:
        joins.release(database, ref.session, end.head)
    if dead.kind is DeadKind.MODEL and end.has_steps:
        finished = FinishedSteps(sessions.version(database, ref.session), checkpoints.read(database, ref.session))
        inbox.keep_finished(database, ref.session, end.head, finished)
    return _answer_and_go_on(database, ref.session, end, following, dead.text, ReplyStatus.FAILED, dead.usage)


def _answer_and_go_on(
    database: Database,
    session: str,
    end: ClaimEnd,
    following: inbox.NextMessage | None,
    text: str,
    status: ReplyStatus,
    usage: Usage,
    version: int | None = None,
    files: Sequence[Attachment] = (),
) -> Settlement:
    """Charge a settled turn, put its answer and its files on their way, and make ready what comes next.

    That is in a conversation's version.
    """
    answered = end.answered
    if end.has_steps:
        checkpoints.remove(database, session)
        journal.remove(database, session)
        approvals.remove(database, session)
    spending.settle(database, session, answered.sender, usage, end.usage, held=end.has_hold)
    next_part = end.next_part
    for said, file in ((text, None), *((file.name, file) for file in files)):
        if said:
            names = (answered.message_id, 0, answered.platform, said, answered.address, status)
            outbox.add(database, end.head, Reply(session, *names, sender=answered.sender, file=file), next_part)
            next_part = next_part.following
    if end.has_joined:  # what joined and was not taken in waits again
        following = inbox.first_waiting(database, session)
    return start_next(database, session, following, version)
