"""Owns the worker processes: starts them, keeps every slot filled and spares ready, ends them.

    start ── Ready ──> spare ── slot empty ──> placed ── retire ──> drains ──> ended
      └── no Ready in time: tried again, later and later                └── killed, died ──> ended

It knows no turn and no store. The pool listens: a worker was placed, said a frame, has ended.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import multiprocess
from multiprocess import forkserver, reduction, util

from shared.events import Event, Events, Say
from worker.forkserver.bootstrap import run_child
from worker.frames import Drain, WorkerConfig
from worker.pool.processes.fork_servers import ForkServers
from worker.pool.processes.observer import WorkerObserver
from worker.pool.processes.spares import Spares
from worker.pool.processes.worker_process import Spawned, WorkerProcess
from worker.pool.snapshot import WorkerState
from worker.pool.turns.crash_policy import Death
from worker.session_log.ring import LogRing, salvage
from worker.shared_page import SharedPage, anonymous_file

#: what the fork server imports before it forks, what its workers use between them; the last one freezes what was made
PRELOAD_FIRST = (
    "worker.forkserver.ignore_signals",
    "worker.forkserver.bootstrap",
    "worker.channel",
    "worker.forkserver.kill_orphans",
)
#: what workers with MCP servers use, and those that fetch pages
MCP_PRELOAD = ("worker.tools.mcp.connection", "jsonschema.validators")
FETCH_PRELOAD = ("worker.tools.fetch",)
PRELOAD_LAST = "worker.forkserver.preload"
#: how long a start may take until the worker is ready, in seconds
START_TIMEOUT_S = 60.0
#: a worker that ends sooner than this after its start without a finished turn counts as a start that failed, seconds
INFANT_S = 1.0


class PassedFd:
    """A file descriptor among a process's arguments: the child gets the number of its own copy."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __reduce__(self) -> tuple[object, ...]:
        return _received_fd, (reduction.DupFd(self._fd),)


class _Detachable(Protocol):
    def detach(self) -> int: ...


def _received_fd(passed: _Detachable) -> int:
    return passed.detach()


def preload_of(config: WorkerConfig) -> list[str]:
    """Return what a fork server imports for these workers: of the SDKs, seconds and tens of MiB each, what they use."""
    adapters = dict.fromkeys(f"worker.agent.models.{model.provider}" for model in config.models)
    tools = [*(MCP_PRELOAD if config.mcp_servers else ()), *(FETCH_PRELOAD if config.fetch_allow else ())]
    return [*PRELOAD_FIRST, *adapters, *tools, PRELOAD_LAST]


def spawn(entry: str, preload: list[str]) -> Spawned:
    """Start one child; blocks for milliseconds, the first time for seconds. Raises OSError and EOFError."""
    page = SharedPage.create()
    stacks_fd = anonymous_file("gatehouse-stacks")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        context = multiprocess.get_context("forkserver")
        context.set_forkserver_preload(preload)
        arguments = (PassedFd(theirs.fileno()), PassedFd(page.fd), PassedFd(stacks_fd), entry)
        process = context.Process(target=run_child, args=arguments, name="gatehouse-worker")
        process.start()
        server_pid = forkserver._forkserver._forkserver_pid or 0
    except BaseException:
        ours.close()
        page.close()
        os.close(stacks_fd)
        raise
    finally:
        theirs.close()
    return Spawned(process, server_pid, ours, page, stacks_fd)


def salvage_page(page: SharedPage, log_dir: Path, say: Say) -> int:
    """Write what a dead worker's ring holds to the session logs; blocks on the disk."""
    ring = LogRing(page.ring_memory)
    try:
        return salvage(ring, log_dir, say)
    finally:
        ring.release()


class Supervisor:
    """Owns every worker process of one pool.

    ``slots`` maps the number of each slot to the worker that holds it, None while there is none; ``entry`` is the
    dotted name of the module a child runs; ``restarts`` counts workers that ended without being asked to.
    """

    def __init__(
        self,
        slots: int,
        spares: int,
        config: WorkerConfig,
        events: Events,
        audience: WorkerObserver,
        *,
        entry: str = "worker.agent.child",
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self.slots: dict[int, WorkerProcess | None] = dict.fromkeys(range(slots))
        self.restarts = 0
        self._wanted_spares = spares
        self._awaiting: set[WorkerProcess] = set()
        self._log_dir = Path(config.log_dir) if config.log_dir else None
        self._events = events
        self._audience = audience
        self._leaving: set[WorkerProcess] = set()
        self._burials: set[asyncio.Task[None]] = set()
        self._closing = False
        self._at_exit: util.Finalize | None = None
        self._fork_servers = ForkServers(forkserver._forkserver)
        self._nursery = Spares(
            config,
            events,
            functools.partial(spawn, entry, preload_of(config)),
            lambda spawned: WorkerProcess(spawned, audience.worker_said, self._process_ended),
            audience.worker_writable,
            self.fill,
            start_timeout_s,
        )

    @property
    def spares(self) -> int:
        """Count the spares that are ready."""
        return sum(spare.usable for spare in self._nursery.spares)

    @property
    def workers(self) -> Iterator[WorkerProcess]:
        """Every worker that holds a slot or drains."""
        yield from (worker for worker in self.slots.values() if worker is not None)
        yield from self._leaving

    @property
    def all_workers(self) -> Iterator[WorkerProcess]:
        """Every worker that was ready once: those, and the spares."""
        yield from self.workers
        yield from self._nursery.spares

    def start(self) -> None:
        """Begin to fill the slots; returns at once."""
        # a process library left alone would wait at exit for children that wait for their parent
        self._at_exit = util.Finalize(None, self.kill_all, exitpriority=1)
        self.fill()

    def fill(self) -> None:
        """Give ready spares to empty slots, and start what is missing then."""
        if self._closing:
            return
        empty = [n for n, holder in self.slots.items() if holder is None]
        while empty and (spare := self._nursery.take_spare()):
            self._place(spare, empty.pop(0))
        # one for all that are to be replaced: they are, one after the other
        self._nursery.want(len(empty) + self._wanted_spares + bool(self._awaiting))

    def add_slot(self, n: int) -> None:
        """Have one more slot, filled like the others, on the loop's next round.

        Not at once: the audience must not hear of a placed worker from inside its own call.
        """
        if n not in self.slots:
            self.slots[n] = None
            asyncio.get_running_loop().call_soon(self.fill)

    def remove_slot(self, n: int) -> None:
        """Have one slot less; its worker drains and ends."""
        worker = self.slots.pop(n, None)
        if worker is not None:
            self._drain(worker)

    def replace(self, worker: WorkerProcess) -> bool:
        """Let a worker drain and end, a spare in its slot; False while no spare is ready (one is then started)."""
        if worker.n is None or self.slots.get(worker.n) is not worker:
            return True
        if self.spares:
            self._awaiting.discard(worker)
            self.slots[worker.n] = None
            self._drain(worker)
        else:
            self._awaiting.add(worker)
        self.fill()
        return worker not in self._awaiting

    async def renew(self) -> list[WorkerProcess]:
        """Start every later worker from the code that lies on disk now; return those that hold a slot meanwhile."""
        async with self._nursery.between_starts:
            self._fork_servers.retire({*self.workers, *self._nursery.workers})
            for spare in self._nursery.give_up():
                self._leaving.add(spare)
                spare.dismiss()
        self.fill()
        return [worker for worker in self.slots.values() if worker is not None]

    async def end(self, worker: WorkerProcess, death: Death, *, dump: bool) -> None:
        """Kill a worker's process group for this reason; returns once the signal is sent. The first reason stands."""
        if worker.death is not None:
            return
        await worker.kill(death, dump=dump)
        if worker.death is not None and worker.death.stacks:
            self._events.emit(Event.WORKER_STACKS, n=worker.n, pid=worker.pid, stacks=worker.death.stacks)
        self._events.emit(Event.WORKER_KILLED, n=worker.n, pid=worker.pid, cause=death.cause.value, error=death.error)

    def stop_filling(self) -> None:
        """Start and place nothing any more; spares and what is starting end at once."""
        self._closing = True
        self._nursery.stop()

    def drain_all(self) -> None:
        """Tell every worker to park its turns and end."""
        self.stop_filling()
        for n in list(self.slots):
            self.remove_slot(n)

    async def close(self) -> None:
        """End every process and wait until it is gone."""
        self.stop_filling()
        await self._nursery.settle()
        all_workers = {*self.workers, *self._nursery.workers}
        for worker in all_workers:
            worker.dismiss()
        for worker in all_workers:
            await worker.gone.wait()
        while self._burials:
            await asyncio.wait(self._burials)
        if self._at_exit is not None:
            self._at_exit.cancel()

    def kill_all(self) -> None:
        """SIGKILL every process group, in an interpreter that ends without ``close``."""
        for worker in {*self.workers, *self._nursery.workers}:
            worker.kill_now()

    def _place(self, worker: WorkerProcess, n: int) -> None:
        worker.n = n
        worker.state = WorkerState.READY
        self.slots[n] = worker
        self._audience.worker_placed(worker)

    def _drain(self, worker: WorkerProcess) -> None:
        self._leaving.add(worker)
        if worker.death is None:
            worker.state = WorkerState.DRAINING
            worker.expected = True
        if not worker.send(Drain()):
            worker.kill_now()

    def _process_ended(self, worker: WorkerProcess) -> None:
        """Tell the audience, fill the slot again, and write what the worker's log ring holds."""
        death = worker.how_it_ended()
        if not worker.expected and worker.ready is not None:
            self._count_loss(worker, death)
        if worker.n is not None:
            self._audience.worker_ended(worker, death)
            if self.slots.get(worker.n) is worker:
                self.slots[worker.n] = None
        self._nursery.forget(worker)
        self._leaving.discard(worker)
        self._awaiting.discard(worker)
        burial = asyncio.get_running_loop().create_task(self._bury(worker))
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)
        self.fill()

    def _count_loss(self, worker: WorkerProcess, death: Death) -> None:
        self.restarts += 1
        if not worker.turns_done and time.monotonic() - worker.started_mono < INFANT_S:
            self._nursery.count_failure()
        self._events.emit(
            Event.WORKER_DIED,
            n=worker.n,
            pid=worker.pid,
            cause=death.cause.value,
            error=death.error or worker.exit_text,
        )

    async def _bury(self, worker: WorkerProcess) -> None:
        """Write the session log lines a worker left and give back what the parent held of it."""
        if worker.n is not None and self._log_dir is not None:
            lines = await asyncio.to_thread(salvage_page, worker.page, self._log_dir, self._events.emit)
            if lines:
                self._events.emit(Event.SESSION_LOG_SALVAGED, n=worker.n, pid=worker.pid, lines=lines)
        worker.release()
        await self._fork_servers.leave(worker)
