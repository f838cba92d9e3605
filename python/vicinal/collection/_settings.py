"""What a collection is made with, and whether what is given agrees with a folder."""

from __future__ import annotations

import os
from typing import Any

from vicinal.collection._database import Database
from vicinal.collection._view import new_index

__all__ = ["settings_for"]

_INDEX = ("dtype", "M", "ef_construction", "quantization", "seed")


def settings_for(
    database: Database,
    read_only: bool,
    dim: int | None,
    metric: str | None,
    analyzer: Any,
    parameters: dict[str, Any],
) -> dict[str, Any]:
    """Return the settings of a folder, of which a collection is made if it has none.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or other than in the folder.
    FileNotFoundError
        If there is none and nothing may be written.
    """
    unknown = sorted(set(parameters) - set(_INDEX))
    if unknown:
        raise TypeError(f"index_parameters: expected {', '.join(_INDEX)}, got {unknown[0]!r}")
    named = analyzer_name(analyzer)
    given = {"dim": dim, "metric": metric, **parameters}
    found = database.settings() if os.path.isdir(database.folder) else None
    if found is None:
        if read_only:
            raise FileNotFoundError(2, "there is no collection", database.folder)
        if dim is None:
            raise ValueError("dim: expected the dimension of a new collection, got None")
        index = new_index({**given, "metric": "cosine" if metric is None else metric})
        quantization = parameters.get("quantization", "auto")
        made = {
            "dim": index.dim,
            "metric": index.metric,
            "dtype": index.dtype,
            "M": index.M,
            "ef_construction": index.ef_construction,
            "quantization": quantization,
            "seed": index.seed,
        }
        os.makedirs(database.folder, exist_ok=True)
        found = database.create({"index": made, "analyzer": named or "default"})
    kept = dict(found["index"])
    for name, value in given.items():
        if name in ("dim", "metric") and value is None:
            continue
        wanted = getattr(new_index({**kept, name: value}), name, value)
        if wanted != kept[name]:
            raise ValueError(f"{name}: the collection was made with {kept[name]!r}, got {value!r}")
    if named is not None and named != found["analyzer"]:
        raise ValueError(
            f"analyzer: the collection was made with {found['analyzer']!r}, got {named!r}"
        )
    return found


def analyzer_name(analyzer: Any) -> str | None:
    """Return the name by which a folder remembers an analyzer."""
    if analyzer is None:
        return None
    if isinstance(analyzer, str):
        from vicinal.collection._analyzers import check_name

        return check_name(analyzer)
    if callable(analyzer):
        return "callable"
    raise TypeError(f"analyzer: expected a name or a callable, got {type(analyzer).__name__}")
