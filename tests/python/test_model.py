"""The whole API in random order, compared step by step with a dictionary (`tests/model.py`)."""

from __future__ import annotations

import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import vicinal
from fuzz.use import KINDS, small_index
from model import Model, asked_as, draw, stored_as

EXAMPLES = int(os.environ.get("VICINAL_MODEL_EXAMPLES", "100"))
ROOM = "/dev/shm" if os.path.isdir("/dev/shm") else None  # saving waits for a disk
EVERY_ROW = 1 << 20  # a search this wide measures all rows
SEEDS = st.integers(0, 10**6)
THREADS = st.sampled_from([1, 2])


class Machine(RuleBasedStateMachine):
    """Every rule does one thing to the index and the model; afterwards they must agree."""

    @initialize(kind=st.sampled_from(KINDS), dim=st.sampled_from([3, 17, 40]))
    def make(self, kind: tuple[str, str, str | None], dim: int) -> None:
        metric, dtype, codes = kind
        self.folder = Path(tempfile.mkdtemp(prefix="vicinal-model-", dir=ROOM))
        self.index = small_index(metric, dtype, codes, dim, 0)
        self.model = Model(metric, dtype, dim)

    def teardown(self) -> None:
        for file in self.folder.iterdir():
            file.unlink()
        self.folder.rmdir()

    def known(self, seed: int, most: int) -> np.ndarray:
        """Some ids of the index, each once."""
        ids = np.array(sorted(self.model.rows), np.int64)
        rng = np.random.default_rng(seed)
        return rng.choice(ids, min(int(rng.integers(0, most + 1)), len(ids)), replace=False)

    def unknown(self, seed: int, count: int) -> np.ndarray:
        """Ids that are not in the index."""
        rng = np.random.default_rng(seed)
        ids = rng.choice(np.append(np.arange(-99, 5000), [2**62, -(2**63)]), 3 * count + 3, False)
        return np.array([i for i in ids if int(i) not in self.model.rows][:count], np.int64)

    def refuses(self, error: type[Exception], method: str, *arguments: object) -> None:
        with pytest.raises(error):
            getattr(self.index, method)(*arguments)

    # ---- changing

    @rule(seed=SEEDS, count=st.integers(0, 30), own=st.booleans(), threads=THREADS)
    def add(self, seed: int, count: int, own: bool, threads: int) -> None:
        values = draw(seed, count, self.model.dim)
        if count > 4:
            values[-2:] = values[0]  # copies
        ids = self.unknown(seed, count) if own else None
        if ids is None and self.model.largest > 2**61:
            return
        given = stored_as(values, self.model.dtype)
        got = self.index.add(given, ids, num_threads=threads)
        if ids is None:
            first = max(self.model.largest, len(self.model.rows) - 1) + 1
            np.testing.assert_array_equal(got, np.arange(first, first + count))
        else:
            np.testing.assert_array_equal(got, ids)
        assert got.shape == (count,) and got.dtype == np.int64
        self.model.put(got, values)

    @rule(seed=SEEDS)
    def add_nothing_bad(self, seed: int) -> None:
        """Whatever is wrong with one row, none is added."""
        good = stored_as(draw(seed, 3, self.model.dim), self.model.dtype)
        ids = self.unknown(seed, 3)
        self.refuses(ValueError, "add", good, ids[[0, 1, 0]])
        self.refuses(ValueError, "add", good, ids[:2])
        self.refuses(ValueError, "add", good[:, :-1])
        self.refuses(TypeError, "add", good, ids.astype(float))
        if self.model.rows:
            self.refuses(ValueError, "add", good, np.append(ids[:2], next(iter(self.model.rows))))
        if self.model.dtype in ("float32", "float16"):
            bad = good.copy()
            bad[2, 0] = np.nan
            self.refuses(ValueError, "add", bad, ids)

    @rule(seed=SEEDS)
    def remove(self, seed: int) -> None:
        ids = self.known(seed, 25)
        self.index.remove(ids)
        self.model.drop(ids)

    @rule(seed=SEEDS)
    def remove_unknown(self, seed: int) -> None:
        ids = np.append(self.known(seed, 3), self.unknown(seed, 1))
        self.refuses(KeyError, "remove", ids)

    @rule()
    def remove_everything(self) -> None:
        ids = np.array(list(self.model.rows), np.int64)
        self.index.remove(ids)
        self.model.drop(ids)

    @rule(seed=SEEDS)
    def update(self, seed: int) -> None:
        ids = self.known(seed, 12)
        values = draw(seed + 1, len(ids), self.model.dim)
        self.index.update(stored_as(values, self.model.dtype), ids)
        self.model.put(ids, values)

    @rule()
    def compact(self) -> None:
        self.index.compact()

    @rule(seed=SEEDS, skip=st.booleans())
    def add_with_conflicts(self, seed: int, skip: bool) -> None:
        ids = np.append(self.known(seed, 5), self.unknown(seed, 4))
        values = draw(seed, len(ids), self.model.dim)
        given = stored_as(values, self.model.dtype)
        self.index.add(given, ids, on_conflict="skip" if skip else "update")
        new = [i for i, id_ in enumerate(ids.tolist()) if id_ not in self.model.rows or not skip]
        self.model.put(ids[new], values[new])

    # ---- asking

    @rule(seed=SEEDS, k=st.integers(1, 12), ef=st.integers(1, 30), threads=THREADS)
    def search(self, seed: int, k: int, ef: int, threads: int) -> None:
        queries = draw(seed, 3, self.model.dim)
        asked = asked_as(queries, self.model.dtype)
        for width in (ef, EVERY_ROW):
            found = self.index.search(asked, k, ef_search=width, num_threads=threads)
            for ids, distances, query in zip(found.ids, found.distances, queries, strict=True):
                self.model.assert_answer(ids, distances, query, exact=width == EVERY_ROW)
            one = self.index.search(asked[0], k, ef_search=width)
            np.testing.assert_array_equal(one.ids, found.ids[0])

    @rule(seed=SEEDS, k=st.integers(1, 12))
    def search_some(self, seed: int, k: int) -> None:
        allowed = self.known(seed, 20)
        query = draw(seed, 1, self.model.dim)[0]
        asked = asked_as(query, self.model.dtype)
        found = self.index.search(asked, k, ef_search=EVERY_ROW, filter=allowed)
        some = Model(self.model.metric, self.model.dtype, self.model.dim)
        some.rows = {id_: self.model.rows[id_] for id_ in allowed.tolist()}
        some.assert_answer(found.ids, found.distances, query, exact=True)

    @rule(seed=SEEDS, nearest=st.integers(0, 20))
    def search_around(self, seed: int, nearest: int) -> None:
        """Everything nearer than some row, and that row."""
        query = draw(seed, 1, self.model.dim)[0]
        asked = asked_as(query, self.model.dtype)
        ids, distances, _ = self.index.range_search(asked, np.inf, ef_search=EVERY_ROW)
        assert sorted(ids.tolist()) == sorted(self.model.rows)
        if len(distances) > nearest:
            radius = float(distances[nearest])
            near = self.index.range_search(asked, radius, ef_search=EVERY_ROW)
            np.testing.assert_array_equal(near.distances, distances[distances <= radius])
            self.model.assert_answer(near.ids, near.distances, query, exact=False)

    @rule(seed=SEEDS)
    def look_up(self, seed: int) -> None:
        ids, others = self.known(seed, 5), self.unknown(seed, 2)
        assert all(int(id_) in self.index for id_ in ids)
        assert not any(int(id_) in self.index for id_ in others)
        self.refuses(KeyError, "get", np.append(ids, others[:1]))

    # ---- keeping

    @rule()
    def save_and_open(self) -> None:
        self.index.save(self.folder / "file")
        opened = vicinal.open(self.folder / "file", verify=True)
        self.model.assert_holds(opened)
        np.testing.assert_array_equal(opened.ids, self.index.ids)

    @rule()
    def go_on_with_a_copy(self) -> None:
        self.index.save(self.folder / "file")
        self.index = vicinal.open(self.folder / "file", mode="copy", verify=True)

    @rule()
    def go_on_with_a_pickle(self) -> None:
        self.index = pickle.loads(pickle.dumps(self.index))

    @rule()
    def go_on_with_a_copy_in_memory(self) -> None:
        self.index = self.index.copy()

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "index"):
            self.model.assert_holds(self.index)


def test_the_api_does_what_a_dictionary_would() -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=25,
            deadline=None,
            derandomize="VICINAL_MODEL_EXAMPLES" not in os.environ,
            suppress_health_check=list(HealthCheck),
        ),
    )
