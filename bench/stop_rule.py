"""What walks that end by distance save, at recalls that were tuned for.

    python bench/stop_rule.py sift-photo-10k minilm-10k --json bench/results/stop-rule.jsonl
    python bench/stop_rule.py sift-real-500k-b --rows 50000 --k 10 100

Each index is tuned on the first half of the set's queries. The other half is searched with the
least width alone and with the rule beside it: distances a query, CPU time in one call on one thread
(in turns, median), recall, and the recall of the worst hundredth of the queries.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

import datasets
import machine
import vicinal

RECALLS = (0.95, 0.98, 0.99, 0.999)


def found(index: Any, queries: Any, k: int, turns: int, ways: dict[str, Any]) -> dict[str, Any]:
    """Search in some ways, in turns; return for each ids, distances and microseconds a query."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    told: dict[str, Any] = {name: {} for name in ways}
    for turn in range(turns + 1):
        for name, how in list(ways.items())[:: 1 if turn % 2 else -1]:
            before = index.search_stats()["distances"]
            start = time.thread_time()
            result = index.search(queries, k, num_threads=1, **how)
            spent = time.thread_time() - start
            after = index.search_stats()["distances"]
            if turn:  # the first warms up
                times[name].append(spent / len(queries) * 1e6)
            told[name] = {"ids": result.ids, "distances": (after - before) / len(queries)}
    for name in ways:
        told[name]["us"] = statistics.median(times[name])
    return told


def main() -> None:
    """Measure, print a table, write the records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", help="names of sets")
    parser.add_argument("--rows", type=int, help="take the first rows of each set only")
    parser.add_argument("--queries", type=int, default=2000, help="at most so many, half to tune")
    parser.add_argument("--k", nargs="+", type=int, default=[10])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the records, which are appended")
    options = parser.parse_args()
    records: list[dict[str, Any]] = [{"kind": "run", **machine.describe(["vicinal"])}]
    print("| set | k | recall | width | held, far | distances | us | found | worst 1 % |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name in options.data:
        data = datasets.load(name)
        data = datasets.first_rows(data, min(options.rows or len(data.base), len(data.base)))
        index = vicinal.Index(data.base.shape[1], data.metric)
        index.add(np.ascontiguousarray(data.base, np.float32))
        queries = np.ascontiguousarray(data.queries[: options.queries], np.float32)
        given, fresh = np.array_split(queries, 2)
        for k in options.k:
            truth = data.truth[len(given) : len(queries), :k]
            for recall in RECALLS:
                tuning = index.tune(recall, k, given)
                ways: dict[str, Any] = {"width": {"ef_search": tuning.ef_search}}
                if tuning.held is not None:
                    ways["rule"] = {"recall": recall}
                told = found(index, fresh, k, options.turns, ways)
                about = {
                    "kind": "stop-rule",
                    "data": name,
                    "rows": len(data.base),
                    "k": k,
                    "tuned_for": recall,
                    "ef_search": tuning.ef_search,
                    "held": tuning.held,
                    "far": tuning.far,
                }
                for way, each in told.items():
                    hits = [
                        len(np.intersect1d(a, b)) / k
                        for a, b in zip(each.pop("ids"), truth, strict=True)
                    ]
                    each["recall"] = float(np.mean(hits))
                    each["worst"] = float(np.sort(hits)[: max(1, len(hits) // 100)].mean())
                    records.append({**about, "way": way, **each})

                def cell(what: str, form: str, told: dict[str, Any] = told) -> str:
                    return " -> ".join(format(each[what], form) for each in told.values())

                rule = "-" if tuning.held is None else f"{tuning.held}, {tuning.far:.3f}"
                print(
                    f"| {name} | {k} | {recall} | {tuning.ef_search} | {rule} "
                    f"| {cell('distances', '.0f')} | {cell('us', '.1f')} "
                    f"| {cell('recall', '.4f')} | {cell('worst', '.3f')} |",
                    flush=True,
                )
    if options.json:
        with options.json.open("a", encoding="utf-8") as out:
            for record in records:
                print(json.dumps(record), file=out)


if __name__ == "__main__":
    main()
