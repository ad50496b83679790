"""What it costs a turn that the shared page names it while its code runs, beside a task that nobody names."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

import uvloop

from loadtests.measuring import Samples, interleaved, print_table
from worker.agent.turn_attribution import TurnAttribution
from worker.shared_page import SharedPage

STEPS = 50_000
ROUNDS = 7


async def spin(steps: int) -> None:
    """Give the loop back so many times."""
    for _ in range(steps):
        await asyncio.sleep(0)


async def step_ns(start: Callable[[], asyncio.Task[None]]) -> float:
    """Return the nanoseconds of this thread that one step of a task takes."""
    began_ns = time.thread_time_ns()
    await start()
    return (time.thread_time_ns() - began_ns) / STEPS


async def measure(attribution: TurnAttribution) -> Samples:
    """Measure a named and an unnamed task in turns."""
    loop = asyncio.get_running_loop()
    attribution.install(loop)
    contenders: dict[str, Callable[[], asyncio.Task[None]]] = {
        "a task": lambda: loop.create_task(spin(STEPS)),
        "a turn's task, named": lambda: attribution.start(7, spin(STEPS), loop),
    }
    return await interleaved(ROUNDS, {name: partial(step_ns, start) for name, start in contenders.items()})


def main() -> None:
    """Print what a step costs either way."""
    page = SharedPage.create()
    samples = uvloop.run(measure(TurnAttribution(page.set_running)))
    page.close()
    print_table(f"one step of a task, {ROUNDS} rounds of {STEPS:,}", "ns", samples)


if __name__ == "__main__":
    main()
