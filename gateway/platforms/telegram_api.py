"""What Telegram's Bot API takes and answers. https://core.telegram.org/bots/api"""

from __future__ import annotations

import re

import msgspec

from gateway.platforms.decode import Int64
from gateway.platforms.json_api import Place
from gateway.platforms.telegram_update import Message, User

#: what a 400 says in words, in lower case: of the topic, the quote, the markup and the receiver
LOST_TOPIC = re.compile(r"(thread|topic).{0,20}(not found|deleted|closed)|topic_(deleted|closed|id_invalid)")
LOST_QUOTE = re.compile(r"repl.*not found|not found.*repl")
MARKUP = re.compile(r"can't parse entities|too long|text is empty")
GONE = re.compile(r"not found|deactivated|upgraded")
#: seconds for which the last error of a delivery tells something of now
LATELY_S = 3600


class Address(Place, frozen=True):
    """Where a reply goes: chat, topic, and the message it answers, 0 for none."""

    chat_id: Int64
    message_id: Int64
    message_thread_id: Int64 | None = None
    direct_messages_topic_id: Int64 | None = None

    @property
    def where(self) -> dict[str, object]:
        """The chat and the topic that a call is about."""
        topics: dict[str, object] = {
            "message_thread_id": self.message_thread_id,
            "direct_messages_topic_id": self.direct_messages_topic_id,
        }
        return {"chat_id": self.chat_id} | {name: topic for name, topic in topics.items() if topic is not None}


class Parameters(msgspec.Struct, frozen=True):
    """What an error answer says of a chat."""

    migrate_to_chat_id: Int64 | None = None


class Error(msgspec.Struct, frozen=True):
    """An error answer."""

    parameters: Parameters = Parameters()


class FilePath(msgspec.Struct, frozen=True):
    """Where a file lies."""

    file_path: str = ""


class FileAnswer(msgspec.Struct, frozen=True):
    """What getFile answers."""

    result: FilePath = FilePath()


class WebhookInfo(msgspec.Struct, frozen=True):
    """Where Telegram posts, and the last error of that."""

    url: str = ""
    last_error_date: int = 0
    last_error_message: str = ""

    def problem(self, now: float) -> str:
        """Return the last error, empty where it is none of late."""
        return self.last_error_message if now - self.last_error_date < LATELY_S else ""


class WebhookInfoAnswer(msgspec.Struct, frozen=True):
    """What getWebhookInfo answers."""

    result: WebhookInfo


class MeAnswer(msgspec.Struct, frozen=True):
    """What getMe answers."""

    result: User


def address_of(message: Message) -> Address:
    """Return where the answer to a message goes."""
    topic = message.direct_messages_topic
    return Address(
        message.chat.id,
        message.message_id,
        message.message_thread_id if message.is_topic_message else None,
        topic.topic_id if topic else None,
    )
