"""Owns the workers that hold no slot yet: those that start, and the spares that are ready.

A start that fails is tried again, each time later; a worker that ends right after its start counts as one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

from shared.errors import WorkerFailedToStart
from shared.events import Event, Events
from worker.frames import Configure, Ready, WorkerConfig
from worker.pool.processes.worker_process import Spawned, WorkerProcess
from worker.pool.snapshot import WorkerState

#: the wait before a start after one that failed, in seconds; doubled for each further one
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 30.0


class Spares:
    """Starts workers until enough spares are ready.

    ``spawn`` starts a process (it blocks, so it is called in a thread), ``adopt`` makes the worker of it, ``on_ready``
    is called whenever a start came to an end, good or bad; ``start_timeout_s`` bounds one start.
    """

    def __init__(
        self,
        config: WorkerConfig,
        events: Events,
        spawn: Callable[[], Spawned],
        adopt: Callable[[Spawned], WorkerProcess],
        on_writable: Callable[[WorkerProcess], None],
        on_ready: Callable[[], None],
        start_timeout_s: float,
    ) -> None:
        self._config = config
        self._events = events
        self._spawn_process = spawn
        self._adopt = adopt
        self._on_writable = on_writable
        self._on_ready = on_ready
        self._start_timeout_s = start_timeout_s
        self.spares: list[WorkerProcess] = []
        self._starts: set[asyncio.Task[None]] = set()
        self._starting: set[WorkerProcess] = set()
        self.between_starts = asyncio.Lock()
        self._failures = 0
        self._preload_missed = False
        self._closing = asyncio.Event()

    @property
    def workers(self) -> Iterator[WorkerProcess]:
        """Every spare, and every worker that starts."""
        yield from self.spares
        yield from self._starting

    def want(self, count: int) -> None:
        """Start as many workers as are missing until this many are spare or starting."""
        if self._closing.is_set():
            return
        for _ in range(count - len(self.spares) - len(self._starts)):
            task = asyncio.get_running_loop().create_task(self._start_one())
            self._starts.add(task)
            task.add_done_callback(self._start_over)

    def take_spare(self) -> WorkerProcess | None:
        """Take the spare that has been ready longest; None if there is none."""
        spare = next((spare for spare in self.spares if spare.usable), None)
        if spare is not None:
            self.spares.remove(spare)
        return spare

    def count_failure(self) -> None:
        """Count a start as failed, so that the next one waits longer."""
        self._failures += 1

    def forget(self, worker: WorkerProcess) -> None:
        """Drop a worker that has ended."""
        self._starting.discard(worker)
        with contextlib.suppress(ValueError):
            self.spares.remove(worker)

    def give_up(self) -> list[WorkerProcess]:
        """Return the spares, which are none any more; what is starting now will end as soon as it is ready."""
        for worker in self._starting:
            worker.expected = True
        given_up, self.spares = self.spares, []
        return given_up

    def stop(self) -> None:
        """Start nothing any more; what is here ends at once."""
        self._closing.set()
        for worker in self.workers:
            worker.dismiss()

    async def settle(self) -> None:
        """Wait until no start is under way."""
        while self._starts:
            await asyncio.wait(self._starts)

    def _start_over(self, task: asyncio.Task[None]) -> None:
        """Count a start that failed, whatever it failed of, and go on."""
        self._starts.discard(task)
        error = task.exception()
        if error is not None and not self._closing.is_set():
            self.count_failure()
            problem = str(error) or type(error).__name__
            self._events.emit(Event.WORKER_FAILED_TO_START, error=problem, failures=self._failures)
        self._on_ready()

    async def _start_one(self) -> None:
        """Start one worker; it is a spare once it is ready. Raises WorkerFailedToStart, OSError, EOFError."""
        if self._failures:
            delay_s = min(FIRST_BACKOFF_S * 2 ** (self._failures - 1), LONGEST_BACKOFF_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), delay_s)
        worker = await self._spawn()
        took_ms = await self._until_ready(worker)
        if worker.expected:
            worker.dismiss()
            return
        worker.state = WorkerState.SPARE
        self._starting.discard(worker)
        self.spares.append(worker)
        self._events.emit(Event.WORKER_READY, pid=worker.pid, took_ms=took_ms)

    async def _spawn(self) -> WorkerProcess:
        async with self.between_starts:
            if self._closing.is_set():
                raise WorkerFailedToStart("the pool is closing")
            spawned = await asyncio.to_thread(self._spawn_process)
        worker = self._adopt(spawned)
        self._starting.add(worker)
        self._events.emit(Event.WORKER_STARTED, pid=worker.pid)
        await worker.open(self._on_writable)
        worker.send(Configure(self._config))
        return worker

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
