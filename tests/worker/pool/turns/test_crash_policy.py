"""What a worker's death means for its turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.messages import Dead, Ended, Parked, Retry, Step, TurnStatus, Usage
from worker.pool.processes.death import Cause, Death
from worker.pool.turns.crash_policy import RanTurn, judge

STEPS = (Step(1, (b"1", b"2"), b"[1]", Usage(1)), Step(2, (b"3",), None, Usage(1)))


@pytest.mark.parametrize("cause", [Cause.DIED, Cause.HUNG])
def test_a_named_culprit_alone_gets_a_strike(cause: Cause) -> None:
    verdicts = judge(Death(cause, 2, "why"), [RanTurn(1, 0), RanTurn(2, 0), RanTurn(3, 1)], 3)
    assert verdicts[1] == Parked()
    assert verdicts[3] == Parked()
    assert verdicts[2] == Retry(1.0, 1, suspect=True, error="why")


def test_a_turn_that_ran_alone_is_the_culprit() -> None:
    assert judge(Death(Cause.DIED), [RanTurn(9, 1)], 3)[9] == Retry(2.0, 2, suspect=True, error="")


def test_a_culprit_at_the_limit_is_a_dead_letter_with_its_stacks() -> None:
    verdict = judge(Death(Cause.HUNG, 1, "hung", "File …"), [RanTurn(1, 2, STEPS)], 3, "0:7")[1]
    assert isinstance(verdict, Dead)
    assert (verdict.usage, verdict.worker) == (Usage(2), "0:7")
    assert (verdict.attempts, verdict.error, verdict.stacks) == (3, "hung", "File …")
    assert verdict.text


@pytest.mark.parametrize("cause", [Cause.DIED, Cause.HUNG])
def test_where_none_is_named_every_one_is_a_suspect_and_none_uses_an_attempt(cause: Cause) -> None:
    verdicts = judge(Death(cause), [RanTurn(1, 0), RanTurn(2, 2)], 3)
    assert verdicts[1] == Retry(0.0, 0, suspect=True, error="", lost=1)
    assert verdicts[2] == Retry(0.0, 2, suspect=True, error="", lost=1)


def test_where_none_is_named_only_those_in_a_tool_call_are_suspects() -> None:
    verdicts = judge(Death(Cause.DIED), [RanTurn(1, 0), RanTurn(2, 0, calling=True), RanTurn(3, 0)], 3)
    assert [turn for turn, verdict in verdicts.items() if getattr(verdict, "suspect", None)] == [2]
    assert {getattr(verdict, "lost", 0) for verdict in verdicts.values()} == {1}


def test_a_kill_from_outside_makes_nobody_a_suspect_at_first() -> None:
    verdicts = judge(Death(Cause.KILLED), [RanTurn(1, 0), RanTurn(2, 0, calling=True)], 3)
    assert set(verdicts.values()) == {Retry(0.0, 0, suspect=False, error="", lost=1)}
    assert judge(Death(Cause.KILLED), [RanTurn(1, 0)], 3)[1] == Retry(0.0, 0, suspect=False, error="", lost=1)


def test_a_kill_from_outside_blames_who_held_up_the_loop() -> None:
    verdicts = judge(Death(Cause.KILLED, 2), [RanTurn(1, 0), RanTurn(2, 0)], 3)
    assert verdicts == {1: Parked(), 2: Retry(1.0, 1, suspect=True, error="")}


@pytest.mark.parametrize(("calling", "limit"), [(True, 2), (False, 3)])
def test_what_is_killed_from_outside_too_often_is_a_suspect(calling: bool, limit: int) -> None:
    fates = [judge(Death(Cause.KILLED), [RanTurn(1, 0, lost=lost, calling=calling)], 3)[1] for lost in range(limit)]
    assert [getattr(fate, "suspect", None) for fate in fates] == [False] * (limit - 1) + [True]


def test_whose_guilt_is_proven_pays_for_what_was_lost_before() -> None:
    alone = RanTurn(1, 0, suspect=True, lost=1)
    assert judge(Death(Cause.DIED), [alone], 3)[1] == Retry(2.0, 2, suspect=True, error="")
    assert judge(Death(Cause.KILLED), [alone], 3)[1] == Retry(2.0, 2, suspect=True, error="")
    assert isinstance(judge(Death(Cause.DIED), [RanTurn(1, 2, suspect=True)], 3)[1], Dead)


@pytest.mark.parametrize("cause", [Cause.DIED, Cause.KILLED, Cause.HUNG])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("limit", [2, 3, 5])
def test_a_poison_message_runs_as_often_as_it_may_and_its_neighbours_lose_nothing(
    cause: Cause, named: bool, limit: int
) -> None:
    poison, others = RanTurn(1, 0, calling=True), [RanTurn(2, 0), RanTurn(3, 0)]
    runs = 0
    while True:
        runs += 1
        turns = [poison] if poison.suspect else [poison, *others]
        verdicts = judge(Death(cause, 1 if named else 0), turns, limit)
        for other in turns[1:]:
            fate = verdicts[other.turn]
            assert fate == Parked() or (isinstance(fate, Retry) and fate.attempts == 0)
        fate = verdicts[1]
        if isinstance(fate, Dead):
            break
        assert isinstance(fate, Retry)
        poison = RanTurn(1, fate.attempts, calling=True, suspect=fate.suspect, lost=fate.lost)
    assert runs == fate.attempts == limit


def test_a_culprit_that_had_ended_already_blames_nobody() -> None:
    verdicts = judge(Death(Cause.HUNG, 77), [RanTurn(1, 0), RanTurn(2, 0)], 3)
    assert all(isinstance(verdict, Retry) and verdict.delay_s == 0 for verdict in verdicts.values())


def test_a_drain_uses_no_attempt() -> None:
    assert judge(Death(Cause.DRAINED, 1), [RanTurn(1, 2), RanTurn(2, 2)], 3) == {1: Parked(), 2: Parked()}


def test_an_overrun_turn_is_told_and_keeps_what_its_steps_did() -> None:
    verdicts = judge(Death(Cause.OVERRAN, 1, "late"), [RanTurn(1, 0, STEPS), RanTurn(2, 0)], 3, "0:7")
    ended = verdicts[1]
    assert isinstance(ended, Ended)
    assert ended.status is TurnStatus.TIMED_OUT
    assert (ended.messages, ended.todo, ended.usage.model_calls) == ((b"1", b"2", b"3"), b"[1]", 2)
    assert (ended.worker, ended.error) == ("0:7", "late")
    assert verdicts[2] == Parked()


def test_every_overdue_turn_of_the_worker_ends_with_the_first() -> None:
    verdicts = judge(Death(Cause.OVERRAN, 1), [RanTurn(1, 0, overdue=True), RanTurn(2, 0, overdue=True)], 3)
    assert [getattr(verdict, "status", None) for verdict in verdicts.values()] == [TurnStatus.TIMED_OUT] * 2


@pytest.mark.parametrize("cause", list(Cause))
def test_what_its_sender_stopped_never_runs_again(cause: Cause) -> None:
    verdict = judge(Death(cause, 2), [RanTurn(1, 0, interrupted=True), RanTurn(2, 0)], 3)[1]
    assert isinstance(verdict, Ended)
    assert verdict.status is TurnStatus.INTERRUPTED


@given(
    cause=st.sampled_from(Cause),
    culprit=st.integers(0, 4),
    turns=st.lists(st.integers(1, 4), unique=True, max_size=4),
    attempts=st.integers(0, 5),
)
def test_every_turn_gets_one_verdict_and_only_a_blamed_one_dies(
    cause: Cause, culprit: int, turns: list[int], attempts: int
) -> None:
    verdicts = judge(Death(cause, culprit), [RanTurn(turn, attempts) for turn in turns], 3)
    assert set(verdicts) == set(turns)
    dead = {turn for turn, verdict in verdicts.items() if isinstance(verdict, Dead)}
    assert dead <= ({culprit} | (set(turns) if len(turns) == 1 else set()))
