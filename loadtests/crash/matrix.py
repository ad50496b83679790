"""The matrix that a run prints: one line a boundary, what was killed there and what became of the messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from loadtests.crash.audit import Findings
from loadtests.crash.plan import Boundary, Kill, Side, Victim

COLUMNS: tuple[tuple[str, Callable[[Findings], int]], ...] = (
    ("gw", lambda found: found.fired and found.kill.victim is Victim.GATEWAY),
    ("wrk", lambda found: found.fired and found.kill.victim is Victim.WORKER),
    ("fork", lambda found: found.fired and found.kill.victim is Victim.FORK_SERVER),
    ("both", lambda found: found.fired and found.kill.victim is Victim.BOTH),
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
)


def print_matrix(found: Sequence[Findings]) -> None:
    """Print the matrix of all rounds."""
    print("kill".ljust(20) + "".join(name.rjust(max(6, len(name) + 2)) for name, _ in COLUMNS))
    for name in kill_names():
        rows = [one for one in found if one.kill.name == name]
        if rows:
            print_row(name, rows)
    print_row("all", found)


def print_row(name: str, rows: Iterable[Findings]) -> None:
    cells = [str(sum(count(row) for row in rows)).rjust(max(6, len(title) + 2)) for title, count in COLUMNS]
    print(name.ljust(20) + "".join(cells))


def kill_names() -> list[str]:
    """Return the names of all kills, in the order of a message's way."""
    return list(dict.fromkeys(Kill(boundary, side, Victim.BOTH).name for boundary in Boundary for side in Side))
