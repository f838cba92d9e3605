"""trace and why_not: what they tell is what search does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import vicinal
from support.rows import dims, stored
from vicinal._self_test import graphs

RNG = np.random.default_rng(3)
DIM = 40


def rows_of(dtype: str, count: int, seed: int) -> np.ndarray:
    """Whole numbers, so that each kind of codes can hold them, near a plane of six dimensions."""
    rng = np.random.default_rng(seed)
    plane = np.random.default_rng(0).standard_normal((6, DIM))
    rows = 45 + 7 * rng.standard_normal((count, 6)) @ plane + rng.integers(-3, 4, (count, DIM))
    rows = np.clip(np.rint(rows), -100 if dtype == "int8" else 1, 120)
    return stored(rows, dtype)


@pytest.fixture(scope="module")
def built() -> Callable[..., vicinal.Index]:
    """Poor graphs, so that rows get lost; each is made once."""
    made: dict[Any, vicinal.Index] = {}

    def build(metric: str, dtype: str, quantization: str | None, ids: str) -> vicinal.Index:
        key = metric, dtype, quantization, ids
        if key not in made:
            index = vicinal.Index(
                dims(DIM, dtype),
                metric,
                dtype=dtype,
                M=6,
                ef_construction=12,
                quantization=quantization,
                ids=ids,
            )
            names = 5 * np.arange(2500) - 3
            index.add(rows_of(dtype, 2500, 1), [f"r{i}" for i in names] if ids == "str" else names)
            made[key] = index
        return made[key]

    return build


def replay(trace: vicinal.Trace) -> None:
    """Check each step against what a walk is, with lists and sets."""
    beam: dict[Any, float] = {}
    expanded: set[Any] = set()
    seen: set[Any] = set()
    level = None
    for number, step in enumerate(trace):
        assert step.number == number
        measured = dict(zip(step.measured.ids, step.measured.distances, strict=True))
        if step.level != level:
            assert level is None or step.level == level - 1
            level = step.level
            started = step.level == 0
            beam = {} if started else {step.id: step.distance}
            count = 0
        count += len(step.measured.ids)
        assert step.visited == count
        if step.level == 0:
            assert len(measured) == len(step.measured.ids)
            assert not seen & set(measured), "a row is measured once"
            seen |= set(measured)
            if started:
                assert list(measured) == [step.id]
                started = False
            else:
                # the nearest candidate that was not expanded yet
                assert step.id not in expanded
                nearest = min(d for id, d in beam.items() if id not in expanded)
                assert step.distance == beam[step.id] == nearest
                expanded.add(step.id)
        width = trace.kept if step.level == 0 else 1
        left_out: set[Any] = set()
        if trace.far is not None and step.level == 0:
            # rows so far that the walk would end before it expanded them
            left_out = set(measured) - set(step.beam.ids)
            if len(step.beam.ids) == trace.kept:
                last = step.beam.distances[-1]
                left_out = {id for id in left_out if measured[id] < last}
            nearby = sorted(beam.values())[max(trace.k, 8) - 1 :]
            assert all(measured[id] > (trace.far - 0.01) * nearby[0] for id in left_out)
        both = {id: d for id, d in {**beam, **measured}.items() if id not in left_out}
        kept = np.sort(np.array(list(both.values()), np.float32))[:width]
        np.testing.assert_array_equal(step.beam.distances, kept)
        now = dict(zip(step.beam.ids, step.beam.distances, strict=True))
        assert all(both[id] == distance for id, distance in now.items())
        gone = dict(zip(step.evicted.ids, step.evicted.distances, strict=True))
        assert set(gone) == set(beam) - set(now)
        assert (np.diff(step.evicted.distances) >= 0).all()
        beam = now
    assert level == 0
    nearest = [int(id) if isinstance(id, np.integer) else id for id in list(beam)[: trace.width]]
    left = [place for place, id in enumerate(nearest) if id not in expanded]
    if left:  # the walk has ended before all of them were expanded
        nearby = max(trace.k, 8)
        assert trace.width >= 3 * nearby and left[0] >= max(nearby, trace.width // 2)
        assert step.beam.distances[left[0]] > 1.1 * step.beam.distances[nearby - 1]
    assert number + 1 == len(trace)


@pytest.mark.parametrize(("metric", "dtype", "quantization"), graphs())
@pytest.mark.parametrize("ef", [1, 12, 50])
def test_it_replays_the_search(
    built: Any, metric: str, dtype: str, quantization: str | None, ef: int
) -> None:
    index = built(metric, dtype, quantization, "int64")
    for query in rows_of(dtype, 8, 2):
        found = index.search(query, 5, ef_search=ef)
        trace = index.trace(query, 5, ef_search=ef)
        assert np.array_equal(trace.result.ids, found.ids)
        assert np.array_equal(trace.result.distances, found.distances)
        assert not trace.scanned
        assert trace.width == max(ef, 5)
        assert trace.kept == (max(ef, 5 + 5 // 3 + 16) if trace.estimated else trace.width)
        assert trace.estimated == (quantization in ("sq8", "rabitq4"))
        replay(trace)
        *_, last = trace
        if trace.estimated:
            assert min(16, len(last.beam.ids)) <= trace.reranked <= len(last.beam.ids)
            # estimates are near the distances that they stand for
            exact = dict(zip(found.ids, found.distances, strict=True))
            both = [
                (estimate, exact[id])
                for id, estimate in zip(last.beam.ids, last.beam.distances, strict=True)
                if id in exact
            ]
            estimates, distances = np.array(both, np.float64).T
            scale = np.abs(distances).max() + (metric == "ip")
            # rounding to half precision leaves unit vectors a little longer or shorter
            slack = 0.005 if metric == "cosine" and dtype != "float32" else 0.0
            error = np.abs(estimates - distances).max() - slack
            assert error < (0.1 if quantization == "sq8" else 0.3) * scale
        else:
            assert trace.reranked == 0
            assert np.array_equal(last.beam.ids[:5], found.ids)
            assert np.array_equal(last.beam.distances[:5], found.distances)


def test_queries_that_u8_cannot_hold_walk_on_the_rows(built: Any) -> None:
    index = built("l2", "float32", "u8", "int64")
    query = rows_of("float32", 1, 2)[0] + 0.25
    trace = index.trace(query, 5, ef_search=20)
    found = index.search(query, 5, ef_search=20)
    assert not trace.estimated
    assert np.array_equal(trace.result.distances, found.distances)
    replay(trace)


def test_a_traced_index_is_as_before(built: Any) -> None:
    index = built("l2", "float32", "rabitq4", "int64")
    query = rows_of("float32", 1, 2)[0]
    before = index.search(query)
    for _ in range(3):
        steps = list(index.trace(query))
    assert np.array_equal(index.search(query).ids, before.ids)
    again = index.trace(query)
    assert len(steps) == len(again)
    # a trace can be gone through more than once
    assert [step.id for step in again] == [step.id for step in again] == [s.id for s in steps]
    assert repr(again) == f"vicinal.Trace(a walk of {len(again)} steps, k=10, ef_search=64)"


def test_a_step_cannot_be_changed(built: Any) -> None:
    trace = built("l2", "float32", None, "int64").trace(rows_of("float32", 1, 2)[0])
    with pytest.raises(AttributeError):
        next(iter(trace)).level = 3
    with pytest.raises(AttributeError):
        trace.k = 3


@pytest.mark.parametrize("ids", ["int64", "str"])
@pytest.mark.parametrize("count", [0, 3, 300])
def test_a_scan_is_one_step(count: int, ids: str) -> None:
    index = vicinal.Index(DIM, ids=ids)
    rows = rows_of("float32", 300, 1)[:count]
    index.add(rows, [str(i) for i in range(count)] if ids == "str" else None)
    query = rows_of("float32", 1, 2)[0]
    trace = index.trace(query, 5)
    found = index.search(query, 5)
    assert trace.scanned
    assert not trace.estimated
    assert trace.rows == count
    assert list(trace.result.ids) == list(found.ids)
    assert repr(trace) == f"vicinal.Trace(a scan of {count} rows, k=5, ef_search=64)"
    if not count:
        assert list(trace) == []
        return
    (step,) = trace
    held = min(count, 5)
    assert (step.level, step.visited, step.id) == (0, count, found.ids[0])
    assert list(step.beam.ids) == list(step.measured.ids) == list(found.ids[:held])
    assert np.array_equal(step.beam.distances, found.distances[:held])
    assert len(step.evicted.ids) == 0


def test_so_wide_that_it_is_a_scan(built: Any) -> None:
    index = built("cosine", "float32", "rabitq4", "int64")
    trace = index.trace(rows_of("float32", 1, 2)[0], 5, ef_search=2500)
    assert trace.scanned
    assert trace.rows == 2500


# ---- why not


@pytest.mark.parametrize(
    ("metric", "dtype", "quantization"),
    [
        ("l2", "float32", None),
        ("l2", "float32", "rabitq4"),
        ("ip", "float16", "sq8"),
        ("cosine", "bfloat16", "rabitq4"),
        ("l2", "uint8", "u8"),
        ("cosine", "int8", None),
    ],
)
@pytest.mark.parametrize("ids", ["int64", "str"])
def test_why_not(built: Any, metric: str, dtype: str, quantization: str | None, ids: str) -> None:
    index = built(metric, dtype, quantization, ids)
    fates: dict[str, str] = {}
    for query in rows_of(dtype, 12, 2):
        k, ef = 5, 8
        steps = list(index.trace(query, k, ef_search=ef))
        found = index.search(query, k, ef_search=ef)
        near = index.search(query, 12, ef_search=2500)
        true = index.search(query, k, ef_search=2500).ids.tolist()
        for place, id in enumerate(near.ids.tolist()):
            why = index.why_not(query, id, k, ef_search=ef)
            assert why.id == id
            assert why.true_rank == (true.index(id) + 1 if id in true else None)
            np.testing.assert_allclose(why.distance, near.distances[place], rtol=1e-5, atol=1e-6)
            assert (why.fate == "found") == (id in found.ids.tolist())
            measured = [s for s in steps if s.level == 0 and id in s.measured.ids.tolist()]
            kept = [s for s in steps if s.level == 0 and id in s.beam.ids.tolist()]
            evicted = [s for s in steps if s.level == 0 and id in s.evicted.ids.tolist()]
            if why.fate == "found":
                assert found.ids.tolist()[why.rank - 1] == id
                assert why.step == measured[0].number
            elif why.fate == "unreached":
                assert not measured
                assert why.step is why.measured is why.bound is None
            elif why.fate == "refused":
                assert measured
                assert not kept
                assert why.step == measured[0].number
                assert why.measured >= why.bound == measured[0].beam.distances[-1]
            elif why.fate == "evicted":
                assert why.step == evicted[0].number
                assert why.measured >= why.bound
            else:
                assert why.fate == "farther"
                assert id in steps[-1].beam.ids.tolist()
                assert why.true_rank is None or why.true_rank > 1
            fates[why.fate] = str(why)
            follow(index, query, why, k, ef)
    assert "found" in fates
    assert "farther" in fates or "evicted" in fates
    assert "was found, as number" in fates["found"]


def test_all_fates_are_told(built: Any) -> None:
    """In a graph this poor, every way to lose a row occurs."""
    index = built("l2", "float32", None, "int64")
    told = {}
    for query in rows_of("float32", 40, 6):
        for id in index.search(query, 10, ef_search=2500).ids.tolist():
            why = index.why_not(query, id, 3, ef_search=6)
            told[why.fate] = str(why)
            follow(index, query, why, 3, 6)
    assert set(told) == {"found", "farther", "evicted", "refused", "unreached"}
    assert "was never reached" in told["unreached"]
    assert "pushed it out" in told["evicted"]
    assert "when all candidates that could matter were nearer" in told["refused"]


def test_rows_whose_estimates_are_wrong() -> None:
    """Where estimates tell nothing apart all that is kept is measured, nothing is lost behind."""
    rng = np.random.default_rng(0)
    # far from the centre codes are coarse: differences within the heap are below their steps
    rows = rng.standard_normal((3000, DIM)).astype(np.float32)
    rows[:200] = 60 + 0.002 * rng.standard_normal((200, DIM))
    index = vicinal.Index(DIM, quantization="rabitq4", M=16)
    index.add(rows)
    query = rows[0] + 0.0005
    trace = index.trace(query, 5, ef_search=150)
    assert trace.estimated
    assert trace.reranked == trace.kept == 150
    fates = [
        index.why_not(query, int(id), 5, ef_search=150).fate
        for id in index.search(query, 5, ef_search=3000).ids
    ]
    assert "not_reranked" not in fates


def follow(index: vicinal.Index, query: Any, why: vicinal.WhyNot, k: int, ef: int) -> None:
    """Do what an explanation advises: the row is found then."""
    missing = why.rank is None and why.true_rank is not None
    assert bool(why.finds) == missing
    assert ("finds it" in str(why)) == missing
    if missing:
        asked = {"k": k, "ef_search": ef, **why.finds}
        assert why.id in index.search(query, **asked).ids.tolist()
        assert index.trace(query, **asked).scanned == why.scans
        assert all(f"{name}={value}" in str(why) for name, value in why.finds.items())
        assert ("by a scan" in str(why)) == why.scans


def test_advice_about_rows_hard_to_reach() -> None:
    """Far rows behind thousands that are nearly one: some are found by wide walks, some by none."""
    rng = np.random.default_rng(15)
    near = np.ones((4000, 64)) + 1e-6 * rng.standard_normal((4000, 64))
    index = vicinal.Index(64, M=4, quantization=None)
    index.add(near.astype(np.float32))
    for row in (50 * rng.standard_normal((20, 64))).astype(np.float32):
        id = int(index.add(row[None])[0])
        follow(index, row, index.why_not(row, id, 3), 3, 64)


def test_a_scan_is_called_a_scan() -> None:
    why = vicinal.WhyNot(7, "unreached", None, 1, None, 0.5, None, None, {"ef_search": 512}, True)
    assert str(why) == (
        "7 (distance 0.5) was never reached: no row that was expanded links to it; by exact "
        "distance it is number 1; ef_search=512 finds it, by a scan: no walk that was tried does"
    )


@pytest.mark.parametrize(("ef", "fate"), [(8, "unreached"), (600, "found")])
def test_copies_share_the_fate_of_their_original(ef: int, fate: str) -> None:
    """Equal rows: the graph holds one of them, and search finds the others through it."""
    index = vicinal.Index(DIM, M=4, ef_construction=10, quantization=None)
    rows = np.random.default_rng(1).standard_normal((6000, DIM)).astype(np.float32)
    index.add(rows)
    index.add(rows[:2500], np.arange(10_000, 12_500))
    query = np.random.default_rng(2).standard_normal(DIM).astype(np.float32)
    fates = set()
    for id in (id for id in index.search(query, 40, ef_search=8500).ids if id >= 10_000):
        copied = index.why_not(query, id, 40, ef_search=ef)
        original = index.why_not(query, id - 10_000, 40, ef_search=ef)
        assert copied.distance == original.distance
        if original.fate != "found":
            assert (copied.fate, copied.step) == (original.fate, original.step)
            assert (copied.measured, copied.bound) == (original.measured, original.bound)
        else:
            assert copied.fate in ("found", "farther")
            assert (copied.rank or 41) > original.rank
        fates.add(copied.fate)
    assert fate in fates


def test_why_not_of_a_scan() -> None:
    index = vicinal.Index(1)
    index.add([[0.0], [1.0], [2.0], [3.0]])
    assert str(index.why_not([0.2], 1, 2)) == (
        "1 (distance 0.64) was found, as number 2; by exact distance it is number 2"
    )
    why = index.why_not([0.2], 3, 2)
    assert (why.fate, why.rank, why.true_rank, why.step) == ("farther", None, None, 0)
    assert str(why) == (
        "3 (distance 7.84) was left out because nearer rows were found, the last at 0.64; "
        "it is not one of the nearest that were asked for"
    )
    hash(why)


def test_an_id_that_is_minus_one() -> None:
    index = vicinal.Index(1)
    index.add([[0.0], [1.0]], [-1, 4])
    assert index.why_not([5.0], -1, 1).fate == "farther"
    assert index.why_not([5.0], -1, 3).rank == 2


# ---- refused


def test_what_is_refused(built: Any) -> None:
    index = built("cosine", "float32", "rabitq4", "int64")
    query = rows_of("float32", 1, 2)[0]
    for call in (index.trace, lambda *a, **b: index.why_not(a[0], -3, *a[1:], **b)):
        for arguments, named, error, message in [
            ((query[None],), {}, ValueError, r"query: expected \(40,\), got \(1, 40\)"),
            ((query[:5],), {}, ValueError, "query: expected"),
            ((query * np.nan,), {}, ValueError, "query: row 0 holds NaN"),
            ((query * 0,), {}, ValueError, "query: row 0 is a zero vector"),
            ((["a"] * 40,), {}, TypeError, "query: expected an array of real numbers"),
            ((query, 0), {}, ValueError, "k: expected a whole number from 1"),
            ((query, 5), {"ef_search": 0}, ValueError, "ef_search: expected a whole number from 1"),
            ((query, 1.5), {}, TypeError, "k: expected a whole number"),
        ]:
            with pytest.raises(error, match=message):
                call(*arguments, **named)
    with pytest.raises(KeyError, match="id: -2 is not in the index"):
        index.why_not(query, -2)
    with pytest.raises(TypeError, match="id: expected integers"):
        index.why_not(query, "r2")
    with pytest.raises(ValueError, match=r"id: expected one id, got shape \(2,\)"):
        index.why_not(query, [1, 2])
    named = built("l2", "float32", None, "str")
    with pytest.raises(KeyError, match="id: 'nobody' is not in the index"):
        named.why_not(query, "nobody")
    with pytest.raises(TypeError, match="id: expected strings"):
        named.why_not(query, 2)
