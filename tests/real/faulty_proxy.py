"""A proxy between a real server and the gateway that fails as told: it refuses, or keeps an answer to itself."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Self

import httpx2

#: headers of one connection, and what the proxy says anew
OWN = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "keep-alive", "content-encoding", "accept-encoding"}
)


class FaultyProxy:
    """Passes requests on to ``target``; its faults can be set from any thread."""

    def __init__(self) -> None:
        self.target = ""
        self.refuse = False  #: answer 503 and pass nothing on
        self.swallow_answers = False  #: pass on, and close without an answer
        self.only = ""  #: what the path of a swallowed answer has to contain
        self.swallowed = 0  #: answers of the target that were kept
        self.adds: dict[str, str] = {}  #: headers that every request gets
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> None:
        self._client = httpx2.AsyncClient(timeout=70)
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _close(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, httpx2.TransportError):
            await self._exchange(reader, writer)
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one request on, and its answer back; each connection carries one."""
        request, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        method, path, _ = request.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if self.refuse:
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return await writer.drain()
        kept = {name: value for name, value in headers.items() if name not in OWN} | self.adds
        answer = await self._client.request(method, self.target + path, headers=kept, content=body)
        if self.swallow_answers and self.only in path:
            self.swallowed += 1
            return None
        head = [f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}", f"content-length: {len(answer.content)}"]
        head += [f"{name}: {value}" for name, value in answer.headers.items() if name.lower() not in OWN]
        writer.write(("\r\n".join([*head, "connection: close"]) + "\r\n\r\n").encode("latin-1") + answer.content)
        return await writer.drain()
