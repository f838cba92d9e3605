"""However the server ends, what it said was written is there; asked to end, it ends in order.

    VICINAL_SERVER_KILLS=50 python -m pytest -rP test_endings.py

kills more often than the tests do by themselves.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import GUARD, Served, error_of, refused

KILLS = int(os.environ.get("VICINAL_SERVER_KILLS", "5"))
ROWS = 5  # points of an upsert


def points_of(step: int) -> list[dict[str, Any]]:
    """Return the points of a step: five of forty, each with the number of the step."""
    chosen = random.Random(step).sample(range(40), ROWS)
    return [{"id": id, "vector": [id, step], "payload": {"step": step}} for id in chosen]


def look(raw: httpx.Client) -> dict[int, int]:
    """Return the step of each point, and see that payloads and vectors are of one step."""
    body = {"limit": 1000, "with_payload": True, "with_vector": True}
    found = raw.post("/collections/a/points/scroll", json=body).json()["result"]["points"]
    assert all(point["vector"] == [point["id"], point["payload"]["step"]] for point in found)
    nearest = raw.post("/collections/a/points/query", json={"query": [0, 0], "limit": 1000})
    assert len(nearest.json()["result"]["points"]) == len(found)
    return {point["id"]: point["payload"]["step"] for point in found}


def test_killed_during_upserts(tmp_path: Path) -> None:
    draw = random.Random(0)
    options = ("--checkpoint-rows", "12")  # saved in the background all the time
    model: dict[int, int] = {}
    step = confirmed = lost = half = 0
    for number in range(KILLS + 1):
        server = Served(tmp_path / "data", *options)
        with server.http() as raw:
            if number == 0:
                body = {"vectors": {"size": 2, "distance": "Euclid"}}
                assert raw.put("/collections/a", json=body).status_code == 200
            seen = look(raw)
            further = {**model, **{point["id"]: step for point in points_of(step)}}
            if seen == further and seen != model:
                model, step = further, step + 1  # it was committed, the answer did not come
            elif seen != model:
                gone = [id for id, at in model.items() if seen.get(id) not in (at, step)]
                lost, half = lost + bool(gone), half + (not gone)
                break
            if number == KILLS:
                server.stop()
                break
            enough, wanted = threading.Event(), draw.randrange(1, 12)

            def kill(server: Served = server, enough: threading.Event = enough) -> None:
                enough.wait()
                server.process.send_signal(signal.SIGKILL)

            killer = threading.Thread(target=kill)
            killer.start()
            answered = 0
            try:
                while True:
                    answer = raw.put("/collections/a/points", json={"points": points_of(step)})
                    assert answer.status_code == 200, answer.text
                    model.update({point["id"]: step for point in points_of(step)})
                    step, confirmed, answered = step + 1, confirmed + 1, answered + 1
                    if answered == wanted:
                        enough.set()  # it dies while the next ones are on their way
            except httpx.HTTPError:
                enough.set()
            killer.join()
            server.stop(signal.SIGKILL)
    print(json.dumps({"kills": KILLS, "confirmed": confirmed, "lost": lost, "half_seen": half}))
    assert (number, lost, half) == (KILLS, 0, 0)
    assert confirmed >= KILLS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_graceful_stop(tmp_path: Path, number: int) -> None:
    """Requests under way are answered, later ones are not taken, the exit status is 0."""
    server = Served(tmp_path / "data")
    with server.http() as raw:
        raw.put("/collections/a", json={"vectors": {"size": 2, "distance": "Euclid"}})
        body = json.dumps({"points": points_of(1)}).encode()
        half_way = threading.Event()
        stopping = threading.Event()

        def pieces() -> Any:
            yield body[:10]
            half_way.set()
            stopping.wait()
            yield body[10:]

        answers = []

        def write() -> None:
            with server.http() as mine:
                headers = {"content-type": "application/json"}
                answers.append(
                    mine.put("/collections/a/points", content=pieces(), headers=headers).status_code
                )

        writer = threading.Thread(target=write)
        writer.start()
        half_way.wait()
        while b"vicinal_queue 2.0" not in raw.get("/metrics").content:
            pass  # until the server has the request, besides this one
        server.process.send_signal(number)
        while True:  # until it takes nobody any more
            try:
                httpx.get(f"{server.url}/healthz", trust_env=False)
            except httpx.HTTPError:
                break
        stopping.set()
        writer.join()
    assert answers == [200]
    assert server.process.wait(GUARD) == 0
    server.stop()
    assert "Traceback" not in server.said
    with Served(tmp_path / "data") as again, again.http() as raw:
        assert look(raw) == {point["id"]: 1 for point in points_of(1)}


def test_requests_that_do_not_end_do_not_stop_it(tmp_path: Path) -> None:
    import socket

    server = Served(tmp_path / "data", "--stop-seconds", "1")
    wire = socket.create_connection(("127.0.0.1", server.port))
    wire.sendall(
        b"POST /v1/collections/a/count HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    )
    assert server.stop() == 0
    wire.close()


def test_a_collection_deleted_under_load(tmp_path: Path) -> None:
    """Searches end or are told 404; a new one of that name has nothing of the old."""
    with Served(tmp_path / "data") as server, server.http() as raw:
        body = {"vectors": {"size": 2, "distance": "Euclid"}}
        odd: list[str] = []
        done = threading.Event()

        def search() -> None:
            with server.http() as mine:
                while not done.is_set():
                    answer = mine.post("/collections/a/points/query", json={"query": [0, 0]})
                    if answer.status_code not in (200, 404):
                        odd.append(answer.text)

        readers = [threading.Thread(target=search) for _ in range(3)]
        for reader in readers:
            reader.start()
        for step in range(8):
            assert raw.put("/collections/a", json=body).status_code == 200
            assert raw.get("/collections/a").json()["result"]["points_count"] == 0
            answer = raw.put("/collections/a/points", json={"points": points_of(step)})
            assert answer.status_code == 200
            assert raw.delete("/collections/a").json()["result"] is True
        done.set()
        for reader in readers:
            reader.join()
        assert not odd
        assert raw.get("/collections").json()["result"]["collections"] == []
    assert [name for name in os.listdir(tmp_path / "data") if name != ".server.lock"] == []


def test_what_a_killed_server_left_is_removed(tmp_path: Path) -> None:
    for name in (".making-0123", ".gone-4567"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "file").write_text("x")
    with Served(tmp_path / "data") as server, server.http() as raw:
        assert raw.get("/readyz").status_code == 200
        assert os.listdir(tmp_path / "data") == [".server.lock"]


def test_another_writer(tmp_path: Path) -> None:
    """A program that writes to a served collection keeps the server from it, and is told so."""
    import vicinal

    with Served(tmp_path / "data") as server, server.http() as raw:
        raw.put("/collections/a", json={"vectors": {"size": 2, "distance": "Euclid"}})
        with vicinal.Collection(tmp_path / "data" / "a") as mine:
            mine.upsert(["x"], [[1, 2]])
            answer = raw.put("/collections/a/points", json={"points": points_of(1)})
            assert answer.status_code == 503 and "another process writes" in error_of(answer)
            assert raw.post("/v1/collections/a/count", json={}).json()["result"] == {"count": 1}
        assert raw.put("/collections/a/points", json={"points": points_of(1)}).is_success
        with vicinal.Collection(tmp_path / "data" / "a") as mine, pytest.raises(BlockingIOError):
            mine.upsert(["y"], [[1, 2]])


def test_a_port_that_is_taken(server: Served, tmp_path: Path) -> None:
    code, said = refused(tmp_path / "d", "--port", str(server.port))
    assert code == 3 and "in use" in said
