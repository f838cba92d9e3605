"""A collection as a vector store of LlamaIndex."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from vicinal.collection import Collection, Document, Hit

try:
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
    from llama_index.core.schema import BaseNode, MetadataMode
    from llama_index.core.vector_stores.types import (
        BasePydanticVectorStore,
        FilterCondition,
        FilterOperator,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
        VectorStoreQueryResult,
    )
    from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
except ImportError as error:
    raise ImportError(
        f"this module needs llama-index-core: pip install 'vicinal[llama-index]' ({error})"
    ) from error

__all__ = ["VicinalVectorStore"]

_OPERATORS = {
    FilterOperator.EQ: "eq",
    FilterOperator.NE: "ne",
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
    FilterOperator.IN: "in",
    FilterOperator.NIN: "nin",
    FilterOperator.ANY: "any",
    FilterOperator.ALL: "all",
    FilterOperator.CONTAINS: "contains",
    FilterOperator.TEXT_MATCH: "contains",
    FilterOperator.TEXT_MATCH_INSENSITIVE: "text",
}
_TEXT_MODES = (VectorStoreQueryMode.SPARSE, VectorStoreQueryMode.TEXT_SEARCH)
_BOTH_MODES = (VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.SEMANTIC_HYBRID)
_MODES = ("default", "mmr", "sparse", "text_search", "hybrid", "semantic_hybrid")
_PREFETCH = 4  # candidates of MMR for each result wanted


class VicinalVectorStore(BasePydanticVectorStore):
    """A `vicinal.Collection` as LlamaIndex's vector store; keeps nodes with their texts.

    Parameters
    ----------
    collection : Collection
        Its documents are nodes that this class has written. `from_path` makes one.

    Notes
    -----
    Modes of a query: default, mmr, and with the extra `hybrid` text_search (sparse) and hybrid
    (semantic_hybrid), where `alpha` is the weight of the vectors. Similarities are larger the
    nearer: the cosine, the dot product, or 1 - distance. All filter operators and nested filters
    work; what a missing field does is as in `SimpleVectorStore`.
    """

    stores_text: bool = True
    _collection: Collection = PrivateAttr()

    def __init__(self, collection: Collection, **options: Any) -> None:
        super().__init__(stores_text=True, **options)
        self._collection = collection

    @classmethod
    def from_path(
        cls, path: str | os.PathLike[str], dim: int | None = None, **parameters: Any
    ) -> VicinalVectorStore:
        """Open a folder, or make one; arguments are those of `vicinal.Collection`."""
        return cls(Collection(path, dim, **parameters))

    @classmethod
    def class_name(cls) -> str:
        """Return the name by which LlamaIndex knows the class."""
        return "VicinalVectorStore"

    @property
    def client(self) -> Collection:
        """The collection."""
        return self._collection

    # ---- nodes

    def add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        """Write nodes with their embeddings, in place of those whose id is there."""
        last = {node.node_id: node for node in nodes}
        self._collection.upsert(
            list(last),
            [node.get_embedding() for node in last.values()],
            [node.get_content(metadata_mode=MetadataMode.NONE) for node in last.values()],
            [node_to_metadata_dict(node, remove_text=True) for node in last.values()],
        )
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        """Delete the nodes of a source document."""
        self._collection.delete(where={"field": "ref_doc_id", "op": "eq", "value": ref_doc_id})

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **_: Any,
    ) -> None:
        """Delete nodes of ids that filters find; without either all."""
        self._collection.delete(where=_where(filters, node_ids) or {"and": []})

    def clear(self) -> None:
        """Delete all nodes."""
        self._collection.delete(where={"and": []})

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Return nodes of ids that filters find, in the order of insertion."""
        return [_node(each) for each in self._collection.get(where=_where(filters, node_ids))]

    # ---- queries

    def query(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        """Return the nodes that fit a query best, with similarities."""
        # an index of LlamaIndex asks with an empty list where it means any node
        where = _where(query.filters, query.node_ids or None, query.doc_ids or None)
        k, mode = query.similarity_top_k, query.mode
        if mode == VectorStoreQueryMode.DEFAULT:
            return _result(self._collection.search(query.query_embedding, k, where))
        if mode == VectorStoreQueryMode.MMR:
            return self._diverse(query, where, options)
        if mode in _TEXT_MODES:
            wanted = query.sparse_top_k or k
            return _result(self._collection.search_text(query.query_str or "", wanted, where))
        if mode in _BOTH_MODES:
            hits = self._collection.search_hybrid(
                query.query_str or "",
                query.query_embedding,
                query.hybrid_top_k or k,
                where,
                alpha=0.5 if query.alpha is None else query.alpha,
            )
            return _result(hits)
        raise ValueError(f"mode: expected one of {', '.join(_MODES)}, got {mode.value!r}")

    def _diverse(
        self, query: VectorStoreQuery, where: dict[str, Any] | None, options: dict[str, Any]
    ) -> VectorStoreQueryResult:
        k = query.similarity_top_k
        most = options.get("mmr_prefetch_k") or k * options.get("mmr_prefetch_factor", _PREFETCH)
        hits = self._collection.search(query.query_embedding, max(k, most), where, vectors=True)
        if not hits:
            return _result([])
        threshold = options.get("mmr_threshold", query.mmr_threshold)
        similarities, places = get_top_k_mmr_embeddings(
            np.asarray(query.query_embedding),
            [hit.vector for hit in hits],
            similarity_top_k=k,
            embedding_ids=list(range(len(hits))),
            mmr_threshold=threshold,
        )
        found = _result([hits[place] for place in places])
        found.similarities = [float(each) for each in similarities]
        return found


def _node(stored: Document) -> BaseNode:
    return metadata_dict_to_node(stored.metadata, stored.text)


def _result(hits: list[Hit]) -> VectorStoreQueryResult:
    return VectorStoreQueryResult(
        nodes=[_node(hit) for hit in hits],
        similarities=[hit.score for hit in hits],
        ids=[hit.id for hit in hits],
    )


# ---- filters


def _where(
    filters: MetadataFilters | None,
    node_ids: Sequence[str] | None = None,
    doc_ids: Sequence[str] | None = None,
) -> dict[str, Any] | None:
    """Return everything that restricts nodes as a filter of the collection."""
    parts: list[dict[str, Any]] = []
    if filters is not None and filters.filters:
        parts.append(_tree(filters))
    if node_ids is not None:
        parts.append({"attribute": "id", "op": "in", "value": list(node_ids)})
    if doc_ids is not None:
        parts.append({"field": "ref_doc_id", "op": "in", "value": list(doc_ids)})
    return None if not parts else {"and": parts}


def _tree(filters: MetadataFilters) -> dict[str, Any]:
    parts = [
        _tree(each) if isinstance(each, MetadataFilters) else _condition(each)
        for each in filters.filters
    ]
    if filters.condition == FilterCondition.OR:
        return {"or": parts}
    if filters.condition == FilterCondition.NOT:
        return {"not": {"or": parts}}
    return {"and": parts}


def _condition(given: Any) -> dict[str, Any]:
    if given.operator == FilterOperator.IS_EMPTY:
        values: tuple[Any, ...] = (None, "", [])
        return {"or": [{"field": given.key, "op": "eq", "value": value} for value in values]}
    return {"field": given.key, "op": _OPERATORS[given.operator], "value": given.value}
