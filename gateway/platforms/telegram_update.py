"""What Telegram posts: the parts of an Update that are read, and what they say. https://core.telegram.org/bots/api"""

from __future__ import annotations

import msgspec

from gateway.platforms.decode import Int64, as_text, as_title, decode_or_none, utf16_slice
from gateway.platforms.port import File

#: accounts that stand for people who write as a group or a channel; ``is_bot`` is true for them
STAND_INS = frozenset({1087968824, 136817688})

Present = msgspec.Raw | msgspec.UnsetType


#: how much of what is pointed at the model is shown, characters
MOST_POINTED_AT = 2000


class User(msgspec.Struct, frozen=True):
    """Who wrote."""

    id: Int64
    is_bot: bool = False
    username: str = ""
    first_name: str = ""
    last_name: str = ""

    @property
    def shown_name(self) -> str:
        """What people read of them."""
        return f"{self.first_name} {self.last_name}".strip() or self.username


class Chat(msgspec.Struct, frozen=True):
    """Where it was written; ``type`` is private, group, supergroup or channel."""

    id: Int64
    type: str = ""
    title: str = ""


class Entity(msgspec.Struct, frozen=True):
    """A marked part of a text; offset and length are UTF-16 units."""

    type: str
    offset: Int64
    length: Int64
    user: User | None = None


class Quote(msgspec.Struct, frozen=True):
    """The part of a message that is quoted."""

    text: str = ""


class Origin(msgspec.Struct, frozen=True):
    """Where a forwarded message comes from."""

    sender_user: User | None = None
    sender_user_name: str = ""
    sender_chat: Chat | None = None
    chat: Chat | None = None

    @property
    def name(self) -> str:
        """Whose words they are."""
        place = self.sender_chat or self.chat
        return (
            self.sender_user_name
            or (self.sender_user.first_name if self.sender_user else "")
            or (place.title if place else "")
        )


class FileRef(msgspec.Struct, frozen=True):
    """An attached file, or one size of a photo."""

    file_id: str = ""
    file_name: str = ""
    mime_type: str = ""
    file_size: int = 0


class Line(msgspec.Struct, frozen=True):
    """One answer of a poll, or one task of a checklist."""

    text: str = ""


class Told(msgspec.Struct, frozen=True):
    """What an attachment says in words: a place, somebody's number, a poll, a checklist."""

    latitude: float | None = None
    longitude: float | None = None
    location: Told | None = None
    title: str = ""
    address: str = ""
    first_name: str = ""
    last_name: str = ""
    phone_number: str = ""
    question: str = ""
    options: tuple[Line, ...] = ()
    tasks: tuple[Line, ...] = ()

    @property
    def words(self) -> str:
        """All of it, in the order in which people see it."""
        at = self.location or self
        place = f"{at.latitude}, {at.longitude}" if at.latitude is not None and at.longitude is not None else ""
        said = (self.title, self.address, place, self.first_name, self.last_name, self.phone_number, self.question)
        lines = (f"\n- {line.text}" for line in (*self.options, *self.tasks) if line.text)
        return " ".join(filter(None, said)) + "".join(lines)


class Topic(msgspec.Struct, frozen=True):
    """A topic of a channel's direct messages."""

    topic_id: Int64


class Message(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """One message; a kind of attachment that no file is of is read only as present or not."""

    message_id: Int64
    chat: Chat
    sender: User | None = None
    sender_chat: Chat | None = None
    text: str = ""
    caption: str = ""
    entities: tuple[Entity, ...] = ()
    caption_entities: tuple[Entity, ...] = ()
    message_thread_id: Int64 | None = None
    is_topic_message: bool = False
    is_automatic_forward: bool = False
    media_group_id: str = ""
    direct_messages_topic: Topic | None = None
    reply_to_message: Message | None = None
    quote: Quote = Quote()
    forward_origin: Origin | None = None
    migrate_to_chat_id: Int64 | None = None
    migrate_from_chat_id: Int64 | None = None
    photo: Present = msgspec.UNSET
    document: Present = msgspec.UNSET
    voice: Present = msgspec.UNSET
    audio: Present = msgspec.UNSET
    video: Present = msgspec.UNSET
    video_note: Present = msgspec.UNSET
    animation: Present = msgspec.UNSET
    sticker: Present = msgspec.UNSET
    location: Present = msgspec.UNSET
    contact: Present = msgspec.UNSET
    poll: Present = msgspec.UNSET
    dice: Present = msgspec.UNSET
    story: Present = msgspec.UNSET
    paid_media: Present = msgspec.UNSET
    checklist: Present = msgspec.UNSET
    venue: Present = msgspec.UNSET
    game: Present = msgspec.UNSET
    invoice: Present = msgspec.UNSET
    giveaway: Present = msgspec.UNSET
    rich_message: Present = msgspec.UNSET

    @property
    def words(self) -> str:
        """The text, or an attachment's caption."""
        return self.text or self.caption

    @property
    def marks(self) -> tuple[Entity, ...]:
        """The marked parts of the words."""
        return self.entities if self.text else self.caption_entities

    @property
    def attachment(self) -> str:
        """The name of what is attached, empty where nothing is; an animation is also a document."""
        return next((kind for kind in ATTACHMENTS if getattr(self, kind) is not msgspec.UNSET), "")

    @property
    def is_said(self) -> bool:
        """Whether somebody says something in it: a service note, such as that of a new topic, has no content."""
        return bool(self.words or self.attachment)

    @property
    def files(self) -> tuple[File, ...]:
        """The file that is attached, of a photo its largest size."""
        kind = self.attachment
        if kind not in FILES:
            return ()
        raw = bytes(getattr(self, kind))
        found = (
            (decode_or_none(raw, list[FileRef]) or [FileRef()])[-1] if kind == "photo" else decode_or_none(raw, FileRef)
        )
        if found is None or not found.file_id:
            return ()
        return (File(found.file_id, found.file_name or kind.replace("_", " "), found.mime_type, found.file_size),)

    @property
    def told(self) -> str:
        """What is attached, in words as far as it has some; empty where nothing or a file is."""
        kind = self.attachment
        if not kind or self.files:
            return ""
        found = decode_or_none(bytes(getattr(self, kind)), Told) if kind in TELLING else None
        if found and found.words:
            return f"({TELLING[kind]}: {found.words})"
        return f"(attached, not readable here: {kind.replace('_', ' ')})"

    @property
    def pointed_at(self) -> str:
        """What the person points at: a quote, the answered message, or where this one comes from."""
        answered = self.reply_to_message
        if self.forward_origin:
            return f"(forwarded from {self.forward_origin.name or 'somebody'})"
        if answered is None or not answered.is_said:
            return f"(about these words: {self.quote.text[:MOST_POINTED_AT]})" if self.quote.text else ""
        attached = answered.told if answered.attachment in TELLING else f"({answered.attachment.replace('_', ' ')})"
        words = self.quote.text or answered.words or attached
        name = answered.sender.first_name or answered.sender.username if answered.sender else ""
        return f"(in answer to {name or 'this message'}: {words[:MOST_POINTED_AT]})"

    @property
    def author(self) -> str:
        """The id of the person, or of the group or channel they write as; empty for a bot or nobody."""
        if self.sender and self.sender.id in STAND_INS and self.sender_chat:
            return str(self.sender_chat.id)
        return str(self.sender.id) if self.sender and not self.sender.is_bot else ""

    @property
    def title(self) -> str:
        """The name of the chat, or of the person in a private one."""
        return as_title(self.chat.title, self.sender.shown_name if self.sender and self.chat.type == "private" else "")

    @property
    def thread(self) -> str | None:
        """The part of a session key that tells this topic from its chat's others."""
        if self.direct_messages_topic:
            return f"dm{self.direct_messages_topic.topic_id}"
        return str(self.message_thread_id) if self.is_topic_message and self.message_thread_id else None


ATTACHMENTS = (
    "photo", "animation", "document", "voice", "audio", "video", "video_note", "sticker", "venue", "location",
    "contact", "poll", "dice", "story", "paid_media", "checklist", "game", "invoice", "giveaway", "rich_message",
)  # fmt: skip
#: what is told in words, and how it is called
TELLING = {
    "venue": "a place", "location": "a place", "contact": "a contact", "poll": "a poll", "checklist": "a checklist",
}  # fmt: skip
FILES = frozenset({"photo", "animation", "document", "voice", "audio", "video", "video_note", "sticker"})


class Pressed(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """A pressed button of ours."""

    id: str
    sender: User
    data: str = ""
    message: Message | None = None


class Stopped(msgspec.Struct, frozen=True):
    """The stop button of a draft."""

    chat: Chat
    message_thread_id: Int64 | None = None


class Update(msgspec.Struct, frozen=True):
    """One update, of the many kinds those that people make by talking to the bot."""

    update_id: Int64
    message: Present = msgspec.UNSET
    edited_message: Present = msgspec.UNSET
    callback_query: Present = msgspec.UNSET
    stopped_message_generation: Present = msgspec.UNSET


class Bot(msgspec.Struct, frozen=True):
    """Who we are on Telegram; ``username`` is empty until the platform told it."""

    id: int
    username: str = ""

    def is_called(self, name: str) -> bool:
        """Tell whether a name without its @ is ours; before ours is known, any bot's name is taken for it."""
        if self.username:
            return name.casefold() == self.username.casefold()
        return name.casefold().endswith("bot")


class Reading(msgspec.Struct, frozen=True):
    """What a message says: its text without our own name before it, and whether it speaks to us."""

    text: str
    command: bool
    mentioned: bool


def read(message: Message, bot: Bot) -> Reading:
    """Read a message's words as they concern this bot."""
    words = message.words
    answered = message.reply_to_message
    mentioned = bool(answered and answered.is_said and answered.sender and answered.sender.id == bot.id)
    command = False
    cut = ""
    for mark in message.marks:
        marked = utf16_slice(words, mark.offset, mark.length)
        match mark.type:
            case "mention" if bot.is_called(marked.removeprefix("@")):
                mentioned = True
                cut = cut or (marked if mark.offset == 0 else "")
            case "text_mention" if mark.user and mark.user.id == bot.id:
                mentioned = True
            case "bot_command" if mark.offset == 0:
                name, _, addressee = marked.partition("@")
                command = not addressee or bot.is_called(addressee)
                words = name + words.removeprefix(marked) if command else words
    text = as_text(words.removeprefix(cut)) or as_text(words)
    return Reading(f"{text}\n{as_text(message.told)}".strip(), command, mentioned)
