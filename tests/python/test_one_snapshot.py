"""Nothing of a change is seen before its end, all of it afterwards, in whatever way one asks.

Progress functions are called before the change takes effect, the last time when all its work is
done: what they see is the index as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vicinal
from seen import DIM, Seen, vectors


def named(number: int) -> str:
    return f"no. {number}"


def filled(count: int, *, quantization: str | None = None, ids: str = "int64") -> Seen:
    index = vicinal.Index(DIM, M=8, ef_construction=40, quantization=quantization, ids=ids)
    model = Seen(index, int if ids == "int64" else named)
    if count:
        model.add(vectors(0, count), range(count))
    return model


def watched(model: Seen, others: Any) -> tuple[Callable[[int, int], None], list[int]]:
    """Return a progress function that looks at everything, and a list of what it was told."""
    told: list[int] = []

    def progress(done: int, total: int) -> None:
        if done in (0, total) or len(told) < 3:
            model.assert_seen(others)
        told.append(done)

    return progress, told


def changes(model: Seen) -> dict[str, Callable[[Callable[[int, int], None]], Any]]:
    """Return kinds of changes with a progress function, and what they add to or take from ids."""
    count = len(model.rows)
    index, ids = model.index, model.ids
    other = filled(0)
    other.index = vicinal.Index(DIM, M=4, ef_construction=10, ids=index.stats()["ids"])
    other.names = model.names
    other.add(vectors(5, 60), range(5000, 5060))
    return {
        "add": lambda p: index.add(vectors(1, 50), ids(range(5000, 5050)), progress=p),
        "upsert": lambda p: index.add(
            vectors(2, 80), ids(range(4970, 5050)), on_conflict="update", progress=p
        ),
        "upsert known": lambda p: index.add(
            vectors(2, 80), ids([*range(40), *range(5000, 5040)]), on_conflict="update", progress=p
        ),
        "update": lambda p: index.update(vectors(3, min(60, count)), ids(range(60)), progress=p),
        "remove few": lambda p: index.remove(ids(range(10)), progress=p),
        "remove many": lambda p: index.remove(ids(range(count // 3)), progress=p),
        "remove most": lambda p: index.remove(ids(range(count - 5)), progress=p),
        "merge": lambda p: index.merge(other.index, progress=p),
        "compact": lambda p: index.compact(progress=p),
        "many": lambda p: index.add(vectors(6, 3000), ids(range(5000, 8000)), progress=p),
    }


KINDS = sorted(changes(filled(100)))
HISTORIES = ("fresh", "holes", "pending", "opened", "opened with holes")


def with_history(model: Seen, history: str, folder: Path) -> Seen:
    count = len(model.rows)
    if history in ("holes", "opened with holes"):
        model.remove(range(count - 1, count - 200, -1))
    if history == "pending":
        model.remove(range(count - 1, count - 6, -1))
    if history.startswith("opened"):
        model.index.save(folder / "file")
        model.index = vicinal.open(folder / "file", mode="copy")
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("count", [500, 1700])
def test_nothing_of_a_change_is_seen_before_its_end(
    kind: str, history: str, count: int, tmp_path: Path
) -> None:
    model = with_history(filled(count), history, tmp_path)
    progress, told = watched(model, model.ids([4999, 5000, 5020, 5049, 7999]))
    changes(model)[kind](progress)
    assert told, "the progress function was not called"


@pytest.mark.parametrize("kind", ["add", "upsert", "many", "merge", "update"])
@pytest.mark.parametrize(
    ("quantization", "ids"), [("auto", "int64"), ("sq8", "int64"), (None, "str")]
)
def test_nothing_is_seen_before_its_end_with_codes_or_strings(
    kind: str, quantization: str | None, ids: str
) -> None:
    model = filled(1700, quantization=quantization, ids=ids)
    progress, told = watched(model, model.ids([4999, 5000, 5020, 5049, 7999]))
    changes(model)[kind](progress)
    assert told


@pytest.mark.parametrize("start", [0, 10, 990])
def test_nothing_of_a_first_graph_is_seen_before_its_end(start: int) -> None:
    """The call that makes an index large enough for a graph, or that is its first."""
    model = filled(start)
    progress, told = watched(model, model.ids([start, start + 1500]))
    model.index.add(vectors(1, 4000), progress=progress, num_threads=1)
    assert told
    assert len(model.index) == start + 4000


def test_nothing_is_seen_of_a_change_that_is_taken_back() -> None:
    model = filled(1700)
    model.remove(range(1600, 1700))

    class Stop(Exception):
        pass

    for change in changes(model).values():

        def stop(done: int, total: int) -> None:
            model.assert_seen(model.ids([5000, 5049]))
            raise Stop

        with pytest.raises(Stop):
            change(stop)
        model.assert_seen(model.ids([5000, 5049]))


def test_recall_is_measured_from_within_a_change() -> None:
    """It reads one snapshot, so it need not wait for a writer."""
    model = filled(1700)
    measured = []

    def progress(done: int, total: int) -> None:
        measured.append(model.index.measure_recall(sample=50, ef_search=10**6).recall)

    model.index.add(vectors(1, 2000), progress=progress)
    assert measured and set(measured) == {1.0}
