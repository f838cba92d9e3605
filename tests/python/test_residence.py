"""What of an opened file stays in memory, under a limit that bites: counted, never timed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from support import processes
from support.limited import JOINED, Group, evict, memory_limit, need_disk
from vicinal import _residence

DIM, ROWS, K = 256, 20_000, 10


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A file of 25 MB on a disk, queries, and what searches of all of it in memory find."""
    folder = tmp_path_factory.mktemp("larger")
    rng = np.random.default_rng(0)
    # 12 directions, as data that neighbours can be told apart in has few
    turn = rng.standard_normal((12, DIM)) / np.sqrt(12)
    rows = (rng.standard_normal((ROWS + 200, 12)) @ turn).astype("f4")
    rows, queries = rows[:ROWS], rows[ROWS:]
    index = vicinal.Index(DIM)
    index.add(rows)
    index.save(folder / "index")
    np.save(folder / "queries.npy", queries)
    found = index.search(queries, K)
    return {
        "path": folder / "index",
        "queries": folder / "queries.npy",
        "found": found,
        "rows": rows,
    }


@pytest.fixture
def group(saved: dict[str, Any]) -> Iterator[Group]:
    """A limit of 40 % of the file, and nothing of the file in memory."""
    size = saved["path"].stat().st_size
    try:
        with memory_limit(size * 4 // 10) as made:
            evict(saved["path"])
            yield made
    except OSError as error:
        pytest.skip(f"memory of a process cannot be limited here: {error}")


def test_walks_stay_in_memory_and_rows_are_asked_for_at_once(
    saved: dict[str, Any], group: Group
) -> None:
    need_disk(saved["path"])
    text = processes.printed(
        JOINED
        + """
queries = np.load(sys.argv[3])
join()
index = vicinal.open(sys.argv[2], resident="walk")
index.search(queries[0], 10)
before, start = faults(), read()
found = [index.search(query, 10) for query in queries]
print(json.dumps({
    "ids": [one.ids.tolist() for one in found],
    "distances": [one.distances.tolist() for one in found],
    "faults": faults() - before,
    "read": read() - start,
    "reads": index.stats()["reads"],
    "usage": index.memory_usage(),
}))
""",
        *(group.procs, saved["path"], saved["queries"]),
    )
    told = json.loads(text)
    assert told["ids"] == saved["found"].ids.tolist()
    assert told["distances"] == saved["found"].distances.tolist()
    queries, size = len(saved["found"].ids), saved["path"].stat().st_size
    assert told["reads"]["for"] == "re-ranking"
    assert K * queries < told["reads"]["requests"] < 25 * queries
    # neither read-ahead nor what was dropped and read again
    assert told["read"] <= told["reads"]["bytes"]
    assert told["faults"] <= queries // 4
    usage = told["usage"]
    assert usage["locked"] + usage["disk"] < size
    assert 0 < usage["locked"] < size / 2
    assert group.killed() == 0
    assert group.peak() <= size * 4 // 10


def test_nothing_kept_reads_single_pages(saved: dict[str, Any], group: Group) -> None:
    need_disk(saved["path"])
    text = processes.printed(
        JOINED
        + """
queries = np.load(sys.argv[3])
join()
index = vicinal.open(sys.argv[2], resident="none")
start = read()
ids = index.search(queries[:20], 10).ids
print(json.dumps({"ids": ids.tolist(), "read": read() - start, "pages": index.search_stats()}))
""",
        *(group.procs, saved["path"], saved["queries"]),
    )
    told = json.loads(text)
    assert told["ids"] == saved["found"].ids[:20].tolist()
    # a page for each code and each list of links at most, and those of the rows and ids
    touched = told["pages"]["distances"] + 2 * told["pages"]["hops"] + 20 * 60
    assert told["read"] <= 4096 * touched


def test_what_cannot_be_locked_is_copied_and_told(saved: dict[str, Any]) -> None:
    if os.geteuid() != 0:
        pytest.skip("another user has to be taken for this, which root alone can do")
    with tempfile.TemporaryDirectory() as folder:  # below pytest's own others may not look
        os.chmod(folder, 0o755)
        path = Path(shutil.copy(saved["path"], folder))
        os.chmod(path, 0o644)
        _open_as_another_user(saved, path)


def _open_as_another_user(saved: dict[str, Any], path: Path) -> None:
    text = processes.printed(
        JOINED
        + """
import warnings
queries = np.load(sys.argv[2])
resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 4096))
file = sys.argv[1]
vicinal.get_num_threads()  # imports what another user cannot read
os.setresuid(65534, 65534, 65534)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    index = vicinal.open(file, resident="walk")
print(json.dumps({
    "told": [[str(one.message), one.category.__name__, one.filename] for one in seen],
    "usage": index.memory_usage(),
    "ids": index.search(queries, 10).ids.tolist(),
}))
""",
        *(path, saved["queries"]),
    )
    told = json.loads(text)
    assert told["ids"] == saved["found"].ids.tolist()
    assert told["usage"]["locked"] == 0
    ((message, kind, where),) = told["told"]
    assert kind == "RuntimeWarning"
    assert where == "<string>"  # whoever called `open`
    assert "refused to lock" in message
    assert "copied" in message


def test_files_that_fit_are_left_alone(saved: dict[str, Any]) -> None:
    index = vicinal.open(saved["path"])
    found = index.search(np.load(saved["queries"]), K)
    np.testing.assert_array_equal(found.ids, saved["found"].ids)
    stats = index.stats()
    assert stats["resident"] == "all"
    assert stats["reads"] == {"for": "nothing", "by": None, "requests": 0, "bytes": 0}
    assert index.memory_usage()["locked"] == 0


def test_auto_goes_by_what_is_free(saved: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_residence, "_surely_fits", lambda size: False)
    size = saved["path"].stat().st_size
    walk = size - saved["rows"].nbytes
    for free, wanted in ((2 * size, "all"), (2 * size - 1, "walk"), (walk, "none")):
        monkeypatch.setattr(_residence, "free_memory", lambda free=free: free)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            index = vicinal.open(saved["path"])
        assert index.stats()["resident"] == wanted
        assert [one.category for one in seen] == [RuntimeWarning] * (wanted == "none")
        found = index.search(np.load(saved["queries"]), K)
        np.testing.assert_array_equal(found.ids, saved["found"].ids)
    with pytest.raises(MemoryError, match=rf"resident: 'all' takes {size} bytes .* {walk - 1} are"):
        monkeypatch.setattr(_residence, "free_memory", lambda: walk - 1)
        vicinal.open(saved["path"], resident="all")
    with pytest.raises(MemoryError, match="resident: 'walk' takes"):
        monkeypatch.setattr(_residence, "free_memory", lambda: 1)
        vicinal.open(saved["path"], resident="walk")


def test_what_is_unused_is_asked_first(
    saved: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = _residence._left
    monkeypatch.setattr(_residence, "_unlimited_until", 0.0)
    monkeypatch.setattr(_residence, "_left", lambda *group: asked.append(1) or real(*group))
    limited = any(
        real(folder, kind) < _residence._UNLIMITED
        for folder, kind in _residence._control_groups.folders("memory")
    )
    assert _residence._surely_fits(1) is not limited
    looked = len(asked)
    assert not _residence._surely_fits(1 << 62)
    _residence._surely_fits(1)  # believed for a moment, but by no child
    if not limited:
        assert len(asked) == looked or _residence.time.monotonic() > _residence._unlimited_until
        monkeypatch.setattr(_residence, "_unlimited_process", -1)
        _residence._surely_fits(1)
        assert len(asked) > looked or not _residence._control_groups.folders("memory")
    monkeypatch.setattr(_residence, "_unlimited_until", 0.0)
    monkeypatch.setattr(_residence, "_left", lambda *group: 1)
    if _residence._control_groups.folders("memory"):
        assert not _residence._surely_fits(1)


def test_small_files_are_not_worth_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = vicinal.Index(2)
    index.add([[1.0, 2.0]])
    index.save(tmp_path / "small")
    monkeypatch.setattr(_residence, "free_memory", lambda: pytest.fail("asked"))
    monkeypatch.setattr(_residence, "_surely_fits", lambda size: pytest.fail("asked"))
    assert vicinal.open(tmp_path / "small").stats()["resident"] == "all"


@pytest.mark.parametrize("resident", _residence.LEVELS)
def test_a_file_without_rows_has_nothing_to_keep(tmp_path: Path, resident: str) -> None:
    vicinal.Index(DIM).save(tmp_path / "index")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index = vicinal.open(tmp_path / "index", resident=resident)
    assert index.search(np.ones(DIM, np.float32), 1).ids.tolist() == [-1]
    assert index.memory_usage()["locked"] == 0


def test_warmup_reads_what_is_to_stay(saved: dict[str, Any]) -> None:
    need_disk(saved["path"])
    size = saved["path"].stat().st_size
    index = vicinal.open(saved["path"])
    evict(saved["path"])
    before = index.memory_usage()
    index.warmup()
    after = index.memory_usage()
    assert before["disk"] > size // 2
    assert after["disk"] <= 1 << 20  # the list of checksums
    del index
    evict(saved["path"])
    index = vicinal.open(saved["path"], resident="none")
    index.warmup()
    usage = index.memory_usage()
    assert usage["locked"] == 0
    assert saved["rows"].nbytes * 9 // 10 < usage["disk"] <= saved["rows"].nbytes + (1 << 20)
    made = vicinal.Index(2)
    made.add([[1.0, 2.0]])
    made.warmup()
    assert made.memory_usage()["disk"] == 0


def test_whole_numbers_are_not_read_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 256, (3000, 64)).astype("f4")
    index = vicinal.Index(64)
    index.add(rows)
    index.save(tmp_path / "index")
    opened = vicinal.open(tmp_path / "index", resident="walk")
    found = opened.search(rows[:50], 5)
    np.testing.assert_array_equal(found.ids, index.search(rows[:50], 5).ids)
    found = opened.search(rows[:50] + 0.25, 5)
    np.testing.assert_array_equal(found.ids, index.search(rows[:50] + 0.25, 5).ids)
    assert opened.stats()["reads"] == {"for": "nothing", "by": None, "requests": 0, "bytes": 0}


@pytest.mark.parametrize("resident", ["walk", "none"])
def test_walks_on_rows_say_so(tmp_path: Path, resident: str) -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((3000, 8)).astype("f4")
    index = vicinal.Index(8)
    index.add(rows)
    index.save(tmp_path / "index")
    opened = vicinal.open(tmp_path / "index", resident=resident)
    assert opened.stats()["reads"]["for"] == "every hop"
    found = opened.search(rows[:50], 5)
    np.testing.assert_array_equal(found.ids, index.search(rows[:50], 5).ids)
    # all rows of a hop at once, neighbouring ones in one request
    hops = opened.search_stats()["hops"]
    assert 0 < opened.stats()["reads"]["requests"] <= 32 * hops


def test_auto_keeps_vectors_that_are_walked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    index = vicinal.Index(8)
    index.add(rng.standard_normal((3000, 8)).astype("f4"))
    index.save(tmp_path / "index")
    size = (tmp_path / "index").stat().st_size
    monkeypatch.setattr(_residence, "ALWAYS_FITS", 0)
    monkeypatch.setattr(_residence, "_surely_fits", lambda size: False)
    for free, wanted in ((4 * size // 3 + 1, "all"), (4 * size // 3 - 1, "walk")):
        monkeypatch.setattr(_residence, "free_memory", lambda free=free: free)
        opened = vicinal.open(tmp_path / "index")
        assert opened.stats()["resident"] == wanted
        told = opened.stats()["reads"]["for"]
        assert told == ("nothing" if wanted == "all" else "every hop")


def test_bad_arguments(saved: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="resident: expected 'auto', 'all', 'walk' or 'none', got"):
        vicinal.open(saved["path"], resident="some")
    with pytest.raises(TypeError, match=r"resident: expected .*, got int"):
        vicinal.open(saved["path"], resident=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"resident: .* with mode"):
        vicinal.open(saved["path"], mode="copy", resident="walk")
    copy = vicinal.open(saved["path"], mode="copy", resident="all")
    assert copy.stats()["resident"] == "all"


def test_free_memory_minds_the_group(saved: dict[str, Any], group: Group) -> None:
    text = processes.printed(
        JOINED + "from vicinal import _residence; join(); print(_residence.free_memory())",
        group.procs,
    )
    limit = saved["path"].stat().st_size * 4 // 10
    assert limit // 2 < int(text) <= limit
