"""The list of hosts that may be fetched, and what is a public address."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from shared.allow_list import AllowList
from shared.errors import SettingsError, ToolError
from shared.public_address import is_public
from shared.settings import parse_settings
from shared.settings_reader import HOST


@pytest.mark.parametrize(
    ("entry", "url", "listed"),
    [
        ("example.com", "http://example.com/", True),
        ("example.com", "https://EXAMPLE.com./x", True),
        ("Example.COM", "https://example.com:443/x", True),
        ("example.com:8080", "http://example.com:8080/", True),
        ("*.example.com", "https://a.example.com/", False),
        ("*.example.com", "https://a.b.example.com/", False),
        ("*.example.com:8080", "https://a.example.com:8080/", False),
        ("*", "https://anything.example/", False),
        ("*", "http://93.184.215.14/", False),
        ("xn--bcher-kva.example", "https://bücher.example/", True),
        ("10.0.0.7:8080", "http://10.0.0.7:8080/", True),
        ("[::1]:8080", "http://[::1]:8080/", True),
        ("[2001:db8::1]", "http://[2001:DB8:0::1]/", True),
        ("my_host", "http://my_host/", True),
    ],
)
def test_what_the_list_allows(entry: str, url: str, listed: bool) -> None:
    assert AllowList([entry]).check(URL(url)) is listed


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("example.com", "http://example.com:8080/"),
        ("example.com", "http://example.com.evil.example/"),
        ("example.com", "http://evilexample.com/"),
        ("example.com", "http://www.example.com/"),
        ("example.com:8080", "http://example.com/"),
        ("*.example.com", "http://example.com/"),
        ("*.example.com", "http://evilexample.com/"),
        ("*.example.com", "http://a.example.com.evil.example/"),
        ("*.example.com", "http://a.example.com:22/"),
        ("*", "http://example.com:6379/"),
        ("*", "http://10.0.0.1/"),
        ("*", "http://[::1]/"),
        ("example.com", "http://evil.example#@example.com/"),
        ("example.com", "http://evil.example\\@example.com/"),
        ("example.com", "http://example.com@evil.example/"),
        ("example.com", "gopher://example.com/"),
        ("example.com", "//example.com/"),
    ],
)
def test_what_the_list_refuses(entry: str, url: str) -> None:
    with pytest.raises((ToolError, ValueError)):
        AllowList([entry]).check(URL(url))


PRIVATE = """127.0.0.1 127.255.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1
255.255.255.255 240.0.0.1 198.18.0.1 192.0.2.1 ::1 :: fe80::1 fe80::1%1 fc00::1 ff02::1 ::ffff:127.0.0.1
::ffff:169.254.169.254 64:ff9b::7f00:1 64:ff9b::a00:1 2002:7f00:1:: ::7f00:1 2001:db8::1 fd00:ec2::254
64:ff9b:1::a00:1 ::ffff:0:10.0.0.1 fec0::1 3fff::1 5f00::1 192.0.0.8 192.88.99.1"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_private_addresses_are_told_however_they_are_wrapped(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.215.14", "2606:2800:220::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_are_told(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@settings(max_examples=200)
@given(st.from_regex(HOST, fullmatch=True))
def test_every_entry_that_the_settings_accept_can_be_read(entry: str) -> None:
    try:
        entries = parse_settings({"GATEHOUSE_FETCH_ALLOW": entry}).fetch_allow
    except SettingsError:
        return
    AllowList(entries)
