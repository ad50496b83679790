"""Heartbeats tell how late a loop is: while it is held up, and for a while after."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
import uvloop

from worker.agent import heartbeats
from worker.agent.heartbeats import Heartbeats
from worker.shared_page import SharedPage

HELD_S = 0.4


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_loop_that_is_held_up_is_late_at_once_and_for_half_a_minute_at_the_most(
    new_loop: type[asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeats, "LAG_WINDOW_S", 0.5)
    page = SharedPage.create()
    assert page.loop_lag_s() == 0.0  # a loop that has not begun to beat is not late
    seen: list[float] = []

    def look() -> None:
        time.sleep(HELD_S * 0.75)
        seen.append(page.loop_lag_s())

    async def main() -> None:
        beats = Heartbeats(page, asyncio.get_running_loop())
        beats.interval_s = 0.01
        beats.beat()
        time.sleep(HELD_S)  # noqa: ASYNC251 - as a worker does that imports its tools
        beats.forget_lag()
        await asyncio.sleep(0.05)
        assert page.loop_lag_s() < HELD_S / 2
        looker = threading.Thread(target=look)
        looker.start()
        time.sleep(HELD_S)  # noqa: ASYNC251 - holding up the loop is what this tries
        looker.join()
        await asyncio.sleep(0.05)
        seen.append(page.loop_lag_s())
        while page.loop_lag_s() > HELD_S / 2:  # noqa: ASYNC110 - a page has no event
            await asyncio.sleep(0.05)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.wait_for(main(), 30))
    page.close()
    while_held_s, afterwards_s = seen
    assert while_held_s > HELD_S / 2
    assert afterwards_s > HELD_S * 0.9
