"""The adapters in bench/external do what the runners of those benchmarks ask of them."""

from __future__ import annotations

import enum
import importlib
import json
import pickle
import re
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal

EXTERNAL = Path(__file__).resolve().parents[2] / "bench" / "external"
BASE = """
class BaseANN:
    def get_batch_results(self):
        return self.res

    def get_additional(self):
        return {}

    def __str__(self):
        return self.name
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Put an adapter where its benchmark has it, with a stand-in for the base class."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def put(benchmark: str, package: str) -> tuple[Any, str]:
        folder = tmp_path / package / "algorithms"
        (folder / "base").mkdir(parents=True)
        (folder / "base" / "module.py").write_text(BASE)
        shutil.copytree(EXTERNAL / benchmark / "vicinal", folder / "vicinal")
        config = (folder / "vicinal" / "config.yml").read_text(encoding="utf-8")
        name = re.search(r"module: (\S+)", config)
        assert name is not None and name[1] == f"{package}.algorithms.vicinal"
        return importlib.import_module(f"{name[1]}.module"), config

    yield put
    for name in set(sys.modules) - before:
        del sys.modules[name]


def listed(config: str, key: str) -> list[Any]:
    """Return the first list that stands after a key of a config.yml."""
    found = re.search(rf"^\s*{key}: (\[.*\])$", config, re.MULTILINE)
    assert found is not None, key
    values: list[Any] = json.loads(found[1])
    return values


def constructor(module: Any, config: str) -> Any:
    found = re.search(r"constructor: (\w+)", config)
    assert found is not None
    return getattr(module, found[1])


def recall(found: Any, base: Any, queries: Any, metric: str) -> float:
    truth = vicinal.exact_search(base, queries, 10, metric).ids
    return vicinal.recall_at_k(np.asarray(found), truth)


@pytest.mark.parametrize("metric", ["euclidean", "angular"])
def test_ann_benchmarks(installed: Any, metric: str, sift: Any, minilm: Any) -> None:
    module, config = installed("ann_benchmarks", "ann_benchmarks")
    data = {"euclidean": sift, "angular": minilm}[metric]
    base, queries = data.base.astype(np.float32)[:2000], data.queries.astype(np.float32)[:50]
    ours = {"euclidean": "l2", "angular": "cosine"}[metric]
    algorithm = constructor(module, config)(metric, *listed(config, "arg_groups"))
    with_zeros = np.concatenate([base, np.zeros((1, base.shape[1]), np.float32)])
    algorithm.fit(with_zeros)
    shares = []
    for width in listed(config, "query_args")[0][::6]:
        algorithm.set_query_arguments(width)
        assert f"ef_search={width}" in str(algorithm)
        single = [algorithm.query(query, 10) for query in queries]
        algorithm.batch_query(queries, 10)
        np.testing.assert_array_equal(algorithm.get_batch_results(), single)
        shares.append(recall(single, base, queries, ours))
    assert shares[-1] > 0.98 and shares == sorted(shares)
    assert algorithm.get_additional()["distances_measured"] > 0
    algorithm.done()


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "ip", "normalized"])
def test_vibe(installed: Any, metric: str, minilm: Any) -> None:
    module, config = installed("vibe", "vibe")
    base, queries = minilm.base[:2000], minilm.queries[:50]
    arguments = (listed(config, "M")[1], listed(config, "ef_construction")[0])
    algorithm = constructor(module, config)(metric, *arguments)
    kept = base.copy()
    algorithm.fit(base)
    np.testing.assert_array_equal(base, kept)
    for width in listed(config, "ef_search")[::5]:
        algorithm.set_query_arguments(width)
        found = [algorithm.query(query, 10) for query in queries]
        assert str(algorithm) == f"Vicinal(M=16, ef_construction=200, ef_search={width})"
    ours = {"euclidean": "l2", "cosine": "cosine"}.get(metric, "ip")
    assert recall(found, base, queries, ours) > 0.98
    assert algorithm.get_additional() == {"quantization": "rabitq4"}


# ---- VectorDBBench: its base classes, as far as a client sees them


class FilterOp(enum.Enum):
    NonFilter, NumGE, StrEqual, Other = range(4)


class MetricType(str, enum.Enum):
    L2, COSINE, IP, DP = "L2", "COSINE", "IP", "DP"


class Model:
    def __init__(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    before = set(sys.modules)
    clients = "vectordb_bench.backend.clients"
    parts = {
        "pydantic": {"BaseModel": Model},
        "vectordb_bench": {},
        "vectordb_bench.backend": {},
        "vectordb_bench.backend.filter": {"Filter": Model, "FilterOp": FilterOp},
        clients: {"__path__": [str(EXTERNAL / "vectordb_bench")]},
        f"{clients}.api": {
            "DBConfig": Model,
            "DBCaseConfig": type("DBCaseConfig", (), {}),
            "MetricType": MetricType,
            "VectorDB": type("VectorDB", (), {}),
        },
    }
    for name, values in parts.items():
        module = types.ModuleType(name)
        module.__dict__.update(values)
        monkeypatch.setitem(sys.modules, name, module)
    config = importlib.import_module(f"{clients}.vicinal.config")
    kind = importlib.import_module(f"{clients}.vicinal.vicinal").Vicinal
    where = config.VicinalConfig(path=str(tmp_path / "db")).to_dict()

    def make(metric: MetricType = MetricType.L2, **options: Any) -> Any:
        case = config.VicinalIndexConfig(metric_type=metric, ef_search=128)
        return kind(16, where, case, **options)

    yield make
    for name in set(sys.modules) - before:
        del sys.modules[name]


ROWS = np.random.default_rng(9).standard_normal((3000, 16)).astype(np.float32)


def copied(client: Any) -> Any:
    """Return a client as another process gets it."""
    return pickle.loads(pickle.dumps(client))


@pytest.mark.parametrize("metric", MetricType)
def test_vectordb_bench(client: Any, metric: MetricType) -> None:
    made = client(metric, drop_old=True, with_scalar_labels=True)
    with copied(made).init():
        pass  # made, opened and left without a row
    load = copied(made)
    labels = [f"label_{i % 4}p" for i in range(3000)]
    with load.init():
        for start in range(0, 3000, 500):
            part = slice(start, start + 500)
            ids = list(range(3000))[part]
            told = load.insert_embeddings(ROWS[part].tolist(), ids, labels_data=labels[part])
            assert told == (500, None)
        count, error = load.insert_embeddings(ROWS[:1].tolist(), [0], labels_data=labels[:1])
        assert count == 0 and isinstance(error, ValueError)
    optimizing = copied(made)
    with optimizing.init():
        optimizing.optimize(3000)
    search = copied(made)
    name = {"L2": "l2", "COSINE": "cosine"}.get(metric.value, "ip")
    with search.init():
        assert search.index.read_only
        search.prepare_filter(Model(type=FilterOp.NonFilter))
        found = [search.search_embedding(query.tolist(), k=10) for query in ROWS[:40]]
        assert all(type(each) is int for each in found[0])
        assert recall(found, ROWS, ROWS[:40], name) > 0.97
        search.prepare_filter(Model(type=FilterOp.NumGE, int_value=2990))
        found = search.search_embedding(ROWS[0].tolist(), k=100)
        assert sorted(found) == list(range(2990, 3000))
        search.prepare_filter(Model(type=FilterOp.StrEqual, label_value="label_3p"))
        found = search.search_embedding(ROWS[0].tolist(), k=50)
        assert len(found) == 50 and all(each % 4 == 3 for each in found)
        with pytest.raises(ValueError, match="filters: expected"):
            search.prepare_filter(Model(type=FilterOp.Other))
    assert search.index is None


def test_vectordb_bench_adds_to_what_is_there(client: Any) -> None:
    made = client(drop_old=True, with_scalar_labels=True)
    for start in (0, 100):
        more = client(with_scalar_labels=True)
        with more.init():
            ids = list(range(start, start + 100))
            more.insert_embeddings(ROWS[ids].tolist(), ids, labels_data=["a"] * 100)
    with made.init():
        assert len(made.index) == 200
        made.prepare_filter(Model(type=FilterOp.StrEqual, label_value="a"))
        assert len(made.search_embedding(ROWS[0].tolist(), k=500)) == 200
    client(drop_old=True)
    assert list(Path(made.path).parent.iterdir()) == []
