"""The benchmark program without Python: what it reads, refuses, measures, and shares with Python.

The program is compiled once for all of these tests, which takes the better part of a minute, and
kept for the next run.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

import bench_native
import vicinal

ROOT = Path(__file__).resolve().parents[2]
SIFT = ROOT / "tests" / "data" / "sift-ngt-5k"
MINILM = ROOT / "tests" / "data" / "minilm-4k"
BASE, QUERIES, TRUTH = SIFT / "base_u8.npy", SIFT / "queries_u8.npy", SIFT / "gt_ids.npy"
HEADER_BYTES = 4096  # of a saved index; all behind it is data
SETTINGS = {"M": 16, "ef_construction": 200, "seed": 0}
WIDTHS = (16, 32, 64, 128, 256)
# 0.01 below what was measured for sift-ngt-5k; its queries come from other pictures than its rows
FLOORS = dict(zip(WIDTHS, (0.60, 0.77, 0.88, 0.94, 0.97), strict=True))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def program():
    """The compiled program."""
    if importlib.util.find_spec("mojo") is None:
        pytest.skip("the Mojo compiler is not installed (make test installs it)")
    if not any(shutil.which(name) for name in ("gcc", "clang", "cc")):
        pytest.skip("compiling bench/native takes a C compiler")
    return bench_native.program()


@pytest.fixture
def bench(program, tmp_path):
    """Runs the program and returns what it printed and the records it wrote."""

    def run(*arguments):
        results = tmp_path / "results.jsonl"
        results.unlink(missing_ok=True)
        done = call(program, *arguments, "--json", results)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout, [json.loads(line) for line in results.read_text().splitlines()]

    return run


@pytest.fixture
def refusal(program):
    """Runs the program on what it must refuse and returns the message."""

    def run(*arguments):
        done = call(program, *arguments)
        assert done.returncode == 2, done.stdout + done.stderr
        assert done.stderr.startswith("bench-native: ")
        return done.stderr

    return run


def call(program, *arguments):
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


def of_kind(records, kind, **wanted):
    """The records of a kind whose fields have the given values."""
    return [
        record
        for record in records
        if record["kind"] == kind and all(record[name] == value for name, value in wanted.items())
    ]


def recalls(records):
    """Recall by search width."""
    return {record["ef"]: record["recall"] for record in of_kind(records, "search", mode="one")}


def python_index(rows, metric="l2", **options):
    index = vicinal.Index(rows.shape[1], metric, dtype=rows.dtype, **SETTINGS)
    index.add(rows, **options)
    return index


def python_recalls(index, queries, truth):
    """What `recalls` must give for an index, searched from Python."""
    return {
        width: vicinal.recall_at_k(index.search(queries, 10, ef_search=width).ids, truth)
        for width in WIDTHS
    }


# ---- building, searching, and files that both sides read


def test_build_and_sweep(bench):
    printed, records = bench("build", "--base", BASE, "--queries", QUERIES, "--truth", TRUTH)
    assert "5000 x 128 uint8, l2, M 16, ef_construction 200, seed 0" in printed
    assert "recall@10" in printed and "vectors/s" in printed
    (build,) = of_kind(records, "build")
    assert build["vectors_per_second"] == pytest.approx(5000 / build["seconds"])
    assert build["distances_per_row"] > 100
    found = recalls(records)
    assert list(found) == list(WIDTHS)
    assert all(found[width] >= floor for width, floor in FLOORS.items()), found
    hops = []
    for record in of_kind(records, "search", mode="one"):
        latency = record["latency_us"]
        assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
        assert record["qps"]["min"] <= record["qps"]["median"] <= record["qps"]["max"]
        assert len(record["qps"]["values"]) == 3
        assert record["hops_per_query"] >= record["ef"]
        assert record["distances_per_query"] > record["hops_per_query"]
        hops.append(record["hops_per_query"])
    assert hops == sorted(hops)
    assert len(of_kind(records, "search", mode="batch", threads=1)) == len(WIDTHS)


def test_phases_and_counts_of_a_build(bench, tmp_path):
    printed, records = bench(
        *("build", "--base", BASE, "--build-threads", "1,2,3", "--save", tmp_path / "native.vic"),
        *("--queries", QUERIES, "--truth", TRUTH, "--ef", 16),
    )
    builds = of_kind(records, "build")
    assert [build["threads"] for build in builds] == [1, 2, 3]
    index = python_index(np.load(BASE))
    ours = index.build_stats()
    lines = printed.splitlines()
    for build in builds:
        phases = build["phase_seconds"]
        assert list(phases) == list(ours["seconds"])
        assert all(seconds > 0 for seconds in phases.values())
        assert sum(phases.values()) <= build["seconds"]
        for name in ("rounds", "distances", "hops", "selections", "prunes"):
            assert build[name] == ours[name]
        assert build["rows_linked"] == ours["rows"] == 5000
        assert build["distances_per_row"] == pytest.approx(ours["distances"] / 5000)
        shares = "".join(
            rf" {name.replace('_', ' ')} \d+\.\d ms \(\d+\.\d %\),?" for name in phases
        )
        assert re.search(rf"^phases  {shares}$", printed, re.MULTILINE)
    wanted = f"counts   5000 rows linked in {ours['rounds']} rounds; a row: "
    assert sum(line.startswith(wanted) for line in lines) == 3
    assert len(of_kind(records, "search", mode="one")) == 1, "only the last one is searched"
    saved = tmp_path / "native.vic"
    index.save(tmp_path / "python.vic")
    assert (
        saved.read_bytes()[HEADER_BYTES:] == (tmp_path / "python.vic").read_bytes()[HEADER_BYTES:]
    )


def test_without_truth_exact_search_finds_it(bench):
    _, with_file = bench("build", "--base", BASE, "--queries", QUERIES, "--truth", TRUTH)
    printed, without = bench("build", "--base", BASE, "--queries", QUERIES)
    assert "by exact search of all rows" in printed
    assert recalls(without) == recalls(with_file)


def test_a_file_saved_by_the_program_opens_in_python(bench, tmp_path):
    rows, queries, truth = np.load(BASE), np.load(QUERIES), np.load(TRUTH)
    _, records = bench(
        *("build", "--base", BASE, "--queries", QUERIES, "--truth", TRUTH),
        *("--threads", 2, "--save", tmp_path / "native.vic"),
    )
    (file,) = of_kind(records, "file")
    assert file["bytes"] == (tmp_path / "native.vic").stat().st_size
    opened = vicinal.open(tmp_path / "native.vic", verify=True)
    built = python_index(rows)
    assert (opened.dim, opened.metric, opened.dtype) == (128, "l2", "uint8")
    assert (opened.M, opened.ef_construction, opened.seed, len(opened)) == (16, 200, 0, 5000)
    opened.check()
    for width in WIDTHS:
        ours = opened.search(queries, 10, ef_search=width)
        theirs = built.search(queries, 10, ef_search=width)
        np.testing.assert_array_equal(ours.ids, theirs.ids)
        np.testing.assert_array_equal(ours.distances, theirs.distances)
    assert recalls(records) == pytest.approx(python_recalls(opened, queries, truth))


def test_both_sides_write_the_same_data(bench, tmp_path):
    bench("build", "--base", BASE, "--save", tmp_path / "native.vic")
    python_index(np.load(BASE)).save(tmp_path / "python.vic")
    native, python = ((tmp_path / name).read_bytes() for name in ("native.vic", "python.vic"))
    # headers differ: Python remembers its default search width
    assert native[HEADER_BYTES:] == python[HEADER_BYTES:]


def test_a_file_saved_by_python_opens_in_the_program(bench, tmp_path):
    index = python_index(np.load(BASE))
    index.save(tmp_path / "python.vic")
    printed, records = bench(
        *("search", "--open", tmp_path / "python.vic", "--queries", QUERIES, "--truth", TRUTH)
    )
    assert "5000 x 128 uint8, l2, M 16, ef_construction 200, seed 0" in printed
    expected = python_recalls(index, np.load(QUERIES), np.load(TRUTH))
    assert recalls(records) == pytest.approx(expected)
    (file,) = of_kind(records, "file")
    assert 0 < file["open_ms"] < 100


def test_ids_of_a_python_index(bench, tmp_path):
    ids = 7 * np.arange(5000, dtype=np.int64)[::-1] - 50
    truth = ids[np.load(TRUTH)]
    np.save(tmp_path / "truth.npy", truth)
    index = python_index(np.load(BASE), ids=ids)
    index.save(tmp_path / "python.vic")
    arguments = ("search", "--open", tmp_path / "python.vic", "--queries", QUERIES)
    expected = python_recalls(index, np.load(QUERIES), truth)
    for option in ((), ("--truth", tmp_path / "truth.npy")):
        _, records = bench(*arguments, *option)
        assert recalls(records) == pytest.approx(expected)


def test_cosine_over_float16(bench, tmp_path):
    base, queries, truth = (MINILM / name for name in ("base.npy", "queries.npy", "gt_ids.npy"))
    common = ("--queries", queries, "--truth", truth, "--ef", "64,256")
    printed, records = bench(
        "build", "--base", base, *common, "--metric", "cosine", "--save", tmp_path / "native.vic"
    )
    assert "4000 x 384 float16, cosine" in printed
    assert recalls(records)[64] >= 0.98
    assert recalls(records)[256] >= 0.99
    index = python_index(np.load(base), "cosine")
    index.save(tmp_path / "python.vic")
    for name in ("native.vic", "python.vic"):
        _, again = bench("search", "--open", tmp_path / name, *common)
        # the two are compiled for different processors, so float rounding may differ
        assert recalls(again) == pytest.approx(recalls(records), abs=0.005)
    opened = vicinal.open(tmp_path / "native.vic")
    found = opened.search(np.load(queries), 10, ef_search=256)
    assert vicinal.recall_at_k(found.ids, np.load(truth)) >= 0.99


def test_threads_give_the_same_answers(bench):
    common = ("build", "--base", BASE, "--queries", QUERIES, "--truth", TRUTH, "--rounds", 1)
    _, one = bench(*common, "--threads", 1)
    _, two = bench(*common, "--threads", 2)
    assert recalls(one) == recalls(two)
    assert len(of_kind(two, "search", mode="batch", threads=2)) == len(WIDTHS)


def test_small_indexes_and_wide_searches_scan(bench):
    common = ("build", "--base", BASE, "--queries", QUERIES, "--truth", TRUTH, "--rounds", 1)
    printed, records = bench(*common, "--ef", 1000)
    assert "scan" in printed
    assert recalls(records) == {1000: 1.0}
    _, records = bench(*common, "--ef", 16, "--exact-below", 5001)
    assert recalls(records) == {16: 1.0}
    (record,) = of_kind(records, "search", mode="one")
    assert (record["distances_per_query"], record["hops_per_query"]) == (5000, 0)


# ---- exact search and kernels


@pytest.mark.parametrize("folder", [SIFT, MINILM], ids=lambda folder: folder.name)
def test_exact_search(bench, folder):
    ending, metric = ("_u8", "l2") if folder == SIFT else ("", "cosine")
    _, records = bench(
        *("exact", "--base", folder / f"base{ending}.npy", "--metric", metric, "--threads", 2),
        *("--queries", folder / f"queries{ending}.npy", "--truth", folder / "gt_ids.npy"),
    )
    one, batch = of_kind(records, "exact")
    assert (one["mode"], one["threads"], batch["mode"], batch["threads"]) == ("one", 1, "batch", 2)
    assert one["recall"] == batch["recall"] == 1.0
    latency = one["latency_us"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]


def test_a_tie_with_the_last_neighbour_counts(bench, tmp_path):
    rows = np.repeat(np.arange(40, dtype=np.float32)[:, None], 3, axis=1)
    np.save(tmp_path / "base.npy", np.concatenate([rows, rows]))
    np.save(tmp_path / "queries.npy", rows[:5])
    # Of two equal rows the search answers the first; the truth names the second.
    np.save(tmp_path / "truth.npy", np.arange(40, 45)[:, None])
    common = ("exact", "--base", tmp_path / "base.npy", "--queries", tmp_path / "queries.npy")
    _, records = bench(*common, "--k", 1, "--truth", tmp_path / "truth.npy")
    assert {record["recall"] for record in of_kind(records, "exact")} == {1.0}


def test_every_kernel_is_timed(bench):
    printed, records = bench("kernels", "--dim", "100,128", "--memory-mib", 4)
    kernels = of_kind(records, "kernel")
    assert len(kernels) == 3 * 5 * 2 * 3
    assert len({(k["metric"], k["dtype"], k["dim"], k["resident"]) for k in kernels}) == 90
    bytes_of = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1}
    for kernel in kernels:
        assert kernel["ns"] > 0
        assert kernel["gb_per_second"] == pytest.approx(
            kernel["dim"] * bytes_of[kernel["dtype"]] / kernel["ns"]
        )
    assert len(printed.splitlines()) == 2 + 3 * 5 * 2
    (machine,) = of_kind(records, "machine")
    assert machine["float32_lanes"] in (4, 8, 16)
    assert machine["processor"]


def test_a_folder_of_sets(bench, tmp_path):
    for name, metric in (("a-set", "cosine (as said)"), ("b-set", "euclidean")):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "base.npy", np.load(BASE)[:500])
        np.save(tmp_path / name / "queries.npy", np.load(QUERIES)[:10])
        (tmp_path / name / "manifest.json").write_text(json.dumps({"metric": metric}))
    (tmp_path / "c-set").mkdir()
    (tmp_path / "c-set" / "vectors_u8.npz").touch()
    write_vecs(tmp_path / "d_base.fvecs", np.load(BASE)[:300].astype("<f4"))
    write_vecs(tmp_path / "d_query.fvecs", np.load(QUERIES)[:10].astype("<f4"))
    printed, records = bench(tmp_path, "--rounds", 1, "--memory-mib", 1, "--ef", "32")
    assert "vectors_u8.npz: left out" in printed
    assert len(of_kind(records, "kernel")) == 3 * 5 * 5 * 3
    builds = [(r["data"], r["rows"], r["metric"], r["dtype"]) for r in of_kind(records, "build")]
    assert builds == [
        (tmp_path.name, 300, "l2", "float32"),
        ("a-set", 500, "cosine", "uint8"),
        ("b-set", 500, "l2", "uint8"),
    ]
    assert len(of_kind(records, "exact")) == 2 * len(builds)
    assert {r["recall"] for r in of_kind(records, "search")} == {1.0}


# ---- readers


def write_vecs(path, rows):
    """Write fvecs, ivecs or bvecs, as the dtype of the rows says."""
    with path.open("wb") as file:
        for row in rows:
            file.write(struct.pack("<i", len(row)) + row.tobytes())


def npy(header, body=b"", version=(1, 0)):
    """The bytes of a .npy file with a header as given."""
    length = struct.pack("<H" if version[0] == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + length + header.encode("latin-1") + body


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }"
SIX = np.arange(6, dtype="<f4").tobytes()
ODD_BUT_GOOD = {
    "version 2": npy(GOOD, SIX, (2, 0)),
    "version 3": npy(GOOD, SIX, (3, 0)),
    "another order": npy("{'shape': (3, 2), 'fortran_order': False, 'descr': '<f4'}", SIX),
    "double quotes": npy(GOOD.replace("'", '"'), SIX),
    "no blanks": npy(GOOD.replace(" ", ""), SIX),
    "many blanks": npy(GOOD.replace(" ", "   ") + " " * 5000 + "\n", SIX),
    "empty padding": npy(GOOD + "\n" * 3, SIX),
}
REFUSED_NPY = {
    "fortran": (npy(GOOD.replace("False", "True"), SIX), "expected C order, got Fortran order"),
    "big endian": (npy(GOOD.replace("<f4", ">f4"), SIX), "got dtype '>f4'"),
    "complex": (npy(GOOD.replace("<f4", "<c8"), SIX * 2), "got dtype '<c8'"),
    "bool": (npy(GOOD.replace("<f4", "|b1"), SIX), "got dtype '|b1'"),
    "object": (npy(GOOD.replace("<f4", "|O"), SIX), "got dtype '|O'"),
    "structured": (npy(GOOD.replace("'<f4'", "[('a', '<f4')]"), SIX), "got a structured one"),
    "float64": (npy(GOOD.replace("<f4", "<f8"), SIX * 2), "or --dtype to convert to), got float64"),
    "int32": (npy(GOOD.replace("<f4", "<i4"), SIX), "or --dtype to convert to), got int32"),
    "one axis": (npy(GOOD.replace("(3, 2)", "(6,)"), SIX), "expected shape (rows, dim)"),
    "no axis": (npy(GOOD.replace("(3, 2)", "()"), SIX[:4]), "expected shape (rows, dim)"),
    "three axes": (npy(GOOD.replace("(3, 2)", "(3, 1, 2)"), SIX), "got (3, 1, 2)"),
    "no rows": (npy(GOOD.replace("(3, 2)", "(0, 2)")), "at least one row"),
    "no columns": (npy(GOOD.replace("(3, 2)", "(3, 0)")), "dim from 1 to 65536"),
    "too wide": (npy(GOOD.replace("(3, 2)", "(3, 65537)"), SIX), "dim from 1 to 65536"),
    "huge": (npy(GOOD.replace("(3, 2)", f"({2**59}, 65536)"), SIX), "truncated: 24 bytes"),
    "beyond 64 bits": (npy(GOOD.replace("(3, 2)", f"({10**30}, 2)"), SIX), "damaged header"),
    "negative": (npy(GOOD.replace("(3, 2)", "(-3, 2)"), SIX), "damaged header: -3 in the shape"),
    "no shape": (npy(GOOD.replace("shape", "shade"), SIX), "damaged header: no shape in it"),
    "open shape": (npy(GOOD.replace("), }", ""), SIX), "damaged header: no shape in it"),
    "no colon": (npy(GOOD.replace("'shape':", "'shape'"), SIX), "nothing behind shape"),
    "open string": (npy("{'descr': '<f4", SIX), "damaged header: no end of '<f4"),
    "not ascii": (npy(GOOD.replace("<f4", "\xe4"), SIX), "not ASCII"),
    "one byte short": (npy(GOOD, SIX[:-1]), "truncated: 23 bytes of numbers"),
    "no numbers": (npy(GOOD), "truncated: 0 bytes of numbers"),
    "one byte long": (npy(GOOD, SIX + b"\0"), "25 bytes of numbers, shape (3, 2) of float32"),
    "short header": (npy(GOOD)[:40], "truncated: the file ends inside its header"),
    "huge header": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + SIX, "ends inside its header"),
    "magic only": (b"\x93NUMPY", "does not begin like one"),
    "empty": (b"", "does not begin like one"),
    "text": (b"1.0 2.0 3.0 4.0\n", "does not begin like one"),
    "version 4": (npy(GOOD, SIX, (4, 0)), "expected .npy version 1, 2 or 3, got 4"),
}
ONE_VECTOR = struct.pack("<i2f", 2, 1, 2)
REFUSED_VECS = {
    "empty": ("fvecs", b"", "truncated: expected at least one vector, got 0 bytes"),
    "half a header": ("fvecs", b"\2\0", "truncated: expected at least one vector, got 2 bytes"),
    "truncated": ("fvecs", ONE_VECTOR * 3 + ONE_VECTOR[:-1], "truncated: 47 bytes"),
    "truncated bytes": ("bvecs", struct.pack("<i2B", 2, 1, 2)[:-1], "truncated: 5 bytes"),
    "no dimension": ("fvecs", struct.pack("<i", 0), "expected a dimension from 1 to 65536"),
    "negative": ("fvecs", struct.pack("<i", -1), "in the first 4 bytes, got -1"),
    "other lengths": (
        *("fvecs", struct.pack("<i2f", 2, 1, 2) + struct.pack("<i2f", 3, 1, 2)),
        "expected vectors of one dimension, got 2 and, at row 1, 3",
    ),
    "ids as rows": ("ivecs", struct.pack("<3i", 2, 1, 2), "got int32"),
}


@pytest.mark.parametrize("content", ODD_BUT_GOOD.values(), ids=ODD_BUT_GOOD)
def test_odd_headers_that_are_right(bench, tmp_path, content):
    path = tmp_path / "odd.npy"
    path.write_bytes(content)
    np.testing.assert_array_equal(np.load(path), np.arange(6).reshape(3, 2))
    np.save(tmp_path / "truth.npy", np.arange(3)[:, None])
    # each row finds itself
    _, records = bench(
        *("exact", "--base", path, "--queries", path, "--truth", tmp_path / "truth.npy", "--k", 1)
    )
    assert {record["recall"] for record in of_kind(records, "exact")} == {1.0}
    assert {(r["rows"], r["dim"]) for r in of_kind(records, "exact")} == {(3, 2)}


@pytest.mark.parametrize(("content", "message"), REFUSED_NPY.values(), ids=REFUSED_NPY)
def test_refused_npy(refusal, tmp_path, content, message):
    path = tmp_path / "bad.npy"
    path.write_bytes(content)
    said = refusal("build", "--base", path)
    assert message in said
    assert f"--base {path}: " in said


@pytest.mark.parametrize(("kind", "content", "message"), REFUSED_VECS.values(), ids=REFUSED_VECS)
def test_refused_vecs(refusal, tmp_path, kind, content, message):
    path = tmp_path / f"bad.{kind}"
    path.write_bytes(content)
    assert message in refusal("build", "--base", path)


def test_every_cut_of_a_file_is_refused(refusal, tmp_path):
    path = tmp_path / "cut.npy"
    whole = npy(GOOD, SIX)
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        refusal("build", "--base", path)


def test_no_spoilt_header_crashes(program, tmp_path):
    path = tmp_path / "spoilt.npy"
    whole = bytearray(npy(GOOD, SIX))
    draw = np.random.default_rng(7)
    for _ in range(200):
        spoilt = whole.copy()
        for place in draw.integers(0, len(whole) - len(SIX), size=draw.integers(1, 4)):
            spoilt[place] = draw.integers(32, 128)
        path.write_bytes(spoilt)
        done = call(program, "build", "--base", path)
        assert done.returncode in (0, 2), (bytes(spoilt), done.stderr)


@pytest.mark.parametrize("kind", ["fvecs", "bvecs"])
def test_vecs_read_like_npy(bench, tmp_path, kind):
    dtype = np.dtype("<f4" if kind == "fvecs" else "u1")
    base, queries = tmp_path / f"base.{kind}", tmp_path / f"query.{kind}"
    truth = tmp_path / "truth.ivecs"
    write_vecs(base, np.load(BASE).astype(dtype))
    write_vecs(queries, np.load(QUERIES).astype(dtype))
    write_vecs(truth, np.load(TRUTH).astype("<i4"))
    common = ("--dtype", "float32", "--rounds", 1)
    _, expected = bench("build", "--base", BASE, "--queries", QUERIES, "--truth", TRUTH, *common)
    _, records = bench("build", "--base", base, "--queries", queries, "--truth", truth, *common)
    assert recalls(records) == recalls(expected)
    for name in ("distances_per_query", "hops_per_query"):
        assert [r[name] for r in of_kind(records, "search", mode="one")] == [
            r[name] for r in of_kind(expected, "search", mode="one")
        ]


# ---- types


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16", "uint8"])
@pytest.mark.parametrize("given", ["u1", "<f2", "<f4", "<f8", "<i8", "<u2"])
def test_whole_numbers_in_every_type(bench, tmp_path, given, stored):
    # 0..255 are exact in each of these types, uint16 as the bits of bfloat16 apart
    rows = np.load(BASE)[:500]
    values = rows.astype(given)
    if (given, stored) == ("<u2", "bfloat16"):
        values = (rows.astype("<f4").view("<u4") >> 16).astype("<u2")
    np.save(tmp_path / "base.npy", values)
    truth = vicinal.exact_search(rows, np.load(QUERIES), 10).ids
    np.save(tmp_path / "truth.npy", truth)
    printed, records = bench(
        *("exact", "--base", tmp_path / "base.npy", "--queries", QUERIES, "--rounds", 1),
        *("--truth", tmp_path / "truth.npy", "--dtype", stored),
    )
    assert f"500 x 128 {stored}, l2" in printed
    assert {record["recall"] for record in of_kind(records, "exact")} == {1.0}


@pytest.mark.parametrize(
    ("value", "stored", "message"),
    [
        (1.5, "uint8", "expected whole numbers from 0 to 255 for uint8, got 1.5 at row 7"),
        (-1, "uint8", "expected whole numbers from 0 to 255 for uint8, got -1.0 at row 7"),
        (256, "uint8", "expected whole numbers from 0 to 255 for uint8, got 256.0 at row 7"),
        (128, "int8", "expected whole numbers from -128 to 127 for int8, got 128.0 at row 7"),
        (np.nan, "int8", "for int8, got nan at row 7"),
        (np.nan, "float32", "row 7 holds NaN or infinity"),
        (np.inf, "float16", "row 7 holds NaN or infinity"),
        (1e30, "float32", "row 7 is too long"),
    ],
)
def test_values_that_do_not_fit(refusal, tmp_path, value, stored, message):
    rows = np.zeros((20, 4), dtype=np.float32)
    rows[7, 2] = value
    np.save(tmp_path / "base.npy", rows)
    np.save(tmp_path / "good.npy", rows[:1])
    arguments = ("--base", tmp_path / "base.npy", "--dtype", stored)
    assert message in refusal("build", *arguments)
    assert message in refusal("exact", *arguments, "--queries", tmp_path / "good.npy")


def test_queries_that_do_not_fit(refusal, tmp_path):
    rows = np.ones((20, 4), dtype=np.float32)
    np.save(tmp_path / "base.npy", rows)
    rows[3, 1] = np.nan
    np.save(tmp_path / "nan.npy", rows)
    np.save(tmp_path / "zero.npy", np.zeros((2, 4), dtype=np.float32))
    np.save(tmp_path / "narrow.npy", rows[:, :3])
    for command in ("build", "exact"):
        common = (command, "--base", tmp_path / "base.npy", "--queries")
        assert "row 3 holds NaN" in refusal(*common, tmp_path / "nan.npy")
        said = refusal(*common, tmp_path / "zero.npy", "--metric", "cosine")
        assert "row 0 is zero, which has no cosine" in said
        assert "expected dimension 4, got 3" in refusal(*common, tmp_path / "narrow.npy")


# ---- the command line


def test_help(program):
    done = call(program, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: bench-native COMMAND")


SEARCH = ("--base", BASE, "--queries", QUERIES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected a command"),
        (("train",), "expected a command or a folder, got 'train'"),
        (("build",), "--base: expected, but not given"),
        (("build", "--base"), "--base: expected a value behind it, got none"),
        (("build", "--base", "--seed", 1), "--base: expected a value behind it, got none"),
        (("build", "--base", BASE, "--base", BASE), "--base: expected once, got twice"),
        (("build", "--base", BASE, "--ef_search", 3), "--ef_search: unknown; build takes --"),
        (("build", "base", BASE), "base: unknown; build takes --"),
        (("search", "--open", BASE, "--M", 3), "--M: unknown; search takes --"),
        (("build", "--base", BASE, "--truth", TRUTH), "--truth: expected together with --queries"),
        (("build", "--base", "missing.npy"), "--base missing.npy: No such file or directory"),
        (("build", "--base", SIFT), "Is a directory"),
        (("build", "--base", SIFT / "manifest.json"), "expected a name that ends in .npy"),
        (("build", "--base", BASE, "--metric", "L2"), "expected one of l2, ip, cosine, got 'L2'"),
        (("build", "--base", BASE, "--metric", "l2,ip"), "--metric: expected one of"),
        (
            ("build", "--base", BASE, "--M", 1),
            "--M: expected a whole number from 2 to 128, got '1'",
        ),
        (("build", "--base", BASE, "--M", "x"), "--M: expected a whole number"),
        (("build", "--base", BASE, "--seed", "-1"), "--seed: expected a whole number"),
        (("build", "--base", BASE, "--threads", 0), "--threads: expected a whole number from 1"),
        (("build", "--base", BASE, "--build-threads", "2,0"), "--build-threads: expected a whole"),
        (("build", *SEARCH, "--k", 5001), "--k: expected a whole number from 1 to 5000"),
        (("build", *SEARCH, "--k", 0), "--k: expected a whole number from 1 to 5000"),
        (("build", *SEARCH, "--ef", "16,,32"), "--ef: expected a whole number from 1"),
        (("build", *SEARCH, "--ef", "0"), "--ef: expected a whole number from 1"),
        (("build", *SEARCH, "--truth", QUERIES, "--k", 200), "with 200 neighbours each"),
        (("build", *SEARCH, "--truth", SIFT / "gt_dists.npy"), "expected integers, got float32"),
        (("build", *SEARCH, "--truth", MINILM / "base.npy"), "expected integers, got float16"),
        (("build", "--base", BASE, "--quantization", "sq8"), "expected a float type for sq8"),
        (("search", "--open", BASE, "--queries", QUERIES), "expected a saved index, but"),
        (("search", "--open", "missing.vic", "--queries", QUERIES), "--open missing.vic: No such"),
        (("build", "--base", BASE, "--save", SIFT), "Is a directory"),
        (("kernels", "--dim", 65537), "--dim: expected a whole number from 1 to 65536"),
        (("kernels", "--dtype", "float64"), "--dtype: expected one of float32, float16"),
        (("kernels", "--json", SIFT), "--json"),
        ((ROOT / "docs",), "expected base.npy and queries.npy"),
    ],
)
def test_refused_command_lines(refusal, arguments, message):
    assert message in refusal(*arguments)


def test_truth_of_other_vectors(refusal, tmp_path):
    np.save(tmp_path / "truth.npy", np.load(TRUTH) + 4990)
    message = "the truth belongs to other vectors"
    assert message in refusal("exact", *SEARCH, "--truth", tmp_path / "truth.npy")
    assert message in refusal("build", *SEARCH, "--truth", tmp_path / "truth.npy")


@pytest.mark.parametrize(
    ("manifest", "said"),
    [('{"metric": "hamming"}', "hamming"), ('{"metric": 3}', ""), ('"metric"', "")],
)
def test_a_manifest_without_a_metric(refusal, tmp_path, manifest, said):
    (tmp_path / "manifest.json").write_text(manifest)
    message = refusal(tmp_path)
    assert "expected a metric that begins with one of l2, " in message
    assert message.endswith(f"got '{said}'\n")


def test_damaged_index_files(refusal, bench, tmp_path):
    path = tmp_path / "index.vic"
    bench("build", "--base", BASE, "--save", path)
    whole = path.read_bytes()
    common = ("search", "--open", path, "--queries", QUERIES)
    path.write_bytes(whole[:-1])
    assert f"damaged: the file has {len(whole) - 1} bytes" in refusal(*common)
    path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    assert "damaged: the header does not fit its checksum" in refusal(*common)
    path.write_bytes(b"")
    assert "expected a saved index, got an empty file" in refusal(*common)
    vicinal.Index(128).save(path)
    assert "expected an index with rows, got an empty one" in refusal(*common)


def test_no_python_in_the_program(program):
    content = program.read_bytes()
    assert b"libpython" not in content
    assert b"PyObject" not in content
