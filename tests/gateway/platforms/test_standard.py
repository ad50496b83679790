"""The Standard Webhooks adapter: vectors, mutations against the official verifier, bodies, replies."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from gateway.platforms.port import ApiResponse, Fail, Gone, SendResult, Sent, TryLater, WebhookRequest
from gateway.platforms.standard import Standard, sign
from shared.errors import BodyRejected, SignatureRejected
from shared.messages import Reply, ReplyStatus
from shared.platform_settings import StandardSettings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ADAPTER = Standard(StandardSettings(SECRET, "http://127.0.0.1:9/replies"))
BODY = b'{"session": "s1", "user": "ana", "text": "hi"}'
REPLY = Reply("standard:default:s1", "msg_1", 2, "standard", "**hello**", b'{"session":"s1"}', ReplyStatus.REPLIED)


def request_of(raw: bytes, *, at: float = 1614265330, now: float | None = None, **headers: str) -> WebhookRequest:
    timestamp = str(int(at))
    signed = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": timestamp,
        "webhook-signature": sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp, raw),
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    return WebhookRequest("POST", signed, raw, at if now is None else now)


def accepted(req: WebhookRequest) -> bool:
    try:
        ADAPTER.verify(req)
    except SignatureRejected:
        return False
    return True


def officially_accepted(raw: bytes, headers: Mapping[str, str]) -> bool:
    try:
        Webhook(SECRET).verify(raw, dict(headers), json_parse=False)
    except Exception:  # noqa: BLE001 - the official verifier raises all kinds of errors on hostile input
        return False
    return True


def test_the_published_vector_is_accepted() -> None:
    """The vector of the specification's own libraries."""
    signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    ADAPTER.verify(request_of(b'{"test": 2432232314}', webhook_signature=signature))


def test_an_asymmetric_signature_alone_is_refused_by_its_name() -> None:
    with pytest.raises(SignatureRejected, match=r"v1a .*sign with v1"):
        ADAPTER.verify(request_of(BODY, webhook_signature="v1a,AAAA v1a,BBBB"))


def test_any_matching_entry_is_enough_and_unknown_versions_are_skipped() -> None:
    """A sender that rotates its secret signs with both."""
    good = sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", BODY)
    ADAPTER.verify(request_of(BODY, webhook_signature=f"v1a,AAAA v1,wrong= {good}"))
    assert not accepted(request_of(BODY, webhook_signature=good.replace("v1,", "v1a,")))


@pytest.mark.parametrize("skew", [-301, 301, -90_000, 90_000])
def test_a_timestamp_outside_the_window_is_refused(skew: int) -> None:
    """Old and future ones alike."""
    assert not accepted(request_of(BODY, now=1614265330 + skew))


@pytest.mark.parametrize("skew", [-300, 0, 300])
def test_a_timestamp_inside_the_window_is_accepted(skew: int) -> None:
    """The window is five minutes both ways."""
    assert accepted(request_of(BODY, now=1614265330 + skew))


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize(
    "value", ["", "v1", "v1,", "a  b", "é", "abc", "-1", "1e9", "٣", "9" * 13, " ", ",", "v1,é", "x" * 100_000]
)
def test_hostile_headers_are_refused_without_another_error(name: str, value: str) -> None:
    """The official verifier raises ValueError on some of these."""
    req = request_of(BODY)
    assert not accepted(msgspec.structs.replace(req, headers={**req.headers, name: value}))


def test_missing_headers_are_refused() -> None:
    """The refusal says which one is missing."""
    with pytest.raises(SignatureRejected, match="webhook-id header is missing"):
        ADAPTER.verify(WebhookRequest("POST", {}, BODY, 0))


@settings(max_examples=60)
@given(body=st.binary(max_size=60), mutation=st.integers(0, 10**9))
def test_every_mutation_has_the_verdict_of_the_official_verifier(body: bytes, mutation: int) -> None:
    """One bit of body, signature, timestamp or id is flipped; ours is never the laxer one."""
    at = int(time.time())
    parts = dict(request_of(body, at=at).headers) | {"body": body.decode("latin-1")}
    name = sorted(parts)[mutation % len(parts)]
    value = bytearray(parts[name].encode("latin-1"))
    if value:
        value[mutation % len(value)] ^= 1 << (mutation // 7 % 8)
    mutated = parts | {name: value.decode("latin-1")}
    raw = mutated.pop("body").encode("latin-1")
    ours = accepted(WebhookRequest("POST", mutated, raw, at))
    assert ours == (not value)
    assert not ours or officially_accepted(raw, mutated) or not is_utf8(raw)


def test_every_single_bit_of_a_request_is_covered_by_the_signature() -> None:
    """All of them, not a sample."""
    good = dict(request_of(BODY).headers) | {"body": BODY.decode()}
    for name, value in good.items():
        for index in range(8 * len(value)):
            flipped = bytearray(value.encode())
            flipped[index // 8] ^= 1 << index % 8
            mutated = good | {name: flipped.decode("latin-1")}
            raw = mutated.pop("body").encode("latin-1")
            assert not accepted(WebhookRequest("POST", mutated, raw, 1614265330)), (name, index)


def is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_a_message_is_read_with_its_session_and_its_dedupe_key() -> None:
    """The session key may hold what the sender's session holds."""
    raw = json.dumps({"session": "team:a b/ü", "user": "ana", "text": " hi 👋 "}).encode()
    (inbound,) = ADAPTER.parse(request_of(raw)).inbound
    assert inbound.session == "standard:default:team:a b/ü"
    assert inbound.dedupe == ("standard:msg_p5jXN8AQM9LWM0D4loKWxJek",)
    assert (inbound.user, inbound.text, inbound.addressed) == ("ana", " hi 👋 ", True)
    assert json.loads(inbound.reply) == {"session": "team:a b/ü"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("session", ""), ("session", "  "), ("session", "x" * 201), ("session", "a\nb"), ("session", "a\0b"),
        ("session", 7), ("session", None), ("session", ["a"]), ("session", {}), ("user", ""), ("user", 1.5),
        ("user", True), ("text", ""), ("text", " \n"), ("text", None), ("text", "x" * 100_001), ("text", "a\0b"),
        ("text", 10**400),
    ],
)  # fmt: skip
def test_a_wrong_field_is_refused_by_its_name(field: str, value: object) -> None:
    """The sender reads what to mend."""
    body = {"session": "s", "user": "u", "text": "t"} | {field: value}
    with pytest.raises(BodyRejected, match=field):
        ADAPTER.parse(request_of(json.dumps(body).encode()))


@pytest.mark.parametrize("field", ["session", "user", "text"])
def test_a_missing_field_is_named(field: str) -> None:
    """As a wrong one is."""
    body = {"session": "s", "user": "u", "text": "t"}
    del body[field]
    with pytest.raises(BodyRejected, match=field):
        ADAPTER.parse(request_of(json.dumps(body).encode()))


def test_a_reply_is_signed_so_that_the_official_verifier_takes_it() -> None:
    """The id is the same over attempts, the time is the attempt's."""
    now = time.time()
    first, again = ADAPTER.call(REPLY, now), ADAPTER.call(REPLY, now + 100)
    assert officially_accepted(first.body, first.headers)
    assert officially_accepted(again.body, again.headers)
    assert first.headers["webhook-id"] == again.headers["webhook-id"] == "msg_1.2"
    assert first.headers["webhook-signature"] != again.headers["webhook-signature"]
    assert first.url == "http://127.0.0.1:9/replies"


def test_a_reply_has_exactly_its_four_fields() -> None:
    """The session is the caller's own name of it; the text is as the agent wrote it."""
    failed = msgspec.structs.replace(REPLY, status=ReplyStatus.FAILED)
    assert json.loads(ADAPTER.call(failed, 0).body) == {
        "session": "s1", "message": "msg_1", "text": "**hello**", "status": "failed",
    }  # fmt: skip
    assert ADAPTER.chunks("x" * 100_000) == ["x" * 100_000]


@pytest.mark.parametrize(
    ("status", "headers", "result"),
    [
        (200, {}, Sent), (204, {}, Sent), (301, {}, TryLater), (400, {}, Fail), (404, {}, Fail), (408, {}, TryLater),
        (409, {}, TryLater), (410, {}, Gone), (425, {}, TryLater), (429, {"retry-after": "7"}, TryLater),
        (500, {}, TryLater),
        (503, {"retry-after": "7"}, TryLater), (599, {}, TryLater),
    ],
)  # fmt: skip
def test_answers_mean_what_senders_of_standard_webhooks_expect(
    status: int, headers: dict[str, str], result: type[SendResult]
) -> None:
    """Success, try again, gone, or refused for good."""
    outcome = ADAPTER.result(REPLY, ApiResponse(status, headers, b"\xff not read"))
    assert isinstance(outcome, result)
    if headers:
        assert isinstance(outcome, TryLater)
        assert outcome.after_s == 7
