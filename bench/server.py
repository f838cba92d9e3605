"""Requests per second and latency of `vicinal serve` on loopback, beside calls in the process.

    python bench/server.py --rows 20000 --out bench/results/server.jsonl
    python bench/server.py --rows 5000 --requests 200          # a short run

A server process is started on a free port and filled; a client process without libraries, which
shares the cores with it, asks over 1, 8 and 64 connections that stay open: the nearest 10 of one
vector as Qdrant's JSON and as our own, as .npy, and 64 vectors a request as JSON and as .npy. Every
loop has a fixed number of requests. Beside it: `Collection.search` and `search_ids` in one process,
and the engine inside qdrant-client, which is what these clients use without a server. Recall@10 is
measured against exact search on the same rows. Lines of JSON. On a machine that does other things
too, the CPU time of a query (`cpu_us`, of all threads of the server, or of the process) says more
than seconds do.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import machine
import vicinal

K = 10
CONNECTIONS = (1, 8, 64)
BATCH = 64


def clustered(rows: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and 256 queries of a mixture of Gaussians, of unit length."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((200, dim))
    made = centres[rng.integers(0, 200, rows + 256)] + 0.7 * rng.standard_normal((rows + 256, dim))
    made = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return made[:rows], made[rows:]


# ---- requests


def request(path: str, body: bytes, media: str) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def forms(queries: np.ndarray) -> dict[str, tuple[list[bytes], int]]:
    """Return requests by form, and how many queries one has."""
    listed = queries.tolist()
    blocks = [slice(start, start + BATCH) for start in range(0, len(queries), BATCH)]
    binary, plain = "application/octet-stream", "application/json"
    own, qdrant = "/v1/collections/a/search", "/collections/a/points/query"

    def as_json(vectors: list[list[float]]) -> bytes:
        return json.dumps({"vectors": vectors, "k": K, "with_documents": False}).encode()

    def as_qdrant(vector: list[float]) -> dict[str, Any]:
        return {"query": {"nearest": vector}, "limit": K}

    return {
        "qdrant json": (
            [request(qdrant, json.dumps(as_qdrant(each)).encode(), plain) for each in listed],
            1,
        ),
        "json": ([request(own, as_json([each]), plain) for each in listed], 1),
        "npy": ([request(f"{own}?k={K}", npy(each[None]), binary) for each in queries], 1),
        "qdrant json, batch": (
            [
                request(
                    f"{qdrant}/batch",
                    json.dumps({"searches": list(map(as_qdrant, listed[block]))}).encode(),
                    plain,
                )
                for block in blocks
            ],
            BATCH,
        ),
        "json, batch": ([request(own, as_json(listed[block]), plain) for block in blocks], BATCH),
        "npy, batch": (
            [request(f"{own}?k={K}", npy(queries[block]), binary) for block in blocks],
            BATCH,
        ),
    }


async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> bytes:
    writer.write(data)
    head = await reader.readuntil(b"\r\n\r\n")
    said = re.search(rb"content-length: (\d+)", head.lower())
    body = await reader.readexactly(int(said[1]) if said else 0)
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(body[:300].decode())
    return body


async def load(port: int, requests: list[bytes], connections: int, count: int) -> dict[str, float]:
    """Send `count` requests over so many connections; return seconds and percentiles."""
    times: list[float] = []
    left = iter(range(count))

    async def worker() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in left:
            start = time.perf_counter()
            await one(reader, writer, requests[number % len(requests)])
            times.append(time.perf_counter() - start)
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(connections)))
    seconds = time.perf_counter() - start
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    return {"seconds": seconds, "p50_ms": round(p50, 3), "p99_ms": round(p99, 3)}


async def post(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = await one(reader, writer, data)
    writer.close()
    return body


# ---- in the process


def in_process(call: Callable[[np.ndarray], Any], queries: np.ndarray, count: int) -> dict:
    times = []
    cpu = time.process_time()
    for number in range(count):
        start = time.perf_counter()
        call(queries[number % len(queries)])
        times.append(time.perf_counter() - start)
    cpu = (time.process_time() - cpu) / count * 1e6
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    told = {"per_second": round(count / sum(times), 1), "cpu_us": round(cpu, 1)}
    return {**told, "p50_ms": round(p50, 3), "p99_ms": round(p99, 3)}


def recall(found: list[list[str]], true: np.ndarray) -> float:
    hits = [
        len(set(map(int, mine)) & set(exact.tolist()))
        for mine, exact in zip(found, true, strict=True)
    ]
    return sum(hits) / true.size


def cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(process: int) -> int:
    text = Path(f"/proc/{process}/status").read_text()
    said = re.search(r"VmRSS:\s+(\d+)", text)
    return int(said[1]) // 1024 if said else 0


def run(rows: int, dim: int, requests: int, say: Callable[[dict], None]) -> None:
    data, queries = clustered(rows, dim)
    true = vicinal.exact_search(data, queries, K, metric="cosine").ids
    with tempfile.TemporaryDirectory() as folder:
        with vicinal.Collection(f"{folder}/a", dim, checkpoint_rows=None) as made:
            for start in range(0, rows, 5000):
                part = data[start : start + 5000]
                ids = [str(n) for n in range(start, start + len(part))]
                made.upsert(ids, part, metadata=[{"n": n} for n in range(len(part))])
            made.checkpoint()
            found = made.search_ids(queries, K)[0].tolist()
            say({"what": "recall", "recall_at_10": round(recall(found, true), 4)})
            for name, call in {
                "Collection.search": lambda query: made.search(query, K, num_threads=1),
                "Collection.search_ids": lambda q: made.search_ids(q[None], K, num_threads=1),
            }.items():
                say({"what": "in process", "call": name, **in_process(call, queries, requests)})
            blocks = queries.reshape(-1, BATCH, dim)
            told = in_process(lambda block: made.search_ids(block, K), blocks, 16)
            for name, times in (("per_second", BATCH), ("cpu_us", 1 / BATCH)):
                told[name] = round(told[name] * times, 1)
            say({"what": "in process", "call": "search_ids, batch", **told})
        over_http(folder, queries, true, requests, say)
    local_engine(data, queries, say)


def over_http(
    folder: str, queries: np.ndarray, true: np.ndarray, requests: int, say: Callable[[dict], None]
) -> None:
    command = [sys.executable, "-m", "vicinal", "serve", folder, "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        port = int(server.stderr.readline().rpartition(":")[2])
        made = forms(queries)
        answers = [asyncio.run(post(port, data)) for data in made["json"][0]]
        found = [[hit["id"] for hit in json.loads(each)["result"][0]] for each in answers]
        say({"what": "server recall", "recall_at_10": round(recall(found, true), 4)})
        before = memory_mb(server.pid)
        for form, (sent, size) in made.items():
            for connections in CONNECTIONS:
                count = max(requests // size, 2 * connections)
                cpu = cpu_seconds(server.pid)
                told = asyncio.run(load(port, sent, connections, count))
                cpu = (cpu_seconds(server.pid) - cpu) / (count * size) * 1e6
                seconds = told.pop("seconds")
                say(
                    {
                        "what": "server",
                        "form": form,
                        "connections": connections,
                        "requests": count,
                        "requests_per_second": round(count / seconds, 1),
                        "queries_per_second": round(count * size / seconds, 1),
                        "cpu_us": round(cpu, 1),
                        **told,
                    }
                )
        say({"what": "memory", "before_mb": before, "after_mb": memory_mb(server.pid)})
    finally:
        server.terminate()
        server.wait(60)


def local_engine(data: np.ndarray, queries: np.ndarray, say: Callable[[dict], None]) -> None:
    """Measure the engine inside qdrant-client, if that is installed."""
    try:
        from qdrant_client import QdrantClient, models
    except ImportError:
        return
    client = QdrantClient(":memory:")
    params = models.VectorParams(size=data.shape[1], distance=models.Distance.COSINE)
    client.create_collection("a", vectors_config=params)
    client.upload_collection("a", data, ids=range(len(data)))
    told = in_process(lambda q: client.query_points("a", q.tolist(), limit=K), queries, 40)
    version = importlib.metadata.version("qdrant-client")
    say({"what": "in process", "call": f"qdrant-client {version} :memory:, exact", **told})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    def say(line: dict) -> None:
        text = json.dumps(line)
        print(text, flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(text + "\n")

    about = machine.describe([])
    versions = {name: importlib.metadata.version(name) for name in ("fastapi", "uvicorn", "orjson")}
    say({**about, "versions": versions, "rows": options.rows, "dim": options.dim})
    run(options.rows, options.dim, options.requests, say)


if __name__ == "__main__":
    main()
