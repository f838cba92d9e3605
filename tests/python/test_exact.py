"""Exact search: against float64, against a scan by the kernel, against the truth of real sets."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

import vicinal
from exact_cases import INTEGERS, assert_right, assert_same, make, make_queries, search
from support import processes
from support.memory import IN_USE
from vicinal._cpu import native
from vicinal._kinds import DTYPES, METRICS

LANES = native.cpu_lanes()


def scan_by_kernel(base, queries, k, metric):
    """Measure every float32 row by the single-pair kernel: what exact search must equal."""
    codes = METRICS.index(metric), 0
    every = np.array([[native.distance(*codes, q, row) for row in base] for q in queries])
    ids = np.argsort(every, axis=1, kind="stable")[:, :k]
    return ids, np.take_along_axis(every, ids, axis=1).astype(np.float32)


# ---- right answers


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "dim", sorted({1, 2, 3, LANES - 1, LANES, LANES + 1, 4 * LANES, 33, 127, 223, 300})
)
def test_against_float64(metric, dtype, dim):
    rng = np.random.default_rng(dim)
    # below and above the number of queries from which tiles are used, whole and broken panels
    for rows, num_queries, k in ((1, 1, 1), (37, 3, 5), (150, 5, 3), (300, 9, 40), (129, 26, 129)):
        base, queries = make(rng, rows, dim, dtype), make_queries(rng, num_queries, dim, dtype)
        for threads in (1, 2):
            found = search(base, queries, k, metric, dtype, num_threads=threads)
            assert_right(found, base, queries, k, metric, dtype)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_dimension(metric, dtype):
    rng = np.random.default_rng(7)
    base, queries = make(rng, 20, 65536, dtype), make_queries(rng, 6, 65536, dtype)
    if dtype in INTEGERS:  # the largest sums there are
        base[0], base[1] = np.iinfo(dtype).max, np.iinfo(dtype).min
        base[1, 0] = 1
        queries[0], queries[1] = base[0], base[1]
    found = search(base, queries, 20, metric, dtype)
    assert_right(found, base, queries, 20, metric, dtype)
    assert_same(found, search(base, queries, 20, metric, dtype, max_memory=1))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_way_does_not_matter(metric, dtype):
    """Threads, memory, tiles and the number of queries at once change nothing, bit for bit."""
    rng = np.random.default_rng(3)
    base, queries = make(rng, 3000, 70, dtype), make_queries(rng, 41, 70, dtype)
    base[1000:1100] = base[:100]
    for k in (1, 10, 300):
        found = search(base, queries, k, metric, dtype, num_threads=1)
        for options in (
            {"num_threads": 2},
            {"num_threads": 7},
            {"max_memory": 1},
            {"max_memory": 400_000, "num_threads": 1},
            {"max_memory": 1 << 32, "num_threads": 3},
        ):
            assert_same(found, search(base, queries, k, metric, dtype, **options))
        one_by_one = [search(base, query, k, metric, dtype) for query in queries]
        np.testing.assert_array_equal(found.ids, [one.ids for one in one_by_one])
        np.testing.assert_array_equal(found.distances, [one.distances for one in one_by_one])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_come_in_order_of_row(metric, dtype):
    rng = np.random.default_rng(5)
    distinct = make(rng, 20, 12, dtype)
    base = np.tile(distinct, (40, 1))
    queries = np.concatenate([make_queries(rng, 6, 12, dtype)] * 2)
    for k in (7, 100, 800):
        for threads in (1, 4):
            found = search(base, queries, k, metric, dtype, num_threads=threads)
            for ids, distances in zip(found.ids, found.distances, strict=True):
                # copies of a row have one distance exactly
                for same in np.unique(ids % 20):
                    copies = ids[ids % 20 == same]
                    assert (np.diff(copies) > 0).all()
                    assert len(np.unique(distances[ids % 20 == same])) == 1
                assert (np.diff(distances) >= 0).all()
                # and of the last one taken, the first copies
                last = ids[ids % 20 == ids[-1] % 20]
                np.testing.assert_array_equal(last, last[0] + 20 * np.arange(len(last)))


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize(
    "name", ["far", "very far", "lengths", "tiny", "huge", "one point", "sparse"]
)
def test_equals_a_scan_by_the_kernel(metric, name):
    """The test of the tiles must never drop a row that the kernel would rank among the first."""
    rng = np.random.default_rng(11)
    base = rng.standard_normal((600, 24))
    queries = rng.standard_normal((10, 24))
    if name == "far":  # squared norms 1e6 times the squared distances
        base, queries = base + 1e3, queries + 1e3
    elif name == "very far":  # differences of a few roundings
        base, queries = base * 0.1 + 1e5, queries * 0.1 + 1e5
    elif name == "lengths":
        base *= 10.0 ** rng.uniform(-12, 12, (600, 1))
        queries *= 10.0 ** rng.uniform(-6, 6, (10, 1))
    elif name == "tiny":
        base, queries = base * 1e-18, queries * 1e-18
    elif name == "huge":
        base, queries = base * 1e17, queries * 1e17
    elif name == "one point":
        base = np.repeat(base[:1], 600, axis=0)
    else:
        base[rng.random(base.shape) < 0.9] = 0
        queries[0] = 0
    base, queries = base.astype(np.float32), queries.astype(np.float32)
    ids, distances = scan_by_kernel(base, queries, 15, metric)
    for threads in (1, 3):
        found = vicinal.exact_search(base, queries, 15, metric, num_threads=threads)
        if metric == "l2":
            np.testing.assert_array_equal(found.ids, ids)
        # 1 - dot rounds: rows are ranked by dot, which may tell equal distances apart
        np.testing.assert_array_equal(found.distances, distances)
        few = vicinal.exact_search(base, queries, 15, metric, max_memory=1)
        assert_same(found, few)


def test_cosine_of_any_length():
    rng = np.random.default_rng(2)
    base = rng.standard_normal((400, 40)).astype(np.float32)
    queries = rng.standard_normal((12, 40)).astype(np.float32)
    plain = vicinal.exact_search(base, queries, 10, "cosine")
    for factor in (1e-18, 1e-30, 1e15):
        scaled = vicinal.exact_search(
            base * np.float32(factor), queries / np.float32(1e10), 10, "cosine"
        )
        np.testing.assert_array_equal(scaled.ids, plain.ids)
        np.testing.assert_allclose(scaled.distances, plain.distances, atol=1e-6)
    same = vicinal.exact_search(base, base[:20] * np.float32(3), 1, "cosine")
    np.testing.assert_array_equal(same.ids[:, 0], np.arange(20))
    assert (same.distances >= 0).all() and (same.distances < 1e-6).all()


def test_real_sets(sift, minilm, fashion):
    for data in (sift, minilm, fashion):
        found = vicinal.exact_search(data.base, data.queries, 10, data.metric)
        np.testing.assert_array_equal(found.ids, data.truth[:, :10])
    as_floats = vicinal.exact_search(
        fashion.base.astype(np.float32), fashion.queries.astype(np.float32), 100
    )
    as_bytes = vicinal.exact_search(fashion.base.astype(np.uint8), fashion.queries, 100)
    assert_same(as_floats, as_bytes)
    np.testing.assert_array_equal(as_floats.ids, fashion.truth[:, :100])


@pytest.mark.parametrize("name", ["fashion-mnist-784-euclidean", "minilm-10k", "sift-photo-10k"])
def test_larger_real_sets(large_set, name):
    data = large_set(name)
    found = vicinal.exact_search(data.base, data.queries[:500], 10, data.metric)
    np.testing.assert_array_equal(found.ids, data.truth[:500, :10])


# ---- memory, signals, threads


def peak_of_a_child(code):
    """Run code in a fresh process; it prints how far its peak rose, in bytes."""
    return int(processes.printed(IN_USE + code))


MEASURE = """
import numpy as np
import vicinal

queries = np.random.default_rng(0).standard_normal(({queries}, {dim})).astype(np.float32)
vicinal.exact_search(queries[:9], queries[:9], num_threads=2)  # warm
base = np.memmap({path!r}, {dtype!r}, "r", shape=({rows}, {dim}))
before = in_use("VmHWM")
vicinal.exact_search(base, queries, 10, num_threads=2, max_memory={memory})
print(in_use("VmHWM") - before)
"""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("num_queries", [2, 300])
def test_peak_memory_is_flat(tmp_path, dtype, num_queries):
    rows, dim, memory = 120_000, 128, 16 << 20
    path = tmp_path / "rows"
    block = np.random.default_rng(0).standard_normal((rows // 10, dim)).astype(dtype)
    with path.open("wb") as file:
        for _ in range(10):
            block.tofile(file)
    facts = {"path": str(path), "dtype": dtype, "dim": dim, "queries": num_queries}
    half, whole = (
        peak_of_a_child(MEASURE.format(**facts, memory=memory, rows=n)) for n in (rows // 2, rows)
    )
    size = block.nbytes * 10
    # what the two threads have before them of the file is not counted by max_memory
    mapped = 2 * (8 << 20)
    assert whole <= memory + mapped < size // 2 + mapped, f"{half} and {whole} of {size}"
    assert whole - half <= 12 << 20, f"{half} and {whole} of {size}"


def test_max_memory_is_kept():
    """With many queries the scratch of all of them would not fit."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal((500, 512), np.float32)
    queries = rng.standard_normal((20_000, 512), np.float32)
    code = """
import numpy as np
import vicinal

rng = np.random.default_rng(0)
base = rng.standard_normal((500, 512), np.float32)
queries = rng.standard_normal((20_000, 512), np.float32)
vicinal.exact_search(base, queries[:9], 10, num_threads=2)
before = in_use("VmHWM")
vicinal.exact_search(base, queries, 10, num_threads=2, max_memory={memory})
print(in_use("VmHWM") - before)
"""
    result = 20_000 * 10 * 12
    little = peak_of_a_child(code.format(memory=8 << 20))
    much = peak_of_a_child(code.format(memory=1 << 30))
    assert little <= result + (9 << 20) < much
    assert_same(
        vicinal.exact_search(base, queries, 10, max_memory=8 << 20),
        vicinal.exact_search(base, queries, 10, max_memory=1 << 30),
    )


def test_ctrl_c_ends_a_long_call():
    # that it is looked at often enough is counted in tests/mojo
    code = """
import numpy as np
import vicinal
base = np.tile(np.random.default_rng(0).standard_normal((200_000, 64)).astype(np.float32), (4, 1))
vicinal.exact_search(base, base[:1], 10, num_threads=2)
interrupt_in_native_code()
try:
    vicinal.exact_search(base, base[:100_000], 10, num_threads=2)
except KeyboardInterrupt:
    print("ended")
"""
    assert processes.printed(processes.INTERRUPT_IN_NATIVE_CODE + code) == "ended\n"


def test_many_threads_at_once():
    rng = np.random.default_rng(6)
    base = rng.standard_normal((3000, 50)).astype(np.float32)
    queries = rng.standard_normal((40, 50)).astype(np.float32)
    wanted = vicinal.exact_search(base, queries, 10)
    failures = []

    def work():
        for _ in range(10):
            found = vicinal.exact_search(base, queries, 10, num_threads=2)
            if not (found.ids == wanted.ids).all():
                failures.append(found)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_works_after_fork():
    base = np.random.default_rng(0).standard_normal((2000, 30)).astype(np.float32)
    wanted = vicinal.exact_search(base, base[:20], 5, num_threads=2)
    child = os.fork()
    if child == 0:
        found = vicinal.exact_search(base, base[:20], 5, num_threads=2)
        os._exit(0 if (found.ids == wanted.ids).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
