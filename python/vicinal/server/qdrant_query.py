"""Qdrant's queries: the nearest points of a vector or a point, diverse ones, all by their ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicinal.collection import Document, Hit
from vicinal.server import schemas
from vicinal.server.fields import Fields, array, boolean, number, refuse, string, structure, whole
from vicinal.server.problems import Problem
from vicinal.server.qdrant_collections import as_numbers
from vicinal.server.qdrant_filter import lookup_id
from vicinal.server.qdrant_points import Shape, filter_of, shape_of
from vicinal.server.routes import Call, Route
from vicinal.server.store import Served

__all__ = ["ROUTES"]

_KINDS = ("recommend", "discover", "context", "order_by", "fusion", "rrf", "formula", "sample")


@dataclass
class Query:
    """One query, checked."""

    vector: NDArray[Any] | None  # None: all points by their ids
    where: dict[str, Any] | None
    limit: int
    offset: int
    threshold: float | None
    ef: int | None
    exact: bool
    shape: Shape
    without: str | None = None  # the point whose vector it is
    diversity: float | None = None
    candidates: int = 0

    @property
    def k(self) -> int:
        """Results to look for."""
        wanted = self.limit + self.offset if self.diversity is None else self.candidates
        return wanted + (self.without is not None)

    def same_search(self, other: Query) -> bool:
        """Tell whether one batch can answer both."""
        return (
            self.vector is not None
            and other.vector is not None
            and (self.where, self.k, self.ef, self.exact, self.wants_vectors)
            == (other.where, other.k, other.ef, other.exact, other.wants_vectors)
        )

    @property
    def wants_vectors(self) -> bool:
        """Whether the hits need their vectors."""
        return self.shape.vector or self.diversity is not None


def read_query(call: Call, fields: Fields, legacy: bool = False) -> Query:
    """Take a query; `legacy` is that of the older /points/search."""
    served, limits = call.served, call.limits
    limit = fields.get("limit", whole(1, limits.k), 10)
    offset = fields.get("offset", whole(0, limits.k), 0)
    if limit + offset > limits.k:
        raise Problem(
            400, f"{fields.path('limit')}: expected limit + offset up to {limits.k}, the limit here"
        )
    where = filter_of(fields, call)
    threshold = fields.maybe("score_threshold", number)
    ef, exact = _params(fields, limits.ef)
    query = Query(
        *(None, where, limit, offset, threshold, ef, exact), shape_of(fields, served, False)
    )
    if legacy:
        _legacy_vector(call, fields, query)
    else:
        using = fields.get("using", string, "")
        if fields.has("query"):
            _read_vector(call, fields, query)
        if using != served.vector_name and (using or query.vector is not None):
            name = using or "(the unnamed one)"
            raise Problem(
                400,
                f"{fields.path('using')}: Wrong input: Not existing vector name error: {name}",
            )
    fields.end()
    return query


def _params(fields: Fields, most: int) -> tuple[int | None, bool]:
    if not fields.has("params"):
        fields.maybe("params", structure)
        return None, False
    params = Fields(fields.take("params", structure), fields.path("params"))
    ef = params.maybe("hnsw_ef", whole(1, most))
    exact = params.get("exact", boolean, False)
    params.fixed("indexed_only", False)
    params.end()
    return ef, exact


def _read_vector(call: Call, fields: Fields, query: Query) -> None:
    """Take `query`: a vector, an id, or an object with `nearest`."""
    name = fields.path("query")
    given = fields.take("query", lambda value, _: value)
    if isinstance(given, dict):
        kind = next((key for key in _KINDS if given.get(key) is not None), None)
        if kind is not None:
            raise Problem(400, f"{name}.{kind}: this server does not have it; it has nearest")
        inner = Fields(given, name)
        nearest = inner.take("nearest", lambda value, _: value)
        mmr = inner.maybe("mmr", structure)
        inner.end()
        if mmr is not None:
            _read_mmr(call, Fields(mmr, f"{name}.mmr"), query)
        given, name = nearest, f"{name}.nearest"
    served = call.served
    if isinstance(given, list):
        query.vector = as_numbers(given, name, served.collection.dim)
        return
    if not isinstance(given, (str, int)) or isinstance(given, bool):
        raise refuse(name, "an array of numbers or the id of a point", given)
    query.without = lookup_id(given, name)
    found = served.collection.get([query.without], vectors=True)
    if not found or found[0].vector is None:
        raise Problem(404, f"{name}: Not found: No point with id {given} found, or no vector of it")
    query.vector = found[0].vector.astype(np.float32)


def _read_mmr(call: Call, fields: Fields, query: Query) -> None:
    diversity = fields.get("diversity", number, 0.5)
    if not 0 <= diversity <= 1:
        raise refuse(fields.path("diversity"), "a number from 0 to 1", diversity)
    query.diversity = diversity
    query.candidates = fields.get("candidates_limit", whole(1, call.limits.k), query.limit)
    fields.end()


def _legacy_vector(call: Call, fields: Fields, query: Query) -> None:
    given, name = fields.take("vector", lambda value, _: value), fields.path("vector")
    served, using = call.served, ""
    if isinstance(given, dict):
        inner = Fields(given, name)
        using = inner.take("name", string)
        given, name = inner.take("vector", lambda value, _: value), f"{name}.vector"
        inner.end()
    if using != served.vector_name:
        raise Problem(400, f"{name}: Wrong input: Not existing vector name error: {using}")
    query.vector = as_numbers(given, name, served.collection.dim)


# ---- answering


def answer(call: Call, queries: list[Query]) -> list[list[dict[str, Any]]]:
    """Return the scored points of each query; neighbours in the list that agree are one batch."""
    if sum(query.k for query in queries) > call.limits.answers:
        raise Problem(
            400, f"limit: expected at most {call.limits.answers} results of all queries together"
        )
    answers: list[list[dict[str, Any]]] = []
    place = 0
    while place < len(queries):
        end = place + 1
        while end < len(queries) and queries[place].same_search(queries[end]):
            end += 1
        answers += _answer_alike(call.served, queries[place:end])
        place = end
    return answers


def _answer_alike(served: Served, queries: list[Query]) -> list[list[dict[str, Any]]]:
    first = queries[0]
    if first.vector is None:
        return [_all_by_id(served, first)]
    vectors = np.stack([query.vector for query in queries if query.vector is not None])
    lists = served.collection.search(
        vectors,
        first.k,
        first.where,
        ef_search=first.ef,
        exact=first.exact,
        vectors=first.wants_vectors,
        num_threads=1 if len(queries) == 1 else None,
    )
    return [_points(served, query, hits) for query, hits in zip(queries, lists, strict=True)]


def _points(served: Served, query: Query, hits: list[Hit]) -> list[dict[str, Any]]:
    metric = served.collection.metric
    scored = [
        (hit, score_of(metric, hit.distance))
        for hit in hits
        if hit.distance is not None and hit.id != query.without
    ]
    bound = query.threshold
    if bound is not None:
        scored = [
            each for each in scored if (each[1] < bound if metric == "l2" else each[1] > bound)
        ]
    if query.diversity is not None:
        scored = scored[: query.candidates]
        order = _diverse(metric, query, [hit for hit, _ in scored])
        scored = [scored[place] for place in order]
    return [
        _scored(hit, score, query.shape, served)
        for hit, score in scored[query.offset : query.offset + query.limit]
    ]


def score_of(metric: str, distance: float) -> float:
    """Return Qdrant's score: the length itself for Euclid, the product for the others."""
    return max(distance, 0.0) ** 0.5 if metric == "l2" else 1 - distance


def _scored(found: Document, score: float, shape: Shape, served: Served) -> dict[str, Any]:
    return {**shape.of(found, served.vector_name), "version": 0, "score": score}


def _all_by_id(served: Served, query: Query) -> list[dict[str, Any]]:
    found = served.collection.get_by_id_order(
        None, query.limit + query.offset, query.where, vectors=query.shape.vector
    )
    return [_scored(each, 1.0, query.shape, served) for each in found[query.offset :]]


def _diverse(metric: str, query: Query, hits: list[Hit]) -> list[int]:
    """Return places of hits by maximal marginal relevance: near to the query, far from each other.

    Of equal ones the last is taken, and the last candidate moves into the gap: as Qdrant does it.
    """
    assert query.vector is not None and query.diversity is not None
    if not hits:
        return []
    rows = np.array([hit.vector for hit in hits], np.float32)
    one = query.vector
    if metric == "cosine":
        one = one / np.linalg.norm(one)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    relevance = -((rows - one) ** 2).sum(axis=1) if metric == "l2" else rows @ one
    waiting = list(range(len(hits)))
    chosen = [_take(waiting, relevance)]
    nearest = np.full(len(hits), -np.inf, np.float32)
    while waiting and len(chosen) < query.limit + query.offset:
        last = rows[chosen[-1]]
        alike = -((rows - last) ** 2).sum(axis=1) if metric == "l2" else rows @ last
        nearest = np.maximum(nearest, alike)
        scores = (1 - query.diversity) * relevance - query.diversity * nearest
        chosen.append(_take(waiting, scores[waiting]))
    return chosen


def _take(waiting: list[int], scores: NDArray[Any]) -> int:
    """Take the best out of those that wait; `scores` are in their order."""
    place = len(scores) - 1 - int(np.argmax(scores[::-1]))
    best = waiting[place]
    waiting[place] = waiting[-1]
    waiting.pop()
    return best


def query(call: Call) -> Any:
    """POST /collections/{name}/points/query."""
    (points,) = answer(call, [read_query(call, Fields(call.body))])
    return {"points": points}


def query_batch(call: Call) -> Any:
    """POST /collections/{name}/points/query/batch."""
    return [{"points": points} for points in answer(call, _several(call))]


def search(call: Call) -> Any:
    """POST /collections/{name}/points/search."""
    (points,) = answer(call, [read_query(call, Fields(call.body), True)])
    return points


def search_batch(call: Call) -> Any:
    """POST /collections/{name}/points/search/batch."""
    return answer(call, _several(call, True))


def _several(call: Call, legacy: bool = False) -> list[Query]:
    fields = Fields(call.body)
    searches = fields.take("searches", array(call.limits.batch))
    fields.end()
    return [
        read_query(call, Fields(each, f"searches[{place}]"), legacy)
        for place, each in enumerate(searches)
    ]


_POINTS = "/collections/{name}/points"
ROUTES = (
    Route(
        "POST",
        f"{_POINTS}/query",
        query,
        "The nearest points",
        body=schemas.QUERY,
        params=schemas.READ,
    ),
    Route(
        "POST",
        f"{_POINTS}/query/batch",
        query_batch,
        "The nearest points of several vectors",
        body=schemas.several(schemas.QUERY),
        params=schemas.READ,
    ),
    Route(
        "POST",
        f"{_POINTS}/search",
        search,
        "The nearest points, as older clients ask for them",
        body=schemas.SEARCH,
        params=schemas.READ,
    ),
    Route(
        "POST",
        f"{_POINTS}/search/batch",
        search_batch,
        "The nearest points of several vectors, as older clients ask for them",
        body=schemas.several(schemas.SEARCH),
        params=schemas.READ,
    ),
)
