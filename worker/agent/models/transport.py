"""One streamed call to a provider: opened by its SDK, read as raw events here, closed whatever happens.

The SDK does what it is good at: auth, headers, connections, status errors. Its chunk objects are left out, because
building them is most of what a streamed call costs (loadtests/bench/model_calls.py measures it); its retries are
off, because the chain's own know how much time is left.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, Protocol

import aiohttp
import httpx2
import msgspec

from shared.errors import ModelRejected, ModelUnavailable
from shared.usage import Usage
from worker.agent.models.failures import Endpoint, Stalled, from_status
from worker.agent.models.port import ModelReply
from worker.agent.models.sse import EventDecoder
from worker.agent.models.usage_on_error import bill

CONNECT_TIMEOUT_S = 10.0

#: how long a server may take to end its stream after the answer is whole; past it the connection is closed
TAIL_S = 1.0

MAX_ANSWER_BYTES = 64 << 20

_BROKEN = (httpx2.HTTPError, httpx2.StreamError, aiohttp.ClientError, OSError)


class HttpResponse(Protocol):
    """What collects the events of one call."""

    @property
    def finished(self) -> bool:
        """True once the answer is whole, though the stream may not be at its end."""

    def take(self, event: bytes) -> None:
        """Read one event. Raises msgspec.DecodeError for a malformed one, and ModelError for one that tells of it."""

    def reply(self) -> ModelReply:
        """Return the whole answer. Raises ModelError for one that is none."""

    def usage(self) -> Usage:
        """Return what the call has used so far, an estimate where that is not told."""


class StatusError(Protocol):
    """What the status errors of both SDKs have."""

    response: httpx2.Response


class Transport:
    """Where the calls to one model go; ``client`` is an AsyncAnthropic or an AsyncOpenAI, its connections shared."""

    def __init__(self, client: Any, sdk: Any, path: str, where: Endpoint) -> None:
        self._client = client
        self._sdk = sdk
        self._path = path
        self.where = where

    async def run(self, body: bytes, answer: HttpResponse, *, timeout: float, stall_s: float) -> ModelReply:
        """Post the body, feed the answer's events to ``answer`` until it is finished, and return its reply.

        ``timeout`` seconds bound the whole call, ``stall_s`` every silence in it. However it ends, the connection is
        back in the pool or closed; what it used is on the error that ends it. Raises TimeoutError, ModelUnavailable
        (Stalled and EmptyAnswer are two), ModelRejected, ContextTooLong.
        """
        try:
            await self._exchange(body, answer, timeout=timeout, stall_s=stall_s)
            return answer.reply()
        except BaseException as error:
            bill(error, answer.usage())
            raise

    async def _exchange(self, body: bytes, answer: HttpResponse, *, timeout: float, stall_s: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                response = await self._open(body, stall_s)
                try:
                    await self._read(response, answer, stall_s)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise TimeoutError(f"{self.where.name} gave no whole answer in {timeout:g} s") from None
        if not answer.finished:
            raise ModelUnavailable(f"{self.where.name} broke off its answer")

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def _open(self, body: bytes, stall_s: float) -> httpx2.Response:
        limits = httpx2.Timeout(stall_s, connect=min(stall_s, CONNECT_TIMEOUT_S))
        try:
            response: httpx2.Response = await self._client.post(
                self._path,
                content=body,
                cast_to=httpx2.Response,
                stream=True,
                stream_cls=self._sdk.AsyncStream,
                options={"timeout": limits},
            )
        except self._sdk.APIStatusError as refused:
            raise self._refusal(refused) from None
        except (self._sdk.APIConnectionError, *_BROKEN) as broken:
            raise self._failure("cannot be reached", broken, stall_s) from None
        return response

    def _refusal(self, refused: StatusError) -> Exception:
        response = refused.response
        return from_status(self.where, response.status_code, response.text, response.headers)

    def _failure(self, what: str, broken: BaseException, stall_s: float) -> ModelUnavailable:
        """Tell silence from breakage by the error at the bottom.

        The classes above it do not: the transport in the OpenAI SDK calls every lost connection a timeout.
        """
        while broken.__cause__ is not None:
            broken = broken.__cause__
        if isinstance(broken, TimeoutError):
            return Stalled(f"{self.where.name} sent nothing for {stall_s:g} s")
        return ModelUnavailable(f"{self.where.name} {what}: {str(broken) or type(broken).__name__}")

    async def _read(self, response: httpx2.Response, answer: HttpResponse, stall_s: float) -> None:
        try:
            async with asyncio.timeout(None) as tail, aclosing(response.aiter_bytes()) as chunks:
                await self._feed(response, chunks, answer, tail)
        except TimeoutError:
            return
        except msgspec.DecodeError as malformed:
            raise ModelUnavailable(f"{self.where.name} sent a malformed event: {malformed}") from None
        except _BROKEN as broken:
            if not answer.finished:
                raise self._failure("broke off its answer", broken, stall_s) from None

    async def _feed(self, response: httpx2.Response, chunks: Any, answer: HttpResponse, tail: asyncio.Timeout) -> None:
        kind = response.headers.get("content-type", "")
        if kind.startswith("text/html"):
            raise ModelRejected(f"{self.where.name} answered with a web page: look at {self.where.url_setting}")
        if kind.startswith("application/json"):
            answer.take(b"".join([chunk async for chunk in chunks]))
            return
        decoder = EventDecoder()
        size_bytes = 0
        async for chunk in chunks:
            size_bytes += len(chunk)
            if size_bytes > MAX_ANSWER_BYTES:
                raise ModelUnavailable(f"{self.where.name} sent more than {MAX_ANSWER_BYTES >> 20} MiB")
            for event in decoder.feed(chunk):
                answer.take(event)
            if answer.finished and tail.when() is None:
                tail.reschedule(asyncio.get_running_loop().time() + TAIL_S)
