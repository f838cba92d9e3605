"""Our own routes: what collections do that Qdrant's API has no words for, and binary bodies."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import orjson

from vicinal.collection import Hit
from vicinal.server import schemas
from vicinal.server.binary import (
    ARROW,
    NPY,
    arrow_hits,
    arrow_table,
    metadata_of,
    npy_bytes,
    read_arrays,
)
from vicinal.server.fields import (
    Fields,
    array,
    boolean,
    number,
    one_of,
    refuse,
    string,
    structure,
    whole,
)
from vicinal.server.problems import Problem
from vicinal.server.qdrant_collections import as_numbers
from vicinal.server.routes import Answer, Call, Route

__all__ = ["ROUTES"]

_METRICS = ("cosine", "ip", "l2")
_DTYPES = ("float32", "float16", "bfloat16", "int8", "uint8")


def where_in(fields: Fields, call: Call) -> dict[str, Any] | None:
    """Take `where`, a filter in the language of collections."""
    return fields.maybe("where", lambda value, name: _checked(value, name, call.limits.depth))


def _checked(value: Any, name: str, depth: int) -> dict[str, Any]:
    where = structure(value, name)
    level: list[Any] = [where]
    for _ in range(depth):
        inner: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                for key in ("and", "or", "not", "value"):
                    below = node.get(key)
                    inner += below if isinstance(below, list) and key != "value" else [below]
        level = [node for node in inner if isinstance(node, dict)]
        if not level:
            return where
    raise Problem(400, f"{name}: expected at most {depth} levels, got more")


def hit(found: Hit, vectors: bool) -> dict[str, Any]:
    """Return a hit as JSON has it."""
    said: dict[str, Any] = {
        "id": found.id,
        "text": found.text,
        "metadata": found.metadata,
        "score": found.score,
        "distance": found.distance,
    }
    for name in ("vector_rank", "text_rank", "text_score"):
        value = getattr(found, name)
        if value is not None:
            said[name] = value
    if vectors and found.vector is not None:
        said["vector"] = found.vector.tolist()
    return said


# ---- collections


def stats(call: Call) -> Any:
    """GET /v1/collections/{name}."""
    return call.served.collection.stats()


def create(call: Call) -> Any:
    """PUT /v1/collections/{name}."""
    fields = Fields(call.body)
    parameters = {
        "dim": fields.take("dim", whole(1, call.limits.dim)),
        "metric": fields.get("metric", one_of(*_METRICS), "cosine"),
        "dtype": fields.maybe("dtype", one_of(*_DTYPES)),
        "M": fields.maybe("M", whole(2, 512)),
        "ef_construction": fields.maybe("ef_construction", whole(4, 10_000)),
        "quantization": fields.maybe(
            "quantization", one_of("auto", "none", "u8", "sq8", "rabitq4")
        ),
        "analyzer": fields.maybe("analyzer", string),
    }
    fields.end()
    given = {key: value for key, value in parameters.items() if value is not None}
    if given.get("quantization") == "none":
        given["quantization"] = None
    call.store.create(call.name, "", given)
    return True


def checkpoint(call: Call) -> Any:
    """POST /v1/collections/{name}/checkpoint."""
    call.served.collection.checkpoint()
    return call.served.collection.stats()


# ---- documents


def upsert(call: Call) -> Any:
    """POST /v1/collections/{name}/documents."""
    collection, most = call.served.collection, call.limits.batch
    if call.media_type == NPY:
        ids, vectors = read_arrays(call.raw, 2)
        names = _names(ids)
        texts = metadata = None
        rows: Any = vectors
    elif call.media_type == ARROW:
        columns = ("id", "vector", "text", "metadata")
        table = arrow_table(call.raw, columns, collection.dim, most)
        if "id" not in table:
            raise Problem(400, "body: expected a column id")
        names = [str(each) if type(each) is int else each for each in table["id"]]
        rows, texts = table["vector"], table.get("text")
        metadata = metadata_of(table["metadata"], "metadata") if "metadata" in table else None
    else:
        fields = Fields(call.body)
        names = fields.take("ids", array(most, string))
        rows = fields.take("vectors", array(most))
        texts = fields.maybe("texts", array(most))
        metadata = fields.maybe("metadata", array(most))
        fields.end()
        rows = [
            None if row is None else as_numbers(row, f"vectors[{place}]", collection.dim)
            for place, row in enumerate(rows)
        ]
    if len(names) > most:
        raise Problem(400, f"ids: expected at most {most}, got {len(names)}")
    collection.upsert(names, rows, texts, metadata)
    return {"written": len(names)}


def _names(ids: Any) -> list[str]:
    if ids.ndim != 1 or ids.dtype.kind not in "iuU":
        raise Problem(400, f"ids: expected whole numbers or strings of shape (n,), got {ids.dtype}")
    found: list[str] = ids.astype(np.str_).tolist()
    return found


def get(call: Call) -> Any:
    """POST /v1/collections/{name}/get."""
    fields = Fields(call.body)
    ids = fields.maybe("ids", array(call.limits.batch, string))
    where = where_in(fields, call)
    limit = fields.get("limit", whole(0, call.limits.k), min(100, call.limits.k))
    offset = fields.get("offset", whole(0, 2**53), 0)
    vectors = fields.get("with_vectors", boolean, False)
    fields.end()
    found = call.served.collection.get(ids, where, limit, offset, vectors=vectors)
    return [
        {
            "id": each.id,
            "text": each.text,
            "metadata": each.metadata,
            **(
                {"vector": None if each.vector is None else each.vector.tolist()} if vectors else {}
            ),
        }
        for each in found
    ]


def delete(call: Call) -> Any:
    """POST /v1/collections/{name}/delete."""
    fields = Fields(call.body)
    ids = fields.maybe("ids", array(call.limits.batch, string))
    where = where_in(fields, call)
    fields.end()
    return {"deleted": call.served.collection.delete(ids, where)}


def count(call: Call) -> Any:
    """POST /v1/collections/{name}/count."""
    fields = Fields(call.body)
    where = where_in(fields, call)
    fields.end()
    return {"count": call.served.collection.count(where)}


# ---- searching


def search(call: Call) -> Any:
    """POST /v1/collections/{name}/search."""
    if call.media_type in (NPY, ARROW):
        return _search_binary(call)
    fields = Fields(call.body)
    dim = call.served.collection.dim
    given = fields.take("vectors", array(call.limits.batch))
    k = fields.get("k", whole(1, call.limits.k), 10)
    _check_answers(call, len(given), k)
    where = where_in(fields, call)
    ef = fields.maybe("ef_search", whole(1, call.limits.ef))
    exact = fields.get("exact", boolean, False)
    documents = fields.get("with_documents", boolean, True)
    vectors = fields.get("with_vectors", boolean, False)
    fields.end()
    rows = [as_numbers(each, f"vectors[{place}]", dim) for place, each in enumerate(given)]
    queries = np.array(rows, np.float32).reshape(-1, dim)
    if documents or vectors:
        lists = call.served.collection.search(
            queries,
            k,
            where,
            ef_search=ef,
            exact=exact,
            vectors=vectors,
            num_threads=1 if len(rows) == 1 else None,
        )
        return _answer(call, [[hit(each, vectors) for each in hits] for hits in lists])
    ids, distances = _arrays(call, queries, k, where, ef, exact)
    return _answer(
        call,
        [
            [{"id": id, "distance": far} for id, far in zip(*line, strict=True) if id is not None]
            for line in zip(ids.tolist(), distances.tolist(), strict=True)
        ],
    )


def _answer(call: Call, hits: list[Any]) -> Any:
    if call.accepts in (NPY, ARROW):
        raise Problem(406, "accept: bodies of JSON are answered in JSON")
    return hits


def _check_answers(call: Call, queries: int, k: int) -> None:
    if queries > call.limits.batch:
        raise Problem(400, f"vectors: expected at most {call.limits.batch}, got {queries}")
    if queries * k > call.limits.answers:
        raise Problem(400, f"k: expected at most {call.limits.answers} results of all queries")


def _search_binary(call: Call) -> Answer:
    """Search for vectors in a body of .npy or Arrow; what else is asked is in the query string."""
    dim = call.served.collection.dim
    if call.media_type == NPY:
        (queries,) = read_arrays(call.raw, 1)
    else:
        queries = arrow_table(call.raw, ("vector",), dim, call.limits.batch)["vector"]
    if queries.ndim != 2 or queries.shape[1] != dim or queries.dtype.kind not in "fiu":
        raise Problem(
            400, f"body: expected numbers of shape (n, {dim}), got {queries.dtype} {queries.shape}"
        )
    k = call.whole("k", 1, call.limits.k) or 10
    _check_answers(call, len(queries), k)
    where = None
    if "where" in call.params:
        try:
            where = _checked(orjson.loads(call.params["where"]), "where", call.limits.depth)
        except orjson.JSONDecodeError as error:
            raise Problem(400, f"where: expected JSON: {error}") from None
    ef, exact = call.whole("ef_search", 1, call.limits.ef), call.flag("exact") or False
    ids, distances = _arrays(call, queries, k, where, ef, exact)
    wanted = call.accepts if call.accepts in (NPY, ARROW) else call.media_type
    if wanted == ARROW:
        return Answer(arrow_hits(ids, distances), ARROW)
    return Answer(npy_bytes(ids, distances), NPY)


def _arrays(
    call: Call, queries: Any, k: int, where: dict[str, Any] | None, ef: int | None, exact: bool
) -> tuple[Any, Any]:
    return call.served.collection.search_ids(
        queries,
        k,
        where,
        ef_search=ef,
        exact=exact,
        num_threads=1 if len(queries) == 1 else None,
    )


def _vector(fields: Fields, call: Call) -> Any:
    dim = call.served.collection.dim
    return fields.take("vector", lambda value, name: as_numbers(value, name, dim))


def within(call: Call) -> Any:
    """POST /v1/collections/{name}/range."""
    fields = Fields(call.body)
    vector = _vector(fields, call)
    radius = fields.take("radius", number)
    where = where_in(fields, call)
    limit = fields.get("limit", whole(1, call.limits.k), call.limits.k)
    ef = fields.maybe("ef_search", whole(1, call.limits.ef))
    vectors = fields.get("with_vectors", boolean, False)
    fields.end()
    found = call.served.collection.range_search(
        vector, radius, where, limit, ef_search=ef, vectors=vectors
    )
    return [hit(each, vectors) for each in found]


def why_not(call: Call) -> Any:
    """POST /v1/collections/{name}/why-not."""
    fields = Fields(call.body)
    vector = _vector(fields, call)
    id = fields.take("id", string)
    k = fields.get("k", whole(1, call.limits.k), 10)
    where = where_in(fields, call)
    ef = fields.maybe("ef_search", whole(1, call.limits.ef))
    fields.end()
    return dataclasses.asdict(call.served.collection.why_not(vector, id, k, where, ef_search=ef))


def recall(call: Call) -> Any:
    """POST /v1/collections/{name}/recall."""
    fields = Fields(call.body)
    dim = call.served.collection.dim
    given = fields.maybe("vectors", array(call.limits.batch))
    k = fields.get("k", whole(1, call.limits.k), 10)
    sample = fields.get("sample", whole(1, call.limits.batch), 200)
    ef = fields.maybe("ef_search", whole(1, call.limits.ef))
    fields.end()
    queries = None
    if given is not None:
        if not given:
            raise refuse("vectors", "at least one vector", given)
        queries = np.array([as_numbers(v, f"vectors[{n}]", dim) for n, v in enumerate(given)])
    measured = call.served.collection.measure_recall(queries, k, sample, ef_search=ef)
    call.served.recall = float(measured.recall)
    return dataclasses.asdict(measured)


def text(call: Call) -> Any:
    """POST /v1/collections/{name}/text."""
    fields = Fields(call.body)
    words = fields.take("text", string)
    k = fields.get("k", whole(1, call.limits.k), 10)
    where = where_in(fields, call)
    fields.end()
    return [hit(each, False) for each in call.served.collection.search_text(words, k, where)]


def hybrid(call: Call) -> Any:
    """POST /v1/collections/{name}/hybrid."""
    fields = Fields(call.body)
    words = fields.take("text", string)
    vector = _vector(fields, call)
    k = fields.get("k", whole(1, call.limits.k), 10)
    where = where_in(fields, call)
    options = {
        "alpha": fields.maybe("alpha", number),
        "method": fields.maybe("method", one_of("relative", "rrf", "reciprocal", "linear")),
        "window": fields.maybe("window", whole(1, call.limits.k)),
        "constant": fields.maybe("constant", number),
        "ef_search": fields.maybe("ef_search", whole(1, call.limits.ef)),
    }
    fields.end()
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    found = call.served.collection.search_hybrid(words, vector, k, where, **given)
    return [hit(each, False) for each in found]


_ONE = "/v1/collections/{name}"
_BINARY = (NPY, ARROW)
ROUTES = (
    Route("GET", _ONE, stats, "Figures of a collection"),
    Route("PUT", _ONE, create, "Make a collection", work="write", body=schemas.V1_CREATE),
    Route("POST", f"{_ONE}/checkpoint", checkpoint, "Save what is pending", work="write"),
    Route(
        "POST",
        f"{_ONE}/documents",
        upsert,
        "Write documents",
        work="write",
        queue="writer",
        body=schemas.V1_UPSERT,
        media=_BINARY,
    ),
    Route("POST", f"{_ONE}/get", get, "Documents of ids or a filter", body=schemas.V1_GET),
    Route(
        "POST",
        f"{_ONE}/delete",
        delete,
        "Delete documents",
        work="write",
        queue="writer",
        body=schemas.V1_DELETE,
    ),
    Route("POST", f"{_ONE}/count", count, "How many a filter finds", body=schemas.V1_COUNT),
    Route(
        "POST",
        f"{_ONE}/search",
        search,
        "The nearest documents of vectors",
        body=schemas.V1_SEARCH,
        media=_BINARY,
        params=schemas.V1_BINARY_PARAMS,
    ),
    Route("POST", f"{_ONE}/range", within, "All within a distance", body=schemas.V1_RANGE),
    Route("POST", f"{_ONE}/why-not", why_not, "Why one was not found", body=schemas.V1_WHY_NOT),
    Route("POST", f"{_ONE}/recall", recall, "Measure the recall", body=schemas.V1_RECALL),
    Route("POST", f"{_ONE}/text", text, "Search by words", body=schemas.V1_TEXT),
    Route("POST", f"{_ONE}/hybrid", hybrid, "By words and vector", body=schemas.V1_HYBRID),
)
