"""keep_vectors=False: all distances are those of what the codes decode to."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from vicinal import _storage

Array = np.ndarray[Any, np.dtype[Any]]

METRICS = ("l2", "ip", "cosine")
KINDS = ("sq8", "sq4")

pytestmark = pytest.mark.full_build


def data(n: int, dim: int, seed: int = 0) -> Array:
    """Rows in heaps, of uneven lengths and off the origin."""
    middles = np.random.default_rng(9).standard_normal((12, dim)) * 2 + 1
    rng = np.random.default_rng(seed)
    rows = middles[rng.integers(0, 12, n)] + rng.standard_normal((n, dim))
    return (rows * rng.uniform(0.5, 2, (n, 1))).astype(np.float32)


def made(n: int, dim: int, metric: str, kind: str = "sq8", **options: Any) -> vicinal.Index:
    index = vicinal.Index(
        dim,
        metric,
        M=8,
        ef_construction=80,
        quantization=kind,
        keep_vectors=False,
        **options,
    )
    index.add(data(n, dim))
    return index


def far(rows: Array, queries: Array, metric: str) -> Array:
    """The slow way: (m, n) distances in float64."""
    x, q = rows.astype(np.float64), queries.astype(np.float64)
    if metric == "l2":
        return np.array([((x - each) ** 2).sum(axis=1) for each in q])
    if metric == "cosine":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
    return np.array([1 - x @ each for each in q])


def nearest(every: Array, k: int) -> Array:
    return np.argsort(every, axis=1, kind="stable")[:, :k]


def assert_nearest(found: Any, every: Array, k: int) -> None:
    """The k nearest, up to rounding: distances of their places, and each row at its own."""
    wanted = np.sort(every, axis=1)[:, :k]
    scale = np.abs(every).max()
    np.testing.assert_allclose(found.distances, wanted, rtol=2e-5, atol=2e-6 * scale)
    own = np.take_along_axis(every, found.ids, axis=1)
    np.testing.assert_allclose(found.distances, own, rtol=2e-5, atol=2e-6 * scale)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [1, 5, 16, 31, 32, 33, 100, 128])
def test_brute_force_over_what_is_decoded(dim: int, metric: str, kind: str) -> None:
    index = made(300, dim, metric, kind)
    queries = data(11, dim, seed=1)
    every = far(index.get(index.ids), queries, metric)
    assert_nearest(index.search(queries, 7), every, 7)
    assert_nearest(index.search(queries, 7, exact=True), every, 7)
    one = index.search(queries[0], 7)
    many = index.search(queries, 7)
    np.testing.assert_array_equal(one.ids, many.ids[0])
    np.testing.assert_array_equal(one.distances, many.distances[0])
    mask = np.random.default_rng(2).random(300) < 0.3
    some = np.where(mask, every, np.inf)
    found = index.search(queries, 7, filter=mask)
    np.testing.assert_allclose(
        found.distances, np.sort(some, axis=1)[:, :7], rtol=2e-5, atol=2e-6 * np.abs(every).max()
    )
    radius = float(np.quantile(every, 0.1))
    for i, row in enumerate(every):
        inside = set(index.range_search(queries, radius).of(i).ids.tolist())
        slack = 2e-5 * max(abs(radius), np.abs(row).max())
        assert set(np.flatnonzero(row <= radius - slack)) <= inside
        assert inside <= set(np.flatnonzero(row <= radius + slack))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_decoded_is_near(metric: str, kind: str) -> None:
    """Each value within half a step of the row's range; of unit length for cosine."""
    rows = data(200, 77)
    index = made(200, 77, metric, kind)
    decoded = index.get(range(200))
    assert decoded.dtype == np.float32
    if metric == "cosine":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), 1, rtol=1e-6)
    spread = rows.max(axis=1) - rows.min(axis=1)
    off = np.abs(decoded - rows)
    if kind == "sq8":
        room = spread / 255 / 2 * (1.02 if metric != "cosine" else 1.5)
        assert (off.max(axis=1) <= room).all()
    else:  # ranges narrower than the row's are tried: the mean error is no larger than without
        plain = spread[:, None] / 15
        low = rows.min(axis=1, keepdims=True)
        whole = low + plain * np.rint((rows - low) / plain)
        assert ((decoded - rows) ** 2).sum() <= ((whole - rows) ** 2).sum()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_whole_numbers_are_kept(metric: str, kind: str) -> None:
    rng = np.random.default_rng(0)
    top = 256 if kind == "sq8" else 16
    rows = (rng.integers(0, top, (50, 40)) - rng.integers(0, 3000, (50, 1))).astype(np.float32)
    rows[3] = 7  # all the same
    rows[4] = 0
    index = vicinal.Index(40, metric, keep_vectors=False, quantization=kind)
    index.add(rows)
    np.testing.assert_array_equal(index.get(range(50)), rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_what_is_decoded_is_coded_as_it_was(metric: str, kind: str) -> None:
    index = made(150, 50, metric, kind)
    once = index.get(range(150))
    again = vicinal.Index(50, metric, keep_vectors=False, quantization=kind)
    again.add(once)
    np.testing.assert_allclose(again.get(range(150)), once, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_finds_them(metric: str, kind: str, tmp_path: Path) -> None:
    index = made(3000, 48, metric, kind)
    queries = data(60, 48, seed=1)
    index.check()
    exact = index.search(queries, 10, exact=True)
    found = index.search(queries, 10, ef_search=128)
    assert index.stats()["search"] == "graph"
    hits = [len(set(a) & set(b)) for a, b in zip(found.ids, exact.ids, strict=True)]
    assert np.mean(hits) >= 9.7
    assert_nearest(exact, far(index.get(index.ids), queries, metric), 10)
    path = tmp_path / "a.vicinal"
    index.save(path)
    for other in (
        vicinal.open(path),
        vicinal.open(path, mode="copy", verify=True),
        pickle.loads(pickle.dumps(index)),
        copy.copy(index),
    ):
        again = other.search(queries, 10, ef_search=128)
        np.testing.assert_array_equal(again.ids, found.ids)
        np.testing.assert_array_equal(again.distances, found.distances)
        assert other.stats()["keep_vectors"] is False
        assert other.stats()["quantization"] == kind
        other.check()
    vicinal.open(path).verify()
    assert index.tune(recall=0.9, k=5).recall >= 0.9
    same = made(3000, 48, metric, kind)
    assert pickle.dumps(same.copy()) == pickle.dumps(made(3000, 48, metric, kind).copy())


@pytest.mark.parametrize("kind", KINDS)
def test_changes(kind: str) -> None:
    index = made(1500, 24, "cosine", kind)
    index.remove(range(0, 1500, 3))
    index.update(data(200, 24, seed=3), ids=[i for i in range(1500) if i % 3][:200])
    index.add(data(600, 24, seed=4))
    queries = data(20, 24, seed=5)

    def right(index: vicinal.Index) -> None:
        index.check()
        every = far(index.get(index.ids), queries, "cosine")
        found = index.search(queries, 5, exact=True)
        assert_nearest(found._replace(ids=rows_of(index, found.ids)), every, 5)
        walked = index.search(queries, 5, ef_search=200)
        assert np.mean(walked.ids == found.ids) > 0.95

    right(index)
    index.compact()
    right(index)
    other = vicinal.Index(24, "cosine", keep_vectors=False, quantization=kind)
    other.add(data(400, 24, seed=6), ids=range(10_000, 10_400))
    before = other.get([10_007])
    index.merge(other)
    right(index)
    np.testing.assert_allclose(index.get([10_007]), before, rtol=1e-5, atol=1e-6)
    merged = vicinal.merge(other, made(50, 24, "cosine", kind))
    assert merged.stats()["keep_vectors"] is False


def rows_of(index: vicinal.Index, ids: Array) -> Array:
    place = {id_: row for row, id_ in enumerate(index.ids.tolist())}
    return np.vectorize(place.__getitem__)(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_memory_falls(kind: str) -> None:
    dim, n = 384, 4000
    index = made(n, dim, "l2", kind)
    told = index.memory_usage()
    assert told["codes"] == 0
    assert told["vectors"] <= n * _storage.row_bytes(kind, dim) * 1.26 + 4096
    assert _storage.row_bytes(kind, dim) == (392 if kind == "sq8" else 200)
    whole = vicinal.Index(dim, "l2")
    whole.add(data(n, dim))
    share = 3 if kind == "sq8" else 4
    assert told["total"] * share < whole.memory_usage()["total"] * 1.1


def test_the_same_bytes_for_any_number_of_threads() -> None:
    def built(threads: int) -> bytes:
        index = vicinal.Index(40, "l2", keep_vectors=False, quantization="sq4")
        index.add(data(1300, 40), num_threads=threads)
        return pickle.dumps(index)

    assert built(1) == built(3)


def test_equal_rows_and_verbs() -> None:
    rows = data(1200, 20)
    rows[700:705] = rows[3]
    index = vicinal.Index(20, "l2", keep_vectors=False)
    index.add(rows)
    groups = index.duplicates(1e-6)
    assert any(set(group) >= {3, 700, 701, 702, 703, 704} for group in groups)
    like = index.search(like=[5], k=4)
    assert 5 not in like.ids
    assert len(vicinal.mmr(index, rows[:2], k=5).ids) == 2
    why = index.why_not(rows[0], 0)
    assert why.fate == "found"
    assert index.trace(rows[0], k=3) is not None
    found = index.search(rows[:3], 2, exclude=[0, 1])
    assert not np.isin(found.ids, [0, 1]).any()


def test_what_is_told() -> None:
    index = made(30, 8, "cosine")
    assert "keep_vectors=False" in repr(index)
    assert "distances estimated" in repr(index)
    told = index.stats()
    assert told["keep_vectors"] is False
    assert told["distances"] == "estimated"
    assert told["quantization"] == "sq8"
    assert (index.dtype, index.dim) == ("float32", 8)
    assert vicinal.metrics(index)["keep_vectors"] == 0
    usual = vicinal.Index(8)
    assert usual.stats()["distances"] == "of the vectors"
    assert "keep_vectors" not in repr(usual)
    assert "quantization='sq4'" in repr(made(3, 8, "l2", "sq4"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": "int8"}, "as small as codes"),
        ({"dtype": "float16"}, "float32 with keep_vectors=False".replace("float32", "'float32'")),
        ({"quantization": None}, '"auto", "sq8" or "sq4" with keep_vectors=False, got None'),
        ({"quantization": "rabitq4"}, "got 'rabitq4'"),
        ({"quantization": "u8"}, "got 'u8'"),
        ({"walk_dim": 4}, "nothing is left to measure again"),
        ({"metric": "hamming", "dtype": "b1"}, "as small as codes"),
    ],
)
def test_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        vicinal.Index(16, **options, keep_vectors=False)
    assert said in str(caught.value)


def test_other_refusals() -> None:
    with pytest.raises(ValueError, match="goes with keep_vectors=False"):
        vicinal.Index(16, quantization="sq4")
    with pytest.raises(TypeError, match="keep_vectors: expected True or False"):
        vicinal.Index(16, keep_vectors=1)
    index = made(20, 16, "l2")
    with pytest.raises(ValueError, match="only codes are stored"):
        vicinal.Index(16, keep_vectors=False).add(data(5, 16), copy=False)
    other = vicinal.Index(16)
    with pytest.raises(ValueError, match="keep_vectors"):
        index.merge(other)
    for bad in (np.full(16, np.nan), np.full(16, 1e30)):
        with pytest.raises(ValueError, match="vectors: row 0"):
            index.add([bad])
    with pytest.raises(ValueError, match="zero"):
        made(2, 4, "cosine").add(np.zeros((1, 4)))
    assert len(index) == 20
