"""Our own routes beside what `Collection` says itself, in JSON, .npy and Arrow."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from serving import Served, error_of

import vicinal

NPY = {"content-type": "application/octet-stream"}
ARROW = {"content-type": "application/vnd.apache.arrow.stream"}
COUNT, DIM = 3000, 16
RNG = np.random.default_rng(5)
ROWS = RNG.standard_normal((COUNT, DIM)).astype(np.float32)
QUERIES = RNG.standard_normal((20, DIM)).astype(np.float32)
TEXTS = [f"text number {n} about {('apples', 'pears')[n % 2]}" for n in range(COUNT)]
EVEN = {"field": "even", "op": "eq", "value": True}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Any]]:
    """A served collection of 2,900 saved and 100 pending documents, and a copy to ask directly."""
    folder = tmp_path_factory.mktemp("v1")
    made = []
    for path in (folder / "data" / "a", folder / "copy"):
        path.parent.mkdir(exist_ok=True)
        collection = vicinal.Collection(path, DIM, "cosine", checkpoint_rows=None)
        for start, end in ((0, 2900), (2900, COUNT)):
            some = range(start, end)
            metadata = [{"n": n, "even": n % 2 == 0} for n in some]
            ids = [f"d{n}" for n in some]
            collection.upsert(ids, ROWS[start:end], TEXTS[start:end], metadata)
            if start == 0:
                collection.checkpoint()
        made.append(collection)
    made[0].close()
    with Served(folder / "data") as server, server.http() as raw:
        yield raw, made[1]
    made[1].close()


def post(raw: httpx.Client, path: str, **body: Any) -> Any:
    answer = raw.post(f"/v1/collections/a/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


def npy(*arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    for array in arrays:
        np.save(out, array)
    return out.getvalue()


def arrays(content: bytes, count: int) -> list[np.ndarray]:
    file = io.BytesIO(content)
    return [np.load(file, allow_pickle=False) for _ in range(count)]


def arrow(**columns: Any) -> bytes:
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    return sink.getvalue().to_pybytes()


def vectors_of(rows: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


@pytest.mark.parametrize("options", [{}, {"where": EVEN}, {"exact": True}, {"ef_search": 200}])
@pytest.mark.parametrize("k", [1, 10, 3500])
def test_search_in_three_forms(pair: Any, k: int, options: dict[str, Any]) -> None:
    raw, copy = pair
    wanted = copy.search(QUERIES, k, **options)
    names = [[hit.id for hit in hits] for hits in wanted]
    said = post(raw, "search", vectors=QUERIES.tolist(), k=k, with_vectors=k == 1, **options)
    assert [[hit["id"] for hit in hits] for hits in said] == names
    for mine, theirs in zip(said, wanted, strict=True):
        for hit, other in zip(mine, theirs, strict=True):
            assert (hit["text"], hit["metadata"]) == (other.text, other.metadata)
            assert (hit["score"], hit["distance"]) == (other.score, other.distance)
            if k == 1:
                row = ROWS[int(other.id[1:])]
                assert np.allclose(hit["vector"], row / np.linalg.norm(row), atol=1e-6)
    plain = post(raw, "search", vectors=QUERIES.tolist(), k=k, with_documents=False, **options)
    assert [[hit["id"] for hit in hits] for hits in plain] == names
    assert set(plain[0][0]) == {"id", "distance"}

    given = {"k": k, **options}
    if "where" in given:
        given["where"] = json.dumps(given["where"])
    if "exact" in given:
        given["exact"] = "true"
    answer = raw.post("/v1/collections/a/search", content=npy(QUERIES), params=given, headers=NPY)
    assert answer.status_code == 200, answer.text
    ids, distances = arrays(answer.content, 2)
    assert [[id for id in line if id] for line in ids.tolist()] == names
    far = [[hit.distance for hit in hits] for hits in wanted]
    assert [line[np.isfinite(line)].tolist() for line in distances] == far

    body = arrow(vector=vectors_of(QUERIES))
    answer = raw.post("/v1/collections/a/search", content=body, params=given, headers=ARROW)
    table = pa.ipc.open_stream(answer.content).read_all()
    assert answer.headers["content-type"].startswith("application/vnd.apache.arrow.stream")
    listed: list[list[str]] = [[] for _ in QUERIES]
    for query, id in zip(table["query"].to_pylist(), table["id"].to_pylist(), strict=True):
        listed[query].append(id)
    assert listed == names


def test_one_form_in_another_out(pair: Any) -> None:
    raw, copy = pair
    headers = {**NPY, "accept": ARROW["content-type"]}
    answer = raw.post("/v1/collections/a/search?k=3", content=npy(QUERIES[:2]), headers=headers)
    table = pa.ipc.open_stream(answer.content).read_all()
    wanted = [hit.id for hits in copy.search(QUERIES[:2], 3) for hit in hits]
    assert table["id"].to_pylist() == wanted


def test_range_why_not_recall(pair: Any) -> None:
    raw, copy = pair
    vector = QUERIES[0]
    wanted = copy.range_search(vector, 0.5, EVEN)
    said = post(raw, "range", vector=vector.tolist(), radius=0.5, where=EVEN)
    assert [hit["id"] for hit in said] == [hit.id for hit in wanted] and len(wanted) > 3
    said = post(raw, "range", vector=vector.tolist(), radius=2.5, limit=5)
    assert [hit["id"] for hit in said] == [hit.id for hit in copy.search(vector, 5, exact=True)]

    nearest = [hit.id for hit in copy.search(vector, 3, exact=True)]
    for id, fate in ((nearest[0], "found"), ("d2999", "farther"), ("d7", "farther")):
        said = post(raw, "why-not", vector=vector.tolist(), id=id, k=3)
        assert (said["fate"], said["id"]) == (fate, id) and said["said"]
    said = post(raw, "why-not", vector=vector.tolist(), id="d7", where=EVEN)
    assert said["fate"] == "filtered"
    answer = raw.post("/v1/collections/a/why-not", json={"vector": [1] * DIM, "id": "nope"})
    assert answer.status_code == 404 and "nope" in error_of(answer)

    said = post(raw, "recall", vectors=QUERIES.tolist(), k=5)
    told = copy.measure_recall(QUERIES, 5)
    assert (said["recall"], said["sample"]) == (told.recall, 20)
    assert post(raw, "recall", k=5, sample=50)["sample"] == 50
    assert b'vicinal_recall{collection="a"}' in raw.get("/metrics").content


def test_words(pair: Any) -> None:
    raw, copy = pair
    said = post(raw, "text", text="number 17", k=3)
    assert [hit["id"] for hit in said] == [hit.id for hit in copy.search_text("number 17", 3)]
    given: dict[str, Any] = {"k": 5, "alpha": 0.3, "method": "rrf", "window": 50, "where": EVEN}
    said = post(raw, "hybrid", text="number 18", vector=QUERIES[0].tolist(), **given)
    wanted = copy.search_hybrid("number 18", QUERIES[0], **given)
    assert [hit["id"] for hit in said] == [hit.id for hit in wanted]
    assert "text_rank" in said[0] or "vector_rank" in said[0]


def test_stats(pair: Any) -> None:
    raw, copy = pair
    said = raw.get("/v1/collections/a").json()["result"]
    told = copy.stats()
    for name in ("documents", "pending", "indexed", "parameters"):
        assert said[name] == told[name]
    assert (said["documents"], said["pending"], said["indexed"]) == (COUNT, 100, 2900)
    assert said["file_bytes"] > ROWS.nbytes


# ---- writing


@pytest.fixture
def fresh(server: Served) -> Iterator[httpx.Client]:
    with server.http() as raw:
        raw.delete("/collections/w")
        options = {"dim": 3, "metric": "l2", "M": 8, "quantization": "none", "analyzer": "en"}
        assert raw.put("/v1/collections/w", json=options).status_code == 200
        assert raw.put("/v1/collections/w", json=options).status_code == 409
        yield raw


def test_documents_in_three_forms(fresh: httpx.Client) -> None:
    url = "/v1/collections/w/documents"
    rows = np.eye(3, dtype=np.float64)
    body: dict[str, Any] = {
        "ids": ["a", "b", "no vector"],
        "vectors": [[1, 0, 0], [0, 1, 0], None],
        "texts": ["one", None, "three"],
        "metadata": [{"n": 1}, None, {"n": [1, "x"]}],
    }
    assert fresh.post(url, json=body).json()["result"] == {"written": 3}
    assert fresh.post(url, content=npy(np.array([7, 8, 9]), rows), headers=NPY).is_success
    named = np.array(["ä", "longer"])
    assert fresh.post(url, content=npy(named, rows[:2].astype("f2")), headers=NPY).is_success
    table = arrow(
        id=pa.array(["t1", "t2"]),
        vector=pa.array(rows[:2].tolist(), pa.list_(pa.float64())),
        text=pa.array(["x", None]),
        metadata=pa.array(['{"n": 5}', None]),
    )
    assert fresh.post(url, content=table, headers=ARROW).json()["result"] == {"written": 2}
    numbered = arrow(id=pa.array([1, 2]), vector=vectors_of(rows[:2]))
    assert fresh.post(url, content=numbered, headers=ARROW).is_success
    found = fresh.post("/v1/collections/w/get", json={"with_vectors": True}).json()["result"]
    assert [each["id"] for each in found] == [
        *("a", "b", "no vector", "7", "8", "9", "ä", "longer", "t1", "t2", "1", "2")
    ]
    by_id = {each["id"]: each for each in found}
    assert by_id["no vector"] == {
        "id": "no vector",
        "text": "three",
        "metadata": {"n": [1, "x"]},
        "vector": None,
    }
    assert by_id["t1"]["metadata"] == {"n": 5} and by_id["8"]["vector"] == [0, 1, 0]
    some = {"ids": ["t1", "nope", "a"], "limit": 5}
    found = fresh.post("/v1/collections/w/get", json=some).json()["result"]
    assert [each["id"] for each in found] == ["t1", "a"]
    where = {"field": "n", "op": "exists"}
    deleted = fresh.post("/v1/collections/w/delete", json={"where": where}).json()["result"]
    assert deleted == {"deleted": 3}
    assert fresh.post("/v1/collections/w/count", json={}).json()["result"] == {"count": 9}
    saved = fresh.post("/v1/collections/w/checkpoint").json()["result"]
    assert (saved["pending"], saved["indexed"]) == (0, 9)


def test_the_other_api_sees_them(fresh: httpx.Client) -> None:
    body = {"ids": ["apple", "5"], "vectors": [[1, 0, 0], [0, 3, 4]]}
    assert fresh.post("/v1/collections/w/documents", json=body).is_success
    answer = fresh.post("/collections/w/points/query", json={"query": [0, 0, 0]})
    points = answer.json()["result"]["points"]
    assert [(point["id"], point["score"]) for point in points] == [("apple", 1.0), (5, 5.0)]
    answer = fresh.post("/collections/w/points", json={"ids": ["apple", 5, "5"]})
    assert [point["id"] for point in answer.json()["result"]] == ["apple", 5]
    assert fresh.get("/collections/w").json()["result"]["config"]["hnsw_config"]["m"] == 8


def test_text_field(tmp_path: Path) -> None:
    with Served(tmp_path / "d", "--text-field", "page_content") as server, server.http() as raw:
        raw.put("/collections/a", json={"vectors": {"size": 2, "distance": "Dot"}})
        points = [
            {"id": 1, "vector": [1, 0], "payload": {"page_content": "green apples"}},
            {"id": 2, "vector": [0, 1], "payload": {"page_content": 3}},
        ]
        assert raw.put("/collections/a/points", json={"points": points}).is_success
        said = post(raw, "text", text="apples")
        assert [(hit["id"], hit["text"]) for hit in said] == [("1", "green apples")]
        body = {"payload": {"page_content": "x"}, "points": [1]}
        answer = raw.post("/collections/a/points/payload", json=body)
        assert answer.status_code == 400 and "page_content" in error_of(answer)


def test_a_collection_of_bits_is_refused_by_name(server: Served) -> None:
    with vicinal.Collection(server.folder / "bits", 64, "hamming", dtype="b1") as made:
        made.upsert(["a"], np.zeros((1, 8), np.uint8))
    with server.http() as raw:
        for path in ("/collections/bits", "/v1/collections/bits"):
            answer = raw.get(path)
            assert answer.status_code == 400 and "got hamming" in error_of(answer)
        assert raw.delete("/collections/bits").json()["result"] is True


# ---- hostile bodies


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text.encode("latin-1")


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }\n"
HOSTILE: list[tuple[bytes, str]] = [
    (b"", "expected a .npy file"),
    (b"PK\x03\x04" + b"x" * 100, "expected a .npy file"),
    (header(GOOD), "fewer bytes than its shape"),
    (header(GOOD) + b"\0" * 13, "got bytes behind"),
    (header(GOOD, b"\x09\x00") + b"\0" * 12, "version 1.0 or 2.0"),
    (header(GOOD.replace("(1, 3)", "(10**15, 3)")), "its header is none"),
    (header(GOOD.replace("(1, 3)", "(1000000000000000, 3)")), "fewer bytes"),
    (header(GOOD + " " * 1000) + b"\0" * 12, "a header within the body"),
    (header(GOOD.replace("(1, 3)", "(-1, 3)")) + b"\0" * 12, "from 0 on"),
    (header(GOOD.replace("<f4", "|O")) + b"\0" * 100, "expected numbers or strings"),
    (header(GOOD.replace("'<f4'", "[('a', '<f4')]")) + b"\0" * 12, "expected numbers or strings"),
    (header(GOOD.replace("<f4", "<U0")) + b"\0" * 12, "fewer bytes"),
    (header(GOOD.replace("'<f4'", "__import__('os')")) + b"\0" * 12, "its header is none"),
    (header("(" * 900), "its header is none"),
    (b"\x93NUMPY\x02\x00" + (2**31).to_bytes(4, "little") + b"{}", "a header within the body"),
    (npy(np.zeros((2, 4), "f4")), "expected numbers of shape (n, 3)"),
    (npy(np.zeros(3, "f4")), "expected numbers of shape (n, 3)"),
    (npy(np.zeros((1, 3), "c8")), "expected numbers of shape (n, 3)"),
    (npy(np.full((1, 3), np.nan)), "NaN"),
    (npy(np.array([["a", "b", "c"]])), "expected numbers of shape (n, 3)"),
]


@pytest.mark.parametrize(("body", "said"), HOSTILE)
def test_hostile_npy(fresh: httpx.Client, body: bytes, said: str) -> None:
    answer = fresh.post("/v1/collections/w/search", content=body, headers=NPY)
    assert answer.status_code == 400, answer.text
    assert said in error_of(answer)


def compressed(codec: str) -> bytes:
    table = pa.table({"vector": vectors_of(np.zeros((1000, 3), "f4"))})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def hostile_arrow() -> list[tuple[bytes, str]]:
    good = arrow(vector=vectors_of(np.eye(3, dtype="f4")), id=pa.array(["a", "b", "c"]))
    one = vectors_of(np.ones((1, 3), "f4"))
    return [
        (b"", "expected an Arrow stream"),
        (b"\xff" * 100, "expected an Arrow stream"),
        (good[:-100], "expected an Arrow stream"),
        (compressed("zstd"), "without compression"),
        (compressed("lz4"), "without compression"),
        (arrow(id=pa.array(["a"])), "expected a column vector"),
        (arrow(vector=one, id=pa.array(["a"]), nope=pa.array([1])), "each at most once"),
        (arrow(vector=one, id=pa.array(["a"]).dictionary_encode()), "without compression and"),
        (arrow(vector=one, id=pa.array([1.5])), "id: expected a column of strings"),
        (arrow(vector=one, id=pa.array([None], pa.null())), "id: expected a column of strings"),
        (arrow(vector=one, id=pa.array(["a"]), metadata=pa.array(["[1]"])), "expected an object"),
        (arrow(vector=one, id=pa.array(["a"]), metadata=pa.array(["{"])), "expected JSON"),
        (arrow(vector=one, id=pa.array(["a"]), text=pa.array([1])), "text: expected a column"),
        (arrow(vector=pa.array([[1.0, 2, 3], None]), id=pa.array(["a", "b"])), "no nulls"),
        (arrow(vector=pa.array([[1.0, None, 3]]), id=pa.array(["a"])), "no nulls in a vector"),
        (arrow(vector=pa.array([[1.0, 2]]), id=pa.array(["a"])), "lists of 3 numbers"),
        (arrow(vector=pa.array([["x"] * 3]), id=pa.array(["a"])), "lists of numbers"),
        (arrow(vector=pa.array([1.0]), id=pa.array(["a"])), "a column of lists"),
        (arrow(vector=one), "expected a column id"),
    ]


@pytest.mark.parametrize(("body", "said"), hostile_arrow())
def test_hostile_arrow(fresh: httpx.Client, body: bytes, said: str) -> None:
    answer = fresh.post("/v1/collections/w/documents", content=body, headers=ARROW)
    assert answer.status_code == 400, answer.text
    assert said in error_of(answer)
    assert fresh.post("/v1/collections/w/count", json={}).json()["result"] == {"count": 0}


def test_a_slice_of_a_column_keeps_its_rows(fresh: httpx.Client) -> None:
    rows = np.arange(30, dtype="f4").reshape(10, 3)
    table = pa.table({"id": pa.array(list("abcdefghij")), "vector": vectors_of(rows)})[4:7]
    body = arrow(**{name: table[name] for name in table.column_names})
    assert fresh.post("/v1/collections/w/documents", content=body, headers=ARROW).is_success
    found = fresh.post("/v1/collections/w/get", json={"with_vectors": True}).json()["result"]
    assert {each["id"]: each["vector"] for each in found} == {
        id: rows[place].tolist() for id, place in zip("efg", (4, 5, 6), strict=True)
    }


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("search", {"vectors": [[1, 2, 3]], "filter": {}}, "filter: this server does not have it"),
        ("search", {"vectors": [[1, 2, 3]], "where": {"op": "eq"}}, "where: expected"),
        ("search", {"vectors": [[1, 2, 3]], "where": {"must": []}}, "where: expected"),
        ("search", {"vectors": [[1, 2]]}, "expected dim: 3, got 2"),
        ("search", {}, "vectors: it is missing"),
        ("documents", {"ids": ["a", "a"], "vectors": [[1, 2, 3]] * 2}, "ids: "),
        ("documents", {"ids": ["a"], "vectors": []}, "vectors: expected"),
        ("documents", {"ids": [1], "vectors": [[1, 2, 3]]}, "ids[0]: expected a string"),
        ("documents", {"ids": ["a"], "vectors": [[1, 2, 3]], "texts": [5]}, "texts: expected"),
        ("delete", {}, "ids: expected ids or where"),
        ("range", {"vector": [1, 2, 3], "radius": "x"}, "radius: expected a number"),
        ("hybrid", {"text": "x", "vector": [1, 2, 3], "method": "max"}, "method: expected one of"),
        ("recall", {"vectors": []}, "vectors: expected at least one"),
    ],
)
def test_wrong_input(fresh: httpx.Client, path: str, body: Any, said: str) -> None:
    answer = fresh.post(f"/v1/collections/w/{path}", json=body)
    assert answer.status_code == 400, answer.text
    assert said in error_of(answer)
