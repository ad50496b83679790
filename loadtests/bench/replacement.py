"""Kill to replacement: how long a slot is empty with a spare, cold, and by a plain new process; and memory per worker.

The replacement is ready when it has the SDKs loaded, its clients built and has said so over its channel.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from loadtests.lone_workers import LoneWorkers, lone_workers
from loadtests.measuring import MISSING, may_see_workers, print_table, pss_bytes
from worker.pool.processes.worker_process import WorkerProcess
from worker.pool.supervisor import Supervisor

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))
CROWDS = (1, 4, 8)
MIB = 1024 * 1024
PLAIN = "import anthropic, openai, sys; print('ready', flush=True); sys.stdin.read()"


async def kill_one(workers: LoneWorkers, supervisor: Supervisor, spares: int) -> tuple[float, float]:
    """Kill the worker of slot 0; return the ms until its replacement is placed, and until it has run a turn."""
    while len(supervisor.spares) < spares:  # noqa: ASYNC110 (the supervisor tells nobody of a spare)
        await asyncio.sleep(0.02)
    worker = await workers.until_placed(0)
    await workers.run_turn("hello")  # a worker that died without a turn would count as a failed start
    began = time.perf_counter()
    os.kill(worker.pid, signal.SIGKILL)
    await workers.until_placed(0, after=began)
    ready_ms = (workers.placed_at[0] - began) * 1000
    await workers.run_turn("hello")
    return ready_ms, (time.perf_counter() - began) * 1000


async def kills(data_dir: Path, spares: int) -> tuple[list[float], list[float]]:
    """Kill a worker again and again."""
    async with lone_workers(data_dir, spares=spares) as (workers, supervisor):
        rounds = [await kill_one(workers, supervisor, spares) for _ in range(ROUNDS)]
    return [ready for ready, _ in rounds], [answered for _, answered in rounds]


def plain_process() -> subprocess.Popen[str]:
    """Start a process that imports the SDKs, as a worker without a fork server would, and wait until it has."""
    process = subprocess.Popen([sys.executable, "-c", PLAIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def plain_starts(count: int) -> list[float]:
    """Return the ms that each of some plain processes takes to have the SDKs imported."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        with plain_process() as process:
            took.append((time.perf_counter() - began) * 1000)
            process.kill()
    return took


def plain_memory(count: int) -> float:
    """Return the MiB of each of ``count`` plain processes that live at once."""
    processes = [plain_process() for _ in range(count)]
    try:
        return sum(pss_bytes(process.pid) for process in processes) / count / MIB
    finally:
        for process in processes:
            with process:
                process.kill()


async def crowd_memory(data_dir: Path, count: int) -> float:
    """Return the MiB of each of ``count`` workers that have run a turn."""
    async with lone_workers(data_dir, slots=count) as (workers, _):
        placed: list[WorkerProcess] = [await workers.until_placed(n) for n in range(count)]
        for n in range(count):
            await workers.run_turn("hello", n)
        return sum(pss_bytes(worker.pid) for worker in placed) / count / MIB


async def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        data_dir = Path(name)
        plain = plain_starts(max(1, ROUNDS // 2))
        cold_ready, cold_answered = await kills(data_dir, 0)
        warm_ready, warm_answered = await kills(data_dir, 1)
        memory = {f"{count} workers": [await crowd_memory(data_dir, count)] for count in CROWDS}
    ready = {"a new process that imports the SDKs": plain, "replacement, cold": cold_ready}
    print_table("SIGKILL to replacement ready", "ms", ready | {"replacement, with a spare": warm_ready})
    answered = {"cold": cold_answered, "with a spare": warm_answered}
    print_table("SIGKILL to the replacement's first finished turn", "ms", answered)
    print_table("PSS of one worker that has run a turn", "MiB", {"4 plain processes": [plain_memory(4)]} | memory)


if __name__ == "__main__":
    if not may_see_workers("replacement"):
        sys.exit(MISSING)
    uvloop.run(main())
