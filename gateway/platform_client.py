"""Sends one request to a platform and reads its answer, bounded in time and size; follows no redirect."""

from __future__ import annotations

import asyncio

import httpx2
import msgspec

from gateway.platforms.port import Answer, Call

#: a whole exchange, from connecting to the last byte of the answer
EXCHANGE_TIMEOUT_S = 15.0
CONNECT_TIMEOUT_S = 5.0

#: what is read of an answer
MOST_ANSWER_BYTES = 65_536


class NotSent(msgspec.Struct, frozen=True):
    """No byte of the request left: it is as if it had not been tried."""

    reason: str


class NoAnswer(msgspec.Struct, frozen=True):
    """The request may have arrived, its answer did not."""

    reason: str


class PlatformClient:
    """The gateway's HTTP client; ``most_connections`` bounds how many exchanges run at once."""

    def __init__(self, most_connections: int) -> None:
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(EXCHANGE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx2.Limits(max_connections=most_connections, max_keepalive_connections=64, keepalive_expiry=20),
            headers={"user-agent": "Gatehouse", "accept-encoding": "identity"},
            follow_redirects=False,
            trust_env=False,
        )

    async def send(self, call: Call) -> Answer | NotSent | NoAnswer:
        """Send a request and return what came of it; network errors are results, not exceptions."""
        try:
            async with asyncio.timeout(EXCHANGE_TIMEOUT_S):
                return await self._exchange(call)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            return NotSent(f"could not connect ({type(error).__name__})")
        except TimeoutError:
            return NoAnswer(f"no answer in {EXCHANGE_TIMEOUT_S:g} s")
        except httpx2.TransportError as error:
            return NoAnswer(f"the connection broke ({type(error).__name__})")

    async def _exchange(self, call: Call) -> Answer:
        request = self._client.stream(call.method, call.url, headers=dict(call.headers), content=call.body)
        async with request as response:
            body = b""
            async for piece in response.aiter_raw():
                body += piece
                if len(body) >= MOST_ANSWER_BYTES:
                    break
            return Answer(response.status_code, response.headers, body[:MOST_ANSWER_BYTES])

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()
