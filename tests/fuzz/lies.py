"""Files that are whole, with right checksums, in which what is said contradicts what is there.

Some of these lies are told consistently, so that they get past what is compared at opening: then
what can be done with the file has to end well all the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fuzz.image import Image, Part, parse

Rng = np.random.Generator

EMPTY = 2**32 - 1
ALONE = 2**32 - 1
ORIGINAL = 2**31
LIVE, PENDING, FREE, HOLDING = 0, 1, 2, 5
MARKS = (LIVE, PENDING, FREE, HOLDING)
MANY = 1000  # more rows than any file here has, however its header was changed


def pick(rng: Rng, *choices: int) -> int:
    return choices[int(rng.integers(len(choices)))]


def some(rng: Rng, rows: int | np.ndarray) -> np.ndarray:
    """A few of some rows, or many, in any order."""
    all_rows = np.arange(rows) if isinstance(rows, int) else rows
    count = pick(rng, 1, 2, 5, len(all_rows) // 2, len(all_rows))
    return rng.permutation(all_rows)[:count]


def table(image: Image, name: str) -> np.ndarray | None:
    """A section as a matrix that can be written to; None if it is not there or is empty."""
    part = image.part(name)
    if part is None or part.rows == 0 or part.columns == 0:
        return None
    return part.items().reshape(part.rows, part.columns)


def column(image: Image, name: str, dtype: int, rows: int, value: int) -> np.ndarray:
    """A section of one element a row, made and filled with a value if it is not there."""
    found = table(image, name)
    if found is None:
        image.parts = [part for part in image.parts if part.name != name.encode()]
        data = np.full(rows, value, {4: np.uint8, 6: np.uint32}[dtype]).view(np.uint8)
        image.parts.append(Part(name.encode(), dtype, rows, 1, data))
        image.version = 2
        found = table(image, name)
        assert found is not None
    return found[:, 0]


def marks_of(image: Image) -> np.ndarray:
    return column(image, "tombstones", 4, image.fields["count"], LIVE)


def rings_of(image: Image) -> np.ndarray:
    return column(image, "copies", 6, image.fields["linked"], ALONE)


def level_of_links(image: Image) -> list[tuple[np.ndarray, np.ndarray]]:
    """The blocks of level 0 and above, with the row of each node that a link there may name."""
    found = []
    for name, nodes in (
        ("links0", np.arange(image.fields["linked"])),
        ("upper_links", column_of(image, "upper_rows")),
    ):
        blocks = table(image, name)
        if blocks is not None:
            found.append((blocks, nodes))
    return found


def column_of(image: Image, name: str) -> np.ndarray:
    found = table(image, name)
    return np.empty(0, np.uint32) if found is None else found[:, 0]


def unlink(image: Image, rows: np.ndarray) -> None:
    """Take rows out of the graph as the library would: no link leads to them or from them."""
    for blocks, nodes in level_of_links(image):
        apart = np.isin(nodes, rows)
        for block in blocks:
            links = block[block != EMPTY]
            links = links[(links < len(nodes))]
            kept = links[~apart[links]]
            block[:] = EMPTY
            block[: len(kept)] = kept
    ground = table(image, "links0")
    if ground is not None:
        ground[rows[rows < len(ground)]] = EMPTY
    upper, start = table(image, "upper_links"), column_of(image, "upper_start")
    for ordinal, row in enumerate(column_of(image, "upper_rows")):
        if upper is not None and row in rows:
            upper[int(start[ordinal]) : int(start[ordinal + 1])] = EMPTY


# ---- lies


def marks(image: Image, rng: Rng) -> None:
    """Rows marked as something that they are not: any, those of rings, the entry point."""
    if image.fields["count"] == 0:
        return
    mark, rings = marks_of(image), table(image, "copies")
    which = int(rng.integers(5))
    if which == 0:
        rows = some(rng, len(mark))
    elif which == 1 and rings is not None:
        rows = some(rng, np.flatnonzero(rings[:, 0] != ALONE))
    elif which == 2:
        rows = some(rng, np.flatnonzero(mark != LIVE))
    elif which == 3 and 0 <= image.fields["entry"] < len(column_of(image, "upper_rows")):
        rows = column_of(image, "upper_rows")[[image.fields["entry"]]]
    else:
        mark[:] = pick(rng, *MARKS)
        rows = some(rng, len(mark))
    mark[rows] = rng.choice(MARKS, len(rows)) if rng.random() < 0.5 else pick(rng, *MARKS)


def free_rows(image: Image, rng: Rng) -> None:
    """Rows freed as the library would free them, whichever they are."""
    if image.fields["count"] == 0:
        return
    rows = some(rng, image.fields["count"])
    if rng.random() < 0.7:  # the entry point and rings stay as they are
        upper, rings = column_of(image, "upper_rows"), table(image, "copies")
        if 0 <= image.fields["entry"] < len(upper):
            rows = rows[rows != upper[image.fields["entry"]]]
        if rings is not None:
            in_rings = np.flatnonzero(rings[:, 0] != ALONE)
            rows = rows[~np.isin(rows, in_rings)]
    marks_of(image)[rows] = FREE
    unlink(image, rows)
    if rng.random() < 0.8:
        for name in ("vectors", "ids", "norms", "codes", "code_constants"):
            content = table(image, name)
            if content is not None:
                content[rows[rows < len(content)]] = 0


def rings(image: Image, rng: Rng) -> None:
    """Rings in any order, shared, without an original, or of rows that are none."""
    if image.fields["linked"] == 0:
        return
    ring = rings_of(image)
    copies = np.flatnonzero(ring < ORIGINAL)
    originals = np.flatnonzero((ring >= ORIGINAL) & (ring != ALONE))
    which = int(rng.integers(5))
    if which == 0 and len(copies):
        ring[copies] = copies[rng.permutation(len(copies))]
    elif which == 1 and len(copies):  # several originals lead into one ring
        alone = np.flatnonzero(ring == ALONE)
        more = some(rng, alone) if len(alone) else originals
        ring[more] = ORIGINAL + rng.choice(copies, len(more)).astype(np.uint32)
    elif which == 2 and len(originals):
        ring[some(rng, originals)] = ALONE
    elif which == 3:
        rows = some(rng, len(ring))
        ring[rows] = np.roll(rows, 1)
        ring[int(rng.integers(len(ring)))] = ORIGINAL + int(rows[0])
    else:
        some_rows = some(rng, len(ring))
        ring[some_rows] = rng.choice([ALONE, ORIGINAL + 1, 0, len(ring) - 1], len(some_rows))


def more_copies(image: Image, rng: Rng) -> None:
    """Rows become copies of one, as the library would have it; now and then unequal or linked."""
    if image.fields["linked"] == 0:
        return
    ring, upper = rings_of(image), column_of(image, "upper_rows")
    alone = np.flatnonzero(ring == ALONE)
    if 0 <= image.fields["entry"] < len(upper):
        alone = alone[alone != upper[image.fields["entry"]]]
    alone = rng.permutation(alone)[: pick(rng, 2, 3, 10, 40)]
    if len(alone) < 2:
        return
    original, copies = int(alone[0]), alone[1:]
    ring[copies] = np.roll(copies, -1)
    ring[original] = ORIGINAL + int(copies[-1])
    if rng.random() < 0.8:
        unlink(image, copies)
    if rng.random() < 0.8:
        for name in ("vectors", "norms", "codes", "code_constants"):
            content = table(image, name)
            if content is not None:
                content[copies] = content[original]
    if rng.random() < 0.2:  # another row holds the same
        content = table(image, "vectors")
        if content is not None:
            content[rng.integers(len(content))] = content[original]


def linked(image: Image, rng: Rng) -> None:
    """No graph although there are many rows, or one of the first rows only."""
    f = image.fields
    rows = 0 if rng.random() < 0.6 else int(rng.integers(0, f["linked"] + 1))
    f["linked"] = rows
    f["entry"] = -1 if rows == 0 else f["entry"]
    f["max_level"] = 0 if rows == 0 else f["max_level"]
    f["unrepaired"] = min(f["unrepaired"], rows)
    names = ["links0", "codes", "code_constants", "copies"]
    if rows == 0:
        names += ["upper_rows", "upper_start", "upper_links"]
        if rng.random() < 0.7:  # no codes either
            f["codes"] = 0
    for part in image.parts:
        if part.name.decode("latin-1") in names and part.rows > rows:
            part.data = part.data[: len(part.data) // part.rows * rows]
            part.rows = rows
    f["exact_below"] = pick(rng, 0, 1, 10, f["count"], f["count"] + 1, 2**62)


def levels(image: Image, rng: Rng) -> None:
    """Other rows reach higher levels, with the tables for it, and links that fit them or not."""
    f = image.fields
    start, upper = image.part("upper_start"), image.part("upper_links")
    rows = image.part("upper_rows")
    if f["linked"] == 0 or start is None or upper is None or rows is None:
        return
    height = pick(rng, 1, 2, 3, 24, 25)
    chosen = np.sort(some(rng, f["linked"])[:40]).astype(np.uint32)
    tops = rng.integers(1, height + 1, len(chosen))
    begins = np.concatenate([[0], np.cumsum(tops)]).astype(np.uint32)
    blocks = np.full((int(begins[-1]), upper.columns), EMPTY, np.uint32)
    for ordinal, top in enumerate(tops):
        for level in range(1, int(top) + 1):
            others = np.flatnonzero(tops >= (level if rng.random() < 0.99 else 0))
            others = rng.permutation(others[others != ordinal])[: int(rng.integers(0, f["M"] + 1))]
            blocks[begins[ordinal] + level - 1, : len(others)] = others
    for part, data in ((rows, chosen), (start, begins), (upper, blocks)):
        part.rows, part.data = len(data), data.reshape(-1).view(np.uint8).copy()
    f["entry"] = int(np.argmax(tops) if rng.random() < 0.7 else rng.integers(len(tops)))
    f["max_level"] = int(tops[f["entry"]])


def links(image: Image, rng: Rng) -> None:
    """Links to any other rows, in any number."""
    blocks, count = table(image, "links0"), image.fields["linked"]
    if blocks is None or count < 2:
        return
    for row in some(rng, count):
        used = int(rng.integers(0, 2 * image.fields["M"] + 1))
        blocks[row] = EMPTY
        blocks[row, :used] = (row + 1 + rng.integers(0, count - 1, used)) % count


def not_numbers(image: Image, rng: Rng) -> None:
    """NaN, infinities and extremes in constants of codes, norms, the centre, and rows."""
    names = ("code_constants", "code_constants", "code_centre", "norms", "vectors")
    content = table(image, names[int(rng.integers(len(names)))])
    if content is None or content.dtype != np.uint32:
        return
    value = pick(rng, 0x7FC00000, 0xFFFFFFFF, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 0)
    content[some(rng, len(content)), int(rng.integers(content.shape[1]))] = value


def ids(image: Image, rng: Rng) -> None:
    """Ids that come twice or are at the ends of their range; numbers of no string."""
    content = table(image, "ids")
    if content is not None:
        values = (0, 1, 5, 2**63 - 1, 2**63, 2**64 - 1, len(content) - 1)
        content[some(rng, len(content)), 0] = pick(rng, *values)


def bounds(image: Image, rng: Rng) -> None:
    """Fields that say when and how wide to search, and what was repaired."""
    f = image.fields
    f["exact_below"] = pick(rng, 0, 1, f["count"], f["count"] + 1, 2**62)
    f["unrepaired"] = pick(rng, 0, f["linked"])
    f["ef_construction"] = pick(rng, 1, 2, 20, 2**31 - 1)
    f["seed"] = pick(rng, -1, 5, 2**62)


LIES: tuple[Callable[[Image, Rng], None], ...] = (
    *(marks, marks, free_rows, free_rows, rings, rings, more_copies, more_copies),
    *(linked, levels, levels, links, not_numbers, ids, bounds),
)


# ---- what the header counts


def count_right(image: Image) -> None:
    """Make the header count what the sections mark; sections that mark nothing go."""
    f, mark, ring = image.fields, table(image, "tombstones"), table(image, "copies")
    removed = 0 if mark is None else int((mark != LIVE).sum())
    f["removed"] = removed
    f["shaded"] = 0 if mark is None else int(((mark == PENDING) | (mark == HOLDING)).sum())
    f["copies"] = 0 if ring is None else int((ring < ORIGINAL).sum())
    gone = {
        name for name, count in ((b"tombstones", removed), (b"copies", f["copies"])) if not count
    }
    image.parts = [part for part in image.parts if part.name not in gone]


def miscount(image: Image, rng: Rng) -> None:
    """Make the header count something else."""
    f = image.fields
    name = ("removed", "removed", "shaded", "copies")[int(rng.integers(4))]
    f[name] = max(pick(rng, 0, 1, f["count"], f["count"] - 1, f[name] - 1, f[name] + 1, 5), 0)
    if name == "removed":
        f["shaded"] = min(f["shaded"], f["removed"])


def liar(seeds: list[bytes], rng: Rng) -> Image:
    """Make an image that lies; the same for the same seeds and state of the generator."""
    image = parse(seeds[int(rng.integers(len(seeds)))])
    for _ in range(int(rng.integers(1, 5))):
        if image.fields["count"] < MANY:
            LIES[int(rng.integers(len(LIES)))](image, rng)
    count_right(image)
    if rng.random() < 0.2:
        miscount(image, rng)
    return image
