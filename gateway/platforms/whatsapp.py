"""WhatsApp Cloud API: webhooks of Meta's Graph API in, messages out. https://developers.facebook.com/docs/whatsapp

One request carries many messages of many people, and is repeated for a week until it is answered with 200: one message
that cannot be read must not hold up the others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import ClassVar

import msgspec

from gateway.chunking import utf16_units
from gateway.formatting import WHATSAPP
from gateway.platforms.api_call import get_call, json_call, multipart_call, read_answer
from gateway.platforms.decode import as_key_part, as_text, as_title, decode, decode_or_none, each_readable
from gateway.platforms.json_api import AnswerShape, ErrorCodes, JsonApiAdapter, Place, TextLimit
from gateway.platforms.port import (
    MEBIBYTE,
    ApiRequest,
    ApiResponse,
    Capabilities,
    File,
    Inbound,
    Kind,
    Parsed,
    Rate,
    SendResult,
    Setup,
    WebhookRequest,
    WebhookResponse,
)
from gateway.platforms.signature import HmacSignature, same
from gateway.platforms.whatsapp_event import Contact, Message, Value, Webhook
from shared.approvals import choices
from shared.attachments import Attachment
from shared.errors import BodyRejected, SignatureRejected
from shared.messages import Reply, session_key
from shared.platform_settings import WhatsAppSettings

#: the limit of a pair, one message in six seconds
PAIR_LIMIT, PAIR_S = 131056, 6.0
#: what a message with buttons may say; a longer question comes without, and people write their answer
MOST_ASKED = 1024
#: media types of documents that are taken: https://developers.facebook.com/docs/whatsapp/cloud-api/reference/media
DOCUMENTS = frozenset(
    "text/plain application/pdf application/msword application/vnd.ms-excel application/vnd.ms-powerpoint "
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document "
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet "
    "application/vnd.openxmlformats-officedocument.presentationml.presentation".split()
)
FILE_HOSTS = ("https://lookaside.fbsbx.com/", "https://graph.facebook.com/")

SIGNATURE = HmacSignature(header="x-hub-signature-256", prefix="sha256=", hint="WHATSAPP_APP_SECRET must be this app's")


class Address(Place, frozen=True):
    """Where a reply goes: a phone number, a business-scoped user id or a group, and the message it answers."""

    to: str
    message_id: str
    kind: str = "individual"
    by_user_id: bool = False


class KeptFile(msgspec.Struct, frozen=True):
    """What Meta calls a file that was brought to it."""

    id: str = ""


class FileAnswer(msgspec.Struct, frozen=True):
    """Where a file lies for a while."""

    url: str = ""


class WhatsApp(JsonApiAdapter, frozen=True):
    """The adapter of one business number; Meta repeats for seven days, so ids are kept eight."""

    settings: WhatsAppSettings

    name: ClassVar[str] = "whatsapp"
    capabilities: ClassVar[Capabilities] = Capabilities(
        signature_headers=frozenset({SIGNATURE.header}),
        dedupe_ttl_s=8 * 86400.0,
        open_to_strangers=True,
        methods=("GET", "POST"),
        most_body_bytes=4 * MEBIBYTE,
        app_rates=(Rate(80, 1.0),),
        life_sign_every_s=20.0,
    )
    place: ClassVar[type[Address]] = Address
    writes: ClassVar[TextLimit] = TextLimit(4096, WHATSAPP)
    answers: ClassVar[AnswerShape] = AnswerShape(
        id="messages.0.id", ok="messages.0.id", code="error.code", said="error.message"
    )
    codes: ClassVar[ErrorCodes] = ErrorCodes(
        passing=frozenset({4, 190, 80007, 130429, 131000, 131048, PAIR_LIMIT}),
        waits_s={PAIR_LIMIT: PAIR_S},
        gone=frozenset({368, 131026, 131030, 131031, 131047}),
    )
    chat_rates: ClassVar[tuple[Rate, ...]] = (Rate(10, 60.0),)  # to a person, in bursts

    def verify(self, req: WebhookRequest) -> None:
        """Check the signature over the body, or the verify token of a handshake."""
        if req.method == "GET":
            if req.query.get("hub.mode") != "subscribe" or not same(
                req.query.get("hub.verify_token", ""), self.settings.verify_token
            ):
                raise SignatureRejected("hub.verify_token does not match WHATSAPP_VERIFY_TOKEN")
            return
        SIGNATURE.check(self.settings.app_secret, req.headers, req.raw, req.now)

    def parse(self, req: WebhookRequest) -> Parsed:
        """Read all messages of a request; statuses, echoes and what is not ours are ignored."""
        if req.method == "GET":
            challenge = req.query.get("hub.challenge", "")
            return Parsed(WebhookResponse(body=challenge.encode(), media="text/plain"), ignored="handshake")
        inbound = tuple(self._messages(decode(req.raw, Webhook, "a webhook of the Graph API")))
        return Parsed(WebhookResponse(body=b""), inbound, "" if inbound else "no message of a person")

    def _messages(self, webhook: Webhook) -> Iterator[Inbound]:
        for change in webhook.changes:
            value = decode_or_none(bytes(change.value), Value) if change.field == "messages" else None
            if value is None or value.metadata.phone_number_id != self.settings.phone_number_id:
                continue
            for message in each_readable(value.messages, Message):
                with contextlib.suppress(BodyRejected):
                    if found := self._inbound(message, value.contact_of(message)):
                        yield found

    def _inbound(self, message: Message, contact: Contact) -> Inbound | None:
        user = as_key_part(contact.user_id or contact.wa_id or message.sender, "from")
        group = message.group_id and as_key_part(message.group_id, "group_id")
        text = as_text(message.words)
        kind, amends = message.kind, message.amends
        if kind is None or not (text or message.files or kind is Kind.DELETE):
            return None
        to = group or contact.wa_id or message.sender or user
        by_user_id = to == contact.user_id
        address = Address(to, message.id, "group" if group else "individual", by_user_id)
        return Inbound(
            kind=kind,
            session=session_key(self.name, self.settings.phone_number_id, group or user),
            dedupe=(f"whatsapp:{message.id}",),
            user=user,
            text=text,
            direct=not group,
            mentioned=bool(message.context and message.context.sender == self.settings.phone_number_id),
            reply=address.packed,
            context="(forwarded)" if message.forwarded else "",
            files=message.files,
            amends=f"whatsapp:{amends}" if amends else "",
            title="" if group else as_title(contact.profile.name),
        )

    def call(self, reply: Reply, now: float, *, plain: bool = False) -> ApiRequest:  # noqa: ARG002 - any text is fine
        """Build a text message; the first of an answer quotes what it answers."""
        address = Address.of(reply.address)
        body: dict[str, object] = {
            "messaging_product": "whatsapp",
            "recipient_type": address.kind,
            "recipient" if address.by_user_id else "to": address.to,
            "type": "text",
            "text": {"body": reply.text, "preview_url": False},
        }
        if reply.question and address.kind == "individual" and utf16_units(reply.text) <= MOST_ASKED:
            del body["text"]
            body |= {"type": "interactive", "interactive": asked(reply.text, reply.question)}
        if reply.begins:
            body["context"] = {"message_id": address.message_id}
        return self._post(body)

    def life_sign(self, address: bytes, activity: str) -> ApiRequest:  # noqa: ARG002 - it shows no words
        """Mark the message as read and show that something is typed, for 25 s at the most."""
        message_id = Address.of(address).message_id
        return self._post(
            {
                "messaging_product": "whatsapp",
                "status": "read",
                "message_id": message_id,
                "typing_indicator": {"type": "text"},
            }
        )

    def upload(
        self, reply: Reply, file: Attachment, data: bytes, answers: Sequence[ApiResponse] = ()
    ) -> ApiRequest | SendResult | None:
        """Bring the file to Meta, then send a document; what is of no type that it takes is not sent."""
        kind = file.media_type if file.media_type in DOCUMENTS else "text/plain"
        if kind != file.media_type and not file.media_type.startswith("text/"):
            return None
        if not answers:
            fields = {"messaging_product": "whatsapp", "type": kind}
            headers = {"authorization": f"Bearer {self.settings.access_token}"}
            sent = msgspec.structs.replace(file, media_type=kind)
            return multipart_call(
                self._url(f"{self.settings.phone_number_id}/media"), fields, "file", sent, data, headers
            )
        kept = read_answer(answers[0], KeptFile) if answers[0].status == 200 else None
        if len(answers) == 2 or kept is None or not kept.id:
            return self.result(reply, answers[-1])
        address = Address.of(reply.address)
        return self._post(
            {
                "messaging_product": "whatsapp",
                "recipient_type": address.kind,
                "recipient" if address.by_user_id else "to": address.to,
                "type": "document",
                "document": {"id": kept.id, "filename": file.name},
            }
        )

    def fetch(self, file: File, answer: ApiResponse | None = None) -> ApiRequest | None:
        """A file's id leads to a short-lived url on one of Meta's hosts, which wants the token too."""
        if answer is None:
            return get_call(self._url(as_key_part(file.id, "media id")), self.settings.access_token)
        found = read_answer(answer, FileAnswer)
        url = found.url if found else ""
        mine = url.startswith((*FILE_HOSTS, self.settings.api_base))
        return get_call(url, self.settings.access_token) if mine else None

    def token_test(self) -> ApiRequest:
        """Ask for the phone number."""
        return get_call(self._url(self.settings.phone_number_id), self.settings.access_token)

    def handshake(self, url: str, now: float) -> ApiRequest:  # noqa: ARG002 - Meta signs no time
        """Build a webhook without an entry."""
        raw = b'{"object":"whatsapp_business_account","entry":[]}'
        signature = SIGNATURE.sign(self.settings.app_secret, raw)
        return ApiRequest(url, {"content-type": "application/json", SIGNATURE.header: signature}, raw)

    def setup(self, url: str) -> Setup:
        """The webhook is set by hand; Meta calls it while it is set."""
        return Setup(
            f"In the app's dashboard, WhatsApp > Configuration: callback url {url}, verify token as in "
            "WHATSAPP_VERIFY_TOKEN, and subscribe to the field messages."
        )

    def _post(self, body: object) -> ApiRequest:
        return json_call(self._url(f"{self.settings.phone_number_id}/messages"), body, self.settings.access_token)

    def _url(self, path: str) -> str:
        return f"{self.settings.api_base}/{self.settings.api_version}/{path}"


def asked(text: str, question: str) -> dict[str, object]:
    """Return a question with its buttons; groups take none."""
    buttons = [{"type": "reply", "reply": {"id": choice.says, "title": choice.label}} for choice in choices(question)]
    return {"type": "button", "body": {"text": text}, "action": {"buttons": buttons}}
