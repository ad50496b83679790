"""The sessions of the port: conversations, and who may talk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping

from shared.approvals import Question
from shared.messages import Context, Conversation, is_stateless, stateless_key
from shared.store.engine import Database, Engine, Row
from shared.store.sql import exchanges
from shared.store.sql.tables import (
    aliases,
    approvals,
    attachments,
    checkpoints,
    dedupe,
    history,
    inbox,
    journal,
    outbox,
    pairings,
    removals,
    session_list,
    sessions,
    spending,
    summaries,
)
from shared.traces import Exchange, LoggedMessage, SessionPage, SessionQuery, SessionSummary

#: sessions looked at in one transaction at most
LOOK_LIMIT = 10_000
#: messages of a log read in one transaction at most
LOG_LIMIT = 500
#: where the list begins: behind a time that never comes
FIRST = (1e12, "")

#: a host that is paused for so long may still hold the connections of its calls, in seconds
PAUSE_S = 60.0

#: how long a pairing code holds where nothing else is said, in seconds
PAIRING_TTL_S = 86_400.0


class Sessions:
    """What survives of a conversation, and who may talk."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._run = engine.run

    async def latest(self, limit: int = 200) -> list[SessionSummary]:
        """Return sessions, latest first."""
        return await self._run("", _latest, limit)

    async def page(self, query: SessionQuery) -> SessionPage:
        """Return a page of the sessions asked for, latest first; those of stateless calls are left out.

        Where few fit the whole list is looked through, some thousand rows a transaction.
        """
        found: list[SessionSummary] = []
        after: tuple[float, str] | None = query.after or FIRST
        while after is not None and len(found) < query.limit:
            rows, after = await self._run("", _look_on, query, after, query.limit - len(found))
            found += rows
        return SessionPage(tuple(found), after)

    async def summary(self, key: str) -> SessionSummary:
        """Return one session's row. Raises NotFound."""
        return await self._run(key, _summary, key)

    async def conversation(self, key: str, last: int | None = None) -> Conversation:
        """Return a session's present conversation, at most its ``last`` messages, and its todo list.

        Both are empty for a session that does not exist.
        """
        return await self._run(key, _conversation, key, last)

    async def times(self, key: str, last: int) -> tuple[float, ...]:
        """Return when the ``last`` messages of a conversation were kept, unix seconds; 0 for those nobody knows of."""
        return await self._run(key, _times, key, last)

    async def unsettled_todo(self, key: str) -> bytes | None:
        """Return the todo list (JSON array) as a turn that is not settled has left it, None if none has changed it."""
        return await self._run(key, _unsettled_todo, key)

    async def earlier(self, key: str) -> tuple[bytes, ...]:
        """Return what was said in a session before its present conversation, oldest first."""
        return await self._run(key, _earlier, key)

    async def logged(self, key: str) -> AsyncIterator[LoggedMessage]:
        """Yield all that was said in a session, a part of it a transaction, and then what its running turn has done."""
        begin: int | None = 0
        while begin is not None:
            found, begin = await self._run(key, _logged, key, begin)
            for one in found:
                yield one
        for one in await self._run(key, _logged_so_far, key):
            yield one

    async def exchange(self, key: str, message_id: str, limit: int) -> Exchange:
        """Return a message and what its turn said, behind what was said before, ``limit`` messages at most.

        Raises NotFound.
        """
        return await self._run(key, exchanges.read, message_id, limit)

    async def remove_exchange(self, key: str, message_id: str) -> bool:
        """Remove a message with what its turn said and changed; False where it is not the last one, or not over.

        A session that holds nothing else is removed with it. Raises NotFound.
        """
        if not await self._run(key, exchanges.remove, message_id):
            return False
        if await self._run(key, inbox.is_unused, key):
            await self.delete(key)
        else:
            await self._engine.scrub()
        return True

    async def context(self, key: str, last: int, limit_bytes: int, least: int = 1) -> Context:
        """Return what a turn has to know: the latest summary, and what is behind it, at most ``last`` messages.

        Of those the newest that fit into ``limit_bytes``, and ``least`` of them whatever their size. A summary goes
        with the messages it was made of, whoever removes them; the one before it holds again.
        """
        return await self._run(key, _context, key, last, limit_bytes, least)

    async def attachment(self, key: str, digest: str) -> bytes:
        """Return the bytes of an attachment of a session's messages. Raises NotFound."""
        return await self._run(key, attachments.read, key, digest)

    async def take_attachment(self, key: str, digest: str) -> bytes:
        """Return bytes that were kept for one reader, and keep them no longer. Raises NotFound."""
        return await self._run(key, attachments.take, key, digest)

    async def keep_attachments(self, key: str, data: Mapping[str, bytes]) -> None:
        """Keep bytes by their digests, for messages that will refer to them."""
        await self._run(key, attachments.add, key, data)

    async def titles(self, keys: Collection[str]) -> dict[str, str]:
        """Return what people call these sessions, those that have such a name."""
        return await self._run("", _titles, tuple(set(keys)))

    async def rename(self, key: str, title: str) -> None:
        """Call a session by what people call it; nothing happens to one that does not exist."""
        await self._run(key, sessions.rename, key, title)

    async def delete(self, key: str) -> None:
        """Remove a session with all its rows but its dedupe keys, which end by themselves. Raises NotFound.

        A running turn of it becomes stale. The keys stay so that a platform's redelivery of a deleted message does not
        start a second turn. A long transcript goes in several transactions, its end first; what a kill leaves of it
        goes with the next call. The words are gone from the files too, but those of a stateless call only in time.
        """
        while await self._run(key, _remove_some, key, told=self._told(key)):
            continue
        if not is_stateless(key):
            await self._engine.scrub()

    async def abandoned(self, limit: int) -> list[str]:
        """Return sessions of stateless calls whose accepting host has died, for longer than a pause of it may take."""
        return await self._run("", _abandoned, limit)

    async def unused(self, prefix: str, keep_s: float, limit: int) -> list[str]:
        """Return sessions whose keys begin like this and that were last used longer ago than this."""
        return await self._run("", _unused, prefix, keep_s, limit)

    async def remove_out_of_use(self, keep_s: float, limit: int) -> list[str]:
        """Remove some sessions that were last used longer ago than this, oldest first; return their keys.

        Those that have a dead letter or a reply to be sent stay, and so does one that is used again meanwhile.
        """
        keys = await self._run("", _out_of_use, keep_s, limit)
        for key in keys:
            while await self._run(key, _remove_some_out_of_use, key, keep_s, told=self._told(key)):
                continue
        if keys:
            await self._engine.scrub()
        return keys

    def _told(self, key: str) -> bool:
        """Tell whether other hosts may keep something of a session, so that they have to learn of its removal."""
        return self._engine.shared and not is_stateless(key)

    async def resolve(self, key: str) -> str:
        """Return the key of the session that a key means: another one where its chat had another name before."""
        return await self._run("", aliases.find, key)

    async def move(self, old: str, new: str, readdress: Callable[[bytes], bytes]) -> None:
        """Let a chat go on under another name, each the first three parts of a session's key.

        What waits and what is on its way to it is given the address that ``readdress``, a pure function, makes of its
        own. Nothing for a chat whose new name is known.
        """
        await self._run("", _move, aliases.split(old)[0], aliases.split(new)[0], readdress)

    async def pair(self, sender: str, code: str, ttl_s: float = PAIRING_TTL_S, held: bytes = b"") -> str:
        """Remember a stranger with a pairing code and the message it holds up; return the code that holds.

        The first one stands for ``ttl_s`` seconds. Of a platform only so many strangers wait at once; one more is not
        remembered, and the code is empty.
        """
        return await self._run("", pairings.add, sender, code, ttl_s, held)

    async def question(self, session: str) -> Question | None:
        """Return what a session's sender is asked about tool calls now."""
        waiting = await self._run(session, approvals.waiting, session)
        return waiting[1] if waiting else None

    async def approve(self, code: str) -> str:
        """Let the sender of this pairing code in and return who it is. Raises NotFound."""
        return await self._run("", pairings.approve, code)

    async def approved(self, sender: str) -> bool:
        """Tell whether a pairing let this sender in."""
        return await self._run("", pairings.approved, sender)

    async def release(self, sender: str) -> bytes:
        """Return the message that a pairing held up, once; empty where there is none."""
        return await self._run("", pairings.release, sender)

    async def revoke(self, sender: str) -> None:
        """Let a sender in no longer. Raises NotFound."""
        await self._run("", pairings.revoke, sender)

    async def let_in(self) -> list[str]:
        """Return every sender whom a pairing let in."""
        return await self._run("", pairings.let_in)

    async def strangers(self) -> list[tuple[str, str]]:
        """Return (sender, code) of every pairing that waits."""
        return await self._run("", pairings.waiting)


def _latest(database: Database, limit: int) -> list[SessionSummary]:
    return [_summarise(database, row) for row in session_list.between(database, FIRST, None, SessionQuery(), limit)]


def _look_on(
    database: Database, query: SessionQuery, after: tuple[float, str], limit: int
) -> tuple[list[SessionSummary], tuple[float, str] | None]:
    """Look at some sessions behind one; return those that are asked for, and where to go on."""
    last = session_list.edge(database, after, LOOK_LIMIT)
    rows_limit = limit if query.words.isascii() else LOOK_LIMIT
    rows = session_list.between(database, after, last, query, rows_limit)
    words = query.words.casefold()
    found: list[SessionSummary] = []
    for row in rows:
        if (words in row[0].casefold() or words in row[5].casefold()) and not is_stateless(row[0]):
            found.append(_summarise(database, row))
            if len(found) == limit:
                return found, (row[3], row[0])
    return found, (rows[-1][3], rows[-1][0]) if len(rows) == rows_limit else last


def _abandoned(database: Database, limit: int) -> list[str]:
    return sessions.abandoned(database, stateless_key(""), database.now() - PAUSE_S, limit)


def _unused(database: Database, prefix: str, keep_s: float, limit: int) -> list[str]:
    return sessions.unused(database, prefix, database.now() - keep_s, limit)


def _out_of_use(database: Database, keep_s: float, limit: int) -> list[str]:
    return sessions.out_of_use(database, database.now() - keep_s, limit)


def _remove_some(database: Database, key: str, *, told: bool) -> bool:
    """Remove a part of a session that is large, a transcript's end first; where little is left, all of it.

    Tells whether there is more to remove. Raises NotFound.
    """
    if any(some(database, key) for some in (history.cut_some, attachments.remove_some, inbox.remove_some)):
        return True
    _delete(database, key, told=told)
    return False


def _remove_some_out_of_use(database: Database, key: str, keep_s: float, *, told: bool) -> bool:
    rests = sessions.still_out_of_use(database, key, database.now() - keep_s)
    return rests and _remove_some(database, key, told=told)


def _summary(database: Database, key: str) -> SessionSummary:
    return _summarise(database, sessions.summary(database, key))


def _summarise(database: Database, row: Row) -> SessionSummary:
    key, platform, version, updated_at, claimed, title = row
    waiting = inbox.count_waiting_of(database, key)
    return SessionSummary(key, platform, version, updated_at, running=bool(claimed), waiting=waiting, title=title)


def _conversation(database: Database, key: str, last: int | None) -> Conversation:
    begin, _ = sessions.began(database, key)
    messages = history.read(database, key, begin, last)
    return Conversation(sessions.version(database, key), messages, history.read_todo(database, key))


def _logged(database: Database, key: str, begin: int) -> tuple[list[LoggedMessage], int | None]:
    rows = history.read_with_turns(database, key, begin, LOG_LIMIT)
    return [logged for _, logged in rows], rows[-1][0] + 1 if len(rows) == LOG_LIMIT else None


def _logged_so_far(database: Database, key: str) -> list[LoggedMessage]:
    seq = sessions.claimed_for(database, key)
    if seq is None:
        return []
    message_id = inbox.id_of(database, key, seq)
    steps = checkpoints.read(database, key)
    return [LoggedMessage(message, message_id, 0.0) for step in steps for message in step.messages]


def _context(database: Database, key: str, last: int, limit_bytes: int, least: int) -> Context:
    begin, _ = sessions.began(database, key)
    summary = summaries.read(database, key, begin)
    first, messages = history.read_end(database, key, summary.covers if summary else begin, last, limit_bytes, least)
    return Context(sessions.version(database, key), first, messages, history.read_todo(database, key), summary)


def _times(database: Database, key: str, last: int) -> tuple[float, ...]:
    begin, _ = sessions.began(database, key)
    return history.read_times(database, key, begin, last)


def _titles(database: Database, keys: tuple[str, ...]) -> dict[str, str]:
    found = database.each(lambda key: sessions.title(database, key), keys)
    return {key: title for key, title in zip(keys, found, strict=True) if title}


def _unsettled_todo(database: Database, key: str) -> bytes | None:
    open_step = journal.read(database, key)
    if open_step is not None and open_step.todo is not None:
        return open_step.todo
    return next((step.todo for step in reversed(checkpoints.read(database, key)) if step.todo is not None), None)


def _earlier(database: Database, key: str) -> tuple[bytes, ...]:
    begin, _ = sessions.began(database, key)
    return history.read_before(database, key, begin)


def _move(database: Database, old: str, new: str, readdress: Callable[[bytes], bytes]) -> None:
    chat = aliases.find(database, old)
    if aliases.find(database, new) != new or chat == new:
        return
    waiting = [row for span in aliases.spans(chat) for row in inbox.addresses(database, span)]
    unsent = [row for span in aliases.spans(chat) for row in outbox.addresses(database, span)]
    known = [row for span in aliases.spans(new) for row in dedupe.known(database, span)]
    aliases.add(database, new, chat)
    inbox.readdress_each(database, [(readdress(bytes(address)), *row) for address, *row in waiting])
    outbox.readdress_each(database, [(readdress(bytes(address)), *row) for address, *row in unsent])
    # a redelivery of what was said under the new name before it was known as one is a duplicate still
    dedupe.copy(database, [(chat + session.removeprefix(new), *row) for session, *row in known])


def _delete(database: Database, key: str, *, told: bool) -> None:
    sessions.remove(database, key)
    if told:
        removals.add(database, key)
    spending.remove_all(database, key)
    inbox.remove_all(database, key)
    summaries.remove(database, key)
    attachments.remove(database, key)
    history.remove(database, key)
    checkpoints.remove(database, key)
    journal.remove(database, key)
    approvals.remove(database, key)
    outbox.remove_all(database, key)
