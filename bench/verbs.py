"""What the verbs save: each beside what one writes by hand without it, and how complete it is.

    python bench/verbs.py --data minilm-10k --out results.jsonl

Both versions run in one process on one index, with one thread; the time is the least CPU time of
some rounds, for all queries, so that other programs hardly disturb it. Completeness is the share of
what brute force finds. Writes JSON lines, prints a table.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import datasets
import vicinal

Array = np.ndarray[Any, np.dtype[Any]]
K = 10
PARTS = 8  # rows of a document
MULTI, TOKENS = 20, 8  # queries of several vectors each
ROUNDS = 5


def unit(rows: Array) -> Array:
    return rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)


def least(work: Callable[[], Any], rounds: int = ROUNDS) -> tuple[float, Any]:
    """Return the least time of some rounds, and what came out."""
    times, result = [], None
    for _ in range(rounds):
        begun = time.process_time()
        result = work()
        times.append(time.process_time() - begun)
    return min(times), result


class Verbs:
    """One data set, an index of it, and the cases."""

    def __init__(self, name: str) -> None:
        data = datasets.load(name)
        self.rows = np.asarray(data.base, np.float32)
        self.queries = np.asarray(data.queries, np.float32)[:200]
        self.index = vicinal.Index(self.rows.shape[1], "cosine")
        self.index.add(self.rows)
        self.n = len(self.rows)
        self.documents = np.arange(self.n) // PARTS
        self.far = 1 - unit(self.queries) @ unit(self.rows).T

    def share(self, ids: Array, allowed: Array) -> float:
        """Share of results as near as the k-th of brute force among allowed rows."""
        far = np.where(allowed, self.far, np.inf)
        bound = np.partition(far, K - 1, axis=1)[:, K - 1 : K]
        return float((np.take_along_axis(far, ids, axis=1) <= bound + 1e-6).mean())

    def kept_filter(self) -> tuple[Any, ...]:
        mask = np.random.default_rng(0).random(self.n) < 0.5
        out = np.random.default_rng(1).random(self.n) < 0.1
        kept = self.index.filter(mask) & ~self.index.filter(out)
        ids = self.index.ids

        def by_hand() -> Array:
            return np.stack(
                [self.index.search(q, K, filter=ids[mask & ~out]).ids for q in self.queries]
            )

        def verb() -> Array:
            return np.stack([self.index.search(q, K, filter=kept).ids for q in self.queries])

        return verb, by_hand, lambda found: self.share(found, mask & ~out)

    def exclude(self) -> tuple[Any, ...]:
        seen = self.index.search(self.queries[0], 50).ids

        def by_hand() -> Array:
            return np.stack(
                [
                    self.index.search(q, K, filter=~np.isin(self.index.ids, seen)).ids
                    for q in self.queries
                ]
            )

        def verb() -> Array:
            return np.stack([self.index.search(q, K, exclude=seen).ids for q in self.queries])

        allowed = ~np.isin(np.arange(self.n), seen)
        return verb, by_hand, lambda found: self.share(found, allowed)

    def groups(self) -> tuple[Any, ...]:
        def by_hand() -> Array:
            best = []
            for query in self.queries:
                wanted, first = K, {}
                while len(first) < K:
                    wanted *= 2
                    first = {}
                    for id in self.index.search(query, wanted).ids.tolist():
                        first.setdefault(self.documents[id], id)
                best.append(list(first.values())[:K])
            return np.array(best)

        def verb() -> Array:
            return self.index.search(self.queries, K, groups=self.documents).ids

        whole = self.n // PARTS * PARTS
        nearest = self.far[:, :whole].reshape(len(self.queries), -1, PARTS).min(axis=2)
        bound = np.partition(nearest, K - 1, axis=1)[:, K - 1 : K]

        def share(found: Array) -> float:
            return float((np.take_along_axis(self.far, found, axis=1) <= bound + 1e-6).mean())

        return verb, by_hand, share

    def mmr(self) -> tuple[Any, ...]:
        def by_hand() -> Array:
            answers = []
            for query in self.queries:
                found = self.index.search(query, 5 * K)
                vectors, near = self.index.get(found.ids), 1 - found.distances
                chosen: list[int] = []
                while len(chosen) < K:
                    scores = 0.5 * near
                    if chosen:
                        scores = scores - 0.5 * (vectors @ vectors[chosen].T).max(axis=1)
                    scores[chosen] = -np.inf
                    chosen.append(int(np.argmax(scores)))
                answers.append(found.ids[chosen])
            return np.array(answers)

        wanted = by_hand()
        return (
            lambda: vicinal.mmr(self.index, self.queries, K).ids,
            by_hand,
            lambda found: float((found == wanted).mean()),
        )

    def like(self) -> tuple[Any, ...]:
        pairs = np.random.default_rng(2).integers(0, self.n, (200, 2))

        def by_hand() -> Array:
            answers = []
            for pair in pairs:
                ids = self.index.search(self.index.get(pair).mean(axis=0), K + 2).ids
                answers.append([id for id in ids.tolist() if id not in pair][:K])
            return np.array(answers)

        wanted = by_hand()
        return (
            lambda: self.index.search(like=list(pairs), k=K).ids,
            by_hand,
            lambda found: float((found == wanted).mean()),
        )

    def pairs(self) -> tuple[Any, ...]:
        rows = unit(self.rows).astype(np.float32)
        radius = float(np.quantile(self.index.search(rows[::97], 2).distances[:, 1], 0.1))

        def by_hand() -> int:
            found = set()
            for i, row in enumerate(rows):
                for j in self.index.range_search(row, radius).ids.tolist():
                    if i != j:
                        found.add((min(i, j), max(i, j)))
            return len(found)

        true = 0
        for start in range(0, self.n, 1000):
            block = 1 - rows[start : start + 1000] @ rows.T
            true += int((block <= radius).sum())
        true = (true - self.n) // 2
        return (
            lambda: sum(len(a) for a, _, _ in self.index.pairs(radius).batches()),
            by_hand,
            lambda found: min(1.0, found / true),
        )

    def multi(self) -> tuple[Any, ...]:
        """Vectors of a query that have nothing to do with each other: the worst case."""
        rng = np.random.default_rng(3)
        return self._multi([self.queries[rng.integers(0, 200, TOKENS)] for _ in range(MULTI)])

    def multi_near(self) -> tuple[Any, ...]:
        """Vectors near those of one document, as an answer has them."""
        rng = np.random.default_rng(3)
        tokens = []
        for _ in range(MULTI):
            rows = unit(self.rows[PARTS * int(rng.integers(0, self.n // PARTS)) :][:PARTS])
            noise = unit(rng.standard_normal((TOKENS, rows.shape[1])))
            tokens.append((rows[rng.integers(0, PARTS, TOKENS)] + 0.7 * noise).astype(np.float32))
        return self._multi(tokens)

    def _multi(self, tokens: list[Array]) -> tuple[Any, ...]:
        rows = unit(self.rows).astype(np.float32)
        begins = np.arange(0, self.n, PARTS)

        def by_hand() -> Array:
            answers = []
            for each in tokens:
                alike = np.maximum.reduceat(rows @ unit(each).astype(np.float32).T, begins, axis=0)
                answers.append(np.argsort(-alike.sum(axis=1), kind="stable")[:K])
            return np.array(answers)

        wanted = by_hand()

        def share(found: Array) -> float:
            return float(
                np.mean([np.isin(a, b).mean() for a, b in zip(found, wanted, strict=True)])
            )

        return (
            lambda: self.index.search_multi(tokens, self.documents, K).owners,
            by_hand,
            share,
        )

    def exact(self) -> tuple[Any, ...]:
        rows = unit(self.rows).astype(np.float32)

        def by_hand() -> Array:
            far = 1 - unit(self.queries).astype(np.float32) @ rows.T
            return np.argsort(far, axis=1)[:, :K]

        return (
            lambda: self.index.search(self.queries, K, exact=True).ids,
            by_hand,
            lambda found: self.share(found, np.ones(self.n, bool)),
        )


CASES = {
    "kept_filter": "a filter made of ids for each query",
    "exclude": "a mask for each query",
    "groups": "searches for twice as many until there are k",
    "mmr": "get, and a loop in NumPy for each query",
    "like": "get, mean, search, take out",
    "pairs": "a range search for each row, and a set",
    "multi": "MaxSim of all documents in NumPy",
    "multi_near": "the same, queries near one document",
    "exact": "all products in NumPy, sorted",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="minilm-10k")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", default=list(CASES))
    options = parser.parse_args()
    vicinal.set_num_threads(1)
    verbs = Verbs(options.data)
    print("| verb | by hand | verb, ms | by hand, ms | times | complete |")
    print("|---|---|---:|---:|---:|---:|")
    for name in options.only:
        what = CASES[name]
        verb, by_hand, share = getattr(verbs, name)()
        rounds = 2 if name == "pairs" else ROUNDS
        fast, found = least(verb, rounds)
        slow, _ = least(by_hand, rounds)
        line = {
            "kind": "verb",
            "data": options.data,
            "rows": verbs.n,
            "verb": name,
            "by_hand": what,
            "ms": 1e3 * fast,
            "by_hand_ms": 1e3 * slow,
            "complete": share(found),
            "vicinal": vicinal.__version__,
        }
        print(
            f"| `{name}` | {what} | {line['ms']:.1f} | {line['by_hand_ms']:.1f} | "
            f"{slow / fast:.1f} | {line['complete']:.4f} |"
        )
        if options.out:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
