"""Index files: the section table, as docs/design/format.md has it."""

from __future__ import annotations

import struct
from typing import NamedTuple


class Section(NamedTuple):
    """An entry of the section table."""

    number: int
    offset: int
    size: int
    rows: int
    columns: int
    dtype: int


def sections_of(data: bytes) -> dict[str, Section]:
    """Read the section table: an entry for each name."""
    (count,) = struct.unpack_from("<q", data, 24)
    found = {}
    for number in range(count):
        name, *numbers = struct.unpack_from("<16s5q", data, 256 + 64 * number)
        found[name.rstrip(b"\0").decode()] = Section(number, *numbers)
    return found
