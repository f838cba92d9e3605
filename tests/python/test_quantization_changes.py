"""Codes of an index that changes: other values, failed additions, searches meanwhile, levels."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
import vicinal.index
from support.indexes import assert_same
from support.processes import run
from vicinal import _cpu, _levels

pytestmark = pytest.mark.usefixtures("always_a_graph")

Array = np.ndarray[Any, np.dtype[Any]]


def made(rows: Array, kind: str | None = "auto", **options: Any) -> vicinal.Index:
    index = vicinal.Index(rows.shape[1], quantization=kind, **{"ef_construction": 60, **options})
    index.add(rows)
    return index


def recall(index: vicinal.Index, rows: Array, queries: Array, ef: int = 64) -> float:
    """Return recall@10 among all rows; equal distances stand for another."""
    truth = vicinal.exact_search(rows, queries, 10, metric=index.metric)
    found = index.search(queries, 10, ef_search=ef)
    bound = truth.distances[:, -1:]
    return float((found.distances <= bound + 1e-5 * np.abs(bound)).mean())


# ---- values that "u8" cannot hold


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("dim", "kind"), [(8, None), (32, "sq8"), (128, "rabitq4")])
@pytest.mark.parametrize("change", [0.5, -1, 256])
def test_values_beyond_u8(change: float, dim: int, kind: Any, dtype: str, sift: Any) -> None:
    base = sift.base[:2500, :dim].astype(np.float32) // 2
    queries = sift.queries[:, :dim].astype(np.float32) // 2
    index = vicinal.Index(dim, dtype=dtype)
    index.add(base[:1500])
    assert index.stats()["quantization"] == "u8"
    index.add(base[1500:1600], ids=np.arange(5000, 5100))
    assert index.stats()["quantization"] == "u8"
    base[1700, 3] = change  # one value of one row
    index.add(base[1600:], ids=np.arange(6000, 6900))
    stats = index.stats()
    assert stats["quantization"] == kind
    assert stats["quantization_reason"] == f"floats of dimension {dim}"
    index.check()
    assert len(index) == 2500
    plain = vicinal.Index(dim, dtype=dtype, quantization=None)
    for part in (slice(0, 1500), slice(1500, 1600), slice(1600, 2500)):
        plain.add(base[part])
    assert recall(index, base, queries) >= recall(plain, base, queries) - 0.005
    # whole numbers alone do not bring the exact codes back
    index.add(sift.base[2500:2600, :dim])
    assert index.stats()["quantization"] == kind


def test_other_kinds_stay(sift: Any) -> None:
    base = sift.base.astype(np.float32)
    for kind in (None, "sq8", "rabitq4"):
        index = made(base[:1000] + 0.5, kind)
        index.add(base[1000:1100])
        assert index.stats()["quantization"] == kind
        assert index.stats()["quantization_reason"] == "asked for"


def test_u8_that_was_asked_for_stays(tmp_path: Path, sift: Any) -> None:
    index = made(sift.base[:1000], "u8", dtype="float32")
    before = index.search(sift.queries)
    index.save(tmp_path / "index")
    for each in (index, vicinal.open(tmp_path / "index", mode="copy")):
        with pytest.raises(ValueError, match=r"^vectors: row 1 holds other than whole numbers"):
            each.add(sift.base[1000:1010] + np.array([[0]] + [[0.5]] * 9))
        assert len(each) == 1000 and each.stats()["quantization"] == "u8"
        assert_same(each.search(sift.queries), before)
        each.add(sift.base[1000:1010])


@pytest.mark.parametrize("rows_before", [0, 1500])
def test_failed_additions_leave_the_codes(rows_before: int, sift: Any) -> None:
    base = sift.base.astype(np.float32)
    index = vicinal.Index(128)
    index.add(base[:rows_before])
    before, stats = index.search(sift.queries), index.stats()

    def progress(done: int, total: int) -> None:
        if done == total:
            raise LookupError

    for _ in range(3):
        for change in (0.0, 0.5):
            with pytest.raises(LookupError):
                index.add(base[rows_before:2500] + np.float32(change), progress=progress)
            assert index.stats() == stats
            assert_same(index.search(sift.queries), before)
    index.add(base[rows_before:2500] + np.float32(0.5))
    assert index.stats()["quantization"] == "rabitq4"
    index.check()
    now = np.concatenate([base[:rows_before], base[rows_before:2500] + np.float32(0.5)])
    plain = made(now, None, ef_construction=200)
    queries = sift.queries.astype(np.float32)
    assert recall(index, now, queries) >= recall(plain, now, queries) - 0.02


RE_ENCODED = """
    import pickle, sys, threading, time
    import numpy as np
    import vicinal, vicinal.index

    vicinal.index.EXACT_BELOW = 0
    rng = np.random.default_rng(0)
    # so that the last code ends where the readable memory ends
    rows = rng.integers(0, 256, (2048, 64)).astype(np.float32)
    more = rng.integers(0, 256, (40, 64)) + np.float32(0.5)
    queries = rng.integers(0, 256, (2000, 64)).astype(np.float32)
    queries[::2] = more[rng.integers(0, 40, 1000)] - np.float32(0.5)
    every = np.concatenate([rows, more.astype(np.float32)])
    index = vicinal.Index(64, ef_construction=10, M=4)
    index.add(rows)
    saved = pickle.dumps(index)
    for _ in range(int(sys.argv[1])):
        index = pickle.loads(saved)
        stop, results = threading.Event(), []

        def work():
            while not stop.is_set():
                results.append(index.search(queries, 1, ef_search=200, num_threads=1))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        while len(results) < 3:  # all under way, the GIL given away again and again
            time.sleep(0)
        index.add(more, num_threads=1)
        stop.set()
        for thread in threads:
            thread.join()
        assert index.stats()["quantization"] == "sq8"
        for ids, distances in results:
            true = ((every[ids[:, 0]] - queries) ** 2).sum(axis=1)
            np.testing.assert_allclose(distances[:, 0], true, rtol=1e-5)
    print("all right")
"""


@pytest.mark.slow
def test_searches_while_all_rows_get_new_codes() -> None:
    done = run(RE_ENCODED, "10")
    assert (done.returncode, done.stdout) == (0, "all right\n"), done.stderr


# ---- values that move


@pytest.mark.parametrize("kind", ["sq8", "rabitq4"])
@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("name", ["minilm", "fashion"])
def test_shifted_rows(name: str, metric: str, kind: str, request: pytest.FixtureRequest) -> None:
    """Rows that lie apart from those the centre was made of, by as much as these are apart."""
    data = request.getfixturevalue(name)
    base, queries = data.base[:3000].astype(np.float32), data.queries.astype(np.float32)
    direction = np.random.default_rng(0).normal(size=base.shape[1])
    spread = np.sqrt(base.var(axis=0).sum())
    shift = (spread * direction / np.linalg.norm(direction)).astype(np.float32)
    rows = np.concatenate([base[:1500], base[1500:] + shift])
    both = np.concatenate([queries[:100], queries[100:] + shift])
    found = {}
    for way in (None, kind):
        index = vicinal.Index(base.shape[1], metric, quantization=way)
        index.add(rows[:1500])
        index.add(rows[1500:])
        found[way] = recall(index, rows, both)
    assert found[kind] >= found[None] - 0.005


@pytest.mark.parametrize("parts", [1, 2])
def test_auto_notices_rows_far_apart(parts: int, minilm: Any) -> None:
    """Two heaps ten spreads apart, at once or the second later: 4 bits around one centre fail."""
    base, queries = minilm.base[:3000].astype(np.float32), minilm.queries.astype(np.float32)
    direction = np.random.default_rng(0).normal(size=base.shape[1])
    shift = (10 * np.sqrt(base.var(axis=0).sum()) * direction / np.linalg.norm(direction)).astype(
        np.float32
    )
    rows = np.concatenate([base[:1500], base[1500:] + shift])
    found = {}
    for way in ("auto", None):
        index = vicinal.Index(base.shape[1], quantization=way)
        for part in np.array_split(rows, parts):
            index.add(part)
            if way == "auto" and len(index) == 1500:
                assert index.stats()["quantization"] == "rabitq4"
        index.check()
        found[way] = recall(index, rows, queries + shift)
        if way == "auto":
            stats = index.stats()
            assert stats["quantization"] == "sq8"
            assert stats["quantization_reason"].endswith("too coarse for a sample of the rows")
    assert found["auto"] >= found[None] - 0.005


# ---- CPU levels


def levels() -> list[str]:
    """Return the installed levels that this machine can run."""
    here, flags = _levels.machine_name(), _levels.cpu_flags()
    names = (path.parent.name[1:] for path in Path(_cpu.__file__).parent.glob("_v*/_native.so"))
    return sorted(name for name in names if _levels.runs_on(_levels.LEVELS[name], here, flags))


BUILD = """
    import sys
    import numpy as np
    import vicinal, vicinal.index

    vicinal.index.EXACT_BELOW = 0
    rows = np.load(sys.argv[1] + "/rows.npy")
    kinds = [("l2", "uint8", "u8"), ("ip", "uint8", "u8"), ("l2", "float32", "u8")]
    kinds += [("ip", "float16", "u8"), ("l2", "int8", "u8"), ("ip", "int8", "u8")]
    kinds += [(metric, "float32", kind) for metric in ("l2", "ip") for kind in ("sq8", "rabitq4")]
    for metric, dtype, kind in kinds:
        index = vicinal.Index(rows.shape[1], metric, dtype=dtype, quantization=kind)
        index.add(rows // 2 if dtype == "int8" else rows)
        index.save(f"{sys.argv[1]}/{sys.argv[2]}-{metric}-{dtype}-{kind}")
"""

SEARCH = """
    import json, pathlib, sys
    import numpy as np
    import vicinal

    queries = np.load(sys.argv[1] + "/queries.npy")
    found = {}
    for path in sorted(pathlib.Path(sys.argv[1]).glob("v*-*")):
        index = vicinal.open(path, verify=True)
        given = queries // 2 if index.dtype == "int8" else queries
        ids, distances = index.search(given, 10)
        found[path.name] = [ids.tolist(), distances.tolist()]
    print(json.dumps(found))
"""


def test_cpu_levels(tmp_path: Path, sift: Any) -> None:
    """Exact codes: the same file and results from every level; estimates: the same recall."""
    names = levels()
    if len(names) < 2:
        pytest.skip(f"only {names} can run here")
    rows = sift.base[:2500]
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "queries.npy", sift.queries)
    found = {}
    for name in names:
        done = run(BUILD, str(tmp_path), name, VICINAL_CPU=name)
        assert done.returncode == 0, done.stderr
    for name in names:
        done = run(SEARCH, str(tmp_path), VICINAL_CPU=name)
        assert done.returncode == 0, done.stderr
        found[name] = json.loads(done.stdout)
    queries = sift.queries.astype(np.float32)
    first = names[0]
    for key in [key[len(first) :] for key in found[first] if key.startswith(first)]:
        files = {name: tmp_path / (name + key) for name in names}
        if key.endswith("u8"):
            sums = {hashlib.sha256(path.read_bytes()).hexdigest() for path in files.values()}
            assert len(sums) == 1, key
            for name in names:
                assert found[name][name + key] == found[first][first + key]
            continue
        metric = key.split("-")[1]
        truth = vicinal.exact_search(rows.astype(np.float32), queries, 10, metric=metric)
        rates = []
        for result in found.values():
            for built in names:
                ids = result[built + key][0]
                hits = [np.isin(ids[i], truth.ids[i]).mean() for i in range(len(ids))]
                rates.append(float(np.mean(hits)))
        assert max(rates) - min(rates) <= 0.005, (key, rates)
