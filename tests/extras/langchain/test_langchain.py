"""The vector store and the retriever of LangChain: its suites, and what they leave out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_tests.integration_tests import (
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)

from support.pages import run_examples
from vicinal.integrations.langchain import VicinalHybridRetriever, VicinalVectorStore

EMBEDDING = DeterministicFakeEmbedding(size=16)
TEXTS = [f"text about {word}" for word in ("apples", "pears", "plums", "figs", "limes", "dates")]
METADATA = [
    {"n": place, "kind": "core" if place < 2 else "other", "tags": ["a", str(place)]}
    for place in range(len(TEXTS))
]
NAMES = [f"d{place}" for place in range(len(TEXTS))]


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[VectorStore]:
        store = VicinalVectorStore.open(tmp_path / "c", self.get_embeddings())
        yield store
        store.collection.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VicinalVectorStore]:
    made = VicinalVectorStore.from_texts(TEXTS, EMBEDDING, METADATA, ids=NAMES, path=tmp_path / "c")
    yield made
    made.collection.close()


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _with_store(self, store: VicinalVectorStore) -> None:
        self.store = store

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return VicinalHybridRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": self.store}

    @property
    def retriever_query_example(self) -> str:
        return "text about plums"


def test_scores_are_those_of_the_reference(store: VicinalVectorStore) -> None:
    """The in-memory store of LangChain says cosines; here they are 1 - distance."""
    other = InMemoryVectorStore(EMBEDDING)
    other.add_texts(TEXTS, METADATA, ids=NAMES)
    for query in ("text about figs", "something else"):
        ours = store.similarity_search_with_score(query, 6)
        theirs = other.similarity_search_with_score(query, 6)
        assert [d.id for d, _ in ours] == [d.id for d, _ in theirs]
        assert [1 - far for _, far in ours] == pytest.approx([s for _, s in theirs], abs=1e-5)
        with pytest.warns(UserWarning, match="Relevance scores must be between"):
            relevant = store.similarity_search_with_relevance_scores(query, 6, score_threshold=0.3)
        assert [d.id for d, _ in relevant] == [d.id for d, s in theirs if s >= 0.3]
        by_vector = store.similarity_search_by_vector_with_relevance_scores(
            EMBEDDING.embed_query(query), 6
        )
        assert [d.id for d, _ in by_vector] == [d.id for d, _ in theirs]
        assert [s for _, s in by_vector] == pytest.approx([s for _, s in theirs], abs=1e-5)
    plain, diverse = (
        each.max_marginal_relevance_search("text about figs", 3, fetch_k=6, lambda_mult=0.3)
        for each in (other, store)
    )
    assert [d.id for d in plain] == [d.id for d in diverse]
    assert store.similarity_search("text about figs", 1) == [
        Document(id="d3", page_content=TEXTS[3], metadata=METADATA[3])
    ]


@pytest.mark.parametrize(
    ("filter", "wanted"),
    [
        ({"kind": "core"}, {0, 1}),
        ({"kind": {"$ne": "core"}, "n": {"$lt": 4}}, {2, 3}),
        ({"$or": [{"n": 0}, {"n": {"$gte": 5}}]}, {0, 5}),
        ({"$and": [{"n": {"$in": [1, 2, 3]}}, {"$not": {"n": 2}}]}, {1, 3}),
        ({"tags": {"$contains": "4"}}, {4}),
        ({"missing": {"$exists": False}, "n": {"$nin": [0, 1]}}, {2, 3, 4, 5}),
        ({"not": {"field": "n", "op": "gt", "value": 1}}, {0, 1}),
        (lambda document: document.metadata["n"] % 2 == 1, {1, 3, 5}),
        ({}, set(range(6))),
        (None, set(range(6))),
    ],
)
def test_filters(store: VicinalVectorStore, filter: Any, wanted: set[int]) -> None:
    found = store.similarity_search("text", 10, filter=filter)
    assert {document.metadata["n"] for document in found} == wanted
    diverse = store.max_marginal_relevance_search("text", 10, filter=filter)
    assert {document.metadata["n"] for document in diverse} == wanted


@pytest.mark.parametrize(
    ("filter", "kind", "message"),
    [
        ([], TypeError, "filter: expected a dict"),
        ({"n": {"$near": 1}}, ValueError, "filter.n: expected one of"),
        ({"$nor": []}, ValueError, "filter: expected a field, "),
        ({"$and": {}}, TypeError, "filter.*expected a list"),
    ],
)
def test_wrong_filters(store: VicinalVectorStore, filter: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        store.similarity_search("text", filter=filter)


def test_a_function_is_asked_until_enough_pass(tmp_path: Path) -> None:
    store = VicinalVectorStore.open(tmp_path / "c", EMBEDDING)
    store.add_texts([str(i) for i in range(400)], [{"n": i} for i in range(400)])
    found = store.similarity_search("x", 3, filter=lambda document: document.metadata["n"] < 3)
    assert {document.metadata["n"] for document in found} == {0, 1, 2}
    store.collection.close()


def test_ids_and_deletion(store: VicinalVectorStore) -> None:
    made = store.add_texts(["one", "two", "three"], ids=["x", None, "x"])
    assert made[0] == made[2] == "x" and made[1] not in (None, "x")
    assert store.get_by_ids(["x", "unknown", "x"])[0].page_content == "three"
    with pytest.raises(ValueError, match="ids: expected 1"):
        store.add_texts(["one"], ids=["a", "b"])
    assert store.delete(["x", "unknown"])
    assert store.get_by_ids(["x"]) == []
    assert store.delete() and store.similarity_search("one") == []


def test_a_store_is_opened_again_without_pickles(store: VicinalVectorStore, tmp_path: Path) -> None:
    store.collection.close()
    again = VicinalVectorStore.open(tmp_path / "c", EMBEDDING)
    assert again.similarity_search("text about pears", 1)[0].id == "d1"
    again.collection.close()
    with pytest.raises(TypeError, match="path: expected the folder"):
        VicinalVectorStore.from_texts(["a"], EMBEDDING)


async def test_hybrid_retriever(store: VicinalVectorStore) -> None:
    retriever = VicinalHybridRetriever(store=store, k=2, alpha=0, filter={"n": {"$gt": 0}})
    assert retriever.invoke("limes")[0].id == "d4"
    assert (await retriever.ainvoke("dates apples"))[0].id == "d5"


def test_the_page() -> None:
    assert run_examples("langchain.md") == 1
