"""What the Telegram adapter sends and reads, by the types of the two libraries that bots are written with."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import msgspec

from gateway.platforms.port import ApiRequest, Kind
from shared.messages import Reply, ReplyStatus
from tests.gateway.platforms.fixtures import telegram
from tests.gateway.platforms.test_conformance import reply_to
from tests.real.foreign import SCRIPTS, installed

PLATFORM = telegram.fixture()

#: kind, session, text, whether it is direct, whether it names the bot, by update
READ = {
    "private": (Kind.MESSAGE, "telegram:777:7", "hi 👋 <b> & ü", True, False),
    "edit": (Kind.EDIT, "telegram:777:7", "hi again", True, False),
    "mention": (Kind.MESSAGE, "telegram:777:-100200:3", "👋 @my_bot status?", False, True),
    "button": (Kind.ACTION, "telegram:777:7", "/approve 1", True, True),
}

#: of the Bot API's newest version, which this library does not have yet and aiogram has
NOT_YET = ["python-telegram-bot: sendMessageDraft has no can_stop"]


def calls() -> list[ApiRequest]:
    """Every call that the adapter makes: answers, with a quote, a topic and buttons; life signs, drafts, the set-up."""
    adapter = PLATFORM.adapter
    answer = reply_to(PLATFORM, adapter.chunks("**bold** & `code`")[0])
    topic = b'{"chat_id":-100200,"message_id":5,"topic":3}'
    asked = msgspec.structs.replace(answer, question="0123456789abcdef")
    shown = Reply(PLATFORM.session, "msg_1", 0, "telegram", "so far", answer.address, ReplyStatus.REPLIED)
    replies = [answer, asked, msgspec.structs.replace(answer, address=topic)]
    found = [adapter.call(reply, 0.0, plain=plain) for reply in replies for plain in (False, True)]
    known = [adapter.life_sign(answer.address, ""), adapter.preview(shown), adapter.identity_call()]
    found += [call for call in known if call is not None]
    found += adapter.setup("https://bot.example.com/webhooks/telegram").calls
    return found


def asked_of_the_libraries() -> dict[str, Any]:
    lines = [json.dumps([call.url.rpartition("/")[2], json.loads(call.body)]) for call in calls()]
    command = [str(installed("bots") / "bin" / "python"), str(SCRIPTS / "telegram_types.py")]
    ended = subprocess.run(command, input="\n".join(lines), check=True, capture_output=True, text=True, timeout=120)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_both_libraries_know_every_call_and_their_updates_are_read_as_they_were_meant() -> None:
    """Each call is one of theirs, with fields of the types they have; both write the same updates."""
    assert {call.url.rpartition("/")[2] for call in calls()} == {
        "sendMessage", "sendChatAction", "sendMessageDraft", "setWebhook", "setMyCommands", "getMe",
    }  # fmt: skip
    found = asked_of_the_libraries()
    assert found["problems"] == NOT_YET
    assert set(found["updates"]) == {"aiogram", "python-telegram-bot"}
    for library, updates in found["updates"].items():
        read = {}
        for case, body in updates.items():
            (inbound,) = PLATFORM.adapter.parse(telegram.sign(body.encode())).inbound
            read[case] = (inbound.kind, inbound.session, inbound.text, inbound.direct, inbound.mentioned)
            assert inbound.user == "7"
        assert read == READ, library
