"""Waits of a loop that something wakes."""

from __future__ import annotations

import asyncio


async def until_woken(woken: asyncio.Event, at_most_s: float | None) -> None:
    """Wait until an event is set; after so long it is set here, with None never.

    A timer that sets it costs a fraction of what ``asyncio.timeout`` with its exception does.
    """
    timer = None if at_most_s is None else asyncio.get_running_loop().call_later(at_most_s, woken.set)
    await woken.wait()
    if timer is not None:
        timer.cancel()
