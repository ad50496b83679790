"""Fetches files by their urls from the public internet: the one way to a host that no setting of a platform names.

Every hop of a redirect is checked, and the connection goes to the address that was checked. Hosts of private networks
are asked where GATEHOUSE_FETCH_ALLOW lists them by their own name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from gateway.platform_client import PlatformClient
from gateway.platforms.port import ApiRequest, ApiResponse
from shared.allow_list import AllowList
from shared.errors import ToolError
from shared.public_address import is_public

#: seconds for a file, redirects included
FETCH_S = 20.0
MOST_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class PublicNames(AbstractResolver):
    """Looks names up, and refuses those that lead into a private network."""

    def __init__(self) -> None:
        self._names = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name. Raises OSError."""
        found = await self._names.resolve(host, port, family)
        if not all(is_public(ipaddress.ip_address(one["host"].partition("%")[0])) for one in found):
            raise OSError(f"{host} leads into a private network")
        return found

    async def close(self) -> None:
        """Let it go."""
        await self._names.close()


class PublicFiles:
    """Owns the connections; ``listed`` are the hosts that may be private, as AllowList takes them."""

    def __init__(self, listed: Iterable[str] = ()) -> None:
        self._allow = AllowList(("*", *listed))
        self._clients: dict[bool, PlatformClient] = {}

    async def get(self, request: ApiRequest, most_bytes: int) -> ApiResponse | str:
        """Return the answer to a request and to what it redirects to, or why there is none; never raises.

        One that carries a token is not redirected: nobody else is shown the token, and without it it would be refused.
        """
        try:
            async with asyncio.timeout(FETCH_S):
                return await self._follow(request, most_bytes)
        except TimeoutError:
            return f"it did not come within {FETCH_S:g} s"
        except ToolError as error:
            return str(error)
        except ValueError:
            return "its address is no url"

    async def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    async def _follow(self, request: ApiRequest, most_bytes: int) -> ApiResponse | str:
        url, headers = URL(request.url, encoded=True), request.headers
        for _ in range(MOST_REDIRECTS + 1):
            answer = await self._client(url).send(ApiRequest(str(url), headers, b"", "GET"), most_bytes)
            if not isinstance(answer, ApiResponse):
                return answer.reason
            location = answer.headers.get("location", "")
            if answer.status not in REDIRECTS or not location or "authorization" in headers:
                return answer
            url, headers = url.join(URL(location, encoded=True)), {}
        return f"it redirects more than {MOST_REDIRECTS} times"

    def _client(self, url: URL) -> PlatformClient:
        """Return the client for a url. Raises ToolError for one that may not be asked."""
        listed = self._allow.check(url)
        if listed not in self._clients:
            self._clients[listed] = PlatformClient(None if listed else PublicNames())
        return self._clients[listed]
