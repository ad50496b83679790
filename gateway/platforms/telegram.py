"""Telegram: updates in by webhook, messages out by the Bot API. https://core.telegram.org/bots/api

Telegram keeps one queue a chat and repeats a failed update for a day, so one that is refused blocks its chat: a
genuine update that we cannot use is answered with 200 and ignored.
"""

from __future__ import annotations

from typing import ClassVar, Self

import msgspec

from gateway.chunking import cut
from gateway.formatting import TELEGRAM_HTML, unmarked
from gateway.platforms.decode import Int64, decode
from gateway.platforms.port import (
    EMPTY,
    Adapter,
    ApiRequest,
    ApiResponse,
    Capabilities,
    Chat,
    Fail,
    Gone,
    Inbound,
    Kind,
    Moved,
    Parsed,
    Rate,
    Reformat,
    SendResult,
    Sent,
    TryLater,
    WebhookRequest,
)
from gateway.platforms.signature import required_header, same
from gateway.platforms.telegram_update import Bot, Message, Update, User, read
from shared.errors import BodyRejected, SignatureRejected
from shared.messages import Reply, session_key
from shared.platform_settings import TelegramSettings
from shared.retry import LONGEST_S, retry_after_s

SECRET_HEADER = "x-telegram-bot-api-secret-token"  # noqa: S105 - the name of a header

#: the limit is 4,096 code points after parsing; counted in UTF-16 units it holds for certain
MOST_UNITS = 4096


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


class Taken(msgspec.Struct, frozen=True):
    """The message that was sent."""

    message_id: Int64


class ApiAnswer(msgspec.Struct, frozen=True):
    """Any answer of the Bot API."""

    ok: bool
    result: msgspec.Raw = msgspec.Raw(b"null")
    description: str = ""
    parameters: Parameters = Parameters()


class Telegram(Adapter, frozen=True):
    """The adapter of one bot; an update is repeated for 24 hours, so ids are kept two days."""

    settings: TelegramSettings
    username: str = ""

    name: ClassVar[str] = "telegram"
    capabilities: ClassVar[Capabilities] = Capabilities(
        signature_headers=frozenset({SECRET_HEADER}),
        dedupe_ttl_s=48 * 3600.0,
        open_to_strangers=True,
        app_rates=(Rate(30, 1.0),),
    )

    @property
    def bot(self) -> Bot:
        """The bot itself; its id is the part of the token before the colon."""
        return Bot(int(self.settings.bot_token.partition(":")[0]), self.username)

    def verify(self, req: WebhookRequest) -> None:
        """Compare the secret that setWebhook was given; Telegram signs neither body nor time."""
        if not same(required_header(req.headers, SECRET_HEADER), self.settings.secret_token):
            raise SignatureRejected(
                "X-Telegram-Bot-Api-Secret-Token does not match: register the webhook with TELEGRAM_SECRET_TOKEN"
            )

    def parse(self, req: WebhookRequest) -> Parsed:
        """Read an update; only a new message of a person is not ignored."""
        update = decode(req.raw, Update, "an Update")
        if isinstance(update.message, msgspec.UnsetType):
            return Parsed(ignored="no new message")
        try:
            message = decode(bytes(update.message), Message, "a Message")
        except BodyRejected as error:
            return Parsed(ignored=str(error))
        if not message.author or message.is_automatic_forward:
            return Parsed(ignored="not written by a person")
        return self._inbound(update.update_id, message)

    def _inbound(self, update_id: int, message: Message) -> Parsed:
        bot = self.bot
        reading = read(message, bot)
        if not reading.text:
            return Parsed(ignored="neither text nor attachment")
        inbound = Inbound(
            kind=Kind.COMMAND if reading.command else Kind.MESSAGE,
            session=session_key(self.name, str(bot.id), str(message.chat.id), message.thread),
            dedupe=dedupe_keys(bot, update_id, message),
            user=message.author,
            text=reading.text,
            direct=message.chat.type == "private",
            mentioned=reading.mentioned,
            reply=msgspec.json.encode(address_of(message)),
        )
        return Parsed(inbound=(inbound,))

    def chunks(self, markdown: str) -> list[str]:
        """Cut an answer into HTML whose visible text fits one message."""
        return cut(markdown, MOST_UNITS, TELEGRAM_HTML, seen_only=True) or [EMPTY]

    def call(self, reply: Reply, now: float, *, plain: bool = False) -> ApiRequest:  # noqa: ARG002 - nothing is timed
        """Build sendMessage: HTML, or its visible text alone if ``plain``."""
        address = msgspec.json.decode(reply.address, type=Address)
        body: dict[str, object] = {"chat_id": address.chat_id}
        if address.message_thread_id is not None:
            body["message_thread_id"] = address.message_thread_id
        if address.direct_messages_topic_id is not None:
            body["direct_messages_topic_id"] = address.direct_messages_topic_id
        body |= {"text": unmarked(reply.text)} if plain else {"text": reply.text, "parse_mode": "HTML"}
        if reply.begins:
            body["reply_parameters"] = {"message_id": address.message_id, "allow_sending_without_reply": True}
        body["link_preview_options"] = {"is_disabled": True}
        return self._api("sendMessage", msgspec.json.encode(body))

    def result(self, reply: Reply, answer: ApiResponse) -> SendResult:
        """Read an answer of sendMessage."""
        try:
            api = decode(answer.body, ApiAnswer, "an answer")
        except BodyRejected:
            return TryLater(
                f"HTTP {answer.status} with a body that is not the Bot API's", retry_after_s(answer.headers)
            )
        if api.ok:
            return Sent(sent_id(api))
        if api.parameters.migrate_to_chat_id is not None:
            address = msgspec.json.decode(reply.address, type=Address)
            moved = msgspec.structs.replace(address, chat_id=api.parameters.migrate_to_chat_id)
            return Moved(msgspec.json.encode(moved))
        return refusal(answer, api)

    def chat(self, address: bytes) -> Chat:
        """A chat takes about one message a second, a group (its id is negative) 20 a minute."""
        chat_id = msgspec.json.decode(address, type=Address).chat_id
        return Chat(str(chat_id), (Rate(1, 1.0), Rate(20, 60.0)) if chat_id < 0 else (Rate(1, 1.0),))

    def identity_call(self) -> ApiRequest:
        """Build getMe: in a group, only with its name the bot can tell its mentions from other bots'."""
        return self._api("getMe", b"{}")

    def identified(self, answer: ApiResponse) -> Self:
        """Return this adapter with the bot's username."""
        try:
            user = decode(bytes(decode(answer.body, ApiAnswer, "an answer").result), User, "a User")
        except BodyRejected:
            return self
        return msgspec.structs.replace(self, username=user.username)

    def _api(self, method: str, body: bytes) -> ApiRequest:
        url = f"{self.settings.api_base}/bot{self.settings.bot_token}/{method}"
        return ApiRequest(url, {"content-type": "application/json"}, body)


def dedupe_keys(bot: Bot, update_id: int, message: Message) -> tuple[str, ...]:
    """Name an update; an album's parts without words share one more key, so that they make one message."""
    keys = (f"telegram:{bot.id}:{update_id}",)
    if message.media_group_id and not message.words:
        return (*keys, f"telegram:{bot.id}:{message.chat.id}:album:{message.media_group_id[:64]}")
    return keys


def address_of(message: Message) -> Address:
    """Return where the answer to a message goes."""
    topic = message.direct_messages_topic
    return Address(
        message.chat.id,
        message.message_id,
        message.message_thread_id if message.is_topic_message else None,
        topic.topic_id if topic else None,
    )


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
        case 400 if "can't parse entities" in words or "too long" in words or "text is empty" in words:
            return Reformat(said)
        case 400 if "not found" in words or "deactivated" in words or "upgraded" in words:
            return Gone(said)
        case status if 400 <= status < 500:
            return Fail(said or f"HTTP {status}")
        case status:
            return TryLater(said or f"HTTP {status}", retry_after_s(answer.headers))
