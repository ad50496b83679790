"""Waiting for a condition with a deadline, and what the tests look at outside this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path


async def until(condition: Callable[[], object], what: str, within_s: float = 20.0) -> float:
    """Wait until the condition holds; return the seconds it took. Fails with ``what`` after ``within_s``."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.005)
    return time.monotonic() - began


def lives(pid: int) -> bool:
    """Tell whether a process runs (one that ended and was not yet reaped does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii")
    except FileNotFoundError:
        return False
    except ProcessLookupError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}
