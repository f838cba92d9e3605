"""The document store and the retrievers of Haystack: its suites, and what they leave out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.dataclasses import ByteStream, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from haystack.testing import document_store as suite
from haystack.testing import document_store_async as async_suite

from support.pages import run_examples
from vicinal.integrations.haystack import (
    VicinalDocumentStore,
    VicinalEmbeddingRetriever,
    VicinalHybridRetriever,
)

DIM = 768  # that of the suite's documents


@pytest.fixture
def document_store(tmp_path: Path) -> Iterator[VicinalDocumentStore]:
    store = VicinalDocumentStore(tmp_path / "c", DIM, "ip", synchronous="normal")
    yield store
    store.collection.close()


def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
    """Embeddings are kept as float32; all else is the same."""
    assert len(received) == len(expected)
    for one, two in zip(received, expected, strict=True):
        a, b = one.to_dict(flatten=False), two.to_dict(flatten=False)
        left, right = a.pop("embedding"), b.pop("embedding")
        assert a == b
        assert (left is None) == (right is None)
        if left is not None:
            np.testing.assert_array_equal(np.float32(left), np.float32(right))


class _Same:
    @pytest.fixture
    def document_store(self, tmp_path: Path) -> Iterator[VicinalDocumentStore]:
        store = VicinalDocumentStore(tmp_path / "c", DIM, "ip", synchronous="normal")
        yield store
        store.collection.close()

    assert_documents_are_equal = staticmethod(assert_documents_are_equal)


class TestDocumentStore(
    _Same,
    suite.CountDocumentsByFilterTest,
    suite.CountUniqueMetadataByFilterTest,
    suite.GetMetadataFieldsInfoTest,
    suite.GetMetadataFieldMinMaxTest,
    suite.GetMetadataFieldUniqueValuesTest,
    suite.DocumentStoreBaseExtendedTests,
):
    def test_write_documents(self, document_store: VicinalDocumentStore) -> None:
        """What the suite leaves to each store: without a policy an id may not be there."""
        documents = [Document(id="1", content="a"), Document(id="2", content="b")]
        assert document_store.write_documents(documents) == 2
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([Document(id="3"), documents[0]])
        self.assert_documents_are_equal(document_store.filter_documents(), documents)


class TestAsync(
    _Same,
    async_suite.CountDocumentsAsyncTest,
    async_suite.CountDocumentsByFilterAsyncTest,
    async_suite.CountUniqueMetadataByFilterAsyncTest,
    async_suite.DeleteAllAsyncTest,
    async_suite.DeleteByFilterAsyncTest,
    async_suite.UpdateByFilterAsyncTest,
    async_suite.WriteDocumentsAsyncTest,
    async_suite.DeleteDocumentsAsyncTest,
    async_suite.GetMetadataFieldsInfoAsyncTest,
    async_suite.GetMetadataFieldMinMaxAsyncTest,
    async_suite.GetMetadataFieldUniqueValuesAsyncTest,
    async_suite.FilterDocumentsAsyncTest,
):
    async def test_write_documents_async(self, document_store: VicinalDocumentStore) -> None:
        assert await document_store.write_documents_async([Document(id="1")]) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async([Document(id="1")])


# ---- beside Haystack's own store


def some(count: int = 40) -> list[Document]:
    rng = np.random.default_rng(0)
    return [
        Document(
            id=f"d{i}",
            content=f"text about {'figs' if i % 5 else 'limes'} {i}",
            meta={"n": i, "day": f"2024-01-{1 + i % 28:02}", "deep": {"even": i % 2 == 0}},
            embedding=None if i % 10 == 9 else rng.standard_normal(DIM).tolist(),
        )
        for i in range(count)
    ]


FILTERS: list[Any] = [
    None,
    {"field": "meta.n", "operator": "<", "value": 7},
    {"field": "meta.deep.even", "operator": "==", "value": True},
    {"field": "n", "operator": "in", "value": [1, 2, 3]},
    {"field": "content", "operator": "!=", "value": "text about figs 1"},
    {"field": "id", "operator": "not in", "value": ["d1", "d2"]},
    {"field": "meta.day", "operator": ">=", "value": "2024-01-20T00:00:00"},
    {"field": "meta.day", "operator": "==", "value": "2024-01-20 00:00:00"},
    {
        "operator": "NOT",
        "conditions": [
            {"field": "meta.day", "operator": "<", "value": "2024-01-10"},
            {"field": "meta.n", "operator": ">", "value": 3},
        ],
    },
]


@pytest.mark.parametrize("metric", ["ip", "cosine"])
@pytest.mark.parametrize("scale", [False, True])
def test_searches_find_what_the_store_in_memory_finds(
    tmp_path: Path, metric: str, scale: bool
) -> None:
    store = VicinalDocumentStore(tmp_path / "c", DIM, metric)
    function = {"ip": "dot_product", "cosine": "cosine"}[metric]
    other = InMemoryDocumentStore(embedding_similarity_function=function)
    for each in (store, other):
        each.write_documents(some())
    query = np.random.default_rng(1).standard_normal(DIM).tolist()
    for filters in FILTERS:
        wanted = other.embedding_retrieval(query, filters, 12, scale_score=scale)
        found = store.search_embedding(query, filters, 12, scale)
        assert [each.id for each in found] == [each.id for each in wanted]
        scores = [each.score for each in wanted]
        assert [each.score for each in found] == pytest.approx(scores, abs=1e-4)
        ids = {each.id for each in other.filter_documents(filters)}
        assert {each.id for each in store.filter_documents(filters)} == ids
    store.collection.close()


@pytest.mark.parametrize(
    "filters",
    [
        [],
        {"field": "meta.n", "operator": "~", "value": 1},
        {"operator": "XOR", "conditions": []},
        {"field": "meta.n", "operator": "==", "value": {"a": 1}},
        {"field": "meta.n", "operator": ">", "value": "high"},
    ],
)
def test_wrong_filters(document_store: VicinalDocumentStore, filters: Any) -> None:
    if filters == []:
        assert document_store.filter_documents(filters) == []  # none, as elsewhere in Haystack
        return
    with pytest.raises(FilterError):
        document_store.filter_documents(filters)


def test_all_parts_of_a_document_come_back(document_store: VicinalDocumentStore) -> None:
    document = Document(
        id="1",
        content="text",
        blob=ByteStream(b"\x00\xff", meta={"a": 1}, mime_type="x/y"),
        meta={"a": [1, {"b": None}]},
        sparse_embedding=SparseEmbedding([1, 5], [0.5, 2.0]),
    )
    document_store.write_documents([document])
    assert document_store.filter_documents() == [document]


def test_policies_within_a_batch(document_store: VicinalDocumentStore) -> None:
    twice = [Document(id="1", content="a"), Document(id="1", content="b")]
    with pytest.raises(DuplicateDocumentError):
        document_store.write_documents(twice)
    assert document_store.count_documents() == 0
    assert document_store.write_documents(twice, DuplicatePolicy.SKIP) == 1
    assert document_store.filter_documents()[0].content == "a"
    assert document_store.write_documents(twice, DuplicatePolicy.OVERWRITE) == 1
    assert document_store.filter_documents()[0].content == "b"


def test_retrievers_in_a_pipeline(tmp_path: Path) -> None:
    store = VicinalDocumentStore(tmp_path / "c", DIM, "cosine", synchronous="normal")
    store.write_documents(some())
    low = {"field": "meta.n", "operator": "<", "value": 20}
    pipeline = Pipeline()
    pipeline.add_component("near", VicinalEmbeddingRetriever(store, top_k=3, filters=low))
    pipeline.add_component(
        "both", VicinalHybridRetriever(store, top_k=2, alpha=0, filter_policy="merge", filters=low)
    )
    text = pipeline.dumps()
    store.collection.close()
    again = Pipeline.loads(text, allowed_modules=["vicinal.integrations.haystack"])
    query = some()[4].embedding
    even = {"field": "meta.deep.even", "operator": "==", "value": True}
    found = again.run(
        {
            "near": {"query_embedding": query, "return_embedding": True},
            "both": {"query": "limes", "query_embedding": query, "filters": even},
        }
    )
    assert found["near"]["documents"][0].id == "d4" and len(found["near"]["documents"]) == 3
    assert len(found["near"]["documents"][0].embedding) == DIM
    assert {each.id for each in found["both"]["documents"]} == {"d0", "d10"}
    for name in ("near", "both"):
        again.get_component(name).document_store.collection.close()


def test_the_page() -> None:
    assert run_examples("haystack.md") == 1
