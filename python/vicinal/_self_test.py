"""Checks of the native kernels against plain float64 NumPy, on the machine they run on.

`python -m vicinal doctor` prints the outcome. Vectors for single distances lie at an odd address
between values that would spoil the result, so that a kernel that reads past an end is noticed too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vicinal._kinds import (
    BIT_METRICS,
    DTYPES,
    METRICS,
    PACKED,
    QUANTIZATIONS,
    STORED_DTYPES,
    native_codes,
    quantization_code,
)
from vicinal._storage import CODES_ALONE

__all__ = ["Outcome", "check_kernels", "codes_alone", "graphs", "sizes"]

Vectors = NDArray[np.float64]

INTEGERS = ("int8", "uint8", PACKED)
SPACES = [
    *((metric, dtype) for metric in METRICS for dtype in DTYPES),
    *((metric, PACKED) for metric in BIT_METRICS),
]

# Part of the sum of absolute terms by which a float32 sum may differ from a float64 one: ten times
# the most that was seen up to 65,536 dimensions, and far below one lost element of 1,025.
FLOAT_TOLERANCE = 1e-5
LEAST_RECALL = 0.9  # of graphs of a few hundred rows at ef_search=100; right ones have 0.99
CRC32C_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected


class Outcome(NamedTuple):
    """What one kernel did.

    Attributes
    ----------
    kernel : str
        Name such as "distance l2 float16".
    cases : int
        Number of comparisons made.
    error : float
        Largest error as a part of what is allowed; above 1 is a mismatch. 0 where results must be
        equal and were.
    problem : str
        The first mismatch in words; empty if there was none.
    """

    kernel: str
    cases: int
    error: float
    problem: str


class _Tally:
    """Gathers the comparisons of one kernel."""

    def __init__(self, kernel: str) -> None:
        self.kernel = kernel
        self.cases = 0
        self.error = 0.0
        self.problem = ""

    def compare(self, case: str, got: float, wanted: float, allowed: float) -> None:
        """Note one result; with `allowed` 0 it has to be equal."""
        self.cases += 1
        difference = abs(got - wanted)
        if np.isnan(difference):
            error = np.inf
        elif difference <= allowed:
            error = difference / allowed if allowed else 0.0
        else:
            error = max(difference / allowed if allowed else np.inf, 1.0 + 1e-9)
        if error > 1 and not self.problem:
            self.problem = f"{case}: expected {wanted:.9g}, got {got:.9g}"
        self.error = max(self.error, float(error))

    def outcome(self) -> Outcome:
        """Return what was gathered."""
        return Outcome(self.kernel, self.cases, self.error, self.problem)


def graphs() -> list[tuple[str, str, str | None]]:
    """Return every metric, dtype and kind of codes that go together."""

    def exists(quantization: str | None, metric: str, dtype: str) -> bool:
        try:
            quantization_code(quantization, metric, dtype)
        except ValueError:
            return False
        return True

    return [
        (metric, dtype, quantization)
        for metric, dtype in SPACES
        for quantization in QUANTIZATIONS
        if quantization != "auto" and exists(quantization, metric, dtype)
    ]


def codes_alone() -> list[tuple[str, int]]:
    """Return every metric with each kind of codes that can be all that is stored."""
    return [(metric, number) for metric in METRICS for number in CODES_ALONE]


def sizes(lanes: int) -> list[int]:
    """Return dimensions around the loop of a kernel with `lanes` float32 values a step."""
    around = [part * lanes + extra for part in (1, 2, 4, 8) for extra in (-1, 0, 1)]
    return sorted({size for size in (1, 2, *around, 223, 1024, 1025, 65536) if size > 0})


def _encode(values: Vectors, dtype: str) -> NDArray[Any]:
    """Convert to the stored dtype; bfloat16 is the upper half of a float32, as uint16."""
    if dtype == "bfloat16":
        bits: NDArray[np.uint32] = values.astype(np.float32).view(np.uint32)
        halves: NDArray[np.uint16] = (bits >> np.uint32(16)).astype(np.uint16)
        return halves
    return values.astype(STORED_DTYPES[dtype])


def _decode(stored: NDArray[Any], dtype: str) -> Vectors:
    """Return the exact values that stored elements stand for."""
    if dtype == "bfloat16":
        bits: NDArray[np.uint32] = stored.astype(np.uint32) << np.uint32(16)
        wide: NDArray[np.float32] = bits.view(np.float32)
        return wide.astype(np.float64)
    return stored.astype(np.float64)


def _query_dtype(dtype: str) -> str:
    return dtype if dtype in INTEGERS else "float32"


def _guarded(values: Vectors, dtype: str) -> NDArray[Any]:
    """Store a vector one element past an aligned address, between values that spoil any sum."""
    spoiler = 113.0 if dtype in INTEGERS else np.nan
    outer = np.full(len(values) + 66, spoiler)
    outer[1 : len(values) + 1] = values
    return _encode(outer, dtype)[1 : len(values) + 1]


def _pairs(
    rng: np.random.Generator, dtype: str, size: int
) -> Iterator[tuple[str, Vectors, Vectors]]:
    """Yield named pairs of vectors: drawn at random, and the extremes of integer types."""
    if dtype in INTEGERS:
        low, high = np.iinfo(STORED_DTYPES[dtype]).min, np.iinfo(STORED_DTYPES[dtype]).max
        a, b = rng.integers(low, high + 1, (2, size)).astype(np.float64)
        a[0], b[0] = high, low or 1  # neither is a zero vector
        yield "random", a, b
        extremes = (low or 1, high)
        for first in extremes:
            for second in extremes:
                yield f"all {first} and {second}", np.full(size, first), np.full(size, second)
    else:
        a, b = rng.standard_normal((2, size))
        yield "random", a, b
        yield "same sign", np.abs(a), np.abs(b)
        yield "equal", b, b
        # From subnormal float16 values to large ones.
        yield "spread", a * 2.0 ** rng.uniform(-24, 8, size), b * 2.0 ** rng.uniform(-24, 8, size)


def _unit(values: Vectors) -> Vectors:
    """Scale vectors along the last axis to length 1."""
    lengths: Vectors = np.sqrt(np.sum(values * values, axis=-1, keepdims=True))
    return values / lengths


def _reference(
    metric: str, dtype: str, query: Vectors, rows: Vectors, *, normalise: bool = True
) -> tuple[Vectors, Vectors]:
    """Return the float64 distances of a query to rows, and the error allowed to float32 ones.

    Vectors of a float dtype are taken to have unit length for cosine if `normalise` is false.
    """
    if metric in BIT_METRICS:
        one, many = (np.unpackbits(each.astype(np.uint8), axis=-1) for each in (query, rows))
        different: Vectors = np.sum(one != many, axis=-1).astype(np.float64)
        if metric == "hamming":
            return different, np.zeros(len(rows))
        either = np.maximum(np.sum(one | many, axis=-1), 1)
        return different / either, np.full(len(rows), 1e-7)
    if metric == "cosine" and (normalise or dtype in INTEGERS):
        query, rows = _unit(query), _unit(rows)
    terms = {"l2": (query - rows) ** 2, "ip": query * rows, "cosine": query * rows}[metric]
    sums: Vectors = np.sum(terms, axis=-1)
    wanted = sums if metric == "l2" else 1.0 - sums
    if metric == "cosine":
        wanted = np.maximum(wanted, 0.0)
    elif dtype in INTEGERS:  # exact sums, rounded once
        return wanted.astype(np.float32).astype(np.float64), np.zeros(len(rows))
    return wanted, FLOAT_TOLERANCE * np.sum(np.abs(terms), axis=-1) + 1e-6


def _check_distance(native: Any, metric: str, dtype: str) -> Outcome:
    tally = _Tally(f"distance {metric} {dtype}")
    rng = np.random.default_rng(7)
    codes = native_codes(metric, dtype)
    for size in sizes(native.cpu_lanes()):
        for name, a, b in _pairs(rng, dtype, size):
            if metric == "cosine" and dtype not in INTEGERS:
                a, b = _unit(a), _unit(b)  # as an index stores them
            query, row = _guarded(a, _query_dtype(dtype)), _guarded(b, dtype)
            got = native.distance(*codes, query, row)
            exact_a, exact_b = _decode(query, _query_dtype(dtype)), _decode(row, dtype)
            wanted, allowed = _reference(metric, dtype, exact_a, exact_b[None], normalise=False)
            tally.compare(f"{size} dimensions, {name}", got, wanted[0], allowed[0])
    return tally.outcome()


def _values(rng: np.random.Generator, dtype: str, shape: tuple[int, int], whole: bool) -> Vectors:
    """Draw vectors, of whole numbers that 8 bits hold if `whole` or for an integer type."""
    if not whole and dtype not in INTEGERS:
        return rng.standard_normal(shape)
    low, high = (
        (0, 256)
        if whole
        else (np.iinfo(STORED_DTYPES[dtype]).min, np.iinfo(STORED_DTYPES[dtype]).max + 1)
    )
    values = rng.integers(low, high, shape).astype(np.float64)
    values[:, 0] = high - 1  # no zero vector
    return values


def _check_exact_search(native: Any, metric: str, dtype: str) -> Outcome:
    tally = _Tally(f"exact_search {metric} {dtype}")
    rng = np.random.default_rng(11)
    codes = native_codes(metric, dtype)
    for count, queries, size, k in ((1, 1, 1, 1), (67, 5, 33, 7), (301, 17, 223, 10)):
        values = _values(rng, dtype, (count + queries, size), whole=False)
        base = _encode(values[:count], dtype)
        asked = _encode(values[count:], _query_dtype(dtype))
        ids = np.full((queries, k), -2, np.int64)
        distances = np.full((queries, k), np.nan, np.float32)
        status = native.exact_search(*codes, base, asked, k, 1, 1 << 24, ids, distances)
        case = f"{count} rows, {size} dimensions"
        tally.compare(f"{case}, status", status, 0, 0)
        for q, query in enumerate(_decode(asked, _query_dtype(dtype))):
            truth, allowed = _reference(metric, dtype, query, _decode(base, dtype))
            for place, row in enumerate(np.argsort(truth, kind="stable")[:k]):
                found = int(ids[q, place])
                where = f"{case}, query {q}, place {place}"
                if not 0 <= found < count:
                    tally.compare(f"{where}, id", found, float(row), 0)
                    continue
                # Rows as near as the tolerance may change places; what is found is as near.
                tally.compare(where, float(distances[q, place]), truth[row], allowed[row])
                tally.compare(f"{where}, row {found}", truth[found], truth[row], 2 * allowed[row])
            different = len(set(ids[q, :count].tolist()))
            tally.compare(f"{case}, query {q}, different ids", different, min(k, count), 0)
    return tally.outcome()


def _check_graph(native: Any, metric: str, dtype: str, quantization: str | None) -> Outcome:
    tally = _Tally(f"graph {metric} {dtype}, codes {quantization or 'none'}")
    rng = np.random.default_rng(17)
    codes = native_codes(metric, dtype)
    kind = QUANTIZATIONS.index(quantization)
    # A row that is normalised before it is rounded differs from one that is rounded only.
    rounding = {"float16": 1e-3, "bfloat16": 8e-3}.get(dtype, 0.0) if metric == "cosine" else 0.0
    for count, size in ((300, 33), (500, 131)):
        # Integer codes of float rows exist for whole numbers only.
        whole = quantization == "u8" and dtype not in INTEGERS
        values = _values(rng, dtype, (count + 8, size), whole)
        base, asked = _encode(values[:count], dtype), _encode(values[count:], _query_dtype(dtype))
        index = native.index_new(*codes, size, 16, 100, 0, 0, kind)
        case = f"{count} rows, {size} dimensions"
        numbers = np.empty(count, np.int64)
        added = native.index_add(index, base, numbers, False, False, 1, None, False, None, numbers)
        tally.compare(f"{case}, add", added, 0, 0)
        tally.compare(f"{case}, check", native.index_check(index), 0, 0)
        ids = np.full((8, 10), -2, np.int64)
        distances = np.full((8, 10), np.nan, np.float32)
        status = native.index_search(index, asked, 10, 100, 1, ids, distances)
        tally.compare(f"{case}, search", status, 0, 0)
        hits = 0
        for q, query in enumerate(_decode(asked, _query_dtype(dtype))):
            truth, allowed = _reference(metric, dtype, query, _decode(base, dtype))
            bound = np.sort(truth)[9]
            for found, distance in zip(ids[q].tolist(), distances[q].tolist(), strict=True):
                if not 0 <= found < count:
                    tally.compare(f"{case}, query {q}, id", found, 0, 0)
                    continue
                slack = float(allowed[found]) + rounding
                tally.compare(f"{case}, query {q}, row {found}", distance, truth[found], slack)
                hits += truth[found] <= bound + 2 * slack
        tally.compare(f"{case}, recall", hits / ids.size, 1.0, 1.0 - LEAST_RECALL)
    return tally.outcome()


def _check_codes_alone(native: Any, metric: str, number: int) -> Outcome:
    """Look at what codes decode to, and at distances to that."""
    kind = CODES_ALONE[number]
    tally = _Tally(f"codes alone {metric} {kind}")
    rng = np.random.default_rng(19)
    steps = 255 if kind == "sq8" else 15
    for count, size in ((300, 33), (200, 131)):
        values = rng.standard_normal((count + 8, size))
        base = values[:count].astype(np.float32)
        asked = values[count:].astype(np.float32)
        index = native.index_new(METRICS.index(metric), number, size, 16, 100, 0, 1 << 20, 0)
        case = f"{count} rows, {size} dimensions"
        numbers = np.empty(count, np.int64)
        added = native.index_add(index, base, numbers, False, False, 1, None, False, None, numbers)
        tally.compare(f"{case}, add", added, 0, 0)
        rows = np.full((count, size), np.nan, np.float32)
        tally.compare(f"{case}, get", native.index_get(index, numbers, rows), -1, 0)
        decoded = rows.astype(np.float64)
        given = _unit(base.astype(np.float64)) if metric == "cosine" else base.astype(np.float64)
        # narrower ranges lose more at their ends, unit length moves all by a little
        step = np.ptp(given, axis=1) / steps * (1.6 if kind == "sq8" else 6)
        for row in range(count):
            worst = float(np.abs(decoded[row] - given[row]).max())
            tally.compare(f"{case}, row {row} decoded", worst, 0, float(step[row]) / 2)
        ids = np.full((8, 10), -2, np.int64)
        distances = np.full((8, 10), np.nan, np.float32)
        status = native.index_search(index, asked, 10, 100, 1, ids, distances)
        tally.compare(f"{case}, search", status, 0, 0)
        for q, query in enumerate(asked.astype(np.float64)):
            truth, allowed = _reference(metric, "float32", query, decoded)
            for place, row in enumerate(np.argsort(truth, kind="stable")[:10]):
                found = float(distances[q, place])
                tally.compare(f"{case}, query {q}, place {place}", found, truth[row], allowed[row])
    return tally.outcome()


def _crc32c_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (CRC32C_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


def _crc32c(table: list[int], data: bytes) -> int:
    """Compute CRC-32C byte by byte."""
    value = 0xFFFFFFFF
    for byte in data:
        value = (value >> 8) ^ table[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def _check_crc32c(native: Any) -> Outcome:
    tally = _Tally("crc32c")
    tally.compare("b'123456789'", native.crc32c(b"123456789", 0), 0xE3069283, 0)
    table = _crc32c_table()
    data = np.random.default_rng(13).integers(0, 256, 70_000, np.uint8).tobytes()
    for size in (0, 1, 7, 8, 9, 63, 64, 65, 223, 1007, 1008, 1009, 2099, 4096, 65535, 65536, 65537):
        for offset in (0, 1):
            part = memoryview(data)[offset : offset + size]
            wanted = _crc32c(table, bytes(part))
            case = f"{size} bytes from {offset}"
            tally.compare(case, native.crc32c(part, 0), wanted, 0)
            half = native.crc32c(part[: size // 2], 0)
            tally.compare(
                f"{case}, in two parts", native.crc32c(part[size // 2 :], half), wanted, 0
            )
    return tally.outcome()


def check_kernels(native: Any) -> list[Outcome]:
    """Compare every kernel of a native module with its reference.

    Parameters
    ----------
    native : module
        What `vicinal._cpu` loaded, or anything with the same functions.

    Returns
    -------
    list of Outcome
        One entry for each kernel: distances and exact search for every metric and dtype, graphs
        over every kind of codes that these can have, codes without vectors, and the checksum. A
        development build is asked only for what it has.
    """
    built = native.spaces()
    # a bit for each metric with each dtype; packed bits are there where all of these are
    plain = len(METRICS) * len(DTYPES)
    whole = built == (1 << plain) - 1
    spaces = [space for bit, space in enumerate(SPACES[:plain]) if built >> bit & 1]
    spaces += SPACES[plain:] if whole else []
    return [
        *(_check_distance(native, *space) for space in spaces),
        *(_check_exact_search(native, *space) for space in spaces),
        *(_check_graph(native, *graph) for graph in graphs() if graph[:2] in spaces),
        *(_check_codes_alone(native, *each) for each in codes_alone() if whole),
        _check_crc32c(native),
    ]
