"""Queries a second at fixed recalls against the number of rows, as one PNG.

    python bench/research_plot.py bench/results/research.jsonl --data sift-real-500k-b --out FILE

Reads the records of `bench/research.py`; every index that was measured at two numbers of rows or
more gets a line for each recall.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import datasets
from research import at_recall

COLOURS = {"vicinal": "#d1222a", "vicinal-one": "#e98a8e", "symqg": "#1f5fa8", "glass": "#2a8a4a"}
Curve = list[tuple[float, float]]


def curves(paths: list[Path], data: str, k: int) -> dict[str, dict[int, Curve]]:
    """Return recall and microseconds by index and number of rows; all rows have the number 0."""
    found: dict[str, dict[int, Curve]] = defaultdict(lambda: defaultdict(list))
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record["kind"] == "search" and (record["data"], record["k"]) == (data, k):
                point = (record["recall"], statistics.median(record["us"]))
                found[record["index"]][record["rows"]].append(point)
    return found


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--recall", nargs="+", type=float, default=[0.95, 0.99])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    everything = len(datasets.load(options.data).base)
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for index, by_rows in curves(options.results, options.data, options.k).items():
        for recall, style in zip(options.recall, ("-", "--", ":", "-."), strict=False):
            points = sorted(
                (rows or everything, 1e6 / us)
                for rows, curve in by_rows.items()
                if (us := at_recall(curve, recall)) is not None
            )
            if len(points) > 1:
                label = f"{index}, recall {recall}"
                axes.plot(
                    *zip(*points, strict=True),
                    style,
                    color=COLOURS.get(index),
                    label=label,
                    marker="o",
                )
    axes.set(xscale="log", yscale="log", xlabel="rows", ylabel="queries a second, one thread")
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(fontsize=8)
    axes.set_title(f"{options.data}, k = {options.k}")
    figure.tight_layout()
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
