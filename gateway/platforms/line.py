"""LINE: webhooks of the Messaging API in, reply and push messages out. https://developers.line.biz/en/reference/messaging-api

A reply token is good for one call within a minute and costs nothing; what comes later is pushed.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec

from gateway.platforms.api_call import get_call, json_call, read_answer
from gateway.platforms.decode import as_key_part, as_text, as_title, decode, each_readable
from gateway.platforms.json_api import AnswerShape, ApiAnswer, JsonApiAdapter, Place, TextLimit
from gateway.platforms.line_event import Endpoint, Event, Named, Webhook
from gateway.platforms.port import (
    ApiRequest,
    ApiResponse,
    Capabilities,
    File,
    Inbound,
    Kind,
    Parsed,
    Rate,
    Registration,
    SendResult,
    Sent,
    Setup,
    WebhookRequest,
    WebhookResponse,
)
from gateway.platforms.signature import HmacSignature, in_base64
from shared.approvals import choices
from shared.errors import BodyRejected
from shared.messages import Reply, session_key
from shared.platform_settings import LineSettings

#: how long a reply token is used; it lives about a minute from the webhook on
TOKEN_S = 50.0

#: makes the retry key of a push from a reply's own key
RETRY_KEYS = uuid.UUID("6f1b0c1e-7a52-4a1c-9a6e-1d8f2f4c5b90")

SIGNATURE = HmacSignature(
    header="x-line-signature", written=in_base64, hint="LINE_CHANNEL_SECRET must be this channel's"
)


class Address(Place, frozen=True):
    """Where a reply goes: by the token while it is good, then to the person or group."""

    to: str
    token: str = ""
    until: float = 0.0
    quote: str = ""
    person: bool = False


class Line(JsonApiAdapter, frozen=True):
    """The adapter of one channel."""

    settings: LineSettings

    name: ClassVar[str] = "line"
    capabilities: ClassVar[Capabilities] = Capabilities(
        signature_headers=frozenset({SIGNATURE.header}),
        dedupe_ttl_s=48 * 3600.0,
        open_to_strangers=True,
        app_rates=(Rate(2000, 1.0),),
        limits_methods_apart=True,
        life_sign_every_s=50.0,
        idempotent=True,
    )
    place: ClassVar[type[Address]] = Address
    writes: ClassVar[TextLimit] = TextLimit(5000)
    answers: ClassVar[AnswerShape] = AnswerShape(id="sentMessages.0.id", said="message", always_json=False)

    def verify(self, req: WebhookRequest) -> None:
        """Check the signature over the body."""
        SIGNATURE.check(self.settings.channel_secret, req.headers, req.raw, req.now)

    def parse(self, req: WebhookRequest) -> Parsed:
        """Read all events of a request."""
        webhook = decode(req.raw, Webhook, "a webhook of the Messaging API")
        inbound = tuple(self._events(webhook, req.now))
        return Parsed(WebhookResponse(body=b""), inbound, "" if inbound else "no message of a person")

    def _events(self, webhook: Webhook, now: float) -> Iterator[Inbound]:
        for event in each_readable(webhook.events, Event):
            with contextlib.suppress(BodyRejected):
                if event.mode == "active" and (found := self._inbound(webhook.destination, event, now)):
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
        person = event.source.type == "user"
        same_message = (f"line:{message.id}",) if message.id else ()
        return Inbound(
            kind=kind,
            session=session_key(self.name, as_key_part(destination, "destination"), place),
            dedupe=(f"line:{as_key_part(event.webhook_event_id, 'webhookEventId')}", *same_message),
            user=user,
            text=text,
            direct=person,
            mentioned=any(one.is_self for one in message.mention.mentionees),
            reply=Address(place, event.reply_token, now + TOKEN_S, message.quote_token, person).packed,
            files=files,
            amends=f"line:{event.unsend.message_id}" if kind is Kind.DELETE else "",
        )

    def call(self, reply: Reply, now: float, *, plain: bool = False) -> ApiRequest:  # noqa: ARG002 - it is always plain
        """Use the reply token for the beginning of an answer while it is good; push everything else."""
        address = Address.of(reply.address)
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
        """409 says that an earlier push with this key was taken."""
        return Sent("") if answer.status == 409 else super().result(reply, answer)

    def elsewhere(self, reply: Reply, found: ApiAnswer) -> bytes | None:
        """A reply token that is spent or too old is given up for a push."""
        address = Address.of(reply.address)
        return address.but(token="", quote="") if found.status == 400 and address.token else None

    def life_sign(self, address: bytes, activity: str) -> ApiRequest | None:  # noqa: ARG002 - it shows no words
        """Show that something loads, for a minute; only to a person."""
        place = Address.of(address)
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

    def name_calls(self, inbound: Inbound) -> tuple[ApiRequest, ...]:
        """Ask for a person's profile, or a group's summary; a room of several has no name."""
        place = inbound.session.split(":")[2]
        paths = {"U": f"profile/{place}", "C": f"group/{place}/summary"}
        path = paths.get(place[:1])
        url = f"{self.settings.api_base}/v2/bot/{path}"
        return (get_call(url, self.settings.channel_access_token),) if path else ()

    def told_name(self, answer: ApiResponse) -> str:
        """Read it from either."""
        found = read_answer(answer, Named)
        return as_title(found.group_name, found.display_name) if found else ""

    def token_test(self) -> ApiRequest:
        """Ask who the bot is."""
        return get_call(f"{self.settings.api_base}/v2/bot/info", self.settings.channel_access_token)

    def registration_call(self) -> ApiRequest:
        """Ask for the endpoint."""
        url = f"{self.settings.api_base}/v2/bot/channel/webhook/endpoint"
        return get_call(url, self.settings.channel_access_token)

    def registration(self, answer: ApiResponse) -> Registration | None:
        """Read the endpoint, and whether it is used; there may be none, which is a 404."""
        found = read_answer(answer, Endpoint)
        off = "'Use webhook' is off in the LINE Developers Console"
        return Registration(found.endpoint, "" if found.active else off) if found else None

    def handshake(self, url: str, now: float) -> ApiRequest:  # noqa: ARG002 - LINE signs no time
        """Build the request without an event that LINE sends as a test."""
        raw = b'{"destination":"","events":[]}'
        signature = SIGNATURE.sign(self.settings.channel_secret, raw)
        return ApiRequest(url, {"content-type": "application/json", SIGNATURE.header: signature}, raw)

    def _post(self, path: str, body: object) -> ApiRequest:
        return json_call(f"{self.settings.api_base}/v2/bot/{path}", body, self.settings.channel_access_token)
