"""Search by words, and by words and vectors: in step with the documents whatever happens."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vicinal
from support import processes
from support.pages import run_examples
from support.processes import assert_lived
from vicinal.collection import Collection, Hit

KILLS = int(os.environ.get("VICINAL_COLLECTION_KILLS", "15"))
DIM = 4
WORDS = ["apple", "pear", "plum", "fig", "lime", "date"]


def new(path: Path, **options: Any) -> Collection:
    return Collection(path, **{"dim": DIM, "metric": "l2", **options})


def with_texts(path: Path, texts: list[str | None], **options: Any) -> Collection:
    made = new(path, **options)
    rows = np.random.default_rng(0).standard_normal((len(texts), DIM))
    metadata = [{"n": i} for i in range(len(texts))]
    made.upsert([str(i) for i in range(len(texts))], rows, texts, metadata)
    return made


def ids(hits: list[Hit]) -> list[str]:
    return [hit.id for hit in hits]


# ---- words


def test_every_change_is_seen_by_the_next_search(tmp_path: Path) -> None:
    with with_texts(tmp_path / "c", ["apple pie", "pear", None, "", "apple apple"]) as made:
        assert ids(made.search_text("apple")) == ["4", "0"]
        made.update(["1"], texts=["apple tart with much else in it"])
        made.delete(["4"])
        made.upsert(["new"], [[0] * DIM], ["Apples and an APPLE"])
        assert ids(made.search_text("apple")) == ["0", "new", "1"]
        assert ids(made.search_text("apple", 1)) == ["0"]
        assert ids(made.search_text("pear")) == []
        made.update_metadata(values={"n": 100}, ids=["0"])
        assert made.search_text("pie")[0].metadata == {"n": 100}
        made.checkpoint()
        (hit,) = made.search_text("pie", vectors=True)
        assert hit.score == hit.text_score and hit.distance is None and hit.vector.shape == (DIM,)
    with Collection(tmp_path / "c") as again:
        assert ids(again.search_text("apple")) == ["0", "new", "1"]


def test_signs_mean_nothing(tmp_path: Path) -> None:
    with with_texts(tmp_path / "c", ["C++ and 3.14", "AND OR NOT", 'say "x" (y)']) as made:
        assert ids(made.search_text('c++ "3.14" ) ( AND^2 text:')) == ["0", "1"]
        assert made.search_text("") == made.search_text("+-\"'") == []
        assert ids(made.search_text("NOT")) == ["1"]


@pytest.mark.parametrize(
    ("analyzer", "text", "found", "not_found"),
    [
        ("default", "Crème BRÛLÉE", "creme brulee", "brul"),
        ("en", "running foxes", "run fox", "creme"),
        ("de", "die Häuser", "Haus", "Maus"),
        ("cjk", "东京都的天气", "天气", "北"),
        (lambda text: text.split("-"), "A-b c-", "b c", "b"),
    ],
)
def test_analyzers(tmp_path: Path, analyzer: Any, text: str, found: str, not_found: str) -> None:
    with with_texts(tmp_path / "c", [text], analyzer=analyzer) as made:
        assert ids(made.search_text(found)) == ["0"]
        assert ids(made.search_text(not_found)) == []
    if callable(analyzer):
        with Collection(tmp_path / "c") as made, pytest.raises(ValueError, match="give it again"):
            made.search_text(found)
        with Collection(tmp_path / "c", analyzer=analyzer) as made:
            assert ids(made.search_text(found)) == ["0"]
        with pytest.raises(ValueError, match="the collection was made with 'callable'"):
            Collection(tmp_path / "c", analyzer="en")
    else:
        with Collection(tmp_path / "c") as made:
            assert ids(made.search_text(found)) == ["0"]
        with pytest.raises(
            ValueError, match=f"analyzer: the collection was made with '{analyzer}'"
        ):
            Collection(tmp_path / "c", analyzer="ru")


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="analyzer: expected one of default, cjk"):
        new(tmp_path / "x", analyzer="klingon")
    with with_texts(tmp_path / "c", ["a"]) as made:
        for call, kind, message in [
            (lambda: made.search_text(5), TypeError, "text: expected a string"),
            (lambda: made.search_text("a", 0), ValueError, "k: expected"),
            (lambda: made.search_hybrid("a", [0] * DIM, alpha=2), ValueError, "alpha: expected"),
            (lambda: made.search_hybrid("a", [0] * DIM, method="x"), ValueError, "method"),
            (lambda: made.search_hybrid("a", [[0] * DIM] * 2), ValueError, "vector: expected"),
            (lambda: made.search_hybrid("a"), TypeError, "needs embed="),
        ]:
            with pytest.raises(kind, match=message):
                call()
    odd = with_texts(tmp_path / "d", ["a"], analyzer=lambda text: text)
    with odd, pytest.raises(TypeError, match="analyzer: expected a list of strings"):
        odd.search_text("a")


@pytest.mark.parametrize("share", [1.0, 0.3, 0.01])
def test_always_as_many_as_match(tmp_path: Path, share: float) -> None:
    count = 2000
    texts = [f"{'apple ' if i % 2 else ''}{WORDS[i % 6]} w{i}" for i in range(count)]
    where = {"field": "n", "op": "lt", "value": int(count * share)}
    with with_texts(tmp_path / "c", texts) as made:
        every = made.search_text("apple", count)
        assert len(every) == len([text for text in texts if "apple" in text])
        allowed = [hit for hit in every if hit.metadata["n"] < count * share]
        for k in (1, 10, 700):
            found = made.search_text("apple", k, where)
            assert [hit.score for hit in found] == [hit.score for hit in allowed[:k]]
            assert {hit.metadata["n"] < count * share for hit in found} == {True}


def test_a_read_only_collection_never_shows_what_is_gone(tmp_path: Path) -> None:
    made = with_texts(tmp_path / "c", ["apple", "apple pie", "pear"])
    reader = Collection(tmp_path / "c", read_only=True)
    with made, reader:
        with pytest.raises(ValueError, match="no index of words yet, and is read only"):
            reader.search_text("apple")
        made.search_text("apple")
        assert ids(reader.search_text("apple")) == ["0", "1"]
        made.delete(["0"])
        made.update(["1"], texts=["plum"])
        assert ids(reader.search_text("apple")) == []
        assert ids(made.search_text("plum")) == ["1"]
        assert ids(reader.search_text("plum")) == ["1"]


def test_a_lost_index_of_words_is_made_again(tmp_path: Path) -> None:
    import shutil

    with with_texts(tmp_path / "c", ["apple", "pear"]) as made:
        assert ids(made.search_text("apple")) == ["0"]
        shutil.rmtree(tmp_path / "c" / "words")
        assert ids(made.search_text("pear")) == ["1"]
    with Collection(tmp_path / "c") as made:
        assert ids(made.search_text("apple")) == ["0"]


def test_a_damaged_index_of_words_is_made_again(tmp_path: Path) -> None:
    made = with_texts(tmp_path / "c", ["apple", "pear"])
    assert ids(made.search_text("apple")) == ["0"]
    for change in (False, True):
        for path in (tmp_path / "c" / "words").iterdir():
            if path.name != ".tantivy-meta.lock":
                path.write_bytes(b"nothing of use")
        if change:  # found by who writes, else by who reads
            made.upsert(["2"], [[0] * DIM], ["apple pie"])
        else:
            made.close()
            with (
                Collection(tmp_path / "c", read_only=True) as reader,
                pytest.raises(vicinal.CorruptError, match="words is damaged"),
            ):
                reader.search_text("apple")
            made = new(tmp_path / "c")
        assert ids(made.search_text("apple")) == (["0", "2"] if change else ["0"])
        assert ids(made.search_text("pear")) == ["1"]
    made.close()


def test_threads_see_words_and_documents_of_one_moment(tmp_path: Path) -> None:
    """Every text says its step, and so do the metadata: a hit never has them of two steps."""
    made = with_texts(tmp_path / "c", ["step0 apple"], synchronous="normal")
    wrong: list[Any] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            for hit in made.search_text("apple"):
                if hit.text != f"step{hit.metadata['n']} apple":
                    wrong.append(hit)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for step in range(1, 15):
            made.upsert(["0"], [[0] * DIM], [f"step{step} apple"], [{"n": step}])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert ids(made.search_text("step14")) == ["0"] and made.search_text("step13") == []
    made.close()


def test_a_search_ends_while_others_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is written while the words are brought in step is left for the next time."""
    with with_texts(tmp_path / "c", ["apple"]) as made, Collection(tmp_path / "c") as other:
        assert ids(made.search_text("apple")) == ["0"]
        words = made._words
        real = words._write_batch
        batches = []

        def write_and_be_overtaken(seq: int) -> bool:
            batches.append(seq)
            assert len(batches) < 20
            done: bool = real(seq)
            other.upsert([f"late {len(batches)}"], [[0] * DIM], ["apple"])
            return done

        monkeypatch.setattr(words, "_write_batch", write_and_be_overtaken)
        made.upsert(["new"], [[0] * DIM], ["apple"])
        assert {"0", "new"} <= set(ids(made.search_text("apple", 50)))
        monkeypatch.undo()
        assert len(made.search_text("apple", 50)) == 2 + len(batches)


# ---- histories


CHANGES = st.lists(
    st.one_of(
        st.tuples(
            st.just("upsert"),
            st.sampled_from("abcde"),
            st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join),
        ),
        st.tuples(st.just("delete"), st.sampled_from("abcde"), st.just("")),
        st.tuples(st.just("search"), st.just(""), st.just("")),
        st.tuples(st.just("checkpoint"), st.just(""), st.just("")),
    ),
    max_size=10,
)


@settings(max_examples=12, deadline=None)
@given(CHANGES)
def test_any_history_equals_a_fresh_collection(tmp_path_factory: Any, changes: Any) -> None:
    folder = tmp_path_factory.mktemp("history")
    model: dict[str, str] = {}
    options = {"synchronous": "normal"}
    with new(folder / "c", **options) as made:
        for verb, id, text in changes:
            if verb == "upsert":
                made.upsert([id], [[0] * DIM], [text])
                model[id] = text
            elif verb == "delete":
                made.delete([id])
                model.pop(id, None)
            elif verb == "search":
                made.search_text("apple")
            else:
                made.checkpoint()
        found = {word: {hit.id for hit in made.search_text(word)} for word in WORDS}
        assert found == {
            word: {id for id, text in model.items() if word in text.split()} for word in WORDS
        }
        made.compact()  # BM25 counts deleted documents until their segments are written anew
        with new(folder / "fresh", **options) as fresh:
            fresh.upsert(list(model), np.zeros((len(model), DIM)), list(model.values()))
            for word in ("apple", "apple pear plum"):
                one = {hit.id: hit.score for hit in made.search_text(word)}
                two = {hit.id: hit.score for hit in fresh.search_text(word)}
                assert one == pytest.approx(two, abs=1e-5)


KILL = """
    import json, os, random, signal, sys, time
    from vicinal.collection import Collection
    folder, kills = sys.argv[1], int(sys.argv[2])
    draw = random.Random(1)
    Collection(folder, 2, "l2").close()
    wrong, first = 0, 0
    for number in range(kills):
        reads, writes = os.pipe()
        child = os.fork()
        if child == 0:
            made = Collection(folder)
            os.write(writes, b".")
            step = first
            while True:  # one document of each name, whose text tells its step
                step += 1
                made.upsert([f"d{step % 7}"], [[0, 0]], [f"word w{step}"], [{"step": step}])
                if step % 5 == 0:
                    made.delete([f"d{step % 3}"])
                if step % 3 == 0:
                    made.search_text("word")
                if step % 11 == 0:
                    made.checkpoint()
        os.read(reads, 1)
        os.close(reads), os.close(writes)
        time.sleep(draw.random() * 0.3)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        made = Collection(folder)
        there = {d.id: d.metadata["step"] for d in made.get()}
        first = max([first, *there.values()])
        found = {hit.id: hit.metadata["step"] for hit in made.search_text("word", 100)}
        each = all(made.search_text(f"w{step}")[0].id == id for id, step in there.items())
        old = any(made.search_text(f"w{s}") for s in range(max(0, first - 20), first)
                  if s not in there.values())
        wrong += found != there or not each or old
        made.close()
    print(json.dumps({"kills": kills, "wrong": wrong, "steps": first}))
"""


def test_killed_between_documents_and_words(tmp_path: Path) -> None:
    done = processes.run(KILL, tmp_path / "c", KILLS, PYTHONWARNINGS="ignore")
    assert_lived(done)
    seen = json.loads(done.stdout)
    print(seen)
    assert (seen["kills"], seen["wrong"]) == (KILLS, 0)
    assert seen["steps"] > KILLS


# ---- both


def test_fusion_is_that_of_both_lists(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 5)) for _ in range(300)]
    with with_texts(tmp_path / "c", texts, metric="cosine") as made:
        query = rng.standard_normal(DIM)
        near, words = made.search(query, 50), made.search_text("apple fig", 50)
        for method, alpha in [("relative", 0.5), ("rrf", 0.3), ("linear", 0.7), ("relative", 1)]:
            wanted = vicinal.fuse(
                (ids(near), [hit.score for hit in near]),
                (ids(words), [hit.score for hit in words]),
                method=method,
                weights=[alpha, 1 - alpha],
            )
            found = made.search_hybrid(
                "apple fig", query, window=50, method=method, alpha=alpha, vectors=True
            )
            # ids of equal score may stand otherwise: rows are numbers there, strings here
            np.testing.assert_allclose([hit.score for hit in found], wanted.scores, rtol=1e-6)
            by_id = {hit.id: hit for hit in near}
            by_word = {hit.id: (place, hit) for place, hit in enumerate(words, 1)}
            for hit in found:
                assert hit.distance == (by_id[hit.id].distance if hit.id in by_id else None)
                place, word = by_word.get(hit.id, (None, None))
                assert hit.text_rank == place
                assert hit.text_score == (word.score if word else None)
        few, many = (made.search_hybrid("apple fig", query, k) for k in (3, 30))
        assert few == many[:3], "what is asked for changes no score"


def test_both_sides_search_everything(tmp_path: Path) -> None:
    """What only the words find is found, however far its vector is."""
    with with_texts(tmp_path / "c", [f"w{i}" for i in range(400)]) as made:
        made.upsert(["far"], [[1e6] * DIM], ["needle"])
        assert "far" in ids(made.search_hybrid("needle", [0] * DIM, 2))
        where = {"field": "n", "op": "lt", "value": 10}
        found = made.search_hybrid("needle w3 w300", [0] * DIM, 20, where)
        assert len(found) == 10 and {hit.metadata["n"] for hit in found} == set(range(10))


def test_texts_are_embedded(tmp_path: Path) -> None:
    def embed(texts: list[str]) -> Any:
        return [[len(text), 0, 0, 1] for text in texts]

    with new(tmp_path / "c", embed=embed) as made:
        made.upsert(["a", "b"], texts=["pear", "apple pie"])
        assert made.search_hybrid("pear", k=1)[0].id == "a"


@pytest.mark.skipif("VICINAL_DATA" not in os.environ, reason="set VICINAL_DATA to have minilm-10k")
def test_known_items(tmp_path: Path) -> None:
    """Both sides together find more than each alone on 1,000 titles of 10,000 texts."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))
    from known_items import load, measure

    data = load(Path(os.environ["VICINAL_DATA"]) / "minilm-10k")
    if data is None:
        pytest.skip("minilm-10k is not there")
    with Collection(tmp_path / "c", 384, "cosine", analyzer="en") as made:
        data.write(made)
        found = measure(made, data, ("vectors", "words", "relative"))
    assert found["relative"]["first"] >= 0.77
    assert found["relative"]["first"] > max(found["vectors"]["first"], found["words"]["first"])


def test_the_page() -> None:
    assert run_examples("hybrid.md") == 1
