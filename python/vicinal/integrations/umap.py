"""UMAP: neighbours found beforehand, and a search index by which it transforms new rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal.integrations.sklearn import VicinalTransformer

try:
    from pynndescent import NNDescent
except ImportError as error:
    raise ImportError(
        f"this module needs umap-learn: pip install 'vicinal[umap]' ({error})"
    ) from error

__all__ = ["VicinalNNDescent", "as_nndescent", "precomputed_knn"]


class VicinalNNDescent(NNDescent):
    """What UMAP asks for the neighbours of new rows; made by `as_nndescent`.

    It is a `pynndescent.NNDescent` since UMAP looks for one; nothing of that is used. It pickles.
    """

    def __init__(self, transformer: VicinalTransformer) -> None:
        self.transformer = transformer
        self._angular_trees = transformer.metric == "cosine"

    def query(
        self, query_data: ArrayLike, k: int = 10, epsilon: float = 0.1
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return indices and distances of the k nearest fitted rows; `epsilon` is not used."""
        distances, indices = self.transformer.kneighbors(query_data, k)
        return indices.astype(np.int32), distances.astype(np.float32)

    def prepare(self, compile_search: bool = False) -> None:
        """Do nothing: there is nothing to prepare."""

    def compress_index(self) -> None:
        """Do nothing: there is nothing to leave out."""

    def update(
        self, xs_fresh: Any = None, xs_updated: Any = None, updated_indices: Any = None
    ) -> None:
        """Refuse to change: ValueError, since the fitted embedding would not follow."""
        raise ValueError("xs_fresh: this index does not change; fit UMAP anew to all rows")

    @property
    def neighbor_graph(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Indices and distances of the neighbours of the fitted rows, each itself first."""
        return _with_self(self.transformer)

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def as_nndescent(transformer: VicinalTransformer) -> VicinalNNDescent:
    """Return a search index for UMAP's `precomputed_knn`, out of a fitted transformer.

    Parameters
    ----------
    transformer : VicinalTransformer
        Fitted to the rows that UMAP is fitted to, in their order.

    Raises
    ------
    TypeError
        If it is something else.
    sklearn.exceptions.NotFittedError
        If it was not fitted.

    Notes
    -----
    Threads: any number may ask at once.
    """
    from sklearn.utils.validation import check_is_fitted

    if not isinstance(transformer, VicinalTransformer):
        raise TypeError(
            f"transformer: expected a VicinalTransformer, got {type(transformer).__name__}"
        )
    check_is_fitted(transformer)
    return VicinalNNDescent(transformer)


def precomputed_knn(
    X: ArrayLike, n_neighbors: int = 15, metric: str = "euclidean", **options: Any
) -> tuple[NDArray[np.int32], NDArray[np.float32], VicinalNNDescent]:
    """Find what UMAP wants to be given as `precomputed_knn`.

    Parameters
    ----------
    X : array_like of shape (n, dim)
        The rows that UMAP is fitted to.
    n_neighbors : int
        As many as UMAP's.
    metric : {"euclidean", "cosine"}
        UMAP's.
    **options
        Others of `VicinalTransformer`: `recall`, `n_jobs`, `random_state`, `M`, ...

    Returns
    -------
    indices : ndarray of int32, shape (n, n_neighbors)
        Every row itself first.
    distances : ndarray of float32, shape (n, n_neighbors)
    search_index : VicinalNNDescent
        By which UMAP transforms rows that it was not fitted to.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> from vicinal.integrations.umap import precomputed_knn
    >>> X = np.random.default_rng(0).standard_normal((500, 8))
    >>> indices, distances, search_index = precomputed_knn(X, 15)
    >>> indices.shape, indices[:3, 0].tolist()
    ((500, 15), [0, 1, 2])
    """
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"metric: expected 'euclidean' or 'cosine', got {metric!r}")
    transformer = VicinalTransformer(n_neighbors, metric=metric, **options)
    transformer._fit(X)  # the index is made when UMAP first asks it
    return *_with_self(transformer), VicinalNNDescent(transformer)


def _with_self(
    transformer: VicinalTransformer,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return n_neighbors columns, of which the first is the row itself."""
    rows = np.arange(transformer.n_samples_fit_, dtype=np.int32)
    if transformer.n_neighbors == 1:
        return rows[:, None], np.zeros((len(rows), 1), np.float32)
    distances, indices = transformer.kneighbors(n_neighbors=transformer.n_neighbors - 1)
    return (
        np.column_stack([rows, indices.astype(np.int32)]),
        np.column_stack([np.zeros(len(rows), np.float32), distances.astype(np.float32)]),
    )
