"""The matrix that a run prints: one line a boundary, what was killed there and what became of the messages."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

from loadtests.crash.audit import DoorCount, Findings
from loadtests.crash.doors import Door
from loadtests.crash.fault import FaultKind, Party
from loadtests.crash.features import Feature
from loadtests.crash.plan import Boundary, Kill, Side, Victim

NAME_WIDTH = 22
Column = tuple[str, Callable[[Findings], int]]

#: what the columns of the kills are called, by victim
VICTIMS: tuple[tuple[str, enum.StrEnum], ...] = (
    ("gw", Victim.GATEWAY),
    ("wrk", Victim.WORKER),
    ("fork", Victim.FORK_SERVER),
    ("both", Victim.BOTH),
    ("gateway", Party.GATEWAY),
    ("worker host", Party.WORKER_HOST),
    ("database", Party.DATABASE),
    ("several", Party.SEVERAL),
)
COLUMNS: tuple[Column, ...] = (
    ("accepted", lambda found: found.accepted),
    ("answered", lambda found: found.answered),
    ("dead", lambda found: found.dead),
    ("lost", lambda found: found.lost),
    ("2nd turn", lambda found: found.second_turns),
    ("finished again", lambda found: found.finished_again),
    ("begun again", lambda found: found.unfinished_again),
    ("sent twice", lambda found: found.sent_twice),
    ("wrongly", lambda found: found.sent_twice_wrongly),
    ("disorder", lambda found: found.out_of_order),
    ("strays", lambda found: found.strays),
    ("calls again", lambda found: found.model_calls_again),
)


def print_matrix(found: Sequence[Findings]) -> None:
    """Print the matrix of all rounds."""
    met = [(name, victim) for name, victim in VICTIMS if any(one.kill.victim is victim for one in found)]
    columns = [*((name, kills_of(victim)) for name, victim in met), *COLUMNS]
    print("kill".ljust(NAME_WIDTH) + "".join(name.rjust(max(6, len(name) + 2)) for name, _ in columns))
    for name in kill_names():
        rows = [one for one in found if one.kill.name == name]
        if rows:
            print_row(name, rows, columns)
    print_row("all", found, columns)
    for feature in Feature:
        if rows := [one for one in found if one.feature is feature]:
            print_row(f"with {feature}", rows, columns)
    print_doors(found)


def print_doors(found: Sequence[Findings]) -> None:
    """Print what became of the messages of each door."""
    print("\n" + "over".ljust(NAME_WIDTH) + "".join(name.rjust(10) for name in DoorCount.__struct_fields__))
    for door in Door:
        counts = [one.doors[door] for one in found if door in one.doors]
        if counts:
            sums = [sum(getattr(count, name) for count in counts) for name in DoorCount.__struct_fields__]
            print(door.ljust(NAME_WIDTH) + "".join(str(number).rjust(10) for number in sums))


def kills_of(victim: enum.StrEnum) -> Callable[[Findings], int]:
    """Return what counts the kills that went off against a victim."""
    return lambda found: found.fired and found.kill.victim is victim


def print_row(name: str, rows: Sequence[Findings], columns: Sequence[Column]) -> None:
    cells = [str(sum(count(row) for row in rows)).rjust(max(6, len(title) + 2)) for title, count in columns]
    print(name.ljust(NAME_WIDTH) + "".join(cells))


def kill_names() -> list[str]:
    """Return the names of all kills, in the order of a message's way, and of all faults."""
    kills = [Kill(boundary, side, Victim.BOTH).name for boundary in Boundary for side in Side]
    return list(dict.fromkeys([*kills, *FaultKind]))
