"""Fetches one page: every hop is checked, and the connection goes to the address that was checked."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from shared.allow_list import AllowList
from shared.errors import ToolError
from shared.public_address import is_public

#: seconds for all of it, redirects included
TIMEOUT_S = 20.0
BODY_LIMIT_BYTES = 1024 * 1024
REDIRECT_LIMIT = 5
#: names looked up at once: a loop has few threads for it, and the models' clients need them too
LOOKUPS_AT_ONCE = 2
ACCEPT = "text/html, application/xhtml+xml, text/plain;q=0.9, text/*;q=0.8, application/json;q=0.8, */*;q=0.1"
HEADERS = {"User-Agent": "Gatehouse", "Accept": ACCEPT}
TEXT_TYPES = re.compile(r"text/.+|application/(.+\+)?(json|xml|yaml|javascript)|application/x-ndjson")
#: encodings of text; Python knows others that are none
CHARSETS = re.compile(
    r"utf-?8|utf-?16(-?[lb]e)?|us-ascii|latin-?1|iso-8859-\d{1,2}|windows-\d{3,4}|koi8-[ru]|shift_jis|euc-(jp|kr)|gbk"
    r"|gb2312|gb18030|big5|iso-2022-jp|macintosh",
    re.IGNORECASE,
)
META_CHARSET = re.compile(rb"<meta[^>]{1,200}?charset=[\"' ]?([a-zA-Z0-9_-]{1,20})", re.IGNORECASE)

#: looks a name up: host, port -> addresses; raises OSError
Lookup = Callable[[str, int], Awaitable[list[str]]]


class Page(msgspec.Struct, frozen=True):
    """What was fetched: the last url, its media type, the text as it came; ``cut`` says that there is more of it."""

    url: str
    media_type: str
    text: str
    cut: bool


async def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a name as the system knows them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class Fetcher:
    """Fetches pages of the hosts on the list; a call keeps no connection, cookie or name for the next one."""

    def __init__(self, allow: AllowList, lookup: Lookup = look_up, timeout_s: float = TIMEOUT_S) -> None:
        self._allow = allow
        self._lookup = lookup
        self._lookups = asyncio.Semaphore(LOOKUPS_AT_ONCE)
        self._timeout_s = timeout_s

    async def get(self, url: str) -> Page:
        """Fetch a page. Raises ToolError, which says why not."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(_parsed(url))
        except TimeoutError:
            raise ToolError(f"the page did not come within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ToolError(f"the page cannot be fetched: {_in_words(error)}") from None

    async def _follow(self, url: URL) -> Page:
        for _ in range(REDIRECT_LIMIT + 1):
            found = await self._hop(url)
            if isinstance(found, Page):
                return found
            url = found
        raise ToolError(f"it redirects more than {REDIRECT_LIMIT} times, last to {url}")

    async def _hop(self, url: URL) -> Page | URL:
        """Make one request; return the page, or where it leads."""
        listed = self._allow.check(url)
        connector = aiohttp.TCPConnector(
            resolver=_CheckedNames(self._look_up, may_be_private=listed), use_dns_cache=False, force_close=True
        )
        async with (
            aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers=HEADERS) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status in {301, 302, 303, 307, 308} and (location := response.headers.get("Location")):
                return url.join(_parsed(location))
            if response.status != 200:
                raise ToolError(f"{url} answered {response.status} {response.reason or ''}".rstrip())
            if not TEXT_TYPES.fullmatch(response.content_type):
                raise ToolError(f"{url} is {response.content_type}, which is no text")
            body, cut = await _read(response.content)
            return Page(str(url), response.content_type, _decoded(body, response.charset), cut)

    async def _look_up(self, host: str, port: int) -> list[str]:
        async with self._lookups:
            return await self._lookup(host, port)


class _CheckedNames(AbstractResolver):
    """Looks names up for the connector, which connects to what is returned here: there is no second look-up."""

    def __init__(self, lookup: Lookup, *, may_be_private: bool) -> None:
        self._lookup = lookup
        self._may_be_private = may_be_private

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - the door's
    ) -> list[ResolveResult]:
        addresses = [ipaddress.ip_address(address) for address in await self._lookup(host, port)]
        if not self._may_be_private and not all(map(is_public, addresses)):
            raise ToolError(f"{host} leads to an address of a private network and is not listed itself")
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        return None


def _parsed(url: str) -> URL:
    try:
        return URL(url.strip())
    except ValueError as error:
        raise ToolError(f"that is no url: {error}") from None


async def _read(content: aiohttp.StreamReader) -> tuple[bytes, bool]:
    """Return the body up to its limit, and whether there is more."""
    body = bytearray()
    async for piece in content.iter_any():
        body += piece
        if len(body) > BODY_LIMIT_BYTES:
            return bytes(body[:BODY_LIMIT_BYTES]), True
    return bytes(body), False


def _decoded(body: bytes, charset: str | None) -> str:
    """Decode a page as its header, its byte order mark or its own head says, else as UTF-8."""
    if body.startswith(b"\xef\xbb\xbf"):
        charset = "utf-8-sig"
    elif body.startswith((b"\xff\xfe", b"\xfe\xff")):
        charset = "utf-16"
    else:
        told = META_CHARSET.search(body[:2048])
        charset = charset or (told.group(1).decode() if told else "utf-8")
        if not CHARSETS.fullmatch(charset):
            charset = "utf-8"
    try:
        return body.decode(charset, "replace")
    except LookupError:
        return body.decode("utf-8", "replace")


def _in_words(error: Exception) -> str:
    return str(error) or type(error).__name__
