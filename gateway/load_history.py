"""How loaded the gateway was in the last hour: a sample every few seconds, in memory, for the console's plots."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress

import msgspec
import psutil
from starlette.requests import Request
from starlette.responses import Response

from gateway.metrics import LoopLag
from gateway.responses import json_response
from shared.errors import StoreUnavailable
from shared.messages import Dead, Ended, Outcome
from shared.store.port import Store
from shared.traces import Backlog
from worker.pool import Pool

SAMPLE_EVERY_S = 5.0
#: samples kept: an hour
SAMPLES = 720


class LoadSample(msgspec.Struct, frozen=True):
    """The load at one moment."""

    at: float  #: unix seconds
    waiting: int  #: accepted messages whose turn has not begun
    running: int  #: turns that run now
    undelivered: int  #: replies that no platform has taken yet
    dead: int  #: dead letters
    oldest_s: float  #: how long the oldest waiting message has waited, in seconds
    lag_ms: float  #: how late the loop ran its latest timer at the most since the sample before, in milliseconds
    tokens_per_min: float  #: tokens of the turns that ended since the sample before, read and written, a minute
    gateway_rss_bytes: int
    workers_rss_bytes: int


class LoadHistory:
    """Owns the samples; an observer of outcomes, whose tokens it counts."""

    def __init__(self, store: Store, pool: Pool, lag: LoopLag) -> None:
        self._store = store
        self._pool = pool
        self._lag = lag
        self._process = psutil.Process()
        self._tokens = 0
        self.samples: deque[LoadSample] = deque(maxlen=SAMPLES)

    def settled(self, session: str, outcome: Outcome) -> None:  # noqa: ARG002 - the observer's signature
        """Count the tokens of a turn."""
        if isinstance(outcome, Ended | Dead):
            self._tokens += outcome.usage.input_tokens + outcome.usage.output_tokens

    async def run(self) -> None:
        """Take samples, for ever; while the store is away none is taken."""
        began = time.monotonic()
        while True:
            with suppress(StoreUnavailable):
                backlog = await self._store.inbox.backlog()
                now = time.monotonic()
                self.samples.append(self._sample(backlog, now - began))
                began = now
            await asyncio.sleep(SAMPLE_EVERY_S)

    async def stats(self, _: Request) -> Response:
        """Answer the samples, oldest first (``GET /v1/stats``)."""
        return json_response({"every_s": SAMPLE_EVERY_S, "samples": tuple(self.samples)})

    def _sample(self, backlog: Backlog, elapsed_s: float) -> LoadSample:
        tokens, self._tokens = self._tokens, 0
        snapshot, (running, _) = self._pool.snapshot(), self._pool.load
        return LoadSample(
            at=time.time(),
            waiting=max(0, backlog.waiting - running),
            running=running,
            undelivered=backlog.undelivered,
            dead=backlog.dead,
            oldest_s=backlog.oldest_s,
            lag_ms=self._lag.take_worst_s() * 1000,
            tokens_per_min=tokens / elapsed_s * 60 if elapsed_s > 1 else 0.0,
            gateway_rss_bytes=self._process.memory_info().rss,
            workers_rss_bytes=sum(row.rss_bytes for row in snapshot.workers),
        )
