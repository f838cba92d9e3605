"""Files and arrays larger than the memory for them: same results, bytes read once if possible."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from support import processes
from support.limited import JOINED, Group, evict, memory_limit, need_disk

DIM, ROWS, K = 256, 30_000, 10


def drawn(rows: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Rows along 12 directions, which tells near neighbours apart; one in 100 is there twice."""
    rng = np.random.default_rng(seed)
    turn = np.random.default_rng(0).standard_normal((12, DIM)) / np.sqrt(12)
    made = (rng.standard_normal((rows, 12)) @ turn).astype("f4")
    made[::100] = made[1::100]
    return made


@contextmanager
def limit(path: Path, share: float) -> Iterator[Group]:
    """A limit of a share of a file, and nothing of the file in memory."""
    need_disk(path)
    try:
        with memory_limit(int(path.stat().st_size * share)) as made:
            evict(path)
            yield made
    except OSError as error:
        pytest.skip(f"memory of a process cannot be limited here: {error}")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Rows and queries as files, an index that was built and saved where there was room for it."""
    folder = tmp_path_factory.mktemp("larger")
    rows, queries = drawn(ROWS, 1), drawn(100, 2)
    np.save(folder / "rows.npy", rows)
    np.save(folder / "queries.npy", queries)
    index = vicinal.Index(DIM)
    index.add(rows)
    index.save(folder / "index")
    return {
        "rows": folder / "rows.npy",
        "queries": folder / "queries.npy",
        "index": folder / "index",
        "made": index,
        "data": rows,
        "asked": queries,
        "folder": folder,
    }


def test_a_build_over_a_mapped_array_reads_it_little_more_than_twice(files: dict[str, Any]) -> None:
    target = files["folder"] / "limited"
    with limit(files["rows"], 0.7) as group:
        text = processes.printed(
            JOINED
            + """
rows = np.load(sys.argv[2], mmap_mode="r")
join()
start = read()
index = vicinal.Index(rows.shape[1])
index.add(rows, copy=False)
told = read() - start
index.save(sys.argv[3])
saved = read() - start - told
print(json.dumps({"read": told, "for": index.stats()["reads"]["for"], "save": saved}))
""",
            *(group.procs, files["rows"], target),
        )
        assert group.killed() == 0
    told = json.loads(text)
    assert told["for"] == "re-ranking"
    # once to be checked, once to be encoded, and rows of two samples, which few rows like these are
    # a large part of: up to 8,192 for the centre and 2,048 to see whether the codes fit
    sampled = ROWS // (ROWS // 4096) + 2048
    assert told["read"] <= 2.5 * files["data"].nbytes + 1.3 * 4096 * sampled
    assert told["save"] <= 2 * files["data"].nbytes
    assert target.read_bytes() == files["index"].read_bytes()


def test_exact_search_reads_a_mapped_array_once(files: dict[str, Any]) -> None:
    with limit(files["rows"], 0.4) as group:
        text = processes.printed(
            JOINED
            + """
rows, queries = np.load(sys.argv[2], mmap_mode="r"), np.load(sys.argv[3])
join()
start = read()
one = vicinal.exact_search(rows, queries[0], 10)
first = read() - start
all = vicinal.exact_search(rows, queries, 10)
print(json.dumps({
    "one": one.ids.tolist(), "all": all.ids.tolist(), "first": first, "both": read() - start
}))
""",
            *(group.procs, files["rows"], files["queries"]),
        )
        assert group.killed() == 0
    told = json.loads(text)
    wanted = vicinal.exact_search(files["data"], files["asked"], K).ids
    assert told["all"] == wanted.tolist()
    assert told["one"] == wanted[0].tolist()
    size = files["data"].nbytes
    assert told["first"] <= 1.5 * size
    assert told["both"] <= 3 * size


def test_what_scans_a_file_reads_it_once(files: dict[str, Any]) -> None:
    target = files["folder"] / "again"
    with limit(files["index"], 0.4) as group:
        text = processes.printed(
            JOINED
            + """
queries = np.load(sys.argv[3])
join()
index = vicinal.open(sys.argv[2], resident="walk")
told, start = {}, read()
def note(name):
    global start
    told[name], start = read() - start, read()
index.verify()
note("verify")
index.save(sys.argv[4])
note("save")
index.to_npy(sys.argv[6])
note("to_npy")
every = index.ids
total = 0.0
for i in range(0, len(every), 500):
    total += float(index.get(every[i : i + 500]).astype("f8").sum())
note("get")
ids = index.search(queries[:20], 10, ef_search=len(index)).ids.tolist()
note("scan")
allowed = np.arange(0, len(index), 3)
filtered = index.search(queries, 10, filter=allowed)
note("filter")
near = index.range_search(queries[:20], float(sys.argv[5]))
note("range")
print(json.dumps({
    "read": told, "rows": total, "ids": ids,
    "filtered": filtered.ids.tolist(), "near": [np.asarray(one).tolist() for one in near.ids],
}))
""",
            *(group.procs, files["index"], files["queries"], target, 2.0, f"{target}.npy"),
        )
        assert group.killed() == 0
        assert group.peak() <= files["index"].stat().st_size * 0.4
    told = json.loads(text)
    made, queries = files["made"], files["asked"]
    assert target.read_bytes() == files["index"].read_bytes()
    assert told["rows"] == pytest.approx(float(files["data"].astype("f8").sum()), rel=1e-9)
    assert told["ids"] == made.search(queries[:20], K, ef_search=len(made)).ids.tolist()
    allowed = np.arange(0, len(made), 3)
    assert told["filtered"] == made.search(queries, K, filter=allowed).ids.tolist()
    near = made.range_search(queries[:20], 2.0)
    assert told["near"] == [np.asarray(one).tolist() for one in near.ids]
    size = files["index"].stat().st_size
    np.testing.assert_array_equal(np.load(f"{target}.npy"), files["data"])
    for name in ("verify", "save", "to_npy", "get", "scan"):
        assert told["read"][name] <= 2 * size, name


def test_two_processes_share_what_stays_in_memory(files: dict[str, Any]) -> None:
    script = (
        JOINED
        + """
queries = np.load(sys.argv[3])
join()
index = vicinal.open(sys.argv[2], resident="walk")
print("open", flush=True)
sys.stdin.readline()
print(json.dumps(index.search(queries, 10).ids.tolist()))
"""
    )
    with limit(files["index"], 0.45) as group:
        arguments = (group.procs, files["index"], files["queries"])
        both = [processes.start(script, *arguments) for _ in range(2)]
        try:
            for one in both:
                assert one.stdout is not None
                assert one.stdout.readline() == "open\n"
            told = [one.communicate("go\n", timeout=processes.GUARD)[0] for one in both]
        finally:
            for one in both:
                one.kill()
        assert group.killed() == 0
    wanted = files["made"].search(files["asked"], K).ids.tolist()
    assert [json.loads(text) for text in told] == [wanted, wanted]


def test_searches_beside_a_save_over_the_same_file(files: dict[str, Any]) -> None:
    path = files["folder"] / "own"
    files["made"].save(path)
    before = path.read_bytes()
    index = vicinal.open(path, resident="walk")
    wanted = index.search(files["asked"], K)
    wrong: list[int] = []
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            found = index.search(files["asked"], K)
            if not np.array_equal(found.ids, wanted.ids):
                wrong.append(1)

    thread = threading.Thread(target=search)
    thread.start()
    try:
        for _ in range(3):
            index.save(path)
    finally:
        stop.set()
        thread.join()
    assert not wrong
    assert path.read_bytes() == before
    np.testing.assert_array_equal(
        vicinal.open(path, resident="walk").search(files["asked"], K).ids, wanted.ids
    )


@pytest.mark.parametrize("resident", ["auto", "walk", "none", "all"])
def test_a_file_that_was_cut_is_refused(
    files: dict[str, Any], tmp_path: Path, resident: str
) -> None:
    whole = files["index"].read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(vicinal.CorruptError, match=r"file ends at byte \d+, its header promises"):
        vicinal.open(tmp_path / "cut", resident=resident)


def test_a_slow_disk_changes_no_answer(files: dict[str, Any]) -> None:
    need_disk(files["index"])
    folder = Path(f"/sys/fs/cgroup/blkio/vicinal-{os.getpid()}")
    device = os.stat(files["index"]).st_dev
    try:
        folder.mkdir()
        throttle = folder / "blkio.throttle.read_iops_device"
        throttle.write_text(f"{os.major(device)}:{os.minor(device)} 500", encoding="ascii")
    except OSError as error:
        if folder.exists():
            folder.rmdir()
        pytest.skip(f"a disk cannot be slowed down here: {error}")
    try:
        evict(files["index"])
        text = processes.printed(
            JOINED
            + """
queries = np.load(sys.argv[3])
index = vicinal.open(sys.argv[2], resident="walk")
join()
start = read()
ids = index.search(queries, 10).ids.tolist()
print(json.dumps({"ids": ids, "read": read() - start}))
""",
            *(folder / "cgroup.procs", files["index"], files["queries"]),
        )
    finally:
        folder.rmdir()
    told = json.loads(text)
    assert told["read"] > 0
    assert told["ids"] == files["made"].search(files["asked"], K).ids.tolist()
