"""What holds for every platform of the table: the tests find a platform's fixture by its name, so none is left out."""

from __future__ import annotations

import contextlib
import importlib
import json
from functools import cache
from urllib.parse import parse_qsl

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.formatting import unmarked
from gateway.platforms import ADAPTERS
from gateway.platforms.json_api import JsonApiAdapter
from gateway.platforms.port import (
    ApiRequest,
    ApiResponse,
    Gone,
    Inbound,
    Sent,
    TryLater,
    WebhookRequest,
    WithoutThread,
)
from shared.errors import BodyRejected
from shared.messages import Reply, ReplyStatus
from shared.platform_settings import PLATFORM_SETTINGS
from tests.gateway.platforms.fixtures.fixture import NOW, Fixture, accepts, changed

#: every platform of the table, and the worked example of docs/platforms.md
NAMES = sorted([*ADAPTERS, "parrot"])
HOSTILE = [
    "",
    "é" * 20,
    "v0=",
    "v1",
    "v1,",
    "v1,  v1,",
    "sha256=",
    "Bearer",
    "Bearer ",
    "Bearer a.b.c",
    "0" * 128,
    "\0",
]
HOSTILE += ["x" * 10_000]


@cache
def fixture_of(name: str) -> Fixture:
    found = importlib.import_module(f"tests.gateway.platforms.fixtures.{name}").fixture()
    assert isinstance(found, Fixture)
    return found


@pytest.fixture(params=NAMES)
def platform(request: pytest.FixtureRequest) -> Fixture:
    return fixture_of(request.param)


def only(fixture: Fixture, body: bytes) -> Inbound:
    (inbound,) = fixture.adapter.parse(fixture.sign(body)).inbound
    return inbound


def reply_to(fixture: Fixture, text: str, address: bytes = b"", part: int = 0) -> Reply:
    where = address or only(fixture, fixture.direct("hi")).reply
    return Reply(fixture.session, "msg_1", part, fixture.adapter.name, text, where, ReplyStatus.REPLIED)


def body_of(request: ApiRequest) -> dict[str, object]:
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return dict(parse_qsl(request.body.decode(), keep_blank_values=True))
    return msgspec.json.decode(request.body, type=dict[str, object])


def test_every_adapter_has_its_settings_and_every_setting_an_adapter() -> None:
    """Under the same name, which is also in the adapter itself."""
    assert set(ADAPTERS) == set(PLATFORM_SETTINGS)
    assert all(fixture_of(name).adapter.name == name for name in NAMES)


def test_an_authentic_request_is_accepted(platform: Fixture) -> None:
    """Of the fixture's own hand, and by the platform's library where there is one."""
    req = platform.sign(platform.direct("hi 👋 ü"))
    assert accepts(platform.adapter, req)
    assert platform.official is None or platform.official(req)


def test_every_single_bit_of_the_proof_counts(platform: Fixture) -> None:
    """And of the body, where the proof covers it."""
    req = platform.sign(platform.direct("hi"))
    if platform.proof:
        value = req.headers[platform.proof].encode()
        for index in range(8 * len(value)):
            flipped = bytearray(value)
            flipped[index // 8] ^= 1 << index % 8
            text = flipped.decode("latin-1")
            if text.lower() != value.decode().lower() or platform.proof not in {"x-signature-ed25519", "authorization"}:
                refused = changed(req, **{platform.proof: text})
                assert not accepts(platform.adapter, refused) or (platform.proof == "authorization" and index < 56)
    if platform.signs_body:
        for index in range(8 * len(req.raw)):
            body = bytearray(req.raw)
            body[index // 8] ^= 1 << index % 8
            assert not accepts(platform.adapter, msgspec.structs.replace(req, raw=bytes(body)))


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_proof_is_refused_without_an_exception(platform: Fixture, value: str) -> None:
    """What official verifiers raise on, or answer with a five hundred."""
    req = platform.sign(platform.direct("hi"))
    if platform.proof:
        assert not accepts(platform.adapter, changed(req, **{platform.proof: value}))
        missing = {name: text for name, text in req.headers.items() if name != platform.proof}
        assert not accepts(platform.adapter, msgspec.structs.replace(req, headers=missing))
    else:
        assert not accepts(platform.adapter, msgspec.structs.replace(req, raw=f"token={value}".encode()))


@pytest.mark.parametrize("at", ["abc", "-5", "1e9", "１２", "9" * 30, "1699999000", "1700001000"])
def test_a_time_that_is_none_or_long_ago_is_refused(platform: Fixture, at: str) -> None:
    """Where the platform signs its time at all."""
    if platform.timed:
        req = platform.sign(platform.direct("hi"))
        name = next(name for name in req.headers if "timestamp" in name)
        assert not accepts(platform.adapter, changed(req, **{name: at}))
        assert not accepts(platform.adapter, msgspec.structs.replace(req, now=NOW + 301))
        assert not accepts(platform.adapter, msgspec.structs.replace(req, now=NOW - 301))


@settings(max_examples=120)
@given(
    body=st.binary(max_size=60),
    cut=st.integers(0, 200),
    spliced=st.text(max_size=3),
    change=st.sampled_from(["proof", "body", ""]),
)
@pytest.mark.parametrize("name", NAMES)
def test_our_verdict_is_the_official_verifiers(name: str, body: bytes, cut: int, spliced: str, change: str) -> None:
    """On any body and any change of it or of its proof; where the other side raises, ours refuses."""
    fixture = fixture_of(name)
    if fixture.official is None:
        return
    req = fixture.sign(body)
    if change == "proof" and fixture.proof:
        value = req.headers[fixture.proof]
        req = changed(req, **{fixture.proof: value[:cut] + spliced + value[cut + len(spliced) :]})
    elif change == "body":
        req = msgspec.structs.replace(req, raw=body[:cut] + spliced.encode("utf-8", "replace") + body[cut:])
    try:
        official = fixture.official(req)
    except Exception:  # noqa: BLE001 - official verifiers raise all kinds of errors on hostile input
        official = False
    ours = accepts(fixture.adapter, req)
    if not official and ours:
        # what ours takes and the other side raised on: bytes that are no text, of a body that is signed all the same
        with pytest.raises(UnicodeDecodeError):
            req.raw.decode()
    else:
        assert ours == official


def test_a_handshake_is_answered_to_the_byte(platform: Fixture) -> None:
    """And starts nothing."""
    for req, status, body in platform.handshakes:
        assert accepts(platform.adapter, req)
        parsed = platform.adapter.parse(req)
        assert (parsed.ack.status, parsed.ack.body, parsed.inbound) == (status, body, ())


def test_a_direct_message_is_read(platform: Fixture) -> None:
    """With its text as it was written."""
    inbound = only(platform, platform.direct("hi 👋 <b> & ü"))
    assert (inbound.session, inbound.user) == (platform.session, platform.user)
    assert inbound.text.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">") == "hi 👋 <b> & ü"
    assert inbound.direct or platform.adapter.lookup(inbound)
    assert inbound.dedupe == only(platform, platform.direct("hi")).dedupe != ()
    assert inbound.title == platform.titles[0]


def test_a_message_that_names_the_bot_is_for_it(platform: Fixture) -> None:
    """Without its name, in a session of its own where there is a place of its own."""
    if platform.mention:
        inbound = only(platform, platform.mention("status?"))
        assert (inbound.text, inbound.addressed, inbound.user) == ("status?", True, platform.user)
        assert inbound.title == platform.titles[1]


def test_who_does_not_speak_to_the_bot_starts_nothing(platform: Fixture) -> None:
    """Bots, reports, unknown kinds, odd shapes: a 2xx, and nothing that is addressed."""
    for body in platform.silent:
        parsed = platform.adapter.parse(platform.sign(body))
        assert 200 <= parsed.ack.status < 300
        assert not [inbound for inbound in parsed.inbound if inbound.addressed], body


@settings(max_examples=40)
@given(
    body=st.binary(max_size=40)
    | st.from_regex(rb'\{"[a-z]{1,9}":("[a-z]*"|\[\]|\{\}|-?[0-9]{1,25}|null)\}', fullmatch=True)
)
@pytest.mark.parametrize("name", NAMES)
def test_any_body_is_read_or_refused(name: str, body: bytes) -> None:
    """It raises nothing else."""
    fixture = fixture_of(name)
    req = fixture.sign(body)
    accepts(fixture.adapter, req)
    with contextlib.suppress(BodyRejected):
        fixture.adapter.parse(req)


@settings(max_examples=40)
@given(data=st.data())
@pytest.mark.parametrize("name", NAMES)
def test_a_message_with_any_field_missing_or_odd_is_read_or_refused(name: str, data: st.DataObject) -> None:
    """At any depth of it."""
    fixture = fixture_of(name)
    body = fixture.direct("hi")
    if not body.startswith(b"{"):
        return
    tree = json.loads(body)
    node: object = tree
    while isinstance(node, dict) and node:
        key = data.draw(st.sampled_from(sorted(node)))
        child = node[key]
        if not isinstance(child, dict | list) or data.draw(st.booleans()):
            odd: object = data.draw(st.sampled_from(["DROP", None, 5, -1.5, "", "x", [], {}, True]))
            if odd == "DROP":
                del node[key]
            else:
                node[key] = odd
            break
        node = child[0] if isinstance(child, list) and child else child
    req = fixture.sign(json.dumps(tree).encode())
    accepts(fixture.adapter, req)
    with contextlib.suppress(BodyRejected):
        fixture.adapter.parse(req)


def test_what_the_api_answers_is_understood(platform: Fixture) -> None:
    """Taken with its id, put off for as long as is asked, gone for good; a proxy's page is tried again."""
    reply = reply_to(platform, "hi")
    assert platform.adapter.result(reply, platform.sent) == Sent(platform.sent_id)
    limited = platform.adapter.result(reply, platform.limited)
    assert isinstance(limited, TryLater)
    assert limited.after_s == platform.limited_s
    assert isinstance(platform.adapter.result(reply, platform.gone), Gone)
    for status in (500, 502, 503):
        page = ApiResponse(status, {"retry-after": "3"}, b"<html>Bad Gateway</html>")
        assert isinstance(platform.adapter.result(reply, page), TryLater)


def test_a_lost_thread_or_token_is_given_up_for_an_address_that_lasts(platform: Fixture) -> None:
    """At once, and never twice."""
    if platform.lost:
        answer, address = platform.lost
        result = platform.adapter.result(reply_to(platform, "hi", address), answer)
        assert isinstance(result, WithoutThread)
        again = platform.adapter.result(reply_to(platform, "hi", result.address), answer)
        assert not isinstance(again, WithoutThread)


def test_an_address_that_expires_is_used_no_longer(platform: Fixture) -> None:
    """The same reply goes another way later, without asking first."""
    address = only(platform, platform.direct("hi")).reply
    if b'"until"' in address:
        reply = reply_to(platform, "hi", address)
        now, later = (platform.adapter.call(reply, at) for at in (NOW, NOW + 1000))
        assert now.url != later.url


@pytest.mark.parametrize(
    "text",
    [
        "a" * 3,
        "👋",
        "x" * 10_000,
        "```py\n" + "line = 1\n" * 10 + "```\n",
        "> code code code\n> ```\n> code code\n> ```\n",
        "word *it* ",
    ],
)
def test_a_long_answer_arrives_whole_in_messages_that_fit(platform: Fixture, text: str) -> None:
    """Three times the limit of ASCII, of emoji, of one endless word, of code in fences and quotes."""
    if platform.adapter.name == "standard":
        return
    times = 3.0 if platform.limit < 12_000 else 1.5
    answer = text * int(times * platform.limit // len(text) + 1)
    chunks = platform.adapter.chunks(answer)
    sent = [body_of(platform.adapter.call(reply_to(platform, chunk, part=n), NOW)) for n, chunk in enumerate(chunks)]
    assert len(chunks) > 1
    for chunk in chunks:
        seen = platform.texts(body_of(platform.adapter.call(reply_to(platform, chunk), NOW)))
        assert platform.measure(chunk if platform.adapter.name == "matrix" else seen) <= platform.limit
    letters = [char for body in sent for char in platform.texts(body) if char.isalnum() or char == "👋"]
    if platform.adapter.name != "matrix" and "py" not in text:
        assert "".join(letters) == "".join(char for char in answer if char.isalnum() or char == "👋")


LINE = "def line(number): return 'it *is* _kept_ <as> `it` & is' # "
FAMILY = "👨‍👩‍👧‍👦"


@settings(max_examples=25, deadline=None)
@given(
    pieces=st.lists(
        st.sampled_from(
            ["word " * 9, f"{FAMILY}{FAMILY} ", "**bold words** ", "- item\n", "> quote\n", "\n\n", "CODE"]
        ),
        min_size=1,
        max_size=30,
    )
)
@pytest.mark.parametrize("name", NAMES)
def test_any_answer_is_cut_within_the_limit_its_code_and_its_graphemes_whole(name: str, pieces: list[str]) -> None:
    """With code in several blocks of it, each longer than a message; a short limit stands for the platform's own."""
    fixture = fixture_of(name)
    adapter = type(fixture.adapter)
    if not issubclass(adapter, JsonApiAdapter):
        return
    limit = 1200 if name == "matrix" else 300
    code = [f"{LINE}{number}" for number in range(8)]
    answer = "".join("\n\n```py\n" + "\n".join(code) + "\n```\n\n" if one == "CODE" else one for one in pieces)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(adapter, "writes", msgspec.structs.replace(adapter.writes, most=limit))
        chunks = fixture.adapter.chunks(answer)
        sent = [fixture.texts(body_of(fixture.adapter.call(reply_to(fixture, chunk), NOW))) for chunk in chunks]
    is_html = name in {"telegram", "matrix"}
    seen = [unmarked(chunk) if is_html else text for chunk, text in zip(chunks, sent, strict=True)]
    counted = {"matrix": chunks, "telegram": seen}.get(name, sent)
    assert all(fixture.measure(text) <= limit for text in counted)
    lines = [line for text in seen for line in text.replace("&lt;", "<").split("\n") if line.startswith("def line")]
    assert lines == code * pieces.count("CODE")
    assert sum(text.count(FAMILY) for text in seen) == answer.count(FAMILY)
    assert is_html or all(text.count("```") % 2 == 0 for text in seen)


def test_no_row_and_no_request_body_holds_a_secret(platform: Fixture) -> None:
    """An address lasts as long as its row."""
    address = only(platform, platform.direct("hi")).reply.decode()
    request = platform.adapter.call(reply_to(platform, "hi"), NOW)
    for secret in platform.secrets:
        assert secret not in address
        assert secret.encode() not in request.body


def test_a_repeated_send_is_the_same_request(platform: Fixture) -> None:
    """Where the platform takes a key, it is the reply's own; another reply has another one."""
    first, again = (platform.adapter.call(reply_to(platform, "hi"), NOW) for _ in range(2))
    assert first == again
    if platform.adapter.capabilities.idempotent and b'"until"' not in reply_to(platform, "hi").address:
        assert platform.adapter.call(reply_to(platform, "hi", part=1), NOW) != first


def test_threads_of_a_place_share_its_budget(platform: Fixture) -> None:
    """A chat's key is the same for all that is said in it."""
    address = only(platform, platform.direct("hi")).reply
    assert platform.adapter.chat(address) == platform.adapter.chat(address)
    assert platform.adapter.chat(address).key


def test_a_limit_is_about_one_method_where_the_platform_counts_them_apart(platform: Fixture) -> None:
    """A repeated send is the same method, whatever key it brings; a life sign is another one."""
    adapter, reply = platform.adapter, reply_to(platform, "hi")
    first, again = (adapter.method_of(adapter.call(one, NOW)) for one in (reply, reply_to(platform, "ho")))
    assert first == again
    assert bool(first) == (adapter.name in {"slack", "telegram", "discord", "line"})
    sign = adapter.life_sign(reply.address, "thinking")
    assert sign is None or not first or adapter.method_of(sign) != first


def test_what_platforms_show_while_a_turn_runs_is_a_request_of_theirs(platform: Fixture) -> None:
    """Life signs where there are some; the set-up is told for every platform."""
    address = only(platform, platform.direct("hi")).reply
    sign = platform.adapter.life_sign(address, "thinking")
    assert sign is None or sign.url.startswith("http")
    assert platform.adapter.setup("https://bot.example.com/webhooks/x").steps


def test_a_request_for_another_method_or_path_is_not_taken_for_a_message(platform: Fixture) -> None:
    """A GET is a handshake or nothing."""
    if "GET" in platform.adapter.capabilities.methods:
        req = WebhookRequest("GET", {}, b"", NOW)
        assert not accepts(platform.adapter, req)
