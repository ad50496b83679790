"""The plain way in and out: Standard Webhooks, signed with a shared secret in both directions.

In: ``{"session": str, "user": str, "text": str}``, and ``files``: ``[{"name", "media_type", "data": base64}]``, or
``url`` in place of ``data``.
Out: ``{"session", "message", "text", "status"}``, whose ``webhook-id`` stays the same over every attempt.
https://www.standardwebhooks.com, specification 1.0.0.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import re
from typing import ClassVar

import msgspec

from gateway.platforms.api_call import get_call
from gateway.platforms.decode import decode
from gateway.platforms.port import (
    MOST_TEXT,
    Adapter,
    ApiRequest,
    ApiResponse,
    Capabilities,
    Chat,
    Fail,
    File,
    Gone,
    Inbound,
    Kind,
    Parsed,
    SendResult,
    Sent,
    Setup,
    TryLater,
    WebhookRequest,
)
from gateway.platforms.signature import check_timestamp, required_header, same
from shared.attachments import Upload
from shared.errors import BodyRejected, SignatureRejected
from shared.messages import Reply, session_key
from shared.platform_settings import StandardSettings
from shared.retry import retry_after_s

#: longest session and user names and webhook ids, in characters
MOST_NAME = 200
MOST_URL = 2000

#: the 4xx answers of a receiver that say "not now" and not "never"
TRANSIENT = frozenset({408, 409, 425, 429})

RETRIED_S = 4 * 24 * 3600.0

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class BodyFile(msgspec.Struct, frozen=True):
    """A file that goes with a message: ``data``, which is base64, or the http(s) ``url`` where it lies."""

    data: bytes = b""
    url: str = ""
    name: str = "file"
    media_type: str = ""


class Body(msgspec.Struct, frozen=True):
    """What a sender posts."""

    session: str
    user: str
    text: str
    files: tuple[BodyFile, ...] = ()


class Address(msgspec.Struct, frozen=True):
    """Where a reply belongs: the sender's own session name."""

    session: str


class ReplyBody(msgspec.Struct, frozen=True):
    """What is posted to the reply url."""

    session: str
    message: str
    text: str
    status: str


class Standard(Adapter, frozen=True):
    """The adapter; senders retry for about 76 hours, so ids are kept four days."""

    settings: StandardSettings

    name: ClassVar[str] = "standard"
    capabilities: ClassVar[Capabilities] = Capabilities(
        signature_headers=frozenset(
            f"{prefix}-{part}" for prefix in ("webhook", "svix") for part in ("id", "timestamp", "signature")
        ),
        dedupe_ttl_s=RETRIED_S,
        announces_queue_position=False,
        on_internet=False,
        idempotent=True,
    )

    def verify(self, req: WebhookRequest) -> None:
        """Check id, timestamp and signature over ``id.timestamp.body``; any matching v1 entry is enough."""
        prefix = prefix_of(req)
        webhook_id = required_header(req.headers, f"{prefix}-id")
        timestamp = required_header(req.headers, f"{prefix}-timestamp")
        entries = required_header(req.headers, f"{prefix}-signature").split(" ")
        if len(webhook_id) > MOST_NAME:
            raise SignatureRejected(f"webhook-id is longer than {MOST_NAME} characters")
        check_timestamp("webhook-timestamp", timestamp, req.now)
        expected = sign(self.settings.secret, webhook_id, timestamp, req.raw)
        if all(entry.startswith("v1a,") for entry in entries):
            raise SignatureRejected("webhook-signature has v1a (Ed25519) alone, which is not taken: sign with v1")
        if not any(same(expected, entry) for entry in entries):
            raise SignatureRejected(
                "webhook-signature does not match: sign `id.timestamp.body` with STANDARD_WEBHOOK_SECRET"
            )

    def parse(self, req: WebhookRequest) -> Parsed:
        """Read a message; what is wrong with a field is said with its name."""
        body = decode(req.raw, Body, '{"session": text, "user": text, "text": text}')
        check_name("session", body.session)
        check_name("user", body.user)
        check_text(body.text)
        for file in body.files:
            check_file(file)
        inbound = Inbound(
            kind=Kind.MESSAGE,
            session=session_key(self.name, "default", body.session),
            dedupe=(f"standard:{req.headers[prefix_of(req) + '-id']}",),
            user=body.user,
            text=body.text,
            direct=True,
            mentioned=False,
            reply=msgspec.json.encode(Address(body.session)),
            files=tuple(File("", file.name, file.media_type, 0, file.url) for file in body.files if file.url),
            uploads=tuple(Upload(file.name, file.media_type, file.data) for file in body.files if not file.url),
        )
        return Parsed(inbound=(inbound,))

    def chunks(self, markdown: str) -> list[str]:
        """Return the text as it is: a receiver takes any length."""
        return [markdown]

    def call(self, reply: Reply, now: float, *, plain: bool = False) -> ApiRequest:  # noqa: ARG002 - the text is never marked up
        """Build the signed post; the id is the same over attempts, time and signature are new."""
        address = msgspec.json.decode(reply.address, type=Address)
        body = msgspec.json.encode(ReplyBody(address.session, reply.message_id, reply.text, reply.status.value))
        timestamp = str(int(now))
        headers = {
            "content-type": "application/json",
            "webhook-id": reply.idempotency_key,
            "webhook-timestamp": timestamp,
            "webhook-signature": sign(self.settings.secret, reply.idempotency_key, timestamp, body),
        }
        return ApiRequest(self.settings.reply_url, headers, body)

    def result(self, reply: Reply, answer: ApiResponse) -> SendResult:
        """2xx took it, under its webhook id; 410 and other 4xx refuse it for good; redirects are not followed."""
        match answer.status:
            case status if 200 <= status < 300:
                return Sent(reply.idempotency_key)
            case status if 300 <= status < 400:
                return TryLater(
                    f"HTTP {status}: redirects are not followed; STANDARD_WEBHOOK_REPLY_URL must be the final url"
                )
            case 410:
                return Gone("HTTP 410: the receiver wants no more")
            case status if 400 <= status < 500 and status not in TRANSIENT:
                return Fail(f"HTTP {status}: the receiver refused the reply")
            case status:
                return TryLater(f"HTTP {status}", retry_after_s(answer.headers))

    def fetch(self, file: File, answer: ApiResponse | None = None) -> ApiRequest | None:
        """A file lies where its sender says."""
        return get_call(file.url) if answer is None else None

    def setup(self, url: str) -> Setup:
        """A sender signs with the shared secret."""
        return Setup(
            f'Post {{"session", "user", "text"}} to {url}, signed with STANDARD_WEBHOOK_SECRET: webhook-signature is '
            "`v1,` and the base64 of the HMAC-SHA256 of `webhook-id.webhook-timestamp.body`."
        )

    def chat(self, address: bytes) -> Chat:
        """A receiver takes what comes and says 429 where it does not."""
        return Chat(msgspec.json.decode(address, type=Address).session, ())


def prefix_of(req: WebhookRequest) -> str:
    """Return what the names of a request's headers begin with: Svix keeps names of its own."""
    return "svix" if "svix-signature" in req.headers and "webhook-signature" not in req.headers else "webhook"


def sign(secret: str, webhook_id: str, timestamp: str, body: bytes) -> str:
    """Return the ``v1,…`` signature; ``secret`` is ``whsec_`` and base64, padding optional."""
    signature = keyed(secret).copy()
    signature.update(b".".join((webhook_id.encode(), timestamp.encode(), body)))
    return "v1," + base64.b64encode(signature.digest()).decode()


@functools.lru_cache(maxsize=4)
def keyed(secret: str) -> hmac.HMAC:
    """Return the beginning of every signature with a secret."""
    return hmac.new(base64.b64decode(secret.removeprefix("whsec_") + "=="), digestmod=hashlib.sha256)


def check_name(field: str, value: str) -> None:
    """Check a name that becomes part of keys. Raises BodyRejected."""
    if not value.strip():
        raise BodyRejected(f"{field} is empty; give it 1 to {MOST_NAME} characters")
    if len(value) > MOST_NAME:
        raise BodyRejected(f"{field} has {len(value)} characters; {MOST_NAME} are the most")
    if CONTROL.search(value):
        raise BodyRejected(f"{field} holds control characters; use printable ones only")
    if "\N{REPLACEMENT CHARACTER}" in value:  # two names that are not alike must not become one
        raise BodyRejected(f"{field} holds what is no whole character; write it anew")


def check_file(file: BodyFile) -> None:
    """Check a file. Raises BodyRejected."""
    if file.url and file.data:
        raise BodyRejected("a file brings its data or its url, not both")
    if file.url and (not file.url.startswith(("http://", "https://")) or len(file.url) > MOST_URL):
        raise BodyRejected(f"the url of a file begins with https:// or http:// and has at most {MOST_URL} characters")


def check_text(text: str) -> None:
    """Check a message's text. Raises BodyRejected."""
    if not text.strip():
        raise BodyRejected("text is empty; say something")
    if len(text) > MOST_TEXT:
        raise BodyRejected(f"text has {len(text)} characters; {MOST_TEXT} are the most")
    if "\0" in text:
        raise BodyRejected("text holds a NUL character; remove it")
