"""The closed set of frozen frames between the pool and its workers; the door to them is worker.channel.

The pool speaks ToWorker, a worker speaks ToPool. Transcript messages stay opaque JSON bytes inside a frame.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.approvals import Approval
from shared.attachments import Attachment
from shared.budgets import Allowance, Spend
from shared.call_options import CallOptions
from shared.journal import CallIntent, CallResult, StepOpening
from shared.messages import JoiningWords, OpenStep, Outcome, Step, Summary
from shared.model_spec import ModelSpec as ModelSpec
from shared.profiles import AgentProfile
from shared.redaction import SHORTEST, password_in
from shared.texts import ENGLISH, Texts
from shared.usage import Usage
from worker.mcp_server import McpServer as McpServer
from worker.mcp_server import McpStatus


class WorkerConfig(msgspec.Struct, frozen=True):
    """All a worker is told about the world."""

    #: the chain, in the order in which they are asked
    models: tuple[ModelSpec, ...]
    #: what every request begins with
    system_prompt: str
    #: dotted names of modules with tools
    tool_modules: tuple[str, ...] = ()
    #: servers whose tools are offered
    mcp_servers: tuple[McpServer, ...] = ()
    #: hosts that the fetch tool may ask; without one there is no such tool
    fetch_allow: tuple[str, ...] = ()
    #: the longest one model call may take, in seconds
    api_timeout_s: float = 300.0
    #: the longest a streamed answer may be silent, in seconds
    stall_timeout_s: float = 60.0
    #: the longest one turn may take, in seconds
    turn_timeout_s: float = 900.0
    #: how much of a conversation a model is shown, in tokens
    context_tokens: int = 100_000
    #: sessions the cache holds at most
    todo_cache_size: int = 10_000
    #: how long the cache holds a session nobody asks for, in seconds
    todo_cache_ttl_s: float = 3600.0
    #: sync tools that run at once at most, each in a thread
    tool_threads: int = 64
    #: seconds between two beats of its loop
    beat_s: float = 0.1
    #: where session logs are written, empty for nowhere
    log_dir: str = ""
    #: seconds between two writes of one session log at the least
    log_flush_interval_s: float = 0.5
    #: what holds instead of the chain, prompt and tools for turns that name one
    profiles: tuple[AgentProfile, ...] = ()
    #: what the product says to those who have no profile
    texts: Texts = ENGLISH

    @property
    def all_models(self) -> tuple[ModelSpec, ...]:
        """The models of the chain, then those of the profiles."""
        return (*self.models, *(model for profile in self.profiles for model in profile.models))

    def secrets(self) -> tuple[str, ...]:
        """Return what no log line may show."""
        models = [secret for model in self.all_models for secret in (model.api_key, password_in(model.base_url))]
        servers = [secret for server in self.mcp_servers for secret in server.secrets()]
        return tuple(secret for secret in (*models, *servers) if len(secret) >= SHORTEST)


class Configure(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker, first and once: what it needs to run turns."""

    #: the same for every worker of a pool
    config: WorkerConfig


class Serve(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker, once: it is a spare no more, and starts what only one that takes turns is to hold."""


class RunTurn(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker: run one turn."""

    #: its number in this pool's life, which the heartbeat names
    turn: int
    #: key of its session
    session: str
    #: names the conversation the worker holds after the turn
    epoch: int
    #: names the conversation the worker may hold now, 0 for that of a new session
    version: int
    #: the message it answers
    message_id: str
    #: what the message says
    texts: tuple[str, ...]
    #: finished steps of earlier attempts, oldest first
    steps: tuple[Step, ...]
    #: seconds the turn may take
    deadline_s: float
    #: how many executions of the message ended by its own fault
    attempt: int = 0
    #: whether text is told as the model writes it
    stream: bool = False
    #: W3C trace context of the message, empty for none
    traceparent: str = ""
    #: the step an earlier attempt did not finish
    open_step: OpenStep | None = None
    #: the images of the message
    attachments: tuple[Attachment, ...] = ()
    #: what was decided about the calls of the open step
    approvals: tuple[Approval, ...] = ()
    #: what joined the message and no step has taken in
    words: tuple[JoiningWords, ...] = ()
    #: what it may use of the budgets, None where nothing bounds it
    allowance: Allowance | None = None
    #: what a client of the API asks for beside its words
    options: CallOptions | None = None
    #: name of the profile that holds for it, empty for none
    profile: str = ""


class AllowanceGranted(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker: what this turn may use from now on."""

    #: number of the turn
    turn: int
    #: all it may use, what it has used included
    allowance: Allowance


class History(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker: the conversation it asked for."""

    #: number of the turn that asked
    turn: int
    #: names the conversation; another than the turn's own says that the session has moved on
    version: int
    #: transcript messages, oldest first
    messages: tuple[bytes, ...]
    #: the session's todo list (JSON array), None if it never had one
    todo: bytes | None
    #: position of the first of the messages
    first: int = 0
    #: what stands for the messages before it
    summary: Summary | None = None


class AttachmentData(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker: the bytes of an image that it asked for."""

    #: number of the turn that asked
    turn: int
    #: names the image in its session
    digest: str
    #: None where the image is not kept
    data: bytes | None


class IntentCommitted(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker: the intent of a tool call that must not be repeated is committed; it may run."""

    #: number of the turn
    turn: int
    #: id of the call
    call_id: str


class Steer(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker: these words join the turn at its next step."""

    #: number of the turn
    turn: int
    #: what they say, oldest first
    words: tuple[JoiningWords, ...]


class Interrupt(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker: end this turn now; the sender asked for it."""

    #: number of the turn
    turn: int


class Park(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker: park this turn in the middle of its model call, unless some of an answer has come."""

    #: number of the turn
    turn: int


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker: park every turn at its next step boundary, flush the logs, and end."""


class Forget(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker: the session was deleted; nothing of it is kept."""

    #: key of the session
    session: str


class HostTool(msgspec.Struct, frozen=True):
    """One tool of an MCP server that all workers of a machine share."""

    #: what a model calls it
    name: str
    #: what a model reads of it
    description: str
    #: JSON schema of its arguments
    parameters: dict[str, Any]
    #: whether a call that may have happened may be made again
    retry_safe: bool
    #: whether the sender has to allow each call
    approve: bool


class HostTools(msgspec.Struct, frozen=True, tag=True):
    """From the process of the shared servers to the pool, and from there to each worker: what one of them offers."""

    #: name of the server
    server: str
    #: all it offers now
    tools: tuple[HostTool, ...]


class HostCallSaid(msgspec.Struct, frozen=True, tag=True):
    """The way of HostTools: how far a call of a shared server is."""

    #: number of the call
    number: int
    #: what it told last
    text: str


class HostCallEnded(msgspec.Struct, frozen=True, tag=True):
    """The way of HostTools: a call of a shared server gave its result."""

    #: number of the call
    number: int
    #: the result as a model reads it
    text: str
    #: whether it is an error
    failed: bool = False
    #: the images that are shown with it
    images: tuple[bytes, ...] = ()


class HostCall(msgspec.Struct, frozen=True, tag=True):
    """From a worker to the pool, and from there to the process of the shared servers: call a tool of one."""

    #: of the one who sends it
    number: int
    #: name of the server
    server: str
    #: what a model calls the tool
    tool: str
    #: its arguments as the model wrote them
    arguments: str
    #: key of the session that calls
    session: str
    #: the message that its turn answers
    message_id: str
    #: the model's id of the call
    call_id: str


class HostCallDropped(msgspec.Struct, frozen=True, tag=True):
    """The way of HostCall: nobody waits for this call any more."""

    #: number of the call
    number: int


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: turns can come."""

    #: its process
    pid: int
    #: whether the fork server had imported the SDKs
    preloaded: bool
    #: names of the tools it offers
    tools: tuple[str, ...]


class NeedHistory(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: this turn's conversation is not in the cache."""

    #: number of the turn
    turn: int


class NeedAttachment(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: the bytes of an image are not in the cache."""

    #: number of the turn
    turn: int
    #: names the image in its session
    digest: str


class KeepAttachment(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: a tool returned an image, or gave a file for the chat, that its result will refer to."""

    #: number of the turn
    turn: int
    #: names it in its session
    digest: str
    #: its bytes
    data: bytes


class NeedAllowance(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: this turn wants more of the budgets for its next step."""

    #: number of the turn
    turn: int
    #: what it has used so far
    used: Spend
    #: what it wants in all, what it has used included
    wanted: Spend


class StepDone(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: a step is finished; a later attempt resumes after it."""

    #: number of the turn
    turn: int
    #: what a checkpoint keeps
    step: Step


class Compacted(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: the turn's window was full; the summary was made after the steps told so far."""

    #: number of the turn
    turn: int
    #: what stands for the older part of the window
    summary: Summary


class StepOpened(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: the model asked for tool calls; none of them has begun yet."""

    #: number of the turn
    turn: int
    #: what the journal keeps of that
    opening: StepOpening


class ToolStarted(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: a tool call begins; ``intent`` is what the side-effect journal keeps of that."""

    #: number of the turn
    turn: int
    #: the call, its step and its idempotency key
    intent: CallIntent
    #: whether it runs only after IntentCommitted
    waits: bool = False


class ToolSaid(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: a running tool told how far it is."""

    #: number of the turn
    turn: int
    #: what the model calls the tool
    name: str
    #: what it told last
    text: str


class ToolEnded(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: a tool call of the open step gave its result."""

    #: number of the turn
    turn: int
    #: the transcript message it gave, and the todo list if the step changed it so far
    result: CallResult


class Delta(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: text of the running step, as the model streams it."""

    #: number of the turn
    turn: int
    #: number of the step
    step: int
    #: what was written since the last delta
    text: str
    #: whether the step begins again: what was told of it before is void
    restarts: bool = False


class ModelAway(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: no model can answer now; the turn waits inside its time."""

    #: number of the turn
    turn: int
    #: the model it waits for
    model: str
    #: why it cannot answer
    problem: str


class TurnWaits(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: the turn waits, for a model's answer or a tool, and does nothing else meanwhile.

    It comes again when a model call is sent anew, and as the answer to a ``Park`` for which it is too late.
    """

    #: number of the turn
    turn: int
    #: ``model``, or the name of a tool
    waits_for: str
    #: what its step has used if the model call under way is cut off and nothing of its answer comes
    usage: Usage = Usage()


class TurnGoesOn(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: what the turn waited for is here."""

    #: number of the turn
    turn: int


class TurnDone(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: the turn is over."""

    #: number of the turn
    turn: int
    #: how it ended; an Ended one's messages are those of its last step alone
    outcome: Outcome


class Report(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool, about once a second: counters for its row of the worker table."""

    #: turns whose conversation was in the cache
    cache_hits: int
    #: turns whose conversation was not
    cache_misses: int
    #: sessions in the cache now
    cache_size: int
    #: resident memory of the process
    rss_bytes: int
    #: threads of tools that were given up and go on
    leaked_threads: int
    #: writes to session logs
    log_written: int
    #: writes to session logs that are to be tried again
    log_failed: int
    #: lines of session logs that nobody could write
    log_lost: int = 0
    #: how its MCP servers are, in the order of the configuration
    mcp: tuple[McpStatus, ...] = ()


class LogEvent(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: a named event with its fields, for the log of the host."""

    #: name of the event
    event: str
    #: which and why
    fields: dict[str, str | int | float | bool | None]


class Drained(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool, last: every turn is parked or done and the logs are written."""


ToWorker = (
    Configure
    | Serve
    | RunTurn
    | AllowanceGranted
    | History
    | AttachmentData
    | IntentCommitted
    | Steer
    | Interrupt
    | Park
    | Drain
    | Forget
    | HostTools
    | HostCall
    | HostCallDropped
    | HostCallSaid
    | HostCallEnded
)
#: what a worker tells of one turn
OfTurn = (
    NeedHistory
    | NeedAttachment
    | KeepAttachment
    | NeedAllowance
    | Compacted
    | StepOpened
    | StepDone
    | ToolStarted
    | ToolSaid
    | ToolEnded
    | Delta
    | ModelAway
    | TurnWaits
    | TurnGoesOn
    | TurnDone
)
#: what a worker asks of the servers that the whole machine shares
ToHostServers = HostCall | HostCallDropped
#: what those say
OfHostServers = HostTools | HostCallSaid | HostCallEnded
ToPool = Ready | OfTurn | Report | LogEvent | Drained | ToHostServers | OfHostServers
