"""What is asked of platforms beside replies: public keys, access tokens, and what an event leaves out.

One object owns the caches. A key set is fetched anew once a day, and for a key id that it does not hold once an hour at
the most, whoever asks for it; an access token is fetched shortly before the one at hand ends.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping

import msgspec
from cachetools import TTLCache

from gateway.platform_client import PlatformClient
from gateway.platforms.bearer_token import key_id
from gateway.platforms.port import (
    Adapter,
    ApiRequest,
    ApiResponse,
    Inbound,
    KeyFormat,
    KeySource,
    WebhookRequest,
)

KEYS_S = 86_400.0
UNKNOWN_KEY_S = 3600.0
FAILED_S = 10.0

#: how long before its end an access token is not used any more
TOKEN_RESERVE_S = 300.0

#: what was looked up of a chat holds for this long
LOOKED_UP_S, MOST_LOOKED_UP = 60.0, 10_000


class KeySet(msgspec.Struct, frozen=True):
    """The keys that a source published, by key id."""

    keys: Mapping[str, bytes]
    fetched_at: float
    asked_at: float


class AccessToken(msgspec.Struct, frozen=True):
    """A token and when it is not used any more, in unix seconds."""

    value: str
    until: float


class TokenAnswer(msgspec.Struct, frozen=True):
    """A token as a server issues it (RFC 6749, section 5.1)."""

    access_token: str
    expires_in: float = 3600.0


class KeySetAddress(msgspec.Struct, frozen=True):
    """OpenID metadata."""

    jwks_uri: str


class Jwk(msgspec.Struct, frozen=True):
    """What is read of a key (RFC 7517)."""

    kid: str = ""


class Jwks(msgspec.Struct, frozen=True):
    """A key set (RFC 7517)."""

    keys: tuple[msgspec.Raw, ...]


class PlatformCalls:
    """Owns the client and the caches; ``clock`` is unix seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._client: PlatformClient | None = None
        self._keys: dict[str, KeySet] = {}
        self._tokens: dict[str, AccessToken] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._looked_up: TTLCache[str, ApiResponse] = TTLCache(MOST_LOOKED_UP, LOOKED_UP_S)

    async def close(self) -> None:
        """Close every connection."""
        if self._client:
            await self._client.close()
            self._client = None

    async def with_keys(self, platform: Adapter, req: WebhookRequest) -> WebhookRequest:
        """Return a request with the public keys that its verification needs; as many as can be had."""
        if not platform.key_sources:
            return req
        wanted, found = key_id(req), dict[str, bytes]()
        for source in platform.key_sources:
            found |= await self._keys_of(source, wanted)
        return msgspec.structs.replace(req, keys=found)

    async def authorized(self, platform: Adapter, request: ApiRequest) -> ApiRequest | None:
        """Return a request with the access token that it needs, None where none could be had."""
        if not request.needs_token:
            return request
        async with self._locks[f"token {platform.name}"]:
            token = self._tokens.get(platform.name)
            if token is None or self._clock() >= token.until:
                token = await self._fetch_token(platform)
        if token is None:
            return None
        return msgspec.structs.replace(request, headers={**request.headers, "authorization": f"Bearer {token.value}"})

    async def make(self, platform: Adapter, calls: tuple[ApiRequest, ...]) -> bool:
        """Make the calls that an event asks for; tell whether all of them were answered."""
        answers = [await self.ask(platform, call) for call in calls]
        return all(answer is not None and answer.status < 500 for answer in answers)

    async def completed(self, platform: Adapter, inbound: Inbound) -> Inbound | None:
        """Return an event with what it left out, None where the platform has to deliver it again."""
        request = platform.lookup(inbound)
        if request is None:
            return inbound
        answer = self._looked_up.get(request.url) or await self.ask(platform, request)
        if answer and answer.status == 200:
            self._looked_up[request.url] = answer
        return platform.completed(inbound, answer)

    async def ask(self, platform: Adapter, request: ApiRequest) -> ApiResponse | None:
        """Send a request with the access token that it needs; None where nothing came back."""
        authorized = await self.authorized(platform, request)
        if authorized is None:
            return None
        if self._client is None:
            self._client = PlatformClient()
        answer = await self._client.send(authorized)
        return answer if isinstance(answer, ApiResponse) else None

    async def _fetch_token(self, platform: Adapter) -> AccessToken | None:
        call = platform.token_call(self._clock())
        answer = await self.ask(platform, call) if call else None
        try:
            issued = msgspec.json.decode(answer.body if answer else b"", type=TokenAnswer)
        except msgspec.DecodeError:
            return None
        reserve_s = min(TOKEN_RESERVE_S, issued.expires_in / 2)
        token = AccessToken(issued.access_token, self._clock() + issued.expires_in - reserve_s)
        self._tokens[platform.name] = token
        return token

    async def _keys_of(self, source: KeySource, wanted: str) -> Mapping[str, bytes]:
        """Return the keys of a source; who shows one that is known does not wait for others who do not."""
        known = self._keys.get(source.url)
        is_asked = self._locks[source.url].locked()
        if known and (not self._is_stale(known, wanted, self._clock()) or (is_asked and wanted in known.keys)):
            return known.keys
        async with self._locks[source.url]:
            known, now = self._keys.get(source.url), self._clock()
            if known is None or self._is_stale(known, wanted, now):
                keys = await self._fetch_keys(source)
                if keys:
                    known = KeySet(keys, now, now)
                else:
                    # what cannot be fetched now is not asked for again at once
                    known = KeySet(known.keys, known.fetched_at, now) if known else KeySet({}, now - KEYS_S, now)
                self._keys[source.url] = known
        return known.keys

    def _is_stale(self, known: KeySet, wanted: str, now: float) -> bool:
        if now - known.fetched_at > KEYS_S:
            return now - known.asked_at > FAILED_S
        return wanted not in known.keys and now - known.asked_at > UNKNOWN_KEY_S

    async def _fetch_keys(self, source: KeySource) -> dict[str, bytes]:
        body = await self._get(source.url)
        try:
            if source.format is KeyFormat.CERTIFICATES:
                certificates = msgspec.json.decode(body, type=dict[str, str])
                return {kid: pem.encode() for kid, pem in certificates.items()}
            body = await self._get(msgspec.json.decode(body, type=KeySetAddress).jwks_uri)
            keys = msgspec.json.decode(body, type=Jwks).keys
            return {msgspec.json.decode(key, type=Jwk).kid: bytes(key) for key in keys}
        except (msgspec.DecodeError, UnicodeError):
            return {}

    async def _get(self, url: str) -> bytes:
        if self._client is None:
            self._client = PlatformClient()
        answer = await self._client.send(ApiRequest(url, {}, b"", "GET"))
        return answer.body if isinstance(answer, ApiResponse) and answer.status == 200 else b""
