"""Shards as actors: the answers are those of `open_shards`, or an error."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

import vicinal
from support.processes import wait_until
from vicinal.integrations.ray import PartialAnswerError, ShardedIndex

RNG = np.random.default_rng(5)
ROWS = RNG.normal(size=(3000, 12)).astype(np.float32)
ROWS[2000:2020] = ROWS[:20]  # equal distances in different shards
QUERIES = np.concatenate([ROWS[:20], RNG.normal(size=(20, 12)).astype(np.float32)])

pytestmark = pytest.mark.usefixtures("engine")


def files(folder: Path, ids: Any, count: int = 3) -> list[str]:
    folder.mkdir(exist_ok=True)
    paths = []
    for i in range(count):
        paths.append(str(folder / f"{i}.vicinal"))
        vicinal.build(ROWS[i::count], ids=ids[i::count]).save(paths[-1])
    return paths


@pytest.fixture(scope="module", params=["int64", "str"])
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ShardedIndex, vicinal.Shards]]:
    numbers = np.arange(3000)[::-1] * 3
    ids = numbers if request.param == "int64" else [f"n{number}" for number in numbers]
    paths = files(tmp_path_factory.mktemp("shards"), ids)
    with ShardedIndex(paths, timeout=120) as made:
        yield made, vicinal.open_shards(paths)


def same(one: Any, other: Any) -> None:
    assert type(one).__name__ == type(other).__name__
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def pids(made: ShardedIndex) -> list[list[int]]:
    """Processes of the actors, which Ray's list tells by their ids."""
    return [[ray.get(actor.pid.remote()) for actor in actors] for actors in made._actors]


def test_the_answers_of_open_shards(both: Any) -> None:
    made, plain = both
    assert len(made) == 3000 and repr(made).endswith("with 3000 rows")
    assert (made.dim, made.metric, made.dtype) == (12, "l2", "float32")
    names = plain.ids
    np.testing.assert_array_equal(made.ids, names)
    even = np.arange(3000) % 2 == 0
    some = names[5:1000].tolist()
    for given in (
        {},
        {"k": 3, "ef_search": 20},
        {"exact": True},
        {"filter": even},
        {"filter": some, "exclude": some[:7]},
        {"filter": [even, None] * 20},
        {"k": 2000, "num_threads": 2},
    ):
        same(made.search(QUERIES, **given), plain.search(QUERIES, **given))
    same(made.search(QUERIES[0], 5), plain.search(QUERIES[0], 5))
    many = np.tile(QUERIES, (60, 1))  # more than goes along with a call
    same(made.search(many, 3), plain.search(many, 3))
    same(made.range_search(QUERIES, 9.0), plain.range_search(QUERIES, 9.0))
    same(
        made.range_search(QUERIES[1], 9.0, filter=some),
        plain.range_search(QUERIES[1], 9.0, filter=some),
    )
    np.testing.assert_array_equal(made.get(some[::-1]), plain.get(some[::-1]))
    np.testing.assert_array_equal(made.get(some[3]), plain.get(some[3]))
    result = made.search(QUERIES, partial=True)
    same(result.found, plain.search(QUERIES))
    assert (result.share, result.missing) == (1.0, ())


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda made: made.search([1, 2]), ValueError, "queries: expected"),
        (lambda made: made.search(QUERIES, 0), ValueError, "k: expected"),
        (lambda made: made.search(QUERIES, filter=[True]), ValueError, "filter: expected booleans"),
        (lambda made: made.search(QUERIES, timeout=0), ValueError, "timeout: expected seconds"),
        (lambda made: made.search(QUERIES, timeout="1"), TypeError, "timeout: expected"),
        (lambda made: made.get(["missing"]), (KeyError, TypeError), "missing"),
    ],
)
def test_bad_arguments(both: Any, call: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        call(both[0])


def test_what_does_not_go_together(tmp_path: Path) -> None:
    paths = files(tmp_path / "a", np.arange(3000))
    with pytest.raises(ValueError, match="the id 0 is in more than one shard"):
        ShardedIndex([paths[0], paths[0]])
    vicinal.build(ROWS[:50], metric="cosine", ids=range(9000, 9050)).save(tmp_path / "other")
    with pytest.raises(ValueError, match="expected metric='l2' as in shard 0, shard 1 has"):
        ShardedIndex([paths[0], tmp_path / "other"])
    with pytest.raises(FileNotFoundError, match="nothing"):
        ShardedIndex([paths[0], tmp_path / "nothing"])
    (tmp_path / "bad").write_bytes(b"x" * 5000)
    with pytest.raises(vicinal.FormatError):
        ShardedIndex([tmp_path / "bad"])
    with pytest.raises(ValueError, match="paths: expected at least one"):
        ShardedIndex([])
    with pytest.raises(ValueError, match="replicas: expected"):
        ShardedIndex(paths, replicas=0)


def test_a_manifest_one_shard_and_an_empty_one(tmp_path: Path) -> None:
    paths = files(tmp_path, np.arange(3000), 1)
    vicinal.Index(12).save(tmp_path / "empty.vicinal")
    (tmp_path / "shards.json").write_text(json.dumps(["0.vicinal", "empty.vicinal"]))
    with ShardedIndex(tmp_path / "shards.json") as made:
        same(made.search(QUERIES, 7), vicinal.open(paths[0]).search(QUERIES, 7))
    with pytest.raises(ValueError, match="it is closed"):
        made.search(QUERIES)


def test_a_shard_is_killed_and_comes_back(tmp_path: Path) -> None:
    paths = files(tmp_path, np.arange(3000))
    wanted = vicinal.open_shards(paths).search(QUERIES)
    with ShardedIndex(paths, timeout=300) as made:
        for place in (0, 2, 0):
            before = pids(made)[place][0]
            os.kill(before, signal.SIGKILL)
            same(made.search(QUERIES), wanted)
            assert pids(made)[place][0] != before


def test_replicas_answer_for_each_other(tmp_path: Path) -> None:
    paths = files(tmp_path, np.arange(3000), 2)
    wanted = vicinal.open_shards(paths).search(QUERIES)
    with ShardedIndex(paths, replicas=2, timeout=300, max_restarts=0) as made:
        for _ in range(3):
            same(made.search(QUERIES), wanted)
        os.kill(pids(made)[1][0], signal.SIGKILL)  # for good
        for _ in range(6):  # whoever's turn it is
            same(made.search(QUERIES), wanted)


def test_a_partial_answer_is_an_error_unless_asked_for(tmp_path: Path) -> None:
    """A shard that is dead for good, and one that stands still."""
    paths = files(tmp_path, np.arange(3000))
    with ShardedIndex(paths, max_restarts=0, max_concurrency=1) as made:
        still = pids(made)[1][0]
        os.kill(still, signal.SIGSTOP)
        try:
            check_without(made, 1, paths)
        finally:
            os.kill(still, signal.SIGCONT)
        wanted = vicinal.open_shards(paths).search(QUERIES)
        same(made.search(QUERIES, timeout=300), wanted)
        dead = pids(made)[2][0]
        os.kill(dead, signal.SIGKILL)
        wait_until(lambda: not os.path.exists(f"/proc/{dead}"), "the process is gone")
        check_without(made, 2, paths)


def check_without(made: ShardedIndex, place: int, paths: list[str]) -> None:
    with pytest.raises(PartialAnswerError, match="1 of 3 shards did not answer") as told:
        made.search(QUERIES, timeout=2)
    assert told.value.missing == (paths[place],)
    rest = [path for path in paths if path != paths[place]]
    # as long as a slow machine needs for the two others, which it takes in any case
    result = made.search(QUERIES, timeout=10, partial=True)
    assert result.missing == (paths[place],)
    assert result.share == pytest.approx(2 / 3)
    same(result.found, vicinal.open_shards(rest).search(QUERIES))


def test_no_shard_at_all_is_an_error(tmp_path: Path) -> None:
    paths = files(tmp_path, np.arange(3000), 1)
    with ShardedIndex(paths, max_restarts=0) as made:
        os.kill(pids(made)[0][0], signal.SIGKILL)
        with pytest.raises(PartialAnswerError, match="1 of 1 shards"):
            made.search(QUERIES, timeout=2, partial=True)
