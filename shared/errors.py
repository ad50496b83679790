"""Every error Gatehouse raises, as one tree; each leaf says who handles it.

GatehouseError
├── SettingsError          the entry point: one line, exit status 2
├── StoreError
│   ├── StoreUnavailable   the webhook answers 503; the pool and the delivery back off and go on
│   │   └── StoreDamaged   as above, and for good: the operator puts a backup in its place
│   ├── StoreUnusable      the entry point: one line, exit status 1
│   │   └── StoreOutdated   as above; `migrate` leaves such a database as it is
│   ├── InboxFull          the webhook answers 503 with Retry-After
│   │   └── SenderShareFull  as above, for one sender
│   ├── StaleClaim         the pool drops what the turn did; whoever holds the claim goes on
│   └── NotFound           the API answers 404
├── RequestRejected
│   ├── SignatureRejected  the webhook answers 401
│   └── BodyRejected       the webhook answers 400
├── ChannelError
│   ├── FrameTooLarge      the sender of the frame; the turn fails with a clear reply
│   └── ChannelClosed      the supervisor: the worker is gone
├── WorkerFailedToStart    the supervisor: counted, tried again with backoff
├── ModelError
│   ├── ModelUnavailable   the model chain: retry, then the next model
│   ├── ModelRejected      the turn: the sender is told
│   └── ContextTooLong     the turn: drop the oldest part of the window, once
├── ToolError              the turn: becomes the tool's result, for the model to read
└── TurnEnded
    ├── TurnInterrupted    the turn: settled as interrupted
    ├── TurnParked         the turn: its steps are kept and another worker goes on
    └── TurnOverBudget     the turn: settled as over budget, the sender is told

A model call that outlives its timeout raises the builtin ``TimeoutError``; the turn tells the sender.
"""

from __future__ import annotations


class GatehouseError(Exception):
    """Root of every error this project raises."""


class SettingsError(GatehouseError):
    """Raised when a setting is missing, malformed or contradicts another; ``setting`` names it."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(" ".join(f"{setting}: {problem}".split()))
        self.setting = setting


class StoreError(GatehouseError):
    """Root of what the store raises."""


class StoreUnavailable(StoreError):
    """Raised when the store cannot commit now (full or read-only disk, locked file, lost server) but may later."""


class StoreDamaged(StoreUnavailable):
    """Raised by every call once the database was found damaged: nothing more is accepted, and nothing promised."""


class StoreUnusable(StoreError):
    """Raised when the store cannot be opened at all: corrupt file, newer schema, or held by another process."""


class StoreOutdated(StoreUnusable):
    """Raised for a database of an older schema that is to be read only, and so not brought forward."""


class InboxFull(StoreError):
    """Raised when the waiting messages have reached the inbox limit; nothing was written."""

    def __init__(self, waiting: int, retry_after_s: int) -> None:
        super().__init__(f"the inbox is full: {waiting} messages are waiting")
        self.waiting = waiting
        self.retry_after_s = retry_after_s


class SenderShareFull(InboxFull):
    """Raised when one sender's waiting messages have reached their share of the inbox; nothing was written."""

    def __init__(self, waiting: int, retry_after_s: int) -> None:
        super().__init__(waiting, retry_after_s)
        self.args = (f"this sender's share of the inbox is full: {waiting} of its messages are waiting",)


class StaleClaim(StoreError):
    """Raised when a write carries an epoch that is no longer the session's; nothing was written."""

    def __init__(self, session: str, epoch: int) -> None:
        super().__init__(f"epoch {epoch} of session {session} is stale")
        self.session = session
        self.epoch = epoch


class NotFound(StoreError):
    """Raised when what was asked for by name is not in the store."""


class RequestRejected(GatehouseError):
    """Root of what is wrong with a request; ``status`` is the HTTP answer."""

    status = 400


class SignatureRejected(RequestRejected):
    """Raised when a webhook's signature, token or timestamp does not verify."""

    status = 401


class BodyRejected(RequestRejected):
    """Raised when a verified body cannot be read as what the platform sends."""


class ChannelError(GatehouseError):
    """Root of what the channel between pool and worker raises."""


class FrameTooLarge(ChannelError):
    """Raised when a frame exceeds the frame limit, before any byte of it is sent."""


class ChannelClosed(ChannelError):
    """Raised when a frame is sent on a channel whose other end is gone."""


class WorkerFailedToStart(GatehouseError):
    """Raised when a new worker process does not report ready in time."""


class ModelError(GatehouseError):
    """Root of what a model call raises, the builtin TimeoutError aside."""


class ModelUnavailable(ModelError):
    """Raised when a model call failed in a way that may pass: overload, rate limit, broken connection.

    ``retry_after_s`` is the provider's own wish in seconds, None where it named none.
    """

    def __init__(self, problem: str, retry_after_s: float | None = None) -> None:
        super().__init__(problem)
        self.retry_after_s = retry_after_s


class ModelRejected(ModelError):
    """Raised when the provider refuses the request for good: bad key, bad request, refused content."""


class ContextTooLong(ModelError):
    """Raised when the transcript exceeds the model's context."""


class ToolError(GatehouseError):
    """Raised when a tool call fails, is unknown, or has unreadable arguments."""


class TurnEnded(GatehouseError):
    """Root of what ends a turn from outside between or inside its steps."""


class TurnInterrupted(TurnEnded):
    """Raised inside a turn whose sender asked to stop it."""


class TurnParked(TurnEnded):
    """Raised inside a turn at a step boundary when its worker drains."""


class TurnOverBudget(TurnEnded):
    """Raised inside a turn at a step boundary when a budget is used up; ``text`` is for its sender."""

    def __init__(self, problem: str, text: str) -> None:
        super().__init__(problem)
        self.text = text
