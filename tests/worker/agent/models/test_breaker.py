"""The circuit breaker, on a clock of its own."""

from __future__ import annotations

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
