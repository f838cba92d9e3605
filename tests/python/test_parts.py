"""An index built in parts: the same bytes whoever builds it, and the links that the rule gives."""

from __future__ import annotations

import functools
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from vicinal import CorruptError, RowError, parts
from vicinal._cpu import native
from vicinal.parts import _build, _sizes
from vicinal.parts._clusters import Clusters
from vicinal.parts._file import ArrayFile
from vicinal.parts._part import links_of, part_digest
from vicinal.parts._plan import MOST_COPIES

KILLS = int(os.environ.get("VICINAL_KILLS", "200")) // 40
RNG = np.random.default_rng(14)
CENTRES = RNG.normal(size=(30, 16))
ROWS = (CENTRES[RNG.integers(0, 30, 6000)] + 0.7 * RNG.normal(size=(6000, 16))).astype(np.float32)
ROWS[3000:3050] = ROWS[:50]
QUERIES = (CENTRES[RNG.integers(0, 30, 200)] + 0.7 * RNG.normal(size=(200, 16))).astype(np.float32)


def digest(path: Any) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def recall(index: Any, rows: Any, queries: Any, ef: int, metric: str = "l2") -> float:
    ids, _ = vicinal.exact_search(rows, queries, 10, metric=metric)
    found = index.search(queries, 10, ef_search=ef).ids
    return float(np.mean([len(set(a) & set(b)) for a, b in zip(ids, found, strict=True)])) / 10


@functools.cache
def expected() -> str:
    """The digest of ROWS built in 5 parts by one thread, one step after the other."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        plan = parts.plan(ROWS, os.path.join(folder, "scratch"), parts=5)
        for part in range(parts.Plan(plan).parts):
            parts.build_part(plan, part)
        parts.join(plan, os.path.join(folder, "index"), num_threads=1)
        return digest(os.path.join(folder, "index"))


# ---- the graph


def reference(rows: Any, lists: list[set[int]], wanted: int) -> list[list[int]]:
    """Select the links of every row from its lists, in Python integers."""
    table = rows.astype(np.int64)
    chosen = []
    for row, near in enumerate(lists):
        apart = ((table - table[row]) ** 2).sum(1)
        order = sorted(near - {row}, key=lambda other: (apart[other], other))
        kept: list[int] = []
        spare = []
        for other in order:
            if len(kept) == wanted:
                break
            gaps = [int(((table[one] - table[other]) ** 2).sum()) for one in kept]
            if all(gap >= apart[other] for gap in gaps):
                kept.append(other)
            elif not any(7 * gap < 5 * apart[other] for gap in gaps):
                spare.append(other)
        for other in spare:
            gaps = [int(((table[one] - table[other]) ** 2).sum()) for one in kept]
            if len(kept) < wanted and not any(7 * gap < 5 * apart[other] for gap in gaps):
                kept.append(other)
        chosen.append(kept)
    return chosen


@pytest.mark.parametrize("quantization", [None, "u8"])
def test_links_are_selected_from_all_lists_of_a_row(tmp_path: Path, quantization: Any) -> None:
    rows = np.clip(np.rint(ROWS[:2500] * 20 + 100), 0, 255).astype(np.float32)
    rows = np.unique(rows, axis=0)
    plan = parts.plan(rows, tmp_path / "scratch", parts=4, quantization=quantization)
    lists: list[set[int]] = [set() for _ in rows]
    for part in range(4):
        file = ArrayFile(parts.build_part(plan, part))
        for row, links in zip(file.array("rows"), file.array("links"), strict=True):
            lists[row] |= set(links[links < len(rows)].tolist())
    parts.join(plan, tmp_path / "index")
    index = vicinal.open(tmp_path / "index")
    links = links_of(index._handle)
    wrong = 0
    for row, chosen in enumerate(reference(rows, lists, 30)):
        wrong += links[row][links[row] < len(rows)].tolist() != chosen
    assert wrong <= 2  # links that made rows reachable


def test_every_row_is_in_its_two_nearest_parts(tmp_path: Path) -> None:
    plan = parts.Plan(parts.plan(ROWS, tmp_path, parts=6))
    counts = np.zeros(len(ROWS), int)
    for part in range(plan.parts):
        members = plan.members(part)
        assert (np.diff(members.astype(int)) > 0).all()
        counts[members] += 1
    assert counts.min() == 2 and counts.max() <= MOST_COPIES
    assert plan.sizes().max() < 1.6 * plan.sizes().mean()


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_clusters_are_those_of_a_plain_computation(metric: str) -> None:
    rows = ROWS[:600]
    if metric == "cosine":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    clusters = Clusters(rows, 7, metric, 3)
    points = clusters._points(rows)
    assert np.abs(points).max() <= 127 and (points == np.rint(points)).all()
    if metric == "ip":
        points = clusters._longer(points)
    table, centres = points.astype(int), clusters.centres.astype(int)
    apart = ((table[:, None] - centres[None]) ** 2).sum(2) + clusters.prices
    order = np.argsort(apart, axis=1, kind="stable")[:, :3]
    near = np.take_along_axis(apart, order, 1)
    order[near[:, 2] > near[:, 1] * 103 // 100, 2] = -1
    assert (clusters.parts_of(rows) == order).all()


def test_recall_is_that_of_one_build(minilm: Any, tmp_path: Path) -> None:
    single = vicinal.build(minilm.base, metric="cosine")
    joined = vicinal.build(minilm.base, tmp_path / "index", metric="cosine", parts=3)
    for ef in (16, 64):
        wanted = recall(single, minilm.base, minilm.queries, ef, "cosine")
        assert recall(joined, minilm.base, minilm.queries, ef, "cosine") >= wanted - 0.015


def test_a_joined_index_can_be_changed(tmp_path: Path) -> None:
    vicinal.build(ROWS, tmp_path / "index", parts=5)
    index = vicinal.open(tmp_path / "index", mode="copy", verify=True)
    index.check()
    assert index.search(ROWS[10], 2).ids.tolist() == [10, 3010]
    assert recall(index, ROWS, QUERIES, 64) > 0.97
    index.remove(np.arange(0, 6000, 3))
    index.add(QUERIES)
    index.check()
    assert index.search(QUERIES[7], 1).distances[0] == 0


# ---- the same bytes


class OnlyMap:
    """An executor as Ray's pool is one."""

    def map(self, task: Any, items: list[int]) -> list[str]:
        return [task(item) for item in reversed(items)]


@pytest.mark.parametrize("workers", ["1", "2", "3", "8", "threads", "processes", "map"])
def test_bytes_do_not_depend_on_workers(workers: str, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    given: dict[str, Any] = {"num_threads": int(workers) if workers.isdigit() else 1}
    pools = {"threads": ThreadPoolExecutor, "processes": ProcessPoolExecutor}
    if workers in pools:
        given["executor"] = pools[workers](2)
    elif workers == "map":
        given["executor"] = OnlyMap()
    index = vicinal.build(
        ROWS, tmp_path / "index", parts=5, progress=lambda *done: told.append(done), **given
    )
    assert len(index) == len(ROWS) and index.read_only
    assert digest(tmp_path / "index") == expected()
    assert told[-1] == (6000, 6000) and told == sorted(told)
    assert os.listdir(tmp_path) == ["index"]
    if workers in pools:
        given["executor"].shutdown()


def test_sources_do_not_matter(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    vicinal.build(tmp_path / "rows.npy", tmp_path / "a", parts=5)
    vicinal.build((ROWS[i : i + 700] for i in range(0, 6000, 700)), tmp_path / "b", parts=5)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") == expected()


def test_one_part_is_what_add_makes(tmp_path: Path) -> None:
    vicinal.build(ROWS, tmp_path / "a")
    index = vicinal.Index(16)
    index.add(ROWS)
    index.save(tmp_path / "b")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


@pytest.mark.parametrize("parts", [None, 1])
def test_an_iterator_of_few_rows_makes_what_add_makes(parts: Any, tmp_path: Path) -> None:
    buffer = np.empty((700, 16), ROWS.dtype)  # one array for all batches

    def batches() -> Iterator[Any]:
        for start in range(0, len(ROWS), 700):
            block = buffer[: len(ROWS[start : start + 700])]
            block[:] = ROWS[start : start + 700]
            yield block, [f"row {start + i}" for i in range(len(block))]

    vicinal.build(batches(), tmp_path / "a", parts=parts)
    names = [f"row {i}" for i in range(len(ROWS))]
    vicinal.build(ROWS, tmp_path / "b", ids=names)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_an_iterator_of_many_rows_is_written_to_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read before that was known comes first."""
    monkeypatch.setattr(_sizes, "FEWEST_ROWS", 1500)
    monkeypatch.setattr(_sizes, "ROWS_OF_A_PART", 1500)
    vicinal.build((ROWS[i : i + 700] for i in range(0, 6000, 700)), tmp_path / "a")
    vicinal.build(ROWS, tmp_path / "b")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    bound = _sizes.least_memory(6000, 16, "float32", 16, 1)
    rows = (ROWS[i : i + 700] for i in range(0, 6000, 700))
    vicinal.build(rows, tmp_path / "c", memory=bound, num_threads=1)
    vicinal.build(ROWS, tmp_path / "d", memory=bound, num_threads=1)
    assert digest(tmp_path / "c") == digest(tmp_path / "d")


def test_command_line_builds_parts(tmp_path: Path) -> None:
    plan = parts.plan(ROWS, tmp_path / "scratch", parts=5)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vicinal", "part", plan, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    assert run("3").stdout.strip() == parts.Plan(plan).part_path(3)
    assert run("9").returncode == 2
    assert run("--join", str(tmp_path / "index")).returncode == 3  # parts are missing
    assert len(run().stdout.split()) == 5
    assert run("--join", str(tmp_path / "index")).returncode == 0
    assert digest(tmp_path / "index") == expected()


# ---- crashes


BUILD = """
import sys, numpy, vicinal
vicinal.build(sys.argv[1], sys.argv[2], parts=5, num_threads=2)
"""


def test_after_kills_the_bytes_are_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    command = [sys.executable, "-c", BUILD, str(tmp_path / "rows.npy"), str(tmp_path / "index")]
    start = time.monotonic()
    subprocess.run(command, check=True, timeout=300)
    whole = time.monotonic() - start
    os.unlink(tmp_path / "index")
    for kill in range(KILLS):
        child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(whole * (kill + 1) / (KILLS + 1))
        child.send_signal(signal.SIGKILL)
        child.wait()
        if (tmp_path / "index").exists():
            assert digest(tmp_path / "index") == expected()
    vicinal.build(tmp_path / "rows.npy", tmp_path / "index", parts=5)
    assert digest(tmp_path / "index") == expected()


def test_parts_that_are_there_are_not_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"

    def fails(*_: Any, **__: Any) -> None:
        raise OSError(28, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(_build, "join", fails)
        with pytest.raises(OSError, match="no space"):
            vicinal.build(ROWS, tmp_path / "index", parts=5, scratch=scratch)
    before = {part: (scratch / f"part-{part:05}").stat().st_ino for part in range(5)}
    os.unlink(scratch / "part-00002")
    with monkeypatch.context() as patch:
        patch.setattr(_build, "join", fails)
        with pytest.raises(OSError, match="no space"):
            vicinal.build(ROWS, tmp_path / "index", parts=5, scratch=scratch)
    after = {part: (scratch / f"part-{part:05}").stat().st_ino for part in range(5)}
    assert [part for part in before if before[part] == after[part]] in ([0, 1, 3, 4], [*range(5)])
    # other rows have another plan, whose parts are all built anew
    changed = ROWS.copy()
    changed[17] += 1
    vicinal.build(changed, tmp_path / "index", parts=5, scratch=scratch)
    assert digest(tmp_path / "index") != expected()
    vicinal.build(changed, tmp_path / "other", parts=5)
    assert digest(tmp_path / "index") == digest(tmp_path / "other")


def test_parts_of_another_plan_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    plan = parts.plan(ROWS, tmp_path / "a", parts=3)
    other = parts.plan(ROWS[::-1], tmp_path / "b", parts=3)
    for part in range(3):
        parts.build_part(plan, part)
        parts.build_part(other, part)
    mine, theirs = parts.Plan(plan), parts.Plan(other)
    assert part_digest(mine, 0) != part_digest(theirs, 0)
    whole = Path(mine.part_path(1)).read_bytes()
    Path(mine.part_path(1)).write_bytes(Path(theirs.part_path(1)).read_bytes())
    with pytest.raises(CorruptError, match="another plan"):
        parts.join(plan, tmp_path / "index")
    for place in (9, 40, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        Path(mine.part_path(1)).write_bytes(damaged)
        with pytest.raises((CorruptError, vicinal.FormatError)):
            parts.join(plan, tmp_path / "index")
    Path(mine.part_path(1)).write_bytes(whole[:-1])
    with pytest.raises(CorruptError):
        parts.join(plan, tmp_path / "index")
    parts.build_part(plan, 1)  # is whole again
    parts.join(plan, tmp_path / "index")


def test_a_folder_is_used_by_one_build_at_a_time(tmp_path: Path) -> None:
    with _build._alone(str(tmp_path / "x.parts")), pytest.raises(BlockingIOError, match="another"):
        vicinal.build(ROWS, tmp_path / "x", parts=2)
    vicinal.build(ROWS[:2000], tmp_path / "x", parts=2)


# ---- rows of every kind


@pytest.mark.parametrize("kind", ["equal", "sorted", "one heap", "apart", "few", "one row"])
def test_uneven_rows(kind: str, tmp_path: Path) -> None:
    rows = {
        "equal": np.tile(ROWS[:1], (3000, 1)),
        "sorted": ROWS[np.argsort(ROWS[:, 0])],
        "one heap": np.concatenate([ROWS[:300], ROWS[:1] + 0.01 * ROWS[:2700]]),
        "apart": np.concatenate([ROWS[:1500], ROWS[1500:3000] + 300]),
        "few": ROWS[:40],
        "one row": ROWS[:1],
    }[kind]
    vicinal.build(rows, tmp_path / "index", parts=4)
    index = vicinal.open(tmp_path / "index", mode="copy", verify=True)
    index.check()
    found = index.search(rows[::7], 1, ef_search=100)
    assert (found.distances[:, 0] <= 1e-3).mean() > 0.995


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "uint8"])
def test_all_spaces(metric: str, dtype: str, tmp_path: Path) -> None:
    rows: Any = np.clip(np.rint(ROWS[:2500] * 20 + (100 if dtype == "uint8" else 0)), -120, 250)
    if dtype not in ("int8", "uint8"):
        rows = ROWS[:2500]
    rows = np.clip(rows, -120, 120) if dtype == "int8" else rows
    single = vicinal.build(rows, metric=metric, dtype=dtype)
    vicinal.build(rows, tmp_path / "index", metric=metric, dtype=dtype, parts=3)
    index = vicinal.open(tmp_path / "index", mode="copy", verify=True)
    index.check()
    assert (index.get([3, 99]) == single.get([3, 99])).all()
    wanted = single.search(rows[:200], 10, ef_search=64)
    found = index.search(rows[:200], 10, ef_search=64)
    assert np.median(found.distances / np.where(wanted.distances == 0, 1, wanted.distances)) <= 1
    assert (found.ids == wanted.ids).mean() > 0.9


def test_packed_bits(tmp_path: Path) -> None:
    bits = np.packbits(ROWS[:2500] @ RNG.normal(size=(16, 64)).astype(np.float32) > 0, axis=1)
    single = vicinal.build(bits, metric="hamming", dtype="b1")
    assert single.dim == 64
    vicinal.build(bits, tmp_path / "index", metric="hamming", dtype="b1", parts=3)
    index = vicinal.open(tmp_path / "index", mode="copy", verify=True)
    index.check()
    wanted = single.search(bits[:200], 10, ef_search=64)
    found = index.search(bits[:200], 10, ef_search=64)
    assert (found.distances == wanted.distances).mean() > 0.97
    assert (index.get([3, 99]) == bits[[3, 99]]).all()


def test_ids(tmp_path: Path) -> None:
    ids = np.arange(6000)[::-1] * 7 + 5
    index = vicinal.build(ROWS, tmp_path / "index", ids=ids, parts=4)
    assert (index.ids == ids).all() and index.search(ROWS[9], 1).ids[0] == ids[9]
    names = [f"row {i}" for i in range(6000)]
    index = vicinal.build(ROWS, tmp_path / "index", ids=names, parts=4)
    assert index.search(ROWS[9], 1).ids[0] == "row 9"
    batches = ((ROWS[i : i + 900], names[i : i + 900]) for i in range(0, 6000, 900))
    vicinal.build(batches, tmp_path / "other", parts=4)
    assert digest(tmp_path / "index") == digest(tmp_path / "other")


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"memory": "1GB", "path": None}, ValueError, "memory: expected None"),
        ({"parts": 3, "path": None}, ValueError, "parts: expected None"),
        ({"memory": "much"}, ValueError, "memory: expected bytes or a text"),
        ({"memory": "1MB"}, ValueError, "memory: expected at least"),
        ({"parts": 0}, ValueError, "parts: expected a whole number"),
        ({"executor": 7, "parts": 2}, TypeError, "executor: expected an object"),
        ({"ids": [1] * 6000, "parts": 2}, RowError, "row 1 has the id 1"),
        ({"metric": "far", "parts": 2}, ValueError, "metric"),
    ],
)
def test_wrong_arguments(wrong: Any, error: Any, message: str, tmp_path: Path) -> None:
    given = {"path": tmp_path / "index", **wrong}
    with pytest.raises(error, match=message):
        vicinal.build(ROWS, **given)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("count", [1, 3])
def test_a_target_that_cannot_be_is_refused_at_once(tmp_path: Path, count: int) -> None:
    for rows in (ROWS, ROWS[:5]):
        with pytest.raises(FileNotFoundError):
            vicinal.build(rows, tmp_path / "none" / "index", parts=count)
        with pytest.raises(IsADirectoryError):
            vicinal.build(ROWS, tmp_path, parts=count)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_who_stops_a_build_can_go_on(tmp_path: Path, threads: int) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            vicinal.build(ROWS, tmp_path / "index", parts=5, num_threads=threads, progress=stop)
    assert os.listdir(tmp_path) == ["index.parts"]
    vicinal.build(ROWS, tmp_path / "index", parts=5)
    assert digest(tmp_path / "index") == expected() and os.listdir(tmp_path) == ["index"]


def test_a_bad_row_is_named(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[4321, 3] = np.nan
    with pytest.raises(RowError, match="row 4321 holds NaN") as caught:
        vicinal.build(rows, tmp_path / "index", parts=3)
    assert caught.value.row == 4321
    assert os.listdir(tmp_path) == []


def test_a_worker_that_does_not_see_the_files(tmp_path: Path) -> None:
    class Blind:
        def map(self, task: Any, items: list[int]) -> list[str]:
            return ["elsewhere"] * len(items)

    with pytest.raises(RuntimeError, match="workers must see the same files"):
        vicinal.build(ROWS, tmp_path / "index", parts=3, executor=Blind())


def join_natively(index: Any, rows: Any, links: Any) -> None:
    native.index_join(index._handle, (rows,), (links,), None, 1, None, 0, False)


def test_native_join_refuses_what_cannot_be(tmp_path: Path) -> None:
    plan = parts.Plan(parts.plan(ROWS[:1500], tmp_path, parts=2))
    links = np.full((2, 32), 2**32 - 1, np.uint32)
    for rows in ([3, 3], [1, 1500], [5, 4]):
        index = vicinal.open(plan.rows_path())
        with pytest.raises(ValueError, match="a part names a row"):
            join_natively(index, np.array(rows, np.uint32), links)
    index = vicinal.open(plan.rows_path())
    with pytest.raises(ValueError, match="expected blocks"):
        join_natively(index, np.arange(3, dtype=np.uint32), links)
    # links to rows that do not exist are passed over, and rows without any are linked anew
    index = vicinal.open(plan.rows_path())
    links[:] = np.arange(5000, 5032)
    join_natively(index, np.arange(2, dtype=np.uint32), links)
    assert native.index_check(index._handle) == 0
    assert recall(index, ROWS[:1500], QUERIES, 64) > 0.95


def test_native_join_tells_of_files_that_cannot_be_read(tmp_path: Path) -> None:
    plan = parts.Plan(parts.plan(ROWS[:1500], tmp_path, parts=2))
    rows = np.arange(2, dtype=np.uint32)
    (tmp_path / "short").write_bytes(bytes(2 * 128 - 1))
    for name in ("short", "none"):
        index = vicinal.open(plan.rows_path())
        paths = (os.fsencode(tmp_path / name),)
        with pytest.raises(OSError, match="part 0: its links could not be read"):
            native.index_join(
                index._handle, (rows,), paths, np.zeros(1, np.int64), 1, None, 0, False
            )
    with (
        open(tmp_path / "short", "rb") as file,
        pytest.raises(OSError, match="rows: could not be read"),
    ):
        native.rows_read(file.fileno(), 0, 128, rows, np.zeros((2, 128), np.uint8))


def test_rows_that_are_nearly_as_near_to_a_third_part_are_not_all_copied_there() -> None:
    """Of what nearly ties less than half is linked a third time, of other rows what is near."""
    rng = np.random.default_rng(0)
    tied = rng.normal(size=(20_000, 64)).astype(np.float32)
    clusters = Clusters(tied[:10_000], 20, "l2", 0)
    assert 10_000 < clusters.nearly < 10_300
    thirds = (clusters.parts_of(tied[10_000:])[:, 2] >= 0).mean()
    assert 0.4 < thirds < 0.5
    apart = tied[:, :4]
    clusters = Clusters(apart[:10_000], 20, "l2", 0)
    assert clusters.nearly == 10_300
    assert 0 < (clusters.parts_of(apart[10_000:])[:, 2] >= 0).mean() < 0.3


@pytest.mark.parametrize("memory", [None, "1GB"])
def test_lists_of_a_further_range_are_those_of_their_rows(memory: Any, tmp_path: Path) -> None:
    """Lists are united for 16,384 rows at a time, in memory and out of files."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(2 * 16_384 + 100, 8)).astype(np.float32)
    index = vicinal.build(rows, tmp_path / "index", parts=5, memory=memory, seed=1)
    for start in (0, 16_384, 2 * 16_384):
        near = rows[start : start + 100] + rng.normal(scale=0.01, size=(100, 8)).astype(np.float32)
        assert recall(index, rows, near, 64) > 0.98


# ---- memory


PEAK = """
import sys, vicinal
from vicinal.parts import _join
_join._GIVE_BACK_EVERY = 1e6  # the thread that helps where rows are not linked on codes never does
vicinal.build(sys.argv[1], sys.argv[2], memory=int(sys.argv[3]), num_threads=2)
lines = open("/proc/self/status").read().split("VmHWM:")[1]
print(int(lines.split()[0]) * 1024)
"""


def test_memory_is_kept(tmp_path: Path) -> None:
    """Whoever has read pages gives them back, however busy the machine is."""
    rows, dim = 30_000, 768  # 92 MB
    table = np.lib.format.open_memmap(tmp_path / "rows.npy", "w+", np.float32, (rows, dim))
    for start in range(0, rows, 3000):
        rng = np.random.default_rng(start)
        table[start : start + 3000] = rng.normal(size=(3000, dim))
    table.flush()
    del table
    bound = _sizes.least_memory(rows, dim, "float32", 16, 2)
    command = [sys.executable, "-c", PEAK, str(tmp_path / "rows.npy"), str(tmp_path / "index")]
    done = subprocess.run([*command, str(bound)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= bound
    vicinal.open(tmp_path / "index", verify=True)


def test_number_of_parts_is_a_matter_of_rows_and_memory() -> None:
    assert _sizes.number_of_parts(100_000, 128, "float32", 16, None, 2) == 1
    many = _sizes.number_of_parts(1_000_000, 128, "float32", 16, None, 2)
    assert many == _sizes.number_of_parts(1_000_000, 128, "float32", 16, None, 64) > 50
    bounded = [
        _sizes.number_of_parts(1_000_000, 768, "float32", 16, memory << 30, 2)
        for memory in (2, 3, 8)
    ]
    assert bounded == sorted(bounded, reverse=True)


@pytest.mark.parametrize(
    ("text", "value"),
    [("4GB", 4 * 10**9), ("512 MiB", 512 << 20), ("1.5g", 1_500_000_000), (77, 77), ("9", 9)],
)
def test_memory_is_read(text: Any, value: int) -> None:
    assert _sizes.as_bytes(text) == value
