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


@pytest.mark.skipif(FREE_THREADED is None, reason="VICINAL_FREE_THREADED names no interpreter")
def test_without_a_gil() -> None:
    """Importing works, turns the GIL on and says so; searches from many threads are right."""
    code = """
        import sys, threading, warnings
        import numpy as np
        assert not sys._is_gil_enabled()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            import vicinal
        assert sys._is_gil_enabled()
        assert "GIL" in str(caught[0].message)
        rows = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
        index = vicinal.Index(16)
        index.add(rows[:1500])
        wrong = []
        def look():
            for i in range(200):
                if index.search(rows[i], 1).ids[0] != i:
                    wrong.append(i)
        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        index.add(rows[1500:])
        for thread in threads:
            thread.join()
        index.check()
        assert not wrong
        print(len(index))
    """
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
    assert (done.returncode, done.stdout) == (0, "3000\n"), done.stderr
