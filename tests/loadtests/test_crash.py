"""The crash proof, a short round of it: both sides of every boundary, with real processes and real kills."""

from __future__ import annotations

from pathlib import Path

from loadtests.crash.doors import Door
from loadtests.crash.features import Feature
from loadtests.crash.plan import LED, TIMED, Boundary, Side, Victim, every_cell, plan_rounds, short_cells
from loadtests.crash.run import run_rounds

SEED = 1


def test_a_kill_on_either_side_of_every_boundary_breaks_no_guarantee(tmp_path: Path) -> None:
    found = run_rounds(plan_rounds(SEED, short_cells()), tmp_path)
    assert [(one.number, problem) for one in found for problem in one.problems] == []
    assert [one.number for one in found if not one.fired] == []
    assert sum(one.answered for one in found) == sum(one.accepted for one in found) == 12 * len(found)
    assert sum(one.redelivered for one in found) > len(found)
    assert {one.feature for one in found} == set(Feature)
    assert {door for one in found for door, count in one.doors.items() if count.answered == 3} == set(Door)


def test_a_short_run_has_both_sides_of_every_boundary_and_every_victim() -> None:
    cells = short_cells()
    reached = set(Boundary) - TIMED - LED
    sides = {(boundary, side) for boundary, side, _ in cells if boundary in reached}
    assert len(sides) == 2 * len(reached)
    assert {victim for _, _, victim in cells} == set(Victim)
    assert len(every_cell()) == len(Side) * len(Victim) * len(reached) + 3 * len(Victim) + 4


def test_a_seed_and_a_number_make_the_same_round_again() -> None:
    cells = short_cells()
    (again,) = plan_rounds(SEED, cells, [5])
    assert again == plan_rounds(SEED, cells)[5]
    assert plan_rounds(SEED + 1, cells)[5] != again
