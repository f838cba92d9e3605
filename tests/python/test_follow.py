"""Readers that follow a file: always a state that was flushed, bounded work, never an error."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from support import processes
from vicinal.living import tail

DIM = 8
ROWS = np.random.default_rng(0).standard_normal((6000, DIM)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    index = vicinal.Index(DIM, M=8, ef_construction=40)
    index.add(ROWS[:1500])
    index.save(tmp_path / "a.vicinal")
    return tmp_path / "a.vicinal"


def content(index: Any) -> dict[Any, bytes]:
    ids = index.ids
    return {id: row.tobytes() for id, row in zip(ids.tolist(), index.get(ids), strict=True)}


def assert_answers_alike(reader: vicinal.Follower, index: vicinal.Index) -> None:
    """All methods tell what an index of the same rows tells."""
    assert len(reader) == len(index)
    assert content(reader) == content(index)
    queries = ROWS[5000:5010]
    wanted = index.search(queries, 12, exact=True)
    found = reader.search(queries, 12, exact=True)
    np.testing.assert_array_equal(found.distances, wanted.distances)
    np.testing.assert_array_equal(np.sort(found.ids), np.sort(wanted.ids))
    one = reader.search(queries[0], 5)
    assert one.ids.shape == (5,) and one.similarities.shape == (5,)
    allowed = index.ids[::3]
    wanted = index.search(queries, 6, filter=allowed, exact=True)
    found = reader.search(queries, 6, filter=allowed, exact=True)
    np.testing.assert_array_equal(found.distances, wanted.distances)
    wanted = index.search(queries, 6, exclude=allowed, exact=True)
    found = reader.search(queries, 6, exclude=allowed, exact=True)
    np.testing.assert_array_equal(found.distances, wanted.distances)
    mine, theirs = reader.range_search(queries, 3.0), index.range_search(queries, 3.0)
    np.testing.assert_array_equal(mine.offsets, theirs.offsets)
    np.testing.assert_array_equal(mine.distances, theirs.distances)
    mine = reader.range_search(queries, 3.0, filter=allowed)
    theirs = index.range_search(queries, 3.0, filter=allowed)
    np.testing.assert_array_equal(mine.distances, theirs.distances)
    for id in (0, 7, 1499, 1500, 77_777):
        assert (id in reader) == (id in index)
    with pytest.raises(KeyError, match="77777 is not in the index"):
        reader.get([77_777])


def test_against_a_plain_index(path: Path) -> None:
    """Changes at random; after each flush the reader answers as an index of the same rows."""
    draw = random.Random(0)
    live = vicinal.open(path, mode="rw")
    plain = vicinal.open(path, mode="copy")
    reader = vicinal.open(path, follow=True)
    shown = plain.copy()
    for step in range(60):
        some = ROWS[draw.randrange(1500, 5000) :][: draw.choice((1, 1, 4, 30))]
        kind = draw.randrange(4)
        for index in (live, plain):
            if kind == 0:
                index.add(some)
            elif kind == 1:
                index.update(some, plain.ids[:: len(plain) // len(some)][: len(some)])
            elif kind == 2:
                index.add(some, ids=np.arange(len(some)) + 2 * step, on_conflict="update")
        if kind == 3:
            gone = draw.sample(plain.ids.tolist(), len(some))
            live.remove(gone)
            plain.remove(gone)
        if step % 3 == 0:
            (live.checkpoint if step % 9 == 0 else live.flush)()
            shown = plain.copy()
        if step % 5 == 0:
            reader.refresh()
            assert_answers_alike(reader, shown)
    live.close()
    assert_answers_alike(reader, plain)
    assert reader.stats()["journal_rows"] == 0 and reader.stats()["file_rows"] == len(plain)


def test_only_what_was_flushed_is_seen(path: Path) -> None:
    with vicinal.open(path, mode="rw") as live:
        reader = vicinal.open(path, follow=True)
        live.add(ROWS[:1], ids=[7000])
        with live._log.journal._disk:
            live._log.journal._write()  # it is in the file, but nobody has waited for the disk
        assert 7000 not in reader
        live.flush()
        assert 7000 in reader
        live.ef_search, live.attributes = 99, {"model": "b"}
        assert reader.ef_search == 64
        live.flush()
        assert dict(reader.attributes) == {"model": "b"} and reader.ef_search == 99


def test_a_large_flush_is_taken_up_in_pieces(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each search does a bounded piece, and all of the flush is seen at once."""
    made: list[int] = []
    real = tail.Tail._take

    def take(self: tail.Tail, ids: Any, rows: Any) -> None:
        made.append(len(rows))
        real(self, ids, rows)

    monkeypatch.setattr(tail.Tail, "_take", take)
    with vicinal.open(path, mode="rw") as live:
        reader = vicinal.open(path, follow=True)
        live.add(ROWS[1500:4500])
        live.update(ROWS[5000:5001], ids=[3])
        live.flush()
        seen = []
        while not seen or seen[-1] == 1500:
            before = sum(made)
            assert np.isfinite(reader.search(ROWS[4000], 3).distances).all()
            assert sum(made) - before <= tail.APPLY_ROWS
            seen.append(len(reader._tail.view.live) + 1500 - reader._tail.view.gone_count)
            assert (3 in reader._tail.view.live) == (seen[-1] == 4500)
            assert len(seen) < 100
        assert seen[-1] == 4500 and len(seen) > 3
        assert_answers_alike(reader, live)


def test_rows_that_are_being_taken_up_are_not_found(path: Path) -> None:
    with vicinal.open(path, mode="rw") as live:
        reader = vicinal.open(path, follow=True)
        live.add(ROWS[1500:1510])
        live.flush()
        assert len(reader) == 1510
        live.add(ROWS[1510:1910])  # more than one piece
        live.flush()
        with reader._turn:  # this thread searches while another one takes up
            reader._advance(tail.APPLY_ROWS, tail.READ_BYTES)
            fresh = reader._tail._fresh
            assert fresh is not None and len(fresh) > 10
            found = reader.search(ROWS[1510:1540], 400)
            assert len(reader) == 1510 and found.ids.max() < 1510
            nearest = reader.search(ROWS[1505], 1)
            assert nearest.ids[0] == 1505
        while len(reader) == 1510:
            pass
        assert len(reader) == 1910


def test_one_map_for_all_and_no_old_file_is_kept(path: Path) -> None:
    def mapped() -> list[str]:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
        return [line for line in maps.splitlines() if str(path) in line]

    readers = [vicinal.open(path, follow=True) for _ in range(3)]
    with vicinal.open(path, mode="rw") as live:
        for i in range(5):
            live.add(ROWS[:1], ids=[7000 + i])
            live.checkpoint()
            for reader in readers:
                assert 7000 + i in reader
                assert reader._tail.base.read_only
        assert not any("(deleted)" in line for line in mapped())
        open_files = [
            os.readlink(f"/proc/self/fd/{n}")
            for n in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{n}")
        ]
        assert not any(str(path) in name and "(deleted)" in name for name in open_files)


def test_what_goes_wrong_is_no_error_of_a_search(path: Path) -> None:
    with vicinal.open(path, mode="rw") as live:
        live.add(ROWS[:1], ids=[7000])
        live.flush()
        reader = vicinal.open(path, follow=True)
        whole = path.read_bytes()
        with pytest.raises(vicinal.FormatError):
            path.rename(path.with_name("away"))
            path.write_bytes(b"no index at all" * 1000)
            reader.refresh()
        assert 7000 in reader and len(reader.search(ROWS[0], 3).ids) == 3
        path.unlink()
        assert 7000 in reader
        with pytest.raises(FileNotFoundError):
            reader.refresh()
        path.write_bytes(whole)
        assert 7000 in reader  # file and journal belong together, wherever the bytes lie
        path.unlink()
        path.with_name("away").rename(path)


def test_threads_and_a_writer(path: Path) -> None:
    """Searches of many threads while rows are replaced: always the old or the new one, once."""
    with vicinal.open(path, mode="rw") as live:
        reader = vicinal.open(path, follow=True)
        ended = threading.Event()
        wrong: list[str] = []

        def search() -> None:
            while not ended.is_set():
                found = reader.search(ROWS[7], 5, exact=True).ids.tolist()
                if len(set(found)) != 5 or -1 in found:
                    wrong.append(str(found))
                if not 1500 <= len(reader) <= 1501:
                    wrong.append(str(len(reader)))

        threads = [threading.Thread(target=search) for _ in range(4)]
        for each in threads:
            each.start()
        for i in range(60):
            live.update(ROWS[7:8] + 0.001 * (i % 5), ids=[7])
            live.add(ROWS[8:9], ids=[9000 + i])
            live.remove([9000 + i])
            (live.checkpoint if i % 10 == 0 else live.flush)()
        ended.set()
        for each in threads:
            each.join()
        assert wrong == []


def test_forks(path: Path) -> None:
    code = """
        import os, sys, warnings
        import numpy as np, vicinal
        warnings.simplefilter("ignore")
        live = vicinal.open(sys.argv[1], mode="rw")
        reader = vicinal.open(sys.argv[1], follow=True)
        live.add(np.ones((1, 8)), ids=[7000])
        live.flush()
        reader._turn.acquire()  # as a thread of the parent that is taking up
        child = os.fork()
        if child == 0:
            assert 7000 in reader and len(reader.search(np.ones(8), 3).ids) == 3
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """
    processes.assert_lived(processes.run(code, path))


def test_filters_are_ids(path: Path) -> None:
    reader = vicinal.open(path, follow=True)
    with pytest.raises(ValueError, match="filter: expected ids, got booleans"):
        reader.search(ROWS[0], filter=np.ones(1500, bool))
    with pytest.raises(TypeError, match="exclude: expected ids, got "):
        reader.search(ROWS[0], exclude=lambda ids: ids > 3)  # type: ignore[arg-type]
    assert "a.vicinal" in repr(reader) and "1500 rows" in repr(reader)
    assert (reader.dim, reader.metric, reader.dtype) == (DIM, "l2", "float32")


@pytest.mark.parametrize("kind", ["sq8", "sq4"])
def test_codes_alone(kind: str, tmp_path: Path) -> None:
    """Rows of the journal are stored as those of the file are: all distances are of one kind."""
    path = tmp_path / "a.vicinal"
    vicinal.Index(DIM, M=8, keep_vectors=False, quantization=kind).save(path)
    with vicinal.open(path, mode="rw") as live:
        live.add(ROWS[:1500])
        live.checkpoint()
        reader = vicinal.open(path, follow=True)
        live.add(ROWS[1500:1600])
        live.flush()
        assert_answers_alike(reader, live)
