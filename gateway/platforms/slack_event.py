"""What Slack posts: the parts of events and slash commands that are read, and what they say. https://docs.slack.dev"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

from gateway.platforms.decode import as_text, as_title, decode_or_none
from gateway.platforms.port import File
from shared.errors import BodyRejected

#: subtypes of a message that a person wrote
SPOKEN = frozenset({None, "file_share", "thread_broadcast", "me_message"})

TOKEN = re.compile(r"<([^<>]*)>")

Ts = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,16}\.[0-9]{1,16}$")]


class Authorization(msgspec.Struct, frozen=True):
    """For whom an event was sent: the workspace, its enterprise, and the bot's user id in it."""

    enterprise_id: str | None = None
    team_id: str | None = None
    user_id: str | None = None


class Envelope(msgspec.Struct, frozen=True):
    """The outside of everything that comes as JSON."""

    type: str
    challenge: str = ""
    team_id: str | None = None
    event_id: str = ""
    is_ext_shared_channel: bool = False
    authorizations: tuple[Authorization, ...] | None = None
    event: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def account(self) -> str:
        """The workspace that installed the bot; a shared channel's event carries the sender's elsewhere."""
        return next((auth.team_id for auth in self.authorizations or () if auth.team_id), self.team_id or "")

    @property
    def bot_user(self) -> str:
        """The bot's own user id, empty where it is not told."""
        return next((auth.user_id for auth in self.authorizations or () if auth.user_id), "")


class EventKind(msgspec.Struct, frozen=True):
    """What decides whether an event is read at all."""

    type: str
    subtype: str | None = None
    bot_id: str | None = None
    user: str | None = None
    hidden: bool = False


class AttachedFile(msgspec.Struct, frozen=True):
    """An attached file."""

    id: str = ""
    name: str | None = None
    mimetype: str | None = None
    size: int | None = None
    url_private_download: str = ""
    url_private: str = ""


class Attachment(msgspec.Struct, frozen=True):
    """A message that is shown in another one: a forwarded one, or one that a link leads to."""

    text: str | None = None
    fallback: str | None = None
    author_name: str | None = None
    is_share: bool = False
    is_msg_unfurl: bool = False


class Changed(msgspec.Struct, frozen=True):
    """A message as it is after an edit, or was before it."""

    user: str = ""
    text: str = ""
    ts: str = ""
    bot_id: str | None = None
    subtype: str | None = None
    thread_ts: Ts | None = None


class ChangeEvent(msgspec.Struct, frozen=True):
    """An edit or a deletion."""

    channel: str
    ts: Ts
    subtype: str
    deleted_ts: str = ""
    message: Changed = Changed()
    previous_message: Changed = Changed()

    @property
    def is_of_a_person(self) -> bool:
        """Whether somebody took a message back, or gave it other words: unfurled links are edits, too."""
        was = self.previous_message
        if self.subtype == "message_deleted":
            return bool(self.deleted_ts) and not was.bot_id
        new = self.message
        return bool(new.user and new.text and new.text != was.text) and not new.bot_id and new.subtype in SPOKEN

    @property
    def amends(self) -> str:
        """The ts of the message that it is about."""
        return self.deleted_ts or self.message.ts


class ChannelChange(msgspec.Struct, frozen=True):
    """A channel's new id."""

    old_channel_id: str
    new_channel_id: str


class Id(msgspec.Struct, frozen=True):
    """A person, a workspace or a channel."""

    id: str = ""
    name: Any = ""


class Presser(msgspec.Struct, frozen=True):
    """Who pressed a button, and the workspace that they belong to."""

    id: str = ""
    team_id: str = ""
    name: Any = ""


class Enterprise(msgspec.Struct, frozen=True):
    """The organization that workspaces belong to."""

    id: str = ""


class Container(msgspec.Struct, frozen=True):
    """The message that a button is in."""

    message_ts: str = ""
    thread_ts: str | None = None
    channel_id: str = ""


class Choice(msgspec.Struct, frozen=True):
    """What was picked."""

    value: str = ""


class Action(msgspec.Struct, frozen=True):
    """A pressed button or a picked choice."""

    action_id: str = ""
    value: str | None = None
    selected_option: Choice | None = None

    @property
    def words(self) -> str:
        """What it stands for."""
        return self.value or (self.selected_option.value if self.selected_option else "") or self.action_id


class Interaction(msgspec.Struct, frozen=True):
    """What comes of a button in one of our messages."""

    type: str = ""
    team: Id | None = None
    user: Presser = Presser()
    enterprise: Enterprise | None = None
    channel: Id | None = None
    container: Container = Container()
    trigger_id: str = ""
    actions: tuple[Action, ...] = ()
    response_url: str = ""

    @property
    def is_of_outsider(self) -> bool:
        """Whether the person belongs to another organization; workspaces of one enterprise are one."""
        home = self.user.team_id
        return bool(home and self.team and home != self.team.id and self.enterprise is None)


class SpokenEvent(msgspec.Struct, frozen=True):
    """A message that a person wrote."""

    type: str
    user: str
    channel: str
    ts: Ts
    text: str | None = None
    channel_type: str | None = None
    thread_ts: Ts | None = None
    parent_user_id: str | None = None
    #: each is read by itself, so that one that is odd does not lose the message
    files: tuple[msgspec.Raw, ...] | None = None
    attachments: tuple[msgspec.Raw, ...] | None = None
    #: the sender's workspace, by whichever name an event has it
    team: str | None = None
    user_team: str | None = None
    source_team: str | None = None

    @property
    def home(self) -> str:
        """The workspace that the sender belongs to, empty where it is not told."""
        return self.user_team or self.source_team or self.team or ""

    @property
    def direct(self) -> bool:
        """Whether it was written to the bot alone; ids of direct conversations begin with D."""
        return self.channel_type == "im" or (self.channel_type is None and self.channel.startswith("D"))

    def speaks_to(self, bot_user: str) -> bool:
        """Tell whether it names the bot, or stands in a thread that the bot began."""
        if self.type == "app_mention":
            return True
        named = f"<@{bot_user}>" in (self.text or "") or f"<@{bot_user}|" in (self.text or "")
        return bool(bot_user) and (named or self.parent_user_id == bot_user)

    def is_of_outsider(self, envelope: Envelope) -> bool:
        """Tell whether the sender belongs to another organization; workspaces of one enterprise are one.

        Who says nothing of it in a channel that is shared with another organization is taken for one of that.
        """
        one_enterprise = any(one.enterprise_id for one in envelope.authorizations or ())
        if not self.home or self.home in {envelope.account, envelope.team_id}:
            return self.home != envelope.account if self.home else envelope.is_ext_shared_channel
        return envelope.is_ext_shared_channel or not one_enterprise

    @property
    def forwarded(self) -> str:
        """What is forwarded, or shown because a link leads to it."""
        readable = [decode_or_none(bytes(raw), Attachment) for raw in self.attachments or ()]
        linked = [one for one in readable if one and (one.is_share or one.is_msg_unfurl)]
        shown = [one for one in linked if one.text or one.fallback]
        return "\n".join(
            f"(forwarded from {one.author_name or 'somebody'}: {as_text(unescape(one.text or one.fallback or ''))})"
            for one in shown
        )

    @property
    def attached(self) -> tuple[File, ...]:
        """Its files."""
        readable = [decode_or_none(bytes(raw), AttachedFile) for raw in self.files or ()]
        return tuple(
            File(
                one.id, one.name or one.mimetype or "file", one.mimetype or "", one.size or 0,
                one.url_private_download or one.url_private,
            )
            for one in readable if one
        )  # fmt: skip

    def words(self, bot_user: str) -> str:
        """The text as a person reads it, without the bot's name before it."""
        text = self.text or ""
        bare = re.sub(rf"^\s*<@{re.escape(bot_user)}(\|[^<>]*)?>", "", text) if bot_user else text
        return as_text(unescape(bare)) or as_text(unescape(text))


class SlashCommand(msgspec.Struct, frozen=True):
    """A slash command's form."""

    team_id: str
    channel_id: str
    user_id: str
    command: str
    trigger_id: str
    text: str = ""
    response_url: str = ""
    channel_name: str = ""
    user_name: str = ""


def title_of(channel: str, channel_name: Any, user_name: Any) -> str:
    """Return the name of a channel, or of the person in a direct conversation."""
    return as_title(user_name) if channel.startswith("D") else as_title(channel_name)


def read_command(form: dict[str, str]) -> SlashCommand:
    """Read a slash command. Raises BodyRejected."""
    try:
        return msgspec.convert(form, SlashCommand)
    except msgspec.ValidationError as error:
        raise BodyRejected(f"the form is not a slash command: {error}") from None


def unescape(text: str) -> str:
    """Turn Slack's tokens and entities into what a person sees."""
    plain = TOKEN.sub(lambda found: read_token(found[1]), text)
    return plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def read_token(token: str) -> str:
    """Read what stands between angle brackets: a user, a channel, a group word, or a link."""
    target, _, label = token.partition("|")
    match target[:1]:
        case "@":
            return f"@{label or target[1:]}"
        case "#":
            return f"#{label or target[1:]}"
        case "!":
            return label or f"@{target[1:]}"
        case _:
            return f"{label} ({target})" if label and label != target else target
