"""Looking closer at a collection: exact search, radius, ids alone, order of ids, why not, figures.

Also: a checkpoint of one thread lets the others change documents.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vicinal.collection import Collection, _checkpoint

DIM, COUNT = 6, 2500
RNG = np.random.default_rng(3)
ROWS = RNG.standard_normal((COUNT, DIM)).astype(np.float32)
QUERIES = RNG.standard_normal((8, DIM)).astype(np.float32)
ODD = {"field": "odd", "op": "eq", "value": True}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    """Saved rows, some of them deleted or changed since, and some that are pending."""
    path = tmp_path_factory.mktemp("inside") / "c"
    with Collection(path, DIM, "l2", checkpoint_rows=None) as collection:
        for start, end in ((0, 2000), (2000, COUNT)):
            ids = [str(n) for n in range(start, end)]
            metadata = [{"odd": n % 2 == 1} for n in range(start, end)]
            collection.upsert(ids, ROWS[start:end], metadata=metadata)
            if start == 0:
                collection.checkpoint()
        collection.delete([str(n) for n in range(0, COUNT, 50)])
        collection.update(["7"], ROWS[8:9])
        collection.upsert(["none"], [None], metadata=[{"odd": True}])
        yield collection


def reference(query: Any, where: Any = None) -> list[tuple[str, float]]:
    """Return all documents with a vector, nearest first."""
    rows = ROWS.copy()
    rows[7] = ROWS[8]
    there = [n for n in range(COUNT) if n % 50 and (where is None or n % 2)]
    far = ((rows[there].astype(np.float64) - query) ** 2).sum(axis=1)
    order = np.lexsort((there, far))
    return [(str(there[place]), float(far[place])) for place in order]


@pytest.mark.parametrize("where", [None, ODD])
@pytest.mark.parametrize("k", [1, 10, 3000])
def test_exact_and_ids_alone(made: Collection, where: Any, k: int) -> None:
    ids, distances = made.search_ids(QUERIES, k, where, exact=True)
    assert ids.shape == distances.shape == (len(QUERIES), min(k, len(reference(QUERIES[0], where))))
    for query, names, far in zip(QUERIES, ids, distances, strict=True):
        wanted = reference(query, where)[:k]
        found = made.search(query, k, where, exact=True)
        assert [hit.id for hit in found] == names.tolist()
        assert {hit.id for hit in found} == {id for id, _ in wanted}
        assert np.allclose(far, [distance for _, distance in wanted], rtol=1e-4)


def test_ids_alone_where_some_have_fewer(made: Collection) -> None:
    none = {"field": "odd", "op": "eq", "value": "no"}
    ids, distances = made.search_ids(QUERIES, 5, none)
    assert ids.shape == distances.shape == (len(QUERIES), 0)
    ids, _ = made.search_ids(np.empty((0, DIM), np.float32), 5)
    assert len(ids) == 0
    with pytest.raises(ValueError, match=r"vectors: expected \(n, 6\)"):
        made.search_ids(QUERIES[0], 5)


@pytest.mark.parametrize("where", [None, ODD])
@pytest.mark.parametrize("radius", [-1.0, 0.0, 1.5, 4.0, float("inf")])
def test_radius(made: Collection, where: Any, radius: float) -> None:
    for query in (ROWS[8], QUERIES[0]):
        wanted = [id for id, far in reference(query, where) if far <= radius]
        found = made.range_search(query, radius, where, ef_search=3000)
        assert {hit.id for hit in found} == set(wanted)
        far = [hit.distance for hit in found]
        assert far == sorted(far)
        some = made.range_search(query, radius, where, 3, ef_search=3000, vectors=True)
        assert [hit.id for hit in some] == [hit.id for hit in found[:3]]
        assert all(hit.vector is not None for hit in some)


def test_order_of_ids(made: Collection) -> None:
    order = sorted((str(n) for n in range(COUNT) if n % 50), key=lambda id: (len(id), id))
    order.insert(sum(len(id) < 4 or (len(id) == 4 and id < "none") for id in order), "none")
    seen: list[str] = []
    start: str | None = None
    while True:
        page = [each.id for each in made.get_by_id_order(start, 301)]
        seen += page[:300]
        if len(page) < 301:
            break
        start = page[300]
    assert seen == order
    assert [each.id for each in made.get_by_id_order("50", 2)] == ["51", "52"]  # 50 is gone
    odd = made.get_by_id_order("8", 3, ODD, vectors=True)
    assert [each.id for each in odd] == ["9", "11", "13"]
    assert np.array_equal(odd[0].vector, ROWS[9])


def test_why_not(made: Collection) -> None:
    query = ROWS[9]
    assert made.why_not(query, "9", 3).fate == "found"
    why = made.why_not(query, "9", 3)
    assert (why.rank, why.true_rank, why.distance) == (1, 1, 0.0) and "number 1" in str(why)
    last = reference(query)[-1][0]
    assert made.why_not(query, last, 3).fate == "farther"
    assert made.why_not(query, "8", 3, ODD).fate == "filtered"  # 8 is even
    assert made.why_not(query, "none", 3).fate == "no_vector"
    with pytest.raises(KeyError, match="id: '50' is not in the collection"):
        made.why_not(query, "50")
    with pytest.raises(TypeError, match="id: expected a string"):
        made.why_not(query, 8)  # type: ignore[arg-type]


def test_why_not_of_one_that_the_graph_loses(made: Collection) -> None:
    """Whoever is missing among the nearest has a fate, and what finds it."""
    missed = 0
    for query in RNG.standard_normal((150, DIM)).astype(np.float32):
        found = {hit.id for hit in made.search(query, 40, ef_search=1)}
        for id in [id for id, _ in reference(query)[:40] if id not in found][:1]:
            why = made.why_not(query, id, 40, ef_search=1)
            assert why.fate in ("not_reranked", "evicted", "refused", "unreached", "farther")
            missed += why.fate != "farther"
            if why.finds:
                again = made.search(query, why.finds.get("k", 40), ef_search=why.finds["ef_search"])
                assert id in {hit.id for hit in again}
    print(f"{missed} missed")


def test_figures(made: Collection) -> None:
    stats = made.stats()
    assert (stats["documents"], stats["indexed"]) == (len(made), 2000)
    assert stats["pending"] == made.pending > 500
    assert stats["parameters"]["dim"] == DIM and stats["file_bytes"] > ROWS.nbytes
    measured = made.measure_recall(QUERIES, 5)
    assert measured.recall == 1.0 or measured.low <= measured.recall <= measured.high
    assert measured.sample == len(QUERIES)


def test_recall_of_what_is_scanned(tmp_path: Path) -> None:
    with Collection(tmp_path / "c", DIM, "l2") as made:
        made.upsert(["a"], ROWS[:1])
        assert float(made.measure_recall()) == 1.0


def test_notes(tmp_path: Path) -> None:
    with Collection(tmp_path / "c", DIM) as made:
        assert made.note("x") is None
        made.set_note("x", {"a": [1, None]})
        made.set_note("x", {"b": 2})
    with Collection(tmp_path / "c", read_only=True) as made:
        assert made.note("x") == {"b": 2} and made.note("dim") is None
        with pytest.raises(ValueError, match="read_only"):
            made.set_note("x", 1)


# ---- changes during a checkpoint


def test_changes_go_on_during_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the index is made, others upsert, update and delete; none of it is lost or undone."""
    making, changed = threading.Event(), threading.Event()
    real = _checkpoint.new_index

    def paused(parameters: dict[str, Any]) -> Any:
        making.set()
        assert changed.wait(600)
        return real(parameters)

    with Collection(tmp_path / "c", DIM, "l2", checkpoint_rows=None) as made:
        made.upsert([str(n) for n in range(20)], ROWS[:20])
        monkeypatch.setattr(_checkpoint, "new_index", paused)
        saver = threading.Thread(target=made.checkpoint)
        saver.start()
        assert making.wait(600)
        made.upsert(["new"], ROWS[30:31])
        made.update(["3"], ROWS[31:32])
        made.delete(["4"])
        assert made.search(ROWS[31], 1)[0].id == "3"
        changed.set()
        saver.join()
        monkeypatch.undo()
        check(made)
        assert made.pending == 3
        made.checkpoint()
        assert made.pending == 0
        check(made)
    with Collection(tmp_path / "c") as made:
        check(made)


def check(made: Collection) -> None:
    wanted = {*(str(n) for n in range(20) if n != 4), "new"}
    assert {hit.id for hit in made.search(ROWS[0], 100)} == wanted
    for id, row in (("3", 31), ("new", 30), ("5", 5)):
        assert made.search(ROWS[row], 1)[0].id == id
    assert made.search(ROWS[4], 1)[0].distance > 0


def test_two_threads_that_are_due_save_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    real = _checkpoint.save_pending
    monkeypatch.setattr(
        _checkpoint, "save_pending", lambda *given, **more: saved.append(1) or real(*given, **more)
    )
    with Collection(tmp_path / "c", DIM, "l2", checkpoint_rows=10) as made:

        def write(part: int) -> None:
            for step in range(4):
                made.upsert([f"{part}-{step}"], ROWS[step : step + 1])

        threads = [threading.Thread(target=write, args=(part,)) for part in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == len(made.search(ROWS[0], 100)) == 20
        assert 1 <= len(saved) <= 2  # 20 rows, saved at 10: never twice for the same ones
