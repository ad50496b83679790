"""Health: ``/livez`` (the loop answers), ``/readyz`` (messages are accepted and can run), ``/metrics``."""

from __future__ import annotations

import time
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gateway.metrics import CONTENT_TYPE, Meter, PoolCollector, exposition
from gateway.readiness import Readiness
from gateway.responses import json_response
from gateway.state_metrics import StateCollector
from shared.budgets import Budgets
from shared.errors import StoreError, StoreUnavailable
from shared.store.port import Store

#: the store is asked at most once in this time, however often readiness is (seconds)
CHECK_FRESH_S = 1.0


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
    ) -> None:
        self._store = store
        self._budgets = budgets
        self._meter = meter
        self._pool_metrics = pool_metrics
        self._state_metrics = state_metrics
        self._readiness = readiness
        self._checked_at = -CHECK_FRESH_S
        self._store_problem = ""

    async def livez(self, _: Request) -> Response:
        """Answer that the loop runs."""
        return PlainTextResponse("ok\n")

    async def readyz(self, _: Request) -> Response:
        """Answer 200 when a message can be accepted and run, else 503 and why."""
        reason = self._readiness.not_ready() or await self._problem_of_the_store()
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

    async def _problem_of_the_store(self) -> str:
        now = time.monotonic()
        if now - self._checked_at >= CHECK_FRESH_S:
            self._checked_at = now
            try:
                await self._store.check()
                self._store_problem = ""
            except StoreError as error:
                self._store_problem = f"the store cannot commit: {error}"
        return self._store_problem
