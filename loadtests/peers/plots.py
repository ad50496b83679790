"""Draws the tables of a benchmark's JSON file, and the memory of a soak, as PNG; run by the peers' own interpreter.

``.venv-peers/bin/python loadtests/peers/plots.py loadtests/results/bench.json docs/performance``
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot

BLUE, RED = "#33658a", "#c8553d"


def draw_bench(name: str, benchmark: dict[str, Any], place: Path) -> None:
    """Draw every table of a benchmark: a bar a row, its median, and its span as a line."""
    tables = [table for table in benchmark["tables"] if table["rows"]]
    if not tables:
        return
    heights = [0.45 + 0.3 * len(table["rows"]) for table in tables]
    figure, axes = pyplot.subplots(len(tables), 1, figsize=(8, sum(heights) + 0.4 * len(tables)), squeeze=False,
                                   gridspec_kw={"height_ratios": heights})  # fmt: skip
    for axis, table in zip(axes[:, 0], tables, strict=True):
        names = list(table["rows"])
        medians = [row["median"] for row in table["rows"].values()]
        low = [row["median"] - min(row["samples"]) for row in table["rows"].values()]
        high = [max(row["samples"]) - row["median"] for row in table["rows"].values()]
        axis.barh(names, medians, xerr=[low, high], color=BLUE, ecolor=RED, height=0.6)
        axis.invert_yaxis()
        axis.set_title(f"{table['title']} ({table['unit']})", fontsize=8, loc="left")
        axis.tick_params(labelsize=7)
    figure.tight_layout()
    figure.savefig(place / f"{name}.png", dpi=110)
    pyplot.close(figure)


def draw_soak(soak: dict[str, Any], place: Path) -> None:
    """Draw the memory of a soak over its time."""
    minutes = [sample["at_s"] / 60 for sample in soak["samples"]]
    figure, axis = pyplot.subplots(figsize=(8, 3))
    for name, colour in (("gateway", BLUE), ("workers", RED)):
        axis.plot(minutes, [sample[name] for sample in soak["samples"]], color=colour, label=name)
    axis.set_xlabel("minutes", fontsize=8)
    axis.set_ylabel("MiB (PSS)", fontsize=8)
    axis.set_ylim(bottom=0)
    axis.set_title(f"memory during a soak: {soak['sent']} messages, {sum(soak['faults'].values())} faults", fontsize=8)
    axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(place / "soak.png", dpi=110)
    pyplot.close(figure)


def main(file: str, directory: str) -> None:
    """Draw what a file has."""
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    results = json.loads(Path(file).read_text())
    if "samples" in results:
        draw_soak(results, place)
        return
    for name, benchmark in results["benchmarks"].items():
        if re.fullmatch(r"\w+", name):
            draw_bench(name, benchmark, place)


if __name__ == "__main__":
    main(*sys.argv[1:3])
