"""What the rounds of a cluster are; all of it follows from the seed and the rounds' numbers."""

from __future__ import annotations

import random
from collections.abc import Iterable

from loadtests.crash.fault import Fault, FaultKind, Party, Storm
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


#: seconds between two faults of a storm: a cut lasts 20, a pause 13, and the next comes meanwhile
SPACING_S = 9.0
#: how long a host is left alone after a fault has been mended, in seconds
RESTS_S = 12.0


def plan_storm(seed: int, number: int, cells: list[tuple[FaultKind, Party]], hosts: dict[Party, int]) -> Round:
    """Return a round in which every cell happens once, each while others last, to a host that has no fault now.

    Eight sessions talk on meanwhile; ``hosts`` says how many there are of each party.
    """
    chance = random.Random(f"storm {seed}/{number}")
    free_at = {party: [0.0] * hosts.get(party, 1) for party in Party}
    faults: list[Fault] = []
    at = 2.0
    for kind, party in chance.sample(cells, len(cells)):
        free = [nth for nth, since in enumerate(free_at[party]) if since <= at]
        nth = chance.choice(free) if free else free_at[party].index(min(free_at[party]))
        fault = Fault(kind, party, nth, round(max(at, free_at[party][nth]), 3))
        free_at[party][nth] = fault.after_s + fault.lasts_s + RESTS_S
        faults.append(fault)
        at += SPACING_S + chance.uniform(0, 4)
    faults.sort(key=lambda fault: fault.after_s)
    pause_s = 4.0
    messages = max(4, round(faults[-1].after_s / pause_s))
    talks = plan_talks(chance, number, sessions=8, messages=messages, pace=4.0)
    return Round(number, Storm(tuple(faults)), talks, pause_s=pause_s)
