"""Hostile webhooks over real HTTP into a real store: a 4xx each, never a 5xx, and nothing secret is said."""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.platforms.decode import decode
from gateway.platforms.standard import Body as StandardBody
from loadtests.signing import SignedRequest
from shared.errors import BodyRejected
from shared.events import Event
from tests.gateway.edge import (
    LET_ALL_IN,
    SECRETS,
    Edge,
    raw_answer,
    running_edge,
    signed_raw,
    slack,
    standard,
    telegram,
)

PLATFORMS = ("standard", "slack", "telegram")
DEEP = b"[" * 200_000

HOSTILE_BODIES = {
    "empty": b"", "not json": b"hello", "not utf-8": b'{"session":"\xff","user":"u","text":"t"}', "deep array": DEEP,
    "deep object": b'{"a":' * 100_000, "deep and whole": b"[" * 50_000 + b"]" * 50_000, "number": b"1", "null": b"null",
    "string": b'"x"', "array": b"[]", "nul": b"\0", "lone surrogate": b'{"session":"\\ud800","user":"u","text":"t"}',
    "huge number": b'{"session":1e999,"user":"u","text":"t"}', "huge integer": b"9" * 100_000, "bom": b"\xef\xbb\xbf{}",
    "empty object": b"{}", "nul in session": b'{"session":"a\\u0000","user":"u","text":"t"}',
    "cut off": b'{"session":"a',
    "empty text": b'{"session":"s","user":"u","text":""}',
    "long text": b'{"session":"s","user":"u","text":"%s"}' % (b"x" * 200_000),
}  # fmt: skip


@pytest.mark.parametrize("platform", ["standard", "slack", "telegram"])
async def test_a_hostile_body_with_a_good_signature_is_a_400(edge: Edge, platform: str) -> None:
    """Never a 5xx, and the answer says what is wrong."""
    for name, raw in HOSTILE_BODIES.items():
        answer = await edge.post(signed_raw(platform, raw))
        assert answer.status_code == 400, (name, answer.text)
        assert answer.json()["error"]["message"], name
    assert await edge.store.inbox.waiting() == 0
    assert edge.events.counts[Event.WEBHOOK_REJECTED] == len(HOSTILE_BODIES)


@pytest.mark.parametrize("one", [b"1e300", b"[]", b'{"a":null}', b"null"])
def test_a_signed_body_of_very_many_values_is_refused_at_once(one: bytes) -> None:
    """It is read on the loop, and reading it a second time for its nulls took a second."""
    started = time.thread_time()
    with pytest.raises(BodyRejected):
        decode(b'{"session":null,"zz":[%s]}' % b",".join([one] * (1_000_000 // len(one))), StandardBody, "a message")
    assert time.thread_time() - started < 0.1


@pytest.mark.parametrize("platform", ["standard", "slack", "telegram"])
async def test_a_hostile_body_with_a_bad_signature_is_a_401(edge: Edge, platform: str) -> None:
    """Whatever it holds: it is not read."""
    for name, raw in HOSTILE_BODIES.items():
        signed = signed_raw(platform, raw + b" ")
        headers = signed.headers | {"x-telegram-bot-api-secret-token": "wrong"}
        assert (await edge.post(SignedRequest(signed.path, headers, raw))).status_code == 401, name


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
async def test_half_a_character_costs_no_message(edge: Edge, mark: bytes) -> None:
    """Programs that cut texts by units of UTF-16 send such halves; in a name they could be anybody's."""
    answer = await edge.post(signed_raw("standard", mark + b'{"session":"s","user":"u","text":"cut \\ud83d"}'))
    assert answer.status_code == 200
    assert [one.text for one in await edge.store.inbox.unanswered("standard:default:s")] == ["cut \ufffd"]


async def test_a_genuine_update_that_is_of_no_use_is_acknowledged(edge: Edge) -> None:
    """A refusal would block the chat."""
    hostile: list[Any] = [10**400, {"id": "x"}, [[]], None, "x\0", {"a": {"b": [1.5e300]}}]
    for value in hostile:
        for field in ("chat", "from", "text", "message_id", "entities", "photo"):
            update = {"update_id": 9, "message": {"message_id": 1, "chat": {"id": 1}, "from": {"id": 1}, field: value}}
            answer = await edge.post(signed_raw("telegram", json.dumps(update).encode()))
            assert answer.status_code == 200, (field, value, answer.text)


#: what makes the platforms' official verifiers raise instead of refusing, as a header's value; None: it is missing
HOSTILE_VALUES = {
    "timestamp in letters": b"abc", "timestamp in other digits": "\u0663".encode(), "timestamp without end": b"9" * 400,
    "not ASCII": "\u00e9".encode(), "not ASCII behind the version": "v0=\u00e9".encode(), "not UTF-8": b"\xff\xfe",
    "no comma": b"v1", "nothing behind the comma": b"v1,", "two blanks between signatures": b"v1,a  v1,b",
    "no hex": b"v0=" + b"z" * 64, "short hex": b"v0=ab", "short": b"ab", "empty": b"", "missing": None,
    "long": b"x" * 30_000,
}  # fmt: skip


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_headers_that_make_official_verifiers_raise_are_a_401(edge: Edge, platform: str) -> None:
    """Each row of the list in each header that is verified, over a body that is no text."""
    signed = signed_raw(platform, b"\xff\xfe{}")
    verified = [name for name in signed.headers if name != "content-type"]
    for header, (row, value) in itertools.product(verified, HOSTILE_VALUES.items()):
        if header == "webhook-id" and value and value.isascii() and len(value) <= 200:
            continue  # an id may be any such text; its signature is then the one of another id
        headers = {name.encode(): text.encode() for name, text in signed.headers.items() if name != header}
        headers |= {} if value is None else {header.encode(): value}
        answer = await edge.client.post(signed.path, content=signed.body, headers=headers)
        assert answer.status_code == 401, (header, row, answer.text)
        assert answer.json()["error"]["type"] == "authentication_error"
    assert not edge.events.counts[Event.REQUEST_FAILED]


@pytest.mark.parametrize("sign", [standard, telegram, slack])
async def test_a_signature_header_that_comes_twice_is_refused(edge: Edge, sign: Callable[[], SignedRequest]) -> None:
    """Even if both are right: two parts of a system could read different ones."""
    signed = sign()
    name = next(name for name in signed.headers if "signature" in name or "secret" in name)
    headers = [*signed.headers.items(), (name, signed.headers[name])]
    answer = await edge.client.post(signed.path, content=signed.body, headers=headers)
    assert answer.status_code == 401
    assert "more than once" in answer.json()["error"]["message"]


async def test_hostile_hosts_and_paths_are_no_error_of_ours(edge: Edge) -> None:
    """They are refused, or sent to the path without its last slash, which is as well."""
    hosts = [b"[", b"a b", b"\xff", b"", b"x" * 5000, b"//evil/?#"]
    paths = [b"standard", b"%ff%00", b"..%2f", b"x" * 5000]
    for host, path in itertools.product(hosts, paths):
        lines = [b"POST /webhooks/%s HTTP/1.1" % path, b"Host: " + host, b"Content-Length: 2", b"Connection: close"]
        status = (await raw_answer(edge, b"\r\n".join([*lines, b"", b"{}"]))).split(b" ")[1]
        assert status.startswith(b"4") or status == b"307", (host, path)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """All that is logged."""
    with caplog.at_level(logging.DEBUG):
        yield caplog


async def test_no_secret_reaches_a_log_line_or_an_answer(tmp_path: Path, lines: pytest.LogCaptureFixture) -> None:
    """Neither our secrets nor what people wrote."""
    async with running_edge(tmp_path, LET_ALL_IN) as edge:
        bodies = [
            signed_raw(name, raw) for name in ("standard", "slack", "telegram") for raw in HOSTILE_BODIES.values()
        ]
        answers = [await edge.post(signed) for signed in [standard("my-own-words"), telegram(), slack(), *bodies]]
    said = " ".join(str(record.__dict__) for record in lines.records if record.name == "gatehouse")
    said += " ".join(answer.text for answer in answers)
    for secret in (*vars_of_secrets(), "my-own-words"):
        assert secret not in said


def vars_of_secrets() -> list[str]:
    return [getattr(SECRETS, name) for name in SECRETS.__struct_fields__]
