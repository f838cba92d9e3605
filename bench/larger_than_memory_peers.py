"""Other libraries with their vectors on disk, under the limit that `larger_than_memory.py` sets.

    python bench/larger_than_memory_peers.py --library zvec --folder FOLDER --rows ROWS.npy \
        --queries QUERIES.npy --truth TRUTH.npy --limit BYTES --out FILE.jsonl

zvec's DiskANN and LanceDB's IVF_HNSW_SQ (which measures again what it finds, `refine_factor`), and
Vicinal itself, are built without a limit and kept in FOLDER. Then a process of its own opens the
index in a control group with the limit, after nothing of its files is in memory, and asks one query
at a time with each setting. The rows, queries and true neighbours are those of
`larger_than_memory.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from memory_limit import evict, memory_limit

K = 10
Ask = Callable[[np.ndarray], list[int]]


class Vicinal:
    """What walks need in memory, vectors on disk."""

    name = "Vicinal"
    settings = (64, 100, 160, 250, 400)

    def __init__(self, folder: Path) -> None:
        self.path = folder / "vicinal.index"

    def build(self, rows: np.ndarray) -> None:
        import vicinal

        index = vicinal.Index(rows.shape[1])
        index.add(rows)
        index.save(self.path)

    def open(self) -> None:
        import vicinal

        self.index = vicinal.open(self.path, resident="walk")

    def ask(self, setting: int) -> Ask:
        def search(query: np.ndarray) -> list[int]:
            ids: list[int] = self.index.search(query, K, ef_search=setting).ids.tolist()
            return ids

        return search


class Zvec:
    """DiskANN: codes in memory, graph and vectors on disk."""

    name = "zvec DiskANN"
    settings = (10, 20, 40, 80, 160, 300)

    def __init__(self, folder: Path) -> None:
        import zvec

        self.zvec = zvec
        zvec.init(log_level=zvec.LogLevel.ERROR, query_threads=1)
        self.path = str(folder / "zvec")

    def build(self, rows: np.ndarray) -> None:
        zvec = self.zvec
        index = zvec.DiskAnnIndexParam(
            metric_type=zvec.MetricType.L2, max_degree=32, list_size=50, pq_chunk_num=0
        )
        column = zvec.VectorSchema(
            "row", zvec.DataType.VECTOR_FP32, dimension=rows.shape[1], index_param=index
        )
        made = zvec.create_and_open(self.path, zvec.CollectionSchema(name="rows", vectors=[column]))
        for start in range(0, len(rows), 1024):
            block = rows[start : start + 1024]
            made.insert(
                [zvec.Doc(id=str(start + i), vectors={"row": row}) for i, row in enumerate(block)]
            )
        made.flush()
        made.optimize(zvec.OptimizeOption(concurrency=2))
        made.flush()
        made.close()

    def open(self) -> None:
        self.index = self.zvec.open(
            self.path, self.zvec.CollectionOption(read_only=True, enable_mmap=True)
        )

    def ask(self, setting: int) -> Ask:
        parameter = self.zvec.DiskAnnQueryParam(list_size=setting)

        def search(query: np.ndarray) -> list[int]:
            asked = self.zvec.Query("row", vector=query, param=parameter)
            return [int(doc.id) for doc in self.index.query(asked, topk=K, output_fields=[])]

        return search


class Lance:
    """IVF_HNSW_SQ: 8-bit codes and graphs of the parts, vectors read to measure again."""

    name = "LanceDB IVF_HNSW_SQ"
    settings = ((1, 20, 2), (2, 32, 2), (4, 32, 2), (4, 64, 4), (8, 64, 4), (16, 100, 4))

    def __init__(self, folder: Path) -> None:
        import lancedb

        self.client = lancedb.connect(str(folder / "lance"))

    def build(self, rows: np.ndarray) -> None:
        import pyarrow as pa

        def blocks() -> Iterator[Any]:
            for start in range(0, len(rows), 8192):
                block = np.ascontiguousarray(rows[start : start + 8192])
                vectors = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), rows.shape[1])
                ids = pa.array(np.arange(start, start + len(block)))
                yield pa.record_batch([ids, vectors], names=["id", "vector"])

        schema = pa.schema([("id", pa.int64()), ("vector", pa.list_(pa.float32(), rows.shape[1]))])
        table = self.client.create_table("rows", blocks(), schema=schema)
        table.create_index(
            metric="l2",
            index_type="IVF_HNSW_SQ",
            num_partitions=max(1, len(rows) // 25_000),
            m=20,
            ef_construction=200,
        )

    def open(self) -> None:
        self.table = self.client.open_table("rows")

    def ask(self, setting: tuple[int, int, int]) -> Ask:
        probes, ef, refine = setting

        def search(query: np.ndarray) -> list[int]:
            found = self.table.search(query).select(["id"]).limit(K)
            found = found.nprobes(probes).ef(ef).refine_factor(refine)
            return [int(i) for i in found.to_arrow()["id"].to_pylist()]

        return search


LIBRARIES = {"vicinal": Vicinal, "zvec": Zvec, "lancedb": Lance}


def read_bytes() -> int:
    """Return how many bytes this process has had the disk read."""
    text = Path("/proc/self/io").read_text(encoding="ascii")
    return int(text.split("\nread_bytes:")[1].split()[0])


def child(options: argparse.Namespace) -> None:
    """Open the index and ask; run in a process of its own, which joins the group first."""
    library = LIBRARIES[options.library](options.folder)
    queries, truth = np.load(options.queries)[: options.count], np.load(options.truth)
    if options.procs:
        Path(options.procs).write_text(str(os.getpid()), encoding="ascii")
    library.open()
    for setting in library.settings:
        ask = library.ask(setting)
        for query in queries[:3]:
            ask(query)
        before, usage = read_bytes(), resource.getrusage(resource.RUSAGE_SELF)
        times, hits = [], 0
        for query, near in zip(queries, truth, strict=False):
            start = time.perf_counter()
            found = ask(query)
            times.append(time.perf_counter() - start)
            hits += len(set(found) & set(near.tolist()))
            if sum(times) > options.seconds:
                break
        after = resource.getrusage(resource.RUSAGE_SELF)
        done = len(times)
        told = {
            "setting": setting,
            "queries": done,
            "recall": hits / done / K,
            "p50_us": 1e6 * float(np.percentile(times, 50)),
            "p99_us": 1e6 * float(np.percentile(times, 99)),
            "read_bytes_a_query": (read_bytes() - before) / done,
            "cpu_us": 1e6
            * (after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime)
            / done,
        }
        print(json.dumps(told), flush=True)


def main() -> None:
    """Build if there is nothing yet, then measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", choices=LIBRARIES, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=0, help="bytes; 0 sets none")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=15.0, help="at most, for each setting")
    parser.add_argument("--only-build", action="store_true")
    parser.add_argument("--procs", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.procs is not None:
        child(options)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    made = options.folder / f"{options.library}.json"
    if not made.exists():
        start = time.perf_counter()
        LIBRARIES[options.library](options.folder).build(np.load(options.rows, mmap_mode="r"))
        built = {"build_seconds": time.perf_counter() - start}
        made.write_text(json.dumps(built), encoding="utf-8")
    if options.only_build:
        return
    files = [path for path in options.folder.rglob("*") if path.is_file()]
    for path in files:
        evict(path)
    result: dict[str, Any] = {
        "kind": "larger_than_memory_peers",
        "library": LIBRARIES[options.library].name,
        "limit": options.limit,
        "file_bytes": sum(path.stat().st_size for path in files),
        **json.loads(made.read_text(encoding="utf-8")),
    }
    command = [sys.executable, __file__, *sys.argv[1:]]
    if options.limit:
        with memory_limit(options.limit) as group:
            done = subprocess.run(
                [*command, "--procs", str(group.procs)], stdout=subprocess.PIPE, text=True
            )
            result |= {"peak": group.peak(), "killed": group.killed(), "exit": done.returncode}
    else:
        done = subprocess.run([*command, "--procs", ""], stdout=subprocess.PIPE, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    result["settings"] = [json.loads(line) for line in lines]
    print(json.dumps(result, indent=1))
    if options.out:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
