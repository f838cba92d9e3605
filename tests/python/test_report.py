"""The page about an index: its numbers against slow references; a reader sees what is wrong."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from support.files import sections_of
from support.spoiled import codes_of_other_rows, with_checksums
from vicinal._cpu import native
from vicinal.report import measure, page
from vicinal.report._findings import findings, percent
from vicinal.report._map import principal_axes
from vicinal.report._searches import counted
from vicinal.report._structure import structure
from vicinal.report._svg import Series, bars, curves

DATA = Path(__file__).resolve().parents[1] / "data" / "minilm-4k"
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Elements of a page, and whether each was closed by its own end."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.json = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.json += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return np.load(DATA / "queries.npy").astype("f4")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, queries: np.ndarray) -> Path:
    index = vicinal.Index(384, "cosine")
    index.add(np.load(DATA / "base.npy"))
    index.tune(0.95, queries=queries)
    path = tmp_path_factory.mktemp("report") / "texts.vicinal"
    index.save(path)
    return path


@pytest.fixture(scope="module")
def numbers(file: Path, queries: np.ndarray) -> dict[str, Any]:
    return measure(file, queries, widths=(10, 40), sample=120)


def small(path: Path, rows: int = 300, **options: Any) -> vicinal.Index:
    index = vicinal.Index(8, **options)
    index.add(np.random.default_rng(1).normal(size=(rows, 8)))
    index.save(path)
    return index


def levels_found(numbers: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"wrong": [], "look": [], "good": []}
    for each in findings(numbers):
        found[each.level].append(each.text)
    return found


def test_recall_is_what_the_index_measures(
    file: Path, queries: np.ndarray, numbers: dict[str, Any]
) -> None:
    index = vicinal.open(file)
    assert [each["ef_search"] for each in numbers["recall"]] == [10, 40, 64]
    for each in numbers["recall"]:
        measured = index.measure_recall(queries, 10, 120, ef_search=each["ef_search"])
        assert (each["recall"], each["low"], each["high"]) == (
            measured.recall,
            measured.low,
            measured.high,
        )
    assert [each["is_default"] for each in numbers["recall"]] == [False, False, True]
    assert sum(numbers["shares"]) == 120
    assert numbers["queries"] == {"kind": "given", "count": 120}


def test_structure_is_that_of_the_graph(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(1500, 8)).astype("f4")
    rows[1400:] = rows[:100]  # copies
    index = vicinal.Index(8, M=6)
    index.add(rows)
    index.remove(np.arange(200, 300))
    path = tmp_path / "x.vicinal"
    index.save(path)
    told = structure(str(path))
    linked = len(rows)
    links = np.empty((linked, 16), np.uint32)
    native.index_links(index._handle, links)
    leading_to = [0] * linked
    for row in links:
        for other in row:
            if other < linked:
                leading_to[other] += 1
    out = [int((row < linked).sum()) for row in links]
    there = [i for i in range(linked) if not (out[i] == 0 and leading_to[i] == 0)]
    degrees = told["degrees"]
    assert degrees["rows"] == len(there) == linked - 200  # neither copies nor freed rows
    assert degrees["out"] == np.bincount([out[i] for i in there]).tolist()
    assert sum(each["rows"] for each in degrees["in"]) == len(there)
    for each in degrees["in"]:
        counted = sum(each["from"] <= leading_to[i] <= each["to"] for i in there)
        assert each["rows"] == counted
    assert degrees["in_quantiles"]["most"] == max(leading_to)
    assert degrees["in_none"] == sum(leading_to[i] == 0 for i in there)
    assert told["copies"] == 100 == told["originals_of_copies"]
    levels = told["levels"]
    assert levels[0]["rows"] == linked and levels[-1]["level"] == index.stats()["max_level"]
    assert all(a["rows"] >= b["rows"] for a, b in pairwise(levels))
    assert sum(told["section_bytes"].values()) <= path.stat().st_size


def test_a_good_index_and_spoiled_ones_look_different(
    file: Path, queries: np.ndarray, numbers: dict[str, Any], tmp_path: Path
) -> None:
    good = levels_found(numbers)
    assert good["wrong"] == [] == good["look"]
    assert "Nothing stands out" in page(numbers)
    assert numbers["damage"] is None

    wrong_codes = tmp_path / "codes.vicinal"
    wrong_codes.write_bytes(codes_of_other_rows(file.read_bytes()))
    spoiled = measure(wrong_codes, queries, widths=(10, 40), sample=120)
    assert spoiled["damage"] is None  # its checksums are right: only the measurement tells
    found = levels_found(spoiled)["wrong"]
    assert any("codes do not describe the rows" in text for text in found)
    assert any("of the true 10 nearest" in text for text in found)
    assert "Something is wrong" in page(spoiled)
    assert spoiled["map"]["never_found"] > 10 * numbers["map"]["never_found"] + 100

    opposed = measure(file, -queries, widths=(10, 40), sample=120)
    found = levels_found(opposed)["wrong"]
    assert any("queries are unlike the rows" in text for text in found)
    assert not any("codes" in text for text in found)
    assert opposed["recall"][-1]["recall"] < numbers["recall"][-1]["recall"] - 0.05


def test_opposed_queries_of_inner_products_are_noticed(tmp_path: Path) -> None:
    rows = np.abs(np.random.default_rng(0).normal(size=(1200, 16)))
    index = vicinal.Index(16, "ip")
    index.add(rows)
    index.save(tmp_path / "x")
    told = measure(tmp_path / "x", -rows[:50], sample=50, widths=(10,))
    assert any("opposed" in text for text in levels_found(told)["wrong"])
    told = measure(tmp_path / "x", rows[:50], sample=50, widths=(10,))
    assert not any("opposed" in text for text in levels_found(told)["wrong"])


def test_damage_that_checksums_find_is_told(
    file: Path, queries: np.ndarray, tmp_path: Path
) -> None:
    data = bytearray(file.read_bytes())
    data[sections_of(bytes(data))["vectors"].offset + 1000] ^= 1
    broken = tmp_path / "broken.vicinal"
    broken.write_bytes(bytes(data))
    told = measure(broken, queries, sample=30, widths=(10,))
    assert told["damage"] is not None and str(tmp_path) not in json.dumps(told)
    assert findings(told)[0].text.startswith("The file is damaged")
    broken.write_bytes(with_checksums(data))
    assert measure(broken, queries, sample=30, widths=(10,))["damage"] is None


def test_whatever_is_damaged_there_is_a_page(tmp_path: Path) -> None:
    small(tmp_path / "x", 1300)
    image = (tmp_path / "x").read_bytes()
    sections = sections_of(image)
    stopped = 0
    for number, (name, part) in enumerate(sections.items()):
        if name == "checksums" or not part.size:
            continue
        data = bytearray(image)
        rng = np.random.default_rng(number)
        for _ in range(20):
            place = part.offset + int(rng.integers(part.size))
            data[place] = 0xFF
        if name == "vectors":  # no number any more
            data[part.offset : part.offset + 8] = b"\xff" * 8
        (tmp_path / "broken").write_bytes(bytes(data))
        told = measure(tmp_path / "broken", sample=1300 if name == "vectors" else 20, widths=(10,))
        assert told["damage"] is not None, name
        assert findings(told)[0].text.startswith("The file is damaged")
        json.loads(Page(page(told)).json)
        stopped += "stopped_by" in told
    assert 0 < stopped < len(sections) - 1


def test_drift_since_tuning(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    index = vicinal.Index(16)
    index.add(rng.normal(size=(1500, 16)))
    index.tune(0.9)
    index.add(rng.normal(size=(3000, 16)))
    index.save(tmp_path / "x")
    (told,) = measure(tmp_path / "x", sample=100, widths=(10,))["drift"]
    assert (told["rows_then"], told["rows_now"], told["stale"]) == (1500, 4500, True)
    assert told["queries_now"] == "assumed" and told["now"] < told["then"]
    assert told["now_low"] <= told["now"] <= told["now_high"]


def test_filters_name_the_plans_that_were_taken(tmp_path: Path) -> None:
    small(tmp_path / "x", 6000)
    told = measure(tmp_path / "x", sample=45, widths=(10,))["filters"]
    assert [each["rows"] for each in told] == [3000, 600, 60, 6]
    for each in told:
        assert sum(each["plans"].values()) == 40
        assert 0.8 < each["recall"] <= 1 and 0 < each["p50"] <= each["p99"]
    assert told[-1]["plans"] == {"scan": 40} and told[-1]["recall"] == 1


def test_the_map_counts_what_is_found(file: Path, queries: np.ndarray) -> None:
    told = measure(file, queries[:60], k=5, widths=(5,), sample=60)["map"]
    index = vicinal.open(file)
    true = index.search(queries[:60], 5, ef_search=2**31 - 1).ids
    found = index.search(queries[:60], 5).ids
    wanted: dict[int, int] = {}
    got: dict[int, int] = {}
    for here, there in zip(true.tolist(), found.tolist(), strict=True):
        for id in here:
            wanted[id] = wanted.get(id, 0) + 1
            got[id] = got.get(id, 0) + (id in there)
    ids = sorted(wanted)
    assert told["sought_rows"] == len(ids) == len(told["sought"])
    assert told["asked_for"] == [wanted[id] for id in ids]
    assert told["found_share"] == [round(got[id] / wanted[id], 3) for id in ids]
    assert told["never_found"] == sum(got[id] == 0 for id in ids)


@pytest.mark.parametrize("shape", [(50, 3), (40, 200), (30, 1)])
def test_principal_axes_are_those_of_a_decomposition(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=shape) * np.geomspace(9, 0.1, shape[1])
    mean, axes = principal_axes(rows)
    centred = rows - rows.mean(axis=0)
    _, _, right = np.linalg.svd(centred, full_matrices=False)
    assert np.allclose(mean, rows.mean(axis=0)) and axes.shape == (shape[1], 2)
    for number in range(min(2, shape[1])):
        assert abs(axes[:, number] @ right[number]) > 0.999


@pytest.mark.parametrize(
    ("metric", "dtype", "rows"),
    [("l2", "float32", 2), ("cosine", "bfloat16", 1100), ("l2", "uint8", 1100),
     ("ip", "float16", 40), ("hamming", "b1", 1100)],
)  # fmt: skip
def test_every_kind_of_index_has_a_page(metric: str, dtype: str, rows: int, tmp_path: Path) -> None:
    values = np.random.default_rng(2).normal(size=(rows, 16)).astype("f4")
    given: Any = values
    if dtype == "uint8":
        given = np.abs(values * 30).astype("u1")
    if dtype == "b1":
        given = np.packbits(values > 0, axis=1)
    index = vicinal.Index(16, metric, dtype=dtype)
    index.add(given)
    index.save(tmp_path / "x")
    told = measure(tmp_path / "x", sample=20, widths=(10,))
    Page(page(told))
    assert told["recall"][-1]["recall"] > 0.8


def test_codes_alone_and_walks_on_first_values_are_told(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(1500, 64))
    for options, level, said in (
        ({"keep_vectors": False}, "look", "No vectors are stored"),
        ({"walk_dim": 32}, "wrong", "first 32 values of 64, which say too little"),
    ):
        index = vicinal.Index(64, **options)  # type: ignore[arg-type]
        index.add(rows)
        index.save(tmp_path / "x")
        told = measure(tmp_path / "x", rows[:40] + 0.1, sample=40, widths=(10,))
        Page(page(told))
        assert any(said in text for text in levels_found(told)[level]), levels_found(told)


def test_string_ids_kept_queries_and_many_equal_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    index = vicinal.Index(4, ids="str")
    index.add(np.ones((1200, 4)), ids=[f"r{i}" for i in range(1200)])
    index.keep_queries(150)
    index.search(rng.normal(size=(150, 4)), 3)
    index.save(tmp_path / "x")
    told = measure(tmp_path / "x", k=2000, sample=150, widths=(10,))
    Page(page(told))
    assert told["queries"] == {"kind": "kept", "count": 150}
    assert any("equal earlier ones" in text for text in levels_found(told)["look"])


def test_the_page_loads_nothing_and_is_whole(numbers: dict[str, Any]) -> None:
    text = page(numbers)
    read = Page(text)
    # the JSON inside is what was measured
    assert json.loads(read.json) == json.loads(json.dumps(numbers))
    for _, attributes in read.elements:
        for name, value in attributes.items():
            assert name not in ("src", "srcset", "data", "action") and not name.startswith("on")
            assert name != "href" or str(value).startswith("#")
    assert "http" not in text.replace("http-equiv", "") and "url(" not in text
    assert "@import" not in text
    (policy,) = [a for a in read.all("meta") if a.get("http-equiv")]
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert "prefers-color-scheme:dark" in text
    assert len(text) < 400_000


def test_the_page_can_be_read_by_machines_that_read_aloud(numbers: dict[str, Any]) -> None:
    read = Page(page(numbers))
    assert read.all("html") == [{"lang": "en"}] and len(read.all("h1")) == 1
    ids = [a["id"] for _, a in read.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in read.elements:
        for name in str(attributes.get("aria-labelledby") or "").split():
            assert name in ids
    plots = [a for a in read.all("svg") if a.get("class") in ("plot", "map")]
    assert len(plots) > 8
    assert all(a["role"] == "img" and a["aria-labelledby"] for a in plots)
    others = [a for a in read.all("svg") if a not in plots]
    assert all(a["aria-hidden"] == "true" for a in others)
    assert len(read.all("table")) == len(read.all("caption")) > 6
    assert all(a.get("scope") in ("col", "row") for a in read.all("th"))
    targets = [str(a["href"])[1:] for a in read.all("a")]
    assert set(targets) <= set(ids)


def test_names_are_text_and_no_path_is_told(tmp_path: Path) -> None:
    path = tmp_path / "<script>alert(1)<"
    small(path, 40)
    told = measure(path, sample=20, widths=(10,))
    text = page(told)
    read = Page(text)
    assert len(read.all("script")) == 1 and "<script>alert" not in text
    assert json.loads(read.json)["index"]["file"] == "<script>alert(1)<"
    assert str(tmp_path) not in text


def test_wrong_arguments(tmp_path: Path) -> None:
    path = tmp_path / "x"
    vicinal.Index(8).save(path)
    with pytest.raises(ValueError, match="index: expected rows to measure"):
        measure(path)
    small(path, 40)
    with pytest.raises(ValueError, match="against: expected some of hnswlib"):
        measure(path, sample=5, against=["annoy"])
    with pytest.raises(ValueError, match="k: "):
        measure(path, k=0)
    with pytest.raises(ValueError, match="widths: "):
        measure(path, widths=(0,))
    with pytest.raises(ValueError, match="queries: "):
        measure(path, np.zeros((3, 9)))
    with pytest.raises(FileNotFoundError):
        measure(tmp_path / "none")


def test_what_is_nearly_all_is_not_said_to_be_all() -> None:
    assert percent(1.0) == "100 %" and percent(0) == "0 %"
    assert percent(0.99999) == "99.99 %" and percent(0.9987) == "99.8 %"


@pytest.mark.parametrize("values", [[], [0, 0], [5], [7, 7 + 1e-7], [1e-40, 2e-40], [1, 2, 9]])
def test_histograms_count_everything(values: list[float]) -> None:
    counts, edges = counted(np.array(values, "f4"), 30)
    assert sum(counts) == len(values) and edges == sorted(edges)
    if values:
        assert (len(counts), len(edges)) == (30, 31)


def test_plots_of_odd_numbers() -> None:
    assert curves("t", [], "x", "y", says="") == ""
    assert bars("t", ["a"], [("n", [0.0])], "x", "y", says="") == ""
    one = curves("t", [Series("a<b", [(5, 7)], ["<"])], "x", "y", says="<&>", x_log=True)
    Page(one)
    assert "NaN" not in one and "inf" not in one and "a<b" not in one
    wide = curves("t", [Series("s", [(1, 1e-9), (10, 1e12)])], "x", "y", says="", y_log=True)
    Page(wide)
    flat = bars("t", ["a", "b"], [("n", [3, 3]), ("m", [0, 3])], "x", "y", says="", y_log=True)
    Page(flat)
    assert flat.count("<rect") == 3
