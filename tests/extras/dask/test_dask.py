"""Builds by Dask's workers, which are processes: the same bytes, whoever dies or dawdles."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster

import vicinal
from support.processes import wait_until
from vicinal import parts
from vicinal.integrations.dask import dask_executor

RNG = np.random.default_rng(14)
CENTRES = RNG.normal(size=(30, 16))
ROWS = (CENTRES[RNG.integers(0, 30, 12_000)] + 0.7 * RNG.normal(size=(12_000, 16))).astype("f4")
PARTS = 8


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    dask.config.set({"distributed.scheduler.allowed-failures": 20})
    with (
        LocalCluster(
            n_workers=3,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=0,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What one process writes, one part after the other."""
    path = tmp_path_factory.mktemp("expected") / "index"
    vicinal.build(ROWS, path, parts=PARTS, num_threads=1)
    return path.read_bytes()


def processes(client: Client) -> list[int]:
    return sorted(client.run(os.getpid).values())


def test_the_same_bytes(client: Client, expected: bytes, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    index = vicinal.build(
        ROWS,
        tmp_path / "index",
        parts=PARTS,
        executor=dask_executor(client),
        progress=lambda *told: done.append(told),
    )
    assert len(index) == len(ROWS) and done[-1] == (len(ROWS), len(ROWS))
    assert (tmp_path / "index").read_bytes() == expected
    assert sorted(os.listdir(tmp_path)) == ["index"]


def test_parts_are_built_by_the_workers(client: Client, tmp_path: Path) -> None:
    plan = parts.plan(ROWS, tmp_path, parts=PARTS)
    executor = dask_executor(client)
    futures = [executor.submit(_built_by, plan, part) for part in range(PARTS)]
    assert {future.result() for future in futures} <= set(processes(client))
    # what was built is gone: a result of before would be of no use
    for part in range(PARTS):
        os.unlink(parts.Plan(plan).part_path(part))
    for future in [executor.submit(_built_by, plan, part) for part in range(PARTS)]:
        future.result()
    assert all(os.path.exists(parts.Plan(plan).part_path(part)) for part in range(PARTS))


def _built_by(plan: str, part: int) -> int:
    parts.build_part(plan, part)
    return os.getpid()


def test_workers_are_killed(client: Client, expected: bytes, tmp_path: Path) -> None:
    """After each of the first three parts a worker dies, whatever it is at; in the end all have."""
    victims, killed = processes(client), []

    def kill(done: int, total: int) -> None:
        if len(killed) < 3:
            killed.append(victims[len(killed)])
            os.kill(killed[-1], signal.SIGKILL)

    vicinal.build(
        ROWS, tmp_path / "index", parts=PARTS, executor=dask_executor(client), progress=kill
    )
    assert len(killed) == 3
    assert (tmp_path / "index").read_bytes() == expected

    def all_new() -> bool:
        with suppress(OSError):  # one of the dead is still listed
            there = processes(client)
            return len(there) == 3 and not set(there) & set(killed)
        return False

    wait_until(all_new, "the nannies start workers anew")


def test_a_slow_worker(client: Client, expected: bytes, tmp_path: Path) -> None:
    """One worker stands still until the others have built all parts but its own."""
    slow = processes(client)[0]
    os.kill(slow, signal.SIGSTOP)
    stopped = [True]

    def go_on(done: int, total: int) -> None:
        if stopped[0] and done > total // 2:
            os.kill(slow, signal.SIGCONT)
            stopped[0] = False

    try:
        vicinal.build(
            ROWS, tmp_path / "index", parts=PARTS, executor=dask_executor(client), progress=go_on
        )
    finally:
        os.kill(slow, signal.SIGCONT)
    assert not stopped[0]
    assert (tmp_path / "index").read_bytes() == expected


def test_what_fails_is_told_and_leaves_no_index(client: Client, tmp_path: Path) -> None:
    """The rows vanish once the plan is made: the workers' error comes here."""
    executor = dask_executor(client)
    scratch = tmp_path / "scratch"

    class Without:
        def submit(self, fn: Any, plan: str, part: int) -> Any:
            for path in scratch.glob("rows*"):
                path.unlink()
            return executor.submit(fn, plan, part)

    with pytest.raises(OSError, match="rows"):
        vicinal.build(ROWS, tmp_path / "index", parts=PARTS, executor=Without(), scratch=scratch)
    assert not (tmp_path / "index").exists()


def test_what_is_no_client(client: Client) -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(TypeError, match="client: expected a dist"):
        dask_executor(pool)
    with pytest.raises(ValueError, match="retries: expected"):
        dask_executor(client, retries=-1)

    async def asynchronous() -> None:
        async with Client(client.scheduler.address, asynchronous=True) as other:
            with pytest.raises(ValueError, match="not asynchronous"):
                dask_executor(other)

    asyncio.run(asynchronous())
    other = Client(client.scheduler.address)
    other.close()
    with pytest.raises(ValueError, match="expected one that is running"):
        dask_executor(other)
