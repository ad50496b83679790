"""A no-op turn through the pool's channel and a real worker process, beside pebble, concurrent.futures and Celery.

Celery (prefork, with Redis as broker and backend) is measured where ``make peers`` has installed it. All of them carry
1 KB each way to one process. The executors are waited for from a plain thread, which is their fastest way; the channel
from an event loop, which is its only one. The bare channel is the socket and its frames without a worker's work.
BENCH_TURNS and BENCH_ROUNDS bound it.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AsyncExitStack
from multiprocessing import get_context  # noqa: TID251  # it makes the executors that are compared with
from pathlib import Path

import uvloop
from pebble import ProcessPool

from loadtests.celery_peer import CeleryPeer, NoPeer
from loadtests.lone_workers import LoneWorkers, lone_workers
from loadtests.measuring import Samples, interleaved, percentile, pin, print_table
from loadtests.noop_child import ENTRY, echo

TURNS = int(os.environ.get("BENCH_TURNS", "4000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
IN_FLIGHT = 64
PAYLOAD = b"x" * 1024
TEXT = PAYLOAD.decode()

Submit = Callable[[], "Future[bytes]"]
Measure = Callable[[], Awaitable[float]]


def executor_one_by_one(submit: Submit) -> Measure:
    """Return the measuring of the median microseconds of one call at a time."""

    async def measure() -> float:
        took = []
        for _ in range(TURNS // 8):
            began = time.perf_counter()
            assert submit().result() == PAYLOAD  # blocks: nothing else runs on this loop, and nothing is faster
            took.append(time.perf_counter() - began)
        return percentile(took, 0.5) * 1e6

    return measure


def executor_rate(submit: Submit) -> Measure:
    """Return the measuring of calls a second with many in flight."""

    async def measure() -> float:
        room = threading.Semaphore(IN_FLIGHT)
        began = time.perf_counter()
        futures = []
        for _ in range(TURNS):
            room.acquire()
            future = submit()
            future.add_done_callback(lambda _: room.release())
            futures.append(future)
        for future in futures:
            future.result()
        return TURNS / (time.perf_counter() - began)

    return measure


def channel_one_by_one(workers: LoneWorkers) -> Measure:
    """Return the measuring of the median microseconds of one turn at a time."""

    async def measure() -> float:
        took = []
        for _ in range(TURNS // 8):
            began = time.perf_counter()
            await workers.run_turn(TEXT)
            took.append(time.perf_counter() - began)
        return percentile(took, 0.5) * 1e6

    return measure


def channel_rate(workers: LoneWorkers) -> Measure:
    """Return the measuring of turns a second with many in flight."""

    async def measure() -> float:
        return TURNS / await workers.run_turns(TURNS, IN_FLIGHT, TEXT)

    return measure


async def compare(pebble: ProcessPool, futures: ProcessPoolExecutor, cores: list[int]) -> tuple[Samples, Samples]:
    """Measure every contender in interleaved rounds; returns one-by-one and in-flight figures."""

    def with_pebble() -> Future[bytes]:
        future: Future[bytes] = pebble.schedule(echo, args=[PAYLOAD])
        return future

    def with_futures() -> Future[bytes]:
        return futures.submit(echo, PAYLOAD)

    async with AsyncExitStack() as stack:
        data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        noop, _ = await stack.enter_async_context(lone_workers(data_dir, entry=ENTRY))
        real, _ = await stack.enter_async_context(lone_workers(data_dir))
        for warm_up in (with_pebble, with_futures):
            warm_up().result()
        if len(cores) > 1:
            pin(cores[0])  # the children were started on the other core and stay there
        one_by_one = {
            "pebble": executor_one_by_one(with_pebble),
            "concurrent.futures": executor_one_by_one(with_futures),
            "bare channel": channel_one_by_one(noop),
            "a whole offline turn in a worker": channel_one_by_one(real),
        }
        in_flight = {
            "pebble": executor_rate(with_pebble),
            "concurrent.futures": executor_rate(with_futures),
            "bare channel": channel_rate(noop),
            "a whole offline turn in a worker": channel_rate(real),
        }
        try:
            celery = stack.enter_context(CeleryPeer.running(data_dir, cores))
        except NoPeer as error:
            print(error)
        else:
            one_by_one["Celery prefork, Redis"] = celery.one_by_one(TURNS // 200)
            in_flight["Celery prefork, Redis"] = celery.rate(TURNS // 40, IN_FLIGHT)
        await interleaved(1, one_by_one)
        return await interleaved(ROUNDS, one_by_one), await interleaved(ROUNDS, in_flight)


def main() -> None:
    """Measure and print."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) > 1:
        pin(cores[1])  # what is started now inherits it
    context = get_context("spawn")
    with ProcessPool(max_workers=1, context=context) as pebble, ProcessPoolExecutor(1, context) as futures:
        one_by_one, in_flight = uvloop.run(compare(pebble, futures, cores))
    where = "parent and child on a core each" if len(cores) > 1 else "not pinned"
    print_table(f"round trip of a no-op turn, one at a time, p50 ({where}, {ROUNDS} rounds)", "us", one_by_one)
    print_table(f"no-op turns a second, {IN_FLIGHT} in flight, {ROUNDS} rounds of {TURNS}", "/s", in_flight)


if __name__ == "__main__":
    main()
