"""The rows of a run, judged."""

from __future__ import annotations

from typing import Any


def rows_above(environment: Any, kind: str, limit_ms: float) -> list[str]:
    """Return the rows of one kind whose 95th percentile is above a limit; a limit of 0 is none."""
    return [
        name
        for (name, _method), entry in environment.stats.entries.items()
        if name.endswith(kind) and 0 < limit_ms < entry.get_response_time_percentile(0.95)
    ]
