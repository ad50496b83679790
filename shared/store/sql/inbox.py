"""The inbox of the port: what is accepted, where it is, what became of it."""

from __future__ import annotations

from shared.command import CommandKind
from shared.errors import InboxFull
from shared.messages import Arrival, MessageState, Receipt, Reply
from shared.store.sql.arrivals import receive
from shared.store.sql.session_commands import go_on, receive_command
from shared.store.sql.tables import checkpoints, dedupe, inbox, journal, outbox, sessions, spending
from shared.store.sqlite.database import Database
from shared.store.sqlite.writer import Writer
from shared.traces import DeadLetter, MessageTrace

#: what a refused sender is told to wait, in seconds
RETRY_AFTER_S = 5
#: rows removed in one transaction at most, so that accepts need not wait for long
EXPIRE_LIMIT = 500

#: the states of messages that nothing more is done with; a dead letter is the operator's
CLOSED = (MessageState.DONE, MessageState.REJECTED, MessageState.WITHDRAWN)


class SqliteInbox:
    """The Inbox of the embedded engine; ``limit`` is the number of waiting messages past which no new one is taken."""

    def __init__(self, writer: Writer, limit: int) -> None:
        self._writer = writer
        self._limit = limit

    async def accept(self, arrival: Arrival) -> Receipt:
        """Write one arrival unless any of its dedupe keys is known. Raises InboxFull."""
        return await self._writer.run(_accept, arrival, self._limit)

    async def announce(self, reply: Reply, dedupe: tuple[str, ...], dedupe_ttl_s: float) -> bool:
        """Put one reply into the outbox that answers no accepted message; False if a duplicate."""
        return await self._writer.run(_announce, reply, dedupe, dedupe_ttl_s)

    async def waiting(self) -> int:
        """Count the waiting messages of all sessions."""
        return await self._writer.run(lambda database: database.waiting)

    async def trace(self, message_id: str) -> MessageTrace:
        """Return every stage of one message. Raises NotFound."""
        return await self._writer.run(_trace, message_id)

    async def latest(self, session: str) -> str:
        """Return the id of a session's last message. Raises NotFound."""
        return await self._writer.run(inbox.latest, session)

    async def dead(self, limit: int = 100) -> list[DeadLetter]:
        """Return dead letters, newest first."""
        return await self._writer.run(inbox.dead, limit)

    async def retry_dead(self, message_id: str) -> None:
        """Make a dead letter wait again, with no attempts used. Raises NotFound."""
        await self._writer.run(_retry_dead, message_id)

    async def purge_dead(self, message_id: str) -> None:
        """Remove a dead letter and its replies for good. Raises NotFound."""
        await self._writer.run(_purge_dead, message_id)

    async def expire(self, keep_done_s: float) -> int:
        """Remove dedupe keys past their time, and old settled messages whose replies are on their way no more.

        Many short transactions, so that nothing else has to wait; counts the rows of messages, replies that answer
        none, and keys.
        """
        removed = 0
        while count := await self._writer.run(dedupe.expire, EXPIRE_LIMIT):
            removed += count
        while count := await self._writer.run(_expire_unasked, keep_done_s):
            removed += count
        for state in CLOSED:
            mark: inbox.WaitingMark | None = inbox.WaitingMark()
            while mark is not None:
                count, mark = await self._writer.run(_expire_closed, state, keep_done_s, mark)
                removed += count
        return removed


def _accept(database: Database, arrival: Arrival, limit: int) -> Receipt:
    if arrival.dedupe and (known := dedupe.find(database, arrival.session, arrival.dedupe)):
        return Receipt(known, duplicate=True)
    ahead = database.waiting
    command = arrival.command
    # a stop waits for nothing, and is needed most where much does
    if ahead >= limit and (command is None or command.kind is not CommandKind.STOP):
        raise InboxFull(ahead, RETRY_AFTER_S)
    dedupe.remember(database, arrival.session, arrival.dedupe, arrival.id, arrival.dedupe_ttl_s)
    arrived = sessions.arrive(database, arrival.session, arrival.platform)
    if command is not None:
        return receive_command(database, arrival, command, arrived)
    return receive(database, arrival, arrived, ahead)


def _announce(database: Database, reply: Reply, keys: tuple[str, ...], ttl_s: float) -> bool:
    if dedupe.find(database, reply.session, keys):
        return False
    dedupe.remember(database, reply.session, keys, reply.message_id, ttl_s)
    outbox.add(database, outbox.UNASKED, reply)
    return True


def _trace(database: Database, message_id: str) -> MessageTrace:
    session, seq, platform, user, state, attempts, suspect, worker, error, at, claimed_at, settled_at, usage, joined = (
        inbox.trace(database, message_id)
    )
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
    )


def _retry_dead(database: Database, message_id: str) -> None:
    session, _ = inbox.revive(database, message_id)
    if sessions.is_idle(database, session):
        go_on(database, session)


def _purge_dead(database: Database, message_id: str) -> None:
    session, seq = inbox.purge(database, message_id)
    outbox.remove(database, session, seq)


def _expire_unasked(database: Database, keep_done_s: float) -> int:
    return outbox.expire_unasked(database, database.now() - keep_done_s, EXPIRE_LIMIT)


def _expire_closed(
    database: Database, state: MessageState, keep_done_s: float, after: inbox.WaitingMark
) -> tuple[int, inbox.WaitingMark | None]:
    """Remove some old messages; return how many, and the mark to go on from, None at the end."""
    marks = inbox.settled_before(database, state, database.now() - keep_done_s, after, EXPIRE_LIMIT)
    old = [mark for mark in marks if not outbox.any_unsent_of(database, mark.session, mark.seq)]
    for mark in old:
        inbox.remove(database, mark.session, mark.seq)
        outbox.remove(database, mark.session, mark.seq)
    return len(old), marks[-1] if len(marks) == EXPIRE_LIMIT else None
