"""Vicinal as an algorithm of VIBE: HNSW on rotated 4-bit codes, measured again from the vectors."""

import numpy as np

import vicinal

from ..base.module import BaseANN


class Vicinal(BaseANN):
    def __init__(self, metric, M, ef_construction):
        # rows of "normalized" have unit length: their inner product is the cosine
        names = {"euclidean": "l2", "cosine": "cosine", "normalized": "ip", "ip": "ip"}
        self.metric = names[metric]
        self.M = M
        self.ef_construction = ef_construction
        self.ef_search = None

    def fit(self, X):
        rows = np.asarray(X, dtype=np.float32)
        self.index = vicinal.Index(
            rows.shape[1], self.metric, M=self.M, ef_construction=self.ef_construction
        )
        self.index.add(rows, num_threads=1)

    def set_query_arguments(self, ef_search):
        self.ef_search = ef_search

    def query(self, v, n):
        return self.index.search(v, n, ef_search=self.ef_search).ids

    def get_additional(self):
        return {"quantization": str(self.index.stats()["quantization"])}

    def __str__(self):
        return (
            f"Vicinal(M={self.M}, ef_construction={self.ef_construction}, "
            f"ef_search={self.ef_search})"
        )
