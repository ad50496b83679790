"""Questions about tool calls: buttons where a platform has them, whose press comes back as the answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from gateway.platforms.port import Kind, WebhookRequest
from shared.command import CHAT_COMMANDS
from shared.errors import SignatureRejected
from tests.gateway.platforms.fixtures import discord, google_chat, line, mattermost, slack, teams, telegram, whatsapp
from tests.gateway.platforms.fixtures.fixture import NOW, dumps
from tests.gateway.platforms.test_conformance import NAMES, body_of, fixture_of, reply_to

QUESTION = "0123456789abcdef"
APPROVE, DENY = f"/approve {QUESTION}", f"/deny {QUESTION}"


def pressed_in_slack(body: Any) -> WebhookRequest:
    button = body["blocks"][1]["elements"][0]
    pressed = {
        "type": "block_actions", "team": {"id": "T1"}, "user": {"id": "ana", "team_id": "T1"}, "channel": {"id": "D1"},
        "container": {"message_ts": "1.5"}, "trigger_id": "7.7", "actions": [button],
    }  # fmt: skip
    signed = slack.sign(urlencode({"payload": json.dumps(pressed)}).encode())
    form = {**signed.headers, "content-type": "application/x-www-form-urlencoded"}
    return msgspec.structs.replace(signed, headers=form)


def pressed_in_telegram(body: Any) -> WebhookRequest:
    data = body["reply_markup"]["inline_keyboard"][0][0]["callback_data"]
    assert len(data) <= 64
    message = json.loads(telegram.update("what was asked"))["message"]
    query = {"id": "77", "from": {"id": 5, "is_bot": False, "first_name": "Ana"}, "data": data, "message": message}
    return telegram.sign(dumps({"update_id": 3, "callback_query": query}))


def pressed_in_discord(body: Any) -> WebhookRequest:
    (row,) = body["components"]
    data = {"custom_id": row["components"][0]["custom_id"], "component_type": 2}
    return discord.sign(discord.interaction("", type=3, data=data))


def pressed_in_teams(body: Any) -> WebhookRequest:
    (card,) = body["attachments"]
    return teams.sign(teams.activity("", value=card["content"]["actions"][0]["data"], attachments=[]))


def pressed_in_google_chat(body: Any) -> WebhookRequest:
    (card,) = body["cardsV2"]
    button = card["card"]["sections"][0]["widgets"][0]["buttonList"]["buttons"][0]
    action = {"actionMethodName": button["onClick"]["action"]["function"]}
    return google_chat.sign(google_chat.event("", type="CARD_CLICKED", action=action))


def pressed_in_line(body: Any) -> WebhookRequest:
    (message,) = body["messages"]
    data = {"data": message["quickReply"]["items"][0]["action"]["data"]}
    return line.sign(line.webhook(line.event("", type="postback", postback=data, message={})))


def pressed_in_whatsapp(body: Any) -> WebhookRequest:
    assert body["type"] == "interactive"
    button = body["interactive"]["action"]["buttons"][0]["reply"]
    assert len(button["title"]) <= 20
    pressed = {"type": "interactive", "interactive": {"type": "button_reply", "button_reply": button}}
    return whatsapp.sign(whatsapp.webhook(whatsapp.message("", **pressed)))


#: as a server makes them
TRIGGER = "eHIzajV4M3A0cGZrN2trNmNr" * 8 + "b+/v=="


def pressed_in_mattermost(body: Any) -> WebhookRequest:
    button = body["props"]["attachments"][0]["actions"][0]
    assert button["id"].isalnum()
    pressed = {"user_id": "ana", "channel_id": "c1", "team_id": "t1", "post_id": "p9", "trigger_id": TRIGGER}
    context = button["integration"]["context"]
    return WebhookRequest("POST", {"content-type": "application/json"}, dumps(pressed | {"context": context}), NOW)


PRESSED: dict[str, Callable[[Any], WebhookRequest]] = {
    "slack": pressed_in_slack,
    "telegram": pressed_in_telegram,
    "discord": pressed_in_discord,
    "teams": pressed_in_teams,
    "google_chat": pressed_in_google_chat,
    "line": pressed_in_line,
    "whatsapp": pressed_in_whatsapp,
    "mattermost": pressed_in_mattermost,
}


@pytest.mark.parametrize("name", NAMES)
def test_the_buttons_under_a_question_come_back_as_its_answer_from_the_conversation_that_was_asked(name: str) -> None:
    platform = fixture_of(name)
    asks = msgspec.structs.replace(reply_to(platform, "May I?"), question=QUESTION)
    request = platform.adapter.call(asks, NOW)
    assert ("approve" in request.body.decode().lower()) == (name in PRESSED)
    assert APPROVE not in platform.adapter.call(reply_to(platform, "Hello."), NOW).body.decode()
    if name in PRESSED:
        assert DENY in json.dumps(body_of(request))
        pressed = PRESSED[name](body_of(request))
        if name != "google_chat" and name != "teams":  # their keys are fetched
            platform.adapter.verify(pressed)
        (inbound,) = platform.adapter.parse(pressed).inbound
        assert (inbound.kind, inbound.text, inbound.session, inbound.user) == (
            Kind.ACTION,
            APPROVE,
            platform.session,
            platform.user,
        )


def test_a_button_in_mattermost_brings_back_what_it_was_given_or_is_refused() -> None:
    platform = fixture_of("mattermost")
    asks = msgspec.structs.replace(reply_to(platform, "May I?"), question=QUESTION)
    pressed = json.loads(pressed_in_mattermost(body_of(platform.adapter.call(asks, NOW))).raw)
    for changed in ({"session": "mattermost:t1:c2"}, {"says": "/new"}, {"address": "{}"}, {"proof": "0" * 64}):
        context = {**pressed["context"], **changed}
        request = WebhookRequest(
            "POST", {"content-type": "application/json"}, dumps(pressed | {"context": context}), NOW
        )
        with pytest.raises(SignatureRejected):
            platform.adapter.verify(request)
    hidden = msgspec.structs.replace(platform.adapter, webhook_url="")
    assert b"actions" not in hidden.call(asks, NOW).body


def test_a_question_that_is_too_long_for_buttons_in_whatsapp_is_asked_in_words() -> None:
    platform = fixture_of("whatsapp")
    asks = msgspec.structs.replace(reply_to(platform, "x" * 1025), question=QUESTION)
    assert body_of(platform.adapter.call(asks, NOW))["type"] == "text"


def test_a_question_to_a_slash_command_is_answered_outside_of_any_thread() -> None:
    pressed = {
        "type": "block_actions", "team": {"id": "T1"}, "user": {"id": "ana"}, "channel": {"id": "C1"},
        "container": {"message_ts": "1.5"}, "trigger_id": "7.7", "actions": [{"value": APPROVE}],
    }  # fmt: skip
    form = {"content-type": "application/x-www-form-urlencoded"}
    body = urlencode({"payload": json.dumps(pressed)}).encode()
    (inbound,) = fixture_of("slack").adapter.parse(WebhookRequest("POST", form, body, NOW)).inbound
    assert inbound.session == "slack:T1:C1"


SLASH: dict[str, Callable[[str], WebhookRequest]] = {
    "slack": lambda name: slack_form(team_id="T1", channel_id="C1", user_id="U1", command=name, trigger_id="1.2"),
    "discord": lambda name: discord.sign(discord.interaction("", data={"name": name[1:], "type": 1})),
    "mattermost": lambda name: mattermost.sign(mattermost.form("", command=name, trigger_id=TRIGGER)),
}


def slack_form(**fields: str) -> WebhookRequest:
    return WebhookRequest(
        "POST", {"content-type": "application/x-www-form-urlencoded"}, urlencode(fields).encode(), NOW
    )


@pytest.mark.parametrize("command", CHAT_COMMANDS)
@pytest.mark.parametrize("name", SLASH)
def test_a_slash_command_that_is_called_like_a_chat_command_is_one(name: str, command: str) -> None:
    (inbound,) = fixture_of(name).adapter.parse(SLASH[name](command)).inbound
    assert (inbound.kind, inbound.text) == (Kind.COMMAND, command)
