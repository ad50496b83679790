"""The Slack adapter: vectors, mutations against the official verifier, events, commands, replies."""

from __future__ import annotations

import inspect
import json
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slack_sdk import WebClient
from slack_sdk.models.blocks import Block
from slack_sdk.signature import Clock, SignatureVerifier

from gateway.platforms.port import (
    ApiResponse,
    Fail,
    Gone,
    Inbound,
    Kind,
    Parsed,
    Reformat,
    SendResult,
    Sent,
    TryLater,
    WebhookRequest,
)
from gateway.platforms.slack import SIGNATURE, Slack
from shared.errors import BodyRejected, SignatureRejected
from shared.messages import Reply, ReplyStatus
from shared.platform_settings import SlackSettings

SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
AT = 1531420618
ADAPTER = Slack(SlackSettings(SECRET, "xoxb-1", "http://127.0.0.1:9/api"))
FORM = "application/x-www-form-urlencoded"
REPLY = Reply(
    "s", "msg_1", 0, "slack", "**hi** <\u200b!channel>", b'{"channel":"C1","thread_ts":"1.2"}', ReplyStatus.REPLIED
)

VECTOR_A = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
VECTOR_B = (
    '{"token":"xxx","team_id":"T0001","api_app_id":"A0001","event":{"type":"app_mention","user":"U0002",'
    '"text":"<@U0BOT> hi 👋","ts":"1531420618.000200","channel":"C0003","event_ts":"1531420618.000200"},'
    '"type":"event_callback","event_id":"Ev0001","event_time":1531420618}'
).encode()


class FixedClock(Clock):
    """The time of the vectors."""

    def now(self) -> float:
        return AT


def request_of(raw: bytes, content_type: str = "application/json", **headers: str) -> WebhookRequest:
    signed = {
        "content-type": content_type,
        "x-slack-request-timestamp": str(AT),
        "x-slack-signature": SIGNATURE.sign(SECRET, raw, str(AT)),
    } | headers
    return WebhookRequest("POST", signed, raw, AT)


def accepted(req: WebhookRequest) -> bool:
    try:
        ADAPTER.verify(req)
    except SignatureRejected:
        return False
    return True


def parse(event: dict[str, Any], **envelope: Any) -> Parsed:
    body = {
        "type": "event_callback",
        "team_id": "T9",
        "event_id": "Ev1",
        "authorizations": [{"team_id": "T1", "user_id": "UBOT", "is_bot": True}],
        "event": event,
    } | envelope
    return ADAPTER.parse(request_of(json.dumps(body).encode()))


def only(parsed: Parsed) -> Inbound:
    (inbound,) = parsed.inbound
    return inbound


def direct(**changes: Any) -> dict[str, Any]:
    event = {"type": "message", "channel_type": "im", "channel": "D1", "user": "U1", "text": "hello", "ts": "1.5"}
    return event | changes


@pytest.mark.parametrize(
    ("raw", "signature"),
    [
        (VECTOR_A, "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
        (VECTOR_B, "v0=74ee81c7bd28da0d240c8adbe9ac7f06f5fb7dd884f3bc19e061e1a8b1f7410e"),
    ],
)
def test_the_published_vectors_are_accepted(raw: bytes, signature: str) -> None:
    """The first is the sample of Slack's documents."""
    ADAPTER.verify(request_of(raw, **{"x-slack-signature": signature}))


@pytest.mark.parametrize("name", ["x-slack-request-timestamp", "x-slack-signature"])
@pytest.mark.parametrize("value", ["", "abc", "é", "v0=é", "v0=", "-5", "1e9", "٣", "9" * 13, "x" * 100_000])
def test_hostile_headers_are_refused_without_another_error(name: str, value: str) -> None:
    """The official verifier raises ValueError or TypeError on some of these."""
    assert not accepted(request_of(VECTOR_B, **{name: value}))


def test_a_body_that_is_not_text_is_refused_by_its_signature_alone() -> None:
    """The official verifier raises UnicodeDecodeError."""
    assert not accepted(request_of(b"\xff\xfe", **{"x-slack-signature": "v0=" + "0" * 64}))
    assert accepted(request_of(b"\xff\xfe"))
    with pytest.raises(BodyRejected, match=r"not UTF-8|not JSON"):
        ADAPTER.parse(request_of(b"\xff\xfe"))


@pytest.mark.parametrize(("skew", "result"), [(-301, False), (-300, True), (300, True), (301, False)])
def test_only_a_fresh_timestamp_is_accepted(skew: int, result: bool) -> None:
    """Five minutes both ways."""
    at = str(AT + skew)
    fresh = {"x-slack-request-timestamp": at, "x-slack-signature": SIGNATURE.sign(SECRET, VECTOR_B, at)}
    assert accepted(request_of(VECTOR_B, **fresh)) is result


@settings(max_examples=80)
@given(body=st.text(max_size=60), mutation=st.integers(0, 10**9))
def test_every_mutation_has_the_verdict_of_the_official_verifier(body: str, mutation: int) -> None:
    """One bit of body, signature or timestamp is flipped."""
    parts = dict(request_of(body.encode()).headers) | {"body": body.encode().decode("latin-1")}
    del parts["content-type"]
    name = sorted(parts)[mutation % len(parts)]
    value = bytearray(parts[name].encode("latin-1"))
    if value:
        value[mutation % len(value)] ^= 1 << (mutation // 7 % 8)
    mutated = parts | {name: value.decode("latin-1")}
    raw = mutated.pop("body").encode("latin-1")
    try:
        official = SignatureVerifier(SECRET, FixedClock()).is_valid_request(raw, mutated)
    except (ValueError, TypeError):
        official = False
    assert accepted(WebhookRequest("POST", mutated, raw, AT)) == official == (not value)


def test_every_single_bit_of_a_request_is_covered_by_the_signature() -> None:
    """All of them, not a sample."""
    good = dict(request_of(VECTOR_B).headers) | {"body": VECTOR_B.decode("latin-1")}
    for name in ("body", "x-slack-signature", "x-slack-request-timestamp"):
        for index in range(8 * len(good[name])):
            flipped = bytearray(good[name].encode("latin-1"))
            flipped[index // 8] ^= 1 << index % 8
            mutated = good | {name: flipped.decode("latin-1")}
            raw = mutated.pop("body").encode("latin-1")
            assert not accepted(WebhookRequest("POST", mutated, raw, AT)), (name, index)


def test_the_handshake_is_answered_with_the_challenge() -> None:
    """Byte for byte, as plain text, and it makes no message."""
    parsed = ADAPTER.parse(request_of(b'{"token":"x","challenge":"3eZbrw1a","type":"url_verification"}'))
    assert (parsed.ack.status, parsed.ack.body, parsed.ack.media) == (200, b"3eZbrw1a", "text/plain")
    assert parsed.inbound == ()


def test_a_direct_message_is_read() -> None:
    """Its session is the conversation, its account the workspace that installed the bot."""
    inbound = only(parse(direct()))
    assert inbound.session == "slack:T1:D1"
    assert inbound.dedupe == ("slack:T1:Ev1", "slack:T1:D1:1.5")
    assert (inbound.user, inbound.text, inbound.direct, inbound.addressed) == ("U1", "hello", True, True)
    assert json.loads(inbound.reply) == {"channel": "D1"}


def test_a_mention_is_read_without_the_bots_name_and_answered_in_its_thread() -> None:
    """A message that begins no thread yet begins one."""
    event = {"type": "app_mention", "user": "U1", "text": "<@UBOT> a &lt; b", "ts": "1.5", "channel": "C1"}
    inbound = only(parse(event))
    assert (inbound.session, inbound.text, inbound.addressed) == ("slack:T1:C1:1.5", "a < b", True)
    assert json.loads(inbound.reply) == {"channel": "C1", "thread_ts": "1.5", "user": "U1", "team": "T1"}
    assert only(parse(event | {"thread_ts": "1.1"})).session == "slack:T1:C1:1.1"


def test_a_mention_and_its_message_copy_share_a_key() -> None:
    """A mention in a channel whose messages the app also gets comes twice, with two event ids."""
    mention = {"type": "app_mention", "user": "U1", "text": "<@UBOT> hi", "ts": "1.5", "channel": "C1"}
    copy = direct(channel="C1", channel_type="channel", text="<@UBOT> hi")
    first, second = only(parse(mention)), only(parse(copy, event_id="Ev2"))
    assert first.addressed
    assert second.addressed
    assert set(first.dedupe) & set(second.dedupe) == {"slack:T1:C1:1.5"}


def test_what_people_say_to_each_other_is_not_for_the_bot() -> None:
    """Unless it stands in a thread that the bot began."""
    talk = direct(channel="C1", channel_type="channel")
    assert not only(parse(talk)).addressed
    assert not only(parse(talk | {"thread_ts": "1.1", "parent_user_id": "U2"})).addressed
    assert only(parse(talk | {"thread_ts": "1.1", "parent_user_id": "UBOT"})).addressed


@pytest.mark.parametrize(
    "event",
    [
        direct(bot_id="B1"), direct(user="UBOT"), direct(user=None), direct(subtype="bot_message"),
        direct(subtype="message_deleted"), direct(hidden=True), direct(text=""), direct(text=None),
        {"type": "message", "subtype": "message_changed", "channel": "C1", "ts": "1.6", "message": {"text": "new"}},
        {"type": "reaction_added", "user": "U1"}, {"type": "assistant_thread_started", "assistant_thread": {}},
    ],
)  # fmt: skip
def test_what_no_person_said_newly_is_ignored(event: dict[str, Any]) -> None:
    """With 200: a refusal would be counted against the app."""
    parsed = parse(event)
    assert (parsed.inbound, parsed.ack.status) == ((), 200)
    assert parsed.ignored


def test_a_rate_notice_is_ignored() -> None:
    """It has no inner event."""
    assert ADAPTER.parse(request_of(b'{"type":"app_rate_limited","team_id":"T1"}')).inbound == ()


def test_attached_files_are_named_to_the_agent() -> None:
    """It does not get to see them yet."""
    files = [{"id": "F1", "name": "plan.pdf", "mimetype": "application/pdf"}, {"id": "F2"}]
    attached = only(parse(direct(subtype="file_share", files=files, text=""))).files
    assert ", ".join(file.name for file in attached) == "plan.pdf, file"


def test_tokens_are_read_as_a_person_sees_them() -> None:
    """Users, channels, links and group words."""
    text = "<@U5> in <#C1|general>: <https://x.y/?a=1&amp;b=2|docs> <https://x.y> <!here> <!subteam^S1|@ops>"
    assert only(parse(direct(text=text))).text == (
        "@U5 in #general: docs (https://x.y/?a=1&b=2) https://x.y @here @ops"
    )


@pytest.mark.parametrize(
    "changes",
    [{"channel": "C:1"}, {"channel": ""}, {"ts": "now"}, {"ts": "1.5:2"}, {"text": 7}, {"channel": 1}, {"user": "U/1"},
     {"user": [1]}, {"files": {"a": 1}}, {"thread_ts": 1.5}, {"channel": "C" * 200}],
)  # fmt: skip
def test_a_wrong_field_is_a_refusal_and_no_other_error(changes: dict[str, Any]) -> None:
    """A colon in an id could make one session look like another."""
    with pytest.raises(BodyRejected):
        parse(direct(**changes))


def test_a_slash_command_is_a_message() -> None:
    """Its text counts; a chat command of ours keeps its name."""
    (inbound,) = ADAPTER.parse(request_of(VECTOR_A, FORM)).inbound
    assert (inbound.kind, inbound.text, inbound.session) == (Kind.COMMAND, "/help", "slack:T1DC2JH3J:G8PSS9T3V")
    form = {"team_id": "T1", "channel_id": "C1", "user_id": "U1", "command": "/ask", "trigger_id": "1.2", "text": "x&y"}
    assert only(ADAPTER.parse(request_of(urlencode(form).encode(), FORM))).text == "x&y"
    assert only(ADAPTER.parse(request_of(urlencode(form | {"command": "/new"}).encode(), FORM))).text == "/new x&y"


@pytest.mark.parametrize("raw", [b"ssl_check=1&token=x", b"payload=%7B%7D", b"", b"%ff=%fe"])
def test_other_forms_are_acknowledged_with_nothing(raw: bytes) -> None:
    """The certificate check and interactivity."""
    parsed = ADAPTER.parse(request_of(raw, FORM))
    assert (parsed.inbound, parsed.ack.body) == ((), b"")


@pytest.mark.parametrize("raw", [b"command=/x", b"&".join(b"a=%d" % n for n in range(200)), b"command=\xff"])
def test_a_broken_form_is_refused(raw: bytes) -> None:
    """And raises nothing else."""
    with pytest.raises(BodyRejected):
        ADAPTER.parse(request_of(raw, FORM))


def test_a_reply_is_markdown_in_its_thread_that_rings_nobody() -> None:
    """The token goes into the header, never into the body."""
    call = ADAPTER.call(REPLY, 0)
    body = json.loads(call.body)
    assert call.url == "http://127.0.0.1:9/api/chat.postMessage"
    assert call.headers["authorization"] == "Bearer xoxb-1"
    assert (body["channel"], body["thread_ts"]) == ("C1", "1.2")
    assert body["markdown_text"] == ADAPTER.chunks("**hi** <!channel>")[0] == "**hi** <\u200b!channel>"
    assert "text" not in body
    plain = json.loads(ADAPTER.call(REPLY, 0, plain=True).body)
    assert plain["text"] == "**hi** &lt;\u200b!channel&gt;"
    assert "markdown_text" not in plain


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (200, {"ok": True, "ts": "1.9"}, Sent("1.9")), (200, {"ok": False, "error": "channel_not_found"}, Gone),
        (429, {"ok": False, "error": "ratelimited"}, TryLater("ratelimited", 3.0)),
        (200, {"ok": False, "error": "internal_error"}, TryLater),
        (200, {"ok": False, "error": "invalid_auth"}, TryLater),
        (200, {"ok": False, "error": "msg_too_long"}, Reformat), (200, {"ok": False, "error": "no_text"}, Fail),
        (503, None, TryLater), (200, [1], TryLater), (500, {"ok": False, "error": "x"}, TryLater),
    ],
)  # fmt: skip
def test_answers_mean_what_slack_means_by_them(
    status: int, body: object, result: SendResult | type[SendResult]
) -> None:
    """HTTP 200 says nothing, ``ok`` does."""
    outcome = ADAPTER.result(REPLY, ApiResponse(status, {"retry-after": "3"}, json.dumps(body).encode()))
    assert outcome == result if not isinstance(result, type) else isinstance(outcome, result)


@pytest.mark.parametrize(
    ("event", "envelope", "outsider"),
    [
        ({}, {}, False),
        ({"team": "T9"}, {}, True),
        ({"team": "T0001", "user_team": "T9"}, {"is_ext_shared_channel": True}, True),
        ({"team": "T0001", "source_team": "T9"}, {"is_ext_shared_channel": True}, True),
        ({"team": None}, {"is_ext_shared_channel": True}, True),
        ({"team": None}, {}, False),
        ({"team": "T9"}, {"team_id": "T9"}, True),
        ({"team": "T2"}, {"authorizations": [{"enterprise_id": "E1", "team_id": "T0001"}]}, False),
        (
            {"team": "T2"},
            {"authorizations": [{"enterprise_id": "E1", "team_id": "T0001"}], "is_ext_shared_channel": True},
            True,
        ),
    ],
)
def test_members_and_guests_of_a_shared_channel_are_told_apart(
    event: dict[str, Any], envelope: dict[str, Any], outsider: bool
) -> None:
    """By the workspace that they belong to; those of one enterprise are one."""
    mention = {"type": "app_mention", "user": "U2", "text": "<@U0BOT> hi", "ts": "1.5", "channel": "C3", **event}
    home = {"authorizations": [{"team_id": "T0001", "user_id": "U0BOT"}], **envelope}
    assert only(parse(mention, **home)).outsider is outsider


@pytest.mark.parametrize(
    ("user", "enterprise", "outsider"),
    [("T1", None, False), ("T9", None, True), ("T9", {"id": "E1"}, False), ("", None, False)],
)
def test_a_guest_who_presses_a_button_is_a_guest(user: str, enterprise: object, outsider: bool) -> None:
    pressed = {
        "type": "block_actions", "team": {"id": "T1"}, "user": {"id": "U2", "team_id": user}, "enterprise": enterprise,
        "channel": {"id": "C1"}, "container": {"message_ts": "1.5"}, "trigger_id": "7.7",
        "actions": [{"action_id": "a", "value": "yes"}],
    }  # fmt: skip
    body = urlencode({"payload": json.dumps(pressed)}).encode()
    assert only(ADAPTER.parse(request_of(body, FORM))).outsider is outsider


def test_every_call_is_one_of_the_official_client_s_with_its_arguments() -> None:
    """Answers, edits, streams, statuses and questions: slack_sdk builds the same request of the same arguments."""
    begun = Reply(
        "s", "msg_1", 0, "slack", "Hello *you*.", only(parse(direct(thread_ts="1.5"))).reply, ReplyStatus.REPLIED
    )
    grown = msgspec.structs.replace(begun, text="Hello *you*. How are you?")
    stream = ADAPTER.placed(begun.address, "7.1", begun.text)
    edited = msgspec.structs.replace(begun, address=b'{"channel":"C1","shown":"7.1"}')
    asked = msgspec.structs.replace(begun, question="0123456789abcdef")
    calls = [
        ADAPTER.call(begun, 0.0), ADAPTER.call(begun, 0.0, plain=True), ADAPTER.call(edited, 0.0),
        ADAPTER.call(asked, 0.0), ADAPTER.call(asked, 0.0, plain=True), ADAPTER.preview(begun),
        ADAPTER.life_sign(begun.address, "is thinking…"),
        ADAPTER.preview(msgspec.structs.replace(grown, address=stream)),
        ADAPTER.call(msgspec.structs.replace(grown, address=stream), 0.0),
        ADAPTER.call(msgspec.structs.replace(grown, address=stream, question=asked.question), 0.0),
    ]  # fmt: skip
    methods = []
    for call in filter(None, calls):
        method, body = call.url.rpartition("/")[2], json.loads(call.body)
        door = method.replace(".", "_")
        assert set(body) <= set(inspect.signature(getattr(WebClient, door)).parameters), method
        built = Recorded()
        getattr(built, door)(**body)
        assert (built.method, {name: value for name, value in built.body.items() if value is not None}) == (
            method,
            body,
        )
        for block in Block.parse_all(body.get("blocks", [])):
            block.validate_json()
            assert block.to_dict() in body["blocks"]
        methods.append(method)
    assert set(methods) == {
        "chat.postMessage", "chat.update", "chat.startStream", "chat.appendStream", "chat.stopStream",
        "assistant.threads.setStatus",
    }  # fmt: skip


class Recorded(WebClient):
    """Slack's own client, which keeps a request and sends none."""

    method, body = "", dict[str, Any]()

    def api_call(self, api_method: str, **arguments: Any) -> Any:
        self.method, self.body = api_method, arguments.get("json") or arguments.get("params") or {}
