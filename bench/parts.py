"""What does an index built in parts cost and find, beside one that is built in one piece?

    python bench/parts.py --data sift-real-500k-b:100000 minilm-short-80k --parts 8,16 --out FILE

The rows are stored as float32. For each set one JSON line for the build in one piece and one for
each number of parts: CPU seconds of the steps on one thread (`plan`, `parts`, `join`; what other
processes do to the caches is in them), recall@10 at each ef, rows of the smallest and the largest
part, copies a row. `load` is the system's load at the end: CPU seconds of one run compare, those of
two runs do not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import datasets
import vicinal
from vicinal import parts

Array = np.ndarray[Any, Any]
EFS = (16, 32, 64, 128)
K = 10


def recalls(index: vicinal.Index, queries: Array, truth: Array) -> dict[str, float]:
    """Return recall@10 at each ef."""
    found = {}
    for ef in EFS:
        ids = index.search(queries, K, ef_search=ef).ids
        hits = [len(set(a) & set(b)) for a, b in zip(ids, truth[:, :K], strict=True)]
        found[str(ef)] = round(float(np.mean(hits)) / K, 4)
    return found


def in_parts(rows: Array, metric: str, count: int | None, folder: str) -> tuple[Any, Any]:
    """Return the index and what its build has cost."""
    times = [time.process_time()]
    plan = parts.plan(rows, os.path.join(folder, "scratch"), metric=metric, parts=count)
    times.append(time.process_time())
    known = parts.Plan(plan)
    for part in range(known.parts):
        parts.build_part(plan, part)
    times.append(time.process_time())
    parts.join(plan, os.path.join(folder, "index"), num_threads=1)
    times.append(time.process_time())
    steps = dict(zip(("plan", "parts", "join"), np.round(np.diff(times), 2).tolist(), strict=True))
    sizes = known.sizes()
    return vicinal.open(os.path.join(folder, "index")), {
        "parts": known.parts,
        "cpu": round(times[-1] - times[0], 2),
        "steps": steps,
        "smallest": int(sizes.min()),
        "largest": int(sizes.max()),
        "copies": round(float(sizes.sum()) / known.rows, 3),
    }


def main() -> int:
    """Measure, write, return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", nargs="+", required=True, help="sets, or SET:ROWS")
    parser.add_argument("--parts", default="", help="numbers of parts; by default what build takes")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = []

    def tell(record: dict[str, Any]) -> None:
        record["load"] = round(os.getloadavg()[0], 1)
        lines.append(json.dumps(record))
        print(lines[-1], flush=True)
        if options.out is not None:
            options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")

    for name in options.data:
        name, _, rows = name.partition(":")
        found = datasets.load(name)
        base = found.base[: int(rows or len(found.base))].astype(np.float32)
        queries, truth = found.queries[:2000].astype(np.float32), found.truth[:2000]
        if len(base) < len(found.base):
            truth = vicinal.exact_search(base, queries, K, metric=found.metric).ids
        about = {"kind": "parts", "data": name, "rows": len(base), "dim": base.shape[1]}
        start = time.process_time()
        index = vicinal.Index(base.shape[1], found.metric)
        index.add(base, num_threads=1)
        cpu = round(time.process_time() - start, 2)
        tell({**about, "parts": 1, "cpu": cpu, "recall": recalls(index, queries, truth)})
        del index
        for count in options.parts.split(",") if options.parts else [None]:
            with tempfile.TemporaryDirectory() as folder:
                joined, cost = in_parts(base, found.metric, int(count) if count else None, folder)
                tell({**about, **cost, "recall": recalls(joined, queries, truth)})
                del joined
    return 0


if __name__ == "__main__":
    sys.exit(main())
