"""The port to everything durable: five objects, each the one owner of its tables.

``inbox`` accepts messages and keeps them; ``claims`` leases sessions, fences every write of a turn and settles
it; ``outbox`` holds replies until the platform took them; ``sessions`` reads what survives, ``spending`` what was used.
Every method is one transaction, returns only once it is committed, and raises StoreUnavailable when it could not
commit: then nothing of it was written. Times are unix seconds of the store's own clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from shared.budgets import Account, Allowance, Budgets, Spend
from shared.journal import JournalEntry
from shared.messages import (
    Arrival,
    Claim,
    ClaimRef,
    CommandAnswer,
    Context,
    Conversation,
    Outcome,
    Pending,
    Receipt,
    Reply,
    Step,
    Summary,
)
from shared.traces import DeadLetter, MessageTrace, SessionSummary
from shared.usage import Usage


class Inbox(Protocol):
    """Accepted messages and the keys that make a redelivery a duplicate."""

    async def accept(self, arrival: Arrival) -> Receipt:
        """Write one arrival unless any of its dedupe keys is known; many calls share one commit.

        A duplicate gets the first one's message id. Raises InboxFull past the limit, for new messages only, and never
        for a command that stops. A chat command is carried out in its place in the session's order, in one transaction
        with its answer: at once where the session rests, else with the settle of what is before it.
        """

    async def announce(self, reply: Reply, dedupe: tuple[str, ...], dedupe_ttl_s: float) -> bool:
        """Put one reply into the outbox that answers no accepted message (a pairing code); False if a duplicate."""

    async def waiting(self) -> int:
        """Count the waiting messages of all sessions."""

    async def trace(self, message_id: str) -> MessageTrace:
        """Return every stage of one message. Raises NotFound."""

    async def latest(self, session: str) -> str:
        """Return the id of a session's last message that is no chat command. Raises NotFound."""

    async def dead(self, limit: int = 100) -> list[DeadLetter]:
        """Return dead letters, newest first."""

    async def retry_dead(self, message_id: str) -> None:
        """Make a dead letter wait again, with no attempts used. Raises NotFound."""

    async def purge_dead(self, message_id: str) -> None:
        """Remove a dead letter for good. Raises NotFound."""

    async def expire(self, keep_done_s: float) -> int:
        """Remove dedupe keys past their time, and settled messages with sent replies older than this; count rows."""


class Claims(Protocol):
    """Leases on sessions. Every write carries the claim's epoch; a stale one raises StaleClaim and writes nothing."""

    async def claim(
        self, host: str, limit: int, lease_s: float, *, suspects: bool = False, budgets: Budgets | None = None
    ) -> list[Claim]:
        """Lease up to ``limit`` ready sessions, each with its first waiting message and those that join its turn.

        Platforms take turns, so that a flood of one starves no other; of each the longest waiting come first.
        With ``suspects`` only sessions whose first message is a suspect are leased, without it only the others.
        Sessions whose lease has ended are ready again: their message counts one more lost execution.

        With ``budgets`` each claim holds a part of them, named by its allowance; one whose budget is spent is leased
        with an allowance of nothing, to be refused. A session that has to wait for what others hold is not leased. A
        hold ends with its claim, however that ends.
        """

    async def hold(self, ref: ClaimRef, used: Spend, wanted: Spend, budgets: Budgets) -> Allowance:
        """Hold more for a running turn: ``wanted`` in all, of which it has ``used`` a part.

        Returns what it may use in all: not more than it has used where a budget is spent, or where others hold what is
        left, which its refusal tells; then it may ask again.
        """

    async def next_ready_in_s(self) -> float | None:
        """Return the seconds until a session can be claimed: 0 if now, None if none waits."""

    async def renew(self, host: str, refs: Sequence[ClaimRef], lease_s: float) -> list[ClaimRef]:
        """Extend the leases that are still this host's; return those that are not any more."""

    async def adopt(self, host: str) -> int:
        """End the leases of every other host at once, for an engine that only one host can open; count them."""

    async def checkpoint(self, ref: ClaimRef, steps: Sequence[Step], summary: Summary | None = None) -> None:
        """Append finished steps to the claim's turn; the journal of a finished step goes.

        ``summary`` was made after these steps; it holds from now on, unless the message ends as a dead letter.
        """

    async def journal(self, ref: ClaimRef, entries: Sequence[JournalEntry]) -> None:
        """Append to the side-effect journal of the claim's open step: its opening, then its calls' intents and results.

        A later claim of the message carries it as ``open_step``. An opening replaces the step that was open; what
        belongs to a step that is not open is dropped.
        """

    async def join(self, ref: ClaimRef) -> tuple[Pending, ...]:
        """Let the messages that wait to join the claim's turn do so, and return them; a later claim carries them too.

        They are settled with the turn if the outcome names them as ``joined``; else they wait again.
        """

    async def settle(self, ref: ClaimRef, outcome: Outcome) -> tuple[CommandAnswer, ...]:
        """End the claim in one transaction: history, todo, summary, inbox state, outbox rows; the rest goes.

        What the turn used is charged, in all its attempts together once, and what it held is free. Chat commands that
        waited for it are carried out with it, and returned.
        """


class Outbox(Protocol):
    """Replies on their way out: one order per session, a sent id per row, leased while being sent."""

    async def due(self, host: str, limit: int, lease_s: float) -> list[Reply]:
        """Lease up to ``limit`` due replies, at most one a session: its oldest unsent one."""

    async def next_due_in_s(self) -> float | None:
        """Return the seconds until a reply is due: 0 if now, None if none is pending."""

    async def split(self, reply: Reply, texts: Sequence[str]) -> list[Reply]:
        """Replace an unrendered row by one rendered row a chunk; the first stays leased. Raises StaleClaim."""

    async def delivered(self, reply: Reply, sent_id: str) -> None:
        """Record that the platform took this row. Raises StaleClaim."""

    async def postpone(self, reply: Reply, delay_s: float, error: str) -> None:
        """Give the row back, due again after ``delay_s`` seconds, one attempt more. Raises StaleClaim."""

    async def refuse(self, reply: Reply, error: str) -> None:
        """Record that this row and the later chunks of its message can never be sent. Raises StaleClaim."""

    async def readdress(self, reply: Reply, address: bytes) -> None:
        """Give the row and the later ones of its session a new address. Raises StaleClaim."""


class Sessions(Protocol):
    """What survives of a conversation, and who may talk."""

    async def latest(self, limit: int = 200) -> list[SessionSummary]:
        """Return sessions, latest first."""

    async def summary(self, key: str) -> SessionSummary:
        """Return one session's row. Raises NotFound."""

    async def conversation(self, key: str, last: int | None = None) -> Conversation:
        """Return a session's present conversation, at most its ``last`` messages, and its todo list.

        Both are empty for a session that does not exist.
        """

    async def earlier(self, key: str) -> tuple[bytes, ...]:
        """Return what was said in a session before its present conversation, oldest first."""

    async def context(self, key: str, last: int, limit_bytes: int, least: int = 1) -> Context:
        """Return what a turn has to know: the latest summary, and what is behind it, at most ``last`` messages.

        Of those the newest that fit into ``limit_bytes``, and ``least`` of them whatever their size. A summary goes
        with the messages it was made of, whoever removes them; the one before it holds again.
        """

    async def rewrite(self, key: str, conversation: Conversation) -> int:
        """Replace the history and todo of a session that is not claimed, if its version is still the one given.

        A conversation without a list empties the one the session has: none that its history shows comes back. One
        without messages is begun anew, and so is its own budget.

        Returns the new version. Raises NotFound, and StaleClaim when the session is claimed or has moved on.
        """

    async def delete(self, key: str) -> None:
        """Remove a session with all its rows; a running turn of it becomes stale. Raises NotFound."""

    async def pair(self, sender: str, code: str) -> str:
        """Remember a stranger with a pairing code (the first one stands) and return the code that holds."""

    async def approve(self, code: str) -> str:
        """Let the sender of this pairing code in and return who it is. Raises NotFound."""

    async def approved(self, sender: str) -> bool:
        """Tell whether a pairing let this sender in."""

    async def strangers(self) -> list[tuple[str, str]]:
        """Return (sender, code) of every pairing that waits."""


class Spending(Protocol):
    """What was used, by whom; claims write it."""

    async def usage(self, session: str) -> Usage:
        """Return what a session has used in its life, as far as its turns are settled; nothing for a new session."""

    async def accounts(self, budgets: Budgets, limit: int = 20) -> list[Account]:
        """Return every budget with who has spent most of it in its window that is now, and what is held."""

    async def expire(self, keep_s: float) -> int:
        """Forget what was spent in hours longer ago than this; what sessions used in their life stays. Count rows."""


class Store(Protocol):
    """One engine: its five objects and its life."""

    @property
    def inbox(self) -> Inbox: ...

    @property
    def claims(self) -> Claims: ...

    @property
    def outbox(self) -> Outbox: ...

    @property
    def sessions(self) -> Sessions: ...

    @property
    def spending(self) -> Spending: ...

    async def open(self) -> None:
        """Open and migrate forward. Raises StoreUnusable."""

    async def close(self) -> None:
        """Commit what is queued and close; later calls raise StoreUnavailable."""

    async def check(self) -> None:
        """Write and read back one row. Raises StoreUnavailable."""

    async def verify(self) -> None:
        """Read all there is and verify that it is sound; takes its time. Raises StoreUnusable and StoreUnavailable."""
