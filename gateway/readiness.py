"""Whether this gateway takes work now, and why not."""

from __future__ import annotations

from typing import Protocol


class PoolState(Protocol):
    """What is asked of the pool."""

    @property
    def ready(self) -> bool:
        """Tell whether a worker can take turns now."""

    @property
    def other_hosts(self) -> int:
        """How many other hosts with workers live."""


class Readiness:
    """Tells whether work is taken; ``workers`` is how many worker processes the settings ask for."""

    def __init__(self, workers: int, pool: PoolState) -> None:
        self._workers = workers
        self._pool = pool
        self.stopping = False  #: set once the gateway begins to stop

    def not_ready(self) -> str:
        """Return why messages cannot be accepted and run now, empty if they can."""
        if self.stopping:
            return "the gateway is stopping"
        if self._workers and not self._pool.ready:
            return "no worker is ready yet"
        return ""

    def refuses_calls(self) -> str:
        """Return why no call is taken now, empty if they are; one that comes before the first worker waits for it."""
        if self.stopping:
            return "the gateway is stopping"
        if not self._workers and not self._pool.other_hosts:
            return (
                "this gateway runs no workers (GATEHOUSE_WORKERS is 0) and no host with workers lives, "
                "so no call would be answered"
            )
        return ""
