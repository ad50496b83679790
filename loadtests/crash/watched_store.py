"""The product's own store, watched: every boundary of the port is noted, and may kill on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from loadtests.crash.kill_switch import KillSwitch
from loadtests.crash.notes import Note, Notebook, finished_labels
from loadtests.crash.plan import Boundary, Side
from shared.journal import CallIntent, CallResult, JournalEntry
from shared.messages import (
    Arrival,
    Claim,
    ClaimBatch,
    ClaimRef,
    Dead,
    Ended,
    Outcome,
    Receipt,
    Reply,
    Settlement,
    Step,
    Summary,
)
from shared.store.engine import OpeningProgress, Tell, tell_nobody
from shared.store.port import Claims, Inbox, Outbox, Store


class Watch:
    """Notes a boundary and gives the switch its chance, on either side; ``life`` is the gateway's process id."""

    def __init__(self, life: int, notebook: Notebook, switch: KillSwitch) -> None:
        self._life = life
        self._notebook = notebook
        self._switch = switch

    def before(self, boundary: Boundary, session: str = "", **facts: Any) -> None:
        """Something is about to become durable."""
        self._notebook.write(Note(self._life, boundary, Side.BEFORE, **facts))
        self._switch.reached(boundary, Side.BEFORE, session)

    def after(self, boundary: Boundary, session: str = "", **facts: Any) -> None:
        """It is durable, and nobody has been told yet."""
        self._notebook.write(Note(self._life, boundary, Side.AFTER, **facts))
        self._switch.reached(boundary, Side.AFTER, session)


class Watched:
    """Passes on whatever is not watched."""

    def __init__(self, inner: Any, watch: Watch) -> None:
        self._inner = inner
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class WatchedClaims(Watched):
    """The Claims: claims that find something, checkpoints, settles."""

    def __init__(self, inner: Any, watch: Watch) -> None:
        super().__init__(inner, watch)
        self._messages: dict[ClaimRef, str] = {}

    async def claim(self, host: str, limit: int, *given: Any, **named: Any) -> ClaimBatch:
        if (await self._inner.claim(host, 0, *given, **named)).next_in_s == 0:
            self._watch.before(Boundary.CLAIM)
        batch: ClaimBatch = await self._inner.claim(host, limit, *given, **named)
        for claim in batch.claims:
            self._messages[claim.ref] = claim.messages[0].id
        if batch.claims:
            self._watch.after(Boundary.CLAIM, batch.claims[0].ref.session)
        return batch

    def taken(self, claim: Claim) -> None:
        """Know a claim that came with its message."""
        self._messages[claim.ref] = claim.messages[0].id
        self._watch.after(Boundary.CLAIM, claim.ref.session)

    async def checkpoint(self, ref: ClaimRef, steps: Sequence[Step], summary: Summary | None = None) -> None:
        labels = finished_labels(message for step in steps for message in step.messages)
        facts = {"message": self._messages[ref], "labels": labels}
        self._watch.before(Boundary.CHECKPOINT, ref.session, **facts)
        await self._inner.checkpoint(ref, steps, summary)
        self._watch.after(Boundary.CHECKPOINT, ref.session, **facts)

    async def journal(self, ref: ClaimRef, entries: Sequence[JournalEntry]) -> None:
        """Append to the journal; what holds intents and results at once is both boundaries."""
        results = [entry.message for entry in entries if isinstance(entry, CallResult)]
        keys = tuple(entry.key for entry in entries if isinstance(entry, CallIntent))
        facts: dict[Boundary, dict[str, Any]] = {}
        if keys:
            facts[Boundary.INTENT] = {"message": self._messages[ref], "keys": keys}
        if results:
            facts[Boundary.RESULT] = {"message": self._messages[ref], "labels": finished_labels(results)}
        for boundary, known in facts.items():
            self._watch.before(boundary, ref.session, **known)
        await self._inner.journal(ref, entries)
        for boundary, known in facts.items():
            self._watch.after(boundary, ref.session, **known)

    async def settle(self, ref: ClaimRef, outcome: Outcome) -> Settlement:
        labels = finished_labels(outcome.messages) if isinstance(outcome, Ended) else ()
        ended = isinstance(outcome, Ended | Dead)
        facts = {"message": self._messages[ref], "labels": labels, "ended": ended}
        self._watch.before(Boundary.SETTLE, ref.session, **facts)
        settlement: Settlement = await self._inner.settle(ref, outcome)
        self._watch.after(Boundary.SETTLE, ref.session, **facts)
        return settlement


class WatchedInbox(Watched):
    """The Inbox: accepts, some of which are claims too."""

    def __init__(self, inner: Any, watch: Watch, claims: WatchedClaims) -> None:
        super().__init__(inner, watch)
        self._claims = claims

    async def accept(self, arrival: Arrival, host: str = "") -> Receipt:
        self._watch.before(Boundary.ACCEPT, arrival.session)
        receipt: Receipt = await self._inner.accept(arrival, host)
        self._watch.after(Boundary.ACCEPT, arrival.session, message=receipt.message_id)
        if receipt.claim is not None:
            self._claims.taken(receipt.claim)
        return receipt


class WatchedOutbox(Watched):
    """The Outbox: records of what the platform took."""

    async def delivered(self, reply: Reply, sent_id: str) -> bool:
        self._watch.before(Boundary.DELIVERED, reply.session, keys=(reply.idempotency_key,))
        more: bool = await self._inner.delivered(reply, sent_id)
        self._watch.after(Boundary.DELIVERED, reply.session, keys=(reply.idempotency_key,))
        return more


class WatchedStore(Watched):
    """The Store, its three writing objects watched."""

    def __init__(self, inner: Store, watch: Watch) -> None:
        super().__init__(inner, watch)
        claims = WatchedClaims(inner.claims, watch)
        self.inbox = cast("Inbox", WatchedInbox(inner.inbox, watch, claims))
        self.claims = cast("Claims", claims)
        self.outbox = cast("Outbox", WatchedOutbox(inner.outbox, watch))

    async def open(self, tell: Tell = tell_nobody) -> None:
        """Open it; each step of a migration is a boundary."""

        def tell_and_watch(progress: OpeningProgress) -> None:
            tell(progress)
            self._watch.after(Boundary.MIGRATION)

        await self._inner.open(tell_and_watch)


class WatchedPlatform(Watched):
    """A platform's adapter: ``call`` is what comes right before a send, ``result`` right after it."""

    def call(self, reply: Reply, *given: Any, **named: Any) -> Any:
        self._watch.before(Boundary.SEND, reply.session, keys=(reply.idempotency_key,))
        return self._inner.call(reply, *given, **named)

    def result(self, reply: Reply, answer: Any) -> Any:
        self._watch.after(Boundary.SEND, reply.session, keys=(reply.idempotency_key,))
        return self._inner.result(reply, answer)

    def identified(self, *given: Any) -> WatchedPlatform:
        """Stay in the place of an adapter that knows who the bot is."""
        return WatchedPlatform(self._inner.identified(*given), self._watch)
