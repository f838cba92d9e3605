"""How vectors on disk are read: by io_uring, by advice, page by page; found is always the same."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from support import processes
from support.limited import JOINED, evict, need_disk
from vicinal import _identity, _reads

WAYS = _reads.WAYS
needs_rings = pytest.mark.skipif(
    not _reads._rings_work(os.getpid()), reason="the system lets this process have no io_uring"
)


def drawn(rows: int, dim: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Rows along 12 directions, which tells near neighbours apart."""
    rng = np.random.default_rng(seed)
    turn = np.random.default_rng(1).standard_normal((12, dim)) / np.sqrt(12)
    return (rng.standard_normal((rows, 12)) @ turn).astype("f4")


def opened(path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> vicinal.Index:
    """Open a file whose vectors are read in one way; skip where the disk does not know it."""
    monkeypatch.setenv(_reads.VARIABLE, way)
    index = vicinal.open(path, resident="walk")
    told = index.stats()["reads"]["by"]
    if told != way:
        assert (way, told) == ("uring", "advise")
        pytest.skip(f"no reads past the cache of {path.parent}, or no io_uring")
    return index


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An index with rows that begin and end anywhere in a page, removed and equal ones, saved."""
    folder = tmp_path_factory.mktemp("reads")
    rows = drawn(6000, 300)
    rows[::50] = rows[1::50]
    index = vicinal.Index(300)
    index.add(rows)
    index.save(folder / "whole")
    index.remove(np.arange(0, 6000, 7))
    index.save(folder / "removed")
    return {"folder": folder, "rows": rows, "queries": drawn(200, 300, 2)}


@pytest.mark.parametrize("name", ["whole", "removed"])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_finds_the_same(
    saved: dict[str, Any], way: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, queries = saved["folder"] / name, saved["queries"]
    made = vicinal.open(path, mode="copy")
    index = opened(path, way, monkeypatch)
    for k, ef in ((1, 1), (10, 64), (100, 100), (300, 400)):
        wanted = made.search(queries, k, ef_search=ef)
        for num_threads in (1, 3):
            found = index.search(queries, k, ef_search=ef, num_threads=num_threads)
            np.testing.assert_array_equal(found.ids, wanted.ids)
            np.testing.assert_array_equal(found.distances, wanted.distances)
        for i in range(20):
            one = index.search(queries[i], k, ef_search=ef)
            np.testing.assert_array_equal(one.ids, wanted.ids[i])
    allowed = np.setdiff1d(np.arange(0, 6000, 2), np.arange(0, 6000, 7))
    wanted = made.search(queries, 10, filter=allowed)
    found = index.search(queries, 10, filter=allowed)
    np.testing.assert_array_equal(found.ids, wanted.ids)
    radius = float(np.median(wanted.distances))
    near = index.range_search(queries[:20], radius)
    wanted_near = made.range_search(queries[:20], radius)
    np.testing.assert_array_equal(near.ids, wanted_near.ids)
    np.testing.assert_array_equal(near.distances, wanted_near.distances)
    requests = index.stats()["reads"]["requests"]
    assert requests == 0 if way == "fault" else requests > 0


@pytest.mark.parametrize("dim", [33, 1024, 9000])
@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_rows_of_any_length_arrive_whole(
    dim: int, metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = drawn(1500, dim)
    index = vicinal.Index(dim, metric=metric)
    index.add(rows)
    index.save(tmp_path / "index")
    wanted = index.search(rows[:100] * 1.01, 10)
    found = opened(tmp_path / "index", "uring", monkeypatch).search(rows[:100] * 1.01, 10)
    np.testing.assert_array_equal(found.ids, wanted.ids)
    np.testing.assert_array_equal(found.distances, wanted.distances)


@needs_rings
def test_what_rings_read_is_what_was_asked_for(saved: dict[str, Any]) -> None:
    path = saved["folder"] / "whole"
    need_disk(path)
    np.save(saved["folder"] / "queries.npy", saved["queries"])
    evict(path)
    told = processes.printed(
        JOINED
        + """
os.environ["VICINAL_IO"] = "uring"
queries = np.load(sys.argv[3])
index = vicinal.open(sys.argv[2], resident="walk")
before = read()
index.search(queries, 10)
for query in queries[:50]:
    index.search(query, 10)
reads = index.stats()["reads"]
print(json.dumps([reads["by"], read() - before, reads["bytes"], reads["requests"], faults()]))
""",
        *("", path, saved["folder"] / "queries.npy"),
    )
    by, read, asked, requests, _ = json.loads(told)
    if by != "uring":
        pytest.skip(f"no reads past the cache of {path.parent}")
    # each byte past the cache, but for a last page of the file that is not full
    assert asked - 4096 * requests <= read <= asked + (1 << 20)
    assert requests <= 20 * 250


@needs_rings
def test_a_child_has_rings_of_its_own(
    saved: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = opened(saved["folder"] / "whole", "uring", monkeypatch)
    queries = saved["queries"]
    wanted = index.search(queries, 10).ids
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:  # nothing but os._exit may end it
            same = False
            try:
                same = all(np.array_equal(index.search(queries, 10).ids, wanted) for _ in range(5))
            finally:
                os._exit(0 if same else 1)
        children.append(child)
    for _ in range(5):
        np.testing.assert_array_equal(index.search(queries, 10).ids, wanted)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0


@needs_rings
def test_many_threads_at_once(saved: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    index = opened(saved["folder"] / "whole", "uring", monkeypatch)
    queries = saved["queries"]
    wanted = index.search(queries, 10).ids
    wrong: list[int] = []

    def search(first: int) -> None:
        for i in range(first, len(queries), 2):
            if not np.array_equal(index.search(queries[i], 10).ids, wanted[i]):
                wrong.append(i)
            if not np.array_equal(index.search(queries, 10, num_threads=2).ids, wanted):
                wrong.append(-1)

    threads = [threading.Thread(target=search, args=(i % 2 + 170,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@needs_rings
def test_descriptors_are_given_back(saved: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    index = opened(saved["folder"] / "whole", "uring", monkeypatch)
    index.search(saved["queries"], 10)
    assert len(os.listdir("/proc/self/fd")) > before
    del index
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_way_is_chosen_by_what_the_cache_may_hold(
    saved: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(_reads.VARIABLE, raising=False)
    path = saved["folder"] / "whole"
    index = vicinal.open(path, resident="walk")
    assert index.stats()["reads"]["by"] == "advise"  # all of it fits
    monkeypatch.setattr(_reads, "_rings_work", lambda process: False)
    monkeypatch.setenv(_reads.VARIABLE, "uring")
    index = vicinal.open(path, resident="walk")
    assert index.stats()["reads"]["by"] == "advise"  # refused
    monkeypatch.setenv(_reads.VARIABLE, "quickly")
    with pytest.raises(ValueError, match="VICINAL_IO: expected 'uring', 'advise' or 'fault'"):
        vicinal.open(path, resident="walk")


def test_another_file_in_its_place_is_not_read(saved: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "index"
    whole = (saved["folder"] / "whole").read_bytes()
    path.write_bytes(whole)
    found = _identity.look(path)
    file = _reads._past_the_cache(found)
    if file >= 0:
        os.close(file)
    (tmp_path / "other").write_bytes(whole)
    os.replace(tmp_path / "other", path)
    assert _reads._past_the_cache(found) == -1
    path.unlink()
    assert _reads._past_the_cache(found) == -1
    assert _reads._past_the_cache(None) == -1


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("dim", [40, 64, 100, 129])
def test_fractions_are_measured_on_exact_codes_to_the_last_bit(
    metric: str, dtype: str, dim: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(dim)
    rows = rng.integers(0, 256, (3000, dim)).astype("f4")
    queries = rows[:60] + rng.standard_normal((60, dim)).astype("f4")
    queries[30:] *= 7  # far outside of what 8 bits hold
    made = vicinal.Index(dim, metric=metric, dtype=dtype)
    made.add(rows)
    assert made.stats()["quantization"] == "u8"
    plain = vicinal.Index(dim, metric=metric, dtype=dtype, quantization=None)
    plain.add(rows)
    made.save(tmp_path / "index")
    index = vicinal.open(tmp_path / "index", resident="walk")
    exact = plain.search(queries, 10, ef_search=3000)
    for one in (made, index):
        found = one.search(queries, 10, ef_search=370)
        there = 0
        for i in range(len(queries)):
            wanted = dict(zip(exact.ids[i].tolist(), exact.distances[i].tolist(), strict=True))
            for row, distance in zip(found.ids[i], found.distances[i], strict=True):
                if int(row) in wanted:
                    there += 1
                    assert float(distance) == wanted[int(row)]
        assert there > 0.95 * exact.ids.size
    radius = float(exact.distances[0, 5])
    near = index.range_search(queries[:30], radius, ef_search=370)
    other = made.range_search(queries[:30], radius, ef_search=370)
    np.testing.assert_array_equal(near.offsets, other.offsets)
    np.testing.assert_array_equal(near.ids, other.ids)
    np.testing.assert_array_equal(near.distances, other.distances)
    allowed = np.arange(0, 3000, 2)
    np.testing.assert_array_equal(
        index.search(queries, 10, filter=allowed).ids, made.search(queries, 10, filter=allowed).ids
    )
    assert index.stats()["reads"] == {"for": "nothing", "by": None, "requests": 0, "bytes": 0}
