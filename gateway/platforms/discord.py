"""Discord: interactions in by webhook, messages out by the REST API. https://docs.discord.com/developers/interactions

An interaction is acknowledged as "thinking…" at once; its answer replaces that while the interaction's token lives, and
goes to the channel as the bot's own message afterwards. Ordinary messages of a channel never come over HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar
from urllib.parse import quote

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.formatting import DISCORD_MARKDOWN
from gateway.platforms.api_call import json_call, multipart_call, read_answer, short_key
from gateway.platforms.command_menu import ASKS, MENU, MenuCommand
from gateway.platforms.decode import as_command, as_key_part, as_text, decode
from gateway.platforms.discord_event import Application, Body, Interaction, InteractionType
from gateway.platforms.json_api import AnswerShape, ApiAnswer, JsonApiAdapter, Place, TextLimit
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
    Setup,
    WebhookRequest,
    WebhookResponse,
)
from gateway.platforms.signature import check_timestamp, required_header
from shared.approvals import choices
from shared.attachments import Attachment
from shared.errors import SignatureRejected
from shared.messages import Reply, session_key
from shared.platform_settings import DiscordSettings

#: a token lives 15 minutes; it is left alone a little earlier
TOKEN_S = 880.0

THINKING = WebhookResponse(body=b'{"type":5}')
DEAD_TOKEN = frozenset({10015, 10062, 50027})
FILE_HOSTS = ("https://cdn.discordapp.com/", "https://media.discordapp.net/")
AGENT = {"user-agent": "DiscordBot (https://github.com/gatehouse, 1)"}
EPHEMERAL = 64
MOST_DESCRIPTION = 100
ACTION_ROW, BUTTON, GREEN, RED = 1, 2, 3, 4
QUIET = {"allowed_mentions": {"parse": list[str]()}}


class Address(Place, frozen=True):
    """Where a reply goes: the interaction while its token lives, then the channel."""

    channel_id: str
    token: str = ""
    until: float = 0.0


class Discord(JsonApiAdapter, frozen=True):
    """The adapter of one application; its webhook events, about installs, are acknowledged and ignored."""

    settings: DiscordSettings

    name: ClassVar[str] = "discord"
    capabilities: ClassVar[Capabilities] = Capabilities(
        signature_headers=frozenset({"x-signature-ed25519", "x-signature-timestamp"}),
        dedupe_ttl_s=3600.0,
        open_to_strangers=True,
        app_rates=(Rate(50, 1.0),),
        limits_methods_apart=True,
        stream_gap_s=1.2,
        idempotent=True,
        promises_answer=True,
    )
    place: ClassVar[type[Address]] = Address
    writes: ClassVar[TextLimit] = TextLimit(2000, DISCORD_MARKDOWN)
    answers: ClassVar[AnswerShape] = AnswerShape(
        id="id", code="code", said="message", wait=("retry_after", 1.0), whole_app="global"
    )
    chat_rates: ClassVar[tuple[Rate, ...]] = (Rate(5, 2.0),)  # about; and as many to an interaction

    def verify(self, req: WebhookRequest) -> None:
        """Check the Ed25519 signature over timestamp and body."""
        timestamp = required_header(req.headers, "x-signature-timestamp")
        signature = required_header(req.headers, "x-signature-ed25519")
        check_timestamp("X-Signature-Timestamp", timestamp, req.now)
        problem = SignatureRejected("X-Signature-Ed25519 does not match: DISCORD_PUBLIC_KEY must be this application's")
        if not re.fullmatch(r"[0-9a-fA-F]{128}", signature, re.ASCII):
            raise problem
        key = bytes.fromhex(self.settings.public_key)
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(bytes.fromhex(signature), timestamp.encode() + req.raw)
        except (InvalidSignature, ValueError):
            raise problem from None

    def parse(self, req: WebhookRequest) -> Parsed:
        """Read an interaction; a webhook event, and Discord's pings, are only acknowledged."""
        body = decode(req.raw, Body, "an interaction")
        if body.type == 0 or body.is_event:
            return Parsed(WebhookResponse(204, b""), ignored="a webhook event")
        match body.type:
            case InteractionType.PING:
                return Parsed(WebhookResponse(body=b'{"type":1}'), ignored="handshake")
            case InteractionType.AUTOCOMPLETE:
                return Parsed(WebhookResponse(body=b'{"type":8,"data":{"choices":[]}}'), ignored="autocomplete")
            case InteractionType.COMMAND | InteractionType.COMPONENT | InteractionType.MODAL:
                return self._inbound(decode(req.raw, Interaction, "an interaction"), req.now)
            case _:
                return Parsed(ignored="an interaction of a new type")

    def _inbound(self, interaction: Interaction, now: float) -> Parsed:
        user = as_key_part(interaction.author, "the user's id")
        channel = as_key_part(interaction.channel_id, "channel_id")
        app = as_key_part(interaction.application_id, "application_id")
        direct = not interaction.guild_id and interaction.context in {None, 1}
        said = as_text(interaction.words)
        command = interaction.type == InteractionType.COMMAND
        inbound = Inbound(
            kind=Kind.COMMAND if command else Kind.ACTION,
            session=session_key(self.name, app, "dm" if direct else channel, user if direct else None),
            dedupe=(f"discord:{as_key_part(interaction.id, 'id')}",),
            user=user,
            text=as_command(interaction.data.name, said or ("(see above)" if interaction.target else "")),
            direct=direct,
            mentioned=True,
            reply=Address(channel, interaction.token, now + TOKEN_S).packed,
            context=as_text(interaction.target),
            title=interaction.title,
            files=tuple(
                File(one.id, one.filename, one.content_type or "", one.size, one.url) for one in interaction.files
            ),
        )
        return Parsed(THINKING, (inbound,))

    def declined(self, text: str) -> WebhookResponse:
        """Answer at once, for the person alone: "thinking…" would stand for a quarter of an hour."""
        data = {"content": text, "flags": EPHEMERAL, **QUIET}
        return WebhookResponse(body=msgspec.json.encode({"type": 4, "data": data}))

    def call(self, reply: Reply, now: float, *, plain: bool = False) -> ApiRequest:  # noqa: ARG002 - any text is fine
        """Replace the "thinking…", follow up on it, or write to the channel once the token is dead."""
        address = Address.of(reply.address)
        body: dict[str, object] = {"content": reply.text, **QUIET}
        buttons = [
            {"type": BUTTON, "style": RED if choice.refuses else GREEN, "label": choice.label, "custom_id": choice.says}
            for choice in choices(reply.question)
        ]
        if buttons:
            body["components"] = [{"type": ACTION_ROW, "components": buttons}]
        if not address.token or now >= address.until:
            body |= {"nonce": short_key(reply.idempotency_key), "enforce_nonce": True}
            return self._bot_call(f"channels/{address.channel_id}/messages", body)
        return self._token_call(address, body, "/messages/@original" if reply.begins else "")

    def elsewhere(self, reply: Reply, found: ApiAnswer) -> bytes | None:
        """A dead token is given up for the channel."""
        address = Address.of(reply.address)
        dead = address.token and (found.code in DEAD_TOKEN or found.status in {401, 404})
        return address.but(token="", until=0.0) if dead else None

    def life_sign(self, address: bytes, activity: str) -> ApiRequest | None:  # noqa: ARG002 - it shows no words
        """Nothing while "thinking…" stands, which the acknowledgement made; then typing."""
        place = Address.of(address)
        return None if place.token else self._bot_call(f"channels/{place.channel_id}/typing", {})

    def preview(self, reply: Reply) -> ApiRequest | None:
        """The "thinking…" is edited, whose place the answer takes anyhow; elsewhere nothing is shown."""
        place = Address.of(reply.address)
        return self.call(reply, 0.0) if place.token else None

    def upload(
        self, reply: Reply, file: Attachment, data: bytes, answers: Sequence[ApiResponse] = ()
    ) -> ApiRequest | SendResult:
        """Build a message with a file, which needs nothing else: a bot sends 10 MiB at the most."""
        if answers:
            return self.result(reply, answers[-1])
        address = Address.of(reply.address)
        body: dict[str, object] = {"attachments": [{"id": 0, "filename": file.name}], **QUIET}
        headers, path = dict(AGENT), f"webhooks/{self.settings.application_id}/{quote(address.token, safe='')}"
        if not address.token:
            headers["authorization"] = f"Bot {self.settings.bot_token}"
            path = f"channels/{address.channel_id}/messages"
            body |= {"nonce": short_key(reply.idempotency_key), "enforce_nonce": True}
        fields = {"payload_json": msgspec.json.encode(body).decode()}
        return multipart_call(f"{self.settings.api_base}/{path}", fields, "files[0]", file, data, headers)

    def fetch(self, file: File, answer: ApiResponse | None = None) -> ApiRequest | None:
        """Attachments lie on Discord's own hosts, signed for a day."""
        mine = answer is None and file.url.startswith(FILE_HOSTS)
        return ApiRequest(file.url, AGENT, b"", "GET") if mine else None

    def setup(self, url: str) -> Setup:
        """The endpoint and the commands are set by calls; Discord checks the endpoint while it is set."""
        said = {"type": 3, "name": "text", "description": "What you want to say", "required": True}
        commands = [command_of(ASKS, said), *map(command_of, MENU)]
        app = f"applications/{self.settings.application_id}"
        calls = (
            msgspec.structs.replace(
                self._bot_call("applications/@me", {"interactions_endpoint_url": url}), method="PATCH"
            ),
            *(self._bot_call(f"{app}/commands", command) for command in commands),
        )
        return Setup(f"Install: https://discord.com/oauth2/authorize?client_id={self.settings.application_id}", calls)

    def registration_call(self) -> ApiRequest:
        """Ask for the application, which names its endpoint."""
        headers = {"authorization": f"Bot {self.settings.bot_token}", **AGENT}
        return ApiRequest(f"{self.settings.api_base}/applications/@me", headers, b"", "GET")

    def registration(self, answer: ApiResponse) -> Registration | None:
        """Read the endpoint of interactions."""
        found = read_answer(answer, Application)
        return Registration(found.interactions_endpoint_url or "") if found and answer.status == 200 else None

    def _token_call(self, address: Address, body: object, path: str) -> ApiRequest:
        url = f"{self.settings.api_base}/webhooks/{self.settings.application_id}/{quote(address.token, safe='')}{path}"
        call = json_call(url, body, method="PATCH" if path else "POST")
        return msgspec.structs.replace(call, headers={**call.headers, **AGENT})

    def _bot_call(self, path: str, body: object) -> ApiRequest:
        call = json_call(f"{self.settings.api_base}/{path}", body, self.settings.bot_token, scheme="Bot")
        return msgspec.structs.replace(call, headers={**call.headers, **AGENT})


def command_of(entry: MenuCommand, *options: dict[str, object]) -> dict[str, object]:
    """Return a command of the menu as the API takes it."""
    translated = {code: what[:MOST_DESCRIPTION] for code, what in entry.translated.items()}
    described = {"description": entry.what[:MOST_DESCRIPTION], "description_localizations": translated}
    return {"name": entry.name, **described, "type": 1, "options": options, "contexts": [0, 1, 2]}
