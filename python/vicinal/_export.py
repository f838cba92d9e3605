"""What an index holds, as tables and files of vectors; the modules for that are imported here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vicinal._state import PathLike

if TYPE_CHECKING:
    from vicinal.index import Index
    from vicinal.result import SearchResult

__all__ = ["frame", "result_to_arrow", "result_to_pandas", "to_arrow", "to_npy", "to_parquet"]


def to_arrow(index: Index) -> Any:
    """See `Index.to_arrow`."""
    from vicinal.vectors_io._write import table_of

    return table_of(index)


def to_parquet(index: Index, path: PathLike) -> None:
    """See `Index.to_parquet`."""
    from vicinal.vectors_io import write_vectors

    write_vectors(path, index, format="parquet")


def to_npy(index: Index, path: PathLike, ids_path: PathLike | None) -> None:
    """See `Index.to_npy`."""
    from vicinal.vectors_io import write_vectors

    write_vectors(path, index, format="npy", ids_path=ids_path)


def result_to_arrow(result: SearchResult) -> Any:
    """See `SearchResult.to_arrow`."""
    from vicinal.vectors_io._write import table_of_result

    return table_of_result(result.ids, result.distances)


def result_to_pandas(result: SearchResult) -> Any:
    """See `SearchResult.to_pandas`."""
    ids, distances = np.atleast_2d(result.ids), np.atleast_2d(result.distances)
    queries, ranks = np.nonzero(np.isfinite(distances))
    return frame(
        {
            "query": queries,
            "rank": ranks,
            "id": ids[queries, ranks],
            "distance": distances[queries, ranks],
        }
    )


def frame(columns: dict[str, Any]) -> Any:
    """Return a `pandas.DataFrame`; ImportError without pandas."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "vicinal: a DataFrame needs pandas, which is not installed: pip install pandas"
        ) from error
    return pandas.DataFrame(columns)
