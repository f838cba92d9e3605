"""What a collection gives back: documents, and hits of searches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Document", "Hit"]


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it was stored.

    Attributes
    ----------
    id : str
    text : str or None
    metadata : dict
        A new one for every answer; to change it changes nothing in the collection.
    vector : ndarray of shape (dim,) or None
        Of the stored dtype, where it was asked for; at unit length with metric "cosine".
    """

    id: str
    text: str | None
    metadata: dict[str, Any]
    vector: NDArray[Any] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Hit(Document):
    """A document that a search found.

    Attributes
    ----------
    score : float
        Larger is better: 1 - distance of a search by vector, which is the cosine with metric
        "cosine" and the dot product with "ip"; BM25 of a search by words; the fused score of a
        hybrid one.
    distance : float or None
        As the index measures it; None where the vectors were not asked or did not find it.
    vector_rank, text_rank : int or None
        Of a hybrid search: the place among what the vectors, and the words, found, from 1; None
        where it was not among these.
    text_score : float or None
        BM25 of the words, where they found it.
    """

    score: float = np.nan
    distance: float | None = None
    vector_rank: int | None = None
    text_rank: int | None = None
    text_score: float | None = None
