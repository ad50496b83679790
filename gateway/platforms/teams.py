"""Microsoft Teams: activities of the Bot Framework in, the connector's REST API out.
https://learn.microsoft.com/azure/bot-service/rest-api

An activity names the url that its answer goes to. It is believed only where the token vouches for it and the host is
ours to talk to, for our own access token goes there.
"""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import msgspec

from gateway.formatting import TEAMS_MARKDOWN
from gateway.platforms.api_call import form_call, json_call
from gateway.platforms.bearer_token import endorsements, read_token
from gateway.platforms.decode import as_key_part, as_text, decode, decode_or_none
from gateway.platforms.edited_message import EditingAdapter, ShownPlace
from gateway.platforms.json_api import AnswerShape, ApiAnswer, TextLimit
from gateway.platforms.port import (
    ApiRequest,
    ApiResponse,
    Cancelled,
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
    WithoutThread,
)
from gateway.platforms.teams_activity import Activity
from shared.approvals import choices
from shared.errors import BodyRejected, SignatureRejected
from shared.messages import Reply, session_key
from shared.platform_settings import TeamsSettings

ISSUER = "https://api.botframework.com"
SCOPE = "https://api.botframework.com/.default"

#: what answers a piece of a stream that has ended, or may not be
STREAM_ENDED = frozenset({400, 403, 404, 405})

CARD = "application/vnd.microsoft.card.adaptive"
NOTHING = WebhookResponse(body=b"")
KINDS = {"message": Kind.MESSAGE, "messageUpdate": Kind.EDIT, "messageDelete": Kind.DELETE}


class Address(ShownPlace, frozen=True):
    """Where a reply goes: a conversation with its thread, at the connector, and the activity it answers."""

    conversation: str
    service_url: str
    activity: str
    bot: str
    personal: bool = False
    #: what of it was streamed, and in how many pieces; empty where nobody knows
    streamed: str = ""
    pieces: int = 0
    #: no stream is to be had here, but edits
    edits: bool = False

    @property
    def chat_key(self) -> str:
        """The conversation without its thread: a channel has one rate for all of its threads."""
        return self.conversation.partition(";messageid=")[0]

    @property
    def may_stream(self) -> bool:
        """Whether the answer is streamed: only a conversation with one person has streams."""
        return self.personal and not self.edits

    @property
    def without_stream(self) -> bytes:
        """This address for edits of the message that was streamed."""
        return self.but(streamed="", edits=True)

    def stream(self, kind: str) -> dict[str, object]:
        """Return what makes an activity the next piece of the stream, or its ``final`` one, which has no number."""
        known: dict[str, object] = {"type": "streaminfo", "streamType": kind}
        known |= {"streamId": self.shown} if self.shown else {}
        return known if kind == "final" else {**known, "streamSequence": self.pieces + 1}


class Teams(EditingAdapter, frozen=True):
    """The adapter of one bot."""

    settings: TeamsSettings

    name: ClassVar[str] = "teams"
    capabilities: ClassVar[Capabilities] = Capabilities(
        signature_headers=frozenset({"authorization"}),
        dedupe_ttl_s=86400.0,
        app_rates=(Rate(50, 1.0),),
        life_sign_every_s=3.0,
        stream_gap_s=1.5,
        stream_only_grows=True,
    )
    place: ClassVar[type[Address]] = Address
    writes: ClassVar[TextLimit] = TextLimit(20_000, TEAMS_MARKDOWN)  # about 80 kB of UTF-16 at the most
    answers: ClassVar[AnswerShape] = AnswerShape(id="id", code="error.code", said="error.message", always_json=False)
    not_edited: ClassVar[frozenset[int | str]] = frozenset({403, 404})
    chat_rates: ClassVar[tuple[Rate, ...]] = (Rate(7, 1.0), Rate(1800, 3600.0))  # operations in a conversation

    @property
    def key_sources(self) -> tuple[KeySource, ...]:
        """The Bot Framework publishes its keys by OpenID metadata."""
        return (KeySource(f"{self.settings.openid_base}/v1/.well-known/openidconfiguration", KeyFormat.OPENID),)

    def verify(self, req: WebhookRequest) -> None:
        """Check the bearer token, that it vouches for the activity's serviceUrl, and that we may talk to that."""
        app = self.settings.app_id
        claims = read_token(req, (ISSUER,), (app, f"api://{app}", f"api://botid-{app}"))
        activity = decode_or_none(req.raw, Activity)
        if activity is None:
            return  # genuine, and refused as unreadable in a moment
        service_url = activity.service_url.rstrip("/")
        if str(claims.get("serviceurl", "")).rstrip("/") != service_url:
            raise SignatureRejected("the bearer token does not vouch for the activity's serviceUrl")
        if not f"{service_url}/".startswith(f"{self.settings.api_base}/"):
            raise SignatureRejected("the activity's serviceUrl is not at TEAMS_API_BASE")
        channels = endorsements(req)
        if channels is not None and activity.channel_id not in channels:
            raise SignatureRejected("the token's key may not sign for this channel")

    def parse(self, req: WebhookRequest) -> Parsed:
        """Read an activity."""
        activity = decode(req.raw, Activity, "an activity")
        kind = KINDS.get(activity.type)
        if activity.type == "invoke":
            return Parsed(WebhookResponse(body=b'{"statusCode":200}'), ignored="invoke")
        if kind is None or activity.is_of_a_bot:
            return Parsed(NOTHING, ignored="no message of a person")
        text = as_text(activity.words)
        files = tuple(activity.files)
        if not text and not files and kind is not Kind.DELETE:
            return Parsed(NOTHING, ignored="neither text nor attachment")
        return Parsed(NOTHING, (self._inbound(activity, kind, text, files),))

    def _inbound(self, activity: Activity, kind: Kind, text: str, files: tuple[File, ...]) -> Inbound:
        conversation, _, root = activity.conversation.id.partition(";messageid=")
        if not conversation or not activity.id:
            raise BodyRejected("the activity names no conversation")
        tenant = as_key_part(activity.conversation.tenant_id or activity.tenant or "default", "tenantId")
        place = quote(conversation, safe="@")
        message_key = f"teams:{activity.conversation.id}:message:{activity.id}"
        change_key = f"teams:{activity.conversation.id}:{activity.type}:{activity.id}:{activity.timestamp}"
        personal = activity.conversation.conversation_type == "personal"
        connector = activity.service_url.rstrip("/")
        return Inbound(
            kind=Kind.ACTION if activity.pressed else kind,
            session=session_key(self.name, tenant, place, root or None),
            dedupe=(message_key if kind is Kind.MESSAGE else change_key,),
            user=activity.sender.aad_object_id or activity.sender.id,
            text=text,
            direct=personal,
            mentioned=activity.is_named,
            reply=Address(activity.conversation.id, connector, activity.id, activity.recipient.id, personal).packed,
            files=files,
            threaded=bool(root),
            amends="" if kind is Kind.MESSAGE else message_key,
            outsider=bool(activity.tenant and activity.sender.tenant_id not in {"", activity.tenant}),
            title=activity.title,
        )

    def call(self, reply: Reply, now: float, *, plain: bool = False) -> ApiRequest:  # noqa: ARG002 - nothing is timed
        """Build a message, the first of an answer as one to its activity."""
        address = Address.of(reply.address)
        body = self._message(address, reply.text, plain=plain)
        if actions := [
            {"type": "Action.Submit", "title": choice.label, "data": {"text": choice.says}}
            for choice in choices(reply.question)
        ]:
            card = {"type": "AdaptiveCard", "version": "1.4", "body": [], "actions": actions}
            body["attachments"] = [{"contentType": CARD, "content": card}]
        if address.shown and reply.begins and address.may_stream:
            return self._activity("POST", address, "", {**body, "entities": [address.stream("final")]})
        if address.shown and reply.begins:
            return self._activity("PUT", address, f"/{quote(address.shown, safe='')}", body)
        return self._activity("POST", address, f"/{quote(address.activity, safe='')}" if reply.begins else "", body)

    def elsewhere(self, reply: Reply, found: ApiAnswer) -> bytes | None:
        """A stream that has ended is edited."""
        address = Address.of(reply.address)
        ended = address.shown and address.may_stream and found.status in STREAM_ENDED
        return address.without_stream if ended else super().elsewhere(reply, found)

    def result(self, reply: Reply, answer: ApiResponse) -> SendResult:
        """An edit is answered without an id."""
        sent = super().result(reply, answer)
        return Sent(sent.id or Address.of(reply.address).shown) if isinstance(sent, Sent) else sent

    def token_call(self, now: float) -> ApiRequest:  # noqa: ARG002 - the secret is sent as it is
        """Ask for an access token by client credentials (RFC 6749, section 4.4)."""
        fields = {
            "grant_type": "client_credentials",
            "client_id": self.settings.app_id,
            "client_secret": self.settings.app_password,
            "scope": SCOPE,
        }
        return form_call(f"{self.settings.login_base}/{self.settings.tenant_id}/oauth2/v2.0/token", fields)

    def life_sign(self, address: bytes, activity: str) -> ApiRequest | None:  # noqa: ARG002 - it shows no words
        """Show that something is typed, until a stream shows it."""
        place = Address.of(address)
        if place.may_stream and place.shown:
            return None
        return self._activity("POST", place, "", {"type": "typing", "from": {"id": place.bot}})

    def preview(self, reply: Reply) -> ApiRequest | None:
        """Stream the beginning to a person; elsewhere, or once a stream has ended, send and edit it."""
        address = Address.of(reply.address)
        if not address.may_stream:
            return self.call(reply, 0.0)
        if address.shown and not (address.streamed and reply.text.startswith(address.streamed)):
            return None  # a stream only grows, and how far an earlier process came nobody knows
        piece = {"type": "typing", "from": {"id": address.bot}, "text": reply.text}
        return self._activity("POST", address, "", {**piece, "entities": [address.stream("streaming")]})

    def shown(self, reply: Reply, answer: ApiResponse) -> SendResult | Cancelled:
        """A stream ends after two minutes, or when the person presses its button."""
        address = Address.of(reply.address)
        found = self.read(answer) if address.may_stream and answer.status in STREAM_ENDED else None
        if found is None:
            return self.result(reply, answer)
        said = found.reason
        return Cancelled(said) if "cancel" in said.casefold() else WithoutThread(address.without_stream, said)

    def placed(self, address: bytes, sent_id: str, shown: str = "") -> bytes:
        """Remember the message, and of a stream how many pieces it has."""
        place = Address.of(address)
        streamed, pieces = (shown, place.pieces + 1) if shown and place.may_stream else ("", 0)
        return place.but(shown=place.shown or sent_id, streamed=streamed, pieces=pieces)

    def fetch(self, file: File, answer: ApiResponse | None = None) -> ApiRequest | None:
        """A file of a chat has a url with a signature in it; an inline image lies at the connector."""
        at_connector = file.url.startswith(f"{self.settings.api_base}/")
        parts = urlsplit(file.url)
        signed = parts.scheme == "https" and (parts.hostname or "").endswith(".sharepoint.com")
        if answer is not None or not (at_connector or signed):
            return None
        return ApiRequest(file.url, {}, b"", "GET", needs_token=at_connector)

    def setup(self, url: str) -> Setup:
        """A bot is registered in Azure and installed by an app package."""
        manifest = {
            "manifestVersion": "1.22",
            "id": self.settings.app_id,
            "bots": [{"botId": self.settings.app_id, "scopes": ["personal", "team", "groupChat"]}],
        }
        return Setup(
            f"Azure portal > Azure Bot > Configuration: messaging endpoint {url}; Channels: Microsoft Teams. Upload an "
            f"app package whose manifest.json has:\n{msgspec.json.format(msgspec.json.encode(manifest)).decode()}"
        )

    def _message(self, address: Address, text: str, *, plain: bool) -> dict[str, Any]:
        return {
            "type": "message",
            "from": {"id": address.bot},
            "conversation": {"id": address.conversation},
            "text": text,
            "textFormat": "plain" if plain else "markdown",
            "replyToId": address.activity,
        }

    def _activity(self, method: str, address: Address, path: str, body: object) -> ApiRequest:
        conversation = quote(address.conversation, safe="")
        url = f"{address.service_url}/v3/conversations/{conversation}/activities{path}"
        return msgspec.structs.replace(json_call(url, body, method=method), needs_token=True)
