"""What the rounds of a cluster are; all of it follows from the seed and the rounds' numbers."""

from __future__ import annotations

import random
from collections.abc import Iterable

from loadtests.crash.fault import Fault, FaultKind, Party
from loadtests.crash.plan import Round, plan_talks

#: whom each kind may befall
CELLS = (
    (FaultKind.KILL, Party.GATEWAY),
    (FaultKind.KILL, Party.WORKER_HOST),
    (FaultKind.KILL, Party.DATABASE),
    (FaultKind.PAUSE, Party.GATEWAY),
    (FaultKind.PAUSE, Party.WORKER_HOST),
    (FaultKind.CUT_OFF, Party.GATEWAY),
    (FaultKind.CUT_OFF, Party.WORKER_HOST),
    (FaultKind.KILL_PARENT, Party.GATEWAY),
    (FaultKind.KILL_PARENT, Party.WORKER_HOST),
    (FaultKind.DRAIN, Party.GATEWAY),
    (FaultKind.DRAIN, Party.WORKER_HOST),
)


def cluster_cells(seed: int, *, links: bool) -> list[tuple[FaultKind, Party]]:
    """Return every kind with whom it befalls, in the order of a seed; cuts only where hosts have ``links``."""
    cells = [cell for cell in CELLS if links or cell[0] is not FaultKind.CUT_OFF]
    random.Random(seed).shuffle(cells)
    return cells


def plan_faults(seed: int, cells: list[tuple[FaultKind, Party]], numbers: Iterable[int] | None = None) -> list[Round]:
    """Return the rounds of a seed, which take the cells in turns; each once by default."""
    return [
        plan_fault(seed, number, cells[number % len(cells)])
        for number in (range(len(cells)) if numbers is None else numbers)
    ]


def plan_fault(seed: int, number: int, cell: tuple[FaultKind, Party]) -> Round:
    """Return the round of this seed and number: eight sessions at a slow pace, so that a fault meets many turns."""
    chance = random.Random(f"{seed}/{number}")
    talks = plan_talks(chance, number, sessions=8, messages=4, pace=4.0)
    return Round(number, Fault(*cell, chance.randrange(100), round(chance.uniform(0.2, 1.5), 3)), talks)
