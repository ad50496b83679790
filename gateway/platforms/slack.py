"""Slack: the Events API and slash commands in, chat.postMessage out. https://docs.slack.dev/apis/events-api

Slack repeats an event up to three times and may send one message as two events (a mention is also a message of its
channel), so an accepted message is known by its event id and by its place: team, channel and ts.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import ClassVar

import msgspec

from gateway.chunking import cut
from gateway.formatting import SLACK_MARKDOWN, escape_html
from gateway.platforms.decode import as_command, as_key_part, as_text, decode, read_form
from gateway.platforms.port import (
    EMPTY,
    Adapter,
    ApiRequest,
    ApiResponse,
    Capabilities,
    Chat,
    Fail,
    Gone,
    Inbound,
    Kind,
    Parsed,
    Rate,
    Reformat,
    SendResult,
    Sent,
    TryLater,
    WebhookRequest,
    WebhookResponse,
)
from gateway.platforms.signature import check_timestamp, required_header, same
from gateway.platforms.slack_event import (
    SPOKEN,
    Envelope,
    EventKind,
    SlashCommand,
    SpokenEvent,
    read_command,
)
from shared.errors import BodyRejected, SignatureRejected
from shared.messages import Reply, session_key
from shared.platform_settings import SlackSettings
from shared.retry import retry_after_s

#: markdown_text takes 12,000 characters
MOST_UNITS = 11_900

#: errors that pass, or that an operator can mend while the reply waits
PASSING = frozenset(
    "ratelimited rate_limited fatal_error internal_error service_unavailable request_timeout message_limit_exceeded "
    "invalid_auth not_authed account_inactive token_revoked token_expired missing_scope ekm_access_denied".split()
)

MARKUP = frozenset(
    "invalid_blocks invalid_blocks_format invalid_markdown_text markdown_text_conflict msg_blocks_too_long "
    "msg_too_long".split()
)

GONE = frozenset(
    "channel_not_found not_in_channel is_archived user_not_found user_disabled cannot_dm_bot thread_not_found "
    "restricted_action restricted_action_read_only_channel team_not_found".split()
)


class Address(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a reply goes: channel, and thread where there is one."""

    channel: str
    thread_ts: str | None = None


class ApiAnswer(msgspec.Struct, frozen=True):
    """Any answer of the Web API; HTTP 200 says nothing, ``ok`` does."""

    ok: bool
    error: str = ""
    ts: str = ""


class Slack(Adapter, frozen=True):
    """The adapter of one app; delayed events come for a day."""

    settings: SlackSettings

    name: ClassVar[str] = "slack"
    capabilities: ClassVar[Capabilities] = Capabilities(
        signature_headers=frozenset({"x-slack-signature", "x-slack-request-timestamp"}),
        dedupe_ttl_s=24 * 3600.0,
    )

    def verify(self, req: WebhookRequest) -> None:
        """Check the signature over ``v0:timestamp:body``."""
        timestamp = required_header(req.headers, "x-slack-request-timestamp")
        signature = required_header(req.headers, "x-slack-signature")
        check_timestamp("X-Slack-Request-Timestamp", timestamp, req.now)
        if not same(signature, sign(self.settings.signing_secret, timestamp, req.raw)):
            raise SignatureRejected("X-Slack-Signature does not match: SLACK_SIGNING_SECRET must be this app's")

    def parse(self, req: WebhookRequest) -> Parsed:
        """Read an event, a handshake or a slash command."""
        if req.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return self._form(read_form(req.raw))
        envelope = decode(req.raw, Envelope, "an event of the Events API")
        match envelope.type:
            case "url_verification":
                return Parsed(
                    WebhookResponse(body=envelope.challenge.encode(), media="text/plain"), ignored="handshake"
                )
            case "event_callback":
                return self._event(envelope)
            case _:
                return Parsed(ignored="not an event_callback")

    def _event(self, envelope: Envelope) -> Parsed:
        event = decode(bytes(envelope.event), EventKind, "an event")
        if event.type not in {"message", "app_mention"} or event.subtype not in SPOKEN or event.hidden:
            return Parsed(ignored="not a new message")
        if event.bot_id or not event.user or event.user == envelope.bot_user:
            return Parsed(ignored="not written by a person")
        spoken = decode(bytes(envelope.event), SpokenEvent, "a message event")
        text = spoken.words(envelope.bot_user)
        if not text:
            return Parsed(ignored="neither text nor attachment")
        return Parsed(inbound=(self._inbound(envelope, spoken, text),))

    def _inbound(self, envelope: Envelope, event: SpokenEvent, text: str) -> Inbound:
        account = as_key_part(envelope.account, "team_id")
        channel = as_key_part(event.channel, "channel")
        event_id = as_key_part(envelope.event_id, "event_id")
        thread_ts = event.thread_ts if event.direct else event.thread_ts or event.ts
        return Inbound(
            kind=Kind.MESSAGE,
            session=session_key(self.name, account, channel, thread_ts),
            dedupe=(f"slack:{account}:{event_id}", f"slack:{account}:{channel}:{event.ts}"),
            user=as_key_part(event.user, "user"),
            text=text,
            direct=event.direct,
            mentioned=event.speaks_to(envelope.bot_user),
            reply=msgspec.json.encode(Address(channel, thread_ts)),
        )

    def _form(self, form: dict[str, str]) -> Parsed:
        if "command" not in form:
            return Parsed(
                WebhookResponse(body=b""), ignored="certificate check" if "ssl_check" in form else "interactivity"
            )
        return Parsed(WebhookResponse(body=b""), (self._command(read_command(form)),))

    def _command(self, command: SlashCommand) -> Inbound:
        account, channel = as_key_part(command.team_id, "team_id"), as_key_part(command.channel_id, "channel_id")
        said = as_text(command.text)
        return Inbound(
            kind=Kind.COMMAND,
            session=session_key(self.name, account, channel),
            dedupe=(f"slack:{account}:{as_key_part(command.trigger_id, 'trigger_id')}",),
            user=as_key_part(command.user_id, "user_id"),
            text=as_command(command.command, said),
            direct=channel.startswith("D"),
            mentioned=True,
            reply=msgspec.json.encode(Address(channel)),
        )

    def chunks(self, markdown: str) -> list[str]:
        """Cut an answer into Markdown in which what would ring a whole channel is hushed."""
        return cut(markdown, MOST_UNITS, SLACK_MARKDOWN) or [EMPTY]

    def call(self, reply: Reply, now: float, *, plain: bool = False) -> ApiRequest:  # noqa: ARG002 - nothing is timed
        """Build chat.postMessage: as Markdown, or as escaped text if ``plain``."""
        address = msgspec.json.decode(reply.address, type=Address)
        body: dict[str, object] = {"channel": address.channel}
        if address.thread_ts:
            body["thread_ts"] = address.thread_ts
        body |= {"text": escape_html(reply.text)} if plain else {"markdown_text": reply.text}
        body |= {"unfurl_links": False, "unfurl_media": False}
        headers = {
            "authorization": f"Bearer {self.settings.bot_token}",
            "content-type": "application/json; charset=utf-8",
        }
        return ApiRequest(f"{self.settings.api_base}/chat.postMessage", headers, msgspec.json.encode(body))

    def result(self, reply: Reply, answer: ApiResponse) -> SendResult:  # noqa: ARG002 - Slack moves no channel
        """Read an answer of chat.postMessage."""
        try:
            api = decode(answer.body, ApiAnswer, "an answer")
        except BodyRejected:
            return TryLater(
                f"HTTP {answer.status} with a body that is not the Web API's", retry_after_s(answer.headers)
            )
        if api.ok:
            return Sent(api.ts)
        said = api.error[:200] or f"HTTP {answer.status}"
        if answer.status == 429 or answer.status >= 500 or api.error in PASSING:
            return TryLater(said, retry_after_s(answer.headers))
        if api.error in MARKUP:
            return Reformat(said)
        return Gone(said) if api.error in GONE else Fail(said)

    def chat(self, address: bytes) -> Chat:
        """A channel takes about one message a second, whatever its threads."""
        return Chat(msgspec.json.decode(address, type=Address).channel, (Rate(1, 1.0),))


def sign(signing_secret: str, timestamp: str, raw: bytes) -> str:
    """Return the ``v0=…`` signature of a body."""
    content = b":".join((b"v0", timestamp.encode(), raw))
    return "v0=" + hmac.digest(signing_secret.encode(), content, hashlib.sha256).hex()
