"""Mutations of a saved index: of its bytes, of its header, and of what its sections mean."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from fuzz import lies
from fuzz.image import ENTRY, FIELDS, PAGE, TABLE, Image, Part, build, parse, resum

Rng = np.random.Generator

WORDS = (
    *(0, 1, 2, 3, 7, 8, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 4095, 4096, 65535, 65536),
    *(2**31 - 17, 2**31 - 16, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**32, 2**40, 2**61, 2**62),
    *(2**63 - 1, -1, -2, -(2**31), -(2**63)),
)
FLOATS = np.array(
    [0x7F800000, 0xFF800000, 0x7FC00000, 0xFFFFFFFF, 0x7F7FFFFF, 0xFF7FFFFF, 1, 0, 0x80000000],
    np.uint32,
)


def pick(rng: Rng, choices: object) -> int:
    """One of some numbers, as a Python int."""
    return int(choices[rng.integers(len(choices))])  # type: ignore[index, arg-type]


# ---- of bytes


def flip_bits(data: bytearray, rng: Rng) -> None:
    for at in rng.integers(0, len(data), int(rng.integers(1, 20))):
        data[at] ^= 1 << int(rng.integers(8))


def overwrite(data: bytearray, rng: Rng) -> None:
    at = int(rng.integers(0, len(data)))
    length = min(int(rng.integers(1, 5000)), len(data) - at)
    filling = [rng.bytes(length), b"\0" * length, b"\xff" * length]
    data[at : at + length] = filling[int(rng.integers(3))]


def cut(data: bytearray, rng: Rng) -> None:
    del data[int(rng.integers(0, len(data))) :]


def lengthen(data: bytearray, rng: Rng) -> None:
    data += rng.bytes(int(rng.integers(1, 9000)))


def cut_to_promise(data: bytearray, rng: Rng) -> None:
    """Shorten the file and say so in the header, which the table then contradicts."""
    if len(data) > PAGE:
        del data[int(rng.integers(PAGE, len(data))) :]
        struct.pack_into("<q", data, 16, len(data))
        resum(data)


def move_bytes(data: bytearray, rng: Rng) -> None:
    """Copy one page over another."""
    pages = len(data) // PAGE
    a, b = (int(n) * PAGE for n in rng.integers(1, max(pages, 2), 2))
    data[a : a + PAGE] = data[b : b + PAGE][: len(data[a : a + PAGE])]


BYTES = (flip_bits, overwrite, cut, lengthen, cut_to_promise, move_bytes)


# ---- of the header, with its checksum made right


def near(rng: Rng, value: int) -> int:
    """An interesting number, or one near to the present one."""
    if rng.random() < 0.4:
        value += int(rng.integers(-3, 4))
    elif rng.random() < 0.2:
        value ^= 1 << int(rng.integers(63))
    else:
        value = pick(rng, WORDS)
    return min(max(value, -(2**63)), 2**63 - 1)


def poke(data: bytearray, rng: Rng, offset: int) -> None:
    (value,) = struct.unpack_from("<q", data, offset)
    struct.pack_into("<q", data, offset, near(rng, value))


def set_field(data: bytearray, rng: Rng) -> None:
    poke(data, rng, 32 + 8 * int(rng.integers(len(FIELDS))))


def set_count_or_size(data: bytearray, rng: Rng) -> None:
    poke(data, rng, pick(rng, (8, 16, 24)))


def set_entry(data: bytearray, rng: Rng) -> None:
    poke(data, rng, TABLE + ENTRY * int(rng.integers(0, 12)) + pick(rng, (16, 24, 32, 40, 48, 56)))


def swap_entries(data: bytearray, rng: Rng) -> None:
    """Swap two entries, or only their names, or only what they say of the bytes."""
    a, b = (TABLE + ENTRY * int(n) for n in rng.integers(0, 11, 2))
    begin, end = ((0, ENTRY), (0, 16), (16, ENTRY))[int(rng.integers(3))]
    data[a + begin : a + end], data[b + begin : b + end] = (
        data[b + begin : b + end],
        data[a + begin : a + end],
    )


def header_byte(data: bytearray, rng: Rng) -> None:
    data[int(rng.integers(0, PAGE))] = int(rng.integers(256))


HEADER = (set_field, set_count_or_size, set_entry, swap_entries, header_byte)


# ---- of the meaning, with all checksums right


def numbers(image: Image, rng: Rng, names: tuple[str, ...], values: Callable[[], int]) -> None:
    """Overwrite some items of one of the named sections."""
    part = image.part(names[int(rng.integers(len(names)))])
    if part is None or len(part.items()) == 0:
        return
    items = part.items()
    top = np.iinfo(items.dtype).max
    share = pick(rng, (1, 2, 8, len(items)))
    for at in rng.integers(0, len(items), min(share, len(items))):
        items[at] = values() & top


def links(image: Image, rng: Rng) -> None:
    """Links to rows that exist or not, holes, to itself, to all the same."""
    count = min(max(image.fields["linked"], 1), 2**31)
    one = int(rng.integers(0, 2**32))
    choices = [
        lambda: int(rng.integers(0, count)),
        lambda: pick(rng, (count - 1, count, count + 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)),
        lambda: int(rng.integers(0, 2**32)),
        lambda: one,
    ]
    numbers(image, rng, ("links0", "upper_links"), choices[int(rng.integers(4))])


def tables(image: Image, rng: Rng) -> None:
    """The tables of the upper levels."""
    part = image.part("upper_links")
    blocks = part.rows if part else 0
    near_end = (0, 1, blocks - 1, blocks, blocks + 1, 25, 2**31, 2**32 - 1)
    numbers(image, rng, ("upper_rows", "upper_start"), lambda: pick(rng, near_end))


def copies(image: Image, rng: Rng) -> None:
    """The rings of equal rows: out of range, not closed, of rows that are none."""
    count = min(max(image.fields["linked"], 1), 2**31)
    bits = (0, 0, 2**31)
    ends = (0, count - 1, count, 2**31 - 1, 2**32 - 1, int(rng.integers(0, count)))
    numbers(image, rng, ("copies",), lambda: pick(rng, ends) | pick(rng, bits))


def strings(image: Image, rng: Rng) -> None:
    """Where strings begin, what they hold, and which row has which."""
    part = image.part("id_text")
    size = len(part.data) if part else 0
    count = image.fields["count"] % 2**20
    ends = (0, 1, size - 1, size, size + 1, 2**31, 2**62, 2**63, 2**64 - 1, count - 1, count)
    names = ("id_text", "id_offsets", "id_offsets", "ids")
    numbers(image, rng, names, lambda: max(pick(rng, ends), 0))


def tunings(image: Image, rng: Rng) -> None:
    """Search widths that nobody measured."""
    nan = 0x7FF8000000000000
    words = (0, 1, 2**31 - 1, 2**31, 2**63, 2**64 - 1, nan, 0x3FF0000000000000)
    numbers(image, rng, ("tuning",), lambda: pick(rng, words))


def ids(image: Image, rng: Rng) -> None:
    """Ids that come twice, at the ends of their range, in order or not."""
    ends = (0, 1, -1, 2**63 - 1, -(2**63), image.fields["count"])
    numbers(image, rng, ("ids",), lambda: pick(rng, ends) & (2**64 - 1))


def floats(image: Image, rng: Rng) -> None:
    """NaN, infinities and extremes where numbers are expected."""
    names = ("vectors", "norms", "code_constants", "code_centre", "codes")
    numbers(image, rng, names, lambda: pick(rng, FLOATS))


def fields(image: Image, rng: Rng) -> None:
    """Fields changed while the sections stay."""
    name = FIELDS[int(rng.integers(len(FIELDS)))]
    image.fields[name] = near(rng, image.fields[name])


def graph_fields(image: Image, rng: Rng) -> None:
    """Values that are allowed one by one and may not fit together."""
    f = image.fields
    if rng.random() < 0.5:
        f["entry"] = int(rng.integers(-1, max(f["linked"], 1) % 1000 + 1))
    if rng.random() < 0.3:
        f["unrepaired"] = int(rng.integers(0, max(f["linked"], 0) % 1000 + 1))
    if rng.random() < 0.3:
        f["exact_below"] = pick(rng, (0, 1, f["count"], f["count"] + 1, 2**63 - 1))
    if rng.random() < 0.3:
        f["quantization"] = int(rng.integers(0, 5))
    if rng.random() < 0.3:
        f["codes"] = int(rng.integers(0, 4))
    if rng.random() < 0.1:
        f["strings"] = int(rng.integers(0, 2))
    if rng.random() < 0.1:
        image.version = int(rng.integers(1, 4))
    if rng.random() < 0.2:
        f["copies"] = int(rng.integers(0, 80))
    if rng.random() < 0.3:
        f["metric"] = int(rng.integers(0, 3))
    if rng.random() < 0.2:
        f["ef_construction"] = pick(rng, (0, 1, 2, 2**20, 2**31 - 1))
    if rng.random() < 0.2:
        f["ef_search"] = pick(rng, (0, 1, 2**20, 2**31 - 1))


def resize(part: Part | None, rows: int) -> None:
    """Cut or repeat the rows of a section."""
    if part is None or part.rows == 0:
        return
    width = len(part.data) // part.rows
    part.data = np.resize(part.data, rows * width).copy()
    part.rows = rows


def fewer_rows(image: Image, rng: Rng) -> None:
    """Another number of rows, linked rows, ordinals or blocks, in the table as well."""
    f = image.fields
    which = int(rng.integers(5))
    if which == 4:
        name = ("id_text", "id_offsets", "tuning")[int(rng.integers(3))]
        resize(image.part(name), int(rng.integers(0, 100)))
    if which == 0:
        f["count"] = int(rng.integers(0, 80))
        for name in ("vectors", "ids", "norms"):
            resize(image.part(name), f["count"])
    if which in (0, 1):
        rows = f["count"] % 100
        f["linked"] = pick(rng, (0, rows // 2, rows, rows))
        for name in ("links0", "codes", "code_constants", "copies"):
            resize(image.part(name), f["linked"])
    if which == 2:
        ordinals = int(rng.integers(1, f["linked"] % 100 + 2))
        resize(image.part("upper_rows"), ordinals)
        resize(image.part("upper_start"), ordinals + 1)
    if which == 3:
        resize(image.part("upper_links"), int(rng.integers(1, 60)))


def other_shape(image: Image, rng: Rng) -> None:
    """Sections whose rows or columns do not fit the fields, or of another type."""
    part = image.parts[int(rng.integers(len(image.parts)))]
    which = int(rng.integers(4))
    if which == 0:
        part.rows, part.columns = part.columns, part.rows
    elif which == 1:
        part.dtype = int(rng.integers(0, 8))
    elif which == 2:
        part.rows += pick(rng, (-1, 1))
    else:
        part.name = pick_name(image, rng)


def pick_name(image: Image, rng: Rng) -> bytes:
    names = [part.name for part in image.parts]
    return [*names, b"", b"checksums", b"\xff" * 16][int(rng.integers(len(names) + 3))]


def swap_sections(image: Image, rng: Rng) -> None:
    """Another order, a section less, or two sections' bytes exchanged."""
    a, b = rng.integers(0, len(image.parts), 2)
    which = int(rng.integers(3))
    parts = image.parts
    if which == 0:
        parts[a], parts[b] = parts[b], parts[a]
    elif which == 1:
        del parts[a]
    else:
        parts[a].data, parts[b].data = parts[b].data, parts[a].data


MEANING = (
    *(links, links, links, tables, tables, copies, copies, ids, strings, strings, tunings, floats),
    *(fields, graph_fields, graph_fields, fewer_rows, fewer_rows, other_shape, swap_sections),
)


def mutated(seeds: list[bytes], number: int, *, lying: bool = False) -> bytes:
    """Make the file of a number; the same for the same seeds and number.

    With `lying` it is always a whole file with right checksums that contradicts itself, see
    `fuzz.lies`; otherwise it is one in three times.
    """
    rng = np.random.default_rng(number)
    if lying or rng.random() < 0.33:
        return bytes(build(lies.liar(seeds, rng)))
    data = seeds[int(rng.integers(len(seeds)))]
    kind = rng.random()
    if kind < 0.65:
        image = parse(data)
        for _ in range(int(rng.integers(1, 5))):
            MEANING[int(rng.integers(len(MEANING)))](image, rng)
            if not image.parts:
                break
        out = build(image, sums=rng.random() < 0.8)
        if rng.random() < 0.9:
            return bytes(out)
    else:
        out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        if len(out) < PAGE:
            break
        if rng.random() < 0.7:
            HEADER[int(rng.integers(len(HEADER)))](out, rng)
            resum(out)
        else:
            BYTES[int(rng.integers(len(BYTES)))](out, rng)
    if rng.random() < 0.5:
        resum(out)
    return bytes(out)
