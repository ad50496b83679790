"""How benchmarks measure and print: interleaved rounds, medians, ratios side by side in one run."""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

Samples = dict[str, list[float]]

#: the environment's name of the file to which every table that is printed is added too, one JSON text a line
TABLES = "BENCH_TABLES"
#: exit status of a benchmark that said what is missing here to run it
MISSING = 77


class Row(msgspec.Struct, frozen=True):
    """One contender's measurements."""

    median: float
    samples: list[float]  #: in the order of the rounds


class Table(msgspec.Struct, frozen=True):
    """A table as it is written to a file."""

    title: str
    unit: str
    rows: dict[str, Row]


async def interleaved(rounds: int, contenders: Mapping[str, Callable[[], Awaitable[float]]]) -> Samples:
    """Measure every contender once a round, so that a slow moment of the machine hits all of them."""
    samples: Samples = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, measure in contenders.items():
            samples[name].append(await measure())
    return samples


class Measured(Protocol):
    """A contender that notes more of each round than the figure it gives: by name, a figure a round."""

    samples: Samples

    async def measure(self) -> float:
        """Run one round; return its figure."""


async def warm_rounds(rounds: int, contenders: Mapping[str, Measured]) -> Samples:
    """Measure contenders in turns, after one round of which nothing is kept."""
    measures = {name: contender.measure for name, contender in contenders.items()}
    await interleaved(1, measures)
    for contender in contenders.values():
        for values in contender.samples.values():
            values.clear()
    return await interleaved(rounds, measures)


def noted(contenders: Mapping[str, Measured], what: str) -> Samples:
    """Return what each contender noted under a name."""
    return {name: contender.samples[what] for name, contender in contenders.items()}


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile; ``share`` is between 0 and 1."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def print_table(title: str, unit: str, samples: Mapping[str, Sequence[float]]) -> None:
    """Print the median of each contender, its span, and its ratio to the first one."""
    medians = {name: statistics.median(values) for name, values in samples.items()}
    baseline = next(iter(medians.values()))
    width = max(len(name) for name in medians)
    print(f"\n{title}")
    for name, values in samples.items():
        span = f"{figure(min(values))} to {figure(max(values))}" if len(values) > 1 else ""
        ratio = medians[name] / baseline if baseline else math.nan
        print(f"  {name:<{width}}  {figure(medians[name]):>10} {unit:<8}  {ratio:6.2f} x  {span}")
    print(end="", flush=True)
    if path := os.environ.get(TABLES):
        table = Table(title, unit, {name: Row(medians[name], list(values)) for name, values in samples.items()})
        with Path(path).open("ab") as file:
            file.write(msgspec.json.encode(table) + b"\n")


def figure(value: float) -> str:
    """Write a figure with three digits that matter, and no exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def pin(core: int, pid: int = 0) -> bool:
    """Keep a process (0: this one), with all its threads, on one core; False where that cannot be done."""
    if not hasattr(os, "sched_setaffinity") or core not in os.sched_getaffinity(0) | os.sched_getaffinity(pid):
        return False
    for task in Path(f"/proc/{pid or os.getpid()}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})
    return True


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process's threads, without those that have ended (Linux); 0 if it is gone."""
    spent_ns = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            spent_ns += int(task.read_text().split()[0])
    return spent_ns / 1e9


def pss_bytes(pid: int) -> int:
    """Return a process's proportional set size: what it holds alone, and its share of what it shares (Linux).

    Of a worker only root may ask that. Raises PermissionError.
    """
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


def may_see_workers(name: str) -> bool:
    """Tell whether this user may ask for the memory of workers; say it where not."""
    if os.geteuid() == 0:
        return True
    print(f"{name} is not run: the memory of workers is shown to root alone")
    return False


def each_us(count: int, deed: Callable[[], object]) -> float:
    """Return the microseconds that one call takes, over ``count`` of them."""
    began = time.perf_counter()
    for _ in range(count):
        deed()
    return (time.perf_counter() - began) / count * 1e6


def rounds(contenders: Mapping[str, tuple[int, Callable[[], object]]], count: int = 5) -> Samples:
    """Measure the microseconds of a call of each contender, over so many calls, once in each of ``count`` rounds."""
    samples: Samples = {name: [] for name in contenders}
    for _ in range(count):
        for name, (calls, deed) in contenders.items():
            samples[name].append(each_us(calls, deed))
    return samples
