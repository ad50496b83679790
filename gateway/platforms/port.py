"""The port every chat platform implements: pure functions from bytes to structs and back.

An adapter does no I/O, reads no clock and knows no framework. The webhook gives it a WebhookRequest: ``verify`` on the
untouched bytes first, then ``parse``. The delivery gives it a Reply: ``chunks`` once, then ``call`` for each attempt
to send a chunk, and ``outcome`` to say what the platform's answer means.
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
    """One webhook request: lower-case header names, each signature header once; ``now`` is unix seconds."""

    method: str
    headers: Mapping[str, str]
    raw: bytes
    now: float


class WebhookResponse(msgspec.Struct, frozen=True):
    """What the platform gets back; without a ``body`` the webhook tells in JSON what became of the message."""

    status: int = 200
    body: bytes | None = None
    media: str = "application/json"


class Kind(enum.StrEnum):
    """What a person did."""

    MESSAGE = "message"
    COMMAND = "command"  #: a command meant for this bot, as the platform marks it


class Inbound(msgspec.Struct, frozen=True):
    """One thing a person said.

    ``session`` is the session key; ``dedupe`` are keys that each name this event over redeliveries; ``direct`` means
    a conversation with the bot alone, ``mentioned`` that the bot is named or answered; ``reply`` is the JSON address
    of the answer.
    """

    kind: Kind
    session: str
    dedupe: tuple[str, ...]
    user: str
    text: str
    direct: bool
    mentioned: bool
    reply: bytes

    @property
    def addressed(self) -> bool:
        """The reply policy: direct messages, mentions, replies to the bot, and commands are for us."""
        return self.direct or self.mentioned or self.kind is Kind.COMMAND


class Parsed(msgspec.Struct, frozen=True):
    """A request's answer and what people said in it; ``ignored`` says why there is nothing."""

    ack: WebhookResponse = WebhookResponse()
    inbound: tuple[Inbound, ...] = ()
    ignored: str = ""


class ApiRequest(msgspec.Struct, frozen=True):
    """One HTTP request to send; ``body`` is exactly what goes over the wire."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    method: str = "POST"


class ApiResponse(msgspec.Struct, frozen=True):
    """The platform's answer to an ApiRequest: lower-case header names, the first 64 KiB of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Sent(msgspec.Struct, frozen=True):
    """The platform took the chunk; ``id`` is its own id of it, empty where it has none."""

    id: str


class TryLater(msgspec.Struct, frozen=True):
    """The chunk may be taken later: after ``after_s`` seconds, or by our own backoff where None."""

    reason: str
    after_s: float | None = None


class Reformat(msgspec.Struct, frozen=True):
    """The platform cannot read the markup; the same text goes once more as plain text."""

    reason: str


class Moved(msgspec.Struct, frozen=True):
    """The conversation has a new address."""

    address: bytes


class Gone(msgspec.Struct, frozen=True):
    """The receiver is not there any more: blocked, kicked, deleted."""

    reason: str


class Fail(msgspec.Struct, frozen=True):
    """The platform will never take this chunk."""

    reason: str


Verdict = Sent | TryLater | Reformat | Moved | Gone | Fail


class Adapter(Protocol):
    """One platform. ``signature_headers`` may come once at the most; a dedupe key is kept ``dedupe_ttl_s`` seconds.

    ``open_to_strangers`` tells that anybody in the world can write to the bot, with no secret of ours,
    ``announces_queue_position`` that people see at once what is sent to them, so that a place in the queue is
    worth telling.
    """

    @property
    def name(self) -> str: ...

    @property
    def signature_headers(self) -> frozenset[str]: ...

    @property
    def dedupe_ttl_s(self) -> float: ...

    @property
    def open_to_strangers(self) -> bool: ...

    @property
    def announces_queue_position(self) -> bool: ...

    def verify(self, req: WebhookRequest) -> None:
        """Return if the platform sent these bytes. Raises SignatureRejected, and nothing else on any input."""

    def parse(self, req: WebhookRequest) -> Parsed:
        """Read a verified request. Raises BodyRejected, and nothing else on any input."""

    def chunks(self, markdown: str) -> list[str]:
        """Cut an answer into texts that each fit one message, in order; never empty."""

    def call(self, reply: Reply, now: float, *, plain: bool = False) -> ApiRequest:
        """Build the request that sends one chunk, without markup if ``plain``; ``now`` is unix seconds."""

    def outcome(self, reply: Reply, answer: ApiResponse) -> Verdict:
        """Say what the platform's answer to ``call`` means."""

    def identity_call(self) -> ApiRequest | None:
        """Build the request that asks who the bot is, None where its events tell that."""

    def identified(self, answer: ApiResponse) -> Adapter:
        """Return this adapter, knowing who the bot is if the answer tells."""
