"""How many threads calls use that do not say so."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import vicinal
from vicinal import _threads, _validate

CORES = len(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("VICINAL_NUM_THREADS", raising=False)
    monkeypatch.setattr(_threads, "_quota", math.inf)
    yield
    vicinal.set_num_threads(None)


def test_cores_unless_something_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert vicinal.get_num_threads() == _validate.thread_count(None) == CORES
    monkeypatch.setenv("VICINAL_NUM_THREADS", "7")
    assert vicinal.get_num_threads() == _validate.thread_count(None) == 7
    vicinal.set_num_threads(np.int64(3))
    assert vicinal.get_num_threads() == _validate.thread_count(None) == 3
    assert _validate.thread_count(2) == 2
    vicinal.set_num_threads(None)
    assert vicinal.get_num_threads() == 7
    monkeypatch.setenv("VICINAL_NUM_THREADS", "")
    assert vicinal.get_num_threads() == CORES


@pytest.mark.parametrize("quota", [0.1, 1.0, 1.5, 1000.0])
def test_a_quota_below_the_cores_decides(quota: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "_quota", quota)
    assert vicinal.get_num_threads() == min(math.ceil(quota), CORES)


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", str(2**31)])
def test_a_variable_that_is_no_number(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VICINAL_NUM_THREADS", value)
    index = vicinal.Index(2)
    with pytest.raises(ValueError, match=f"^VICINAL_NUM_THREADS: expected a whole .* '{value}'"):
        index.add([[0, 0]])
    index.add([[0, 0]], num_threads=1)


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (2**31, ValueError), (True, TypeError), (1.0, TypeError)]
)
def test_a_number_that_is_none(value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^num_threads: expected a whole number from 1 to 2147483647"):
        vicinal.set_num_threads(value)  # type: ignore[arg-type]
    assert vicinal.get_num_threads() == CORES


class Machine:
    """A folder that looks like /proc/self and the control groups that it tells of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.groups: list[str] = []
        self.mounts = ["21 1 8:1 / / rw - ext4 /dev/root rw"]

    def mount(self, kind: str, top: str, point: str, options: str = "rw") -> None:
        path = str(self.folder / point).replace(" ", "\\040")
        self.mounts.append(f"30 21 0:26 {top} {path} rw,nosuid shared:4 - {kind} cgroup {options}")

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def quota(self) -> float:
        (self.folder / "cgroup").write_text("\n".join(self.groups) + "\n")
        (self.folder / "mountinfo").write_text("\n".join(self.mounts) + "\n")
        return _threads.cpu_quota(self.folder)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_no_control_groups(machine: Machine, tmp_path: Path) -> None:
    assert machine.quota() == math.inf
    assert _threads.cpu_quota(tmp_path / "nowhere") == math.inf


def test_groups_of_version_2(machine: Machine) -> None:
    machine.groups = ["0::/outer/inner"]
    machine.mount("cgroup2", "/", "sys fs/cgröup")
    machine.write("sys fs/cgröup/outer/inner/cpu.max", "max 100000\n")
    assert machine.quota() == math.inf
    machine.write("sys fs/cgröup/outer/cpu.max", "250000 100000\n")
    assert machine.quota() == 2.5  # of the group above
    machine.write("sys fs/cgröup/outer/inner/cpu.max", "50000 100000\n")
    assert machine.quota() == 0.5


def test_a_container_that_sees_its_group_as_the_top(machine: Machine) -> None:
    machine.groups = ["0::/"]
    machine.mount("cgroup2", "/", "cg")
    machine.write("cg/cpu.max", "200000 100000\n")
    assert machine.quota() == 2.0


def test_groups_of_version_1(machine: Machine) -> None:
    machine.groups = ["5:memory:/docker/abc", "4:cpu,cpuacct:/docker/abc", "0::/"]
    machine.mount("cgroup", "/docker/abc", "cg/memory", "rw,memory")
    machine.mount("cgroup", "/docker/abc", "cg/cpu,cpuacct", "rw,cpu,cpuacct")
    machine.write("cg/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    machine.write("cg/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    assert machine.quota() == math.inf
    machine.write("cg/cpu,cpuacct/cpu.cfs_quota_us", "300000\n")
    assert machine.quota() == 3.0


@pytest.mark.parametrize("text", ["", "x y\n", "100000\n", "0 0\n", "-5 100000\n", "1 2 3\n"])
def test_files_that_say_nothing_useful(machine: Machine, text: str) -> None:
    machine.groups = ["0::/../elsewhere", "nonsense", "1:cpu:/other", "::"]
    machine.mount("cgroup2", "/", "cg")
    machine.mount("cgroup", "/docker/abc", "cg1", "rw,cpu")
    machine.write("cg/cpu.max", text)
    assert machine.quota() == math.inf
