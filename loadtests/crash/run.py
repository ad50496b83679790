"""A run: many rounds, spread over lanes that work side by side."""

from __future__ import annotations

import itertools
import queue
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Protocol

from loadtests.crash.audit import Findings
from loadtests.crash.lane import Lane
from loadtests.crash.plan import Round


class RunsRounds(Protocol):
    """A lane, of one gateway or of a cluster."""

    def run(self, plan: Round) -> Findings:
        """Run one round to its end, or its deadline, and judge it."""


#: opens a lane in a directory
OpenLane = Callable[[Path], AbstractContextManager[RunsRounds]]


def run_rounds(
    plans: Iterable[Round],
    directory: Path,
    lanes: int = 2,
    tell: Callable[[Findings], None] = lambda _: None,
    open_lane: OpenLane = Lane,
) -> list[Findings]:
    """Run every round in one of the lanes and return what was found, by number; ``tell`` gets each as it comes.

    A round that breaks a guarantee ends its lane: what it leaves is evidence, and no ground for the next round.
    """
    waiting: queue.SimpleQueue[Round] = queue.SimpleQueue()
    for plan in plans:
        waiting.put(plan)
    with ThreadPoolExecutor(lanes) as pool:
        running = [
            pool.submit(run_lane, directory / f"lane{number}", waiting, tell, open_lane) for number in range(lanes)
        ]
        try:
            found = [one for lane in running for one in lane.result()]
        finally:
            drop_all(waiting)  # after a Ctrl-C, or a lane that failed, the others end with the round they are in
    return sorted(found, key=lambda one: one.number)


def drop_all(waiting: queue.SimpleQueue[Round]) -> None:
    """Leave nothing to be run."""
    with suppress(queue.Empty):
        while True:
            waiting.get_nowait()


def run_lane(
    directory: Path, waiting: queue.SimpleQueue[Round], tell: Callable[[Findings], None], open_lane: OpenLane
) -> list[Findings]:
    """Run rounds until none waits."""
    found: list[Findings] = []
    for part in itertools.count():
        if waiting.empty():
            break
        place = directory.with_name(f"{directory.name}-{part}")
        place.mkdir(parents=True)
        with open_lane(place) as lane:
            found += run_until_broken(lane, waiting, tell)
    return found


def run_until_broken(
    lane: RunsRounds, waiting: queue.SimpleQueue[Round], tell: Callable[[Findings], None]
) -> list[Findings]:
    """Run rounds in a lane until none waits or one broke a guarantee."""
    found: list[Findings] = []
    with suppress(queue.Empty):
        while not found or not found[-1].problems:
            plan = waiting.get_nowait()
            try:
                found.append(lane.run(plan))
            except Exception as error:
                error.add_note(f"in round {plan.number}")
                raise
            tell(found[-1])
    return found
