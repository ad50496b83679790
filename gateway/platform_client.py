"""Sends one request to a platform and reads its answer, bounded in time and size; follows no redirect.

It is aiohttp and not httpx2: a request costs the gateway's loop 0.15 ms and not 2 ms, and with a hundred at once the
loop would otherwise be late by 300 ms.
"""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime
from email.utils import format_datetime

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from yarl import URL

from gateway.platforms.port import ApiRequest, ApiResponse
from shared.proxies import Proxies
from shared.settings import environment_proxies

#: a whole exchange, from connecting to the last byte of the answer
EXCHANGE_TIMEOUT_S = 15.0
#: how much of a large request leaves in a second at the least: a file gets the time that takes
SLOWEST_BYTES_S = 1_048_576
CONNECT_TIMEOUT_S = 5.0

#: how long an idle connection is kept; shorter than the servers' own limits, which would break a send
KEPT_S = 10.0

#: how long what was sent may stay without the receiver's machine having it, before it is thrown away: less than the
#: lease of a host, or what waits in a link that was cut arrives behind what another gateway sent meanwhile
UNTAKEN_S = 8.0

#: what is read of an answer
MOST_ANSWER_BYTES = 65_536


class NotSent(msgspec.Struct, frozen=True):
    """No byte of the request left: it is as if it had not been tried."""

    reason: str


class NoAnswer(msgspec.Struct, frozen=True):
    """The request may have arrived, its answer did not."""

    reason: str
    #: whether the receiver said nothing for all of the time it had, and did not break off
    timed_out: bool = False


class PlatformClient:
    """The gateway's HTTP client, made inside its loop; its callers bound how many exchanges run at once."""

    def __init__(self, resolver: AbstractResolver | None = None) -> None:
        # who brings a resolver decides by addresses, which a proxy would look up for itself
        self._proxies = environment_proxies() if resolver is None else Proxies()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=KEPT_S, resolver=resolver, socket_factory=make_socket
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            headers={"user-agent": "Gatehouse", "accept-encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def send(self, call: ApiRequest, most_bytes: int = MOST_ANSWER_BYTES) -> ApiResponse | NotSent | NoAnswer:
        """Send a request and return what came of it; network errors are results, not exceptions.

        Of the answer's body ``most_bytes`` are read.
        """
        timeout_s = EXCHANGE_TIMEOUT_S + len(call.body) // SLOWEST_BYTES_S
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(call, most_bytes)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return NotSent(f"could not connect ({type(error).__name__})")
        except TimeoutError:
            return NoAnswer(f"no answer in {timeout_s:g} s", timed_out=True)
        except aiohttp.ClientError as error:
            return NoAnswer(f"the connection broke ({type(error).__name__})")

    async def _exchange(self, call: ApiRequest, most_bytes: int) -> ApiResponse:
        url = URL(call.url, encoded=True)
        proxy = self._proxies.of(url.scheme, url.host or "")
        request = self._session.request(
            call.method, url, headers=call.headers, data=call.body, allow_redirects=False, proxy=proxy
        )
        async with request as response:
            body = bytearray()
            async for piece in response.content.iter_any():
                body += piece
                if len(body) >= most_bytes:
                    response.close()  # what is left of it is not waited for
                    break
            headers = {name.lower(): value for name, value in response.headers.items()}
            if "date" not in headers:
                headers["date"] = format_datetime(datetime.now(UTC), usegmt=True)
            return ApiResponse(response.status, headers, bytes(body[:most_bytes]))

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()


def make_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Return a socket that gives up what cannot be handed over in time, also where it is closed already (Linux)."""
    made = socket.socket(*address[:3])
    made.setblocking(False)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNTAKEN_S * 1000))
    return made


def has_answered(answer: ApiResponse | NotSent | NoAnswer) -> bool | None:
    """Tell whether a receiver answers; None for a connection that broke, which tells nothing of that."""
    match answer:
        case ApiResponse():
            return True
        case NoAnswer(timed_out=False):
            return None
        case _:
            return False
