"""What Google Chat posts, in both shapes: the parts of events that are read, and what they say."""

from __future__ import annotations

from typing import Any

import msgspec


class User(msgspec.Struct, frozen=True, rename="camel"):
    """Who did it."""

    name: str = ""
    type: str = ""
    display_name: Any = ""


class Space(msgspec.Struct, frozen=True, rename="camel"):
    """Where it was done."""

    name: str = ""
    type: str = ""
    space_type: str = ""
    single_user_bot_dm: bool = False
    display_name: Any = ""

    @property
    def direct(self) -> bool:
        """Whether it is a conversation with the app alone."""
        return self.single_user_bot_dm or self.type == "DM" or self.space_type == "DIRECT_MESSAGE"


class Thread(msgspec.Struct, frozen=True):
    """A thread of a space."""

    name: str = ""


class DataRef(msgspec.Struct, frozen=True, rename="camel"):
    """Where an attachment lies."""

    resource_name: str = ""


class Attachment(msgspec.Struct, frozen=True, rename="camel"):
    """A file."""

    content_name: str = ""
    content_type: str = ""
    attachment_data_ref: DataRef = DataRef()

    @property
    def resource(self) -> str:
        """Its name at the media API."""
        return self.attachment_data_ref.resource_name


class Snapshot(msgspec.Struct, frozen=True):
    """A quoted message as it was."""

    text: str = ""


class Quoted(msgspec.Struct, frozen=True, rename="camel"):
    """What a message quotes."""

    quoted_message_snapshot: Snapshot = Snapshot()


class SlashCommand(msgspec.Struct, frozen=True, rename="camel"):
    """A slash command, which has a number of the app's own choice."""

    command_id: str | int | float = ""


class Message(msgspec.Struct, frozen=True, rename="camel"):
    """One message."""

    name: str = ""
    sender: User = User()
    text: str = ""
    argument_text: str = ""
    thread: Thread = Thread()
    thread_reply: bool = False
    attachment: tuple[Attachment, ...] = ()
    slash_command: SlashCommand | None = None
    quoted_message_metadata: Quoted = Quoted()

    @property
    def quoted(self) -> str:
        """The text of the message that it quotes."""
        return self.quoted_message_metadata.quoted_message_snapshot.text


class CardAction(msgspec.Struct, frozen=True, rename="camel"):
    """A pressed button."""

    action_method_name: str = ""


class CommonEvent(msgspec.Struct, frozen=True, rename="camel"):
    """What both shapes say of a pressed button."""

    invoked_function: str = ""


class Payload(msgspec.Struct, frozen=True):
    """What an add-on's event carries."""

    space: Space = Space()
    message: Message = Message()


class AddOn(msgspec.Struct, frozen=True, rename="camel"):
    """An add-on's event."""

    user: User = User()
    event_time: str = ""
    message_payload: Payload | None = None
    button_clicked_payload: Payload | None = None
    app_command_payload: Payload | None = None
    added_to_space_payload: Payload | None = None


class Happening(msgspec.Struct, frozen=True):
    """What both shapes mean."""

    user: User
    space: Space
    message: Message
    time: str
    #: what a pressed button stands for
    action: str = ""
    #: the slash command's name, with its slash
    command: str = ""

    @property
    def is_of_a_person(self) -> bool:
        """Whether a person did it; without a name there is nobody to answer."""
        return bool(self.user.name and self.space.name) and "BOT" not in {self.user.type, self.message.sender.type}


class Event(msgspec.Struct, frozen=True, rename="camel"):
    """An event of either shape."""

    type: str = ""
    event_time: str = ""
    space: Space = Space()
    user: User = User()
    message: Message | None = None
    action: CardAction = CardAction()
    common: CommonEvent = CommonEvent()
    common_event_object: CommonEvent = CommonEvent()
    chat: AddOn | None = None

    @property
    def happening(self) -> Happening | None:
        """What somebody said or pressed, None where it is neither."""
        if self.chat is not None:
            return self._of_add_on(self.chat)
        message = self.message or Message()
        match self.type:
            case "MESSAGE" | "ADDED_TO_SPACE" | "APP_COMMAND" if self.message:
                command = message.text.partition(" ")[0] if message.slash_command else ""
                return Happening(self.user, self.space, message, self.event_time, command=command)
            case "CARD_CLICKED":
                action = self.common.invoked_function or self.action.action_method_name
                return Happening(self.user, self.space, message, self.event_time, action=action)
            case _:
                return None

    def _of_add_on(self, chat: AddOn) -> Happening | None:
        spoken = chat.message_payload or chat.app_command_payload or chat.added_to_space_payload
        payload = spoken or chat.button_clicked_payload
        if payload is None or (chat.added_to_space_payload and not payload.message.name):
            return None
        command = payload.message.text.partition(" ")[0] if chat.app_command_payload else ""
        action = self.common_event_object.invoked_function if spoken is None else ""
        return Happening(chat.user, payload.space, payload.message, chat.event_time, action, command)
