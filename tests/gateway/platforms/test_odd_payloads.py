"""What platforms really send beside the tidy middle: each is answered as it has to be, and starts one turn or none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec
import pytest

from gateway.governor import Governor
from gateway.platforms.port import File, Inbound, Kind, Parsed, Rate
from shared.errors import BodyRejected, SignatureRejected
from tests.gateway.platforms.fixtures import (
    discord,
    google_chat,
    line,
    matrix,
    mattermost,
    slack,
    teams,
    telegram,
    twilio,
    whatsapp,
)
from tests.gateway.platforms.fixtures.fixture import Fixture, api, dumps
from tests.gateway.platforms.test_conformance import fixture_of

SPOKEN = {Kind.MESSAGE, Kind.COMMAND, Kind.ACTION}
ANA = {"id": 7, "is_bot": False, "first_name": "Ana"}
CHAT = {"id": 7, "type": "private", "first_name": "Ana"}
LINE_USER = {"type": "user", "userId": "U80696558e1aa831d70ab1a1cf0a2e23a"}


def parsed(fixture: Fixture, body: bytes, content_type: str = "") -> Parsed:
    req = fixture.sign(body)
    if content_type:
        req = msgspec.structs.replace(req, headers={**req.headers, "content-type": content_type})
    fixture.adapter.verify(req)
    return fixture.adapter.parse(req)


def turns(found: Parsed) -> list[Inbound]:
    """What would start a turn."""
    return [inbound for inbound in found.inbound if inbound.kind in SPOKEN and inbound.addressed]


def update(**content: Any) -> bytes:
    return dumps({"update_id": 9, **content})


def said(**more: Any) -> dict[str, Any]:
    return {"message_id": 3, "date": 1, "chat": CHAT, "from": ANA, **more}


def changed(previous: dict[str, Any], message: dict[str, Any], **more: Any) -> bytes:
    return slack.envelope(
        subtype="message_changed", hidden=True, channel="C1", message=message, previous_message=previous, **more
    )


def value(**more: Any) -> dict[str, Any]:
    number = msgspec.json.decode(whatsapp.fixture().direct("x"))["entry"][0]["changes"][0]["value"]["metadata"]
    return {"messaging_product": "whatsapp", "metadata": number, **more}


def webhook(*values: dict[str, Any]) -> bytes:
    entries = [{"id": "1", "changes": [{"field": "messages", "value": one}]} for one in values]
    return dumps({"object": "whatsapp_business_account", "entry": entries})


def wa(number: int, **more: Any) -> dict[str, Any]:
    return {
        "from": "16505551234",
        "id": f"wamid.{number}",
        "timestamp": "1",
        "type": "text",
        "text": {"body": "x"},
        **more,
    }


def activity(kind: str, text: str | None = None, **more: Any) -> bytes:
    return dumps({**msgspec.json.decode(teams.activity("x")), "type": kind, "text": text, **more})


def line_events(*events: dict[str, Any]) -> bytes:
    return dumps({"destination": "U8e742f61d673b39c7fff3cecb7536ef0", "events": list(events)})


def line_event(kind: str, number: int = 1, **more: Any) -> dict[str, Any]:
    known = {"type": kind, "mode": "active", "timestamp": 1, "source": LINE_USER, "webhookEventId": f"01FZ{number:022}"}
    return {**known, "deliveryContext": {"isRedelivery": False}, **more}


def text(number: int = 1, **more: Any) -> dict[str, Any]:
    return line_event("message", number, message={"type": "text", "id": str(number), "text": "hi"}, **more)


def interaction(kind: int, **data: Any) -> bytes:
    return discord.interaction("x", type=kind, data=data)


CASES: dict[str, tuple[Callable[[], Fixture], bytes, int, int]] = {
    # Slack
    "slack unfurl": (slack.fixture, changed(
        {"user": "U1", "text": "http://x.y", "ts": "1.5"},
        {"user": "U1", "text": "http://x.y", "ts": "1.5", "attachments": [{"from_url": "http://x.y", "title": "X"}]},
    ), 200, 0),
    "slack own edit": (slack.fixture, changed({}, {"bot_id": "B1", "text": "x", "ts": "1.5"}), 200, 0),
    "slack thread count": (slack.fixture, changed(
        {"user": "U1", "text": "x", "ts": "1.5"}, {"user": "U1", "text": "x", "ts": "1.5", "reply_count": 1},
    ), 200, 0),
    "slack tombstone": (slack.fixture, changed(
        {"user": "U1", "text": "x", "ts": "1.5"},
        {"user": "USLACKBOT", "subtype": "tombstone", "text": "This message was deleted.", "ts": "1.5"},
    ), 200, 0),
    "slack assistant": (slack.fixture, slack.envelope(
        type="assistant_thread_started",
        assistant_thread={"user_id": "U1", "context": {}, "channel_id": "D1", "thread_ts": "1.5"},
    ), 200, 0),
    "slack huddle": (slack.fixture, slack.envelope(subtype="huddle_thread", channel="C1", text=""), 200, 0),
    "slack null fields": (slack.fixture, slack.envelope(
        text="hi", channel_type="im", files=None, attachments=None, thread_ts=None, subtype=None, bot_id=None,
    ), 200, 1),
    "slack odd file": (slack.fixture, slack.envelope(
        text="hi", channel_type="im", subtype="file_share",
        files=[{"id": "F1", "mode": "tombstone"}, {"id": "F2", "name": None, "size": None}],
    ), 200, 1),
    "slack unknown type": (slack.fixture, dumps({"type": "event_callback", "event": {"type": "team_join"}}), 200, 0),
    "slack no event": (slack.fixture, dumps({"type": "event_callback", "team_id": "T1", "event_id": "Ev1"}), 400, 0),
    "slack odd challenge": (slack.fixture, dumps({"type": "url_verification", "challenge": 5}), 400, 0),
    "slack no challenge": (slack.fixture, dumps({"type": "url_verification"}), 200, 0),
    # Telegram
    "telegram channel post": (telegram.fixture, update(channel_post=said(text="x")), 200, 0),
    "telegram edited channel post": (telegram.fixture, update(edited_channel_post=said(text="x")), 200, 0),
    "telegram business": (telegram.fixture, update(business_message=said(text="x")), 200, 0),
    "telegram reaction": (telegram.fixture, update(message_reaction={
        "chat": CHAT, "message_id": 3, "user": ANA, "date": 1, "old_reaction": [], "new_reaction": [{"type": "emoji"}],
    }), 200, 0),
    "telegram member": (telegram.fixture, update(my_chat_member={"chat": CHAT, "from": ANA, "date": 1}), 200, 0),
    "telegram pinned": (telegram.fixture, update(message=said(pinned_message=said(text="x"))), 200, 0),
    "telegram new members": (telegram.fixture, update(message=said(new_chat_members=[ANA])), 200, 0),
    "telegram inaccessible": (telegram.fixture, update(callback_query={
        "id": "1", "from": ANA, "chat_instance": "1", "data": "yes",
        "message": {"chat": CHAT, "message_id": 1, "date": 0},
    }), 200, 1),
    "telegram inline press": (telegram.fixture, update(callback_query={
        "id": "1", "from": ANA, "chat_instance": "1", "data": "yes", "inline_message_id": "x",
    }), 200, 0),
    "telegram poll answer": (telegram.fixture, update(poll_answer={"poll_id": "1", "option_ids": [0]}), 200, 0),
    "telegram only id": (telegram.fixture, update(), 200, 0),
    "telegram new kind": (telegram.fixture, update(teleport={"x": 1}), 200, 0),
    "telegram broken message": (telegram.fixture, update(message={"message_id": "x"}), 200, 0),
    "telegram album": (telegram.fixture, update(message=said(
        media_group_id="1", caption="look", photo=[{"file_id": "a", "file_unique_id": "a", "width": 1, "height": 1}],
    )), 200, 1),
    "telegram offset past the end": (telegram.fixture, update(message=said(
        text="hi",
        entities=[{"type": "mention", "offset": 900, "length": 5}, {"type": "bold", "offset": -5, "length": -1}],
    )), 200, 1),
    # Discord
    "discord ping with data": (discord.fixture, discord.interaction("x", type=1), 200, 0),
    "discord autocomplete": (discord.fixture, interaction(4, name="ask"), 200, 0),
    "discord no options": (discord.fixture, interaction(2, name="ask", id="1", type=1), 200, 1),
    "discord select": (discord.fixture, interaction(3, custom_id="c", component_type=3, values=["a", "b"]), 200, 1),
    "discord modal": (discord.fixture, interaction(5, custom_id="m", components=[
        {"type": 1, "components": [{"type": 4, "custom_id": "t", "value": "hello"}]},
    ]), 200, 1),
    "discord modal of other parts": (discord.fixture, interaction(5, custom_id="m", components=[
        {"type": 18, "component": {"type": 23, "custom_id": "agree", "value": True}},
        {"type": 18, "component": {"type": 3, "custom_id": "colours", "values": ["red", "blue"]}},
        {"type": 18, "component": {"type": 19, "custom_id": "files", "values": ["77"]}},
        {"type": 18, "component": {"type": 21, "custom_id": "size", "value": None}},
    ]), 200, 1),
    "discord user menu": (discord.fixture, interaction(2, name="who", id="1", type=2, target_id="5"), 200, 1),
    "discord entitlement": (discord.fixture, dumps({
        "version": 1, "application_id": "1", "type": 1, "event": {"type": "ENTITLEMENT_CREATE", "data": {}},
    }), 204, 0),
    "discord new type": (discord.fixture, interaction(77), 200, 0),
    # WhatsApp
    "whatsapp statuses": (whatsapp.fixture, webhook(value(statuses=[
        {"id": "wamid.1", "status": "failed", "timestamp": "1", "recipient_id": "1", "errors": [{"code": 131047}]},
    ])), 200, 0),
    "whatsapp batch": (whatsapp.fixture, webhook(
        value(messages=[wa(1), wa(2)]), value(statuses=[]), value(messages=[wa(3), {"odd": 1}, 5, None]),
    ), 200, 3),
    "whatsapp errors": (whatsapp.fixture, webhook(value(errors=[{"code": 130429, "title": "x"}])), 200, 0),
    "whatsapp unsupported": (whatsapp.fixture, webhook(value(messages=[
        {"from": "1", "id": "wamid.1", "type": "unsupported", "errors": [{"code": 131051}]},
    ])), 200, 1),
    "whatsapp reaction": (whatsapp.fixture, webhook(value(messages=[
        wa(1, type="reaction", reaction={"message_id": "wamid.0", "emoji": "👍"}),
    ])), 200, 0),
    "whatsapp system": (whatsapp.fixture, webhook(value(messages=[
        wa(1, type="system", system={"body": "x changed", "type": "user_changed_number", "wa_id": "1"}),
    ])), 200, 0),
    "whatsapp other number": (whatsapp.fixture, webhook(
        {**value(messages=[wa(1)]), "metadata": {"phone_number_id": "9"}},
    ), 200, 0),
    "whatsapp other field": (whatsapp.fixture, dumps({"object": "x", "entry": [
        {"id": "1", "changes": [{"field": "account_update", "value": {"event": "X"}}]}]}), 200, 0),
    "whatsapp flow": (whatsapp.fixture, webhook(value(messages=[wa(1, type="interactive", interactive={
        "type": "nfm_reply", "nfm_reply": {"response_json": "{}", "body": "Sent", "name": "flow"},
    })])), 200, 1),
    "whatsapp no entry": (whatsapp.fixture, dumps({"object": "whatsapp_business_account"}), 200, 0),
    # Teams
    "teams conversationUpdate": (teams.fixture, activity("conversationUpdate"), 200, 0),
    "teams installation": (teams.fixture, activity("installationUpdate", action="add"), 200, 0),
    "teams invoke": (teams.fixture, activity(
        "invoke", name="adaptiveCard/action", value={"action": {"type": "Action.Execute"}},
    ), 200, 0),
    "teams card press": (teams.fixture, activity("message", value={"text": "yes"}), 200, 1),
    "teams undelete": (teams.fixture, activity(
        "messageUpdate", "hi", channelData={"eventType": "undeleteMessage", "tenant": {"id": "t1"}},
    ), 200, 0),
    "teams soft delete": (teams.fixture, activity(
        "messageDelete", channelData={"eventType": "softDeleteMessage", "tenant": {"id": "t1"}},
    ), 200, 0),
    "teams end": (teams.fixture, activity("endOfConversation"), 200, 0),
    # LINE
    "line verify": (line.fixture, line_events(), 200, 0),
    "line redelivery": (line.fixture, line_events(text(deliveryContext={"isRedelivery": True})), 200, 1),
    "line many": (line.fixture, line_events(
        text(1), line_event("follow", 2), text(3), line_event("newKind", 4),
    ), 200, 2),
    "line standby": (line.fixture, line_events(text(mode="standby")), 200, 0),
    "line join": (line.fixture, line_events(line_event("join", source={"type": "group", "groupId": "C1"})), 200, 0),
    "line unfollow": (line.fixture, line_events(line_event("unfollow")), 200, 0),
    "line no user": (line.fixture, line_events(text(source={"type": "group", "groupId": "Cabc"})), 200, 0),
    "line sticker": (line.fixture, line_events(line_event("message", message={
        "type": "sticker", "id": "1", "packageId": "1", "stickerId": "2", "keywords": ["hi"],
    })), 200, 1),
    # Matrix
    "matrix unknown": (matrix.fixture, matrix.transaction(
        matrix.event("", "org.example.poll", content={"x": 1}), matrix.event("", "m.sticker"),
        matrix.event("", "m.call.invite"), {"type": "m.room.message"}, None, "x",
    ), 200, 0),
    "matrix odd content": (matrix.fixture, matrix.transaction(
        {**matrix.event("x"), "content": []}, {**matrix.event("x"), "content": {"msgtype": 5, "body": {}}},
    ), 200, 0),
    "matrix nulls": (matrix.fixture, matrix.transaction({**matrix.event("hi"), "content": {
        "msgtype": "m.text", "body": f"{matrix.BOT} hi", "info": None, "url": None, "filename": None,
        "m.mentions": None, "m.relates_to": {"rel_type": None, "event_id": None, "m.in_reply_to": None},
    }}), 200, 1),
    "matrix new key": (matrix.fixture, dumps({"events": [], "org.matrix.msc3202.device_lists": {}}), 200, 0),
    # Google Chat
    "google added": (google_chat.fixture, dumps({
        "type": "ADDED_TO_SPACE", "eventTime": "t", "space": {"name": "spaces/A", "type": "ROOM"},
        "user": {"name": "users/1", "type": "HUMAN"},
    }), 200, 0),
    "google home": (google_chat.fixture, dumps({"type": "APP_HOME", "space": {"name": "spaces/A"}}), 200, 0),
    "google add-on removed": (google_chat.fixture, dumps({"chat": {"removedFromSpacePayload": {"space": {}}}}), 200, 0),
    "google add-on added": (google_chat.fixture, dumps({"chat": {
        "user": {"name": "users/1", "type": "HUMAN"}, "addedToSpacePayload": {"space": {"name": "spaces/A"}},
    }}), 200, 0),
    "google float ids": (google_chat.fixture, dumps({
        "type": "MESSAGE", "eventTime": "t", "space": {"name": "spaces/A", "type": "DM"},
        "user": {"name": "users/1", "type": "HUMAN"},
        "message": {"name": "spaces/A/messages/1", "text": "hi", "slashCommand": {"commandId": 1.0}},
    }), 200, 1),
    "google empty": (google_chat.fixture, b"{}", 200, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_is_answered_as_it_has_to_be_and_starts_what_it_should(name: str) -> None:
    make, body, status, count = CASES[name]
    try:
        found = parsed(make(), body)
    except BodyRejected:
        assert status == 400
        return
    assert (found.ack.status, len(turns(found))) == (status, count)


def test_every_part_of_a_form_on_discord_is_read_and_a_file_by_its_door() -> None:
    _, body, _, _ = CASES["discord modal of other parts"]
    (inbound,) = parsed(discord.fixture(), body).inbound
    assert inbound.text == "True\nred, blue"


def test_whatsapp_messages_without_phone_numbers_are_each_their_own_sender_s() -> None:
    """Two people of one request, who hide their numbers, are told apart by their ids; nobody is taken for another."""
    contacts = [{"profile": {"name": name}, "user_id": f"US.{name}"} for name in ("Ana", "Bob")]
    messages: list[dict[str, Any]] = [
        {"id": f"wamid.{name}", "type": "text", "text": {"body": name}, "from_user_id": f"US.{name}"}
        for name in ("Bob", "Ana", "Eve")
    ]
    nameless = {"id": "wamid.5", "type": "text", "text": {"body": "nobody"}}
    found = parsed(whatsapp.fixture(), whatsapp.webhook(*messages, nameless, contacts=contacts)).inbound
    assert [(one.user, one.text) for one in found] == [("US.Bob", "Bob"), ("US.Ana", "Ana"), ("US.Eve", "Eve")]


@pytest.mark.parametrize(
    ("cards", "told"),
    [
        ([{"name": {"formatted_name": "Bob"}, "phones": [{"phone": "+1555"}]}], "(a contact: Bob +1555)"),
        ([{"name": 5}], "(attached, not readable here: contacts)"),
        ({}, "(attached, not readable here: contacts)"),
    ],
)
def test_a_card_on_whatsapp_is_read_in_words(cards: Any, told: str) -> None:
    body = whatsapp.webhook(whatsapp.message("", type="contacts", contacts=cards))
    (inbound,) = parsed(whatsapp.fixture(), body).inbound
    assert inbound.text == told


def test_a_retry_of_slack_is_read_like_the_first_delivery() -> None:
    fixture = slack.fixture()
    req = fixture.sign(fixture.direct("hi"))
    again = {**req.headers, "x-slack-retry-num": "1", "x-slack-retry-reason": "http_timeout"}
    first, second = (fixture.adapter.parse(one) for one in (req, msgspec.structs.replace(req, headers=again)))
    assert first == second


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", ";charset=UTF-8"])
def test_a_form_is_a_form_whatever_its_content_type_adds(charset: str) -> None:
    form = {"token": mattermost.fixture().secrets[-1], "team_id": "t", "channel_id": "c", "user_id": "ana"}
    form |= {"channel_name": "town", "post_id": "p1", "text": "bot hi", "trigger_word": "bot", "new_field": "x"}
    known = msgspec.json.decode(json.dumps(form))
    found = parsed(mattermost.fixture(), urlencode(known).encode(), f"application/x-www-form-urlencoded{charset}")
    assert [inbound.text for inbound in turns(found)] == ["hi"]


def test_a_twilio_message_with_fields_nobody_knows_yet_is_verified_and_read() -> None:
    fixture = twilio.fixture()
    body = fixture.direct("hi") + b"&ChannelMetadata=%7B%22a%22%3A1%7D&Blank=&ApiVersion=2010-04-01"
    assert [inbound.text for inbound in turns(parsed(fixture, body))] == ["hi"]


def test_twilio_s_signature_with_a_shared_key_is_refused_with_what_to_do() -> None:
    req = twilio.fixture().sign(twilio.form("hi"))
    settings = {"x-twilio-webhooks-signature-settings": "key=SK1,algorithm=HMAC_SHA256"}
    twilio.fixture().adapter.verify(msgspec.structs.replace(req, headers={**req.headers, **settings}))
    other = {**req.headers, **settings, "x-twilio-signature": "x"}
    with pytest.raises(SignatureRejected, match=r"shared key .* switch it off"):
        twilio.fixture().adapter.verify(msgspec.structs.replace(req, headers=other))


def test_the_rate_of_a_number_is_one_for_all_it_writes_to() -> None:
    """A long code sends a message a second, whoever they are for; its conversations stay apart."""
    adapter = twilio.fixture().adapter
    (ana, bob) = (turns(parsed(twilio.fixture(), twilio.form("hi", From=f"+1415555010{last}")))[0] for last in "01")
    assert ana.session != bob.session
    governor = Governor(lambda: 100.0)
    waits = [governor.book("twilio", (), adapter.chat(one.reply), name) for name, one in (("a", ana), ("b", bob))]
    assert [wait_s >= 1.0 for wait_s in waits] == [False, True]
    other = turns(parsed(twilio.fixture(), twilio.form("hi", To="+14155550777")))[0]
    assert governor.book("twilio", (), adapter.chat(other.reply), "c") == 0
    ours = {sender: adapter.chat(msgspec.json.encode({"to": "+1", "sender": sender, "message_sid": "S"}))
            for sender in ("whatsapp:+14155550199", "24601", "+14155550199")}  # fmt: skip
    assert [chat.rates for chat in ours.values()] == [(Rate(80, 1.0),), (), (Rate(1, 1.0),)]


def test_the_threads_of_a_teams_channel_share_the_channel_s_rate() -> None:
    adapter = teams.fixture().adapter
    thread = {"service_url": "u", "activity": "9", "bot": "b"}
    threads = [msgspec.json.encode({**thread, "conversation": f"19:d@thread.tacv2{of}"})
               for of in (";messageid=17", ";messageid=18", "")]  # fmt: skip
    assert {adapter.chat(address).key for address in threads} == {"19:d@thread.tacv2"}


def test_the_files_of_a_post_on_mattermost_have_their_names_and_a_door() -> None:
    """A hook tells their ids alone; the post itself, which is asked for anyhow, what they are."""
    fixture = mattermost.fixture()
    form = dict(parse_qsl(fixture.direct("x").decode(), keep_blank_values=True)) | {"text": "", "file_ids": "f1,f2"}
    (bare,) = turns(parsed(fixture, urlencode(form).encode()))
    assert [file.id for file in bare.files] == ["f1", "f2"]
    post = {"id": "p1", "metadata": {"files": [{"id": "f1", "name": "cat.png", "mime_type": "image/png", "size": 9}]}}
    known = fixture.adapter.completed(bare, api(200, post))
    assert known is not None
    assert known.files == (File("f1", "cat.png", "image/png", 9),)
    request = fixture.adapter.fetch(known.files[0])
    assert request is not None
    assert request.url.endswith("/api/v4/files/f1")


ATTACHED: dict[str, bytes] = {
    "telegram": telegram.update("", photo=[{"file_id": "f1"}, {"file_id": "f2"}], caption="look"),
    "slack": slack.envelope(
        type="message", channel_type="im", channel="D1", user="ana", ts="1.5", text="look", subtype="file_share",
        files=[{"id": "F1", "name": "a.png", "mimetype": "image/png", "url_private": "https://files.slack.com/a.png"}],
    ),
    "whatsapp": whatsapp.webhook(whatsapp.message("", type="image", image={"id": "1", "caption": "look"})),
    "line": line.webhook(line.event("", message={"type": "image", "id": "1"})),
    "teams": teams.activity(
        "look", attachments=[{"contentType": "image/png", "contentUrl": f"{teams.SERVICE}v3/attachments/1"}]
    ),
    "twilio": twilio.form("look", MediaUrl0="http://127.0.0.1:9/Media/ME1", MediaContentType0="image/png"),
    "matrix": matrix.transaction(
        matrix.event("look", content={"msgtype": "m.image", "url": "mxc://gh.test/abc", "filename": "a.png"})
    ),
    "mattermost": mattermost.form("look", file_ids="f1"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACHED)
def test_what_somebody_attaches_has_a_door_and_its_caption_is_read(name: str) -> None:
    """As the platform itself tells of it."""
    platform = fixture_of(name)
    (inbound,) = platform.adapter.parse(platform.sign(ATTACHED[name])).inbound
    (file,) = inbound.files
    assert platform.adapter.fetch(file) is not None
    assert inbound.text == ("" if name == "line" else "look")


def test_matrix_is_asked_for_what_was_said_since_the_bot_was_invited() -> None:
    """The homeserver pushes nothing of a room that the bot has not joined yet."""
    adapter = matrix.fixture().adapter
    invitation = matrix.event(
        "", "m.room.member", state_key=matrix.BOT, event_id="$2", content={"membership": "invite"}
    )
    parsed = adapter.parse(matrix.sign(matrix.transaction(invitation)))
    (look,) = parsed.looks_back
    assert (look.method, "/rooms/%21r%3Agh.test/messages?dir=b" in look.url) == ("GET", True)
    said = [matrix.event(text, event_id=f"${number}") for number, text in enumerate(("second", "first"), 3)]
    before, ours = matrix.event("long ago", event_id="$1"), matrix.event("hi", event_id="$9", sender=matrix.BOT)
    page = api(200, {"chunk": [ours, *said, invitation, before], "start": "t1"})
    assert [inbound.text for inbound in adapter.missed(page)] == ["first", "second"]
    assert adapter.missed(api(200, {"chunk": [*said, before]})) == ()  # it was invited longer ago than that
    assert adapter.missed(api(403, {"errcode": "M_FORBIDDEN"})) == ()


@pytest.mark.parametrize(
    ("words", "markup", "read"),
    [
        (f"{matrix.BOT}: /approve", None, "/approve"),
        ("Gate <house>: /approve", '<a href="https://matrix.to/#/{id}">Gate &lt;house&gt;</a>: /approve', "/approve"),
        ("Gate /stop", '<p><a href="https://matrix.to/#/%40gatehouse%3Agh.test">Gate</a> /stop</p>', "/stop"),
        ("@Gate /stop", "<a href='https://matrix.to/#/{id}'>Gate</a> /stop", "/stop"),
        ("> <@a:b> x\n\nGate: y", '<mx-reply>x</mx-reply><a href="https://matrix.to/#/{id}">Gate</a>: y', "y"),
        ("Ana: /stop", '<a href="https://matrix.to/#/@ana:gh.test">Ana</a>: /stop', "Ana: /stop"),
        ("Gate", '<a href="https://matrix.to/#/{id}">Gate</a>', "Gate"),
        (f"{matrix.BOT}: !Approve", 5, "/approve"),
        ("!stop", "<b>!stop</b>", "/stop"),
        ("!new idea", None, "!new idea"),
    ],
)
def test_matrix_commands_are_read_behind_a_mention_that_shows_a_name_and_with_an_exclamation_mark(
    words: str, markup: object, read: str
) -> None:
    if isinstance(markup, str):
        markup = markup.replace("{id}", matrix.BOT)
    said = {"body": words, "formatted_body": markup}
    body = matrix.transaction(
        matrix.event("", content=said),
        matrix.event(
            "",
            content={"body": "* x", "m.new_content": said, "m.relates_to": {"rel_type": "m.replace", "event_id": "$0"}},
        ),
    )
    assert [one.text for one in parsed(matrix.fixture(), body).inbound] == [read, read]
