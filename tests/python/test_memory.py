"""Memory and addresses in proportion to what indexes hold; MemoryError where they are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vicinal
from vicinal import exact_search

TESTS = Path(__file__).resolve().parents[1]
HEAD = """
import resource, sys
import numpy as np, vicinal
rows = np.random.default_rng(0).standard_normal((20000, 64), dtype=np.float32)
def status(key):
    lines = open('/proc/self/status').read().splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith(key)][0]
def maps():
    return len(open('/proc/self/maps').readlines())
def limit(bytes, more=False):
    '''Limits the addresses of the process, to what it has and so many more if `more`.'''
    most = bytes + (status('VmSize') << 10 if more else 0)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
"""


def run(code: str, seconds: int = 60) -> str:
    """Run a program in a process of its own and return what it prints."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=environment,
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])
    return done.stdout


def test_thousands_of_small_indexes() -> None:
    out = run("""
held = []
for i in range(3000):
    if i == 100: before = status('VmSize'), maps()
    index = vicinal.Index(32); index.add(rows[:20, :32]); held.append(index)
    index.search(rows[0, :32], 3)
print((status('VmSize') - before[0]) / 2900, maps() - before[1])
""")
    kib, maps = map(float, out.split())
    assert kib < 64
    assert maps < 300


def test_hundreds_of_indexes_with_graphs() -> None:
    out = run("""
held = []
for i in range(300):
    if i == 20: before = status('VmSize'), maps()
    index = vicinal.Index(64, M=4, ef_construction=8); index.add(rows[:1200], num_threads=1)
    held.append(index)
print((status('VmSize') - before[0]) / 280, (maps() - before[1]) / 280)
""")
    kib, maps = map(float, out.split())
    assert kib < 4096
    assert maps < 8


def test_small_indexes_under_a_limit_of_addresses() -> None:
    out = run("""
limit(64 << 20, more=True)
held = []
for i in range(100):
    index = vicinal.Index(64); index.add(rows[:20]); held.append(index)
    assert index.search(rows[3], 1).ids[0] == 3
print(len(held))
""")
    assert out.split() == ["100"]


def test_an_index_with_a_graph_under_a_limit_of_addresses() -> None:
    out = run("""
limit(400 << 20, more=True)
index = vicinal.Index(64, M=8, ef_construction=32)
index.add(rows[:10000])
found = index.search(rows[:50], 1, ef_search=200).ids.ravel()
print(len(index), (found == np.arange(50)).sum() >= 25)
""")
    assert out.split() == ["10000", "True"]


def test_addresses_that_run_out() -> None:
    """The index grows until it cannot; then it is as it was, and goes on where there is room."""
    out = run(
        """
limit(24 << 20, more=True)
index, told = vicinal.Index(64, M=4, ef_construction=8), 0
small = vicinal.Index(64); small.add(rows[:20])
for i in range(400):
    held = len(index)
    try:
        index.add(rows[:400], num_threads=1)
        assert len(index) == held + 400
    except MemoryError:
        assert len(index) == held
        told += 1
        if told == 3: break
index.check()
assert small.search(rows[3], 1).ids[0] == 3
limit(resource.RLIM_INFINITY)
print(told, len(index) >= 2000)
""".replace("    limit(resource", "    #").replace("limit(resource.RLIM_INFINITY)\n", "")
    )
    assert out.split() == ["3", "True"]


@pytest.mark.parametrize("k", [2**28, 2**31 - 1])
def test_large_k(k: int) -> None:
    base = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    index = vicinal.Index(8)
    index.add(base)
    for call in (
        lambda: index.search(base[0], k),
        lambda: index.search(base, k),
        lambda: index.search(base[:9], k, filter=[1, 2]),
        lambda: index.trace(base[0], k),
        lambda: exact_search(base, base[0], k),
        lambda: exact_search(base, base, k),
    ):
        with pytest.raises(MemoryError, match=r"k: expected at most 50"):
            call()


def test_results_take_what_rows_take() -> None:
    """More neighbours than there are rows cost no more than the arrays of the result."""
    out = run("""
index = vicinal.Index(64); index.add(rows[:2000])
index.search(rows[0], 2000)
before = status('VmRSS')
index.search(rows[0], 1 << 22, num_threads=1)
print(status('VmHWM') - before)
""")
    assert int(out) < 49152 + 4096  # KiB: 12 bytes for each of 4,194,304


def test_memory_refused_at_any_moment() -> None:
    """A few requests of each case; `python -m faults` in the folder `tests` tries all."""
    command = [sys.executable, "-m", "faults", "--most", "8"]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=600)
    if done.stdout.startswith("skipped"):
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " 0 wrong" in done.stdout
