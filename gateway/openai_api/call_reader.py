"""Reads what calls ask for: checks them, and fetches the files that their messages link."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeVar
from urllib.parse import unquote

from gateway.openai_api.chat_body import ChatBody
from gateway.openai_api.content import LIMITS, FileBatch
from gateway.openai_api.json_body import decode
from gateway.openai_api.requests import ChatRequest, links_shown, read_chat
from gateway.platforms.port import ApiRequest, ApiResponse
from gateway.public_files import PublicFiles
from shared.attachments import Upload

T = TypeVar("T")

#: links of one call that are fetched, those said last
MOST_LINKS = LIMITS.files
#: and the bytes of all of them
MOST_BYTES = 20 * 1024 * 1024
#: files that one caller has fetched at once
AT_ONCE = 8
#: a body of this size is read beside the loop
LARGE_BYTES = 64 * 1024
ACCEPT = {"accept": "image/png, image/jpeg, image/gif, image/webp, */*;q=0.5"}


class CallReader:
    """Reads calls for the models that clients may name; ``provider`` is that of the first one."""

    def __init__(self, models: tuple[str, ...], provider: str, files: PublicFiles) -> None:
        self._models = models
        self._provider = provider
        self._files = files
        self._places: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))

    async def decode(self, body: bytes, kind: type[T]) -> T:
        """Read a body; a large one is read beside the loop. Raises Refused."""
        return await asyncio.to_thread(decode, body, kind) if len(body) >= LARGE_BYTES else decode(body, kind)

    async def read(
        self, chat: ChatBody, body: bytes, caller: str, *, in_session: bool, all_new: bool = False
    ) -> ChatRequest:
        """Return what a call with this body asks for; a large one is read beside the loop. Raises Refused."""
        is_large = len(body) >= LARGE_BYTES
        find = partial(links_shown, chat, self._models, in_session=in_session, all_new=all_new)
        read = partial(read_chat, chat, self._models, in_session=in_session, all_new=all_new, provider=self._provider)
        urls = await asyncio.to_thread(find) if is_large else find()
        if urls:
            files = FileBatch(await self._fetch(urls[:MOST_LINKS], caller))
            return await asyncio.to_thread(read, files=files)
        return await asyncio.to_thread(read) if is_large else read()

    async def _fetch(self, urls: Sequence[str], caller: str) -> Mapping[str, Upload]:
        """Return each file, or why it could not be fetched."""
        uploads = await asyncio.gather(*(self._fetch_one(url, caller) for url in urls))
        by_url: dict[str, Upload] = {}
        total_bytes = 0
        for url, upload in zip(urls, uploads, strict=True):
            total_bytes += len(upload.data)
            is_over = total_bytes > MOST_BYTES
            by_url[url] = Upload("", problem=f"a call's files have at most {MOST_BYTES} bytes") if is_over else upload
        return by_url

    async def _fetch_one(self, url: str, caller: str) -> Upload:
        name = unquote(url.partition("?")[0].rpartition("/")[2])
        async with self._places[caller]:
            answer = await self._files.get(ApiRequest(url, ACCEPT, b"", "GET"), LIMITS.file_bytes + 1)
        if not isinstance(answer, ApiResponse):
            return Upload(name, problem=answer)
        if answer.status != 200:
            return Upload(name, problem=f"its server answered {answer.status}")
        if len(answer.body) > LIMITS.file_bytes:
            return Upload(name, problem=f"it has more than the {LIMITS.file_bytes} bytes that are taken")
        return Upload(name, answer.headers.get("content-type", ""), answer.body)
