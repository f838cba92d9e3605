"""Whatever happens during `save`, the path holds the old file or the new one, whole."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import vicinal
from support import processes
from support.processes import assert_lived
from support.processes import run as child

KILLS = int(os.environ.get("VICINAL_KILLS", "200"))
ROWS = np.random.default_rng(0).standard_normal((3200, 20)).astype(np.float32)
QUERIES = ROWS[:20]

PRELOADED = """
    #define _GNU_SOURCE
    #include <errno.h>
    #include <fcntl.h>
    #include <stdarg.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    int openat(int folder, const char *path, int flags, ...) {
        va_list rest;
        va_start(rest, flags);
        int mode = va_arg(rest, int);
        va_end(rest);
        if ((flags & O_TMPFILE) == O_TMPFILE) { errno = EOPNOTSUPP; return -1; }
        return (int)syscall(SYS_openat, folder, path, flags, mode);
    }
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The bytes of two indexes, of 3,000 and of 3,200 rows."""
    folder = tmp_path_factory.mktemp("images")
    made = []
    index = vicinal.Index(20, M=8, ef_construction=40)
    for begin, end in ((0, 3000), (3000, 3200)):
        index.add(ROWS[begin:end])
        index.save(folder / str(end))
        made.append((folder / str(end)).read_bytes())
    return made


@pytest.fixture
def path(images: list[bytes], tmp_path: Path) -> Path:
    file = tmp_path / "folder" / "index.vicinal"
    file.parent.mkdir()
    file.write_bytes(images[0])
    (tmp_path / "other").write_bytes(images[1])
    return file


@pytest.fixture
def without_nameless_files(tmp_path: Path) -> dict[str, str]:
    """Environment of a process on a file system where every file must have a name."""
    if shutil.which("gcc") is None:
        pytest.skip("needs a C compiler for a library to preload")
    (tmp_path / "preloaded.c").write_text(PRELOADED)
    library = tmp_path / "preloaded.so"
    command = ["gcc", "-shared", "-fPIC", tmp_path / "preloaded.c", "-o", library]
    subprocess.run(command, check=True)
    return {"LD_PRELOAD": str(library)}


# ---- killed

KILL = """
    import json, os, random, signal, sys, time, warnings
    import vicinal
    warnings.simplefilter("ignore")  # forking beside threads of NumPy's
    path, other, kills = sys.argv[1], sys.argv[2], int(sys.argv[3])
    folder = os.path.dirname(path)
    images = [open(path, "rb").read(), open(other, "rb").read()]
    indexes = [vicinal.open(name, mode="copy") for name in (path, other)]
    start = time.perf_counter()
    for index in indexes:
        index.save(path)
    one_save = (time.perf_counter() - start) / 2  # random moments are drawn from a few of these
    draw = random.Random(0)
    seen = [0, 0]
    left = {}
    for number in range(kills):
        ready, says = os.pipe()
        # every tenth time after the first or second save, for certain
        saves = 1 + number // 10 % 2 if number % 10 == 0 else 0
        writer = os.fork()
        if writer == 0:
            for index in indexes[:saves]:
                index.save(path, force=True)
            os.write(says, b".")
            while saves:
                signal.pause()
            while True:
                for index in indexes:
                    index.save(path, force=True)
        os.close(says)
        os.read(ready, 1)
        os.close(ready)
        if not saves:  # a moment of the first three saves, more or less
            until = time.perf_counter() + draw.uniform(0, 3 * one_save)
            while time.perf_counter() < until:
                pass
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        with open(path, "rb") as file:
            found = images.index(file.read())  # ValueError for anything else
        assert not saves or found == saves - 1
        seen[found] += 1
        for name in set(os.listdir(folder)) - set(left) - {os.path.basename(path)}:
            with open(os.path.join(folder, name), "rb") as file:
                left[name] = file.read() in images
        if number % 20 == 0:
            opened = vicinal.open(path, verify=True)
            opened.check()
    vicinal.open(path, verify=True).save(path)
    after = sorted(set(os.listdir(folder)) - {os.path.basename(path)})
    print(json.dumps({"seen": seen, "left": left, "after": after}))
"""


def test_killed_during_save(path: Path, tmp_path: Path) -> None:
    """Killed at random moments: one of two whole files, and next to nothing is left behind."""
    done = child(KILL, path, tmp_path / "other", KILLS)
    assert_lived(done)
    told = json.loads(done.stdout)
    print(told)
    assert sum(told["seen"]) == KILLS
    assert min(told["seen"]) >= KILLS // 20  # how many more depends on the machine
    # a file has a name only between being whole and being renamed, some microseconds: a killed
    # writer that is not at work just then leaves nothing
    assert all(told["left"].values())
    assert len(told["left"]) < KILLS // 2
    # what is left disturbs nobody and is nobody's to remove
    assert told["after"] == sorted(told["left"])


def test_killed_where_files_must_have_names(
    path: Path, tmp_path: Path, without_nameless_files: dict[str, str]
) -> None:
    done = child(KILL, path, tmp_path / "other", 30, **without_nameless_files)
    assert_lived(done)
    told = json.loads(done.stdout)
    assert sum(told["seen"]) == 30
    assert told["left"], "the library was not preloaded"
    assert told["after"] == sorted(told["left"])


def test_errors_leave_nothing_where_files_must_have_names(
    path: Path, images: list[bytes], without_nameless_files: dict[str, str]
) -> None:
    code = """
        import os, resource, sys
        import vicinal
        index = vicinal.open(sys.argv[1], mode="copy")
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        try:
            index.save(sys.argv[1])
        except OSError as error:
            print(error.errno)
    """
    done = child(code, path, **without_nameless_files)
    assert_lived(done)
    assert int(done.stdout) == errno.EFBIG
    assert path.read_bytes() == images[0]
    assert os.listdir(path.parent) == [path.name]


# ---- disk full, read-only


@pytest.fixture
def small_disk(images: list[bytes]) -> Iterator[Path]:
    """A file system with room for one file and a half."""
    with tempfile.TemporaryDirectory() as folder:
        size = f"size={len(images[0]) * 3 // 2}"
        command = ["mount", "-t", "tmpfs", "-o", size, "none", folder]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("may not mount a tmpfs")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def test_disk_full(small_disk: Path, images: list[bytes], tmp_path: Path) -> None:
    path = small_disk / "index.vicinal"
    path.write_bytes(images[0])
    (tmp_path / "other").write_bytes(images[1])
    index = vicinal.open(tmp_path / "other")
    with pytest.raises(OSError, match="No space left on device") as caught:
        index.save(path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == images[0]
    assert os.listdir(small_disk) == [path.name]
    path.unlink()
    index.save(path)  # now there is room
    assert path.read_bytes() == images[1]


def test_read_only_file_system(small_disk: Path, images: list[bytes], tmp_path: Path) -> None:
    path = small_disk / "index.vicinal"
    path.write_bytes(images[0])
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    index = vicinal.open(path, verify=True)
    for target in (path, small_disk / "new"):
        with pytest.raises(OSError) as caught:
            index.save(target)
        assert (caught.value.errno, caught.value.filename) == (errno.EROFS, str(target))
    index.save(tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere").read_bytes() == images[0]


def test_read_only_folder(images: list[bytes]) -> None:
    """As an ordinary user: the superuser may write everywhere."""
    code = """
        import os, sys
        import vicinal
        path = sys.argv[1]
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        index = vicinal.open(path, verify=True)
        for target in (path, os.path.join(os.path.dirname(path), "new")):
            try:
                index.save(target)
            except PermissionError as error:
                assert error.filename == target
            else:
                sys.exit(f"{target}: saved")
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "index.vicinal"
        file.write_bytes(images[0])
        file.chmod(0o666)
        folder.chmod(0o555)
        done = child(code, file)
        folder.chmod(0o755)
        assert_lived(done)
        assert os.listdir(folder) == [file.name]
        assert file.read_bytes() == images[0]
        assert stat.S_IMODE(file.stat().st_mode) == 0o666


# ---- files that go or change while they are mapped


def test_vanished_file(path: Path, images: list[bytes], tmp_path: Path) -> None:
    opened = vicinal.open(path)
    before = opened.search(QUERIES, 10)
    shutil.rmtree(path.parent)
    np.testing.assert_array_equal(opened.search(QUERIES, 10).ids, before.ids)
    np.testing.assert_array_equal(opened.get(opened.ids), ROWS[:3000])
    opened.verify()
    opened.check()
    with pytest.raises(FileNotFoundError):
        opened.save(path)
    path.parent.mkdir()
    opened.save(path)
    assert path.read_bytes() == images[0]


READ = """
    import sys
    import numpy as np, vicinal
    path = sys.argv[1]
    kept, answers = [], {}
    opened = 0
    # until both files have been seen, and maps of files that are gone have been read
    while opened < 100 or len(answers) < 2:
        index = vicinal.open(path, verify=opened % 5 == 0)
        queries = index.get(np.arange(20))
        found = index.search(queries, 10)
        expected = answers.setdefault(len(index), found.ids)
        assert (expected == found.ids).all()
        kept.append(index)
        opened += 1
        if len(kept) > 30:  # maps of files that are gone by now
            old = kept.pop(0)
            assert (old.search(queries, 10).ids == answers[len(old)]).all()
            old.verify()
    print(opened, *sorted(answers))
"""


def test_two_processes_read_while_a_third_replaces(path: Path, tmp_path: Path) -> None:
    indexes = [vicinal.open(name, mode="copy") for name in (path, tmp_path / "other")]
    readers = [processes.start(READ, path) for _ in range(2)]
    saved = 0

    def replaced_till_all_have_read() -> bool:
        nonlocal saved
        indexes[saved % 2].save(path, force=True)  # one of them was opened from it
        saved += 1
        return all(reader.poll() is not None for reader in readers)

    try:
        processes.wait_until(replaced_till_all_have_read, "the end of both readers")
    finally:
        for reader in readers:
            reader.kill()  # of no effect on one that has ended
    for reader in readers:
        out, err = reader.communicate()
        assert reader.returncode == 0, err
        opened, *sizes = map(int, out.split())
        assert opened >= 100
        assert sizes == [3000, 3200]


def test_interrupted_save_leaves_the_old_file(path: Path, images: list[bytes]) -> None:
    """Ctrl-C arrives as KeyboardInterrupt and nothing has changed."""
    code = """
        import os, signal, sys, threading
        import numpy as np, vicinal
        index = vicinal.Index(256, quantization=None)
        index._handle = vicinal._cpu.native.index_new(0, 0, 256, 16, 200, 0, 2**62, 1)
        index.add(np.ones((200_000, 256), np.float32))
        print("ready", flush=True)
        sys.stdin.readline()
        try:
            while True:
                index.save(sys.argv[1])
        except KeyboardInterrupt:
            print("stopped", os.listdir(os.path.dirname(sys.argv[1])))
    """
    writer = processes.start(code, path)
    assert writer.stdout is not None and writer.stdin is not None
    assert writer.stdout.readline() == "ready\n"
    before = processes.bytes_written(writer.pid)
    writer.stdin.write("\n")
    writer.stdin.flush()
    # in the middle of the first file, of 200 MB
    processes.wait_until(
        lambda: processes.bytes_written(writer.pid) > before + (20 << 20), "a file half-written"
    )
    writer.send_signal(signal.SIGINT)
    out, _ = writer.communicate(timeout=processes.GUARD)
    assert out == f"stopped {[path.name]}\n"
    assert path.read_bytes() == images[0] or len(vicinal.open(path, verify=True)) == 200_000
