"""A tool module that takes more memory than a worker may have."""

from __future__ import annotations

from worker.tools import tool

BALLAST = b"x" * (128 * 1024 * 1024)


@tool
def weigh() -> int:
    """Return the bytes that lie here."""
    return len(BALLAST)
