"""Telegram: updates in by webhook, messages out by the Bot API. https://core.telegram.org/bots/api

Telegram keeps one queue a chat and repeats a failed update for a day, so one that is refused blocks its chat: a
genuine update that we cannot use is answered with 200 and ignored.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import ClassVar, Self

import msgspec

from gateway.formatting import TELEGRAM_HTML, unmarked
from gateway.platforms.api_call import get_call, json_call, multipart_call, read_answer, short_key
from gateway.platforms.command_menu import MENU
from gateway.platforms.decode import as_text, decode
from gateway.platforms.json_api import AnswerShape, ApiAnswer, JsonApiAdapter, TextLimit
from gateway.platforms.port import (
    ApiRequest,
    ApiResponse,
    Capabilities,
    Chat,
    File,
    Gone,
    Inbound,
    Kind,
    Moved,
    Parsed,
    Rate,
    Reformat,
    Registration,
    SendResult,
    Sent,
    Setup,
    TryLater,
    WebhookRequest,
    WebhookResponse,
)
from gateway.platforms.signature import check_header
from gateway.platforms.telegram_api import (
    GONE,
    LOST_QUOTE,
    LOST_TOPIC,
    MARKUP,
    Address,
    Error,
    FileAnswer,
    MeAnswer,
    WebhookInfoAnswer,
    address_of,
)
from gateway.platforms.telegram_update import Bot, Message, Pressed, Stopped, Update, read
from shared.approvals import choices
from shared.attachments import Attachment
from shared.errors import BodyRejected
from shared.messages import Reply, session_key
from shared.platform_settings import TelegramSettings
from shared.texts import TRANSLATIONS

#: how long the further parts of an album are waited for
ALBUM_S = 1.0

FILE_PATH = re.compile(r"[A-Za-z0-9._/-]{1,300}", re.ASCII)

SECRET_HEADER = "x-telegram-bot-api-secret-token"  # noqa: S105 - the name of a header


class Telegram(JsonApiAdapter, frozen=True):
    """The adapter of one bot; an update is repeated for 24 hours, so ids are kept two days."""

    settings: TelegramSettings
    username: str = ""

    name: ClassVar[str] = "telegram"
    capabilities: ClassVar[Capabilities] = Capabilities(
        signature_headers=frozenset({SECRET_HEADER}),
        dedupe_ttl_s=48 * 3600.0,
        open_to_strangers=True,
        app_rates=(Rate(30, 1.0),),
        limits_methods_apart=True,
        life_sign_every_s=4.0,
        stream_gap_s=1.0,
        chats_move=True,
    )
    place: ClassVar[type[Address]] = Address
    #: 4,096 code points after parsing; counted in UTF-16 units it holds for certain
    writes: ClassVar[TextLimit] = TextLimit(4096, TELEGRAM_HTML, seen_only=True)
    answers: ClassVar[AnswerShape] = AnswerShape(
        id="result.message_id", ok="ok", said="description", wait=("parameters.retry_after", 1.0)
    )

    @property
    def bot(self) -> Bot:
        """The bot itself; its id is the part of the token before the colon."""
        return Bot(int(self.settings.bot_token.partition(":")[0]), self.username)

    def verify(self, req: WebhookRequest) -> None:
        """Compare the secret that setWebhook was given; Telegram signs neither body nor time."""
        hint = "register the webhook with TELEGRAM_SECRET_TOKEN"
        check_header(req.headers, SECRET_HEADER, self.settings.secret_token, hint)

    def parse(self, req: WebhookRequest) -> Parsed:
        """Read an update; only a new message of a person is not ignored."""
        update = decode(req.raw, Update, "an Update")
        try:
            match update:
                case Update(message=msgspec.Raw() as raw):
                    return self._said(update.update_id, decode(bytes(raw), Message, "a Message"), Kind.MESSAGE)
                case Update(edited_message=msgspec.Raw() as raw):
                    return self._said(update.update_id, decode(bytes(raw), Message, "a Message"), Kind.EDIT)
                case Update(callback_query=msgspec.Raw() as raw):
                    return self._pressed(update.update_id, decode(bytes(raw), Pressed, "a CallbackQuery"))
                case Update(stopped_message_generation=msgspec.Raw() as raw):
                    return self._stopped(update.update_id, decode(bytes(raw), Stopped, "a stopped draft"))
                case _:
                    return Parsed(ignored="no new message")
        except BodyRejected as error:
            return Parsed(ignored=str(error))

    def _said(self, update_id: int, message: Message, kind: Kind) -> Parsed:
        if message.migrate_to_chat_id is not None:
            return self._migrated(update_id, message.chat.id, message.migrate_to_chat_id)
        if message.migrate_from_chat_id is not None:
            return self._migrated(update_id, message.migrate_from_chat_id, message.chat.id)
        if not message.author or message.is_automatic_forward:
            return Parsed(ignored="not written by a person")
        return self._inbound(update_id, message, kind)

    def _migrated(self, update_id: int, old_id: int, new_id: int) -> Parsed:
        """Read that a group has become a supergroup: each of the two chats is told of it."""
        new = self._bare(update_id, Address(new_id, 0), Kind.MOVED)
        return Parsed(inbound=(msgspec.structs.replace(new, amends=self._session(old_id)),))

    def _session(self, chat_id: int, thread: str | None = None) -> str:
        return session_key(self.name, str(self.bot.id), str(chat_id), thread)

    def _pressed(self, update_id: int, pressed: Pressed) -> Parsed:
        """Confirm a pressed button in the answer itself, so that it stops to look busy."""
        confirmed = msgspec.json.encode({"method": "answerCallbackQuery", "callback_query_id": pressed.id})
        if pressed.message is None or not pressed.data or pressed.sender.is_bot:
            return Parsed(WebhookResponse(body=confirmed), ignored="a button that stands for nothing")
        said, here = (str(pressed.sender.id), as_text(pressed.data)), address_of(pressed.message)
        inbound = self._bare(update_id, here, Kind.ACTION, *said, thread=pressed.message.thread)
        return Parsed(WebhookResponse(body=confirmed), (inbound,))

    def _stopped(self, update_id: int, stopped: Stopped) -> Parsed:
        chat_id, topic = stopped.chat.id, stopped.message_thread_id
        thread = None if topic is None else str(topic)
        here = Address(chat_id, 0, topic)
        return Parsed(inbound=(self._bare(update_id, here, Kind.COMMAND, str(chat_id), "/stop", thread=thread),))

    def _bare(
        self, update_id: int, place: Address, kind: Kind, user: str = "", text: str = "", thread: str | None = None
    ) -> Inbound:
        return Inbound(
            kind=kind,
            session=self._session(place.chat_id, thread),
            dedupe=(f"telegram:{self.bot.id}:{update_id}",),
            user=user,
            text=text,
            direct=place.chat_id > 0,
            mentioned=True,
            reply=place.packed,
        )

    def _inbound(self, update_id: int, message: Message, kind: Kind) -> Parsed:
        bot = self.bot
        reading = read(message, bot)
        if not reading.text and not message.files:
            return Parsed(ignored="neither text nor attachment")
        message_key = f"telegram:{bot.id}:{message.chat.id}:{message.message_id}"
        update_key = f"telegram:{bot.id}:{update_id}"
        inbound = Inbound(
            kind=Kind.COMMAND if reading.command and kind is Kind.MESSAGE else kind,
            session=self._session(message.chat.id, message.thread),
            dedupe=(update_key, message_key) if kind is Kind.MESSAGE else (update_key,),
            user=message.author,
            text=reading.text,
            direct=message.chat.type == "private",
            mentioned=reading.mentioned,
            reply=address_of(message).packed,
            context=message.pointed_at,
            files=message.files,
            threaded=message.thread is not None,
            gather_s=ALBUM_S if message.media_group_id else 0.0,
            amends=message_key if kind is Kind.EDIT else "",
            title=message.title,
        )
        return Parsed(inbound=(inbound,))

    def call(self, reply: Reply, now: float, *, plain: bool = False) -> ApiRequest:  # noqa: ARG002 - nothing is timed
        """Build sendMessage: HTML, or its visible text alone if ``plain``."""
        address = Address.of(reply.address)
        body = address.where
        body |= {"text": unmarked(reply.text)} if plain else {"text": reply.text, "parse_mode": "HTML"}
        if reply.begins and address.message_id:
            body["reply_parameters"] = {"message_id": address.message_id, "allow_sending_without_reply": True}
        body["link_preview_options"] = {"is_disabled": True}
        if buttons := [{"text": choice.label, "callback_data": choice.says} for choice in choices(reply.question)]:
            body["reply_markup"] = {"inline_keyboard": [buttons]}
        return self._api("sendMessage", body)

    def result(self, reply: Reply, answer: ApiResponse) -> SendResult:
        """A group that has become a supergroup is followed; messages are numbered anew there: nothing is quoted."""
        error = read_answer(answer, Error) if answer.status == 400 else None
        if error is None or error.parameters.migrate_to_chat_id is None:
            return super().result(reply, answer)
        new_id = error.parameters.migrate_to_chat_id
        return Moved(Address(new_id, 0).packed, self._session(new_id))

    def elsewhere(self, reply: Reply, found: ApiAnswer) -> bytes | None:
        """The topic or the quote that an error says is lost is left out."""
        address, words = Address.of(reply.address), found.said.casefold()
        if LOST_TOPIC.search(words) and (address.message_thread_id or address.direct_messages_topic_id):
            return Address(address.chat_id, address.message_id).packed
        return address.but(message_id=0) if LOST_QUOTE.search(words) and address.message_id else None

    def judge(self, found: ApiAnswer, answer: ApiResponse) -> SendResult:
        """Telegram's errors have words and no codes."""
        words = found.said.casefold()
        match found.status:
            case 401 | 404:
                return TryLater(f"{found.said}: TELEGRAM_BOT_TOKEN is not accepted")
            case 400 if "is not modified" in words:
                return Sent("")
            case 400 if MARKUP.search(words):
                return Reformat(found.reason)
            case 400 if GONE.search(words):
                return Gone(found.reason)
            case _:
                return super().judge(found, answer)

    def chat(self, address: bytes) -> Chat:
        """A chat takes about one message a second, a group (its id is negative) 20 a minute."""
        chat_id = Address.of(address).chat_id
        return Chat(str(chat_id), (Rate(1, 1.0), Rate(20, 60.0)) if chat_id < 0 else (Rate(1, 1.0),))

    def life_sign(self, address: bytes, activity: str) -> ApiRequest:  # noqa: ARG002 - it shows no words
        """Show that something is typed, for five seconds."""
        return self._api("sendChatAction", {**Address.of(address).where, "action": "typing"})

    def preview(self, reply: Reply) -> ApiRequest | None:
        """Show a person a draft, which goes when the message comes; in a group, edits would use up its budget."""
        address = Address.of(reply.address)
        if address.chat_id < 0:
            return None
        draft = {"draft_id": 1 + int(short_key(reply.message_id.partition(".")[0], 8), 16) % 2**31}
        markup = {"text": reply.text, "parse_mode": "HTML", "can_stop": True}
        return self._api("sendMessageDraft", {**address.where, **draft, **markup})

    def upload(
        self, reply: Reply, file: Attachment, data: bytes, answers: Sequence[ApiResponse] = ()
    ) -> ApiRequest | SendResult:
        """Build sendDocument, for a picture too: sendPhoto would compress it. A bot sends 50 MB at the most."""
        if answers:
            return self.result(reply, answers[-1])
        fields = {name: str(value) for name, value in Address.of(reply.address).where.items()}
        url = f"{self.settings.api_base}/bot{self.settings.bot_token}/sendDocument"
        return multipart_call(url, fields, "document", file, data)

    def fetch(self, file: File, answer: ApiResponse | None = None) -> ApiRequest | None:
        """A file's id leads to a path."""
        if answer is None:
            return self._api("getFile", {"file_id": file.id})
        found = read_answer(answer, FileAnswer)
        path = found.result.file_path if found else ""
        if not FILE_PATH.fullmatch(path) or ".." in path:
            return None
        return get_call(f"{self.settings.api_base}/file/bot{self.settings.bot_token}/{path}")

    def setup(self, url: str) -> Setup:
        """The webhook is set by a call, and the menu of commands by one for each language."""
        webhook = {
            "url": url,
            "secret_token": self.settings.secret_token,
            "allowed_updates": ["message", "edited_message", "callback_query", "stopped_message_generation"],
        }
        steps = "Talk to @BotFather: /newbot gives TELEGRAM_BOT_TOKEN; /setprivacy decides what a group's bot is told."
        menus = [{"commands": menu()}] + [{"commands": menu(code), "language_code": code} for code in TRANSLATIONS]
        calls = (("setWebhook", webhook), *(("setMyCommands", one) for one in menus))
        return Setup(steps, tuple(self._api(method, body) for method, body in calls))

    def identity_call(self) -> ApiRequest:
        """Build getMe: in a group, only with its name the bot can tell its mentions from other bots'."""
        return self._api("getMe", {})

    def identified(self, answer: ApiResponse) -> Self:
        """Return this adapter with the bot's username."""
        me = read_answer(answer, MeAnswer)
        return msgspec.structs.replace(self, username=me.result.username) if me else self

    def registration_call(self) -> ApiRequest:
        """Build getWebhookInfo."""
        return self._api("getWebhookInfo", {})

    def registration(self, answer: ApiResponse) -> Registration | None:
        """Read the url, and what came of the last update where it could not be delivered."""
        found = read_answer(answer, WebhookInfoAnswer)
        return Registration(found.result.url, found.result.problem(time.time())) if found else None

    def handshake(self, url: str, now: float) -> ApiRequest:  # noqa: ARG002 - Telegram signs no time
        """Build an update of a kind that nobody asked for."""
        headers = {"content-type": "application/json", SECRET_HEADER: self.settings.secret_token}
        return ApiRequest(url, headers, b'{"update_id":0}')

    def _api(self, method: str, body: object) -> ApiRequest:
        return json_call(f"{self.settings.api_base}/bot{self.settings.bot_token}/{method}", body)


def menu(code: str = "") -> list[dict[str, str]]:
    """Return the chat commands in a language, in English where none is named."""
    return [{"command": one.name, "description": one.translated.get(code, one.what)} for one in MENU]
