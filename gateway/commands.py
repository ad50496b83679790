"""Chat commands: messages that the gateway answers itself, without a model call.

    /help /status /trace /todo     queries: answered at once, from what the store and the pool know
    /new /stop /undo /retry        orders: accepted like a message, carried out by the store in the session's order

A query's answer goes through the outbox under the event's own dedupe keys, so a redelivery is answered once; an
order is deduplicated like any message. A text that is not exactly a command of the table goes to the agent.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from gateway.announcements import Announcements
from gateway.platforms.port import Adapter, Inbound
from gateway.running_turns import RunningTurns, TurnsView
from gateway.todo_text import todo_text
from gateway.trace_text import trace_lines, trace_message
from shared.approvals import ID_CHARS
from shared.command import CHAT_COMMANDS, ORDERS, Command, CommandKind
from shared.errors import NotFound
from shared.profiles import Profiles
from shared.store.port import Store
from shared.texts import Texts

#: a text longer than this is no command, characters
MOST_CHARACTERS = 200

#: what chat platforms send when somebody opens a conversation with a bot; it is answered like /help
GREETING = "/start"

#: what decides about a question; behind it may stand which one, as the buttons under it do
DECISIONS = frozenset({f"/{CommandKind.APPROVE}", f"/{CommandKind.DENY}"})
QUESTION = re.compile(rf"[0-9a-f]{{{ID_CHARS}}}")

Words = Sequence[str]


class Asker(msgspec.Struct, frozen=True):
    """Who sends a query, and where."""

    session: str
    user: str = ""


class Query(msgspec.Struct, frozen=True):
    """A command that asks: how many words may follow it, and what answers it."""

    most_words: int
    answer: Callable[[Asker, Words], Awaitable[str]]


class AskedQuery(msgspec.Struct, frozen=True):
    """A query that somebody sent, with the words that followed it."""

    query: Query
    words: Words


class Commands:
    """The table of chat commands."""

    def __init__(
        self,
        store: Store,
        pool: TurnsView,
        announcements: Announcements,
        profiles: Profiles = Profiles(),  # noqa: B008 - frozen
    ) -> None:
        self._store = store
        self._profiles = profiles
        self._announcements = announcements
        self._pool = pool
        self._turns = RunningTurns(store, pool)
        self._queries = {
            "/todo": Query(0, self._todo),
            "/status": Query(0, self._status),
            "/trace": Query(1, self._trace),
            "/help": Query(0, self._help),
            GREETING: Query(1, self._help),
        }

    def find(self, text: str, asker: Asker) -> AskedQuery | Command | None:
        """Return the command that a text is: a query, or an order for the store; None if it is none."""
        if "/" not in text:  # as most messages are
            return None
        words = text.split() if len(text) <= MOST_CHARACTERS else []
        name = words[0].lower() if words else ""
        if name in ORDERS and len(words) == 1:
            return order(name, self.texts_of(asker))
        if name in DECISIONS and len(words) == 2 and QUESTION.fullmatch(words[1]):
            texts = self.texts_of(asker)
            return msgspec.structs.replace(order(name, texts), question=words[1], nothing=texts.not_asked)
        query = self._queries.get(name)
        return AskedQuery(query, words[1:]) if query and len(words) - 1 <= query.most_words else None

    def texts_of(self, asker: Asker) -> Texts:
        """Return what the product says to somebody."""
        return self._profiles.texts_of(asker.session, asker.user)

    async def tell(self, asker: Asker, asked: AskedQuery) -> str:
        """Return the answer to a query. Raises StoreUnavailable."""
        return await asked.query.answer(asker, asked.words)

    async def answer(self, platform: Adapter, inbound: Inbound, asked: AskedQuery) -> None:
        """Put the answer to a query on its way, once. Raises StoreUnavailable."""
        text = await self.tell(Asker(inbound.session, inbound.user), asked)
        await self._announcements.announce(platform, inbound, text, inbound.dedupe, platform.capabilities.dedupe_ttl_s)

    async def _help(self, asker: Asker, _words: Words) -> str:
        texts = self.texts_of(asker)
        return "\n".join(f"{name}: {texts.help_of(name)}" for name in CHAT_COMMANDS)

    async def _todo(self, asker: Asker, _words: Words) -> str:
        return todo_text(await self._turns.todo(asker.session), self.texts_of(asker))

    async def _status(self, asker: Asker, _words: Words) -> str:
        session, texts = asker.session, self.texts_of(asker)
        profile = self._profiles.name_of(asker.session, asker.user)
        known = [texts.status_profile.format(profile=profile)] if profile else []
        try:
            summary = await self._store.sessions.summary(session)
        except NotFound:
            return " ".join([texts.status_new, *known])
        row = await self._turns.row(session)
        if row is None:
            doing = texts.waits_for_worker if summary.waiting else texts.idle
        else:
            doing = (texts.uses_tool if row.tool else texts.works).format(step=row.step, tool=row.tool)
        behind = max(0, summary.waiting - 1)
        said = {0: texts.status, 1: texts.status_one_more}.get(behind, texts.status_more)
        return " ".join([said.format(doing=doing, count=behind), *known])

    async def _trace(self, asker: Asker, words: Words) -> str:
        session, texts = asker.session, self.texts_of(asker)
        try:
            message_id = words[0] if words else await self._store.inbox.latest(session)
            found = await trace_message(self._store, self._pool.running_turn, message_id)
        except NotFound:
            found = None
        if found is None or found.session != session:
            return texts.no_message.format(id=words[0]) if words else texts.no_earlier_message
        return "\n".join(trace_lines(found, texts, brief=True))


def order(name: str, texts: Texts) -> Command:
    """Return what an order does, and what is said of it."""
    match name:
        case "/new":
            return Command(CommandKind.NEW, texts.new_done, texts.new_nothing, "", texts.stopped, texts.taken_back)
        case "/stop":
            return Command(CommandKind.STOP, texts.stop_done, texts.stop_nothing, "", texts.stopped)
        case "/retry":
            return Command(CommandKind.RETRY, "", texts.retry_nothing, texts.retry_waits, texts.stopped)
        case "/undo":
            return Command(CommandKind.UNDO, texts.undo_done, texts.undo_nothing, "", texts.stopped, texts.taken_back)
        case "/approve":
            return Command(CommandKind.APPROVE, texts.approve_done, texts.nothing_asked)
        case _:
            return Command(CommandKind.DENY, texts.deny_done, texts.nothing_asked)
