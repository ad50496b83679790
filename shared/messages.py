"""The structs that cross every boundary: what came in, what is claimed, how a turn ended, what goes out.

An arrival becomes an inbox row; a claim leases a session's next messages to a host; a turn's outcome
settles the claim; settling writes replies, which the delivery sends. Transcript messages are opaque
JSON bytes everywhere but in the agent: one object of the chat-completions form each.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable

import msgspec

from shared.approvals import Approval, Question
from shared.attachments import Attachment
from shared.budgets import Allowance
from shared.call_options import CallOptions, ClientCall
from shared.command import Command
from shared.texts import ENGLISH
from shared.usage import Usage as Usage
from shared.when_busy import WhenBusy


class MessageState(enum.StrEnum):
    """Where a message is."""

    WAITING = "waiting"  #: accepted, in the inbox; its session may be claimed or not
    DONE = "done"  #: settled; its reply is in the outbox or has been sent
    DEAD = "dead"  #: used up its attempts; kept until it is retried or purged
    REJECTED = "rejected"  #: its session was busy; its sender was told, and no turn ran
    WITHDRAWN = "withdrawn"  #: taken back by a chat command, before its turn began or with its answer


class TurnStatus(enum.StrEnum):
    """How a turn ended that came to an end."""

    REPLIED = "replied"  #: the agent gave its answer
    INTERRUPTED = "interrupted"  #: the sender stopped it
    TIMED_OUT = "timed_out"  #: turn timeout, or no model answered in time
    FAILED = "failed"  #: the model refused, or the turn raised
    OVER_BUDGET = "over_budget"  #: a budget is used up


class ReplyStatus(enum.StrEnum):
    """What a reply reports to its receiver."""

    REPLIED = "replied"
    FAILED = "failed"


class ReplyState(enum.StrEnum):
    """Where a reply's outbox row is."""

    PENDING = "pending"  #: to be sent, at its due time
    SENT = "sent"  #: the platform took it
    FAILED = "failed"  #: the platform refused it for good


class Arrival(msgspec.Struct, frozen=True):
    """One message to accept."""

    id: str  #: the message id
    session: str  #: the session key
    platform: str  #: the platform it came from
    user: str  #: the sender's id on that platform
    text: str  #: what the sender wrote
    reply: bytes  #: the platform's own JSON address for the answer, opaque to all but that platform
    dedupe: tuple[str, ...]  #: keys of which any that was seen makes it a duplicate
    dedupe_ttl_s: float  #: how long they are remembered
    at: float  #: unix seconds
    history: tuple[bytes, ...] = ()  #: what seeds a session that does not exist yet, as transcript messages
    traceparent: str = ""  #: the W3C trace context that it came with, empty for none
    when_busy: WhenBusy = WhenBusy.ENQUEUE  #: what it does while its session is busy
    busy_text: str = ""  #: what then tells the sender that it turns away, or the one whose turn it ends
    #: seconds without another message of its sender before its turn begins; what comes in them joins it
    quiet_s: float = 0.0
    command: Command | None = None  #: the chat command that it is: it runs no turn of its own
    #: its images, and their bytes by digest, which the store keeps apart
    attachments: tuple[Attachment, ...] = ()
    attachment_data: dict[str, bytes] = {}
    #: what a client of the API asks for beside its words
    options: CallOptions | None = None
    #: the host that holds the connection of whoever waits for the answer, empty if any host may send it
    gateway: str = ""
    title: str = ""  #: what people call its session, where the platform tells it

    @property
    def sender(self) -> str:
        """Who wrote it, as ``platform:user``."""
        return f"{self.platform}:{self.user}"


class CommandAnswer(msgspec.Struct, frozen=True):
    """A message that came to its end without a turn."""

    message_id: str  #: its id
    text: str  #: what its sender is told


class Settlement(msgspec.Struct, frozen=True):
    """What the end of a claim has brought about in its session."""

    answers: tuple[CommandAnswer, ...] = ()  #: the chat commands that waited for it and were carried out
    goes_on: bool = True  #: whether a message of the session waits for its turn now; else it rests


class Receipt(msgspec.Struct, frozen=True):
    """What became of an arrival."""

    message_id: str  #: its id, the first one's for a duplicate
    duplicate: bool  #: whether it was accepted before
    ahead: int = 0  #: how many wait before it
    state: MessageState = MessageState.WAITING  #: where it is now
    answer: str = ""  #: what its sender is told, where it does not wait any more
    stops: str = ""  #: the message whose running turn is to be ended now, empty for none
    joins: bool = False  #: whether it may join the running turn of its session
    shares_turn: bool = False  #: whether it may have no answer of its own, but that of the message before it
    withdrawn: tuple[CommandAnswer, ...] = ()  #: the messages that it took back
    resumes: str = ""  #: the message whose turn goes on by it
    claim: Claim | None = None  #: the claim of its turn, where it was claimed at once


class Pending(msgspec.Struct, frozen=True):
    """One waiting message inside a claim."""

    id: str  #: the message id
    seq: int  #: its place among its session's messages
    user: str  #: the sender's id on the platform
    text: str  #: what the sender wrote
    at: float  #: when it was accepted, unix seconds
    attempts: int = 0  #: past executions that ended by its own fault
    suspect: bool = False  #: whether it runs alone, in a worker of its own
    traceparent: str = ""  #: the W3C trace context that it came with, empty for none
    lost: int = 0  #: past executions that ended with their worker or host, and nobody proven guilty
    stop: str = ""  #: what its sender is told where its turn is to be ended at once, empty where it is not
    #: its images, whose bytes are read when a model is shown them
    attachments: tuple[Attachment, ...] = ()
    #: what a client of the API asks for beside its words
    options: CallOptions | None = None
    #: the host that holds the connection of whoever waits for the answer, empty if any host may send it
    gateway: str = ""


class JoiningWords(msgspec.Struct, frozen=True):
    """What a message says that joins another's turn."""

    id: str  #: the message id
    text: str  #: what its sender wrote
    attachments: tuple[Attachment, ...] = ()  #: its images


class Step(msgspec.Struct, frozen=True):
    """One finished step of a turn."""

    number: int  #: counts from 1
    messages: tuple[bytes, ...]  #: the transcript messages that it added
    todo: bytes | None = None  #: the todo list (JSON array) if it changed, else None
    usage: Usage = Usage()  #: what it used
    joined: tuple[str, ...] = ()  #: the ids of the messages whose words joined the turn in it


class JournaledCall(msgspec.Struct, frozen=True):
    """A tool call that was about to run."""

    call_id: str  #: the model's id of it
    name: str  #: the tool's name
    key: str  #: its idempotency key
    result: bytes | None = None  #: the transcript message that it gave; None: nobody knows how far it came


class OpenStep(msgspec.Struct, frozen=True):
    """The journal of a step that an earlier attempt left unfinished."""

    number: int  #: counts from 1
    messages: tuple[bytes, ...]  #: what opened it, the assistant's with its tool calls last
    usage: Usage = Usage()  #: what it had used
    calls: tuple[JournaledCall, ...] = ()  #: its calls that were about to run; one that is not among them did not
    todo: bytes | None = None  #: the todo list (JSON array) if a call had changed it, else None
    joined: tuple[str, ...] = ()  #: the ids of the messages whose words had joined it

    @property
    def results(self) -> tuple[bytes, ...]:
        """The transcript messages of the calls that gave one."""
        return tuple(call.result for call in self.calls if call.result is not None)


class ClaimRef(msgspec.Struct, frozen=True):
    """Names one claim."""

    session: str  #: the session key
    epoch: int  #: the fencing epoch that every write of it carries


class Summary(msgspec.Struct, frozen=True):
    """What stands for the beginning of a session's transcript when a model is shown it."""

    covers: int  #: the position of the first transcript message that it does not stand for, counted from 0
    text: str  #: what a model wrote
    todo: bytes = b"[]"  #: the todo list (JSON array) as it was then
    asked: str = ""  #: what the user had asked in a turn whose first steps it covers
    opening: tuple[bytes, ...] = ()  #: the system messages that the transcript begins with, word for word


class Claim(msgspec.Struct, frozen=True):
    """A session's pending messages, leased to one host."""

    ref: ClaimRef  #: what names it
    platform: str  #: the platform of its session
    #: the epoch of the session's last settle, 0 for a new one; it names what a worker may have cached
    version: int
    messages: tuple[Pending, ...]  #: the first one's turn it is; the others join it
    steps: tuple[Step, ...] = ()  #: the checkpoints that an earlier attempt left, oldest first
    open_step: OpenStep | None = None  #: the journal of the step that it was in the middle of
    allowance: Allowance | None = None  #: what the turn may spend, None where nothing bounds it
    approvals: tuple[Approval, ...] = ()  #: what was decided about the calls of the open step


class ClaimBatch(msgspec.Struct, frozen=True):
    """What one look for claims found."""

    #: the sessions that were leased
    claims: tuple[Claim, ...] = ()
    #: seconds until the next look can find one: 0 if now, None if none waits
    next_in_s: float | None = None


class Conversation(msgspec.Struct, frozen=True):
    """What a session holds."""

    version: int  #: the epoch of its last settle, 0 for a new one
    messages: tuple[bytes, ...]  #: transcript messages, oldest first
    todo: bytes | None = None  #: the todo list (JSON array), None if it was never set


class Context(msgspec.Struct, frozen=True):
    """What a turn has to know of its session: the end of the transcript, and a summary of what is before that."""

    version: int  #: the epoch of the session's last settle, 0 for a new one
    #: the position of the first of ``messages``, or of the next one there will be; past ``summary.covers`` where more
    #: lies between than was asked for
    first: int
    messages: tuple[bytes, ...]  #: transcript messages, oldest first
    todo: bytes | None = None  #: the todo list (JSON array), None if it was never set
    summary: Summary | None = None  #: what stands for the messages before, None for nothing


class Ended(msgspec.Struct, frozen=True, tag=True):
    """Outcome: the turn came to an end."""

    status: TurnStatus  #: how
    text: str  #: what goes to the sender
    messages: tuple[bytes, ...]  #: the transcript messages that join the history
    todo: bytes | None = None  #: the todo list (JSON array) if it changed, else None
    usage: Usage = Usage()  #: what all its attempts used
    worker: str = ""  #: who ran it
    error: str = ""  #: what went wrong, empty for nothing
    summary: Summary | None = None  #: the last one that it made of its context, None for none
    #: the ids of the messages whose words it took in; others that were to join it wait again
    joined: tuple[str, ...] = ()
    #: why the last answer of the model ended: stop, length, content_filter or tool_calls; empty where none did
    finish: str = ""
    #: the calls of the client's tools that the client is to run
    calls: tuple[ClientCall, ...] = ()


class Parked(msgspec.Struct, frozen=True, tag=True):
    """Outcome: the worker drained; checkpoints stay, no attempt is used, the session is claimable at once."""


class AwaitsApproval(msgspec.Struct, frozen=True, tag=True):
    """Outcome: the turn rests until somebody decides about tool calls; its steps stay, no attempt is used."""

    #: the calls
    calls: tuple[Approval, ...]
    #: what its sender is asked
    text: str
    #: seconds after which no answer is a refusal
    within_s: float
    #: what stands on the button that allows them, and on the one that refuses
    labels: tuple[str, str] = (ENGLISH.approve_button, ENGLISH.deny_button)


class Retry(msgspec.Struct, frozen=True, tag=True):
    """Outcome: the execution was lost, and the session is claimable again."""

    delay_s: float  #: seconds until it is
    attempts: int  #: the message's from now on
    suspect: bool  #: whether it is claimed for a worker of its own
    error: str  #: what was lost, and how
    lost: int = 0  #: the message's from now on


class DeadKind(enum.StrEnum):
    """What a dead letter is."""

    MESSAGE = "message"  #: its turn was lost as often as it may be
    MODEL = "model"  #: no model answered it in its turn's time
    REPLY = "reply"  #: its reply was refused by the platform for good


class Dead(msgspec.Struct, frozen=True, tag=True):
    """Outcome: the message was given up, and is kept as a dead letter."""

    attempts: int  #: executions that ended by its own fault
    error: str  #: what went wrong
    text: str  #: what tells the sender
    stacks: str = ""  #: those of the last kill, empty for none
    usage: Usage = Usage()  #: what all its attempts used
    worker: str = ""  #: who ran it last
    kind: DeadKind = DeadKind.MESSAGE  #: what kind of dead letter it is


Outcome = Ended | Parked | AwaitsApproval | Retry | Dead


def outcome_name(outcome: Outcome) -> str:
    """Return how pages name an outcome: what an ended turn came to, else the kind."""
    return outcome.status.value if isinstance(outcome, Ended) else type(outcome).__name__.lower()


class RepeatedRequest(msgspec.Struct, frozen=True):
    """What became of a request of the API, for one that asks again."""

    #: where its message is
    state: MessageState
    #: how it ended, None while it has not, or where nothing was kept
    outcome: Ended | Dead | None = None
    #: tells its request from another one; empty where nothing does
    fingerprint: str = ""
    #: what its sender is asked now
    question: Question | None = None


#: chunks a reply has at most; a message's next reply starts at a multiple of it, so no two ever share a part
PARTS = 1000


class Reply(msgspec.Struct, frozen=True):
    """One outbox row."""

    session: str  #: the session key
    message_id: str  #: the message that it answers
    part: int  #: its place among that message's rows
    platform: str  #: the platform that takes it
    text: str  #: as the agent wrote it, or one ready-made chunk of it
    address: bytes  #: the arrival's ``reply``
    status: ReplyStatus  #: what it reports to its receiver
    rendered: bool = False  #: whether ``text`` is a ready-made chunk
    attempts: int = 0  #: past sends
    lease: int = 0  #: what fences the send
    question: str = ""  #: the id of the question about tool calls that it ends with, empty for none
    seq: int = 0  #: the number of that message in its session, as the row has it, 0 where it answers none
    sender: str = ""  #: whose message it answers, as ``platform:user``; empty for nobody's
    file: Attachment | None = None  #: what it carries in place of ``text``, which names it then

    @property
    def idempotency_key(self) -> str:
        """The key that names this chunk on every attempt to send it."""
        return f"{self.message_id}.{self.part}"

    @property
    def leased(self) -> ReplyLease:
        """The lease of its row, while it is sent."""
        return ReplyLease(self.session, self.message_id, self.part, self.lease)

    @property
    def begins(self) -> bool:
        """Whether it is the first chunk of its text."""
        return self.part % PARTS == 0 and self.file is None


class ReplyLease(msgspec.Struct, frozen=True):
    """What names one lease of an outbox row."""

    session: str
    message_id: str
    part: int
    lease: int


#: how long a reply waits for the gateway that sends for its platform, in seconds, before any other may send it
LATE_S = 5.0


class Shares(msgspec.Struct, frozen=True):
    """How many replies of each platform may be leased in one look."""

    platforms: dict[str, int]
    #: of these platforms another gateway sends: only what it has left lying for ``LATE_S``, and the host's own
    late_only: frozenset[str] = frozenset()
    #: whether replies of platforms that are not named are leased too, a few of them
    others: bool = False
    #: whether those that were tried before go first; else they go behind those that were not
    retries_first: bool = False

    def without(self, replies: Iterable[Reply]) -> Shares:
        """Return what is left where these have been leased."""
        taken = Counter(reply.platform for reply in replies)
        left = {name: max(0, share - taken[name]) for name, share in self.platforms.items()}
        return msgspec.structs.replace(self, platforms=left)


class DueReplies(msgspec.Struct, frozen=True):
    """What one look for due replies found."""

    #: the rows that were leased, longest due first
    replies: tuple[Reply, ...] = ()
    #: seconds until the next look can find one, None if none is pending: 0 if now; with shares the seconds until one
    #: becomes due, for the asker knows what was left for want of a share
    next_in_s: float | None = None


#: what the keys of sessions begin with that end with their call
_STATELESS = "api:stateless:"


def stateless_key(message_id: str) -> str:
    """Build the key of a session that ends with the call that brought this message; nothing of it is kept."""
    return _STATELESS + message_id


def is_stateless(session: str) -> bool:
    """Tell whether a session ends with its call."""
    return session.startswith(_STATELESS)


def session_key(platform: str, account: str, conversation: str, thread: str | None = None) -> str:
    """Build a session key, ``platform:account:conversation[:thread]``.

    Only the last part may hold a colon, so two sessions never share a key.
    """
    key = f"{platform}:{account}:{conversation}"
    return f"{key}:{thread}" if thread else key
