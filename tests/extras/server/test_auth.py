"""Who may do what: keys, roles, where a server may listen; names of collections are no paths."""

from __future__ import annotations

import http.client
import json
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from qdrant_client import QdrantClient, models
from serving import CLEAN, GUARD, Served, error_of, refused

from vicinal.server import Limits, Settings
from vicinal.server.app import make_app
from vicinal.server.auth import Keys, digest, is_loopback, new_key, read_keys
from vicinal.server.store import NAME

WRITE, READ, OTHER = new_key(), new_key(), new_key()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("guarded")
    keys = folder / "keys"
    keys.write_text(f"# of the tests\nwrite {digest(WRITE)}\nread {digest(READ)}  # a reader's\n")
    with Served(folder / "data", "--keys", str(keys)) as made, made.http() as raw:
        made_one = raw.put(
            "/collections/a",
            json={"vectors": {"size": 2, "distance": "Dot"}},
            headers={"api-key": WRITE},
        )
        assert made_one.status_code == 200
        yield made


def routes() -> list[tuple[str, str, str]]:
    """Return method, path and what it takes, of all routes, from OpenAPI of an app with keys."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        app = make_app(Settings(folder, keys=(("read", digest(READ)),)))
        found = []
        for path, methods in app.openapi()["paths"].items():
            for method, told in methods.items():
                found.append((method.upper(), path.replace("{name}", "a"), path, told))
        app.state.store.close()
    writes = {
        ("PUT", "/collections/{name}"),
        ("DELETE", "/collections/{name}"),
        ("PUT", "/collections/{name}/index"),
        ("PUT", "/collections/{name}/points"),
        ("POST", "/collections/{name}/points/delete"),
        ("POST", "/collections/{name}/points/payload"),
        ("PUT", "/v1/collections/{name}"),
        ("POST", "/v1/collections/{name}/checkpoint"),
        ("POST", "/v1/collections/{name}/documents"),
        ("POST", "/v1/collections/{name}/delete"),
    }
    opened = {("GET", "/healthz"), ("GET", "/readyz")}
    listed = []
    for method, path, template, _ in found:
        pair = (method, template)
        listed.append((method, path, "write" if pair in writes else "read"))
        if pair in opened:
            listed[-1] = (method, path, "open")
    assert {(m, t) for m, _, t, _ in found} >= writes | opened
    return listed


ROUTES = routes()
KEYS: dict[str, dict[str, str]] = {
    "none": {},
    "wrong": {"api-key": OTHER},
    "empty": {"api-key": ""},
    "wrong bearer": {"authorization": f"Bearer {OTHER}"},
    "basic": {"authorization": f"Basic {WRITE}"},
    "contradiction": {"api-key": WRITE, "authorization": f"Bearer {READ}"},
    "digest": {"api-key": digest(WRITE)},
    "read": {"api-key": READ},
    "read bearer": {"authorization": f"Bearer {READ}"},
    "write": {"api-key": WRITE},
    "write bearer": {"authorization": f"bearer {WRITE}"},
}


def test_the_matrix(guarded: Served) -> None:
    """Each key with each route: 401 without one, 403 to write with one that reads."""
    asked = 0
    with guarded.http() as raw:
        for method, path, work in ROUTES:
            for name, headers in KEYS.items():
                answer = raw.request(method, path, headers=headers)
                role = name.split()[0] if name.split()[0] in ("read", "write") else None
                asked += 1
                if work == "open":
                    assert answer.status_code == 200, (method, path, name)
                elif role is None:
                    assert answer.status_code == 401, (method, path, name)
                    assert "key" in error_of(answer)
                elif role == "read" and work == "write":
                    assert answer.status_code == 403, (method, path, name)
                else:  # without a body, most are told what is missing
                    assert answer.status_code in (200, 400, 415), (method, path, name)
                    if method == "DELETE":  # it is gone, so it is made again
                        body = {"vectors": {"size": 2, "distance": "Dot"}}
                        raw.put("/collections/a", json=body, headers={"api-key": WRITE})
        for path in ("/openapi.json", "/nothing", "/docs"):
            assert raw.get(path).status_code == 401
        assert raw.request("BREW", "/collections").status_code == 401
    assert asked == len(ROUTES) * len(KEYS) > 250


def test_the_client_with_keys(guarded: Served) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a key goes over plain HTTP
        given: dict[str, Any] = {"url": guarded.url, "timeout": int(GUARD), "trust_env": False}
        writer = QdrantClient(api_key=WRITE, **given)
        reader = QdrantClient(api_key=READ, **given)
    writer.upsert("a", [models.PointStruct(id=1, vector=[1, 2])])
    assert reader.count("a").count == 1
    with pytest.raises(Exception, match="403"):
        reader.upsert("a", [models.PointStruct(id=2, vector=[1, 2])])
    assert reader.count("a").count == 1


def test_keys_of_the_environment(tmp_path: Path) -> None:
    given = {"VICINAL_API_KEY": WRITE, "VICINAL_READ_KEY": READ}
    with Served(tmp_path / "d", **given) as made, made.http() as raw:
        assert raw.get("/collections").status_code == 401
        for key in (WRITE, READ):
            assert raw.get("/collections", headers={"api-key": key}).status_code == 200
    code, said = refused(tmp_path / "d", VICINAL_API_KEY="short")
    assert code == 2 and "VICINAL_API_KEY: expected at least 16 characters, got 5" in said


def test_no_open_server_beyond_loopback(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::"):
        code, said = refused(tmp_path / "d", "--host", host)
        assert code == 2 and "for which the server needs keys" in said
    assert not (tmp_path / "d").exists()
    with Served(tmp_path / "d", "--host", "0.0.0.0", VICINAL_API_KEY=WRITE) as made:
        url = f"http://127.0.0.1:{made.port}"
        assert httpx.get(f"{url}/collections", trust_env=False).status_code == 401


def test_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "localhost", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "10.0.0.1", "::")))


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:6333", "127.0.0.1.evil.example", ""]
)
def test_another_host_without_keys(server: Served, host: str) -> None:
    """A page that made its own name mean 127.0.0.1 gets nothing."""
    with server.http(host=host) as raw:
        answer = raw.get("/collections")
    assert answer.status_code in (400, 403)


def test_a_browsers_simple_request_changes_nothing(server: Served) -> None:
    with server.http() as raw:
        body = '{"vectors": {"size": 2, "distance": "Dot"}}'
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            answer = raw.put("/collections/b", content=body, headers={"content-type": kind})
            assert answer.status_code == 415 and "content-type" in error_of(answer)
        assert raw.options("/collections/b").status_code == 405
        assert "access-control-allow-origin" not in raw.get("/collections").headers


# ---- keys


def test_keys_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"\n# all\nread {digest(READ)}\nwrite {digest(WRITE)}  # me\n")
    keys = Keys(read_keys(str(path)))
    assert (keys.role(READ), keys.role(WRITE), keys.role(OTHER)) == ("read", "write", None)
    for bad, said in (
        ("", "got an empty file"),
        ("write secret", "line 1"),
        (f"admin {digest(READ)}", "line 1"),
        (f"read {digest(READ)}\nread {digest(READ)[:-1]}", "line 2"),
    ):
        path.write_text(bad)
        with pytest.raises(ValueError, match=said):
            read_keys(str(path))
        code, told = refused(tmp_path / "d", "--keys", str(path))
        assert code == 2 and said in told
    code, told = refused(tmp_path / "d", "--keys", str(tmp_path / "none"))
    assert code == 3


def test_all_keys_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many comparisons for the first key as for the last and for a wrong one, constant-time."""
    import hmac

    seen: list[tuple[str, str]] = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: seen.append((a, b)) or real(a, b))
    keys = Keys((("read", digest(READ)), ("write", digest(WRITE)), ("read", digest("x"))))
    for key in (READ, WRITE, OTHER):
        seen.clear()
        keys.role(key)
        assert len(seen) == 3 and all(len(a) == len(b) == 64 for a, b in seen)


def test_a_key_of_both_roles_writes() -> None:
    keys = Keys((("write", digest(WRITE)), ("read", digest(WRITE))))
    assert keys.role(WRITE) == "write"


def test_the_command_key(tmp_path: Path) -> None:
    import subprocess
    import sys

    made = {}
    for options in ([], ["--read"]):
        command = [sys.executable, "-m", "vicinal", "key", "--json", *options]
        done = subprocess.run(command, capture_output=True, text=True, env=CLEAN, timeout=GUARD)
        told = json.loads(done.stdout)
        role = "read" if options else "write"
        assert told["line"] == f"{role} {digest(told['key'])}"
        made[role] = told["key"]
    assert made["read"] != made["write"]


# ---- names

NAMES = [
    "../x",
    "..",
    ".",
    ".hidden",
    "a/b",
    "/etc",
    "a\\b",
    "a\0b",
    "a b",
    "",
    "é",
    "x" * 128,
    "-a",
    ".making-1",
    "%2e%2e%2fx",
    "a\n",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_no_paths(server: Served, name: str) -> None:
    """As bytes on the wire: clients would make something else of dots themselves."""
    above = sorted(os.listdir(server.folder.parent))
    before = sorted(os.listdir(server.folder))
    body = json.dumps({"vectors": {"size": 2, "distance": "Dot"}})
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=GUARD)
    for prefix in ("/collections/", "/v1/collections/"):
        for method in ("GET", "PUT", "DELETE"):
            path = prefix + quote(name, safe="")
            sent = body if method == "PUT" else None
            connection.request(method, path, sent, {"content-type": "application/json"})
            answer = connection.getresponse()
            said = answer.read().decode()
            assert answer.status in (400, 404, 405), (method, path, said)
            assert str(server.folder) not in said
    connection.close()
    assert sorted(os.listdir(server.folder.parent)) == above
    assert sorted(os.listdir(server.folder)) == before


def test_what_names_may_be() -> None:
    import re

    for name in ("a", "A.b-c_9", "x" * 127, "0", "a..b"):
        assert re.fullmatch(NAME, name)
    for name in NAMES:
        assert not re.fullmatch(NAME, name) or name == "%2e%2e%2fx"


def test_a_folder_that_is_no_collection(server: Served) -> None:
    (server.folder / "other").mkdir()
    (server.folder / "other" / "file").write_text("x")
    body = {"vectors": {"size": 2, "distance": "Dot"}}
    with server.http() as raw:
        assert raw.get("/collections/other").status_code == 404
        assert raw.put("/collections/other", json=body).status_code == 409
        assert raw.delete("/collections/other").json()["result"] is False
    assert (server.folder / "other" / "file").read_text() == "x"


def test_one_server_has_a_folder(server: Served) -> None:
    code, said = refused(server.folder)
    assert code == 3 and "another server has this folder" in said


def test_the_lock_is_not_for_others(server: Served) -> None:
    mode = (server.folder / ".server.lock").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match="k: expected a number above 0, got 0"):
        Limits(k=0)
    with pytest.raises(TypeError, match="ef: expected a number, got str"):
        Limits(ef="x")  # type: ignore[arg-type]
