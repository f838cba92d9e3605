"""Copies, equality, going through rows, and what an index says of itself."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from support.rows import dims, stored
from vicinal._self_test import graphs

RNG = np.random.default_rng(12)


def rows_of(dtype: str, count: int) -> np.ndarray:
    rows = np.random.default_rng(count).integers(1, 90, (count, 20))
    return stored(rows, dtype)


@pytest.mark.parametrize("ids", ["int64", "str"])
@pytest.mark.parametrize(("metric", "dtype", "quantization"), graphs())
def test_a_copy_is_the_same_and_independent(
    metric: str, dtype: str, quantization: str | None, ids: str, tmp_path: Path
) -> None:
    rows = rows_of(dtype, 1200)
    names = [f"n{i}" for i in range(1201)] if ids == "str" else list(range(5, 1206))
    index = vicinal.Index(
        dims(20, dtype), metric, dtype=dtype, M=4, quantization=quantization, ids=ids
    )
    index.add(rows, names[:1200])
    index.ef_search = 17
    index.save(tmp_path / "index")
    saved = (tmp_path / "index").read_bytes()
    for make in (vicinal.Index.copy, copy.copy, copy.deepcopy):
        for original in (index, vicinal.open(tmp_path / "index")):
            other = make(original)
            assert not other.read_only
            assert other.ef_search == 17
            assert repr(other) == repr(index)
            other.check()
            other.save(tmp_path / "other")
            assert (tmp_path / "other").read_bytes() == saved
            # what happens to one does not happen to the other
            other.add(rows[:1], names[1200:])
            other.ef_search = 3
            assert (len(other), len(original)) == (1201, 1200)
            assert names[1200] in other
            assert names[1200] not in original
            assert original.ef_search == 17
    index.save(tmp_path / "index")
    assert (tmp_path / "index").read_bytes() == saved
    both = copy.deepcopy({"one": [index, index]})["one"]
    assert len(both[0]) == 1200


def test_a_copy_outlives_its_original(tmp_path: Path) -> None:
    index = vicinal.Index(20)
    index.add(rows_of("float32", 1500))
    index.save(tmp_path / "index")
    expected = index.search(rows_of("float32", 9))
    opened = vicinal.open(tmp_path / "index")
    other = opened.copy()
    del opened, index
    (tmp_path / "index").unlink()
    assert np.array_equal(other.search(rows_of("float32", 9)).ids, expected.ids)


@pytest.mark.parametrize("count", [0, 1, 999])
def test_small_copies(count: int) -> None:
    index = vicinal.Index(20, "ip")
    index.add(rows_of("float32", count))
    other = index.copy()
    assert np.array_equal(other.ids, index.ids)
    assert np.array_equal(other.get(other.ids), index.get(index.ids))


def test_copies_leave_nothing_open() -> None:
    index = vicinal.Index(20)
    index.add(rows_of("float32", 100))

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    kept = [index.copy() for _ in range(10)] + [pickle.loads(pickle.dumps(index))]
    assert descriptors() == before
    assert len(kept) == 11


def test_without_memory_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no files in memory, one on the disk without a name does."""

    def refuse(name: str) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", refuse)
    index = vicinal.Index(20)
    index.add(rows_of("float32", 100))
    for other in (index.copy(), pickle.loads(pickle.dumps(index))):
        assert np.array_equal(other.ids, index.ids)


def test_copy_of_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    index = vicinal.Index(20)
    index.add(rows_of("float32", 100))
    monkeypatch.setattr("vicinal._persistence._nameless_file", lambda: open("/dev/full", "wb"))  # noqa: SIM115
    with pytest.raises(OSError, match="No space left"):
        index.copy()
    assert len(index) == 100


# ---- equality


def test_equality_is_identity() -> None:
    index = vicinal.Index(3)
    index.add(np.eye(3))
    other = index.copy()
    assert index == index
    assert index != other
    assert {index: 1, other: 2}[index] == 1
    assert index in [other, index]


# ---- going through rows


@pytest.mark.parametrize("ids", ["int64", "str"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "uint8"])
@pytest.mark.parametrize("batch_size", [1, 7, 100, 250, 10_000])
def test_vectors(ids: str, dtype: str, batch_size: int) -> None:
    rows = rows_of(dtype, 250)
    names: list[Any] = [f"n{i}" for i in range(250)] if ids == "str" else list(range(250, 0, -1))
    index = vicinal.Index(20, dtype=dtype, ids=ids)
    index.add(rows, names)
    batches = list(index.vectors(batch_size))
    assert [len(part) for part, _ in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert np.concatenate([part for part, _ in batches]).tolist() == names
    back = np.concatenate([part for _, part in batches])
    assert back.dtype == rows.dtype
    assert np.array_equal(back, rows)
    for part, vectors in batches:
        assert np.array_equal(index.get(part), vectors)


def test_vectors_of_an_index_that_grows() -> None:
    index = vicinal.Index(20)
    assert list(index.vectors()) == []
    index.add(rows_of("float32", 10))
    walk = index.vectors(4)
    first, vectors = next(walk)
    vectors[:] = -1  # a batch belongs to the caller
    index.add(rows_of("float32", 5))
    assert [*first, *(id for part, _ in walk for id in part)] == list(range(10))
    assert (index.get(first) >= 0).all()


@pytest.mark.parametrize("wrong", [0, -1, 2**31])
def test_wrong_batch_size(wrong: int) -> None:
    # at the call, not at the first batch
    with pytest.raises(ValueError, match="batch_size: expected a whole number from 1"):
        vicinal.Index(2).vectors(wrong)
    with pytest.raises(TypeError, match="batch_size: expected a whole number"):
        vicinal.Index(2).vectors(2.0)  # type: ignore[arg-type]


# ---- what it says of itself


@pytest.mark.parametrize(
    ("options", "inside", "behind"),
    [
        ({}, "", ""),
        ({"quantization": None}, ", quantization=None", ""),
        ({"quantization": "rabitq4"}, ", quantization='rabitq4'", ""),
        ({"ids": "str"}, ", ids='str'", ""),
        ({"ids": "str", "quantization": "sq8"}, ", quantization='sq8', ids='str'", ""),
        ({"ef_search": 100}, "", ", ef_search 100"),
    ],
)
def test_repr(options: dict[str, Any], inside: str, behind: str, tmp_path: Path) -> None:
    width = options.pop("ef_search", 64)
    index = vicinal.Index(9, **options)
    index.ef_search = width
    index.add(np.zeros((2, 9)), ["a", "b"] if "ids" in options else None)
    expected = (
        "vicinal.Index(dim=9, metric='l2', dtype='float32', M=16, ef_construction=200, seed=0"
        f"{inside}) with 2 rows{behind}"
    )
    assert repr(index) == expected
    index.save(tmp_path / "file")
    assert repr(vicinal.open(tmp_path / "file")) == expected + ", read-only"
    # what stands before "with" makes such an index
    made = eval(expected.split(" with ")[0], {"vicinal": vicinal})
    assert repr(made).split(" with ")[0] == expected.split(" with ")[0]


def test_copies_and_pickles_need_no_proc() -> None:
    """As in a chroot without it; `save` never needed it."""
    code = """
        import ctypes, os, pickle, sys
        import numpy as np, vicinal
        libc = ctypes.CDLL(None, use_errno=True)
        CLONE_NEWNS, CLONE_NEWUSER, MS_REC, MS_PRIVATE = 0x20000, 0x10000000, 0x4000, 1 << 18
        if libc.unshare(CLONE_NEWNS) and libc.unshare(CLONE_NEWUSER | CLONE_NEWNS):
            sys.exit("not permitted")
        if libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
            sys.exit("not permitted")
        if libc.mount(b"none", b"/proc", b"tmpfs", 0, None):
            sys.exit("not permitted")
        assert not os.path.exists("/proc/self")
        index, other = vicinal.Index(2), vicinal.Index(2)
        index.add(np.eye(2)), other.add(np.eye(2), ids=[7, 8])
        for new in (index.copy(), pickle.loads(pickle.dumps(index))):
            assert new.ids.tolist() == [0, 1]
        assert vicinal.merge(index, other).ids.tolist() == [0, 1, 7, 8]
        assert len(os.listdir("/proc")) == 0
        print("copied")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    if done.stderr == "not permitted\n":
        pytest.skip("this system does not let a process hide /proc from itself")
    assert (done.returncode, done.stdout) == (0, "copied\n"), done.stderr


def test_copies_leave_no_descriptor_open() -> None:
    index = vicinal.Index(2)
    index.add(np.eye(2))
    before = len(os.listdir("/proc/self/fd"))
    kept = [index.copy() for _ in range(5)] + [pickle.loads(pickle.dumps(index)) for _ in range(5)]
    assert len(os.listdir("/proc/self/fd")) == before and len(kept) == 10


# ---- pickles of earlier releases


def test_pickles_name_what_stays(tmp_path: Path) -> None:
    """A pickle names the class, one method of it, and the bytes of a file: none may be renamed."""
    index = vicinal.Index(20, "cosine")
    index.add(rows_of("float32", 50), np.arange(50) * 3)
    index.save(tmp_path / "index")
    made = pickle.loads(
        b"c__builtin__\ngetattr\n(cvicinal.index\nIndex\nV_from_bytes\ntR"  # protocol 0
        + pickle.dumps(((tmp_path / "index").read_bytes(),), 0)[:-1]
        + b"R."
    )
    assert type(made) is vicinal.Index and not made.read_only
    assert np.array_equal(made.ids, index.ids)
    assert pickle.dumps(index, 0).startswith(b"c__builtin__\ngetattr\n")


def test_what_an_index_answered_is_unpickled_under_the_old_names() -> None:
    index = vicinal.Index(20)
    index.add(rows_of("float32", 50))
    query = rows_of("float32", 1)[0]
    for answer, new, old in [
        (index.tune(0.9, 3), b"vicinal._tuning", b"vicinal._quality"),
        (index.measure_recall(k=3), b"vicinal._tuning", b"vicinal._quality"),
        (index.why_not(query, 7), b"vicinal._why_not", b"vicinal._walking"),
    ]:
        text = pickle.dumps(answer, 0)
        assert new in text
        assert pickle.loads(text.replace(new, old)) == answer
    trace = pickle.loads(
        pickle.dumps(index.trace(query), 0).replace(b"vicinal._trace", b"vicinal._walking")
    )
    assert trace.result.ids.tolist() == index.search(query).ids.tolist()
    assert [step.id for step in trace] == [step.id for step in index.trace(query)]
