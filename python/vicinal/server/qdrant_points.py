"""Qdrant's routes about points: written, read by id, page by page, counted, deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vicinal.collection import Document
from vicinal.server import schemas
from vicinal.server.fields import Fields, array, boolean, refuse, structure, whole
from vicinal.server.problems import Problem
from vicinal.server.qdrant_collections import as_numbers
from vicinal.server.qdrant_filter import (
    field_of,
    lookup_id,
    lookup_ids,
    point_id,
    shown_id,
    where_of,
)
from vicinal.server.routes import Call, Route
from vicinal.server.store import Served

__all__ = ["ROUTES", "Shape", "filter_of", "record", "shape_of"]

_DONE = {"operation_id": 0, "status": "completed"}


def check_ordering(call: Call) -> None:
    """Refuse what the query string may not say; one writer's queue keeps all of it anyway."""
    call.flag("wait")
    if call.params.get("ordering", "weak") not in ("weak", "medium", "strong"):
        raise Problem(400, "ordering: expected weak, medium or strong")


def filter_of(fields: Fields, call: Call, key: str = "filter") -> dict[str, Any] | None:
    """Take a filter."""
    return fields.maybe(key, lambda value, name: where_of(value, name, call.limits))


# ---- writing


def upsert(call: Call) -> Any:
    """PUT /collections/{name}/points."""
    check_ordering(call)
    fields = Fields(call.body)
    most = call.limits.batch
    if fields.has("batch"):
        items = _of_batch(Fields(fields.take("batch", structure), "batch"), most)
    else:
        items = [
            _of_point(Fields(each, f"points[{place}]"))
            for place, each in enumerate(fields.take("points", array(most)))
        ]
    fields.end()
    served = call.served
    dim = served.collection.dim
    # of an id that comes twice the last counts
    points: dict[str, tuple[Any, dict[str, Any]]] = {}
    for id, vector, payload, name in items:
        points[id] = (vector_of(vector, name, dim, served.vector_name), payload)
    if points:
        payloads = [payload for _, payload in points.values()]
        served.collection.upsert(
            list(points),
            [vector for vector, _ in points.values()],
            [_text(payload, call.settings.text_field) for payload in payloads],
            payloads,
        )
    return _DONE


def _text(payload: dict[str, Any], field: str | None) -> str | None:
    found = None if field is None else payload.get(field)
    return found if isinstance(found, str) else None


def _of_point(fields: Fields) -> tuple[str, Any, dict[str, Any], str]:
    id = fields.take("id", point_id)
    vector = fields.take("vector", lambda value, _: value)
    payload = fields.maybe("payload", structure) or {}
    fields.end()
    return id, vector, payload, fields.path("vector")


def _of_batch(fields: Fields, most: int) -> list[tuple[str, Any, dict[str, Any], str]]:
    ids = fields.take("ids", array(most, point_id))
    vectors = fields.take("vectors", lambda value, _: value)
    payloads = fields.maybe("payloads", array(most))
    fields.end()
    if isinstance(vectors, dict):  # a list for each name
        if len(vectors) != 1:
            raise refuse("batch.vectors", "the vectors of one name", list(vectors))
        ((name, listed),) = vectors.items()
        vectors = [{name: each} for each in array(most)(listed, f"batch.vectors.{name}")]
    vectors = array(most)(vectors, "batch.vectors")
    for key, values in (("vectors", vectors), ("payloads", payloads)):
        if values is not None and len(values) != len(ids):
            raise Problem(400, f"batch.{key}: expected {len(ids)}, one for each id")
    said = payloads if payloads is not None else [None] * len(ids)
    return [
        (
            id,
            vector,
            {} if payload is None else structure(payload, f"batch.payloads[{place}]"),
            f"batch.vectors[{place}]",
        )
        for place, (id, vector, payload) in enumerate(zip(ids, vectors, said, strict=True))
    ]


def vector_of(given: Any, name: str, dim: int, vector_name: str) -> Any:
    """Return a point's vector as an array, or None where there is none."""
    if isinstance(given, dict):
        if not given:
            return None
        unknown = [key for key in given if key != vector_name]
        if unknown:
            raise Problem(400, f"{name}: Wrong input: Not existing vector name error: {unknown[0]}")
        return as_numbers(given[vector_name], f"{name}.{vector_name}", dim)
    if vector_name and isinstance(given, list):
        raise refuse(name, f"an object with the vector {vector_name!r}", given)
    return as_numbers(given, name, dim)


def delete(call: Call) -> Any:
    """POST /collections/{name}/points/delete."""
    check_ordering(call)
    chosen = _chosen(Fields(call.body), call)
    call.served.collection.delete(**chosen)
    return _DONE


def set_payload(call: Call) -> Any:
    """POST /collections/{name}/points/payload."""
    check_ordering(call)
    fields = Fields(call.body)
    values = fields.take("payload", structure)
    removed = [key for key, value in values.items() if value is None]
    if removed:
        raise Problem(400, f"payload.{removed[0]}: this server cannot remove a key by null")
    chosen = _chosen(fields, call)
    field = call.settings.text_field
    if field is not None and field in values:
        raise Problem(
            400,
            f"payload.{field}: it is the text of documents here, which only an upsert changes",
        )
    collection = call.served.collection
    changed = collection.update_metadata(values=values, **chosen)
    ids = chosen.get("ids", [])
    if changed < len(ids):  # the others are changed all the same: as Qdrant does it
        missing = next((id for id in ids if id not in collection), ids[0])
        raise Problem(404, f"points: Not found: No point with id {missing} found")
    return _DONE


def _chosen(fields: Fields, call: Call) -> dict[str, Any]:
    """Take the ids or the filter of a change; the last fields of a body."""
    given = fields.maybe("points", array(call.limits.batch))
    where = filter_of(fields, call)
    fields.end()
    if (given is None) == (where is None):
        raise Problem(400, "points: expected either points or filter")
    if given is None:
        return {"where": where}
    return {"ids": list(dict.fromkeys(lookup_ids(given, "points")))}


# ---- reading


class Shape:
    """Which parts of points an answer has."""

    def __init__(
        self, payload: Callable[[dict[str, Any]], dict[str, Any]] | None, vector: bool
    ) -> None:
        self.payload = payload
        self.vector = vector

    def of(self, document: Document, vector_name: str) -> dict[str, Any]:
        """Return a document as a point."""
        point: dict[str, Any] = {"id": shown_id(document.id)}
        if self.payload is not None:
            point["payload"] = self.payload(document.metadata)
        if self.vector:
            stored = document.vector
            if stored is None:
                point["vector"] = {}
            else:
                listed = stored.tolist()
                point["vector"] = {vector_name: listed} if vector_name else listed
        return point


def record(document: Document, shape: Shape, served: Served) -> dict[str, Any]:
    """Return a document as a record of Qdrant's."""
    return shape.of(document, served.vector_name)


def shape_of(fields: Fields, served: Served, payload: bool) -> Shape:
    """Take `with_payload` and `with_vector`; `payload` is the default of the former."""
    chosen = fields.maybe("with_payload", _payload)
    if chosen is None:
        chosen = (lambda whole: whole) if payload else _nothing
    names = [served.vector_name]

    def vector(value: Any, name: str) -> bool:
        if isinstance(value, list):
            unknown = [each for each in value if each not in names or not isinstance(each, str)]
            if unknown:
                raise refuse(name, f"names of vectors, which are {names}", value)
            return bool(value)
        return boolean(value, name)

    return Shape(None if chosen is _nothing else chosen, fields.get("with_vector", vector, False))


def _nothing(_: dict[str, Any]) -> dict[str, Any]:
    return {}


def _payload(given: Any, name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what picks the keys of a payload that are asked for."""
    if isinstance(given, bool):
        return (lambda whole: whole) if given else _nothing
    if isinstance(given, list):
        given = {"include": given}
    fields = Fields(given, name)
    if len(given) != 1:
        raise refuse(name, "true, false, an array of names, include or exclude", given)
    include = fields.maybe("include", array(1000, _key))
    exclude = fields.maybe("exclude", array(1000, _key))
    fields.end()
    if include is not None:
        return lambda whole: {key: value for key, value in whole.items() if key in include}
    left_out = exclude or []
    return lambda whole: {key: value for key, value in whole.items() if key not in left_out}


def _key(given: Any, name: str) -> str:
    path = field_of(given, name)
    if len(path) > 1:
        raise refuse(name, "one key of the payload, not a path into it", given)
    return path[0]


def retrieve(call: Call) -> Any:
    """POST /collections/{name}/points."""
    fields = Fields(call.body)
    ids = lookup_ids(fields.take("ids", array(call.limits.batch)), "ids")
    shape = shape_of(fields, call.served, True)
    fields.end()
    distinct = list(dict.fromkeys(ids))
    listed = call.served.collection.get(distinct, vectors=shape.vector)
    found = {each.id: record(each, shape, call.served) for each in listed}
    return [found[id] for id in ids if id in found]


def scroll(call: Call) -> Any:
    """POST /collections/{name}/points/scroll."""
    fields = Fields(call.body)
    where = filter_of(fields, call)
    limit = fields.get("limit", whole(1, call.limits.k), 10)
    start = fields.maybe("offset", lookup_id)
    shape = shape_of(fields, call.served, True)
    fields.end()
    found = call.served.collection.get_by_id_order(start, limit + 1, where, vectors=shape.vector)
    more = shown_id(found[limit].id) if len(found) > limit else None
    points = [record(each, shape, call.served) for each in found[:limit]]
    return {"points": points, "next_page_offset": more}


def count(call: Call) -> Any:
    """POST /collections/{name}/points/count."""
    fields = Fields(call.body)
    where = filter_of(fields, call)
    fields.maybe("exact", boolean)  # it is exact in any case
    fields.end()
    return {"count": call.served.collection.count(where)}


_POINTS = "/collections/{name}/points"
ROUTES = (
    Route(
        "PUT",
        _POINTS,
        upsert,
        "Write points",
        work="write",
        queue="writer",
        body=schemas.UPSERT,
        params=schemas.CHANGE,
    ),
    Route(
        "POST",
        f"{_POINTS}/delete",
        delete,
        "Delete points",
        work="write",
        queue="writer",
        body=schemas.CHOSEN,
        params=schemas.CHANGE,
    ),
    Route(
        "POST",
        f"{_POINTS}/payload",
        set_payload,
        "Set keys of payloads",
        work="write",
        queue="writer",
        body=schemas.SET_PAYLOAD,
        params=schemas.CHANGE,
    ),
    Route(
        "POST",
        _POINTS,
        retrieve,
        "Points of ids",
        body=schemas.RETRIEVE,
        params=schemas.READ,
    ),
    Route(
        "POST",
        f"{_POINTS}/scroll",
        scroll,
        "Points in the order of ids, page by page",
        body=schemas.SCROLL,
        params=schemas.READ,
    ),
    Route(
        "POST",
        f"{_POINTS}/count",
        count,
        "How many points a filter finds",
        body=schemas.COUNT,
        params=schemas.READ,
    ),
)
