"""Files that are whole by their checksums and wrong in what they say."""

from __future__ import annotations

import struct

import numpy as np

from support.files import sections_of
from vicinal._cpu import native

_BLOCK = 65536


def with_checksums(data: bytearray) -> bytes:
    """Return an index file with all its checksums made right."""
    part = sections_of(bytes(data))["checksums"]
    for number, start in enumerate(range(4096, part.offset, _BLOCK)):
        block = bytes(data[start : min(start + _BLOCK, part.offset)])
        struct.pack_into("<I", data, part.offset + 4 * number, native.crc32c(block, 0))
    sums = bytes(data[part.offset : part.offset + part.size])
    struct.pack_into("<I", data, 4088, native.crc32c(sums, 0))
    struct.pack_into("<I", data, 4092, native.crc32c(bytes(data[:4092]), 0))
    return bytes(data)


def codes_of_other_rows(image: bytes) -> bytes:
    """Return an index file in which each code is that of another row, drawn at random."""
    data = bytearray(image)
    sections = sections_of(image)
    order = np.random.default_rng(0).permutation(sections["codes"].rows)
    for name in ("codes", "code_constants"):
        part = sections[name]
        rows = np.frombuffer(image, np.uint8, part.size, part.offset).reshape(part.rows, -1)
        data[part.offset : part.offset + part.size] = rows[order].tobytes()
    return with_checksums(data)
