"""The outbox of the port: replies on their way to their platform."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from shared.errors import StoreUnavailable
from shared.messages import DueReplies, Reply, ReplyLease, Shares
from shared.store.engine import Database, Engine
from shared.store.sql.tables import due_replies, outbox


class Outbox:
    """Replies on their way out: one order per session, a sent id per row, leased while being sent.

    Leases are relaxed commits: where the power takes one, whoever held it went with it, and the reply is due. What was
    sent is recorded like everything else, or a loss of power would have it sent twice.
    """

    def __init__(self, engine: Engine) -> None:
        self._run = engine.run
        self._run_relaxed = engine.run_relaxed
        #: when the leases of the last look end, and which those are
        self._until = 0.0
        self._leased: frozenset[ReplyLease] = frozenset()

    async def due(self, host: str, limit: int, lease_s: float, shares: Shares | None = None) -> DueReplies:
        """Lease up to ``limit`` due replies, at most one a session: its oldest unsent one.

        With ``shares`` not more of any platform than its share.
        """
        due, any_over = await self._look(host, limit, lease_s, shares)
        if not any_over:
            return due
        try:
            await self._run_relaxed("", due_replies.wake)
            left = shares.without(due.replies) if shares else None
            more, _ = await self._look(host, limit - len(due.replies), lease_s, left)
        except StoreUnavailable:  # what is leased already is sent
            return DueReplies(due.replies, 0.0)
        return DueReplies((*due.replies, *more.replies), more.next_in_s)

    async def _look(self, host: str, limit: int, lease_s: float, shares: Shares | None) -> tuple[DueReplies, bool]:
        """Lease what is due; tell also whether a delay or a lease has ended."""
        found = await self._run_relaxed("", _due, host, limit, lease_s, shares)
        if found.until != self._until:
            self._until, self._leased = found.until, frozenset()
        replies = tuple(reply for reply in found.replies if reply.leased not in self._leased)
        self._leased |= {reply.leased for reply in replies}
        return DueReplies(replies, found.next_in_s), found.any_over

    async def held(self, host: str) -> list[ReplyLease]:
        """Return what a host has leased, for one that has to know what it does not send."""
        return await self._run("", outbox.held, host)

    async def give_back(self, host: str, leases: Iterable[ReplyLease]) -> None:
        """Let others send rows that a host has leased and does not send; they may have been sent: one attempt more."""
        await self._run("", outbox.give_back, host, tuple(leases))

    async def split(self, reply: Reply, texts: Sequence[str]) -> list[Reply]:
        """Replace an unrendered row by one rendered row a chunk; the first stays leased. Raises StaleClaim."""
        return await self._run(reply.session, _split, reply, tuple(texts))

    async def delivered(self, reply: Reply, sent_id: str) -> bool:
        """Record that the platform took this row; True if the next one of its session is due now. Raises StaleClaim."""
        return await self._run(reply.session, outbox.mark_sent, reply, sent_id)

    async def postpone(self, reply: Reply, delay_s: float, error: str) -> None:
        """Give the row back, due again after ``delay_s`` seconds, one attempt more. Raises StaleClaim."""
        await self._run(reply.session, outbox.postpone, reply, delay_s, error)

    async def release(self, reply: Reply, delay_s: float) -> None:
        """Give the row back untried, due again after ``delay_s`` seconds. Raises StaleClaim."""
        await self._run(reply.session, outbox.release, reply, delay_s)

    async def hand_over(self, reply: Reply, gateway: str) -> None:
        """Let another gateway send the row and the later ones of its session, from now on. Raises StaleClaim."""
        await self._run(reply.session, outbox.hand_over, reply, gateway)

    async def refuse(self, reply: Reply, error: str) -> None:
        """Record that this row and the later chunks of its message can never be sent. Raises StaleClaim."""
        await self._run(reply.session, outbox.refuse, reply, error)

    async def readdress(self, reply: Reply, address: bytes) -> None:
        """Give the row and the later ones of its session a new address. Raises StaleClaim."""
        await self._run(reply.session, outbox.readdress, reply, address)


def _due(database: Database, host: str, limit: int, lease_s: float, shares: Shares | None) -> due_replies.LeasedReplies:
    if shares is not None:
        return due_replies.lease_shares(database, host, limit, lease_s, shares)
    return due_replies.lease(database, host, limit, lease_s)


def _split(database: Database, reply: Reply, texts: tuple[str, ...]) -> list[Reply]:
    outbox.split(database, reply, texts)
    first = msgspec.structs.replace(reply, text=texts[0], rendered=True, question="")
    chunks = [
        first,
        *(
            msgspec.structs.replace(first, part=reply.part + number, text=text, attempts=0, lease=0)
            for number, text in enumerate(texts[1:], 1)
        ),
    ]
    return [*chunks[:-1], msgspec.structs.replace(chunks[-1], question=reply.question)]
