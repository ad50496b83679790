"""What Telegram's Bot API takes and answers. https://core.telegram.org/bots/api"""

from __future__ import annotations

import re

import msgspec

from gateway.platforms.decode import Int64, decode
from gateway.platforms.port import ApiResponse, Fail, Gone, Reformat, SendResult, Sent, TryLater, WithoutThread
from gateway.platforms.telegram_update import Message
from shared.errors import BodyRejected
from shared.messages import Reply
from shared.retry import LONGEST_S, retry_after_s

LOST_TOPIC = re.compile(r"(thread|topic).{0,20}(not found|deleted|closed)|topic_(deleted|closed|id_invalid)")


class Address(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a reply goes: chat, topic, and the message it answers."""

    chat_id: Int64
    message_id: Int64
    message_thread_id: Int64 | None = None
    direct_messages_topic_id: Int64 | None = None


class Parameters(msgspec.Struct, frozen=True):
    """What an error answer asks for."""

    retry_after: float | None = None
    migrate_to_chat_id: Int64 | None = None


class FilePath(msgspec.Struct, frozen=True):
    """Where a file lies."""

    file_path: str = ""


class Taken(msgspec.Struct, frozen=True):
    """The message that was sent."""

    message_id: Int64


class ApiAnswer(msgspec.Struct, frozen=True):
    """Any answer of the Bot API."""

    ok: bool
    result: msgspec.Raw = msgspec.Raw(b"null")
    description: str = ""
    parameters: Parameters = Parameters()


def address_of(message: Message) -> Address:
    """Return where the answer to a message goes."""
    topic = message.direct_messages_topic
    return Address(
        message.chat.id,
        message.message_id,
        message.message_thread_id if message.is_topic_message else None,
        topic.topic_id if topic else None,
    )


def where(address: Address) -> dict[str, object]:
    """Return the chat and the topic that a call is about."""
    body: dict[str, object] = {"chat_id": address.chat_id}
    if address.message_thread_id is not None:
        body["message_thread_id"] = address.message_thread_id
    if address.direct_messages_topic_id is not None:
        body["direct_messages_topic_id"] = address.direct_messages_topic_id
    return body


def without_thread(reply: Reply, api: ApiAnswer) -> WithoutThread | None:
    """Leave out the topic or the quote that an error says is lost, None where it is about something else."""
    address = msgspec.json.decode(reply.address, type=Address)
    words = api.description.casefold()
    if LOST_TOPIC.search(words) and (address.message_thread_id or address.direct_messages_topic_id):
        left = Address(address.chat_id, address.message_id)
    elif "repl" in words and "not found" in words and address.message_id:
        left = msgspec.structs.replace(address, message_id=0)
    else:
        return None
    return WithoutThread(msgspec.json.encode(left), api.description[:200])


def sent_id(api: ApiAnswer) -> str:
    """Return the sent message's id, empty where the answer does not tell it."""
    try:
        return str(decode(bytes(api.result), Taken, "a Message").message_id)
    except BodyRejected:
        return ""


def refusal(answer: ApiResponse, api: ApiAnswer) -> SendResult:
    """Say what an error answer means; the descriptions are Telegram's own words."""
    said = api.description[:200]
    words = said.casefold()
    match answer.status:
        case 429:
            wished = api.parameters.retry_after
            after_s = retry_after_s(answer.headers) if wished is None else min(max(wished, 0.0), LONGEST_S)
            return TryLater(said, after_s)
        case 401 | 404:
            return TryLater(f"{said}: TELEGRAM_BOT_TOKEN is not accepted")
        case 403:
            return Gone(said)
        case 400 if "is not modified" in words:
            return Sent("")
        case 400 if "can't parse entities" in words or "too long" in words or "text is empty" in words:
            return Reformat(said)
        case 400 if "not found" in words or "deactivated" in words or "upgraded" in words:
            return Gone(said)
        case status if 400 <= status < 500:
            return Fail(said or f"HTTP {status}")
        case status:
            return TryLater(said or f"HTTP {status}", retry_after_s(answer.headers))
