"""Vicinal as a client of VectorDBBench: one file, mapped by every process that searches."""

from __future__ import annotations

import contextlib
import os
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
from vectordb_bench.backend.filter import Filter, FilterOp

import vicinal

from ..api import VectorDB


class Vicinal(VectorDB):
    """Holds a path and parameters only outside of `init`, so that it can be copied to processes."""

    supported_filter_types: ClassVar[list[FilterOp]] = [
        FilterOp.NonFilter,
        FilterOp.NumGE,
        FilterOp.StrEqual,
    ]

    def __init__(
        self,
        dim,
        db_config,
        db_case_config,
        collection_name="vicinal",
        drop_old=False,
        with_scalar_labels=False,
        **kwargs,
    ):
        self.name = "Vicinal"
        self.dim = dim
        self.path = os.path.join(db_config["path"], f"{collection_name}.vicinal")
        self.labels_path = self.path + ".labels.npz"
        self.index_param = db_case_config.index_param()
        self.ef_search = db_case_config.search_param()["ef_search"]
        self.with_scalar_labels = with_scalar_labels
        self.index = self.filter = None
        self.changed = False
        self.labels = {}
        if drop_old:
            os.makedirs(db_config["path"], exist_ok=True)
            for path in (self.path, self.labels_path):
                with contextlib.suppress(FileNotFoundError):
                    os.remove(path)

    @contextmanager
    def init(self):
        if os.path.exists(self.path):
            self.index = vicinal.open(self.path)
        else:
            self.index = vicinal.Index(self.dim, **self.index_param)
        try:
            yield
            self._save()
        finally:
            self.index = self.filter = None
            self.labels = {}

    def insert_embeddings(self, embeddings, metadata, labels_data=None, **kwargs):
        try:
            if self.index.read_only:
                self.index = vicinal.open(self.path, mode="copy")
            self.index.add(np.asarray(embeddings, dtype=np.float32), ids=metadata)
        except (OSError, ValueError, MemoryError) as error:
            return 0, error
        self.changed = True
        if labels_data is not None:
            self.labels.update(zip(metadata, labels_data, strict=True))
        return len(metadata), None

    def optimize(self, data_size=None):
        self._save()  # the graph is there already

    def prepare_filter(self, filters: Filter):
        ids = self.index.ids
        if filters.type == FilterOp.NonFilter:
            self.filter = None
        elif filters.type == FilterOp.NumGE:
            self.filter = ids >= filters.int_value
        elif filters.type == FilterOp.StrEqual:
            with np.load(self.labels_path) as saved:
                self.filter = saved["ids"][saved["labels"] == filters.label_value]
        else:
            raise ValueError(f"filters: expected none, a number or a label, got {filters}")

    def search_embedding(self, query, k=100, filters=None):
        found = self.index.search(query, k, ef_search=self.ef_search, filter=self.filter)
        return found.ids[np.isfinite(found.distances)].tolist()

    def _save(self):
        if not self.changed:
            return
        self.index.save(self.path)
        if self.with_scalar_labels:
            labels = np.array(list(self.labels.values()), dtype=str)
            ids = np.fromiter(self.labels, np.int64, len(self.labels))
            if os.path.exists(self.labels_path):
                with np.load(self.labels_path) as saved:
                    new = ~np.isin(saved["ids"], ids)
                    ids = np.concatenate([saved["ids"][new], ids])
                    labels = np.concatenate([saved["labels"][new], labels])
            np.savez(self.labels_path, ids=ids, labels=labels)
        self.changed = False
