"""The same calls to the server and to the engine inside qdrant-client: the same answers.

    VICINAL_DIFFERENTIAL=400 python -m pytest -rP test_differential.py

makes more histories than the tests do by themselves. Each has some 40 calls. Scores are compared to
1e-5 and, where two are that near to each other, in either order.
"""

from __future__ import annotations

import os
import random
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse
from serving import GUARD, Served

HISTORIES = int(os.environ.get("VICINAL_DIFFERENTIAL", "8"))
DIM = 5
IDS = [*range(12), *(str(uuid.UUID(int=i * 2**100 + 7)) for i in range(6))]
KEYS = ["a", "b", "c.d", "c", 'c."d"', '"e f"']
WORDS = ["x", "y", "xy", "", "Ä"]
DISTANCES = [models.Distance.COSINE, models.Distance.DOT, models.Distance.EUCLID]


class History:
    """Random calls, made the same way for both sides."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.numbers = np.random.default_rng(seed)

    def vector(self) -> list[float]:
        return [float(value) for value in self.numbers.standard_normal(DIM).astype(np.float32)]

    def scalar(self) -> Any:
        draw = self.random
        return draw.choice([draw.randint(-2, 3), draw.choice(WORDS), draw.random() < 0.5, 1.5, 2.0])

    def value(self) -> Any:
        kind = self.random.randrange(8)
        if kind == 0:
            return None
        if kind == 1:
            return [self.scalar() for _ in range(self.random.randrange(4))]
        if kind == 2:
            return {"d": self.scalar(), "g": 1}
        if kind == 3:
            return [None, self.scalar()]
        return self.scalar()

    def payload(self) -> dict[str, Any]:
        names = ["a", "b", "c", "e f"]
        return {name: self.value() for name in names if self.random.random() < 0.7}

    def match(self) -> Any:
        draw = self.random
        some = draw.choice([[1, 2], ["x", "Ä"], [], [0], ["", "xy", "y"]])
        return draw.choice(
            [
                models.MatchValue(value=draw.choice([0, 1, 2, "x", "", True, False])),
                models.MatchAny(any=some),
                models.MatchExcept(**{"except": some}),
                models.MatchSubstring(substring=draw.choice(["x", "Ä", "y"])),
            ]
        )

    def span(self) -> models.Range:
        bounds = {
            name: self.random.choice([-1, 0, 1, 1.5, 2])
            for name in ("lt", "lte", "gt", "gte")
            if self.random.random() < 0.4
        }
        return models.Range(**bounds)

    def condition(self, depth: int) -> Any:
        draw, key = self.random, self.random.choice(KEYS)
        kind = draw.randrange(8 if depth else 7)
        if kind == 0:
            return models.HasIdCondition(has_id=draw.sample(IDS, 4))
        if kind == 1:
            return models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
        if kind == 2:
            return models.IsNullCondition(is_null=models.PayloadField(key=key))
        if kind == 3:
            return models.FieldCondition(key=key, range=self.span())
        if kind == 4:
            flags = {draw.choice(["is_null", "is_empty"]): draw.random() < 0.5}
            return models.FieldCondition(key=key, **flags)
        if kind == 7:
            return self.filter(depth - 1)
        return models.FieldCondition(key=key, match=self.match())

    def filter(self, depth: int = 2) -> models.Filter | None:
        clauses = {}
        for name in ("must", "should", "must_not"):
            if self.random.random() < 0.4:
                some = [self.condition(depth) for _ in range(self.random.randrange(3))]
                clauses[name] = some
        return models.Filter(**clauses)

    def maybe_filter(self) -> models.Filter | None:
        return self.filter() if self.random.random() < 0.6 else None

    def shape(self) -> dict[str, Any]:
        draw = self.random
        chosen = draw.choice(
            [
                True,
                False,
                ["a", "b"],
                models.PayloadSelectorExclude(exclude=["c"]),
                models.PayloadSelectorInclude(include=["a", "nope"]),
            ]
        )
        return {"with_payload": chosen, "with_vectors": draw.random() < 0.4}

    # ---- calls: the name of a method of the client, and its arguments

    def call(self) -> tuple[str, dict[str, Any]]:
        draw = self.random
        return draw.choice(
            [self.upsert, self.upsert, self.batch, self.delete, self.set_payload, self.retrieve]
            + [self.query] * 5
            + [self.several, self.scroll, self.scroll, self.count]
        )()

    def points(self) -> list[models.PointStruct]:
        ids = [self.random.choice(IDS) for _ in range(self.random.randrange(1, 6))]
        return [
            models.PointStruct(id=id, vector=self.vector(), payload=self.payload()) for id in ids
        ]

    def upsert(self) -> tuple[str, dict[str, Any]]:
        return "upsert", {"points": self.points()}

    def batch(self) -> tuple[str, dict[str, Any]]:
        made = self.points()
        return "upsert", {
            "points": models.Batch(
                ids=[each.id for each in made],
                vectors=[each.vector for each in made],
                payloads=[each.payload for each in made],
            )
        }

    def selector(self) -> Any:
        if self.random.random() < 0.6:
            return self.random.sample(IDS, 2)
        return models.FilterSelector(filter=models.Filter(must=[self.condition(1)] * 2))

    def delete(self) -> tuple[str, dict[str, Any]]:
        return "delete", {"points_selector": self.selector()}

    def set_payload(self) -> tuple[str, dict[str, Any]]:
        payload = {"a": self.scalar(), "n": self.scalar()}  # no null: that removes a key
        return "set_payload", {"payload": payload, "points": self.selector()}

    def retrieve(self) -> tuple[str, dict[str, Any]]:
        ids = [self.random.choice(IDS) for _ in range(4)]
        return "retrieve", {"ids": ids, **self.shape()}

    def query(self) -> tuple[str, dict[str, Any]]:
        draw = self.random
        given: dict[str, Any] = {
            "limit": draw.choice([1, 3, 30]),
            "query_filter": self.maybe_filter(),
            **self.shape(),
        }
        if draw.random() < 0.3:
            given["offset"] = draw.randrange(4)
        if draw.random() < 0.3:
            given["score_threshold"] = draw.choice([-0.5, 0.25, 1.75, 3.0])
        if draw.random() < 0.3:
            given["search_params"] = models.SearchParams(exact=True, hnsw_ef=64)
        kind = draw.randrange(8)
        if kind == 0:
            given["query"] = draw.choice(IDS)
        elif kind == 1:
            del given["query_filter"]
            given.pop("score_threshold", None)
            mmr = models.Mmr(diversity=draw.choice([0.0, 0.3, 1.0]), candidates_limit=6)
            given["query"] = models.NearestQuery(nearest=self.vector(), mmr=mmr)
        elif kind != 2:
            given["query"] = self.vector()
        else:
            given.pop("score_threshold", None)
        return "query_points", given

    def several(self) -> tuple[str, dict[str, Any]]:
        draw = self.random
        shared, alike = self.filter(), draw.random() < 0.6
        requests = [
            models.QueryRequest(
                query=self.vector(),
                filter=shared if alike else self.filter(),
                limit=4 if alike else draw.choice([1, 7]),
                with_payload=True,
            )
            for _ in range(draw.randrange(1, 5))
        ]
        return "query_batch_points", {"requests": requests}

    def scroll(self) -> tuple[str, dict[str, Any]]:
        draw = self.random
        given = {"scroll_filter": self.maybe_filter(), "limit": draw.choice([1, 4]), **self.shape()}
        if draw.random() < 0.5:
            given["offset"] = draw.choice(IDS)
        return "scroll", given

    def count(self) -> tuple[str, dict[str, Any]]:
        return "count", {"count_filter": self.maybe_filter()}


def plain(answer: Any) -> Any:
    """Return an answer as plain data."""
    if hasattr(answer, "model_dump"):
        said = answer.model_dump(exclude_none=True)
        for name in ("operation_id", "version", "shard_key", "order_value", "time"):
            said.pop(name, None)
        return said
    if isinstance(answer, (list, tuple)):
        return [plain(each) for each in answer]
    return answer


def agree(ours: Any, theirs: Any) -> bool:
    """Tell whether two answers are the same, floats to 1e-5."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return set(ours) == set(theirs) and all(agree(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(agree, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, float):
        return abs(ours - theirs) <= 1e-5 * max(1.0, abs(theirs))
    return type(ours) is type(theirs) and ours == theirs


def in_order(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return scored points in an order that does not depend on which of two equal ones is first."""
    return sorted(points, key=lambda point: (-round(point.get("score", 0), 4), str(point["id"])))


def same(name: str, ours: Any, theirs: Any) -> bool:
    if agree(ours, theirs):
        return True
    if "refused" in (ours, theirs):
        return False
    if name == "query_points":
        return agree(in_order(ours["points"]), in_order(theirs["points"]))
    if name == "query_batch_points":
        return len(ours) == len(theirs) and all(
            same("query_points", mine, yours) for mine, yours in zip(ours, theirs, strict=True)
        )
    return False


def outcome(client: QdrantClient, name: str, given: dict[str, Any]) -> Any:
    try:
        return plain(getattr(client, name)("things", **given))
    except UnexpectedResponse as error:
        assert error.status_code is not None and 400 <= error.status_code < 500
        return "refused"
    except (ValueError, KeyError):
        return "refused"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("checkpoint_rows", [5, 10_000])
def test_the_same_answers(tmp_path: Path, checkpoint_rows: int) -> None:
    """With the index saved in the background again and again, and with all of it pending."""
    with Served(tmp_path / "data", f"--checkpoint-rows={checkpoint_rows}") as server:
        client = QdrantClient(url=server.url, timeout=int(GUARD), trust_env=False)
        compare(client)
        client.close()


def compare(client: QdrantClient) -> None:
    calls, differences = 0, []
    for seed in range(HISTORIES):
        history, theirs = History(seed), QdrantClient(":memory:")
        distance = DISTANCES[seed % 3]
        for side in (client, theirs):
            side.delete_collection("things")
            params = models.VectorParams(size=DIM, distance=distance)
            side.create_collection("things", vectors_config=params)
        for step in range(40):
            name, given = history.call()
            ours, other = (outcome(side, name, given) for side in (client, theirs))
            calls += 1
            if not same(name, ours, other):
                differences.append((seed, step, name, given, ours, other))
        theirs.close()
    print(f"{HISTORIES} histories, {calls} calls, {len(differences)} differences")
    for each in differences[:10]:
        print(*each, sep="\n   ")
    assert not differences, differences[0]
