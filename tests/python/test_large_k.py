"""Many neighbours on estimates: as many are found as on the stored rows; few are measured again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vicinal

ESTIMATES = ("sq8", "rabitq4")


def recall(found: vicinal.SearchResult, wanted: vicinal.SearchResult) -> float:
    """Return the share of wanted neighbours that were found; equal distances count."""
    bound = wanted.distances[:, -1:]
    return float((found.distances <= bound + 1e-5 * np.abs(bound)).mean())


@pytest.fixture(scope="module")
def indexes(minilm: Any, sift: Any) -> dict[tuple[str, str | None], vicinal.Index]:
    made = {}
    for name, data in (("minilm", minilm), ("sift", sift)):
        for kind in (None, *ESTIMATES):
            rows = data.base.astype(np.float32)
            made[name, kind] = vicinal.Index(rows.shape[1], data.metric, quantization=kind)
            made[name, kind].add(rows)
    return made


@pytest.mark.parametrize("name", ["minilm", "sift"])
@pytest.mark.parametrize("kind", ESTIMATES)
@pytest.mark.parametrize("k", [1, 10, 50, 100, 200, 400])
def test_recall_is_that_of_the_stored_rows(
    name: str, kind: str, k: int, indexes: Any, request: pytest.FixtureRequest
) -> None:
    data = request.getfixturevalue(name)
    queries = data.queries.astype(np.float32)
    wanted = vicinal.exact_search(data.base.astype(np.float32), queries, k, data.metric)
    for ef in (10, 64):
        plain = recall(indexes[name, None].search(queries, k, ef_search=ef), wanted)
        coded = recall(indexes[name, kind].search(queries, k, ef_search=ef), wanted)
        # the graphs differ, too, which shows where walks are short, and where few rows are counted
        assert coded >= plain - (0.004 if k > 1 and max(ef, k) >= 50 else 0.02), (plain, coded)


@pytest.mark.parametrize("kind", ESTIMATES)
def test_few_rows_are_measured(kind: str, indexes: Any, minilm: Any) -> None:
    """Those with the smallest estimates up to the bound, not all that are kept."""
    index = indexes["minilm", kind]
    for k in (10, 100, 300):
        traces = [index.trace(query, k) for query in minilm.queries[:20]]
        measured = np.array([trace.reranked for trace in traces])
        assert (measured >= max(k, 16)).all()
        assert measured.mean() < 1.35 * max(k, 16)
        for trace in traces:
            assert trace.width == max(k + k // 16, 64)
            assert trace.kept == max(trace.width, k + k // 3 + 16)
            assert trace.reranked <= trace.kept


@pytest.mark.parametrize("kind", ESTIMATES)
def test_filters_keep_as_many(kind: str, indexes: Any, minilm: Any) -> None:
    queries = minilm.queries[:50].astype(np.float32)
    allowed = np.arange(len(minilm.base)) % 3 != 0
    k = 150
    wanted = vicinal.exact_search(minilm.base.astype(np.float32)[allowed], queries, k, "cosine")
    plain = recall(indexes["minilm", None].search(queries, k, filter=allowed), wanted)
    coded = recall(indexes["minilm", kind].search(queries, k, filter=allowed), wanted)
    assert coded >= plain - 0.003


def test_removed_rows_take_no_places(minilm: Any) -> None:
    """A search that meets removed rows finds as many as one in an index without them."""
    rows = minilm.base.astype(np.float32)
    index = vicinal.Index(rows.shape[1], "cosine", quantization="rabitq4")
    index.add(rows)
    index.remove(np.arange(0, len(rows), 2))
    rest = np.arange(1, len(rows), 2)
    queries = minilm.queries[:50].astype(np.float32)
    wanted = vicinal.exact_search(rows[rest], queries, 200, "cosine")
    assert recall(index.search(queries, 200), wanted) > 0.98
