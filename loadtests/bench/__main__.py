"""Runs every benchmark of this folder as its own process; names on the command line choose some of them.

All of them together take less than ten minutes on two free cores: some measure fewer messages or rounds for it, unless
``--long`` is given or the environment says how many. Those that are named measure as many as they do by themselves.
What is printed as a table is in ``loadtests/results/bench.json`` too, or where BENCH_RESULTS says, with every round and
the machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import apsw
import msgspec

from loadtests.measuring import MISSING, TABLES, Table

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LIMIT_S = 600
RESULTS = Path(os.environ.get("BENCH_RESULTS", ROOT / "loadtests" / "results" / "bench.json"))
#: what those that would take minutes measure where all are run
SHORT = {
    "ack": {"BENCH_REQUESTS": "3000", "BENCH_ROUNDS": "5"},
    "api": {"BENCH_MESSAGES": "16"},
    "dispatch": {"BENCH_TURNS": "2000"},
    "growth": {"BENCH_MESSAGES": "60"},
    "hang": {"BENCH_ROUNDS": "3"},
    "hosts": {"BENCH_SECONDS": "1", "BENCH_SESSIONS": "6"},
    "loop_lag": {"BENCH_SECONDS": "6"},
    "mixed": {"BENCH_SESSIONS": "120", "BENCH_ROUNDS": "3"},
    "model_calls": {"BENCH_ROUNDS": "5", "BENCH_CALLS": "2"},
    "neighbours": {"BENCH_ROUNDS": "8"},
    "pages": {"BENCH_SESSIONS": "20000", "BENCH_LETTERS": "2000", "BENCH_ROUNDS": "3"},
    "readers": {"BENCH_SECONDS": "6"},
    "replacement": {"BENCH_ROUNDS": "5"},
    "soak": {"BENCH_TURNS": "16000"},
    "stop": {"BENCH_ROUNDS": "8"},
    "store": {"BENCH_TURNS": "512"},
}


def names() -> list[str]:
    """Return the benchmarks there are."""
    modules = (path for path in HERE.glob("*.py") if not path.stem.startswith("_"))
    return sorted(path.stem for path in modules if '__name__ == "__main__"' in path.read_text())


class Benchmark(msgspec.Struct, frozen=True):
    """One run of a benchmark."""

    seconds: float
    status: int  #: its exit status, -1 where it took too long, MISSING where it could not be run here
    sizes: dict[str, str]  #: what it was told to measure, by the environment's names; the rest as its module says
    tables: list[Table]


class Results(msgspec.Struct, frozen=True):
    """What one run of this program measured, and where."""

    began: float  #: unix seconds
    machine: dict[str, str | int | float]
    benchmarks: dict[str, Benchmark]


def machine() -> dict[str, str | int | float]:
    """Return what the figures depend on: processors, load at the start, versions."""
    versions = {name: metadata.version(name) for name in ("starlette", "uvicorn", "uvloop", "apsw", "msgspec")}
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "load_1m": os.getloadavg()[0],
        "sqlite": apsw.sqlite_lib_version(),
        **versions,
    }


def run(name: str, sizes: dict[str, str]) -> Benchmark:
    """Run one benchmark; what it prints goes straight on."""
    print(f"\n=== {name} " + "=" * (76 - len(name)), flush=True)
    command = [sys.executable, "-m", f"loadtests.bench.{name}"]
    began = time.monotonic()
    with tempfile.NamedTemporaryFile() as tables:
        try:
            environment = os.environ | sizes | {TABLES: tables.name}
            status = subprocess.run(command, check=False, cwd=ROOT, timeout=LIMIT_S, env=environment).returncode
        except subprocess.TimeoutExpired:
            print(f"{name} took more than {LIMIT_S} s", file=sys.stderr)
            status = -1
        seconds = time.monotonic() - began
        print(f"({name}: {seconds:.0f} s, exit status {status})", flush=True)
        return Benchmark(seconds, status, sizes, [msgspec.json.decode(line, type=Table) for line in tables])


def sizes_of(name: str, *, short: bool) -> dict[str, str]:
    """Return how much a benchmark is to measure: what the environment says is kept."""
    asked = {size: value for size, value in os.environ.items() if size in SHORT.get(name, {})}
    return SHORT.get(name, {}) | asked if short else asked


def show_times(benchmarks: dict[str, Benchmark]) -> None:
    """Print how long each took, the longest first, and how it ended."""
    print("\nwhat each took")
    for name, one in sorted(benchmarks.items(), key=lambda item: -item[1].seconds):
        ended = {0: "", MISSING: "  not run: what it needs is missing"}.get(one.status, f"  FAILED ({one.status})")
        print(f"  {name:<14} {one.seconds:6.1f} s{ended}")
    print(f"  {'all':<14} {sum(one.seconds for one in benchmarks.values()):6.1f} s")


def main(arguments: list[str]) -> int:
    """Run the benchmarks; 1 if one failed, 2 for a name that does not exist. One that cannot run here fails nothing."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench")
    parser.add_argument("names", nargs="*", help=f"those to run, all if none is named: {', '.join(names())}")
    parser.add_argument("--long", action="store_true", help="measure as much where all run as where one does")
    asked = parser.parse_args(arguments)
    if unknown := [name for name in asked.names if name not in names()]:
        print(f"there is no benchmark {unknown[0]}; there are {', '.join(names())}", file=sys.stderr)
        return 2
    print(f"python {sys.version.split()[0]}; absolute figures move with the machine, ratios of one table travel")
    results = Results(time.time(), machine(), {})
    for name in asked.names or names():
        sizes = sizes_of(name, short=not asked.names and not asked.long)
        results.benchmarks[name] = run(name, sizes)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    show_times(results.benchmarks)
    print(f"\nevery round of every table: {RESULTS}")
    failed = [name for name, benchmark in results.benchmarks.items() if benchmark.status not in (0, MISSING)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
