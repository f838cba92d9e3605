"""The server for language models: its tools, through the SDK's own client."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedder import embed
from mcp import Client, StdioServerParameters

import vicinal
from vicinal.mcp import Folder, embed_by_command, embed_by_name, make_server, serve_http
from vicinal.mcp._http import with_key

HERE = Path(__file__).resolve().parent
TEXTS = {
    "fox": "A quick fox sees the stone",
    "dog": "Dogs are lazy and sleep at noon",
    "car": "The car is out of our reach",
}
READS = {"search", "get", "list_collections", "count", "why_not"}


def run(
    folder: Folder, story: Callable[[Client], Coroutine[Any, Any, None]], **options: Any
) -> None:
    """Play a story with a client of a server in this process."""

    async def play() -> None:
        async with Client(make_server(folder, **options)) as client:
            await story(client)

    try:
        asyncio.run(asyncio.wait_for(play(), 120))
    finally:
        folder.close()


async def told(client: Client, name: str, **arguments: Any) -> Any:
    """Call a tool that succeeds, and return its structured answer."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content
    # clients that know no structured answers get the same as text
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


async def refused(client: Client, name: str, **arguments: Any) -> str:
    """Call a tool that refuses, and return what it says."""
    result = await client.call_tool(name, arguments)
    assert result.is_error
    return str(result.content[0].text)


def documents(**more: Any) -> list[dict[str, Any]]:
    return [
        {"id": id, "text": text, "metadata": {"length": len(text)}, **more}
        for id, text in TEXTS.items()
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "collections", embed=embed)


def test_a_life(folder: Folder) -> None:
    async def story(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == READS | {"store", "delete"}
        made = await told(client, "store", collection="notes", documents=documents())
        assert made == {"stored": 3, "collection": "notes", "made": True}
        again = await told(client, "store", documents=documents())  # the only one there is
        assert again == {"stored": 3, "collection": "notes", "made": False}
        (about,) = (await told(client, "list_collections"))["collections"]
        assert about == {"name": "notes", "documents": 3, "dim": 8, "metric": "cosine"}
        found = await told(client, "search", text=TEXTS["fox"], k=2, by="vector")
        assert found["hits"][0]["id"] == "fox" and len(found["hits"]) == 2
        assert found["hits"][0]["score"] == pytest.approx(1, abs=1e-5)
        found = await told(client, "search", text="lazy dogs", by="words")
        assert [hit["id"] for hit in found["hits"]] == ["dog"] and found["searched_by"] == "words"
        found = await told(client, "search", text="lazy dogs")
        assert found["searched_by"] == "both" and found["hits"][0]["id"] == "dog"
        long = {"field": "length", "op": "gt", "value": 28}
        assert await told(client, "count", where=long) == {"count": 1}
        found = await told(client, "search", text="lazy", where=long, by="vector")
        assert [hit["id"] for hit in found["hits"]] == ["dog"]
        (document,) = (await told(client, "get", ids=["car", "none"]))["documents"]
        assert document["text"] == TEXTS["car"] and document["metadata"] == {"length": 27}
        page = await told(client, "get", limit=1, offset=1)
        assert [each["id"] for each in page["documents"]] == ["dog"]
        assert await told(client, "delete", ids=["car", "none"]) == {"deleted": 1}
        assert await told(client, "count") == {"count": 2}

    run(folder, story)


def test_what_is_stored_is_there_for_who_opens_the_folder(folder: Folder, tmp_path: Path) -> None:
    async def story(client: Client) -> None:
        vector = [1.0] + [0.0] * 7
        given = [{"id": "v", "vector": vector}, {"id": "t", "text": "words"}]
        await told(client, "store", collection="mixed", documents=given)

    run(folder, story)
    with vicinal.Collection(tmp_path / "collections" / "mixed", read_only=True) as opened:
        assert len(opened) == 2 and opened.metric == "cosine"
        assert np.allclose(opened.get(["v"], vectors=True)[0].vector, [1] + [0] * 7)


def test_tools_say_what_they_do(folder: Folder) -> None:
    async def story(client: Client) -> None:
        for tool in (await client.list_tools()).tools:
            hints = tool.annotations
            assert hints is not None and tool.description and tool.title
            assert hints.read_only_hint == (tool.name in READS)
            assert hints.destructive_hint in ((None,) if tool.name in READS else (True,))
            assert hints.open_world_hint is False
            assert tool.input_schema["additionalProperties"] is False
            assert tool.output_schema["type"] == "object"

    run(folder, story)


def test_a_read_only_server_changes_nothing(tmp_path: Path) -> None:
    place = tmp_path / "notes"
    with vicinal.Collection(place, dim=2, metric="l2") as made:
        made.upsert(["a"], [[0, 0]], ["text"])
    before = {path.name: path.read_bytes() for path in place.iterdir()}

    async def story(client: Client) -> None:
        assert {tool.name for tool in (await client.list_tools()).tools} == READS
        assert "store" in await refused(client, "store", documents=[{"id": "b", "vector": [1, 1]}])
        assert "delete" in await refused(client, "delete", ids=["a"])
        assert (await told(client, "list_collections"))["read_only"] is True
        found = await told(client, "search", vector=[1, 1])  # the folder is the collection
        assert [hit["id"] for hit in found["hits"]] == ["a"]

    run(Folder(place, read_only=True), story)
    now = {path.name: path.read_bytes() for path in place.iterdir()}
    assert {name: now[name] for name in before} == before
    with pytest.raises(FileNotFoundError):
        Folder(tmp_path / "none", read_only=True)


@pytest.mark.parametrize(
    "name", ["../notes", "/etc", "a/b", ".", "..", "", "a" * 128, "a\0", "ä", ".hidden", "a\n"]
)
def test_a_name_is_never_a_path(folder: Folder, name: str, tmp_path: Path) -> None:
    async def story(client: Client) -> None:
        said = await refused(client, "store", collection=name, documents=documents())
        assert "collection: expected 1 to 127 letters" in said
        assert "collection" in await refused(client, "get", collection=name)

    run(folder, story)
    assert list((tmp_path / "collections").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["collections"]


def test_bad_arguments_are_named_and_change_nothing(folder: Folder, tmp_path: Path) -> None:
    async def story(client: Client) -> None:
        await told(client, "store", collection="notes", documents=documents())
        for wanted, tool, arguments in (
            ("neither", "search", {}),
            ("k", "search", {"text": "x", "k": 0}),
            ("k", "search", {"text": "x", "k": 101}),
            ("limit", "search", {"text": "x", "limit": 3}),  # no argument of this tool
            ("vector: expected 8 numbers, got 2", "search", {"vector": [1, 2]}),
            ("where", "search", {"text": "x", "where": {"field": "a"}}),
            ("where", "count", {"where": {"field": 'a"', "op": "eq", "value": 1}}),
            ("'no' is not there", "count", {"collection": "no"}),
            ("ids", "delete", {}),
            ("'none' is not in", "why_not", {"id": "none", "text": "x"}),
            ("documents", "store", {"documents": []}),
            ("metadata", "store", {"documents": [{"id": "a", "text": "x", "metadata": [1]}]}),
            ("colour", "store", {"documents": [{"id": "a", "text": "x", "colour": 1}]}),
            (
                "8 numbers, got 1",
                "store",
                {"documents": [*documents(), {"id": "b", "vector": [1]}]},
            ),
            ("'fox'", "store", {"documents": [*documents(), {"id": "fox", "text": "x"}]}),
        ):
            said = await refused(client, tool, **arguments)
            assert wanted in said, said
            assert str(tmp_path) not in said
        deep: Any = {"field": "a", "op": "eq", "value": 1}
        for _ in range(60):
            deep = {"not": deep}
        assert "50 deep" in await refused(client, "count", where=deep)
        assert await told(client, "count") == {"count": 3}

    run(folder, story)


def test_without_vectors_of_texts(tmp_path: Path) -> None:
    async def story(client: Client) -> None:
        said = await refused(client, "store", collection="n", documents=documents())
        assert "vector: expected one at least" in said
        assert os.listdir(tmp_path) == []
        vectors = [[1, 0], [0, 1], [1, 1]]
        given = [{**a, "vector": b} for a, b in zip(documents(), vectors, strict=True)]
        await told(client, "store", collection="n", documents=given)
        found = await told(client, "search", vector=[0, 1], k=1)
        assert found["hits"][0]["id"] == "dog" and found["searched_by"] == "vector"
        found = await told(client, "search", text="lazy")
        assert found["searched_by"] == "words" and found["hits"][0]["id"] == "dog"
        found = await told(client, "search", text="lazy", vector=[0, 1])
        assert found["searched_by"] == "both" and found["hits"][0]["id"] == "dog"
        assert "makes no vectors" in await refused(client, "search", text="lazy", by="vector")
        assert "text: expected one" in await refused(client, "search", vector=[0, 1], by="both")

    run(Folder(tmp_path), story)


def test_why_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3000, 24)).astype("f4")
    names = [str(i) for i in range(3000)]
    with vicinal.Collection(tmp_path, dim=24, M=4, ef_construction=20) as made:
        made.upsert(names, rows, metadata=[{"n": i} for i in range(3000)])
        made.upsert(["bare"], [None], ["no vector"])
        made.checkpoint()
        # a query whose true neighbours the walk misses, so that there is something to explain
        for query in rng.normal(size=(300, 24)):
            true = [hit.id for hit in made.search(query, 10, ef_search=2**31 - 1)]
            found = [hit.id for hit in made.search(query, 10)]
            missed = [id for id in true if id not in found]
            if missed:
                break
        farthest = made.search(query, 3000)[-1].id
    asked = query.tolist()

    async def story(client: Client) -> None:
        told_of = await told(client, "why_not", id=missed[0], vector=asked)
        assert told_of["fate"] in ("not_reranked", "evicted", "refused", "unreached")
        assert told_of["rank"] is None
        assert told_of["true_rank"] == true.index(missed[0]) + 1
        width = told_of["finds"].get("ef_search")
        with vicinal.Collection(tmp_path, read_only=True) as again:
            if width is not None:
                wide = again.search(query, 10, ef_search=width)
                assert missed[0] in [hit.id for hit in wide]
        told_of = await told(client, "why_not", id=found[0], vector=asked)
        assert (told_of["fate"], told_of["rank"]) == ("found", 1)
        told_of = await told(client, "why_not", id=farthest, vector=asked)
        assert told_of["fate"] == "farther" and told_of["true_rank"] is None
        where = {"field": "n", "op": "eq", "value": -1}
        told_of = await told(client, "why_not", id=found[0], vector=asked, where=where)
        assert told_of["fate"] == "filtered"
        told_of = await told(client, "why_not", id="bare", vector=asked)
        assert told_of["fate"] == "no_vector"

    run(Folder(tmp_path, read_only=True), story)


def test_answers_have_an_end(folder: Folder) -> None:
    async def story(client: Client) -> None:
        large = [
            {"id": f"d{i}", "text": f"{i} " + "stone " * 2000, "metadata": {"n": "x" * 500}}
            for i in range(40)
        ]
        await told(client, "store", collection="large", documents=large)
        found = await told(client, "get", limit=40)
        assert len(json.dumps(found)) < 12_000
        assert 0 < len(found["documents"]) == 40 - found["left_out"]
        assert all(each["text_cut"] and len(each["text"]) == 300 for each in found["documents"])
        hits = await told(client, "search", text="stone", k=40)
        assert len(json.dumps(hits)) < 12_000 and hits["left_out"] > 0
        one = [{"id": "wide", "text": "€" * 9000, "metadata": {"n": "\x01" * 9000}}]
        await told(client, "store", collection="one", documents=one)
        (document,) = (await told(client, "get", collection="one"))["documents"]
        assert document["metadata"] is None and document["metadata_left_out"]
        assert document["id"] == "wide" and document["text_cut"]

    run(folder, story, max_bytes=10_000, max_text=300)


def test_another_writer_is_told(folder: Folder, tmp_path: Path) -> None:
    script = (
        "import sys, vicinal\n"
        "c = vicinal.Collection(sys.argv[1], dim=8)\n"
        "c.upsert(['a'], [[1] * 8])\n"
        "print('has it', flush=True)\n"
        "sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "collections" / "notes")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == b"has it\n"

        async def story(client: Client) -> None:
            said = await refused(client, "store", collection="notes", documents=documents())
            assert "another process writes" in said
            assert await told(client, "count") == {"count": 1}

        run(folder, story)
    finally:
        other.communicate()


def test_many_calls_at_once(folder: Folder) -> None:
    async def story(client: Client) -> None:
        await told(client, "store", collection="notes", documents=documents())
        calls = [told(client, "search", text=text, k=1, by="vector") for text in TEXTS.values()]
        calls += [
            told(client, "store", documents=[{"id": f"n{i}", "text": f"number {i} z"}])
            for i in range(10)
        ]
        answers = await asyncio.gather(*calls)
        assert [answer["hits"][0]["id"] for answer in answers[:3]] == list(TEXTS)
        assert await told(client, "count") == {"count": 13}

    run(folder, story)


def command(*arguments: str) -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "vicinal", "mcp", *arguments],
        env={**os.environ, "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}"},
    )


@pytest.mark.parametrize("by", ["function", "program"])
def test_over_stdio(tmp_path: Path, by: str) -> None:
    program = f"{sys.executable} {HERE / 'embedder.py'}"
    how = ("--embed", "embedder:embed") if by == "function" else ("--embed-command", program)

    async def play() -> None:
        async with Client(command(str(tmp_path), *how)) as client:
            await told(client, "store", collection="notes", documents=documents())
            found = await told(client, "search", text=TEXTS["car"], k=1, by="vector")
            assert [hit["id"] for hit in found["hits"]] == ["car"]
        async with Client(command(str(tmp_path), "--read-only")) as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == READS
            assert await told(client, "count") == {"count": 3}

    asyncio.run(asyncio.wait_for(play(), 180))


def test_over_http(tmp_path: Path) -> None:
    key = "a key of at least sixteen characters"
    server = subprocess.Popen(
        [sys.executable, "-m", "vicinal", "mcp", str(tmp_path), "--http", "127.0.0.1:0",
         "--embed", "embedder:embed"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "VICINAL_API_KEY": key,
             "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}"},
    )  # fmt: skip
    try:
        assert server.stderr is not None
        line = server.stderr.readline()
        assert line.startswith("listening on http://127.0.0.1:"), line
        address = line.removeprefix("listening on ").strip()
        for headers in ({}, {"authorization": "Bearer wrong"}, {"api-key": key + "x"}):
            asked = urllib.request.Request(address, b"{}", headers)
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(asked, timeout=60)
            assert error.value.code == 401

        async def play() -> None:
            import httpx2  # what the SDK asks with
            from mcp.client.streamable_http import streamable_http_client

            known = {"authorization": f"Bearer {key}"}
            async with (
                httpx2.AsyncClient(headers=known, timeout=60) as http,
                Client(streamable_http_client(address, http_client=http)) as client,
            ):
                await told(client, "store", collection="notes", documents=documents())
                assert await told(client, "count") == {"count": 3}

        asyncio.run(asyncio.wait_for(play(), 120))
    finally:
        server.terminate()
        assert server.wait(60) is not None
        assert server.stderr is not None
        server.stderr.close()


def test_other_machines_need_a_key(folder: Folder) -> None:
    server = make_server(folder)
    with pytest.raises(ValueError, match=r"host: 0\.0\.0\.0 can be reached from other machines"):
        serve_http(server, "0.0.0.0", 0)
    with pytest.raises(ValueError, match="key: expected at least 16 characters, got 3"):
        serve_http(server, "127.0.0.1", 0, "abc")


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ([], False),
        ([(b"authorization", b"Bearer right right right")], True),
        ([(b"authorization", b"bearer right right right")], True),
        ([(b"authorization", b"Basic right right right")], False),
        ([(b"api-key", b"right right right")], True),
        ([(b"api-key", b"right right righT")], False),
        ([(b"api-key", b"right right right"), (b"api-key", b"wrong")], False),
    ],
)
def test_the_key(headers: list[tuple[bytes, bytes]], passes: bool) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append("app")

    async def send(message: Any) -> None:
        seen.append(message)

    guarded = with_key(app, "right right right")
    asyncio.run(guarded({"type": "http", "headers": headers}, None, send))
    assert (seen == ["app"]) == passes
    assert passes or seen[0]["status"] == 401


def test_embedding_that_goes_wrong(tmp_path: Path) -> None:
    for name in ("embedder", "embedder:none", ":embed"):
        with pytest.raises(ValueError, match="embed"):
            embed_by_name(name)
    with pytest.raises(TypeError, match="embed: expected a function, got str"):
        embed_by_name("embedder:LETTERS")
    assert embed_by_name("embedder:embed") is not None
    for program, said in (
        (f"{sys.executable} -c 'print(1)'", "embed: expected 1 vectors"),
        (f"{sys.executable} -c 'print(\"no\")'", "embed: expected a JSON list"),
        (f"{sys.executable} -c 'raise SystemExit(3)'", "embed: the command ended with 3"),
        (str(tmp_path / "none"), "embed: the command could not be run"),
    ):
        with pytest.raises(ValueError, match=said):
            embed_by_command(program)(["a"])

    async def story(client: Client) -> None:
        said = await refused(client, "store", collection="n", documents=documents())
        assert "embed: the command ended with 3" in said
        assert os.listdir(tmp_path / "c") == []

    program = f"{sys.executable} -c 'raise SystemExit(3)'"
    run(Folder(tmp_path / "c", embed=embed_by_command(program)), story)


def test_the_transcript_of_the_page(tmp_path: Path) -> None:
    page = (HERE.parents[2] / "docs" / "guide" / "mcp.md").read_text(encoding="utf-8")
    calls = re.findall(r"^> (.*)\n< (.*)$", page, re.MULTILINE)
    assert len(calls) == 5

    async def play() -> None:
        async with Client(command(str(tmp_path))) as client:
            for asked, wanted in calls:
                call = json.loads(asked)
                result = await client.call_tool(call["name"], call["arguments"])
                said = result.content[0].text if result.is_error else result.structured_content
                assert said == json.loads(wanted)

    asyncio.run(asyncio.wait_for(play(), 120))


def test_what_the_page_shows_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (HERE.parents[2] / "docs" / "guide" / "mcp.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    asyncio.run(names["main"]())
    assert names["found"] == ["fox"]
