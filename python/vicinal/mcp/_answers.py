"""What tools return: plain models, held below a number of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from vicinal.collection import Document as Stored
from vicinal.collection import Hit as Found

__all__ = [
    "About",
    "Collections",
    "Count",
    "Deleted",
    "Document",
    "Documents",
    "Hit",
    "Hits",
    "Kept",
    "NewDocument",
    "Why",
    "documents_of",
    "hits_of",
]


class NewDocument(BaseModel):
    """A document to store."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1, max_length=512)
    text: str | None = Field(default=None, max_length=200_000)
    metadata: dict[str, Any] = Field(default_factory=dict)
    vector: list[float] | None = Field(
        default=None, description="May be left out where the server makes vectors of texts."
    )


class Document(BaseModel):
    """A document as it was stored; a text that was too long for an answer is cut."""

    id: str
    text: str | None = None
    text_cut: bool = False
    metadata: dict[str, Any] | None = None
    metadata_left_out: bool = False


class Hit(Document):
    """A document that a search found; a larger score is better."""

    score: float


class Hits(BaseModel):
    """Documents found, best first."""

    hits: list[Hit]
    left_out: int = Field(0, description="Hits that did not fit the answer: ask for a smaller k.")
    searched_by: str


class Documents(BaseModel):
    """Documents."""

    documents: list[Document]
    left_out: int = Field(0, description="Documents that did not fit the answer.")


class Kept(BaseModel):
    """What was stored."""

    stored: int
    collection: str
    made: bool = Field(False, description="True if the collection was made for it.")


class Deleted(BaseModel):
    """What was deleted."""

    deleted: int


class Count(BaseModel):
    """How many."""

    count: int


class About(BaseModel):
    """A collection."""

    name: str
    documents: int
    dim: int
    metric: str


class Collections(BaseModel):
    """The collections that there are."""

    collections: list[About]
    read_only: bool
    makes_vectors_of_texts: bool


class Why(BaseModel):
    """Why a search found a document, or not."""

    fate: str = Field(
        description="found, farther (others are nearer), filtered (where leaves it out), "
        "no_vector, or how the search missed what belongs into the result: not_reranked, evicted, "
        "refused, unreached"
    )
    rank: int | None = Field(None, description="Its place in the result, from 1.")
    true_rank: int | None = Field(None, description="Its place by exact distance, from 1.")
    distance: float | None = None
    finds: dict[str, int] = Field(
        default_factory=dict, description="A change to the search that was tried and finds it."
    )
    said: str


Piece = TypeVar("Piece", bound=Document)


def hits_of(found: Sequence[Found], by: str, characters: int, limit: int) -> Hits:
    """Return hits, cut and left out so that the answer is not larger than `limit` bytes."""
    pieces = [Hit(**_parts(each, characters), score=round(float(each.score), 6)) for each in found]
    kept, left_out = _fitting(pieces, limit)
    return Hits(hits=kept, left_out=left_out, searched_by=by)


def documents_of(found: Sequence[Stored], characters: int, limit: int) -> Documents:
    """Return documents; see `hits_of`."""
    kept, left_out = _fitting([Document(**_parts(each, characters)) for each in found], limit)
    return Documents(documents=kept, left_out=left_out)


def _parts(found: Stored, characters: int) -> dict[str, Any]:
    text = found.text
    cut = text is not None and len(text) > characters
    return {
        "id": found.id,
        "text": text[:characters] if text is not None else None,
        "text_cut": cut,
        "metadata": found.metadata,
    }


def _fitting(pieces: list[Piece], limit: int) -> tuple[list[Piece], int]:
    """Return the first pieces that fit; of the first, if it alone does not, what fits of it."""
    kept: list[Piece] = []
    spent = 0
    for place, piece in enumerate(pieces):
        size = len(piece.model_dump_json().encode())
        if spent + size > limit and place == 0:
            text = piece.text
            piece = piece.model_copy(
                update={
                    # a character may be 4 bytes, or 6 as JSON writes it
                    "text": None if text is None else text[: limit // 12],
                    "text_cut": text is not None and (piece.text_cut or len(text) > limit // 12),
                    "metadata": None,
                    "metadata_left_out": True,
                }
            )
            size = len(piece.model_dump_json().encode())
        if spent + size > limit and place:
            break
        spent += size
        kept.append(piece)
    return kept, len(pieces) - len(kept)
