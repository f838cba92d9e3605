"""What is compiled is kept, found again, and never mistaken for something else; see tools/."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import compile_cache
import compiler
import native_build

TOOLS = Path(native_build.__file__).parent


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VICINAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(text):
    def make(folder):
        (folder / "made").write_text(text)

    return make


def fail(folder):
    (folder / "half").write_text("")
    raise compiler.BuildError("does not compile")


def test_an_entry_is_made_once(cache):
    place, made = compile_cache.entry("thing", lambda: "a" * 64, write("first"))
    assert made
    again, made = compile_cache.entry("thing", lambda: "a" * 64, write("second"))
    assert (again, made) == (place, False)
    other, made = compile_cache.entry("thing", lambda: "b" * 64, write("third"))
    assert made
    assert other != place
    assert (place / "made").read_text() == "first"
    assert sorted(cache.iterdir()) == sorted([place, other]), (
        "no lock and nothing half-made is left"
    )


def test_a_failure_leaves_nothing(cache):
    with pytest.raises(compiler.BuildError, match="does not compile"):
        compile_cache.entry("thing", lambda: "a" * 64, fail)
    assert not list(cache.iterdir())
    assert compile_cache.entry("thing", lambda: "a" * 64, write("now"))[1]


def test_sources_that_change_meanwhile_are_noticed(cache):
    keys = iter(["a" * 64, "b" * 64])
    with pytest.raises(compile_cache.Changed, match="thing: the sources changed"):
        compile_cache.entry("thing", lambda: next(keys), write(""))
    assert not list(cache.iterdir())


def test_a_dropped_entry_is_made_again(cache):
    place, _ = compile_cache.entry("thing", lambda: "a" * 64, write("first"))
    compile_cache.drop(place)
    compile_cache.drop(place)
    assert compile_cache.entry("thing", lambda: "a" * 64, write("second"))[1]
    assert (place / "made").read_text() == "second"


def test_old_versions_go(cache):
    for number in range(compile_cache.KEPT + 5):
        compile_cache.entry("thing", lambda n=number: f"{n:032}", write(""))
    compile_cache.entry("else", lambda: "0" * 64, write(""))
    kept = [path.name for path in cache.iterdir()]
    assert len(kept) == compile_cache.KEPT + 1
    assert f"thing-{compile_cache.KEPT + 4:032}" in kept


def test_processes_that_want_the_same_wait_for_the_first(cache, tmp_path):
    # each adds a line to a file when it makes the entry, and waits inside until all have started
    code = f"""
import os, sys, time
sys.path.insert(0, {str(TOOLS)!r})
import compile_cache
def make(folder):
    print("making", flush=True)
    sys.stdin.readline()
    (folder / "made").write_text("")
print("started", flush=True)
compile_cache.entry("thing", lambda: "a" * 64, make)
print("has", flush=True)
"""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    printed = []
    for child in children:
        assert child.stdout.readline() == "started\n"
    for child in children:
        child.stdin.close()
    for child in children:
        with child:
            printed.append(child.stdout.read().split())
        assert child.returncode == 0
    assert all(lines[-1] == "has" for lines in printed)
    assert sum("making" in lines for lines in printed) == 1
    assert len(list(cache.iterdir())) == 1


def test_every_fact_and_every_file_counts(tmp_path):
    (tmp_path / "a.mojo").write_text("a")
    (tmp_path / "b.mojo").write_text("b")
    files = native_build.sources(tmp_path)
    first = compile_cache.digest(files, tmp_path, "1.2", ["-O"])
    assert compile_cache.digest(files[::-1], tmp_path, "1.2", ["-O"]) == first
    assert compile_cache.digest(files, tmp_path, "1.3", ["-O"]) != first
    assert compile_cache.digest(files[:1], tmp_path, "1.2", ["-O"]) != first
    (tmp_path / "b.mojo").write_text("c")
    assert compile_cache.digest(files, tmp_path, "1.2", ["-O"]) != first


@pytest.fixture
def fake(cache, monkeypatch):
    """Compile to a text, and count how often that is done."""
    done = []

    def measured(arguments, *, fresh=False):
        done.append(arguments)
        Path(arguments[-1]).write_text(f"{len(done)}")
        return compiler.Took(float(len(done)), 1)

    def link(objects, output, machine, flags):
        output.write_bytes(objects[0].read_bytes())

    monkeypatch.setattr(compiler, "measured", measured)
    monkeypatch.setattr(compiler, "link", link)
    monkeypatch.setattr(compiler, "release", lambda: "1.2.0")
    return done


def test_a_level_is_compiled_once(fake, tmp_path, capsys):
    native_build.build(["v2"], tmp_path / "a")
    native_build.build(["v2"], tmp_path / "a")
    native_build.build(["v2"], tmp_path / "b")
    native_build.build(["v2"])
    assert len(fake) == 1
    assert [line.rpartition(", ")[2] for line in capsys.readouterr().out.splitlines()] == [
        "compiled in 1.0 s of CPU",
        "up to date",
        "compiled before",
        "compiled before",
    ]
    native_build.build(["v3"], tmp_path / "a")
    assert len(fake) == 2


def test_a_development_build_is_never_taken_for_a_whole_one(fake, tmp_path):
    native_build.build(["v2"], tmp_path, "few")
    assert "SPACES=few" in fake[-1]
    assert json.loads((tmp_path / "_v2/build.json").read_text())["spaces"] == "few"
    native_build.build(["v2"], tmp_path)
    assert "SPACES=few" not in fake[-1]
    assert json.loads((tmp_path / "_v2/build.json").read_text())["spaces"] == "all"
    native_build.build(["v2"], tmp_path, "few")
    assert len(fake) == 2


def test_what_compiling_took_is_no_part_of_what_a_module_is(fake, tmp_path):
    native_build.build(["v2"], tmp_path)
    note = tmp_path / "_v2/build.json"
    record = json.loads(note.read_text())
    assert record["measured"] == {
        "cpu_seconds": 1.0,
        "peak_bytes": 1,
        "fresh": False,
        "object_bytes": 1,
        "module_bytes": 1,
    }
    record["measured"]["cpu_seconds"] = 99.0
    note.write_text(json.dumps(record))
    native_build.build(["v2"], tmp_path)
    assert json.loads(note.read_text()) == record
    native_build.build(["v2"], tmp_path, fresh=True)
    assert json.loads(note.read_text())["measured"]["cpu_seconds"] == 2.0


@pytest.mark.parametrize("name", ["_native.so", "build.json"])
def test_a_damaged_module_is_not_used(fake, tmp_path, cache, name):
    native_build.build(["v2"], tmp_path)
    (tmp_path / "_v2" / name).write_text("damaged")
    native_build.build(["v2"], tmp_path)
    assert (tmp_path / "_v2/_native.so").read_text() == "1"
    for path in cache.glob(f"*/{name}"):
        path.write_text("damaged")
    (tmp_path / "_v2" / name).unlink()
    native_build.build(["v2"], tmp_path)
    assert (tmp_path / "_v2/_native.so").read_text() == "2"
    assert len(fake) == 2
