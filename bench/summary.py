"""Tables in Markdown out of a results file, and those in the documents.

    python bench/summary.py bench/results/run.jsonl            prints the tables
    python bench/summary.py bench/results/run.jsonl --write    puts them into the documents
    python bench/summary.py --check                            fails if these are not in step

All tables stand in docs/measurements/libraries.md, a line for each vector set in README.md. Each
names the results files it was made from in its marker, so `--check` needs none.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import curves
from curves import Level, Record

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = {
    "benchmark": ROOT / "docs" / "measurements" / "libraries.md",
    "headline": ROOT / "README.md",
}
HEADLINE_RECALL = 0.99  # reached on every set, and by no library's narrowest search


def tables(records: Sequence[Record], peer: str = "hnswlib") -> str:
    """Return one table for each vector set in the records, and a line about the machine."""
    runs = curves.select(records, "run")
    parts = [_table(records, data, peer) for data in curves.names(records, "data")]
    return "\n".join([*parts, _origin(runs, records, peer)])


def _table(records: Sequence[Record], data: str, peer: str) -> str:
    of_set = [record for record in records if record.get("data") == data]
    first = of_set[0]
    searched = curves.select(of_set, "search", mode="one")
    threads = min((record["threads"] for record in searched), default=1)
    built = sorted({record["threads"] for record in curves.select(of_set, "build")})
    heads = ["index"]
    heads += [f"QPS at recall {recall:g}" for recall in curves.RECALLS]
    heads += [f"build, {count} thread{'s' * (count > 1)}" for count in built]
    heads += ["memory", "file", "open", "call"]
    lines = [
        f"**{data}**: {first['rows']:,} x {first['dim']}, {first['metric']}",
        "",
        "| " + " | ".join(heads) + " |",
        "|---" + "|---:" * (len(heads) - 1) + "|",
    ]
    for index in curves.names(of_set, "index"):
        cells = [index]
        for recall in curves.RECALLS:
            ours = curves.level(of_set, data, index, recall, "one", threads)
            theirs = curves.level(of_set, data, peer, recall, "one", threads)
            cells.append(_speed(ours, None if index == peer else theirs))
        of_index = [record for record in of_set if record["index"] == index]
        for count in built:
            builds = curves.select(of_index, "build", threads=count)
            cells.append(f"{builds[0]['vectors_per_second']:,.0f}/s" if builds else "")
        cells += _costs(of_index)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _speed(level: Level | None, peer: Level | None) -> str:
    """Return a speed and, in brackets, how many times the peer's it is."""
    if level is None:
        return "-"
    sign = "≥ " if level.at_least else ""
    times = curves.ratio(level, peer)
    return f"{sign}{level.qps:,.0f}" + (f" ({sign}{times:.2f}x)" if times else "")


def _costs(of_index: Sequence[Record]) -> list[str]:
    builds = curves.select(of_index, "build")
    files = curves.select(of_index, "file")
    calls = curves.select(of_index, "call")
    fewest = min(builds, key=lambda record: record["threads"], default=None)
    return [
        f"{fewest['peak_bytes'] / 1e6:,.1f} MB" if fewest else "",
        f"{files[0]['bytes'] / 1e6:,.1f} MB" if files else "",
        f"{files[0]['open_ms']['median']:,.2f} ms" if files else "",
        f"{calls[0]['call_us']['median']:,.1f} us" if calls else "",
    ]


def growth(records: Sequence[Record]) -> str:
    """Return one table of build speeds and recalls of every index, a line for each vector set.

    Recall is that of the widest search, in the index built with the fewest threads.
    """
    built = curves.select(records, "build")
    names = curves.names(built, "index")
    threads = sorted({record["threads"] for record in built})
    heads = ["vectors/s built"]
    for name in names:
        heads += [f"{name}, {count} thread{'s' * (count > 1)}" for count in threads]
        heads.append(f"{name}, recall")
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for data in curves.names(built, "data"):
        cells = [data]
        for name in names:
            for count in threads:
                found = curves.select(built, "build", data=data, index=name, threads=count)
                cells.append(f"{found[0]['vectors_per_second']:,.0f}" if found else "")
            searches = curves.select(records, "search", data=data, index=name)
            widest = max(searches, key=lambda record: record["ef"], default=None)
            cells.append(f"{widest['recall']:.4f} (ef {widest['ef']})" if widest else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _origin(runs: Sequence[Record], records: Sequence[Record], peer: str) -> str:
    searched = curves.select(records, "search")
    run = runs[0]
    versions = {name: v for one in runs for name, v in one["versions"].items()}
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    threads = min((record["threads"] for record in searched), default=1)
    k = searched[0]["k"] if searched else 10
    settings = f"M={searched[0]['M']}, ef_construction={searched[0]['ef_construction']}"
    return (
        f"Recall@{k} by interpolation between search widths, one query per call, {threads} thread, "
        f"{settings}, float32 rows; in brackets: times the speed of {peer}; ≥: the narrowest "
        f"search already exceeds the recall; -: never reached. Memory: peak growth of the process "
        f"while building, the input not counted. Call: one search in an index of 100 x 16. "
        f"{run['cpu']}, {run['cores']} cores, {run['date'][:10]}; {listed}."
    )


def headline(records: Sequence[Record]) -> str:
    """Return a table with a line for each vector set: our speed, and the best of the others'."""
    searched = curves.select(records, "search", mode="one")
    threads = min(record["threads"] for record in searched)
    lines = ["| vectors | Vicinal | best other library | |", "|---|---:|---:|---:|"]
    for data in curves.names(searched, "data"):
        of_set = [record for record in searched if record["data"] == data]
        levels = {
            name: curves.level(of_set, data, name, HEADLINE_RECALL, "one", threads)
            for name in curves.names(of_set, "index")
        }
        ours = levels.pop("vicinal")
        others = {name: level for name, level in levels.items() if level is not None}
        if ours is None or ours.at_least or any(level.at_least for level in others.values()):
            raise ValueError(f"{data}: recall {HEADLINE_RECALL} is not between measured widths")
        best = max(others, key=lambda name: others[name].qps)
        first = of_set[0]
        lines.append(
            f"| {data}, {first['rows']:,} x {first['dim']}, {first['metric']} | {ours.qps:,.0f} "
            f"| {others[best].qps:,.0f} ({best}) | {ours.qps / others[best].qps:.1f} times |"
        )
    return "\n".join(lines)


def block(name: str, files: Sequence[str], peer: str) -> str:
    """Return a block of a document, markers included, made from results files under the root."""
    records = curves.read(ROOT / file for file in files)
    text = headline(records) if name == "headline" else tables(records, peer)
    return f"{begin(name)}{' '.join(files)} -->\n{text}\n{end(name)}"


def begin(name: str) -> str:
    """Return how the first marker of a block begins."""
    return f"<!-- {name}: begin "


def end(name: str) -> str:
    """Return the last marker of a block."""
    return f"<!-- {name}: end -->"


def find(name: str, text: str) -> re.Match[str] | None:
    """Find a block in a document; its group "files" names the results."""
    first = re.escape(begin(name)) + r"(?P<files>[^>]*?) -->\n"
    return re.search(first + r".*?" + re.escape(end(name)), text, re.S)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables, write them into the documents, or check these."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="*", help="results files; default: those that are named")
    parser.add_argument("--peer", default="hnswlib", help="index that the ratios are against")
    parser.add_argument("--write", action="store_true", help="rewrite the blocks in the documents")
    parser.add_argument("--check", action="store_true", help="fail if these are not in step")
    options = parser.parse_args(argv)
    if options.results and not (options.write or options.check):
        print(tables(curves.read(options.results), options.peer))
        return
    named = [os.path.relpath(Path(file).resolve(), ROOT) for file in options.results]
    for name, path in DOCUMENTS.items():
        text = path.read_text(encoding="utf-8")
        found = find(name, text)
        if found is None:
            sys.exit(f"{path.name}: no block between '{begin(name)}... -->' and '{end(name)}'")
        wanted = block(name, named or found["files"].split(), options.peer)
        if options.write:
            path.write_text(text.replace(found[0], wanted), encoding="utf-8")
        elif found[0] != wanted:
            sys.exit(f"{path.name}: not in step with its results; run summary.py --write")


if __name__ == "__main__":
    main()
