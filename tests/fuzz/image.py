"""A saved index taken apart into header fields and arrays, and put together with any content.

Writes the layout of docs/design/format.md independently of the library, so that damage of every
kind can be given right checksums and get past them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from vicinal._cpu import native

PAGE = 4096
BLOCK = 65536
TABLE = 256
ENTRY = 64
CHECKSUMS_SUM = 4088
HEADER_SUM = 4092
FIELDS = (
    *("metric", "dtype", "dim", "count", "linked", "M", "ef_construction", "ef_search"),
    *("seed", "entry", "max_level", "exact_below", "unrepaired", "quantization", "codes"),
    *("copies", "strings", "removed", "shaded"),
)
ITEM_BYTES = {0: 4, 1: 2, 2: 2, 3: 1, 4: 1, 5: 8, 6: 4}


@dataclass
class Part:
    """A section: the name and shape that the table will state, and the bytes."""

    name: bytes
    dtype: int
    rows: int
    columns: int
    data: np.ndarray  # uint8, writable

    def items(self) -> np.ndarray:
        """The bytes as integers of the section's item size."""
        size = ITEM_BYTES.get(self.dtype, 1)
        whole = len(self.data) // size * size
        return self.data[:whole].view(f"<u{size}")


@dataclass
class Image:
    """Header fields by name and sections in order, the list of checksums left out."""

    version: int
    fields: dict[str, int]
    parts: list[Part] = field(default_factory=list)

    def part(self, name: str) -> Part | None:
        """The section of a name."""
        return next((part for part in self.parts if part.name == name.encode()), None)


def round_up(offset: int) -> int:
    return -(-offset // PAGE) * PAGE


def parse(data: bytes) -> Image:
    """Take a sound file apart."""
    # as many fields as the file has behind those that are known here are kept by number
    names = [*FIELDS, *(f"field{i}" for i in range(len(FIELDS), (TABLE - 32) // 8))]
    (version,) = struct.unpack_from("<I", data, 8)
    image = Image(
        version, dict(zip(names, struct.unpack_from(f"<{len(names)}q", data, 32), strict=True))
    )
    (count,) = struct.unpack_from("<q", data, 24)
    for i in range(count - 1):
        name, *numbers = struct.unpack_from("<16s5q", data, TABLE + ENTRY * i)
        start, length, rows, columns, dtype = numbers
        body = np.frombuffer(data, np.uint8, length, start).copy()
        image.parts.append(Part(name.rstrip(b"\0"), dtype, rows, columns, body))
    return image


def build(image: Image, *, sums: bool = True) -> bytearray:
    """Lay an image out as a file.

    Parameters
    ----------
    image : Image
        What to write; nothing is checked.
    sums : bool
        False gives every block a wrong checksum.
    """
    starts, end = [], PAGE
    for part in image.parts:
        starts.append(round_up(end))
        end = starts[-1] + len(part.data)
    end = round_up(end)
    blocks = -(-(end - PAGE) // BLOCK)
    out = bytearray(end + 4 * blocks)
    for part, start in zip(image.parts, starts, strict=True):
        out[start : start + len(part.data)] = part.data.tobytes()
    for i in range(blocks):
        begin = PAGE + i * BLOCK
        checksum = native.crc32c(bytes(out[begin : min(begin + BLOCK, end)]), 0)
        struct.pack_into("<I", out, end + 4 * i, checksum ^ (0 if sums else 1))
    struct.pack_into(
        "<8sIIqq", out, 0, b"\xf7VICINAL", image.version, 0x01020304, len(out), len(starts) + 1
    )
    fields = [(field + 2**63) % 2**64 - 2**63 for field in image.fields.values()]
    struct.pack_into(f"<{len(fields)}q", out, 32, *fields)
    table = [
        (part.name, start, len(part.data), part.rows, part.columns, part.dtype)
        for part, start in zip(image.parts, starts, strict=True)
    ]
    table.append((b"checksums", end, 4 * blocks, blocks, 1, 6))
    for i, (name, *numbers) in enumerate(table):
        struct.pack_into("<16s5q", out, TABLE + ENTRY * i, name, *numbers)
    struct.pack_into("<I", out, CHECKSUMS_SUM, native.crc32c(bytes(out[end:]), 0))
    resum(out)
    return out


def resum(data: bytearray) -> None:
    """Make the header's checksum right, if there is a whole header."""
    if len(data) >= PAGE:
        struct.pack_into("<I", data, HEADER_SUM, native.crc32c(bytes(data[:HEADER_SUM]), 0))
