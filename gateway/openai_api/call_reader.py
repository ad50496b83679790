"""Reads what calls ask for: checks them, and fetches the files that their messages link.

Large ones are read beside the loop, one at a time: each step of a reader takes the interpreter's lock from the loop.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
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
        self._reading = asyncio.Semaphore(1)
        self._places: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))

    async def decode(self, body: bytes, kind: type[T]) -> T:
        """Read a body; a large one is read beside the loop. Raises Refused."""
        return await self._run(partial(decode, body, kind), body)

    async def read(
        self,
        chat: Callable[[], ChatBody],
        body: bytes,
        caller: str,
        *,
        in_session: bool,
        all_new: bool = False,
    ) -> ChatRequest:
        """Return what a call with this body asks for; a large one is read beside the loop. Raises Refused."""
        call = await self._run(chat, body)
        find = partial(links_shown, call, self._models, in_session=in_session, all_new=all_new)
        read = partial(read_chat, call, self._models, in_session=in_session, all_new=all_new, provider=self._provider)
        urls = await self._run(find, body)
        if urls:
            files = FileBatch(await self._fetch(urls[:MOST_LINKS], caller))
            return await asyncio.to_thread(read, files=files)
        return await self._run(read, body)

    async def _run(self, read: Callable[[], T], body: bytes) -> T:
        if len(body) < LARGE_BYTES:
            return read()
        async with self._reading:
            return await asyncio.to_thread(read)

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
