"""What does a search over several files cost beside a search of one index of the same rows?

    python bench/shards.py --data sift-real-500k-b:100000 --shards 8 --out FILE

One line for each ef and way: recall@10, microseconds of CPU a query and queries a CPU second, one
query a call on one thread, the least of five rounds in which both ways take turns; and of how many
queries the shards' answer is what their own answers make, merged by distance and id.
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

EFS = (8, 16, 32, 64, 128)
K = 10
ROUNDS = 5
QUERIES = 500


def ask(index: Any, queries: Any, ef: int) -> tuple[Any, float]:
    """Return the ids found, and CPU seconds."""
    start = time.process_time()
    ids = [index.search(query, K, ef_search=ef, num_threads=1).ids for query in queries]
    return np.array(ids), time.process_time() - start


def merged(shards: list[Any], queries: Any, ef: int) -> Any:
    """Return what the shards find one by one, merged by (distance, id)."""
    found = [shard.search(queries, K, ef_search=ef, num_threads=1) for shard in shards]
    ids = np.concatenate([one.ids for one in found], axis=1)
    distances = np.concatenate([one.distances for one in found], axis=1)
    order = np.lexsort((ids, distances))[:, :K]
    return np.take_along_axis(ids, order, 1)


def main() -> int:
    """Measure, write, return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="a set, or SET:ROWS")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    name, _, count = options.data.partition(":")
    found = datasets.load(name)
    rows = found.base[: int(count or len(found.base))].astype(np.float32)
    queries = found.queries[:QUERIES].astype(np.float32)
    how: dict[str, Any] = {"metric": found.metric, "num_threads": 1}
    truth = vicinal.exact_search(rows, queries, K, **how).ids
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        one = vicinal.build(rows, f"{folder}/one", **how)
        paths = []
        for i in range(options.shards):
            paths.append(f"{folder}/{i}")
            ids = np.arange(len(rows))[i :: options.shards]
            vicinal.build(rows[i :: options.shards], paths[-1], ids=ids, **how)
        ways = {"one": one, "shards": vicinal.open_shards(paths)}
        alone = [vicinal.open(path) for path in paths]
        for ef in EFS:
            least = dict.fromkeys(ways, np.inf)
            recall = {}
            answers = {}
            for _ in range(ROUNDS):
                for way, index in ways.items():
                    answers[way], seconds = ask(index, queries, ef)
                    least[way] = min(least[way], seconds)
                    recall[way] = vicinal.recall_at_k(answers[way], truth)
            same = (answers["shards"] == merged(alone, queries, ef)).all(1)
            for way in ways:
                record = {
                    "kind": "shards",
                    "data": name,
                    "rows": len(rows),
                    "dim": rows.shape[1],
                    "shards": options.shards if way == "shards" else 1,
                    "ef": ef,
                    "recall": round(recall[way], 4),
                    "cpu_us": round(least[way] / len(queries) * 1e6, 1),
                    "queries_a_cpu_second": round(len(queries) / least[way]),
                    "load": round(os.getloadavg()[0], 1),
                }
                if way == "shards":
                    record["equal"] = f"{int(same.sum())} of {len(queries)}"
                lines.append(json.dumps(record))
                print(lines[-1], flush=True)
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
