"""Exact search: every form of input gives the right answer or a clear error."""

from __future__ import annotations

import re

import numpy as np
import pytest

import vicinal
from exact_cases import INTEGERS, assert_right, assert_same, make, make_queries, search
from vicinal._cpu import native
from vicinal._kinds import DTYPES, METRICS

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
        (
            {"metric": "euclid"},
            ValueError,
            "metric: expected 'l2', 'ip', 'cosine', 'hamming' or 'jaccard', got 'euclid'",
        ),
        (
            {"metric": 1},
            TypeError,
            "metric: expected 'l2', 'ip', 'cosine', 'hamming' or 'jaccard', got 1",
        ),
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
