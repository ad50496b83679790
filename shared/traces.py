"""What is shown of sessions and messages: rows of lists, and every stage of one message."""

from __future__ import annotations

import msgspec

from shared.messages import DeadKind, MessageState, ReplyState
from shared.usage import Usage


class SessionSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """One row of the session list; ``running`` while claimed, ``waiting`` counts its waiting messages."""

    key: str
    platform: str
    version: int
    updated_at: float
    running: bool
    waiting: int
    #: the name of the channel, or of the person who talks with the bot alone; empty where the platform tells none
    title: str = ""


class LoggedMessage(msgspec.Struct, frozen=True):
    """One message of a transcript, with what a session log says of it."""

    message: bytes
    message_id: str  #: of the message whose turn wrote it; empty where that is not known any more
    at: float  #: when that turn ended, in unix seconds; 0 where that is not known, or it runs


class Exchange(msgspec.Struct, frozen=True):
    """A message and what its turn said, in its place in the transcript (messages as JSON)."""

    before: tuple[bytes, ...]  #: what was said before it in its conversation
    own: tuple[bytes, ...]  #: its words and what its turn added, oldest first; the words alone while that is not over


class SessionQuery(msgspec.Struct, frozen=True):
    """Which sessions are asked for; an empty word asks for any."""

    words: str = ""  #: what the key or the title holds, in letters of any case
    platform: str = ""  #: the platform it is held on
    state: str = ""  #: ``running``, or ``waiting``
    after: tuple[float, str] | None = None  #: ``updated_at`` and key of the last one of the page before
    limit: int = 200  #: sessions of one page


class SessionPage(msgspec.Struct, frozen=True):
    """One page of the session list, latest first."""

    sessions: tuple[SessionSummary, ...]
    after: tuple[float, str] | None  #: where the next page begins; None at the end


class Backlog(msgspec.Struct, frozen=True):
    """What is not done yet, of all sessions."""

    waiting: int  #: messages that wait or are in their turn
    oldest_s: float  #: seconds since the oldest of them was accepted that no turn has begun for; 0 if none waits
    undelivered: int  #: replies that are on their way
    dead: int  #: dead letters
    oldest_undelivered_s: float = 0.0  #: seconds since the oldest message with such a reply came in; 0 if there is none
    dead_by_kind: dict[str, int] = {}  #: the same dead letters, by their kind


class UnansweredMessage(msgspec.Struct, frozen=True):
    """A message that waits for its turn, or is in it."""

    id: str
    user: str
    text: str
    accepted_at: float  #: unix seconds
    claimed_at: float | None  #: unix seconds; None while it waits


class ReplyTrace(msgspec.Struct, frozen=True):
    """One reply chunk's way out; times are unix seconds, None until it happened."""

    part: int
    state: ReplyState
    attempts: int
    sent_id: str | None
    sent_at: float | None
    error: str


class CallTrace(msgspec.Struct, frozen=True):
    """One tool call of the step that a turn is in; times are unix seconds, ``ended_at`` None while it runs."""

    step: int
    call_id: str
    name: str
    started_at: float
    ended_at: float | None


class MessageTrace(msgspec.Struct, frozen=True):
    """Where one message is: every stage with its time in unix seconds, None until it happened.

    ``usage`` is what its turn has spent so far; ``steps`` counts its finished steps while it has not ended, ``calls``
    are the tool calls of the one it is in. ``joined`` is the id of the message whose turn it joined and whose reply
    answers it, empty if it has its own.
    """

    id: str
    session: str
    platform: str
    user: str
    state: MessageState
    attempts: int
    suspect: bool
    worker: str
    error: str
    accepted_at: float
    claimed_at: float | None
    settled_at: float | None
    running: bool
    usage: Usage
    replies: tuple[ReplyTrace, ...]
    steps: int = 0
    calls: tuple[CallTrace, ...] = ()
    joined: str = ""
    #: what a running tool told last of how far it is
    said: str = ""
    #: what its sender wrote, its first characters
    text: str = ""
    #: of a dead letter: every thread's stack when its last worker was killed
    stacks: str = ""


#: what the audit trail calls two acts that the API and a command without a gateway leave there alike
LETTER_RETRIED, LETTER_PURGED = "dead_letter_retried", "dead_letter_purged"


class AuditEntry(msgspec.Struct, frozen=True):
    """One thing that an operator did, or that was refused to somebody."""

    #: unix seconds
    at: float
    action: str
    #: the name of the key that was shown, empty for none
    actor: str
    #: what it was done to
    target: str
    #: the address that the request came from; of a command without a gateway, whose it was
    origin: str


#: where a dead letter stands among all: when it died, its session, its number there, its message's id
DeadMark = tuple[float, str, int, str]


class DeadLetter(msgspec.Struct, frozen=True):
    """What was given up and is kept: a message, or a reply that its platform refuses."""

    #: the message's id, also of a reply to it
    id: str
    session: str
    platform: str
    #: the sender's id on the platform
    user: str
    #: what the sender wrote, or what of the reply was not sent
    text: str
    attempts: int
    error: str
    #: the stacks of the last kill, empty where there was none
    stacks: str
    #: unix seconds
    accepted_at: float
    #: unix seconds
    dead_at: float
    kind: DeadKind = DeadKind.MESSAGE


class DeadPage(msgspec.Struct, frozen=True):
    """One page of the dead letters of every kind, newest first."""

    letters: tuple[DeadLetter, ...]
    #: the place of each
    marks: tuple[DeadMark, ...]
    #: where the next page begins; None at the end
    after: DeadMark | None
