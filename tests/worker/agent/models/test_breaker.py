"""The circuit breaker, on a clock of its own."""

from __future__ import annotations

import asyncio
import time

import pytest

from worker.agent.models.breaker import Breaker, BreakerPolicy


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(BreakerPolicy(failures=3, cool_off_s=10, longest_cool_off_s=35), clock)


def fail(breaker: Breaker, clock: Clock, *, timed_out: bool = False, leave_alone_s: float = 0.0) -> None:
    assert breaker.admit()
    breaker.failed(clock.now, timed_out=timed_out, leave_alone_s=leave_alone_s)


def test_it_opens_after_failures_in_a_row(breaker: Breaker, clock: Clock) -> None:
    for _ in range(2):
        fail(breaker, clock)
    breaker.succeeded()
    for _ in range(3):
        assert not breaker.is_open
        fail(breaker, clock)
    assert breaker.is_open
    assert not breaker.admit()


def test_one_timeout_opens_it_if_nothing_succeeded_meanwhile(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, timed_out=True)
    assert breaker.is_open


def test_a_timeout_among_successes_is_one_failure(breaker: Breaker, clock: Clock) -> None:
    began_at = clock.now
    clock.now += 60
    breaker.succeeded()
    breaker.failed(began_at, timed_out=True)
    assert not breaker.is_open


def test_a_long_wish_to_be_left_alone_opens_it_for_as_long(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, leave_alone_s=20)
    clock.now += 19
    assert breaker.is_open
    clock.now += 2
    assert not breaker.is_open


def test_one_probe_at_a_time_when_half_open(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, timed_out=True)
    clock.now += 11
    assert breaker.admit()
    assert breaker.is_open
    assert not breaker.admit()
    breaker.succeeded()
    assert breaker.admit()
    assert breaker.admit()


def test_a_failed_probe_doubles_the_cool_off_up_to_its_bound(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, timed_out=True)
    for cool_off_s in (10, 20, 35, 35):
        clock.now += cool_off_s - 1
        assert breaker.is_open
        clock.now += 2
        fail(breaker, clock)
    assert breaker.is_open


def test_a_cancelled_probe_leaves_the_next_one_to_others(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, timed_out=True)
    clock.now += 11
    assert breaker.admit()
    breaker.left()
    assert breaker.admit()


async def test_one_probe_at_a_time_tells_all_that_wait_that_a_model_is_back() -> None:
    breaker = Breaker(BreakerPolicy(first_probe_s=0.01, longest_probe_s=5), time.monotonic)
    breaker.is_gone(time.monotonic())
    waiting = [asyncio.create_task(breaker.until_back(10)) for _ in range(5)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0.05)
    assert sum(task.done() for task in waiting) == 1
    breaker.succeeded()
    await asyncio.wait_for(asyncio.gather(*waiting), 2)
    assert not breaker.is_away


async def test_a_call_that_has_not_tried_yet_waits_for_no_ones_backoff() -> None:
    breaker = Breaker(BreakerPolicy(first_probe_s=0.01, longest_probe_s=60), time.monotonic)
    for _ in range(12):  # by now those that tried wait for many seconds
        breaker.is_gone(time.monotonic())
        await asyncio.wait_for(breaker.until_back(10, tried=False), 2)
    breaker.is_gone(time.monotonic())
    with pytest.raises(TimeoutError):
        await breaker.until_back(0.1)


async def test_a_wish_to_be_left_alone_holds_for_all() -> None:
    breaker = Breaker(BreakerPolicy(first_probe_s=0.01), time.monotonic)
    breaker.is_gone(time.monotonic(), leave_alone_s=30)
    with pytest.raises(TimeoutError):
        await breaker.until_back(0.1, tried=False)
