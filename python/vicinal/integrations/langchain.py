"""A collection as a vector store, and its hybrid search as a retriever, of LangChain."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vicinal.collection import Collection
from vicinal.collection import Document as Stored
from vicinal.integrations._operators import from_operators

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.vectorstores import VectorStore
    from langchain_core.vectorstores.utils import maximal_marginal_relevance
    from pydantic import ConfigDict
except ImportError as error:
    raise ImportError(
        f"this module needs langchain-core: pip install 'vicinal[langchain]' ({error})"
    ) from error

__all__ = ["VicinalHybridRetriever", "VicinalVectorStore"]

Filter = Mapping[str, Any] | Callable[[Document], bool]


class VicinalVectorStore(VectorStore):
    """A `vicinal.Collection` as LangChain's vector store.

    Parameters
    ----------
    collection : Collection
        Made before; its documents are those of the store. `open` makes one.
    embedding : Embeddings
        Turns texts and queries into vectors of its dimension.

    Notes
    -----
    `filter` of searches is {"page": {"$gt": 3}}, with `$eq $ne $gt $gte $lt $lte $in $nin $exists
    $contains $any $all`, `$and`, `$or`, `$not`; or a tree as a collection takes it; or a function
    of a document, which is asked from the nearest on until enough pass. Scores are distances,
    smaller is nearer; relevance scores are the cosine, the dot product, or 1 / (1 + distance).
    """

    def __init__(self, collection: Collection, embedding: Embeddings) -> None:
        self.collection = collection
        self._embedding = embedding

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], embedding: Embeddings, **parameters: Any
    ) -> VicinalVectorStore:
        """Open a folder, or make one for vectors as `embedding` makes them.

        `parameters` are those of `vicinal.Collection`.
        """
        if "dim" not in parameters and not os.path.exists(os.path.join(path, "documents.sqlite")):
            parameters["dim"] = len(embedding.embed_query("dimension"))
        return cls(Collection(path, **parameters), embedding)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        path: str | os.PathLike[str] | None = None,
        **parameters: Any,
    ) -> VicinalVectorStore:
        """Open a folder, which has to be given as `path`, and add texts."""
        if path is None:
            raise TypeError("path: expected the folder of the collection, got None")
        store = cls.open(path, embedding, **parameters)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @property
    def embeddings(self) -> Embeddings:
        """What makes the vectors."""
        return self._embedding

    # ---- documents

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **_: Any,
    ) -> list[str]:
        """Write texts, in place of those whose id is there; return ids, new ones where None."""
        listed = list(texts)
        names = [
            str(uuid.uuid4()) if name is None else name
            for name in (ids if ids is not None else [None] * len(listed))
        ]
        if len(names) != len(listed):
            raise ValueError(f"ids: expected {len(listed)}, one for each text, got {len(names)}")
        if metadatas is not None and len(metadatas) != len(listed):
            raise ValueError(f"metadatas: expected {len(listed)}, got {len(metadatas)}")
        # of an id that comes twice the last one counts, as if they had come one after the other
        last = {name: place for place, name in enumerate(names)}
        vectors = self._embedding.embed_documents(listed) if listed else []
        places = list(last.values())
        self.collection.upsert(
            list(last),
            [vectors[place] for place in places],
            [listed[place] for place in places],
            None if metadatas is None else [metadatas[place] for place in places],
        )
        return names

    def delete(self, ids: list[str] | None = None, **_: Any) -> bool:
        """Delete documents, of which unknown ones are left out; all of them without ids."""
        if ids is None:
            self.collection.delete(where={"and": []})
        else:
            self.collection.delete(list(dict.fromkeys(ids)))
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents of ids that are there."""
        return [_document(each) for each in self.collection.get(list(dict.fromkeys(ids)))]

    # ---- searching

    def similarity_search(
        self, query: str, k: int = 4, filter: Filter | None = None, **_: Any
    ) -> list[Document]:
        """Return the k documents nearest to a text."""
        return [document for document, _ in self.similarity_search_with_score(query, k, filter)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter | None = None, **_: Any
    ) -> list[tuple[Document, float]]:
        """Return the k documents nearest to a text, and their distances."""
        vector = self._embedding.embed_query(query)
        return self.similarity_search_with_score_by_vector(vector, k, filter)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter | None = None, **_: Any
    ) -> list[Document]:
        """Return the k documents nearest to a vector."""
        found = self.similarity_search_with_score_by_vector(embedding, k, filter)
        return [document for document, _ in found]

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter | None = None, **_: Any
    ) -> list[tuple[Document, float]]:
        """Return the k documents nearest to a vector, and their distances."""
        return [(_document(hit), hit.distance) for hit in self._hits(embedding, k, filter, False)]

    def similarity_search_by_vector_with_relevance_scores(
        self, embedding: list[float], k: int = 4, filter: Filter | None = None, **_: Any
    ) -> list[tuple[Document, float]]:
        """Return the k documents nearest to a vector, and their relevance, larger is nearer.

        The first method that mem0 looks for; it takes what any of them says for a similarity.
        """
        relevance = self._select_relevance_score_fn()
        found = self.similarity_search_with_score_by_vector(embedding, k, filter)
        return [(document, relevance(distance)) for document, distance in found]

    def _hits(self, embedding: Any, k: int, filter: Filter | None, vectors: bool) -> list[Any]:
        if not callable(filter):
            where = from_operators(filter)
            hits: list[Any] = self.collection.search(embedding, k, where, vectors=vectors)
            return hits
        width = max(64, 4 * k)
        while True:
            hits = self.collection.search(embedding, width, vectors=vectors)
            passed = [hit for hit in hits if filter(_document(hit))]
            if len(passed) >= k or len(hits) < width:
                return passed[:k]
            width *= 4

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **_: Any,
    ) -> list[Document]:
        """Return k of the nearest `fetch_k` documents that are unlike each other."""
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, filter)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **_: Any,
    ) -> list[Document]:
        """Return k of the `fetch_k` documents nearest to a vector that are unlike each other."""
        hits = self._hits(embedding, fetch_k, filter, True)
        if not hits:
            return []
        chosen = maximal_marginal_relevance(
            np.asarray(embedding, np.float32), [hit.vector for hit in hits], lambda_mult, k
        )
        return [_document(hits[place]) for place in chosen]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        if self.collection.metric == "l2":
            return lambda distance: 1 / (1 + distance)
        return lambda distance: 1 - distance


class VicinalHybridRetriever(BaseRetriever):
    """Hybrid search of a collection, by words and vectors, as LangChain's retriever.

    Attributes
    ----------
    store : VicinalVectorStore
    k : int
        Documents wanted.
    alpha, method, window
        As for `vicinal.Collection.search_hybrid`.
    filter : dict or None
        As the store takes it, but no function.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    store: VicinalVectorStore
    k: int = 4
    alpha: float = 0.5
    method: str = "relative"
    window: int = 100
    filter: dict[str, Any] | None = None

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        **_: Any,
    ) -> list[Document]:
        hits = self.store.collection.search_hybrid(
            query,
            self.store.embeddings.embed_query(query),
            self.k if k is None else k,
            from_operators(self.filter),
            alpha=self.alpha,
            method=self.method,
            window=self.window,
        )
        return [_document(hit) for hit in hits]


def _document(found: Stored) -> Document:
    return Document(id=found.id, page_content=found.text or "", metadata=found.metadata)
