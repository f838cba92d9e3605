"""Several files searched as one: the answers are the merged answers of all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal

RNG = np.random.default_rng(5)
ROWS = RNG.normal(size=(4000, 12)).astype(np.float32)
ROWS[3000:3020] = ROWS[:20]  # equal distances in different shards
QUERIES = np.concatenate([ROWS[:20], RNG.normal(size=(40, 12)).astype(np.float32)])


def files(folder: Path, ids: Any, count: int = 8) -> list[Path]:
    """Write shards of rows that are dealt out in turns."""
    paths = []
    for i in range(count):
        index = vicinal.build(ROWS[i::count], ids=ids[i::count])
        paths.append(folder / f"{i}.vicinal")
        index.save(paths[-1])
    return paths


@pytest.fixture(params=["int64", "str"])
def shards(request: pytest.FixtureRequest, tmp_path: Path) -> vicinal.Shards:
    names = np.arange(4000)[::-1] * 3
    ids = names if request.param == "int64" else [f"n{name}" for name in names]
    return vicinal.open_shards(files(tmp_path, ids))


def merged(shards: vicinal.Shards, k: int, **given: Any) -> list[list[Any]]:
    """Return what a plain merge of the answers of all shards is, as (distance, id)."""
    all_found = [shard.search(QUERIES, k, **given) for shard in shards.shards]
    wanted = []
    for i in range(len(QUERIES)):
        pairs = [
            pair
            for found in all_found
            for pair in zip(found.distances[i].tolist(), found.ids[i].tolist(), strict=True)
            if np.isfinite(pair[0])
        ]
        wanted.append(sorted(pairs)[:k])
    return wanted


def pairs_of(found: vicinal.SearchResult, i: int) -> list[Any]:
    pairs = zip(found.distances[i].tolist(), found.ids[i].tolist(), strict=True)
    return [pair for pair in pairs if np.isfinite(pair[0])]


@pytest.mark.parametrize("k", [1, 10, 700])
@pytest.mark.parametrize("threads", [1, 3, 16])
def test_search_is_the_merge_of_all(shards: vicinal.Shards, k: int, threads: int) -> None:
    found = shards.search(QUERIES, k, ef_search=40, num_threads=threads)
    assert found.ids.shape == (60, k)
    for i, wanted in enumerate(merged(shards, k, ef_search=40)):
        assert pairs_of(found, i) == wanted
    one = shards.search(QUERIES[5], k, ef_search=40)
    assert one.ids.tolist() == found.ids[5].tolist()


def test_wide_searches_are_exact(shards: vicinal.Shards) -> None:
    _, distances = vicinal.exact_search(ROWS, QUERIES, 10)
    for found in (
        shards.search(QUERIES, 10, ef_search=4000),
        shards.search(QUERIES, 10, exact=True),
    ):
        assert np.allclose(found.distances, distances)


def test_more_than_there_are(shards: vicinal.Shards) -> None:
    some = shards.ids[[3, 700, 3999]]
    found = shards.search(QUERIES[:2], 5, filter=some)
    assert np.isinf(found.distances[:, 3:]).all()
    assert set(found.ids[0, 3:].tolist()) == ({None} if some.dtype.kind == "O" else {-1})
    assert set(found.ids[0, :3]) == set(some)


def test_filters(shards: vicinal.Shards) -> None:
    mask = RNG.random(4000) < 0.1
    allowed = shards.ids[mask]
    by_mask = shards.search(QUERIES, 10, filter=mask)
    by_ids = shards.search(QUERIES, 10, filter=allowed)
    assert (by_mask.ids == by_ids.ids).all() and set(by_mask.ids.ravel()) <= set(allowed)
    each = shards.search(QUERIES[:3], 10, filter=[mask, None, allowed])
    assert (each.ids[0] == by_mask.ids[0]).all() and (each.ids[2] == by_ids.ids[2]).all()
    assert (each.ids[1] == shards.search(QUERIES[1], 10).ids).all()
    others = shards.search(QUERIES, 10, exclude=~mask)
    assert (others.ids == by_mask.ids).mean() > 0.99
    few = shards.search(QUERIES[:2], 10, exclude=others.ids[0])
    assert not set(few.ids.ravel()) & set(others.ids[0])
    with pytest.raises(ValueError, match="booleans of shape"):
        shards.search(QUERIES, 10, filter=mask[:-1])


def test_range_search(shards: vicinal.Shards) -> None:
    found = shards.range_search(QUERIES, 6.0, ef_search=4000)
    for i in (0, 7, 59):
        parts = [shard.range_search(QUERIES[i], 6.0, ef_search=4000) for shard in shards.shards]
        wanted = sorted(
            pair
            for part in parts
            for pair in zip(part.distances.tolist(), part.ids.tolist(), strict=True)
        )
        of = found.of(i)
        assert list(zip(of.distances.tolist(), of.ids.tolist(), strict=True)) == wanted


def test_rows(shards: vicinal.Shards) -> None:
    assert len(shards) == 4000 and len(shards.ids) == 4000
    assert (shards.dim, shards.metric, shards.dtype) == (12, "l2", "float32")
    id = shards.search(ROWS[123], 1).ids[0]
    assert id in shards and (shards.get(id) == ROWS[123]).all()
    assert shards.get(shards.ids[[5, 5, 2000]]).shape == (3, 12)
    assert sum(len(ids) for ids, _ in shards.vectors(300)) == 4000
    with pytest.raises(KeyError, match="is in no shard"):
        shards.get(["none"] if shards.ids.dtype.kind == "O" else [7_000_000])


def test_recall_is_asked_of_every_shard(shards: vicinal.Shards) -> None:
    with pytest.raises(ValueError, match="recall"):
        shards.search(QUERIES, 10, recall=0.9)
    for shard in shards.shards:
        shard.tune(0.9, 10, ROWS[:200], sample=100)
    assert shards.search(QUERIES, 10, recall=0.9).ids.shape == (60, 10)


def test_a_manifest_names_files(tmp_path: Path) -> None:
    paths = files(tmp_path, np.arange(4000), 3)
    manifest = tmp_path / "all.json"
    manifest.write_text(json.dumps([path.name for path in paths]))
    assert len(vicinal.open_shards(manifest, verify=True)) == 4000
    manifest.write_text('{"paths": []}')
    with pytest.raises(vicinal.FormatError, match="JSON list"):
        vicinal.open_shards(manifest)
    with pytest.raises(vicinal.FormatError, match="JSON list"):
        vicinal.open_shards(paths[0])


def test_shards_that_do_not_fit(tmp_path: Path) -> None:
    paths = files(tmp_path, np.arange(4000), 2)
    with pytest.raises(ValueError, match="the id 0 is in more than one shard"):
        vicinal.open_shards([paths[0], paths[0]])
    assert len(vicinal.open_shards([paths[0], paths[0]], check_ids=False)) == 4000
    vicinal.build(ROWS[:50], metric="cosine").save(tmp_path / "cosine")
    with pytest.raises(ValueError, match="metric='l2' as in shard 0"):
        vicinal.open_shards([paths[0], tmp_path / "cosine"])
    vicinal.build(ROWS[:2], ids=["a", "b"]).save(tmp_path / "named")
    with pytest.raises(ValueError, match="differ in kind"):
        vicinal.open_shards([paths[0], tmp_path / "named"])
    with pytest.raises(ValueError, match="at least one"):
        vicinal.open_shards([])
    with pytest.raises(FileNotFoundError):
        vicinal.open_shards([tmp_path / "none"])


def test_what_is_merged_knows_its_metric(tmp_path: Path) -> None:
    whole = vicinal.Index(12, "cosine")
    whole.add(ROWS[:60])
    paths = []
    for i in range(2):
        paths.append(str(tmp_path / f"{i}.vicinal"))
        vicinal.build(ROWS[i:60:2], paths[-1], metric="cosine", ids=np.arange(60)[i::2])
    found = vicinal.open_shards(paths).search(ROWS[:3], 5)
    np.testing.assert_allclose(
        found.similarities, whole.search(ROWS[:3], 5).similarities, rtol=0, atol=1e-6
    )
