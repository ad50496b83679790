"""A gateway's edge in the test's own loop: webhooks over real HTTP into a real store, without pool and delivery."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from gateway.access import Access
from gateway.announcements import Announcements
from gateway.commands import Commands
from gateway.inbound_events import InboundEvents
from gateway.intake import Intake
from gateway.pairings import Pairings
from gateway.platform_calls import PlatformCalls
from gateway.platforms import enabled_platforms
from gateway.platforms.port import Adapter
from gateway.queue_notice import QueueNotice
from gateway.responses import exception_handlers
from gateway.session_names import SessionNames
from gateway.turn_broadcast import TurnBroadcast
from gateway.webhook import Webhooks
from gateway.webhook_entry import WebhookEntry
from loadtests import signing
from loadtests.platform_wire import Secrets
from loadtests.signing import SignedRequest
from shared.events import Events
from shared.messages import Claim
from shared.settings import Settings, parse_settings
from shared.store import Store, open_store

SECRETS = Secrets()

LET_ALL_IN = {"GATEHOUSE_ALLOW": "*"}

ENVIRONMENT = {
    "STANDARD_WEBHOOK_SECRET": SECRETS.standard_secret,
    "STANDARD_WEBHOOK_REPLY_URL": "http://127.0.0.1:9/replies",
    "TELEGRAM_BOT_TOKEN": SECRETS.telegram_bot_token,
    "TELEGRAM_SECRET_TOKEN": SECRETS.telegram_secret_token,
    "SLACK_SIGNING_SECRET": SECRETS.slack_signing_secret,
    "SLACK_BOT_TOKEN": SECRETS.slack_bot_token,
}


class TurnControl:
    """What the edge asks of turns; none runs here, so it is only noted."""

    def __init__(self) -> None:
        self.stopped: list[str] = []
        self.steered: list[str] = []
        self.todos: dict[str, bytes] = {}

    def stop(self, session: str, message_id: str) -> None:
        self.stopped.append(message_id)

    def steer(self, session: str) -> None:
        self.steered.append(session)

    def running_turn(self, session: str) -> None:
        return None

    def todo(self, session: str) -> bytes | None:
        return self.todos.get(session)


class Woken:
    """A part that counts how often it is woken; it stands for a pool in which nothing runs, of so many ``slots``."""

    def __init__(self, slots: int = 0) -> None:
        self.wakes = 0
        self.load = (0, slots)

    def wake(self) -> None:
        self.wakes += 1


class Edge:
    """What a test may touch of a running edge."""

    def __init__(
        self,
        url: str,
        client: httpx2.AsyncClient,
        store: Store,
        events: Events,
        turn_control: TurnControl,
        pool: Woken,
        pairings: Pairings,
        app: WebhookEntry,
    ) -> None:
        self.app = app
        self.url = url
        self.pairings = pairings
        self.turn_control = turn_control
        self.client = client
        self.store = store
        self.events = events
        self.pool = pool

    async def post(self, signed: SignedRequest, headers: Mapping[str, str] | None = None) -> httpx2.Response:
        """Send a signed webhook."""
        asked = {**signed.headers, **(headers or {})}
        return await self.client.request(signed.method, signed.path, content=signed.body, headers=asked)

    async def sent(self) -> list[str]:
        """Send every reply that is due and return their texts."""
        texts = []
        while due := (await self.store.outbox.due("test", 10, 30)).replies:
            for reply in due:
                await self.store.outbox.delivered(reply, "sent")
                texts.append(reply.text)
        return texts

    async def claimed(self) -> list[Claim]:
        """Claim all that waits."""
        return list((await self.store.claims.claim("test", 1000, 60.0)).claims)


@contextlib.asynccontextmanager
async def open_test_store(
    data_dir: Path, inbox_limit: int = 10_000, clock: Callable[[], float] = time.time
) -> AsyncIterator[Store]:
    """Open a real store in a directory."""
    store = open_store("", data_dir, inbox_limit=inbox_limit, clock=clock)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, port: int = 0) -> AsyncIterator[str]:
    """Serve an app on loopback in this loop, on a free port where none is given; yield its url."""
    config = uvicorn.Config(app, log_config=None, lifespan="off", http="httptools", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    # a listener without its protocol named would leave Nagle's delay on in asyncio, 40 ms a request
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()  # so that nobody is refused before the server has started
    task = asyncio.create_task(server.serve([listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def running_edge(
    data_dir: Path,
    environment: Mapping[str, str] | None = None,
    inbox_limit: int = 10_000,
    slots: int = 0,
    more_platforms: Mapping[str, Adapter] | None = None,
) -> AsyncIterator[Edge]:
    """Run an edge over a real store; ``environment`` adds settings to those of all three platforms.

    With ``slots`` people are told their place in the queue as if so many turns ran at once.
    """
    settings = edge_settings(environment)
    events = Events()
    async with open_test_store(data_dir, inbox_limit) as store:
        turn_control, pool, delivery = TurnControl(), Woken(slots), Woken()
        announcements = Announcements(store, delivery)
        platforms, calls = {**enabled_platforms(settings), **(more_platforms or {})}, PlatformCalls()
        intake = Intake(store, turn_control, TurnBroadcast(events), events, settings.when_busy, pool, delivery)
        pairings = Pairings(store, platforms, announcements, intake, settings.webhooks)
        inbound_events = InboundEvents(
            intake,
            Access(settings, pairings),
            pairings,
            events,
            Commands(store, turn_control, announcements, settings.profiles),
            announcements,
            QueueNotice(announcements, pool),
            names := SessionNames(store, calls, gap_s=0),
            settings.webhooks,
            settings.gather_s,
        )
        webhooks = Webhooks(platforms, inbound_events, events, calls, settings.webhooks.public_url)
        handlers = exception_handlers(events)
        app = WebhookEntry(Starlette(routes=webhooks.routes(), exception_handlers=handlers), webhooks, handlers)
        async with serving(app) as url, httpx2.AsyncClient(base_url=url, trust_env=False) as client:
            learning = asyncio.create_task(names.run())
            yield Edge(url, client, store, events, turn_control, pool, pairings, app)
            learning.cancel()
            await calls.close()


def edge_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of all three platforms, and more."""
    return parse_settings({**ENVIRONMENT, **(environment or {})})


def standard(text: str = "hi", webhook_id: str = "wh_1", session: str = "s1") -> SignedRequest:
    return signing.standard(SECRETS.standard_secret, webhook_id, time.time(), session=session, user="ana", text=text)


def telegram(text: str = "hi", update_id: int = 7) -> SignedRequest:
    return signing.telegram(SECRETS.telegram_secret_token, update_id, time.time(), chat=5, user=5, text=text)


def slack(text: str = "hi", event_id: str = "Ev1", channel: str = "D1", ts: str = "1.5") -> SignedRequest:
    return signing.slack(
        SECRETS.slack_signing_secret, event_id, time.time(), channel=channel, user="U1", text=text, ts=ts
    )


def signed_raw(platform: str, raw: bytes) -> SignedRequest:
    match platform:
        case "standard":
            return signing.sign_standard(SECRETS.standard_secret, "wh_raw", raw, time.time())
        case "slack":
            return signing.sign_slack(SECRETS.slack_signing_secret, raw, time.time())
        case _:
            signed = signing.sign_telegram(SECRETS.telegram_secret_token, {})
            return SignedRequest(signed.path, signed.headers, raw)


async def raw_answer(edge: Edge, request: bytes) -> bytes:
    """Send bytes over a socket of their own and return all that comes back."""
    host, port = edge.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    await writer.drain()
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer
