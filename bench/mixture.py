"""A vector set of any size from a stated generator, for what the real sets are too small to show.

    python bench/mixture.py --rows 200000 --out FOLDER

200 clusters with centres drawn from N(0, 1) in 128 dimensions; each cluster spreads along 24 random
directions of its own with standard deviations falling from 1.0 to 0.2, and every value has noise of
0.05. Queries are drawn as the rows are. The folder is laid out as `datasets.load` reads it; the
true neighbours come from exact search.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import vicinal

DIM, CLUSTERS, DIRECTIONS, NOISE, K = 128, 200, 24, 0.05, 100


def draw(rows: int, queries: int, seed: int, dim: int = DIM) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and queries, float32."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((CLUSTERS, dim))
    spread = np.linspace(1.0, 0.2, DIRECTIONS)[:, None]
    directions = rng.standard_normal((CLUSTERS, DIRECTIONS, dim)) * spread
    count = rows + queries
    which = rng.integers(0, CLUSTERS, count)
    out = np.empty((count, dim), dtype=np.float32)
    for cluster in range(CLUSTERS):
        members = np.flatnonzero(which == cluster)
        along = rng.standard_normal((len(members), DIRECTIONS))
        noise = NOISE * rng.standard_normal((len(members), dim))
        out[members] = centres[cluster] + along @ directions[cluster] + noise
    return out[:rows], out[rows:]


def main() -> None:
    """Write a set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    base, queries = draw(options.rows, options.queries, options.seed)
    found = vicinal.exact_search(base, queries, K)
    options.out.mkdir(parents=True, exist_ok=True)
    np.save(options.out / "base.npy", base)
    np.save(options.out / "queries.npy", queries)
    np.save(options.out / "gt_ids.npy", found.ids.astype(np.int32))
    about = {
        "metric": "euclidean",
        "rows": options.rows,
        "seed": options.seed,
        "generator": __doc__,
    }
    (options.out / "manifest.json").write_text(json.dumps(about, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
