"""Values whose squares fall out of float32: the right order, or a refusal that names the row."""

from __future__ import annotations

import numpy as np
import pytest

import vicinal

DIM = 64
RNG = np.random.default_rng(7)
BASE = RNG.standard_normal((1500, DIM)).astype(np.float32)
QUERIES = RNG.standard_normal((20, DIM)).astype(np.float32)
POWERS = (58, 40, 0, -40, -55, -60, -62, -64, -68, -72, -80, -100, -125, -140)


def scaled(rows: np.ndarray, power: int) -> np.ndarray:
    return np.ldexp(rows, power).astype(np.float32)


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("kind", [None, "auto"])
@pytest.mark.parametrize("metric", ["l2", pytest.param("ip", marks=pytest.mark.full_build)])
def test_scaling_changes_no_order(metric: str, power: int, kind: str | None) -> None:
    wanted = vicinal.exact_search(BASE, QUERIES, 10, metric)
    index = vicinal.Index(DIM, metric, quantization=kind)
    rows, queries = scaled(BASE, power), scaled(QUERIES, power)
    if power < -63:
        with pytest.raises(ValueError, match=r"vectors: row 0 is too small: .* power of two"):
            index.add(rows)
        assert len(index) == 0
        with pytest.raises(ValueError, match="base: row 0 is too small"):
            vicinal.exact_search(rows, BASE, 10, metric)
        index.add(BASE)
        for ask in (index.search, index.trace, lambda q: index.range_search(q, 1.0)):
            with pytest.raises(ValueError, match="row 0 is too small"):
                ask(queries[0])
        return
    np.testing.assert_array_equal(vicinal.exact_search(rows, queries, 10, metric).ids, wanted.ids)
    index.add(rows)
    found = index.search(queries, 10, ef_search=400)
    assert (found.ids == wanted.ids).mean() > 0.98
    one = index.search(queries[0], 5, ef_search=1500)
    if metric == "l2":
        within = index.range_search(queries[0], float(one.distances[-1]), ef_search=1500)
        np.testing.assert_array_equal(within.ids, one.ids)
    np.testing.assert_array_equal(
        index.search(queries[0], 5, ef_search=1500, filter=np.arange(1500) % 2 == 0).ids,
        vicinal.exact_search(rows[::2], queries[0], 5, metric).ids * 2,
    )


def test_the_row_is_named() -> None:
    rows = BASE[:100].copy()
    rows[42] = 1e-25
    index = vicinal.Index(DIM)
    with pytest.raises(ValueError, match="vectors: row 42 is too small"):
        index.add(rows)
    rows[42] = 0  # a zero vector is one
    index.add(rows)
    assert index.search(np.zeros(DIM), 1).ids[0] == 42
    with pytest.raises(ValueError, match="row 0 is too small"):
        index.search(rows[0] * np.float32(1e-30), 1)


@pytest.mark.parametrize("power", [-60, -100, -126, -135])
@pytest.mark.parametrize("count", [500, 1500])
def test_cosine_of_any_length(power: int, count: int) -> None:
    """Numbers below 2**-126 have fewer digits: directions are those of the numbers as they are."""
    rows, queries = scaled(BASE[:count], power), scaled(QUERIES, power)
    as_they_are = np.ldexp(rows.astype(np.float64), -power).astype(np.float32)
    asked = np.ldexp(queries.astype(np.float64), -power).astype(np.float32)
    wanted = vicinal.exact_search(as_they_are, asked, 10, "cosine")
    raw = vicinal.exact_search(rows, queries, 10, "cosine")
    few = vicinal.exact_search(rows, queries[:2], 10, "cosine")
    np.testing.assert_allclose(raw.distances, wanted.distances, atol=1e-6)
    np.testing.assert_allclose(few.distances, wanted.distances[:2], atol=1e-6)
    for kind in (None, "auto"):
        index = vicinal.Index(DIM, "cosine", quantization=kind)
        index.add(rows)
        found = index.search(queries, 10, ef_search=400)
        assert (np.abs(found.distances - wanted.distances) < 1e-6).mean() > 0.98
        np.testing.assert_allclose(
            np.linalg.norm(index.get(np.arange(count)), axis=1), 1, atol=1e-5
        )


def test_a_row_of_length_1e_39_has_a_direction() -> None:
    index = vicinal.Index(3, "cosine")
    index.add(np.array([[1e-39, 0, 0], [0, 1e-45, 0], [0, 0, 1e15]], np.float32))
    found = index.search(np.array([[0, 3e-42, 0], [1e-40, 1e-41, 0]], np.float32), 1)
    np.testing.assert_array_equal(found.ids[:, 0], [1, 0])
    assert found.distances[0, 0] == 0
    with pytest.raises(ValueError, match="row 0 is a zero vector"):
        index.add(np.zeros(3))


@pytest.mark.full_build
def test_halves_that_round_to_zero_say_so() -> None:
    index = vicinal.Index(2, "cosine", dtype="float16")
    with pytest.raises(ValueError, match="becomes a zero vector as float16"):
        index.add(np.array([[1, 1], [1e-10, 1e-10]], np.float32))
    narrow = vicinal.Index(2, "cosine", dtype="bfloat16")
    narrow.add(np.array([[1e-39, 1e-39], [1e-30, -1e-30]], np.float32))
    assert narrow.search(np.array([1.0, 0.9]), 1).ids[0] == 0
