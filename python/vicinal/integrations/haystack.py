"""A collection as a document store of Haystack, and two retrievers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from vicinal.collection import Collection, Hit
from vicinal.collection import Document as Stored
from vicinal.collection._where import compile_where
from vicinal.integrations._haystack_filters import in_python, to_tree

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.dataclasses import ByteStream, SparseEmbedding
    from haystack.document_stores.errors import DuplicateDocumentError
    from haystack.document_stores.types import DuplicatePolicy, FilterPolicy
    from haystack.document_stores.types.filter_policy import apply_filter_policy
    from haystack.errors import FilterError
    from haystack.utils.filters import document_matches_filter
except ImportError as error:
    raise ImportError(
        f"this module needs haystack-ai: pip install 'vicinal[haystack]' ({error})"
    ) from error

__all__ = ["VicinalDocumentStore", "VicinalEmbeddingRetriever", "VicinalHybridRetriever"]

Filters = dict[str, Any] | None


def _in_thread(name: str) -> Callable[..., Any]:
    async def twin(self: Any, *arguments: Any, **options: Any) -> Any:
        return await asyncio.to_thread(getattr(self, name), *arguments, **options)

    twin.__name__ = f"{name}_async"
    twin.__doc__ = f"Do what `{name}` does in a thread."
    return twin


class VicinalDocumentStore:
    """A `vicinal.Collection` as Haystack's document store.

    Parameters
    ----------
    path : str or path-like
        The folder.
    dim : int
        Dimension of embeddings; documents may have none.
    metric : {"cosine", "ip", "l2"}
        With "cosine" embeddings come back at unit length.
    **parameters
        As for `vicinal.Collection`.

    Notes
    -----
    Embeddings are kept as float32. Comparisons of dates mean what Haystack says, for which all
    documents are read; everything else is asked of SQLite. Threads: safe.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        dim: int = 768,
        metric: str = "cosine",
        **parameters: Any,
    ) -> None:
        self._given = {"path": os.fspath(path), "dim": dim, "metric": metric, **parameters}
        self.collection = Collection(path, dim, metric, **parameters)

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` makes the store of: where it is, not what is in it."""
        made: dict[str, Any] = default_to_dict(self, **self._given)
        return made

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> VicinalDocumentStore:
        """Open the store that `to_dict` described."""
        made: VicinalDocumentStore = default_from_dict(cls, data)
        return made

    # ---- documents

    def count_documents(self) -> int:
        """Return how many documents there are."""
        return self.collection.count()

    def filter_documents(self, filters: Filters = None) -> list[Document]:
        """Return the documents that a filter finds, in the order in which they were written."""
        return [_document(each) for each in self._get(filters)]

    def _get(self, filters: Filters) -> list[Stored]:
        return self.collection.get(where=self._where(filters), vectors=True)

    def write_documents(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Write documents; return how many. Without a policy an id that is there is refused."""
        if (
            not isinstance(documents, Iterable)
            or isinstance(documents, str)
            or not all(isinstance(each, Document) for each in documents)
        ):
            raise ValueError(f"documents: expected a list of Documents, got {documents!r:.80}")
        last = {document.id: document for document in documents}
        if policy == DuplicatePolicy.SKIP:
            there = {each.id for each in self.collection.get(list(last))}
            first = {document.id: document for document in reversed(documents)}
            last = {id: document for id, document in first.items() if id not in there}
        elif policy != DuplicatePolicy.OVERWRITE and len(last) < len(documents):
            raise DuplicateDocumentError("documents: an id stands there twice")
        if not last:
            return 0
        write = self.collection.upsert
        if policy in (DuplicatePolicy.NONE, DuplicatePolicy.FAIL):
            write = self.collection.add
        try:
            write(
                list(last),
                [document.embedding for document in last.values()],
                [document.content for document in last.values()],
                [_metadata(document) for document in last.values()],
            )
        except ValueError as error:
            if "is already in the collection" in str(error):
                raise DuplicateDocumentError(str(error)) from None
            raise
        return len(last)

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete documents, of which unknown ones are left out."""
        self.collection.delete(list(dict.fromkeys(document_ids)))

    def delete_all_documents(self) -> None:
        """Delete all documents."""
        self.collection.delete(where={"and": []})

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Delete the documents that a filter finds; return how many."""
        return self.collection.delete(where=self._where(filters) or {"and": []})

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Set keys of the meta of documents that a filter finds; return how many there were."""
        found = self._get(filters)
        if found:
            metadata = [
                {**each.metadata, "meta": {**each.metadata["meta"], **meta}} for each in found
            ]
            self.collection.update([each.id for each in found], metadata=metadata)
        return len(found)

    # ---- what there is

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        """Return how many documents a filter finds."""
        return self.collection.count(self._where(filters))

    def count_unique_metadata_by_filter(
        self, filters: dict[str, Any], metadata_fields: list[str]
    ) -> dict[str, int]:
        """Return how many values each field has among the documents that a filter finds."""
        where = self._where(filters)
        return {
            _plain(field): len(self.collection.distinct(["meta", _plain(field)], where))
            for field in metadata_fields
        }

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        """Return the type of each field: "boolean", "int", "float" or "keyword"."""
        found: dict[str, dict[str, str]] = {}
        names = {bool: "boolean", int: "int", float: "float"}
        for document in self.collection.scroll(batch_size=1000):
            for key, value in document.metadata["meta"].items():
                if value is not None:
                    found[key] = {"type": names.get(type(value), "keyword")}
        return found

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """Return {"min": ..., "max": ...} of a field; None where it has no values."""
        low, high = self.collection.min_max(["meta", _plain(metadata_field)]) or (None, None)
        return {"min": low, "max": high}

    def get_metadata_field_unique_values(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: Filters = None,
    ) -> tuple[list[Any], int]:
        """Return a page of the values of a field that have a text in them, and how many there are.

        Of lists come their elements.
        """
        path = ["meta", _plain(metadata_field)]
        values = self.collection.distinct(path, self._where(filters))
        if search_term:
            values = [each for each in values if search_term.lower() in str(each).lower()]
        values.sort(key=lambda each: (str(each), type(each).__name__))
        return values[from_ : from_ + size], len(values)

    # ---- searching

    def search_embedding(
        self,
        query_embedding: list[float],
        filters: Filters = None,
        top_k: int = 10,
        scale_score: bool = False,
        return_embedding: bool = False,
    ) -> list[Document]:
        """Return the documents nearest to an embedding, with scores; larger is nearer."""
        if top_k < 1:
            return []
        hits = self.collection.search(
            query_embedding, top_k, self._where(filters), vectors=return_embedding
        )
        return [_document(hit, self._score(hit.score, scale_score)) for hit in hits]

    def search_hybrid(
        self,
        query: str,
        query_embedding: list[float],
        filters: Filters = None,
        top_k: int = 10,
        alpha: float = 0.5,
        method: str = "relative",
    ) -> list[Document]:
        """Return the documents that fit words and embedding best, with fused scores."""
        if top_k < 1:
            return []
        hits = self.collection.search_hybrid(
            query, query_embedding, top_k, self._where(filters), alpha=alpha, method=method
        )
        return [_document(hit, hit.score) for hit in hits]

    def _score(self, score: float, scaled: bool) -> float:
        if not scaled:
            return score
        if self.collection.metric == "cosine":
            return (score + 1) / 2
        if self.collection.metric == "ip":  # as Haystack's own store scales dot products
            return float(1 / (1 + np.exp(-score / 100)))
        return 1 / (2 - score)  # the score is 1 - distance

    def _where(self, filters: Filters) -> dict[str, Any] | None:
        """Return a filter as the collection takes it.

        Raises
        ------
        FilterError
            If it is none that Haystack knows.
        """
        if not filters:
            return None
        try:
            tree = to_tree(filters)
            compile_where(tree)
        except (TypeError, ValueError) as error:
            raise FilterError(str(error)) from None
        if not in_python(filters):
            return tree
        found = [
            stored.id
            for stored in self.collection.scroll(batch_size=1000)
            if document_matches_filter(filters, _document(stored))
        ]
        return {"attribute": "id", "op": "in", "value": found}

    count_documents_async = _in_thread("count_documents")
    filter_documents_async = _in_thread("filter_documents")
    write_documents_async = _in_thread("write_documents")
    delete_documents_async = _in_thread("delete_documents")
    delete_all_documents_async = _in_thread("delete_all_documents")
    delete_by_filter_async = _in_thread("delete_by_filter")
    update_by_filter_async = _in_thread("update_by_filter")
    count_documents_by_filter_async = _in_thread("count_documents_by_filter")
    count_unique_metadata_by_filter_async = _in_thread("count_unique_metadata_by_filter")
    get_metadata_fields_info_async = _in_thread("get_metadata_fields_info")
    get_metadata_field_min_max_async = _in_thread("get_metadata_field_min_max")
    get_metadata_field_unique_values_async = _in_thread("get_metadata_field_unique_values")


@component
class VicinalEmbeddingRetriever:
    """Documents nearest to an embedding.

    Parameters
    ----------
    document_store : VicinalDocumentStore
    filters, top_k, scale_score, return_embedding
        As for `VicinalDocumentStore.search_embedding`; `run` may give others.
    filter_policy : FilterPolicy
        Whether filters of `run` replace those here or are joined with them.
    """

    def __init__(
        self,
        document_store: VicinalDocumentStore,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        scale_score: bool = False,
        return_embedding: bool = False,
        filter_policy: str | FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:
        self.document_store = document_store
        self.filters, self.top_k = filters, top_k
        self.scale_score, self.return_embedding = scale_score, return_embedding
        self.filter_policy = _policy(filter_policy)

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` makes the component of."""
        return _described(self, ("filters", "top_k", "scale_score", "return_embedding"))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> VicinalEmbeddingRetriever:
        """Make the component that `to_dict` described."""
        made: VicinalEmbeddingRetriever = _made(cls, data)
        return made

    @component.output_types(documents=list[Document])
    def run(
        self,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        scale_score: bool | None = None,
        return_embedding: bool | None = None,
    ) -> dict[str, list[Document]]:
        """Return {"documents": [...]}, best first."""
        found = self.document_store.search_embedding(
            query_embedding,
            apply_filter_policy(self.filter_policy, self.filters, filters),
            self.top_k if top_k is None else top_k,
            self.scale_score if scale_score is None else scale_score,
            self.return_embedding if return_embedding is None else return_embedding,
        )
        return {"documents": found}


@component
class VicinalHybridRetriever:
    """Documents that fit words and an embedding best; needs the extra `hybrid`.

    Parameters
    ----------
    document_store : VicinalDocumentStore
    filters, top_k, alpha, method
        As for `vicinal.Collection.search_hybrid`; `run` may give others of the first two.
    filter_policy : FilterPolicy
        Whether filters of `run` replace those here or are joined with them.
    """

    def __init__(
        self,
        document_store: VicinalDocumentStore,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        alpha: float = 0.5,
        method: str = "relative",
        filter_policy: str | FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:
        self.document_store = document_store
        self.filters, self.top_k, self.alpha, self.method = filters, top_k, alpha, method
        self.filter_policy = _policy(filter_policy)

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` makes the component of."""
        return _described(self, ("filters", "top_k", "alpha", "method"))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> VicinalHybridRetriever:
        """Make the component that `to_dict` described."""
        made: VicinalHybridRetriever = _made(cls, data)
        return made

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """Return {"documents": [...]}, best first."""
        found = self.document_store.search_hybrid(
            query,
            query_embedding,
            apply_filter_policy(self.filter_policy, self.filters, filters),
            self.top_k if top_k is None else top_k,
            self.alpha,
            self.method,
        )
        return {"documents": found}


def _policy(given: str | FilterPolicy) -> FilterPolicy:
    return given if isinstance(given, FilterPolicy) else FilterPolicy.from_str(given)


def _described(made: Any, names: tuple[str, ...]) -> dict[str, Any]:
    described: dict[str, Any] = default_to_dict(
        made,
        document_store=made.document_store.to_dict(),
        filter_policy=made.filter_policy.value,
        **{name: getattr(made, name) for name in names},
    )
    return described


def _made(kind: type[Any], data: dict[str, Any]) -> Any:
    given = dict(data["init_parameters"])
    if isinstance(given["document_store"], dict):
        given["document_store"] = VicinalDocumentStore.from_dict(given["document_store"])
    return default_from_dict(kind, {**data, "init_parameters": given})


def _plain(field: str) -> str:
    return field.removeprefix("meta.")


# ---- documents: `meta` is one object among the metadata, beside what else a document has


def _metadata(document: Document) -> dict[str, Any]:
    made: dict[str, Any] = {"meta": document.meta}
    if document.blob is not None:
        made["blob"] = document.blob.to_dict()
    if document.sparse_embedding is not None:
        made["sparse_embedding"] = document.sparse_embedding.to_dict()
    return made


def _document(stored: Stored | Hit, score: float | None = None) -> Document:
    blob, sparse = (stored.metadata.get(name) for name in ("blob", "sparse_embedding"))
    return Document(
        id=stored.id,
        content=stored.text,
        meta=stored.metadata["meta"],
        blob=None if blob is None else ByteStream.from_dict(blob),
        sparse_embedding=None if sparse is None else SparseEmbedding.from_dict(sparse),
        embedding=None if stored.vector is None else stored.vector.tolist(),
        score=score,
    )
