"""Health: ``/livez`` (the loop answers), ``/readyz`` (messages are accepted and can run), ``/metrics``."""

from __future__ import annotations

from contextlib import suppress

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gateway.metrics import CONTENT_TYPE, Meter, PoolCollector, exposition
from gateway.readiness import Readiness
from gateway.responses import json_response
from gateway.state_metrics import StateCollector
from gateway.storage_watch import StorageWatch
from shared.budgets import Budgets
from shared.errors import StoreUnavailable
from shared.store.port import Store


class Health:
    """Answers probes."""

    def __init__(
        self,
        store: Store,
        budgets: Budgets,
        meter: Meter,
        pool_metrics: PoolCollector,
        state_metrics: StateCollector,
        readiness: Readiness,
        storage: StorageWatch,
    ) -> None:
        self._store = store
        self._budgets = budgets
        self._meter = meter
        self._pool_metrics = pool_metrics
        self._state_metrics = state_metrics
        self._readiness = readiness
        self._storage = storage

    async def livez(self, _: Request) -> Response:
        """Answer that the loop runs."""
        return PlainTextResponse("ok\n")

    async def readyz(self, _: Request) -> Response:
        """Answer 200 when a message can be accepted and run, else 503 and why."""
        reason = self._readiness.not_ready() or await self._storage.look()
        if reason:
            return json_response({"status": "not ready", "reason": reason}, 503)
        return json_response({"status": "ready"})

    async def metrics(self, _: Request) -> Response:
        """Answer every metric in Prometheus' text format."""
        with suppress(StoreUnavailable):  # the last known count stands; gatehouse_events_total tells of the store
            backlog = self._state_metrics.backlog = await self._store.inbox.backlog()
            self._pool_metrics.waiting = backlog.waiting
            if self._budgets:
                self._pool_metrics.accounts = await self._store.spending.accounts(self._budgets, limit=1)
        return Response(exposition(self._meter.registry), media_type=CONTENT_TYPE)
