"""How many messages a sender may send in a while; who sends more is told once, and waits.

It is memory of this process alone, bounded: each gateway counts what it was sent itself.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from cachetools import TTLCache

from shared.platform_settings import SenderRate

#: senders that are remembered; past it those that were silent longest begin anew
MOST_SENDERS = 50_000


class SenderRates:
    """Counts the messages of each sender; ``clock`` tells seconds that only grow."""

    def __init__(self, rate: SenderRate | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._clock = clock
        span_s = rate.per_s if rate else 1.0
        self._sent: TTLCache[str, deque[float]] = TTLCache(MOST_SENDERS, span_s, clock)
        self._told: TTLCache[str, bool] = TTLCache(MOST_SENDERS, span_s, clock)

    def take(self, sender: str) -> float:
        """Count a message; return the seconds after which there is room for it, 0 if there is now."""
        if self.rate is None:
            return 0.0
        now = self._clock()
        sent = self._sent.get(sender, deque[float]())
        while sent and sent[0] <= now - self.rate.per_s:
            sent.popleft()
        if len(sent) >= self.rate.count:
            return sent[0] + self.rate.per_s - now
        sent.append(now)
        self._sent[sender] = sent
        return 0.0

    def give_back(self, sender: str) -> None:
        """Take the last message of a sender as not sent: it was known already."""
        if sent := self._sent.get(sender):
            sent.pop()

    def is_to_be_told(self, sender: str) -> bool:
        """Tell, once in a while for each sender, whether one who sent too much is to be told so."""
        if sender in self._told:
            return False
        self._told[sender] = True
        return True
