"""The claims of the port: who runs which session, and what a turn leaves behind."""

from __future__ import annotations

from collections.abc import Sequence

from shared.budgets import Allowance, Budgets, Spend
from shared.journal import JournalEntry
from shared.messages import (
    Claim,
    ClaimRef,
    Dead,
    Ended,
    Outcome,
    Parked,
    Pending,
    Reply,
    ReplyStatus,
    Retry,
    Step,
    Summary,
    Told,
    TurnStatus,
)
from shared.store.sqlite.ledger import Ledger
from shared.store.sqlite.obedience import go_on
from shared.store.sqlite.tables import (
    busy,
    checkpoints,
    history,
    inbox,
    journal,
    outbox,
    sessions,
    spending,
    summaries,
)
from shared.store.sqlite.writer import Writer

#: how long a session waits for what others hold of its budget, in seconds, before it is looked at again
HELD_S = 1.0
#: the list of a session that never had one
NO_TODO = b"[]"


class SqliteClaims:
    """The Claims of the embedded engine."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def claim(
        self, host: str, limit: int, lease_s: float, *, suspects: bool = False, budgets: Budgets | None = None
    ) -> list[Claim]:
        """Lease up to ``limit`` ready sessions, platforms in turns, each with its next turn's messages."""
        return await self._writer.run(_claim, host, limit, lease_s, suspects=suspects, budgets=budgets)

    async def hold(self, ref: ClaimRef, used: Spend, wanted: Spend, budgets: Budgets) -> Allowance:
        """Hold more of the budgets for a running turn. Raises StaleClaim."""
        return await self._writer.run(_hold, ref, used, wanted, budgets)

    async def next_ready_in_s(self) -> float | None:
        """Return the seconds until a session can be claimed: 0 if now, None if none waits."""
        return await self._writer.run(sessions.next_ready_in_s)

    async def renew(self, host: str, refs: Sequence[ClaimRef], lease_s: float) -> list[ClaimRef]:
        """Extend the leases that are still this host's; return those that are not any more."""
        return await self._writer.run(_renew, host, tuple(refs), lease_s)

    async def adopt(self, host: str) -> int:
        """End the leases of every other host at once; count them."""
        return await self._writer.run(_adopt, host)

    async def checkpoint(self, ref: ClaimRef, steps: Sequence[Step], summary: Summary | None = None) -> None:
        """Append finished steps to the claim's turn, and keep the summary made after them. Raises StaleClaim."""
        await self._writer.run(_checkpoint, ref, tuple(steps), summary)

    async def journal(self, ref: ClaimRef, entries: Sequence[JournalEntry]) -> None:
        """Append to the side-effect journal of the claim's open step. Raises StaleClaim."""
        await self._writer.run(_journal, ref, tuple(entries))

    async def join(self, ref: ClaimRef) -> tuple[Pending, ...]:
        """Let the messages that wait for it join the claim, and return them. Raises StaleClaim."""
        return await self._writer.run(_join, ref)

    async def settle(self, ref: ClaimRef, outcome: Outcome) -> tuple[Told, ...]:
        """End the claim; return the chat commands that waited for that. Raises StaleClaim."""
        return await self._writer.run(_settle, ref, outcome)


def _claim(
    ledger: Ledger, host: str, limit: int, lease_s: float, *, suspects: bool, budgets: Budgets | None
) -> list[Claim]:
    sessions.wake(ledger)
    _lose(ledger, sessions.lapsed(ledger))
    rows = sessions.ready(ledger, limit, suspects=suspects)
    if not rows:
        return []
    first_epoch = ledger.next_epoch(len(rows)) - len(rows) + 1
    claims = []
    for epoch, (session, platform, version, head) in enumerate(rows, first_epoch):
        ref, allowance = ClaimRef(session, epoch), None
        if budgets:
            sender = inbox.sender(ledger, session, head)
            allowance = spending.hold(ledger, session, sender, budgets, Spend(), budgets.first_hold)
            if allowance.refusal and allowance.refusal.held and not allowance.covers(Spend()):
                sessions.delay(ledger, session, HELD_S, suspect=suspects)
                continue
        sessions.lease(ledger, ref, host, lease_s)
        messages = (inbox.take(ledger, session, head), *busy.join(ledger, session, head))
        steps, open_step = checkpoints.read(ledger, session), journal.read(ledger, session)
        claims.append(Claim(ref, platform, version, messages, steps, open_step, allowance))
    return claims


def _hold(ledger: Ledger, ref: ClaimRef, used: Spend, wanted: Spend, budgets: Budgets) -> Allowance:
    sender = inbox.sender(ledger, ref.session, sessions.fence(ledger, ref))
    return spending.hold(ledger, ref.session, sender, budgets, used, wanted)


def _lose(ledger: Ledger, claimed: list[tuple[str, int]]) -> None:
    """Make sessions ready again whose host is gone; what their turns held is free."""
    for session, head in claimed:
        spending.release(ledger, session)
        suspect = inbox.lose(ledger, session, head)
        sessions.release(ledger, session, suspect=suspect)


def _renew(ledger: Ledger, host: str, refs: Sequence[ClaimRef], lease_s: float) -> list[ClaimRef]:
    return [ref for ref in refs if not sessions.renew(ledger, ref, host, lease_s)]


def _adopt(ledger: Ledger, host: str) -> int:
    foreign = sessions.of_other_hosts(ledger, host)
    _lose(ledger, foreign)
    return len(foreign)


def _checkpoint(ledger: Ledger, ref: ClaimRef, steps: Sequence[Step], summary: Summary | None) -> None:
    sessions.fence(ledger, ref)
    checkpoints.add(ledger, ref.session, steps)
    journal.finish(ledger, ref.session, steps)
    if summary is not None:
        summaries.add(ledger, ref.session, summary)


def _journal(ledger: Ledger, ref: ClaimRef, entries: Sequence[JournalEntry]) -> None:
    sessions.fence(ledger, ref)
    journal.add(ledger, ref.session, entries)


def _join(ledger: Ledger, ref: ClaimRef) -> tuple[Pending, ...]:
    return busy.join(ledger, ref.session, sessions.fence(ledger, ref), anew=True)


def _settle(ledger: Ledger, ref: ClaimRef, outcome: Outcome) -> tuple[Told, ...]:
    """Do all that may become of a claim."""
    head = sessions.fence(ledger, ref)
    match outcome:
        case Ended():
            return _end(ledger, ref, head, outcome)
        case Parked():
            spending.release(ledger, ref.session)
            sessions.release(ledger, ref.session)
        case Retry():
            spending.release(ledger, ref.session)
            inbox.retry(ledger, ref.session, head, outcome)
            sessions.delay(ledger, ref.session, outcome.delay_s, suspect=outcome.suspect)
        case Dead():
            return _bury(ledger, ref, head, outcome)
    return ()


def _end(ledger: Ledger, ref: ClaimRef, head: int, ended: Ended) -> tuple[Told, ...]:
    if ended.summary is not None:
        summaries.add(ledger, ref.session, ended.summary)
    if ended.messages:
        history.append(ledger, ref.session, ended.messages, head)
    if ended.todo is not None:
        busy.keep_todo(ledger, ref.session, head, history.read_todo(ledger, ref.session) or NO_TODO)
        history.write_todo(ledger, ref.session, ended.todo)
    if ended.messages or ended.todo is not None:
        sessions.set_version(ledger, ref.session, ref.epoch)
    answered = inbox.finish(ledger, ref.session, head, ended)
    busy.settle_joined(ledger, ref.session, head, ended)
    spending.settle(ledger, ref.session, answered.sender, ended.usage)
    failed = ended.status in {TurnStatus.TIMED_OUT, TurnStatus.FAILED, TurnStatus.OVER_BUDGET}
    text = answered.stop if answered.stop and ended.status is TurnStatus.INTERRUPTED else ended.text
    _answer(ledger, ref.session, head, answered, text, ReplyStatus.FAILED if failed else ReplyStatus.REPLIED)
    return _go_on(ledger, ref.session)


def _bury(ledger: Ledger, ref: ClaimRef, head: int, dead: Dead) -> tuple[Told, ...]:
    summaries.remove_unsettled(ledger, ref.session)
    answered = inbox.bury(ledger, ref.session, head, dead)
    spending.settle(ledger, ref.session, answered.sender, dead.usage)
    busy.let_go(ledger, ref.session, head)
    _answer(ledger, ref.session, head, answered, dead.text, ReplyStatus.FAILED)
    return _go_on(ledger, ref.session)


def _answer(ledger: Ledger, session: str, seq: int, answered: inbox.Answered, text: str, status: ReplyStatus) -> None:
    """Put the answer to a message on its way; an empty one is none."""
    if text:
        outbox.add(
            ledger, seq, Reply(session, answered.message_id, 0, answered.platform, text, answered.address, status)
        )


def _go_on(ledger: Ledger, session: str) -> tuple[Told, ...]:
    """Drop the settled turn's steps and journal; carry out and make ready what comes next."""
    checkpoints.remove(ledger, session)
    journal.remove(ledger, session)
    return go_on(ledger, session)
