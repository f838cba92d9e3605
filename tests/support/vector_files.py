"""Damaged files of vectors: one small file of each format, and mutations of it.

python -m support.vector_files --files 10000 [--formats npy,fbin]    # in tests/
"""

from __future__ import annotations

import argparse
import collections
import io
import struct
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import vicinal
from vicinal import FormatError, vectors_io

PLAIN = ("npy", "npz", "raw", "fvecs", "bvecs", "ivecs", "fbin", "u8bin", "i8bin", "ibin")
PLAIN += ("safetensors",)
WORDS = (0, 1, 2, 3, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63)
WORDS += (2**64 - 1,)
ROWS, DIM = 37, 6


def values(format: str) -> np.ndarray[Any, Any]:
    """Vectors that a format can hold."""
    kind = {"bvecs": "u1", "u8bin": "u1", "i8bin": "i1", "ivecs": "i4", "ibin": "i4"}
    rng = np.random.default_rng(5)
    return rng.integers(1, 100, (ROWS, DIM)).astype(kind.get(format, "f4"))


def seeds(format: str, folder: Path) -> Iterator[bytes]:
    """Whole files to begin with."""
    data = values(format)
    path = folder / f"seed.{format}"
    ids = (
        np.arange(ROWS) if format in ("npz", "safetensors", "parquet", "feather", "hdf5") else None
    )
    vectors_io.write_vectors(path, data, ids)
    yield path.read_bytes()
    if format == "npy":
        out = io.BytesIO()
        np.lib.format.write_array(out, np.asfortranarray(data), version=(2, 0))
        yield out.getvalue()
    if format == "npz":
        out = io.BytesIO()
        np.savez_compressed(out, vectors=data)
        yield out.getvalue()


def mutated(seed: bytes, rng: np.random.Generator) -> bytes:
    """A file with one to four things wrong, most of them near its beginning or its end."""
    data = bytearray(seed)
    for _ in range(int(rng.integers(1, 5))):
        if not data:
            break
        near = int(min(len(data), 300))
        at = int(rng.integers(near)) if rng.random() < 0.6 else int(rng.integers(len(data)))
        if rng.random() < 0.3:
            at = len(data) - 1 - at % near
        way = int(rng.integers(7))
        if way == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif way == 1:
            data[at] = int(rng.integers(256))
        elif way == 2:
            word = WORDS[int(rng.integers(len(WORDS)))]
            size = int(rng.choice([2, 4, 8]))
            data[at : at + size] = struct.pack("<Q", word)[:size]
        elif way == 3:
            del data[at:]
        elif way == 4:
            data += rng.bytes(int(rng.integers(1, 50)))
        elif way == 5:
            # another number where a header is text
            digits = str(WORDS[int(rng.integers(len(WORDS)))]).encode()
            places = [i for i, byte in enumerate(data[:near]) if 48 <= byte <= 57]
            if places:
                i = places[int(rng.integers(len(places)))]
                data[i : i + 1] = digits
        else:
            data[at:at] = rng.bytes(int(rng.integers(1, 9)))
    return bytes(data)


def use(path: Path, format: str) -> str:
    """Open and read a file; what it was refused for, or "read". Anything unforeseen is raised."""
    more = {"dim": DIM, "dtype": "f4"} if format == "raw" else {}
    try:
        with vicinal.read_vectors(path, format=format, **more) as source:
            rows, dim = source.shape
            count = 0
            for batch in source.batches(10):
                vectors = batch[0] if isinstance(batch, tuple) else batch
                assert vectors.shape[1] == dim
                count += len(vectors)
            assert count == rows
            list(source[rows // 2 :].batches())
    except FormatError:
        return "FormatError"
    except vectors_io.RowError:
        return "RowError"
    except ValueError as error:
        assert str(error).startswith("vectors:"), error  # which of the arrays is not clear
        return "ValueError"
    return "read"


def hunt(
    format: str, files: int, seed: int = 0, told: Callable[[int], object] = lambda _: None
) -> collections.Counter[str]:
    """Open damaged files; count what became of them. More memory than files have is an error."""
    arrow, arrow_peak = None, 0
    if format in ("parquet", "feather"):
        import pyarrow

        arrow = pyarrow.default_memory_pool()
    rng = np.random.default_rng(seed)
    outcomes: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        beginnings = list(seeds(format, folder))
        path = folder / f"damaged.{format}"
        use(folder / f"seed.{format}", format)  # what is imported and kept once
        for number in range(files):
            path.write_bytes(mutated(beginnings[number % len(beginnings)], rng))
            # pyarrow's threads free Python objects when they like, and CPython crashes if that is
            # while tracemalloc stops; pyarrow's own count is looked at instead
            if arrow is None:
                tracemalloc.start()
            outcomes[use(path, format)] += 1
            peak = tracemalloc.get_traced_memory()[1]
            if arrow is None:
                tracemalloc.stop()
            # objects of Python and buffers of files take this however small a file is
            assert peak < 1_500_000 + 2 * path.stat().st_size, (format, number, peak)
            if arrow is not None:
                arrow_peak = max(arrow_peak, arrow.max_memory())
            told(number)
    if arrow is not None:
        outcomes["arrow bytes"] = arrow_peak
    return outcomes


def main() -> None:
    """Run from a shell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--formats", default=",".join(vectors_io.FORMATS))
    options = parser.parse_args()
    for format in options.formats.split(","):
        print(format, dict(hunt(format, options.files)), flush=True)


if __name__ == "__main__":
    main()
