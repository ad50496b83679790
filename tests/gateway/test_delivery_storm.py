"""A thousand replies over fifty chats of ten platforms, at far more than these allow, while each fails in its ways."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gateway.delivery import Delivery
from gateway.governor import Governor
from gateway.platforms import ADAPTERS
from gateway.platforms.port import Adapter, ApiResponse, Chat, Rate, WithoutThread
from shared.events import Events
from shared.ids import new_message_id
from shared.messages import PARTS, Reply, ReplyStatus, session_key
from tests.gateway.edge import open_test_store, serving
from tests.gateway.platforms.fixtures.fixture import Fixture
from tests.gateway.platforms.test_conformance import fixture_of

CHATS, REPLIES = 5, 20

#: what the platforms allow in a minute they allow here in a second
FASTER = 60.0

#: how long a platform may be silent, and how long one is
SILENT_S, HANG_S = 1.0, 1.3

#: where each platform's replies go, by the number of the chat; URL is the platform's own
ADDRESSES = {
    "telegram": '{"chat_id":-%d,"message_id":9}',
    "slack": '{"channel":"C%d","thread_ts":"1.5"}',
    "discord": '{"channel_id":"%d"}',
    "whatsapp": '{"to":"%d","message_id":"m"}',
    "teams": '{"service_url":"URL","conversation":"a:%d","activity":"9","bot":"b"}',
    "line": '{"to":"U%d"}',
    "twilio": '{"to":"+%d","sender":"+1","message_sid":"S"}',
    "google_chat": '{"space":"spaces/S%d","thread":"spaces/S/threads/T"}',
    "mattermost": '{"channel_id":"c%d","root_id":"r"}',
    "matrix": '{"room":"!r%d:x","event":"$1"}',
}

#: how each says that too much comes, and that it may come again soon
LIMITED: dict[str, tuple[int, dict[str, str], Any]] = {
    "telegram": (429, {}, {"ok": False, "description": "Too Many Requests", "parameters": {"retry_after": 1}}),
    "slack": (429, {"retry-after": "1"}, {"ok": False, "error": "ratelimited"}),
    "discord": (429, {"retry-after": "1"}, {"message": "slow down", "retry_after": 0.9, "global": False}),
    "whatsapp": (429, {}, {"error": {"message": "slow", "code": 130429}}),
    "teams": (429, {"retry-after": "1"}, {"error": {"code": "TooManyRequests", "message": "x"}}),
    "line": (429, {}, {"message": "The API rate limit has been exceeded"}),
    "twilio": (429, {}, {"code": 20429, "message": "Too Many Requests"}),
    "google_chat": (429, {}, {"error": {"code": 429, "message": "x", "status": "RESOURCE_EXHAUSTED"}}),
    "mattermost": (429, {"retry-after": "1"}, {"id": "api.context.rate_limit", "message": "limit exceeded"}),
    "matrix": (429, {"retry-after": "5"}, {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 900}),
}

#: those that say when
SAYS_WHEN = frozenset({"telegram", "slack", "discord", "teams", "mattermost", "matrix"})

#: what is refused once and goes at once in another way: markup, a lost thread, a token that has ended
ODD: dict[str, list[tuple[int, Any]]] = {
    "telegram": [
        (400, {"ok": False, "description": "Bad Request: can't parse entities: x"}),
        (400, {"ok": False, "description": "Bad Request: message to be replied not found"}),
    ],
    "slack": [(200, {"ok": False, "error": "invalid_blocks"}), (200, {"ok": False, "error": "thread_not_found"}),
              (200, {"ok": False, "error": "token_expired"})],
    "whatsapp": [(401, {"error": {"message": "expired", "code": 190}})],
    "teams": [(401, {"error": {"code": "Unauthorized", "message": "x"}})],
    "google_chat": [(401, {"error": {"status": "UNAUTHENTICATED", "message": "x"}})],
    "mattermost": [(400, {"id": "api.post.create_post.root_id.app_error", "message": "Invalid RootId"})],
    "matrix": [(401, {"errcode": "M_UNKNOWN_TOKEN", "error": "x"})],
    "discord": [(401, {"code": 0, "message": "401: Unauthorized"})],
    "line": [(401, {"message": "Authentication failed"})],
    "twilio": [(401, {"code": 20003, "message": "Authenticate"})],
}  # fmt: skip


class FaultyPlatform:
    """Takes replies, and fails by turns in every way; the first chat is told to wait at once, another later."""

    def __init__(self, fixture: Fixture) -> None:
        self.fixture = fixture
        self.name = fixture.adapter.name
        self.taken: defaultdict[str, list[tuple[float, str, bytes]]] = defaultdict(list)
        self.allowed_at: dict[str, float] = {}
        self.too_early = 0
        self.hung = self.limited = False
        self._requests = itertools.count(1)
        self._odd = itertools.cycle(ODD[self.name])

    @property
    def is_complete(self) -> bool:
        """Whether the last reply of every chat is here."""
        last = f"reply {REPLIES - 1}."
        return len(self.taken) == CHATS and all(taken[-1][1].endswith(last) for taken in self.taken.values())

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{rest:path}", self.answer, methods=["POST", "PUT"])])

    async def answer(self, request: Request) -> Response:
        if request.url.path.endswith("/token"):
            return JSONResponse({"access_token": "t", "expires_in": 3600})
        raw, now = await request.body(), time.monotonic()
        found = re.search(r"chat (\d+) reply \d+\.", raw.decode().replace("+", " "))
        if found is None:
            return JSONResponse({"ok": True, "result": {"id": 1}})
        chat = found[1]
        if now < self.allowed_at.get(chat, 0.0):
            self.too_early += 1
        if chat == "1" and chat not in self.allowed_at:
            return self._limited(chat, now)
        match next(self._requests) % 37:
            case 3:
                return JSONResponse({}, 503)
            case 5 if not self.hung:
                self.hung = True
                await asyncio.sleep(HANG_S)
                return JSONResponse({}, 500)  # to nobody: the sender has left
            case 7:
                return StreamingResponse(broken(), headers={"content-length": "100"})
            case 11:
                status, body = next(self._odd)
                return JSONResponse(body, status)
            case 13 if not self.limited:
                self.limited = True
                return self._limited(chat, now)
        self.taken[chat].append((now, found[0], raw))
        sent = self.fixture.sent
        return Response(sent.body, sent.status, dict(sent.headers), "application/json")

    def _limited(self, chat: str, now: float) -> Response:
        status, headers, body = LIMITED[self.name]
        if self.name in SAYS_WHEN:
            self.allowed_at[chat] = now + 0.85
        else:
            self.allowed_at.setdefault(chat, now)
        return JSONResponse(body, status, headers)


async def broken() -> AsyncIterator[bytes]:
    """The beginning of an answer, and then no more."""
    yield b"{"
    raise ConnectionResetError


class FasterGovernor(Governor):
    """Allows in a second what the platforms allow in a minute."""

    def book(self, app: str, app_rates: tuple[Rate, ...], chat: Chat, key: str, method: str = "") -> float:
        return super().book(app, quick(app_rates), Chat(chat.key, quick(chat.rates)), key, method)

    def count(self, app: str, app_rates: tuple[Rate, ...], chat: Chat) -> None:
        super().count(app, quick(app_rates), Chat(chat.key, quick(chat.rates)))


def quick(rates: tuple[Rate, ...]) -> tuple[Rate, ...]:
    return tuple(Rate(rate.count, rate.per_s / FASTER) for rate in rates)


def with_base(adapter: Adapter, url: str) -> Adapter:
    """Return an adapter whose platform is at a url."""
    settings = adapter.settings  # type: ignore[attr-defined]
    urls = {name: url for name in settings.__struct_fields__ if "base" in name}
    urls |= {"token_url": f"{url}/token"} if hasattr(settings, "token_url") else {}
    return msgspec.structs.replace(adapter, settings=msgspec.structs.replace(settings, **urls))


async def test_a_thousand_replies_all_arrive_whole_in_order_and_none_too_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody's wait is another's."""
    monkeypatch.setattr("gateway.reply_sender.FIRST_BACKOFF_S", 0.05)
    monkeypatch.setattr("gateway.reply_sender.LONGEST_BACKOFF_S", 0.2)
    monkeypatch.setattr("gateway.reply_sender.LEAST_WAIT_S", 0.02)
    monkeypatch.setattr("gateway.platform_client.EXCHANGE_TIMEOUT_S", SILENT_S)
    monkeypatch.setattr("gateway.receivers.FIRST_PROBE_S", 0.05)
    monkeypatch.setattr("gateway.receivers.SILENT_PAUSE_S", 0.1)
    fakes = [FaultyPlatform(fixture_of(name)) for name in ADDRESSES]
    assert {fake.name for fake in fakes} == set(ADAPTERS) - {"standard"}
    servers = [AsyncExitStack() for _ in fakes]
    sent: dict[tuple[str, str], list[Reply]] = defaultdict(list)
    async with open_test_store(tmp_path) as store:
        urls = {
            fake.name: await server.enter_async_context(serving(fake.app()))
            for fake, server in zip(fakes, servers, strict=True)
        }
        platforms = {fake.name: with_base(fake.fixture.adapter, urls[fake.name]) for fake in fakes}
        delivery = Delivery(store, platforms, Events(), "test", governor=FasterGovernor())

        async def write(name: str, chat: int) -> None:
            address = (ADDRESSES[name] % chat).replace("URL", urls[name]).encode()
            for number in range(REPLIES):
                message_id = new_message_id()
                text = f"chat {chat} reply {number}. **bold** and `code`"
                key = session_key(name, "a", str(chat))
                reply = Reply(key, message_id, 0, name, text, address, ReplyStatus.REPLIED)
                sent[name, str(chat)].append(reply)
                await store.inbox.announce(reply, (message_id,), 60.0)

        await asyncio.gather(*(write(name, chat) for name in ADDRESSES for chat in range(1, CHATS + 1)))
        await delivery.start()
        try:
            async with asyncio.timeout(60):
                while not all(fake.is_complete for fake in fakes):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        finally:
            await delivery.close()
            # at once: each takes a tenth of a second to see that it shall end
            await asyncio.gather(*(server.aclose() for server in servers))
    for fake in fakes:
        check(fake, platforms[fake.name], sent)


def bodies(adapter: Adapter, name: str, number: int, reply: Reply) -> Iterator[bytes]:
    """Yield what a reply may look like: marked up or plain, with its thread or without."""
    (text,) = adapter.chunks(reply.text)
    cut = msgspec.structs.replace(reply, text=text, part=number * PARTS)
    refused = [adapter.result(cut, ApiResponse(status, {}, msgspec.json.encode(body))) for status, body in ODD[name]]
    addresses = [reply.address, *(result.address for result in refused if isinstance(result, WithoutThread))]
    for plain in (False, True):
        for address in addresses:
            yield adapter.call(msgspec.structs.replace(cut, address=address), time.time(), plain=plain).body


def check(fake: FaultyPlatform, adapter: Adapter, sent: dict[tuple[str, str], list[Reply]]) -> None:
    assert fake.too_early == 0, fake.name
    for chat in map(str, range(1, CHATS + 1)):
        taken = fake.taken[chat]
        # an answer that a busy machine gives too late is asked for again: at least once, and in order
        seen = [text for text, _ in itertools.groupby(text for _, text, _ in taken)]
        assert seen == [f"chat {chat} reply {number}." for number in range(REPLIES)], fake.name
        texts = {f"chat {chat} reply {number}.": number for number in range(REPLIES)}
        for _, text, body in taken:
            assert body in bodies(adapter, fake.name, texts[text], sent[fake.name, chat][texts[text]]), fake.name
        address = json.dumps(json.loads(ADDRESSES[fake.name] % int(chat))).encode()
        # over all of them: two may arrive together that did not leave so
        for rate in quick(adapter.chat(address).rates):
            assert taken[-1][0] - taken[0][0] > 0.8 * ((len(seen) - 1) // rate.count) * rate.per_s, (fake.name, chat)
    if fake.name in SAYS_WHEN:  # the others went on while the first chat had to wait
        earlier = [chat for chat, taken in fake.taken.items() if taken[0][0] < fake.taken["1"][0][0]]
        assert len(earlier) >= 2, (fake.name, earlier)
