"""A merge that starts from the links of the other index gives a graph as good as any."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal

METRICS = ("l2", "ip", "cosine")
DTYPES = ("float32", "float16", "bfloat16", "int8", "uint8")


def clustered(n: int, dtype: str, seed: int, dim: int = 24) -> Any:
    """Return rows around 20 centres, whole numbers from 1 to 99."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(20, 80, (20, dim))
    rows = centres[rng.integers(0, 20, n)] + rng.integers(-19, 20, (n, dim))
    return rows.astype("float32" if dtype == "bfloat16" else dtype)


def make(rows: Any, ids: Any = None, **kind: Any) -> vicinal.Index:
    kind.setdefault("ef_construction", 100)
    index = vicinal.Index(rows.shape[1], **kind)
    index.add(rows, ids=ids)
    return index


def content(index: vicinal.Index, path: Path) -> bytes:
    index.save(path / "content")
    return (path / "content").read_bytes()


def recall(index: vicinal.Index, base: Any, ids: Any, queries: Any, metric: str, ef: int) -> float:
    """Return recall@10 of an index that holds `base` under `ids`."""
    truth = vicinal.exact_search(base, queries, 10, metric=metric).ids
    found = index.search(queries, 10, ef_search=ef).ids
    return vicinal.recall_at_k(found, np.asarray(ids)[truth])


# ---- as good as one graph of all rows


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_metric_and_dtype(metric: str, dtype: str, tmp_path: Path) -> None:
    rows = clustered(2600, dtype, 3)
    ids = np.arange(2600)
    fresh = make(rows, ids, metric=metric, dtype=dtype)
    merged = make(rows[:1300], ids[:1300], metric=metric, dtype=dtype)
    plain = merged.copy()
    other = make(rows[1300:], ids[1300:], metric=metric, dtype=dtype)
    before = content(other, tmp_path)

    assert merged.merge(other).tolist() == ids[1300:].tolist()
    merged.check()
    plain.add(rows[1300:], ids[1300:])
    assert merged.ids.tolist() == plain.ids.tolist()
    assert merged.stats()["quantization"] == plain.stats()["quantization"]
    assert content(merged, tmp_path) != content(plain, tmp_path)  # other links: those there count
    assert content(other, tmp_path) == before
    stored = fresh.get(ids) if dtype != "bfloat16" else rows
    queries = clustered(200, dtype, 4)
    for ef in (16, 32):
        wanted = recall(fresh, stored, ids, queries, metric, ef)
        assert recall(merged, stored, ids, queries, metric, ef) > wanted - 0.02


@pytest.mark.parametrize("quantization", [None, "u8", "sq8", "rabitq4"])
def test_every_kind_of_codes(quantization: str | None) -> None:
    rows = clustered(2600, "float32", 5, 128)
    fresh = make(rows, quantization=quantization)
    merged = make(rows[::2], np.arange(0, 2600, 2), quantization=quantization)
    merged.merge(make(rows[1::2], np.arange(1, 2600, 2), quantization=quantization))
    merged.check()
    queries = clustered(200, "float32", 6, 128)
    wanted = recall(fresh, rows, range(2600), queries, "l2", 32)
    assert recall(merged, rows, range(2600), queries, "l2", 32) > wanted - 0.02


@pytest.mark.parametrize("split", ["odd", "sorted", "few", "many"])
@pytest.mark.parametrize("name", ["minilm", "sift"])
def test_recall_on_real_rows(name: str, split: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(name)
    rows = data.base.astype(np.float32)
    ids = np.arange(len(rows))
    there = {
        "odd": ids % 2 == 1,
        "sorted": rows[:, 0] > np.median(rows[:, 0]),
        "few": ids % 3 == 1,
        "many": ids % 3 != 1,
    }[split]
    queries = data.queries.astype(np.float32)
    lost = []
    for seed in range(3):  # another order of insertion or another seed alone make 0.01
        kind = {"metric": data.metric, "seed": seed}
        merged = make(rows[~there], ids[~there], **kind)
        merged.merge(make(rows[there], ids[there], **kind))
        merged.check()
        fresh = make(np.r_[rows[~there], rows[there]], np.r_[ids[~there], ids[there]], **kind)
        args = (rows, ids, queries, data.metric)
        lost.append([recall(fresh, *args, ef) - recall(merged, *args, ef) for ef in (16, 32, 64)])
    assert np.all(np.mean(lost, 0) <= (0.02, 0.015, 0.01))


# ---- what the two may be


def test_other_parameters(minilm: Any) -> None:
    rows = minilm.base
    queries = minilm.queries
    fresh = make(rows, metric="cosine")
    wanted = recall(fresh, rows, range(4000), queries, "cosine", 32)
    for kind in ({"M": 4}, {"M": 64}, {"ef_construction": 10}, {"seed": 7}):
        merged = make(rows[:2000], range(2000), metric="cosine")
        merged.merge(make(rows[2000:], range(2000, 4000), metric="cosine", **kind))
        merged.check()
        assert (merged.M, merged.ef_construction, merged.seed) == (16, 100, 0)
        assert recall(merged, rows, range(4000), queries, "cosine", 32) > wanted - 0.015


@pytest.mark.parametrize("held", [0, 1, 300])
def test_into_an_index_without_graph(held: int, sift: Any) -> None:
    rows = sift.base.astype(np.float32)
    merged = make(rows[:held], range(held))
    merged.merge(make(rows[held:], range(held, 5000)))
    merged.check()
    queries = sift.queries.astype(np.float32)
    wanted = recall(make(rows), rows, range(5000), queries, "l2", 32)
    assert recall(merged, rows, range(5000), queries, "l2", 32) > wanted - 0.01


def test_from_an_index_without_graph(tmp_path: Path, sift: Any) -> None:
    rows = sift.base.astype(np.float32)
    merged, plain = make(rows[:2000]), make(rows[:2000])
    merged.merge(make(rows[2000:2999], range(2000, 2999)))
    plain.add(rows[2000:2999])
    assert content(merged, tmp_path) == content(plain, tmp_path)


def test_removed_rows_on_either_side(minilm: Any) -> None:
    rows, queries = minilm.base, minilm.queries
    kept = np.flatnonzero(np.arange(4000) % 5 != 2)
    near = np.argsort(rows @ rows[0])[-300:]  # and a whole region of one
    kept = np.setdiff1d(kept, near[near % 2 == 1])
    gone = np.setdiff1d(np.arange(4000), kept)
    for pending in (gone[:0], kept[:20]):
        a = make(rows[::2], np.arange(0, 4000, 2), metric="cosine")
        b = make(rows[1::2], np.arange(1, 4000, 2), metric="cosine")
        for index, odd in ((a, 0), (b, 1)):
            index.remove(gone[gone % 2 == odd])
            index.remove(pending[pending % 2 == odd])
        left = np.setdiff1d(kept, pending)
        a.merge(b)
        a.check()
        assert sorted(a.ids) == left.tolist()
        fresh = make(rows[left], left, metric="cosine")
        for ef in (16, 64):
            wanted = recall(fresh, rows[left], left, queries, "cosine", ef)
            assert recall(a, rows[left], left, queries, "cosine", ef) > wanted - 0.012
        a.remove(left[::2])
        a.check()


def test_copies_on_either_side() -> None:
    rows = clustered(2000, "float32", 9)
    here = np.concatenate([rows[:1200], rows[:100], np.repeat(rows[:1], 50, 0)])
    there = np.concatenate([rows[1200:], rows[:600], rows[1200:1300], np.repeat(rows[:1], 60, 0)])
    a = make(here, np.arange(len(here)))
    b = make(there, 10_000 + np.arange(len(there)))
    # originals that went while their copies stay
    a.remove(np.arange(40, 90))
    b.remove(10_000 + np.arange(0, 40))
    a.merge(b)
    a.check()
    found = a.search(rows[0], 200, ef_search=200)
    assert int(np.sum(found.distances == 0)) == 1 + 1 + 50 + 1 + 60
    for row in (50, 1210, 1290, 700):
        held = np.concatenate([here, there])[: len(here) + len(there)]
        numbers = np.concatenate([np.arange(len(here)), 10_000 + np.arange(len(there))])
        equal = set(numbers[(held == rows[row]).all(1)]) & set(a.ids.tolist())
        found = a.search(rows[row], len(equal), ef_search=100)
        assert set(found.ids.tolist()) == equal


def test_strings_and_files(tmp_path: Path) -> None:
    rows = clustered(2600, "float32", 11)
    names = [f"row {i}" for i in range(2600)]
    first, second = (
        vicinal.Index(24, ids="str", ef_construction=60),
        vicinal.Index(24, ids="str", ef_construction=60),
    )
    first.add(rows[:1200], names[:1200])
    second.add(rows[1200:], names[1200:])
    first.remove(names[3])
    second.add(rows[3], [names[3]])
    first.save(tmp_path / "first")
    second.save(tmp_path / "second")
    opened = vicinal.open(tmp_path / "first", mode="copy")
    opened.merge(vicinal.open(tmp_path / "second"))
    opened.check()
    first.merge(second)
    assert content(opened, tmp_path) == content(first, tmp_path)
    found = opened.search(rows, 1, ef_search=100).ids[:, 0]
    assert np.mean(found == np.array(names, object)) > 0.99
    again = vicinal.merge(
        vicinal.open(tmp_path / "first"), vicinal.open(tmp_path / "second", mode="copy")
    )
    assert sorted(again.ids) == sorted(names)
    again.check()


def test_links_of_a_damaged_file(tmp_path: Path) -> None:
    rows = clustered(3000, "float32", 12)
    good = make(rows[:1500])
    whole = content(make(rows[1500:], range(1500, 3000)), tmp_path)
    rng = np.random.default_rng(1)
    for share in (0.0005, 0.02):
        data = np.frombuffer(whole, np.uint8).copy()
        # all but the header and the vectors: links, codes and sizes of levels
        where = rng.integers(4096 + 1500 * 24 * 4, len(data), int(share * len(data)))
        data[where] = rng.integers(0, 256, len(where))
        (tmp_path / "damaged").write_bytes(data.tobytes())
        try:
            other = vicinal.open(tmp_path / "damaged")
            merged = good.copy()
            merged.merge(other)
        except (vicinal.FormatError, ValueError):  # ids may be twice now
            continue
        merged.check()


def test_the_larger_one_is_kept(tmp_path: Path) -> None:
    rows = clustered(3600, "float32", 13)
    small, large = make(rows[:1200]), make(rows[1200:], range(1200, 3600))
    plain = large.copy()
    plain.merge(small)
    assert content(vicinal.merge(small, large), tmp_path) == content(plain, tmp_path)
    different = make(rows[:1200], M=8)
    merged = vicinal.merge(different, large)
    assert merged.M == 8 and merged.ids.tolist() == list(range(3600))
    small.ef_search = 99
    assert vicinal.merge(small, large).ef_search == 99


# ---- threads and interruption


def test_the_same_bytes_for_any_number_of_threads(tmp_path: Path) -> None:
    rows = clustered(6000, "float32", 15, 100)
    for kind in ({"metric": "l2"}, {"metric": "cosine", "quantization": "rabitq4"}):
        other = make(rows[1::2], np.arange(1, 6000, 2), **kind)
        results = set()
        for threads in (1, 2, 3):
            index = make(rows[::2], np.arange(0, 6000, 2), **kind)
            index.merge(other, num_threads=threads)
            results.add(content(index, tmp_path))
        assert len(results) == 1


class Enough(Exception):
    """Ends a call from its progress function."""


@pytest.mark.parametrize("held", [100, 2000])
def test_a_merge_that_is_stopped_leaves_no_trace(held: int, tmp_path: Path, minilm: Any) -> None:
    rows = minilm.base
    index = make(rows[:held], metric="cosine")
    index.remove(np.arange(0, held // 2, 2))  # rows to be used again
    other = make(rows[2000:], range(2000, 4000), metric="cosine")
    before, theirs = content(index, tmp_path), content(other, tmp_path)
    stats = index.stats()
    reports: list[int] = []
    undisturbed = index.copy()
    undisturbed.merge(other, progress=lambda done, total: reports.append(done))
    assert reports == sorted(reports) and reports[-1] == 2000
    for stop in (1, 2, 10**9):
        seen: list[int] = []

        def progress(done: int, total: int, seen: list[int] = seen, stop: int = stop) -> None:
            seen.append(done)
            if len(seen) == stop or done == total:
                raise Enough

        with pytest.raises(Enough):
            index.merge(other, progress=progress)
        assert index.stats() == stats
        index.check()
        assert content(index, tmp_path) == before
        assert content(other, tmp_path) == theirs
    index.merge(other)
    assert content(index, tmp_path) == content(undisturbed, tmp_path)


def test_two_threads_that_merge_crosswise() -> None:
    rows = clustered(2400, "float32", 17)
    a, b = make(rows[:1200]), make(rows[1200:], range(1200, 2400))
    outcomes: list[str] = []
    searching = True

    def merge(into: vicinal.Index, other: vicinal.Index) -> None:
        try:
            into.merge(other)
            outcomes.append("done")
        except ValueError as error:  # whoever comes second meets its own rows
            outcomes.append(str(error))

    def search() -> None:
        while searching:
            found = a.search(rows[:50], 1, ef_search=64)
            assert np.all(found.distances[:, 0] == 0)

    reader = threading.Thread(target=search)
    writers = [threading.Thread(target=merge, args=pair) for pair in ((a, b), (b, a))]
    reader.start()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert not writer.is_alive()
    searching = False
    reader.join()
    assert sorted(outcome[:4] for outcome in outcomes) == ["done", "ids:"]
    assert sorted((len(a), len(b))) == [1200, 2400]
    a.check()
    b.check()
    progress: list[Any] = []

    def change(done: int, total: int) -> None:
        try:
            b.remove(b.ids[:1])
        except RuntimeError as error:
            progress.append(str(error))

    a = vicinal.Index(24)
    a.merge(b, progress=change)
    assert progress and all("progress function" in text for text in progress)
