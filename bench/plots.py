"""Pictures of a results file, as PNG.

    python bench/plots.py bench/results/run.jsonl --out bench/results

For each vector set: recall against speed, build speed, what the search width does, latency.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

import curves
from curves import Record

OURS = "vicinal"
COLOURS = {
    "vicinal": "#d1222a",
    "hnswlib": "#1f5fa8",
    "faiss": "#2a8a4a",
    "usearch": "#8a5a2b",
    "voyager": "#7a4fb0",
    "zvec": "#e08a00",
    "vsag": "#0f9aa8",
    "svs": "#c2479a",
    "numpy": "#6b6b6b",
}
MARKERS = dict(zip(COLOURS, "osD^vPX*h", strict=True))
RECALL_TICKS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999, 0.9999)
PERFECT = 3e-5  # how far from 1 a recall of exactly 1 is drawn on the logarithmic axis
STEPS = (1, 2, 5)
FINE_STEPS = (1, 1.5, 2, 3, 4, 5, 7)  # where an axis spans little more than one decade
TARGET = 0.95


def recall_against_speed(records: Sequence[Record], data: str) -> Figure:
    """Draw one curve for each index, in panels by mode and threads."""
    panels = sorted(
        {(r["mode"], r["threads"]) for r in curves.select(records, "search", data=data)}
    )
    panels.sort(key=lambda panel: (panel[0] == "batch", panel[1]))
    figure, axes = _panels(len(panels))
    for axis, (mode, threads) in zip(axes, panels, strict=True):
        for index in _indexes(records, data):
            points = curves.sweep(records, data, index, mode, threads)
            if points:
                recalls = [_miss(r["recall"]) for r in points]
                axis.plot(recalls, [r["qps"]["median"] for r in points], **_style(index))
        _recall_axis(axis, "x", [r["recall"] for r in curves.select(records, "search", data=data)])
        _speed_axis(axis, "y")
        axis.set_xlabel(f"recall@{_k(records)}")
        axis.set_title(f"{_mode(mode)}, {_threads(threads)}")
        if axis in axes[::2]:
            axis.set_ylabel("queries per second")
    _finish(figure, axes, _title(records, data, "recall against speed: up and right is better"))
    return figure


def build_speed(records: Sequence[Record], data: str) -> Figure:
    """Draw bars of vectors per second, for each number of threads."""
    indexes = list(reversed(_indexes(records, data)))
    counts = curves.names(sorted(_built(records, data), key=lambda r: r["threads"]), "threads")
    figure, axis = plt.subplots(figsize=(8, 1.4 + 0.27 * len(indexes) * len(counts)))
    height = 0.8 / len(counts)
    for number, threads in enumerate(counts):
        for place, index in enumerate(indexes):
            for record in curves.select(
                _built(records, data), "build", index=index, threads=threads
            ):
                speed = record["vectors_per_second"]
                at = place + height * ((len(counts) - 1) / 2 - number)
                alpha = 0.45 + 0.55 * (number + 1) / len(counts)
                axis.barh(at, speed, height * 0.92, color=_colour(index), alpha=alpha)
                text = f" {speed:,.0f}  ({_threads(threads)})"
                axis.text(speed, at, text, va="center", fontsize=8)
    axis.set_yticks(range(len(indexes)), indexes)
    axis.set_xlim(right=axis.get_xlim()[1] * 1.2)
    axis.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axis.set_xlabel("vectors per second")
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(_title(records, data, "build"), fontsize=11)
    figure.tight_layout()
    return figure


def width_sweep(records: Sequence[Record], data: str) -> Figure:
    """Draw recall and speed over the search width, one query per call on the fewest threads."""
    searched = curves.select(records, "search", data=data, mode=_first_mode(records, data))
    threads = min(record["threads"] for record in searched)
    figure, axes = _panels(2)
    for index in _indexes(records, data):
        points = curves.sweep(records, data, index, searched[0]["mode"], threads)
        widths = [record["ef"] for record in points]
        axes[0].plot(widths, [_miss(record["recall"]) for record in points], **_style(index))
        axes[1].plot(widths, [record["qps"]["median"] for record in points], **_style(index))
    for axis in axes:
        axis.set_xscale("log", base=2)
        widths = sorted({record["ef"] for record in searched})
        axis.xaxis.set_major_locator(FixedLocator(widths))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlabel("search width (ef_search)")
    _recall_axis(axes[0], "y", [record["recall"] for record in searched])
    _speed_axis(axes[1], "y")
    axes[0].set_title(f"recall@{_k(records)}")
    axes[1].set_title("queries per second")
    what = f"search width, {_mode(searched[0]['mode'])}, {_threads(threads)}"
    _finish(figure, axes, _title(records, data, what))
    return figure


def latency(records: Sequence[Record], data: str) -> Figure:
    """Draw quantiles of the time of one search, each index at its least width of recall 0.95."""
    rows = []
    for index in _indexes(records, data):
        timed = [r for r in curves.sweep(records, data, index, "one", 1) if "latency_us" in r]
        reaching = [record for record in timed if record["recall"] >= TARGET]
        rows.extend(reaching[:1])
    rows.sort(key=lambda record: -record["latency_us"]["p50"])
    figure, axis = plt.subplots(figsize=(8, 1.6 + 0.42 * max(len(rows), 1)))
    for place, record in enumerate(rows):
        us, colour = record["latency_us"], _colour(record["index"])
        axis.plot([us["p1"], us["p99.9"]], [place, place], color=colour, lw=1.2, alpha=0.6)
        axis.plot([us["p25"], us["p75"]], [place, place], color=colour, lw=7, alpha=0.35)
        for name, marker in (("p50", "o"), ("p95", "d"), ("p99", "|")):
            axis.plot(us[name], place, marker, color=colour, ms=11 if marker == "|" else 6, mew=2)
    labels = [f"{r['index']}  (ef {r['ef']}, recall {r['recall']:.3f})" for r in rows]
    axis.set_yticks(range(len(rows)), labels)
    axis.set_ylim(-0.6, len(rows) - 0.4)
    _speed_axis(axis, "x")
    axis.grid(True, axis="x", color="#dddddd", linewidth=0.7)
    axis.set_axisbelow(True)
    figure.supxlabel(
        "microseconds per search, one query per call, one thread\n"
        "circle: median    diamond: 95th percentile    bar: 99th    band: middle half    "
        "line: 1st to 99.9th",
        fontsize=9,
    )
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(
        _title(records, data, f"latency at recall {TARGET:g} or the next above"), fontsize=11
    )
    figure.tight_layout()
    return figure


PICTURES: dict[str, Callable[[Sequence[Record], str], Figure]] = {
    "recall-qps": recall_against_speed,
    "build": build_speed,
    "ef": width_sweep,
    "latency": latency,
}


def draw(records: Sequence[Record], folder: Path, stem: str) -> list[Path]:
    """Write all pictures of all vector sets in the records and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for data in curves.names(records, "data"):
        for name, picture in PICTURES.items():
            if name == "latency" and not curves.select(records, "search", data=data, mode="one"):
                continue
            figure = picture(records, data)
            path = folder / f"{stem}-{data}-{name}.png"
            figure.savefig(path, dpi=110)
            plt.close(figure)
            written.append(path)
    return written


def _indexes(records: Sequence[Record], data: str) -> list[str]:
    return curves.names([record for record in records if record.get("data") == data], "index")


def _built(records: Sequence[Record], data: str) -> list[Record]:
    return curves.select(records, "build", data=data)


def _first_mode(records: Sequence[Record], data: str) -> str:
    modes = curves.names(curves.select(records, "search", data=data), "mode")
    return "one" if "one" in modes else modes[0]


def _k(records: Sequence[Record]) -> int:
    return int(curves.select(records, "search")[0]["k"])


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(count, 2)
    rows = -(-count // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(5.6 * columns, 4.3 * rows), squeeze=False)
    axes = list(grid.flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def _name(index: str) -> str:
    return index.split(":")[0]


def _colour(index: str) -> str:
    return COLOURS[_name(index)]


def _style(index: str) -> dict[str, Any]:
    ours = _name(index) == OURS
    variant = ":" in index
    return {
        "label": index,
        "color": _colour(index),
        "marker": MARKERS[_name(index)],
        "markersize": 6 if ours else 5,
        "linewidth": 2.6 if ours else 1.4,
        "linestyle": "--" if variant else "-",
        "zorder": 3 if ours else 2,
    }


def _miss(recall: float) -> float:
    return max(1 - recall, PERFECT)


def _recall_axis(axis: Axes, which: str, recalls: Iterable[float]) -> None:
    """Show 1 - recall on a logarithmic scale, turned round, with recalls as labels."""
    misses = [_miss(recall) for recall in recalls]
    low, high = min(misses) / 1.4, max(misses) * 1.3
    ticks = [t for t in RECALL_TICKS if low <= 1 - t <= high]
    places = [1 - t for t in ticks] + ([PERFECT] if min(misses) <= PERFECT else [])
    names = [f"{t:g}" for t in ticks] + (["1"] if min(misses) <= PERFECT else [])
    scale, limits = (
        (axis.set_xscale, axis.set_xlim) if which == "x" else (axis.set_yscale, axis.set_ylim)
    )
    scale("log")
    limits(high, low)
    line = axis.xaxis if which == "x" else axis.yaxis
    line.set_major_locator(FixedLocator(places))
    line.set_minor_locator(NullLocator())
    line.set_ticklabels(names)


def _speed_axis(axis: Axes, which: str) -> None:
    (axis.set_xscale if which == "x" else axis.set_yscale)("log")
    line = axis.xaxis if which == "x" else axis.yaxis
    low, high = axis.get_xlim() if which == "x" else axis.get_ylim()
    steps = FINE_STEPS if high / low < 30 else STEPS
    line.set_major_locator(FixedLocator([step * 10**e for e in range(7) for step in steps]))
    line.set_major_formatter(FuncFormatter(_thousands))
    line.set_minor_formatter(NullFormatter())
    line.set_minor_locator(NullLocator())


def _thousands(value: float, _: object) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def _mode(mode: str) -> str:
    return "one query per call" if mode == "one" else "batch"


def _threads(count: int) -> str:
    return f"{count} thread" + "s" * (count > 1)


def _title(records: Sequence[Record], data: str, what: str) -> str:
    first = next(record for record in records if record.get("data") == data)
    shape = f"{first['rows']:,} x {first['dim']}, {first['metric']}"
    settings = f"M={first['M']}, ef_construction={first['ef_construction']}"
    return f"{data} ({shape}), {settings}\n{what}"


def _finish(figure: Figure, axes: Sequence[Axes], title: str) -> None:
    """Add grid, title and one legend under all panels."""
    for axis in axes:
        axis.grid(True, color="#dddddd", linewidth=0.7)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.suptitle(title, fontsize=11)
    inches = figure.get_size_inches()[1]
    columns = min(len(labels), 4 if len(axes) == 1 else 8)
    lines = -(-len(labels) // columns)
    figure.legend(handles, labels, loc="lower center", ncol=columns, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, (0.12 + 0.22 * lines) / inches, 1, 1))


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the pictures of one or more results files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, help="results files of recall_qps.py")
    parser.add_argument("--out", type=Path, help="folder; default: that of the first results file")
    options = parser.parse_args(argv)
    first = options.results[0]
    for path in draw(curves.read(options.results), options.out or first.parent, first.stem):
        print(path)


if __name__ == "__main__":
    main()
