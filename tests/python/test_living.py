"""A living file: changes are in its journal once flushed, whatever becomes of the writer."""

from __future__ import annotations

import copy
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from support import processes
from support.indexes import assert_same
from vicinal.living import lock as locks

DIM = 8
ROWS = np.random.default_rng(0).standard_normal((4000, DIM)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of 1,500 rows."""
    index = vicinal.Index(DIM, M=8, ef_construction=40)
    index.add(ROWS[:1500])
    index.save(tmp_path / "a.vicinal")
    return tmp_path / "a.vicinal"


def left(index: vicinal.LivingIndex) -> None:
    """Leave an index as a writer leaves it that is killed: what waits in memory is gone."""
    log = index._log
    log._abandoned.detach()
    log._ended.set()
    log.closed = True
    log.journal.close()
    for lock in list(locks._held.values()):
        if lock.path == log.path + ".lock":
            lock.release()


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path.parent))


def content(index: Any) -> dict[Any, bytes]:
    ids = index.ids
    return {id: row.tobytes() for id, row in zip(ids.tolist(), index.get(ids), strict=True)}


# ---- changes come back


def test_changes_come_back(path: Path) -> None:
    index = vicinal.open(path, mode="rw")
    assert isinstance(index, vicinal.LivingIndex)
    added = index.add(ROWS[1500:1600])
    index.update(ROWS[2000:2010], ids=np.arange(10))
    index.remove([20, 21, int(added[-1])])
    index.add(ROWS[3000:3002], ids=[-5, 5000], on_conflict="update")
    index.add(ROWS[3000:3004], ids=[5000, 6, 7000, -5], on_conflict="skip")
    index.ef_search = 77
    index.attributes = {"model": "a", "sizes": [1, 2]}
    tuned = index.tune(0.9)
    index.flush()
    wanted = content(index)
    left(index)
    again = vicinal.open(path, mode="rw")
    assert content(again) == wanted
    assert again.ef_search == 77 and dict(again.attributes) == {"model": "a", "sizes": [1, 2]}
    assert again.tuned[0].ef_search == tuned.ef_search
    again.check()
    again.close()
    assert names(path) == ["a.vicinal"]
    alone = vicinal.open(path, verify=True)
    assert content(alone) == wanted and alone.ef_search == 77
    assert_same(alone.search(ROWS[:50]), again.search(ROWS[:50]))


def test_string_ids_and_each_stored_type(tmp_path: Path) -> None:
    for dtype, metric in (
        ("float32", "cosine"),
        ("float16", "ip"),
        ("bfloat16", "l2"),
        ("int8", "l2"),
        ("uint8", "ip"),
        ("b1", "hamming"),
    ):
        path = tmp_path / f"{dtype}.vicinal"
        dim = 64 if dtype == "b1" else DIM
        low = 0 if dtype in ("uint8", "b1") else -100
        rows = np.random.default_rng(1).integers(low, 100, (300, DIM))
        rows = rows.astype(np.uint8) if dtype == "b1" else rows
        rows[:, 0] += 1
        vicinal.Index(dim, metric, dtype=dtype, ids="str").save(path)
        index = vicinal.open(path, mode="rw")
        index.add(rows[:200], ids=[f"row {i}" for i in range(200)])
        index.add(rows[200:201], ids=["zwölf \N{SNOWMAN}"])
        index.update(rows[201:203], ids=["row 7", ""] if "" in index else ["row 7", "row 8"])
        index.remove(["row 1", "row 2"])
        index.flush()
        wanted = content(index)
        left(index)
        again = vicinal.open(path, mode="rw")
        assert content(again) == wanted and len(wanted) == 199
        follower = vicinal.open(path, follow=True)
        assert content(follower) == wanted
        again.close()
        assert content(follower) == wanted == content(vicinal.open(path))


def test_automatic_ids_are_never_given_twice(path: Path) -> None:
    index = vicinal.open(path, mode="rw")
    given = index.add(ROWS[:3]).tolist()
    index.remove(given)
    index.flush()
    for _ in range(3):
        left(index)
        index = vicinal.open(path, mode="rw")
        new = index.add(ROWS[:2]).tolist()
        assert not set(new) & set(given)
        given += new
        index.remove(new)
        index.checkpoint()
    index.close()


def test_a_change_that_is_refused_is_not_noted(path: Path) -> None:
    index = vicinal.open(path, mode="rw")
    index.flush()
    with pytest.raises(ValueError, match="already in the index"):
        index.add(ROWS[:2], ids=[5000, 1])
    with pytest.raises(KeyError):
        index.remove([1, 9999])
    with pytest.raises(ValueError, match="NaN"):
        index.add([[np.nan] * DIM])
    index.add(np.empty((0, DIM)))
    assert index.journal_bytes == 0
    index.close()


def test_a_merge_and_a_source_are_noted(path: Path) -> None:
    other = vicinal.Index(DIM, M=8, ef_construction=40)
    other.add(ROWS[2000:2100], ids=np.arange(9000, 9100))
    index = vicinal.open(path, mode="rw")
    index.merge(other)
    index.add(vicinal.read_vectors(ROWS[2100:2200]))
    index.compact()
    index.add(ROWS[2200:2201])
    index.flush()
    wanted = content(index)
    left(index)
    with vicinal.open(path, mode="rw") as again:
        assert content(again) == wanted and len(again) == 1701


def test_what_is_replayed_is_found_as_well(path: Path) -> None:
    """One row a call, replayed many at once: what is found is what was found before."""
    index = vicinal.open(path, mode="rw")
    for row in ROWS[1500:2500]:
        index.add(row)
    index.flush()
    truth = vicinal.exact_search(ROWS[:2500], ROWS[3000:3300], k=10).ids
    before = vicinal.recall_at_k(index.search(ROWS[3000:3300], ef_search=32).ids, truth)
    left(index)
    again = vicinal.open(path, mode="rw")
    after = vicinal.recall_at_k(again.search(ROWS[3000:3300], ef_search=32).ids, truth)
    assert after > before - 0.01 and after > 0.9
    again.close()


def test_a_change_without_a_note_is_in_the_next_file(path: Path) -> None:
    """Ctrl-C may come between a change and its note: then the whole index is written."""
    index = vicinal.open(path, mode="rw")
    noted, index._log.wrote = index._log.wrote, lambda ids, rows: None  # type: ignore[method-assign]
    index.add(ROWS[:1], ids=[7777])
    index._log.wrote = noted  # type: ignore[method-assign]
    index.add(ROWS[:1], ids=[8888])
    index.flush()
    wanted = content(index)
    left(index)
    with vicinal.open(path, mode="rw") as again:
        assert content(again) == wanted and 7777 in again and 8888 in again


# ---- flushing


def test_flushing_by_itself(path: Path) -> None:
    index = vicinal.open(path, mode="rw", flush_changes=3)
    for i in range(7):
        index.add(ROWS[i], ids=[5000 + i])
    assert index.stats()["journal"]["syncs"] == 2
    left(index)
    index = vicinal.open(path, mode="rw", flush_seconds=0.01)
    assert [5000 + i in index for i in range(7)] == [True] * 6 + [False]
    index.add(ROWS[0], ids=[6000])
    processes.wait_until(lambda: not index._log.pending(), "a flush")
    left(index)
    with vicinal.open(path, mode="rw") as again:
        assert 6000 in again


def test_one_wait_serves_many(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that flush while the disk is at it share the next wait."""
    index = vicinal.open(path, mode="rw")
    entered, go_on = threading.Event(), threading.Event()
    real = os.fdatasync

    def slow(file: int) -> None:
        entered.set()
        assert go_on.wait(processes.GUARD)
        real(file)

    monkeypatch.setattr(os, "fdatasync", slow)

    def write(number: int) -> None:
        index.add(ROWS[number], ids=[5000 + number])
        index.flush()

    first = threading.Thread(target=write, args=(0,))
    first.start()
    assert entered.wait(processes.GUARD)
    others = [threading.Thread(target=write, args=(i,)) for i in range(1, 9)]
    for each in others:
        each.start()
    # some of them in one record: small additions of several threads are one
    processes.wait_until(
        lambda: len(index) == 1509 and index._log._seen == index._changes(), "all are noted"
    )
    assert len(index.search(ROWS[0], 5).ids) == 5  # nobody else waits
    go_on.set()
    for each in (first, *others):
        each.join()
    assert index._log.journal.syncs <= 3
    left(index)
    with vicinal.open(path, mode="rw") as again:
        assert all(5000 + i in again for i in range(9))


def test_additions_go_on_during_a_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vicinal.living import checkpoint

    monkeypatch.setattr(checkpoint, "_SMALL", 0)  # by a child process, small as it is
    index = vicinal.open(path, mode="rw")
    index.add(ROWS[:1], ids=[5000])
    real = checkpoint._Writing.finish
    writing: list[int] = []

    def finish(self: Any) -> None:
        writing.append(self._child)
        index.add(ROWS[:1], ids=[6000])  # the child may be at it still
        index.flush()
        index.add(ROWS[:1], ids=[7000])
        real(self)
        index.remove([5000])

    monkeypatch.setattr(checkpoint._Writing, "finish", finish)
    index.checkpoint()
    assert writing[0] > 0
    with pytest.warns(RuntimeWarning, match="has a journal"):
        alone = vicinal.open(path, verify=True)
    assert 5000 in alone and 6000 not in alone
    follower = vicinal.open(path, follow=True)
    assert 6000 in follower
    index.flush()
    assert content(follower) == content(index)
    left(index)
    monkeypatch.undo()
    with vicinal.open(path, mode="rw") as again:
        assert [i in again for i in (5000, 6000, 7000)] == [False, True, True]
        again.check()


def test_without_a_fork(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vicinal.living import checkpoint

    monkeypatch.setattr(checkpoint, "_SMALL", 0)
    monkeypatch.setattr(checkpoint._Writing, "fork", lambda self, index: False)
    with vicinal.open(path, mode="rw") as index:
        index.add(ROWS[:1], ids=[5000])
    assert 5000 in vicinal.open(path, verify=True)


# ---- one writer


def test_a_second_writer_is_told_who_the_first_is(path: Path) -> None:
    code = """
        import sys, vicinal
        index = vicinal.open(sys.argv[1], mode="rw")
        print("open", flush=True)
        sys.stdin.readline()
        """
    first = processes.start(code, path)
    try:
        assert first.stdout is not None and first.stdout.readline() == "open\n"
        with pytest.raises(BlockingIOError, match=f"process {first.pid} on ") as caught:
            vicinal.open(path, mode="rw")
        assert caught.value.filename == str(path)
        first.kill()
        first.wait()
        with vicinal.open(path, mode="rw") as index:  # the lock has gone with its process
            with pytest.raises(BlockingIOError, match=f"process {os.getpid()} on "):
                vicinal.open(path, mode="rw")
            assert len(index) == 1500
    finally:
        first.kill()
        first.communicate()
    assert names(path) == ["a.vicinal"]


def test_a_fork_can_search_and_nothing_else(path: Path) -> None:
    code = """
        import os, sys, warnings
        import numpy as np, vicinal
        warnings.simplefilter("ignore")
        index = vicinal.open(sys.argv[1], mode="rw")
        index.add(np.ones((1, 8)), ids=[5000])
        child = os.fork()
        if child == 0:
            assert 5000 in index and len(index.search(np.ones(8), 3).ids) == 3
            for change in (lambda: index.add(np.ones((1, 8))), index.flush, index.checkpoint):
                try:
                    change()
                except ValueError as error:
                    assert "forked child" in str(error)
                else:
                    os._exit(1)
            index.close()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        try:
            vicinal.open(sys.argv[1], mode="rw")
        except BlockingIOError:
            pass
        else:
            sys.exit("the child gave the lock away")
        index.add(np.ones((1, 8)), ids=[6000])
        # a child that lives on does not keep the lock
        child = os.fork()
        if child == 0:
            os.read(0, 1)
            os._exit(0)
        index.close()
        with vicinal.open(sys.argv[1], mode="rw") as again:
            assert 5000 in again and 6000 in again
        print("well")
        """
    done = processes.run(code, path)
    processes.assert_lived(done)
    assert done.stdout == "well\n"


def test_an_index_that_is_forgotten_is_flushed(path: Path) -> None:
    index = vicinal.open(path, mode="rw")
    index.add(ROWS[:1], ids=[5000])
    del index
    code = """
        import sys, numpy as np, vicinal
        index = vicinal.open(sys.argv[1], mode="rw")
        assert 5000 in index
        index.add(np.ones((1, 8)), ids=[6000])
        """
    processes.assert_lived(processes.run(code, path))
    with vicinal.open(path, mode="rw") as index:
        assert 5000 in index and 6000 in index


def test_closed(path: Path) -> None:
    index = vicinal.open(path, mode="rw")
    index.add(ROWS[:1], ids=[5000])
    index.close(checkpoint=False)
    index.close()
    assert index.closed and "closed" in repr(index)
    assert names(path) == ["a.vicinal", "a.vicinal.journal"]
    assert len(index.search(ROWS[0], 3).ids) == 3
    for change in (
        lambda: index.add(ROWS[:1]),
        lambda: index.remove([0]),
        index.flush,
        index.checkpoint,
    ):
        with pytest.raises(ValueError, match="it is closed"):
            change()
    with pytest.warns(RuntimeWarning, match="has a journal with changes"):
        assert 5000 not in vicinal.open(path)
    with vicinal.open(path, mode="rw") as again:
        assert 5000 in again


def test_copies_are_plain(path: Path) -> None:
    with vicinal.open(path, mode="rw") as index:
        index.add(ROWS[:1], ids=[5000])
        for made in (
            index.copy(),
            copy.copy(index),
            copy.deepcopy(index),
            pickle.loads(pickle.dumps(index)),
            vicinal.Index.from_bytes(index.to_bytes()),
        ):
            assert type(made) is vicinal.Index and 5000 in made
            made.add(ROWS[:1])
        assert len(index) == 1501
        index.save(path.with_name("b"))
        index.save(path)
        assert index.journal_bytes == 0
    assert 5000 in vicinal.open(path.with_name("b"))


# ---- files that are not what they were


def test_saving_over_a_file_that_was_replaced(path: Path) -> None:
    mine, theirs = (vicinal.open(path, mode="copy") for _ in range(2))
    mine.add(ROWS[:1], ids=[5000])
    theirs.add(ROWS[:1], ids=[6000])
    mine.save(path)
    mine.save(path)
    with pytest.raises(vicinal.ConflictError, match="no longer the file"):
        theirs.save(path)
    assert 5000 in vicinal.open(path)
    theirs.save(path.with_name("b"))
    theirs.save(path, force=True)
    assert 6000 in vicinal.open(path)
    theirs.save(path)
    path.unlink()
    theirs.save(path)  # nothing is lost by that


def test_saving_over_a_journal(path: Path) -> None:
    mine = vicinal.open(path, mode="copy")
    with vicinal.open(path, mode="rw") as index:
        index.add(ROWS[:1], ids=[5000])
        index.flush()
        with pytest.raises(vicinal.ConflictError, match="has a journal"):
            mine.save(path)
        index.checkpoint()
        with pytest.raises(vicinal.ConflictError, match="no longer"):
            mine.save(path)
        index.add(ROWS[:1], ids=[6000])
        mine.save(path, force=True)
        with pytest.raises(vicinal.ConflictError, match="replaced by somebody else"):
            index.checkpoint()
        index.save(path.with_name("b"))
        index.close(checkpoint=False)
    with pytest.raises(vicinal.ConflictError, match="belongs to another file"):
        vicinal.open(path, mode="rw")
    os.unlink(f"{path}.journal")
    with vicinal.open(path, mode="rw") as index:
        assert 5000 not in index
    assert 5000 in vicinal.open(path.with_name("b"))


def test_a_symbolic_link(path: Path) -> None:
    link = path.parent / "link"
    link.symlink_to(path)
    with vicinal.open(link, mode="rw") as index:
        index.add(ROWS[:1], ids=[5000])
        with pytest.raises(BlockingIOError):
            vicinal.open(path, mode="rw")
    assert link.is_symlink() and 5000 in vicinal.open(link)


def test_permissions_stay(path: Path) -> None:
    path.chmod(0o640)
    with vicinal.open(path, mode="rw") as index:
        index.add(ROWS[:1])
    assert path.stat().st_mode & 0o777 == 0o640


def test_arguments(path: Path) -> None:
    for options, message in (
        ({"mode": "w"}, "mode: expected 'r', 'copy' or 'rw', got 'w'"),
        ({"flush_changes": 1}, 'mode: expected "rw" with'),
        ({"mode": "rw", "follow": True}, "mode: expected 'r' with follow=True"),
        ({"mode": "rw", "flush_changes": 0}, "flush_changes: expected a whole number"),
        ({"mode": "rw", "flush_seconds": 0}, "flush_seconds: expected more than 0"),
        ({"mode": "rw", "damaged": "no"}, "damaged: expected 'error' or 'cut', got 'no'"),
        ({"mode": "rw", "resident": "walk"}, "resident"),
        ({"mode": "rw", "pickle": "path"}, "pickle: expected"),
        ({"pickle": "no"}, "pickle: expected 'bytes' or 'path', got 'no'"),
        ({"mode": "copy", "pickle": "path"}, "mode: expected 'r' with pickle"),
    ):
        with pytest.raises(ValueError, match=message):
            vicinal.open(path, **options)  # type: ignore[call-overload]
    for options in ({"mode": "rw"}, {"follow": True}):
        with pytest.raises(FileNotFoundError):
            vicinal.open(path.with_name("none"), **options)  # type: ignore[call-overload]
    assert names(path) == ["a.vicinal"]
