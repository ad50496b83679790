"""Replaces every worker, one at a time, by one with the code and tools that lie on disk now.

Workers that run go on until a new one is ready to take their slot; then they park their turns at the next step
boundary, and the turns resume elsewhere. Code that cannot be imported leaves everything as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from shared.events import Event, Events
from worker.pool.processes.worker_process import WorkerProcess
from worker.pool.supervisor import Supervisor

#: seconds between two looks for a spare
LOOK_S = 0.05
#: how long a worker that drains is waited for before the next one follows, in seconds
DRAIN_S = 60.0


class RollingRestart:
    """Owns the order in which they are replaced."""

    def __init__(self, supervisor: Supervisor, events: Events) -> None:
        self._supervisor = supervisor
        self._events = events
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Replace all workers soon; once more if it is asked for again while that goes on."""
        self._asked.set()

    async def due(self) -> AsyncIterator[WorkerProcess]:
        """Give, whenever it was asked for, each worker that is to be replaced now, again until it is; for ever."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            outdated = await self._supervisor.renew()
            self._events.emit(Event.RENEWING, workers=len(outdated))
            for worker in outdated:
                while self._supervisor.holds_slot(worker):
                    yield worker
                    if self._supervisor.holds_slot(worker):  # no spare is ready yet
                        await asyncio.sleep(LOOK_S)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(worker.gone.wait(), DRAIN_S)
            self._events.emit(Event.RENEWED, workers=len(outdated))
