"""Runs every benchmark of this folder as its own process; names on the command line choose some of them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LIMIT_S = 600


def names() -> list[str]:
    """Return the benchmarks there are."""
    return sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))


def run(name: str) -> bool:
    """Run one benchmark; what it prints goes straight on. Tells whether it came to its end."""
    print(f"\n=== {name} " + "=" * (76 - len(name)), flush=True)
    command = [sys.executable, "-m", f"loadtests.bench.{name}"]
    began = time.monotonic()
    try:
        status = subprocess.run(command, check=False, cwd=ROOT, timeout=LIMIT_S).returncode
    except subprocess.TimeoutExpired:
        print(f"{name} took more than {LIMIT_S} s", file=sys.stderr)
        return False
    print(f"({name}: {time.monotonic() - began:.0f} s, exit status {status})", flush=True)
    return status == 0


def main(wanted: list[str]) -> int:
    """Run the benchmarks; 0 if all of them came to their end, 2 for a name that does not exist."""
    known = names()
    if unknown := [name for name in wanted if name not in known]:
        print(f"there is no benchmark {unknown[0]}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    print(f"python {sys.version.split()[0]}; absolute figures move with the machine, ratios of one table travel")
    failed = [name for name in wanted or known if not run(name)]
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
