"""``python -m loadtests.mutants [WORD …]``: plant each fault whose name has one of the words, and say which survive.

The tests of a fault first run without it: where they do not pass, the fault proves nothing and counts as survived.
The exit status is 0 if every fault was noticed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from loadtests.mutants.fault import Fault
from loadtests.mutants.faults import FAULTS
from loadtests.mutants.plot import ROOT, Plot

#: copies that are tested side by side
SIDE_BY_SIDE = 2


def verdict_of(fault: Fault, plot: Plot, *, sound: bool) -> tuple[bool, str]:
    """Plant a fault, run its tests, take it out; return whether it was noticed, and a line that says it."""
    if not sound:
        return False, f"UNPROVEN  {fault.name}: its tests do not pass without it"
    fault.plant(plot.root)
    try:
        run = plot.test(fault.tests)
    finally:
        fault.remove(plot.root, ROOT)
    if run.passed:
        return False, f"SURVIVED  {fault.name} ({', '.join(fault.tests)})"
    if not run.noticed:
        return False, f"UNPROVEN  {fault.name}: pytest ended with {run.status}\n{run.output}"
    return True, f"caught    {fault.name} ({run.took_s:.0f} s)"


def main(words: Sequence[str]) -> int:
    """Run the faults; 2 if a word names none."""
    faults = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    if not faults:
        print(f"no fault is called {' or '.join(words)}", file=sys.stderr)
        return 2
    plots: SimpleQueue[Plot] = SimpleQueue()
    opened = [Plot() for _ in range(SIDE_BY_SIDE)]
    for plot in opened:
        plots.put(plot)

    def sound(tests: tuple[str, ...]) -> bool:
        plot = plots.get()
        try:
            return plot.test(tests).passed
        finally:
            plots.put(plot)

    def judge(fault: Fault) -> bool:
        plot = plots.get()
        try:
            noticed, line = verdict_of(fault, plot, sound=passes[fault.tests])
        finally:
            plots.put(plot)
        print(line, flush=True)
        return noticed

    try:
        with ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
            selections = list(dict.fromkeys(fault.tests for fault in faults))
            passes = dict(zip(selections, threads.map(sound, selections), strict=True))
            noticed = list(threads.map(judge, faults))
    finally:
        for plot in opened:
            plot.close()
    print(f"{sum(noticed)} of {len(noticed)} planted faults were caught")
    return 0 if all(noticed) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
