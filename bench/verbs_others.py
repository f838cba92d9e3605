"""The verbs of bench/verbs.py beside faiss and LanceDB, where they have them.

    python bench/verbs_others.py --data minilm-10k --peer faiss --out results.jsonl
    python bench/verbs_others.py --data minilm-10k --peer lancedb --out results.jsonl

faiss: HNSW over the vectors (M = 16, ef 200 and 64, as here) with ID selectors, flat indexes for
`exact` and `pairs`. LanceDB: a table in a folder, its flat search, filters before it, and several
vectors a row for `multi_near`, which measures all documents. CPU time of a query, one thread here
and in faiss; LanceDB takes threads of its own, whose time counts. `complete` is as in
bench/verbs.py.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import datasets
import vicinal
from verbs import MULTI, PARTS, TOKENS, K, Verbs, least, unit

Array = np.ndarray[Any, np.dtype[Any]]
QUERIES, ROUNDS = 50, 3
Case = tuple[Callable[[], Any], Callable[[], Any], Callable[[Any], float], int]


class Beside(Verbs):
    """The index, its rows at unit length, and what both sides are asked."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.queries = unit(self.queries[:QUERIES]).astype(np.float32)
        self.far = self.far[:QUERIES]
        self.units = unit(self.rows).astype(np.float32)
        self.odd = np.random.default_rng(0).random(self.n) < 0.5
        self.kept = self.index.filter(self.odd)
        self.seen = self.index.search(self.queries[0], 50).ids
        self.allowed = ~np.isin(np.arange(self.n), self.seen)
        self.every = np.ones(self.n, bool)
        near = self.index.search(self.units[::97], 2).distances[:, 1]
        self.radius = float(np.quantile(near, 0.1))

    def ours(self, **options: Any) -> Array:
        return np.stack([self.index.search(q, K, **options).ids for q in self.queries])

    def found_by(self, allowed: Array) -> Callable[[Array], float]:
        return lambda ids: self.share(ids, allowed)

    def all_pairs(self) -> int:
        return sum(len(a) for a, _, _ in self.index.pairs(self.radius).batches())

    def true_pairs(self) -> int:
        found = sum(
            int((1 - self.units[start : start + 1000] @ self.units.T <= self.radius).sum())
            for start in range(0, self.n, 1000)
        )
        return (found - self.n) // 2


def faiss_cases(beside: Beside) -> dict[str, Case]:
    import faiss

    faiss.omp_set_num_threads(1)
    graph = faiss.IndexHNSWFlat(beside.units.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 200
    graph.add(beside.units)
    flat = faiss.IndexFlatIP(beside.units.shape[1])
    flat.add(beside.units)
    bits = np.packbits(beside.odd, bitorder="little")
    half = faiss.IDSelectorBitmap(bits)
    out = faiss.IDSelectorBatch(beside.seen)
    unseen = faiss.IDSelectorNot(out)

    def each(index: Any, parameters: Any = None) -> Array:
        return np.concatenate(
            [index.search(q[None], K, params=parameters)[1] for q in beside.queries]
        )

    def some(selector: Any) -> Any:
        return faiss.SearchParametersHNSW(sel=selector, efSearch=64)

    true = beside.true_pairs()
    return {
        "kept_filter": (
            lambda: beside.ours(filter=beside.kept),
            lambda: each(graph, some(half)),
            beside.found_by(beside.odd),
            QUERIES,
        ),
        "exclude": (
            lambda: beside.ours(exclude=beside.seen),
            lambda: each(graph, some(unseen)),
            beside.found_by(beside.allowed),
            QUERIES,
        ),
        "exact": (
            lambda: beside.ours(exact=True),
            lambda: each(flat),
            beside.found_by(beside.every),
            QUERIES,
        ),
        "exact, a batch": (
            lambda: beside.index.search(beside.queries, K, exact=True).ids,
            lambda: flat.search(beside.queries, K)[1],
            beside.found_by(beside.every),
            QUERIES,
        ),
        "pairs": (
            beside.all_pairs,
            lambda: (flat.range_search(beside.units, 1 - beside.radius)[0][-1] - beside.n) // 2,
            lambda found: float(found) / true,
            beside.n,
        ),
    }


def lancedb_cases(beside: Beside, folder: str) -> dict[str, Case]:
    # it looks for a package that is called as the module of this folder
    for missing in ("Dataset", "DatasetDict", "IterableDataset"):
        setattr(datasets, missing, type(missing, (), {}))
    import lancedb
    import pyarrow as pa

    dim = beside.units.shape[1]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(beside.units.reshape(-1)), dim)
    columns = {"id": np.arange(beside.n), "odd": beside.odd, "vector": vectors}
    table = lancedb.connect(folder).create_table("rows", pa.table(columns))
    whole = beside.n // PARTS * PARTS
    inner = pa.FixedSizeListArray.from_arrays(pa.array(beside.units[:whole].reshape(-1)), dim)
    lists = pa.ListArray.from_arrays(np.arange(0, whole + 1, PARTS, dtype=np.int32), inner)
    several = lancedb.connect(folder).create_table(
        "documents", pa.table({"id": np.arange(whole // PARTS), "vector": lists})
    )
    rng = np.random.default_rng(3)
    tokens = []
    for _ in range(MULTI):
        rows = beside.units[PARTS * int(rng.integers(0, whole // PARTS)) :][:PARTS]
        noise = unit(rng.standard_normal((TOKENS, dim)))
        tokens.append((rows[rng.integers(0, PARTS, TOKENS)] + 0.7 * noise).astype(np.float32))
    true = []
    for each in tokens:
        alike = beside.units[:whole] @ unit(each).astype(np.float32).T
        sums = alike.reshape(-1, PARTS, TOKENS).max(axis=1).sum(axis=1)
        true.append(np.argsort(-sums, kind="stable")[:K])

    def found(source: Any, query: Array, where: str | None = None) -> list[int]:
        asked = source.search(query, vector_column_name="vector").distance_type("cosine").limit(K)
        if where is not None:
            asked = asked.where(where, prefilter=True)
        rows = asked.select(["id", "_distance"]).to_arrow()
        return [int(id) for id in rows["id"].to_pylist()]

    def theirs(where: str | None = None) -> Array:
        return np.array([found(table, q, where) for q in beside.queries])

    def same(got: Array) -> float:
        return float(np.mean([np.isin(a, b).mean() for a, b in zip(got, true, strict=True)]))

    seen = ", ".join(map(str, beside.seen.tolist()))
    return {
        "kept_filter": (
            lambda: beside.ours(filter=beside.kept),
            lambda: theirs("odd = true"),
            beside.found_by(beside.odd),
            QUERIES,
        ),
        "exclude": (
            lambda: beside.ours(exclude=beside.seen),
            lambda: theirs(f"id NOT IN ({seen})"),
            beside.found_by(beside.allowed),
            QUERIES,
        ),
        "exact": (
            lambda: beside.ours(exact=True),
            theirs,
            beside.found_by(beside.every),
            QUERIES,
        ),
        "multi_near": (
            lambda: beside.index.search_multi(tokens, beside.documents, K).owners,
            lambda: np.array([found(several, unit(each)) for each in tokens]),
            same,
            MULTI,
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="minilm-10k")
    parser.add_argument("--peer", choices=("faiss", "lancedb"), required=True)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    vicinal.set_num_threads(1)
    beside = Beside(options.data)
    with tempfile.TemporaryDirectory() as folder:
        cases = faiss_cases(beside) if options.peer == "faiss" else lancedb_cases(beside, folder)
        for name, (verb, peer, share, count) in cases.items():
            rounds = 1 if name == "pairs" else ROUNDS
            ours, found = least(verb, rounds)
            theirs, other = least(peer, rounds)
            line = {
                "kind": "verbs_peers",
                "data": options.data,
                "verb": name,
                "peer": options.peer,
                "ms": round(1000 * ours / count, 4),
                "peer_ms": round(1000 * theirs / count, 4),
                "complete": round(share(found), 4),
                "peer_complete": round(share(other), 4),
            }
            print(line)
            if options.out:
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
