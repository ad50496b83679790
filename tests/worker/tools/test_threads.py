"""Threads for sync tools: bounded, abandoned when nobody waits, counted when they leak."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from shared.events import Event, Field
from tests.worker.waiting import until
from worker.tools.threads import ToolThreads


class Heard:
    """Keeps what was said."""

    def __init__(self) -> None:
        self.events: list[tuple[Event, dict[str, Field]]] = []

    def __call__(self, event: Event, **fields: Field) -> None:
        self.events.append((event, fields))


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Blocks tools until the test is over, so that no thread outlives it."""
    event = threading.Event()
    yield event
    event.set()


async def test_a_call_runs_in_a_thread_and_gives_its_result(heard: Heard) -> None:
    threads = ToolThreads(heard)
    name = await threads.run(lambda: threading.current_thread().name, tool="t")
    assert name == "tool"
    threads.close()


async def test_what_a_call_raises_is_raised(heard: Heard) -> None:
    threads = ToolThreads(heard)

    def leave() -> None:
        raise SystemExit(3)

    def stop() -> None:
        raise StopIteration

    with pytest.raises(SystemExit):
        await threads.run(leave, tool="t")
    with pytest.raises(RuntimeError):
        await threads.run(stop, tool="t")
    threads.close()


async def test_no_more_than_the_limit_run_at_once_and_threads_are_used_again(heard: Heard) -> None:
    threads = ToolThreads(heard, limit=3)
    lock, running, most, names = threading.Lock(), 0, 0, set()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            names.add(threading.get_ident())
        time.sleep(0.002)
        with lock:
            running -= 1

    await asyncio.gather(*(threads.run(work, tool="t") for _ in range(30)))
    assert most <= 3
    assert len(names) <= 3
    threads.close()


async def test_hung_calls_starve_nobody_once_they_are_given_up(heard: Heard, gate: threading.Event) -> None:
    threads = ToolThreads(heard, limit=2, leak_grace_s=0.02)
    hung = [asyncio.ensure_future(threads.run(gate.wait, tool="hang", session="a:b:c")) for _ in range(2)]
    waiting = asyncio.ensure_future(threads.run(lambda: "ran", tool="t"))
    await asyncio.sleep(0)
    assert not waiting.done()
    for task in hung:
        task.cancel()
    assert await waiting == "ran"
    await until(lambda: threads.leaked == 2)
    event, fields = heard.events[0]
    assert event is Event.TOOL_LEAKED
    assert fields["tool"] == "hang"
    assert fields["session"] == "a:b:c"
    assert "wait" in str(fields["stack"])
    gate.set()
    await until(lambda: threads.leaked == 0)
    threads.close()


async def test_a_call_that_ends_within_the_grace_is_no_leak(heard: Heard) -> None:
    threads = ToolThreads(heard, leak_grace_s=0.05)
    task = asyncio.ensure_future(threads.run(lambda: time.sleep(0.005), tool="t"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0.1)
    assert threads.leaked == 0
    assert heard.events == []
    threads.close()


async def test_a_call_given_up_before_it_began_never_begins(heard: Heard, gate: threading.Event) -> None:
    threads = ToolThreads(heard, limit=1)
    ran = []
    first = asyncio.ensure_future(threads.run(gate.wait, tool="t"))
    second = asyncio.ensure_future(threads.run(lambda: ran.append(2), tool="t"))
    third = asyncio.ensure_future(threads.run(lambda: ran.append(3), tool="t"))
    await asyncio.sleep(0)
    second.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await second
    gate.set()
    await asyncio.gather(first, third)
    assert ran == [3]
    threads.close()


async def test_closing_ends_every_thread(heard: Heard) -> None:
    before = set(threading.enumerate())
    threads = ToolThreads(heard)
    await asyncio.gather(*(threads.run(lambda: None, tool="t") for _ in range(5)))
    threads.close()
    await until(lambda: before.issuperset(threading.enumerate()))
