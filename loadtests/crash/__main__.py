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
from contextlib import ExitStack
from pathlib import Path

from loadtests.crash.audit import Findings
from loadtests.crash.cluster.lane import GATEWAYS, ClusterLane
from loadtests.crash.cluster.plan import cluster_cells, plan_faults, plan_storm
from loadtests.crash.fault import Party
from loadtests.crash.matrix import print_matrix
from loadtests.crash.plan import every_cell, plan_rounds, short_cells, shuffled_cells
from loadtests.crash.run import run_rounds
from loadtests.network import Network, NoNamespaces


def main() -> int:
    """Run the rounds that the command line asks for."""
    asked = arguments().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that its gateways are ended on either signal
    directory = asked.keep or Path(tempfile.mkdtemp(prefix="gatehouse-crash-"))
    started = time.monotonic()
    found = run_cluster(asked, directory) if asked.cluster else run_one_machine(asked, directory)
    broken = [one for one in found if one.problems]
    print_matrix(found)
    fired = sum(one.fired for one in found)
    slowest_s = max((one.recovery_s for one in found), default=0.0)
    print(f"\nseed {asked.seed}: {len(found)} rounds, {fired} kills, {time.monotonic() - started:.0f} s")
    print(f"slowest recovery: {slowest_s:.1f} s from the last kill to the last answer")
    short = " --short" if asked.short else " --cluster" if asked.cluster else ""
    short += f" --storms {asked.storms}" if asked.storms else ""
    for one in broken:
        print(f"BROKEN: replay with --seed {asked.seed} --round {one.number}{short}; what it left is in {directory}")
    return 1 if broken or not found else 0


def run_one_machine(asked: argparse.Namespace, directory: Path) -> list[Findings]:
    """Run rounds with one gateway a lane, on the embedded database."""
    cells = short_cells() if asked.short else shuffled_cells(asked.seed)
    plans = plan_rounds(asked.seed, cells, asked.round or range(asked.rounds or len(cells)))
    return run_rounds(plans, directory, asked.lanes, tell)


def run_cluster(asked: argparse.Namespace, directory: Path) -> list[Findings]:
    """Run rounds with several hosts on a database of their own, each in a namespace where they can be made."""
    with ExitStack() as held:
        try:
            network = held.enter_context(Network())
        except NoNamespaces as error:
            network = None
            print(f"no links are cut, every host is on loopback: {error}")
        cells = cluster_cells(asked.seed, links=network is not None)
        if asked.storms:
            hosts = {Party.GATEWAY: GATEWAYS, Party.WORKER_HOST: asked.worker_hosts}
            numbers = asked.round or range(asked.storms)
            plans = [plan_storm(asked.seed, number, cells, hosts) for number in numbers]
        else:
            plans = plan_faults(asked.seed, cells, asked.round or range(asked.rounds or len(cells)))
        return run_rounds(plans, directory, 1, tell, lambda place: ClusterLane(place, asked.worker_hosts, network))


def tell(found: Findings) -> None:
    print(line_of(found), flush=True)


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
    parser.add_argument("--cluster", action="store_true", help="several hosts on a PostgreSQL of their own")
    parser.add_argument("--worker-hosts", type=int, default=3, help="worker hosts of the cluster (default 3)")
    parser.add_argument("--storms", type=int, help="rounds of two minutes instead, in which all faults overlap")
    parser.add_argument("--lanes", type=int, default=2, help="gateways that run rounds side by side (default 2)")
    parser.add_argument("--keep", type=Path, help="the directory for data and notes (default: a new temporary one)")
    return parser


def line_of(found: Findings) -> str:
    """Return the line of one round."""
    kill = found.kill
    head = f"round {found.number:4}  {kill.name:<20} {kill.moment:<13} {kill.victim.value:<11} {found.feature:<15}"
    head += f" {found.seconds:5.1f} s"
    said = "ok" if found.fired else "ok, but its moment never came"
    return "\n".join([f"{head}  {said if not found.problems else 'BROKEN'}", *(f"    {one}" for one in found.problems)])


if __name__ == "__main__":
    sys.exit(main())
