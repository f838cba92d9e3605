"""Known items: which of ten thousand texts a title belongs to, by vectors, by words, by both.

    python bench/known_items.py path/to/minilm-10k --out bench/results/known-items.jsonl

A folder with `base.npy`, `title_queries.npy`, and `docs.jsonl.gz` (`text`) and `titles.jsonl.gz`
(`text`, `doc`). Needs tantivy. For each way: share of titles whose text comes first, or among the
first ten, the mean reciprocal rank, and queries per second of one thread.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WAYS = ("vectors", "words", "relative", "reciprocal", "reciprocal k=10", "linear")


class KnownItems(NamedTuple):
    """Texts with vectors, and titles with vectors of which each belongs to one text."""

    vectors: np.ndarray
    texts: list[str]
    title_vectors: np.ndarray
    titles: list[str]
    documents: list[int]

    def write(self, made: Any) -> None:
        """Fill a collection."""
        for start in range(0, len(self.texts), 1000):
            stop = min(start + 1000, len(self.texts))
            ids = [str(number) for number in range(start, stop)]
            made.upsert(ids, self.vectors[start:stop], self.texts[start:stop])


def _lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def load(folder: Path) -> KnownItems | None:
    """Read a folder; None if it is not there."""
    if not (folder / "titles.jsonl.gz").exists():
        return None
    titles = _lines(folder / "titles.jsonl.gz")
    return KnownItems(
        np.load(folder / "base.npy"),
        [each["text"] for each in _lines(folder / "docs.jsonl.gz")],
        np.load(folder / "title_queries.npy"),
        [each["text"] for each in titles],
        [each["doc"] for each in titles],
    )


def search(made: Any, way: str, title: str, vector: np.ndarray, alpha: float) -> list[Any]:
    if way == "vectors":
        return made.search(vector, 10)
    if way == "words":
        return made.search_text(title, 10)
    method, _, constant = way.partition(" k=")
    return made.search_hybrid(
        title, vector, 10, method=method, constant=float(constant or 60), alpha=alpha
    )


def measure(
    made: Any, data: KnownItems, ways: tuple[str, ...] = WAYS, alpha: float = 0.5
) -> dict[str, dict[str, float]]:
    """Return the figures of each way."""
    found = {}
    for way in ways:
        search(made, way, data.titles[0], data.title_vectors[0], alpha)
        ranks = []
        start = time.perf_counter()
        for title, vector, wanted in zip(
            data.titles, data.title_vectors, data.documents, strict=True
        ):
            ids = [hit.id for hit in search(made, way, title, vector, alpha)]
            ranks.append(ids.index(str(wanted)) + 1 if str(wanted) in ids else 0)
        seconds = time.perf_counter() - start
        found[way] = {
            "first": ranks.count(1) / len(ranks),
            "first_ten": sum(rank > 0 for rank in ranks) / len(ranks),
            "mrr": sum(1 / rank for rank in ranks if rank) / len(ranks),
            "queries_per_second": len(ranks) / seconds,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--analyzer", default="en")
    parser.add_argument("--alphas", default="0.5,0.3,0.7")
    parser.add_argument("--out", help="append to this file")
    options = parser.parse_args()
    data = load(options.folder)
    if data is None:
        parser.error(f"{options.folder}: no such set")
    from vicinal import Collection

    folder = tempfile.mkdtemp(prefix="known-items-")
    with Collection(
        f"{folder}/c", data.vectors.shape[1], "cosine", analyzer=options.analyzer
    ) as made:
        data.write(made)
        made.checkpoint()
        for number, alpha in enumerate(map(float, options.alphas.split(","))):
            ways = WAYS if number == 0 else ("relative", "reciprocal")
            for way, figures in measure(made, data, ways, alpha).items():
                record = {"kind": "known items", "data": options.folder.name, "way": way}
                if way not in ("vectors", "words"):
                    record["alpha"] = alpha
                rounded = {name: round(value, 4) for name, value in figures.items()}
                line = json.dumps({**record, "analyzer": options.analyzer, **rounded})
                print(line, flush=True)
                if options.out:
                    with open(options.out, "a", encoding="utf-8") as file:
                        file.write(line + "\n")


if __name__ == "__main__":
    main()
