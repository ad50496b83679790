"""Replaces the fork server: the old one is kept for as long as a worker lives that was forked from it.

A fork server has the code as it was when it started, so new code needs a new one. A worker dies with the fork server
it came from (see worker.channel), so the old one may end only after its last worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterable
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
    """Owns the fork servers that were replaced; ``current`` is the process library's own, which starts on demand."""

    def __init__(self, current: ForkServer) -> None:
        self._current = current
        self._retired: list[Retired] = []

    def retire(self, workers: Iterable[WorkerProcess]) -> None:
        """Make the next start launch a new fork server; ``workers`` are all that came from the one that runs.

        No start may be under way. The library's own way to stop a fork server waits for its end, and so for the last
        of these workers.
        """
        server = self._current
        with server._lock:
            lifeline, pid = server._forkserver_alive_fd, server._forkserver_pid
            server._forkserver_address = None
            server._forkserver_alive_fd = server._forkserver_pid = None
        if lifeline is not None and pid is not None:
            self._retired.append(Retired(lifeline, pid, set(workers)))

    async def leave(self, worker: WorkerProcess) -> None:
        """Note that a worker is gone; a replaced fork server that has none left ends."""
        for server in list(self._retired):
            server.workers.discard(worker)
            if not server.workers:
                self._retired.remove(server)
                os.close(server.lifeline)
                with contextlib.suppress(ChildProcessError):
                    await asyncio.to_thread(os.waitpid, server.pid, 0)
