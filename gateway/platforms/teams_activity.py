"""What Teams posts: the parts of an activity that are read, and what they say."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.platforms.decode import as_title
from gateway.platforms.port import File

DOWNLOAD = "application/vnd.microsoft.teams.file.download.info"


class Account(msgspec.Struct, frozen=True, rename="camel"):
    """A person or a bot."""

    id: str = ""
    name: Any = ""
    role: str = ""
    aad_object_id: str = ""
    tenant_id: str = ""


class Conversation(msgspec.Struct, frozen=True, rename="camel"):
    """Where it was said; the id of a channel holds that of its thread."""

    id: str = ""
    conversation_type: str = ""
    tenant_id: str = ""
    name: Any = ""


class Entity(msgspec.Struct, frozen=True):
    """Something in the text, such as a name."""

    type: str = ""
    text: str = ""
    mentioned: Account | None = None


class Attachment(msgspec.Struct, frozen=True, rename="camel"):
    """A file, an image, or the text once more as HTML."""

    content_type: str = ""
    content_url: str = ""
    name: str = ""
    content: Any = None


class Tenant(msgspec.Struct, frozen=True):
    """An organization."""

    id: str = ""


class Channel(msgspec.Struct, frozen=True):
    """A channel of a team."""

    name: Any = ""


class ChannelData(msgspec.Struct, frozen=True):
    """What only Teams says."""

    tenant: Tenant = Tenant()
    channel: Channel | None = None


class Activity(msgspec.Struct, frozen=True, rename={"sender": "from", "service_url": "serviceUrl"} | {
    "channel_id": "channelId", "channel_data": "channelData"
}):  # fmt: skip
    """One activity."""

    type: str
    service_url: str = ""
    channel_id: str = ""
    id: str = ""
    timestamp: str = ""
    sender: Account = Account()
    recipient: Account = Account()
    conversation: Conversation = Conversation()
    text: str | None = None
    value: Any = None
    attachments: tuple[Attachment, ...] = ()
    entities: tuple[Entity, ...] = ()
    channel_data: ChannelData = ChannelData()

    @property
    def is_of_a_bot(self) -> bool:
        """Whether no person said it."""
        return not self.sender.id or self.sender.role == "bot" or self.sender.id == self.recipient.id

    @property
    def tenant(self) -> str:
        """The organization that it comes from."""
        return self.channel_data.tenant.id

    @property
    def title(self) -> str:
        """The name of the channel or chat, or of the person in a personal one."""
        person = self.sender.name if self.conversation.conversation_type == "personal" else ""
        channel = self.channel_data.channel
        return as_title(channel.name if channel else "", self.conversation.name, person)

    @property
    def names(self) -> list[Entity]:
        """Where the text names the bot."""
        return [entity for entity in self.entities if entity.mentioned and entity.mentioned.id == self.recipient.id]

    @property
    def is_named(self) -> bool:
        """Whether the text names the bot."""
        return bool(self.names)

    @property
    def pressed(self) -> bool:
        """Whether it is a card's button that was pressed."""
        return self.type == "message" and not self.text and isinstance(self.value, dict)

    @property
    def words(self) -> str:
        """The text without the bot's name, and with what a button stands for."""
        if self.pressed:
            said = self.value.get("text") or self.value.get("action")
            return said if isinstance(said, str) else msgspec.json.encode(self.value).decode()
        text = self.text or ""
        for entity in self.names:
            text = text.replace(entity.text, "", 1) if entity.text else text
        return html.unescape(text.replace("<at>", "").replace("</at>", ""))

    @property
    def files(self) -> Iterator[File]:
        """What is attached; the copy of the text is not."""
        for number, one in enumerate(self.attachments):
            if one.content_type == DOWNLOAD and isinstance(one.content, dict):
                url = str(one.content.get("downloadUrl", ""))
                yield File(str(one.content.get("uniqueId", number)), one.name or "file", "", 0, url)
            elif one.content_type.startswith("image/") and one.content_url:
                yield File(str(number), one.name or "image", one.content_type, 0, one.content_url)
