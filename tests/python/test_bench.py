"""The benchmark programs: readers, statistics, tables, and one small run from end to end."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
sys.path.insert(0, str(BENCH))

import ablations  # noqa: E402  (the bench folder is no package)
import adapters  # noqa: E402
import curves  # noqa: E402
import datasets  # noqa: E402
import summary  # noqa: E402
import variants  # noqa: E402

SMALL_SETS = {
    "sift-ngt-5k": ((5000, 128), 100, "l2", np.uint8),
    "minilm-4k": ((4000, 384), 200, "cosine", np.float32),
    "fashion-mnist-3k": ((3000, 784), 200, "l2", np.uint8),
}


def write_vecs(path, array):
    """Write fvecs, ivecs or bvecs the way the format is described: each row after its length."""
    with path.open("wb") as file:
        for row in array:
            file.write(np.int32(len(row)).tobytes() + row.tobytes())


@pytest.fixture
def vectors():
    rng = np.random.default_rng(5)
    return rng.standard_normal((400, 16), dtype=np.float32), rng.standard_normal(
        (30, 16), dtype=np.float32
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vicinal-bench"


@pytest.mark.parametrize("name", SMALL_SETS)
def test_small_sets_are_as_described(name, monkeypatch):
    monkeypatch.delenv("VICINAL_DATA", raising=False)
    shape, queries, metric, dtype = SMALL_SETS[name]
    base, asked, truth, said = datasets.load(name)
    assert base.shape == shape and base.dtype == dtype and base.flags.c_contiguous
    assert asked.shape == (queries, shape[1]) and asked.dtype == dtype
    assert truth.shape == (queries, 100) and truth.dtype == np.int64
    assert said == metric
    some = slice(0, 10)
    np.testing.assert_array_equal(
        datasets.exact_neighbours(base, asked[some], metric, 100), truth[some]
    )


def test_small_sets_stay_small():
    size = sum(path.stat().st_size for path in datasets.SMALL_SETS.rglob("*") if path.is_file())
    assert size < 10_000_000


@pytest.mark.parametrize(
    ("ending", "dtype"), [("fvecs", np.float32), ("ivecs", np.int32), ("bvecs", np.uint8)]
)
def test_vecs_round_trip(tmp_path, ending, dtype):
    array = np.random.default_rng(1).integers(0, 200, (7, 5)).astype(dtype)
    path = tmp_path / f"a.{ending}"
    write_vecs(path, array)
    found = datasets.read_vecs(path)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("damage", ["cut", "empty", "dimension", "zero"])
def test_damaged_vecs_are_refused(tmp_path, damage):
    path = tmp_path / "a.fvecs"
    write_vecs(path, np.ones((3, 4), dtype=np.float32))
    raw = bytearray(path.read_bytes())
    if damage == "cut":
        raw = raw[:-1]
    elif damage == "empty":
        raw = bytearray()
    else:
        raw[20:24] = np.int32(5).tobytes()
        raw[:4] = np.int32(0 if damage == "zero" else 4).tobytes()
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"a\.fvecs"):
        datasets.read_vecs(path)


def test_folder_of_fvecs(tmp_path, cache, vectors):
    base, queries = vectors
    truth = datasets.exact_neighbours(base, queries, "l2", 100)
    write_vecs(tmp_path / "toy_base.fvecs", base)
    write_vecs(tmp_path / "toy_query.fvecs", queries)
    write_vecs(tmp_path / "toy_groundtruth.ivecs", truth.astype(np.int32))
    for given in (tmp_path, tmp_path / "toy_base.fvecs"):
        found = datasets.load(given)
        np.testing.assert_array_equal(found.base, base)
        np.testing.assert_array_equal(found.queries, queries)
        np.testing.assert_array_equal(found.truth, truth)
        assert found.metric == "l2"
    assert not cache.exists()


def test_missing_truth_is_computed_once(tmp_path, cache, vectors, monkeypatch):
    base, queries = vectors
    np.save(tmp_path / "base.npy", base.astype(np.float64))
    np.save(tmp_path / "queries.npy", queries)
    first = datasets.load(tmp_path, metric="cosine")
    assert first.metric == "cosine" and first.base.dtype == np.float32
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(datasets, "exact_neighbours", None)
    np.testing.assert_array_equal(datasets.load(tmp_path, metric="cosine").truth, first.truth)


def test_stored_truth_of_another_metric_is_not_used(tmp_path, cache, vectors):
    base, queries = vectors
    np.save(tmp_path / "base.npy", base)
    np.save(tmp_path / "queries.npy", queries)
    np.save(tmp_path / "gt_ids.npy", datasets.exact_neighbours(base, queries, "l2", 100))
    (tmp_path / "manifest.json").write_text('{"metric": "euclidean (L2)"}')
    by_length = datasets.load(tmp_path, metric="ip").truth
    np.testing.assert_array_equal(by_length[:, 0], (queries @ base.T).argmax(axis=1))


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_exact_neighbours_against_the_definition(vectors, metric):
    base, queries = vectors
    base = np.concatenate([base, base[:50]])  # ties, which go by row number
    found = datasets.exact_neighbours(base, queries, metric, 20)
    for query, ids in zip(queries, found, strict=True):
        distances = datasets.exact_distances(base, query, metric)
        np.testing.assert_array_equal(ids, np.argsort(distances, kind="stable")[:20])


def test_hdf5_of_ann_benchmarks(tmp_path, vectors):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    base, queries = vectors
    truth = datasets.exact_neighbours(base, queries, "cosine", 100)
    with h5py.File(tmp_path / "toy.hdf5", "w") as file:
        file.update({"train": base, "test": queries, "neighbors": truth.astype(np.int32)})
        file.attrs["distance"] = "angular"
    found = datasets.load(tmp_path / "toy.hdf5")
    np.testing.assert_array_equal(found.base, base)
    np.testing.assert_array_equal(found.truth, truth)
    assert found.metric == "cosine"


def test_names_are_looked_up_in_order(tmp_path, monkeypatch):
    for name in ("sift-ngt-5k", "toy-one", "toy-two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    monkeypatch.setenv("VICINAL_DATA", str(tmp_path))
    assert datasets.find("sift-ngt-5k") == tmp_path / "sift-ngt-5k"
    assert datasets.find("toy-t") == tmp_path / "toy-two"
    assert datasets.find("minilm-4k") == datasets.SMALL_SETS / "minilm-4k"
    for missing in ("toy", "nothing"):
        with pytest.raises(FileNotFoundError, match=missing):
            datasets.find(missing)


def test_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="hamming"):
        datasets.metric_name("hamming")


def test_recall_counts_ties_and_nothing_twice():
    base = np.array([[0.0], [1.0], [-1.0], [3.0]], dtype=np.float32)
    data = datasets.DataSet(base, np.zeros((1, 1), np.float32), np.array([[0, 1, 2, 3]]), "l2")

    def recall(*ids):
        return datasets.recall_at_k(np.array([ids]), data, 2)

    assert recall(0, 1) == 1.0
    assert recall(0, 2) == 1.0  # as near as row 1
    assert recall(0, 3) == 0.5
    assert recall(0, 0) == 0.5
    assert recall(0, -1) == 0.5
    assert recall(-1, 99) == 0.0


def test_stats():
    found = curves.stats([4.0, 1.0, 2.0])
    assert found == {"median": 2.0, "min": 1.0, "max": 4.0, "spread": 1.5, "values": [4, 1, 2]}


def test_speed_at_a_recall():
    points = [(0.9, 1000.0), (0.99, 100.0), (1.0, 10.0)]
    assert curves.qps_at(points, 0.99) == (100.0, False)
    between = curves.qps_at(points, 0.945)
    assert between.qps == pytest.approx(1000**0.5 * 100**0.5) and not between.at_least
    assert curves.qps_at(points, 0.5) == (1000.0, True)
    assert curves.qps_at(points, 0.9) == (1000.0, False)
    assert curves.qps_at(points[:2], 0.995) is None
    assert curves.qps_at([], 0.9) is None


def test_a_point_worse_in_both_is_left_out():
    points = [(0.90, 50.0), (0.95, 80.0), (0.99, 20.0)]
    assert curves.qps_at(points, 0.90) == (80.0, True)
    assert curves.qps_at(points, 0.95) == (80.0, False)


def test_ratio_to_a_bound_says_nothing():
    level = curves.Level
    assert curves.ratio(level(300.0), level(100.0)) == 3.0
    assert curves.ratio(level(300.0, at_least=True), level(100.0)) == 3.0
    assert curves.ratio(level(300.0), level(100.0, at_least=True)) is None
    assert curves.ratio(None, level(100.0)) is None


def test_names_of_indexes_carry_options():
    adapter, options = adapters.parse("vicinal:dtype=float16:exact_below=0:quantization=None")
    assert adapter is adapters.ADAPTERS["vicinal"]
    assert options == {"dtype": "float16", "exact_below": 0, "quantization": None}
    with pytest.raises(ValueError, match="flann"):
        adapters.parse("flann")


def some_records():
    common = {"data": "toy", "rows": 1000, "dim": 8, "metric": "l2", "M": 16}
    common |= {"ef_construction": 200, "seed": 1}

    def of(kind, index, **fields):
        return {"kind": kind, "index": index, **common, **fields}

    records = [
        {"kind": "run", "cpu": "A CPU", "cores": 2, "date": "2026-01-02T03:04:05+00:00"}
        | {"versions": {"vicinal": "1.0", "hnswlib": "0.8"}}
    ]
    for index, speed in (("vicinal", 300.0), ("hnswlib", 100.0)):
        seconds = curves.stats([2.0, 4.0])
        records += [
            of("build", index, threads=1, seconds=seconds, vectors_per_second=333.0)
            | {"peak_bytes": 2_000_000},
            of("file", index, bytes=1_500_000, open_ms=curves.stats([0.5])),
            of("call", index, call_us=curves.stats([2.5])),
        ]
        for ef, recall in ((16, 0.9), (64, 0.99)):
            qps = curves.stats([speed * 16 / ef])
            latency = dict.fromkeys(("p1", "p25", "p50", "p75", "p95", "p99", "p99.9"), 10.0)
            records.append(
                of("search", index, mode="one", threads=1, ef=ef, k=10, recall=recall, qps=qps)
                | {"latency_us": latency}
            )
    return records


def test_summary_table():
    text = summary.tables(some_records())
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[0].startswith("| index | QPS at recall 0.9 |")
    assert "| vicinal | 300 (3.00x) |" in rows[1]
    assert "75 (3.00x) | - | 333/s | 2.0 MB | 1.5 MB | 0.50 ms | 2.5 us |" in rows[1]
    assert "| hnswlib | 100 |" in rows[2]
    assert "vicinal 1.0, hnswlib 0.8" in text and "A CPU" in text


def test_summary_keeps_the_documents_in_step(tmp_path, monkeypatch):
    pages = {name: tmp_path / f"{name}.md" for name in summary.DOCUMENTS}
    monkeypatch.setattr(summary, "ROOT", tmp_path)
    monkeypatch.setattr(summary, "DOCUMENTS", pages)
    results = tmp_path / "run.jsonl"
    results.write_text("\n".join(json.dumps(record) for record in some_records()))
    for name, page in pages.items():
        marked = f"{summary.begin(name)}run.jsonl -->\nold\n{summary.end(name)}"
        page.write_text(f"before\n{marked}\nafter\n")
    with pytest.raises(SystemExit, match=r"benchmark\.md: not in step"):
        summary.main(["--check"])
    summary.main([str(results), "--write"])
    summary.main(["--check"])
    text = pages["benchmark"].read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "300 (3.00x)" in text
    line = "| toy, 1,000 x 8, l2 | 75 | 25 (hnswlib) | 3.0 times |"
    assert line in pages["headline"].read_text().splitlines()
    pages["headline"].write_text("nothing")
    with pytest.raises(SystemExit, match=r"headline\.md: no block"):
        summary.main(["--check"])


def test_a_headline_needs_a_recall_that_was_measured():
    with pytest.raises(ValueError, match="is not between measured widths"):
        summary.headline([record for record in some_records() if record.get("ef") != 64])


def test_the_documents_are_in_step():
    summary.main(["--check"])


def test_pictures(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    import plots

    written = plots.draw(some_records(), tmp_path, "run")
    assert [path.name for path in written] == [
        "run-toy-recall-qps.png",
        "run-toy-build.png",
        "run-toy-ef.png",
        "run-toy-latency.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_a_small_run(tmp_path, vectors):
    """Two or three indexes on 400 rows: every kind of record, and the recall they must have."""
    base, queries = vectors
    folder = tmp_path / "toy"
    folder.mkdir()
    np.save(folder / "base.npy", base)
    np.save(folder / "queries.npy", queries)
    np.save(folder / "gt_ids.npy", datasets.exact_neighbours(base, queries, "l2", 100))
    indexes = ["vicinal", "numpy"]
    try:
        importlib.metadata.version("hnswlib")
        indexes.append("hnswlib")
    except importlib.metadata.PackageNotFoundError:
        pass
    out = tmp_path / "out.jsonl"
    command = [sys.executable, str(BENCH / "recall_qps.py"), "--data", str(folder)]
    command += ["--indexes", ",".join(indexes), "--ef", "16,64", "--threads", "1,2"]
    command += ["--rounds", "2", "--seconds", "0.01", "--retries", "0", "--out", str(out)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    records = curves.read([out])
    assert records[0]["kind"] == "run"
    assert set(records[0]["versions"]) == set(indexes)
    for kind, per_index in (("build", 2), ("file", 1), ("call", 1)):
        found = curves.select(records, kind)
        assert sorted(r["index"] for r in found) == sorted(indexes * per_index), ran.stderr
    for index in indexes:
        for mode in ("one", "batch"):
            for threads in (1, 2):
                points = curves.sweep(records, "toy", index, mode, threads)
                assert [p["ef"] for p in points] == ([16] if index == "numpy" else [16, 64])
                assert points[-1]["recall"] >= (0.99 if index == "hnswlib" else 1.0)
                assert all(p["qps"]["min"] > 0 for p in points)
                assert ("latency_us" in points[0]) == (mode == "one" and threads == 1)
    assert all(r["bytes"] > base.nbytes for r in curves.select(records, "file"))
    assert "**toy**: 400 x 16, l2" in ran.stdout


def test_exact_search_beside_numpy(tmp_path, vectors):
    base, queries = vectors
    np.save(tmp_path / "base.npy", base)
    np.save(tmp_path / "queries.npy", queries)
    np.save(tmp_path / "gt_ids.npy", datasets.exact_neighbours(base, queries, "l2", 100))
    out = tmp_path / "out.jsonl"
    command = [sys.executable, str(BENCH / "exact_vs_numpy.py"), "--data", str(tmp_path)]
    command += ["--threads", "1", "--rounds", "2", "--out", str(out)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 0, ran.stderr
    (record,) = curves.select(curves.read([out]), "exact")
    assert record["wrong"] == 0 and len(record["times_numpy"]["values"]) == 2


def test_an_index_that_is_not_installed_is_named(tmp_path):
    missing = next((n for n in adapters.ADAPTERS if adapters.version(n) is None), None)
    if missing is None:
        pytest.skip("every index that the benchmark knows is installed")
    command = [sys.executable, str(BENCH / "recall_qps.py"), "--indexes", missing]
    command += ["--out", str(tmp_path / "out.jsonl")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 1 and f"{missing}: not installed" in ran.stderr


def test_filters_beside_others(tmp_path: Path) -> None:
    out = tmp_path / "filters.jsonl"
    options = ["--indexes", "vicinal", "--queries", "5", "--rounds", "1", "--out", str(out)]
    command = [sys.executable, str(BENCH / "filters.py"), "--data", "minilm-4k", *options]
    environment = {**os.environ, "VICINAL_DATA": str(BENCH.parent / "tests" / "data")}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, timeout=120)
    run, plain, *filtered = [json.loads(line) for line in out.read_text().splitlines()]
    assert run["kind"] == "run" and plain["kind"] == "unfiltered"
    assert len(filtered) == 2 * 3 * 6  # the scan and the index, kinds, shares
    assert all(record["filled"] == 1 and record["us"]["median"] > 0 for record in filtered)
    assert all(record["recall"] >= 0.9 for record in filtered)


def test_large_k(tmp_path: Path) -> None:
    out = tmp_path / "large.jsonl"
    options = ["--indexes", "vicinal,vicinal-None", "--k", "10,300", "--rounds", "1"]
    command = [sys.executable, str(BENCH / "large_k.py"), "--sets", "minilm-4k", *options]
    command += ["--queries", "40", "--out", str(out)]
    environment = {**os.environ, "VICINAL_DATA": str(BENCH.parent / "tests" / "data")}
    subprocess.run(command, check=True, env=environment, timeout=120)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    asked = [(line["index"], line["k"], line["ef_search"]) for line in lines]
    assert asked == [(n, k, max(64, k)) for k in (10, 300) for n in ("vicinal", "vicinal-None")]
    assert all(0.95 < line["recall"] <= 1 and line["qps"] > 0 for line in lines)


@pytest.mark.parametrize("change", variants.CHANGES, ids=lambda change: change.name)
def test_ablations_fit_the_sources(tmp_path, change):
    source = change.source(tmp_path)
    tree = variants.native_build.SOURCE.parent.parent
    copy = source.parent.parent
    assert source.is_file() and copy == tmp_path / "mojo"
    paths = [path.relative_to(tree) for path in tree.rglob("*.mojo")]
    differ = {path for path in paths if (copy / path).read_bytes() != (tree / path).read_bytes()}
    wanted = {"vicinal/kernels/in_space.mojo", change.file} - {""}
    assert {path.as_posix() for path in differ} == wanted


def test_an_ablation_that_fits_no_source_is_refused(tmp_path):
    (good, *_) = (change for change in variants.CHANGES if change.file)
    for text in ("no such text", "import"):  # none, and more than one
        with pytest.raises(ValueError, match=r"expected .* once in"):
            good._replace(old=text).source(tmp_path)


def test_a_table_of_ablations():
    made = [r | {"index": variants.WHOLE} for r in some_records() if r.get("index") == "vicinal"]
    made += [r for r in some_records() if r.get("index") == "hnswlib"]
    text = ablations.table(made, "toy")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[1].startswith("| as-it-is | 139 | 75 | - |") and rows[1].endswith("| 333/s |")
    assert rows[2].startswith("| hnswlib | 0.33x | 0.33x | - |") and rows[2].endswith("| 1.00x |")


def test_first_rows_have_neighbours_of_their_own(cache, vectors):
    base, queries = vectors
    whole = datasets.DataSet(
        base, queries, datasets.exact_neighbours(base, queries, "l2", 100), "l2"
    )
    part = datasets.first_rows(whole, 150)
    assert len(part.base) == 150 and datasets.first_rows(whole, 400) is whole
    np.testing.assert_array_equal(
        part.truth, datasets.exact_neighbours(base[:150], queries, "l2", 100)
    )
    for wrong in (0, 401):
        with pytest.raises(ValueError, match="rows: expected 1 to 400"):
            datasets.first_rows(whole, wrong)


def test_table_of_growth():
    rows = [line.split(" | ") for line in summary.growth(some_records()).splitlines()]
    heads = ["vicinal, 1 thread", "vicinal, recall", "hnswlib, 1 thread", "hnswlib, recall |"]
    assert rows[0] == ["| vectors/s built", *heads]
    assert rows[2] == ["| toy", "333", "0.9900 (ef 64)", "333", "0.9900 (ef 64) |"]


@pytest.mark.parametrize(
    ("program", "wanted"),
    [
        ("read_files.py --formats fbin,npy --gigabytes 0.0005 --build", "rows_per_second"),
        ("knn_graph.py {data} --rows 1500 --libraries vicinal", "recall"),
        ("collection_kills.py --kills 1", "lost"),
    ],
)
def test_programs_for_one_library_run(program, wanted):
    name, *arguments = program.format(data=ROOT / "tests/data/sift-ngt-5k").split()
    done = subprocess.run(
        [sys.executable, str(BENCH / name), *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines and all(wanted in line for line in lines)
