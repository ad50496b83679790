"""The composition root: builds every part of the gateway, relates them, and starts and stops them in order.

Start: store (in the background where an old schema is brought forward: ``opening`` answers meanwhile), delivery, pool
(in the background: the first workers take seconds, webhooks are accepted meanwhile).
Stop: readiness off, pages off, turns parked or ended, waiting calls answered, listener closed, replies sent, workers
gone, store closed. The order matters: whatever still settles needs the store, whatever settled wants its reply sent.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.access import Access, shows_key
from gateway.announcements import Announcements
from gateway.api import Api
from gateway.api_frame import ApiFrame
from gateway.audit import Audit
from gateway.call_history import CallHistory
from gateway.commands import Commands
from gateway.console import Console, page_routes
from gateway.dead_letters import DeadLetters
from gateway.delivery import Delivery
from gateway.event_metrics import EventMetrics
from gateway.governor import Governor
from gateway.hang_history import HangHistory
from gateway.health import Health
from gateway.inbound_events import InboundEvents
from gateway.intake import Intake
from gateway.life_signs import LifeSigns
from gateway.load_history import LoadHistory
from gateway.login import Login, role_needed
from gateway.metrics import LoopLag, Meter, PoolCollector
from gateway.openai_api.api import OpenAIApi
from gateway.openai_api.calls import Calls
from gateway.openai_api.stateless_sessions import StatelessSessions
from gateway.openapi import openapi_route
from gateway.opening import WhileOpening
from gateway.pairings import Pairings
from gateway.platform_files import PlatformFiles
from gateway.platforms import enabled_platforms
from gateway.public_files import PublicFiles
from gateway.queue_notice import QueueNotice
from gateway.readiness import Readiness
from gateway.request_origin import origin_route
from gateway.responses import Refused, exception_handlers
from gateway.retention import Retention
from gateway.scheduled_backup import ScheduledBackup
from gateway.session_names import SessionNames
from gateway.state_metrics import StateCollector
from gateway.storage_watch import StorageWatch
from gateway.tickets import make_secret
from gateway.turn_broadcast import TurnBroadcast
from gateway.turns_elsewhere import TurnsElsewhere
from gateway.webhook import Webhooks
from gateway.webhook_entry import WebhookEntry
from shared.api_keys import Role
from shared.events import Event, Events
from shared.opening import Opening
from shared.redaction import Redaction
from shared.settings import Settings
from shared.store import open_store, sqlite_path
from shared.store.port import Store
from worker.pool import Pool
from worker.pool.loops import Loops
from worker.pool.store_health import StoreHealth
from worker.pool.worker_config import known_secrets

if TYPE_CHECKING:
    from gateway.tracing import Tracing

POOL_DRAIN_S = 15.0
DELIVERY_DRAIN_S = 3.0
CALLS_CLOSE_S = 1.0
READY_POLL_S = 0.05
REPLIES_POLL_S = 0.5

Endpoint = Callable[[Request], Awaitable[Response]]


class Gateway:
    """One running gateway: its parts, its ASGI app, its life; ``store`` is the one the settings name by default."""

    def __init__(self, settings: Settings, store: Store | None = None) -> None:
        self.settings = settings
        self._left_over: list[str] = []
        self.host = host_id()
        self.store = store or store_of(settings)
        self.events = Events()
        self._loops = Loops(self.events, StoreHealth(self.events))
        self.opening = Opening(self.events.emit)
        self.meter = Meter()
        self.platforms = enabled_platforms(settings)
        self.broadcast = TurnBroadcast(self.events)
        self.elsewhere = TurnsElsewhere(self.store, self.broadcast)
        self.stateless = StatelessSessions(self.store, self.elsewhere)
        self.governor = Governor()
        self.delivery = Delivery(
            self.store, self.platforms, self.events, self.host, {"api": self.stateless}, self.governor
        )
        for observer in (self.delivery, self.meter):
            self.broadcast.observe(observer)
        self.broadcast.send_with(self.delivery)
        for watching in (self.meter, EventMetrics(self.meter.registry), self.broadcast):
            self.events.subscribe(watching.on_event, watching.heard)
        self.pool = self._make_pool()
        self.readiness = Readiness(settings.workers, self.pool)
        self.announcements = Announcements(self.store, self.delivery)
        self.commands = Commands(self.store, self.pool, self.announcements, settings.profiles)
        self.intake = self._make_intake()
        self.pairings = Pairings(self.store, self.platforms, self.announcements, self.intake, settings.webhooks)
        self.names = SessionNames(self.store, self.delivery.platform_calls)
        self.access = Access(settings, self.pairings)
        self.life_signs = LifeSigns(
            self.store, self.platforms, self.governor, self.delivery.platform_calls, self.pool, settings.profiles
        )
        self.broadcast.show_on_platforms(self.life_signs)
        self.delivery.place_of = self.life_signs.place_of
        self.delivery.texts_of = settings.profiles.texts_of
        self.calls = Calls(
            self.store, self.pool, self.broadcast, self.intake, self.commands, self.stateless, self.meter.api_usage
        )
        self.openai_api = OpenAIApi(settings, self.store, self.calls, self.readiness, self.public_files)
        self._look_after()
        self._serve()

    def _make_pool(self) -> Pool:
        settings, calls = self.settings, self.delivery.platform_calls
        self.public_files = PublicFiles(settings.fetch_allow)
        self.files = PlatformFiles(self.platforms, calls, self.public_files, settings.webhooks.attachments)
        return Pool(
            settings, self.store, self.events, self.broadcast, self.host, receiver=self.elsewhere, files=self.files
        )

    def _make_intake(self) -> Intake:
        settings = self.settings
        return Intake(
            self.store,
            self.pool,
            self.broadcast,
            self.events,
            settings.when_busy,
            self.pool,
            self.delivery,
            host=self.host,
            profiles=settings.profiles,
        )

    def _look_after(self) -> None:
        """Make the parts that look after the others."""
        settings, log_dir = self.settings, self.settings.data_dir / "logs"
        self.broadcast.tell_elsewhere(self.pool)
        self.delivery.hosts = self.intake.runner = self.pool
        self.governor.peers = self.pool
        self.elsewhere.files, self.elsewhere.platforms = self.files, tuple(self.platforms)
        self.audit = Audit(self.store, self.events, settings.data_dir)
        self.hangs, self.call_history = HangHistory(), CallHistory()
        for remembering in (self.hangs, self.call_history):
            self.events.subscribe(remembering.on_event, remembering.heard)
        self.tracing = start_tracing(settings, self.events)
        self._lag = LoopLag(self.meter.loop_lag)
        self.load = LoadHistory(self.store, self.pool, self._lag)
        self.broadcast.observe(self.load)
        self.storage = StorageWatch(self.store, self.events)
        self.retention = Retention(self.store, log_dir, settings.upkeep, self.events.emit, self.pool)
        database = sqlite_path(settings.database_url, settings.data_dir)
        self.backup = ScheduledBackup(settings.upkeep, database, self.events.emit)

    async def open(self) -> None:
        """Open the store and take over what an earlier process of this database left. Raises StoreUnusable."""
        await self.store.open(self.opening.tell)
        try:
            make_secret(self.settings.data_dir)
            if adopted := await self.store.claims.adopt(self.host):
                self.events.emit(Event.CLAIMS_ADOPTED, claims=adopted)
            self._left_over = await self.stateless.left_over()
            await self.pool.join_hosts()
        except BaseException:
            await self.store.close()
            raise
        self.opening.finish()

    async def start(self) -> None:
        """Start every part; return once messages are accepted and run. Raises what keeps a part from starting."""
        self._lag.start()
        self._loops.keep("removing sessions of calls", lambda: self.stateless.run(self._left_over))
        self._loops.keep("removing what is old", self.retention.run)
        self._loops.keep("watching the storage", self.storage.run)
        self._loops.keep("making backups", self.backup.run)
        self._loops.keep("taking acts of commands", self.audit.run)
        self._loops.keep("sampling the load", self.load.run)
        self._loops.keep("learning the names of sessions", self.names.run)
        self._loops.keep("looking for replies of other hosts", self._look_for_replies)
        self._loops.keep("looking for outcomes of other hosts", self.elsewhere.run)
        await self.delivery.start()
        await self.pool.start()
        while self.readiness.not_ready():  # noqa: ASYNC110 - only where the first worker died at once
            await asyncio.sleep(READY_POLL_S)
        self.events.emit(Event.READY, workers=self.settings.workers)

    async def _look_for_replies(self) -> None:
        """Look for the replies that other hosts wrote: at their signal, and all the time, for one may be lost."""
        while self.store.engine.shared:
            self.elsewhere.reply_due.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(REPLIES_POLL_S):
                    await self.elsewhere.reply_due.wait()
            self.delivery.look()

    def refuse_work(self) -> None:
        """Begin to stop: not ready from now on, and no new calls or pages; webhooks are still kept."""
        if not self.readiness.stopping:
            self.readiness.stopping = True
            self.events.emit(Event.STOPPING)
            self.broadcast.close_pages()

    async def drain(self, hasten: asyncio.Event) -> None:
        """Let turns come to a step boundary, then answer the calls that still wait; ``hasten`` cuts it short."""
        await self._loops.close()
        await unless(hasten, self.pool.drain(POOL_DRAIN_S))
        self.broadcast.close()

    async def close(self, hasten: asyncio.Event) -> None:
        """Send what can be sent, end the workers and close the store."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CALLS_CLOSE_S):
                await self.calls.close()
        await unless(hasten, self.delivery.drain(DELIVERY_DRAIN_S))
        await self.life_signs.close()
        await self.elsewhere.close()
        await self.delivery.close()
        await self.pool.close()
        await self.files.close()
        await self.public_files.close()
        self._lag.stop()
        await self.store.close()
        if self.tracing is not None:
            await unless(hasten, asyncio.to_thread(self.tracing.close))

    def _serve(self) -> None:
        """Make the app: ``api`` has the routes, ``app`` is what the server calls."""
        handlers, webhooks = exception_handlers(self.events), self._webhooks()
        self.api = Starlette(routes=[origin_route(), *webhooks.routes(), *self._routes()], exception_handlers=handlers)
        entry = WebhookEntry(ApiFrame(self.api, self.settings.cors_origins), webhooks, handlers)
        self.app = WhileOpening(entry, self.opening)

    def _routes(self) -> list[BaseRoute]:
        health, budgets = self._health(), self.settings.budgets
        log_dir, profiles = self.settings.data_dir / "logs", self.settings.profiles
        redaction, calls = Redaction(known_secrets(self.settings)), self.call_history
        api = Api(self.store, self.pool, self.broadcast, log_dir, redaction, budgets, self.pairings, profiles, calls)
        console = Console(self.broadcast, self.pool, self.access)
        login = Login(self.access, self.audit)
        guarded = [
            *self.openai_api.routes(),
            Route("/v1/events", console.events),
            Route("/v1/stats", self.load.stats),
            Route("/metrics", health.metrics),
            *api.routes(),
            *self.audit.routes(),
            *login.guarded_routes(),
            Route("/v1/hangs", self.hangs.show),
            *DeadLetters(self.store, self.broadcast, self.pool, self.delivery).routes(),
        ]
        probes = [Route("/livez", health.livez), Route("/readyz", health.readyz), openapi_route()]
        return [*probes, *page_routes(), *login.routes(), *(self._guard(route) for route in guarded)]

    def _webhooks(self) -> Webhooks:
        inbound_events = InboundEvents(
            self.intake,
            self.access,
            self.pairings,
            self.events,
            self.commands,
            self.announcements,
            QueueNotice(self.announcements, self.pool),
            self.names,
            self.settings.webhooks,
            self.settings.gather_s,
        )
        inbound_events.gateway_of = self.delivery.gateway_of
        public_url, calls = self.settings.webhooks.public_url, self.delivery.platform_calls
        return Webhooks(self.platforms, inbound_events, self.events, calls, public_url)

    def _health(self) -> Health:
        pool_metrics = PoolCollector(self.events, self.pool.snapshot)
        self.meter.registry.register(pool_metrics)
        state_metrics = StateCollector(self.settings, lambda: self.readiness.not_ready() or self.storage.problem)
        state_metrics.register(self.meter.registry)
        budgets = self.settings.budgets
        return Health(self.store, budgets, self.meter, pool_metrics, state_metrics, self.readiness, self.storage)

    def _guard(self, route: Route) -> Route:
        """Return the route behind the keys; ``request.state.caller`` is who asks."""

        async def guarded(request: Request) -> Response:
            needed = role_needed(request)
            try:
                caller = request.state.caller = self.access.authorize(request, needed)
            except Refused:
                if shows_key(request):
                    await self.audit.key_refused(request)
                raise
            code = 500
            try:
                answer: Response = await route.endpoint(request)
                code = answer.status_code
                answer.headers.setdefault("Cache-Control", "no-store")  # it is for who showed the key, and no cache
                answer.headers.setdefault("X-Content-Type-Options", "nosniff")
            except HTTPException as refused:
                code = refused.status_code
                raise
            finally:
                if needed is Role.CHAT:
                    self.meter.api_call(caller.name, code)
            if needed is Role.ADMIN and code < 400:
                await self.audit.done(request, route.path, caller.name)
            return answer

        return Route(route.path, guarded, methods=sorted(route.methods or ()))


async def unless(hasten: asyncio.Event, work: Awaitable[object]) -> None:
    """Do the work, but no further once ``hasten`` is set."""
    working = asyncio.ensure_future(work)
    hurrying = asyncio.ensure_future(hasten.wait())
    try:
        await asyncio.wait((working, hurrying), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        working.cancel()
        hurrying.cancel()
        await asyncio.gather(working, hurrying, return_exceptions=True)


def store_of(settings: Settings) -> Store:
    """Return the unopened store that the settings name."""
    return open_store(
        settings.database_url,
        settings.data_dir,
        inbox_limit=settings.inbox_limit,
        sender_share=settings.sender_share,
        direct_url=settings.database_direct_url,
        clock=time.time,
    )


def start_tracing(settings: Settings, events: Events) -> Tracing | None:
    """Begin to make traces of events; None where they go nowhere. The SDK is an extra."""
    if settings.upkeep.tracing is None:
        return None
    from gateway.tracing import Tracing

    tracing = Tracing(settings.upkeep.tracing)
    events.subscribe(tracing.on_event)
    return tracing


def host_id() -> str:
    """Return a name for this process that no other one has: host name, pid, random."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
