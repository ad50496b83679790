"""``python -m loadtests.crash --seed N --rounds N``: the crash proof; see docs/crash-proof.md.

Exit statuses: 0 every guarantee held; 1 one broke, and the line above names the round to replay.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from loadtests.crash.audit import Findings
from loadtests.crash.matrix import print_matrix
from loadtests.crash.plan import Boundary, every_cell, plan_rounds, short_cells, shuffled_cells
from loadtests.crash.run import run_rounds


def main() -> int:
    """Run the rounds that the command line asks for."""
    asked = arguments().parse_args()
    cells = short_cells() if asked.short else shuffled_cells(asked.seed)
    numbers = asked.round or range(asked.rounds or len(cells))
    plans = plan_rounds(asked.seed, cells, numbers)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that its gateways are ended on either signal
    directory = asked.keep or Path(tempfile.mkdtemp(prefix="gatehouse-crash-"))
    started = time.monotonic()
    found = run_rounds(plans, directory, asked.lanes, tell=lambda one: print(line_of(one), flush=True))
    broken = [one for one in found if one.problems]
    print_matrix(found)
    fired = sum(one.fired for one in found)
    print(f"\nseed {asked.seed}: {len(found)} rounds, {fired} kills, {time.monotonic() - started:.0f} s")
    short = " --short" if asked.short else ""
    for one in broken:
        print(f"BROKEN: replay with --seed {asked.seed} --round {one.number}{short}; what it left is in {directory}")
    return 1 if broken or not found else 0


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.crash", description="Kill it everywhere and look.")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="decides everything; default any")
    parser.add_argument(
        "--rounds", type=int, help=f"how many, each with one kill (default: each of {len(every_cell())} kills once)"
    )
    parser.add_argument(
        "--round", type=int, action="append", help="replay this round alone; may be given several times"
    )
    parser.add_argument("--short", action="store_true", help="both sides of every boundary once, the victims in turns")
    parser.add_argument("--lanes", type=int, default=2, help="gateways that run rounds side by side (default 2)")
    parser.add_argument("--keep", type=Path, help="the directory for data and notes (default: a new temporary one)")
    return parser


def line_of(found: Findings) -> str:
    """Return the line of one round."""
    kill = found.kill
    moment = f"after {kill.after_s:.2f} s" if kill.boundary is Boundary.RANDOM else f"the {kill.nth}. time"
    head = f"round {found.number:4}  {kill.name:<20} {moment:<13} {kill.victim.value:<8} {found.seconds:5.1f} s"
    said = "ok" if found.fired else "ok, but its moment never came"
    return "\n".join([f"{head}  {said if not found.problems else 'BROKEN'}", *(f"    {one}" for one in found.problems)])


if __name__ == "__main__":
    sys.exit(main())
