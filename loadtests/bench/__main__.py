"""Runs every benchmark of this folder as its own process; names on the command line choose some of them.

What is printed as a table is in ``loadtests/results/bench.json`` too, or where BENCH_RESULTS says, with every round and
the machine.
"""

from __future__ import annotations

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

from loadtests.measuring import TABLES, Table

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LIMIT_S = 600
RESULTS = Path(os.environ.get("BENCH_RESULTS", ROOT / "loadtests" / "results" / "bench.json"))


def names() -> list[str]:
    """Return the benchmarks there are."""
    return sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))


class Benchmark(msgspec.Struct, frozen=True):
    """One run of a benchmark."""

    seconds: float
    status: int  #: its exit status, -1 where it took too long
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


def run(name: str) -> Benchmark:
    """Run one benchmark; what it prints goes straight on."""
    print(f"\n=== {name} " + "=" * (76 - len(name)), flush=True)
    command = [sys.executable, "-m", f"loadtests.bench.{name}"]
    began = time.monotonic()
    with tempfile.NamedTemporaryFile() as tables:
        try:
            environment = os.environ | {TABLES: tables.name}
            status = subprocess.run(command, check=False, cwd=ROOT, timeout=LIMIT_S, env=environment).returncode
        except subprocess.TimeoutExpired:
            print(f"{name} took more than {LIMIT_S} s", file=sys.stderr)
            status = -1
        seconds = time.monotonic() - began
        print(f"({name}: {seconds:.0f} s, exit status {status})", flush=True)
        return Benchmark(seconds, status, [msgspec.json.decode(line, type=Table) for line in tables])


def main(wanted: list[str]) -> int:
    """Run the benchmarks; 0 if all of them came to their end, 2 for a name that does not exist."""
    known = names()
    if unknown := [name for name in wanted if name not in known]:
        print(f"there is no benchmark {unknown[0]}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    print(f"python {sys.version.split()[0]}; absolute figures move with the machine, ratios of one table travel")
    results = Results(time.time(), machine(), {})
    for name in wanted or known:
        results.benchmarks[name] = run(name)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    print(f"\nevery round of every table: {RESULTS}")
    failed = [name for name, benchmark in results.benchmarks.items() if benchmark.status]
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
