"""Qdrant's routes about collections as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np

from vicinal.server import schemas
from vicinal.server.fields import Fields, boolean, number, one_of, refuse, string, structure, whole
from vicinal.server.problems import Problem
from vicinal.server.qdrant_filter import field_of
from vicinal.server.routes import Call, Route
from vicinal.server.store import Served

__all__ = ["DISTANCES", "ROUTES", "as_numbers"]

DISTANCES = {"Cosine": "cosine", "Dot": "ip", "Euclid": "l2"}
_NAMES = {metric: name for name, metric in DISTANCES.items()}
_DATATYPES = {"float32": "float32", "float16": "float16"}
_KINDS = ("keyword", "integer", "float", "bool", "uuid", "datetime")


def list_all(call: Call) -> Any:
    """GET /collections."""
    return {"collections": [{"name": name} for name in call.store.names()]}


def exists(call: Call) -> Any:
    """GET /collections/{name}/exists."""
    return {"exists": call.store.has(call.name)}


def create(call: Call) -> Any:
    """PUT /collections/{name}."""
    fields = Fields(call.body)
    vectors = fields.take("vectors", structure)
    name, place = "", "vectors"
    if "size" not in vectors and "distance" not in vectors:
        if len(vectors) != 1:
            raise Problem(
                400, f"vectors: this server has one vector for each point, got {len(vectors)}"
            )
        ((name, vectors),) = vectors.items()
        place = f"vectors.{name}"
        if not name:
            raise Problem(400, "vectors: expected a name that is not empty")
    parameters = _vector_parameters(Fields(vectors, place), call.limits.dim)
    hnsw = fields.maybe("hnsw_config", _hnsw)
    for key, value in (hnsw or {}).items():
        parameters.setdefault(key, value)
    fields.fixed("shard_number", 1)
    fields.fixed("replication_factor", 1)
    fields.fixed("write_consistency_factor", 1)
    fields.fixed("sharding_method", "auto")
    fields.fixed("on_disk_payload", True)
    fields.fixed("sparse_vectors", {})
    for key in ("wal_config", "optimizers_config", "quantization_config", "strict_mode_config"):
        fields.fixed(key, {})
    fields.end()
    call.store.create(call.name, name, parameters)
    return True


def _vector_parameters(fields: Fields, most: int) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "dim": fields.take("size", whole(1, most)),
        "metric": DISTANCES[fields.take("distance", one_of(*DISTANCES))],
        "dtype": _DATATYPES[fields.get("datatype", one_of(*_DATATYPES), "float32")],
    }
    parameters.update(fields.maybe("hnsw_config", _hnsw) or {})
    fields.fixed("on_disk", True)
    fields.fixed("quantization_config", {})
    fields.end()
    return parameters


def _hnsw(given: Any, name: str) -> dict[str, int]:
    fields = Fields(given, name)
    found = {
        "M": fields.maybe("m", whole(2, 512)),
        "ef_construction": fields.maybe("ef_construct", whole(4, 10_000)),
    }
    fields.end()
    return {key: value for key, value in found.items() if value is not None}


def delete(call: Call) -> Any:
    """DELETE /collections/{name}."""
    return call.store.delete(call.name)


def info(call: Call) -> Any:
    """GET /collections/{name}."""
    served = call.served
    stats = served.collection.stats()
    parameters = stats["parameters"]
    vector: dict[str, Any] = {
        "size": parameters["dim"],
        "distance": _NAMES[parameters["metric"]],
        "datatype": parameters["dtype"],
    }
    if parameters["dtype"] not in _DATATYPES or parameters["dtype"] == "float32":
        del vector["datatype"]  # what Qdrant has no name for, and its default
    return {
        "status": "green",
        "optimizer_status": "ok",
        "indexed_vectors_count": stats["indexed"],
        "points_count": stats["documents"],
        "segments_count": 1,
        "config": {
            "params": {
                "vectors": {served.vector_name: vector} if served.vector_name else vector,
                "shard_number": 1,
                "replication_factor": 1,
                "write_consistency_factor": 1,
                "on_disk_payload": True,
            },
            "hnsw_config": {
                "m": parameters["M"],
                "ef_construct": parameters["ef_construction"],
                "full_scan_threshold": 0,
                "on_disk": True,
            },
            "optimizer_config": {
                "default_segment_number": 1,
                "flush_interval_sec": 0,
                "max_optimization_threads": 1,
            },
        },
        "payload_schema": _schema(served),
    }


def _schema(served: Served) -> dict[str, Any]:
    found = {}
    for key, kind in served.fields.items():
        there = {"field": field_of(key, "key"), "op": "exists", "value": True}
        found[key] = {"data_type": kind, "points": served.collection.count(there)}
    return found


def create_index(call: Call) -> Any:
    """PUT /collections/{name}/index."""
    fields = Fields(call.body)
    key = fields.take("field_name", string)
    path = field_of(key, "field_name")
    kind = fields.take("field_schema", _kind)
    fields.end()
    served = call.served
    served.collection.create_index(path)
    if served.fields.get(key) != kind:
        served.fields = {**served.fields, key: kind}
        served.keep_note()
    return {"operation_id": 0, "status": "completed"}


def _kind(given: Any, name: str) -> str:
    if isinstance(given, str):
        return one_of(*_KINDS)(given, name)
    if not isinstance(given, dict):
        raise refuse(name, f"one of {', '.join(_KINDS)}, or an object with a type", given)
    fields = Fields(given, name)
    kind = fields.take("type", one_of(*_KINDS))
    # how the index lies, not what it finds
    for hint in ("is_tenant", "is_principal", "on_disk", "lookup", "range"):
        fields.maybe(hint, boolean)
    fields.end()
    return kind


def as_numbers(given: Any, name: str, dim: int) -> Any:
    """Return one vector of JSON as an array of float32; as many numbers as the dimension."""
    if not isinstance(given, list):
        raise refuse(name, f"an array of {dim} numbers", given)
    if len(given) != dim:
        raise Problem(
            400,
            f"{name}: Wrong input: Vector dimension error: expected dim: {dim}, got {len(given)}",
        )
    if not set(map(type, given)) <= {float, int}:
        place = next(at for at, value in enumerate(given) if type(value) not in (float, int))
        raise refuse(f"{name}[{place}]", "a number", given[place])
    with np.errstate(over="ignore"):
        found = np.array(given, np.float32)
    if not np.isfinite(found).all():
        place = int(np.flatnonzero(~np.isfinite(found))[0])
        number(given[place], f"{name}[{place}]")
        raise refuse(f"{name}[{place}]", "a number that float32 can hold", given[place])
    return found


ROUTES = (
    Route("GET", "/collections", list_all, "Names of all collections"),
    Route("GET", "/collections/{name}/exists", exists, "Whether a collection is there"),
    Route("GET", "/collections/{name}", info, "What a collection is"),
    Route(
        "PUT",
        "/collections/{name}",
        create,
        "Make a collection",
        work="write",
        body=schemas.CREATE,
        params=schemas.TIMEOUT,
    ),
    Route(
        "DELETE",
        "/collections/{name}",
        delete,
        "Delete a collection",
        work="write",
        params=schemas.TIMEOUT,
    ),
    Route(
        "PUT",
        "/collections/{name}/index",
        create_index,
        "Let filters find the values of a field by an index",
        work="write",
        queue="writer",
        body=schemas.INDEX,
        params=schemas.CHANGE,
    ),
)
