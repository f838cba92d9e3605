"""Killed at any moment, a collection has all that was committed and nothing half-done.

    VICINAL_COLLECTION_KILLS=500 python -m pytest -rP tests/python/test_collection_crash.py

kills more often than the tests do by themselves.
"""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support import disks, processes
from support.processes import assert_lived
from vicinal.collection import Collection

KILLS = int(os.environ.get("VICINAL_COLLECTION_KILLS", "30"))

# A parent forks a writer that changes the collection in transactions of five documents, each with
# the number of its transaction, reports each that came back, and is killed at a random moment. The
# parent then looks: every reported one is there, at most one more is, and none is there in part.
KILL = """
    import json, os, random, signal, struct, sys, time
    import numpy as np
    from vicinal.collection import Collection
    folder, kills, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    draw = random.Random(seed)
    names = [f"d{i}" for i in range(40)]

    def change(model, step):
        # the same for model and collection: five documents of this step, or five deleted
        chosen = random.Random(step).sample(names, 5)
        if step % 4 == 3:
            for name in chosen:
                model.pop(name, None)
            return chosen, True
        for name in chosen:
            model[name] = step
        return chosen, False

    def vector(step, name):
        return np.random.default_rng(step * 100 + int(name[1:])).standard_normal(8).astype("f4")

    def write(made, step):
        chosen, gone = change({}, step)
        if gone:
            made.delete(chosen)
        else:
            made.upsert(chosen, [vector(step, name) for name in chosen],
                        [f"text {step}" for _ in chosen], [{"step": step} for _ in chosen])

    def look(made, model):
        found = {d.id: (d.metadata["step"], d.text) for d in made.get()}
        if found != {name: (step, f"text {step}") for name, step in model.items()}:
            return False
        hits = made.search(np.zeros(8), 100)
        if {hit.id: hit.metadata["step"] for hit in hits} != model:
            return False
        return all(made.search(vector(step, name), 1)[0].distance < 1e-6
                   for name, step in list(model.items())[:5])

    Collection(folder, 8, "l2", checkpoint_rows=12).close()
    model, step, transactions, lost, half = {}, 0, 0, 0, 0
    for number in range(kills):
        reads, writes = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reads)
            made = Collection(folder, checkpoint_rows=12)
            os.write(writes, struct.pack("q", -1))
            mine = step
            while True:
                write(made, mine)
                os.write(writes, struct.pack("q", mine))
                mine += 1
                if mine % 9 == 0:
                    made.checkpoint()
        os.close(writes)
        os.read(reads, 8)
        told = os.read(reads, 8) if number % 2 else b""  # every other time after one, for certain
        time.sleep(draw.random() ** 2 * 0.12)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while piece := os.read(reads, 65536):
            told += piece
        os.close(reads)
        for _ in range(len(told) // 8):
            change(model, step)
            step += 1
            transactions += 1
        further = dict(model)
        change(further, step)
        made = Collection(folder)
        if look(made, model):
            pass
        elif look(made, further):
            model, step, transactions = further, step + 1, transactions + 1
        else:
            seen = {d.id: d.metadata["step"] for d in made.get()}
            gone = [n for n, s in model.items() if seen.get(n) != s == further.get(n)]
            lost, half = lost + bool(gone), half + (not gone)
            break
        made.close()
    files = [name for name in os.listdir(folder) if name.startswith("vectors-")]
    print(json.dumps({"kills": number + 1, "transactions": transactions, "lost": lost,
                      "half_seen": half, "indexes": len(files)}))
"""


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path: Path) -> None:
    import json

    done = processes.run(KILL, tmp_path / "c", KILLS, 0, PYTHONWARNINGS="ignore")
    assert_lived(done)
    seen = json.loads(done.stdout)
    print(seen)
    assert (seen["kills"], seen["lost"], seen["half_seen"]) == (KILLS, 0, 0)
    assert seen["transactions"] >= KILLS // 2
    with Collection(tmp_path / "c") as made:
        made.checkpoint()
    files = [name for name in os.listdir(tmp_path / "c") if name.startswith("vectors-")]
    assert len(files) == 1, "what a killed checkpoint left is removed by the next one"


STAGES = """
    import os, signal, sys
    import numpy as np
    from vicinal.collection import Collection, _checkpoint
    folder, stage = sys.argv[1], sys.argv[2]
    made = Collection(folder)
    made.upsert(["new"], [[9] * 4])

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    if stage == "saved":  # before it is recorded
        made._database.writing = die
    elif stage == "recorded":  # before the old file goes
        _checkpoint._remove_others = die
    elif stage == "removed":
        real_others = _checkpoint._remove_others
        _checkpoint._remove_others = lambda *given: (real_others(*given), die())
    made.checkpoint()
"""


@pytest.mark.parametrize("stage", ["saved", "recorded", "removed"])
def test_killed_at_each_stage_of_a_checkpoint(tmp_path: Path, stage: str) -> None:
    rows = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    with Collection(tmp_path / "c", 4, "l2") as made:
        made.upsert([str(i) for i in range(50)], rows)
        made.checkpoint()
    done = processes.run(STAGES, tmp_path / "c", stage)
    assert done.returncode == -9, done.stderr
    with Collection(tmp_path / "c") as made:
        for _ in range(2):
            assert len(made) == len(made.search(rows[0], 100)) == 51
            assert made.search([9] * 4, 1)[0].id == "new"
            made.checkpoint()
    assert sum(name.startswith("vectors-") for name in os.listdir(tmp_path / "c")) == 1


# ---- disks


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 3 MB."""
    with disks.small_disk(3) as folder:
        yield folder


def test_disk_full(small_disk: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((100, 256)).astype(np.float32)
    made = Collection(small_disk / "c", 256, "l2", checkpoint_rows=None)
    written = 0
    with pytest.raises(OSError) as caught:
        for written in range(100):
            made.upsert([f"{written}-{i}" for i in range(100)], rows)
    assert caught.value.errno == errno.ENOSPC
    assert written > 3
    for _ in range(2):
        assert made.count() == written * 100
        assert len(made.search(rows[0], 10_000)) == written * 100
        # there is no room for a second copy either, and the first stays as it is
        with pytest.raises(OSError):
            made.checkpoint()
        made.close()
        made = Collection(small_disk / "c", checkpoint_rows=None)
    subprocess.run(["mount", "-o", "remount,size=60m", small_disk], check=True)
    made.checkpoint()
    made.upsert(["more"], rows[:1])
    assert len(made.search(rows[0], 10_000)) == written * 100 + 1
    made.close()


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """Whatever SQLite could not write is an OSError, and the change is not there."""
    code = """
        import resource, sys
        import numpy as np
        from vicinal.collection import Collection
        made = Collection(sys.argv[1], 64, "l2", checkpoint_rows=None)
        made.upsert(["first"], np.ones((1, 64)))
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        step = 0
        try:
            for step in range(1000):
                made.upsert([f"{step}-{i}" for i in range(20)], np.ones((20, 64)))
        except OSError:
            print(step, made.count(), len(made.search(np.ones(64), 10_000)))
    """
    done = processes.run(code, tmp_path / "c")
    assert_lived(done)
    step, count, found = map(int, done.stdout.split())
    assert step > 2 and count == found == 1 + 20 * step
    with Collection(tmp_path / "c") as made:
        assert made.count() == count
        made.upsert(["after"], np.ones((1, 64)))


READ = """
    import os, sys
    import numpy as np
    from vicinal.collection import Collection
    import vicinal
    vicinal.get_num_threads()  # imports what an ordinary user may not read
    if os.geteuid() == 0 and sys.argv[2] == "user":
        os.setgid(65534)
        os.setuid(65534)
    made = Collection(sys.argv[1], read_only=True)
    assert made.count() == 20, made.count()
    assert len(made.search(np.zeros(4), 100)) == 20
    assert made.get("d3")[0].metadata == {"n": 3}
    assert made.count({"field": "n", "op": "lt", "value": 5}) == 5
    try:
        made.upsert(["x"], [[1, 2, 3, 4]])
    except ValueError as error:
        assert "read_only" in str(error)
    else:
        sys.exit("written")
    made.close()
    try:
        Collection(sys.argv[1]).upsert(["x"], [[1, 2, 3, 4]])
    except OSError as error:
        print(type(error).__name__)
    else:
        sys.exit("written")
"""


def fill(folder: Path) -> Collection:
    made = Collection(folder, 4, "l2")
    rows = np.random.default_rng(0).standard_normal((20, 4))
    made.upsert([f"d{i}" for i in range(20)], rows, metadata=[{"n": i} for i in range(20)])
    made.checkpoint()
    made.update(["d3"], rows[:1])
    return made


@pytest.mark.parametrize("left_open", [False, True])
def test_read_only_folder(left_open: bool) -> None:
    """As an ordinary user: the superuser may write everywhere."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        folder = Path(name) / "c"
        made = fill(folder)
        if not left_open:
            made.close()
        for path in folder.iterdir():
            path.chmod(0o444)
        folder.chmod(0o555)
        before = sorted(os.listdir(folder))
        done = processes.run(READ, folder, "user")
        folder.chmod(0o755)
        assert_lived(done)
        assert done.stdout.split() == ["PermissionError"]
        assert sorted(os.listdir(folder)) == before
        made.close()


def test_read_only_file_system(small_disk: Path) -> None:
    fill(small_disk / "c").close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    done = processes.run(READ, small_disk / "c", "root")
    assert_lived(done)
    assert done.stdout.split()[0] in ("OSError", "PermissionError")


def test_a_damaged_database_is_noticed(tmp_path: Path) -> None:
    fill(tmp_path / "c").close()
    path = tmp_path / "c" / "documents.sqlite"
    data = bytearray(path.read_bytes())
    data[4096:8192] = os.urandom(4096)
    path.write_bytes(data)
    code = "import sys; from vicinal.collection import Collection\n"
    code += "made = Collection(sys.argv[1]); made.get(); made.search([0, 0, 0, 0])"
    done = processes.run(code, tmp_path / "c")
    assert done.returncode == 1
    assert "CorruptError" in done.stderr or "FormatError" in done.stderr
