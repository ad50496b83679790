"""Tools for models that are only read aloud."""

from __future__ import annotations

from worker.tools import tool


@tool
def roll(sides: int) -> str:
    """Roll one die."""
    return f"rolled {sides}"


@tool
def now() -> str:
    """Tell the time."""
    return "noon"
