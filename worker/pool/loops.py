"""Owns the pool's tasks: the loops that run as long as it does, and what is done once beside them.

Whatever goes wrong in a loop is told, and the loop goes on: one that ended would hold up every message.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from shared.errors import StoreUnavailable
from shared.events import Events
from worker.pool.faults import tell_fault
from worker.pool.store_health import StoreHealth

#: how long a loop rests that failed in a way nobody expected, in seconds
FAULT_PAUSE_S = 1.0


class Loops:
    """Runs loops and tasks until it is closed; ``failing`` names the loops whose last round failed unexpectedly."""

    def __init__(self, events: Events, health: StoreHealth) -> None:
        self.failing: set[str] = set()
        self._events = events
        self._health = health
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def always(
        self, what: str, do_round: Callable[[], Awaitable[None]], until: asyncio.Event | None = None
    ) -> asyncio.Task[None]:
        """Do rounds, whatever one of them ends with, for ever or ``until`` this is set, which cuts a pause short."""
        return self.spawn(what, self._always(what, do_round, until or asyncio.Event()))

    def keep(self, what: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Do what ends by itself or never; it is begun anew where it ends with an exception."""
        ended = asyncio.Event()

        async def to_its_end() -> None:
            await work()
            ended.set()

        return self.always(what, to_its_end, until=ended)

    def spawn(self, what: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something once, beside everything else; what goes wrong with it is told."""
        task = asyncio.get_running_loop().create_task(work, name=what)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        if self._closed:
            task.cancel()
        return task

    async def close(self) -> None:
        """End every loop and every task; what comes later is not begun."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _always(self, what: str, do_round: Callable[[], Awaitable[None]], until: asyncio.Event) -> None:
        while not until.is_set():
            try:
                await do_round()
            except StoreUnavailable as error:
                self._health.failed(error)
                await pause(self._health.pause_s, until)
            except Exception as error:  # noqa: BLE001 - the boundary of a loop
                tell_fault(self._events, what, error)
                self.failing.add(what)
                await pause(FAULT_PAUSE_S, until)
            else:
                self.failing.discard(what)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            tell_fault(self._events, task.get_name(), error)


async def pause(pause_s: float, until: asyncio.Event) -> None:
    """Wait so long, or until this is set."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(until.wait(), pause_s)
