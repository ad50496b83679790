"""Says once that the store cannot commit, and once that it can again; has work wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shared.errors import StoreUnavailable
from shared.events import Event, Events

#: the waits between two tries, in seconds
FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 5.0

Result = TypeVar("Result")


class Outage:
    """Whether the store is away, as this host sees it."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._since: float | None = None

    def seen(self, error: StoreUnavailable) -> None:
        """Note that the store refused."""
        if self._since is None:
            self._since = time.monotonic()
            self._events.emit(Event.STORE_UNAVAILABLE, error=str(error))

    def over(self) -> None:
        """Note that the store did what it was asked."""
        if self._since is not None:
            self._events.emit(Event.STORE_RECOVERED, after_s=round(time.monotonic() - self._since, 1))
            self._since = None

    async def outlast(self, operation: Callable[[], Awaitable[Result]]) -> Result:
        """Run an operation of the store until the store does it; its other errors are raised."""
        delay_s = FIRST_RETRY_S
        while True:
            try:
                result = await operation()
            except StoreUnavailable as error:
                self.seen(error)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, LONGEST_RETRY_S)
            else:
                self.over()
                return result
