"""Telegram's objects as aiogram and python-telegram-bot have them.

Reads calls of the Bot API as JSON lines, ``[method, body]``, and checks each with both libraries. Writes one JSON line:
the problems that they found, and updates that both have built, by case.
"""

from __future__ import annotations

import datetime
import inspect
import json
import re
import sys
from typing import Any

import aiogram.methods
import aiogram.types
import telegram
from pydantic import ValidationError

ANA = {"id": 7, "is_bot": False, "first_name": "Ana"}
PRIVATE = {"id": 7, "type": "private", "first_name": "Ana"}
GROUP = {"id": -100200, "type": "supergroup", "title": "Ops", "is_forum": True}
AT = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)

#: objects inside of calls, by their field
OBJECTS = {
    "reply_parameters": telegram.ReplyParameters,
    "link_preview_options": telegram.LinkPreviewOptions,
    "reply_markup": telegram.InlineKeyboardMarkup,
}


def problems_of(method: str, body: dict[str, Any]) -> list[str]:
    """Return what the libraries find wrong with a call."""
    known = getattr(aiogram.methods, method[0].upper() + method[1:], None)
    if known is None:
        return [f"aiogram knows no {method}"]
    fields = {field.alias or name for name, field in known.model_fields.items()}
    found = [f"aiogram: {method} has no {name}" for name in body if name not in fields]
    try:
        known.model_validate(body)
    except ValidationError as error:
        found.append(f"aiogram: {method}: {error}")
    door = getattr(telegram.Bot, re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", method), None)
    if door is None:
        return [*found, f"python-telegram-bot knows no {method}"]
    arguments = inspect.signature(door).parameters
    found += [f"python-telegram-bot: {method} has no {name}" for name in body if name not in arguments]
    for name, kind in OBJECTS.items():
        if name in body and kind.de_json(body[name], None).to_dict() != body[name]:
            found.append(f"python-telegram-bot reads {name} otherwise: {body[name]}")
    return found


def aiogram_updates() -> dict[str, str]:
    """Return updates, by case, as aiogram writes them."""
    kinds = aiogram.types
    ana = kinds.User(**ANA)

    def said(chat: dict[str, Any], text: str, **more: Any) -> aiogram.types.Message:
        return kinds.Message(message_id=5, date=AT, chat=kinds.Chat(**chat), from_user=ana, text=text, **more)

    asked = kinds.MessageEntity(type="mention", offset=3, length=7)
    pressed = kinds.CallbackQuery(
        id="q", from_user=ana, chat_instance="c", data="/approve 1", message=said(PRIVATE, "May I?")
    )
    updates = {
        "private": {"message": said(PRIVATE, "hi 👋 <b> & ü")},
        "edit": {"edited_message": said(PRIVATE, "hi again", edit_date=int(AT.timestamp()))},
        "mention": {
            "message": said(GROUP, "👋 @my_bot status?", entities=[asked], message_thread_id=3, is_topic_message=True)
        },
        "button": {"callback_query": pressed},
    }
    return {
        name: kinds.Update(update_id=number, **update).model_dump_json(by_alias=True, exclude_none=True)
        for number, (name, update) in enumerate(updates.items(), 1)
    }


def telegram_bot_updates() -> dict[str, str]:
    """Return the same updates as python-telegram-bot writes them."""
    ana = telegram.User(**ANA)

    def said(chat: dict[str, Any], text: str, **more: Any) -> telegram.Message:
        return telegram.Message(5, AT, telegram.Chat(**chat), from_user=ana, text=text, **more)

    asked = telegram.MessageEntity("mention", 3, 7)
    pressed = telegram.CallbackQuery("q", ana, "c", data="/approve 1", message=said(PRIVATE, "May I?"))
    updates = {
        "private": {"message": said(PRIVATE, "hi 👋 <b> & ü")},
        "edit": {"edited_message": said(PRIVATE, "hi again", edit_date=AT)},
        "mention": {
            "message": said(GROUP, "👋 @my_bot status?", entities=[asked], message_thread_id=3, is_topic_message=True)
        },
        "button": {"callback_query": pressed},
    }
    return {
        name: telegram.Update(number, **update).to_json() for number, (name, update) in enumerate(updates.items(), 1)
    }


def main() -> None:
    """Check every call, and write what was found and built."""
    problems = [problem for line in sys.stdin for problem in problems_of(*json.loads(line))]
    built = {"aiogram": aiogram_updates(), "python-telegram-bot": telegram_bot_updates()}
    sys.stdout.write(json.dumps({"problems": problems, "updates": built}) + "\n")


if __name__ == "__main__":
    main()
