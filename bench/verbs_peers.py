"""The verbs of bench/verbs.py beside the peer that has them: qdrant's local mode.

    python bench/verbs_peers.py --data minilm-10k --out results.jsonl

Local mode holds all vectors in NumPy arrays and measures all of them, so it is complete; what is
compared is what one query takes, CPU time, one thread, least of some rounds. `complete` is as in
bench/verbs.py, for `mmr` and `like` the share of results that both give. Writes JSON lines.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

import vicinal
from verbs import K, Verbs, least

Array = np.ndarray[Any, np.dtype[Any]]
QUERIES, ROUNDS = 20, 3
NAME = "rows"


class Peer(Verbs):
    """The same index, and a collection of the same rows."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.queries = self.queries[:QUERIES]
        self.far = self.far[:QUERIES]
        self.client = QdrantClient(":memory:")
        self.client.create_collection(
            NAME,
            vectors_config=models.VectorParams(
                size=self.rows.shape[1], distance=models.Distance.COSINE
            ),
        )
        self.odd = np.random.default_rng(0).random(self.n) < 0.5
        for start in range(0, self.n, 1000):
            end = min(start + 1000, self.n)
            self.client.upsert(
                NAME,
                points=models.Batch(
                    ids=list(range(start, end)),
                    vectors=self.rows[start:end].tolist(),
                    payloads=[
                        {"odd": bool(self.odd[i]), "document": int(self.documents[i])}
                        for i in range(start, end)
                    ],
                ),
            )

    def found(self, query: Any, **options: Any) -> list[int]:
        points = self.client.query_points(NAME, query=query, limit=K, **options).points
        return [int(point.id) for point in points]

    def each(self, options: Callable[[], dict[str, Any]]) -> Array:
        return np.array([self.found(q.tolist(), **options()) for q in self.queries])

    def cases(self) -> dict[str, tuple[Callable[[], Array], Callable[[], Array], Any]]:
        """Return for each verb: it, the peer's, and what tells the share found."""
        kept = self.index.filter(self.odd)
        is_odd = models.Filter(
            must=[models.FieldCondition(key="odd", match=models.MatchValue(value=True))]
        )
        seen = self.index.search(self.queries[0], 50).ids
        unseen = models.Filter(must_not=[models.HasIdCondition(has_id=seen.tolist())])
        allowed = ~np.isin(np.arange(self.n), seen)
        examples = np.random.default_rng(2).integers(0, self.n, (QUERIES, 2))

        def groups() -> Array:
            answers = []
            for query in self.queries:
                got = self.client.query_points_groups(
                    NAME, group_by="document", query=query.tolist(), limit=K, group_size=1
                )
                answers.append([int(group.hits[0].id) for group in got.groups])
            return np.array(answers)

        def mmr() -> Array:
            return np.array(
                [
                    self.found(
                        models.NearestQuery(
                            nearest=q.tolist(),
                            mmr=models.Mmr(diversity=0.5, candidates_limit=5 * K),
                        )
                    )
                    for q in self.queries
                ]
            )

        def recommend() -> Array:
            return np.array(
                [
                    self.found(
                        models.RecommendQuery(
                            recommend=models.RecommendInput(positive=[int(i) for i in pair])
                        )
                    )
                    for pair in examples
                ]
            )

        every = np.ones(self.n, bool)
        near = super().groups()[2]
        index, queries = self.index, self.queries
        return {
            "kept_filter": (
                lambda: np.stack([index.search(q, K, filter=kept).ids for q in queries]),
                lambda: self.each(lambda: {"query_filter": is_odd}),
                lambda ids: self.share(ids, self.odd),
            ),
            "exclude": (
                lambda: np.stack([index.search(q, K, exclude=seen).ids for q in queries]),
                lambda: self.each(lambda: {"query_filter": unseen}),
                lambda ids: self.share(ids, allowed),
            ),
            "groups": (lambda: index.search(queries, K, groups=self.documents).ids, groups, near),
            "mmr": (lambda: vicinal.mmr(index, queries, K).ids, mmr, None),
            "like": (lambda: index.search(like=list(examples), k=K).ids, recommend, None),
            "exact": (
                lambda: index.search(queries, K, exact=True).ids,
                lambda: self.each(dict),
                lambda ids: self.share(ids, every),
            ),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="minilm-10k")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    vicinal.set_num_threads(1)
    for name, (verb, peer, share) in Peer(options.data).cases().items():
        ours, found = least(verb, ROUNDS)
        theirs, other = least(peer, ROUNDS)
        alike = float(np.mean([np.isin(a, b).mean() for a, b in zip(found, other, strict=True)]))
        line = {
            "kind": "verbs_peers",
            "data": options.data,
            "verb": name,
            "peer": "qdrant local",
            "ms": round(1000 * ours / QUERIES, 3),
            "peer_ms": round(1000 * theirs / QUERIES, 3),
            "complete": round(alike if share is None else share(found), 4),
            "peer_complete": None if share is None else round(share(other), 4),
        }
        print(line)
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
