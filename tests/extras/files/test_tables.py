"""Arrow tables of several libraries, Parquet, Feather, datasets and HDF5, with their traps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

import vicinal
from support import vector_files
from vicinal import FormatError, RowError, read_vectors, write_vectors

DATA = np.random.default_rng(3).normal(size=(103, 6)).astype("f4")
IDS = np.arange(103) * 5 - 7
FILES = ("parquet", "feather", "hdf5")


def both(source: vicinal.VectorSource, rows: int) -> tuple[Any, Any]:
    parts = list(source.batches(rows))
    return np.concatenate([v for v, _ in parts]), np.concatenate([ids for _, ids in parts])


def lists(kind: str, dtype: str = "f4") -> Any:
    flat = pa.array(DATA.astype(dtype).reshape(-1))
    offsets = np.arange(104) * 6
    if kind == "list":
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)
    if kind == "large_list":
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat)
    fixed = pa.FixedSizeListArray.from_arrays(flat, 6)
    if kind == "tensor":
        return pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(flat.type, [6]), pa.FixedSizeListArray.from_arrays(flat, 6)
        )
    return fixed


@pytest.mark.parametrize("kind", ["list", "large_list", "fixed", "tensor"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "u1", "i4"])
def test_columns_of_lists(kind: str, dtype: str) -> None:
    table = pa.table({"id": IDS, "v": lists(kind, dtype)})
    for part, first in ((table, 0), (table.slice(11), 11)):
        source = read_vectors(part, ids="id")
        vectors, ids = both(source, 10)
        assert source.dtype == dtype
        assert np.array_equal(vectors, DATA.astype(dtype)[first:])
        assert np.array_equal(ids, IDS[first:])


def test_slices_and_chunks_keep_their_rows() -> None:
    """`values` of a slice has the rows before it as well; chunks begin anew."""
    column = lists("fixed")
    chunked = pa.chunked_array([column.slice(3, 20), column.slice(50, 1), column.slice(60)])
    wanted = np.concatenate([DATA[3:23], DATA[50:51], DATA[60:]])
    table = pa.table({"v": chunked})
    for rows in (1, 7, 1000):
        batches = list(read_vectors(table).batches(rows))
        assert [len(batch) for batch in batches[:-1]] == [rows] * (len(batches) - 1)
        assert np.array_equal(np.concatenate(batches), wanted)
    assert np.array_equal(read_vectors(table)[10:40].read(), wanted[10:40])


@pytest.mark.parametrize("kind", ["list", "fixed"])
def test_nulls_are_refused_by_their_row(kind: str) -> None:
    """`flatten` leaves null rows out: later rows would get the ids of others."""
    rows: list[Any] = DATA.tolist()
    typed = pa.list_(pa.float32(), *([6] if kind == "fixed" else []))
    rows[70] = None
    with pytest.raises(RowError, match="row 70 is null"):
        both(read_vectors(pa.table({"v": pa.array(rows, typed), "id": IDS}), ids="id"), 25)
    rows[70] = [1, 2, None, 4, 5, 6]
    with pytest.raises(RowError, match="row 70 holds a null") as caught:
        both(read_vectors(pa.table({"v": pa.array(rows, typed), "id": IDS}), ids="id"), 25)
    assert caught.value.row == 70
    rows[70] = rows[71]
    ids = pa.array([None if i == 33 else i for i in range(103)])
    with pytest.raises(RowError, match="row 33 has no id"):
        both(read_vectors(pa.table({"v": pa.array(rows, typed), "id": ids}), ids="id"), 25)


def test_lists_of_another_length_are_refused_by_their_row() -> None:
    rows = DATA.tolist()
    rows[90] = [1.0]
    source = read_vectors(pa.table({"v": pa.array(rows, pa.list_(pa.float32()))}))
    index = vicinal.Index(6)
    with pytest.raises(RowError, match="row 90 has 1 values, expected 6"):
        index.add(source)
    assert len(index) == 0


def test_ids_of_all_types() -> None:
    texts = [f"ä{i}" for i in range(103)]
    for ids, wanted in (
        (pa.array(texts), texts),
        (pa.array(texts).dictionary_encode(), texts),
        (pa.array(texts, pa.large_string()), texts),
        (pa.array(IDS, pa.int16()), IDS.tolist()),
        (pa.array(range(103), pa.uint64()), list(range(103))),
    ):
        index = vicinal.build(pa.table({"v": lists("list"), "id": ids}), ids="id")
        assert index.ids.tolist() == wanted
    beyond = pa.array([2**63 if i == 40 else i for i in range(103)], pa.uint64())
    with pytest.raises(RowError, match="row 40 has an id beyond int64"):
        vicinal.build(pa.table({"v": lists("list"), "id": beyond}), ids="id")
    with pytest.raises(FormatError, match="expected ids"):
        read_vectors(pa.table({"v": lists("list"), "id": pa.array(DATA[:, 0])}), ids="id")


def test_tables_of_polars_and_duckdb() -> None:
    import duckdb
    import polars

    frame = polars.DataFrame(
        {"id": IDS, "v": polars.Series(DATA, dtype=polars.Array(polars.Float32, 6))}
    )
    vectors, ids = both(read_vectors(frame, ids="id"), 10)
    assert np.array_equal(vectors, DATA) and np.array_equal(ids, IDS)
    assert np.array_equal(read_vectors(frame["v"]).read(), DATA)
    rows = frame.to_arrow()
    found = duckdb.sql("select * from rows where id > 100 order by id")
    vectors, ids = both(read_vectors(found, ids="id"), 10)
    assert np.array_equal(vectors, DATA[IDS > 100]) and np.array_equal(ids, IDS[IDS > 100])
    assert rows.num_rows == 103


def test_arrays_of_arrow() -> None:
    for kind in ("list", "fixed"):
        assert np.array_equal(read_vectors(lists(kind)).read(), DATA)
        chunks = pa.chunked_array([lists(kind), lists(kind).slice(5)])
        assert np.array_equal(read_vectors(chunks).read(), np.concatenate([DATA, DATA[5:]]))
    batch = pa.record_batch({"v": lists("list"), "id": pa.array(IDS)})
    assert np.array_equal(both(read_vectors(batch, ids="id"), 9)[1], IDS)


def test_datasets_keep_their_order() -> None:
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_dict({"id": IDS.tolist(), "v": DATA.tolist()})
    order = np.random.default_rng(0).permutation(103)[:50]
    source = read_vectors(whole.select(order), ids="id")
    vectors, ids = both(source, 7)
    assert np.array_equal(ids, IDS[order])
    assert np.array_equal(vectors.astype("f4"), DATA[order])
    assert np.array_equal(both(source[20:30], 7)[1], IDS[order][20:30])


@pytest.mark.parametrize("format", FILES)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "u1", "i4"])
def test_round_trip(tmp_path: Path, format: str, dtype: str) -> None:
    path = tmp_path / f"a.{format}"
    data = DATA.astype(dtype)
    write_vectors(path, data, IDS)
    name = "ids" if format == "hdf5" else "id"
    with read_vectors(path, ids=name) as source:
        assert (source.shape, source.dtype) == (data.shape, data.dtype)
        for rows in (1, 10, 1000):
            vectors, ids = both(source, rows)
            assert np.array_equal(vectors, data) and np.array_equal(ids, IDS)
        assert np.array_equal(both(source[20:77], 9)[0], data[20:77])
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("format", FILES)
def test_an_index_of_strings_goes_out_and_comes_back(tmp_path: Path, format: str) -> None:
    index = vicinal.Index(6, "cosine", ids="str")
    index.add(DATA, ids=[f"ü {i}" for i in range(103)])
    write_vectors(tmp_path / f"a.{format}", index)
    name = "ids" if format == "hdf5" else "id"
    back = vicinal.build(tmp_path / f"a.{format}", ids=name, metric="cosine")
    assert back.ids.tolist() == index.ids.tolist()
    assert np.allclose(back.get(back.ids), index.get(index.ids), atol=1e-6)
    empty = vicinal.Index(6)
    write_vectors(tmp_path / f"b.{format}", empty)
    assert len(read_vectors(tmp_path / f"b.{format}", ids=name)) == 0


def test_row_groups_and_lists_of_parquet(tmp_path: Path) -> None:
    table = pa.table({"id": IDS, "v": lists("list"), "text": ["x"] * 103})
    pa.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=17)
    source = read_vectors(tmp_path / "a.parquet", ids="id")
    for start, stop in ((0, 103), (16, 18), (17, 34), (90, 103), (102, 103)):
        vectors, ids = both(source[start:stop], 10)
        assert np.array_equal(vectors, DATA[start:stop]) and np.array_equal(ids, IDS[start:stop])
    assert [len(batch[0]) for batch in source.batches(50)] == [50, 50, 3]
    with pytest.raises(KeyError, match="no column 'w'"):
        read_vectors(tmp_path / "a.parquet", "w")
    with pytest.raises(FormatError, match="lists of numbers"):
        read_vectors(tmp_path / "a.parquet", "text")


def test_results_and_indexes_as_tables(tmp_path: Path) -> None:
    index = vicinal.build(DATA, ids=IDS)
    table = index.to_arrow()
    assert table.column_names == ["id", "vector"]
    assert np.array_equal(both(read_vectors(table, ids="id"), 50)[0], DATA)
    index.to_parquet(tmp_path / "a.parquet")
    assert pa.parquet.read_table(tmp_path / "a.parquet").equals(table)
    found = index.search(DATA[:2], 200).to_arrow()
    assert found.column_names == ["query", "rank", "id", "distance"]
    assert found.num_rows == 2 * 103  # and none for what there is not
    assert found.slice(0, 1).to_pylist()[0] == {"query": 0, "rank": 0, "id": -7, "distance": 0}
    texts = vicinal.Index(6, ids="str")
    texts.add(DATA[:1], ids=["a"])
    assert texts.search(DATA[0], 3).to_arrow()["id"].to_pylist() == ["a"]


# ---- HDF5


def benchmark(path: Path, distance: str) -> None:
    """A file as ann-benchmarks has them."""
    exact = vicinal.exact_search(DATA, DATA[:9] + np.float32(0.01), 10)
    with h5py.File(path, "w") as file:
        file.attrs["distance"] = distance
        file["train"], file["test"] = DATA, DATA[:9] + np.float32(0.01)
        file["neighbors"], file["distances"] = exact.ids.astype("i4"), exact.distances


@pytest.mark.parametrize(
    ("distance", "metric"), [("euclidean", "l2"), ("angular", "cosine"), ("ip", "ip")]
)
def test_the_metric_is_what_the_file_says(tmp_path: Path, distance: str, metric: str) -> None:
    benchmark(tmp_path / "a.hdf5", distance)
    index = vicinal.build(tmp_path / "a.hdf5")
    assert (index.metric, len(index)) == (metric, 103)
    assert read_vectors(tmp_path / "a.hdf5", "test").shape == (9, 6)
    assert vicinal.build(tmp_path / "a.hdf5", metric="l2").metric == "l2"


def test_chunks_compression_and_lies_of_hdf5(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("train", data=DATA, chunks=(10, 6), compression="gzip")
        file.create_dataset("huge", (2**31 - 1, 60_000), "f4", chunks=(10, 60_000))
    assert np.array_equal(read_vectors(tmp_path / "a.hdf5").read(), DATA)
    with pytest.raises(FormatError, match="larger than the file"):
        read_vectors(tmp_path / "a.hdf5", "huge")
    (tmp_path / "b.hdf5").write_bytes((tmp_path / "a.hdf5").read_bytes()[:2000])
    with pytest.raises(FormatError):
        read_vectors(tmp_path / "b.hdf5")


@pytest.mark.parametrize("format", FILES)
def test_damaged_files(format: str) -> None:
    outcomes = vector_files.hunt(format, 300, seed=1)
    assert outcomes["FormatError"] > 100
    assert outcomes["arrow bytes"] < 1_000_000


def test_memory_stays_flat_whatever_the_row_group(tmp_path: Path) -> None:
    """pyarrow would hold the whole row group that it decodes a batch of."""
    rows = np.random.default_rng(0).random((80_000, 128), "f4")  # 41 MB
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), 128)
    path = tmp_path / "a.parquet"
    pa.parquet.write_table(pa.table({"v": column}), path, row_group_size=80_000)
    code = (
        "import sys, pyarrow, vicinal\n"
        "rows = sum(len(batch) for batch in vicinal.read_vectors(sys.argv[1]).batches(2000))\n"
        "print(rows, pyarrow.default_memory_pool().max_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    count, most = map(int, done.stdout.split())
    assert count == 80_000
    assert most < 20_000_000
