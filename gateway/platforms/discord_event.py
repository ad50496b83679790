"""What Discord posts: the parts of interactions that are read, and what they say."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.platforms.decode import as_title

#: the part of a form that takes files
FILE_FIELD = 19


class InteractionType(enum.IntEnum):
    """What somebody did."""

    PING = 1
    COMMAND = 2
    COMPONENT = 3
    AUTOCOMPLETE = 4
    MODAL = 5


class Body(msgspec.Struct, frozen=True):
    """What tells an interaction from a webhook event."""

    type: int
    event: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_event(self) -> bool:
        """Whether it is a webhook event."""
        return self.event is not msgspec.UNSET


class User(msgspec.Struct, frozen=True):
    """Who did it."""

    id: str
    username: Any = ""
    global_name: Any = ""


class Member(msgspec.Struct, frozen=True):
    """Who did it, in a server."""

    user: User | None = None


class Attachment(msgspec.Struct, frozen=True):
    """A file that goes with a command."""

    id: str
    filename: str = "file"
    size: int = 0
    url: str = ""
    content_type: str | None = None


class Message(msgspec.Struct, frozen=True):
    """A message that a command of the context menu points at."""

    content: str = ""


class Resolved(msgspec.Struct, frozen=True):
    """What the ids in a command's options stand for."""

    attachments: dict[str, Attachment] = {}
    messages: dict[str, Message] = {}


class Option(msgspec.Struct, frozen=True):
    """One argument of a command, or a subcommand with arguments."""

    name: str = ""
    type: int = 0
    value: str | int | float | bool | None = None
    options: tuple[Option, ...] = ()


class Field(msgspec.Struct, frozen=True):
    """A part of a form, which may hold others: words, a box that is ticked, or what was picked of a list."""

    type: int = 0
    value: str | bool | None = None
    values: tuple[str, ...] = ()
    components: tuple[Field, ...] = ()
    component: Field | None = None


class Data(msgspec.Struct, frozen=True):
    """A command with its arguments, a pressed button, or a filled form."""

    name: str = ""
    options: tuple[Option, ...] = ()
    resolved: Resolved = Resolved()
    target_id: str = ""
    custom_id: str = ""
    values: tuple[str, ...] = ()
    components: tuple[Field, ...] = ()


class Channel(msgspec.Struct, frozen=True):
    """Where it was done; a direct conversation has no name."""

    name: Any = ""


class Application(msgspec.Struct, frozen=True):
    """What Discord knows of the app."""

    interactions_endpoint_url: str | None = None


class Interaction(msgspec.Struct, frozen=True):
    """One interaction; a member comes from a server, a user from a direct conversation."""

    type: int
    id: str
    application_id: str
    token: str
    channel_id: str = ""
    guild_id: str | None = None
    context: int | None = None
    member: Member | None = None
    user: User | None = None
    channel: Channel | None = None
    data: Data = Data()

    @property
    def author(self) -> str:
        """The id of the person, empty where there is none."""
        return self._person.id if self._person else ""

    @property
    def title(self) -> str:
        """The name of the channel, or of the person where it has none."""
        person = (self._person.global_name, self._person.username) if self._person else ()
        return as_title(self.channel.name if self.channel else "", *person)

    @property
    def _person(self) -> User | None:
        return (self.member and self.member.user) or self.user

    @property
    def words(self) -> str:
        """What was said: a command's arguments, a form's fields, or what a button stands for."""
        if self.type == InteractionType.COMPONENT:
            return ", ".join(self.data.values) or self.data.custom_id
        if self.type == InteractionType.MODAL:
            return (
                "\n".join(text for field in self.data.components for text in field_texts(field)) or self.data.custom_id
            )
        return " ".join(option_texts(self.data.options))

    @property
    def files(self) -> tuple[Attachment, ...]:
        """The files that go with a command."""
        return tuple(self.data.resolved.attachments.values())

    @property
    def target(self) -> str:
        """The message that a command of the context menu points at."""
        message = self.data.resolved.messages.get(self.data.target_id)
        return f"(about this message: {message.content})" if message and message.content else ""


def option_texts(options: tuple[Option, ...]) -> Iterator[str]:
    """Yield the arguments that are words; an attachment's is only an id."""
    for option in options:
        if option.value is not None and option.type != 11:
            yield str(option.value)
        if option.options:
            yield option.name
            yield from option_texts(option.options)


def field_texts(field: Field) -> Iterator[str]:
    """Yield what was filled in; a file's id is no words."""
    if field.value not in {None, ""}:
        yield str(field.value)
    if field.values and field.type != FILE_FIELD:
        yield ", ".join(field.values)
    for inner in (*field.components, *([field.component] if field.component else ())):
        yield from field_texts(inner)
