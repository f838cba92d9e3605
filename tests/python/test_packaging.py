"""The wheel, the sdist, and the files that describe the project to tools.

What is built here is built without a C compiler on PATH, for the CPU levels of this machine; with
VICINAL_TEST_LEVELS=all (`make wheels`) for all levels of its architecture, and one of Arm.
"""

from __future__ import annotations

import ctypes
import email.parser
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import compile_cache
import vicinal
from vicinal import _levels

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent.parent
EVERY = _levels.levels_of(_levels.machine_name())
ALL = os.environ.get("VICINAL_TEST_LEVELS") == "all"
LEVELS = EVERY if ALL else tuple(vicinal.build_info()["available"])
EXTRAS = {
    "arrow",
    "cli",
    "convert",
    "dask",
    "haystack",
    "hdf5",
    "hybrid",
    "langchain",
    "llama-index",
    "mcp",
    "otel",
    "ray",
    "server",
    "sklearn",
    "umap",
}
MODULES = [f"vicinal/_{level}/_native.so" for level in LEVELS]

needs_build_tools = pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None or importlib.util.find_spec("mojo") is None,
    reason="the build requirements of pyproject.toml are not installed (make test installs them)",
)
needs_binutils = pytest.mark.skipif(
    shutil.which("nm") is None or shutil.which("readelf") is None,
    reason="nm and readelf (binutils) are not installed",
)


def toml(name):
    return tomllib.loads((ROOT / name).read_text(encoding="utf-8"))


def call(arguments, **options):
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600, **options)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def no_compiler(tmp_path_factory):
    """An environment whose PATH has a shell and little else."""
    folder = tmp_path_factory.mktemp("bin")
    for name in ("sh", "env", "true"):
        (folder / name).symlink_to(shutil.which(name))
    environment = {name: text for name, text in os.environ.items() if name not in ("CC", "CXX")}
    environment.update(PATH=str(folder), PIP_DISABLE_PIP_VERSION_CHECK="1")
    environment["VICINAL_CACHE"] = str(compile_cache.folder())  # for sources elsewhere as well
    environment["VICINAL_LEVELS"] = "all" if ALL else ",".join(LEVELS)
    assert shutil.which("gcc", path=str(folder)) is None
    return environment


def make_wheel(source, into, environment):
    options = ["--no-build-isolation", "--no-deps", "--quiet", "--wheel-dir", str(into)]
    call([sys.executable, "-m", "pip", "wheel", *options, str(source)], env=environment)
    (wheel,) = into.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def wheel(tmp_path_factory, no_compiler):
    return make_wheel(ROOT, tmp_path_factory.mktemp("wheel"), no_compiler)


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory, wheel):
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def sources_of_package():
    folder = ROOT / "python" / "vicinal"
    return {
        f"vicinal/{path.relative_to(folder)}"
        for path in folder.rglob("*")
        if path.suffix in (".py", ".pyi") or path.name == "py.typed"
    }


@needs_build_tools
def test_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        information = {name.split("/", 1)[1] for name in archive.namelist() if name not in names}
    records = {name.replace("_native.so", "build.json") for name in MODULES}
    assert names == sources_of_package() | set(MODULES) | records
    assert information == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


@needs_build_tools
def test_wheel_describes_itself(wheel, unpacked):
    machine = _levels.machine_name()
    tag = f"py3-none-manylinux_2_28_{machine}"
    assert wheel.name == f"vicinal-{vicinal.__version__}-{tag}.whl"
    (information,) = unpacked.glob("*.dist-info")
    parse = email.parser.Parser().parsestr
    tags = parse((information / "WHEEL").read_text())
    assert tags["Root-Is-Purelib"] == "false"
    assert tags.get_all("Tag") == [tag]
    metadata = parse((information / "METADATA").read_text())
    assert (metadata["Name"], metadata["Version"]) == ("vicinal", vicinal.__version__)
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"
    required = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert required == ["numpy>=1.23"]
    assert set(metadata.get_all("Provides-Extra")) == EXTRAS | {
        "test",
        "bench",
        "dev",
        "docs",
        "release",
    }


@needs_build_tools
@pytest.mark.parametrize("module", MODULES)
def test_native_module_names_no_folder_of_the_build(unpacked, module):
    content = (unpacked / module).read_bytes()
    for folder in {str(ROOT), sys.prefix, str(Path.home()), "/tmp/"}:
        assert folder.encode() not in content


def dynamic_symbols(path):
    """Return what a module asks for and what it offers, by name."""
    lines = [line.split() for line in call(["nm", "-D", str(path)]).splitlines()]
    asked = {line[-1].split("@")[0] for line in lines if line[0] == "U"}
    return asked, {line[-1] for line in lines if line[0] != "U"}


def check_needs_libc_only(path):
    dynamic = call(["readelf", "-dW", str(path)])
    assert set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)) <= {"libc.so.6"}
    assert "RUNPATH" not in dynamic
    asked, offered = dynamic_symbols(path)
    assert offered == {"PyInit__native"}
    assert not [name for name in asked if re.search("KGEN|AsyncRT|MSupport|Modular", name)]
    libc = ctypes.CDLL("libc.so.6")
    for name in asked:
        home = ctypes.pythonapi if name.startswith("Py") else libc
        assert hasattr(home, name), f"{name} is neither in libc nor in Python's C API"


@needs_build_tools
@needs_binutils
@pytest.mark.parametrize("module", MODULES)
def test_native_module_needs_libc_only(unpacked, module):
    check_needs_libc_only(unpacked / module)


@needs_build_tools
@needs_binutils
@pytest.mark.parametrize("module", MODULES)
def test_native_module_runs_with_the_libc_of_its_tag(unpacked, wheel, module):
    # libc says when each function came: the oldest version it knows of one must not be newer than
    # the tag. The module itself asks for no version.
    tag = tuple(map(int, re.search(r"manylinux_(\d+)_(\d+)_", wheel.name).groups()))
    with open("/proc/self/maps") as maps:
        libc = next(line.split()[-1] for line in maps if "/libc.so.6" in line)
    came: dict[str, list[tuple[int, ...]]] = {}
    symbols = call(["readelf", "-W", "--dyn-syms", libc])
    for name, version in re.findall(r" (\w+)@@?GLIBC_([\d.]+)", symbols):
        came.setdefault(name, []).append(tuple(map(int, version.split("."))))
    asked, _ = dynamic_symbols(unpacked / module)
    assert "free" in came
    late = {name for name in asked if name in came and min(came[name]) > tag}
    assert not late, f"newer than glibc {tag}"


@needs_build_tools
@needs_binutils
@pytest.mark.parametrize("module", MODULES)
def test_native_module_is_hardened(unpacked, module):
    headers = call(["readelf", "-lW", str(unpacked / module)])
    assert re.search(r"GNU_STACK .* RW +0", headers), "the stack must not be executable"
    assert "GNU_RELRO" in headers
    assert not re.search(r"LOAD .* RWE ", headers)


def test_a_wheel_has_all_levels_unless_told_otherwise(monkeypatch):
    hatch_build = pytest.importorskip("hatch_build", reason="hatchling is not installed")
    monkeypatch.delenv("VICINAL_LEVELS", raising=False)
    assert hatch_build.wanted_levels() == list(EVERY)
    monkeypatch.setenv("VICINAL_LEVELS", "here")
    cpu = _levels.machine_name(), _levels.cpu_flags()
    here = [name for name in EVERY if _levels.runs_on(_levels.LEVELS[name], *cpu)]
    assert hatch_build.wanted_levels() == here
    monkeypatch.setenv("VICINAL_LEVELS", "best")
    assert hatch_build.wanted_levels() == here[:1]


@needs_build_tools
def test_a_wheel_has_all_spaces(unpacked):
    for module in MODULES:
        record = json.loads((unpacked / module).with_name("build.json").read_text())
        assert record["spaces"] == "all"
        assert record["measured"]["object_bytes"] > record["measured"]["module_bytes"] // 2


@needs_build_tools
@needs_binutils
@pytest.mark.slow
@pytest.mark.skipif(not ALL, reason="compiles a level of another machine: make wheels")
def test_wheel_for_arm_is_made_on_any_machine(tmp_path, no_compiler):
    # one level: each takes a minute to compile, and test_levels_agree runs parts of all
    level = _levels.levels_of("aarch64")[-1]
    made = make_wheel(ROOT, tmp_path, {**no_compiler, "VICINAL_LEVELS": level})
    assert made.name == f"vicinal-{vicinal.__version__}-py3-none-manylinux_2_28_aarch64.whl"
    with zipfile.ZipFile(made) as archive:
        module = archive.extract(f"vicinal/_{level}/_native.so", tmp_path)
        assert re.search(r"Machine:\s+AArch64", call(["readelf", "-h", module]))
        check_needs_libc_only(module)


@needs_build_tools
def test_levels_of_two_machines_make_no_wheel(tmp_path, no_compiler):
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", str(ROOT)],
        env={**no_compiler, "VICINAL_LEVELS": "v3,neon"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "VICINAL_LEVELS: expected levels of one machine; got v3, neon" in done.stderr


@needs_build_tools
@pytest.mark.slow
def test_sdist_builds_from_itself(tmp_path, wheel, no_compiler):
    call(
        [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)],
        cwd=ROOT,
        env=no_compiler,
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    assert archive.name == f"vicinal-{vicinal.__version__}.tar.gz"
    with tarfile.open(archive) as content:
        names = [name.split("/", 1)[1] for name in content.getnames()]
        content.extractall(tmp_path / "source")
    mojo = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mojo").rglob("*.mojo")}
    assert mojo <= set(names)
    assert not [name for name in names if name.endswith((".so", ".o", ".pyc"))]
    # One level is enough to see that nothing is missing.
    level = LEVELS[-1]
    environment = {**no_compiler, "VICINAL_LEVELS": level}
    (source,) = (tmp_path / "source").iterdir()
    rebuilt = make_wheel(source, tmp_path / "wheel", environment)
    with zipfile.ZipFile(rebuilt) as archive, zipfile.ZipFile(wheel) as whole:
        names = set(archive.namelist())
        others = {
            name for name in whole.namelist() if re.match(rf"vicinal/_({'|'.join(LEVELS)})/", name)
        }
        kept = {name for name in others if name.startswith(f"vicinal/_{level}/")}
        assert names == set(whole.namelist()) - others | kept
        # The same sources give the same code: the digest in the record says so.
        record = f"vicinal/_{level}/build.json"
        assert archive.read(record) == whole.read(record)


def interpreter(version):
    """Return a CPython of that version at hand, or None."""
    found = [shutil.which(f"python{version}")]
    found += sorted(Path.home().glob(f".pyenv/versions/{version}*/bin/python"), reverse=True)
    for candidate in filter(None, found):
        code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([str(candidate), "-c", code], capture_output=True, text=True)
        if done.returncode == 0 and done.stdout.strip() == version:
            return str(candidate)
    return None


USE = """
import numpy as np, sys, vicinal
rng = np.random.default_rng(3)
base = rng.standard_normal((3000, 33), dtype=np.float32)
index = vicinal.Index(33)
ids = index.add(base)
assert ids.dtype == np.int64 and len(index) == 3000
found = index.search(base[:20], k=5)
truth = vicinal.exact_search(base, base[:20], k=5)
assert (found.ids[:, 0] == np.arange(20)).all()
assert vicinal.recall_at_k(found.ids, truth.ids) > 0.95
try:
    index.search(base[:, :3])
except ValueError as error:
    assert "33" in str(error)
else:
    raise AssertionError("a wrong dimension was taken")
print("used by", sys.version.split()[0])
"""


@needs_build_tools
@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_one_wheel_serves_every_python(tmp_path, wheel, version):
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no CPython {version} found on PATH or in ~/.pyenv/versions")
    call([python, "-m", "venv", str(tmp_path / "venv")])
    python = str(tmp_path / "venv" / "bin" / "python")
    quiet = ["--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
    numpy = [python, "-m", "pip", "install", *quiet, "numpy>=1.23"]
    done = subprocess.run(numpy, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        pytest.skip(
            f"numpy cannot be installed for CPython {version}: {done.stderr.strip()[-200:]}"
        )
    call([python, "-m", "pip", "install", *quiet, "--no-index", str(wheel)])
    assert f"used by {version}." in call([python, "-c", USE], cwd=tmp_path)
    assert "kernels agree" in call([python, "-m", "vicinal", "doctor"], cwd=tmp_path)


def test_import_starts_no_thread_and_loads_no_runtime():
    code = """
import os, numpy
before = len(os.listdir("/proc/self/task"))
import vicinal
assert len(os.listdir("/proc/self/task")) == before
with open("/proc/self/maps") as maps:
    loaded = {line.split()[-1] for line in maps if "/" in line}
for name in ("KGEN", "AsyncRT", "MSupport"):
    assert not [path for path in loaded if name in path]
assert len([path for path in loaded if path.endswith("_native.so")]) == 1
"""
    call([sys.executable, "-c", code])


def test_import_loads_little_beyond_numpy():
    # what that takes is one of `make figures`
    code = """
import sys, numpy
before = set(sys.modules)
import vicinal
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""
    loaded = set(call([sys.executable, "-c", code]).split())
    slow = {"asyncio", "concurrent", "email", "http", "importlib_metadata", "logging", "ssl"}
    slow |= {"multiprocessing", "pkg_resources", "subprocess", "unittest", "xml"}
    assert "vicinal" in loaded
    assert not loaded & slow
    assert len(loaded) < 40, loaded


def test_fork_after_use():
    # Threads of ours live for one call only: a forked child starts its own.
    code = """
import os, warnings, numpy as np, vicinal
warnings.simplefilter("ignore", DeprecationWarning)  # NumPy's own threads, from Python 3.12 on
base = np.random.default_rng(5).standard_normal((4000, 24), dtype=np.float32)
index = vicinal.Index(24)
index.add(base[:3500], num_threads=2)
wanted = index.search(base[:50], k=3, num_threads=2).ids
child = os.fork()
if child == 0:
    same = (index.search(base[:50], k=3, num_threads=2).ids == wanted).all()
    index.add(base[3500:], num_threads=2)
    found = vicinal.exact_search(base, base[3990:], k=1, num_threads=2).ids[:, 0]
    os._exit(0 if same and len(index) == 4000 and (found == np.arange(3990, 4000)).all() else 1)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0
assert len(index) == 3500
"""
    call([sys.executable, "-c", code])


def requirement(lines, name):
    """Return the version part of the one requirement on `name`."""
    (found,) = [line for line in lines if re.match(rf"{re.escape(name)}(?![\w-])", line)]
    return found.split(";")[0].strip()[len(name) :]


def targets():
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_pixi_tasks_are_the_make_commands():
    tasks = toml("pixi.toml")["tasks"]
    assert set(tasks) == {"build", "test", "bench", "format", "lint", "doc", "demo"}
    for name, task in tasks.items():
        assert task["cmd"] == f"make {name}"
        assert task["description"]
    assert set(tasks) <= targets()


def test_pixi_versions_are_those_of_pyproject():
    pixi, project = toml("pixi.toml"), toml("pyproject.toml")
    wanted = pixi["dependencies"]
    assert set(wanted) == {"python", "numpy", "pytest", "max"}
    extras = project["project"]["optional-dependencies"]
    assert wanted["python"] == project["project"]["requires-python"]
    assert wanted["numpy"] == requirement(project["project"]["dependencies"], "numpy")
    assert wanted["pytest"] == requirement(extras["test"], "pytest")
    # max has a number of its own; its formatter is released under the same one.
    release = requirement(extras["dev"], "mblack").removeprefix("==")
    assert wanted["max"] == f"=={'.'.join(release.split('.')[:2])}.*"
    compiler = requirement(project["build-system"]["requires"], "mojo-compiler").removeprefix("==")
    assert f"carries Mojo {compiler}" in (ROOT / "pixi.toml").read_text()
    assert vicinal.build_info()["mojo"].split()[0] == compiler


def test_pixi_workspace():
    workspace = toml("pixi.toml")["workspace"]
    assert workspace["name"] == toml("pyproject.toml")["project"]["name"] == "vicinal"
    assert workspace["channels"] == ["https://conda.modular.com/max", "conda-forge"]
    machines = {"linux-64": "x86_64", "linux-aarch64": "aarch64"}
    assert {machines[name] for name in workspace["platforms"]} == {
        level.machine for level in _levels.LEVELS.values()
    }


def test_version_stands_in_one_place():
    assert toml("pyproject.toml")["project"]["dynamic"] == ["version"]
    line = f'__version__ = "{vicinal.__version__}"'
    assert line in (ROOT / "python" / "vicinal" / "__init__.py").read_text()
    assert re.search(
        rf"^## {re.escape(vicinal.__version__)}\b",
        (ROOT / "CHANGELOG.md").read_text(),
        re.MULTILINE,
    )


def test_commands_of_the_documents_exist():
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme
    assert "make test" in readme
    for name in ("README.md", "CONTRIBUTING.md", ".ci/run"):
        used = set(
            re.findall(r"(?:^|[`$&;] ?)make ([a-z-]+)", (ROOT / name).read_text(), re.MULTILINE)
        )
        assert used <= targets(), f"{name} names commands that the Makefile lacks"


@pytest.mark.parametrize("name", ["Makefile", ".ci/run", "tools/compiler.py"])
def test_compiler_reports_nothing_home(name):
    text = (ROOT / name).read_text()
    for variable in ("MODULAR_TELEMETRY_ENABLED", "MODULAR_CRASH_REPORTING_ENABLED"):
        assert re.search(rf"{variable}\W+0", text), f"{name} leaves {variable} on"


def test_every_file_of_the_licence_terms_is_there():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert toml("pyproject.toml")["project"]["license"] == "Apache-2.0"
