"""How long does a build in parts take with one worker process, and with two of each engine?

    python bench/build_workers.py --data sift-real-500k-b:200000 --parts 20 --out FILE

Wall seconds of `vicinal.build` from an array to the file; workers have been started and have
imported the library before. Dask and Ray run on this machine, with as many processes of one thread
each as `--workers`; `--engines` leaves them out. All files must be equal.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import datasets
import vicinal


@contextlib.contextmanager
def pool(workers: int) -> Iterator[Any]:
    """Start processes of Python's own."""
    with ProcessPoolExecutor(workers) as executor:
        yield executor


@contextlib.contextmanager
def dask_pool(workers: int) -> Iterator[Any]:
    """Start a cluster of Dask on this machine."""
    from dask.distributed import Client, LocalCluster

    from vicinal.integrations.dask import dask_executor

    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=0,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield dask_executor(client)


@contextlib.contextmanager
def ray_pool(workers: int) -> Iterator[Any]:
    """Start a node of Ray on this machine."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as home:
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "HOME": home}  # before Ray is imported
        import ray

        from vicinal.integrations.ray import RayExecutor

        ray.init(
            num_cpus=workers,
            object_store_memory=100_000_000,
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=home,
        )
        try:
            with RayExecutor() as executor:
                yield executor
        finally:
            ray.shutdown()


def warm(seconds: float) -> str:
    """Make a worker load the library, and take so long that others get such a task, too."""
    time.sleep(seconds)
    return vicinal.__version__


ENGINES: dict[str, Callable[[int], Any]] = {"pool": pool, "dask": dask_pool, "ray": ray_pool}


def main() -> int:
    """Measure, write, return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="a set, or SET:ROWS")
    parser.add_argument("--parts", type=int)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--engines", default="pool,dask,ray")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    name, _, count = options.data.partition(":")
    data = datasets.load(name)
    rows = data.base[: int(count or len(data.base))].astype(np.float32)
    ways = [("pool", 1)] + [(engine, options.workers) for engine in options.engines.split(",")]
    digests = set()
    for engine, workers in ways:
        with (
            tempfile.TemporaryDirectory(dir=options.folder) as folder,
            ENGINES[engine](workers) as executor,
        ):
            for task in [executor.submit(warm, 0.5) for _ in range(workers)]:
                task.result()
            path = Path(folder, "index")
            start = time.perf_counter()
            vicinal.build(
                rows,
                path,
                metric=data.metric,
                parts=options.parts,
                executor=executor,
                num_threads=workers,
            )
            wall = time.perf_counter() - start
            digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
        record = {
            "kind": "build-workers",
            "data": name,
            "rows": len(rows),
            "dim": rows.shape[1],
            "parts": options.parts,
            "engine": engine,
            "workers": workers,
            "wall": round(wall, 2),
            "equal": len(digests) == 1,
            "load": round(os.getloadavg()[0], 1),
        }
        print(json.dumps(record), flush=True)
        if options.out is not None:
            with open(options.out, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
    return 0 if len(digests) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
