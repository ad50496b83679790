from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from worker.library.loop_thread import LoopThread


async def nothing() -> None:
    """Say no farewell."""


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def wait_long() -> None:
    await asyncio.sleep(3600)


async def fail() -> None:
    raise KeyError("mine")


def test_results_and_errors_come_back() -> None:
    loop = LoopThread("test")
    assert loop.run(double(21)) == 42
    with pytest.raises(KeyError, match="mine"):
        loop.run(fail())
    loop.close(nothing())


def test_a_closed_loop_refuses_and_has_said_its_farewell_once() -> None:
    farewells: list[int] = []

    async def farewell() -> None:
        farewells.append(await double(1))

    loop = LoopThread("test")
    for _ in range(2):
        loop.close(farewell())
    assert farewells == [2]
    with pytest.raises(RuntimeError, match="closed"):
        loop.run(double(1))
    loop.soon(lambda: farewells.append(3))
    assert farewells == [2]


def test_closing_cancels_what_runs_before_the_farewell() -> None:
    order: list[str] = []
    running = threading.Event()

    async def wait_for_ever() -> None:
        running.set()
        try:
            await asyncio.sleep(3600)
        finally:
            order.append("cancelled")

    async def farewell() -> None:
        order.append("farewell")

    loop = LoopThread("test")
    loop.soon(lambda: order.append("started"))

    def wait() -> None:
        with pytest.raises(CancelledError):
            loop.run(wait_for_ever())

    waiter = threading.Thread(target=wait)
    waiter.start()
    running.wait(10)
    loop.close(farewell())
    waiter.join(10)
    assert order == ["started", "cancelled", "farewell"]


def test_a_loop_that_says_its_farewell_refuses_and_leaves_nobody_waiting() -> None:
    leaving, gone = threading.Event(), asyncio.Event()

    async def farewell() -> None:
        leaving.set()
        await gone.wait()

    loop = LoopThread("test")
    closer = threading.Thread(target=loop.close, args=(farewell(),))
    closer.start()
    leaving.wait(10)
    with pytest.raises(RuntimeError, match="closed"):
        loop.run(wait_long())
    loop.soon(gone.set)
    closer.join(10)
    assert not closer.is_alive()


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupted_wait_cancels_what_it_waited_for() -> None:
    loop = LoopThread("test")
    cancelled = threading.Event()
    running = threading.Event()

    async def wait_for_ever() -> None:
        running.set()
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    def press_ctrl_c() -> None:
        running.wait(10)
        time.sleep(0.01)  # the main thread enters its wait
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press_ctrl_c)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        loop.run(wait_for_ever())
    presser.join()
    assert cancelled.wait(10)
    loop.close(nothing())
