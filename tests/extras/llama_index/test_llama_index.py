"""The vector store of LlamaIndex, which has no suite: the same calls to it and to its own store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from support.pages import run_examples
from vicinal.integrations.llama_index import VicinalVectorStore

DIM = 8
COUNT = 30
NAMES = [f"n{i}" for i in range(COUNT)]


def nodes() -> list[TextNode]:
    rng = np.random.default_rng(0)
    made = []
    for i in range(COUNT):
        metadata: dict[str, Any] = {"n": i, "kind": "core" if i % 3 else "other"}
        if i % 2:
            metadata["tags"] = ["odd", f"t{i % 5}"]
            metadata["note"] = f"Note {i}"
        if i % 7 == 0:
            metadata["tags"] = []
        node = TextNode(
            id_=f"n{i}",
            text=f"text {i} about {'figs' if i % 4 else 'limes'}",
            metadata=metadata,
            embedding=rng.standard_normal(DIM).tolist(),
        )
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"doc{i % 4}")
        made.append(node)
    return made


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[VicinalVectorStore, SimpleVectorStore]]:
    ours, theirs = VicinalVectorStore.from_path(tmp_path / "c", DIM), SimpleVectorStore()
    assert ours.add(nodes()) == theirs.add(nodes())
    yield ours, theirs
    ours.client.close()


def same(ours: Any, theirs: Any, query: VectorStoreQuery, **options: Any) -> list[str]:
    found, wanted = ours.query(query, **options), theirs.query(query, **options)
    assert found.ids == wanted.ids
    assert found.similarities == pytest.approx(wanted.similarities, abs=1e-5)
    assert [node.node_id for node in found.nodes] == found.ids
    return found.ids


QUERY = np.random.default_rng(1).standard_normal(DIM).tolist()
_Op = FilterOperator
CONDITIONS = st.one_of(
    st.builds(
        lambda op, value: MetadataFilter(key="n", operator=op, value=value),
        st.sampled_from([_Op.EQ, _Op.NE, _Op.GT, _Op.GTE, _Op.LT, _Op.LTE]),
        st.integers(-1, COUNT),
    ),
    st.builds(
        lambda op, value: MetadataFilter(key="n", operator=op, value=value),
        st.sampled_from([_Op.IN, _Op.NIN]),
        st.lists(st.integers(0, COUNT), min_size=1, max_size=5),
    ),
    st.builds(
        lambda op, value: MetadataFilter(key="kind", operator=op, value=value),
        st.sampled_from([_Op.EQ, _Op.NE, _Op.TEXT_MATCH, _Op.TEXT_MATCH_INSENSITIVE]),
        st.sampled_from(["core", "other", "ore", "OTHER"]),
    ),
    st.builds(
        lambda op, value: MetadataFilter(key="note", operator=op, value=value),
        st.sampled_from([_Op.EQ, _Op.NE, _Op.TEXT_MATCH, _Op.TEXT_MATCH_INSENSITIVE, _Op.GT]),
        st.sampled_from(["Note 3", "note 1", "1"]),
    ),
    st.builds(
        lambda op, value: MetadataFilter(key="tags", operator=op, value=value),
        st.sampled_from([_Op.ANY, _Op.ALL]),
        st.lists(st.sampled_from(["odd", "t1", "t3"]), min_size=1, max_size=2),
    ),
    st.builds(
        lambda value: MetadataFilter(key="tags", operator=_Op.CONTAINS, value=value),
        st.sampled_from(["odd", "t1", "t"]),
    ),
    st.builds(
        lambda key: MetadataFilter(key=key, operator=_Op.IS_EMPTY, value=None),
        st.sampled_from(["tags", "note", "kind", "missing"]),
    ),
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(CONDITIONS, min_size=1, max_size=3),
    st.sampled_from(FilterCondition),
    st.integers(1, COUNT),
    st.one_of(
        st.none(),
        st.lists(st.sampled_from([f"n{i}" for i in range(COUNT)]), min_size=1, max_size=9),
    ),
)
def test_filters_are_those_of_the_simple_store(
    tmp_path_factory: Any, filters: Any, condition: Any, k: int, node_ids: Any
) -> None:
    cache = test_filters_are_those_of_the_simple_store.__dict__
    if "stores" not in cache:
        folder = tmp_path_factory.mktemp("filters") / "c"
        cache["stores"] = VicinalVectorStore.from_path(folder, DIM), SimpleVectorStore()
        for store in cache["stores"]:
            store.add(nodes())
    ours, theirs = cache["stores"]
    chosen = MetadataFilters(filters=filters, condition=condition)
    query = VectorStoreQuery(QUERY, k, node_ids=node_ids, filters=chosen)
    same(ours, theirs, query)


def test_every_operator_is_known() -> None:
    from vicinal.integrations.llama_index import _OPERATORS

    assert set(_OPERATORS) | {FilterOperator.IS_EMPTY} == set(FilterOperator)


def test_nested_filters_and_documents(both: Any) -> None:
    ours, _ = both
    inner = MetadataFilters(
        filters=[MetadataFilter(key="n", operator=_Op.LT, value=3)], condition=FilterCondition.NOT
    )
    outer = MetadataFilters(filters=[inner, MetadataFilter(key="n", operator=_Op.LT, value=6)])
    query = VectorStoreQuery(QUERY, COUNT, filters=outer)
    assert set(ours.query(query).ids) == {"n3", "n4", "n5"}
    query = VectorStoreQuery(QUERY, COUNT, doc_ids=["doc1"])
    assert set(ours.query(query).ids) == {f"n{i}" for i in range(1, COUNT, 4)}


@pytest.mark.parametrize("threshold", [0.2, 0.5, 1.0])
def test_mmr(both: Any, threshold: float) -> None:
    query = VectorStoreQuery(QUERY, 6, mode=VectorStoreQueryMode.MMR)
    same(*both, query, mmr_threshold=threshold, mmr_prefetch_k=COUNT)


def test_changes(both: Any) -> None:
    ours, theirs = both
    query = VectorStoreQuery(QUERY, COUNT)
    for store in both:
        store.delete("doc2")
    assert len(same(ours, theirs, query)) == COUNT - len(range(2, COUNT, 4))
    chosen = MetadataFilters(filters=[MetadataFilter(key="n", operator=_Op.GT, value=20)])
    for store in both:
        store.delete_nodes(["n1", "n21", "n25"], chosen)
    same(ours, theirs, query)
    for store in both:
        store.delete_nodes([])  # none, not all
        store.delete_nodes(["n3"])
        store.add(nodes()[:1])
    assert "n3" not in same(ours, theirs, query)
    for store in both:
        store.clear()
    assert same(ours, theirs, query) == []


def test_nodes_come_back(both: Any) -> None:
    ours, _ = both
    wanted = nodes()[5]
    (found,) = ours.get_nodes(["n5"])
    assert (found.text, found.metadata, found.ref_doc_id) == (wanted.text, wanted.metadata, "doc1")
    chosen = MetadataFilters(filters=[MetadataFilter(key="n", operator=_Op.LT, value=2)])
    assert [node.node_id for node in ours.get_nodes(filters=chosen)] == ["n0", "n1"]
    assert len(asyncio.run(ours.aget_nodes())) == COUNT


def test_words_and_both(both: Any) -> None:
    ours, _ = both
    query = VectorStoreQuery(QUERY, 8, query_str="limes", mode=VectorStoreQueryMode.TEXT_SEARCH)
    assert set(ours.query(query).ids) == {f"n{i}" for i in range(0, COUNT, 4)}
    query = VectorStoreQuery(
        QUERY, 4, query_str="limes", mode=VectorStoreQueryMode.HYBRID, alpha=0.0
    )
    assert set(ours.query(query).ids) <= {f"n{i}" for i in range(0, COUNT, 4)}
    query.alpha = 1.0
    assert ours.query(query).ids == ours.query(VectorStoreQuery(QUERY, 4)).ids
    with pytest.raises(ValueError, match="mode: expected one of default, mmr"):
        ours.query(VectorStoreQuery(QUERY, 4, mode=VectorStoreQueryMode.SVM))


def test_an_index_of_llama_index(tmp_path: Path) -> None:
    store = VicinalVectorStore.from_path(tmp_path / "c", DIM, metric="l2")
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(nodes(), storage_context=context, embed_model=MockEmbedding(DIM))
    assert len(index.as_retriever(similarity_top_k=3).retrieve("figs")) == 3
    store.client.close()
    again = VicinalVectorStore.from_path(tmp_path / "c")
    index = VectorStoreIndex.from_vector_store(again, embed_model=MockEmbedding(DIM))
    chosen = MetadataFilters(filters=[MetadataFilter(key="n", value=7)])
    (found,) = index.as_retriever(similarity_top_k=3, filters=chosen).retrieve("figs")
    assert found.node.node_id == "n7" and found.node.text == nodes()[7].text
    again.client.close()


def test_the_page() -> None:
    assert run_examples("llama-index.md") == 1
