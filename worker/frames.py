"""The closed set of frozen frames between the pool and its workers; the door to them is worker.channel.

The pool speaks ToWorker, a worker speaks ToPool. Transcript messages stay opaque JSON bytes inside a frame.
"""

from __future__ import annotations

import msgspec

from shared.budgets import Allowance, Spend
from shared.journal import StepOpening
from shared.messages import JoiningWords, OpenStep, Outcome, Step, Summary
from shared.prices import Price
from shared.redaction import SHORTEST, password_in, secrets_in


class ModelSpec(msgspec.Struct, frozen=True):
    """One model of the chain: ``provider`` is anthropic, openai or offline; the key and url are the SDK's own."""

    provider: str
    model: str
    api_key: str = ""
    base_url: str = ""
    price: Price | None = None


class McpServer(msgspec.Struct, frozen=True):
    """One MCP server: a program to start, or with ``url`` one that is reached over HTTP.

    ``name`` is the first part of its tools' names; ``timeout_s`` bounds one call.
    """

    name: str
    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    cwd: str = ""
    url: str = ""
    headers: dict[str, str] = {}
    timeout_s: float = 300.0

    def secrets(self) -> tuple[str, ...]:
        """Return what no log line may show."""
        words = [word for value in self.headers.values() for word in value.split()]
        return (*words, *self.env.values(), *secrets_in(self.url))


class WorkerConfig(msgspec.Struct, frozen=True):
    """All a worker is told about the world; times in seconds, sizes in the unit the name ends with."""

    models: tuple[ModelSpec, ...]
    system_prompt: str
    tool_modules: tuple[str, ...] = ()
    mcp_servers: tuple[McpServer, ...] = ()
    fetch_allow: tuple[str, ...] = ()
    api_timeout_s: float = 300.0
    stall_timeout_s: float = 60.0
    turn_timeout_s: float = 900.0
    context_tokens: int = 100_000
    todo_cache_size: int = 10_000
    todo_cache_ttl_s: float = 3600.0
    log_dir: str = ""
    log_flush_interval_s: float = 0.5

    def secrets(self) -> tuple[str, ...]:
        """Return what no log line may show."""
        models = [secret for model in self.models for secret in (model.api_key, password_in(model.base_url))]
        servers = [secret for server in self.mcp_servers for secret in server.secrets()]
        return tuple(secret for secret in (*models, *servers) if len(secret) >= SHORTEST)


class Configure(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker, first and once: what it needs to run turns."""

    config: WorkerConfig


class RunTurn(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker: run one turn.

    ``turn`` numbers it for this pool's life (what the heartbeat names); ``version`` names the conversation
    the worker may hold, ``epoch`` the one it will hold after the turn; ``steps`` are to be resumed, then
    ``open_step``, which an earlier attempt did not finish; then ``words`` join; ``deadline_s`` seconds are left;
    ``allowance`` is what it may use of the budgets.
    """

    turn: int
    session: str
    epoch: int
    version: int
    message_id: str
    texts: tuple[str, ...]
    steps: tuple[Step, ...]
    deadline_s: float
    attempt: int = 0
    stream: bool = False
    traceparent: str = ""
    open_step: OpenStep | None = None
    words: tuple[JoiningWords, ...] = ()
    allowance: Allowance | None = None


class AllowanceGranted(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker: what this turn may use from now on."""

    turn: int
    allowance: Allowance


class History(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker: the conversation it asked for, from position ``first`` on; the summary stands for the rest."""

    turn: int
    version: int
    messages: tuple[bytes, ...]
    todo: bytes | None
    first: int = 0
    summary: Summary | None = None


class IntentCommitted(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker: the intent of a tool call that must not be repeated is committed; it may run."""

    turn: int
    call_id: str


class Steer(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker: these words join the turn at its next step."""

    turn: int
    words: tuple[JoiningWords, ...]


class Interrupt(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker: end this turn now; the sender asked for it."""

    turn: int


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker: park every turn at its next step boundary, flush the logs, and end."""


class Forget(msgspec.Struct, frozen=True, tag=True):
    """Pool to worker: drop what is cached of this session."""

    session: str


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: turns can come; ``preloaded`` tells whether the fork server had the SDKs."""

    pid: int
    preloaded: bool
    tools: tuple[str, ...]


class NeedHistory(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: this turn's conversation is not in the cache."""

    turn: int


class NeedAllowance(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: this turn has used so much of its allowance, and wants so much in all for its next step."""

    turn: int
    used: Spend
    wanted: Spend


class StepDone(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: a step is finished; a later attempt resumes after it."""

    turn: int
    step: Step


class Compacted(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: the turn's window was full; the summary was made after the steps told so far."""

    turn: int
    summary: Summary


class StepOpened(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: the model asked for tool calls; none of them has begun yet."""

    turn: int
    opening: StepOpening


class ToolStarted(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: a tool call begins (the intent of the side-effect journal).

    ``key`` is its idempotency key; with ``waits`` it runs only after IntentCommitted.
    """

    turn: int
    call_id: str
    name: str
    step: int = 0
    key: str = ""
    waits: bool = False


class ToolEnded(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: a tool call gave this transcript message; ``todo`` is the list if the step changed it so far."""

    turn: int
    call_id: str
    message: bytes
    step: int = 0
    todo: bytes | None = None


class Delta(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: text of the running step, as the model streams it."""

    turn: int
    step: int
    text: str


class TurnDone(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: the turn is over; an Ended outcome's messages are those of its last step alone."""

    turn: int
    outcome: Outcome


class Report(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool, about once a second: counters for its row of the worker table.

    ``log_written`` counts writes to session logs, ``log_failed`` writes to be tried again, ``log_lost`` lines.
    """

    cache_hits: int
    cache_misses: int
    cache_size: int
    rss_bytes: int
    leaked_threads: int
    log_written: int
    log_failed: int
    log_lost: int = 0


class LogEvent(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool: a named event with its fields, for the log of the host."""

    event: str
    fields: dict[str, str | int | float | bool | None]


class Drained(msgspec.Struct, frozen=True, tag=True):
    """Worker to pool, last: every turn is parked or done and the logs are written."""


ToWorker = Configure | RunTurn | AllowanceGranted | History | IntentCommitted | Steer | Interrupt | Drain | Forget
#: what a worker tells of one turn
OfTurn = NeedHistory | NeedAllowance | Compacted | StepOpened | StepDone | ToolStarted | ToolEnded | Delta | TurnDone
ToPool = Ready | OfTurn | Report | LogEvent | Drained
