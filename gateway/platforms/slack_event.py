"""What Slack posts: the parts of events and slash commands that are read, and what they say. https://docs.slack.dev"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from gateway.platforms.decode import as_text
from shared.errors import BodyRejected

#: subtypes of a message that a person wrote
SPOKEN = frozenset({None, "file_share", "thread_broadcast", "me_message"})

TOKEN = re.compile(r"<([^<>]*)>")

Ts = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,16}\.[0-9]{1,16}$")]


class Authorization(msgspec.Struct, frozen=True):
    """For whom an event was sent: the workspace and the bot's user id in it."""

    team_id: str | None = None
    user_id: str | None = None


class Envelope(msgspec.Struct, frozen=True):
    """The outside of everything that comes as JSON."""

    type: str
    challenge: str = ""
    team_id: str | None = None
    event_id: str = ""
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


class File(msgspec.Struct, frozen=True):
    """An attached file."""

    name: str | None = None
    mimetype: str | None = None


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
    files: tuple[File, ...] | None = None

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

    def words(self, bot_user: str) -> str:
        """The text as a person reads it, without the bot's name before it, and with the names of its files."""
        text = self.text or ""
        bare = re.sub(rf"^\s*<@{re.escape(bot_user)}(\|[^<>]*)?>", "", text) if bot_user else text
        names = ", ".join(file.name or file.mimetype or "file" for file in self.files or ())
        said = as_text(unescape(bare)) or as_text(unescape(text))
        return f"{said}\n(attached, not readable here: {names})".strip() if names else said


class SlashCommand(msgspec.Struct, frozen=True):
    """A slash command's form."""

    team_id: str
    channel_id: str
    user_id: str
    command: str
    trigger_id: str
    text: str = ""


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
