"""A collection of 100,000 documents beside Chroma, LanceDB and Qdrant's local mode.

    python bench/collection.py --data sift-real-500k-b --out bench/results/collection.jsonl
    python bench/collection.py --only vicinal,chroma --rows 20000
    python bench/collection.py --folder /dev/shm --seconds 300  # no disk to wait for

For each library, in fresh processes: upserts of one document and of 100 at a time, each call waited
for; then opened again: the first search, searches with filters that find 50 % to 0.01 % of the
documents, memory and bytes on disk. All of them search the same vectors with the same filter
n < bound over a field of distinct whole numbers. Lines of JSON. A library that is not installed is
left out. LanceDB searches by a scan, without an index, as it does until one is made.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SHARES = (1.0, 0.5, 0.1, 0.01, 0.001, 0.0001)
K = 10


class Vicinal:
    module = "vicinal"

    def __init__(self, path: str, dim: int) -> None:
        from vicinal import Collection

        self.made = Collection(path, dim, "l2")

    def upsert(self, ids: Any, rows: Any, texts: Any, metadata: Any) -> None:
        self.made.upsert(ids, rows, texts, metadata)

    def search(self, query: Any, bound: int | None) -> list[str]:
        where = None if bound is None else {"field": "n", "op": "lt", "value": bound}
        return [hit.id for hit in self.made.search(query, K, where)]

    def close(self) -> None:
        self.made.close()


class VicinalIndexed(Vicinal):
    """With an index on the field."""

    def __init__(self, path: str, dim: int) -> None:
        super().__init__(path, dim)
        self.made.create_index("n")


class Chroma:
    module = "chromadb"

    def __init__(self, path: str, dim: int) -> None:
        import chromadb

        client = chromadb.PersistentClient(
            path, settings=chromadb.Settings(anonymized_telemetry=False)
        )
        self.made = client.get_or_create_collection(
            "documents", metadata={"hnsw:space": "l2"}, embedding_function=None
        )

    def upsert(self, ids: Any, rows: Any, texts: Any, metadata: Any) -> None:
        self.made.upsert(ids, rows, metadata, texts)

    def search(self, query: Any, bound: int | None) -> list[str]:
        where = None if bound is None else {"n": {"$lt": bound}}
        return self.made.query([query], n_results=K, where=where)["ids"][0]

    def close(self) -> None:
        pass


class Lance:
    module = "lancedb"

    def __init__(self, path: str, dim: int) -> None:
        import lancedb

        self.client = lancedb.connect(path)
        try:
            self.made = self.client.open_table("c")
        except Exception:
            self.made = None

    def upsert(self, ids: Any, rows: Any, texts: Any, metadata: Any) -> None:
        items = [
            {"id": id, "vector": row, "text": text, "n": item["n"]}
            for id, row, text, item in zip(ids, rows, texts, metadata, strict=True)
        ]
        if self.made is None:
            self.made = self.client.create_table("c", items)
        else:  # merge_insert grows slow as it looks for equal ids; these are new
            self.made.add(items)

    def search(self, query: Any, bound: int | None) -> list[str]:
        asked = self.made.search(query).limit(K)
        if bound is not None:
            asked = asked.where(f"n < {bound}", prefilter=True)
        return [item["id"] for item in asked.select(["id", "_distance"]).to_list()]

    def close(self) -> None:
        self.made.optimize()  # one fragment of many


class Qdrant:
    module = "qdrant_client"

    def __init__(self, path: str, dim: int) -> None:
        from qdrant_client import QdrantClient, models

        self.client, self.models = QdrantClient(path=path), models
        if not self.client.collection_exists("c"):
            how = models.VectorParams(size=dim, distance=models.Distance.EUCLID)
            self.client.create_collection("c", vectors_config=how)

    def upsert(self, ids: Any, rows: Any, texts: Any, metadata: Any) -> None:
        points = [
            self.models.PointStruct(
                id=int(id[1:]), vector=row.tolist(), payload={"text": text, **item}
            )
            for id, row, text, item in zip(ids, rows, texts, metadata, strict=True)
        ]
        self.client.upsert("c", points, wait=True)

    def search(self, query: Any, bound: int | None) -> list[str]:
        m = self.models
        chosen = None
        if bound is not None:
            chosen = m.Filter(must=[m.FieldCondition(key="n", range=m.Range(lt=bound))])
        found = self.client.query_points("c", query=query.tolist(), query_filter=chosen, limit=K)
        return [f"d{point.id}" for point in found.points]

    def close(self) -> None:
        self.client.close()


LIBRARIES = {
    "vicinal": Vicinal,
    "vicinal with create_index": VicinalIndexed,
    "chroma": Chroma,
    "lancedb": Lance,
    "qdrant local": Qdrant,
}


def documents(numbers: np.ndarray, start: int, stop: int) -> tuple[list[str], list[str], list[Any]]:
    ids = [f"d{i}" for i in range(start, stop)]
    texts = [f"document {i} about nothing in particular" for i in range(start, stop)]
    return ids, texts, [{"n": int(number), "kind": "x"} for number in numbers[start:stop]]


def rss() -> int:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS:"))


def write(
    name: str, path: str, rows: np.ndarray, numbers: np.ndarray, seconds: float, out: Any
) -> None:
    """Upsert all rows a hundred at a time, then some one at a time."""
    made = LIBRARIES[name](path, rows.shape[1])
    singles = min(200, len(rows) // 10)
    end = len(rows) - singles
    start = time.perf_counter()
    done = 0
    for begin in range(0, end, 100):
        stop = min(end, begin + 100)
        ids, texts, metadata = documents(numbers, begin, stop)
        made.upsert(ids, rows[begin:stop], texts, metadata)
        done = stop
        if time.perf_counter() - start > seconds:
            break
    batches = done / (time.perf_counter() - start)
    each = []
    for i in range(end, end + singles):
        ids, texts, metadata = documents(numbers, i, i + 1)
        start = time.perf_counter()
        made.upsert(ids, rows[i : i + 1], texts, metadata)
        each.append(time.perf_counter() - start)
    # as much again for what the time did not suffice for, so that all search the same if they can
    start = time.perf_counter()
    while done < end and time.perf_counter() - start < seconds:
        stop = min(end, done + 2000)
        ids, texts, metadata = documents(numbers, done, stop)
        made.upsert(ids, rows[done:stop], texts, metadata)
        done = stop
    out.put(
        {
            "kind": "upsert",
            "documents": done + singles,
            "documents_per_second_by_100": round(batches),
            "documents_per_second_singly": round(singles / sum(each), 1),
            "single_median_ms": round(float(np.median(each)) * 1e3, 2),
            "rest_seconds": round(time.perf_counter() - start, 1),
            "rss_bytes": rss(),
        }
    )
    made.close()


def read(
    name: str,
    path: str,
    rows: np.ndarray,
    numbers: np.ndarray,
    kept: np.ndarray,
    queries: Any,
    out: Any,
) -> None:
    """Open what was written and search it."""
    __import__(LIBRARIES[name].module)
    before = rss()
    start = time.perf_counter()
    made = LIBRARIES[name](path, rows.shape[1])
    opened = time.perf_counter() - start
    made.search(queries[0], None)
    first = time.perf_counter() - start
    size = sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())
    out.put(
        {
            "kind": "open",
            "open_ms": round(opened * 1e3, 1),
            "open_and_first_search_ms": round(first * 1e3, 1),
            "rss_bytes_beyond_import": rss() - before,
            "disk_bytes": size,
        }
    )
    for share in SHARES:
        bound = None if share == 1 else round(len(rows) * share)
        allowed = kept if bound is None else kept[numbers[kept] < bound]
        if not len(allowed):
            continue
        times, good, filled = [], 0, 0
        for query in queries:
            begin = time.perf_counter()
            found = made.search(query, bound)
            times.append(time.perf_counter() - begin)
            far = ((rows[allowed] - query) ** 2).sum(axis=1)
            wanted = min(K, len(allowed))
            limit = np.partition(far, wanted - 1)[wanted - 1] * (1 + 1e-5)
            places = [int(id[1:]) for id in found]
            good += int((((rows[places] - query) ** 2).sum(axis=1) <= limit).sum())
            filled += len(found) / wanted
        out.put(
            {
                "kind": "filter",
                "share": share,
                "matches": len(allowed),
                "recall": round(good / (len(queries) * min(K, len(allowed))), 4),
                "filled": round(filled / len(queries), 4),
                "first_ms": round(times[0] * 1e3, 2),
                "median_ms": round(float(np.median(times[1:])) * 1e3, 3),
            }
        )
    made.close()


def in_process(work: Callable[..., None], *arguments: Any) -> list[dict[str, Any]]:
    """Run a function in a fresh process and return what it reports."""
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    process = context.Process(target=work, args=(*arguments, results))
    process.start()
    found = []
    while process.is_alive() or not results.empty():
        if results.empty():
            time.sleep(0.05)
        else:
            found.append(results.get())
    process.join()
    if process.exitcode:
        found.append({"kind": "failed", "exit": process.exitcode})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="sift-real-500k-b")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=60, help="for upserts by 100")
    parser.add_argument("--only", default=",".join(LIBRARIES))
    parser.add_argument("--folder", help="where the collections lie, /dev/shm for instance")
    parser.add_argument("--out", help="append to this file")
    options = parser.parse_args()
    import datasets
    import machine

    data = datasets.load(options.data)
    rows = np.ascontiguousarray(data.base[: options.rows], np.float32)
    queries = np.ascontiguousarray(data.queries[: options.queries], np.float32)
    numbers = np.random.default_rng(0).permutation(len(rows))

    def report(record: dict[str, Any]) -> None:
        line = json.dumps(record)
        print(line, flush=True)
        if options.out:
            with open(options.out, "a", encoding="utf-8") as file:
                file.write(line + "\n")

    versions = {
        each.module: importlib.metadata.version(each.module)
        for each in LIBRARIES.values()
        if importlib.util.find_spec(each.module) and each.module != "vicinal"
    }
    about = {**machine.describe([]), "versions": versions}
    report({"kind": "run", **about, "data": options.data, "rows": len(rows)})
    for name in options.only.split(","):
        if importlib.util.find_spec(LIBRARIES[name].module) is None:
            continue
        folder = tempfile.mkdtemp(prefix="collection-", dir=options.folder)
        try:
            path = os.path.join(folder, "c")
            told = in_process(write, name, path, rows, numbers, options.seconds)
            # who did not write all is asked for what there is: the first rows, and the last ones
            there = next((record["documents"] for record in told if "documents" in record), 0)
            last = min(200, len(rows) // 10)
            kept = np.r_[: there - last, len(rows) - last : len(rows)]
            if there:
                told += in_process(read, name, path, rows, numbers, kept, queries)
            for record in told:
                report({"library": name, **record})
        finally:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
