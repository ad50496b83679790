"""Load shapes: how many people there are at a moment of a run."""

from __future__ import annotations

import os
from collections.abc import Sequence

from locust import LoadTestShape

#: how long a run is, in seconds
RUN_S = float(os.environ.get("LOADTEST_RUN_S", "60"))
#: people that come in a second
SPAWN_RATE = 20.0


def run_time_s(shape: LoadTestShape) -> float:
    """Return how long a run is on, in seconds."""
    return float(shape.get_run_time())  # type: ignore[no-untyped-call]  # locust's shapes carry no types


def steps(now_s: float, run_s: float, people: Sequence[int]) -> tuple[int, float] | None:
    """Return so many people for an equal part of the run each, and how fast they come; None at its end."""
    if now_s >= run_s:
        return None
    return people[min(int(now_s / run_s * len(people)), len(people) - 1)], SPAWN_RATE


def spike(now_s: float, run_s: float, usual: int, many: int) -> tuple[int, float] | None:
    """Return the usual number of people, and many in the middle third of the run; None at its end."""
    if now_s >= run_s:
        return None
    is_high = run_s / 3 <= now_s < run_s * 2 / 3
    return (many if is_high else usual), SPAWN_RATE if not is_high else float(many)
