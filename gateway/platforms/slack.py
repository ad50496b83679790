"""Slack: the Events API and slash commands in, chat.postMessage out. https://docs.slack.dev/apis/events-api

Slack repeats an event up to three times and may send one message as two events (a mention is also a message of its
channel), so an accepted message is known by its event id and by its place: team, channel and ts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar
from urllib.parse import urlsplit

from gateway.formatting import SLACK_MARKDOWN, escape_html
from gateway.platforms.api_call import form_call, get_call, json_call, read_answer, refused
from gateway.platforms.decode import as_command, as_key_part, as_text, as_title, decode, read_form
from gateway.platforms.json_api import AnswerShape, ApiAnswer, ErrorCodes, TextLimit
from gateway.platforms.port import (
    ApiRequest,
    ApiResponse,
    Capabilities,
    Fail,
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
)
from gateway.platforms.signature import HmacSignature
from gateway.platforms.slack_api import (
    CODES,
    LOST_THREAD,
    NO_MEMBER,
    NOT_EDITED,
    Address,
    NameAnswer,
    UploadPlace,
    manifest,
)
from gateway.platforms.slack_event import (
    SPOKEN,
    ChangeEvent,
    ChannelChange,
    Envelope,
    EventKind,
    Interaction,
    SlashCommand,
    SpokenEvent,
    read_command,
    title_of,
)
from gateway.platforms.slack_stream import SlackStreams
from shared.approvals import choices
from shared.attachments import Attachment
from shared.messages import Reply, session_key

#: what a button under a question about tool calls says
DECIDES = ("/approve ", "/deny ")

SIGNATURE = HmacSignature(
    header="x-slack-signature",
    prefix="v0=",
    timestamp_header="x-slack-request-timestamp",
    before_body="v0:{timestamp}:",
    hint="SLACK_SIGNING_SECRET must be this app's",
)


class Slack(SlackStreams, frozen=True):
    """The adapter of one app; delayed events come for a day."""

    name: ClassVar[str] = "slack"
    capabilities: ClassVar[Capabilities] = Capabilities(
        signature_headers=frozenset({SIGNATURE.header, SIGNATURE.timestamp_header}),
        dedupe_ttl_s=24 * 3600.0,
        limits_methods_apart=True,
        life_sign_every_s=90.0,
        life_sign_words=True,
        chats_move=True,
        stream_gap_s=1.2,
        stream_only_grows=True,
    )
    writes: ClassVar[TextLimit] = TextLimit(11_900, SLACK_MARKDOWN)  # markdown_text takes 12,000 characters
    answers: ClassVar[AnswerShape] = AnswerShape(id="ts", ok="ok", code="error")
    codes: ClassVar[ErrorCodes] = CODES
    not_edited: ClassVar[frozenset[int | str]] = NOT_EDITED
    chat_rates: ClassVar[tuple[Rate, ...]] = (Rate(1, 1.0),)  # about; of a channel, whatever its threads

    def verify(self, req: WebhookRequest) -> None:
        """Check the signature over ``v0:timestamp:body``."""
        SIGNATURE.check(self.settings.signing_secret, req.headers, req.raw, req.now)

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
        if event.type == "channel_id_changed":
            return self._moved(envelope, decode(bytes(envelope.event), ChannelChange, "a channel's change"))
        if event.type == "message" and event.subtype in {"message_changed", "message_deleted"}:
            return self._change(envelope, decode(bytes(envelope.event), ChangeEvent, "a change"))
        if event.type not in {"message", "app_mention"} or event.subtype not in SPOKEN or event.hidden:
            return Parsed(ignored="not a new message")
        if event.bot_id or not event.user or event.user == envelope.bot_user:
            return Parsed(ignored="not written by a person")
        spoken = decode(bytes(envelope.event), SpokenEvent, "a message event")
        text = spoken.words(envelope.bot_user)
        if not text and not spoken.forwarded and not spoken.files:
            return Parsed(ignored="neither text nor attachment")
        return Parsed(inbound=(self._inbound(envelope, spoken, text),))

    def _moved(self, envelope: Envelope, change: ChannelChange) -> Parsed:
        """Read that a channel has another id, since it is shared with others; the threads in it keep theirs."""
        account = as_key_part(envelope.account, "team_id")
        old, new = as_key_part(change.old_channel_id, "old_channel_id"), as_key_part(change.new_channel_id, "new")
        was, now = (session_key(self.name, account, channel) for channel in (old, new))
        return Parsed(inbound=(Inbound(Kind.MOVED, now, reply=Address(new).packed, amends=was),))

    def moved(self, address: bytes, place: bytes) -> bytes:
        """Keep all but the channel."""
        return Address.of(address).but(channel=Address.of(place).channel)

    def _inbound(self, envelope: Envelope, event: SpokenEvent, text: str) -> Inbound:
        account = as_key_part(envelope.account, "team_id")
        channel = as_key_part(event.channel, "channel")
        event_id = as_key_part(envelope.event_id, "event_id")
        thread_ts = event.thread_ts if event.direct else event.thread_ts or event.ts
        address = Address(channel, thread_ts)
        if thread_ts:  # where an answer may be streamed to its asker
            address = Address(channel, thread_ts, user=event.user, team=event.home or account)
        return Inbound(
            kind=Kind.MESSAGE,
            session=session_key(self.name, account, channel, thread_ts),
            dedupe=(f"slack:{account}:{event_id}", f"slack:{account}:{channel}:{event.ts}"),
            user=as_key_part(event.user, "user"),
            text=text,
            direct=event.direct,
            mentioned=event.speaks_to(envelope.bot_user),
            reply=address.packed,
            context=event.forwarded,
            files=event.attached,
            threaded=event.thread_ts is not None,
            outsider=event.is_of_outsider(envelope),
        )

    def _change(self, envelope: Envelope, change: ChangeEvent) -> Parsed:
        if not change.is_of_a_person or change.message.user == envelope.bot_user:
            return Parsed(ignored="not a change of a person's words")
        account, channel = as_key_part(envelope.account, "team_id"), as_key_part(change.channel, "channel")
        was = change.message if change.message.ts else change.previous_message
        direct = channel.startswith("D")
        thread_ts = was.thread_ts if direct else was.thread_ts or change.amends
        inbound = Inbound(
            kind=Kind.DELETE if change.deleted_ts else Kind.EDIT,
            session=session_key(self.name, account, channel, thread_ts),
            dedupe=(f"slack:{account}:{as_key_part(envelope.event_id, 'event_id')}",),
            user=as_key_part(was.user or "somebody", "user"),
            text=SpokenEvent("message", was.user, channel, change.ts, was.text).words(envelope.bot_user),
            direct=direct,
            mentioned=False,
            reply=Address(channel, thread_ts).packed,
            amends=f"slack:{account}:{channel}:{change.amends}",
        )
        return Parsed(inbound=(inbound,))

    def _form(self, form: dict[str, str]) -> Parsed:
        empty = WebhookResponse(body=b"")
        if "payload" in form:
            return self._pressed(decode(form["payload"].encode(), Interaction, "an interaction"))
        if "command" not in form:
            return Parsed(empty, ignored="certificate check" if "ssl_check" in form else "neither command nor button")
        return Parsed(empty, (self._command(read_command(form)),))

    def _pressed(self, pressed: Interaction) -> Parsed:
        empty = WebhookResponse(body=b"")
        channel = (pressed.channel.id if pressed.channel else "") or pressed.container.channel_id
        if pressed.type != "block_actions" or not pressed.actions or not channel or pressed.team is None:
            return Parsed(empty, ignored="no button of a message")
        account = as_key_part(pressed.team.id, "team.id")
        place = as_key_part(channel, "channel")
        said = as_text(pressed.actions[0].words)
        # our own question stands where its conversation is, which a slash command begins outside of any thread
        at_message = None if place.startswith("D") or said.startswith(DECIDES) else pressed.container.message_ts
        thread_ts = pressed.container.thread_ts or at_message
        inbound = Inbound(
            kind=Kind.ACTION,
            session=session_key(self.name, account, place, thread_ts),
            dedupe=(f"slack:{account}:{as_key_part(pressed.trigger_id, 'trigger_id')}",),
            user=as_key_part(pressed.user.id, "user.id"),
            text=said,
            direct=place.startswith("D"),
            mentioned=True,
            reply=Address(place, thread_ts, self._own(pressed.response_url)).packed,
            outsider=pressed.is_of_outsider,
            title=title_of(place, pressed.channel.name if pressed.channel else "", pressed.user.name),
        )
        return Parsed(empty, (inbound,))

    def _own(self, url: str) -> str:
        """Return a url that Slack gave for answers, if it is one of Slack's."""
        base = urlsplit(self.settings.api_base)
        hosts = ("https://hooks.slack.com/", "https://hooks.slack-gov.com/", f"{base.scheme}://{base.netloc}/")
        return url if url.startswith(hosts) and len(url) <= 500 else ""

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
            reply=Address(channel, response_url=self._own(command.response_url)).packed,
            title=title_of(channel, command.channel_name, command.user_name),
        )

    def call(self, reply: Reply, now: float, *, plain: bool = False) -> ApiRequest:  # noqa: ARG002 - nothing is timed
        """Build chat.postMessage: as Markdown, or as escaped text if ``plain``."""
        address = Address.of(reply.address)
        said: dict[str, object] = {"text": escape_html(reply.text)} if plain else {"markdown_text": reply.text}
        if reply.question:
            said = asked(reply.text, reply.question, plain=plain)
        if address.outside:
            blocks = said.get("blocks") or ([] if plain else [{"type": "markdown", "text": reply.text}])
            aloud = {"response_type": "in_channel", "text": escape_html(reply.text), "replace_original": False}
            return json_call(address.response_url, {**aloud, "blocks": blocks} if blocks else aloud)
        if address.stream and reply.begins:
            return self.end(reply, {"blocks": [buttons(reply.question)]} if reply.question else {})
        if address.shown and reply.begins:
            return self.api("chat.update", {**address.message, **said})
        thread = {"thread_ts": address.thread_ts} if address.thread_ts else {}
        quiet = {"unfurl_links": False, "unfurl_media": False}
        return self.api("chat.postMessage", {"channel": address.channel, **thread, **said, **quiet})

    def result(self, reply: Reply, answer: ApiResponse) -> SendResult:
        """Read an answer of the Web API, or the plain one of a slash command's own url."""
        if Address.of(reply.address).outside:
            return Sent("") if answer.status < 300 else refused(answer, answer.body[:100].decode("utf-8", "replace"))
        return self.ended(reply, answer) or super().result(reply, answer)

    def elsewhere(self, reply: Reply, found: ApiAnswer) -> bytes | None:
        """Where the app is no member a slash command's own url is left; a shown message or a thread may be lost."""
        address = Address.of(reply.address)
        if found.code in NO_MEMBER and address.response_url:
            return address.but(outside=True)
        lost_thread = found.code in LOST_THREAD and address.thread_ts
        return super().elsewhere(reply, found) or (Address(address.channel).packed if lost_thread else None)

    def life_sign(self, address: bytes, activity: str) -> ApiRequest | None:
        """Show in a thread what the agent does; it goes with the answer, or after two minutes."""
        place = Address.of(address)
        if place.thread_ts is None or place.outside:
            return None
        status = {"channel_id": place.channel, "thread_ts": place.thread_ts, "status": activity}
        return self.api("assistant.threads.setStatus", status)

    def upload(
        self, reply: Reply, file: Attachment, data: bytes, answers: Sequence[ApiResponse] = ()
    ) -> ApiRequest | SendResult | None:
        """Ask where the file goes, bring it there, and share it: https://docs.slack.dev/messaging/working-with-files.

        A slash command's own url takes none.
        """
        address = Address.of(reply.address)
        if address.outside:
            return None
        if not answers:
            wanted = {"filename": file.name, "length": str(len(data))}
            token = f"Bearer {self.settings.bot_token}"
            return form_call(f"{self.settings.api_base}/files.getUploadURLExternal", wanted, token)
        place = read_answer(answers[0], UploadPlace)
        if place is not None and place.error == "missing_scope":  # not for ever: it would hold up what comes after it
            return Fail("missing_scope: files are sent with the scope files:write")
        if len(answers) == 3 or answers[-1].status != 200 or place is None or not place.ok:
            return self.result(reply, answers[-1])
        if len(answers) == 1:
            if not self._is_slacks(place.upload_url):
                return Fail("Slack named no place of its own for the file")
            return ApiRequest(place.upload_url, {"content-type": "application/octet-stream"}, data)
        thread = {"thread_ts": address.thread_ts} if address.thread_ts else {}
        shared = [{"id": place.file_id, "title": file.name}]
        return self.api("files.completeUploadExternal", {"files": shared, "channel_id": address.channel, **thread})

    def _is_slacks(self, url: str) -> bool:
        """Tell whether a file lies at Slack."""
        host = urlsplit(url).hostname or ""
        mine = url.startswith("https://") and (host == "slack.com" or host.endswith(".slack.com"))
        return mine or url.startswith(self.settings.api_base.removesuffix("/api") + "/")

    def fetch(self, file: File, answer: ApiResponse | None = None) -> ApiRequest | None:
        """A file lies at Slack, which wants the token; nobody else is given it."""
        mine = answer is None and self._is_slacks(file.url)
        return get_call(file.url, self.settings.bot_token) if mine else None

    def name_calls(self, inbound: Inbound) -> tuple[ApiRequest, ...]:
        """Ask for the channel, or in a direct conversation for the person; without the scope Slack tells neither."""
        channel = inbound.session.split(":")[2]
        asked = (
            f"users.info?user={inbound.user}" if channel.startswith("D") else f"conversations.info?channel={channel}"
        )
        return (get_call(f"{self.settings.api_base}/{asked}", self.settings.bot_token),)

    def told_name(self, answer: ApiResponse) -> str:
        """Read it from either."""
        found = read_answer(answer, NameAnswer)
        if found is None:
            return ""
        person = (found.user.profile.display_name, found.user.real_name, found.user.name)
        return as_title(found.channel.name, *person)

    def token_test(self) -> ApiRequest:
        """Build auth.test."""
        return json_call(f"{self.settings.api_base}/auth.test", {}, self.settings.bot_token)

    def handshake(self, url: str, now: float) -> ApiRequest:
        """Build the url_verification that Slack sends when the url is entered."""
        raw, timestamp = b'{"type":"url_verification","challenge":"doctor"}', str(int(now))
        signature = SIGNATURE.sign(self.settings.signing_secret, raw, timestamp)
        signed = {SIGNATURE.timestamp_header: timestamp, SIGNATURE.header: signature}
        return ApiRequest(url, {"content-type": "application/json", **signed}, raw)

    def setup(self, url: str) -> Setup:
        """An app is made of a manifest."""
        return Setup(f"https://api.slack.com/apps > Create New App > From a manifest:\n\n{manifest(url)}")


def asked(text: str, question: str, *, plain: bool) -> dict[str, object]:
    """Return a question as blocks, its buttons below; the text alone is for notifications."""
    words = {"type": "section", "text": {"type": "plain_text", "text": text[:3000]}}
    said = words if plain else {"type": "markdown", "text": text}
    return {"text": escape_html(text), "blocks": [said, buttons(question)]}


def buttons(question: str) -> dict[str, object]:
    """Return the block of the buttons under a question."""
    elements = [
        {
            "type": "button",
            "text": {"type": "plain_text", "text": choice.label},
            "style": "danger" if choice.refuses else "primary",
            "action_id": choice.label.lower(),
            "value": choice.says,
        }
        for choice in choices(question)
    ]
    return {"type": "actions", "elements": elements}
