"""Whether the store works, said once when that changes; how long to wait before the next try."""

from __future__ import annotations

from shared.errors import StoreDamaged, StoreUnavailable
from shared.events import Event, Events
from shared.retry import doubled_s

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0


class StoreHealth:
    """Owned by the pool, shared by all in it that write; ``pause_s`` is the wait before the next try."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._failures = 0

    @property
    def pause_s(self) -> float:
        """Seconds to wait after the failures so far."""
        return doubled_s(self._failures, FIRST_PAUSE_S, LONGEST_PAUSE_S)

    def failed(self, error: StoreUnavailable) -> None:
        """Count a failure; the first of a row is said, but for damage, which the gateway's storage watch tells once."""
        self._failures += 1
        if self._failures == 1 and not isinstance(error, StoreDamaged):
            self._events.emit(Event.STORE_UNAVAILABLE, error=str(error))

    def worked(self) -> None:
        """Note that the store works; said if it did not before."""
        if self._failures:
            self._failures = 0
            self._events.emit(Event.STORE_RECOVERED)
