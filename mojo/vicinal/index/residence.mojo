"""Which parts of an opened file stay in memory, and which are read from disk when they are needed."""
from std.ffi import c_int

from vicinal.file.format import Section, name_of
from vicinal.file.posix import direct_grain
from vicinal.index.header import IndexFile
from vicinal.index.vector_index import Index
from vicinal.system.memory import Column, at
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome, STOPPED
from vicinal.system.pages import (
    RANDOM,
    UNWANTED,
    advise,
    bytes_in_memory,
    lock,
    read_in,
    unlock,
)
from vicinal.system.parallel import Body, Team, Watch
from vicinal.walk.arrivals import RowFile

comptime NONE = 0
"""Nothing is read before it is needed, and nothing along with it."""
comptime WALK = 1
"""All but the rows is in memory."""
comptime ALL = 2
"""Everything is in memory."""
comptime PIECE = 1 << 20
"""Bytes that a worker reads in at once."""


@fieldwise_init
struct ReadIn(Body):
    """Reads parts of a map into memory."""

    var address: Int
    var bytes: Int

    def run(self, begin: Int, end: Int, worker: Int):
        """Reads pieces begin .. end-1."""
        var first = begin * PIECE
        read_in(self.address + first, min(end * PIECE, self.bytes) - first)


def walk_bytes(index: Index) -> Int:
    """Returns the bytes of all sections of the file but the rows and the list of checksums; 0 without a file.
    """
    if index.file == 0:
        return 0
    ref mapped = at[IndexFile](index.file)[]
    var sum = 0
    for i in range(mapped.count):
        if _needed(mapped.sections[unsafe_offset=i], WALK):
            sum += mapped.sections[unsafe_offset=i].bytes()
    return sum


def keep_in_memory[
    V: Watch
](mut index: Index, level: Int, opening: Bool, threads: Int, mut watch: V) -> Outcome:
    """Brings parts of the file into memory and sees to it that they stay there.

    Args:
        index: An index whose columns are views of a file. Others are left alone.
        level: NONE, WALK or ALL.
        opening: Whether the index was just opened and nobody searches yet. Then the system is told how each part will be
            read, and what is brought into memory is locked; what of WALK cannot be is copied into memory of the index.
        threads: Workers.
        watch: May end the call early; nothing is lost by that.

    Returns:
        DONE, STOPPED, or NO_MEMORY when there is no memory for copies: those not made yet are missing.
    """
    if index.file == 0:
        return DONE
    ref mapped = at[IndexFile](index.file)[]
    if opening:
        index.vectors.on_disk = level != ALL
    var team = Team(threads)
    var refused = False
    for i in range(mapped.count):
        var section = mapped.sections[unsafe_offset=i]
        var address = section.address
        var bytes = section.bytes()
        if (
            opening and level != ALL
        ):  # what the system drops of walks all the same comes back page by page
            _ = advise(address, bytes, RANDOM)
        if not _needed(section, level):
            continue
        var read = ReadIn(address, bytes)
        if not team.run((bytes + PIECE - 1) // PIECE, 1, read, watch):
            return STOPPED
        if opening and not refused:
            refused = not lock(address, bytes)
            index.locked += 0 if refused else bytes
    _ = team^
    if not refused or level != WALK:
        return DONE
    if not _copy_walked(index):
        return NO_MEMORY
    for i in range(mapped.count):
        var section = mapped.sections[unsafe_offset=i]
        if _needed(section, level):
            unlock(section.address, section.bytes())
            _ = advise(section.address, section.bytes(), UNWANTED)
    index.locked = 0
    return DONE


def read_rows_by(mut index: Index, how: Int, file: Int):
    """Says how rows on disk are read when candidates are measured again.

    Args:
        index: An index that was just opened; nobody searches yet.
        how: FAULT, ADVISE or RING.
        file: For RING a descriptor of the file that the index maps, open for reads past the cache; the index closes it.
    """
    var base = 0
    var offset = 0
    if index.file != 0:
        ref mapped = at[IndexFile](index.file)[]
        var vectors = mapped.find(name_of("vectors"))
        if vectors >= 0:
            base = mapped.sections[unsafe_offset=vectors].address
            offset = base - mapped.address
    var grain = direct_grain(c_int(file)) if file >= 0 else 0
    index.vectors.row_file = RowFile(how, c_int(file), base, offset, grain)


def file_in_memory(index: Index) -> Int:
    """Returns how many bytes of the file are in memory, -1 when memory to find out is out; 0 without a file.
    """
    if index.file == 0:
        return 0
    ref mapped = at[IndexFile](index.file)[]
    return bytes_in_memory(mapped.address, mapped.bytes)


def file_bytes(index: Index) -> Int:
    """Returns the bytes of the file; 0 without one."""
    return at[IndexFile](index.file)[].bytes if index.file != 0 else 0


def _needed(section: Section, level: Int) -> Bool:
    """Tells whether a level wants a section in memory: checksums are only read by `verify`."""
    if section.name == name_of("checksums"):
        return False
    return level == ALL or (level == WALK and section.name != name_of("vectors"))


def _copy_walked(mut index: Index) -> Bool:
    """Replaces views of what walks need by memory of the index; returns False when memory is out.
    """
    ref graph = index.graph[]
    return (
        _copy(index.ids.column, index.copied)
        and _copy(index.vectors.norms, index.copied)
        and _copy(index.duplicates.next, index.copied)
        and _copy(index.states.bytes, index.copied)
        and _copy(graph.links0, index.copied)
        and _copy(graph.upper_rows, index.copied)
        and _copy(graph.upper_start, index.copied)
        and _copy(graph.upper_links, index.copied)
        and _copy(index.codes[].bytes, index.copied)
        and _copy(index.codes[].constants, index.copied)
        and _copy(index.ids.strings.text, index.copied)
        and _copy(index.ids.strings.offsets, index.copied)
    )


def _copy(mut column: Column, mut copied: Int) -> Bool:
    if column.usable == 0 or column.reserved != 0:
        return True
    var bytes = column.usable
    if not column.own():
        return False
    copied += bytes
    return True
