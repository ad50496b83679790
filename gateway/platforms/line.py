"""LINE: webhooks of the Messaging API in, reply and push messages out. https://developers.line.biz/en/reference/messaging-api

A reply token is good for one call within a minute and costs nothing; what comes later is pushed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import uuid
from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec

from gateway.chunking import cut
from gateway.formatting import PLAIN
from gateway.platforms.api_call import get_call, json_call, read_answer, refused
from gateway.platforms.decode import Int64, as_key_part, as_text, decode, decode_or_none, utf16_slice
from gateway.platforms.port import (
    EMPTY,
    Adapter,
    ApiRequest,
    ApiResponse,
    Capabilities,
    Chat,
    File,
    Inbound,
    Kind,
    Parsed,
    Rate,
    SendResult,
    Sent,
    Setup,
    WebhookRequest,
    WebhookResponse,
    WithoutThread,
)
from gateway.platforms.signature import required_header, same
from shared.approvals import choices
from shared.errors import BodyRejected, SignatureRejected
from shared.messages import Reply, session_key
from shared.platform_settings import LineSettings

#: 5,000 UTF-16 units
MOST_UNITS = 5000

#: how long a reply token is used; it lives about a minute from the webhook on
TOKEN_S = 50.0

#: makes the retry key of a push from a reply's own key
RETRY_KEYS = uuid.UUID("6f1b0c1e-7a52-4a1c-9a6e-1d8f2f4c5b90")

FILES = frozenset({"image", "video", "audio", "file"})


class Source(msgspec.Struct, frozen=True, rename="camel"):
    """Where it was said; in groups the person may be missing."""

    type: str = ""
    user_id: str = ""
    group_id: str = ""
    room_id: str = ""

    @property
    def place(self) -> str:
        """The group, the room or the person."""
        return self.group_id or self.room_id or self.user_id


class Mentionee(msgspec.Struct, frozen=True, rename="camel"):
    """A name in a text; index and length are taken as UTF-16 units."""

    index: Int64 = 0
    length: Int64 = 0
    is_self: bool = False


class Mention(msgspec.Struct, frozen=True, rename="camel"):
    """The names in a text."""

    mentionees: tuple[Mentionee, ...] = ()


class ContentProvider(msgspec.Struct, frozen=True, rename="camel"):
    """Who keeps what was attached: LINE, or the app that sent it in a user's name."""

    type: str = ""
    original_content_url: str = ""


class Message(msgspec.Struct, frozen=True, rename="camel"):
    """What was said or attached."""

    type: str = ""
    id: str = ""
    text: str = ""
    quote_token: str = ""
    quoted_message_id: str = ""
    file_name: str = ""
    title: str = ""
    address: str = ""
    mention: Mention = Mention()
    content_provider: ContentProvider = ContentProvider()

    @property
    def files(self) -> tuple[File, ...]:
        """What was attached. Raises BodyRejected."""
        if self.type not in FILES:
            return ()
        external = self.content_provider.type == "external"
        url = self.content_provider.original_content_url if external else ""
        return (File(as_key_part(self.id, "id"), self.file_name or self.type, url=url),)

    @property
    def words(self) -> str:
        """The text without our own name before it; what cannot be read is named."""
        match self.type:
            case "text":
                ours = [one for one in self.mention.mentionees if one.is_self and one.index == 0]
                name = utf16_slice(self.text, 0, ours[0].length) if ours else ""
                return as_text(self.text.removeprefix(name)) or as_text(self.text)
            case "location":
                return as_text(f"(a place: {self.title} {self.address})")
            case kind if kind in FILES:
                return ""
            case kind:
                return f"(attached, not readable here: {kind})"


class Postback(msgspec.Struct, frozen=True):
    """What a pressed button stands for."""

    data: str = ""


class Unsend(msgspec.Struct, frozen=True, rename="camel"):
    """The message that was taken back."""

    message_id: str = ""


class Event(msgspec.Struct, frozen=True, rename="camel"):
    """One event."""

    type: str
    webhook_event_id: str = ""
    mode: str = "active"
    source: Source = Source()
    reply_token: str = ""
    message: Message = Message()
    postback: Postback = Postback()
    unsend: Unsend = Unsend()


class Webhook(msgspec.Struct, frozen=True):
    """A whole request; an event is read by itself, so that one of a new kind holds up no other."""

    destination: str = ""
    events: tuple[msgspec.Raw, ...] = ()


class Address(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a reply goes: by the token while it is good, then to the person or group."""

    to: str
    token: str = ""
    until: float = 0.0
    quote: str = ""
    person: bool = False


class SentMessage(msgspec.Struct, frozen=True):
    """A message that was taken."""

    id: str = ""


class ApiAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """Any answer of the Messaging API."""

    message: str = ""
    sent_messages: tuple[SentMessage, ...] = ()


class Line(Adapter, frozen=True):
    """The adapter of one channel."""

    settings: LineSettings

    name: ClassVar[str] = "line"
    capabilities: ClassVar[Capabilities] = Capabilities(
        signature_headers=frozenset({"x-line-signature"}),
        dedupe_ttl_s=48 * 3600.0,
        open_to_strangers=True,
        app_rates=(Rate(2000, 1.0),),
        life_sign_every_s=50.0,
        idempotent=True,
    )

    def verify(self, req: WebhookRequest) -> None:
        """Check the signature over the body."""
        signature = required_header(req.headers, "x-line-signature")
        expected = hmac.digest(self.settings.channel_secret.encode(), req.raw, hashlib.sha256)
        if not same(signature, base64.b64encode(expected).decode()):
            raise SignatureRejected("x-line-signature does not match: LINE_CHANNEL_SECRET must be this channel's")

    def parse(self, req: WebhookRequest) -> Parsed:
        """Read all events of a request."""
        webhook = decode(req.raw, Webhook, "a webhook of the Messaging API")
        inbound = tuple(self._events(webhook, req.now))
        return Parsed(WebhookResponse(body=b""), inbound, "" if inbound else "no message of a person")

    def _events(self, webhook: Webhook, now: float) -> Iterator[Inbound]:
        for raw in webhook.events:
            event = decode_or_none(bytes(raw), Event)
            if event and event.mode == "active":
                with contextlib.suppress(BodyRejected):
                    if found := self._inbound(webhook.destination, event, now):
                        yield found

    def _inbound(self, destination: str, event: Event, now: float) -> Inbound | None:
        kinds = {"message": Kind.MESSAGE, "postback": Kind.ACTION, "unsend": Kind.DELETE}
        message, kind = event.message, kinds.get(event.type)
        if kind is None:
            return None
        place = as_key_part(event.source.place, "the source")
        user = as_key_part(event.source.user_id or place, "userId")
        files = message.files if kind is Kind.MESSAGE else ()
        text = message.words if kind is Kind.MESSAGE else as_text(event.postback.data)
        if not text and not files and kind is not Kind.DELETE:
            return None
        same_message = (f"line:{message.id}",) if message.id else ()
        return Inbound(
            kind=kind,
            session=session_key(self.name, as_key_part(destination, "destination"), place),
            dedupe=(f"line:{as_key_part(event.webhook_event_id, 'webhookEventId')}", *same_message),
            user=user,
            text=text,
            direct=event.source.type == "user",
            mentioned=any(one.is_self for one in message.mention.mentionees),
            reply=msgspec.json.encode(
                Address(place, event.reply_token, now + TOKEN_S, message.quote_token, event.source.type == "user")
            ),
            files=files,
            amends=f"line:{event.unsend.message_id}" if kind is Kind.DELETE else "",
        )

    def chunks(self, markdown: str) -> list[str]:
        """Cut an answer into plain texts: LINE shows no marks."""
        return cut(markdown, MOST_UNITS, PLAIN) or [EMPTY]

    def call(self, reply: Reply, now: float, *, plain: bool = False) -> ApiRequest:  # noqa: ARG002 - it is always plain
        """Use the reply token for the beginning of an answer while it is good; push everything else."""
        address = msgspec.json.decode(reply.address, type=Address)
        message: dict[str, Any] = {"type": "text", "text": reply.text}
        if items := [
            {"type": "action", "action": {"type": "postback", "label": choice.label, "data": choice.says}}
            for choice in choices(reply.question)
        ]:
            message["quickReply"] = {"items": items}
        if reply.begins and address.quote:
            message["quoteToken"] = address.quote
        if reply.begins and address.token and now < address.until:
            return self._post("message/reply", {"replyToken": address.token, "messages": [message]})
        call = self._post("message/push", {"to": address.to, "messages": [message]})
        key = {"x-line-retry-key": str(uuid.uuid5(RETRY_KEYS, reply.idempotency_key))}
        return msgspec.structs.replace(call, headers={**call.headers, **key})

    def result(self, reply: Reply, answer: ApiResponse) -> SendResult:
        """Read what was sent; 409 says that an earlier push with this key was taken."""
        api = read_answer(answer, ApiAnswer) or ApiAnswer()
        if answer.status < 300 or answer.status == 409:
            return Sent(api.sent_messages[0].id if api.sent_messages else "")
        address = msgspec.json.decode(reply.address, type=Address)
        if answer.status == 400 and address.token:
            pushed = msgspec.structs.replace(address, token="", quote="")
            return WithoutThread(msgspec.json.encode(pushed), api.message)
        return refused(answer, api.message)

    def chat(self, address: bytes) -> Chat:
        """LINE limits the channel as a whole."""
        return Chat(msgspec.json.decode(address, type=Address).to)

    def life_sign(self, address: bytes, activity: str) -> ApiRequest | None:  # noqa: ARG002 - it shows no words
        """Show that something loads, for a minute; only to a person."""
        place = msgspec.json.decode(address, type=Address)
        return self._post("chat/loading/start", {"chatId": place.to, "loadingSeconds": 60}) if place.person else None

    def fetch(self, file: File, answer: ApiResponse | None = None) -> ApiRequest | None:
        """A message's content lies on a host of its own, or where an app that sent it keeps it."""
        if file.url:
            return get_call(file.url) if answer is None else None
        url = f"{self.settings.data_api_base}/v2/bot/message/{as_key_part(file.id, 'id')}/content"
        return get_call(url, self.settings.channel_access_token) if answer is None else None

    def setup(self, url: str) -> Setup:
        """The webhook is set by a call; the console has to switch it on once."""
        call = msgspec.structs.replace(self._post("channel/webhook/endpoint", {"endpoint": url}), method="PUT")
        test = self._post("channel/webhook/test", {"endpoint": url})
        return Setup("In the LINE Developers Console: switch 'Use webhook' and 'Webhook redelivery' on.", (call, test))

    def _post(self, path: str, body: object) -> ApiRequest:
        return json_call(f"{self.settings.api_base}/v2/bot/{path}", body, self.settings.channel_access_token)
