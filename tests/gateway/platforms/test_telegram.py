"""The Telegram adapter: the secret, updates of every kind, replies."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.platforms.port import (
    ApiResponse,
    Fail,
    File,
    Gone,
    Inbound,
    Kind,
    Moved,
    Parsed,
    Reformat,
    SendResult,
    Sent,
    TryLater,
    WebhookRequest,
)
from gateway.platforms.telegram import Telegram
from shared.errors import BodyRejected, SignatureRejected
from shared.messages import Reply, ReplyStatus
from shared.platform_settings import TelegramSettings

SECRET = "Qx7-test_Secret_0123456789abcdef"
ADAPTER = Telegram(TelegramSettings("777:token", SECRET, "http://127.0.0.1:9"), username="my_bot")
GROUP = {"id": -1001234567890, "type": "supergroup", "title": "Ops"}
ANA = {"id": 1111111, "is_bot": False, "first_name": "Ana"}
REPLY = Reply("s", "msg_1", 0, "telegram", "<b>a</b> &lt; b", b'{"chat_id":-5,"message_id":9}', ReplyStatus.REPLIED)


def request_of(raw: bytes, **headers: str) -> WebhookRequest:
    known = {"x-telegram-bot-api-secret-token": SECRET} | headers
    return WebhookRequest("POST", known, raw, 0)


def parse(update: object, adapter: Telegram = ADAPTER) -> Parsed:
    return adapter.parse(request_of(json.dumps(update).encode()))


def private(**changes: Any) -> dict[str, Any]:
    message = {
        "message_id": 133,
        "date": 1767224888,
        "chat": {"id": 7527593, "type": "private", "first_name": "T"},
        "from": {"id": 7527593, "is_bot": False, "first_name": "T", "username": "u", "language_code": "en"},
        "text": "hi",
    }
    return {"update_id": 1001, "message": message | changes}


def grouped(text: str, **changes: Any) -> dict[str, Any]:
    return private(chat=GROUP, **{"from": ANA}, text=text, **changes)


def marked(kind: str, length: int, offset: int = 0, **more: Any) -> list[dict[str, Any]]:
    return [{"type": kind, "offset": offset, "length": length, **more}]


def only(parsed: Parsed) -> Inbound:
    (inbound,) = parsed.inbound
    return inbound


def test_the_right_secret_is_accepted() -> None:
    """It is all the proof that Telegram gives."""
    ADAPTER.verify(request_of(b"anything"))


@pytest.mark.parametrize(
    "value", ["", SECRET + "x", SECRET[:-1], SECRET.swapcase(), "é" * 32, " " + SECRET, "x" * 10**5]
)
def test_any_other_secret_is_refused(value: str) -> None:
    """Absent, longer, shorter, another case, not ASCII."""
    with pytest.raises(SignatureRejected):
        ADAPTER.verify(request_of(b"{}", **{"x-telegram-bot-api-secret-token": value}))


def test_every_single_bit_of_the_secret_counts() -> None:
    """All of them."""
    for index in range(8 * len(SECRET)):
        flipped = bytearray(SECRET.encode())
        flipped[index // 8] ^= 1 << index % 8
        with pytest.raises(SignatureRejected):
            ADAPTER.verify(request_of(b"{}", **{"x-telegram-bot-api-secret-token": flipped.decode("latin-1")}))


def test_a_private_message_is_read() -> None:
    """The account is the bot's id, which is the token's first part."""
    inbound = only(parse(private()))
    assert inbound.session == "telegram:777:7527593"
    assert inbound.dedupe == ("telegram:777:1001", "telegram:777:7527593:133")
    assert (inbound.user, inbound.text, inbound.direct, inbound.addressed) == ("7527593", "hi", True, True)
    assert json.loads(inbound.reply) == {"chat_id": 7527593, "message_id": 133}


def test_a_mention_in_a_forums_topic_is_read() -> None:
    """Offsets are UTF-16 units, the topic is part of the session, our name is cut off."""
    update = grouped("@my_bot 👋 status?", entities=marked("mention", 7), message_thread_id=42, is_topic_message=True)
    inbound = only(parse(update))
    assert (inbound.session, inbound.text) == ("telegram:777:-1001234567890:42", "👋 status?")
    assert (inbound.direct, inbound.mentioned) == (False, True)
    assert json.loads(inbound.reply)["message_thread_id"] == 42


def test_a_mention_after_an_emoji_is_found() -> None:
    """Two UTF-16 units are one code point there."""
    assert only(parse(grouped("👋👋 @My_Bot hey", entities=marked("mention", 7, 5)))).mentioned


def test_a_thread_id_outside_a_forum_is_no_topic() -> None:
    """Replies in plain supergroups carry one too."""
    assert only(parse(grouped("x", message_thread_id=42))).session == "telegram:777:-1001234567890"


def test_a_topic_of_a_channels_direct_messages_is_its_own_session() -> None:
    """And the answer goes back into it."""
    inbound = only(parse(private(direct_messages_topic={"topic_id": 8})))
    assert inbound.session == "telegram:777:7527593:dm8"
    assert json.loads(inbound.reply)["direct_messages_topic_id"] == 8


@pytest.mark.parametrize(
    ("text", "entities", "addressed", "read"),
    [
        ("/status", marked("bot_command", 7), True, "/status"),
        ("/status@my_bot now", marked("bot_command", 14), True, "/status now"),
        ("/status@other_bot", marked("bot_command", 17), False, "/status@other_bot"),
        ("@other_bot hi", marked("mention", 10), False, "@other_bot hi"),
        ("@my_bot", marked("mention", 7), True, "@my_bot"),
        ("you there?", marked("text_mention", 3, user={"id": 777, "is_bot": True}), True, "you there?"),
        ("nobody is meant", [], False, "nobody is meant"),
        ("hostile", marked("mention", 2**62, -(2**62)), False, "hostile"),
    ],
)
def test_in_a_group_only_what_is_meant_for_the_bot_is(
    text: str, entities: list[dict[str, Any]], addressed: bool, read: str
) -> None:
    """Mentions, commands with no name or ours, and nothing else."""
    inbound = only(parse(grouped(text, entities=entities)))
    assert (inbound.addressed, inbound.text) == (addressed, read)


def test_a_reply_to_the_bot_is_meant_for_it() -> None:
    """A reply to somebody else is not."""
    answered = {"message_id": 1300, "from": {"id": 777, "is_bot": True}, "chat": GROUP, "date": 1, "text": "earlier"}
    assert only(parse(grouped("and now?", reply_to_message=answered))).addressed
    assert not only(parse(grouped("and now?", reply_to_message=answered | {"from": ANA}))).addressed


def test_before_the_bot_knows_its_name_any_bots_name_is_taken_for_it() -> None:
    """getMe tells the name soon after the start."""
    nameless = Telegram(ADAPTER.settings)
    update = grouped("@other_bot hi", entities=marked("mention", 10))
    assert only(parse(update, nameless)).addressed
    answer = ApiResponse(200, {}, b'{"ok":true,"result":{"id":777,"is_bot":true,"username":"my_bot"}}')
    named = nameless.identified(answer)
    assert named == ADAPTER
    assert nameless.identified(ApiResponse(200, {}, b'{"ok":true,"result":true}')) == nameless
    assert nameless.identity_call().url == "http://127.0.0.1:9/bot777:token/getMe"


def test_a_command_is_a_command_in_a_private_chat_too() -> None:
    """So that /new works without a mention."""
    assert only(parse(private(text="/new", entities=marked("bot_command", 4)))).kind is Kind.COMMAND


@pytest.mark.parametrize(
    ("attached", "told"),
    [
        ({"location": {"latitude": 52.5, "longitude": 0}}, "(a place: 52.5, 0.0)"),
        (
            {
                "location": {"latitude": 1.5, "longitude": 2},
                "venue": {"location": {"latitude": 1.5, "longitude": 2}, "title": "Café", "address": "Main St 1"},
            },
            "(a place: Café Main St 1 1.5, 2.0)",
        ),
        ({"contact": {"phone_number": "+1555", "first_name": "Bob"}}, "(a contact: Bob +1555)"),
        (
            {"poll": {"question": "Lunch?", "options": [{"text": "yes"}, {"text": "no"}]}},
            "(a poll: Lunch?\n- yes\n- no)",
        ),
        ({"checklist": {"title": "Buy", "tasks": [{"id": 1, "text": "milk"}]}}, "(a checklist: Buy\n- milk)"),
        ({"poll": {"question": 5}}, "(attached, not readable here: poll)"),
        ({"location": []}, "(attached, not readable here: location)"),
    ],
)
def test_what_an_attachment_says_is_read_here_and_where_it_is_answered(attached: dict[str, Any], told: str) -> None:
    assert only(parse(private(text="", **attached))).text == told
    answered = {"message_id": 3, "date": 1, "chat": {"id": 5, "type": "private"}, "from": {"id": 5}, **attached}
    assert (
        only(parse(private(text="this one", reply_to_message=answered))).context
        == f"(in answer to this message: {told})"
    )


def test_an_attachment_is_told_to_the_agent() -> None:
    """With its caption where it has one; a caption's entities count as the text's do."""
    small, large = {"file_id": "x", "file_size": 5}, {"file_id": "y", "file_size": 50}
    assert only(parse(private(text="", photo=[small, large]))).files == (File("y", "photo", "", 50),)
    assert only(parse(private(text="", dice={"value": 4}))).text == "(attached, not readable here: dice)"
    captioned = private(chat=GROUP, text="", caption="@my_bot look", photo=[{}], caption_entities=marked("mention", 7))
    assert only(parse(captioned)).text == "look\n(attached, not readable here: photo)"
    assert only(parse(captioned)).addressed


def test_an_albums_parts_are_waited_for_so_that_they_make_one_turn() -> None:
    """Each is an update of its own, and each is told of."""
    album = private(text="", photo=[{"file_id": "x"}], media_group_id="g1")
    assert only(parse(album)).gather_s > 0
    assert only(parse(private())).gather_s == 0


FORUM = {"chat": {**GROUP, "is_forum": True}, "message_thread_id": 42, "is_topic_message": True}
OUR_BOT = {"id": 777, "is_bot": True, "username": "my_bot", "first_name": "Bot"}


def answered(**content: Any) -> dict[str, Any]:
    return {"reply_to_message": {"message_id": 42, "from": OUR_BOT, "chat": GROUP, "date": 1, **content}}


def test_a_topic_that_the_bot_made_is_no_answer_to_it() -> None:
    """Every message in it carries the note of its beginning; service notes are no messages."""
    notes: tuple[dict[str, Any], ...] = (
        {"forum_topic_created": {"name": "Lunch"}},
        {"pinned_message": {}},
        {"a_note": {}},
    )
    for note in notes:
        assert not only(parse(private(text="lunch, anyone?", **{**FORUM, "from": ANA, **answered(**note)}))).addressed
    said = private(text="and drinks?", **{**FORUM, "from": ANA, **answered(text="I booked a table.")})
    assert only(parse(said)).addressed


@pytest.mark.parametrize(
    ("message", "context"),
    [
        (answered(text="The report is late."), "(in answer to Bot: The report is late.)"),
        ({**answered(text="Long report."), "quote": {"text": "report", "position": 5}}, "(in answer to Bot: report)"),
        (answered(caption="our plan", photo=[{}]), "(in answer to Bot: our plan)"),
        (answered(photo=[{}]), "(in answer to Bot: (photo))"),
        ({"quote": {"text": "from elsewhere"}, "external_reply": {}}, "(about these words: from elsewhere)"),
        ({"forward_origin": {"type": "user", "sender_user": ANA}}, "(forwarded from Ana)"),
        ({"forward_origin": {"type": "hidden_user", "sender_user_name": "Bo"}}, "(forwarded from Bo)"),
        ({"forward_origin": {"type": "channel", "chat": GROUP}}, "(forwarded from Ops)"),
    ],
)
def test_what_a_person_points_at_reaches_the_model(message: dict[str, Any], context: str) -> None:
    """Before the words; a command is found in the words alone."""
    inbound = only(parse(private(text="/status", **message)))
    assert (inbound.context, inbound.text, inbound.prompt) == (context, "/status", f"{context}\n\n/status")


def test_an_edit_names_the_message_that_it_changes() -> None:
    """By the key that the message was accepted under."""
    edit = only(parse({"update_id": 1002, "edited_message": private(text="no, tomorrow")["message"]}))
    assert (edit.kind, edit.text) == (Kind.EDIT, "no, tomorrow")
    assert edit.amends in only(parse(private())).dedupe
    assert not set(edit.dedupe) & set(only(parse(private())).dedupe)


def test_a_group_that_becomes_a_supergroup_goes_on() -> None:
    """The old group's last note names the new one, and the first note of that the old one."""
    old, new = {"id": -5, "type": "group"}, {"id": -1005, "type": "supergroup"}
    for note in (private(text="", chat=old, migrate_to_chat_id=-1005), private(chat=new, migrate_from_chat_id=-5)):
        moved = only(parse(note))
        assert (moved.kind, moved.amends, moved.session) == (Kind.MOVED, "telegram:777:-5", "telegram:777:-1005")
        assert moved.reply == b'{"chat_id":-1005,"message_id":0}'


def test_a_pressed_button_says_what_it_stands_for_and_is_confirmed() -> None:
    """In the topic of its message; the stop button of a draft is a command."""
    message = private(**FORUM)["message"]
    parsed = parse({"update_id": 3, "callback_query": {"id": "77", "from": ANA, "data": "approve", "message": message}})
    inbound = only(parsed)
    assert (inbound.kind, inbound.text, inbound.user) == (Kind.ACTION, "approve", "1111111")
    assert inbound.session == "telegram:777:-1001234567890:42"
    assert json.loads(parsed.ack.body or b"") == {"method": "answerCallbackQuery", "callback_query_id": "77"}
    chat = {"id": 5, "type": "private"}
    stopped = only(parse({"update_id": 4, "stopped_message_generation": {"chat": chat, "draft_id": 1}}))
    assert (stopped.kind, stopped.text, stopped.session) == (Kind.COMMAND, "/stop", "telegram:777:5")


def test_a_file_is_fetched_in_two_steps_from_the_api_alone() -> None:
    """A path that leads elsewhere is not followed."""
    first = ADAPTER.fetch(File("x", "photo"))
    assert first
    assert first.url.endswith("/bot777:token/getFile")
    found = ApiResponse(200, {}, b'{"ok":true,"result":{"file_path":"photos/file_1.jpg"}}')
    second = ADAPTER.fetch(File("x", "photo"), found)
    assert second
    assert second.url == "http://127.0.0.1:9/file/bot777:token/photos/file_1.jpg"
    for path in ("../../bot1:x/getMe", "https://evil.example/x", "a b", ""):
        body = json.dumps({"ok": True, "result": {"file_path": path}}).encode()
        assert ADAPTER.fetch(File("x", "photo"), ApiResponse(200, {}, body)) is None


def test_people_who_write_as_their_group_are_people() -> None:
    """Anonymous admins and channels have stand-in accounts that count as bots."""
    anonymous = private(chat=GROUP, sender_chat=GROUP, **{"from": {"id": 1087968824, "is_bot": True}})
    assert only(parse(anonymous)).user == "-1001234567890"


@pytest.mark.parametrize(
    "update",
    [
        {"update_id": 1}, {"update_id": 1, "edited_channel_post": private()["message"]}, {"update_id": 1, "poll": {}},
        {"update_id": 1, "callback_query": {"id": "1", "from": ANA}}, {"update_id": 1, "something_new": [1]},
        private(**{"from": {"id": 5, "is_bot": True}}), private(**{"from": None}), private(text=""),
        private(text="", new_chat_members=[ANA]), private(is_automatic_forward=True),
        private(text=7), private(chat=None), private(message_id=2**64), private(message_id=1.5), private(entities={}),
        private(chat={"id": "x"}), private(message_thread_id=10**30), {"update_id": 1, "message": 5},
        {"update_id": 1, "message": None}, {"update_id": 1, "message": []}, private(text=["a"]), private(text=None),
    ],
)  # fmt: skip
def test_a_genuine_update_that_we_cannot_use_is_ignored(update: dict[str, Any]) -> None:
    """A refusal would block its chat for a day."""
    parsed = parse(update)
    assert (parsed.inbound, parsed.ack.status) == ((), 200)
    assert parsed.ignored


@pytest.mark.parametrize(
    "raw", [b"", b"hi", b"[]", b"{}", b'{"update_id":"1"}', b'{"update_id":1e400}', b'{"update_id":true}', b"\xff"]
)
def test_what_telegram_never_sends_is_refused(raw: bytes) -> None:
    """Not JSON, or no update."""
    with pytest.raises(BodyRejected):
        ADAPTER.parse(request_of(raw))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200)
@given(field=st.sampled_from([*private()["message"], "entities", "photo", "caption", "sender_chat"]), value=JSON_VALUES)
def test_any_value_in_any_field_is_read_or_ignored(field: str, value: object) -> None:
    """Never refused, never an error."""
    parsed = parse(private(**{field: value}))
    assert parsed.inbound or parsed.ignored


def test_a_reply_is_html_that_answers_its_message() -> None:
    """Only the first chunk of each text quotes it; plain text has no parse mode."""
    call = ADAPTER.call(REPLY, 0)
    body = json.loads(call.body)
    assert call.url == "http://127.0.0.1:9/bot777:token/sendMessage"
    assert body == {
        "chat_id": -5, "text": "<b>a</b> &lt; b", "parse_mode": "HTML",
        "reply_parameters": {"message_id": 9, "allow_sending_without_reply": True},
        "link_preview_options": {"is_disabled": True},
    }  # fmt: skip
    assert "reply_parameters" not in json.loads(ADAPTER.call(msgspec.structs.replace(REPLY, part=1), 0).body)
    assert "reply_parameters" in json.loads(ADAPTER.call(msgspec.structs.replace(REPLY, part=1000), 0).body)
    plain = json.loads(ADAPTER.call(REPLY, 0, plain=True).body)
    assert (plain["text"], "parse_mode" in plain) == ("a < b", False)


def error(description: str, **parameters: Any) -> dict[str, Any]:
    return {"ok": False, "error_code": 0, "description": description, "parameters": parameters}


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (200, {"ok": True, "result": {"message_id": 55}}, Sent("55")), (200, {"ok": True, "result": True}, Sent("")),
        (
            429, error("Too Many Requests: retry after 7", retry_after=7),
            TryLater("Too Many Requests: retry after 7", 7.0),
        ),
        (429, {"ok": False, "description": "slow"}, TryLater("slow", 3.0)),
        (400, error("Bad Request: can't parse entities: Unsupported start tag"), Reformat),
        (400, error("Bad Request: message is too long"), Reformat),
        (400, error("Bad Request: chat not found"), Gone), (400, error("Bad Request: something else"), Fail),
        (403, error("Forbidden: bot was blocked by the user"), Gone), (401, error("Unauthorized"), TryLater),
        (500, error("Internal"), TryLater), (502, "a proxy's page", TryLater), (200, [], TryLater),
        (400, error("Bad Request: group chat was upgraded to a supergroup chat", migrate_to_chat_id=-1009),
         Moved(b'{"chat_id":-1009,"message_id":0}', "telegram:777:-1009")),
    ],
)  # fmt: skip
def test_answers_mean_what_telegram_means_by_them(
    status: int, body: object, result: SendResult | type[SendResult]
) -> None:
    """The body's own wish to wait comes before the header's."""
    outcome = ADAPTER.result(REPLY, ApiResponse(status, {"retry-after": "3"}, json.dumps(body).encode()))
    assert outcome == result if not isinstance(result, type) else isinstance(outcome, result)
