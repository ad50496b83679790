"""The claims of the port: who runs which session, and what a turn leaves behind."""

from __future__ import annotations

from collections.abc import Sequence

from shared.budgets import Allowance, Budgets, Spend
from shared.journal import JournalEntry
from shared.messages import (
    Claim,
    ClaimRef,
    CommandAnswer,
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
    TurnStatus,
)
from shared.store.sql.session_commands import go_on
from shared.store.sql.tables import (
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
from shared.store.sqlite.database import Database
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

    async def settle(self, ref: ClaimRef, outcome: Outcome) -> tuple[CommandAnswer, ...]:
        """End the claim; return the chat commands that waited for that. Raises StaleClaim."""
        return await self._writer.run(_settle, ref, outcome)


def _claim(
    database: Database, host: str, limit: int, lease_s: float, *, suspects: bool, budgets: Budgets | None
) -> list[Claim]:
    sessions.wake(database)
    _lose(database, sessions.lapsed(database))
    rows = sessions.ready(database, limit, suspects=suspects)
    if not rows:
        return []
    first_epoch = database.next_epoch(len(rows)) - len(rows) + 1
    claims = []
    for epoch, (session, platform, version, head) in enumerate(rows, first_epoch):
        ref, allowance = ClaimRef(session, epoch), None
        if budgets:
            sender = inbox.sender(database, session, head)
            allowance = spending.hold(database, session, sender, budgets, Spend(), budgets.first_hold)
            if allowance.refusal and allowance.refusal.held and not allowance.covers(Spend()):
                sessions.delay(database, session, HELD_S, suspect=suspects)
                continue
        sessions.lease(database, ref, host, lease_s)
        messages = (inbox.take(database, session, head), *busy.join(database, session, head))
        steps, open_step = checkpoints.read(database, session), journal.read(database, session)
        claims.append(Claim(ref, platform, version, messages, steps, open_step, allowance))
    return claims


def _hold(database: Database, ref: ClaimRef, used: Spend, wanted: Spend, budgets: Budgets) -> Allowance:
    sender = inbox.sender(database, ref.session, sessions.fence(database, ref))
    return spending.hold(database, ref.session, sender, budgets, used, wanted)


def _lose(database: Database, claimed: list[tuple[str, int]]) -> None:
    """Make sessions ready again whose host is gone; what their turns held is free."""
    for session, head in claimed:
        spending.release(database, session)
        suspect = inbox.lose(database, session, head)
        sessions.release(database, session, suspect=suspect)


def _renew(database: Database, host: str, refs: Sequence[ClaimRef], lease_s: float) -> list[ClaimRef]:
    return [ref for ref in refs if not sessions.renew(database, ref, host, lease_s)]


def _adopt(database: Database, host: str) -> int:
    foreign = sessions.of_other_hosts(database, host)
    _lose(database, foreign)
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
    return busy.join(database, ref.session, sessions.fence(database, ref), anew=True)


def _settle(database: Database, ref: ClaimRef, outcome: Outcome) -> tuple[CommandAnswer, ...]:
    """Do all that may become of a claim."""
    head = sessions.fence(database, ref)
    match outcome:
        case Ended():
            return _end(database, ref, head, outcome)
        case Parked():
            spending.release(database, ref.session)
            sessions.release(database, ref.session)
        case Retry():
            spending.release(database, ref.session)
            inbox.retry(database, ref.session, head, outcome)
            sessions.delay(database, ref.session, outcome.delay_s, suspect=outcome.suspect)
        case Dead():
            return _bury(database, ref, head, outcome)
    return ()


def _end(database: Database, ref: ClaimRef, head: int, ended: Ended) -> tuple[CommandAnswer, ...]:
    if ended.summary is not None:
        summaries.add(database, ref.session, ended.summary)
    if ended.messages:
        history.append(database, ref.session, ended.messages, head)
    if ended.todo is not None:
        busy.keep_todo(database, ref.session, head, history.read_todo(database, ref.session) or NO_TODO)
        history.write_todo(database, ref.session, ended.todo)
    if ended.messages or ended.todo is not None:
        sessions.set_version(database, ref.session, ref.epoch)
    answered = inbox.finish(database, ref.session, head, ended)
    busy.settle_joined(database, ref.session, head, ended)
    spending.settle(database, ref.session, answered.sender, ended.usage)
    failed = ended.status in {TurnStatus.TIMED_OUT, TurnStatus.FAILED, TurnStatus.OVER_BUDGET}
    text = answered.stop if answered.stop and ended.status is TurnStatus.INTERRUPTED else ended.text
    _answer(database, ref.session, head, answered, text, ReplyStatus.FAILED if failed else ReplyStatus.REPLIED)
    return _go_on(database, ref.session)


def _bury(database: Database, ref: ClaimRef, head: int, dead: Dead) -> tuple[CommandAnswer, ...]:
    summaries.remove_unsettled(database, ref.session)
    answered = inbox.bury(database, ref.session, head, dead)
    spending.settle(database, ref.session, answered.sender, dead.usage)
    busy.let_go(database, ref.session, head)
    _answer(database, ref.session, head, answered, dead.text, ReplyStatus.FAILED)
    return _go_on(database, ref.session)


def _answer(
    database: Database, session: str, seq: int, answered: inbox.DuplicateOf, text: str, status: ReplyStatus
) -> None:
    """Put the answer to a message on its way; an empty one is none."""
    if text:
        outbox.add(
            database, seq, Reply(session, answered.message_id, 0, answered.platform, text, answered.address, status)
        )


def _go_on(database: Database, session: str) -> tuple[CommandAnswer, ...]:
    """Drop the settled turn's steps and journal; carry out and make ready what comes next."""
    checkpoints.remove(database, session)
    journal.remove(database, session)
    return go_on(database, session)
