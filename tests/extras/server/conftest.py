from __future__ import annotations

from collections.abc import Iterator

import pytest
from qdrant_client import QdrantClient
from serving import GUARD, Served


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server without keys for all tests that do not end it."""
    with Served(tmp_path_factory.mktemp("served") / "data") as made:
        yield made
    assert made.process.returncode == 0, made.said


@pytest.fixture
def client(server: Served) -> Iterator[QdrantClient]:
    """qdrant-client as it is, against the server."""
    made = QdrantClient(url=server.url, timeout=int(GUARD), trust_env=False)
    for each in made.get_collections().collections:
        made.delete_collection(each.name)
    yield made
    made.close()
