"""Files made to harm: nothing that a file says may crash, hang or lead a read outside the map."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vicinal
from fuzz.image import Image, build, parse
from fuzz.use import rows_of, small_index

TESTS = Path(__file__).resolve().parents[1]
FILES = int(os.environ.get("VICINAL_FUZZ_FILES", "1000"))


def test_the_layout_that_is_fuzzed_is_the_layout_that_is_written(tmp_path: Path) -> None:
    small_index("l2", "float32", "sq8", 20, 70).save(tmp_path / "file")
    data = (tmp_path / "file").read_bytes()
    assert bytes(build(parse(data))) == data


def test_mutated_files(tmp_path: Path) -> None:
    """A short run of `make fuzz`; VICINAL_FUZZ_FILES makes it longer."""
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "--files", str(FILES)],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=600 + FILES,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # of some use: a good part of them gets past the checks
    counts = {
        line.split(None, 1)[1]: int(line.split()[0].replace(",", ""))
        for line in done.stdout.splitlines()[:-1]
    }
    assert counts["files"] == FILES
    assert counts["open r: done"] > FILES // 5
    assert counts["add: done"] > FILES // 10


@pytest.mark.skipif(shutil.which("gcc") is None, reason="guard pages need a C compiler")
def test_guard_pages_notice_a_read_behind_a_map(tmp_path: Path) -> None:
    code = """
        import ctypes, os, sys
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        file = os.open(sys.argv[1], os.O_RDONLY)
        at = libc.mmap(None, ctypes.c_size_t(5000), 1, 1, file, ctypes.c_long(0))
        print(ctypes.string_at(at, 5000)[:1], flush=True)
        ctypes.string_at(at, 2 * 4096 + 1)
    """
    from fuzz.__main__ import guards

    (tmp_path / "file").write_bytes(b"x" * 5000)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "\n".join(line[8:] for line in code.splitlines()),
            tmp_path / "file",
        ],
        env={**os.environ, **guards(str(tmp_path))},
        capture_output=True,
    )
    assert (done.stdout, done.returncode) == (b"b'x'\n", -11)


# ---- what fuzzing found, one test each


def damaged(tmp_path: Path, damage: Callable[[Image], None], metric: str = "l2") -> Path:
    """Save a small index with a graph, damaged and with right checksums."""
    index = small_index(metric, "uint8", "auto", 20, 70)
    index.save(tmp_path / "file")
    image = parse((tmp_path / "file").read_bytes())
    damage(image)
    (tmp_path / "file").write_bytes(build(image))
    return tmp_path / "file"


def links_of(image: Image, name: str) -> np.ndarray:
    part = image.part(name)
    assert part is not None
    return part.items().reshape(part.rows, part.columns)


def far_link(image: Image) -> None:
    links_of(image, "links0")[69, 0] = 70


def own_link(image: Image) -> None:
    links_of(image, "links0")[3, 0] = 3


def hole(image: Image) -> None:
    links_of(image, "links0")[4, :] = [0xFFFFFFFF, *[1] * 15]


def far_upper_link(image: Image) -> None:
    links_of(image, "upper_links")[0, 0] = 0x7FFFFFFF


def rows_of_ordinals_in_disorder(image: Image) -> None:
    links_of(image, "upper_rows")[1, 0] = 0


def ordinal_of_no_row(image: Image) -> None:
    links_of(image, "upper_rows")[-1, 0] = 70


def blocks_in_disorder(image: Image) -> None:
    links_of(image, "upper_start")[1, 0] = 0


def more_blocks_than_there_are(image: Image) -> None:
    links_of(image, "upper_start")[-1, 0] += 1


def first_block_is_not_the_first(image: Image) -> None:
    links_of(image, "upper_start")[0, 0] = 1


def open_ring(image: Image) -> None:
    ring = links_of(image, "copies")
    ring[ring[:, 0] < 0x80000000] = 70


def ring_of_no_copies(image: Image) -> None:
    ring = links_of(image, "copies")
    ring[ring[:, 0] < 0x80000000] = 0


def two_copies_lead_to_one(image: Image) -> None:
    ring = links_of(image, "copies")
    ring[ring[:, 0] < 0x80000000] = ring[ring[:, 0] < 0x80000000][0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (open_ring, "of section 'copies' contradicts"),
        (ring_of_no_copies, "of section 'copies' contradicts"),
        (two_copies_lead_to_one, "of section 'copies' contradicts"),
        (far_link, "item 69 of section 'links0' contradicts"),
        (own_link, "item 3 of section 'links0' contradicts"),
        (hole, "item 4 of section 'links0' contradicts"),
        (far_upper_link, "item 0 of section 'upper_links' contradicts"),
        (rows_of_ordinals_in_disorder, "item 1 of section 'upper_rows' contradicts"),
        (ordinal_of_no_row, r"item \d+ of section 'upper_rows' contradicts"),
        (blocks_in_disorder, "item 0 of section 'upper_start' contradicts"),
        (more_blocks_than_there_are, r"item \d+ of section 'upper_start' contradicts"),
        (first_block_is_not_the_first, "item 0 of section 'upper_start' contradicts"),
    ],
)
def test_rows_are_never_added_to_impossible_links(
    tmp_path: Path, damage: Callable[[Image], None], message: str
) -> None:
    """Insertion wrote through such links; a search only clamps them."""
    path = damaged(tmp_path, damage)
    with pytest.raises(vicinal.CorruptError, match=message):
        vicinal.open(path, mode="copy")
    opened = vicinal.open(path)
    assert len(opened.search(rows_of("uint8", 5, 20, 3), 4, ef_search=5).ids) == 5
    if "copies" not in message:  # those `check` only counts
        with pytest.raises(RuntimeError, match="the graph is not as it must be"):
            opened.check()


def test_no_offsets_of_strings(tmp_path: Path) -> None:
    """What lay behind the empty section was taken for the length of the text."""
    vicinal.Index(8, ids="str").save(tmp_path / "empty")
    for mode in ("r", "copy"):
        empty = vicinal.open(tmp_path / "empty", mode=mode)
        assert len(empty.copy()) == 0
        empty.save(tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == (tmp_path / "empty").read_bytes()

    named = small_index("l2", "uint8", "auto", 20, 70, named=True)
    named.save(tmp_path / "file")
    image = parse((tmp_path / "file").read_bytes())
    part = image.part("id_offsets")
    assert part is not None
    part.rows, part.data = 0, part.data[:0]
    (tmp_path / "file").write_bytes(build(image))
    for mode in ("r", "copy"):
        with pytest.raises(vicinal.CorruptError, match="section 'id_offsets' contradicts"):
            vicinal.open(tmp_path / "file", mode=mode)


def test_a_beam_is_not_wider_than_the_graph(tmp_path: Path) -> None:
    """A width of 2**31 - 1 asked for 24 GB, and ended the process where there were none."""

    def widest(image: Image) -> None:
        image.fields["ef_construction"] = 2**31 - 1

    index = vicinal.open(damaged(tmp_path, widest), mode="copy")
    index.add(rows_of("uint8", 20, 20, 4))
    index.check()
    mine = small_index("l2", "uint8", "auto", 20, 70)
    wide = vicinal.Index(8, ef_construction=2**31 - 1)
    wide.add(np.random.default_rng(0).random((1100, 8), np.float32))
    wide.check()
    assert len(mine) + 20 == len(index)


@pytest.mark.parametrize(("field", "value"), [("ef_construction", 0), ("quantization", 2)])
def test_fields_that_open_did_not_look_at(tmp_path: Path, field: str, value: int) -> None:
    """Width 0 read before its buffer; exact codes for cosine answered with what lay in memory."""

    def set_it(image: Image) -> None:
        image.fields[field] = value

    path = damaged(tmp_path, set_it, "cosine")
    for mode in ("r", "copy"):
        with pytest.raises(vicinal.CorruptError, match=f"{field!r} the impossible value {value}"):
            vicinal.open(path, mode=mode)
