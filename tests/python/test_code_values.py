"""Codes and constants in a saved file against their definition, in float64."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
import vicinal.index

pytestmark = pytest.mark.usefixtures("always_a_graph")

Array = np.ndarray[Any, np.dtype[Any]]


def made(rows: Array, metric: str, kind: str, dtype: str = "float32") -> vicinal.Index:
    index = vicinal.Index(rows.shape[1], metric, dtype=dtype, quantization=kind, ef_construction=20)
    index.add(rows)
    return index


def sections_of(path: Path) -> dict[str, Array]:
    """Read the sections of a file as docs/design/format.md has them."""
    data = path.read_bytes()
    kinds = ["<f4", "<f2", "<u2", "i1", "u1", "<i8", "<u4"]
    found = {}
    for i in range(struct.unpack_from("<q", data, 24)[0]):
        name, start, length, rows, columns, dtype = struct.unpack_from("<16s5q", data, 256 + 64 * i)
        values = np.frombuffer(data[start : start + length], kinds[dtype])
        found[name.rstrip(b"\0").decode()] = values.reshape(rows, columns)
    return found


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("dim", [16, 63, 64, 65, 129])
def test_sq8_in_the_file(dim: int, metric: str, tmp_path: Path) -> None:
    """Code u of o = x - c is the interval of width max |o| / 127.5 that each element lies in."""
    index = made(np.random.default_rng(6).normal(size=(300, dim)) + 1, metric, "sq8")
    index.save(tmp_path / "index")
    sections = sections_of(tmp_path / "index")
    rows = index.get(index.ids).astype(np.float64)
    centre = sections["code_centre"][0]
    np.testing.assert_allclose(centre[:dim], rows.mean(axis=0), atol=1e-6)
    assert (centre[dim:] == 0).all()
    o = rows - centre[:dim].astype(np.float64)
    step = np.abs(o).max(axis=1, keepdims=True) / 127.5
    codes = sections["codes"].astype(int)
    exact = np.clip(np.floor(o / step + 128), 0, 255)
    # on the border between two intervals rounding decides
    border = np.abs(o / step - np.rint(o / step)) < 1e-3
    assert (np.abs(codes[:, :dim] - exact)[~border] == 0).all()
    assert (np.abs(codes[:, :dim] - exact) <= 1).all()
    # padding: the middle up to a multiple of 64 dimensions
    assert (codes[:, dim:] == 128).all()
    u = codes[:, :dim] - 127.5
    norm2 = (o**2).sum(axis=1)
    rescale = norm2 / (u * o).sum(axis=1)
    add, factor = sections["code_constants"].view("<f4").astype(np.float64).T
    if metric == "ip":
        np.testing.assert_array_equal(add, 0)
        np.testing.assert_allclose(factor, -rescale, rtol=1e-5)
    else:
        np.testing.assert_allclose(add, norm2, rtol=1e-5)
        np.testing.assert_allclose(factor, -2 * rescale, rtol=1e-5)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("dim", [63, 64, 65, 129, 384])
def test_rabitq4_in_the_file(dim: int, metric: str, tmp_path: Path) -> None:
    """Inner products of codes are those of the rows, up to the rotation, which keeps them."""
    index = made(np.random.default_rng(7).normal(size=(300, dim)) + 1, metric, "rabitq4")
    index.save(tmp_path / "index")
    sections = sections_of(tmp_path / "index")
    rows = index.get(index.ids).astype(np.float64)
    o = rows - sections["code_centre"][0, :dim].astype(np.float64)
    lines = sections["codes"].reshape(300, -1, 64)
    assert lines.shape[1] == -(-dim // 128)
    u = np.concatenate([lines & 15, lines >> 4], axis=2).reshape(300, -1).astype(np.float64)
    size = -(-dim // 64) * 64
    assert (u[:, size:] == 0).all()
    add, factor = sections["code_constants"].view("<f4").astype(np.float64).T
    rescale = factor / (-1 if metric == "ip" else -2)
    norms = np.sqrt((o**2).sum(axis=1))
    np.testing.assert_allclose(add, 0 if metric == "ip" else norms**2, rtol=1e-5)
    rebuilt = (u[:, :size] - 7.5) * rescale[:, None]
    errors = (rebuilt @ rebuilt.T - o @ o.T) / np.outer(norms, norms)
    errors = errors[~np.eye(300, dtype=bool)]
    assert abs(errors.mean()) < 1e-3
    assert np.sqrt((errors**2).mean()) < 0.2 / np.sqrt(dim)


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8"])
@pytest.mark.parametrize("dim", [63, 64, 129])
def test_u8_in_the_file(dim: int, dtype: str, tmp_path: Path) -> None:
    low = -128 if dtype == "int8" else 0
    rows = np.random.default_rng(8).integers(low, low + 256, size=(300, dim))
    for metric in ("l2", "ip"):
        made(rows, metric, "u8", dtype).save(tmp_path / "index")
        sections = sections_of(tmp_path / "index")
        in_place = dtype != "float32" and dim >= 64
        assert ("codes" in sections) == (not in_place)
        codes = sections["vectors" if in_place else "codes"]
        codes = codes.view(np.int8 if dtype == "int8" else np.uint8)
        np.testing.assert_array_equal(codes[:, :dim], rows)
        assert (codes[:, dim:] == 0).all()
        shift, squared = sections["code_constants"].view("<i4").T
        np.testing.assert_array_equal(squared, (rows**2).sum(axis=1))
        sums = 128 * rows.sum(axis=1) * (-1 if dtype == "int8" else 1)
        np.testing.assert_array_equal(shift, squared - 2 * sums if metric == "l2" else sums)
