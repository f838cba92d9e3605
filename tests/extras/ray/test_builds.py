"""Builds by Ray's workers, which are processes: the same bytes, whoever dies."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.util.multiprocessing import Pool

import vicinal
from support.processes import wait_until
from vicinal import parts
from vicinal.integrations.ray import RayExecutor

RNG = np.random.default_rng(14)
CENTRES = RNG.normal(size=(30, 16))
ROWS = (CENTRES[RNG.integers(0, 30, 12_000)] + 0.7 * RNG.normal(size=(12_000, 16))).astype("f4")
PARTS = 8

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What one process writes, one part after the other."""
    path = tmp_path_factory.mktemp("expected") / "index"
    vicinal.build(ROWS, path, parts=PARTS, num_threads=1)
    return path.read_bytes()


def test_the_same_bytes(expected: bytes, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    with RayExecutor() as executor:
        vicinal.build(
            ROWS,
            tmp_path / "index",
            parts=PARTS,
            executor=executor,
            progress=lambda *told: done.append(told),
        )
    assert done[-1] == (len(ROWS), len(ROWS))
    assert (tmp_path / "index").read_bytes() == expected
    assert sorted(os.listdir(tmp_path)) == ["index"]


def test_the_pool_of_ray(expected: bytes, tmp_path: Path) -> None:
    """It has `map` alone, as far as a build can tell."""
    pool = Pool(2)
    try:
        vicinal.build(ROWS, tmp_path / "index", parts=PARTS, executor=pool)
    finally:
        pool.terminate()
    assert (tmp_path / "index").read_bytes() == expected


def test_workers_are_killed(expected: bytes, tmp_path: Path) -> None:
    """The first worker of each of three parts is killed while it builds."""
    notes = tmp_path / "notes"
    notes.mkdir()

    def note_and_build(folder: str, plan: str, part: int) -> str:  # within, so that it travels
        Path(f"{folder}/{part}.{os.getpid()}").touch()
        return parts.build_part(plan, part)

    plan = parts.plan(ROWS, tmp_path / "scratch", parts=PARTS)
    killed = set()
    with RayExecutor(max_retries=10) as executor:
        futures = [executor.submit(note_and_build, str(notes), plan, part) for part in range(PARTS)]
        for part in (0, 3, 6):
            wait_until(lambda part=part: any(notes.glob(f"{part}.*")), f"part {part} is begun")
            victim = int(next(notes.glob(f"{part}.*")).suffix[1:])
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue  # killed at another part
            killed.add(victim)
        for future in futures:
            future.result()
    assert killed
    parts.join(plan, tmp_path / "index")
    assert (tmp_path / "index").read_bytes() == expected


def test_a_part_that_cannot_be_built(tmp_path: Path) -> None:
    """The error is that of the worker, and there is no index."""
    scratch = tmp_path / "scratch"
    with RayExecutor() as executor:

        class Without:
            def submit(self, fn: Any, plan: str, part: int) -> Any:
                for path in scratch.glob("rows*"):
                    path.unlink()
                return executor.submit(fn, plan, part)

        with pytest.raises(FileNotFoundError, match="rows"):
            vicinal.build(
                ROWS, tmp_path / "index", parts=PARTS, executor=Without(), scratch=scratch
            )
    assert not (tmp_path / "index").exists()


def test_futures(tmp_path: Path) -> None:
    def wait_for(path: str) -> bool:
        while not os.path.exists(path):
            time.sleep(0.01)
        return True

    with RayExecutor() as executor:
        assert executor.submit(int, "12", base=8).result() == 10
        with pytest.raises(ValueError, match="invalid literal"):
            executor.submit(int, "x").result()
        gate = tmp_path / "gate"
        running = [executor.submit(wait_for, str(gate)) for _ in range(5)]
        assert running[4].cancel() and running[4].cancelled()  # three CPUs
        assert not running[4].cancel()
        gate.touch()
        assert [future.result() for future in running[:4]] == [True] * 4
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(int)
    executor = RayExecutor()
    late = [executor.submit(wait_for, str(tmp_path / "never")) for _ in range(5)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in late)
    (tmp_path / "never").touch()


def test_arguments() -> None:
    with pytest.raises(ValueError, match="memory: expected"):
        RayExecutor(memory=0)
    assert ray.is_initialized()
