"""Chat commands: messages that the gateway answers itself, at once and without a turn.

The answer goes through the outbox under the event's own dedupe keys, so a redelivery is answered once. A text that is
not exactly a command of the table goes to the agent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from gateway.platforms.port import Adapter, Inbound
from gateway.tracing import RunningTurn, trace_lines, trace_message
from shared.errors import NotFound
from shared.ids import new_message_id
from shared.messages import Reply, ReplyStatus
from shared.store.port import Store

#: a text longer than this is no command, characters
MOST_CHARACTERS = 200

Words = Sequence[str]


class Command(msgspec.Struct, frozen=True):
    """One command: what it does in words, how many words may follow it, and what answers it."""

    what: str
    most_words: int
    answer: Callable[[str, Words], Awaitable[str]]


class Commands:
    """The table of chat commands."""

    def __init__(self, store: Store, running_turn: RunningTurn) -> None:
        self._store = store
        self._running_turn = running_turn
        self._table = {
            "/help": Command("what I can do", 0, self._help),
            "/status": Command("what this conversation is doing", 0, self._status),
            "/trace": Command("where your last message is, or the one with this id", 1, self._trace),
        }

    def find(self, text: str) -> tuple[Command, Words] | None:
        """Return the command that a text is, with the words that follow it; None if it is none."""
        words = text.split() if len(text) <= MOST_CHARACTERS else []
        command = self._table.get(words[0].lower()) if words else None
        if command is None or len(words) - 1 > command.most_words:
            return None
        return command, words[1:]

    async def answer(self, platform: Adapter, inbound: Inbound) -> bool:
        """Put the answer to a command on its way, once; False if the message is none. Raises StoreUnavailable."""
        found = self.find(inbound.text)
        if found is None:
            return False
        command, words = found
        reply = Reply(
            session=inbound.session,
            message_id=new_message_id(),
            part=0,
            platform=platform.name,
            text=await command.answer(inbound.session, words),
            address=inbound.reply,
            status=ReplyStatus.REPLIED,
        )
        await self._store.inbox.announce(reply, inbound.dedupe, platform.dedupe_ttl_s)
        return True

    async def _help(self, _session: str, _words: Words) -> str:
        return "\n".join(f"{name}: {command.what}" for name, command in self._table.items())

    async def _status(self, session: str, _words: Words) -> str:
        try:
            summary = await self._store.sessions.summary(session)
        except NotFound:
            return "Nothing has been said here yet."
        row = self._running_turn(session)
        if row is None:
            doing = "waiting for a worker" if summary.waiting else "idle"
        else:
            doing = f"working, step {row.step}" + (f", tool {row.tool}" if row.tool else "")
        behind = max(0, summary.waiting - 1)
        return f"Status: {doing}; {behind} more messages wait." if behind else f"Status: {doing}."

    async def _trace(self, session: str, words: Words) -> str:
        try:
            message_id = words[0] if words else await self._store.inbox.latest(session)
            found = await trace_message(self._store, self._running_turn, message_id)
        except NotFound:
            found = None
        if found is None or found.session != session:
            return f"There is no message {words[0]} here." if words else "There is no earlier message here."
        return "\n".join(trace_lines(found))
