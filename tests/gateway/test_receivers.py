"""Every host has its share, and one that is silent is tried by one exchange at a time."""

from __future__ import annotations

from gateway.receivers import HOST_SHARE, LONGEST_PROBE_S, UNPROVEN_SHARE, Exchange, Receivers
from tests.gateway.test_governor import Clock

URL = "https://one.example/replies"


def begun(receivers: Receivers, url: str = URL) -> Exchange:
    exchange = receivers.begin("standard", url)
    assert isinstance(exchange, Exchange)
    return exchange


def test_a_host_that_never_answered_has_a_small_share() -> None:
    receivers = Receivers(Clock())
    assert receivers.room("standard") == UNPROVEN_SHARE
    exchanges = [begun(receivers) for _ in range(UNPROVEN_SHARE)]
    assert receivers.room("standard") == 0
    assert isinstance(receivers.begin("standard", URL), float)
    receivers.end(exchanges[0], answered=True)
    assert receivers.room("standard") == HOST_SHARE - UNPROVEN_SHARE + 1


def test_a_silent_host_is_tried_by_one_at_a_time_until_it_answers() -> None:
    clock = Clock()
    receivers = Receivers(clock)
    exchanges = [begun(receivers) for _ in range(UNPROVEN_SHARE)]
    clock.now += 15
    for exchange in exchanges:
        receivers.end(exchange, answered=False)
    assert receivers.room("standard") == 0
    wait_s = receivers.next_probe_s()
    assert wait_s is not None
    assert 0.4 < wait_s <= 1.0
    for _ in range(10):
        clock.now += receivers.next_probe_s() or 0.0
        assert receivers.room("standard") == 1
        probe = begun(receivers)
        assert receivers.room("standard") == 0
        assert receivers.next_probe_s() is None
        clock.now += 15
        receivers.end(probe, answered=False)
        assert 0 < (receivers.next_probe_s() or 0) <= LONGEST_PROBE_S
    clock.now += LONGEST_PROBE_S
    receivers.end(begun(receivers), answered=True)
    assert receivers.room("standard") == HOST_SHARE


def test_a_host_that_answers_others_meanwhile_is_not_silent() -> None:
    clock = Clock()
    receivers = Receivers(clock)
    hanging, quick = begun(receivers), begun(receivers)
    clock.now += 1
    receivers.end(quick, answered=True)
    clock.now += 14
    receivers.end(hanging, answered=False)
    assert receivers.room("standard") == HOST_SHARE


def test_a_silent_host_does_not_stop_another_of_its_platform() -> None:
    clock = Clock()
    receivers = Receivers(clock)
    hanging = begun(receivers)
    clock.now += 15
    receivers.end(hanging, answered=False)
    other = begun(receivers, "https://two.example/")
    assert receivers.room("standard") > 1
    put_off_s = receivers.begin("standard", URL)
    assert isinstance(put_off_s, float)
    assert put_off_s > 0
    receivers.end(other, answered=True)
