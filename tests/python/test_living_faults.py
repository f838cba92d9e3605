"""Disks that are full or fail, folders that allow nothing: an error, nothing flushed is lost."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from support import disks, processes
from vicinal.living import checkpoint, lock

DIM = 64
ROWS = np.random.default_rng(0).standard_normal((3000, DIM)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    index = vicinal.Index(DIM)
    index.add(ROWS[:500])
    index.save(tmp_path / "a.vicinal")
    return tmp_path / "a.vicinal"


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 2 MB."""
    with disks.small_disk(2) as folder:
        yield folder


def left(index: vicinal.LivingIndex) -> None:
    """Leave an index as a writer that is killed does."""
    index._log._abandoned.detach()
    index._log.closed = True
    index._log.journal.close()
    for each in list(lock._held.values()):
        each.release()


def ids(index: Any) -> set[int]:
    return set(index.ids.tolist())


def test_a_full_disk(small_disk: Path) -> None:
    path = small_disk / "a.vicinal"
    index = vicinal.Index(DIM)
    index.add(ROWS[:500])
    index.save(path)
    live = vicinal.open(path, mode="rw")
    flushed = ids(live)
    with pytest.raises(OSError) as caught:
        for i in range(3000):
            live.add(ROWS[i : i + 10])
            live.flush()
            flushed = ids(live)
    assert caught.value.errno == errno.ENOSPC and len(flushed) > 600
    with pytest.raises(OSError):
        live.checkpoint()  # there is no room for that either
    with pytest.raises(OSError):
        live.close()
    assert sorted(os.listdir(small_disk)) == ["a.vicinal", "a.vicinal.journal", "a.vicinal.lock"]
    assert ids(vicinal.open(path, follow=True)) == flushed
    # nothing is lost in memory, and it goes on where there is room
    live.add(ROWS[:5], ids=range(9000, 9005))
    wanted = ids(live)
    subprocess.run(["mount", "-o", "remount,size=60m", small_disk], check=True)
    live.flush()
    left(live)
    with vicinal.open(path, mode="rw") as again:
        assert ids(again) == wanted
        again.check()
    assert os.listdir(small_disk) == ["a.vicinal"]


def test_a_full_disk_and_a_killed_writer(small_disk: Path) -> None:
    path = small_disk / "a.vicinal"
    index = vicinal.Index(DIM)
    index.add(ROWS[:500])
    index.save(path)
    live = vicinal.open(path, mode="rw")
    flushed = ids(live)
    with pytest.raises(OSError):
        for i in range(3000):
            live.add(ROWS[i : i + 10])
            live.flush()
            flushed = ids(live)
    left(live)
    again = vicinal.open(path, mode="rw")  # which needs no room
    assert ids(again) == flushed
    again.close(checkpoint=False)


def test_a_file_that_may_not_grow(path: Path) -> None:
    """Under `ulimit -f`, whose signal Python ignores; a checkpoint is refused as well."""
    code = """
        import resource, sys
        import numpy as np, vicinal
        from vicinal.living import checkpoint
        checkpoint._SMALL = int(sys.argv[2])
        index = vicinal.open(sys.argv[1], mode="rw")
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        flushed = 0
        try:
            for i in range(2000):
                index.add(np.full((1, 64), i), ids=[10_000 + i])
                index.flush()
                flushed += 1
        except OSError:
            pass
        try:
            index.checkpoint()
        except OSError as error:
            print(flushed, len(index))
        sys.stdout.flush()
        import os
        os._exit(0)
        """
    for small in (0, 1 << 30):  # by a child process and without
        done = processes.run(code, path, small)
        processes.assert_lived(done)
        flushed, rows = map(int, done.stdout.split())
        assert 0 < flushed < 2000 and rows == 500 + flushed + 1
        index = vicinal.open(path, mode="rw")
        assert len(index) == 500 + flushed
        index.remove(range(10_000, 10_000 + flushed))
        index.close()
    assert os.listdir(path.parent) == ["a.vicinal"]


class Failing:
    """Lets a function of `os` fail at chosen calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, code: int = errno.EIO) -> None:
        self._real = getattr(os, name)
        self._code = code
        self.fails = 0
        monkeypatch.setattr(os, name, self)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if self.fails:
            self.fails -= 1
            raise OSError(self._code, os.strerror(self._code))
        return self._real(*arguments, **options)


def test_a_disk_that_fails_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error of fsync the old journal is not believed: the next flush writes a new file."""
    sync = Failing(monkeypatch, "fdatasync")
    live = vicinal.open(path, mode="rw")
    live.add(ROWS[:1], ids=[7000])
    live.flush()
    live.add(ROWS[:1], ids=[8000])
    sync.fails = 1
    with pytest.raises(OSError, match="fsync") as caught:
        live.flush()
    assert caught.value.errno == errno.EIO and str(caught.value.filename).endswith(".journal")
    assert ids(vicinal.open(path, follow=True)) == ids(live) - {8000}
    live.add(ROWS[:1], ids=[9000])
    before = path.stat().st_ino
    live.flush()
    assert path.stat().st_ino != before and live.journal_bytes == 0
    live.add(ROWS[:1], ids=[9500])
    live.flush()
    wanted = ids(live)
    left(live)
    with vicinal.open(path, mode="rw") as again:
        assert ids(again) == wanted and {7000, 8000, 9000, 9500} <= wanted


@pytest.mark.parametrize("name", ["fsync", "rename", "pwrite", "ftruncate"])
def test_a_checkpoint_that_fails_at_any_call(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whichever call of the system fails: what was flushed is there, and the next one works."""
    monkeypatch.setattr(checkpoint, "_SMALL", 0)
    real = getattr(os, name)
    failed = 0
    for turn in range(6):
        live = vicinal.open(path, mode="rw")
        live.add(ROWS[:1], ids=[7000 + turn])
        live.flush()
        calls = 0

        def call(*arguments: Any, turn: int = turn, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == turn + 1:
                raise OSError(errno.EIO, "injected")
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, call)
        try:
            live.checkpoint()
        except OSError:
            failed += 1
            live.add(ROWS[:1], ids=[8000 + turn])
            monkeypatch.setattr(os, name, real)
            live.flush()
            if turn % 2:
                live.checkpoint()
        monkeypatch.setattr(os, name, real)
        wanted = ids(live)
        left(live)
        again = vicinal.open(path, mode="rw")
        assert ids(again) == wanted
        again.check()
        again.close()
        assert ids(vicinal.open(path, verify=True)) == wanted
    assert failed or name == "ftruncate"
    assert os.listdir(path.parent) == ["a.vicinal"]


def test_a_child_that_is_killed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_SMALL", 0)
    real = checkpoint._Writing.fork

    def fork(self: Any, index: Any) -> bool:
        # a pipe that nobody writes into is what is left of a child that was killed
        assert real(self, index)
        hears, says = os.pipe()
        os.close(says)
        os.close(self._pipe)
        self._pipe = hears
        return True

    live = vicinal.open(path, mode="rw")
    live.add(ROWS[:1], ids=[7000])
    monkeypatch.setattr(checkpoint._Writing, "fork", fork)
    with pytest.raises(OSError, match="was killed"):
        live.checkpoint()
    assert sorted(os.listdir(path.parent)) == ["a.vicinal", "a.vicinal.journal", "a.vicinal.lock"]
    monkeypatch.undo()
    live.close()
    assert 7000 in vicinal.open(path)


READ = """
    import os, sys, numpy as np, vicinal
    vicinal.get_num_threads()
    import vicinal.living.opening
    if os.geteuid() == 0 and sys.argv[2] == "user":
        os.setgid(65534)
        os.setuid(65534)
    reader = vicinal.open(sys.argv[1], follow=True)
    assert 7000 in reader and len(reader.search(np.ones(64), 3).ids) == 3
    try:
        vicinal.open(sys.argv[1], mode="rw")
    except OSError as error:
        print(type(error).__name__)
    """


def test_folders_that_allow_nothing() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        folder = Path(name) / "c"
        folder.mkdir()
        path = folder / "a.vicinal"
        vicinal.Index(DIM).save(path)
        with vicinal.open(path, mode="rw") as live:
            live.add(ROWS[:500])
            live.checkpoint()
            live.add(ROWS[:1], ids=[7000])
            live.close(checkpoint=False)
        for each in folder.iterdir():
            each.chmod(0o444)
        folder.chmod(0o555)
        done = processes.run(READ, path, "user")
        folder.chmod(0o755)
        processes.assert_lived(done)
        assert done.stdout.split() == ["PermissionError"]


def test_read_only_file_system(small_disk: Path) -> None:
    path = small_disk / "a.vicinal"
    vicinal.Index(DIM).save(path)
    live = vicinal.open(path, mode="rw")
    live.add(ROWS[:1], ids=[7000])
    live.close(checkpoint=False)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    done = processes.run(READ, path, "root")
    processes.assert_lived(done)
    assert done.stdout.split()[0] in ("OSError", "PermissionError")
