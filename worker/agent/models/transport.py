"""One streamed call to a provider: opened by its SDK, read as raw events here, closed whatever happens.

The SDK does what it is good at: auth, headers, connections. It makes the first request, and those behind it are that
one with another body, because making one anew is a tenth of what a call costs. Its chunk objects are left out, because
building them is most of what a streamed call costs (loadtests/bench/model_calls.py measures it); its retries are
off, because the chain's own know how much time is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol

import aiohttp
import httpx2

from shared.errors import ModelError, ModelUnavailable
from worker.agent.models.failures import (
    BrokenOff,
    Endpoint,
    MalformedAnswer,
    Misconfigured,
    ProviderAway,
    Stalled,
    from_status,
    tell,
)
from worker.agent.models.server import ModelServer
from worker.agent.models.sse import EventDecoder

CONNECT_TIMEOUT_S = 10.0

#: how long a server may take to end its stream after the answer is whole; past it the connection is closed
TAIL_S = 1.0

MAX_ANSWER_BYTES = 64 << 20

#: headers that no other request has
OF_ONE_REQUEST = ("content-length", "cookie")

_BROKEN = (httpx2.HTTPError, httpx2.StreamError, aiohttp.ClientError, OSError)
_BLANKS = b" \t\r\n"


class HttpResponse(Protocol):
    """What collects the events of one call."""

    @property
    def finished(self) -> bool:
        """True once the answer is whole, though the stream may not be at its end."""

    def take(self, event: bytes) -> bool:
        """Read one event, and tell whether it held some of the answer.

        Raises ValueError for one that cannot be read, and ModelError for one that tells of an error.
        """

    def take_whole(self, body: bytes) -> None:
        """Read the answer of a server that does not stream. Raises what ``take`` raises."""


class SdkClient(NamedTuple):
    """A client of an SDK."""

    #: an AsyncAnthropic or an AsyncOpenAI
    sdk: Any
    #: the HTTP client that it was made with
    http: httpx2.AsyncClient


class FirstRequest(NamedTuple):
    """What the SDK made of the first request, and every other one is to have."""

    url: httpx2.URL
    headers: httpx2.Headers


class Transport:
    """Where the calls to one model go.

    Its connections are kept and used again. A server may close one at any moment, also at the one in which a call is
    sent on it; such a call goes out once more at once, by a client of its own that never uses a connection twice.
    """

    def __init__(
        self,
        make_client: Callable[[httpx2.Limits], SdkClient],
        sdk: Any,
        path: str,
        where: Endpoint,
        server: ModelServer,
    ) -> None:
        self._make_client = make_client
        self._client = make_client(_unbounded(keepalive_s=15.0))
        self._fresh_client: SdkClient | None = None
        self._first: FirstRequest | None = None
        self._keeps_connections = False
        self._sdk = sdk
        self._path = path
        self._server = server
        self.where = where
        #: the program that answered last, as it names itself
        self.served_by = ""

    async def run(
        self,
        body: bytes,
        answer: HttpResponse,
        *,
        timeout: float,
        stall_s: float,
        began: Callable[[], None] = lambda: None,
    ) -> None:
        """Post the body, and feed the answer's events to ``answer`` until it is finished.

        ``timeout`` seconds bound the whole call, ``stall_s`` every silence in it; ``began`` is called with the first
        byte of an answer. However it ends, the connection is back in the pool or closed. Raises TimeoutError,
        ModelUnavailable (see ``failures``), ModelRejected, ContextTooLong.
        """
        call = _Exchange(self, answer, stall_s, self._server, began)
        try:
            async with asyncio.timeout(timeout):
                await call.run(body)
        except TimeoutError:
            raise TimeoutError(f"{self.where.name} gave no whole answer in {timeout:g} s") from None
        self._keeps_connections = True
        if not answer.finished:
            raise BrokenOff(f"{self.where.name} broke off its answer: the stream ended before it said that it is whole")

    async def close(self) -> None:
        """Close every connection."""
        await self._client.sdk.close()
        if self._fresh_client is not None:
            await self._fresh_client.sdk.close()

    async def open(self, body: bytes, stall_s: float) -> httpx2.Response:
        """Send a request and return its answer as soon as that begins. Raises what ``run`` does."""
        try:
            return await self._post(self._client, body, stall_s)
        except self._sdk.APIStatusError as refused:
            raise self._refusal(refused.response) from None
        except (self._sdk.APIConnectionError, *_BROKEN) as broken:
            if not self._keeps_connections or not _was_closed(broken):
                raise self._failure(broken, stall_s) from None
        if self._fresh_client is None:
            self._fresh_client = self._make_client(_unbounded(keepalive_s=0.0))
        try:
            return await self._post(self._fresh_client, body, stall_s)
        except self._sdk.APIStatusError as refused:
            raise self._refusal(refused.response) from None
        except (self._sdk.APIConnectionError, *_BROKEN) as broken:
            raise self._failure(broken, stall_s) from None

    async def _post(self, client: SdkClient, body: bytes, stall_s: float) -> httpx2.Response:
        # silence is watched by the exchange, which knows what else is heard of the server
        limits = httpx2.Timeout(None, connect=min(stall_s, CONNECT_TIMEOUT_S))
        response = await (
            self._post_first(client, body, limits)
            if self._first is None
            else self._post_like_first(client, self._first, body, limits)
        )
        self.served_by = response.headers.get("server", "")
        return response

    async def _post_first(self, client: SdkClient, body: bytes, limits: httpx2.Timeout) -> httpx2.Response:
        response: httpx2.Response = await client.sdk.post(
            self._path,
            content=body,
            cast_to=httpx2.Response,
            stream=True,
            stream_cls=self._sdk.AsyncStream,
            options={"timeout": limits},
        )
        if not response.history:
            headers = response.request.headers.copy()
            for name in OF_ONE_REQUEST:
                headers.pop(name, None)
            self._first = FirstRequest(response.request.url, headers)
        return response

    async def _post_like_first(
        self, client: SdkClient, first: FirstRequest, body: bytes, limits: httpx2.Timeout
    ) -> httpx2.Response:
        request = client.http.build_request("POST", first.url, content=body, headers=first.headers, timeout=limits)
        response = await client.http.send(request, stream=True)
        if not response.is_success:
            try:
                await response.aread()
            finally:
                await response.aclose()
            raise self._refusal(response)
        return response

    async def get(self, path: str, timeout_s: float) -> bytes:
        """Return what a path above the API's own has; empty where that cannot be had."""
        root = str(self._client.sdk.base_url).rstrip("/").removesuffix("/v1")
        try:
            response: httpx2.Response = await self._client.sdk.get(
                f"{root}{path}", cast_to=httpx2.Response, options={"timeout": timeout_s, "max_retries": 0}
            )
        except (self._sdk.APIError, *_BROKEN):
            return b""
        return response.content

    def _refusal(self, response: httpx2.Response) -> ModelError:
        self._keeps_connections = True
        return from_status(self.where, response.status_code, response.text, response.headers)

    def _failure(self, broken: BaseException, stall_s: float) -> ModelUnavailable:
        """Return what it means that no answer began."""
        bottom = _bottom(broken)
        if isinstance(bottom, TimeoutError):
            return ProviderAway(f"{self.where.name} took no connection in {min(stall_s, CONNECT_TIMEOUT_S):g} s")
        if isinstance(bottom, aiohttp.ServerDisconnectedError | ConnectionResetError | BrokenPipeError):
            return ProviderAway(f"{self.where.name} closed the connection before it answered")
        return ProviderAway(f"{self.where.name} cannot be reached: {str(bottom) or type(bottom).__name__}")


class _Exchange:
    """One request and its answer, watched for silence.

    Before the first byte of an answer a call may wait in the server's queue: there it counts as heard of for as long
    as other calls of that server get bytes.
    """

    def __init__(
        self,
        transport: Transport,
        answer: HttpResponse,
        stall_s: float,
        server: ModelServer,
        began: Callable[[], None],
    ) -> None:
        self._on_began = began
        self._transport = transport
        self._where = transport.where
        self._answer = answer
        self._stall_s = stall_s
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._began = False
        self._heard_at = server.now()

    async def run(self, body: bytes) -> None:
        """Raises what Transport.run does."""
        try:
            async with asyncio.timeout(None) as silence:
                timer = self._watch(silence)
                try:
                    response = await self._transport.open(body, self._stall_s)
                    try:
                        await self._read(response)
                    finally:
                        await response.aclose()
                finally:
                    timer.cancel()
        except TimeoutError:
            if not silence.expired():
                raise
            if not self._answer.finished:
                words = f"{self._where.name} sent nothing for {self._stall_s:g} s"
                raise Stalled(words, began=self._began) from None

    def _watch(self, silence: asyncio.Timeout) -> _Timer:
        def look() -> None:
            heard_at = self._heard_at if self._began else max(self._heard_at, self._server.heard_at)
            left_s = heard_at + self._stall_s - self._server.now()
            if left_s <= 0:
                silence.reschedule(self._loop.time())
            else:
                timer.start(left_s + 0.001)

        timer = _Timer(self._loop, look)
        timer.start(self._stall_s)
        return timer

    async def _read(self, response: httpx2.Response) -> None:
        try:
            async with asyncio.timeout(None) as tail, aclosing(response.aiter_bytes()) as chunks:
                await self._feed(response, chunks, tail)
        except TimeoutError:
            if not tail.expired():
                raise
        except _BROKEN as broken:
            if not self._answer.finished:
                raise BrokenOff(f"{self._where.name} broke off its answer: {_lost(broken)}") from None

    async def _feed(self, response: httpx2.Response, chunks: Any, tail: asyncio.Timeout) -> None:
        if response.headers.get("content-type", "").startswith("text/html"):
            raise Misconfigured(f"{self._where.name} answered with a web page: look at {self._where.url_setting}")
        decoder = EventDecoder()
        document: list[bytes] | None = None
        size_bytes = 0
        async for chunk in chunks:
            size_bytes += len(chunk)
            self._hear()
            if size_bytes > MAX_ANSWER_BYTES:
                raise MalformedAnswer(f"{self._where.name} sent more than {MAX_ANSWER_BYTES >> 20} MiB")
            if not self._began:
                if not chunk.strip(_BLANKS):
                    continue
                self._began = True
                self._on_began()
                document = [] if chunk.lstrip(_BLANKS)[:1] in b"{[" else None
            if document is not None:
                document.append(chunk)
                continue
            held_some = [self._take(event) for event in decoder.feed(chunk)]
            if self._answer.finished and (tail.when() is None or any(held_some)):
                tail.reschedule(self._loop.time() + TAIL_S)
        if document is not None:
            self._take_whole(b"".join(document))
        for event in decoder.end():
            self._take_last(event)

    def _hear(self) -> None:
        self._heard_at = self._server.hear()

    def _take(self, event: bytes) -> bool:
        """Read an event; what comes behind a whole answer cannot undo it."""
        finished = self._answer.finished
        try:
            return self._answer.take(event)
        except ValueError as malformed:
            if finished:
                return False
            raise self._malformed(event, malformed) from None
        except ModelError:
            if finished:
                return False
            raise

    def _take_whole(self, body: bytes) -> None:
        try:
            self._answer.take_whole(body)
        except ValueError as malformed:
            raise self._malformed(body, malformed) from None

    def _take_last(self, event: bytes) -> None:
        """Read what the stream ended with in the middle of an event: it may be whole all the same."""
        try:
            self._take(event)
        except MalformedAnswer:
            return

    def _malformed(self, event: bytes, problem: Exception) -> ModelError:
        words = tell(self._where, event[:400].decode("utf-8", "replace"))
        return MalformedAnswer(f"{self._where.name} sent a malformed event ({problem}): {words}")


class _Timer:
    """A callback that comes after a while, and may be put off."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        self._loop = loop
        self._call = call
        self._handle: asyncio.TimerHandle | None = None

    def start(self, delay_s: float) -> None:
        self._handle = self._loop.call_later(delay_s, self._call)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


def _unbounded(keepalive_s: float) -> httpx2.Limits:
    """Return a client's limits: its calls are bounded by the turns that a worker holds, and none waits for another."""
    return httpx2.Limits(max_connections=0, keepalive_expiry=keepalive_s)  # 0 is aiohttp's word for no bound


def _bottom(broken: BaseException) -> BaseException:
    """Return the error at the bottom: the transport in the OpenAI SDK calls every lost connection a timeout."""
    while broken.__cause__ is not None:
        broken = broken.__cause__
    return broken


def _was_closed(broken: BaseException) -> bool:
    """Tell whether a kept connection was closed before any byte of an answer came on it."""
    bottom = _bottom(broken)
    if isinstance(bottom, aiohttp.ClientConnectorError):
        return False
    return isinstance(bottom, aiohttp.ServerDisconnectedError | ConnectionResetError | BrokenPipeError)


def _lost(broken: BaseException) -> str:
    """Say what became of a stream; the words of the transport ("400, message: …") would mislead."""
    error: BaseException | None = broken
    while error is not None:
        if isinstance(error, aiohttp.ClientPayloadError | ConnectionError):
            return "the connection was lost"
        error = error.__cause__
    bottom = _bottom(broken)
    return str(bottom) or type(bottom).__name__
