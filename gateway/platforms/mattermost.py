"""Mattermost: outgoing webhooks and slash commands in, posts out. https://developers.mattermost.com

What comes in is authenticated by a token in its body alone, one for each hook and command; what a pressed button brings
by a proof in its context, for the server adds none.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import ClassVar, Self
from urllib.parse import quote

import msgspec

from gateway.chunking import code_points
from gateway.formatting import MARKDOWN
from gateway.platforms.api_call import get_call, json_call, multipart_call, read_answer
from gateway.platforms.decode import as_command, as_key_part, as_text, as_title, decode_or_none, read_fields
from gateway.platforms.edited_message import EditingAdapter, ShownPlace
from gateway.platforms.json_api import AnswerShape, ApiAnswer, TextLimit
from gateway.platforms.port import (
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
from gateway.platforms.signature import same
from shared.approvals import choices
from shared.attachments import Attachment
from shared.command import CHAT_COMMANDS
from shared.errors import BodyRejected, SignatureRejected
from shared.messages import Reply, session_key
from shared.platform_settings import MattermostSettings

NOTHING = WebhookResponse(body=b"{}")


class Address(ShownPlace, frozen=True):
    """Where a reply goes: a channel, and the root of a thread in it."""

    channel_id: str
    root_id: str = ""


class AttachedFile(msgspec.Struct, frozen=True):
    """A file of a post."""

    id: str
    name: str = ""
    mime_type: str = ""
    size: int = 0


class Metadata(msgspec.Struct, frozen=True):
    """What a post is shown with."""

    files: tuple[AttachedFile, ...] = ()


class Post(msgspec.Struct, frozen=True):
    """A post, a person, or an error, whose ``id`` names its kind."""

    id: str = ""
    root_id: str = ""
    message: str = ""
    metadata: Metadata = Metadata()

    @property
    def files(self) -> tuple[File, ...]:
        """Its files."""
        return tuple(File(one.id, one.name or "file", one.mime_type, one.size) for one in self.metadata.files)


class KeptFiles(msgspec.Struct, frozen=True):
    """What the server calls files that were brought to it."""

    file_infos: tuple[AttachedFile, ...] = ()


class ActionContext(msgspec.Struct, frozen=True):
    """What a button of ours brings back; the server shows it to nobody."""

    session: str = ""
    address: str = ""
    says: str = ""
    #: tells that it is ours
    proof: str = ""


class Action(msgspec.Struct, frozen=True):
    """A pressed button; ``trigger_id`` names the press."""

    context: ActionContext = ActionContext()
    user_id: str = ""
    user_name: str = ""
    trigger_id: str = ""


class Mattermost(EditingAdapter, frozen=True):
    """The adapter of one server.

    ``bot_id`` is empty until the server told it, ``webhook_url`` where no setting tells it: there are no buttons then.
    """

    settings: MattermostSettings
    bot_id: str = ""
    webhook_url: str = ""

    name: ClassVar[str] = "mattermost"
    capabilities: ClassVar[Capabilities] = Capabilities(
        signature_headers=frozenset({"authorization"}),
        dedupe_ttl_s=86400.0,
        on_internet=False,
        app_rates=(Rate(10, 1.0),),
        life_sign_every_s=4.0,
        stream_gap_s=1.2,
    )
    place: ClassVar[type[Address]] = Address
    writes: ClassVar[TextLimit] = TextLimit(16_383, MARKDOWN, code_points)
    answers: ClassVar[AnswerShape] = AnswerShape(id="id", code="id", said="message")
    not_edited: ClassVar[frozenset[int | str]] = frozenset({400, 403, 404})

    def verify(self, req: WebhookRequest) -> None:
        """Compare the token in the body, or in the header that slash commands bring; a button proves itself."""
        if action := action_of(req):
            if not same(self._proof(action.context), action.context.proof):
                raise SignatureRejected("the context of the button is not one that was made here")
            return
        try:
            token = read_fields(req.raw, req.headers.get("content-type", "")).get("token", "")
        except BodyRejected as error:
            raise SignatureRejected(f"there is no token to be read: {error}") from None
        token = token or req.headers.get("authorization", "").removeprefix("Token ")
        tokens = re.split(r"[,\s]+", self.settings.webhook_tokens)
        matches = [same(token, known) for known in tokens if known]  # all of them: time tells nothing
        if not any(matches):
            raise SignatureRejected("the token is none of MATTERMOST_WEBHOOK_TOKENS")

    def parse(self, req: WebhookRequest) -> Parsed:
        """Read a post, a slash command or a pressed button."""
        if action := action_of(req):
            return Parsed(NOTHING, (self._pressed(action),))
        fields = read_fields(req.raw, req.headers.get("content-type", ""))
        user = as_key_part(fields.get("user_id", ""), "user_id")
        if user == self.bot_id:
            return Parsed(NOTHING, ignored="the bot's own post")
        channel = as_key_part(fields.get("channel_id", ""), "channel_id")
        said = as_text(fields.get("text", "").removeprefix(fields.get("trigger_word", "")))
        command = fields.get("command", "")
        if command:
            event_id = name_of(fields.get("trigger_id", ""))
        else:
            event_id = as_key_part(fields.get("post_id", ""), "post_id")
        root = as_key_part(fields["root_id"], "root_id") if fields.get("root_id") else ""
        files = tuple(
            File(as_key_part(one, "file_ids"), "file") for one in fields.get("file_ids", "").split(",") if one
        )
        channel_name = fields.get("channel_name", "")
        direct = "__" in channel_name  # the ids of both people
        inbound = Inbound(
            kind=Kind.COMMAND if command else Kind.MESSAGE,
            session=self._session(fields.get("team_id", ""), channel, root),
            dedupe=(f"mattermost:{event_id}",),
            user=user,
            text=as_command(command, said) if command else said or as_text(fields.get("text", "")),
            direct=direct,
            mentioned=True,
            reply=Address(channel, root).packed,
            files=files,
            threaded=bool(root),
            title=as_title("" if direct else channel_name, fields.get("user_name")),
        )
        if not inbound.text and not files:
            return Parsed(NOTHING, ignored="neither text nor attachment")
        return Parsed(NOTHING, (inbound,))

    def _pressed(self, action: Action) -> Inbound:
        return Inbound(
            kind=Kind.ACTION,
            session=action.context.session,
            dedupe=(f"mattermost:{name_of(action.trigger_id)}",),
            user=as_key_part(action.user_id, "user_id"),
            text=action.context.says,
            direct=False,
            mentioned=True,
            reply=action.context.address.encode(),
            title=as_title(action.user_name),
        )

    def _session(self, team: str, channel: str, root: str) -> str:
        return session_key(self.name, as_key_part(team or "direct", "team_id"), channel, root or None)

    def lookup(self, inbound: Inbound) -> ApiRequest | None:
        """A post's hook does not tell its thread, nor what its files are."""
        if inbound.kind is not Kind.MESSAGE:
            return None
        return get_call(f"{self.settings.api_base}/api/v4/posts/{inbound.dedupe[0][11:]}", self.settings.bot_token)

    def completed(self, inbound: Inbound, answer: ApiResponse | None) -> Inbound:
        """Put a post into its thread, or into the one that its answer begins; without an answer into its channel."""
        post = read_answer(answer, Post) if answer and answer.status == 200 else None
        if post is None:
            return inbound
        inbound = msgspec.structs.replace(inbound, files=post.files or inbound.files)
        root, address = post.root_id or post.id, Address.of(inbound.reply)
        if not re.fullmatch("[a-z0-9]{1,64}", root) or (inbound.direct and not post.root_id):
            return inbound
        team = inbound.session.split(":")[1]
        return msgspec.structs.replace(
            inbound,
            session=self._session(team, address.channel_id, root),
            reply=Address(address.channel_id, root).packed,
            threaded=True,
        )

    def call(self, reply: Reply, now: float, *, plain: bool = False) -> ApiRequest:  # noqa: ARG002 - any text is fine
        """Build a post."""
        address, said = Address.of(reply.address), {"message": reply.text, **self._buttons(reply)}
        if address.shown and reply.begins:
            path = f"posts/{quote(address.shown, safe='')}/patch"
            return msgspec.structs.replace(self._api(path, said), method="PUT")
        return self._api("posts", {"channel_id": address.channel_id, "root_id": address.root_id, **said})

    def _buttons(self, reply: Reply) -> dict[str, object]:
        """Return the buttons under a question, nothing for any other reply."""
        if not (reply.question and self.webhook_url):
            return {}
        place = Address.of(reply.address).but(shown="").decode()
        actions = []
        for choice in choices(reply.question):
            context = ActionContext(reply.session, place, choice.says)
            context = msgspec.structs.replace(context, proof=self._proof(context))
            style = "danger" if choice.refuses else "good"
            button = {"id": choice.label.lower(), "type": "button", "name": choice.label, "style": style}
            actions.append(button | {"integration": {"url": self.webhook_url, "context": context}})
        return {"props": {"attachments": [{"actions": actions}]}}

    def _proof(self, context: ActionContext) -> str:
        """Return what shows that a button's context was made here: the server itself signs nothing."""
        said = msgspec.json.encode([context.session, context.address, context.says])
        return hmac.digest(self.settings.bot_token.encode(), b"button " + said, hashlib.sha256).hex()

    def reached_at(self, url: str) -> Self:
        """Return this adapter with the url that buttons call."""
        return msgspec.structs.replace(self, webhook_url=url)

    def elsewhere(self, reply: Reply, found: ApiAnswer) -> bytes | None:
        """A thread that is gone is left."""
        address = Address.of(reply.address)
        lost_root = address.root_id and "root" in str(found.code)
        return super().elsewhere(reply, found) or (Address(address.channel_id).packed if lost_root else None)

    def identity_call(self) -> ApiRequest:
        """Ask who the bot is: its own posts may come back by a hook."""
        return get_call(f"{self.settings.api_base}/api/v4/users/me", self.settings.bot_token)

    def identified(self, answer: ApiResponse) -> Self:
        """Return this adapter with the bot's id."""
        post = read_answer(answer, Post)
        return msgspec.structs.replace(self, bot_id=post.id) if post and answer.status == 200 else self

    def life_sign(self, address: bytes, activity: str) -> ApiRequest:  # noqa: ARG002 - it shows no words
        """Show that something is typed."""
        place = Address.of(address)
        return self._api("users/me/typing", {"channel_id": place.channel_id, "parent_id": place.root_id})

    def upload(
        self, reply: Reply, file: Attachment, data: bytes, answers: Sequence[ApiResponse] = ()
    ) -> ApiRequest | SendResult:
        """Bring the file to the server, then post it."""
        address = Address.of(reply.address)
        if not answers:
            headers = {"authorization": f"Bearer {self.settings.bot_token}"}
            url, fields = f"{self.settings.api_base}/api/v4/files", {"channel_id": address.channel_id}
            return multipart_call(url, fields, "files", file, data, headers)
        kept = read_answer(answers[0], KeptFiles) if answers[0].status == 201 else None
        if len(answers) == 2 or kept is None or not kept.file_infos:
            return self.result(reply, answers[-1])
        names = [one.id for one in kept.file_infos]
        body = {"channel_id": address.channel_id, "root_id": address.root_id, "message": "", "file_ids": names}
        return self._api("posts", body)

    def fetch(self, file: File, answer: ApiResponse | None = None) -> ApiRequest | None:
        """A file lies at the server, which wants the bot's token."""
        url = f"{self.settings.api_base}/api/v4/files/{as_key_part(file.id, 'file id')}"
        return get_call(url, self.settings.bot_token) if answer is None else None

    def setup(self, url: str) -> Setup:
        """Hooks and commands are made by hand; their tokens come from there."""
        return Setup(
            "Integrations > Bot Accounts: make a bot, add it to the teams; its token is MATTERMOST_BOT_TOKEN. "
            f"Outgoing Webhooks and Slash Commands: url {url}, content type application/json; the tokens they show are "
            f"MATTERMOST_WEBHOOK_TOKENS, comma-separated. Commands: /ask, or any of {' '.join(CHAT_COMMANDS)}."
        )

    def _api(self, path: str, body: object) -> ApiRequest:
        return json_call(f"{self.settings.api_base}/api/v4/{path}", body, self.settings.bot_token)


def name_of(trigger_id: str) -> str:
    """Return what names a command or a press: its id is some 200 letters of base64. Raises BodyRejected."""
    if not trigger_id:
        raise BodyRejected("trigger_id is missing")
    return hashlib.sha256(trigger_id.encode("utf-8", "replace")).hexdigest()[:32]


def action_of(req: WebhookRequest) -> Action | None:
    """Return the pressed button that a request tells of, None for anything else."""
    if b'"context"' not in req.raw:
        return None
    action = decode_or_none(req.raw, Action)
    return action if action and action.context.proof else None
