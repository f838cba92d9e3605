"""Between an index and a file: which arrays are saved under which names, and what a file must hold to be searched."""
from std.ffi import c_int
from std.memory import unsafe_memcpy

from vicinal.file.format import (
    BAD_CONTENT,
    BAD_FIELD,
    BAD_SECTION,
    INT64_SECTION,
    UINT32_SECTION,
    Section,
    name_of,
)
from vicinal.file.apart import end_child, fork_child
from vicinal.file.mapped import verify
from vicinal.file.posix import ENOMEM, InputFile, Status
from vicinal.file.writer import save, write
from vicinal.graph.links import MAX_ROWS, slots
from vicinal.index.borrowed_rows import BORROWED
from vicinal.index.header import Header, IndexFile
from vicinal.index.untrusted_links import count_marks, validate_header
from vicinal.index.vector_index import TUNING_WORDS, Index
from vicinal.kernels.space import is_coded, is_float, item_bytes, row_stride
from vicinal.quantization.choice import AUTO, can_walk
from vicinal.quantization.code_table import NO_CODES, U8, codes_on_heap, drop_codes
from vicinal.quantization.rotation import padded_dim
from vicinal.rows.duplicates import ALONE
from vicinal.rows.string_ids import MAX_STRINGS
from vicinal.system.memory import Column, Ptr, allocate, at, missing, release
from vicinal.system.pages import AS_USUAL, RANDOM, advise
from vicinal.system.parallel import Unwatched, Watch, usable_cores

comptime BYTES_SECTION = 4
"""Type of a section of bytes: that of uint8 rows."""
comptime SECTIONS = 21
comptime MAX_TUNINGS = 4096


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
    var status = save(path, header, sections, count, watch, index.rows_on_disk)
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
    var status = write(file, header, sections, count, watch, index.rows_on_disk)
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
    if index.borrowed == BORROWED and index.rows_on_disk:
        _ = advise(index.vectors.address, index.vectors.usable, advice)


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
    unsafe_memcpy(
        dest=column.ptr[UInt32](), src=duplicates.next.ptr[UInt32](), count=duplicates.rows
    )
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
        name_of("vectors"), index.vectors.address, kind, index.count, stride
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
        name_of("ids"), index.ids.address, INT64_SECTION, index.count, 1
    )
    count = 6
    if index.has_norms():
        sections[unsafe_offset=6] = Section(
            name_of("norms"), index.norms.address, 0, index.count, 1
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
    ref strings = index.strings
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
    if index.tunings != 0:
        sections[unsafe_offset=count] = Section(
            name_of("tuning"), index.tuning.address, INT64_SECTION, index.tunings, TUNING_WORDS
        )
        count += 1
    if index.query_bytes != 0:
        sections[unsafe_offset=count] = Section(
            name_of("kept_queries"), index.queries.address, BYTES_SECTION, index.query_bytes, 1
        )
        count += 1
    if index.attribute_bytes != 0:
        sections[unsafe_offset=count] = Section(
            name_of("attributes"), index.attributes.address, BYTES_SECTION, index.attribute_bytes, 1
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
            name_of("largest_id"), Int(Pointer(to=index.largest_id)), INT64_SECTION, 1, 1
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


def open_index[
    V: Watch
](var source: InputFile, copy: Bool, check: Bool, mut status: Status, mut watch: V) -> Index:
    """Opens a saved index.

    Args:
        source: The file.
        copy: True for a private copy that can be added to, False to search the map itself.
        check: Whether to compare every byte with the checksums before anything is used.
        status: Receives how it went.
        watch: May end the checking early.

    Returns:
        The index; an empty one of no use unless the status is DONE.

    Safety:
        What is read of a map is clamped where it is used: a damaged file may give wrong neighbours, never a read outside
        the map. Who relies on its number of rows asks `trust.counts_agree` first. A private copy is refused unless its links
        can be followed without clamping, and its counts, marks and rings fit each other and the links.
    """
    var mapped = IndexFile(source^)
    status = mapped.status
    if status.ok() and check:
        status = verify(mapped, usable_cores(), watch)
    if not status.ok():
        return Index(0, 0, 1, 2, 1, 0, 0, 0)
    var header = mapped.header
    var index = Index(
        header.metric,
        header.dtype,
        header.dim,
        header.M,
        header.ef_construction,
        header.seed,
        header.exact_below,
        header.quantization,
    )
    if index.failed():
        status = Status.system(ENOMEM)
    if status.ok():
        _attach(mapped, index, status)
    if not status.ok():
        return index^
    index.ef_search = header.ef_search
    index.ids_known = False
    if copy:
        status = validate_header(index, header)
        if status.ok() and not (
            _make_private(index) and index.duplicates.put_in_order() and _count_marks(index)
        ):
            status = Status.system(ENOMEM)
        _ = mapped^
    else:
        if not index.keep_file(mapped^):
            status = Status.system(ENOMEM)
    return index^


def _attach(mapped: IndexFile, mut index: Index, mut status: Status):
    """Makes the index's columns views of the map's sections."""
    var header = mapped.header
    ref graph = index.graph[]
    if header.M < 2 or header.M > 128:
        status = Status(BAD_FIELD, header.M, 0, name_of("M"))
        return
    if header.quantization != AUTO and not can_walk(
        header.quantization - 1, header.metric, header.dtype
    ):
        status = Status(BAD_FIELD, header.quantization, 0, name_of("quantization"))
        return
    if header.count > MAX_ROWS:
        status = Status(BAD_FIELD, header.count, 0, name_of("count"))
        return
    var kind = stored_items(header.dtype)
    var stride = row_stride(header.dim, header.dtype) // item_bytes(kind)
    _view(mapped, index.vectors, "vectors", kind, header.count, stride, status)
    _view(mapped, index.ids, "ids", INT64_SECTION, header.count, 1, status)
    if index.has_norms():
        _view(mapped, index.norms, "norms", 0, header.count, 1, status)
    var ordinals = _rows_of(mapped, "upper_rows")
    var blocks = _rows_of(mapped, "upper_links")
    _view(
        mapped, graph.links0, "links0", UINT32_SECTION, header.linked, slots(2 * header.M), status
    )
    _view(mapped, graph.upper_rows, "upper_rows", UINT32_SECTION, ordinals, 1, status)
    _view(
        mapped,
        graph.upper_start,
        "upper_start",
        UINT32_SECTION,
        ordinals + 1 if ordinals > 0 else 0,
        1,
        status,
    )
    _view(mapped, graph.upper_links, "upper_links", UINT32_SECTION, blocks, slots(header.M), status)
    _attach_walk_dim(mapped, index, status)
    _attach_codes(mapped, index, status)
    if header.duplicates != 0:
        _view(mapped, index.duplicates.next, "copies", UINT32_SECTION, header.linked, 1, status)
        index.duplicates.rows = header.linked
        index.duplicates.count = header.duplicates
    else:
        _need_none(mapped, "copies", status)
    if header.removed != 0:
        _view(mapped, index.states.bytes, "tombstones", BYTES_SECTION, header.count, 1, status)
    else:
        _need_none(mapped, "tombstones", status)
    _attach_texts(mapped, index, status)
    _attach_tuning(mapped, index, status)
    var kept = _rows_of(mapped, "kept_queries")
    if kept != 0:
        _view(mapped, index.queries, "kept_queries", BYTES_SECTION, kept, 1, status)
        index.query_bytes = kept
    var attributes = _rows_of(mapped, "attributes")
    if attributes != 0:
        _view(mapped, index.attributes, "attributes", BYTES_SECTION, attributes, 1, status)
        index.attribute_bytes = attributes
    _attach_mended(mapped, index, status)
    _attach_largest_id(mapped, index, status)
    if not status.ok():
        return
    if (
        (header.linked > 0) != (ordinals > 0)
        or (ordinals > 0) != (blocks > 0)
        or ordinals > header.linked
    ):
        status = Status(BAD_CONTENT, ordinals, 0, name_of("upper_rows"))
        return
    if header.entry >= ordinals or (header.entry < 0) != (ordinals == 0):
        status = Status(BAD_FIELD, header.entry, 0, name_of("entry"))
        return
    graph.linked = header.linked
    graph.rows = header.linked
    graph.ordinals = ordinals
    graph.blocks = blocks
    graph.entry = header.entry
    index.count = header.count
    index.unrepaired = header.unrepaired
    index.states.removed = header.removed
    index.states.pending = header.shaded  # until somebody counts
    index.states.shaded = header.shaded
    index.states.in_use = header.removed != 0
    index.states.publish(0, header.count)
    index.duplicates.in_order = header.duplicates == 0  # nobody has looked


def _count_marks(mut index: Index) -> Bool:
    """Counts the marks, whose sums were found right, and makes stamps; returns False when memory is out.
    """
    ref states = index.states
    if not states.in_use:
        return True
    var found = count_marks(states.bytes.ptr[UInt8](), index.count)
    states.pending = found.pending
    states.holding = found.holding
    return states.prepare(index.count, index.count)


def _attach_codes(mapped: IndexFile, mut index: Index, mut status: Status):
    """Makes the codes' columns views of the map's sections; the centre is small and copied."""
    var header = mapped.header
    if not status.ok() or header.codes == NO_CODES:
        return
    if not can_walk(header.codes, header.metric, header.dtype):
        status = Status(BAD_FIELD, header.codes, 0, name_of("codes"))
        return
    var made = codes_on_heap(
        header.codes, header.metric, header.dtype, header.dim, header.seed, index.walk_dim
    )
    if missing(made):
        status = Status.system(ENOMEM)
        return
    drop_codes(index.codes)
    index.codes = made
    ref codes = index.codes[]
    if not codes.in_place():
        _view(mapped, codes.bytes, "codes", BYTES_SECTION, header.linked, codes.stride, status)
    _view(mapped, codes.constants, "code_constants", UINT32_SECTION, header.linked, 2, status)
    var centre = mapped.require(name_of("code_centre"), 0, 1, padded_dim(header.dim), status)
    if status.ok():
        unsafe_memcpy(dest=codes.centre, src=at[Float32](centre), count=padded_dim(header.dim))
        codes.count = header.linked
    # files older than it have none: estimates serve all queries then
    if status.ok() and _rows_of(mapped, "code_reach") != 0:
        var reach = mapped.require(name_of("code_reach"), 0, 1, 1, status)
        if status.ok():
            codes.reach = at[Float32](reach)[]


def _attach_texts(mapped: IndexFile, mut index: Index, mut status: Status):
    """Makes the strings views of the map's sections; offsets are looked at when they are used."""
    if mapped.header.strings == 0:
        _need_none(mapped, "id_text", status)
        _need_none(mapped, "id_offsets", status)
        return
    if not status.ok():
        return
    ref strings = index.strings
    strings.used = True
    var bytes = _rows_of(mapped, "id_text")
    var offsets = _rows_of(mapped, "id_offsets")
    _view(mapped, strings.text, "id_text", BYTES_SECTION, bytes, 1, status)
    _view(mapped, strings.offsets, "id_offsets", INT64_SECTION, offsets, 1, status)
    if not status.ok():
        return
    if offsets == 0:
        if bytes != 0:
            status = Status(BAD_CONTENT, 0, 0, name_of("id_offsets"))
        # empty sections have addresses, but there is nothing to read at them
        strings.text.view(0, 0)
        strings.offsets.view(0, 0)
        return
    if offsets > MAX_STRINGS or strings.begin(0) != 0 or strings.begin(offsets - 1) != bytes:
        status = Status(BAD_CONTENT, 0, 0, name_of("id_offsets"))
        return
    strings.count = offsets - 1
    strings.bytes = bytes


def _attach_tuning(mapped: IndexFile, mut index: Index, mut status: Status):
    """Makes the table of search widths a view of the map's section, if there is one."""
    var rows = _rows_of(mapped, "tuning")
    if not status.ok() or rows == 0:
        return
    if rows > MAX_TUNINGS:
        status = Status(BAD_CONTENT, rows, 0, name_of("tuning"))
        return
    _view(mapped, index.tuning, "tuning", INT64_SECTION, rows, TUNING_WORDS, status)
    if status.ok():
        index.tunings = rows


def _attach_walk_dim(mapped: IndexFile, mut index: Index, mut status: Status):
    """Takes over how many elements walks look at, if the file tells."""
    if not status.ok() or mapped.find(name_of("walk_dim")) < 0:
        return
    var place = mapped.require(name_of("walk_dim"), INT64_SECTION, 1, 1, status)
    if not status.ok():
        return
    var header = mapped.header
    var walk_dim = at[Int](place)[]
    if (
        walk_dim < 1
        or walk_dim >= header.dim
        or not is_float(header.dtype)
        or is_coded(header.dtype)
        or header.codes == U8
        or (header.quantization != AUTO and header.quantization <= 1 + U8)
    ):
        status = Status(BAD_CONTENT, walk_dim, 0, name_of("walk_dim"))
        return
    index.walk_dim = walk_dim


def _attach_mended(mapped: IndexFile, mut index: Index, mut status: Status):
    """Takes over how many rows were taken out of the graph, if the file tells."""
    if not status.ok() or mapped.find(name_of("mended")) < 0:
        return
    var place = mapped.require(name_of("mended"), INT64_SECTION, 1, 1, status)
    if not status.ok():
        return
    var mended = at[Int](place)[]
    if mended < 0 or mended > MAX_ROWS:
        status = Status(BAD_CONTENT, mended, 0, name_of("mended"))
        return
    index.mended = mended


def _attach_largest_id(mapped: IndexFile, mut index: Index, mut status: Status):
    """Takes over the largest id of rows that are gone, if the file tells."""
    if not status.ok() or mapped.find(name_of("largest_id")) < 0:
        return
    var place = mapped.require(name_of("largest_id"), INT64_SECTION, 1, 1, status)
    if not status.ok():
        return
    var largest = at[Int64](place)[]
    if largest < 0:
        status = Status(BAD_CONTENT, Int(largest), 0, name_of("largest_id"))
        return
    index.largest_id = largest


def _rows_of(mapped: IndexFile, name: StringLiteral) -> Int:
    """Returns the rows of a section, 0 if there is none."""
    var i = mapped.find(name_of(name))
    return 0 if i < 0 else mapped.sections[unsafe_offset=i].rows


def _view(
    mapped: IndexFile,
    mut column: Column,
    name: StringLiteral,
    dtype: Int,
    rows: Int,
    columns: Int,
    mut status: Status,
):
    """Makes a column a view of a section that must have the given type and shape."""
    var address = mapped.require(name_of(name), dtype, rows, columns, status)
    if status.ok():
        column.view(address, mapped.sections[unsafe_offset=mapped.find(name_of(name))].bytes())


def _need_none(mapped: IndexFile, name: StringLiteral, mut status: Status):
    """Refuses a section of which the header says that there is nothing to put into it."""
    if status.ok() and mapped.find(name_of(name)) >= 0:
        status = Status(BAD_SECTION, 0, 1, name_of(name))


def _make_private(mut index: Index) -> Bool:
    """Replaces views by memory of the index's own; returns False when memory is out."""
    ref graph = index.graph[]
    return (
        index.vectors.own()
        and index.ids.own()
        and index.norms.own()
        and index.duplicates.next.own()
        and index.states.bytes.own()
        and graph.links0.own()
        and graph.upper_rows.own()
        and graph.upper_start.own()
        and graph.upper_links.own()
        and index.codes[].bytes.own()
        and index.codes[].constants.own()
        and index.strings.text.own()
        and index.strings.offsets.own()
        and index.tuning.own()
        and index.queries.own()
        and index.attributes.own()
    )
