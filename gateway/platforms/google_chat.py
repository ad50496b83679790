"""Google Chat: events of an app in, messages of the REST API out. https://developers.google.com/workspace/chat

Events come in two shapes: those of a Chat app, and those of a Workspace add-on that also serves Chat.
"""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import quote, urlencode

import jwt
import msgspec

from gateway.formatting import GOOGLE_CHAT
from gateway.platforms.api_call import form_call, json_call, short_key
from gateway.platforms.bearer_token import read_token
from gateway.platforms.decode import as_command, as_key_part, as_text, as_title, decode
from gateway.platforms.edited_message import EditingAdapter, ShownPlace
from gateway.platforms.google_chat_event import Event, Happening
from gateway.platforms.json_api import AnswerShape, TextLimit
from gateway.platforms.port import (
    ApiRequest,
    ApiResponse,
    Capabilities,
    File,
    Inbound,
    KeyFormat,
    KeySource,
    Kind,
    Parsed,
    Rate,
    SendResult,
    Sent,
    Setup,
    WebhookRequest,
    WebhookResponse,
)
from shared.approvals import choices
from shared.errors import SignatureRejected
from shared.messages import Reply, session_key
from shared.platform_settings import GoogleChatSettings, ServiceAccount

CHAT_ISSUER = "chat@system.gserviceaccount.com"
GOOGLE_ISSUERS = ("https://accounts.google.com", "accounts.google.com")
SCOPE = "https://www.googleapis.com/auth/chat.bot"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_S = 3600

NOTHING = WebhookResponse(body=b"{}")


class Address(ShownPlace, frozen=True):
    """Where a reply goes: a space, and a thread in it."""

    space: str
    thread: str = ""


class GoogleChat(EditingAdapter, frozen=True):
    """The adapter of one app."""

    settings: GoogleChatSettings

    name: ClassVar[str] = "google_chat"
    capabilities: ClassVar[Capabilities] = Capabilities(
        signature_headers=frozenset({"authorization"}),
        dedupe_ttl_s=86400.0,
        app_rates=(Rate(3000, 60.0),),
        stream_gap_s=2.0,
        idempotent=True,
    )
    place: ClassVar[type[Address]] = Address
    writes: ClassVar[TextLimit] = TextLimit(4000, GOOGLE_CHAT)  # about 4,096 characters are shown
    answers: ClassVar[AnswerShape] = AnswerShape(
        id="name", code="error.status", said="error.message", always_json=False
    )
    not_edited: ClassVar[frozenset[int | str]] = frozenset({404})
    chat_rates: ClassVar[tuple[Rate, ...]] = (Rate(1, 1.0),)

    @property
    def by_project(self) -> bool:
        """Whether tokens are made out to the project's number, and not to the webhook's url."""
        return self.settings.audience.isdigit()

    @property
    def key_sources(self) -> tuple[KeySource, ...]:
        """Chat signs tokens for a project itself; those for a url are Google's identity tokens."""
        path = f"service_accounts/v1/metadata/x509/{CHAT_ISSUER}" if self.by_project else "oauth2/v1/certs"
        return (KeySource(f"{self.settings.certificates_base}/{path}", KeyFormat.CERTIFICATES),)

    def verify(self, req: WebhookRequest) -> None:
        """Check the bearer token; an identity token has to be Chat's own, or that of our own add-on."""
        issuers = (CHAT_ISSUER,) if self.by_project else GOOGLE_ISSUERS
        claims = read_token(req, issuers, (self.settings.audience,))
        if self.by_project:
            return
        add_on = f"service-{self.settings.project_number}@gcp-sa-gsuiteaddons.iam.gserviceaccount.com"
        senders = {CHAT_ISSUER, *([add_on] if self.settings.project_number else [])}
        if claims.get("email") not in senders or claims.get("email_verified") is not True:
            raise SignatureRejected("the bearer token is Google's, but for another sender than Google Chat")

    def parse(self, req: WebhookRequest) -> Parsed:
        """Read an event of either shape."""
        happening = decode(req.raw, Event, "an event of Google Chat").happening
        if happening is None or not happening.is_of_a_person:
            return Parsed(NOTHING, ignored="no message of a person")
        return self._inbound(happening)

    def _inbound(self, event: Happening) -> Parsed:
        message, space = event.message, event.space
        space_id = as_key_part(space.name.removeprefix("spaces/"), "space.name")
        thread_id = message.thread.name.rpartition("/")[2]
        thread = as_key_part(thread_id, "thread.name") if thread_id and not space.direct else None
        user = as_key_part(event.user.name.removeprefix("users/"), "user.name")
        said = as_text(message.argument_text) or as_text(message.text)
        text = as_command(event.command, said) if event.command else as_text(event.action) or said
        files = tuple(File(one.resource, one.content_name or "file", one.content_type) for one in message.attachment)
        if not text and not files:
            return Parsed(NOTHING, ignored="neither text nor attachment")
        kind = Kind.COMMAND if event.command else Kind.ACTION if event.action else Kind.MESSAGE
        event_key = f"{kind}:{event.time}:{user}" if event.action or not message.name else message.name
        inbound = Inbound(
            kind=kind,
            session=session_key(self.name, self.settings.project_number or "default", space_id, thread),
            dedupe=(f"google_chat:{event_key}",),
            user=user,
            text=text,
            direct=space.direct,
            mentioned=True,  # of a space with others, an app is told only what is meant for it
            reply=Address(space.name, "" if space.direct else message.thread.name).packed,
            context=f"(about this message: {message.quoted})" if message.quoted else "",
            files=files,
            threaded=message.thread_reply,
            title=as_title("" if space.direct else space.display_name, event.user.display_name if space.direct else ""),
        )
        return Parsed(NOTHING, (inbound,))

    def call(self, reply: Reply, now: float, *, plain: bool = False) -> ApiRequest:  # noqa: ARG002 - any text is fine
        """Create a message under an id of our own: a second call with it makes no second message."""
        address = Address.of(reply.address)
        body: dict[str, Any] = {"text": reply.text}
        if reply.question and not self.settings.project_number:  # an add-on's buttons are urls of its own
            body["cardsV2"] = [{"cardId": "approval", "card": card(reply.question)}]
        if address.shown and reply.begins:
            mask = "text,cards_v2" if "cardsV2" in body else "text"
            return self._api("PATCH", f"{quote(address.shown, safe='/')}?updateMask={mask}", body)
        key = short_key(reply.idempotency_key, 32)
        query = {"requestId": key, "messageId": f"client-{key}"}
        if address.thread:
            query["messageReplyOption"] = "REPLY_MESSAGE_FALLBACK_TO_NEW_THREAD"
            body["thread"] = {"name": address.thread}
        return self._api("POST", f"{address.space}/messages?{urlencode(query)}", body)

    def result(self, reply: Reply, answer: ApiResponse) -> SendResult:
        """409 says that an earlier call with this id was taken."""
        if answer.status == 409:
            space = Address.of(reply.address).space
            return Sent(f"{space}/messages/client-{short_key(reply.idempotency_key, 32)}")
        return super().result(reply, answer)

    def token_call(self, now: float) -> ApiRequest:
        """Ask for an access token with an assertion that the service account's key signs (RFC 7523)."""
        account = msgspec.json.decode(self.settings.service_account, type=ServiceAccount)
        claims = {
            "iss": account.client_email,
            "scope": SCOPE,
            "aud": self.settings.token_url,
            "iat": int(now),
            "exp": int(now) + TOKEN_S,
        }
        assertion = jwt.encode(claims, account.private_key, "RS256")
        return form_call(self.settings.token_url, {"grant_type": GRANT, "assertion": assertion})

    def fetch(self, file: File, answer: ApiResponse | None = None) -> ApiRequest | None:
        """An attachment is a media resource of the API."""
        if answer is not None or not file.id:
            return None
        url = f"{self.settings.api_base}/v1/media/{quote(file.id, safe='')}?alt=media"
        return ApiRequest(url, {}, b"", "GET", needs_token=True)

    def setup(self, url: str) -> Setup:
        """An app is configured in Google's console."""
        return Setup(
            f"Google Cloud console > Google Chat API > Configuration: HTTP endpoint {url}, audience as in "
            "GOOGLE_CHAT_AUDIENCE (the project number or this url). Make a service account with a JSON key: "
            "GOOGLE_CHAT_SERVICE_ACCOUNT=@key.json. No role is needed."
        )

    def _api(self, method: str, path: str, body: object) -> ApiRequest:
        call = json_call(f"{self.settings.api_base}/v1/{path}", body, method=method)
        return msgspec.structs.replace(call, needs_token=True)


def card(question: str) -> dict[str, Any]:
    """Return the buttons under a question about tool calls."""
    buttons = [{"text": choice.label, "onClick": {"action": {"function": choice.says}}} for choice in choices(question)]
    return {"sections": [{"widgets": [{"buttonList": {"buttons": buttons}}]}]}
