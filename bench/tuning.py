"""Whether a recall that was tuned for is kept by queries that `tune` has not seen.

    python bench/tuning.py sift-photo-10k minilm-10k --json bench/results/tuning.jsonl

For each set, and each recall, the index is tuned in four ways: on stored rows (what
`measure_recall` asks without queries), on queries that `tune` assumes, on the first half of
the set's queries, and on the 200 that the index has kept of them. The recall of the other half
is measured; then these are searched with `recall=`, after each way, until `stats` tells whether
the promise is kept. A set with `title_queries.npy` is
measured with these as well; `gauss` and `wide` are sets of random numbers, the latter with
queries that are spread half as far again as its rows, `apart` has queries between its clusters.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import datasets
import machine
import vicinal

RECALLS = (0.9, 0.95, 0.99)
K = 10
KEPT = 200  # queries that an index keeps
LOOKS = 60  # queries that are searched exactly as well before the promise is read
MADE = ("gauss", "wide", "apart")


def made(name: str) -> tuple[Any, Any, str]:
    """Return rows, queries and metric of a set of random numbers."""
    rng = np.random.default_rng(0)
    if name == "gauss":
        drawn = rng.standard_normal((21_000, 32), dtype=np.float32)
        return drawn[:20_000], drawn[20_000:], "l2"
    centres = rng.standard_normal((200, 64)) * 2

    def around(count: int, spread: float) -> Any:
        return centres[rng.integers(0, 200, count)] + rng.standard_normal((count, 64)) * spread

    queries = around(1000, 1.5) if name == "wide" else rng.standard_normal((1000, 64)) * 2
    return around(20_000, 1).astype(np.float32), queries.astype(np.float32), "l2"


def sets(names: list[str], rows: int | None) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield name, rows, queries and metric."""
    for name in names:
        if name in MADE:
            yield name, *made(name)
            continue
        data = datasets.load(name)
        base = data.base[:rows] if rows else data.base
        yield name, base, data.queries[:1000], data.metric
        titles = datasets.find(name) / "title_queries.npy"
        if titles.exists():
            yield f"{name}, titles", base, np.load(titles)[:1000], data.metric


def main() -> None:
    """Measure, print a table, write the records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", help=f"names of sets, or {', '.join(MADE)}")
    parser.add_argument("--rows", type=int, help="take the first rows of each set only")
    parser.add_argument("--json", type=Path, help="file for the records")
    options = parser.parse_args()
    records: list[dict[str, Any]] = [{"kind": "run", **machine.describe(["vicinal"])}]
    print("| set | rows | tuned for | on stored rows | on assumed | on given | on kept | told |")
    print("|---|---:|---:|---:|---:|---:|---:|---|")
    for name, base, queries, metric in sets(options.data, options.rows):
        index = vicinal.Index(base.shape[1], metric, dtype=base.dtype)
        index.add(base)
        given, fresh = np.array_split(queries, 2)
        keeper = index.copy()
        keeper.keep_queries(KEPT)
        keeper.search(given, K)
        truth = vicinal.exact_search(base, fresh, K, metric).distances[:, -1:]
        for recall in RECALLS:
            tuned = {
                "assumed": index.copy().tune(recall, K),
                "given": index.copy().tune(recall, K, given),
                "kept": keeper.tune(recall, K),
            }
            # stored rows, found by themselves
            widths = {"stored": width_on_stored_rows(index, recall)}
            widths |= {way: tuning.ef_search for way, tuning in tuned.items()}
            cells = []
            for way, width in widths.items():
                found = index.search(fresh, K, ef_search=width).distances
                kept = float((found <= truth * (1 + 1e-6) + 1e-9).mean())
                cells.append(f"{kept:.3f} ({width})")
                records.append(
                    {"kind": "tuned", "data": name, "rows": len(base), "metric": metric, "k": K}
                    | {"tuned_for": recall, "way": way, "ef": width, "recall": kept}
                )
            told = promise(index, recall, fresh)
            records.append({"kind": "promise", "data": name, "way": "assumed", **told})
            cells.append(f"{told['found']:.3f}, {'kept' if told['kept'] else 'not kept'}")
            print(f"| {name} | {len(base):,} | {recall} | {' | '.join(cells)} |", flush=True)
        save(options.json, records)


def promise(index: vicinal.Index, recall: float, queries: Any) -> dict[str, Any]:
    """Return what `stats` tells once queries are searched with a recall; assumed ones tune it."""
    asked = index.copy()
    asked.tune(recall, K)
    rng = np.random.default_rng(1)
    while True:
        asked.search(queries[rng.permutation(len(queries))], K, recall=recall)
        told = asked.stats()["promises"]
        if told and told[0].looked_at >= LOOKS:
            return dict(told[0]._asdict())


def save(path: Path | None, records: list[dict[str, Any]]) -> None:
    """Write what there is so far."""
    if path is not None:
        text = "".join(json.dumps(record) + "\n" for record in records)
        path.write_text(text, encoding="utf-8")


def width_on_stored_rows(index: vicinal.Index, recall: float) -> int:
    """Return the least width with which stored rows find their neighbours, to some 5 %."""
    width = K
    while index.measure_recall(k=K, ef_search=width).recall < recall:
        width += max(1, width // 20)
    return width


if __name__ == "__main__":
    main()
