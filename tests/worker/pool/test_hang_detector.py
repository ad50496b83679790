"""Who hangs: a turn that was told that its time is over and goes on, or a loop that does not run."""

from __future__ import annotations

import pytest

from shared.messages import Claim, ClaimRef, Pending
from shared.settings import parse_settings
from worker.pool.hang_detector import Heartbeat, Limits, hang_cause
from worker.pool.processes.death import Cause, Death
from worker.pool.processes.worker_process import HELD_UP_S
from worker.pool.turns.active_turn import ActiveTurn
from worker.pool.worker_config import worker_config

LIMITS = Limits(turn_timeout_s=10, kill_grace_s=2, heartbeat_timeout_s=5, memory_bytes=1, turns=1)
PATIENT = Limits(turn_timeout_s=10, kill_grace_s=2, heartbeat_timeout_s=60, memory_bytes=1, turns=1)


def running(number: int, since: float, interrupted: float | None = None) -> ActiveTurn:
    turn = ActiveTurn(number, Claim(ClaimRef(f"s{number}", number), "p", 0, (Pending("m", 1, "ann", "hi", 0.0),)))
    turn.started_mono, turn.interrupted_mono = since, interrupted
    return turn


def killed_for(death: Death | None) -> tuple[Cause, int] | None:
    return (death.cause, death.culprit) if death else None


def test_a_loop_that_beats_and_turns_within_their_time_live() -> None:
    assert hang_cause(LIMITS, Heartbeat(1, 11.0), [running(1, 0.0), running(2, 5.0)], 11.5) is None


@pytest.mark.parametrize("named", [0, 1])
def test_a_silent_loop_is_hung_by_the_turn_that_is_named(named: int) -> None:
    turns = [running(1, 0.0), running(2, 0.0)]
    assert killed_for(hang_cause(LIMITS, Heartbeat(named, 1.0), turns, 6.1)) == (Cause.HUNG, named)


def test_a_turn_that_goes_on_although_the_loop_told_it_to_end_overran() -> None:
    assert killed_for(hang_cause(LIMITS, Heartbeat(0, 12.0), [running(2, 5.0), running(1, 0.0)], 12.1)) == (
        Cause.OVERRAN,
        1,
    )


def test_a_turn_that_holds_up_the_loop_past_its_time_overran() -> None:
    assert killed_for(hang_cause(PATIENT, Heartbeat(1, 3.0), [running(1, 0.0)], 12.1)) == (Cause.OVERRAN, 1)


def test_a_turn_that_cannot_hear_its_end_waits_for_the_end_of_who_holds_up_the_loop() -> None:
    innocent, holder = running(1, 0.0), running(2, 3.0)
    assert hang_cause(PATIENT, Heartbeat(2, 4.0), [innocent, holder], 14.0) is None
    assert killed_for(hang_cause(PATIENT, Heartbeat(2, 4.0), [innocent, holder], 15.1)) == (Cause.OVERRAN, 2)


def test_a_turn_past_its_end_is_told_so_even_if_the_heartbeat_is_late_as_well() -> None:
    assert killed_for(hang_cause(LIMITS, Heartbeat(1, 1.0), [running(1, 0.0)], 12.1)) == (Cause.OVERRAN, 1)


def test_a_turn_that_runs_alone_is_the_one_that_holds_up_the_loop() -> None:
    assert killed_for(hang_cause(PATIENT, Heartbeat(0, 1.0), [running(1, 0.0)], 12.1)) == (Cause.OVERRAN, 1)


def test_where_nobody_is_named_the_first_end_that_is_not_heard_ends_the_worker_and_blames_nobody() -> None:
    assert killed_for(hang_cause(PATIENT, Heartbeat(0, 4.0), [running(1, 0.0), running(2, 3.0)], 12.1)) == (
        Cause.HUNG,
        0,
    )


def test_what_its_sender_stopped_and_does_not_end_is_unstopped() -> None:
    assert killed_for(hang_cause(LIMITS, Heartbeat(0, 5.0), [running(1, 0.0, interrupted=2.0)], 5.1)) == (
        Cause.UNSTOPPED,
        1,
    )


def test_what_its_sender_stopped_ends_with_the_loop_that_another_holds_up() -> None:
    stopped, holder = running(1, 0.0, interrupted=2.0), running(2, 0.0)
    assert killed_for(hang_cause(PATIENT, Heartbeat(2, 1.0), [stopped, holder], 4.1)) == (Cause.HUNG, 2)


@pytest.mark.parametrize(("timeout", "grace"), [("5", "5"), ("1", "5"), ("0.5", "1"), ("5", "0.5"), ("5", "0.2")])
def test_a_worker_beats_often_enough_for_what_is_read_from_its_beats(timeout: str, grace: str) -> None:
    settings = parse_settings(
        {"GATEHOUSE_HEARTBEAT_TIMEOUT": timeout, "GATEHOUSE_KILL_GRACE": grace, "GATEHOUSE_MODEL": "offline"}
    )
    beat_s = worker_config(settings).beat_s
    assert beat_s <= max(settings.heartbeat_timeout_s / 10, 0.05)
    assert beat_s < settings.kill_grace_s / 2 or beat_s == 0.05
    assert 2 * beat_s <= HELD_UP_S
