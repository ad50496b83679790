"""The inbox of the port: what is accepted, where it is, what became of it."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from shared.call_options import CallOptions
from shared.command import CommandKind
from shared.errors import InboxFull, SenderShareFull
from shared.ids import made_at_s
from shared.messages import Arrival, Claim, ClaimRef, MessageState, Receipt, RepeatedRequest, Reply
from shared.store.engine import Database, Engine
from shared.store.sql import dead_letters, exchanges, small_deletes
from shared.store.sql.arrivals import receive
from shared.store.sql.session_commands import receive_command
from shared.store.sql.tables import (
    approvals,
    attachments,
    begun_messages,
    checkpoints,
    dedupe,
    inbox,
    journal,
    outbox,
    ready_sessions,
    sessions,
    spending,
)
from shared.traces import Backlog, DeadMark, DeadPage, MessageTrace, UnansweredMessage
from shared.when_busy import WhenBusy

#: what a refused sender is answers to wait, in seconds
RETRY_AFTER_S = 5
#: rows removed in one transaction at most, so that accepts need not wait for long
EXPIRE_LIMIT = 500

#: the states of messages that nothing more is done with; a dead letter is the operator's
CLOSED = (MessageState.DONE, MessageState.REJECTED, MessageState.WITHDRAWN)


class InboxLimits(NamedTuple):
    """How many messages may wait."""

    #: of all senders
    limit: int
    #: of one sender
    share: int


class Inbox:
    """Accepted messages and the keys that make a redelivery a duplicate.

    ``limit`` is the number of waiting messages past which no new one is taken, ``share`` the part of it for one sender.
    """

    def __init__(self, engine: Engine, limit: int, share: float) -> None:
        self._run = engine.run
        self._room = InboxLimits(limit, max(1, int(limit * share)))

    async def accept(self, arrival: Arrival, host: str = "") -> Receipt:
        """Write one arrival unless any of its dedupe keys is known; many calls share one commit.

        A duplicate gets the first one's message id. Raises InboxFull past the limit and SenderShareFull past the
        sender's share of it, for new messages only, and never for the first command that stops a turn. A chat command
        is carried out in its place in the session's order, in one transaction with its answer: at once where the
        session rests, else with the settle of what is before it. With ``host``, which beats, a message that is all
        there is to do may be claimed for it in the same transaction: then the receipt has the claim.
        """
        return await self._run(arrival.session, _accept, storable(arrival), self._room, host)

    async def announce(self, reply: Reply, dedupe: tuple[str, ...], dedupe_ttl_s: float) -> bool:
        """Put one reply into the outbox that answers no accepted message (a pairing code); False if a duplicate."""
        return await self._run(reply.session, _announce, reply, dedupe, dedupe_ttl_s)

    async def waiting(self) -> int:
        """Count the waiting messages of all sessions."""
        return await self._run("", lambda database: database.waiting)

    async def trace(self, message_id: str) -> MessageTrace:
        """Return every stage of one message. Raises NotFound."""
        return await self._run("", _trace, message_id)

    async def known(self, session: str, dedupe: tuple[str, ...]) -> str:
        """Return the id of the message that any of these dedupe keys belongs to, empty where none does."""
        return await self._run(session, _known, session, dedupe)

    async def amend(self, session: str, key: str, text: str) -> bool | None:
        """Change what the message with this dedupe key says.

        True if its turn has not begun, False if it runs, None if it is over, unknown, or says the same.
        """
        return await self._run(session, _amend, session, key, text)

    async def is_last_waiting(self, session: str, key: str) -> bool:
        """Tell whether the message with this dedupe key is a session's last one and still to be answered."""
        return await self._run(session, _is_last_waiting, session, key)

    async def address(self, session: str, message_id: str) -> bytes:
        """Return where the answer to a message goes. Raises NotFound."""
        return await self._run(session, inbox.address, session, message_id)

    async def readdress(self, session: str, message_id: str, address: bytes) -> None:
        """Let the answer to a message that waits go elsewhere; nothing for one that is settled."""
        await self._run(session, inbox.readdress, session, message_id, address)

    async def latest(self, session: str) -> str:
        """Return the id of a session's last message that is no chat command. Raises NotFound."""
        return await self._run(session, inbox.latest, session)

    async def backlog(self) -> Backlog:
        """Return what is not done yet, of all sessions."""
        return await self._run("", _backlog)

    async def unanswered(self, session: str, limit: int = 20) -> list[UnansweredMessage]:
        """Return the messages of a session that wait or are in their turn, oldest first, commands left out."""
        return await self._run(session, inbox.unanswered, session, limit)

    async def repeated(self, session: str, fingerprint: str, since: float) -> str:
        """Return the id of a session's last request that has this fingerprint, empty if there is none since then."""
        return await self._run(session, inbox.repeated, session, fingerprint, since)

    async def answer(self, message_id: str) -> RepeatedRequest:
        """Return what became of a request of the API, and what its sender is asked now. Raises NotFound."""
        return await self._run("", _answer, message_id)

    async def options(self, message_id: str) -> CallOptions | None:
        """Return what a client of the API asks for beside its words, None for nothing. Raises NotFound."""
        return await self._run("", inbox.options, message_id)

    async def stop(self, session: str, message_id: str, text: str) -> bool:
        """Ask for the end of a message's turn, which may not have begun; its sender is told ``text``.

        False where it is over. Whoever runs it has to be told. Raises NotFound.
        """
        return await self._run(session, exchanges.stop, message_id, text)

    async def dead(self, limit: int = 100, after: DeadMark | None = None) -> DeadPage:
        """Return a page of dead letters of every kind, newest first, behind the last one of the page before."""
        return await self._run("", dead_letters.read, after, limit)

    async def retry_dead(self, message_id: str) -> None:
        """Let a dead letter run, or be sent, again, with no attempts used. Raises NotFound."""
        session = await self._run("", dead_letters.session_of, message_id)
        await self._run(session, dead_letters.retry, message_id)

    async def purge_dead(self, message_id: str) -> None:
        """Remove a dead letter and its replies for good. Raises NotFound."""
        session = await self._run("", dead_letters.session_of, message_id)
        await self._run(session, dead_letters.purge, message_id)

    async def expire(self, keep_done_s: float) -> int:
        """Remove dedupe keys past their time, and settled messages with sent replies older than this.

        Many short transactions, so that nothing else has to wait; counts the rows of messages, replies that answer
        none, and keys.
        """
        removed = 0
        while count := await self._run("", dedupe.expire, EXPIRE_LIMIT):
            removed += count
        while count := await self._run("", _expire_unsolicited, keep_done_s):
            removed += count
        for state in CLOSED:
            mark: inbox.SettledMark | None = inbox.SettledMark()
            while mark is not None:
                count, mark = await self._run("", _expire_closed, state, keep_done_s, mark)
                removed += count
        return removed


def _backlog(database: Database) -> Backlog:
    undelivered, oldest_undelivered = outbox.unsent(database)
    dead = dead_letters.count(database)
    return Backlog(
        waiting=database.waiting,
        oldest_s=_seconds_since(database, inbox.oldest(database)),
        undelivered=undelivered,
        dead=sum(dead.values()),
        oldest_undelivered_s=_seconds_since(database, made_at_s(oldest_undelivered)),
        dead_by_kind=dead,
    )


def _seconds_since(database: Database, at: float | None) -> float:
    return 0.0 if at is None else max(0.0, database.now() - at)


def storable(arrival: Arrival) -> Arrival:
    """Return an arrival without U+0000, which no text of a server may hold: it becomes U+FFFD."""
    if "\0" not in arrival.text + arrival.user:
        return arrival
    text, user = (value.replace("\0", "\N{REPLACEMENT CHARACTER}") for value in (arrival.text, arrival.user))
    return msgspec.structs.replace(arrival, text=text, user=user)


def _accept(database: Database, arrival: Arrival, room: InboxLimits, host: str) -> Receipt:
    if database.reads_wait and database.waiting < min(room) and _is_plain(arrival):
        return _accept_plain(database, arrival, host)
    if known := dedupe.find(database, arrival.session, arrival.dedupe):
        return Receipt(known, duplicate=True)
    ahead = database.waiting
    if refusal := _no_room(database, arrival, ahead, room):
        raise refusal
    database.add_waiting(1)  # before anything is read again, so that no other job takes the same room
    owner = dedupe.remember(database, arrival.session, arrival.dedupe, arrival.id, arrival.dedupe_ttl_s)
    if owner != arrival.id:
        database.add_waiting(-1)
        return Receipt(owner, duplicate=True)
    plain = arrival.command is None and not arrival.quiet_s
    arrived = sessions.arrive(database, arrival.session, arrival.platform, arrival.sender, ready=plain)
    if arrival.title:
        sessions.rename(database, arrival.session, arrival.title)
    attachments.add(database, arrival.session, arrival.attachment_data)
    if arrival.command is not None:
        return receive_command(database, arrival, arrival.command, arrived)
    return receive(database, arrival, arrived, ahead)


def _is_plain(arrival: Arrival) -> bool:
    """Tell whether a message is kept in the same way whatever its session does."""
    waits_its_turn = arrival.when_busy is WhenBusy.ENQUEUE and not arrival.quiet_s and arrival.command is None
    return waits_its_turn and not arrival.history and not arrival.attachment_data and len(arrival.dedupe) <= 2


def _accept_plain(database: Database, arrival: Arrival, host: str) -> Receipt:
    """Keep a plain message, if it is new, by statements that need not know what any of them has found."""
    ahead = database.waiting
    database.add_waiting(1)
    keys = dedupe.two_keys(arrival.session, arrival.dedupe, arrival.id)

    def keep() -> str | None:
        dedupe.remember_all(database, keys, arrival.dedupe_ttl_s)
        sessions.arrive_if_new(database, arrival.platform, arrival.sender, keys)
        inbox.add_if_new(database, arrival, keys)
        if arrival.title:
            sessions.rename_if_accepted(database, arrival.session, arrival.title, arrival.id)
        return dedupe.find_other(database, keys)

    def claim() -> Claim | None:
        if not host:
            return None
        ready_sessions.lease_at_once(database, arrival.session, arrival.id, host)
        begun = begun_messages.begin_at_once(database, arrival.session, arrival.id, host)
        if begun is None:
            return None
        return Claim(ClaimRef(arrival.session, begun.epoch), arrival.platform, begun.version, (begun.message,))

    known, other, claimed = database.last(lambda: dedupe.find_either(database, keys), keep, claim)
    if known == arrival.id and database.asked_again:  # by this very job
        known = None
    owner = known or other
    if owner is not None:
        database.add_waiting(-1)
        return Receipt(owner, duplicate=True)
    return Receipt(arrival.id, duplicate=False, ahead=ahead, claim=claimed)


def _no_room(database: Database, arrival: Arrival, waiting: int, room: InboxLimits) -> InboxFull | None:
    """Return why a message cannot be taken now, None if it can."""
    if waiting >= room.limit:
        # a stop waits for nothing, and is needed most where much does: the first one for each turn
        if arrival.command is not None and arrival.command.kind is CommandKind.STOP:
            head = sessions.busy_with(database, arrival.session)
            if head is not None and not inbox.stop_requested(database, arrival.session, head):
                return None
        return InboxFull(waiting, RETRY_AFTER_S)
    if waiting >= room.share:
        of_sender = inbox.count_waiting_by(database, arrival.platform, arrival.user, room.share)
        if of_sender >= room.share:
            return SenderShareFull(of_sender, RETRY_AFTER_S)
    return None


def _announce(database: Database, reply: Reply, keys: tuple[str, ...], ttl_s: float) -> bool:
    if dedupe.find(database, reply.session, keys):
        return False
    if dedupe.remember(database, reply.session, keys, reply.message_id, ttl_s) != reply.message_id:
        return False
    outbox.add(database, outbox.UNSOLICITED, reply)
    return True


def _answer(database: Database, message_id: str) -> RepeatedRequest:
    answered, session = inbox.answer(database, message_id)
    if answered.state is MessageState.WAITING and (waiting := approvals.waiting(database, session)):
        asker, question = waiting
        return msgspec.structs.replace(answered, question=question) if asker == message_id else answered
    return answered


def _trace(database: Database, message_id: str) -> MessageTrace:
    session, seq, platform, user, state, attempts, suspect, worker, error, at, *row = inbox.trace(database, message_id)
    claimed_at, settled_at, usage, joined, text, stacks = row
    turn = joined or seq
    running = sessions.claimed_for(database, session) == turn
    current = running or (state == MessageState.WAITING and sessions.head(database, session) == turn)
    steps = checkpoints.read(database, session) if current else ()
    return MessageTrace(
        id=message_id,
        session=session,
        platform=platform,
        user=user,
        state=MessageState(state),
        attempts=attempts,
        suspect=bool(suspect),
        worker=worker,
        error=error,
        accepted_at=at,
        claimed_at=claimed_at,
        settled_at=settled_at,
        running=running,
        usage=spending.used_so_far(database, session) if current else inbox.usage(usage),
        replies=outbox.trace(database, session, seq),
        steps=len(steps),
        calls=journal.trace(database, session) if current else (),
        joined=inbox.id_of(database, session, joined) if joined else "",
        text=text,
        stacks=stacks,
    )


def _expire_unsolicited(database: Database, keep_done_s: float) -> int:
    return outbox.expire_unsolicited(database, database.now() - keep_done_s, EXPIRE_LIMIT)


def _expire_closed(
    database: Database, state: MessageState, keep_done_s: float, after: inbox.SettledMark
) -> tuple[int, inbox.SettledMark | None]:
    """Remove some old messages, few in rows and bytes; return how many, and the mark to go on from, None at the end.

    What is large goes alone.
    """
    found = inbox.settled_before(database, state, database.now() - keep_done_s, after, EXPIRE_LIMIT)
    removed = size = 0
    for number, (mark, message_bytes) in enumerate(found):
        replies_bytes = outbox.closed_bytes(database, mark.session, mark.seq)
        if replies_bytes is None:
            continue
        size += message_bytes + replies_bytes
        if removed and size > small_deletes.DELETE_BYTES:
            return removed, found[number - 1][0]
        inbox.remove(database, mark.session, mark.seq)
        outbox.remove(database, mark.session, mark.seq)
        removed += 1
    return removed, found[-1][0] if len(found) == EXPIRE_LIMIT else None


def _known(database: Database, session: str, keys: tuple[str, ...]) -> str:
    return dedupe.find(database, session, keys) or ""


def _amend(database: Database, session: str, key: str, text: str) -> bool | None:
    message_id = dedupe.find(database, session, (key,))
    return inbox.amend(database, session, message_id, text) if message_id else None


def _is_last_waiting(database: Database, session: str, key: str) -> bool:
    message_id = dedupe.find(database, session, (key,))
    if not message_id or not inbox.waits(database, session, message_id):
        return False
    return inbox.latest(database, session) == message_id
