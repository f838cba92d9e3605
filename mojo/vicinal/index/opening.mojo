"""From a file to an index: what it must hold to be searched."""

from vicinal.file.format import (
    BAD_CONTENT,
    BAD_FIELD,
    BAD_SECTION,
    INT64_SECTION,
    UINT32_SECTION,
    name_of,
)
from vicinal.file.mapped import verify
from vicinal.file.posix import ENOMEM, InputFile, Status
from vicinal.graph.links import MAX_ROWS, slots
from vicinal.index.header import IndexFile
from vicinal.index.notes import TUNING_WORDS
from vicinal.index.saving import BYTES_SECTION, stored_items
from vicinal.index.untrusted_links import count_marks, validate_header
from vicinal.index.vector_index import Index
from vicinal.kernels.stored_type import is_coded, is_float, item_bytes, row_stride
from vicinal.quantization.choice import AUTO, can_walk
from vicinal.quantization.code_table import NO_CODES, U8, codes_on_heap, drop_codes
from vicinal.quantization.rotation import padded_dim
from vicinal.rows.string_ids import MAX_STRINGS
from vicinal.system.memory import Column, at, missing
from vicinal.system.parallel import Watch, usable_cores
from vicinal.system.pointer import copy_items

comptime MAX_TUNINGS = 4096


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
    index.notes.ef_search = header.ef_search
    index.ids.known = False
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
    _view(mapped, index.vectors.column, "vectors", kind, header.count, stride, status)
    _view(mapped, index.ids.column, "ids", INT64_SECTION, header.count, 1, status)
    if index.has_norms():
        _view(mapped, index.vectors.norms, "norms", 0, header.count, 1, status)
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
        _view(mapped, index.notes.queries, "kept_queries", BYTES_SECTION, kept, 1, status)
        index.notes.query_bytes = kept
    var attributes = _rows_of(mapped, "attributes")
    if attributes != 0:
        _view(mapped, index.notes.attributes, "attributes", BYTES_SECTION, attributes, 1, status)
        index.notes.attribute_bytes = attributes
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
        copy_items(dest=codes.centre, src=at[Float32](centre), count=padded_dim(header.dim))
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
    ref strings = index.ids.strings
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
    _view(mapped, index.notes.tuning, "tuning", INT64_SECTION, rows, TUNING_WORDS, status)
    if status.ok():
        index.notes.tunings = rows
        if mapped.find(name_of("stop_rules")) >= 0:
            _view(mapped, index.notes.stop_rules, "stop_rules", INT64_SECTION, rows, 1, status)


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
    index.ids.largest = largest


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
        index.vectors.column.own()
        and index.ids.column.own()
        and index.vectors.norms.own()
        and index.duplicates.next.own()
        and index.states.bytes.own()
        and graph.links0.own()
        and graph.upper_rows.own()
        and graph.upper_start.own()
        and graph.upper_links.own()
        and index.codes[].bytes.own()
        and index.codes[].constants.own()
        and index.ids.strings.text.own()
        and index.ids.strings.offsets.own()
        and index.notes.tuning.own()
        and index.notes.stop_rules.own()
        and index.notes.queries.own()
        and index.notes.attributes.own()
    )
