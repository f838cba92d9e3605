"""Vectors and ids out of index files of hnswlib, faiss, usearch and annoy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import vicinal
from vicinal import FormatError
from vicinal.cli._commands import commands
from vicinal.vectors_io._foreign import open_foreign

DATA = np.random.default_rng(0).normal(size=(400, 12)).astype("f4")
IDS = np.random.default_rng(1).permutation(5000)[:400].astype(np.int64)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def holds(source: Any, ids: Any, rows: Any) -> None:
    """Compare a source with ids and rows in any order, and what is built of it."""
    parts = list(source.batches(33))
    named = np.concatenate([each for _, each in parts])
    found = np.concatenate([vectors for vectors, _ in parts])
    assert sorted(named.tolist()) == sorted(ids.tolist())
    order = {name: row for row, name in enumerate(ids.tolist())}
    assert np.allclose(found, rows[[order[name] for name in named.tolist()]], atol=1e-6)
    assert np.array_equal(source[7:9].read()[1], named[7:9])
    assert vicinal.build(source).metric == source.metric


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_hnswlib(metric: str) -> None:
    hnswlib = pytest.importorskip("hnswlib")
    index = hnswlib.Index(metric, 12)
    index.init_index(1000)
    index.add_items(DATA, IDS)
    index.save_index("old.bin")
    unit = DATA / np.linalg.norm(DATA, axis=1, keepdims=True)
    holds(
        open_foreign("old.bin", "hnswlib", metric=metric), IDS, unit if metric == "cosine" else DATA
    )
    with pytest.raises(ValueError, match="metric: expected one"):
        open_foreign("old.bin", "hnswlib")


def test_rows_removed_in_hnswlib_are_left_out() -> None:
    """They are among its labels still, and asking for one raises."""
    hnswlib = pytest.importorskip("hnswlib")
    index = hnswlib.Index("l2", 12)
    index.init_index(400)
    index.add_items(DATA, IDS)
    for label in IDS[:30]:
        index.mark_deleted(label)
    index.save_index("old.bin")
    source = open_foreign("old.bin", "hnswlib", metric="l2")
    assert "30 removed rows" in source.notes[0]
    holds(source, IDS[30:], DATA[30:])


@pytest.mark.parametrize("kind", ["Flat", "HNSW16", "IVF8,Flat", "IDMap,Flat", "IDMap2,HNSW16"])
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_faiss(kind: str, metric: str) -> None:
    faiss = pytest.importorskip("faiss")
    known = {"l2": faiss.METRIC_L2, "ip": faiss.METRIC_INNER_PRODUCT}
    index = faiss.index_factory(12, kind, known[metric])
    index.train(DATA)
    ids = np.arange(400)
    if "IDMap" in kind or "IVF" in kind:
        ids = IDS
        index.add_with_ids(DATA, IDS)
    else:
        index.add(DATA)
    faiss.write_index(index, "old.faiss")
    source = open_foreign("old.faiss", "faiss")
    assert source.metric == metric and not source.notes
    holds(source, ids, DATA)


def test_codes_of_faiss_are_said_to_be_codes() -> None:
    faiss = pytest.importorskip("faiss")
    index = faiss.index_factory(12, "SQ8")
    index.train(DATA)
    index.add(DATA)
    faiss.write_index(index, "old.faiss")
    source = open_foreign("old.faiss", "faiss")
    assert "vectors are what they stand for" in source.notes[0]
    assert np.abs(source.read()[0] - DATA).max() < 0.05


@pytest.mark.parametrize(("kind", "metric"), [("l2sq", "l2"), ("ip", "ip"), ("cos", "cosine")])
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_usearch(kind: str, metric: str, dtype: str) -> None:
    index_module = pytest.importorskip("usearch.index")
    index = index_module.Index(ndim=12, metric=kind, dtype=dtype)
    index.add(IDS.astype(np.uint64), DATA)
    index.remove(int(IDS[0]))
    index.save("old.usearch")
    source = open_foreign("old.usearch", "usearch")
    assert source.metric == metric
    rows = DATA if dtype == "f32" else DATA.astype("f2").astype("f4")
    parts = source.read()
    order = {name: row for row, name in enumerate(IDS.tolist())}
    assert sorted(parts[1].tolist()) == sorted(IDS[1:].tolist())
    wanted = rows[[order[name] for name in parts[1].tolist()]]
    assert np.allclose(parts[0], wanted, atol=1e-6 if dtype == "f32" else 2e-3)


def test_annoy() -> None:
    annoy = pytest.importorskip("annoy")
    index = annoy.AnnoyIndex(12, "euclidean")
    for number, row in enumerate(DATA):
        index.add_item(number, row)
    index.build(2)
    index.save("old.ann")
    holds(open_foreign("old.ann", "annoy", metric="l2", dim=12), np.arange(400), DATA)
    with pytest.raises(ValueError, match="dim: expected one"):
        open_foreign("old.ann", "annoy", metric="l2")
    with pytest.raises(FormatError, match="annoy cannot read it with 11 values"):
        open_foreign("old.ann", "annoy", metric="l2", dim=11)


def test_what_is_no_index() -> None:
    Path("junk.bin").write_bytes(b"junk" * 100)
    for library in ("hnswlib", "faiss", "usearch"):
        pytest.importorskip(library)
        with pytest.raises(FormatError, match=r"junk\.bin"):
            open_foreign("junk.bin", library, metric="l2")


def test_the_command() -> None:
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexFlatIP(12)
    index.add(DATA)
    faiss.write_index(index, "old.faiss")

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(commands, ["convert", "old.faiss", *arguments])

    done = run("--from", "faiss", "-o", "new.v", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"file": "new.v", "rows": 400, "from": "faiss"}
    assert vicinal.open("new.v").metric == "ip"
    assert run("--from", "faiss", "-o", "new.npz").exit_code == 0
    assert np.array_equal(np.load("new.npz")["vectors"], DATA)
    assert run("--from", "faiss", "-o", "other.v", "--ids", "id").exit_code == 2
    assert run("-o", "other.v").exit_code == 3
