"""Tables in Markdown out of a results file, and the one in the README.

    python bench/summary.py bench/results/run.jsonl            prints the tables
    python bench/summary.py bench/results/run.jsonl --write    puts them into README.md
    python bench/summary.py --check                            fails if README.md is not in step

The README names the results files it was made from in its first marker, so `--check` needs none.
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
BEGIN = "<!-- benchmark: begin "
END = "<!-- benchmark: end -->"
BLOCK = re.compile(
    re.escape(BEGIN) + r"(?P<files>[^>]*?) -->\n(?P<body>.*?)" + re.escape(END), re.S
)


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


def block(files: Sequence[str], peer: str) -> str:
    """Return the README's block, markers included, made from results files under the root."""
    records = curves.read(ROOT / file for file in files)
    return f"{BEGIN}{' '.join(files)} -->\n{tables(records, peer)}\n{END}"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables, write them into a README, or check the README."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="*", help="results files; default: those the README names")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--peer", default="hnswlib", help="index that the ratios are against")
    parser.add_argument("--write", action="store_true", help="rewrite the block in the README")
    parser.add_argument("--check", action="store_true", help="fail if the README is not in step")
    options = parser.parse_args(argv)
    if options.results and not (options.write or options.check):
        print(tables(curves.read(options.results), options.peer))
        return
    text = options.readme.read_text(encoding="utf-8")
    found = BLOCK.search(text)
    if found is None:
        sys.exit(f"{options.readme.name}: no block between '{BEGIN}... -->' and '{END}'")
    named = [os.path.relpath(Path(file).resolve(), ROOT) for file in options.results]
    wanted = block(named or found["files"].split(), options.peer)
    if options.write:
        options.readme.write_text(text.replace(found[0], wanted), encoding="utf-8")
    elif found[0] != wanted:
        sys.exit(f"{options.readme.name}: not in step with its results; run summary.py --write")


if __name__ == "__main__":
    main()
