"""From an index to a file: which arrays are saved under which names."""
from std.ffi import c_int

from vicinal.file.apart import end_child, fork_child
from vicinal.file.format import INT64_SECTION, UINT32_SECTION, Section, name_of
from vicinal.file.posix import ENOMEM, Status
from vicinal.file.writer import save, write
from vicinal.graph.links import slots
from vicinal.index.header import Header
from vicinal.index.notes import TUNING_WORDS
from vicinal.index.vector_index import Index
from vicinal.index.vectors import BORROWED
from vicinal.kernels.stored_type import is_coded, item_bytes, row_stride
from vicinal.quantization.code_table import NO_CODES
from vicinal.quantization.rotation import padded_dim
from vicinal.rows.duplicates import ALONE
from vicinal.system.memory import Column, Ptr, allocate, missing, release
from vicinal.system.pages import AS_USUAL, RANDOM, advise
from vicinal.system.parallel import Unwatched, Watch
from vicinal.system.pointer import copy_items

comptime BYTES_SECTION = 4
"""Type of a section of bytes: that of uint8 rows."""
comptime SECTIONS = 22


def save_index[V: Watch](index: Index, path: Int, ef_search: Int, mut watch: V) -> Status:
    """Saves an index, so that the file at `path` is the old one or the new one, whole, at any moment.

    Args:
        index: The index; no writer may be at work, searches may.
        path: Address of a NUL-terminated string. May be the file that the index was opened from.
        ef_search: Default search width to remember.
        watch: May end the call early; the old file is untouched then.

    Returns:
        The writer's status.
    """
    var duplicates = Column()
    if not _settle_copies(index, duplicates):
        return Status.system(ENOMEM)
    var sections = allocate[Section](SECTIONS)
    if missing(sections):
        return Status.system(ENOMEM)
    var count = 0
    var header = _describe(index, duplicates, index.forgotten_id() >= 0, ef_search, sections, count)
    _advise_lent(index, RANDOM)
    var status = save(path, header, sections, count, watch, index.row_pages())
    _advise_lent(index, AS_USUAL)
    release(sections)
    _ = duplicates^
    return status


def write_index[V: Watch](index: Index, file: Int32, ef_search: Int, mut watch: V) -> Status:
    """Writes an index into an open file that is empty; for files that have no name.

    Args:
        index: The index; no writer may be at work, searches may.
        file: Descriptor of a regular file, open for writing.
        ef_search: Default search width to remember.
        watch: May end the call early.

    Returns:
        The writer's status.
    """
    var duplicates = Column()
    if not _settle_copies(index, duplicates):
        return Status.system(ENOMEM)
    var sections = allocate[Section](SECTIONS)
    if missing(sections):
        return Status.system(ENOMEM)
    var count = 0
    var header = _describe(index, duplicates, index.forgotten_id() >= 0, ef_search, sections, count)
    _advise_lent(index, RANDOM)
    var status = write(file, header, sections, count, watch, index.row_pages())
    _advise_lent(index, AS_USUAL)
    release(sections)
    _ = duplicates^
    return status


def write_index_apart(index: Index, file: c_int, report: c_int, ef_search: Int) -> Int:
    """Writes an index as it is now into an open file that is empty, by a child process; returns at once.

    Searches and writers may go on as soon as the call returns: the child has the memory of the moment of the fork. It syncs
    the file at the end and writes how it went into a pipe.

    Args:
        index: The index; no writer may be at work during the call, searches may.
        file: Descriptor of a regular file, open for writing.
        report: Descriptor of the pipe, see `end_child`.
        ef_search: Default search width to remember.

    Returns:
        The child's process id, which the caller has to wait for, or the negative errno where the system has refused.

    Performance:
        The parent is held up for as long as the system copies its tables of pages.
    """
    var child = fork_child(file, report)
    if child == 0:
        var watch = Unwatched()
        end_child(write_index(index, file, ef_search, watch), file, report)
    return child


def _advise_lent(index: Index, advice: c_int):
    """Tells how rows in a map of the caller's will be read: those that are wanted are asked for."""
    if index.vectors.borrowed == BORROWED and index.vectors.on_disk:
        _ = advise(index.vectors.column.address, index.vectors.column.usable, advice)


def stored_items(dtype: Int) -> Int:
    """Returns the type of the items that rows consist of in a file: bytes if they are codes alone.
    """
    return BYTES_SECTION if is_coded(dtype) else dtype


def format_version(index: Index) -> Int:
    """Returns the format version of the file that an index would be saved as, 0 when memory is out.
    """
    var sections = allocate[Section](SECTIONS)
    if missing(sections):
        return 0
    var count = 0
    var header = _describe(index, Column(), False, 0, sections, count)
    release(sections)
    return header.version()


def _settle_copies(index: Index, mut column: Column) -> Bool:
    """Makes the rings of copies as they will be once rows that searches may be at are freed; nothing if there are no such rows.

    Returns:
        False when memory is out.
    """
    ref duplicates = index.duplicates
    if index.unlinked.count == 0 or duplicates.count == 0:
        return True
    if not column.grow(4 * duplicates.rows):
        return False
    copy_items(dest=column.ptr[UInt32](), src=duplicates.next.ptr[UInt32](), count=duplicates.rows)
    for i in range(index.unlinked.count):
        if index.unlinked.row(i) < duplicates.rows:
            column.ptr[UInt32]()[unsafe_offset=index.unlinked.row(i)] = ALONE
    return True


def _describe(
    index: Index,
    was_live: Column,
    forgotten: Bool,
    ef_search: Int,
    sections: Ptr[Section],
    mut count: Int,
) -> Header:
    """Lists the arrays of an index and returns the header that goes with them; `forgotten` tells whether `largest_id` is one.
    """
    ref graph = index.graph[]
    var kind = stored_items(index.dtype)
    var stride = row_stride(index.dim, index.dtype) // item_bytes(kind)
    sections[unsafe_offset=0] = Section(
        name_of("vectors"), index.vectors.column.address, kind, index.count, stride
    )
    sections[unsafe_offset=1] = Section(
        name_of("links0"), graph.links0.address, UINT32_SECTION, graph.linked, slots(2 * graph.M)
    )
    sections[unsafe_offset=2] = Section(
        name_of("upper_rows"), graph.upper_rows.address, UINT32_SECTION, graph.ordinals, 1
    )
    sections[unsafe_offset=3] = Section(
        name_of("upper_start"),
        graph.upper_start.address,
        UINT32_SECTION,
        graph.ordinals + 1 if graph.ordinals > 0 else 0,
        1,
    )
    sections[unsafe_offset=4] = Section(
        name_of("upper_links"),
        graph.upper_links.address,
        UINT32_SECTION,
        graph.blocks,
        slots(graph.M),
    )
    sections[unsafe_offset=5] = Section(
        name_of("ids"), index.ids.column.address, INT64_SECTION, index.count, 1
    )
    count = 6
    if index.has_norms():
        sections[unsafe_offset=6] = Section(
            name_of("norms"), index.vectors.norms.address, 0, index.count, 1
        )
        count = 7
    ref codes = index.codes[]
    if codes.kind != NO_CODES:
        if not codes.in_place():
            sections[unsafe_offset=count] = Section(
                name_of("codes"), codes.bytes.address, BYTES_SECTION, codes.count, codes.stride
            )
            count += 1
        sections[unsafe_offset=count] = Section(
            name_of("code_constants"), codes.constants.address, UINT32_SECTION, codes.count, 2
        )
        sections[unsafe_offset=count + 1] = Section(
            name_of("code_centre"), Int(codes.centre), 0, 1, padded_dim(index.dim)
        )
        count += 2
        if codes.reach != Float32.MAX:
            sections[unsafe_offset=count] = Section(
                name_of("code_reach"),
                Int(Pointer(to=codes.reach).unsafe_origin_cast[MutUntrackedOrigin]()),
                0,
                1,
                1,
            )
            count += 1
    if index.duplicates.count != 0:
        sections[unsafe_offset=count] = Section(
            name_of("copies"),
            was_live.address if was_live.address != 0 else index.duplicates.next.address,
            UINT32_SECTION,
            graph.linked,
            1,
        )
        count += 1
    ref strings = index.ids.strings
    if strings.used:
        sections[unsafe_offset=count] = Section(
            name_of("id_text"), strings.text.address, BYTES_SECTION, strings.begin(strings.count), 1
        )
        sections[unsafe_offset=count + 1] = Section(
            name_of("id_offsets"),
            strings.offsets.address,
            INT64_SECTION,
            strings.count + 1 if strings.count > 0 else 0,
            1,
        )
        count += 2
    if index.notes.tunings != 0:
        sections[unsafe_offset=count] = Section(
            name_of("tuning"),
            index.notes.tuning.address,
            INT64_SECTION,
            index.notes.tunings,
            TUNING_WORDS,
        )
        count += 1
    if index.notes.tunings != 0 and index.notes.stop_rules.address != 0:
        sections[unsafe_offset=count] = Section(
            name_of("stop_rules"),
            index.notes.stop_rules.address,
            INT64_SECTION,
            index.notes.tunings,
            1,
        )
        count += 1
    if index.notes.query_bytes != 0:
        sections[unsafe_offset=count] = Section(
            name_of("kept_queries"),
            index.notes.queries.address,
            BYTES_SECTION,
            index.notes.query_bytes,
            1,
        )
        count += 1
    if index.notes.attribute_bytes != 0:
        sections[unsafe_offset=count] = Section(
            name_of("attributes"),
            index.notes.attributes.address,
            BYTES_SECTION,
            index.notes.attribute_bytes,
            1,
        )
        count += 1
    if index.mended != 0:
        sections[unsafe_offset=count] = Section(
            name_of("mended"), Int(Pointer(to=index.mended)), INT64_SECTION, 1, 1
        )
        count += 1
    if index.walk_dim != 0:
        sections[unsafe_offset=count] = Section(
            name_of("walk_dim"), Int(Pointer(to=index.walk_dim)), INT64_SECTION, 1, 1
        )
        count += 1
    if forgotten:
        sections[unsafe_offset=count] = Section(
            name_of("largest_id"), Int(Pointer(to=index.ids.largest)), INT64_SECTION, 1, 1
        )
        count += 1
    if index.states.removed != 0:
        sections[unsafe_offset=count] = Section(
            name_of("tombstones"), index.states.bytes.address, BYTES_SECTION, index.count, 1
        )
        count += 1
    return Header(
        index.metric,
        index.dtype,
        index.dim,
        index.count,
        graph.linked,
        graph.asked,
        index.ef_construction,
        ef_search,
        index.seed,
        graph.entry,
        graph.top(),
        index.exact_below,
        index.unrepaired,
        index.quantization,
        codes.kind,
        index.duplicates.count,
        Int(strings.used),
        index.states.removed,
        index.states.pending + index.states.holding,
    )
