"""The port every chat platform implements: pure functions from bytes to structs and back.

An adapter does no I/O, reads no clock and knows no framework. The webhook gives it a WebhookRequest: ``verify`` on the
untouched bytes first, then ``parse``. The delivery gives it a Reply: ``chunks`` once, then ``call`` for each attempt
to send a chunk, and ``result`` to say what the platform's answer means.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Protocol

import msgspec

from shared.messages import Reply

#: longest text of one message, in code points
MOST_TEXT = 100_000


class WebhookRequest(msgspec.Struct, frozen=True):
    """One webhook request."""

    method: str
    #: lower-case names; each signature header came once
    headers: Mapping[str, str]
    #: the body, untouched
    raw: bytes
    #: unix seconds
    now: float


class WebhookResponse(msgspec.Struct, frozen=True):
    """What the platform gets back."""

    status: int = 200
    #: None: the webhook tells in JSON what became of the message
    body: bytes | None = None
    media: str = "application/json"


class Kind(enum.StrEnum):
    """What a person did."""

    MESSAGE = "message"
    COMMAND = "command"  #: a command meant for this bot, as the platform marks it


class Inbound(msgspec.Struct, frozen=True):
    """One thing a person said."""

    kind: Kind
    #: the session's key
    session: str
    #: keys that each name this event over redeliveries
    dedupe: tuple[str, ...]
    #: the sender's id on the platform
    user: str
    text: str
    #: whether it was said to the bot alone
    direct: bool
    #: whether the bot is named or answered
    mentioned: bool
    #: JSON address of the answer, opaque to all but the platform
    reply: bytes
    #: whether the sender belongs to another organisation than the bot: a stranger on a workspace platform too
    outsider: bool = False

    @property
    def addressed(self) -> bool:
        """The reply policy: direct messages, mentions, replies to the bot, and commands are for us."""
        return self.direct or self.mentioned or self.kind is Kind.COMMAND


class Parsed(msgspec.Struct, frozen=True):
    """What a webhook request says."""

    #: what the platform gets back once all of it is accepted
    ack: WebhookResponse = WebhookResponse()
    inbound: tuple[Inbound, ...] = ()
    #: why nobody said anything in it
    ignored: str = ""


class ApiRequest(msgspec.Struct, frozen=True):
    """One HTTP request to send."""

    url: str
    headers: Mapping[str, str]
    #: exactly what goes over the wire
    body: bytes
    method: str = "POST"


class ApiResponse(msgspec.Struct, frozen=True):
    """The platform's answer to an ApiRequest."""

    status: int
    #: lower-case names; ``date`` is always there, our own clock's where the platform sent none
    headers: Mapping[str, str]
    #: the first 64 KiB
    body: bytes


class Rate(msgspec.Struct, frozen=True):
    """So many requests are allowed in any span of so many seconds."""

    count: int
    per_s: float


class Chat(msgspec.Struct, frozen=True):
    """Where a reply goes, as the platform counts its requests."""

    #: equal for all that share a budget, whatever thread they are in
    key: str
    #: what the platform allows there, on top of the app's own ``app_rates``
    rates: tuple[Rate, ...] = ()


class Sent(msgspec.Struct, frozen=True):
    """The platform took the chunk."""

    #: the platform's own id of it, empty where it has none
    id: str


class TryLater(msgspec.Struct, frozen=True):
    """The chunk may be taken later."""

    reason: str
    #: seconds to wait, None for our own backoff
    after_s: float | None = None
    #: whether the platform asks this of the whole app and not of the one chat
    whole_app: bool = False


class Reformat(msgspec.Struct, frozen=True):
    """The platform cannot read the markup; the same text goes once more as plain text."""

    reason: str


class WithoutThread(msgspec.Struct, frozen=True):
    """The thread or the quoted message is gone; the chunk goes once more to this address, without it."""

    address: bytes
    reason: str


class Moved(msgspec.Struct, frozen=True):
    """The whole conversation has a new address: this reply and every later one goes there."""

    address: bytes


class Gone(msgspec.Struct, frozen=True):
    """The receiver is not there any more: blocked, kicked, deleted."""

    reason: str


class Fail(msgspec.Struct, frozen=True):
    """The platform will never take this chunk."""

    reason: str


SendResult = Sent | TryLater | Reformat | WithoutThread | Moved | Gone | Fail


class Adapter(Protocol):
    """One platform."""

    @property
    def name(self) -> str:
        """The word it has in urls, settings and session keys."""

    @property
    def signature_headers(self) -> frozenset[str]:
        """Headers that may come once at the most."""

    @property
    def dedupe_ttl_s(self) -> float:
        """How long a dedupe key is kept, in seconds."""

    @property
    def open_to_strangers(self) -> bool:
        """Whether anybody in the world can write to the bot, with no secret of ours."""

    @property
    def on_internet(self) -> bool:
        """Whether its servers reach the webhook over the internet, so that a proxy publishes this gateway."""

    @property
    def announces_queue_position(self) -> bool:
        """Whether people see at once what is sent to them, so that a place in the queue is worth telling."""

    @property
    def app_rates(self) -> tuple[Rate, ...]:
        """What the platform allows the whole app, all chats together; empty where it names no limit."""

    def chat(self, address: bytes) -> Chat:
        """Return the chat that a reply's address lies in, with what the platform allows there."""

    def verify(self, req: WebhookRequest) -> None:
        """Return if the platform sent these bytes. Raises SignatureRejected, and nothing else on any input."""

    def parse(self, req: WebhookRequest) -> Parsed:
        """Read a verified request. Raises BodyRejected, and nothing else on any input."""

    def chunks(self, markdown: str) -> list[str]:
        """Cut an answer into texts that each fit one message, in order; never empty."""

    def call(self, reply: Reply, now: float, *, plain: bool = False) -> ApiRequest:
        """Build the request that sends one chunk, without markup if ``plain``; ``now`` is unix seconds."""

    def result(self, reply: Reply, answer: ApiResponse) -> SendResult:
        """Say what the platform's answer to ``call`` means."""

    def identity_call(self) -> ApiRequest | None:
        """Build the request that asks who the bot is, None where its events tell that."""

    def identified(self, answer: ApiResponse) -> Adapter:
        """Return this adapter, knowing who the bot is if the answer tells."""
