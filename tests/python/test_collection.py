"""A collection: documents are what was written, and searches see all that was committed."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import vicinal
from vicinal.collection import Collection, Document

DIM = 4
ROWS = np.random.default_rng(0).standard_normal((3000, DIM)).astype(np.float32)


def new(path: Path, **options: Any) -> Collection:
    return Collection(path, **{"dim": DIM, "metric": "l2", **options})


def filled(path: Path, count: int = 20, **options: Any) -> Collection:
    made = new(path, **options)
    made.upsert(
        [f"d{i}" for i in range(count)],
        ROWS[:count],
        [f"text {i}" for i in range(count)],
        [{"n": i, "even": i % 2 == 0} for i in range(count)],
    )
    return made


def nearest(rows: np.ndarray, query: np.ndarray, k: int) -> list[int]:
    """Return the positions of the nearest rows, in order."""
    far = ((rows.astype(np.float64) - query) ** 2).sum(axis=1)
    return np.argsort(far, kind="stable")[:k].tolist()


# ---- verbs


def test_documents_come_back_as_they_were_written(tmp_path: Path) -> None:
    metadata = {
        "n": 1,
        "s": "ä\n\"'",
        "f": 0.5,
        "t": True,
        "none": None,
        "l": [1, "a"],
        "o": {"x": {}},
    }
    with new(tmp_path / "c") as made:
        made.upsert(["a", "", "é"], ROWS[:3], ["one", None, ""], [metadata, None, {}])
        assert made.get(["é", "a", "unknown", ""]) == [
            Document("é", "", {}),
            Document("a", "one", metadata),
            Document("", None, {}),
        ]
        (found,) = made.get("a", vectors=True)
        np.testing.assert_array_equal(found.vector, ROWS[0])
        assert len(made) == 3 and "" in made and "b" not in made
    with Collection(tmp_path / "c") as again:
        assert (again.dim, again.metric) == (DIM, "l2")
        assert again.get("a") == [Document("a", "one", metadata)]


def test_one_document_needs_no_lists(tmp_path: Path) -> None:
    with new(tmp_path / "c") as made:
        made.upsert("abc", ROWS[0], "text", {"n": 1})
        assert made.get("abc") == [Document("abc", "text", {"n": 1})]
        assert made.search(ROWS[0], 3)[0].id == "abc"


def test_upsert_replaces_whole_documents_and_update_parts(tmp_path: Path) -> None:
    with filled(tmp_path / "c") as made:
        made.upsert(["d1"], ROWS[50:51])
        assert made.get("d1") == [Document("d1", None, {})]
        made.update(["d2"], texts=["other"])
        assert made.get("d2") == [Document("d2", "other", {"n": 2, "even": True})]
        made.update("d2", metadata={"m": 1})
        assert made.get("d2") == [Document("d2", "other", {"m": 1})]
        made.update(["d3"], ROWS[60:61])
        assert made.search(ROWS[60], 1)[0].id == "d3"
        assert made.search(ROWS[3], 1)[0].id != "d3"
        assert made.get("d3")[0].text == "text 3"


def test_add_and_update_refuse_and_change_nothing(tmp_path: Path) -> None:
    with filled(tmp_path / "c") as made:
        with pytest.raises(
            ValueError, match="ids: 'd5' at position 1 is already in the collection"
        ):
            made.add(["x", "d5"], ROWS[:2])
        with pytest.raises(KeyError, match="ids: 'x' is not in the collection"):
            made.update(["d5", "x"], texts=["changed", "changed"])
        assert len(made) == 20 and made.get("d5")[0].text == "text 5"
        assert "x" not in made


def test_delete(tmp_path: Path) -> None:
    with filled(tmp_path / "c") as made:
        assert made.delete(["d1", "unknown"]) == 1
        assert made.delete(where={"field": "n", "op": "gte", "value": 15}) == 5
        assert made.delete(["d2", "d3"], {"field": "even", "op": "eq", "value": True}) == 1
        assert len(made) == 13
        left = {hit.id for hit in made.search(ROWS[1], 100)}
        assert left == {f"d{i}" for i in range(15)} - {"d1", "d2"}
        assert made.delete(where={"and": []}) == 13
        assert made.search(ROWS[1], 100) == [] and made.count() == 0


def test_metadata_by_key(tmp_path: Path) -> None:
    with filled(tmp_path / "c") as made:
        low = {"field": "n", "op": "lt", "value": 3}
        assert made.update_metadata(low, {"low": True, "even": None}) == 3
        assert made.get("d2")[0].metadata == {"n": 2, "even": None, "low": True}
        assert made.update_metadata(values={"low": False}, ids=["d2", "d9", "unknown"]) == 2
        assert made.distinct("low") == [False, True]
        assert made.count({"field": "low", "op": "eq", "value": True}) == 2


def test_what_fields_have(tmp_path: Path) -> None:
    with new(tmp_path / "c") as made:
        values: list[Any] = [3, "b", 1.5, True, None, ["a", "b", 1], {"x": 1}, "a"]
        ids = [str(i) for i in range(len(values) + 1)]
        made.upsert(ids, ROWS[: len(ids)], metadata=[*({"v": v} for v in values), {}])
        assert made.distinct("v") == [True, 1, 1.5, 3, "a", "b"]
        assert made.min_max("v") == (1.5, 3)
        assert made.min_max("v", {"field": "v", "op": "in", "value": ["a", "b"]}) == ("a", "b")
        assert made.min_max("w") is None and made.distinct("w") == []
        assert made.distinct(["v", "x"]) == [1]


def test_get_pages_and_scroll(tmp_path: Path) -> None:
    with filled(tmp_path / "c") as made:
        odd = {"field": "even", "op": "eq", "value": False}
        assert [d.id for d in made.get(where=odd, limit=3, offset=2)] == ["d5", "d7", "d9"]
        assert len(made.get()) == 20 and made.get(limit=0) == []
        assert [d.id for d in made.get(["d3", "d2", "d1"], odd)] == ["d3", "d1"]
        met = []
        for document in made.scroll(odd, batch_size=3, vectors=True):
            np.testing.assert_array_equal(document.vector, ROWS[document.metadata["n"]])
            met.append(document.id)
            made.delete(["d9"])
        assert met == [f"d{i}" for i in range(1, 20, 2) if i != 9]


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_hits_have_distances_and_scores(tmp_path: Path, metric: str) -> None:
    index = vicinal.Index(DIM, metric)
    index.add(ROWS[:20])
    ids, distances = index.search(ROWS[30], 5)
    with filled(tmp_path / "c", metric=metric) as made:
        for _ in range(2):  # pending, then saved
            hits = made.search(ROWS[30], 5, vectors=True)
            assert [hit.id for hit in hits] == [f"d{i}" for i in ids]
            assert [hit.distance for hit in hits] == distances.tolist()
            assert [hit.score for hit in hits] == [1 - far for far in distances.tolist()]
            np.testing.assert_array_equal([hit.vector for hit in hits], index.get(ids))
            made.checkpoint()
        many = made.search(ROWS[30:33], 5)
        assert [len(hits) for hits in many] == [5, 5, 5] and many[0][0].id == hits[0].id


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "uint8"])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_stored_types(tmp_path: Path, dtype: str, metric: str) -> None:
    rows = np.random.default_rng(3).integers(1, 100, (40, DIM))
    index = vicinal.Index(DIM, metric, dtype=dtype)
    index.add(rows)
    ids, distances = index.search(rows[:3], 5)
    with new(tmp_path / "c", metric=metric, dtype=dtype) as made:
        made.upsert([str(i) for i in range(40)], rows)
        for _ in range(2):  # pending, then saved
            for hits, wanted, far in zip(made.search(rows[:3], 5), ids, distances, strict=True):
                assert [hit.distance for hit in hits] == far.tolist()
                assert {int(hit.id) for hit in hits[:3]} == set(wanted[:3].tolist())
            made.checkpoint()
        vectors = [each.vector for each in made.get(vectors=True)]
        np.testing.assert_array_equal(vectors, index.get(index.ids))
        with pytest.raises(ValueError, match="vectors: row 1 "):
            made.upsert(["a", "b"], [[1] * DIM, [1e30] * DIM])
        assert made.count() == 40


def test_texts_are_embedded(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def embed(texts: list[str]) -> list[list[float]]:
        asked.append(texts)
        return [[len(text), 1, 0, 0] for text in texts]

    with new(tmp_path / "c", embed=embed) as made:
        made.upsert(["a", "b"], texts=["x", "xxxxx"])
        assert made.search("xxxx", 1)[0].id == "b"
        made.update(["a"], texts=["xxxx"])
        assert made.search("xxxx", 1)[0].id == "a"
        assert asked == [["x", "xxxxx"], ["xxxx"], ["xxxx"], ["xxxx"]]
        with pytest.raises(ValueError, match="texts: expected a text to embed at position 1"):
            made.upsert(["c", "d"], texts=["x", None])
    with new(tmp_path / "c") as made, pytest.raises(TypeError, match="needs embed="):
        made.search("xxxx")


def test_async_twins(tmp_path: Path) -> None:
    async def use() -> None:
        made = new(tmp_path / "c")
        await made.aupsert(["a", "b"], ROWS[:2], metadata=[{"n": 1}, {"n": 2}])
        found = await asyncio.gather(*(made.asearch(ROWS[i % 2], 1) for i in range(20)))
        assert [hits[0].id for hits in found] == ["a", "b"] * 10
        assert await made.acount() == 2 and (await made.aget("a"))[0].metadata == {"n": 1}
        assert await made.adelete(["a"]) == 1
        with pytest.raises(KeyError):
            await made.aupdate(["a"], ROWS[:1])
        await made.acheckpoint()
        await made.aclose()

    asyncio.run(use())


def test_documents_without_a_vector(tmp_path: Path) -> None:
    with new(tmp_path / "c") as made:
        made.upsert(["a", "b", "c"], [ROWS[0], None, ROWS[2]], ["x", "y", "z"])
        for _ in range(2):
            assert made.count() == 3 and len(made.get()) == 3
            assert [hit.id for hit in made.search(ROWS[0], 5)] == ["a", "c"]
            assert [d.vector is None for d in made.get(vectors=True)] == [False, True, False]
            where = {"attribute": "text", "op": "in", "value": ["y", "z"]}
            assert [hit.id for hit in made.search(ROWS[0], 5, where)] == ["c"]
            made.checkpoint()
        made.update(["b"], ROWS[:1])
        made.update(["a"], [None])
        assert [hit.id for hit in made.search(ROWS[0], 5)] == ["b", "c"]
        assert made.get("a", vectors=True)[0].vector is None
        made.checkpoint()
        assert [hit.id for hit in made.search(ROWS[0], 5)] == ["b", "c"]
        with pytest.raises(ValueError, match="vectors: expected 2, one for each id, got 3"):
            made.upsert(["a", "b"], [None, None, None])


# ---- what is refused


REFUSED = [
    ({"ids": [1], "vectors": ROWS[:1]}, TypeError, "ids: "),
    ({"ids": ["a", "a"], "vectors": ROWS[:2]}, ValueError, "ids: 'a' stands at position 0 and"),
    ({"ids": ["\ud800"], "vectors": ROWS[:1]}, ValueError, "ids: position 0: expected Unicode"),
    ({"ids": ["a"], "vectors": None}, ValueError, "vectors: expected vectors, got None"),
    ({"ids": ["a"], "vectors": ROWS[:2]}, ValueError, r"vectors: expected \(1, 4\), got \(2, 4\)"),
    ({"ids": ["a"], "vectors": [[1, 2, 3]]}, ValueError, r"vectors: expected \(n, 4\) or"),
    ({"ids": ["a"], "vectors": [[1, 2, 3, np.nan]]}, ValueError, "vectors: row 0 holds NaN"),
    (
        {"ids": ["a"], "vectors": ROWS[:1], "texts": ["a", "b"]},
        ValueError,
        "texts: expected 1, one",
    ),
    (
        {"ids": ["a"], "vectors": ROWS[:1], "texts": [5]},
        TypeError,
        "texts: expected strings or None",
    ),
    (
        {"ids": ["a"], "vectors": ROWS[:1], "texts": ["\ud800"]},
        ValueError,
        "texts: position 0: expected",
    ),
    (
        {"ids": ["a"], "vectors": ROWS[:1], "metadata": ["a"]},
        TypeError,
        "metadata: position 0: expected",
    ),
    (
        {"ids": ["a"], "vectors": ROWS[:1], "metadata": {"n": 1}},
        TypeError,
        "metadata: expected a list",
    ),
    (
        {"ids": ["a"], "vectors": ROWS[:1], "metadata": [{"n": np.nan}]},
        ValueError,
        "metadata: position 0",
    ),
    (
        {"ids": ["a"], "vectors": ROWS[:1], "metadata": [{"n": object()}]},
        TypeError,
        "metadata: position",
    ),
    (
        {"ids": ["a"], "vectors": ROWS[:1], "metadata": [{1: 1}]},
        TypeError,
        "expected strings as keys",
    ),
]


@pytest.mark.parametrize(("arguments", "kind", "message"), REFUSED)
def test_bad_documents(tmp_path: Path, arguments: Any, kind: Any, message: str) -> None:
    with filled(tmp_path / "c", 2) as made:
        with pytest.raises(kind, match=f"^{message}|{message}"):
            made.upsert(**arguments)
        assert len(made) == 2


def test_the_row_that_is_wrong_is_named_in_large_batches(tmp_path: Path) -> None:
    rows = ROWS[:2500].copy()
    rows[2017, 2] = np.inf
    with new(tmp_path / "c") as made:
        with pytest.raises(ValueError, match="vectors: row 2017 holds NaN"):
            made.upsert([str(i) for i in range(2500)], rows)
        assert made.count() == 0


def test_other_bad_arguments(tmp_path: Path) -> None:
    with filled(tmp_path / "c", 5) as made:
        for call, kind, message in [
            (lambda: made.search(ROWS[0], 0), ValueError, "k: expected a whole number from 1"),
            (lambda: made.search(ROWS[0, :3]), ValueError, "vector: expected"),
            (lambda: made.search([np.nan] * 4), ValueError, "quer|vector"),
            (lambda: made.delete(), ValueError, "ids: expected ids or where, got neither"),
            (lambda: made.update_metadata({"and": []}), TypeError, "values: expected a dict"),
            (lambda: made.update_metadata(values={"a": 1}), ValueError, "got neither"),
            (lambda: made.get(limit=-1), ValueError, "limit: expected"),
            (lambda: made.distinct(5), TypeError, "field: expected a name"),
        ]:
            with pytest.raises(kind, match=message):
                call()
    for call, kind, message in [
        (
            lambda: Collection(tmp_path / "c", dim=5),
            ValueError,
            "dim: the collection was made with 4",
        ),
        (lambda: Collection(tmp_path / "c", metric="ip"), ValueError, "metric: the collection was"),
        (lambda: Collection(tmp_path / "c", M=8), ValueError, "M: the collection was made with 16"),
        (
            lambda: Collection(tmp_path / "c", banana=8),
            TypeError,
            "index_parameters: expected dtype",
        ),
        (lambda: Collection(tmp_path / "new"), ValueError, "dim: expected the dimension"),
        (lambda: Collection(tmp_path / "new", 4, "angle"), ValueError, "metric: expected"),
        (lambda: Collection(tmp_path / "new", read_only=True), FileNotFoundError, "no collection"),
    ]:
        with pytest.raises(kind, match=message):
            call()
    assert not (tmp_path / "new").exists()


def test_a_closed_collection_refuses(tmp_path: Path) -> None:
    made = filled(tmp_path / "c", 5)
    made.close()
    made.close()
    for call in (made.count, made.checkpoint, lambda: made.search(ROWS[0]), lambda: made.get("a")):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        Collection(tmp_path / "file", 4)
    (tmp_path / "c").mkdir()
    other = sqlite3.connect(tmp_path / "c" / "documents.sqlite")
    other.execute("CREATE TABLE t(x)")
    other.close()
    with pytest.raises(vicinal.FormatError, match="none of a collection"):
        Collection(tmp_path / "c", 4)
    (tmp_path / "c" / "documents.sqlite").write_bytes(b"no database at all" * 1000)
    with pytest.raises(vicinal.FormatError, match="damaged"):
        Collection(tmp_path / "c", 4)


def test_ids_and_texts_may_have_any_letters(tmp_path: Path) -> None:
    ids = ["a", "a\0b", "a\0", "\0", " ", "\n", "'", "é", "e\u0301", "\U0001f600"]
    with new(tmp_path / "c") as made:
        texts = [f"{id}\0{id}" for id in ids]
        made.upsert(ids, ROWS[: len(ids)], texts, [{"s": "\\u0000"}] * len(ids))
        assert [(d.id, d.text) for d in made.get(ids)] == list(zip(ids, texts, strict=True))
        chosen = {"attribute": "id", "op": "in", "value": ["a\0b", "é"]}
        assert [d.id for d in made.get(where=chosen)] == ["a\0b", "é"]
        assert made.count({"field": "s", "op": "eq", "value": "\\u0000"}) == len(ids)
        with pytest.raises(ValueError, match="metadata: position 0: expected strings without NUL"):
            made.upsert(["x"], ROWS[:1], metadata=[{"s": "\\\0"}])
        assert made.delete(["a\0b"]) == 1
        assert made.update_metadata(values={"n": 1}, ids=["a\0", "a"]) == 2
        assert "a" in made and "a\0" in made and "a\0b" not in made


# ---- checkpoints, and who sees what


def test_a_checkpoint_changes_no_answer(tmp_path: Path) -> None:
    queries = ROWS[-20:]
    place = {}
    with new(tmp_path / "c", checkpoint_rows=None) as made:
        for start in range(0, 1800, 600):
            numbers = range(start, start + 600)
            made.upsert([str(i) for i in numbers], ROWS[start : start + 600])
            made.delete([str(i) for i in numbers[::7]])
            place |= {str(i): i for i in numbers if i not in numbers[::7]}
            before = made.search(queries, 10, ef_search=2000)
            made.checkpoint()
            assert made.search(queries, 10, ef_search=2000) == before
            moved = 2900 + start // 600
            made.update([str(start + 1)], ROWS[moved : moved + 1])
            place[str(start + 1)] = moved
            assert made.search(ROWS[moved], 1)[0].id == str(start + 1)
        assert [name[:7] for name in os.listdir(tmp_path / "c")].count("vectors") == 1
        made.compact()
    with Collection(tmp_path / "c") as again:
        assert {document.id for document in again.scroll(batch_size=500)} == set(place)
        names, rows = list(place), ROWS[list(place.values())]
        for query in queries:
            found = again.search(query, 10, ef_search=2000)
            assert [hit.id for hit in found] == [names[i] for i in nearest(rows, query, 10)]


def test_checkpoints_come_by_themselves(tmp_path: Path) -> None:
    with new(tmp_path / "c", checkpoint_rows=100) as made:
        for i in range(0, 250, 25):
            made.upsert([str(j) for j in range(i, i + 25)], ROWS[i : i + 25])
        database = sqlite3.connect(tmp_path / "c" / "documents.sqlite")
        assert database.execute("SELECT count(*) FROM pending").fetchone() == (50,)
        database.close()
        assert len(made.search(ROWS[0], 1000)) == 250


def test_another_object_of_the_process_follows_and_writes(tmp_path: Path) -> None:
    first, second = new(tmp_path / "c"), new(tmp_path / "c")
    for number in range(6):
        writer, reader = (first, second) if number % 2 else (second, first)
        writer.upsert([str(number)], ROWS[number : number + 1])
        assert [hit.id for hit in reader.search(ROWS[number], 1)] == [str(number)]
        if number % 3 == 2:
            writer.checkpoint()
        assert len(reader) == number + 1
        assert len(reader.search(ROWS[0], 100)) == number + 1
    first.close()
    second.upsert(["after"], ROWS[9:10])
    second.close()


OTHER = """
    import sys
    import numpy as np
    from vicinal.collection import Collection
    path = sys.argv[1]
    rows = np.eye(4, dtype="f4")
    for line in sys.stdin:
        command, *rest = line.split()
        if command == "open":
            made = Collection(path, dim=4, metric="l2")
        try:
            if command == "upsert":
                made.upsert(rest, rows[: len(rest)])
            elif command == "checkpoint":
                made.checkpoint()
            elif command == "close":
                made.close()
            print(",".join(sorted(hit.id for hit in made.search(rows[0], 100)))
                  if command != "close" else "closed", flush=True)
        except BlockingIOError as error:
            print("another process is writing" in str(error), flush=True)
"""


def test_two_processes(tmp_path: Path) -> None:
    """The first that writes is the writer until it closes; the other one follows it."""
    from support.processes import start

    first, second = (start(OTHER, tmp_path / "c") for _ in range(2))

    def tell(process: Any, command: str) -> str:
        process.stdin.write(command + "\n")
        process.stdin.flush()
        return str(process.stdout.readline().strip())

    try:
        assert tell(first, "open") == "" and tell(second, "open") == ""
        assert tell(first, "upsert a b") == "a,b"
        assert tell(second, "look") == "a,b"
        assert tell(second, "upsert c") == "True"
        assert tell(second, "checkpoint") == "True"
        assert tell(first, "checkpoint") == "a,b"
        assert tell(second, "look") == "a,b"
        assert tell(first, "upsert c") == "a,b,c"
        assert tell(second, "look") == "a,b,c"
        assert tell(first, "close") == "closed"
        assert tell(second, "upsert d") == "a,b,c,d"
    finally:
        for process in (first, second):
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors


def test_searches_of_threads_see_whole_changes(tmp_path: Path) -> None:
    """A writer moves ten documents at once; whoever searches finds all of them at one place."""
    made = new(tmp_path / "c", checkpoint_rows=60, synchronous="normal")
    ids = [str(i) for i in range(10)]
    made.upsert(ids, np.full((10, DIM), 0.0), metadata=[{"step": 0}] * 10)
    wrong: list[Any] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            hits = made.search(np.zeros(DIM), 100)
            seen = {(hit.metadata["step"], hit.distance) for hit in hits}
            step, distance = next(iter(seen))
            if len(hits) != 10 or len(seen) != 1 or distance != DIM * step**2:
                wrong.append(seen)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for step in range(1, 40):
            made.upsert(ids, np.full((10, DIM), step), metadata=[{"step": step}] * 10)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    made.close()
    assert wrong == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_reads(tmp_path: Path) -> None:
    with filled(tmp_path / "c") as made:
        made.search(ROWS[0], 1)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                good = made.search(ROWS[3], 1)[0].id == "d3" and made.count() == 20
                try:
                    made.upsert(["new"], ROWS[:1])
                except BlockingIOError:
                    status = 0 if good else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        made.upsert(["new"], ROWS[40:41])  # the parent has the right as before
        assert made.search(ROWS[40], 1)[0].id == "new"


def test_a_collection_that_is_forgotten_gives_the_right_back(tmp_path: Path) -> None:
    filled(tmp_path / "c")
    gc.collect()
    code = (
        "import sys; from vicinal.collection import Collection\n"
        "Collection(sys.argv[1]).upsert(['x'], [[1, 2, 3, 4]])"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "c"], check=True, env=dict(os.environ))


def test_the_import_of_vicinal_needs_no_sqlite() -> None:
    code = (
        "import sys, vicinal; assert 'sqlite3' not in sys.modules\n"
        "vicinal.Collection; assert 'sqlite3' in sys.modules and 'tantivy' not in sys.modules\n"
        "assert 'asyncio' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


@pytest.mark.skipif(find_spec("tantivy") is not None, reason="tantivy is installed")
def test_words_need_an_extra(tmp_path: Path) -> None:
    with (
        filled(tmp_path / "c") as made,
        pytest.raises(ImportError, match=r"pip install 'vicinal\[hybrid\]'"),
    ):
        made.search_text("text")


# ---- a model


class Histories(RuleBasedStateMachine):
    """Any history of changes, checkpoints and reopenings is what a dict of documents would be."""

    NAMES = st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=5, unique=True)

    @initialize()
    def begin(self) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.made = new(Path(self.folder.name) / "c", synchronous="normal", checkpoint_rows=8)
        self.model: dict[str, tuple[int, str | None, dict[str, Any]]] = {}
        self.draw = 0

    def _rows(self, count: int) -> tuple[list[int], np.ndarray]:
        # no two of a history are the same: which of equally near ones are found is not settled
        places = list(range(self.draw, self.draw + count))
        self.draw += count
        return places, ROWS[places]

    @rule(ids=NAMES)
    def upsert(self, ids: list[str]) -> None:
        places, rows = self._rows(len(ids))
        metadata = [{"n": place} for place in places]
        self.made.upsert(ids, rows, [f"t{place}" for place in places], metadata)
        for id, place, item in zip(ids, places, metadata, strict=True):
            self.model.pop(id, None) if id not in self.model else None
            self.model[id] = (place, f"t{place}", item)

    @rule(ids=NAMES)
    def update(self, ids: list[str]) -> None:
        places, rows = self._rows(len(ids))
        if not set(ids) <= set(self.model):
            with pytest.raises(KeyError):
                self.made.update(ids, rows)
            return
        self.made.update(ids, rows)
        for id, place in zip(ids, places, strict=True):
            self.model[id] = (place, *self.model[id][1:])

    @rule(ids=NAMES)
    def delete(self, ids: list[str]) -> None:
        assert self.made.delete(ids) == len(set(ids) & set(self.model))
        for id in ids:
            self.model.pop(id, None)

    @rule(bound=st.integers(0, 100))
    def set_metadata(self, bound: int) -> None:
        self.made.update_metadata({"field": "n", "op": "lt", "value": bound}, {"low": bound})
        for _place, _text, metadata in list(self.model.values()):
            if metadata["n"] < bound:
                metadata["low"] = bound

    @rule()
    def checkpoint(self) -> None:
        self.made.checkpoint()

    @precondition(lambda self: self.model)
    @rule()
    def reopen(self) -> None:
        self.made.close()
        self.made = new(Path(self.folder.name) / "c", synchronous="normal", checkpoint_rows=8)

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "made"):
            return
        documents = {d.id: (d.text, d.metadata) for d in self.made.get()}
        assert documents == {id: each[1:] for id, each in self.model.items()}
        places = {id: place for id, (place, _, _) in self.model.items()}
        ordered = list(places)
        query = ROWS[2950]
        wanted = (
            [ordered[i] for i in nearest(ROWS[list(places.values())], query, 4)] if places else []
        )
        assert [hit.id for hit in self.made.search(query, 4)] == wanted
        odd = [id for id in ordered if self.model[id][2]["n"] % 2 and self.model[id][2]["n"] < 50]
        where = {"field": "n", "op": "in", "value": list(range(1, 50, 2))}
        near = nearest(ROWS[[places[id] for id in odd]], query, 3) if odd else []
        assert [hit.id for hit in self.made.search(query, 3, where)] == [odd[i] for i in near]

    def teardown(self) -> None:
        if hasattr(self, "made"):
            self.made.close()
            self.folder.cleanup()


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
