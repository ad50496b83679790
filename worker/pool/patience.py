"""How long a model call may be silent before its place may be another turn's: from what its like took of late."""

from __future__ import annotations

import statistics
from collections import deque

#: what a call has while nothing is known of its like, and the least that it has, in seconds
UNKNOWN_S, LEAST_S = 2.0, 0.5
#: how often a call has what its like usually take to the end of their answer
TIMES = 2
#: answers that tell what is usual
LAST = 64


class Patience:
    """Knows what the models of each profile take for an answer; a turn has twice as long each time it goes on."""

    def __init__(self) -> None:
        self._took: dict[str, deque[float]] = {}

    def answered(self, profile: str, seconds: float) -> None:
        """Note what a call took that was answered."""
        self._took.setdefault(profile, deque(maxlen=LAST)).append(seconds)

    def of(self, profile: str, rests: int) -> float:
        """Return how long a call may be silent, in seconds, of a turn that was let go so often."""
        took = self._took.get(profile)
        first_s = max(LEAST_S, TIMES * statistics.median(took)) if took else UNKNOWN_S
        return float(first_s * 2 ** min(rests, 32))
