"""Fetches the files that people send, by the door that each platform has for them.

At most two requests lead to a file: one that says where it lies, and the one for its bytes. A host that is not named by
the platform's own settings has to be one of the public internet.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Mapping

import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from gateway.platform_calls import PlatformCalls
from gateway.platform_client import PlatformClient
from gateway.platforms.port import Adapter, ApiRequest, ApiResponse, File
from shared.attachments import Attachment, AttachmentLimits, Upload
from shared.errors import RequestRejected
from shared.public_address import is_public

#: files that are fetched at once, so that they take a bounded part of the memory
AT_ONCE = 8


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


class PlatformFiles:
    """Owns the connections to where files lie."""

    def __init__(self, platforms: Mapping[str, Adapter], calls: PlatformCalls, limits: AttachmentLimits) -> None:
        self._platforms = platforms
        self._calls = calls
        self._limits = limits
        self._clients: dict[bool, PlatformClient] = {}
        self._places = asyncio.Semaphore(AT_ONCE)

    async def fetch(self, platform: str, file: Attachment) -> Upload:
        """Return a file, or why it cannot be had; never raises."""
        adapter = self._platforms.get(platform)
        if adapter is None:
            return self._without(file, f"the platform {platform} is not on any more")
        if file.size_bytes > self._limits.file_bytes:
            return self._without(file, f"it has {file.size_bytes} bytes, and {self._limits.file_bytes} are taken")
        try:
            wanted = msgspec.json.decode(file.source, type=File)
            async with self._places:
                return await self._fetch(adapter, wanted, file)
        except (msgspec.DecodeError, RequestRejected, ValueError):
            return self._without(file, f"{platform} has no such file")

    async def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    async def _fetch(self, adapter: Adapter, wanted: File, file: Attachment) -> Upload:
        request = adapter.fetch(wanted)
        answer = await self._ask(adapter, request) if request else "it cannot be fetched"
        if isinstance(answer, ApiResponse) and (following := adapter.fetch(wanted, answer)):
            answer = await self._ask(adapter, following)
        if not isinstance(answer, ApiResponse):
            return self._without(file, answer)
        if answer.status != 200:
            return self._without(file, f"{adapter.name} answered {answer.status} for it")
        media_type = file.media_type or answer.headers.get("content-type", "")
        if len(answer.body) > self._limits.file_bytes:
            return self._without(file, f"it has more than the {self._limits.file_bytes} bytes that are taken")
        return Upload(file.name, media_type, answer.body)

    async def _ask(self, adapter: Adapter, request: ApiRequest) -> ApiResponse | str:
        """Return an answer, or why there is none."""
        url = URL(request.url, encoded=True)
        is_own = any(url.origin() == URL(own).origin() for own in adapter.own_urls)
        if not is_own and not self._may_be_public(url):
            return "it lies in a private network"
        authorized = await self._calls.authorized(adapter, request)
        if authorized is None:
            return f"{adapter.name} gave no access token"
        if is_own not in self._clients:
            self._clients[is_own] = PlatformClient(None if is_own else PublicNames())
        answer = await self._clients[is_own].send(authorized, self._limits.file_bytes + 1)
        return answer if isinstance(answer, ApiResponse) else f"{adapter.name} did not give it: {answer.reason}"

    @staticmethod
    def _may_be_public(url: URL) -> bool:
        """Tell whether a url's host is a public address, or a name, which is looked up later."""
        try:
            return is_public(ipaddress.ip_address(url.raw_host or ""))
        except ValueError:
            return bool(url.raw_host)

    @staticmethod
    def _without(file: Attachment, problem: str) -> Upload:
        return Upload(file.name, file.media_type, problem=problem)
