"""What LINE posts: the parts of webhooks that are read, and what they say."""

from __future__ import annotations

import msgspec

from gateway.platforms.decode import Int64, as_key_part, as_text, utf16_slice
from gateway.platforms.port import File

FILES = frozenset({"image", "video", "audio", "file"})


class Source(msgspec.Struct, frozen=True, rename="camel"):
    """Where it was said; in groups the person may be missing."""

    type: str = ""
    user_id: str = ""
    group_id: str = ""
    room_id: str = ""

    @property
    def place(self) -> str:
        """The group, the room or the person."""
        return self.group_id or self.room_id or self.user_id


class Mentionee(msgspec.Struct, frozen=True, rename="camel"):
    """A name in a text; index and length are taken as UTF-16 units."""

    index: Int64 = 0
    length: Int64 = 0
    is_self: bool = False


class Mention(msgspec.Struct, frozen=True, rename="camel"):
    """The names in a text."""

    mentionees: tuple[Mentionee, ...] = ()


class ContentProvider(msgspec.Struct, frozen=True, rename="camel"):
    """Who keeps what was attached: LINE, or the app that sent it in a user's name."""

    type: str = ""
    original_content_url: str = ""


class Message(msgspec.Struct, frozen=True, rename="camel"):
    """What was said or attached."""

    type: str = ""
    id: str = ""
    text: str = ""
    quote_token: str = ""
    quoted_message_id: str = ""
    file_name: str = ""
    title: str = ""
    address: str = ""
    mention: Mention = Mention()
    content_provider: ContentProvider = ContentProvider()

    @property
    def files(self) -> tuple[File, ...]:
        """What was attached. Raises BodyRejected."""
        if self.type not in FILES:
            return ()
        external = self.content_provider.type == "external"
        url = self.content_provider.original_content_url if external else ""
        return (File(as_key_part(self.id, "id"), self.file_name or self.type, url=url),)

    @property
    def words(self) -> str:
        """The text without our own name before it; what cannot be read is named."""
        match self.type:
            case "text":
                ours = [one for one in self.mention.mentionees if one.is_self and one.index == 0]
                name = utf16_slice(self.text, 0, ours[0].length) if ours else ""
                return as_text(self.text.removeprefix(name)) or as_text(self.text)
            case "location":
                return as_text(f"(a place: {self.title} {self.address})")
            case kind if kind in FILES:
                return ""
            case kind:
                return f"(attached, not readable here: {kind})"


class Postback(msgspec.Struct, frozen=True):
    """What a pressed button stands for."""

    data: str = ""


class Unsend(msgspec.Struct, frozen=True, rename="camel"):
    """The message that was taken back."""

    message_id: str = ""


class Event(msgspec.Struct, frozen=True, rename="camel"):
    """One event."""

    type: str
    webhook_event_id: str = ""
    mode: str = "active"
    source: Source = Source()
    reply_token: str = ""
    message: Message = Message()
    postback: Postback = Postback()
    unsend: Unsend = Unsend()


class Named(msgspec.Struct, frozen=True, rename="camel"):
    """A person's profile or a group's summary."""

    display_name: str = ""
    group_name: str = ""


class Endpoint(msgspec.Struct, frozen=True):
    """Where LINE posts, and whether it does."""

    endpoint: str = ""
    active: bool = True


class Webhook(msgspec.Struct, frozen=True):
    """A whole request; an event is read by itself, so that one of a new kind holds up no other."""

    destination: str = ""
    events: tuple[msgspec.Raw, ...] = ()
