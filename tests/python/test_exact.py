"""Exact search: against float64, against a scan by the kernel, against the truth of real sets."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import reference
import vicinal
from vicinal._cpu import native
from vicinal._validate import DTYPES, METRICS, STORED_DTYPES

LANES = native.cpu_lanes()
INTEGERS = ("int8", "uint8")
# relative to the sum of the absolute terms of a distance
TOLERANCE = {"float32": 4e-6, "float16": 4e-6, "bfloat16": 4e-6, "int8": 2e-7, "uint8": 2e-7}


def stored(values, dtype):
    """Round values to a stored dtype; bfloat16 becomes its bits."""
    if dtype == "bfloat16":
        return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return np.asarray(values).astype(dtype)


def widened(array, dtype):
    """Return stored values as numbers."""
    if dtype == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def make(rng, count, dim, dtype):
    """Make stored vectors, none of them zero."""
    if dtype in INTEGERS:
        limits = np.iinfo(dtype)
        values = rng.integers(limits.min, limits.max + 1, (count, dim))
        values[:, 0] = limits.max
    else:
        values = rng.standard_normal((count, dim)) + 0.1
    return stored(values, dtype)


def make_queries(rng, count, dim, dtype):
    return make(rng, count, dim, dtype if dtype in INTEGERS else "float32")


def search(base, queries, k, metric, dtype, **options):
    if dtype == "bfloat16":
        options["dtype"] = dtype
    return vicinal.exact_search(base, queries, k, metric, **options)


def assert_right(found, base, queries, k, metric, dtype):
    """Compare a result with float64; rows whose distances differ by rounding only may differ."""
    rows, wanted = widened(base, dtype).astype(np.float64), queries.astype(np.float64)
    every = reference.distances(rows, wanted, metric)
    ids, values = reference.nearest(rows, wanted, k, metric)
    assert found.ids.shape == found.distances.shape == (len(queries), k)
    here = min(k, len(base))
    assert (found.ids[:, here:] == -1).all() and np.isinf(found.distances[:, here:]).all()
    got = found.ids[:, :here]
    assert ((got >= 0) & (got < len(base))).all()
    assert all(len(set(line)) == here for line in got)
    scale = 1 + np.abs(rows).max() * np.abs(wanted).max() * rows.shape[1]
    allowed = TOLERANCE[dtype] * (4 if metric == "cosine" else 4 * scale)
    truth = values[:, :here]
    if dtype in INTEGERS and metric != "cosine":
        np.testing.assert_array_equal(got, ids[:, :here])
        np.testing.assert_array_equal(found.distances[:, :here], truth.astype(np.float32))
    assert (np.abs(np.take_along_axis(every, got, axis=1) - truth) <= allowed).all()
    assert (np.abs(found.distances[:, :here] - truth) <= allowed).all()


def scan_by_kernel(base, queries, k, metric):
    """Measure every float32 row by the single-pair kernel: what exact search must equal."""
    codes = METRICS.index(metric), 0
    every = np.array([[native.distance(*codes, q, row) for row in base] for q in queries])
    ids = np.argsort(every, axis=1, kind="stable")[:, :k]
    return ids, np.take_along_axis(every, ids, axis=1).astype(np.float32)


def assert_same(found, other):
    np.testing.assert_array_equal(found.ids, other.ids)
    np.testing.assert_array_equal(found.distances, other.distances)


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
    "name", ["far", "very far", "lengths", "tiny", "denormal", "huge", "one point", "sparse"]
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
    elif name == "denormal":
        base, queries = base * 1e-40, queries * 1e-21
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


# ---- shapes and kinds of input


def test_shapes():
    base = np.eye(4, dtype=np.float32)
    one = vicinal.exact_search(base, base[2], 2)
    assert one.ids.shape == one.distances.shape == (2,)
    assert (one.ids.dtype, one.distances.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(one.ids, [2, 0])
    assert vicinal.exact_search(base, base[2:3], 2).ids.shape == (1, 2)
    assert vicinal.exact_search(base, base, 2).ids.shape == (4, 2)
    assert vicinal.exact_search(base, np.empty((0, 4)), 2).ids.shape == (0, 2)
    assert vicinal.exact_search(base, base).ids.shape == (4, 10)
    ids, distances = vicinal.exact_search(base, base, 6, "ip")
    assert (ids[:, 4:] == -1).all() and np.isinf(distances[:, 4:]).all()
    for dtype in (np.float32, np.float64):
        nothing = vicinal.exact_search(np.empty((0, 4), dtype), base, 3)
        assert (nothing.ids == -1).all() and np.isinf(nothing.distances).all()


def forms(base, tmp_path):
    """Give the same numbers in every form that is taken."""
    yield "float64", base.astype(np.float64)
    yield "longdouble", base.astype(np.longdouble)
    yield "int64", base.astype(np.int64)
    yield "int16", base.astype(np.int16)
    yield "object", base.astype(object)
    yield "list", base.astype(int).tolist()
    yield "Fortran order", np.asfortranarray(base)
    yield "other byte order", base.astype(base.dtype.newbyteorder())
    wide = np.zeros((len(base), 2 * base.shape[1]), np.float32)
    wide[:, ::2] = base
    yield "strided in columns", wide[:, ::2]
    tall = np.zeros((3 * len(base), base.shape[1]), np.float32)
    tall[::3] = base
    yield "strided in rows", tall[::3]
    yield "backwards", np.ascontiguousarray(base[::-1])[::-1]
    raw = bytearray(1) + base.tobytes()
    yield "misaligned", np.frombuffer(raw, np.float32, base.size, 1).reshape(base.shape)
    frozen = base.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen
    for mode in ("r", "r+", "c"):
        base.tofile(tmp_path / "rows")
        yield f"map {mode}", np.memmap(tmp_path / "rows", np.float32, mode, shape=base.shape)
    mapped = np.memmap(tmp_path / "rows", np.float32, "r", shape=base.shape)
    yield "array on a map", np.asarray(mapped)
    tall.tofile(tmp_path / "tall")
    yield "strided map", np.memmap(tmp_path / "tall", np.float32, "r", shape=tall.shape)[::3]


def test_every_form_of_input(tmp_path):
    rng = np.random.default_rng(9)
    base = rng.integers(-9, 10, (300, 30)).astype(np.float32)
    base[:, 0] = 1
    queries = base[:20] + np.float32(0.25)
    for metric in METRICS:
        plain = vicinal.exact_search(base, queries, 12, metric)
        for name, form in forms(base, tmp_path):
            for memory in (None, 1, 40_000):
                found = vicinal.exact_search(form, queries, 12, metric, max_memory=memory)
                np.testing.assert_array_equal(found.ids, plain.ids, name)
                np.testing.assert_array_equal(found.distances, plain.distances, name)
        for _, form in forms(queries * 4, tmp_path):
            found = vicinal.exact_search(base * 4, form, 12, metric)
            assert_same(found, vicinal.exact_search(base * 4, queries * 4, 12, metric))


def test_blocks_of_converted_rows_equal_one_search():
    rng = np.random.default_rng(21)
    base = rng.standard_normal((4000, 16))
    base[2000:] = base[:2000]
    queries = rng.standard_normal((50, 16))
    for k in (1, 10, 700):
        whole = vicinal.exact_search(base.astype(np.float32), queries, k)
        for memory in (1, 20_000, 100_000, 300_000):
            assert_same(whole, vicinal.exact_search(base, queries, k, max_memory=memory))


def test_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(4)
    values = rng.standard_normal((200, 24)).astype(np.float32)
    base = values.astype(ml_dtypes.bfloat16)
    bits = vicinal.exact_search(base.view(np.uint16), values[:9], 5, dtype="bfloat16")
    assert_same(bits, vicinal.exact_search(base, values[:9], 5))
    assert_same(bits, vicinal.exact_search(np.asfortranarray(base), values[:9], 5))
    assert_same(bits, vicinal.exact_search(base.astype(np.float32), values[:9], 5))
    of_bits = vicinal.exact_search(
        base.view(np.uint16), base[:9].view(np.uint16), 5, dtype=base.dtype
    )
    assert_same(of_bits, vicinal.exact_search(base, base[:9], 5))


def test_what_was_written_to_a_map_stays(tmp_path):
    """Pages may be let go only where the file keeps them."""
    base = np.zeros((5000, 300), np.float32)
    base.tofile(tmp_path / "rows")
    for mode in ("c", "r+"):
        mapped = np.memmap(tmp_path / "rows", np.float32, mode, shape=base.shape)
        mapped[:, 0] = np.arange(5000)
        for num_queries in (1, 9):
            queries = np.zeros((num_queries, 300), np.float32)
            queries[:, 0] = 4000
            found = vicinal.exact_search(mapped, queries, 3)
            np.testing.assert_array_equal(found.ids[0], [4000, 3999, 4001])
        np.testing.assert_array_equal(mapped[:, 0], np.arange(5000))


# ---- what is refused


BASE = np.ones((5, 8), np.float32)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"base": np.ones(8, np.float32)}, ValueError, "base: expected (n, dim) with dim from 1"),
        ({"base": np.ones((2, 2, 2))}, ValueError, "got (2, 2, 2)"),
        ({"base": np.float32(1)}, ValueError, "base: expected (n, dim) with dim from 1 to 65536"),
        ({"base": np.ones((3, 0))}, ValueError, "got (3, 0)"),
        ({"base": np.ones((1, 65537), np.int8)}, ValueError, "got (1, 65537)"),
        ({"base": "rows"}, TypeError, "base: expected an array of real numbers"),
        ({"base": None}, TypeError, "base: expected an array of real numbers, got None"),
        ({"base": np.ones((5, 8), complex)}, TypeError, "got dtype complex128"),
        ({"base": np.ones((5, 8), bool)}, TypeError, "got dtype bool"),
        ({"base": np.ma.ones((5, 8), np.float32)}, TypeError, "got a masked array"),
        ({"base": [[1, 2], [3]]}, TypeError, "base: expected an array of real numbers"),
        ({"base": np.ones((5, 8), np.uint16)}, ValueError, "base: uint16 may be the bits of"),
        ({"dtype": "int8"}, ValueError, "dtype: 'int8' was given, but base is float32"),
        ({"dtype": "float8"}, ValueError, "dtype: expected 'float32', 'float16'"),
        ({"dtype": 7}, TypeError, "dtype: expected"),
        ({"queries": np.ones(7)}, ValueError, "queries: expected (n, 8) or (8,), got (7,)"),
        ({"queries": np.ones((2, 9))}, ValueError, "queries: expected (n, 8) or (8,), got (2, 9)"),
        ({"queries": np.ones((2, 1, 8))}, ValueError, "got (2, 1, 8)"),
        ({"queries": 1.0}, ValueError, "queries: expected (n, 8) or (8,), got ()"),
        ({"k": 0}, ValueError, "k: expected a whole number from 1 to 2147483647, got 0"),
        ({"k": -1}, ValueError, "got -1"),
        ({"k": 2.0}, TypeError, "k: expected a whole number"),
        ({"metric": "euclid"}, ValueError, "metric: expected 'l2', 'ip' or 'cosine', got 'euclid'"),
        ({"metric": 1}, TypeError, "metric: expected 'l2', 'ip' or 'cosine', got 1"),
        ({"num_threads": 0}, ValueError, "num_threads: expected a whole number from 1"),
        ({"num_threads": "2"}, TypeError, "num_threads: expected a whole number"),
        ({"max_memory": 0}, ValueError, "max_memory: expected a whole number from 1"),
        ({"max_memory": 1e6}, TypeError, "max_memory: expected a whole number"),
    ],
)
def test_refused(change, error, message):
    arguments = {"base": BASE, "queries": BASE[:2], **change}
    with pytest.raises(error, match=re.escape(message)):
        vicinal.exact_search(**arguments)


def test_queries_must_fit_integer_rows():
    base = np.arange(24, dtype=np.uint8).reshape(3, 8)
    found = vicinal.exact_search(base, base[1].astype(np.float64), 1)
    assert (found.ids[0], found.distances[0]) == (1, 0)
    for bad in (0.5, -1, 256):
        queries = base.astype(np.float64)
        queries[2, 3] = bad
        with pytest.raises(ValueError, match=r"queries: row 2 holds .*0 to 255 for uint8"):
            vicinal.exact_search(base, queries)


@pytest.mark.parametrize("num_queries", [0, 1, 30])
@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("metric", METRICS)
def test_bad_rows_are_named(num_queries, kind, metric):
    rng = np.random.default_rng(1)
    good = rng.standard_normal((3000, 20)).astype(kind)
    queries = rng.standard_normal((num_queries, 20)).astype(np.float32)
    cases = [(np.nan, "holds NaN or infinity"), (-np.inf, "holds NaN or infinity")]
    if kind != np.float16:
        cases.append((1e19, "is too large: its squared length is above 8e37"))
    for value, message in cases:
        for rows in ([0], [2999], [1400, 700, 2100]):
            base = good.copy()
            base[rows, 13] = value
            for options in ({}, {"max_memory": 30_000}, {"num_threads": 1}):
                with pytest.raises(ValueError, match=f"base: row {min(rows)} {message}"):
                    vicinal.exact_search(base, queries, 3, metric, **options)
    if metric == "cosine":
        base = good.copy()
        base[2500] = 0
        with pytest.raises(ValueError, match="base: row 2500 is a zero vector"):
            vicinal.exact_search(base, queries, 3, metric)
    if kind == np.float64:
        base = good.copy()
        base[77, 3] = 1e300
        with pytest.raises(ValueError, match=r"base: row 77 holds 1e\+300, beyond the range of"):
            vicinal.exact_search(base, queries, 3, metric)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bad_queries_are_named(dtype):
    rng = np.random.default_rng(1)
    base = make(rng, 50, 20, dtype)
    queries = make_queries(rng, 30, 20, dtype)
    queries[17] = 0
    with pytest.raises(ValueError, match="queries: row 17 is a zero vector"):
        search(base, queries, 3, "cosine", dtype)
    assert_right(search(base, queries, 3, "l2", dtype), base, queries, 3, "l2", dtype)
    if dtype not in INTEGERS:
        queries[23, 5] = np.nan
        with pytest.raises(ValueError, match="queries: row 23 holds NaN or infinity"):
            search(base, queries, 3, "ip", dtype)


def test_zero_rows_of_integers_with_cosine():
    base = np.ones((600, 5), np.int8)
    base[555] = 0
    for num_queries in (1, 20):
        with pytest.raises(ValueError, match="base: row 555 is a zero vector"):
            vicinal.exact_search(base, base[:num_queries], 1, "cosine")


# ---- memory, signals, threads


def peak_of_a_child(code):
    """Run code in a fresh process; it prints how far its peak rose, in bytes."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


MEASURE = """
import numpy as np
import vicinal

def peak():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

queries = np.random.default_rng(0).standard_normal(({queries}, {dim})).astype(np.float32)
vicinal.exact_search(queries[:9], queries[:9], num_threads=2)  # warm
base = np.memmap({path!r}, {dtype!r}, "r", shape=({rows}, {dim}))
before = peak()
vicinal.exact_search(base, queries, 10, num_threads=2, max_memory={memory})
print(peak() - before)
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
    assert whole - half <= 6 << 20, f"{half} and {whole} of {size}"


def test_max_memory_is_kept():
    """With many queries the scratch of all of them would not fit."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal((500, 512), np.float32)
    queries = rng.standard_normal((20_000, 512), np.float32)
    code = """
import numpy as np
import vicinal

def peak():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

rng = np.random.default_rng(0)
base = rng.standard_normal((500, 512), np.float32)
queries = rng.standard_normal((20_000, 512), np.float32)
vicinal.exact_search(base, queries[:9], 10, num_threads=2)
before = peak()
vicinal.exact_search(base, queries, 10, num_threads=2, max_memory={memory})
print(peak() - before)
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
    code = """
import numpy as np
import vicinal
base = np.random.default_rng(0).standard_normal((200_000, 64)).astype(np.float32)
print("ready", flush=True)
try:
    vicinal.exact_search(np.tile(base, (4, 1)), base[:100_000], 10)
except KeyboardInterrupt:
    print("ended", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        time.sleep(1)
        start = time.monotonic()
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "ended\n"
        assert time.monotonic() - start < 1
        assert child.wait(20) == 0


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


def test_native_function_checks_its_arguments():
    ids, distances = np.empty((2, 3), np.int64), np.empty((2, 3), np.float32)
    good = [0, 0, BASE, BASE[:2], 3, 1, 1000, ids, distances]
    assert native.exact_search(*good) == 0
    for place, value, error in (
        (0, 3, ValueError),
        (1, 5, ValueError),
        (2, BASE.astype(np.float64), ValueError),
        (3, BASE[:2, :4].copy(), ValueError),
        (4, 0, ValueError),
        (4, 4, ValueError),
        (5, 0, ValueError),
        (7, ids[:1], ValueError),
        (8, distances.astype(np.float64), ValueError),
        (2, None, TypeError),
    ):
        arguments = list(good)
        arguments[place] = value
        with pytest.raises(error):
            native.exact_search(*arguments)
    with pytest.raises(TypeError):
        native.exact_search(*good[:8])
    assert STORED_DTYPES["bfloat16"] == np.uint16


# ---- recall


def test_recall_at_k():
    assert vicinal.recall_at_k([1, 2, 3], [3, 2, 1]) == 1
    assert vicinal.recall_at_k([1, 2, 3], [4, 5, 6]) == 0
    assert vicinal.recall_at_k([[1, 2], [7, 4]], [[2, 1], [4, 5]]) == 0.75
    # the first k of the truth count
    assert vicinal.recall_at_k([1, 2], [1, 9, 2]) == 0.5
    # repeated ids count once
    assert vicinal.recall_at_k([1, 1], [1, 2]) == 0.5
    # -1 never counts, on neither side
    assert vicinal.recall_at_k([1, -1], [1, 2]) == 0.5
    assert vicinal.recall_at_k([1, -1, -1], [1, -1, -1]) == 1
    assert vicinal.recall_at_k([[1, -1], [-1, -1]], [[1, 2], [-1, -1]]) == 0.5
    assert vicinal.recall_at_k(np.array([[-5, 2**62]]), np.array([[2**62, -5]])) == 1
    rng = np.random.default_rng(0)
    true = np.argsort(rng.random((3000, 80)), axis=1)[:, :60]
    found = np.argsort(rng.random((3000, 80)), axis=1)[:, :50]
    slow = np.mean([len(set(f) & set(t[:50])) / 50 for f, t in zip(found, true, strict=True)])
    assert vicinal.recall_at_k(found, true) == pytest.approx(slow, abs=1e-12)


@pytest.mark.parametrize(
    ("found", "true", "error", "message"),
    [
        ([1.0, 2.0], [1, 2], TypeError, "found_ids: expected integers, got 1.0"),
        ([1, 2], "ab", TypeError, "true_ids: expected integers"),
        (1, [1], ValueError, "found_ids: expected (k,) or (n, k) with k >= 1, got ()"),
        ([[1]], [[[1]]], ValueError, "true_ids: expected (k,) or (n, k)"),
        (np.empty((2, 0), int), [[1], [2]], ValueError, "found_ids: expected (k,) or (n, k)"),
        ([1, 2], [1], ValueError, "true_ids: expected (2 or more) for found_ids of shape (2,)"),
        ([[1, 2]], [1, 2], ValueError, "true_ids: expected (1, 2 or more)"),
        ([[1, 2]], [[1, 2], [3, 4]], ValueError, "got (2, 2)"),
        ([1, 2], [-1, -1], ValueError, "true_ids: expected at least one true neighbour"),
    ],
)
def test_recall_refuses(found, true, error, message):
    with pytest.raises(error, match=re.escape(message)):
        vicinal.recall_at_k(found, true)
