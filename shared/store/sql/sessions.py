"""The sessions of the port: conversations, and who may talk."""

from __future__ import annotations

from shared.messages import Context, Conversation
from shared.store.sql.tables import (
    checkpoints,
    history,
    inbox,
    journal,
    outbox,
    pairings,
    sessions,
    spending,
    summaries,
)
from shared.store.sqlite.database import Database, Row
from shared.store.sqlite.writer import Writer
from shared.traces import SessionSummary

#: the todo list of a session that had one and has none any more
NO_ITEMS = b"[]"


class SqliteSessions:
    """The Sessions of the embedded engine."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def latest(self, limit: int = 200) -> list[SessionSummary]:
        """Return sessions, latest first."""
        return await self._writer.run(_latest, limit)

    async def summary(self, key: str) -> SessionSummary:
        """Return one session's row. Raises NotFound."""
        return await self._writer.run(_summary, key)

    async def conversation(self, key: str, last: int | None = None) -> Conversation:
        """Return a session's history, at most its ``last`` messages, and its todo list; empty for a new session."""
        return await self._writer.run(_conversation, key, last)

    async def context(self, key: str, last: int, limit_bytes: int, least: int = 1) -> Context:
        """Return what a turn has to know of a session: the latest summary, and the newest messages behind it."""
        return await self._writer.run(_context, key, last, limit_bytes, least)

    async def earlier(self, key: str) -> tuple[bytes, ...]:
        """Return what was said in a session before its present conversation, oldest first."""
        return await self._writer.run(_earlier, key)

    async def rewrite(self, key: str, conversation: Conversation) -> int:
        """Replace the history and todo of a session that is not claimed. Raises NotFound, StaleClaim."""
        return await self._writer.run(_rewrite, key, conversation)

    async def delete(self, key: str) -> None:
        """Remove a session with all its rows but its dedupe keys, which end by themselves. Raises NotFound.

        The keys stay so that a platform's redelivery of a deleted message does not start a second turn.
        """
        await self._writer.run(_delete, key)

    async def pair(self, sender: str, code: str) -> str:
        """Remember a stranger with a pairing code (the first one stands) and return the code that holds."""
        return await self._writer.run(pairings.add, sender, code)

    async def approve(self, code: str) -> str:
        """Let the sender of this pairing code in and return who it is. Raises NotFound."""
        return await self._writer.run(pairings.approve, code)

    async def approved(self, sender: str) -> bool:
        """Tell whether a pairing let this sender in."""
        return await self._writer.run(pairings.approved, sender)

    async def strangers(self) -> list[tuple[str, str]]:
        """Return (sender, code) of every pairing that waits."""
        return await self._writer.run(pairings.waiting)


def _latest(database: Database, limit: int) -> list[SessionSummary]:
    return [_summarise(database, row) for row in sessions.latest(database, limit)]


def _summary(database: Database, key: str) -> SessionSummary:
    return _summarise(database, sessions.summary(database, key))


def _summarise(database: Database, row: Row) -> SessionSummary:
    key, platform, version, updated_at, claimed = row
    waiting = inbox.count_waiting_of(database, key)
    return SessionSummary(key, platform, version, updated_at, running=bool(claimed), waiting=waiting)


def _conversation(database: Database, key: str, last: int | None) -> Conversation:
    begin, _ = sessions.began(database, key)
    messages = history.read(database, key, begin, last)
    return Conversation(sessions.version(database, key), messages, history.read_todo(database, key))


def _context(database: Database, key: str, last: int, limit_bytes: int, least: int) -> Context:
    begin, _ = sessions.began(database, key)
    summary = summaries.read(database, key, begin)
    first, messages = history.read_end(database, key, summary.covers if summary else begin, last, limit_bytes, least)
    return Context(sessions.version(database, key), first, messages, history.read_todo(database, key), summary)


def _earlier(database: Database, key: str) -> tuple[bytes, ...]:
    begin, _ = sessions.began(database, key)
    return history.read_before(database, key, begin)


def _rewrite(database: Database, key: str, conversation: Conversation) -> int:
    version = sessions.move_on(database, key, conversation.version)
    had_list = history.read_todo(database, key) is not None
    begin, _ = sessions.began(database, key)
    summaries.remove(database, key)
    history.cut_from(database, key, begin)
    history.remove_todo(database, key)
    history.append(database, key, conversation.messages)
    if not conversation.messages:
        spending.begin_anew(database, key)
    if had_list or conversation.todo is not None:
        history.write_todo(database, key, conversation.todo or NO_ITEMS)
    return version


def _delete(database: Database, key: str) -> None:
    sessions.remove(database, key)
    spending.remove_all(database, key)
    inbox.remove_all(database, key)
    summaries.remove(database, key)
    history.remove(database, key)
    checkpoints.remove(database, key)
    journal.remove(database, key)
    outbox.remove_all(database, key)
