"""Filtered search beside other libraries: recall and time per query, one thread, interleaved.

    python bench/filters.py --out bench/results/filters.jsonl

Two sets: 20,000 x 64 of the stated generator (`mixture.py`, cut to 64 dimensions) and minilm-10k.
Every index is built with the same `M` and `ef_construction` and asked one query at a time at the
first search width of a ladder that gives recall@10 of 0.95 without a filter. Filters allow 50 % to
0.01 % of the rows: `random` ones, `clustered` ones (the nearest to some random rows, cluster by
cluster) and those `opposed` to the query: the rows farthest from it.

Vicinal gets a boolean array, hnswlib a Python function, faiss an `IDSelectorBitmap` made
beforehand, zvec an expression over a column with an inverted index, which cannot say `opposed`.
`scan` is `vicinal.exact_search` over a copy of the allowed rows, made beforehand. Recall counts the
missing results too; `filled` is the share of the results that ought to be there and are.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import datasets
import machine
import mixture
import vicinal

K, M, EF_CONSTRUCTION = 10, 16, 200
LADDER = (10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 200, 256, 320, 400, 512)
SHARES = (0.5, 0.2, 0.05, 0.01, 0.002, 0.0001)
KINDS = ("random", "clustered", "opposed")
CLUSTERS = 100
Array = np.ndarray
Ask = Callable[[int], Array]  # the ids of a query; may be fewer than K


class Vicinal:
    """This library."""

    def __init__(self, base: Array, metric: str, folder: Path) -> None:
        self.index = vicinal.Index(base.shape[1], metric, M=M, ef_construction=EF_CONSTRUCTION)
        self.index.add(base, num_threads=1)

    def ask(self, queries: Array, ef: int, masks: list[Array] | None, order: str | None) -> Ask:
        search = self.index.search
        if masks is None:
            return lambda i: search(queries[i], K, ef_search=ef).ids
        return lambda i: search(queries[i], K, ef_search=ef, filter=masks[i]).ids


class Hnswlib:
    """hnswlib with its filter function."""

    def __init__(self, base: Array, metric: str, folder: Path) -> None:
        import hnswlib

        self.index = hnswlib.Index(metric, base.shape[1])
        self.index.init_index(len(base), EF_CONSTRUCTION, M)
        self.index.add_items(base, num_threads=1)
        self.index.set_num_threads(1)

    def ask(self, queries: Array, ef: int, masks: list[Array] | None, order: str | None) -> Ask:
        self.index.set_ef(ef)
        query = self.index.knn_query
        if masks is None:
            return lambda i: query(queries[i], K, num_threads=1)[0][0]
        lists = {id(mask): mask.tolist() for mask in masks}  # quicker to look into than an array

        def search(i: int) -> Array:
            allowed = lists[id(masks[i])].__getitem__
            for k in (K, 5, 2, 1):  # it raises when there are fewer
                try:
                    self.index.set_ef(ef)
                    return query(queries[i], k, num_threads=1, filter=allowed)[0][0]
                except RuntimeError:
                    continue
            return np.empty(0, dtype=np.int64)

        return search


class Faiss:
    """faiss `IndexHNSWFlat` with a selector."""

    def __init__(self, base: Array, metric: str, folder: Path) -> None:
        import faiss

        self.faiss, self.cosine = faiss, metric == "cosine"
        faiss.omp_set_num_threads(1)
        kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        self.index = faiss.IndexHNSWFlat(base.shape[1], M, kind)
        self.index.hnsw.efConstruction = EF_CONSTRUCTION
        self.index.add(self._unit(base))

    def _unit(self, rows: Array) -> Array:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True) if self.cosine else rows

    def ask(self, queries: Array, ef: int, masks: list[Array] | None, order: str | None) -> Ask:
        faiss, queries = self.faiss, self._unit(queries)
        if masks is None:
            plain = faiss.SearchParametersHNSW(efSearch=ef)
            return lambda i: self.index.search(queries[i : i + 1], K, params=plain)[1][0]
        made = {
            id(mask): faiss.SearchParametersHNSW(
                efSearch=ef, sel=faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
            )
            for mask in masks
        }
        return lambda i: self.index.search(queries[i : i + 1], K, params=made[id(masks[i])])[1][0]


class Zvec:
    """zvec with columns that rank the rows: `random` and `clustered` filters are `column < n`."""

    def __init__(self, base: Array, metric: str, folder: Path) -> None:
        import zvec

        self.zvec = zvec
        zvec.init(log_level=zvec.LogLevel.ERROR, query_threads=1, optimize_threads=1)
        kind = zvec.MetricType.L2 if metric == "l2" else zvec.MetricType.COSINE
        hnsw = zvec.HnswIndexParam(
            metric_type=kind, m=M, ef_construction=EF_CONSTRUCTION, use_contiguous_memory=True
        )
        fields = [
            zvec.FieldSchema(name, zvec.DataType.INT64, index_param=zvec.InvertIndexParam())
            for name in ORDERS
        ]
        column = zvec.VectorSchema(
            "row", zvec.DataType.VECTOR_FP32, dimension=base.shape[1], index_param=hnsw
        )
        path = folder / "collection"
        collection = zvec.create_and_open(
            str(path), zvec.CollectionSchema(name="rows", fields=fields, vectors=[column])
        )
        ranks = {name: np.argsort(order) for name, order in ORDERS.items()}
        docs = [
            zvec.Doc(
                id=str(i),
                vectors={"row": row},
                fields={name: int(rank[i]) for name, rank in ranks.items()},
            )
            for i, row in enumerate(base)
        ]
        for start in range(0, len(docs), 1024):
            collection.insert(docs[start : start + 1024])
        collection.optimize(zvec.OptimizeOption(concurrency=1))
        collection.flush()
        collection.close()
        self.index = zvec.open(str(path), zvec.CollectionOption(read_only=True, enable_mmap=True))

    def ask(
        self, queries: Array, ef: int, masks: list[Array] | None, order: str | None
    ) -> Ask | None:
        if masks is not None and order is None:
            return None
        parameter = self.zvec.HnswQueryParam(ef=ef)
        where = None if masks is None else f"{order} < {int(masks[0].sum())}"

        def search(i: int) -> Array:
            asked = self.zvec.Query("row", vector=queries[i], param=parameter)
            found = self.index.query(asked, topk=K, filter=where, output_fields=[])
            return np.array([int(doc.id) for doc in found], dtype=np.int64)

        return search


LIBRARIES = {"vicinal": Vicinal, "hnswlib": Hnswlib, "faiss": Faiss, "zvec": Zvec}
ORDERS: dict[str, Array] = {}  # rows in the order in which shares of them are allowed


def distances(base: Array, queries: Array, metric: str) -> Array:
    """Return all distances in float64."""
    base, queries = base.astype(np.float64), queries.astype(np.float64)
    if metric == "cosine":
        base = base / np.linalg.norm(base, axis=1, keepdims=True)
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        return 1 - queries @ base.T
    return (queries**2).sum(1)[:, None] + (base**2).sum(1) - 2 * queries @ base.T


def measure(ask: Ask, every: Array, masks: list[Array] | None) -> tuple[float, float]:
    """Return recall@10 and the share of results that are there."""
    near = there = wanted = 0
    for i, far in enumerate(every):
        allowed = far if masks is None else far[masks[i]]
        k = min(K, len(allowed))
        bound = np.partition(allowed, k - 1)[k - 1]
        found = ask(i)
        found = found[found >= 0].astype(np.int64)
        near += int((far[found] <= bound + 1e-6 * abs(bound)).sum())
        there, wanted = there + min(len(found), k), wanted + k
    return near / wanted, there / wanted


def time_all(asks: dict[str, Ask], queries: int, rounds: int) -> dict[str, list[float]]:
    """Return the median microseconds of a query for each, once a round, taking turns."""
    names, out = list(asks), {name: [] for name in asks}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            spent = []
            for i in range(queries):
                start = time.perf_counter()
                asks[name](i)
                spent.append(time.perf_counter() - start)
            out[name].append(round(float(np.median(spent)) * 1e6, 2))
    return out


def load(name: str, queries: int) -> tuple[Array, Array, str]:
    """Return rows, queries and metric of a set."""
    if name == "mixture-20k-64":
        rows, asked = mixture.draw(20_000, queries, 1)
        return np.ascontiguousarray(rows[:, :64]), np.ascontiguousarray(asked[:, :64]), "l2"
    data = datasets.load(name)
    rows, asked = data.base.astype(np.float32), data.queries.astype(np.float32)
    return rows, np.ascontiguousarray(asked[:queries]), data.metric


def run(name: str, options: argparse.Namespace, write: Callable[[dict[str, Any]], None]) -> None:
    """Measure one set."""
    base, queries, metric = load(name, options.queries)
    every, n = distances(base, queries, metric), len(base)
    rng = np.random.default_rng(0)
    middles = base[rng.choice(n, CLUSTERS, replace=False)]
    labels = distances(middles, base, metric).argmin(axis=1)
    ORDERS["random"] = rng.permutation(n)
    ORDERS["clustered"] = np.lexsort((rng.random(n), rng.permutation(CLUSTERS)[labels]))
    folder = Path(tempfile.mkdtemp(prefix="vicinal-filters-"))
    indexes = {each: LIBRARIES[each](base, metric, folder) for each in options.indexes}
    widths, asks = {}, {}
    for each, index in indexes.items():
        for ef in LADDER:
            ask = index.ask(queries, ef, None, None)
            recall, _ = measure(ask, every, None)
            if recall >= 0.95:
                break
        widths[each], asks[each] = ef, ask
    plain = time_all(asks, len(queries), options.rounds)
    common = {"data": name, "rows": n, "dim": base.shape[1], "metric": metric, "k": K}
    for each, ask in asks.items():
        recall, filled = measure(ask, every, None)
        told = {"index": each, "ef": widths[each], "recall": recall, "filled": filled}
        write({"kind": "unfiltered", **common, **told, **spread(plain[each])})
    for kind in KINDS:
        for share in SHARES:
            count = max(int(n * share), 1)
            masks = masks_of(kind, count, every)
            copies = [base[mask] for mask in ({id(m): m for m in masks}).values()]
            copies = copies if len(copies) > 1 else copies * len(masks)
            filtered: dict[str, Ask] = {
                "scan": lambda i, c=copies, m=masks: np.flatnonzero(m[i])[
                    vicinal.exact_search(c[i], queries[i], min(K, len(c[i])), metric).ids
                ]
            }
            for each, index in indexes.items():
                order = kind if kind in ORDERS else None
                ask = index.ask(queries, widths[each], masks, order)
                if ask is not None:
                    filtered[each] = ask
            spent = time_all(filtered, len(queries), options.rounds)
            for each, ask in filtered.items():
                recall, filled = measure(ask, every, masks)
                told = {"index": each, "ef": widths.get(each), "recall": recall, "filled": filled}
                where = {"filter": kind, "share": share, "allowed": count}
                write({"kind": "filtered", **common, **where, **told, **spread(spent[each])})
    shutil.rmtree(folder)


def masks_of(kind: str, count: int, every: Array) -> list[Array]:
    """Return the filter of each query, the same object where it is the same."""
    n = every.shape[1]
    if kind in ORDERS:
        mask = np.zeros(n, dtype=bool)
        mask[ORDERS[kind][:count]] = True
        return [mask] * len(every)
    masks = []
    for far in every:
        mask = np.zeros(n, dtype=bool)
        mask[np.argpartition(-far, count - 1)[:count]] = True
        masks.append(mask)
    return masks


def spread(values: list[float]) -> dict[str, Any]:
    """Return microseconds per query as results files have them."""
    middle = float(np.median(values))
    return {"us": {"median": middle, "min": min(values), "max": max(values), "values": values}}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["mixture-20k-64", "minilm-10k"])
    parser.add_argument("--indexes", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with options.out.open("w", encoding="utf-8") as out:

        def write(record: dict[str, Any]) -> None:
            out.write(json.dumps(record) + "\n")
            out.flush()
            if record["kind"] != "run":
                print({k: v for k, v in record.items() if k != "us"}, record["us"]["median"])

        write({"kind": "run", **machine.describe(options.indexes), "rounds": options.rounds})
        for name in options.data:
            run(name, options, write)


if __name__ == "__main__":
    main()
