"""scikit-learn: neighbours by an index where an estimator takes a graph of them.

Needs the extra `sklearn`: pip install 'vicinal[sklearn]'.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _validate
from vicinal.index import Index
from vicinal.knn_graph import SAMPLE, knn_graph, least_width, search_all, without_self

try:
    from scipy.sparse.csgraph import connected_components
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data

    from vicinal.integrations._sparse_graphs import both_ways, symmetric_graph, to_csr
except ImportError as error:
    raise ImportError(
        f"vicinal.integrations.sklearn needs scikit-learn 1.6 or newer ({error}): "
        "pip install 'vicinal[sklearn]'"
    ) from error

__all__ = ["VicinalTransformer", "symmetric_graph"]

# name: metric of the index, and whether the root of its distance is wanted
METRICS = {
    "euclidean": ("l2", True),
    "l2": ("l2", True),
    "minkowski": ("l2", True),
    "sqeuclidean": ("l2", False),
    "cosine": ("cosine", False),
    "ip": ("ip", False),
}
MODES = ("distance", "connectivity")
_BUILDING = threading.Lock()
# Rows of a part of a graph from which a bridge to the rest is looked for.
_BRIDGEHEADS = 64


class VicinalTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Rows into the sparse graph of their nearest neighbours among the rows it was fitted to.

    Takes the place of `sklearn.neighbors.KNeighborsTransformer` in front of estimators with
    `metric="precomputed"`, and of `NearestNeighbors` where `kneighbors` is called.

    Parameters
    ----------
    n_neighbors : int
        Neighbours of a row. With mode "distance" one more is given, as `KNeighborsTransformer`
        does, for estimators that do not count a row as its own neighbour.
    mode : {"distance", "connectivity"}
        What stands in the graph: distances, or ones.
    metric : {"euclidean", "l2", "minkowski", "sqeuclidean", "cosine", "ip"}
        The first three are one metric, as in scikit-learn; "ip" is 1 - dot product.
    M, ef_construction, quantization
        As for `vicinal.Index`.
    ef_search : int, optional
        Search width of the index, for the fitted rows as well; by default what reaches `recall`.
    recall : float
        Share of the true neighbours to find on average, above 0, at most 1, by `vicinal.knn_graph`
        for the fitted rows themselves. For rows from elsewhere the search width is that of
        `vicinal.Index.tune`. Below 1,000 rows all are found.
    n_jobs : int, optional
        Threads; None and -1 are as many as `vicinal.get_num_threads` tells, -2 one less.
    random_state : int, RandomState or None
        Seed of the index; None is 0. The same seed gives the same graph.

    Attributes
    ----------
    index_ : vicinal.Index
        The rows it was fitted to, as float32, under their row numbers. After `fit_transform` it is
        built when it is first needed, for rows from elsewhere.
    n_samples_fit_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        Only if the rows came with names.
    shift_ : ndarray of float64, shape (n_features_in_,), or None
        What was taken off every row before it was rounded to float32, see Notes.

    Notes
    -----
    Graphs are CSR matrices with the same number of entries in every row, in order of distance and
    not of columns. `fit_transform` puts every row itself first, at distance 0, also where other
    rows are equal to it; `transform` gives what it finds. Float32 rows give float32 distances, all
    others float64.

    The index holds float32. Rows of float64 that would be rounded are moved by the mean of their
    features first, which no Euclidean distance feels and keeps far more digits where all rows lie
    far from zero; not for "cosine" and "ip".

    Threads: as `vicinal.Index`: any number may transform at once.

    Examples
    --------
    >>> import numpy as np
    >>> from vicinal.integrations.sklearn import VicinalTransformer
    >>> X = np.random.default_rng(0).standard_normal((200, 8))
    >>> graph = VicinalTransformer(n_neighbors=5).fit_transform(X)
    >>> graph.shape, graph.nnz
    ((200, 200), 1200)
    """

    def __init__(
        self,
        n_neighbors: int = 5,
        *,
        mode: str = "distance",
        metric: str = "euclidean",
        M: int = 16,
        ef_construction: int = 200,
        ef_search: int | None = None,
        recall: float = 0.99,
        quantization: str | None = "auto",
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.mode = mode
        self.metric = metric
        self.M = M
        self.ef_construction = ef_construction
        self.ef_search = ef_search
        self.recall = recall
        self.quantization = quantization
        self.n_jobs = n_jobs
        self.random_state = random_state

    # ---- the transformer

    def fit(self, X: ArrayLike, y: object = None) -> VicinalTransformer:
        """Build the index of the rows of X, shape (n, features), real numbers; y is ignored."""
        self._fit(X)
        self._held.build(self._threads())
        return self

    def transform(self, X: ArrayLike) -> Any:
        """Return the graph of the neighbours of X, CSR of shape (len(X), n_samples_fit_)."""
        rows, dtype = self._check(X)
        ids, distances = self._search(rows, self._columns(), dtype)
        return self._graph(ids, distances)

    def fit_transform(self, X: ArrayLike, y: object = None) -> Any:
        """Fit, and return the graph of X itself, shape (n, n), every row first in its own row."""
        rows, dtype = self._fit(X)
        columns = self._columns()
        ids, distances = self._among_themselves(rows, columns - 1, dtype)
        own = np.zeros(len(rows), distances.dtype)
        if self.metric == "ip":
            own -= np.einsum("ij,ij->i", rows, rows, dtype=np.float64) - 1
        ids = np.column_stack([np.arange(len(rows)), ids])
        return self._graph(ids, np.column_stack([own, distances]))

    # ---- what users of NearestNeighbors call

    def kneighbors(
        self,
        X: ArrayLike | None = None,
        n_neighbors: int | None = None,
        return_distance: bool = True,
    ) -> Any:
        """Find the nearest neighbours of X, or of the fitted rows without themselves.

        Returns
        -------
        distances : ndarray of shape (n, n_neighbors), if `return_distance`
        indices : ndarray of int64, shape (n, n_neighbors)
        """
        check_is_fitted(self)
        k = self._count(n_neighbors)
        if X is None:
            most = self.n_samples_fit_ - 1
            self._at_most(k, most)
            ids, distances = self._among_themselves(self._fitted_rows(), k, self._fit_dtype)
        else:
            rows, dtype = self._check(X)
            self._at_most(k, self.n_samples_fit_)
            ids, distances = self._search(rows, k, dtype)
        return (distances, ids) if return_distance else ids

    def kneighbors_graph(
        self,
        X: ArrayLike | None = None,
        n_neighbors: int | None = None,
        mode: str = "connectivity",
        *,
        symmetric: bool = False,
        connected: bool = False,
    ) -> Any:
        """Return the neighbours of X, or of the fitted rows without themselves, as CSR matrix.

        Parameters
        ----------
        X, n_neighbors
            As for `kneighbors`.
        mode : {"connectivity", "distance"}
            Ones or distances.
        symmetric : bool
            Two rows are neighbours if either is one of the other; only of the fitted rows.
        connected : bool
            Besides, join all parts of the graph by edges between near rows of them, as HDBSCAN
            needs it; implies `symmetric`.
        """
        distances, ids = self.kneighbors(X, n_neighbors)
        ones = _mode(mode) == "connectivity"
        if not symmetric and not connected:
            return to_csr(ids, np.ones_like(distances) if ones else distances, self.n_samples_fit_)
        if X is not None:
            raise ValueError("X: expected None for a symmetric graph, which is of the fitted rows")
        graph = symmetric_graph(ids, distances)
        if connected:
            graph = self._joined(graph)
        if ones:
            graph.data[:] = 1
        return graph

    @property
    def _n_features_out(self) -> int:
        return int(self.n_samples_fit_)

    @property
    def index_(self) -> Index:
        """The index of the rows it was fitted to; built now if it was not needed before."""
        try:
            held = self._held
        except AttributeError:
            raise AttributeError("index_: there is none before fit") from None
        return held.build(self._threads())

    # ---- inside

    def _fit(self, X: ArrayLike) -> tuple[NDArray[np.float32], Any]:
        if self.metric not in METRICS:
            raise ValueError(f"metric: expected one of {', '.join(METRICS)}, got {self.metric!r}")
        _mode(self.mode)
        self._count(None)
        metric, _ = METRICS[self.metric]
        given = validate_data(self, X, dtype=(np.float64, np.float32), order="C")
        rows = given.astype(np.float32, copy=False)
        self.shift_ = None
        if given.dtype != np.float32 and metric == "l2" and not np.array_equal(rows, given):
            self.shift_ = given.mean(axis=0)
            rows = (given - self.shift_).astype(np.float32)
        random = self.random_state
        self._seed = 0 if random is None else int(check_random_state(random).randint(2**31 - 1))
        index = Index(
            given.shape[1],
            metric,
            M=self.M,
            ef_construction=self.ef_construction,
            quantization=self.quantization,
            seed=self._seed,
        )
        self._held = _Held(index, rows)
        self.n_samples_fit_ = len(rows)
        self._fit_dtype = given.dtype
        return rows, given.dtype

    def _check(self, X: ArrayLike) -> tuple[NDArray[np.float32], Any]:
        """Return rows as the index knows them, and the dtype of the distances."""
        check_is_fitted(self)
        given = validate_data(self, X, dtype=(np.float64, np.float32), order="C", reset=False)
        if self.shift_ is None:
            return given.astype(np.float32, copy=False), given.dtype
        return (given - self.shift_).astype(np.float32), given.dtype

    def _fitted_rows(self) -> NDArray[np.float32]:
        return self._held.all_rows()

    def _threads(self) -> int | None:
        if self.n_jobs is None or self.n_jobs > 0:
            return self.n_jobs
        if self.n_jobs == 0:
            raise ValueError("n_jobs: expected None or a number other than 0, got 0")
        return max(1, _validate.thread_count(None) + 1 + self.n_jobs)

    def _count(self, n_neighbors: int | None) -> int:
        number = self.n_neighbors if n_neighbors is None else n_neighbors
        return _validate.whole_number(number, "n_neighbors", 1, _validate.MAX_COUNT - 1)

    def _at_most(self, k: int, most: int) -> None:
        if k > most:
            raise ValueError(
                f"Expected n_neighbors <= {most}, but n_neighbors = {k}, "
                f"n_samples_fit = {self.n_samples_fit_}"
            )

    def _columns(self) -> int:
        """Return how many entries each row of a graph has."""
        k = self._count(None)
        self._at_most(k, self.n_samples_fit_)
        more = _mode(self.mode) == "distance"
        return min(k + more, self.n_samples_fit_)

    def _search(
        self, rows: NDArray[np.float32], k: int, dtype: Any
    ) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Find the k nearest rows of the index for rows from elsewhere."""
        width = self._width_asked_for()
        if width is None:
            width = self._tuned_width(k)
        found = search_all(self.index_, rows, k, width, self._threads())
        return found.ids, self._scaled(found.distances, dtype)

    def _among_themselves(
        self, rows: NDArray[np.float32], k: int, dtype: Any
    ) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Find the k nearest other rows of each row."""
        if k == 0:
            return np.empty((len(rows), 0), np.int64), np.empty((len(rows), 0), dtype)
        width = self._width_asked_for()
        metric, _ = METRICS[self.metric]
        if width is None and metric != "ip":
            graph = knn_graph(
                rows,
                k,
                metric,
                recall=self.recall,
                M=self.M,
                ef_construction=self.ef_construction,
                quantization=self.quantization,
                seed=self._seed,
                num_threads=self._threads(),
            )
            return graph.indices, self._scaled(graph.distances, dtype)
        if width is None:
            width = least_width(self.index_, rows, self.recall, k, self._threads())
        found = search_all(self.index_, rows, k + 1, width, self._threads())
        ids, distances = without_self(found.ids, found.distances)
        return ids, self._scaled(distances, dtype)

    def _width_asked_for(self) -> int | None:
        if self.ef_search is None:
            return None
        return _validate.whole_number(self.ef_search, "ef_search", 1, _validate.MAX_COUNT)

    def _tuned_width(self, k: int) -> int:
        """Return the search width for others; what was tuned once is kept in the index."""
        if self.index_.stats()["search"] == "exact":
            return 1
        for tuning in self.index_.tuned:
            if tuning.k == k and tuning.recall >= self.recall:
                return tuning.ef_search
        tuning = self.index_.tune(self.recall, k=k, sample=SAMPLE, num_threads=self._threads())
        return tuning.ef_search

    def _scaled(self, distances: NDArray[np.float32], dtype: Any) -> NDArray[Any]:
        """Return distances of the index as those of the metric."""
        metric, root = METRICS[self.metric]
        scaled = distances.astype(dtype)
        if metric != "ip":
            np.maximum(scaled, 0, out=scaled)
        if root:
            np.sqrt(scaled, out=scaled)
        return scaled

    def _graph(self, ids: NDArray[np.int64], distances: NDArray[Any]) -> Any:
        if self.mode == "connectivity":
            distances = np.ones_like(distances)
        return to_csr(ids, distances, self.n_samples_fit_)

    def _joined(self, graph: Any) -> Any:
        """Join the parts of a symmetric graph: each but the largest to a near row outside it."""
        every = np.arange(self.n_samples_fit_)
        while True:
            parts, part = connected_components(graph, directed=False)
            if parts == 1:
                return graph
            largest = np.bincount(part).argmax()
            ends = []
            for number in range(parts):
                if number == largest:
                    continue
                members = every[part == number]
                heads = members[np.linspace(0, len(members) - 1, _BRIDGEHEADS).astype(int)]
                heads = np.unique(heads)
                rows = self.index_.get(heads)
                found = self.index_.search(rows, 1, filter=part != number)
                nearest = found.distances[:, 0].argmin()
                ends.append((heads[nearest], found.ids[nearest, 0], found.distances[nearest, 0]))
            tails, heads, far = (np.array(column) for column in zip(*ends, strict=True))
            bridges = self._scaled(far.astype(np.float32), graph.dtype)
            starts = np.repeat(every, np.diff(graph.indptr))
            graph = both_ways(
                np.concatenate([starts, tails]),
                np.concatenate([graph.indices, heads]),
                np.concatenate([graph.data, bridges]),
                self.n_samples_fit_,
            )


class _Held:
    """The rows fitted to, and the index of them once it has been asked for."""

    def __init__(self, index: Index, rows: NDArray[np.float32]) -> None:
        self.index = index
        # the caller may write to them before the index is made
        self.rows: NDArray[np.float32] | None = rows.copy()

    def build(self, threads: int | None) -> Index:
        """Return the index, with all rows in it."""
        with _BUILDING:
            if self.rows is not None:
                self.index.add(self.rows, num_threads=threads)
                self.rows = None
        return self.index

    def all_rows(self) -> NDArray[np.float32]:
        """Return the rows."""
        rows = self.rows
        return self.index.get(np.arange(len(self.index))) if rows is None else rows


def _mode(mode: object) -> str:
    if mode not in MODES:
        raise ValueError(f"mode: expected 'distance' or 'connectivity', got {mode!r}")
    return str(mode)
