"""The process in which one index lives during a benchmark, and the handle that drives it.

The parent sends commands over a pipe and waits for each answer. Between commands the process is
stopped by a signal, so that threads which spin while they wait cannot disturb the others.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import adapters

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
WARM_UP = 100
SETTLE_SECONDS, SETTLE_TRIES = 0.02, 50
CLEAR_PEAK = "5"  # what to write into clear_refs so that VmHWM starts anew


class WorkerError(RuntimeError):
    """A command failed inside the worker; the message is the traceback there."""


class Worker:
    """A process with one index in it.

    Parameters
    ----------
    spec : str
        Name of the index with its options, as `adapters.parse` takes it.
    vectors : Path
        Folder with `base.npy` and `queries.npy`, float32.
    folder : Path
        Scratch folder of this worker; made if it is missing.
    settings : dict
        `metric`, `M`, `ef_construction` and `seed`.

    Raises
    ------
    WorkerError
        If the library cannot be imported or the index cannot be made.
    """

    def __init__(self, spec: str, vectors: Path, folder: Path, settings: dict[str, Any]) -> None:
        self.spec = spec
        folder.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("spawn")
        self.pipe, far_end = context.Pipe()
        self.process = context.Process(
            target=serve, args=(far_end, spec, vectors, folder, settings), daemon=True
        )
        self.process.start()
        far_end.close()
        self._answer()

    def __call__(self, command: str, **arguments: Any) -> Any:
        """Run one command in the process and return its answer."""
        self._signal("SIGCONT")
        self.pipe.send((command, arguments))
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._signal("SIGCONT")
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def _answer(self) -> Any:
        try:
            succeeded, answer = self.pipe.recv()
        except EOFError:
            self.process.join()
            raise WorkerError(
                f"{self.spec}: the process ended with code {self.process.exitcode}"
            ) from None
        if not succeeded:
            self.close()
            raise WorkerError(f"{self.spec}: {answer}")
        self._signal("SIGSTOP")
        return answer

    def _signal(self, name: str) -> None:
        if hasattr(signal, name) and self.process.pid and self.process.is_alive():
            os.kill(self.process.pid, getattr(signal, name))


def serve(
    pipe: Connection, spec: str, vectors: Path, folder: Path, settings: dict[str, Any]
) -> None:
    """Answer commands until the process is ended; the target of the process."""
    _die_with_parent()
    try:
        room = _Room(spec, vectors, folder, settings)
        _settle()
        pipe.send((True, None))
        while True:
            command, arguments = pipe.recv()
            pipe.send((True, getattr(room, command)(**arguments)))
    except EOFError:
        return
    except BaseException:
        pipe.send((False, traceback.format_exc()))


class _Room:
    """The commands: each public method is one."""

    def __init__(self, spec: str, vectors: Path, folder: Path, settings: dict[str, Any]) -> None:
        self.spec = spec
        self.folder = folder
        self.settings = settings
        # Read, not mapped: pages of a mapped file would count as memory of the index.
        self.base = np.load(vectors / "base.npy")
        self.queries = np.load(vectors / "queries.npy")
        self.index = self._make(self.base.shape[1], folder)
        self.tiny: adapters.Adapter | None = None

    def _make(self, dim: int, folder: Path) -> adapters.Adapter:
        return adapters.make(self.spec, dim, folder=folder, **self.settings)

    def build(self, threads: int) -> dict[str, float]:
        """Build and return seconds, CPU seconds, and what memory grew by at most and in the end.

        The rows themselves, in the form the library takes, are there before and not counted.
        """
        prepared = self.index.prepare(self.base)
        gc.collect()
        before = start_peak()
        cpu, start = time.process_time(), time.perf_counter()
        self.index.build(prepared, threads)
        seconds = time.perf_counter() - start
        return {
            "seconds": seconds,
            "cpu_seconds": time.process_time() - cpu,
            "peak_bytes": peak_bytes() - before,
            "resident_bytes": _status("VmRSS") - before,
        }

    def search(self, mode: str, threads: int, ef: int, k: int, seconds: float) -> dict[str, Any]:
        """Run all queries until the given time is over and return ids, rate and latencies."""
        self.index.set_search(ef, threads)
        run = {"one": self._one_by_one, "batch": self._batch}[mode]
        asked: Any = self.index.rows(self.queries) if mode == "one" else self.queries
        run(asked[:WARM_UP], k, threads)
        passes, spent = 0, 0.0
        stamps: list[int] = []
        cpu = time.process_time()
        while spent < seconds or passes == 0:
            start = time.perf_counter()
            found, seen = run(asked, k, threads)
            spent += time.perf_counter() - start
            passes += 1
            stamps.extend(seen)
        cpu = time.process_time() - cpu
        answer = {
            "ids": np.concatenate([self.index.ids(part, k) for part in found]),
            "qps": passes * len(self.queries) / spent,
            "cpu_per_wall": cpu / spent,
        }
        if stamps:
            at = np.quantile(np.diff(np.array(stamps).reshape(passes, -1), axis=1), QUANTILES)
            answer["latency_us"] = {
                f"p{100 * share:g}": float(time_ns) / 1e3
                for share, time_ns in zip(QUANTILES, at, strict=True)
            }
        return answer

    def _one_by_one(self, rows: Any, k: int, threads: int) -> tuple[list[Any], list[int]]:
        search = self.index.search_one
        if threads > 1:
            return adapters.base.in_threads(lambda row: search(row, k), rows, threads), []
        found = []
        clock = time.perf_counter_ns
        stamps = [clock()]
        for row in rows:
            found.append(search(row, k))
            stamps.append(clock())
        return found, stamps

    def _batch(self, queries: Any, k: int, threads: int) -> tuple[list[Any], list[int]]:
        return [self.index.search_batch(queries, k)], []

    def save(self, path: Path) -> dict[str, float]:
        """Save and return the seconds it took and the bytes on disk."""
        start = time.perf_counter()
        self.index.save(path)
        seconds = time.perf_counter() - start
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        return {"seconds": seconds, "bytes": sum(file.stat().st_size for file in files)}

    def open(self, path: Path, ef: int, k: int) -> dict[str, float]:
        """Open a saved index and return the time of that and of the first search, in ms."""
        query = self.index.rows(self.queries[:1])[0]
        start = time.perf_counter()
        self.index.open(path, 1)
        opened = time.perf_counter()
        self.index.set_search(ef, 1)
        self.index.search_one(query, k)
        searched = time.perf_counter()
        return {"open_ms": 1e3 * (opened - start), "first_ms": 1e3 * (searched - opened)}

    def overhead(self, rows: int, dim: int, ef: int, k: int, calls: int) -> float:
        """Return the median time of one search in a tiny index, in microseconds."""
        if self.tiny is None:
            base = np.random.default_rng(1).standard_normal((rows, dim), dtype=np.float32)
            folder = self.folder / "tiny"
            folder.mkdir()
            self.tiny = self._make(dim, folder)
            self.tiny.build(self.tiny.prepare(base), 1)
            self.tiny.set_search(ef, 1)
            self.tiny_queries = self.tiny.rows(base)
        search, queries = self.tiny.search_one, self.tiny_queries
        stamps = []
        for number in range(calls):
            query = queries[number % rows]
            start = time.perf_counter_ns()
            search(query, k)
            stamps.append(time.perf_counter_ns() - start)
        return float(np.median(stamps)) / 1e3


def _die_with_parent() -> None:
    # A stopped process would otherwise outlive a parent that was killed.
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _settle() -> None:
    """Wait until no thread of this process is busy: those of BLAS spin for a while at first."""
    for _ in range(SETTLE_TRIES):
        before = time.process_time()
        time.sleep(SETTLE_SECONDS)
        if time.process_time() - before < 0.1 * SETTLE_SECONDS:
            return


def start_peak() -> int:
    """Start the peak of resident memory anew; return the bytes resident now."""
    try:
        Path("/proc/self/clear_refs").write_text(CLEAR_PEAK)
    except OSError:
        return _status("VmHWM")
    return _status("VmRSS")


def peak_bytes() -> int:
    """Return the peak of resident memory since `start_peak`."""
    return _status("VmHWM")


def _status(field: str) -> int:
    """Return a field of /proc/self/status in bytes, 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    values = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return 1024 * int(values[0]) if values else 0
