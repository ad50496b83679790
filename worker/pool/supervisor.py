"""Owns the worker processes: starts them, keeps every slot filled and spares ready, ends them.

    start ── Ready ──> spare ── slot empty ──> placed ── retire ──> drains ──> ended
      └── no Ready in time: tried again, later and later                └── killed, died ──> ended

It knows no turn and no store. What workers do it tells in its ``news``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import multiprocess
from multiprocess import forkserver, util

from shared.events import Emit, Event, Events
from worker import os_processes
from worker.frames import Drain, Serve, WorkerConfig
from worker.pool.feed import Feed
from worker.pool.processes.death import Death
from worker.pool.processes.fork_servers import ForkServers
from worker.pool.processes.spares import Spares
from worker.pool.processes.worker_process import WorkerEnded, WorkerNews, WorkerPlaced, WorkerProcess, WorkerState
from worker.session_log.ring import LogRing, salvage
from worker.shared_page import SharedPage

#: how long a start may take until the worker is ready, in seconds
START_TIMEOUT_S = 60.0
#: a worker that ends sooner than this after its start without a finished turn counts as a start that failed, seconds
INFANT_S = 1.0


def salvage_page(page: SharedPage, log_dir: Path, emit: Emit) -> int:
    """Write what a dead worker's ring holds to the session logs; blocks on the disk."""
    ring = LogRing(page.ring_memory)
    try:
        return salvage(ring, log_dir, emit)
    finally:
        ring.release()


class Supervisor:
    """Owns every worker process of one pool.

    ``slots`` maps the number of each slot to the worker that holds it, None while there is none; ``entry`` is the
    dotted name of the module a child runs; ``beside`` owns the other processes that come from the same fork server;
    ``restarts`` counts workers that ended without being asked to.
    """

    def __init__(
        self,
        slots: int,
        spares: int,
        config: WorkerConfig,
        events: Events,
        *,
        entry: str = "worker.agent.child",
        beside: Supervisor | None = None,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self.slots: dict[int, WorkerProcess | None] = dict.fromkeys(range(slots))
        self.news: Feed[WorkerNews] = Feed()
        self.restarts = 0
        self._wanted_spares = spares
        self._awaiting: set[WorkerProcess] = set()
        self._log_dir = Path(config.log_dir) if config.log_dir else None
        self._events = events
        self._leaving: set[WorkerProcess] = set()
        self._starts: set[asyncio.Task[None]] = set()
        self._lives: set[asyncio.Task[None]] = set()
        self._closing = False
        self._at_exit: util.Finalize | None = None
        self._fork_servers: ForkServers = beside._fork_servers if beside else ForkServers(forkserver._forkserver)
        self._spares = Spares(config, events, entry, self.news, self._fork_servers.between_starts, start_timeout_s)

    @property
    def spares(self) -> list[WorkerProcess]:
        """The spares that are ready."""
        return [spare for spare in self._spares if spare.usable]

    @property
    def workers(self) -> Iterator[WorkerProcess]:
        """Every worker that holds a slot or drains."""
        yield from (worker for worker in self.slots.values() if worker is not None)
        yield from self._leaving

    @property
    def all_workers(self) -> Iterator[WorkerProcess]:
        """Every worker that was ready once: those, and the spares."""
        yield from self.workers
        yield from self._spares

    def start(self) -> None:
        """Begin to fill the slots; returns at once."""
        # a process library left alone would wait at exit for children that wait for their parent
        self._at_exit = util.Finalize(None, self.kill_all, exitpriority=1)
        self._fill()

    def add_slot(self, n: int) -> None:
        """Have one more slot, filled like the others."""
        if n not in self.slots:
            self.slots[n] = None
            self._fill()

    def remove_slot(self, n: int) -> None:
        """Have one slot less; its worker drains and ends."""
        worker = self.slots.pop(n, None)
        if worker is not None:
            self._drain(worker)

    def holds_slot(self, worker: WorkerProcess) -> bool:
        """Tell whether a worker holds its slot still."""
        return worker.n is not None and self.slots.get(worker.n) is worker

    def replace(self, worker: WorkerProcess) -> bool:
        """Let a worker drain and end, a spare in its slot; False while no spare is ready (one is then started)."""
        if worker.n is None or not self.holds_slot(worker):
            return True
        if self.spares:
            self._awaiting.discard(worker)
            self.slots[worker.n] = None
            self._drain(worker)
        else:
            self._awaiting.add(worker)
        self._fill()
        return worker not in self._awaiting

    async def renew(self) -> list[WorkerProcess]:
        """Start every later worker from the code that lies on disk now; return those that hold a slot meanwhile."""
        async with self._fork_servers.between_starts:
            self._fork_servers.retire()
            for spare in self._spares.give_up():
                self._leaving.add(spare)
                spare.dismiss()
        self._fill()
        return [worker for worker in self.slots.values() if worker is not None]

    async def end(self, worker: WorkerProcess, death: Death, *, dump: bool) -> None:
        """Kill a worker's process group for this reason; returns once the signal is sent. The first reason stands."""
        if worker.death is not None:
            return
        await worker.kill(death, dump=dump)
        if worker.death is not None and worker.death.stacks:
            self._events.emit(Event.WORKER_STACKS, n=worker.n, pid=worker.pid, stacks=worker.death.stacks)
        self._events.emit(Event.WORKER_KILLED, n=worker.n, pid=worker.pid, cause=death.cause.value, error=death.error)

    async def end_hung(self, worker: WorkerProcess, death: Death, message: str = "") -> None:
        """Say that a worker hangs, in the turn of which message if one is named, and kill it with its stacks dumped."""
        named = {"message": message} if message else {}
        self._events.emit(
            Event.WORKER_HUNG, n=worker.n, pid=worker.pid, cause=death.cause.value, error=death.error, **named
        )
        await self.end(worker, death, dump=True)

    def kill_slot(self, n: int) -> bool:
        """SIGKILL the worker in a slot without a word; False if there is none."""
        worker = next((worker for worker in self.workers if worker.n == n), None)
        if worker is not None:
            worker.kill_now()
        return worker is not None

    def stop_filling(self) -> None:
        """Start and place nothing any more; spares and what is starting end at once."""
        self._closing = True
        self._spares.stop()

    def drain_all(self) -> None:
        """Tell every worker to park its turns and end."""
        self.stop_filling()
        for n in list(self.slots):
            self.remove_slot(n)

    async def close(self) -> None:
        """End every process and wait until it is gone."""
        self.stop_filling()
        while self._starts:
            await asyncio.wait(self._starts)
        for worker in {*self.workers, *self._spares.workers}:
            worker.dismiss()
        while self._lives:
            await asyncio.wait(self._lives)
        if self._at_exit is not None:
            self._at_exit.cancel()

    def kill_all(self) -> None:
        """SIGKILL every process group, in an interpreter that ends without ``close``."""
        for worker in {*self.workers, *self._spares.workers}:
            worker.kill_now()

    def _fill(self) -> None:
        """Give ready spares to empty slots, and start what is missing then."""
        if self._closing:
            return
        empty = [n for n, holder in self.slots.items() if holder is None]
        while empty and (spare := self._spares.take()):
            self._place(spare, empty.pop(0))
        # one for all that are to be replaced: they are, one after the other
        wanted = len(empty) + self._wanted_spares + bool(self._awaiting)
        for _ in range(wanted - len(self._spares) - len(self._starts)):
            start = asyncio.get_running_loop().create_task(self._start_one())
            self._starts.add(start)
            start.add_done_callback(self._start_over)

    def _start_over(self, start: asyncio.Task[None]) -> None:
        """See what is missing once a start came to its end, good or bad."""
        self._starts.discard(start)
        self._fill()

    def _place(self, worker: WorkerProcess, n: int) -> None:
        worker.n = n
        worker.state = WorkerState.READY
        self.slots[n] = worker
        worker.send(Serve())
        self.news.put(WorkerPlaced(worker))

    async def _start_one(self) -> None:
        try:
            worker = await self._spares.spawn()
            self._fork_servers.join(worker)
            life = asyncio.get_running_loop().create_task(self._attend(worker))
            self._lives.add(life)
            life.add_done_callback(self._lives.discard)
            await self._spares.make_ready(worker)
        except Exception as error:  # noqa: BLE001 - whatever a start fails of, the next one is tried
            self._spares.start_failed(error)

    async def _attend(self, worker: WorkerProcess) -> None:
        """Wait for a worker's end, tell of it, fill its slot again, and write what its log ring holds."""
        await worker.gone.wait()
        death = worker.how_it_ended()
        if not worker.expected and worker.ready is not None:
            self._count_loss(worker, death)
        if worker.n is not None:
            self.news.put(WorkerEnded(worker, death))
            if self.holds_slot(worker):
                self.slots[worker.n] = None
        self._spares.forget(worker)
        self._leaving.discard(worker)
        self._awaiting.discard(worker)
        self._fill()
        await self._release(worker)

    def _drain(self, worker: WorkerProcess) -> None:
        self._leaving.add(worker)
        if worker.death is None:
            worker.state = WorkerState.DRAINING
            worker.expected = True
        if not worker.send(Drain()):
            worker.kill_now()

    def _count_loss(self, worker: WorkerProcess, death: Death) -> None:
        self.restarts += 1
        if not worker.turns_done and time.monotonic() - worker.started_mono < INFANT_S:
            self._spares.count_failure()
        self._events.emit(
            Event.WORKER_DIED,
            n=worker.n,
            pid=worker.pid,
            cause=death.cause.value,
            error=death.error or worker.exit_text,
        )

    async def _release(self, worker: WorkerProcess) -> None:
        """Write the session log lines a worker left and give back what the parent held of it."""
        try:
            if worker.n is not None and self._log_dir is not None:
                lines = await asyncio.to_thread(salvage_page, worker.page, self._log_dir, self._events.emit)
                if lines:
                    self._events.emit(Event.SESSION_LOG_SALVAGED, n=worker.n, pid=worker.pid, lines=lines)
        except Exception as error:  # noqa: BLE001 - what is lost here is looked for by the audit of the logs
            self._events.emit(Event.SESSION_LOG_FAILED, n=worker.n, pid=worker.pid, error=f"not salvaged: {error}")
        finally:
            worker.release()
            await self._end_orphans(worker.server_pid)
            await self._fork_servers.leave(worker)

    async def _end_orphans(self, server_pid: int) -> None:
        """End what a worker left to its fork server: programs in sessions of their own that its tools had started."""
        async with self._fork_servers.between_starts:  # what is forked now is a worker too, and not known yet
            known = {process.pid for process in multiprocess.active_children()}  # another pool's among them
            for pid in os_processes.children(server_pid):
                if pid not in known and os_processes.alive(pid):
                    os_processes.kill((pid, *os_processes.descendants(pid)))
