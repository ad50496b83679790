"""Who may talk, and who may use the API."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.requests import Request

from gateway.access import Access, Admission
from gateway.announcements import Announcements
from gateway.pairings import CODE_ALPHABET, MOST_TOLD, Pairings, new_code
from gateway.platforms import enabled_platforms
from gateway.platforms.port import Inbound, Kind
from gateway.responses import Refused
from shared.settings import Settings, parse_settings
from shared.store import Store
from tests.gateway.edge import Woken, edge_settings, open_test_store

KEYS = {"GATEHOUSE_API_KEYS": "first-key-0123456789,zweiter-schlüssel"}


def said_by(user: str, session: str = "telegram:1:2", *, outsider: bool = False) -> Inbound:
    address = b'{"chat_id":2,"message_id":3}'
    return Inbound(Kind.MESSAGE, session, ("k",), user, "hi", True, False, address, outsider=outsider)


def access_to(settings: Settings, store: Store | None) -> Access:
    """Return an access; to check keys it needs no store, and to admit somebody no intake."""
    return Access(settings, pairings_of(settings, store))


def pairings_of(settings: Settings, store: Store | None) -> Pairings:
    announcements = Announcements(store, Woken())  # type: ignore[arg-type]
    return Pairings(store, {}, announcements, None, settings.webhooks)  # type: ignore[arg-type]


async def admitted(store: Store, allow: str, platform: str, user: str, *, outsider: bool = False) -> Admission:
    settings = edge_settings({"GATEHOUSE_ALLOW": allow})
    said = said_by(user, outsider=outsider)
    return await access_to(settings, store).admit(enabled_platforms(settings)[platform], said)


@pytest.mark.parametrize(
    ("allow", "platform", "user", "admission"),
    [
        ("", "standard", "x", Admission.ALLOWED), ("", "slack", "U1", Admission.ALLOWED),
        ("", "telegram", "5", Admission.STRANGER), ("*", "telegram", "5", Admission.ALLOWED),
        ("telegram:*", "telegram", "5", Admission.ALLOWED), ("telegram:5", "telegram", "5", Admission.ALLOWED),
        ("telegram:5", "telegram", "6", Admission.REFUSED), ("telegram:5", "slack", "5", Admission.REFUSED),
        ("slack:*", "standard", "ana", Admission.REFUSED), ("standard:a:b", "standard", "a:b", Admission.ALLOWED),
        ("telegram:5", "telegram", "*", Admission.REFUSED),
    ],
)  # fmt: skip
async def test_the_list_decides_where_there_is_one(
    tmp_path: Path, allow: str, platform: str, user: str, admission: Admission
) -> None:
    """Without one, strangers exist on open platforms only."""
    async with open_test_store(tmp_path) as store:
        assert await admitted(store, allow, platform, user) is admission


@pytest.mark.parametrize(
    ("allow", "member", "guest"),
    [
        ("", Admission.ALLOWED, Admission.STRANGER),
        ("slack:*", Admission.ALLOWED, Admission.REFUSED),
        ("slack:guests", Admission.REFUSED, Admission.ALLOWED),
        ("slack:*,slack:guests", Admission.ALLOWED, Admission.ALLOWED),
        ("slack:*,slack:U1", Admission.ALLOWED, Admission.ALLOWED),
        ("slack:*,slack:U2", Admission.ALLOWED, Admission.REFUSED),
        ("slack:*,teams:guests", Admission.ALLOWED, Admission.REFUSED),
        ("*", Admission.ALLOWED, Admission.ALLOWED),
    ],
)
async def test_everybody_of_a_workspace_is_not_everybody_in_its_shared_channels(
    tmp_path: Path, allow: str, member: Admission, guest: Admission
) -> None:
    async with open_test_store(tmp_path) as store:
        assert await admitted(store, allow, "slack", "U1") is member
        assert await admitted(store, allow, "slack", "U1", outsider=True) is guest


async def test_a_stranger_is_sent_one_code_and_may_talk_once_it_is_approved(tmp_path: Path) -> None:
    """Who goes on writing is not told again and again; another stranger has another code."""
    settings = edge_settings()
    telegram = enabled_platforms(settings)["telegram"]
    async with open_test_store(tmp_path) as store:
        access, pairings = access_to(settings, store), pairings_of(settings, store)
        for _ in range(3):
            assert await access.admit(telegram, said_by("5")) is Admission.STRANGER
            await pairings.announce_code(telegram, said_by("5"))
        assert await access.admit(telegram, said_by("6", "telegram:1:6")) is Admission.STRANGER
        await pairings.announce_code(telegram, said_by("6", "telegram:1:6"))
        replies = (await store.outbox.due("test", 10, 60.0)).replies
        codes = dict(await store.sessions.strangers())
        assert set(codes) == {"telegram:5", "telegram:6"}
        assert len(set(codes.values())) == 2
        assert len(replies) == 2
        assert codes["telegram:5"] in replies[0].text
        assert replies[0].address == b'{"chat_id":2,"message_id":3}'
        assert await store.sessions.approve(codes["telegram:5"]) == "telegram:5"
        assert await access.admit(telegram, said_by("5")) is Admission.ALLOWED
        assert await access.admit(telegram, said_by("6", "telegram:1:6")) is Admission.STRANGER


async def test_one_stranger_makes_us_send_few_messages_in_however_many_threads(tmp_path: Path) -> None:
    settings = edge_settings()
    telegram = enabled_platforms(settings)["telegram"]
    async with open_test_store(tmp_path) as store:
        pairings = pairings_of(settings, store)
        for thread in range(10):
            await pairings.announce_code(telegram, said_by("5", f"telegram:1:2:{thread}"))
        assert len((await store.outbox.due("test", 20, 60.0)).replies) == MOST_TOLD


def test_codes_are_short_and_readable() -> None:
    """No letter that looks like a digit."""
    codes = {new_code() for _ in range(1000)}
    assert len(codes) == 1000
    assert all(len(code) == 8 and set(code) <= set(CODE_ALPHABET) for code in codes)
    assert not set("ILO01") & set(CODE_ALPHABET)


def request_with(*headers: tuple[str, str]) -> Request:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    return Request({"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": raw})


def status_of(environment: dict[str, str], *headers: tuple[str, str]) -> int:
    access = access_to(parse_settings(environment), None)
    try:
        access.authorize(request_with(*headers))
    except Refused as refused:
        return refused.status_code
    return 200


def test_a_401_says_how_to_come_in() -> None:
    """As HTTP wants it."""
    with pytest.raises(Refused) as refused:
        access_to(edge_settings(KEYS), None).authorize(request_with())
    assert refused.value.headers == {"WWW-Authenticate": "Bearer"}


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer first-key-0123456789", 200), ("bearer  first-key-0123456789 ", 200), ("Bearer zweiter-schlüssel", 200),
        ("Bearer first-key-012345678", 401), ("Bearer first-key-0123456789x", 401), ("Bearer ", 401), ("Bearer", 401),
        ("Basic first-key-0123456789", 401), ("first-key-0123456789", 401), ("", 401), ("Bearer é€👋", 401),
        ("Bearer first-key-0123456789,zweiter-schlüssel", 401),
    ],
)  # fmt: skip
def test_one_of_the_keys_is_needed_where_there_are_keys(authorization: str, status: int) -> None:
    """From anywhere: a key cannot be sent by a page that does not know it."""
    headers = [("authorization", authorization), ("host", "bot.example"), ("origin", "https://elsewhere.example")]
    assert status_of(KEYS, *headers) == status


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:8000", None, 200), ("localhost:8000", None, 200), ("[::1]:8000", None, 200),
        ("127.9.9.9", None, 200),
        ("127.0.0.1:8000", "http://127.0.0.1:8000", 200), ("LOCALHOST:8000", "http://localhost:8000", 200),
        ("127.0.0.1:8000", "http://127.0.0.1:9000", 403), ("127.0.0.1:8000", "http://localhost:8000", 403),
        ("127.0.0.1:8000", "https://evil.example", 403), ("127.0.0.1:8000", "null", 403),
        ("127.0.0.1:8000", "http://[", 403), ("127.0.0.1:8000", "file://127.0.0.1:8000", 403),
        ("evil.example:8000", None, 403), ("evil.example:8000", "http://evil.example:8000", 403), ("", None, 403),
        ("127.0.0.1.evil.example", None, 403), ("127.0.0.1@evil.example", None, 403), ("[", None, 403),
        ("0.0.0.0:8000", None, 403), ("10.0.0.1", None, 403), ("localhost.evil.example", None, 403),
    ],
)  # fmt: skip
def test_without_keys_only_this_machines_own_pages_and_programs_are_served(
    host: str, origin: str | None, status: int
) -> None:
    """A rebound name shows in Host, another page in Origin."""
    assert status_of({}, ("host", host), *([("origin", origin)] if origin else [])) == status


@pytest.mark.parametrize(
    "sign",
    [
        ("Forwarded", "for=1.2.3.4"), ("X-Forwarded-For", "1.2.3.4"), ("x-forwarded-host", "127.0.0.1"),
        ("X-Real-IP", "1.2.3.4"), ("Via", "1.1 proxy"), ("CF-Connecting-IP", "1.2.3.4"),
    ],
)  # fmt: skip
def test_what_came_through_a_proxy_needs_a_key(sign: tuple[str, str]) -> None:
    """Its own address is local, and so is the Host that nginx makes up."""
    assert status_of({}, ("Host", "127.0.0.1:8000")) == 200
    assert status_of({}, ("Host", "127.0.0.1:8000"), sign) == 403
