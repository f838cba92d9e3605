"""Every odd argument gives the right answer or a clear error, never a wrong answer."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from support.indexes import assert_same
from support.rows import stored

METRICS = ("l2", "ip", "cosine")
FLOATS = ("float32", "float16", "bfloat16")
INTEGERS = ("int8", "uint8")
DTYPES = FLOATS + INTEGERS
DIM = 4

ROWS = np.array(
    [[1, 2, 3, 4], [4, 3, 2, 1], [0, 0, 0, 9], [5, 5, 5, 5], [1, 0, 0, 0]], dtype=np.float32
)


def filled(metric: str = "l2", dtype: str = "float32") -> vicinal.Index:
    index = vicinal.Index(DIM, metric, dtype=dtype)
    index.add(ROWS)
    return index


def raises(kind: type[BaseException], message: str) -> Any:
    """Expect an exception of exactly this kind whose whole text is `message`."""
    return pytest.raises(kind, match=f"^{re.escape(message)}$", check=lambda e: type(e) is kind)


# ---- an index with too few rows


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_empty_index(metric: str, dtype: str) -> None:
    index = vicinal.Index(DIM, metric, dtype=dtype)
    one = index.search(ROWS[0], 3)
    assert one.ids.tolist() == [-1, -1, -1]
    assert one.distances.tolist() == [np.inf] * 3
    many = index.search(ROWS, 2)
    assert (many.ids == -1).all() and many.ids.shape == (5, 2)
    assert np.isposinf(many.distances).all()
    assert len(index) == 0 and 0 not in index and index.ids.shape == (0,)


@pytest.mark.parametrize("metric", METRICS)
def test_k_above_the_number_of_rows(metric: str) -> None:
    found = filled(metric).search(ROWS, 8)
    assert (np.sort(found.ids[:, :5], axis=1) == np.arange(5)).all()
    assert np.isfinite(found.distances[:, :5]).all()
    assert (found.ids[:, 5:] == -1).all()
    assert np.isposinf(found.distances[:, 5:]).all()


@pytest.mark.parametrize("shape", [(0, DIM), (0,)])
def test_empty_batches(shape: tuple[int, ...]) -> None:
    index = filled()
    for dtype in (np.float32, np.float64, np.int64):
        found = index.search(np.empty(shape, dtype), 3)
        assert found.ids.shape == found.distances.shape == (0, 3)
        added = index.add(np.empty(shape, dtype))
        assert added.shape == (0,) and added.dtype == np.int64
    assert index.add(np.empty(shape), ids=[]).shape == (0,)
    assert len(index) == 5


# ---- numbers


WHOLE_NUMBERS = [
    (0, ValueError, "0"),
    (-1, ValueError, "-1"),
    (2**31, ValueError, "2147483648"),
    (2**70, ValueError, "1180591620717411303424"),
    (np.int64(0), ValueError, "0"),
    (True, TypeError, "True"),
    (np.True_, TypeError, "True"),
    (2.0, TypeError, "2.0"),
    (np.float32(2), TypeError, repr(np.float32(2))),
    ("3", TypeError, "'3'"),
    ([1], TypeError, "[1]"),
]


@pytest.mark.parametrize(("value", "kind", "shown"), [*WHOLE_NUMBERS, (None, TypeError, "None")])
def test_k(value: Any, kind: type[Exception], shown: str) -> None:
    with raises(kind, f"k: expected a whole number from 1 to 2147483647, got {shown}"):
        filled().search(ROWS[0], value)


@pytest.mark.parametrize(("value", "kind", "shown"), WHOLE_NUMBERS)
def test_ef_search(value: Any, kind: type[Exception], shown: str) -> None:
    index = filled()
    message = f"ef_search: expected a whole number from 1 to 2147483647, got {shown}"
    with raises(kind, message):
        index.search(ROWS, ef_search=value)
    with raises(kind, message):
        index.ef_search = value
    assert index.ef_search == 64


@pytest.mark.parametrize(("value", "kind", "shown"), WHOLE_NUMBERS)
def test_num_threads(value: Any, kind: type[Exception], shown: str) -> None:
    index = filled()
    message = f"num_threads: expected a whole number from 1 to 2147483647, got {shown}"
    for queries in (ROWS, ROWS[0]):
        with raises(kind, message):
            index.search(queries, num_threads=value)
    with raises(kind, message):
        index.add(ROWS, num_threads=value)
    assert len(index) == 5


@pytest.mark.parametrize("number", [np.int64(2), np.uint8(2), np.array(2)])
def test_whole_numbers_of_numpy(number: Any) -> None:
    index = filled()
    wanted = index.search(ROWS, 2)
    assert_same(index.search(ROWS, number, ef_search=number, num_threads=number), wanted)


# ---- arguments of the constructor


LIMITS = {
    "dim": (1, 65536),
    "M": (2, 128),
    "ef_construction": (1, 2**31 - 1),
    "seed": (0, 2**63 - 1),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_of_parameters(name: str) -> None:
    low, high = LIMITS[name]
    wanted = f"{name}: expected a whole number from {low} to {high}, got "
    for value in (low - 1, high + 1):
        with raises(ValueError, f"{wanted}{value}"):
            vicinal.Index(**{"dim": 3, name: value})
    for value in (True, 16.0, "16", None):
        with raises(TypeError, f"{wanted}{value!r}"):
            vicinal.Index(**{"dim": 3, name: value})
    for value in (low, high, np.int64(low)):
        assert getattr(vicinal.Index(**{"dim": 3, name: value}), name) == value


@pytest.mark.parametrize(
    ("value", "kind"),
    [("l3", ValueError), ("manhattan", ValueError), (0, TypeError), (None, TypeError)],
)
def test_metric(value: Any, kind: type[Exception]) -> None:
    with raises(
        kind, f"metric: expected 'l2', 'ip', 'cosine', 'hamming' or 'jaccard', got {value!r}"
    ):
        vicinal.Index(DIM, value)


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [
        ("float64", ValueError, "'float64'"),
        ("f4", ValueError, "'f4'"),
        (np.float64, ValueError, "'float64'"),
        (float, ValueError, "'float64'"),
        (np.dtype(np.uint16), ValueError, "'uint16'"),
        (None, TypeError, "None"),
        (4, TypeError, "4"),
    ],
)
def test_dtype(value: Any, kind: type[Exception], shown: str) -> None:
    legal = "'float32', 'float16', 'bfloat16', 'int8', 'uint8' or 'b1'"
    with raises(kind, f"dtype: expected {legal}, got {shown}"):
        vicinal.Index(DIM, dtype=value)


@pytest.mark.parametrize("name", DTYPES)
def test_dtype_of_numpy(name: str) -> None:
    module = pytest.importorskip("ml_dtypes") if name == "bfloat16" else np
    scalar = getattr(module, name)
    for value in (name, scalar, np.dtype(scalar)):
        assert vicinal.Index(DIM, dtype=value).dtype == name


@pytest.mark.parametrize("value", ["none", "", "U8", "pq", 8, False, True, ["u8"]])
def test_quantization(value: Any) -> None:
    wanted = "'auto', None, 'u8', 'sq8' or 'rabitq4'"
    with raises(ValueError, f"quantization: expected {wanted}, got {value!r}"):
        vicinal.Index(DIM, quantization=value)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("value", ["auto", None, "u8", "sq8", "rabitq4"])
def test_combinations_of_quantization(value: str | None, metric: str, dtype: str) -> None:
    def make() -> vicinal.Index:
        return vicinal.Index(DIM, metric, dtype=dtype, quantization=value)

    if value == "u8" and metric == "cosine":
        message = 'quantization: expected one for metric "cosine", got "u8", which is for l2, ip'
    elif value in ("sq8", "rabitq4") and dtype in INTEGERS:
        wanted = '"auto", None or "u8"'
        message = f'quantization: expected {wanted} for dtype "{dtype}", got "{value}"'
    else:
        assert make().add(ROWS).tolist() == [0, 1, 2, 3, 4]
        return
    with raises(ValueError, message):
        make()


@pytest.mark.parametrize("value", [0.5, -1, 256, 4096, 100.5])
@pytest.mark.parametrize("dtype", FLOATS)
def test_rows_that_u8_cannot_hold(dtype: str, value: float) -> None:
    rows = np.tile(ROWS, (400, 1))
    for before in (ROWS, rows):  # searched exactly, and through the graph
        index = vicinal.Index(DIM, dtype=dtype, quantization="u8")
        index.add(before)
        found, told = index.search(ROWS), index.stats()
        batch = rows.astype(np.float64)
        batch[[1234, 1999], 2] = value
        why = 'holds other than whole numbers from 0 to 255, which "u8" needs'
        for given, row in ((batch, 1234), (batch[1234:], 0), (batch[1234], 0)):
            with raises(ValueError, f"vectors: row {row} {why}"):
                index.add(given)
        assert (len(index), index.stats()) == (len(before), told)
        assert_same(index.search(ROWS), found)
        assert len(index.add(rows)) == 2000
        assert index.stats()["quantization"] == "u8"


# ---- shapes


@pytest.mark.parametrize("shape", [(5,), (3,), (2, 5), (4, 3), (2, 3, 4), (1, 1, 4), (), (4, 0)])
def test_shapes(shape: tuple[int, ...]) -> None:
    index = filled()
    for array in (np.ones(shape, np.float32), np.ones(shape), np.ones(shape, int)):
        with raises(ValueError, f"queries: expected (n, 4) or (4,), got {shape}"):
            index.search(array)
        with raises(ValueError, f"vectors: expected (n, 4) or (4,), got {shape}"):
            index.add(array)
    assert len(index) == 5


# ---- values


def poisoned(dtype: str, value: float) -> Any:
    """Return 5 rows with `value` in row 3; those of bfloat16 as bits."""
    rows = ROWS.copy()
    rows[3, 1] = value
    return stored(rows, dtype)


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("metric", METRICS)
def test_not_finite(metric: str, dtype: str, value: float) -> None:
    index = filled(metric, dtype)
    before = index.search(ROWS)
    for form in (dtype, "float32", "float64"):
        rows = poisoned(form, value)
        with raises(ValueError, "vectors: row 3 holds NaN or infinity"):
            index.add(rows)
        with raises(ValueError, "queries: row 3 holds NaN or infinity"):
            index.search(rows)
        with raises(ValueError, "queries: row 0 holds NaN or infinity"):
            index.search(rows[3])
    assert len(index) == 5
    assert_same(index.search(ROWS), before)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_not_finite_for_integers(dtype: str) -> None:
    index = filled(dtype=dtype)
    for value in (np.nan, np.inf):
        with raises(ValueError, "vectors: row 3 holds NaN or infinity"):
            index.add(poisoned("float64", value))
        with raises(ValueError, "queries: row 3 holds NaN or infinity"):
            index.search(poisoned("float32", value))


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_vector(dtype: str) -> None:
    rows = ROWS.copy()
    rows[2] = 0
    index = filled("cosine", dtype)
    why = "is a zero vector, which has no direction for metric 'cosine'"
    with raises(ValueError, f"vectors: row 2 {why}"):
        index.add(rows)
    with raises(ValueError, f"queries: row 2 {why}"):
        index.search(rows)
    with raises(ValueError, f"queries: row 0 {why}"):
        index.search(np.zeros(DIM))
    assert len(index) == 5
    for metric in ("l2", "ip"):
        other = filled(metric, dtype)
        other.add(rows)
        assert other.search(np.zeros(DIM), 1).distances.shape == (1,)


@pytest.mark.parametrize("metric", METRICS)
def test_too_large_for_float32_sums(metric: str) -> None:
    index = filled(metric)
    rows = ROWS.copy()
    rows[4, 0] = 1e19
    why = "is too large: its squared length is above 8e37, distances would overflow float32"
    with raises(ValueError, f"vectors: row 4 {why}"):
        index.add(rows)
    with raises(ValueError, f"queries: row 4 {why}"):
        index.search(rows)
    assert len(index) == 5


def test_beyond_the_stored_range() -> None:
    rows = ROWS.astype(np.float64)
    rows[1, 2] = -70000
    with raises(ValueError, "vectors: row 1 holds -70000, beyond the range of float16"):
        filled(dtype="float16").add(rows)
    with raises(ValueError, "vectors: row 1 holds -70000, beyond the range of float16"):
        filled(dtype="float16").add(rows.astype(np.int32))
    rows[1, 2] = 1e39
    for dtype in ("float32", "bfloat16"):
        with raises(ValueError, f"vectors: row 1 holds 1e+39, beyond the range of {dtype}"):
            filled(dtype=dtype).add(rows)
        with raises(ValueError, "queries: row 1 holds 1e+39, beyond the range of float32"):
            filled(dtype=dtype).search(rows)


# ---- layouts and dtypes that give the right answer


class Subclass(np.ndarray):
    """An array whose indexing is not to be trusted."""

    def __getitem__(self, key: Any) -> Any:
        raise AssertionError("indexed")


def unaligned(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    raw = np.zeros(array.nbytes + 1, np.uint8)
    out = raw[1:].view(array.dtype).reshape(array.shape)
    out[...] = array
    return out


def frozen(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    out = array.copy()
    out.flags.writeable = False
    return out


LAYOUTS: dict[str, Any] = {
    "strided rows": lambda a: np.repeat(a, 2, axis=0)[::2],
    "strided columns": lambda a: np.repeat(a, 3, axis=1)[:, ::3],
    "backwards": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "Fortran": np.asfortranarray,
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "read-only": frozen,
    "unaligned": unaligned,
    "subclass": lambda a: a.view(Subclass),
    "list": lambda a: a.tolist(),
    "tuple of arrays": tuple,
    "list of lists of NumPy scalars": lambda a: [list(row) for row in a],
    "object": lambda a: a.astype(object),
    "memoryview": memoryview,
}
KINDS = ("float32", "float64", "float16", "longdouble", "int64", "int32", "uint8", "uint64", "int8")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts(dtype: str, layout: str, kind: str) -> None:
    wanted = filled(dtype=dtype)
    given = LAYOUTS[layout](ROWS.astype(kind))
    index = vicinal.Index(DIM, dtype=dtype)
    assert index.add(given).tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(index.get(index.ids), wanted.get(wanted.ids))
    assert_same(index.search(given, 3), wanted.search(ROWS, 3))
    first = LAYOUTS[layout](ROWS[:1].astype(kind))
    assert_same(index.search(first, 3), wanted.search(ROWS[:1], 3))


def test_one_vector_in_odd_layouts() -> None:
    index = filled()
    wanted = index.search(ROWS[1], 3)
    column = np.asfortranarray(np.repeat(ROWS, 2, axis=1))[1, ::2]
    assert not column.flags.c_contiguous
    for query in (
        column,
        ROWS[1].tolist(),
        ROWS[1].astype(">f8"),
        unaligned(ROWS[1]),
        [4, 3, 2, 1],
    ):
        assert_same(index.search(query, 3), wanted)
        assert vicinal.Index(DIM).add(query).tolist() == [0]


def test_memmap(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    index = vicinal.Index(DIM)
    index.add(rows)
    assert_same(index.search(rows, 3), filled().search(ROWS, 3))


def test_broadcast_rows() -> None:
    index = vicinal.Index(DIM)
    index.add(np.broadcast_to(ROWS[0], (7, DIM)))
    assert index.search(ROWS[0], 7).distances.tolist() == [0.0] * 7


def test_fractions_are_real_numbers() -> None:
    index = filled()
    query = np.array([Fraction(1, 2), 1, 2.5, np.float32(3)], dtype=object)
    assert_same(index.search(query, 3), index.search([0.5, 1.0, 2.5, 3.0], 3))


def test_arrays_are_not_kept_nor_changed() -> None:
    rows, ids = ROWS.copy(), np.arange(5)
    index = vicinal.Index(DIM)
    added = index.add(rows, ids)
    rows[:], ids[:] = 100, 7
    assert added.tolist() == index.ids.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(index.get(range(5)), ROWS)
    index.ids[:] = 9
    index.get([0])[:] = 9
    assert index.ids[0] == 0 and index.get(0)[0] == 1


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rounding_between_float_types_is_to_nearest(dtype: str) -> None:
    rows = np.random.default_rng(7).normal(size=(50, DIM))
    index = vicinal.Index(DIM, dtype=dtype)
    index.add(rows)
    np.testing.assert_array_equal(index.get(range(50)), rows.astype(dtype))


def test_rounding_to_bfloat16_is_to_nearest_even() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rows = np.random.default_rng(7).normal(size=(50, DIM)).astype(np.float32)
    ties = [[1.00390625, 1.01171875, -1.00390625, -0.0], [1e-40, -1e-45, 1e18, 1.00390637]]
    tiny = rows * np.float32(1e-38)
    tiny[:, 0] = 1  # rows that are tiny altogether are refused
    rows = np.concatenate([rows, tiny, np.array(ties, np.float32)])
    index = vicinal.Index(DIM, dtype="bfloat16")
    index.add(rows)
    kept = index.get(index.ids)
    assert kept.dtype == np.uint16
    np.testing.assert_array_equal(kept, rows.astype(ml_dtypes.bfloat16).view(np.uint16))


def test_forms_of_bfloat16_agree() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rows = np.random.default_rng(8).normal(size=(20, DIM)).astype(ml_dtypes.bfloat16)
    wanted = vicinal.Index(DIM, dtype="bfloat16")
    wanted.add(rows)
    np.testing.assert_array_equal(wanted.get(wanted.ids), rows.view(np.uint16))
    for form in (rows.view(np.uint16), rows.astype(np.float32), np.repeat(rows, 2, axis=1)[:, ::2]):
        index = vicinal.Index(DIM, dtype="bfloat16")
        index.add(form)
        np.testing.assert_array_equal(index.get(index.ids), rows.view(np.uint16))
        assert_same(index.search(form, 5), wanted.search(rows, 5))
        assert_same(index.search(form[3], 5), wanted.search(rows[3], 5))
    # in an index of another dtype bfloat16 values are the numbers they stand for
    plain = vicinal.Index(DIM)
    plain.add(rows)
    np.testing.assert_array_equal(plain.get(plain.ids), rows.astype(np.float32))
    whole = vicinal.Index(DIM, dtype="int8")
    whole.add(ROWS.astype(ml_dtypes.bfloat16))
    np.testing.assert_array_equal(whole.get(whole.ids), ROWS)


def test_uint16_are_bits_for_bfloat16_only() -> None:
    bits = np.full((1, DIM), 0x4040, np.uint16)  # 3.0
    index = vicinal.Index(DIM, dtype="bfloat16")
    index.add(bits)
    assert index.search(np.full(DIM, 3), 1).distances.tolist() == [0]
    assert index.search(bits[0].astype(">u2"), 1).distances.tolist() == [0]
    for dtype in ("float32", "float16"):
        index = vicinal.Index(DIM, dtype=dtype)
        index.add(bits)
        assert index.search(np.full(DIM, 0x4040), 1).distances.tolist() == [0]


# ---- integers are exact


@pytest.mark.parametrize(
    ("dtype", "value", "shown"),
    [
        ("int8", 1.5, "1.5"),
        ("int8", 128, "128.0"),
        ("int8", -129, "-129.0"),
        ("uint8", -1, "-1.0"),
        ("uint8", 256, "256.0"),
        ("uint8", 254.999, "254.999"),
    ],
)
def test_integers_are_never_rounded(dtype: str, value: float, shown: str) -> None:
    rows = np.tile(ROWS, (300_000, 1)).astype(np.float64)  # more than is converted at a time
    rows[1_234_567, 2] = value
    low, high = (-128, 127) if dtype == "int8" else (0, 255)
    why = f"holds {shown}, expected whole numbers from {low} to {high} for {dtype}"
    hint = "; Index(..., scale=) takes floats" if value % 1 else ""
    index = filled(dtype=dtype)
    with raises(ValueError, f"vectors: row 1234567 {why}{hint}"):
        index.add(rows)
    # searches measure what they find by rounded queries again: test_float_queries.py
    assert index.search(rows[1_234_567]).distances.dtype == np.float32
    assert index.range_search(rows[1_234_567], 9.0).distances.dtype == np.float32
    assert len(index) == 5


@pytest.mark.parametrize("kind", ["int16", "int32", "int64", "uint16", "uint64", "object"])
def test_integers_never_wrap(kind: str) -> None:
    rows = ROWS.astype(kind)
    rows[2, 1] = 300
    shown = "300.0" if kind == "object" else "300"
    for dtype, low, high in (("int8", -128, 127), ("uint8", 0, 255)):
        why = f"holds {shown}, expected whole numbers from {low} to {high} for {dtype}"
        with raises(ValueError, f"vectors: row 2 {why}"):
            filled(dtype=dtype).add(rows)
        with raises(ValueError, f"queries: row 2 {why}"):
            filled(dtype=dtype).search(rows)


def test_integers_of_the_other_sign() -> None:
    index = filled(dtype="int8")
    with raises(
        ValueError,
        "vectors: row 0 holds 200, expected whole numbers from -128 to 127 for int8",
    ):
        index.add(np.full((1, DIM), 200, np.uint8))
    with raises(
        ValueError,
        "vectors: row 0 holds 18446744073709551615, expected whole numbers from 0 to 255 for uint8",
    ):
        filled(dtype="uint8").add(np.full((1, DIM), 2**64 - 1, np.uint64))


def test_integers_too_large_for_any_float() -> None:
    huge = np.array([[10**400, 0, 0, 0]], dtype=object)
    with raises(ValueError, "vectors: holds an integer beyond the range of float64"):
        filled().add(huge)


# ---- kinds that are no vectors


WRONG_KINDS = [
    (np.ones((2, DIM), complex), "dtype complex128"),
    (np.ones((2, DIM), bool), "dtype bool"),
    (np.ones((2, DIM), "M8[s]"), "dtype datetime64[s]"),
    (np.ones((2, DIM), "m8[s]"), "dtype timedelta64[s]"),
    (np.zeros((2, DIM), "f4,f4"), "dtype [('f0', '<f4'), ('f1', '<f4')]"),
    (np.array([["a"] * DIM]), "dtype <U1"),
    (np.array([[b"a"] * DIM]), "dtype |S1"),
    ([["1", "2", "3", "4"]], "dtype <U1"),
    ([[1, 2, 3, None]], "objects such as None"),
    ([[1, 2, 3, "4"]], "dtype <U21"),
    (np.array([[1, 2, 3, "4"]], dtype=object), "objects such as '4'"),
    (np.array([[1, 2, 3, True]], dtype=object), "objects such as True"),
    (np.array([[1, 2, 3, 4j]], dtype=object), "objects such as 4j"),
    ("1234", "str"),
    (None, "None"),
    ({1: 2}, "dict"),
    ({1, 2, 3, 4}, "set"),
    (object(), "object"),
]


@pytest.mark.parametrize(("data", "shown"), WRONG_KINDS, ids=[shown for _, shown in WRONG_KINDS])
def test_wrong_kinds(data: Any, shown: str) -> None:
    for dtype in DTYPES:
        index = filled(dtype=dtype)
        with raises(TypeError, f"queries: expected an array of real numbers, got {shown}"):
            index.search(data)
        with raises(TypeError, f"vectors: expected an array of real numbers, got {shown}"):
            index.add(data)
        assert len(index) == 5


def test_an_iterator_is_batches() -> None:
    index = filled()
    with raises(TypeError, "queries: expected an array of real numbers, got generator"):
        index.search(float(i) for i in range(DIM))
    with raises(ValueError, f"batch 0: vectors: expected (n, {DIM}) or ({DIM},), got ()"):
        index.add(float(i) for i in range(DIM))
    assert len(index) == 5


def test_other_dtypes_of_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    message = "queries: expected an array of real numbers, got dtype float8_e4m3fn"
    with raises(TypeError, message):
        filled().search(np.ones((2, DIM), ml_dtypes.float8_e4m3fn))


@pytest.mark.parametrize("data", [[[1, 2, 3, 4], [1, 2]], [1, [2, 3], 4, 5]])
def test_ragged_lists(data: Any) -> None:
    for call in (filled().add, filled().search):
        with pytest.raises(
            TypeError, match=r"^(vectors|queries): expected an array of real numbers"
        ):
            call(data)


def test_masked_arrays() -> None:
    rows = np.ma.masked_less(ROWS, 2)
    message = "queries: expected an array of real numbers, got a masked array; fill it first"
    with raises(TypeError, message):
        filled().search(rows)
    with raises(TypeError, message.replace("queries", "vectors")):
        filled().add(rows)


# ---- ids


@pytest.mark.parametrize(
    ("ids", "kind", "message"),
    [
        ([0, 1, 2], ValueError, "ids: expected (5,), got (3,)"),
        ([[5, 6, 7, 8, 9]], ValueError, "ids: expected (5,), got (1, 5)"),
        (7, ValueError, "ids: expected (5,), got ()"),
        ([], ValueError, "ids: expected (5,), got (0,)"),
        ([5, 6, 7, 6, 9], ValueError, "ids: 6 stands at position 1 and again at 3"),
        ([5, 6, 7, 2, 9], ValueError, "ids: 2 at position 3 is already in the index"),
        ([5, -6, -6, 8, 9], ValueError, "ids: -6 stands at position 1 and again at 2"),
        (
            [5, 6, 7, 2**63, 9],
            ValueError,
            "ids: expected -2**63 to 2**63 - 1, got 9223372036854775808 at position 3",
        ),
        (
            [-1, 2**63, 7, 8, 9],
            ValueError,
            "ids: expected -2**63 to 2**63 - 1, got 9223372036854775808 at position 1",
        ),
        (
            [5, 6, 7, 8, -(2**63) - 1],
            ValueError,
            "ids: expected -2**63 to 2**63 - 1, got -9223372036854775809 at position 4",
        ),
        (
            np.array([5, 6, 2**64 - 1, 8, 9], np.uint64),
            ValueError,
            "ids: expected -2**63 to 2**63 - 1, got 18446744073709551615 at position 2",
        ),
        ([5, 6, 7.0, 8, 9], TypeError, "ids: expected integers, got 7.0 at position 2"),
        (np.arange(5.0), TypeError, "ids: expected integers, got dtype float64"),
        (np.ones(5, bool), TypeError, "ids: expected integers, got dtype bool"),
        ([True] * 5, TypeError, "ids: expected integers, got True at position 0"),
        (list("abcde"), TypeError, "ids: expected integers, got 'a' at position 0"),
        ([5, 6, None, 8, 9], TypeError, "ids: expected integers, got None at position 2"),
        (np.array(list("abcde")), TypeError, "ids: expected integers, got dtype <U1"),
        (
            np.ma.masked_less(np.arange(5, 10), 6),
            TypeError,
            "ids: expected integers, got a masked array; fill it first",
        ),
    ],
)
def test_ids_refused(ids: Any, kind: type[Exception], message: str) -> None:
    index = filled()
    before = index.search(ROWS, 5)
    with raises(kind, message):
        index.add(ROWS, ids)
    assert len(index) == 5 and index.ids.tolist() == [0, 1, 2, 3, 4]
    assert_same(index.search(ROWS, 5), before)
    # what was refused has left nothing behind
    assert index.add(ROWS).tolist() == [5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    "ids",
    [
        [7, 8, 9, 10, 11],
        (7, 8, 9, 10, 11),
        range(7, 12),
        np.arange(7, 12, dtype=np.uint8),
        np.arange(7, 12, dtype=np.uint64),
        np.arange(7, 12, dtype=">i4"),
        np.arange(14, 24)[::2] // 2,
        np.arange(7, 12).astype(object),
        [np.int16(7), 8, 9, 10, np.uint64(11)],
    ],
)
def test_forms_of_ids(ids: Any) -> None:
    index = vicinal.Index(DIM)
    added = index.add(ROWS, ids)
    assert added.dtype == np.int64 and added.tolist() == [7, 8, 9, 10, 11]
    assert index.ids.tolist() == [7, 8, 9, 10, 11]
    assert index.search(ROWS[2], 1).ids.tolist() == [9]


def test_negative_ids_are_told_from_padding_by_the_distance() -> None:
    index = vicinal.Index(DIM)
    ids = [-1, -(2**63), 2**63 - 1, -2, 0]
    assert index.add(ROWS, ids).tolist() == ids
    found = index.search(ROWS[0], 7)
    assert found.ids[0] == -1 and found.distances[0] == 0
    assert found.ids[5:].tolist() == [-1, -1]
    assert np.isposinf(found.distances[5:]).all() and np.isfinite(found.distances[:5]).all()
    assert all(id in index for id in ids) and -3 not in index
    np.testing.assert_array_equal(index.get(ids), ROWS)


@pytest.mark.parametrize("ids", [[3, 17], 17, -1, [0, 2**62]])
def test_get_of_unknown_ids(ids: Any) -> None:
    unknown = next(i for i in np.ravel(ids) if not 0 <= i < 5)
    with pytest.raises(KeyError) as caught:
        filled().get(ids)
    assert caught.value.args == (f"ids: {unknown} is not in the index",)


def test_get_refuses() -> None:
    index = filled()
    with raises(ValueError, "ids: expected one id or shape (n,), got (1, 2)"):
        index.get([[1, 2]])
    with raises(TypeError, "ids: expected integers, got 1.0 at position 0"):
        index.get(1.0)
    with raises(TypeError, "ids: expected integers, got None at position 0"):
        index.get(None)
    with raises(
        ValueError, "ids: expected -2**63 to 2**63 - 1, got 9223372036854775808 at position 0"
    ):
        index.get(2**63)


def test_in_refuses_what_can_be_no_id() -> None:
    index = filled()
    assert 4 in index and np.int8(4) in index and 5 not in index
    assert 2**64 + 1 not in index and -(2**70) not in index
    for value, shown in ((1.0, "1.0"), ("1", "'1'"), (None, "None"), (True, "True"), ([1], "[1]")):
        with raises(TypeError, f"id: expected an integer, got {shown}"):
            value in index  # noqa: B015


# ---- progress


@pytest.mark.parametrize("value", [1, "bar", [print]])
def test_progress(value: Any) -> None:
    index = filled()
    message = f"progress: expected None, True or a callable (done, total), got {value!r}"
    with pytest.raises(TypeError, match=re.escape(message[:60])):
        index.add(ROWS, progress=value)
    assert len(index) == 5
