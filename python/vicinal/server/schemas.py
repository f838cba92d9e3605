"""JSON schemas of bodies and query strings, for OpenAPI; handlers check for themselves."""

from __future__ import annotations

from typing import Any

__all__ = ["ERROR", "several"]

Schema = dict[str, Any]


def _object(required: tuple[str, ...] = (), **properties: Any) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _either(*options: Schema) -> Schema:
    return {"anyOf": list(options)}


def _whole(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def several(schema: Schema) -> Schema:
    """Return the schema of a batch of queries."""
    return _object(("searches",), searches=_list(schema))


_STRING = {"type": "string"}
_BOOLEAN = {"type": "boolean"}
_NUMBER = {"type": "number"}
_NAME = {"type": "string", "minLength": 1}
_VECTOR = _list(_NUMBER)
_K = _whole(1, 10_000)
_ID = _either(_whole(0, 2**64 - 1), {"type": "string", "format": "uuid"})
_ANY_ID = _either(_whole(0, 2**64 - 1), _STRING)
_VECTORS = _either(_VECTOR, {"type": "object", "additionalProperties": _VECTOR})
_PAYLOAD = {"type": "object"}
_SCALAR = _either(_STRING, _BOOLEAN, _whole(-(2**63), 2**63 - 1))
_SCALARS = _either(_list(_STRING), _list(_whole(-(2**63), 2**63 - 1)))
_KEY = {"type": "string", "pattern": r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"}
_CONDITION = _either(
    _object(
        ("key", "match"),
        key=_KEY,
        match=_either(
            _object(("value",), value=_SCALAR),
            _object(("any",), any=_SCALARS),
            _object(("except",), **{"except": _SCALARS}),
            _object(("substring",), substring=_STRING),
        ),
    ),
    _object(
        ("key", "range"),
        key=_KEY,
        range=_object((), lt=_NUMBER, lte=_NUMBER, gt=_NUMBER, gte=_NUMBER),
    ),
    _object(("key", "is_empty"), key=_KEY, is_empty=_BOOLEAN),
    _object(("key", "is_null"), key=_KEY, is_null=_BOOLEAN),
    _object(("has_id",), has_id=_list(_ANY_ID)),
    _object(("is_empty",), is_empty=_object(("key",), key=_KEY)),
    _object(("is_null",), is_null=_object(("key",), key=_KEY)),
    {"$ref": "#/components/schemas/Filter"},
)
_FILTER = {"$ref": "#/components/schemas/Filter"}
_CONDITIONS = _either(_CONDITION, _list(_CONDITION))
FILTER = _object((), must=_CONDITIONS, should=_CONDITIONS, must_not=_CONDITIONS)

ERROR = {
    "type": "object",
    "properties": {
        "status": {"type": "object", "properties": {"error": _STRING}, "required": ["error"]},
        "time": _NUMBER,
    },
    "required": ["status", "time"],
}

# ---- query strings

TIMEOUT = {"timeout": _whole(1, 3600)}
CHANGE = {
    **TIMEOUT,
    "wait": _BOOLEAN,
    "ordering": {"type": "string", "enum": ["weak", "medium", "strong"]},
}
READ = {**TIMEOUT, "consistency": {"type": "string", "pattern": "^([1-9]|majority|quorum|all)$"}}

# ---- bodies of Qdrant's routes

_HNSW = _object((), m=_whole(2, 512), ef_construct=_whole(4, 10_000))
_VECTOR_PARAMS = _object(
    ("size", "distance"),
    size=_whole(1, 65_536),
    distance={"type": "string", "enum": ["Cosine", "Dot", "Euclid"]},
    datatype={"type": "string", "enum": ["float32", "float16"]},
    hnsw_config=_HNSW,
    on_disk={"type": "boolean", "enum": [True]},
)
CREATE = _object(
    ("vectors",),
    vectors=_either(
        _VECTOR_PARAMS,
        {
            "type": "object",
            "additionalProperties": _VECTOR_PARAMS,
            "minProperties": 1,
            "maxProperties": 1,
            "propertyNames": {"minLength": 1},
            "not": _either({"required": ["size"]}, {"required": ["distance"]}),
        },
    ),
    hnsw_config=_HNSW,
    shard_number=_whole(1, 1),
    replication_factor=_whole(1, 1),
    write_consistency_factor=_whole(1, 1),
    on_disk_payload={"type": "boolean", "enum": [True]},
)
INDEX = _object(
    ("field_name", "field_schema"),
    field_name=_KEY,
    field_schema={
        "type": "string",
        "enum": ["keyword", "integer", "float", "bool", "uuid", "datetime"],
    },
)
_POINT = _object(("id", "vector"), id=_ID, vector=_VECTORS, payload=_PAYLOAD)
UPSERT = _either(
    _object(("points",), points=_list(_POINT)),
    _object(
        ("batch",),
        batch=_object(
            ("ids", "vectors"),
            ids=_list(_ID),
            vectors=_either(_list(_VECTOR), {"type": "object"}),
            payloads=_list(_PAYLOAD),
        ),
    ),
)
CHOSEN = _either(_object(("points",), points=_list(_ANY_ID)), _object(("filter",), filter=_FILTER))
SET_PAYLOAD = _either(
    _object(("payload", "points"), payload=_PAYLOAD, points=_list(_ANY_ID)),
    _object(("payload", "filter"), payload=_PAYLOAD, filter=_FILTER),
)
_WITH = {
    "with_payload": _either(
        _BOOLEAN,
        _list(_KEY),
        _object(("include",), include=_list(_KEY)),
        _object(("exclude",), exclude=_list(_KEY)),
    ),
    "with_vector": _either(_BOOLEAN, _list(_STRING)),
}
RETRIEVE = _object(("ids",), ids=_list(_ANY_ID), **_WITH)
SCROLL = _object((), filter=_FILTER, limit=_K, offset=_ANY_ID, **_WITH)
COUNT = _object((), filter=_FILTER, exact=_BOOLEAN)
_SEARCHED = {
    "filter": _FILTER,
    "limit": _K,
    "offset": _whole(0, 10_000),
    "score_threshold": _NUMBER,
    "params": _object((), hnsw_ef=_K, exact=_BOOLEAN),
    **_WITH,
}
_NEAREST = _either(_VECTOR, _ANY_ID)
QUERY = _object(
    (),
    query=_either(
        _NEAREST,
        _object(
            ("nearest",),
            nearest=_NEAREST,
            mmr=_object(
                (),
                diversity={"type": "number", "minimum": 0, "maximum": 1},
                candidates_limit=_K,
            ),
        ),
    ),
    using=_STRING,
    **_SEARCHED,
)
SEARCH = _object(
    ("vector",),
    vector=_either(_VECTOR, _object(("name", "vector"), name=_STRING, vector=_VECTOR)),
    **_SEARCHED,
)

# ---- bodies of /v1

_WHERE = {"type": "object", "description": "A filter: docs/guide/collection.md"}
_EF = _whole(1, 10_000)
V1_CREATE = _object(
    ("dim",),
    dim=_whole(1, 65_536),
    metric={"type": "string", "enum": ["cosine", "ip", "l2"]},
    dtype={"type": "string", "enum": ["float32", "float16", "bfloat16", "int8", "uint8"]},
    M=_whole(2, 512),
    ef_construction=_whole(4, 10_000),
    quantization={"type": "string", "enum": ["auto", "none", "u8", "sq8", "rabitq4"]},
    analyzer=_STRING,
)
V1_UPSERT = _object(
    ("ids", "vectors"),
    ids=_list(_STRING),
    vectors=_list(_either(_VECTOR, {"type": "null"})),
    texts=_list(_either(_STRING, {"type": "null"})),
    metadata=_list(_either(_PAYLOAD, {"type": "null"})),
)
V1_GET = _object(
    (),
    ids=_list(_STRING),
    where=_WHERE,
    limit=_whole(0, 10_000),
    offset=_whole(0, 2**53),
    with_vectors=_BOOLEAN,
)
V1_DELETE = _either(
    _object(("ids",), ids=_list(_STRING), where=_WHERE), _object(("where",), where=_WHERE)
)
V1_COUNT = _object((), where=_WHERE)
V1_SEARCH = _object(
    ("vectors",),
    vectors=_list(_VECTOR),
    k=_K,
    where=_WHERE,
    ef_search=_EF,
    exact=_BOOLEAN,
    with_documents=_BOOLEAN,
    with_vectors=_BOOLEAN,
)
V1_BINARY_PARAMS = {
    "k": _K,
    "ef_search": _EF,
    "exact": _BOOLEAN,
    "where": {"type": "string", "description": "JSON; these are for bodies that are not JSON"},
}
V1_RANGE = _object(
    ("vector", "radius"),
    vector=_VECTOR,
    radius=_NUMBER,
    where=_WHERE,
    limit=_K,
    ef_search=_EF,
    with_vectors=_BOOLEAN,
)
V1_WHY_NOT = _object(
    ("vector", "id"), vector=_VECTOR, id=_STRING, k=_K, where=_WHERE, ef_search=_EF
)
V1_RECALL = _object((), vectors=_list(_VECTOR), k=_K, sample=_whole(1, 10_000), ef_search=_EF)
V1_TEXT = _object(("text",), text=_STRING, k=_K, where=_WHERE)
V1_HYBRID = _object(
    ("text", "vector"),
    text=_STRING,
    vector=_VECTOR,
    k=_K,
    where=_WHERE,
    alpha={"type": "number", "minimum": 0, "maximum": 1},
    method={"type": "string", "enum": ["relative", "rrf", "reciprocal", "linear"]},
    window=_K,
    constant={"type": "number", "exclusiveMinimum": 0},
    ef_search=_EF,
)
