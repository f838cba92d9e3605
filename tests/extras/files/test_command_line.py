"""The command `vicinal`: results, exit codes, and files that are whole or as they were."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result

import vicinal
from vicinal.cli._commands import commands

DATA = np.random.default_rng(0).normal(size=(1500, 16)).astype("f4")
QUERIES = DATA[:20] + np.float32(0.01)
COMMAND = [sys.executable, "-m", "vicinal"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", DATA)
    np.save("q.npy", QUERIES)
    index = vicinal.Index(16)
    index.add(DATA)
    index.save("x.v")
    return tmp_path


def run(*arguments: str, code: int = 0, **more: Any) -> Result:
    result = CliRunner().invoke(commands, list(arguments), **more)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def told(*arguments: str, **more: Any) -> Any:
    return json.loads(run(*arguments, "--json", **more).stdout)


def test_from_a_file_to_neighbours() -> None:
    assert told("build", "x.npy", "-o", "y.v", "--metric", "l2")["rows"] == 1500
    assert Path("y.v").read_bytes() == Path("x.v").read_bytes()
    info = told("info", "y.v")
    assert (info["rows"], info["dim"], info["metric"], info["search"]) == (1500, 16, "l2", "graph")
    assert info["file_bytes"] == os.stat("y.v").st_size
    assert info["resident_bytes"]["all"] == info["file_bytes"] > info["resident_bytes"]["walk"]
    assert info["resident_bytes"]["walk_reads_for"] == "every hop"  # of 16 dimensions
    assert told("verify", "y.v") == {"file": "y.v", "ok": True, "rows": 1500, "problem": None}
    run("search", "y.v", "--queries", "q.npy", "-k", "10", "-o", "ids.npy", "--distances", "d.npy")
    found = vicinal.open("y.v").search(QUERIES, 10)
    assert np.array_equal(np.load("ids.npy"), found.ids)
    assert np.array_equal(np.load("d.npy"), found.distances)
    assert np.load("ids.npy").dtype == np.int64


@pytest.mark.parametrize("kind", ["npz", "parquet", "jsonl"])
def test_results_in_other_files(kind: str) -> None:
    run("search", "x.v", "--queries", "q.npy", "-k", "4", "-o", f"found.{kind}")
    ids = vicinal.open("x.v").search(QUERIES, 4).ids
    if kind == "npz":
        assert np.array_equal(np.load("found.npz")["ids"], ids)
    elif kind == "jsonl":
        lines = [json.loads(line) for line in Path("found.jsonl").read_text().splitlines()]
        assert [line["ids"] for line in lines] == ids.tolist()
    else:
        import pyarrow.parquet

        assert pyarrow.parquet.read_table("found.parquet")["id"].to_pylist() == ids.ravel().tolist()
    run("search", "x.v", "--queries", "q.npy", "-o", "found.txt", code=2)


def test_results_on_stdout_are_results_only() -> None:
    result = run("search", "x.v", "--queries", "q.npy", "-k", "3")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    ids = vicinal.open("x.v").search(QUERIES, 3).ids
    assert [int(row[1]) for row in rows] == ids.ravel().tolist()
    lines = run("search", "x.v", "--queries", "q.npy", "-k", "3", "--json").stdout.splitlines()
    assert [json.loads(line)["ids"] for line in lines] == ids.tolist()
    for text in (json.dumps(DATA[7].tolist()), " ".join(map(str, DATA[7].tolist()))):
        one = told("search", "x.v", "--vector", "-", "-k", "1", input=text)
        assert one["ids"] == [7]
    np.save("some.npy", np.array([40, 41]))
    one = told("search", "x.v", "--vector", text, "-k", "5", "--filter-ids", "some.npy")
    assert sorted(one["ids"]) == [40, 41]
    run("search", "x.v", code=2)
    run("search", "x.v", "--vector", "a b", code=2)
    assert "expected" in run("search", "x.v", "--vector", "1 2", code=2).stderr


def test_changing_in_place() -> None:
    assert told("remove", "x.v", "3", "4")["removed"] == 2
    assert told("remove", "x.v", "--ids-file", "-", input="5\n6\n")["rows"] == 1496
    assert "7000 is not in the index" in run("remove", "x.v", "8", "7000", code=2).stderr
    assert told("remove", "x.v", "7000", "--missing", "ignore")["removed"] == 0
    run("remove", "x.v", "nonsense", code=2)
    run("remove", "x.v", code=2)
    assert told("add", "x.v", "q.npy")["added"] == 20
    assert told("compact", "x.v", "-o", "small.v")["rows"] == 1516
    assert len(vicinal.open("x.v")) == len(vicinal.open("small.v")) == 1516
    assert told("tune", "x.v", "--recall", "0.9", "-k", "5")["measured"]["recall"] >= 0.9
    assert told("info", "x.v")["tuned"][0]["k"] == 5
    run("search", "x.v", "--queries", "q.npy", "-k", "5", "--recall", "0.9")
    run("search", "x.v", "--queries", "q.npy", "-k", "5", "--recall", "0.99", code=2)


def test_a_refused_row_leaves_the_index_alone() -> None:
    before = Path("x.v").read_bytes()
    bad = QUERIES.copy()
    bad[17, 3] = np.nan
    np.save("bad.npy", bad)
    assert "bad.npy: row 17 holds NaN" in run("add", "x.v", "bad.npy", code=3).stderr
    run("build", "bad.npy", "-o", "y.v", code=3)
    assert Path("x.v").read_bytes() == before and not Path("y.v").exists()


def test_nothing_is_overwritten_unasked() -> None:
    before = Path("x.v").read_bytes()
    Path("there.npy").write_bytes(b"mine")
    for arguments in (
        ("build", "q.npy", "-o", "x.v"),
        ("merge", "x.v", "x.v", "-o", "x.v"),
        ("compact", "x.v", "-o", "there.npy"),
        ("export", "x.v", "-o", "there.npy"),
        ("convert", "q.npy", "-o", "there.npy"),
        ("search", "x.v", "--queries", "q.npy", "-o", "there.npy"),
        ("search", "x.v", "--queries", "q.npy", "--distances", "there.npy"),
    ):
        assert "--force" in run(*arguments, code=2).stderr
    assert Path("x.v").read_bytes() == before and Path("there.npy").read_bytes() == b"mine"
    run("build", "q.npy", "-o", "x.v", "--force")
    assert len(vicinal.open("x.v")) == 20


def test_merge_export_convert() -> None:
    run("export", "x.v", "-o", "x.parquet")
    run("export", "x.v", "-o", "x.fbin", "--ids", "ids.npy")
    run("convert", "x.parquet", "-o", "y.v", "--ids", "id")
    run("convert", "x.fbin", "-o", "z.npy")
    assert np.array_equal(np.load("z.npy"), DATA)
    assert Path("y.v").read_bytes() == Path("x.v").read_bytes()
    np.save("more.npy", np.arange(2000, 2020))
    run("build", "q.npy", "-o", "q.v", "--ids", "more.npy")
    assert told("merge", "x.v", "q.v", "-o", "m.v")["rows"] == 1520
    run("merge", "x.v", "y.v", "-o", "n.v", code=2)
    run("merge", "x.v", "-o", "n.v", code=2)
    assert not Path("n.v").exists()


def test_string_ids() -> None:
    np.savez("s.npz", vectors=QUERIES, ids=np.array([f"n{i}" for i in range(20)]))
    run("build", "s.npz", "-o", "s.v", "--ids", "ids")
    assert told("search", "s.v", "--queries", "q.npy", "-k", "1", "-o", "a.npy")["queries"] == 20
    assert np.load("a.npy")[3, 0] == "n3"
    assert told("remove", "s.v", "n3")["rows"] == 19
    assert told("why-not", "s.v", "n4", "--queries", "q.npy", "--number", "4")["fate"] == "found"


def test_an_ann_benchmarks_file_from_build_to_recall() -> None:
    exact = vicinal.exact_search(DATA, QUERIES, 10)
    with h5py.File("set.hdf5", "w") as file:
        file.attrs["distance"] = "euclidean"
        file["train"], file["test"], file["neighbors"] = DATA, QUERIES, exact.ids.astype("i4")
    run("build", "set.hdf5", "-o", "set.v")
    assert told("recall", "set.v", "--queries", "set.hdf5", "--truth", "set.hdf5")["recall"] > 0.95
    asked = ("--queries", "set.hdf5", "--truth", "set.hdf5", "--ef", "10,500")
    rows = told("bench", "set.v", *asked)["results"]
    assert [row["ef_search"] for row in rows] == [10, 500]
    assert rows[1]["recall"] >= rows[0]["recall"] and rows[1]["recall"] > 0.99
    run("bench", "set.v", "--ef", "wide", code=2)


def test_looking_inside() -> None:
    assert told("recall", "x.v", "-k", "5", "--sample", "100")["sample"] == 100
    trace = told("trace", "x.v", "--queries", "q.npy", "-k", "3", "--number", "2")
    assert trace["result"]["ids"][0] == 2 and len(trace["steps"]) > 3
    assert told("why-not", "x.v", "2", "--vector", " ".join(map(str, DATA[2])))["rank"] == 1
    run("trace", "x.v", "--queries", "q.npy", "--number", "20", code=2)
    run("why-not", "x.v", "99999", "--queries", "q.npy", code=2)
    assert told("version")["version"] == vicinal.__version__
    assert "complete" in run("completion", "bash").stdout.lower()


def test_duplicates_and_estimates() -> None:
    index = vicinal.Index(16)
    index.add(np.concatenate([DATA[:20], DATA[3:5]]))
    index.save("twice.v")
    found = told("duplicates", "twice.v", "--radius", "0")
    assert found["groups"] == [[3, 20], [4, 21]] and found["share_found"] == 1
    shown = run("duplicates", "twice.v", "--radius", "0", "--exact").stdout.splitlines()
    assert shown[:2] == ["3\t20", "4\t21"]
    wanted = vicinal.estimate(5000, 64, "cosine", "float16")
    assert (
        told("estimate", "5000", "64", "--metric", "cosine", "--dtype", "float16")["bytes"]
        == wanted.bytes
    )
    timed = told("estimate", "300", "4", "--time")
    assert timed["build_seconds"]["low"] <= timed["build_seconds"]["high"]
    run("estimate", "300", "4", "--metric", "near", code=2)


def test_exit_codes_of_bad_files() -> None:
    data = bytearray(Path("x.v").read_bytes())
    data[len(data) // 2] ^= 1
    Path("bad.v").write_bytes(data)
    assert "do not fit their checksum" in run("verify", "bad.v", code=1).stdout
    Path("short.v").write_bytes(data[:9000])
    assert told("verify", "short.v", code=1)["ok"] is False
    run("search", "short.v", "--queries", "q.npy", code=3)
    for file in ("nothing.v", "q.npy", "."):
        run("verify", file, code=3)
        run("info", file, code=3)
    run("build", "nothing.npy", "-o", "y.v", code=3)
    run("build", "x.npy", "-o", "no/y.v", code=3)
    run("build", "x.npy", "-o", "y.v", "--metric", "far", code=2)
    run("build", "x.npy", code=2)
    run("nonsense", code=2)
    assert sorted(p.name for p in Path(".").glob("*.v")) == ["bad.v", "short.v", "x.v"]


def test_defaults_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VICINAL_BUILD_METRIC", "cosine")
    monkeypatch.setenv("VICINAL_THREADS", "1")
    run("build", "x.npy", "-o", "c.v")
    assert vicinal.open("c.v").metric == "cosine"


def test_every_command_has_json_and_help() -> None:
    for name, command in commands.commands.items():
        options = {option for each in command.params for option in each.opts}
        assert "--json" in options or name in ("completion", "mcp", "serve")
        assert command.get_short_help_str()


# ---- processes


def test_ctrl_c_leaves_no_file(folder: Path) -> None:
    rng = np.random.default_rng(0)
    np.save("large.npy", rng.normal(size=(60_000, 128)).astype("f4"))
    before = {each.name for each in folder.iterdir()}
    for arguments in (["build", "large.npy", "-o", "y.v", "--threads", "1"],):
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            # what a shell starts in the background ignores it, and so would this
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert process.stderr is not None
        assert "60000 x 128" in process.stderr.readline()  # it has begun
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        rest = process.communicate()[1]
        assert process.returncode == 130, rest
        assert "interrupted" in rest and "Traceback" not in rest
    assert {each.name for each in folder.iterdir()} == before


def test_a_closed_pipe_is_no_error() -> None:
    for more in ([], ["--json"]):
        process = subprocess.Popen(
            [*COMMAND, "search", "x.v", "--queries", "x.npy", "-k", "100", *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        process.stderr.close()
        assert process.wait() == 141
        assert said == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "x.npy", "-o", "FULL/y.v"],
        ["export", "x.v", "-o", "FULL/y.npy"],
        ["export", "x.v", "-o", "FULL/y.parquet"],
        ["compact", "x.v", "-o", "FULL/y.v"],
    ],
)
def test_a_full_disk_leaves_no_file(folder: Path, arguments: list[str]) -> None:
    """Files that may not grow beyond 32 KiB: what writes finds no room, as on a full disk."""
    disk = folder / "disk"
    disk.mkdir()
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (32768, 32768))\n"
        "from vicinal.cli import main; main(sys.argv[1:])"
    )
    given = [each.replace("FULL", str(disk)) for each in arguments]
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True)
    assert done.returncode == 3, done
    assert "Traceback" not in done.stderr
    assert not list(disk.iterdir())


def test_a_small_disk_that_is_full(folder: Path) -> None:
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)])
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        done = subprocess.run(
            [*COMMAND, "build", "x.npy", "-o", f"{disk}/y.v"], capture_output=True, text=True
        )
        assert done.returncode == 3 and "No space left" in done.stderr
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_report_is_one_page() -> None:
    told_to = ("--queries", "q.npy", "--ef", "10,40", "--sample", "20", "-o", "page.html")
    answer = told("report", "x.v", *told_to)
    assert answer["verdict"] in ("good", "look") and answer["findings"]
    text = Path("page.html").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>") and text.endswith("</html>\n")
    assert [path for path in os.listdir() if "part" in path] == []
    run("report", "x.v", *told_to, code=2)  # it is there
    assert "good: " in run("report", "x.v", *told_to, "--force").stdout
    run("report", "x.v", "-o", "new.html", "--ef", "ten", code=2)
    run("report", "q.npy", "-o", "new.html", code=3)
    run("report", "x.v", "-o", "new.html", "--against", "annoy", code=2)
    assert not os.path.exists("new.html")
