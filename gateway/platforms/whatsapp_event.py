"""What WhatsApp's webhooks hold: the parts that are read, and what they say."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.platforms.decode import decode_or_none
from gateway.platforms.port import File, Kind
from shared.approvals import choices

FILE_KINDS = ("image", "video", "audio", "document", "sticker")


class Profile(msgspec.Struct, frozen=True):
    """A person's name."""

    name: Any = ""


class Contact(msgspec.Struct, frozen=True):
    """Who wrote: by phone number, by business-scoped user id, or both."""

    wa_id: str = ""
    user_id: str = ""
    profile: Profile = Profile()


class Media(msgspec.Struct, frozen=True):
    """A file."""

    id: str = ""
    mime_type: str = ""
    caption: str = ""
    filename: str = ""


class Text(msgspec.Struct, frozen=True):
    """Words."""

    body: str = ""


class Choice(msgspec.Struct, frozen=True):
    """What was picked of a list or of buttons."""

    id: str = ""
    title: str = ""


class FlowReply(msgspec.Struct, frozen=True):
    """What was filled in of a form; ``response_json`` is JSON."""

    body: str = ""
    response_json: str = ""


class Interactive(msgspec.Struct, frozen=True):
    """A pressed button, a picked line, or a form that was filled in."""

    button_reply: Choice | None = None
    list_reply: Choice | None = None
    nfm_reply: FlowReply | None = None

    @property
    def words(self) -> str:
        """What was chosen or filled in; of our own buttons what they say."""
        choice, form = self.button_reply or self.list_reply, self.nfm_reply
        if choice and choice.id in {button.says for button in choices(choice.id.rpartition(" ")[2])}:
            return choice.id
        return choice.title if choice else (form.response_json or form.body) if form else ""


class Button(msgspec.Struct, frozen=True):
    """A pressed button of a template."""

    text: str = ""


class Location(msgspec.Struct, frozen=True):
    """A place."""

    latitude: float = 0.0
    longitude: float = 0.0
    name: str = ""


class CardName(msgspec.Struct, frozen=True):
    """The name on a card."""

    formatted_name: str = ""


class Phone(msgspec.Struct, frozen=True):
    """A number on a card."""

    phone: str = ""


class Card(msgspec.Struct, frozen=True):
    """Somebody's card, which a person passes on."""

    name: CardName = CardName()
    phones: tuple[Phone, ...] = ()

    @property
    def words(self) -> str:
        """The name and the numbers."""
        return " ".join(filter(None, [self.name.formatted_name, *(one.phone for one in self.phones)]))


class Context(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """What a message answers, or that it was forwarded."""

    id: str = ""
    sender: str = ""
    forwarded: bool = False
    frequently_forwarded: bool = False


class Edit(msgspec.Struct, frozen=True):
    """A changed message."""

    original_message_id: str = ""
    message: Message | None = None


class Revoke(msgspec.Struct, frozen=True):
    """A message that was taken back."""

    original_message_id: str = ""


class Message(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """One message."""

    id: str = ""
    type: str = ""
    sender: str = ""
    from_user_id: str = ""
    group_id: str = ""
    text: Text = Text()
    interactive: Interactive = Interactive()
    button: Button = Button()
    location: Location | None = None
    contacts: msgspec.Raw = msgspec.Raw(b"[]")
    context: Context | None = None
    edit: Edit = Edit()
    revoke: Revoke = Revoke()
    image: Media | None = None
    video: Media | None = None
    audio: Media | None = None
    document: Media | None = None
    sticker: Media | None = None

    @property
    def kind(self) -> Kind | None:
        """What the person did, None for what is no message: a reaction, a note of the system."""
        match self.type:
            case "text" | "image" | "video" | "audio" | "document" | "sticker" | "location" | "contacts" | "order":
                return Kind.MESSAGE
            case "unsupported":
                return Kind.MESSAGE
            case "interactive" | "button":
                return Kind.ACTION
            case "edit":
                return Kind.EDIT
            case "revoke":
                return Kind.DELETE
            case _:
                return None

    @property
    def amends(self) -> str:
        """The id of the message that was changed or taken back."""
        return self.edit.original_message_id or self.revoke.original_message_id

    @property
    def forwarded(self) -> bool:
        """Whether somebody else wrote it."""
        return bool(self.context and (self.context.forwarded or self.context.frequently_forwarded))

    @property
    def words(self) -> str:
        """What it says; what cannot be read is named."""
        match self.type:
            case "text":
                return self.text.body
            case "interactive":
                return self.interactive.words
            case "button":
                return self.button.text
            case "location" if self.location:
                place = f"{self.location.latitude}, {self.location.longitude}"
                return f"(a place: {self.location.name} {place})".replace(":  ", ": ")
            case "edit" if self.edit.message:
                return self.edit.message.words
            case "contacts" if cards := ", ".join(filter(None, (card.words for card in self.cards))):
                return f"(a contact: {cards})"
            case "contacts" | "order" | "unsupported":
                return f"(attached, not readable here: {self.type})"
            case _:
                return self.media.caption if self.media else ""

    @property
    def cards(self) -> list[Card]:
        """The cards that it passes on."""
        return decode_or_none(bytes(self.contacts), list[Card]) or []

    @property
    def media(self) -> Media | None:
        """The file that it carries."""
        return next((media for kind in FILE_KINDS if (media := getattr(self, kind))), None)

    @property
    def files(self) -> tuple[File, ...]:
        """The file that it carries, as the gateway names it."""
        media = self.media
        return (File(media.id, media.filename or self.type, media.mime_type),) if media and media.id else ()


class Metadata(msgspec.Struct, frozen=True):
    """Which number of ours it is about."""

    phone_number_id: str = ""


class Value(msgspec.Struct, frozen=True):
    """What happened at a number; a message is read by itself, so that one that is odd holds up no other."""

    metadata: Metadata = Metadata()
    contacts: tuple[Contact, ...] = ()
    messages: tuple[msgspec.Raw, ...] = ()

    def contact_of(self, message: Message) -> Contact:
        """Return who wrote a message; one that names nobody is the only contact's, and among several nobody's."""
        names = {message.sender, message.from_user_id} - {""}
        for contact in self.contacts:
            if names & {contact.wa_id, contact.user_id} or (not names and len(self.contacts) == 1):
                return contact
        return Contact(wa_id=message.sender, user_id=message.from_user_id)


class Change(msgspec.Struct, frozen=True):
    """One change; its value has another shape for each field."""

    field: str = ""
    value: msgspec.Raw = msgspec.Raw(b"{}")


class Entry(msgspec.Struct, frozen=True):
    """The changes of one account."""

    changes: tuple[Change, ...] = ()


class Webhook(msgspec.Struct, frozen=True):
    """A whole request."""

    entry: tuple[Entry, ...] = ()

    @property
    def changes(self) -> list[Change]:
        """All changes, in order."""
        return [change for entry in self.entry for change in entry.changes]
