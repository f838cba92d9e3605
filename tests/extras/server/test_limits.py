"""What is too much, too slow or cut off is refused, and the server goes on as before."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serving import GUARD, Served, error_of, refused

LIMITS = {
    "body_bytes": 20_000,
    "bodies_bytes": 60_000,
    "batch": 20,
    "k": 30,
    "ef": 50,
    "answers": 100,
    "depth": 4,
    "dim": 64,
    "collections": 3,
    "body_seconds": 0.5,
    "header_seconds": 0.5,
}
OPTIONS = [f"--limit={name}={value}" for name, value in LIMITS.items()]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("small") / "data", *OPTIONS) as made, made.http() as raw:
        body = {"vectors": {"size": 2, "distance": "Euclid"}}
        assert raw.put("/collections/a", json=body).status_code == 200
        points = [{"id": n, "vector": [n, n]} for n in range(20)]
        assert raw.put("/collections/a/points", json={"points": points}).status_code == 200
        yield made


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {"must": []}
    for _ in range(depth - 1):
        found = {"must": [found]}
    return found


def nested_where(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {"field": "a", "op": "eq", "value": 1}
    for _ in range(depth - 1):
        found = {"not": found}
    return found


POINT = {"id": 1, "vector": [1, 2]}
TOO_MUCH: list[tuple[str, str, Any, str]] = [
    ("PUT", "/collections/a/points", {"points": [POINT] * 21}, "points: expected at most 20"),
    (
        "PUT",
        "/collections/a/points",
        {"batch": {"ids": list(range(21)), "vectors": [[1, 2]] * 21}},
        "batch.ids: expected at most 20",
    ),
    ("POST", "/collections/a/points", {"ids": list(range(21))}, "ids: expected at most 20"),
    ("POST", "/collections/a/points/query", {"query": [1, 2], "limit": 31}, "limit: expected"),
    (
        "POST",
        "/collections/a/points/query",
        {"query": [1, 2], "limit": 30, "offset": 1},
        "limit + offset up to 30",
    ),
    (
        "POST",
        "/collections/a/points/query",
        {"query": [1, 2], "params": {"hnsw_ef": 51}},
        "params.hnsw_ef: expected",
    ),
    (
        "POST",
        "/collections/a/points/query/batch",
        {"searches": [{"query": [1, 2], "limit": 30}] * 4},
        "at most 100 results",
    ),
    (
        "POST",
        "/collections/a/points/query/batch",
        {"searches": [{"query": [1, 2]}] * 21},
        "searches: expected at most 20",
    ),
    ("POST", "/collections/a/points/scroll", {"limit": 31}, "limit: expected"),
    ("POST", "/collections/a/points/count", {"filter": nested(5)}, "at most 4 levels"),
    ("PUT", "/collections/b", {"vectors": {"size": 65, "distance": "Dot"}}, "vectors.size"),
    ("PUT", "/v1/collections/b", {"dim": 65}, "dim: expected"),
    ("POST", "/v1/collections/a/search", {"vectors": [[1, 2]] * 21}, "vectors: expected at most"),
    ("POST", "/v1/collections/a/search", {"vectors": [[1, 2]], "k": 31}, "k: expected"),
    ("POST", "/v1/collections/a/search", {"vectors": [[1, 2]] * 4, "k": 30}, "at most 100"),
    (
        "POST",
        "/v1/collections/a/search",
        {"vectors": [[1, 2]], "ef_search": 51},
        "ef_search: expected",
    ),
    ("POST", "/v1/collections/a/count", {"where": nested_where(5)}, "where: expected at most 4"),
    ("POST", "/v1/collections/a/get", {"limit": 31}, "limit: expected"),
    ("POST", "/v1/collections/a/recall", {"sample": 21}, "sample: expected"),
]


@pytest.mark.parametrize(("method", "path", "body", "said"), TOO_MUCH)
def test_too_much(small: Served, method: str, path: str, body: Any, said: str) -> None:
    with small.http() as raw:
        answer = raw.request(method, path, json=body)
        assert answer.status_code == 400, answer.text
        assert said in error_of(answer)
        assert raw.post("/collections/a/points/count", json={}).json()["result"]["count"] == 20


def test_as_much_as_is_allowed(small: Served) -> None:
    with small.http() as raw:
        found = raw.post("/collections/a/points/query", json={"query": [0, 0], "limit": 30})
        assert len(found.json()["result"]["points"]) == 20
        assert raw.post("/collections/a/points/count", json={"filter": nested(4)}).is_success
        where = {"where": nested_where(4)}
        assert raw.post("/v1/collections/a/count", json=where).is_success
        many = {"searches": [{"query": [1, 2], "limit": 5}] * 20}
        assert raw.post("/collections/a/points/query/batch", json=many).is_success


def test_too_many_collections(small: Served) -> None:
    with small.http() as raw:
        body = {"vectors": {"size": 2, "distance": "Dot"}}
        assert raw.put("/collections/b", json=body).is_success
        assert raw.put("/collections/c", json=body).is_success
        assert "at most 3" in error_of(raw.put("/collections/d", json=body))
        for name in "bc":
            assert raw.delete(f"/collections/{name}").is_success


def test_limits_of_the_command(tmp_path: Path) -> None:
    for option, said in (
        ("--limit=k", "k: expected a number"),
        ("--limit=k=1.5", "k: expected a whole number"),
        ("--limit=nope=1", "expected one of body_bytes"),
        ("--limit=k=0", "k: expected a number above 0"),
    ):
        code, told = refused(tmp_path / "d", option)
        assert code == 2 and said in told


# ---- bodies, byte by byte


class Wire:
    """A connection whose bytes are written by hand."""

    def __init__(self, server: Served) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=GUARD)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, bytes]:
        """Read until the server closes or has answered; status 0 if it just closed."""
        data = b""
        try:
            while True:
                piece = self.socket.recv(65536)
                if not piece:
                    break
                data += piece
                head, _, rest = data.partition(b"\r\n\r\n")
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:") and len(rest) >= int(line[15:]):
                        return int(data[9:12]), rest
        except ConnectionResetError:
            pass
        return (int(data[9:12]), data) if data.startswith(b"HTTP/1.1 ") else (0, data)

    def closed(self) -> bool:
        """Wait for the server to close."""
        try:
            return self.socket.recv(65536) == b""
        except ConnectionResetError:
            return True


def head(length: str, path: str = "/collections/a/points/count", method: str = "POST") -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\n{length}\r\n\r\n"
    ).encode()


def alive(server: Served) -> None:
    with server.http() as raw:
        assert raw.post("/collections/a/points/count", json={}).json()["result"]["count"] == 20


def test_a_large_body_is_refused_by_its_length(small: Served) -> None:
    wire = Wire(small)
    wire.send(head("Content-Length: 20001"))  # and nothing of it
    status, said = wire.answer()
    assert status == 413 and b"at most 20000 bytes" in said
    assert wire.closed()
    alive(small)


def test_a_large_body_is_refused_as_it_grows(small: Served) -> None:
    wire = Wire(small)
    wire.send(head("Transfer-Encoding: chunked"))
    chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
    for _ in range(5):
        wire.send(chunk)
    status, said = wire.answer()
    assert status == 413 and b"at most 20000 bytes" in said
    alive(small)


def test_a_slow_body(small: Served) -> None:
    wire = Wire(small)
    wire.send(head("Content-Length: 100") + b"{")
    status, said = wire.answer()
    assert status == 408 and b"it took more than 0.5 seconds" in said
    assert wire.closed()
    alive(small)


def test_slow_headers(small: Served) -> None:
    for start in (b"", b"POST /collections/a/poi", head("Content-Length: 2")[:-2]):
        wire = Wire(small)
        wire.send(start)
        assert wire.closed()
    alive(small)


def test_slow_headers_of_a_second_request(small: Served) -> None:
    wire = Wire(small)
    wire.send(head("Content-Length: 2") + b"{}")
    assert wire.answer()[0] == 200
    wire.send(b"GET /collections HT")
    assert wire.closed()
    alive(small)


def test_a_cut_body_changes_nothing(small: Served) -> None:
    body = json.dumps({"points": [{"id": 100 + n, "vector": [1, 2]} for n in range(5)]}).encode()
    request = head(f"Content-Length: {len(body)}", "/collections/a/points", "PUT") + body
    start = len(request) - len(body)
    for cut in (start, start + 1, len(request) - 1):
        wire = Wire(small)
        wire.send(request[:cut])
        wire.socket.close()
    alive(small)
    wire = Wire(small)
    wire.send(request)
    assert wire.answer()[0] == 200
    with small.http() as raw:
        raw.post("/collections/a/points/delete", json={"points": [100, 101, 102, 103, 104]})
    alive(small)


def test_malformed_requests(small: Served) -> None:
    for data in (
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        head("Content-Length: x"),
        head("Content-Length: -1"),
        head("Content-Length: 2\r\nContent-Length: 3"),
        head("Transfer-Encoding: gzip"),
        head("Transfer-Encoding: chunked") + b"zz\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        head("X: " + "y" * 70_000),
    ):
        wire = Wire(small)
        wire.send(data)
        assert wire.answer()[0] in (0, 400, 403, 404, 408, 431, 501)
    alive(small)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"1",
        b"\xff\xfe",
        b'{"exact": NaN}',
        b"[" * 15_000,
        b'{"filter": {"must": 3}}',
        b'{"filter": {"must": [[]]}}',
        b'{"nope": null}',
        b'{"exact": "yes"}',
    ],
)
def test_bodies_that_are_not_what_is_wanted(small: Served, body: bytes) -> None:
    with small.http() as raw:
        path = "/collections/a/points/count"
        answer = raw.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, answer.text
        assert error_of(answer)
    alive(small)


def test_query_strings(small: Served) -> None:
    with small.http() as raw:
        for path, said in (
            ("/collections?x=1", "'x': this server does not have it"),
            ("/collections/a/points/count?timeout=0", "timeout: expected a whole number from 1"),
            ("/collections/a/points/count?timeout=1&timeout=2", "timeout: expected it once"),
        ):
            method = "POST" if "count" in path else "GET"
            answer = raw.request(method, path, json={} if method == "POST" else None)
            assert answer.status_code == 400 and said in error_of(answer)
        body = {"points": [POINT]}
        for query, said in (("wait=maybe", "wait: expected true or"), ("ordering=x", "ordering")):
            answer = raw.put(f"/collections/a/points?{query}", json=body)
            assert answer.status_code == 400 and said in error_of(answer)
    alive(small)


def test_encodings_that_could_grow_are_refused(small: Served) -> None:
    with small.http() as raw:
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        answer = raw.post("/collections/a/points/count", content=b"{}", headers=headers)
        assert answer.status_code == 415 and "content-encoding" in error_of(answer)


# ---- too many at a time


def test_the_queue(tmp_path: Path) -> None:
    """Bodies that do not end hold the places of the queue; the next is told to come again."""
    with Served(tmp_path / "d", "--limit=queue=3") as server:
        held = [Wire(server) for _ in range(3)]
        for wire in held:
            wire.send(head("Content-Length: 10", "/collections/a/points/count") + b"{")
        with server.http() as raw:
            while True:  # until all three are there
                answer = raw.get("/collections")
                if answer.status_code == 429:
                    break
                assert answer.status_code == 200
            assert answer.headers["retry-after"] == "1"
            assert "too many requests at a time: 3" in error_of(answer)
            assert raw.get("/healthz").status_code == 200  # it lives
            for wire in held:
                wire.socket.close()
            while raw.get("/collections").status_code != 200:
                pass


def test_too_many_bytes_at_a_time(small: Served) -> None:
    held = [Wire(small) for _ in range(3)]
    answers = []
    for wire in held:  # 57,000 of 60,000 bytes; the next does not fit
        wire.send(head("Content-Length: 19500") + b" " * 19_000)
    with small.http() as raw:
        for _ in range(200):
            headers = {"content-type": "application/json"}
            body = b'{"exact": true}' + b" " * 15_000
            path = "/collections/a/points/count"
            answers.append(raw.post(path, content=body, headers=headers).status_code)
            if 429 in answers:
                break
    for wire in held:
        wire.socket.close()
    assert 429 in answers and set(answers) <= {200, 429}
    alive(small)


def test_too_late(tmp_path: Path) -> None:
    """A request that takes too long is answered; what it had in hand ends, and others go on."""
    options = ("--limit=request_seconds=0.2", "--limit=answers=10000000", "--limit=batch=100000")
    with Served(tmp_path / "d", *options) as server, server.http() as raw:
        assert raw.put("/v1/collections/a", json={"dim": 256, "metric": "l2"}).status_code in (
            200,
            504,
        )
        rng = np.random.default_rng(0)
        for start in range(0, 8000, 1000):
            rows = rng.standard_normal((1000, 256)).astype("f4")
            ids = np.arange(start, start + 1000)
            raw.post(
                "/v1/collections/a/documents",
                content=npy(ids) + npy(rows),
                headers={"content-type": "application/octet-stream"},
            )
        while raw.post("/v1/collections/a/count", json={}).json()["result"]["count"] < 8000:
            pass
        queries = rng.standard_normal((10_000, 256)).astype("f4")
        answer = raw.post(
            "/v1/collections/a/search?k=100&exact=true",
            content=npy(queries),
            headers={"content-type": "application/octet-stream"},
        )
        assert answer.status_code == 504 and "gave up after 0.2 seconds" in error_of(answer)
        while True:  # it ends by itself, and the place is free again
            answer = raw.post("/v1/collections/a/search", json={"vectors": [[0] * 256]})
            if answer.status_code == 200:
                break
            assert answer.status_code == 504


def npy(array: np.ndarray) -> bytes:
    import io

    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def test_many_clients_at_once(server: Served) -> None:
    """Writers and readers together: every answer is right, nothing is lost."""
    with server.http() as raw:
        raw.put("/collections/m", json={"vectors": {"size": 4, "distance": "Dot"}})
    wrong: list[Any] = []
    done = threading.Event()

    def write(part: int) -> None:
        with server.http() as mine:
            for step in range(10):
                ids = range(part * 1000 + step * 10, part * 1000 + step * 10 + 10)
                points = [{"id": id, "vector": [id, 1, 0, 0]} for id in ids]
                answer = mine.put("/collections/m/points", json={"points": points})
                if answer.status_code != 200:
                    wrong.append(answer.text)

    def read() -> None:
        with server.http() as mine:
            while not done.is_set():
                query = {"query": [1, 0, 0, 0], "limit": 5}
                answer = mine.post("/collections/m/points/query", json=query)
                scores = [point["score"] for point in answer.json()["result"]["points"]]
                if scores != sorted(scores, reverse=True):
                    wrong.append(scores)

    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        list(pool.map(write, range(4)))
        done.set()
        for reader in readers:
            reader.result()
    assert not wrong
    with server.http() as raw:
        assert raw.post("/collections/m/points/count", json={}).json()["result"]["count"] == 400
        raw.delete("/collections/m")


def test_no_path_in_an_error(tmp_path: Path) -> None:
    """A damaged collection says so without telling where it lies; others go on."""
    with Served(tmp_path / "d") as server, server.http() as raw:
        body = {"vectors": {"size": 2, "distance": "Dot"}}
        for name in ("a", "b"):
            assert raw.put(f"/collections/{name}", json=body).is_success
        path = tmp_path / "d" / "b" / "documents.sqlite"
        path.write_bytes(b"no database" * 1000)
        answer: httpx.Response = raw.post("/collections/b/points/count", json={})
        assert answer.status_code == 500 and "damaged" in error_of(answer)
        assert str(tmp_path) not in answer.text
        assert raw.post("/collections/a/points/count", json={}).status_code == 200
        assert raw.get("/readyz").status_code == 200
