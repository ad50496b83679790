"""CPU of a whole offline turn in a worker: frame, history, todo list, session log and all, alone and on 32 at once.

BENCH_TURNS and BENCH_ROUNDS bound it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from loadtests.lone_workers import LoneWorkers, lone_workers
from loadtests.measuring import Samples, cpu_s, interleaved, print_table
from worker.pool.processes.worker_process import WorkerProcess

TURNS = int(os.environ.get("BENCH_TURNS", "600"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))


def cpu_of(workers: LoneWorkers, worker: WorkerProcess, at_once: int) -> Callable[[], Awaitable[float]]:
    """Return the measuring of the worker's CPU microseconds of a turn."""

    async def measure() -> float:
        before = cpu_s(worker.pid)
        await workers.run_turns(TURNS, at_once, "hello")
        return (cpu_s(worker.pid) - before) / TURNS * 1e6

    return measure


async def compare() -> Samples:
    """Measure in interleaved rounds."""
    with tempfile.TemporaryDirectory() as data_dir:
        async with lone_workers(Path(data_dir)) as (workers, _):
            worker = workers.placed[0]
            sides = {f"{at_once} at once": cpu_of(workers, worker, at_once) for at_once in (1, 32)}
            await interleaved(1, sides)
            return await interleaved(ROUNDS, sides)


def main() -> None:
    """Measure and print."""
    print_table(f"CPU of a whole offline turn in its worker, {ROUNDS} rounds of {TURNS}", "us", uvloop.run(compare()))


if __name__ == "__main__":
    main()
