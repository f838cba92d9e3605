"""What do rows of parts find that are linked from half of `ef_construction`, and from all of it?

    python bench/parts_width.py --data minilm-short-80k --parts 1,8,19 --out FILE

One line for each number of parts and width: CPU seconds of plan, parts and join on one thread, and
recall@10 at each ef. A set is one of `datasets.load`, or SET:ROWS. Half is the default.
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
from vicinal.parts import _sizes

EFS = (16, 32, 64, 128)
K, QUERIES, WIDTH = 10, 2000, 200


def in_parts(rows: Any, metric: str, count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Build in parts, return what each step has taken."""
    clock = [time.process_time()]
    plan = parts.plan(
        rows, folder / "scratch", metric=metric, parts=count, seed=seed, num_threads=1
    )
    clock.append(time.process_time())
    known = parts.Plan(plan)
    for part in range(known.parts):
        parts.build_part(plan, part)
    clock.append(time.process_time())
    parts.join(plan, folder / "index", num_threads=1)
    clock.append(time.process_time())
    sizes = known.sizes()
    return {
        "copies": round(float(sizes.sum()) / len(rows), 3),
        "largest": int(sizes.max()),
        "steps": dict(
            zip(("plan", "parts", "join"), np.diff(clock).round(2).tolist(), strict=True)
        ),
    }


def in_one_piece(rows: Any, metric: str, seed: int, folder: Path) -> dict[str, Any]:
    """Build in one piece, however many rows there are."""
    _sizes.FEWEST_ROWS = sys.maxsize
    start = time.process_time()
    index = vicinal.Index(rows.shape[1], metric, ef_construction=WIDTH, seed=seed)
    index.add(rows, num_threads=1)
    index.save(folder / "index")
    return {"steps": {"add": round(time.process_time() - start, 2)}}


def main() -> int:
    """Measure, write, return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="a set, or SET:ROWS")
    parser.add_argument("--parts", default="1,8,19", help="1 is one piece")
    parser.add_argument("--widths", default="100,200", help="candidates of a row of a part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    name, _, count = options.data.partition(":")
    data = datasets.load(name)
    rows = data.base[: int(count or len(data.base))].astype(np.float32)
    queries = data.queries[:QUERIES].astype(np.float32)
    truth = vicinal.exact_search(rows, queries, K, metric=data.metric, num_threads=1).ids
    widths = [int(width) for width in options.widths.split(",")]
    ways = [
        (many, width)
        for many in map(int, options.parts.split(","))
        for width in ([WIDTH] if many == 1 else widths)
    ]
    for many, width in ways:
        with tempfile.TemporaryDirectory(dir=options.folder) as made:
            folder = Path(made)
            if many == 1:
                told = in_one_piece(rows, data.metric, options.seed, folder)
            else:
                _sizes.part_width = lambda *_, width=width: width  # type: ignore[misc]
                told = in_parts(rows, data.metric, many, options.seed, folder)
            index = vicinal.open(folder / "index")
            recall = {}
            for ef in EFS:
                ids = index.search(queries, K, ef_search=ef, num_threads=1).ids
                recall[str(ef)] = round(vicinal.recall_at_k(ids, truth), 4)
        record = {
            "kind": "parts-width",
            "data": name,
            "rows": len(rows),
            "parts": many,
            "third": 1.03,
            "ef_construction": width,
            "seed": options.seed,
            "queries": len(queries),
            "cpu": round(sum(told["steps"].values()), 2),
            **told,
            "recall": recall,
            "load": round(os.getloadavg()[0], 1),
        }
        print(json.dumps(record), flush=True)
        if options.out is not None:
            with open(options.out, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
