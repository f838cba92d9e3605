"""Vicinal as an algorithm of ann-benchmarks."""

import numpy as np

import vicinal

from ..base.module import BaseANN


class Vicinal(BaseANN):
    def __init__(self, metric, options):
        self.metric = {"euclidean": "l2", "angular": "cosine"}[metric]
        self.options = dict(options)
        self.name = f"vicinal({self.options})"

    def fit(self, X):
        rows = np.asarray(X, dtype=np.float32)
        self.index = vicinal.Index(rows.shape[1], self.metric, **self.options)
        ids = np.arange(len(rows))
        if self.metric == "cosine":  # rows of zeros have no direction
            ids = np.flatnonzero(rows.any(axis=1))
            rows = rows[ids] if len(ids) < len(rows) else rows
        self.index.add(rows, ids=ids)

    def set_query_arguments(self, ef_search):
        self.ef_search = ef_search
        self.name = f"vicinal({self.options}, ef_search={ef_search})"

    def query(self, v, n):
        return self.index.search(v, n, ef_search=self.ef_search).ids

    def batch_query(self, X, n):
        self.results = self.index.search(X, n, ef_search=self.ef_search).ids

    def get_batch_results(self):
        return self.results

    def get_additional(self):
        return {"distances_measured": self.index.search_stats()["distances"]}

    def done(self):
        self.index = None
