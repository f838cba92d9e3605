"""`add(..., copy=None)` and `copy=False`: vectors that stay where the caller has them.

The reference is the same index with vectors of its own: same results, same files.
"""

from __future__ import annotations

import gc
import os
import pickle
import textwrap
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from support.memory import IN_USE
from support.processes import printed as run
from support.rows import dims, stored
from vicinal._self_test import graphs

DIM = 64  # stored without gaps for every dtype


class Lent(np.ndarray[Any, Any]):
    """An array that a weak reference can watch."""


def values(dtype: str, shape: tuple[int, int] = (1500, DIM), seed: int = 0) -> Any:
    """Return whole numbers in the form that an index of the dtype stores."""
    rows = np.random.default_rng(seed).integers(1, 100, shape)
    return stored(rows, dtype)


def queries(dtype: str) -> Any:
    asked = values("float32", (20, DIM), 1)
    return stored(asked, dtype) if dtype in ("int8", "uint8", "b1") else asked


def watched(rows: Any) -> tuple[Any, weakref.ref[Any]]:
    """Return the same values in an array of their own, and a weak reference to it."""
    lent = Lent(rows.shape, rows.dtype)  # owns its memory, or numpy would leave it out
    lent[:] = rows
    return lent, weakref.ref(lent)


def lent_index(count: int = 1500) -> tuple[vicinal.Index, Any]:
    """Return an index that reads an array where it is, and the array."""
    rows = values("float32", (count, DIM))
    index = vicinal.Index(DIM, M=6, ef_construction=30)
    index.add(rows, copy=False)
    return index, rows


# ---- the same as with vectors of its own


@pytest.mark.parametrize("ids", ["int64", "str"])
@pytest.mark.parametrize(("metric", "dtype", "quantization"), graphs())
def test_same_results_and_same_files(
    metric: str, dtype: str, quantization: str | None, ids: str, tmp_path: Path
) -> None:
    rows = values(dtype)
    given = [f"n{i}" for i in range(1500)] if ids == "str" else None
    kind: dict[str, Any] = {"dtype": dtype, "quantization": quantization, "ids": ids, "M": 5}
    owner, reader = (vicinal.Index(dims(DIM, dtype), metric, **kind) for _ in range(2))
    owner.add(rows, given)
    if metric == "cosine" and dtype in ("float32", "float16", "bfloat16"):
        with pytest.raises(ValueError, match=r"copy: .* at unit length"):
            reader.add(rows, given, copy=False)
        assert len(reader) == 0
        reader.add(rows, given, copy=None)
        borrowed = 0
    else:
        reader.add(rows, given, copy=False)
        borrowed = rows.nbytes
    before, after = owner.memory_usage(), reader.memory_usage()
    assert (before["borrowed"], after["borrowed"]) == (0, borrowed)
    if borrowed:
        assert after["vectors"] <= 65536, "norms only"
        apart = ("vectors", "scratch")  # the second is what threads have left over
        assert before["total"] - sum(map(before.get, apart)) == after["total"] - sum(
            map(after.get, apart)
        )
    assert owner.stats() == reader.stats()
    reader.check()
    asked = queries(dtype)
    allowed = owner.ids[::3]
    for one, other in (
        (owner.search(asked, 10), reader.search(asked, 10)),
        (owner.search(asked[0], 2000), reader.search(asked[0], 2000)),
        (owner.search(asked, 5, filter=allowed), reader.search(asked, 5, filter=allowed)),
        (owner.range_search(asked, 0.5)[:2], reader.range_search(asked, 0.5)[:2]),
        (owner.search(asked, 3), pickle.loads(pickle.dumps(reader)).search(asked, 3)),
        (owner.search(asked, 3), reader.copy().search(asked, 3)),
    ):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(owner.get(owner.ids), reader.get(reader.ids))
    owner.save(tmp_path / "owner")
    reader.save(tmp_path / "reader")
    assert (tmp_path / "owner").read_bytes() == (tmp_path / "reader").read_bytes()
    assert reader.copy().memory_usage()["borrowed"] == 0
    # what comes later goes the way it goes otherwise
    names = owner.ids
    more = ["more"] if ids == "str" else None
    for index in (owner, reader):
        index.add(rows[7], more)
        index.remove(names[:600])
        index.update(rows[3:50], names[700:747])
        index.check()
        assert index.memory_usage()["borrowed"] == 0
    owner.save(tmp_path / "owner")
    reader.save(tmp_path / "reader")
    assert (tmp_path / "owner").read_bytes() == (tmp_path / "reader").read_bytes()


def test_without_a_graph() -> None:
    rows = values("float32", (50, DIM))
    index = vicinal.Index(DIM)
    index.add(rows, copy=False)
    assert index.search(rows[:20], 1).ids.ravel().tolist() == list(range(20))
    assert index.memory_usage()["borrowed"] == rows.nbytes
    index.add(rows[:3])
    assert index.memory_usage()["borrowed"] == 0
    assert index.search(rows[1], 2).ids.tolist() == [1, 51]


# ---- what can stay and what cannot


@pytest.mark.parametrize(
    ("dtype", "dims"),
    [
        ("float32", {1: True, 63: True, 64: True, 65: False, 80: True, 100: False, 784: True}),
        ("float16", {1: True, 127: True, 128: True, 129: False, 160: True, 200: False}),
        ("bfloat16", {96: True, 130: False}),
        ("int8", {1: True, 63: True, 64: True, 65: False, 128: True, 784: False}),
        ("uint8", {63: True, 96: False, 192: True}),
    ],
)
def test_dimensions(dtype: str, dims: dict[int, bool]) -> None:
    for dim, possible in dims.items():
        rows = values(dtype, (30, dim))
        index = vicinal.Index(dim, dtype=dtype)
        if not possible:
            size = dim * rows.itemsize
            with pytest.raises(ValueError, match=f"copy: .* vectors of {size} bytes are stored"):
                index.add(rows, copy=False)
        index.add(rows, copy=None)
        assert index.memory_usage()["borrowed"] == (rows.nbytes if possible else 0)
        np.testing.assert_array_equal(index.get(range(30)), rows)


def misaligned(rows: Any) -> Any:
    room = np.zeros(rows.nbytes + 1, np.uint8)[1:]
    room[:] = rows.view(np.uint8).ravel()
    return room.view(rows.dtype).reshape(rows.shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.tolist(), "not a NumPy array but list"),
        (lambda rows: memoryview(rows), "not a NumPy array but memoryview"),
        (lambda rows: rows.astype(np.float64), "of dtype <f8 and stored as <f4"),
        (lambda rows: rows.astype(">f4"), "of dtype >f4 and stored as <f4"),
        (lambda rows: rows.astype(np.int32), "of dtype <i4 and stored as <f4"),
        (lambda rows: np.asfortranarray(rows), "not C-contiguous"),
        (lambda rows: np.repeat(rows, 2, axis=1)[:, ::2], "not C-contiguous"),
        (lambda rows: rows[::-1], "not C-contiguous"),
        (misaligned, "not aligned"),
    ],
)
def test_arrays_that_have_to_be_copied(change: Any, message: str) -> None:
    rows = values("float32")
    index = vicinal.Index(DIM, M=6, ef_construction=30)
    with pytest.raises(ValueError, match=f"copy: expected True or None, got False: .*{message}"):
        index.add(change(rows), copy=False)
    assert len(index) == 0
    index.add(change(rows), copy=None)
    assert index.memory_usage()["borrowed"] == 0
    assert index.get(range(1500)).shape == rows.shape


def test_arrays_that_can_stay() -> None:
    rows = values("float32", (40, DIM))
    read_only = rows.copy()
    read_only.flags.writeable = False
    part = np.vstack([rows, rows])[40:]
    from_bytes = np.frombuffer(rows.tobytes(), np.float32).reshape(rows.shape)
    shifted = np.zeros(rows.size + 1, np.float32)[1:].reshape(rows.shape)  # 4 mod 8 at least
    shifted[:] = rows
    for array in (rows, read_only, part, from_bytes, shifted, rows.view(Lent)):
        index = vicinal.Index(DIM)
        index.add(array, copy=False)
        assert index.memory_usage()["borrowed"] == rows.nbytes
        np.testing.assert_array_equal(index.get(range(40)), rows)
    one = vicinal.Index(DIM)
    one.add(rows[3], copy=False)
    assert one.search(rows[3], 1).distances.tolist() == [0]
    pytest.importorskip("ml_dtypes")
    index = vicinal.Index(DIM, dtype="bfloat16")
    index.add(rows.astype("bfloat16"), copy=False)
    assert index.memory_usage()["borrowed"] == rows.nbytes // 2


def test_only_the_first_vectors() -> None:
    index, rows = lent_index()
    with pytest.raises(ValueError, match="the index has, or had, other vectors"):
        index.add(rows[:1], copy=False)
    assert index.memory_usage()["borrowed"] == rows.nbytes, "nothing has changed"
    index.add(np.empty((0, DIM), np.float32), copy=False)
    index.remove(index.ids)
    with pytest.raises(ValueError, match="the index has, or had, other vectors"):
        index.add(rows, copy=False)
    index.compact()
    index.add(rows, copy=False)
    assert index.memory_usage()["borrowed"] == rows.nbytes


def test_argument() -> None:
    rows = values("float32", (2, DIM))
    for wrong in (0, 1, "no", [False]):
        with pytest.raises(TypeError, match="copy: expected True, None or False, got"):
            vicinal.Index(DIM).add(rows, copy=wrong)  # type: ignore[arg-type]
    index = vicinal.Index(DIM)
    index.add(rows, copy=np.False_)  # type: ignore[arg-type]
    assert index.memory_usage()["borrowed"] == rows.nbytes


# ---- how long the array is needed


def test_the_array_lives_as_long_as_it_is_read() -> None:
    rows = values("float32")
    expected = list(range(1500))

    def lend() -> tuple[vicinal.Index, weakref.ref[Any]]:
        lent, alive = watched(rows)
        index = vicinal.Index(DIM, M=6, ef_construction=30)
        index.add(lent, copy=False)
        return index, alive

    index, alive = lend()
    gc.collect()
    assert alive() is not None
    assert index.search(rows, 1, ef_search=1500).ids.ravel().tolist() == expected
    del index
    assert alive() is None, "an index that goes lets go"
    for change in (
        lambda index: index.add(rows[:1]),
        lambda index: index.update(rows[:1], [0]),
        lambda index: index.remove(range(1400, 1500)),
        lambda index: index.compact(),
    ):
        index, alive = lend()
        index.search(rows, 1, num_threads=2)
        change(index)
        assert alive() is None
        assert index.memory_usage()["borrowed"] == 0
        assert (
            index.search(rows[:1000], 1, ef_search=1500).ids.ravel().tolist()[1:]
            == expected[1:1000]
        )
    index, alive = lend()
    index.remove([3])  # hidden, not freed: nothing is written
    assert alive() is not None
    assert index.search(rows[3], 1).ids != [3]


def test_an_addition_that_is_taken_back_lets_go() -> None:
    rows = values("float32", (5000, DIM))

    class Enough(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Enough

    for index in (vicinal.Index(DIM), vicinal.Index(DIM, "cosine", dtype="int8")):
        lent, alive = watched(rows.astype(index.dtype))
        with pytest.raises(Enough):
            index.add(lent, copy=False, progress=stop)
        del lent
        assert alive() is None
        assert (len(index), index.memory_usage()["borrowed"]) == (0, 0)
        index.add(rows.astype(index.dtype), copy=False)
        assert index.search(rows[9].astype(index.dtype), 1).ids == [9]
        index.check()
        # and one that comes later leaves what is lent where it is, or has copied it
        with pytest.raises(Enough):
            index.add(rows.astype(index.dtype), progress=stop)
        index.check()
        assert index.search(rows[9].astype(index.dtype), 1).ids == [9]
    lent, alive = watched(rows)
    lent[77, 3] = np.nan
    index = vicinal.Index(DIM)
    with pytest.raises(ValueError, match="vectors: row 77 holds NaN"):
        index.add(lent, copy=False)
    del lent
    assert alive() is None


@pytest.mark.full_build
def test_searches_beside_the_call_that_copies() -> None:
    # The array goes back to the system as soon as it is let go: reading it then ends the process.
    run(
        """
        import mmap, threading
        import numpy as np
        import vicinal
        rng = np.random.default_rng(0)
        for turn, (dtype, metric, kind) in enumerate([
            ("uint8", "l2", "auto"), ("float32", "l2", None), ("float32", "ip", "auto"),
            ("int8", "cosine", "auto"), ("uint8", "ip", None), ("float32", "l2", "auto"),
        ] * 3):
            rows = rng.integers(1, 100, (4200, 64)).astype(dtype)
            lent = np.frombuffer(mmap.mmap(-1, rows[:1400].nbytes), dtype).reshape(1400, 64)
            lent[:] = rows[:1400]
            index = vicinal.Index(64, metric, dtype=dtype, quantization=kind, ef_construction=40)
            index.add(lent, copy=False)
            del lent
            wide, asked = rows.astype(np.float64), rows[:20]
            products = wide[:20] @ wide.T
            squares = (wide**2).sum(1)
            truth = {
                "l2": squares[:20, None] + squares - 2 * products,
                "ip": 1 - products,
                "cosine": 1 - products / np.sqrt(squares[:20, None] * squares),
            }[metric]
            done, wrong = threading.Event(), []

            def right(query, ids, distances):
                return np.allclose(truth[query, ids], distances, rtol=1e-5, atol=1e-6)

            def look():
                while not done.is_set():
                    every = np.arange(20)[:, None]
                    if not (
                        right(every, *index.search(asked, 5))
                        and right(5, *index.search(asked[5], 5))
                        and right(every, *index.search(asked, 5, ef_search=1400))
                        and right(every, *index.search(asked, 5, filter=np.arange(0, 1400, 2)))
                        and right(5, *index.range_search(asked[5], float(truth[5, 6]))[:2])
                        and right(5, *index.trace(asked[5], 5).result)
                        and (index.get(range(1400)) == rows[:1400]).all()
                    ):
                        wrong.append((turn, dtype, metric, kind))

            threads = [threading.Thread(target=look) for _ in range(3)]
            for thread in threads:
                thread.start()
            for start in range(1400, 4200, 700):
                index.add(rows[start : start + 700], num_threads=1)
            done.set()
            for thread in threads:
                thread.join()
            assert not wrong, wrong
            index.check()
        """
    )


# ---- memory


@pytest.mark.full_build
def test_nothing_is_read_behind_the_array_or_written_to_it() -> None:
    # The last item stands before a page that must not be read, in memory that must not be written.
    run(
        """
        import ctypes, mmap, sys
        import numpy as np
        import vicinal
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        NONE, READ, BOTH = 0, 1, 3

        def fenced(rows):
            pages = -(-rows.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
            room = mmap.mmap(-1, pages + mmap.PAGESIZE)
            whole = np.frombuffer(room, np.uint8)
            start = whole.ctypes.data
            part = whole[pages - rows.nbytes : pages].view(rows.dtype).reshape(rows.shape)
            part[:] = rows
            assert libc.mprotect(start + pages, mmap.PAGESIZE, NONE) == 0
            assert libc.mprotect(start, pages, READ) == 0
            return part

        rng = np.random.default_rng(3)
        for dtype, dims in (
            ("float32", (1, 3, 17, 33, 63, 80)), ("float16", (1, 7, 31, 65, 127, 160)),
            ("int8", (1, 9, 31, 63, 64, 192)), ("uint8", (1, 5, 33, 63, 128)),
        ):
            for metric in ("l2", "ip", "cosine"):
                if metric == "cosine" and "float" in dtype:
                    continue
                for dim in dims:
                    given = rng.integers(1, 100, (1100, dim)).astype(dtype)
                    rows = fenced(given)
                    asked = given[-30:].astype("float32" if "float" in dtype else dtype)
                    index = vicinal.Index(dim, metric, dtype=dtype, M=4, ef_construction=15)
                    index.add(rows, copy=False)
                    index.search(asked, 5)
                    index.search(asked, 1100)
                    index.search(asked[0], 5)
                    index.search(asked, 5, filter=np.arange(900, 1100))
                    index.range_search(asked, 3.0)
                    index.measure_recall(sample=20)
                    index.trace(asked[-1], 3)
                    index.check()
                    index.copy()
                    index.remove(range(1000, 1020))
                    index.add(given[:1])
                    index.remove(range(500, 900))
                    index.compact()
                    assert (rows == given).all()
                    few = vicinal.Index(dim, metric, dtype=dtype)
                    few.add(rows[-50:], copy=False)
                    few.search(asked, 50)
                    few.search(asked[-1], 50)
        """
    )


HIGH_WATER = """
    import sys
    import numpy as np
    import vicinal

    path, copy = sys.argv[1], {"True": True, "None": None, "False": False}[sys.argv[2]]
    rows = np.load(path, mmap_mode="r")
    small = vicinal.Index(rows.shape[1], M=4, ef_construction=10)
    small.add(rows[:1500])
    rows.sum()  # pages of the file count as well
    before = in_use("VmHWM")
    index = vicinal.Index(rows.shape[1], M=4, ef_construction=10)
    index.add(rows, copy=copy, num_threads=1)
    usage = index.memory_usage()
    print(in_use("VmHWM") - before, usage["vectors"], usage["borrowed"])
"""


@pytest.mark.slow
def test_no_second_copy_of_the_vectors(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((6000, 1024)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    grown = {}
    for copy in ("True", "None", "False"):
        growth, own, borrowed = map(
            int, run(IN_USE + textwrap.dedent(HIGH_WATER), tmp_path / "rows.npy", copy).split()
        )
        grown[copy] = growth
        assert borrowed == (0 if copy == "True" else rows.nbytes)
        assert (own >= rows.nbytes) == (copy == "True")
    assert grown["True"] > rows.nbytes
    assert max(grown["None"], grown["False"]) < 0.75 * rows.nbytes, "codes and links, no vectors"
    assert grown["True"] - grown["False"] > 0.75 * rows.nbytes


def test_a_file_that_is_mapped(tmp_path: Path) -> None:
    rows = values("float32")
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    index = vicinal.Index(DIM, M=6, ef_construction=30)
    index.add(mapped, copy=False)
    del mapped
    os.remove(tmp_path / "rows.npy")
    assert index.search(rows, 1, ef_search=1500).ids.ravel().tolist() == list(range(1500))
    index.save(tmp_path / "index")
    assert vicinal.open(tmp_path / "index", verify=True).search(rows[8], 1).ids == [8]
    index.remove(range(700))
    index.add(rows[:50])
    index.check()
    assert index.search(rows[9], 1).ids == [1509]


def test_fork() -> None:
    index, rows = lent_index()
    child = os.fork()
    if child == 0:
        try:
            index.add(rows[:5])
            right = index.search(rows[9], 1).ids == [9] and len(index) == 1505
        finally:
            os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert index.memory_usage()["borrowed"] == rows.nbytes


def test_two_indexes_may_read_one_array() -> None:
    first, rows = lent_index()
    second = vicinal.Index(DIM, "ip")
    second.add(rows, range(10, 1510), copy=False)
    first.add(rows[:1])
    first.remove(range(900))
    del first
    assert second.search(rows[4], 1500).ids.size == 1500
    assert second.get(14).tolist() == rows[4].tolist()


def test_threads_that_add_at_once() -> None:
    rows = values("float32", (1200, DIM))
    index = vicinal.Index(DIM, M=5, ef_construction=20)
    barrier = threading.Barrier(3)

    def add(part: int) -> None:
        barrier.wait()
        index.add(rows[part * 400 : part * 400 + 400], copy=None)

    threads = [threading.Thread(target=add, args=(part,)) for part in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    index.check()
    assert index.memory_usage()["borrowed"] == 0
    assert sorted(map(bytes, index.get(range(1200)))) == sorted(map(bytes, rows))
