"""Vectors from files and arrays, without extras: round trips, damage, rows that are refused."""

from __future__ import annotations

import array
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from support import vector_files
from vicinal import FormatError, RowError, read_vectors, write_vectors

DTYPES = ("f2", "f4", "f8", "i1", "u1", "i2", "i4", "u4", "i8")
HOLDS = {
    **dict.fromkeys(("fvecs", "fbin"), ("f4", "f2", "i1", "u1")),
    **dict.fromkeys(("bvecs", "u8bin"), ("u1",)),
    "i8bin": ("i1",),
    **dict.fromkeys(("ivecs", "ibin"), ("i4", "i2", "u1")),
}
EXTRAS = ("click", "pyarrow", "h5py", "sklearn", "scipy", "tqdm", "datasets", "torch")


def some(dtype: str = "f4", shape: tuple[int, int] = (103, 7)) -> Any:
    return np.random.default_rng(3).integers(0, 100, shape).astype(dtype)


def together(source: vicinal.VectorSource, rows: int) -> Any:
    return np.concatenate([np.asarray(batch) for batch in source.batches(rows)])


@pytest.mark.parametrize(
    ("format", "dtype"),
    [(format, dtype) for format in vector_files.PLAIN for dtype in HOLDS.get(format, DTYPES)],
)
def test_round_trip(tmp_path: Path, format: str, dtype: str) -> None:
    data, path = some(dtype), tmp_path / f"a.{format}"
    write_vectors(path, data)
    more: dict[str, Any] = {"dim": 7, "dtype": dtype} if format == "raw" else {}
    with read_vectors(path, **more) as source:
        assert (source.shape, len(source), source.format) == (data.shape, 103, format)
        for rows in (1, 10, 103, 1000):
            assert np.array_equal(together(source, rows), data)
        assert [len(batch) for batch in source.batches(50)] == [50, 50, 3]
        assert np.array_equal(together(source[20:90][5:60], 17), data[25:80])
        read = source.read()
        assert read.flags.c_contiguous and read.dtype == source.dtype
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    for format, dtypes in HOLDS.items():
        for dtype in set(DTYPES) - set(dtypes):
            if np.can_cast(dtype, {"fvecs": "f4", "fbin": "f4"}.get(format, dtypes[0])):
                continue
            with pytest.raises(TypeError, match=format):
                write_vectors(tmp_path / f"a.{format}", some(dtype))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [">f4", ">i2", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("packed", [False, True])
def test_byte_order_and_columns(tmp_path: Path, dtype: str, order: Any, packed: bool) -> None:
    data = np.asarray(some(dtype), order=order)
    if packed:
        np.savez_compressed(tmp_path / "a.npz", data)
        source = read_vectors(tmp_path / "a.npz")
    else:
        np.save(tmp_path / "a.npy", data)
        source = read_vectors(tmp_path / "a.npy")
    assert source.dtype.isnative
    assert np.array_equal(together(source, 10), data)
    assert np.array_equal(together(source[3:50], 10), data[3:50])
    assert np.array_equal(together(read_vectors(data[::-2, ::3]), 10), data[::-2, ::3])


def test_formats_are_told_by_their_first_bytes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", some())
    (tmp_path / "a.npy").rename(tmp_path / "vectors")
    assert read_vectors(tmp_path / "vectors").format == "npy"
    (tmp_path / "other").write_bytes(b"what is this?")
    with pytest.raises(FormatError, match="neither its name nor its first bytes"):
        read_vectors(tmp_path / "other")


def test_ground_truth_of_big_ann(tmp_path: Path) -> None:
    ids, distances = some("i4"), some("f4")
    head = np.array(ids.shape, "<u4").tobytes()
    (tmp_path / "truth.ibin").write_bytes(head + ids.tobytes() + distances.tobytes())
    assert np.array_equal(together(read_vectors(tmp_path / "truth.ibin"), 40), ids)


def test_a_row_of_another_length_is_named(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a.fvecs", some())
    data = bytearray((tmp_path / "a.fvecs").read_bytes())
    data[60 * 32] = 9
    (tmp_path / "b.fvecs").write_bytes(data)
    with pytest.raises(RowError, match=r"b.fvecs: row 60 says it has 9 values") as caught:
        together(read_vectors(tmp_path / "b.fvecs"), 25)
    assert caught.value.row == 60
    (tmp_path / "c.fvecs").write_bytes(data[: 60 * 32] + b"\7\0\0\0")
    with pytest.raises(FormatError, match="row 60 is the first that does not fit"):
        read_vectors(tmp_path / "c.fvecs")


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[1, "x"]], object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", vectors=np.array([[1, "x"]], object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(FormatError, match=r"pickled|no array"):
            read_vectors(tmp_path / name)


@pytest.mark.parametrize("format", vector_files.PLAIN)
def test_damaged_files(format: str) -> None:
    outcomes = vector_files.hunt(format, 300, seed=1)
    assert outcomes["FormatError"] > 100
    assert outcomes["read"] > 0  # the mutations leave some files whole, or change values only


def test_headers_that_ask_for_more_than_there_is(tmp_path: Path) -> None:
    huge = np.array([2**31 - 1, 60_000], "<u4").tobytes()
    deep = b"\x93NUMPY\2\0" + (9000).to_bytes(4, "little") + b"(" * 9000
    long = b"\x93NUMPY\2\0" + b"\xff" * 4
    header = str({"descr": "<f4", "fortran_order": False, "shape": (2**31 - 1, 60_000)}).encode()
    wide = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header
    files = {"a.fbin": huge, "a.npy": deep, "b.npy": long, "c.npy": wide}
    files["a.safetensors"] = b"\xff" * 7 + b"\0{}"
    files["a.fvecs"] = b"\xff\xff\xff\x7f" + bytes(100)
    for name, data in files.items():
        path = tmp_path / name
        path.write_bytes(data)
        tracemalloc.start()
        with pytest.raises(FormatError, match=name):
            read_vectors(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000, name
        tracemalloc.stop()


def test_memory_stays_flat(tmp_path: Path) -> None:
    """A file of 1 GB, most of it a hole, is read in batches of 32 MiB."""
    path = tmp_path / "large.fbin"
    with open(path, "wb") as file:
        file.write(np.array([2_000_000, 128], "<u4").tobytes())
        file.truncate(8 + 2_000_000 * 128 * 4)
    tracemalloc.start()
    count = 0
    for batch in read_vectors(path)[:600_000].batches():
        count += len(batch)
    assert count == 600_000
    assert tracemalloc.get_traced_memory()[1] < 3 * (32 << 20)
    tracemalloc.stop()


def test_a_file_that_is_shortened_is_noticed(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a.npy", some())
    source = read_vectors(tmp_path / "a.npy")
    with open(tmp_path / "a.npy", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(FormatError, match="file ends at byte 1000"):
        together(source, 50)


def test_pipes_and_folders_are_no_sources(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_vectors(tmp_path, format="npy")
    with pytest.raises(FormatError, match="regular file"):
        read_vectors("/dev/zero", format="npy")


# ---- ids


def test_ids_of_all_kinds(tmp_path: Path) -> None:
    data, ids = some(), np.arange(103) * 5 - 7
    np.savez(tmp_path / "a.npz", x=data, names=ids.astype(str), ids=ids)
    np.save(tmp_path / "ids.npy", ids)
    np.save(tmp_path / "a.npy", data)
    write_vectors(tmp_path / "a.safetensors", data, ids)
    sources = [
        read_vectors(tmp_path / "a.npz", "x", "ids"),
        read_vectors(tmp_path / "a.npy", ids=str(tmp_path / "ids.npy")),
        read_vectors(tmp_path / "a.npy", ids=ids.tolist()),
        read_vectors(tmp_path / "a.safetensors", ids="ids"),
        read_vectors(data, ids=ids),
    ]
    for source in sources:
        assert source.has_ids
        parts = list(source[4:90].batches(40))
        assert np.array_equal(np.concatenate([vectors for vectors, _ in parts]), data[4:90])
        assert np.array_equal(np.concatenate([named for _, named in parts]), ids[4:90])
        index = vicinal.build(source)
        assert np.array_equal(index.ids, ids)
        assert np.array_equal(index.get(ids), data)
    index = vicinal.build(tmp_path / "a.npz", vectors="x", ids="names")
    assert index.ids.tolist() == ids.astype(str).tolist()
    with pytest.raises(KeyError, match="no array 'nothing'"):
        read_vectors(tmp_path / "a.npz", "nothing")
    with pytest.raises(ValueError, match=r"ids: expected \(103,\)"):
        read_vectors(data, ids=[1, 2])


def test_which_array_is_not_guessed(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=some(), b=some())
    with pytest.raises(ValueError, match=r"the name of one array of a\.npz: 'a', 'b'"):
        read_vectors(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", a=some(), vectors=some("u1"))
    assert read_vectors(tmp_path / "b.npz").dtype == np.uint8


# ---- objects in memory


class Tensor:
    """Enough of torch.Tensor: DLPack, detaching, and bits of another type."""

    def __init__(self, data: Any, dtype: str = "torch.float32", device: int = 1) -> None:
        self.data, self.dtype, self.device = data, dtype, device
        self.requires_grad = dtype == "torch.float32"

    def detach(self) -> Tensor:
        new = Tensor(self.data, self.dtype, self.device)
        new.requires_grad = False
        return new

    def view(self, dtype: Any) -> Tensor:
        return Tensor(self.data.view(dtype), "torch.int16", self.device)

    def __dlpack__(self, **more: Any) -> Any:
        if self.requires_grad:
            raise BufferError("requires grad")
        if self.dtype == "torch.bfloat16":
            raise BufferError("bfloat16")
        return self.data.__dlpack__(**more)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.device, 0)


def test_bfloat16_of_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    data = some().astype(ml_dtypes.bfloat16)
    source = read_vectors(data)
    assert (source.index_dtype, source.dtype) == ("bfloat16", ml_dtypes.bfloat16)
    index = vicinal.build(source)
    assert index.dtype == "bfloat16"
    data[50, 1] = np.nan
    with pytest.raises(RowError, match="row 50 holds NaN"):
        vicinal.build(data)


def test_arrays_of_other_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    data = some()
    assert np.array_equal(together(read_vectors(Tensor(data)), 30), data)
    assert np.array_equal(together(read_vectors(memoryview(data)), 30), data)
    assert np.array_equal(together(read_vectors(data.tolist()), 30), data)
    monkeypatch.setitem(sys.modules, "torch", type("torch", (), {"int16": np.int16}))
    bits = (data.view(np.uint32) >> 16).astype(np.uint16)
    half = read_vectors(Tensor(bits, "torch.bfloat16"))
    assert (half.dtype, half.index_dtype) == (np.float32, "bfloat16")
    assert np.array_equal(together(half, 30), data)  # whole numbers below 256 fit
    assert vicinal.build(half).dtype == "bfloat16"
    with pytest.raises(ValueError, match="move it to the CPU"):
        read_vectors(Tensor(data, device=2))
    with pytest.raises(ValueError, match="expected a buffer of shape"):
        read_vectors(array.array("f", [1, 2]))
    with pytest.raises(TypeError, match="expected a path, an array"):
        read_vectors(object())
    with pytest.raises(ValueError, match="expected shape"):
        read_vectors(data[0])


# ---- into an index


def test_dtype_and_metric_of_the_index() -> None:
    for dtype, stored in (("f8", "float32"), ("f2", "float16"), ("u1", "uint8"), ("i4", "float32")):
        assert vicinal.build(some(dtype)).dtype == stored
    index = vicinal.build(some() + 1, metric="cosine", dtype="float16", M=8, seed=4)
    assert (index.metric, index.dtype, index.M, index.seed) == ("cosine", "float16", 8, 4)


def test_add_takes_a_source_and_says_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    data = some(shape=(1000, 7))
    data[730, 2] = np.nan
    source = read_vectors(data)
    monkeypatch.setattr(type(source), "batch_rows", lambda self: 100)
    index = vicinal.Index(7)
    seen: list[tuple[int, int]] = []
    with pytest.raises(RowError, match="array: row 730 holds NaN") as caught:
        index.add(source, progress=lambda done, total: seen.append((done, total)))
    assert (caught.value.row, caught.value.added, len(index)) == (730, 700, 700)
    assert all(total == 1000 for _, total in seen)
    data[730, 2] = 0
    assert index.add(source[caught.value.added :]).tolist() == list(range(700, 1000))
    assert np.array_equal(index.get(index.ids), data)
    with pytest.raises(ValueError, match="expected rows of 7 values, array has 6"):
        index.add(read_vectors(data[:, :6]))
    with pytest.raises(ValueError, match="copy"):
        index.add(source, copy=False)
    assert len(index.add(read_vectors(data[:0]))) == 0


@pytest.mark.parametrize(
    ("change", "metric", "dtype", "said"),
    [
        ((5, 0.0), "cosine", "float32", "row 5 is zero"),
        ((6, 1e6), "l2", "float16", "row 6 holds values beyond float16"),
        ((7, 0.5), "l2", "uint8", "row 7 holds values other than whole numbers"),
        ((8, -np.inf), "ip", "float32", "row 8 holds NaN or infinity"),
    ],
)
def test_rows_that_an_index_refuses(change: Any, metric: str, dtype: str, said: str) -> None:
    data = some() + 1
    data[change[0]] = change[1]
    with pytest.raises(RowError, match=said):
        vicinal.build(data, metric=metric, dtype=dtype)


def test_repeated_ids_are_named() -> None:
    with pytest.raises(RowError, match="row 2 has the id 4, which is taken"):
        vicinal.build(some()[:3], ids=[4, 5, 4])
    index = vicinal.build(some()[:3])
    assert index.add(read_vectors(some()[:4]), [0, 1, 2, 3], on_conflict="skip").tolist() == [
        *range(4)
    ]
    assert len(index) == 4


def test_batches_make_the_same_index_as_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.random.default_rng(1).normal(size=(3000, 16)).astype("f4")
    whole = vicinal.Index(16)
    whole.add(data)
    source = read_vectors(data)
    monkeypatch.setattr(type(source), "batch_rows", lambda self: 700)
    parts = vicinal.build(source)
    queries = data[:200] + np.float32(0.01)
    true = whole.search(queries, 10, ef_search=10**6).ids
    for index in (whole, parts):
        assert vicinal.recall_at_k(index.search(queries, 10).ids, true) > 0.98


# ---- out of an index


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "uint8"])
@pytest.mark.parametrize("format", ["npy", "npz", "safetensors"])
def test_an_index_goes_out_and_comes_back(tmp_path: Path, dtype: str, format: str) -> None:
    index = vicinal.Index(7, dtype=dtype)
    ids = index.add(some(), ids=np.arange(103)[::-1])
    write_vectors(tmp_path / f"a.{format}", index, ids_path=tmp_path / "ids.npy")
    named = "ids" if format != "npy" else str(tmp_path / "ids.npy")
    back = vicinal.build(tmp_path / f"a.{format}", ids=named, dtype=dtype)
    assert np.array_equal(back.get(ids), index.get(ids))
    assert np.array_equal(back.ids, index.ids)


def test_to_npy_writes_whole_files_or_none(tmp_path: Path) -> None:
    index = vicinal.Index(7, ids="str")
    index.add(some()[:2], ids=["a", "b\0"])
    with pytest.raises(ValueError, match="NUL"):
        index.to_npy(tmp_path / "a.npy", tmp_path / "ids.npy")
    assert not (tmp_path / "ids.npy").exists()
    assert np.array_equal(np.load(tmp_path / "a.npy"), some()[:2])
    with pytest.raises(FileNotFoundError):
        index.to_npy(tmp_path / "no" / "a.npy")
    assert [each.name for each in tmp_path.iterdir()] == ["a.npy"]


def test_vicinal_imports_no_extra() -> None:
    code = (
        "import sys, numpy, vicinal; vicinal.build(numpy.eye(3)); "
        f"print([name for name in {EXTRAS} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (("pyarrow", "parquet"), ("h5py", "hdf5")):
        monkeypatch.setitem(sys.modules, module, None)
        (tmp_path / f"a.{name}").write_bytes(b"")
        extra = "arrow" if name == "parquet" else "hdf5"
        with pytest.raises(ImportError, match=rf"pip install 'vicinal\[{extra}\]'"):
            read_vectors(tmp_path / f"a.{name}")


def test_the_command_says_what_it_needs() -> None:
    code = (
        "import sys; sys.modules['click'] = None; sys.modules['click'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name: None if name == 'click' else find(name)\n"
        "from vicinal.cli import main; main(['build'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'vicinal[cli]'" in done.stderr
