"""A host of workers with no HTTP in: claims sessions of a database that many hosts share, and runs their turns.

Health and metrics have a port of their own: ``/livez``, ``/readyz`` and ``/metrics``. They answer while an old database
is brought to this release's schema, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator

import uvicorn
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from shared.api_keys import digest_of, parse_entry
from shared.errors import StoreError
from shared.events import Event, Events
from shared.messages import Outcome
from shared.opening import Opening, opened_before
from shared.session_segments import remove_old_logs
from shared.settings import Settings
from shared.store import Store, open_store
from worker.pool import Pool
from worker.pool.loops import Loops
from worker.pool.store_health import StoreHealth

#: how long turns may take to a step boundary when the host ends, in seconds
DRAIN_S = 15.0
#: how often old logs are looked for, in seconds
REMOVE_EVERY_S = 3600.0
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class NobodyWatches:
    """The observer of a host that no page and no client is connected to."""

    def turn_started(self, message_id: str, session: str, worker: str) -> None:
        """A turn was given to a worker, not for the first time if an earlier one was lost."""

    def delta(self, message_id: str, session: str, step: int, text: str) -> None:
        """The model wrote this much more text in this step."""

    def text_restarted(self, message_id: str, session: str, step: int) -> None:
        """The text told of this step is void: the model begins it again."""

    def model_away(self, message_id: str, session: str, model: str, problem: str) -> None:
        """No model can answer now, for this reason; the turn waits for this one, inside its time."""

    def tool_started(self, message_id: str, session: str, name: str) -> None:
        """A tool call begins."""

    def tool_said(self, message_id: str, session: str, name: str, text: str) -> None:
        """A running tool told how far it is."""

    def todo_changed(self, session: str, todo: bytes) -> None:
        """A tool call changed the session's todo list (JSON array); the turn goes on."""

    def settling(self, session: str) -> None:
        """A turn's outcome goes to the store now."""

    def settled(self, message_id: str, session: str, outcome: Outcome) -> None:
        """The claim of the message ended this way; it is committed."""


class HostMetrics(Collector):
    """What the pool and the events of this host say at the moment of a scrape."""

    def __init__(self, pool: Pool, events: Events) -> None:
        self._pool = pool
        self._events = events

    def collect(self) -> Iterator[Metric]:
        """Yield every family anew, under the names that a gateway gives them."""
        snapshot = self._pool.snapshot()
        yield GaugeMetricFamily("gatehouse_running_turns", "Turns running", snapshot.running)
        yield CounterMetricFamily("gatehouse_worker_restarts", "Workers replaced", snapshot.restarts)
        yield GaugeMetricFamily("gatehouse_spares", "Warm spare workers", snapshot.spares)
        events = CounterMetricFamily("gatehouse_events", "Events by name", labels=["event"])
        for event in Event:
            events.add_metric([event.value], self._events.counts[event])
        yield events


class WorkerHost:
    """One running host: its store (the one the settings name by default), its pool, its page of health."""

    def __init__(self, settings: Settings, events: Events, store: Store | None = None) -> None:
        self._settings = settings
        self._events = events
        self._store = store or open_store(
            settings.database_url,
            settings.data_dir,
            inbox_limit=settings.inbox_limit,
            sender_share=settings.sender_share,
            direct_url=settings.database_direct_url,
        )
        name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.pool = Pool(settings, self._store, events, NobodyWatches(), name, gateway=False)
        self._opening = Opening(events.emit)
        self._registry = CollectorRegistry()
        self._registry.register(HostMetrics(self.pool, events))

    async def run(self) -> None:
        """Run turns until a signal ends the host. Raises StoreUnusable, StoreUnavailable, and OSError for its port."""
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        loop.add_signal_handler(signal.SIGHUP, self.pool.renew)
        opening = asyncio.create_task(self._store.open(self._opening.tell))
        await opened_before(opening, self._opening.takes_time)
        listener = socket.create_server((self._settings.host, self._settings.port))
        page = _Page(uvicorn.Config(self._app(), log_config=None, access_log=False, lifespan="off"))
        serving = asyncio.create_task(page.serve([listener]))
        self._tell_start(listener)
        try:
            if await opened_before(opening, stopped):
                self._opening.finish()
                await self._work(stopped)
            else:
                self._events.emit(Event.STOPPING)
                opening.cancel()
        finally:
            page.should_exit = True
            await serving
            await self._store.close()
        self._events.emit(Event.STOPPED)

    async def _work(self, stopped: asyncio.Event) -> None:
        """Run turns until the host is stopped."""
        starting = asyncio.create_task(self.pool.start())
        loops = Loops(self._events, StoreHealth(self._events))
        loops.keep("removing old logs", self._remove_old_logs)
        starting.add_done_callback(lambda _: self._events.emit(Event.READY, workers=self._settings.workers))
        await stopped.wait()
        self._events.emit(Event.STOPPING)
        starting.cancel()
        await loops.close()
        await self.pool.drain(DRAIN_S)
        await self.pool.close()

    def _tell_start(self, listener: socket.socket) -> None:
        host, port = listener.getsockname()[:2]
        self._events.emit(
            Event.STARTED, url=f"http://{host}:{port}", host=host, port=port, pid=os.getpid(), kind="worker host"
        )

    async def _remove_old_logs(self) -> None:
        """Remove what is old of the session logs that lie here, for ever."""
        keep_s, log_dir = self._settings.upkeep.keep_logs_s, self._settings.data_dir / "logs"
        while keep_s is not None:
            removed = await asyncio.to_thread(remove_old_logs, log_dir, time.time() - keep_s)
            if removed:
                self._events.emit(Event.OLD_REMOVED, sessions=0, log_files=removed)
            await asyncio.sleep(REMOVE_EVERY_S)

    def _app(self) -> Starlette:
        routes = [
            Route("/livez", self._livez),
            Route("/readyz", self._readyz),
            Route("/metrics", self._metrics),
        ]
        return Starlette(routes=routes)

    async def _livez(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _: Request) -> Response:
        if not self._opening.done:
            return PlainTextResponse(f"{self._opening.reason}\n", 503)
        if not self.pool.ready:
            return PlainTextResponse("no worker is ready\n", 503)
        try:
            await self._store.check()
        except StoreError as error:
            return PlainTextResponse(f"{error}\n", 503)
        return PlainTextResponse("ok\n")

    async def _metrics(self, request: Request) -> Response:
        secret = request.headers.get("authorization", "").removeprefix("Bearer ")
        known = {parse_entry(entry).digest for entry in self._settings.api_keys}
        if known and digest_of(secret) not in known:
            return PlainTextResponse("a key is needed\n", 401, {"WWW-Authenticate": "Bearer"})
        return Response(generate_latest(self._registry), media_type=METRICS_TYPE)


class _Page(uvicorn.Server):
    """Serves without taking over the signals, which are the host's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def idle(explain: Callable[[], None]) -> None:
    """Explain why there is nothing to do, and do nothing until a signal ends the process."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    explain()
    await stopped.wait()
