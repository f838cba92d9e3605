"""Files with right checksums that contradict themselves.

Refused where a change could not bear it, told where the number of rows is relied on; and whatever
is accepted is accepted again once it was saved.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vicinal
from fuzz.image import Image, build, parse
from fuzz.lies import (
    ALONE,
    EMPTY,
    FREE,
    HOLDING,
    LIVE,
    ORIGINAL,
    PENDING,
    count_right,
    marks_of,
    rings_of,
    table,
    unlink,
)
from fuzz.use import rows_of, small_index, thin

TESTS = Path(__file__).resolve().parents[1]
FILES = int(os.environ.get("VICINAL_FUZZ_FILES", "500"))
Damage = Callable[[Image], object]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An index of 120 rows, some of them removed: free, still linked, or there for their copies."""
    index = small_index("l2", "uint8", "auto", 20, 120)
    thin(index)
    path = tmp_path_factory.mktemp("sound") / "file"
    index.save(path)
    return path.read_bytes()


def lie(sound: bytes, path: Path, damage: Damage, *, counted: bool = True) -> Path:
    """Write the file with damage and right checksums; with `counted` the header fits the marks."""
    image = parse(sound)
    damage(image)
    if counted:
        count_right(image)
    path.write_bytes(build(image))
    return path


def ring(image: Image) -> tuple[int, np.ndarray]:
    """An original that is there and its copies."""
    values, marks = rings_of(image), marks_of(image)
    heads = np.flatnonzero((values >= ORIGINAL) & (values != ALONE))
    original = int(heads[marks[heads] == LIVE][0])
    newest = int(values[original] - ORIGINAL)
    copies, copy = [], int(values[newest])
    while copy != newest:
        copies.append(copy)
        copy = int(values[copy])
    return original, np.array([*copies, newest])


def entry_row(image: Image) -> int:
    rows = table(image, "upper_rows")
    assert rows is not None
    return int(rows[image.fields["entry"], 0])


def linked_row(image: Image) -> int:
    """A row that is there, linked, alone and not the entry point."""
    marks, values = marks_of(image), rings_of(image)
    alone = np.flatnonzero((marks == LIVE) & (values == ALONE))
    return int(alone[alone != entry_row(image)][5])


def empty_block(image: Image, row: int) -> None:
    blocks = table(image, "links0")
    assert blocks is not None
    blocks[row] = EMPTY


# ---- what a private copy is refused for


def free_row_with_links(image: Image) -> None:
    row = linked_row(image)
    kept = table(image, "links0")[row].copy()  # type: ignore[index]
    unlink(image, np.array([row]))
    table(image, "links0")[row] = kept  # type: ignore[index]
    marks_of(image)[row] = FREE


def links_to_a_free_row(image: Image) -> None:
    row = linked_row(image)
    marks_of(image)[row] = FREE
    empty_block(image, row)


def free_entry_point(image: Image) -> None:
    marks_of(image)[entry_row(image)] = FREE


def free_copy(image: Image) -> None:
    marks_of(image)[ring(image)[1][0]] = FREE


def free_original(image: Image) -> None:
    original = ring(image)[0]
    unlink(image, np.array([original]))
    marks_of(image)[original] = FREE


def removed_original_of_copies_that_are_there(image: Image) -> None:
    marks_of(image)[ring(image)[0]] = PENDING


def row_that_holds_nothing(image: Image) -> None:
    marks_of(image)[linked_row(image)] = HOLDING


def original_that_holds_removed_copies(image: Image) -> None:
    original, copies = ring(image)
    marks_of(image)[original] = HOLDING
    marks_of(image)[copies] = PENDING


def copy_that_holds(image: Image) -> None:
    marks_of(image)[ring(image)[1][0]] = HOLDING


def two_originals_of_one_ring(image: Image) -> None:
    rings_of(image)[linked_row(image)] = ORIGINAL + int(ring(image)[1][-1])


def many_originals_of_one_ring(image: Image) -> None:
    values, newest = rings_of(image), int(ring(image)[1][-1])
    values[(values == ALONE) & (marks_of(image) == LIVE)] = ORIGINAL + newest


def ring_without_an_original(image: Image) -> None:
    rings_of(image)[ring(image)[0]] = ALONE


def copy_of_something_else(image: Image) -> None:
    original, other = ring(image)[0], linked_row(image)
    values = rings_of(image)
    unlink(image, np.array([other]))
    newest = int(values[original] - ORIGINAL)
    values[other] = values[newest]
    values[newest] = other


def two_originals_that_are_equal(image: Image) -> None:
    rows, (original, copies) = table(image, "vectors"), ring(image)
    assert rows is not None
    first, second = linked_row(image), int(copies[0])
    values = rings_of(image)
    values[copies] = np.roll(copies, -1)  # their ring without the first of them
    if len(copies) > 1:
        values[copies[-1]] = copies[1]
    values[first], values[second] = ORIGINAL + second, second
    rows[first] = rows[original]


def copy_with_links(image: Image) -> None:
    blocks, copies = table(image, "links0"), ring(image)[1]
    assert blocks is not None
    blocks[copies[0], 0] = entry_row(image)


def links_to_a_copy(image: Image) -> None:
    blocks, copies = table(image, "links0"), ring(image)[1]
    assert blocks is not None
    blocks[linked_row(image), 0] = copies[0]


def no_graph_of_many_rows(image: Image) -> None:
    f = image.fields
    f["linked"], f["entry"], f["max_level"], f["unrepaired"], f["codes"] = 0, -1, 0, 0, 0
    marks_of(image)[marks_of(image) == HOLDING] = PENDING
    gone = (b"links0", b"upper_rows", b"upper_start", b"upper_links")
    for part in image.parts:
        if part.name in gone:
            part.rows, part.data = 0, part.data[:0]
    codes = (b"copies", b"codes", b"code_constants", b"code_centre", b"code_reach")
    image.parts = [part for part in image.parts if part.name not in codes]


def graph_of_the_first_rows(image: Image) -> None:
    """Two rows less, which nothing else speaks of."""
    last = np.arange(image.fields["linked"])[-2:]
    unlink(image, last)
    marks_of(image)[last] = FREE
    rings_of(image)
    image.fields["linked"] -= 2
    image.fields["unrepaired"] = 0
    for name in ("links0", "codes", "code_constants", "copies"):
        part = image.part(name)
        if part is not None:
            part.data = part.data[: len(part.data) // part.rows * (part.rows - 2)]
            part.rows -= 2
    heads = table(image, "upper_rows")
    assert heads is not None and heads.max() < image.fields["linked"]


def other_height(image: Image) -> None:
    image.fields["max_level"] += 1


def low_entry_point(image: Image) -> None:
    starts, rows = table(image, "upper_start"), table(image, "upper_rows")
    assert starts is not None and rows is not None
    tops = np.diff(starts[:, 0].astype(np.int64))
    low = np.flatnonzero((tops < tops.max()) & (marks_of(image)[rows[:, 0]] == LIVE))
    image.fields["entry"] = int(low[0])
    image.fields["max_level"] = int(tops[low[0]])


def low_entry_point_below_a_row_without_links(image: Image) -> None:
    """Which counted for nothing until a repair linked it; what was saved then was refused."""
    low_entry_point(image)
    starts, rows = table(image, "upper_start"), table(image, "upper_rows")
    assert starts is not None and rows is not None
    tops = np.diff(starts[:, 0].astype(np.int64))
    unlink(image, rows[tops > image.fields["max_level"], 0])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (free_row_with_links, "section 'links0' contradicts"),
        (links_to_a_free_row, "section 'links0' contradicts"),
        (free_entry_point, "'entry' the impossible value"),
        (free_copy, "section 'copies' contradicts"),
        (free_original, "section 'copies' contradicts"),
        (removed_original_of_copies_that_are_there, "section 'copies' contradicts"),
        (row_that_holds_nothing, "section 'tombstones' contradicts"),
        (original_that_holds_removed_copies, "section 'copies' contradicts"),
        (copy_that_holds, "section '(copies|tombstones)' contradicts"),
        (two_originals_of_one_ring, "section 'copies' contradicts"),
        (many_originals_of_one_ring, "section 'copies' contradicts"),
        (ring_without_an_original, "section 'copies' contradicts"),
        (copy_of_something_else, "section 'copies' contradicts"),
        (two_originals_that_are_equal, "section 'copies' contradicts"),
        (copy_with_links, "section 'links0' contradicts"),
        (links_to_a_copy, "section 'links0' contradicts"),
        (no_graph_of_many_rows, "'linked' the impossible value 0"),
        (graph_of_the_first_rows, "'linked' the impossible value"),
        (other_height, "'max_level' the impossible value"),
        (low_entry_point, "'entry' the impossible value"),
        (low_entry_point_below_a_row_without_links, "'entry' the impossible value"),
    ],
)
def test_changes_never_begin_with_a_contradiction(
    sound: bytes, tmp_path: Path, damage: Damage, message: str
) -> None:
    path = lie(sound, tmp_path / "file", damage)
    with pytest.raises(vicinal.CorruptError, match=message):
        vicinal.open(path, mode="copy", verify=True)
    # it may be searched where it lies, and written down as it is
    mapped = vicinal.open(path, verify=True)
    assert len(mapped.ids) == len(mapped)
    queries = rows_of("uint8", 5, 20, 3)
    for width in (4, 64, 10**6):
        assert mapped.search(queries, 4, ef_search=width).ids.shape == (5, 4)
        assert mapped.range_search(queries, 1e9, ef_search=width).offsets[-1] >= 0
    mapped.save(tmp_path / "again")
    assert len(vicinal.open(tmp_path / "again", verify=True)) == len(mapped)
    if damage is not other_height:  # which is told anew
        with pytest.raises(vicinal.CorruptError, match=message):
            mapped.copy()


def test_sections_of_nothing(sound: bytes, tmp_path: Path) -> None:
    """Marks and copies of which the header knows nothing were overlooked."""
    for name in ("removed", "copies"):

        def forget(image: Image, name: str = name) -> None:
            image.fields[name] = 0
            image.fields["shaded"] = 0

        path = lie(sound, tmp_path / "file", forget, counted=False)
        for mode in ("r", "copy"):
            with pytest.raises(vicinal.CorruptError, match=r"'(tombstones|copies)' is missing or"):
                vicinal.open(path, mode=mode)


# ---- counts of a map


def say(name: str, value: int) -> Damage:
    def damage(image: Image) -> None:
        image.fields[name] = value
        image.fields["shaded"] = min(image.fields["shaded"], image.fields["removed"])

    return damage


@pytest.mark.parametrize(
    ("name", "value"),
    [("removed", 1), ("removed", 120), ("removed", 119), ("shaded", 0), ("copies", 1)],
)
def test_counts_that_are_not_right(sound: bytes, tmp_path: Path, name: str, value: int) -> None:
    """Booleans were read behind their end, and ids were what lay in memory."""
    path = lie(sound, tmp_path / "file", say(name, value), counted=False)
    with pytest.raises(vicinal.CorruptError, match=r"the header gives '.*' as .* rows, section"):
        vicinal.open(path, mode="copy")
    queries = rows_of("uint8", 5, 20, 3)
    rows = int((marks_of(parse(sound)) == LIVE).sum())
    uses: list[Callable[[vicinal.Index], object]] = [
        lambda index: index.ids,
        lambda index: list(index.vectors()),
        lambda index: index.search(queries, 3, filter=np.ones(len(index), bool)),
        lambda index: index.search(queries, 3, filter=[None, *[np.ones(len(index), bool)] * 4]),
        lambda index: index.range_search(queries, 10.0, filter=np.ones(len(index), bool)),
        lambda index: vicinal.Index(20, dtype="uint8").merge(index),
        lambda index: index.copy(),
        lambda index: index.save(tmp_path / "again"),
    ]
    if value < 119:  # else there is nothing to measure
        uses.append(lambda index: index.measure_recall(k=2, sample=20))
    for use in uses:
        index = vicinal.open(path, verify=True)
        for _ in range(2):  # it is not forgotten
            with pytest.raises(vicinal.CorruptError, match=r"the header gives '.*' as .* rows"):
                use(index)
        assert index.search(queries, 3).ids.shape == (5, 3)
        # the table of ids was made for as many rows as the header says: looking up went on for ever
        assert sum(id_ in index for id_ in range(200)) == rows
        assert index.get([1]).shape == (1, 20)
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("number", [-1, 120, 2**62])
def test_numbers_of_no_string(tmp_path: Path, number: int) -> None:
    """Rows were named None, which `merge` then took for a mistake of its caller."""
    small_index("l2", "uint8", "auto", 20, 120, named=True).save(tmp_path / "file")

    def damage(image: Image) -> None:
        ids = image.part("ids")
        assert ids is not None
        ids.items()[7] = number % 2**64

    path = lie((tmp_path / "file").read_bytes(), tmp_path / "file", damage)
    for use in (
        lambda: vicinal.open(path, mode="copy"),
        lambda: vicinal.open(path).ids,
        lambda: vicinal.Index(20, dtype="uint8", ids="str").merge(vicinal.open(path)),
    ):
        with pytest.raises(vicinal.CorruptError, match="item 7 of section 'ids' contradicts"):
            use()


def test_right_counts_are_compared_by_many_threads_at_once(sound: bytes, tmp_path: Path) -> None:
    path = lie(sound, tmp_path / "file", lambda image: None)
    assert path.read_bytes() == sound
    index, found = vicinal.open(path), []
    mask = np.ones(len(index), bool)
    queries = rows_of("uint8", 5, 20, 3)

    def ask() -> None:
        found.append((index.search(queries, 5, filter=mask).ids, index.ids))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    for results, ids in found:
        np.testing.assert_array_equal(results, index.search(queries, 5).ids)
        np.testing.assert_array_equal(ids, vicinal.open(path, mode="copy").ids)


def test_one_ring_of_many_originals_is_gone_through_once(tmp_path: Path) -> None:
    """Each of them had it all: as many results as there are pairs, and as much memory."""
    small_index("l2", "uint8", "auto", 20, 400).save(tmp_path / "file")

    def share(image: Image) -> None:
        values = rings_of(image)
        rows = np.flatnonzero(values == ALONE)
        rows = rows[rows != entry_row(image)]
        copies, others = rows[-300:], rows[:-300]
        unlink(image, copies)
        values[copies] = np.roll(copies, -1)
        values[others] = ORIGINAL + int(copies[-1])

    path = lie((tmp_path / "file").read_bytes(), tmp_path / "file", share)
    with pytest.raises(vicinal.CorruptError, match="section 'copies' contradicts"):
        vicinal.open(path, mode="copy")
    mapped, query = vicinal.open(path), rows_of("uint8", 1, 20, 3)[0]
    rows = table(parse(path.read_bytes()), "vectors")
    assert rows is not None
    distances = ((rows[:, :20].astype(np.int64) - query) ** 2).sum(axis=1)
    for radius in np.sort(distances)[[10, 40, 100, 200]].tolist():
        found = mapped.range_search(query, radius, ef_search=4)
        assert len(found.ids) <= 2 * 400
        every = mapped.ids
        assert len(mapped.range_search(query, radius, ef_search=4, filter=every).ids) <= 2 * 400
    assert len(mapped.search(query, 300, ef_search=20).ids) == 300
    assert len(mapped.search(query, 30, ef_search=20, filter=mapped.ids).ids) == 30


# ---- what is accepted


@pytest.mark.full_build
def test_whatever_is_accepted_is_accepted_again(tmp_path: Path) -> None:
    """A short run of `make fuzz ARGS=--lying`; VICINAL_FUZZ_FILES makes it longer."""
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "--lying", "--files", str(FILES)],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=120 + FILES / 5,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {
        line.split(None, 1)[1]: int(line.split()[0].replace(",", ""))
        for line in done.stdout.splitlines()[:-1]
    }
    assert counts["files"] == FILES
    for step in ("open copy: done", "compacted and right", "ids r: CorruptError"):
        assert counts[step] > FILES // 40, step
    assert counts["open copy: CorruptError"] > FILES // 4
