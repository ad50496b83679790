"""Owns the workers that hold no slot yet: those that start, and the spares that are ready.

A start that fails is tried again, each time later; a worker that ends right after its start counts as one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

from shared.errors import WorkerFailedToStart
from shared.events import Event, Events
from shared.retry import doubled_s
from worker.frames import Configure, Ready, WorkerConfig
from worker.pool.feed import Feed
from worker.pool.processes.spawn import preload_of, spawn
from worker.pool.processes.worker_process import WorkerNews, WorkerProcess, WorkerState

#: the wait before a start after one that failed, in seconds; doubled for each further one
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 30.0


class Spares:
    """Starts workers, one a call, and keeps those that are ready.

    ``entry`` is the dotted name of the module a child runs; what workers do goes into the ``feed``;
    ``start_timeout_s`` bounds one start, which holds ``between_starts``.
    """

    def __init__(
        self,
        config: WorkerConfig,
        events: Events,
        entry: str,
        feed: Feed[WorkerNews],
        between_starts: asyncio.Lock,
        start_timeout_s: float,
    ) -> None:
        self._config = config
        self._events = events
        self._entry = entry
        self._feed = feed
        self._start_timeout_s = start_timeout_s
        self._ready: list[WorkerProcess] = []
        self._starting: set[WorkerProcess] = set()
        self._between_starts = between_starts
        self._failures = 0
        self._preload_missed = False
        self._closing = asyncio.Event()

    def __iter__(self) -> Iterator[WorkerProcess]:
        """Go through the spares that are ready, as they are now."""
        return iter(list(self._ready))

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def workers(self) -> Iterator[WorkerProcess]:
        """Every spare, and every worker that starts."""
        yield from self._ready
        yield from self._starting

    def take(self) -> WorkerProcess | None:
        """Take the spare that has been ready longest; None if there is none."""
        spare = next((spare for spare in self._ready if spare.usable), None)
        if spare is not None:
            self._ready.remove(spare)
        return spare

    async def spawn(self) -> WorkerProcess:
        """Start a worker, after a while where starts failed. Raises WorkerFailedToStart, OSError, EOFError."""
        if self._failures:
            delay_s = doubled_s(self._failures, FIRST_BACKOFF_S, LONGEST_BACKOFF_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), delay_s)
        async with self._between_starts:
            if self._closing.is_set():
                raise WorkerFailedToStart("the pool is closing")
            spawned = await asyncio.to_thread(spawn, self._entry, preload_of(self._config))
        worker = WorkerProcess(spawned, self._feed)
        self._starting.add(worker)
        self._events.emit(Event.WORKER_STARTED, pid=worker.pid)
        return worker

    async def make_ready(self, worker: WorkerProcess) -> None:
        """Tell a worker what it is to do and wait until it is ready: then it is a spare. Raises WorkerFailedToStart."""
        await worker.open()
        worker.send(Configure(self._config))
        took_ms = await self._until_ready(worker)
        if worker.expected:
            worker.dismiss()
            return
        worker.state = WorkerState.SPARE
        self._starting.discard(worker)
        self._ready.append(worker)
        self._events.emit(Event.WORKER_READY, pid=worker.pid, took_ms=took_ms)

    def start_failed(self, error: Exception) -> None:
        """Say that a start failed, whatever it failed of; the next one waits longer."""
        if not self._closing.is_set():
            self.count_failure()
            problem = str(error) or type(error).__name__
            self._events.emit(Event.WORKER_FAILED_TO_START, error=problem, failures=self._failures)

    def count_failure(self) -> None:
        """Count a start as failed, so that the next one waits longer."""
        self._failures += 1

    def forget(self, worker: WorkerProcess) -> None:
        """Drop a worker that has ended."""
        self._starting.discard(worker)
        with contextlib.suppress(ValueError):
            self._ready.remove(worker)

    def give_up(self) -> list[WorkerProcess]:
        """Return the spares, which are none any more; what is starting now will end as soon as it is ready."""
        for worker in self._starting:
            worker.expected = True
        given_up, self._ready = self._ready, []
        return given_up

    def stop(self) -> None:
        """Start nothing any more; what is here ends at once."""
        self._closing.set()
        for worker in self.workers:
            worker.dismiss()

    async def _until_ready(self, worker: WorkerProcess) -> int:
        """Wait until a worker is ready; return the milliseconds it took. Raises WorkerFailedToStart."""
        if self._closing.is_set():
            worker.dismiss()
        waits = [asyncio.ensure_future(event.wait()) for event in (worker.gone, worker.became_ready)]
        try:
            await asyncio.wait(waits, timeout=self._start_timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if worker.ready is None or worker.gone.is_set():
            worker.dismiss()
            raise WorkerFailedToStart(f"worker {worker.pid} did not become ready: {worker.exit_text}")
        self._failures = 0
        self._check_preload(worker.ready)
        return round((time.monotonic() - worker.started_mono) * 1000)

    def _check_preload(self, ready: Ready) -> None:
        """Say once that the preload did not take: the fork server skips what it cannot import without a word."""
        if not ready.preloaded and not self._preload_missed:
            self._preload_missed = True
            problem = "the fork server did not preload the SDKs: every worker starts slowly"
            self._events.emit(Event.WORKER_SAID, problem=problem)
