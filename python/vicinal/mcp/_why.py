"""Why a document was found, or not: by searches that are compared with an exact one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vicinal._validate import MAX_COUNT
from vicinal.collection import Collection
from vicinal.mcp._answers import Why
from vicinal.mcp._folder import Refused

__all__ = ["why_not"]

_WIDEST = 4096


def why_not(
    collection: Collection, vector: Any, id: str, k: int, where: Mapping[str, Any] | None
) -> Why:
    """Return what became of a document in a search by vector."""
    (*stored,) = collection.get(ids=[id], vectors=True)
    if not stored:
        raise Refused(f"id: {id!r} is not in the collection")
    if stored[0].vector is None:
        return Why(fate="no_vector", said=f"{id!r} has no vector: searches by words may find it")
    if where is not None and not collection.get(ids=[id], where=where):
        return Why(fate="filtered", said=f"the filter leaves {id!r} out")

    def rank(**options: Any) -> tuple[int | None, float | None]:
        for place, hit in enumerate(collection.search(vector, k, where, **options), 1):
            if hit.id == id:
                return place, hit.score
        return None, None

    found, score = rank()
    # a search that wide is answered by a scan
    true, true_score = rank(ef_search=MAX_COUNT)
    if found is not None:
        return Why(
            fate="found", rank=found, true_rank=true, score=score,
            said=f"{id!r} was found, as number {found}",
        )  # fmt: skip
    if true is None:
        return Why(
            fate="farther",
            said=f"{id!r} does not belong into the result: by exact distance {k} or more others "
            "come first",
        )
    said = f"{id!r} belongs into the result as number {true}, and the walk missed it"
    finds: dict[str, int] = {}
    width = 2 * max(k, 64)
    while width <= _WIDEST and not finds:
        if rank(ef_search=width)[0] is not None:
            finds = {"ef_search": width}
            said += f"; a search width of {width} finds it"
        width *= 2
    return Why(fate="missed", true_rank=true, score=true_score, finds=finds, said=said)
