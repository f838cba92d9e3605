"""Other processes and interpreters; docs/guide/concurrency.md in code. Threads: test_index_api."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

import vicinal

ROWS = np.random.default_rng(0).standard_normal((1500, 16)).astype(np.float32)
FREE_THREADED = os.environ.get("VICINAL_FREE_THREADED")


def search_pickled(index: vicinal.Index) -> tuple[list[list[int]], int]:
    """Runs in another process."""
    found = index.search(ROWS[:5], 3).ids.tolist()
    index.add(ROWS[:2])
    return found, len(index)


def search_opened(path: Path) -> list[list[int]]:
    """Runs in another process."""
    return vicinal.open(path).search(ROWS[:5], 3).ids.tolist()


def save_again_and_again(path: Path, count: int) -> None:
    """Runs in another process."""
    index = vicinal.Index(16)
    index.add(ROWS[:count])
    for _ in range(50):
        index.save(path)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_that_start_afresh(method: str, tmp_path: Path) -> None:
    index = vicinal.Index(16, M=6, ef_construction=30)
    index.add(ROWS)
    index.save(tmp_path / "file")
    expected = index.search(ROWS[:5], 3).ids.tolist()
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(search_pickled, [index] * 2) == [(expected, 1502)] * 2
        assert pool.map(search_opened, [tmp_path / "file"] * 2) == [expected] * 2
    assert len(index) == 1500


@pytest.mark.parametrize(("metric", "M"), [("ip", 2), ("ip", 3), ("l2", 2)])
def test_searches_beside_an_addition_find_k_rows(metric: str, M: int) -> None:
    """With so few links parts of the graph are cut off until the addition mends it."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((30_000, 8)).astype(np.float32)
    if metric == "ip":
        rows += 3 * rng.standard_normal(8).astype(np.float32)
    index = vicinal.Index(8, metric, M=M, ef_construction=5)
    index.add(rows[:1500])
    missing, done = [], threading.Event()

    def search() -> None:
        while not done.is_set():
            found = index.search(rows[:20], k=20, ef_search=20, num_threads=1)
            missing.append(int((found.ids < 0).sum()))

    thread = threading.Thread(target=search)
    thread.start()
    index.add(rows[1500:], num_threads=1)
    done.set()
    thread.join()
    assert len(missing) > 0 and sum(missing) == 0


def test_two_processes_save_to_one_path(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path = tmp_path / "file"
    arguments = [(path, 300), (path, 600)]
    writers = [context.Process(target=save_again_and_again, args=each) for each in arguments]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            opened = vicinal.open(path, verify=True)
            opened.check()
            seen.add(len(opened))
    assert [writer.exitcode for writer in writers] == [0, 0]
    seen.add(len(vicinal.open(path, verify=True)))
    assert seen <= {300, 600}
    assert os.listdir(tmp_path) == ["file"]


def run_without_a_gil(code: str) -> None:
    """Run code on a free-threaded CPython; it must print "well"."""
    assert FREE_THREADED is not None
    package = Path(vicinal.__file__).parent.parent
    done = subprocess.run(
        [
            FREE_THREADED,
            "-c",
            f"import sys; sys.path.append({str(package)!r})\n{textwrap.dedent(code)}",
        ],
        capture_output=True,
        text=True,
        timeout=600,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr


@pytest.mark.skipif(FREE_THREADED is None, reason="VICINAL_FREE_THREADED names no interpreter")
def test_without_a_gil() -> None:
    """The GIL stays off; threads look ids up, search, add, update and remove beside each other."""
    code = """
        import sys, threading, warnings
        import numpy as np
        assert not sys._is_gil_enabled()
        warnings.simplefilter("error")
        import vicinal
        assert not sys._is_gil_enabled()
        rows = np.random.default_rng(0).standard_normal((6000, 16)).astype(np.float32)
        index = vicinal.Index(16)
        index.add(rows[:1500], np.arange(10, 1510))
        wrong, done = [], threading.Event()

        def look(offset):
            while not done.is_set():
                for i in range(offset, 1500, 40):
                    if index.search(rows[i], 1).ids[0] != i + 10:
                        wrong.append(("search", i))
                    if i + 10 not in index:
                        wrong.append(("in", i))
                try:  # many look-ups in one call, while others move what the table holds
                    if not np.array_equal(index.get(np.arange(10, 1510)), rows[:1500]):
                        wrong.append("get")
                except KeyError as error:
                    wrong.append(repr(error))
                ids = index.ids
                if len(np.unique(ids)) != len(ids):
                    wrong.append("ids")
                found = index.search(rows[:8], 5, filter=ids[: len(ids) // 2]).ids
                if not np.isin(found[found >= 0], ids).all():
                    wrong.append("filter")

        def write(first):
            for i in range(first, first + 500, 10):
                index.add(rows[i : i + 10], np.arange(i + 10, i + 20))
                if i % 50 == 0:
                    index.remove([i + 10, i + 11])
                    index.update(rows[i + 2 : i + 4], [i + 13, i + 12])
                    index.update(rows[i + 2 : i + 4], [i + 12, i + 13])

        readers = [threading.Thread(target=look, args=(i,)) for i in range(4)]
        writers = [threading.Thread(target=write, args=(1500 + 500 * i,)) for i in range(8)]
        for thread in readers + writers:
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        for thread in readers:
            thread.join()
        assert not wrong, wrong[:5]
        index.check()
        assert len(index) == 1500 + 4000 - 2 * 80, len(index)
        kept = [i for i in range(1500, 5500) if i % 50 > 1]
        assert np.array_equal(index.get(np.array(kept) + 10), rows[kept])
        assert not sys._is_gil_enabled()
        print("well")
    """
    run_without_a_gil(code)


@pytest.mark.skipif(FREE_THREADED is None, reason="VICINAL_FREE_THREADED names no interpreter")
def test_without_a_gil_a_look_up_waits_for_a_step_of_a_change() -> None:
    """What a change does between two releases of the GIL is not interrupted without one either."""
    code = """
        import threading, time
        import numpy as np
        import vicinal
        index = vicinal.Index(4)
        rows = np.random.default_rng(0).random((100, 4), dtype=np.float32)
        index.add(rows, np.arange(100) * 3)
        inside, found, early = threading.Event(), threading.Event(), []

        def look():
            while not inside.is_set():
                pass
            index.get(30)
            found.set()

        def report(done, total):  # called in the middle of the native call
            if not inside.is_set():
                inside.set()
                until = time.perf_counter() + 1
                while time.perf_counter() < until and not found.is_set():
                    pass
                early.append(found.is_set())

        reader = threading.Thread(target=look)
        reader.start()
        index.add(np.ones((5, 4), np.float32), np.arange(5) + 1000, progress=report)
        reader.join()
        assert early == [False] and found.is_set(), early
        print("well")
    """
    run_without_a_gil(code)
