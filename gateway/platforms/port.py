"""The port every chat platform implements: pure functions from bytes to structs and back.

An adapter does no I/O, reads no clock and knows no framework. The webhook gives it a WebhookRequest: ``verify`` on the
untouched bytes first, then ``parse``. The delivery gives it a Reply: ``chunks`` once, then ``call`` for each attempt
to send a chunk, and ``result`` to say what the platform's answer means. Everything else a platform may have (life
signs, streams, files, access tokens) is a method with a default that says "not here".
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import msgspec

from shared.attachments import Attachment, Upload
from shared.messages import Reply

#: longest text of one message, in code points
MOST_TEXT = 100_000

#: what a chunk without words is replaced by: platforms refuse empty messages
EMPTY = "(empty reply)"

MEBIBYTE = 1_048_576


class WebhookRequest(msgspec.Struct, frozen=True):
    """One webhook request."""

    method: str
    #: lower-case names, each signature header once
    headers: Mapping[str, str]
    raw: bytes
    #: unix seconds
    now: float
    #: the address as the platform knows it: public base, path and query
    url: str = ""
    #: what of the path comes after the platform's name, without a leading slash
    path: str = ""
    #: the parameters of the url's query, the last of each name
    query: Mapping[str, str] = {}
    #: public keys by key id, of the adapter's key sources: a JWK as JSON, or a certificate as PEM
    keys: Mapping[str, bytes] = {}


class KeyFormat(enum.StrEnum):
    """What a url with public keys answers with."""

    OPENID = "openid"  #: OpenID metadata, whose ``jwks_uri`` has the key set
    CERTIFICATES = "certificates"  #: an object of PEM certificates by key id


class KeySource(msgspec.Struct, frozen=True):
    """Where the public keys of a platform's bearer tokens are published."""

    url: str
    format: KeyFormat


class WebhookResponse(msgspec.Struct, frozen=True):
    """What the platform gets back; without a ``body`` the webhook tells in JSON what became of the message."""

    status: int = 200
    body: bytes | None = None
    media: str = "application/json"


class Kind(enum.StrEnum):
    """What a person did."""

    MESSAGE = "message"
    COMMAND = "command"  #: a command meant for this bot, as the platform marks it
    ACTION = "action"  #: a button of the bot's pressed; ``text`` is what it stands for
    EDIT = "edit"  #: an earlier message has a new ``text``; ``amends`` names it
    DELETE = "delete"  #: an earlier message was taken back; ``amends`` names it
    MOVED = "moved"  #: the chat whose session is ``amends`` goes on as that of ``session``, at ``reply``


class File(msgspec.Struct, frozen=True):
    """One attachment, still at the platform; ``fetch`` of its adapter says how to get it."""

    #: the platform's id of it
    id: str
    name: str
    #: media type, empty where the platform does not tell it
    media: str = ""
    #: 0 where the platform does not tell it
    size_bytes: int = 0
    #: where it lies, for platforms that tell it in the event
    url: str = ""


class Inbound(msgspec.Struct, frozen=True):
    """One thing a person did in a chat."""

    kind: Kind
    #: the session key
    session: str
    #: keys that each name this event over redeliveries; any that is known makes it a duplicate
    dedupe: tuple[str, ...] = ()
    user: str = ""
    text: str = ""
    #: a conversation with the bot alone
    direct: bool = False
    #: the bot is named or answered
    mentioned: bool = False
    #: the JSON address of the answer
    reply: bytes = b"null"
    #: what the person points at (a quote, a forwarded message), for the model to read before the text
    context: str = ""
    files: tuple[File, ...] = ()
    #: files that came with the event or were fetched
    uploads: tuple[Upload, ...] = ()
    #: written in a thread of its own, which the bot may be part of
    threaded: bool = False
    #: from outside of the organization that installed the bot, such as a guest of a shared channel
    outsider: bool = False
    #: seconds to wait for further parts of the same thing, such as an album's
    gather_s: float = 0.0
    #: the name of the channel, or of the person in a conversation with the bot alone; empty where it is not told
    title: str = ""
    #: EDIT, DELETE: a dedupe key of the message it is about; MOVED: the old session key
    amends: str = ""

    @property
    def addressed(self) -> bool:
        """The reply policy: direct messages, mentions, replies to the bot, its commands and buttons are for us."""
        return self.direct or self.mentioned or self.kind in {Kind.COMMAND, Kind.ACTION}

    @property
    def prompt(self) -> str:
        """What the model reads: what is pointed at, then the text."""
        return f"{self.context}\n\n{self.text}".strip() if self.context else self.text


class ApiRequest(msgspec.Struct, frozen=True):
    """One HTTP request to send; ``body`` is exactly what goes over the wire."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    method: str = "POST"
    #: the sender adds ``authorization: Bearer`` with the token that ``token_call`` gets
    needs_token: bool = False


class Parsed(msgspec.Struct, frozen=True):
    """A request's answer and what people did in it; ``ignored`` says why there is nothing."""

    ack: WebhookResponse = WebhookResponse()
    inbound: tuple[Inbound, ...] = ()
    ignored: str = ""
    #: calls that the event asks for, such as joining a room the bot is invited to; made before the answer
    calls: tuple[ApiRequest, ...] = ()
    #: requests made after those calls, for what was said before the bot was there; ``missed`` reads their answers
    looks_back: tuple[ApiRequest, ...] = ()


class ApiResponse(msgspec.Struct, frozen=True):
    """The platform's answer to an ApiRequest."""

    status: int
    #: lower-case names; ``date`` is always there, our own clock's where the platform sent none
    headers: Mapping[str, str]
    #: the first 64 KiB
    body: bytes


class Sent(msgspec.Struct, frozen=True):
    """The platform took the chunk; ``id`` is its own id of it, empty where it has none."""

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
    """The thread, the quoted message or the short-lived address is gone; the chunk goes once more to this address."""

    address: bytes
    reason: str


class Moved(msgspec.Struct, frozen=True):
    """The whole conversation has a new address: this reply and every later one goes there."""

    address: bytes
    #: the session key of its chat under its new name, empty where that stays
    session: str = ""


class Gone(msgspec.Struct, frozen=True):
    """The receiver is not there any more: blocked, kicked, deleted."""

    reason: str


class Fail(msgspec.Struct, frozen=True):
    """The platform will never take this chunk."""

    reason: str


class Cancelled(msgspec.Struct, frozen=True):
    """The person stopped the answer that was shown to them."""

    reason: str


SendResult = Sent | TryLater | Reformat | WithoutThread | Moved | Gone | Fail


class Rate(msgspec.Struct, frozen=True):
    """What a platform takes: ``count`` requests in any ``per_s`` seconds."""

    count: int
    per_s: float


class Chat(msgspec.Struct, frozen=True):
    """Where a reply goes, as the platform counts its requests."""

    #: equal for all that share a budget, whatever thread they are in
    key: str
    rates: tuple[Rate, ...] = ()


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a platform is like, beyond what its methods do."""

    #: headers that may come once at the most
    signature_headers: frozenset[str]
    #: seconds a dedupe key is kept: longer than the platform redelivers
    dedupe_ttl_s: float
    #: anybody in the world can write to the bot, with no secret of ours
    open_to_strangers: bool = False
    #: people see at once what is sent to them, so a place in the queue is worth telling
    announces_queue_position: bool = True
    #: what acknowledges a message shows that its answer comes, until something else takes that place
    promises_answer: bool = False
    methods: tuple[str, ...] = ("POST",)
    #: the platform adds paths of its own to the webhook's url
    takes_paths: bool = False
    most_body_bytes: int = MEBIBYTE
    #: its servers reach the webhook over the internet, so that a proxy publishes this gateway
    on_internet: bool = True
    #: what the platform allows the whole app, all chats together; empty where it names no limit
    app_rates: tuple[Rate, ...] = ()
    #: each method of its API has limits of its own, so that one which is limited holds up no other
    limits_methods_apart: bool = False
    #: how often a life sign is repeated while a turn runs, 0 where there are none
    life_sign_every_s: float = 0.0
    #: a life sign shows what the agent does, in words
    life_sign_words: bool = False
    #: seconds between two looks at an answer that is shown while it is written, 0 where none is
    stream_gap_s: float = 0.0
    #: a chat can get another id, and is told of by a Kind.MOVED
    chats_move: bool = False
    #: what is shown of an answer may be added to, and not be changed
    stream_only_grows: bool = False
    #: a send repeated under the same idempotency key has no second effect
    idempotent: bool = False


class Setup(msgspec.Struct, frozen=True):
    """How a platform learns of the gateway: calls that register the webhook, and steps for people."""

    steps: str
    calls: tuple[ApiRequest, ...] = ()


class Registration(msgspec.Struct, frozen=True):
    """Where a platform posts its events, by its own account."""

    #: empty where it knows no webhook
    url: str
    #: what it says is wrong with it, empty for nothing
    problem: str = ""


class Adapter(msgspec.Struct, frozen=True):
    """One platform. The methods of the first half are every platform's, those of the second have a default."""

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]

    def verify(self, req: WebhookRequest) -> None:
        """Return if the platform sent these bytes. Raises SignatureRejected, and nothing else on any input."""
        raise NotImplementedError

    def parse(self, req: WebhookRequest) -> Parsed:
        """Read a verified request. Raises BodyRejected, and nothing else on any input."""
        raise NotImplementedError

    def chunks(self, markdown: str) -> list[str]:
        """Cut an answer into texts that each fit one message, in order; never empty."""
        raise NotImplementedError

    def call(self, reply: Reply, now: float, *, plain: bool = False) -> ApiRequest:
        """Build the request that sends one chunk, without markup if ``plain``; ``now`` is unix seconds."""
        raise NotImplementedError

    def result(self, reply: Reply, answer: ApiResponse) -> SendResult:
        """Say what the platform's answer to ``call`` means."""
        raise NotImplementedError

    def chat(self, address: bytes) -> Chat:
        """Return the chat that an address belongs to."""
        raise NotImplementedError

    def method_of(self, request: ApiRequest) -> str:
        """Return what a limit that answers a request is about: its method, empty for all that goes to the chat."""
        apart = self.capabilities.limits_methods_apart
        return f"{request.method} {request.url.partition('?')[0]}" if apart else ""

    @property
    def own_urls(self) -> tuple[str, ...]:
        """The urls that its settings name, where the platform is for this installation."""
        settings = [value for value in msgspec.structs.astuple(self) if isinstance(value, msgspec.Struct)]
        values = [value for one in settings for value in msgspec.structs.astuple(one)]
        return tuple(value for value in values if isinstance(value, str) and value.startswith(("https://", "http://")))

    @property
    def key_sources(self) -> tuple[KeySource, ...]:
        """Where the public keys are that ``verify`` needs."""
        return ()

    def identity_call(self) -> ApiRequest | None:
        """Build the request that asks who the bot is, None where its events or settings tell that."""
        return None

    def identified(self, answer: ApiResponse) -> Self:  # noqa: ARG002 - only who asks reads an answer
        """Return this adapter, knowing who the bot is if the answer tells."""
        return self

    def reached_at(self, url: str) -> Self:  # noqa: ARG002 - most platforms tell it themselves
        """Return this adapter, knowing the public url of its webhook."""
        return self

    def token_call(self, now: float) -> ApiRequest | None:  # noqa: ARG002
        """Build the request for an access token (RFC 6749, section 5.1), None where the settings hold one."""
        return None

    def missed(self, answer: ApiResponse) -> tuple[Inbound, ...]:  # noqa: ARG002
        """Read the answer to a request that looks back, oldest first; what is known already is no harm."""
        return ()

    def lookup(self, inbound: Inbound) -> ApiRequest | None:  # noqa: ARG002
        """Build the request for what an event does not tell and policy or session need, None where it tells all."""
        return None

    def completed(self, inbound: Inbound, answer: ApiResponse | None) -> Inbound | None:  # noqa: ARG002
        """Return the event with what ``lookup`` found, None where the platform has to deliver it again."""
        return inbound

    def name_calls(self, inbound: Inbound) -> tuple[ApiRequest, ...]:  # noqa: ARG002
        """Build the requests for what people call an event's session, the best first; none where events tell it."""
        return ()

    def told_name(self, answer: ApiResponse) -> str:  # noqa: ARG002 - only who asks reads an answer
        """Read the name that a success of one of ``name_calls`` tells, empty for none."""
        return ""

    def life_sign(self, address: bytes, activity: str) -> ApiRequest | None:  # noqa: ARG002
        """Build the request that shows that a turn runs; words stand behind the bot's name: ``is thinking…``."""
        return None

    def preview(self, reply: Reply) -> ApiRequest | None:  # noqa: ARG002
        """Build the request that shows the beginning of an answer while it is written, None where none can be shown."""
        return None

    def shown(self, reply: Reply, answer: ApiResponse) -> SendResult | Cancelled:
        """Say what the platform's answer to ``preview`` means; WithoutThread goes on at another address."""
        return self.result(reply, answer)

    def placed(self, address: bytes, sent_id: str, shown: str = "") -> bytes:  # noqa: ARG002
        """Return the address of an answer whose beginning is shown as this message: ``call`` writes over it.

        ``sent_id`` is empty for the message that the address has already, ``shown`` where nobody knows what is there.
        """
        return address

    def declined(self, text: str) -> WebhookResponse | None:  # noqa: ARG002
        """Build the answer to an event of which nothing comes, where people see one awaited; None where they do not."""
        return None

    def moved(self, address: bytes, place: bytes) -> bytes:  # noqa: ARG002
        """Return where a reply to an address of a chat goes since the chat is at another place."""
        return place

    def fetch(self, file: File, answer: ApiResponse | None = None) -> ApiRequest | None:  # noqa: ARG002
        """Build the request for a file, or the one after the ``answer`` to it; None where that is the file itself."""
        return None

    def upload(
        self,
        reply: Reply,  # noqa: ARG002 - a platform that takes files reads them all
        file: Attachment,  # noqa: ARG002
        data: bytes,  # noqa: ARG002
        answers: Sequence[ApiResponse] = (),  # noqa: ARG002
    ) -> ApiRequest | SendResult | None:
        """Build the request that sends a file, or what follows the ``answers`` so far: a request, or what came of it.

        Only the last request posts it, so that to begin anew shows nothing twice. None where no files can be sent.
        """
        return None

    def token_test(self) -> ApiRequest | None:
        """Build a request that the platform refuses unless it takes our token; None where the settings hold none."""
        return self.identity_call() or self.registration_call()

    def registration_call(self) -> ApiRequest | None:
        """Build the request that asks where the platform posts its events, None where it does not tell."""
        return None

    def registration(self, answer: ApiResponse) -> Registration | None:  # noqa: ARG002 - only who asks reads an answer
        """Read the answer to ``registration_call``, None where it tells nothing."""
        return None

    def handshake(self, url: str, now: float) -> ApiRequest | None:  # noqa: ARG002
        """Build a request to the webhook that is signed as the platform signs, and of which nothing comes.

        None where the platform alone can sign one, or where each is a message.
        """
        return None

    def setup(self, url: str) -> Setup:
        """Say how the platform learns of the webhook's public url."""
        raise NotImplementedError
