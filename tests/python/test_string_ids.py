"""String ids through every method, against the same index with integer ids."""

from __future__ import annotations

import json
import pickle
import struct
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from support.files import sections_of
from support.rows import dims, stored
from vicinal._self_test import graphs

RNG = np.random.default_rng(8)
ODD = ["", " ", "a", "A", "ä", "a\u0308", "\0", "a\0", "日本語", "🦉" * 9, "x" * 999, "-1", "None"]


def names_of(count: int) -> list[str]:
    """Distinct strings of all sorts and lengths."""
    usual = [f"{'id' * (i % 7)}-{i * 7919 % 100_003}" for i in range(len(ODD), count)]
    return (ODD + usual)[:count]


def rows_of(dtype: str, count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).integers(1, 90, (count, 24))
    return stored(rows, dtype)


def strings(ids: np.ndarray, names: list[str]) -> list[Any]:
    return [names[i] if i >= 0 else None for i in ids.reshape(-1)]


@pytest.mark.parametrize(("metric", "dtype", "quantization"), graphs())
def test_same_answers_as_integers(
    metric: str, dtype: str, quantization: str | None, tmp_path: Path
) -> None:
    rows, names = rows_of(dtype, 1300), names_of(1300)
    options: dict[str, Any] = {"dtype": dtype, "M": 5, "quantization": quantization}
    plain = vicinal.Index(dims(24, dtype), metric, **options)
    named = vicinal.Index(dims(24, dtype), metric, ids="str", **options)
    for part in (slice(0, 1200), slice(1200, 1201), slice(1201, 1300)):
        plain.add(rows[part])
        added = named.add(rows[part], names[part])
        assert added.dtype == object
        assert added.tolist() == names[part]
    named.save(tmp_path / "named")
    queries = rows_of(dtype, 40, 1)
    for index in (
        named,
        vicinal.open(tmp_path / "named", verify=True),
        vicinal.open(tmp_path / "named", mode="copy"),
        pickle.loads(pickle.dumps(named)),
        named.copy(),
    ):
        assert index.ids.tolist() == names
        assert len(index) == 1300
        for k, ef in ((3, 10), (10, 64), (1400, 5)):
            expected = plain.search(queries, k, ef_search=ef)
            found = index.search(queries, k, ef_search=ef)
            assert found.ids.shape == (40, k)
            assert found.ids.dtype == object
            assert found.ids.reshape(-1).tolist() == strings(expected.ids, names)
            assert np.array_equal(found.distances, expected.distances)
        one = index.search(queries[0], 3)
        assert one.ids.tolist() == strings(plain.search(queries[0], 3).ids, names)
        some = [names[i] for i in (1299, 0, 5, 5)]
        assert np.array_equal(index.get(some), plain.get([1299, 0, 5, 5]))
        assert np.array_equal(index.get(names[3]), plain.get(3))
        assert all(name in index for name in names[:20])
        assert "missing" not in index
        assert index.stats()["ids"] == "str"
        index.check()
        index.verify()
    assert plain.stats()["ids"] == "int64"


@pytest.mark.parametrize(
    "form",
    [list, tuple, np.array, lambda n: np.array(n, object), lambda n: [np.str_(x) for x in n]],
)
def test_forms(form: Any) -> None:
    names = ["one", "two", "three"]
    index = vicinal.Index(2, ids="str")
    added = index.add(np.eye(3, 2), form(names))
    assert added.tolist() == names
    assert all(type(name) is str for name in added)
    assert index.get(form(names)).shape == (3, 2)
    assert index.get(np.str_("two")).shape == (2,)
    assert np.str_("three") in index


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="NumPy 1 has no StringDType")
def test_string_dtype() -> None:
    names = np.array(["one", "two" * 30], dtype=np.dtypes.StringDType())
    index = vicinal.Index(2, ids="str")
    assert index.add(np.eye(2), names).tolist() == ["one", "two" * 30]
    missing = np.array(["three", None], dtype=np.dtypes.StringDType(na_object=None))
    with pytest.raises(TypeError, match="ids: expected strings, got None at position 1"):
        index.add(np.eye(2), missing)


def test_one_vector_takes_one_id() -> None:
    index = vicinal.Index(2, ids="str")
    assert index.add([0.0, 1.0], ["only"]).tolist() == ["only"]
    assert index.search([0.0, 1.0], 3).ids.tolist() == ["only", None, None]
    assert index.search([0.0, 1.0], 3).distances.tolist() == [0, np.inf, np.inf]
    assert index.search(np.zeros((0, 2)), 3).ids.shape == (0, 3)


def test_empty(tmp_path: Path) -> None:
    index = vicinal.Index(2, ids="str")
    assert index.add(np.zeros((0, 2)), []).shape == (0,)
    assert index.ids.shape == (0,)
    assert index.search([1.0, 2.0], 2).ids.tolist() == [None, None]
    assert index.get([]).shape == (0, 2)
    assert "" not in index
    index.save(tmp_path / "empty")
    for mode in ("r", "copy"):
        opened = vicinal.open(tmp_path / "empty", mode=mode, verify=True)
        assert "" not in opened
        assert opened.stats()["ids"] == "str"
        assert opened.ids.tolist() == []
    opened.add([[1.0, 2.0]], [""])
    assert "" in opened
    opened.save(tmp_path / "empty")
    assert vicinal.open(tmp_path / "empty", verify=True).ids.tolist() == [""]


@pytest.mark.parametrize("count", [5, 40, 5000])
def test_many_adds_against_a_dictionary(count: int) -> None:
    """The table grows from nothing, strings are looked up in between."""
    index, model = vicinal.Index(1, ids="str", ef_construction=4, M=2), {}
    names = names_of(count)
    start = 0
    while start < count:
        stop = min(count, start + 1 + start // 2)
        values = RNG.integers(0, 1000, (stop - start, 1)).astype(np.float32)
        index.add(values, names[start:stop])
        model |= dict(zip(names[start:stop], values[:, 0].tolist(), strict=True))
        start = stop
        some = [names[i] for i in RNG.integers(0, count, 50)]
        for name in some:
            assert (name in index) == (name in model)
        known = [name for name in some if name in model]
        assert index.get(known)[:, 0].tolist() == [model[name] for name in known]
    assert dict(zip(index.ids, index.get(index.ids)[:, 0].tolist(), strict=True)) == model


# ---- refused


def test_refused_adds_leave_the_index_as_it_was(tmp_path: Path) -> None:
    index = vicinal.Index(2, "cosine", ids="str")
    index.add([[1.0, 2.0], [3.0, 1.0]], ["a", "b"])
    index.save(tmp_path / "before")
    for vectors, ids, error, message in [
        ([[1, 1]], None, ValueError, 'ids: expected strings, got None; an index with ids="str"'),
        ([[1, 1]], [5], TypeError, "ids: expected strings, got 5 at position 0"),
        ([[1, 1]], np.array([5]), TypeError, "ids: expected strings, got dtype int64"),
        ([[1, 1]], [b"c"], TypeError, "ids: expected strings, got b'c' at position 0"),
        ([[1, 1]], [None], TypeError, "ids: expected strings, got None at position 0"),
        ([[1, 1], [1, 2]], ["c", 2], TypeError, "ids: expected strings, got 2 at position 1"),
        ([[1, 1]], ["c", "d"], ValueError, r"ids: expected \(1,\), got \(2,\)"),
        ([[1, 1]], [["c"]], ValueError, r"ids: expected \(1,\), got \(1, 1\)"),
        ([[1, 1]], ["\ud800"], ValueError, r"ids: '\\ud800' is not valid Unicode"),
        ([[1, 1], [1, 2]], ["c", "a"], ValueError, "ids: 'a' at position 1 is already in the ind"),
        ([[1, 1]] * 3, ["c", "d", "c"], ValueError, "ids: 'c' stands at position 0 and again at 2"),
        ([[1, 1], [0, 0]], ["c", "d"], ValueError, "vectors: row 1 is a zero vector"),
        ([[1, 1], [0, np.nan]], ["c", "d"], ValueError, "vectors: row 1 holds NaN"),
    ]:
        with pytest.raises(error, match=message):
            index.add(vectors, ids)
        assert index.ids.tolist() == ["a", "b"]
        assert "c" not in index
    index.save(tmp_path / "after")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()
    # a row that was refused can come again
    index.add([[1, 1], [1, 2]], ["c", "d"])
    assert index.get("d").shape == (2,)


def test_an_add_that_is_given_up(tmp_path: Path) -> None:
    index = vicinal.Index(32, ids="str")
    rows = RNG.standard_normal((6000, 32))
    names = names_of(6000)
    index.add(rows[:1500], names[:1500])
    index.save(tmp_path / "before")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.add(rows[1500:], names[1500:], progress=stop)
    assert index.ids.tolist() == names[:1500]
    assert names[1600] not in index
    index.save(tmp_path / "after")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()


def test_unknown_and_wrong_ids() -> None:
    index = vicinal.Index(2, ids="str")
    index.add(np.eye(2), ["a", "b"])
    with pytest.raises(KeyError, match="ids: 'c' is not in the index"):
        index.get(["a", "c"])
    with pytest.raises(KeyError, match="ids: '' is not in the index"):
        index.get("")
    with pytest.raises(ValueError, match=r"ids: expected one id or shape \(n,\), got \(1, 1\)"):
        index.get([["a"]])
    for wrong in (0, [0], [None], b"a", [b"a"]):
        with pytest.raises(TypeError, match="ids: expected strings"):
            index.get(wrong)
    with pytest.raises(TypeError, match="id: expected a string, got 0"):
        _ = 0 in index
    plain = vicinal.Index(2)
    with pytest.raises(TypeError, match="ids: expected integers"):
        plain.add(np.eye(2), ["a", "b"])
    with pytest.raises(TypeError, match="id: expected an integer, got 'a'"):
        _ = "a" in plain


def test_which_kinds_there_are() -> None:
    with pytest.raises(ValueError, match="ids: expected 'int64' or 'str', got 'int32'"):
        vicinal.Index(2, ids="int32")
    with pytest.raises(TypeError, match="ids: expected 'int64' or 'str', got <class 'str'>"):
        vicinal.Index(2, ids=str)  # type: ignore[arg-type]


# ---- the file


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    index = vicinal.Index(2, ids="str")
    index.add(RNG.standard_normal((50, 2)), names_of(50))
    path = tmp_path_factory.mktemp("image") / "file"
    index.save(path)
    return path.read_bytes()


def test_the_bytes(image: bytes) -> None:
    assert struct.unpack_from("<I", image, 8) == (2,)
    assert struct.unpack_from("<17q", image, 32)[16] == 1
    sections = sections_of(image)
    _, start, length, *_ = sections["id_text"]
    text = image[start : start + length]
    assert text == "".join(names_of(50)).encode()
    _, start, length, *_ = sections["id_offsets"]
    offsets = np.frombuffer(image, np.int64, length // 8, start).tolist()
    assert [text[a:b].decode() for a, b in pairwise(offsets)] == names_of(50)
    _, start, length, *_ = sections["ids"]
    assert np.frombuffer(image, np.int64, length // 8, start).tolist() == list(range(50))


@pytest.mark.parametrize("mode", ["r", "copy"])
@pytest.mark.parametrize("item", [0, 1, 17, 50])
@pytest.mark.parametrize("value", [-1, -(2**62), 2**40, 2**63 - 1, 7])
def test_hostile_offsets(image: bytes, tmp_path: Path, mode: str, item: int, value: int) -> None:
    data = bytearray(image)
    start = sections_of(image)["id_offsets"].offset
    if struct.unpack_from("<q", data, start + 8 * item) == (value,):
        pytest.skip("that is right")
    struct.pack_into("<q", data, start + 8 * item, value)
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(vicinal.CorruptError):
        vicinal.open(tmp_path / "file", verify=True)
    if item in (0, 50):  # the ends are compared with the text at once
        with pytest.raises(vicinal.CorruptError, match="item 0 of section 'id_offsets'"):
            vicinal.open(tmp_path / "file", mode=mode)
        return
    opened = vicinal.open(tmp_path / "file", mode=mode)
    calls = [lambda: opened.ids, lambda: opened.search(np.zeros((5, 2)), 50).ids]
    if value != 7:
        calls += [lambda: "new" in opened, lambda: opened.get("a")]
        calls += [lambda: opened.add([[0, 1]], ["new"])] if mode == "copy" else []
    for call in calls:
        with pytest.raises(vicinal.CorruptError, match=r"file: .*id"):
            call()
    assert len(opened) == 50


def test_offsets_that_ascend_by_other_steps(image: bytes, tmp_path: Path) -> None:
    """Inside the text but inside a character: not UTF-8."""
    data = bytearray(image)
    start = sections_of(image)["id_offsets"].offset
    place = names_of(50).index("日本語")
    (begin,) = struct.unpack_from("<q", data, start + 8 * place)
    struct.pack_into("<q", data, start + 8 * place, begin + 1)
    (tmp_path / "file").write_bytes(data)
    opened = vicinal.open(tmp_path / "file")
    with pytest.raises(vicinal.CorruptError, match="file: an id is not UTF-8"):
        _ = opened.ids
    assert "日本語" not in opened


@pytest.mark.parametrize("number", [-1, 50, 2**40, -(2**63)])
def test_numbers_without_a_string(image: bytes, tmp_path: Path, number: int) -> None:
    data = bytearray(image)
    start = sections_of(image)["ids"].offset
    struct.pack_into("<q", data, start + 8 * 7, number)
    (tmp_path / "file").write_bytes(data)
    opened = vicinal.open(tmp_path / "file")
    with pytest.raises(vicinal.CorruptError, match="file: item 7 of section 'ids'"):
        _ = opened.ids


@pytest.mark.parametrize("name", ["id_text", "id_offsets"])
@pytest.mark.parametrize(("word", "value"), [(32, 0), (32, 10), (40, 2), (48, 6)])
def test_sections_of_another_shape(
    image: bytes, tmp_path: Path, name: str, word: int, value: int
) -> None:
    from test_format import resum

    data = bytearray(image)
    number = sections_of(image)[name].number
    entry = 256 + 64 * number
    struct.pack_into("<q", data, entry + word, value)
    rows, columns, kind = struct.unpack_from("<3q", data, entry + 32)
    struct.pack_into("<q", data, entry + 24, rows * columns * [4, 2, 2, 1, 1, 8, 4][kind])
    resum(data)
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(vicinal.CorruptError):
        vicinal.open(tmp_path / "file")


def test_opening_reads_nothing_of_the_strings(tmp_path: Path) -> None:
    index = vicinal.Index(1, ids="str", M=2, ef_construction=2)
    index.add(np.arange(20_000, dtype=np.float32)[:, None], [f"{i:040}" for i in range(20_000)])
    index.save(tmp_path / "file")
    opened = vicinal.open(tmp_path / "file")
    before = opened.memory_usage()["id_strings"]
    assert before == 20_000 * 40 + 20_001 * 8, "no table yet"
    assert opened.search([7.0], 1).ids.tolist() == [f"{7:040}"]
    assert opened.memory_usage()["id_strings"] == before
    assert f"{9:040}" in opened
    assert opened.memory_usage()["id_strings"] == before + 65_536 * 4
    usage = opened.memory_usage()
    assert usage["total"] == sum(list(usage.values())[: list(usage).index("total")])
    assert vicinal.Index(1).memory_usage()["id_strings"] == 0


# ---- threads


def test_searches_beside_adds() -> None:
    rows = RNG.standard_normal((4000, 16)).astype(np.float32)
    names = [f"row {i}" for i in range(4000)]
    index = vicinal.Index(16, ids="str", ef_construction=30)
    index.add(rows[:1500], names[:1500])
    known, wrong, done = set(names), [], threading.Event()

    def search() -> None:
        while not done.is_set():
            found = index.search(rows[:30], 5)
            if not set(found.ids.reshape(-1)) <= known or (found.ids[:, 0] != names[:30]).any():
                wrong.append(found.ids)
            if index.get(names[3]).shape != (16,) or names[0] not in index:
                wrong.append("get")

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for start in range(1500, 4000, 250):
        index.add(rows[start : start + 250], names[start : start + 250])
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert index.ids.tolist() == names


# ---- files of version 2


FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.mark.parametrize("mode", ["r", "copy"])
@pytest.mark.parametrize("name", ["strings_graph", "strings_empty"])
def test_files_of_version_2_stay_readable(name: str, mode: str) -> None:
    folder = FIXTURES / "format_v2"
    expected = json.loads((folder / "expected.json").read_text())[name]
    opened = vicinal.open(folder / f"{name}.vicinal", mode=mode, verify=True)
    opened.check()
    assert opened.ids.tolist() == expected["ids"]
    assert opened.get(opened.ids).tolist() == expected["rows"]
    assert all(id in opened for id in expected["ids"])
    found = opened.search(np.array(expected["queries"], np.float32), 5, ef_search=150)
    assert found.ids.tolist() == expected["found"]
    np.testing.assert_allclose(found.distances, expected["distances"], rtol=1e-5)
    tuned = [[t.recall, t.k, t.ef_search, t.rows] for t in opened.tuned]
    assert tuned == expected["tuned"]
    assert len(tuned) == (name == "strings_graph")
