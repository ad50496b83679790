"""Replaces the fork server: the old one is kept for as long as a worker lives that was forked from it.

A fork server has the code as it was when it started, so new code needs a new one. A worker dies with the fork server
it came from (see worker.channel), so the old one may end only after its last worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from dataclasses import dataclass
from typing import Protocol

from worker.pool.processes.worker_process import WorkerProcess


class ForkServer(Protocol):
    """What is touched of multiprocess.forkserver.ForkServer: its fields are all there is, it has no way to say this."""

    _lock: threading.Lock
    _forkserver_address: str | None
    _forkserver_alive_fd: int | None
    _forkserver_pid: int | None


@dataclass(slots=True, eq=False)
class Retired:
    """A fork server that forks no more: its lifeline, its process, and the workers that came from it."""

    lifeline: int
    pid: int
    workers: set[WorkerProcess]


class ForkServers:
    """Owns the fork servers that were replaced; ``current`` is the process library's own, which starts on demand.

    Who starts or ends something that may be forked at the same moment holds ``between_starts``.
    """

    def __init__(self, current: ForkServer) -> None:
        self._current = current
        self._workers: set[WorkerProcess] = set()
        self._retired: list[Retired] = []
        self.between_starts = asyncio.Lock()

    def join(self, worker: WorkerProcess) -> None:
        """Note a worker that came from the current one."""
        self._workers.add(worker)

    def retire(self) -> None:
        """Make the next start launch a new fork server.

        No start may be under way (``between_starts`` is held). The library's own way to stop a fork server waits for
        its end, and so for the last of its workers.
        """
        server = self._current
        with server._lock:
            lifeline, pid = server._forkserver_alive_fd, server._forkserver_pid
            server._forkserver_address = None
            server._forkserver_alive_fd = server._forkserver_pid = None
        if lifeline is not None and pid is not None:
            self._retired.append(Retired(lifeline, pid, self._workers))
            self._workers = set()

    async def leave(self, worker: WorkerProcess) -> None:
        """Note that a worker is gone; a replaced fork server that has none left ends."""
        self._workers.discard(worker)
        for server in list(self._retired):
            server.workers.discard(worker)
            if not server.workers:
                self._retired.remove(server)
                os.close(server.lifeline)
                with contextlib.suppress(ChildProcessError):
                    await asyncio.to_thread(os.waitpid, server.pid, 0)
