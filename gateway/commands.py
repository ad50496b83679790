"""Chat commands: messages that the gateway answers itself, without a model call.

    /help /status /trace /todo     questions: answered at once, from what the store and the pool know
    /new /stop /undo /retry        orders: accepted like a message, carried out by the store in the session's order

A question's answer goes through the outbox under the event's own dedupe keys, so a redelivery is answered once; an
order is deduplicated like any message. A text that is not exactly a command of the table goes to the agent.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from gateway.announcements import Announcements
from gateway.platforms.port import Adapter, Inbound
from gateway.running_turns import PoolView, RunningTurns
from gateway.todo_text import todo_text
from gateway.trace_text import trace_lines, trace_message
from shared.approvals import ID_CHARS
from shared.command import Command, CommandKind
from shared.errors import NotFound
from shared.profiles import Profiles
from shared.store.port import Store

#: a text longer than this is no command, characters
MOST_CHARACTERS = 200

#: what chat platforms send when somebody opens a conversation with a bot; it is answered like /help
GREETING = "/start"

STOPPED = "Stopped."
NOTHING_ASKED = "Nothing waits for your approval here."
NOT_ASKED = "This question is answered already, or its time is over."
TAKEN_BACK = "This message was taken back before I began with it."

ORDERS = {
    "/new": Command(
        CommandKind.NEW,
        done="A new conversation begins. The old one is kept, and the todo list stays as it is.",
        nothing="This conversation is new already.",
        stopped=STOPPED,
        withdrawn=TAKEN_BACK,
    ),
    "/stop": Command(
        CommandKind.STOP, done="I stop what I was doing.", nothing="Nothing is running here.", stopped=STOPPED
    ),
    "/retry": Command(
        CommandKind.RETRY,
        done="",
        nothing="There is no message here that I could run again.",
        waits="Your last message has not begun yet; it still waits.",
        stopped=STOPPED,
    ),
    "/undo": Command(
        CommandKind.UNDO,
        done="Your last message and what came of it are taken back.",
        nothing="There is nothing to take back.",
        stopped=STOPPED,
        withdrawn=TAKEN_BACK,
    ),
    "/approve": Command(CommandKind.APPROVE, done="Approved. I go on.", nothing=NOTHING_ASKED),
    "/deny": Command(CommandKind.DENY, done="Refused. I go on without it.", nothing=NOTHING_ASKED),
}

#: what decides about a question; behind it may stand which one, as the buttons under it do
DECISIONS = frozenset({"/approve", "/deny"})
QUESTION = re.compile(rf"[0-9a-f]{{{ID_CHARS}}}")

Words = Sequence[str]


class Asker(msgspec.Struct, frozen=True):
    """Who asks a question, and where."""

    session: str
    user: str = ""


class Question(msgspec.Struct, frozen=True):
    """One question: what it tells in words, how many words may follow it, and what answers it."""

    what: str
    most_words: int
    answer: Callable[[Asker, Words], Awaitable[str]]


class Inquiry(msgspec.Struct, frozen=True):
    """A question that somebody asked, with the words that followed it."""

    question: Question
    words: Words


class Commands:
    """The table of chat commands."""

    def __init__(
        self,
        store: Store,
        pool: PoolView,
        announcements: Announcements,
        profiles: Profiles = Profiles(),  # noqa: B008 - frozen
    ) -> None:
        self._store = store
        self._profiles = profiles
        self._announcements = announcements
        self._pool = pool
        self._turns = RunningTurns(store, pool)
        self._questions = {
            "/todo": Question("show the todo list, also while I work", 0, self._todo),
            "/status": Question("what this conversation is doing", 0, self._status),
            "/trace": Question("where your last message is, or the one with this id", 1, self._trace),
            "/help": Question("what I can do", 0, self._help),
            GREETING: Question("", 1, self._help),
        }
        self._orders = {
            "/new": "begin a new conversation; the todo list stays",
            "/stop": "end what I am doing now",
            "/retry": "run your last message again",
            "/undo": "take back your last message, my answer and its change of the todo list",
            "/approve": "let me do what I asked about",
            "/deny": "refuse it",
        }

    def find(self, text: str) -> Inquiry | Command | None:
        """Return the command that a text is: a question, or an order for the store; None if it is none."""
        words = text.split() if len(text) <= MOST_CHARACTERS else []
        name = words[0].lower() if words else ""
        if name in ORDERS and len(words) == 1:
            return ORDERS[name]
        if name in DECISIONS and len(words) == 2 and QUESTION.fullmatch(words[1]):
            return msgspec.structs.replace(ORDERS[name], question=words[1], nothing=NOT_ASKED)
        question = self._questions.get(name)
        return Inquiry(question, words[1:]) if question and len(words) - 1 <= question.most_words else None

    async def tell(self, asker: Asker, asked: Inquiry) -> str:
        """Return the answer to a question. Raises StoreUnavailable."""
        return await asked.question.answer(asker, asked.words)

    async def answer(self, platform: Adapter, inbound: Inbound, asked: Inquiry) -> None:
        """Put the answer to a question on its way, once. Raises StoreUnavailable."""
        text = await self.tell(Asker(inbound.session, inbound.user), asked)
        await self._announcements.announce(platform, inbound, text, inbound.dedupe, platform.capabilities.dedupe_ttl_s)

    async def _help(self, _asker: Asker, _words: Words) -> str:
        known = self._orders | {name: question.what for name, question in self._questions.items() if question.what}
        return "\n".join(f"{name}: {what}" for name, what in known.items())

    async def _todo(self, asker: Asker, _words: Words) -> str:
        return todo_text(await self._turns.todo(asker.session))

    async def _status(self, asker: Asker, _words: Words) -> str:
        session, profile = asker.session, self._profiles.name_of(asker.session, asker.user)
        known = f" Profile: {profile}." if profile else ""
        try:
            summary = await self._store.sessions.summary(session)
        except NotFound:
            return "Nothing has been said here yet." + known
        row = await self._turns.row(session)
        if row is None:
            doing = "waiting for a worker" if summary.waiting else "idle"
        else:
            doing = f"working, step {row.step}" + (f", tool {row.tool}" if row.tool else "")
        match max(0, summary.waiting - 1):
            case 0:
                return f"Status: {doing}.{known}"
            case 1:
                return f"Status: {doing}; 1 more message waits.{known}"
            case behind:
                return f"Status: {doing}; {behind} more messages wait.{known}"

    async def _trace(self, asker: Asker, words: Words) -> str:
        session = asker.session
        try:
            message_id = words[0] if words else await self._store.inbox.latest(session)
            found = await trace_message(self._store, self._pool.running_turn, message_id)
        except NotFound:
            found = None
        if found is None or found.session != session:
            return f"There is no message {words[0]} here." if words else "There is no earlier message here."
        return "\n".join(trace_lines(found, brief=True))
