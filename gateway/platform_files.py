"""Fetches the files that people send, by the door that each platform has for them.

At most two requests lead to a file: one that says where it lies, and the one for its bytes. A host that is not named by
the platform's own settings is asked as ``gateway/public_files.py`` describes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
from yarl import URL

from gateway.platform_calls import PlatformCalls
from gateway.platform_client import PlatformClient
from gateway.platforms.port import Adapter, ApiRequest, ApiResponse, File
from gateway.public_files import PublicFiles
from shared.attachments import Attachment, AttachmentLimits, Upload
from shared.errors import RequestRejected

#: files that are fetched at once, so that they take a bounded part of the memory
AT_ONCE = 8


class PlatformFiles:
    """Owns the connections to the platforms' own hosts."""

    def __init__(
        self, platforms: Mapping[str, Adapter], calls: PlatformCalls, public: PublicFiles, limits: AttachmentLimits
    ) -> None:
        self._platforms = platforms
        self._calls = calls
        self._public = public
        self._limits = limits
        self._client: PlatformClient | None = None
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
        if self._client:
            await self._client.close()
            self._client = None

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
        authorized = await self._calls.authorized(adapter, request)
        if authorized is None:
            return f"{adapter.name} gave no access token"
        if not any(URL(request.url, encoded=True).origin() == URL(own).origin() for own in adapter.own_urls):
            return await self._public.get(authorized, self._limits.file_bytes + 1)
        if self._client is None:
            self._client = PlatformClient()
        answer = await self._client.send(authorized, self._limits.file_bytes + 1)
        return answer if isinstance(answer, ApiResponse) else f"{adapter.name} did not give it: {answer.reason}"

    @staticmethod
    def _without(file: Attachment, problem: str) -> Upload:
        return Upload(file.name, file.media_type, problem=problem)
