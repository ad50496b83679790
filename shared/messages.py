"""The structs that cross every boundary: what came in, what is claimed, how a turn ended, what goes out.

An arrival becomes an inbox row; a claim leases a session's next messages to a host; a turn's outcome
settles the claim; settling writes replies, which the delivery sends. Transcript messages are opaque
JSON bytes everywhere but in the agent: one object of the chat-completions form each.
"""

from __future__ import annotations

import enum

import msgspec

from shared.attachments import Attachment
from shared.budgets import Allowance
from shared.call_options import CallOptions, ClientCall
from shared.command import Command
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
    """One message to accept.

    ``id`` is a message id; ``session`` a session key; ``reply`` the platform's own JSON address for the
    answer, opaque to all but that platform; any of ``dedupe`` seen within ``dedupe_ttl_s`` seconds makes
    it a duplicate; ``history`` seeds a session that does not exist yet; ``at`` is unix seconds.

    ``when_busy`` says what it does while its session is busy; ``busy_text`` then tells the sender it turns away, or the
    one whose turn it ends. ``quiet_s`` seconds without another message of its sender have to pass before its turn
    begins; what comes in them joins it. A ``command`` runs no turn of its own.
    """

    id: str
    session: str
    platform: str
    user: str
    text: str
    reply: bytes
    dedupe: tuple[str, ...]
    dedupe_ttl_s: float
    at: float
    history: tuple[bytes, ...] = ()
    traceparent: str = ""
    when_busy: WhenBusy = WhenBusy.ENQUEUE
    busy_text: str = ""
    quiet_s: float = 0.0
    command: Command | None = None
    #: its images, and their bytes by digest, which the store keeps apart
    attachments: tuple[Attachment, ...] = ()
    attachment_data: dict[str, bytes] = {}
    #: what a client of the API asks for beside its words
    options: CallOptions | None = None
    #: the host that holds the connection of whoever waits for the answer, empty if any host may send it
    gateway: str = ""


class CommandAnswer(msgspec.Struct, frozen=True):
    """A message that came to its end without a turn, and what its sender is told."""

    message_id: str
    text: str


class Receipt(msgspec.Struct, frozen=True):
    """What became of an arrival: its message id (the first one's for a duplicate) and how many wait before it.

    ``answer`` is what its sender is told where it is not ``state`` waiting any more; ``stops`` is the message whose
    running turn is to be ended now, ``joins`` says that it may join that turn; ``withdrawn`` were taken back by it.
    """

    message_id: str
    duplicate: bool
    ahead: int = 0
    state: MessageState = MessageState.WAITING
    answer: str = ""
    stops: str = ""
    joins: bool = False
    withdrawn: tuple[CommandAnswer, ...] = ()


class Pending(msgspec.Struct, frozen=True):
    """One waiting message inside a claim.

    ``seq`` orders a session's messages; ``attempts`` counts the past executions that ended by its own fault, ``lost``
    those that ended with their worker or host and nobody proven guilty. With a ``stop`` its turn is to be ended at
    once: its sender is told this.
    """

    id: str
    seq: int
    user: str
    text: str
    at: float
    attempts: int = 0
    suspect: bool = False
    traceparent: str = ""
    lost: int = 0
    stop: str = ""
    #: its images, whose bytes are read when a model is shown them
    attachments: tuple[Attachment, ...] = ()
    #: what a client of the API asks for beside its words
    options: CallOptions | None = None


class JoiningWords(msgspec.Struct, frozen=True):
    """What a message says that joins another's turn."""

    id: str
    text: str
    attachments: tuple[Attachment, ...] = ()


class Step(msgspec.Struct, frozen=True):
    """One finished step of a turn: the transcript messages it added and the todo list if it changed (JSON array).

    ``joined`` are the ids of the messages whose words joined the turn in this step.
    """

    number: int
    messages: tuple[bytes, ...]
    todo: bytes | None = None
    usage: Usage = Usage()
    joined: tuple[str, ...] = ()


class JournaledCall(msgspec.Struct, frozen=True):
    """A tool call that was about to run; without a ``result`` nobody knows how far it came."""

    call_id: str
    name: str
    key: str
    result: bytes | None = None


class OpenStep(msgspec.Struct, frozen=True):
    """The journal of a step that an earlier attempt left unfinished.

    ``messages`` are what opened it, the assistant's with its tool calls last; one that is not in ``calls`` did not run.
    """

    number: int
    messages: tuple[bytes, ...]
    usage: Usage = Usage()
    calls: tuple[JournaledCall, ...] = ()
    todo: bytes | None = None
    joined: tuple[str, ...] = ()

    @property
    def results(self) -> tuple[bytes, ...]:
        """The transcript messages of the calls that gave one."""
        return tuple(call.result for call in self.calls if call.result is not None)


class ClaimRef(msgspec.Struct, frozen=True):
    """Names one claim: its session and the fencing epoch every write of it carries."""

    session: str
    epoch: int


class Summary(msgspec.Struct, frozen=True):
    """What stands for the beginning of a session's transcript when a model is shown it.

    ``covers`` is the position of the first transcript message it does not stand for, counted from 0; ``text`` is what a
    model wrote, ``todo`` the todo list (JSON array) as it was then, ``asked`` what the user had asked in a turn
    whose first steps it covers, ``opening`` the system messages that the transcript begins with, word for word.
    """

    covers: int
    text: str
    todo: bytes = b"[]"
    asked: str = ""
    opening: tuple[bytes, ...] = ()


class Claim(msgspec.Struct, frozen=True):
    """A session's pending messages, leased to one host: the first one's turn, and those that join it.

    ``version`` is the epoch of the session's last settle (0 for a new one) and names the conversation a worker
    may have cached; ``steps`` are the checkpoints an earlier attempt left, oldest first; ``open_step`` is the journal
    of the step it was in the middle of; ``allowance`` is what the turn may spend, None where nothing bounds it.
    """

    ref: ClaimRef
    platform: str
    version: int
    messages: tuple[Pending, ...]
    steps: tuple[Step, ...] = ()
    open_step: OpenStep | None = None
    allowance: Allowance | None = None


class ClaimBatch(msgspec.Struct, frozen=True):
    """What one look for claims found."""

    #: the sessions that were leased
    claims: tuple[Claim, ...] = ()
    #: seconds until the next look can find one: 0 if now, None if none waits
    next_in_s: float | None = None


class Conversation(msgspec.Struct, frozen=True):
    """What a session holds: transcript messages, oldest first, and its todo list (JSON array, None if never set)."""

    version: int
    messages: tuple[bytes, ...]
    todo: bytes | None = None


class Context(msgspec.Struct, frozen=True):
    """What a turn has to know of its session: the end of the transcript, and a summary of what is before that.

    ``first`` is the position of the first of ``messages``, or of the next message there will be; it is past
    ``summary.covers`` where more lies between than was asked for.
    """

    version: int
    first: int
    messages: tuple[bytes, ...]
    todo: bytes | None = None
    summary: Summary | None = None


class Ended(msgspec.Struct, frozen=True, tag=True):
    """Outcome: the turn came to an end; ``text`` goes to the sender, ``messages`` join the history.

    ``summary`` is the last one it made of its context, None for none; ``joined`` are the ids of the messages whose
    words it took in: others that were to join it wait again.
    """

    status: TurnStatus
    text: str
    messages: tuple[bytes, ...]
    todo: bytes | None = None
    usage: Usage = Usage()
    worker: str = ""
    error: str = ""
    summary: Summary | None = None
    joined: tuple[str, ...] = ()
    #: why the last answer of the model ended: stop, length, content_filter or tool_calls; empty where none did
    finish: str = ""
    #: the calls of the client's tools that the client is to run
    calls: tuple[ClientCall, ...] = ()


class Parked(msgspec.Struct, frozen=True, tag=True):
    """Outcome: the worker drained; checkpoints stay, no attempt is used, the session is claimable at once."""


class Retry(msgspec.Struct, frozen=True, tag=True):
    """Outcome: the execution was lost; the session is claimable again after ``delay_s`` seconds.

    ``attempts`` and ``lost`` are the message's from now on; a ``suspect`` is claimed for a worker of its own.
    """

    delay_s: float
    attempts: int
    suspect: bool
    error: str
    lost: int = 0


class DeadKind(enum.StrEnum):
    """What a dead letter is."""

    MESSAGE = "message"  #: its turn was lost as often as it may be
    MODEL = "model"  #: no model answered it in its turn's time
    REPLY = "reply"  #: its reply was refused by the platform for good


class Dead(msgspec.Struct, frozen=True, tag=True):
    """Outcome: the attempts are used up; the message is kept as a dead letter and ``text`` tells the sender."""

    attempts: int
    error: str
    text: str
    stacks: str = ""
    usage: Usage = Usage()
    worker: str = ""
    kind: DeadKind = DeadKind.MESSAGE


Outcome = Ended | Parked | Retry | Dead


class Answered(msgspec.Struct, frozen=True):
    """What became of a request of the API, for one that asks again."""

    #: where its message is
    state: MessageState
    #: how it ended, None while it has not, or where nothing was kept
    outcome: Ended | Dead | None = None


#: chunks a reply has at most; a message's next reply starts at a multiple of it, so no two ever share a part
PARTS = 1000


class Reply(msgspec.Struct, frozen=True):
    """One outbox row: ``text`` as written by the agent, or one ready-made chunk of it where ``rendered``.

    ``address`` is the arrival's ``reply``; ``lease`` fences the send; ``attempts`` counts past sends.
    """

    session: str
    message_id: str
    part: int
    platform: str
    text: str
    address: bytes
    status: ReplyStatus
    rendered: bool = False
    attempts: int = 0
    lease: int = 0

    @property
    def idempotency_key(self) -> str:
        """The key that names this chunk on every attempt to send it."""
        return f"{self.message_id}.{self.part}"

    @property
    def begins(self) -> bool:
        """Whether it is the first chunk of its text."""
        return self.part % PARTS == 0


class Shares(msgspec.Struct, frozen=True):
    """How many replies of each platform may be leased in one look."""

    platforms: dict[str, int]
    #: whether replies of platforms that are not named are leased too, a few of them
    others: bool = False
    #: whether those that were tried before go first; else they go behind those that were not
    retries_first: bool = False


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
