"""`Index(..., scale=)`: floats stored in 8 bits, against float64 distances of what is stored."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reference
import vicinal
from vicinal._cpu import native

Array = np.ndarray[Any, np.dtype[Any]]
DIM = 48

pytestmark = pytest.mark.full_build


def embeddings(n: int, seed: int, dtype: str) -> Array:
    middles = np.random.default_rng(0).standard_normal((40, DIM))
    rng = np.random.default_rng(seed)
    rows = middles[rng.integers(0, 40, n)] + 0.6 * rng.standard_normal((n, DIM))
    rows = np.abs(rows) if dtype == "uint8" else rows
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def made(metric: str, dtype: str, scale: Any, n: int = 1500) -> tuple[Any, Array, Array]:
    """An index of floats, the floats, and what its rows stand for."""
    rows = embeddings(n, 1, dtype)
    index = vicinal.Index(DIM, metric, dtype=dtype, scale=scale)
    index.add(rows)
    stored = index.get(index.ids).astype(np.float64)
    return index, rows, stored * (scale if isinstance(scale, float) else 1.0)


CASES = [
    (metric, dtype, scale)
    for dtype, largest in (("int8", 127), ("uint8", 255))
    for metric, scale in (
        ("l2", 0.75 / largest),
        ("ip", 0.75 / largest),
        ("cosine", 0.75 / largest),
        ("cosine", "auto"),
    )
]


@pytest.mark.parametrize(("metric", "dtype", "scale"), CASES)
@pytest.mark.parametrize("n", [500, 2500])
def test_against_brute_force(metric: str, dtype: str, scale: Any, n: int) -> None:
    index, rows, worth = made(metric, dtype, scale, n)
    if scale == "auto":
        assert (np.abs(index.get(index.ids).astype(int)).max(axis=1) == np.iinfo(dtype).max).all()
    else:
        assert np.abs(worth - rows).max() <= scale / 2 + 1e-12
    queries = embeddings(30, 2, dtype).astype(np.float32)
    every = reference.distances(worth, queries, metric)
    near = np.sort(every, axis=1)
    for found in (index.search(queries, 10), index.search(queries, 10, exact=True)):
        told = np.take_along_axis(every, found.ids, axis=1)
        np.testing.assert_allclose(found.distances, told, rtol=1e-5, atol=1e-6)
        assert (found.distances <= near[:, 9:10] + 1e-6).mean() > 0.97
    np.testing.assert_array_equal(index.search(queries[3], 5).ids, index.search(queries, 5).ids[3])
    radius = float(np.quantile(every, 0.01))
    within = index.range_search(queries, radius)
    assert within.offsets[-1] == len(within.ids) > 0
    exact = index.range_search(queries, radius, ef_search=2**31 - 1)
    for i in range(len(queries)):
        right = set(np.flatnonzero(every[i] <= radius - 1e-6).tolist())
        perhaps = set(np.flatnonzero(every[i] <= radius + 1e-6).tolist())
        assert right <= set(exact.of(i).ids.tolist()) <= perhaps
        some = within.of(i)
        np.testing.assert_allclose(some.distances, every[i][some.ids], rtol=1e-5, atol=1e-6)
        assert set(some.ids.tolist()) <= perhaps and (np.diff(some.distances) >= 0).all()
    mask = np.arange(n) % 3 == 0
    one = index.range_search(queries[:2], radius, filter=[mask, ~mask], ef_search=2**31 - 1)
    assert (one.of(0).ids % 3 == 0).all() and (one.of(1).ids % 3 != 0).all()


@pytest.mark.parametrize(("metric", "dtype", "scale"), CASES)
def test_verbs_speak_in_the_same_units(metric: str, dtype: str, scale: Any) -> None:
    index, _, worth = made(metric, dtype, scale)
    among = reference.distances(worth, worth, metric)
    np.fill_diagonal(among, np.inf)
    radius = float(np.quantile(among, 0.002))
    a, b, far = index.pairs(radius, exact=True).arrays()
    np.testing.assert_allclose(far, among[a, b], rtol=1e-5, atol=1e-6)
    assert abs(len(a) - (among <= radius).sum() / 2) <= 2
    queries = embeddings(4, 3, dtype)
    every = reference.distances(worth, queries, metric)
    picked = vicinal.mmr(index, queries, k=5, diversity=0.3)
    told = np.take_along_axis(every, picked.ids, axis=1)
    np.testing.assert_allclose(picked.distances, told, rtol=1e-5, atol=1e-6)
    owners = np.arange(len(index)) // 5
    best = index.search_multi(queries, owners, k=4, exact=True)
    alike = -every if metric == "l2" else 1 - every
    sums = np.array([alike[:, owners == o].max(axis=1).sum() for o in best.owners])
    np.testing.assert_allclose(best.scores, sums, rtol=1e-4, atol=1e-5)
    like = index.search(like=[3, 8], k=3, exact=True)
    parts = worth[[3, 8]]
    if scale == "auto":
        parts = parts / np.linalg.norm(parts, axis=1, keepdims=True)
    mean = reference.distances(worth, parts.mean(axis=0)[None], metric)[0]
    np.testing.assert_allclose(like.distances, mean[like.ids], rtol=1e-5, atol=1e-6)
    traced = index.trace(queries[0], 5)
    asked = traced.query[None] * (scale if isinstance(scale, float) else 1.0)
    if metric == "l2":  # for the others the rounded query has another length
        np.testing.assert_allclose(
            traced.result.distances,
            reference.distances(worth, asked, metric)[0][traced.result.ids],
            rtol=1e-5,
        )
    assert index.why_not(queries[0], 7, 5).distance == pytest.approx(
        reference.distances(worth[7:8], asked, metric)[0, 0], rel=1e-4, abs=1e-4
    )
    assert index.measure_recall(queries).recall > 0.8
    assert index.tune(recall=0.9, queries=queries).recall == 0.9


@pytest.mark.parametrize(("metric", "dtype", "scale"), CASES)
def test_files_copies_and_changes_keep_it(
    tmp_path: Path, metric: str, dtype: str, scale: Any
) -> None:
    index, rows, _ = made(metric, dtype, scale, 1200)
    index.attributes = {"model": "m", "scale": 7}
    queries = embeddings(5, 4, dtype)
    wanted = index.search(queries, 3)
    index.save(tmp_path / "a")
    others = [
        vicinal.open(tmp_path / "a"),
        vicinal.open(tmp_path / "a", mode="copy"),
        vicinal.Index.from_bytes(index.to_bytes()),
        index.copy(),
        pickle.loads(pickle.dumps(index)),
    ]
    for other in others:
        assert other.scale == scale and other.stats()["scale"] == scale
        assert f"scale={scale!r}" in repr(other)
        assert dict(other.attributes) == {"model": "m", "scale": 7}
        for pair in zip(other.search(queries, 3), wanted, strict=True):
            np.testing.assert_array_equal(*pair)
    index.attributes = {}
    assert index.copy().scale == scale
    changed = others[1]
    changed.update(rows[:3], ids=[5, 6, 7])
    np.testing.assert_array_equal(changed.get([5, 6, 7]), changed.get([0, 1, 2]))
    changed.remove([0, 1])
    changed.compact()
    assert changed.scale == scale
    with changed.bulk() as bulk:
        bulk.add(rows[:2])
        bulk.add(rows[2])
    np.testing.assert_array_equal(changed.get(bulk.ids), index.get([0, 1, 2]))
    more = changed.add(iter([rows[:4], rows[4:6]]))
    np.testing.assert_array_equal(changed.get(more), index.get(np.arange(6)))
    second = vicinal.Index(DIM, metric, dtype=dtype, scale=scale)
    second.add(rows[:5], ids=np.arange(90_000, 90_005))
    changed.merge(second)
    np.testing.assert_array_equal(changed.get([90_000]), index.get([0]))
    plain = vicinal.Index(DIM, metric, dtype=dtype)
    with pytest.raises(ValueError, match=r"other: expected scale="):
        changed.merge(plain)


def test_living_files_and_those_who_follow(tmp_path: Path) -> None:
    index, rows, _ = made("l2", "int8", 0.01, 1100)
    index.save(tmp_path / "a")
    queries = embeddings(4, 5, "int8")
    with vicinal.open(tmp_path / "a", mode="rw") as living:
        follower = vicinal.open(tmp_path / "a", follow=True)
        new = living.add(queries)
        living.attributes = {"a": 1}
        living.flush()
        wanted = living.search(queries, 3)
        assert wanted.ids[:, 0].tolist() == new.tolist()
        follower.refresh()
        found = follower.search(queries, 3)
        np.testing.assert_array_equal(found.ids, wanted.ids)
        np.testing.assert_allclose(found.distances, wanted.distances, rtol=1e-6)
        assert (wanted.distances[:, 0] < DIM * 0.005**2 + 1e-9).all()
    again = vicinal.open(tmp_path / "a", mode="rw")
    assert again.scale == 0.01
    np.testing.assert_array_equal(again.search(queries, 3).ids, wanted.ids)
    again.close()
    assert len(rows) == 1100


def test_integers_are_what_is_stored() -> None:
    index = vicinal.Index(2, "l2", dtype="int8", scale=0.5)
    index.add(np.array([[1, 2], [3, 4]], np.int8))
    index.add([[0.5, 1.0]])
    np.testing.assert_array_equal(index.get([0, 2]), [[1, 2], [1, 2]])
    assert index.search(np.array([1, 2], np.int8), 3).distances.tolist() == [0, 0, 2]
    assert index.search([1, 2], 3).distances.tolist() == [0, 0, 2]
    assert index.search([0.5, 1.0], 3).distances.tolist() == [0, 0, 2]
    assert index.search([0.5, 1.0], 3).euclidean[2] == np.sqrt(np.float32(2))
    assert index.search(np.array([[0.6, 1.0]]), 1).distances[0, 0] == pytest.approx(0.01)
    product = vicinal.Index(2, "ip", dtype="int8", scale=0.5)
    product.add([[1.0, -2.0]])
    assert product.search([1.0, 1.0], 2).distances.tolist() == [2.0, np.inf]
    assert product.search([1.0, 1.0], 1).similarities.tolist() == [-1.0]


def test_kept_queries_are_those_of_all_searches() -> None:
    index, _, _ = made("l2", "int8", 0.01)
    index.keep_queries(200)
    queries = embeddings(200, 6, "int8")
    index.search(queries, 3)
    index.search(queries[:5], 3, exact=True)
    assert index.tune(recall=0.9).queries == "kept"


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"scale": 0.1}, ValueError, "scale: expected None with dtype 'float32'"),
        ({"scale": 0.1, "dtype": "b1", "metric": "hamming"}, ValueError, "scale: expected None"),
        ({"scale": 0, "dtype": "int8"}, ValueError, "scale: expected a number from"),
        ({"scale": -1.0, "dtype": "int8"}, ValueError, "scale: expected a number from"),
        ({"scale": np.nan, "dtype": "int8"}, ValueError, "scale"),
        ({"scale": np.inf, "dtype": "int8"}, ValueError, "scale"),
        ({"scale": True, "dtype": "int8"}, TypeError, "scale"),
        ({"scale": [0.1], "dtype": "int8"}, TypeError, "scale"),
        ({"scale": "row", "dtype": "int8"}, ValueError, "scale: expected a number, 'auto'"),
        ({"scale": "auto", "dtype": "int8"}, ValueError, "'cosine'; such as .* divided by 127"),
    ],
)
def test_what_is_refused(options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        vicinal.Index(8, **{"metric": "l2", **options})


def test_values_out_of_range_are_named_and_nothing_changes() -> None:
    index = vicinal.Index(2, "l2", dtype="uint8", scale=0.01)
    index.add([[0.0, 2.55]])
    for rows, said in (
        ([[0.1, 0.2], [0.1, 2.56]], r"row 1 holds 2\.56, expected 0 to 2\.55, which uint8 holds"),
        ([[0.1, -0.2]], r"row 0 holds -0\.2, expected 0 to 2\.55"),
        ([[0.1, np.nan]], "row 0 holds NaN or infinity"),
        ([[0.1, np.inf]], "row 0 holds NaN or infinity"),
        ([[0.1, 0.2, 0.3]], "vectors: expected"),
    ):
        with pytest.raises(ValueError, match=said):
            index.add(rows)
        assert len(index) == 1
    with pytest.raises(ValueError, match="row 0 holds -0"):
        vicinal.Index(2, "cosine", dtype="uint8", scale="auto").add([[0.5, -0.1]])
    with pytest.raises(ValueError, match="becomes a zero vector"):
        vicinal.Index(2, "cosine", dtype="int8", scale=1.0).add([[0.4, 0.1]])
    with pytest.raises(ValueError, match="zero vector"):
        vicinal.Index(2, "cosine", dtype="int8", scale="auto").add([[0.0, 0.0]])
    with pytest.raises(ValueError, match=r"expected whole numbers.*scale="):
        vicinal.Index(2, "l2", dtype="int8").add([[0.4, 0.1]])
    far = index.search([1000.0, -5.0], 1)  # queries may lie anywhere
    assert far.distances[0] == pytest.approx(1000.0**2 + 7.55**2)


@pytest.mark.parametrize("scale", [7, [1], "other", 1e99, -0.5, {"a": 1}])
def test_a_damaged_scale_is_told(scale: Any) -> None:
    index = vicinal.Index(2, "l2", dtype="int8", scale=0.5)
    index.add([[1.0, 2.0]])
    data = index.to_bytes()
    text = json.dumps({"scale": scale}, separators=(",", ":")).encode()
    plain = vicinal.Index(2, "l2", dtype="int8")
    plain.add([[2, 4]])
    native.index_set_attributes(plain._handle, np.frombuffer(text, np.uint8))
    with pytest.raises(vicinal.CorruptError, match="scale is damaged"):
        plain._adopt(plain._handle)
    assert vicinal.Index.from_bytes(data).scale == 0.5
