"""Fixtures that several test files share: the real vector sets.

The sets are looked up in the folder of the environment variable VICINAL_DATA, then in `tests/data`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vicinal
from support.indexes import exact_below

ROOT = Path(__file__).resolve().parents[2]


def _reader() -> Any:
    # By path: `datasets` is also the name of a package that may be installed.
    spec = importlib.util.spec_from_file_location("bench_datasets", ROOT / "bench" / "datasets.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


READER = _reader()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of all spaces where the module is a development build of a few."""
    if vicinal.build_info()["spaces"] != "all":
        for item in items:
            if item.get_closest_marker("full_build"):
                item.add_marker(pytest.mark.skip(reason="not in this development build"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Skip a test that needs a space which a development build has left out."""
    report = yield
    error = call.excinfo.value if call.excinfo is not None else None
    if isinstance(error, NotImplementedError) and "development build" in str(error):
        report.outcome = "skipped"
        path, line, _ = item.reportinfo()
        report.longrepr = (str(path), line, "Skipped: not in this development build")
    return report


@pytest.fixture
def always_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the graph however few rows there are."""
    exact_below(monkeypatch, 0)


@pytest.fixture(scope="session")
def sift() -> Any:
    """5,000 SIFT descriptors, uint8, dimension 128, l2; with 100 queries and the truth."""
    return READER.load("sift-ngt-5k")


@pytest.fixture(scope="session")
def minilm() -> Any:
    """4,000 sentence embeddings, float32, dimension 384, cosine; with 200 queries and the truth."""
    return READER.load("minilm-4k")


@pytest.fixture(scope="session")
def fashion() -> Any:
    """3,000 pictures, uint8, dimension 784, l2; with 200 queries and the truth."""
    return READER.load("fashion-mnist-3k")


@pytest.fixture(scope="session")
def recall() -> Callable[[Any, Any], float]:
    """Measure recall@10 of a SearchResult for the queries of a set; ties with the 10th count."""

    def measure(found: Any, data: Any) -> float:
        return float(READER.recall_at_k(found.ids, data, 10))

    return measure


@pytest.fixture(scope="session")
def large_set() -> Callable[[str], Any]:
    """Load a set that is not in the repository by its name; without it the test is skipped."""

    def load(name: str) -> Any:
        try:
            return READER.load(name)
        except FileNotFoundError:
            pytest.skip(f"{name} is not here; set VICINAL_DATA to a folder that has it")

    return load
