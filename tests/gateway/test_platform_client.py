"""One exchange with a server that answers anything or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import parsedate_to_datetime

import pytest

from gateway.platform_client import MOST_ANSWER_BYTES, NoAnswer, NotSent, PlatformClient
from gateway.platforms.port import ApiRequest, ApiResponse

Play = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Stage:
    """A server that plays one scene for every request; keeps the first lines."""

    def __init__(self, play: Play) -> None:
        self._play = play
        self.lines: list[bytes] = []
        self.url = ""
        self._scenes: set[asyncio.Task[None]] = set()

    def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._scenes.add(asyncio.create_task(self._scene(reader, writer)))

    async def _scene(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.lines.append(await reader.readline())
            await reader.readuntil(b"\r\n\r\n")
            await self._play(writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def end(self) -> None:
        """Wait until every connection is closed; the client has left by now."""
        await asyncio.wait_for(asyncio.gather(*self._scenes), 10)


@contextlib.asynccontextmanager
async def staged(play: Play) -> AsyncIterator[Stage]:
    stage = Stage(play)
    server = await asyncio.start_server(stage.take, "127.0.0.1", 0)
    stage.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield stage
        await stage.end()


async def sent(url: str) -> ApiResponse | NotSent | NoAnswer:
    client = PlatformClient()
    try:
        return await client.send(ApiRequest(url, {"content-type": "application/json"}, b"{}"))
    finally:
        await client.close()


def says(raw: bytes) -> Play:
    async def play(writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()

    return play


async def test_an_answer_is_read_with_lower_case_header_names() -> None:
    """Whatever case the server writes; with our own clock's date where it sends none."""
    async with staged(says(b"HTTP/1.1 201 Made\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nok")) as stage:
        answer = await sent(stage.url)
    assert isinstance(answer, ApiResponse)
    assert (answer.status, answer.body) == (201, b"ok")
    assert answer.headers == {"retry-after": "7", "content-length": "2", "date": answer.headers["date"]}
    assert abs(parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()) < 60


async def test_the_url_goes_out_as_it_is() -> None:
    """A bot's token has a colon, a receiver's url may be quoted in its own way."""
    async with staged(says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as stage:
        await sent(f"{stage.url}/bot12:ab-C/send%2fMessage?a=%41&b=c+d")
        assert stage.lines == [b"POST /bot12:ab-C/send%2fMessage?a=%41&b=c+d HTTP/1.1\r\n"]


async def test_a_redirect_is_an_answer() -> None:
    """It is not followed."""
    async with staged(says(b"HTTP/1.1 307 X\r\nLocation: /else\r\nContent-Length: 0\r\n\r\n")) as stage:
        answer = await sent(stage.url)
        assert isinstance(answer, ApiResponse)
        assert (answer.status, len(stage.lines)) == (307, 1)


async def test_an_endless_answer_is_read_in_part() -> None:
    """A hostile receiver fills no memory."""

    async def play(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x" * 65_536)
            await writer.drain()

    async with staged(play) as stage:
        answer = await sent(stage.url)
        assert isinstance(answer, ApiResponse)
        assert len(answer.body) == MOST_ANSWER_BYTES


async def test_an_answer_that_does_not_end_in_time_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one that dribbles either."""
    monkeypatch.setattr("gateway.platform_client.EXCHANGE_TIMEOUT_S", 0.3)

    async def play(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with staged(play) as stage:
        assert await sent(stage.url) == NoAnswer("no answer in 0.3 s", timed_out=True)


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", b"\x00\xff nonsense\r\n\r\n"])
async def test_a_broken_answer_may_have_been_a_success(raw: bytes) -> None:
    """Nobody can know."""
    async with staged(says(raw)) as stage:
        assert isinstance(await sent(stage.url), NoAnswer)


async def test_a_refused_connection_sent_nothing() -> None:
    """It is as if it had not been tried."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        assert isinstance(await sent(f"http://127.0.0.1:{unheard.getsockname()[1]}"), NotSent)


async def test_what_a_proxy_reaches_is_sent_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged(says(b"HTTP/1.1 204 \r\nContent-Length: 0\r\n\r\n")) as stage:
        monkeypatch.setenv("http_proxy", stage.url)
        for url in ("http://receiver.invalid/hook", f"{stage.url}/direct"):
            assert isinstance(await sent(url), ApiResponse)
        assert stage.lines == [b"POST http://receiver.invalid/hook HTTP/1.1\r\n", b"POST /direct HTTP/1.1\r\n"]
