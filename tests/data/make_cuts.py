"""Cut the small sets of this folder out of the full ones; the same files come out every time.

    VICINAL_DATA=<folder with the full sets> python tests/data/make_cuts.py

The first rows and the first queries are taken as they are. Embeddings are rounded to float16,
pixels stay bytes. The true neighbours are computed anew on the rounded values, in float64.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "bench"))

import datasets  # noqa: E402  (the bench folder is no package)

K = 100
QUERIES = 200


def save_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a compressed npz whose bytes do not depend on the clock."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), compresslevel=9)


def distances(base: np.ndarray, queries: np.ndarray, ids: np.ndarray, metric: str) -> np.ndarray:
    """Return the distances of the true neighbours as float32; l2 as the plain root."""
    pairs = zip(queries, ids, strict=True)
    squared = np.array([datasets.exact_distances(base[row], q, metric) for q, row in pairs])
    return (np.sqrt(squared) if metric == "l2" else squared).astype(np.float32)


def write_manifest(name: str, cut_from: str, **changes: object) -> None:
    """Write the manifest of a cut: the source set's own, with what the cut changed."""
    manifest = json.loads((datasets.find(cut_from) / "manifest.json").read_text())
    for gone in ("mirrors", "title_queries", "title_known_item", "verified", "note"):
        manifest.pop(gone, None)
    manifest.update(name=name, **changes)
    (HERE / name / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def main() -> None:
    """Write the three small sets."""
    source = datasets.find("sift-ngt-5k").resolve()
    folder = HERE / "sift-ngt-5k"
    if source != folder:
        folder.mkdir(exist_ok=True)
        for path in sorted(source.glob("*.npy")):
            shutil.copyfile(path, folder / path.name)
        write_manifest(
            "sift-ngt-5k",
            "sift-ngt-5k",
            licence="base: part of the NGT repository, Apache-2.0; queries: part of the jvector "
            "repository, Apache-2.0, from the TEXMEX corpus",
        )

    full = datasets.load("minilm-10k")
    base = full.base[:4000].astype(np.float16)
    queries = full.queries[:QUERIES].astype(np.float16)
    wide, wide_queries = base.astype(np.float32), queries.astype(np.float32)
    ids = datasets.exact_neighbours(wide, wide_queries, "cosine", K).astype(np.int32)
    folder = HERE / "minilm-4k"
    folder.mkdir(exist_ok=True)
    np.save(folder / "base.npy", base)
    np.save(folder / "queries.npy", queries)
    np.save(folder / "gt_ids.npy", ids)
    np.save(folder / "gt_dists.npy", distances(wide, wide_queries, ids, "cosine"))
    write_manifest(
        "minilm-4k",
        "minilm-10k",
        n=len(base),
        queries=QUERIES,
        metric="cosine (gt_dists = 1 - cosine); vectors have unit length but for the rounding",
        files={
            "base.npy": "float16 [4000,384]",
            "queries.npy": "float16 [200,384], documents not in base",
            "gt_ids.npy": "int32 [200,100]",
            "gt_dists.npy": "float32 [200,100]",
        },
        ground_truth="brute force, float64, on the stored float16 values; ties by smaller id",
    )

    full = datasets.load("fashion-mnist-784-euclidean")
    base, queries = full.base[:3000], full.queries[:QUERIES]
    ids = datasets.exact_neighbours(base, queries, "l2", K)
    folder = HERE / "fashion-mnist-3k"
    folder.mkdir(exist_ok=True)
    save_npz(folder / "vectors_u8.npz", {"train": base, "test": queries})
    save_npz(
        folder / "groundtruth.npz",
        {"ids": ids.astype(np.uint16), "dists": distances(base, queries, ids, "l2")},
    )
    write_manifest(
        "fashion-mnist-3k",
        "fashion-mnist-784-euclidean",
        n=len(base),
        queries=QUERIES,
        files={
            "vectors_u8.npz": "train uint8 [3000,784]; test uint8 [200,784]",
            "groundtruth.npz": "ids uint16 [200,100]; dists float32 [200,100]",
        },
        source="Fashion-MNIST by Zalando Research, github.com/zalandoresearch/fashion-mnist",
        made="the first rows and first queries of fashion-mnist-784-euclidean, unchanged",
        ground_truth="brute force, float64, ties by smaller id",
    )


if __name__ == "__main__":
    main()
