"""What must hold of a file before rows may be added to it, and before what it counts is relied on.

A search clamps whatever it reads of a map, so a damaged file can only mislead it. Insertion follows links that it has read
before, many times over, and writes through them; to clamp there would slow down every insertion for the sake of a file that
is broken anyway. So the file is looked at once, when a private copy is made of it, which takes less time than copying it.

What a change does not look at it hands on, and so the index would be saved: whatever is accepted here stays acceptable,
whichever rows are added, removed or replaced.
"""
from std.atomic import Atomic, Ordering
from std.bit import pop_count
from std.memory import pack_bits

from vicinal.file.format import BAD_CONTENT, BAD_COUNT, BAD_FIELD, name_of
from vicinal.file.posix import ENOMEM, INTERRUPTED, Name, Status
from vicinal.graph.links import EMPTY, MAX_LEVEL, Graph
from vicinal.graph.reachability import LOOK_EVERY
from vicinal.index.header import Header, IndexFile
from vicinal.index.vector_index import Index
from vicinal.rows.duplicates import NO_ROOM, REPRESENTATIVE, Duplicates
from vicinal.rows.row_states import FREE, ANCHOR, LIVE, PENDING, was_live, stays
from vicinal.rows.same_bytes import same_row
from vicinal.system.memory import Column, Ptr, at
from vicinal.system.parallel import Unwatched, Watch

comptime BLOCK = 64
"""States counted together."""


def validate_header(index: Index, header: Header) -> Status:
    """Looks for anything that changes could not bear: counts, links, rings and marks that contradict themselves or each other.

    Args:
        index: An index whose columns have the right sizes, still those of the file.
        header: Its header.

    Returns:
        DONE; or BAD_FIELD, BAD_COUNT, or BAD_CONTENT with the section and the row or ordinal that is wrong in it; or a
        refusal by the system if memory is out.
    """
    ref graph = index.graph[]
    var status = validate_counts(index)
    if status.ok():
        status = _validate_tables(graph)
    if status.ok():
        status = _validate_entry(index, header)
    var apart = Column()
    if status.ok() and not _find_apart(index, apart):
        return Status.system(ENOMEM)
    for row in range(graph.linked):
        if status.ok() and not (
            _sound(graph, 0, row, graph.linked, apart.address)
            and _has_links(index, row, apart.address)
        ):
            status = Status(BAD_CONTENT, row, 0, name_of("links0"))
    for ordinal in range(graph.ordinals):
        for level in range(1, graph.level_of(ordinal) + 1):
            if status.ok() and not _sound(graph, level, ordinal, graph.ordinals, apart.address):
                status = Status(BAD_CONTENT, ordinal, 0, name_of("upper_links"))
    _ = apart^
    var unwatched = Unwatched()
    return validate_rings(index, unwatched) if status.ok() else status


# ---- counts


@fieldwise_init
struct Marked(TrivialRegisterPassable):
    """How many rows have which mark."""

    var pending: Int
    var free: Int
    var holding: Int
    var stray: Int
    """The first row with a mark that no file may have, or -1."""

    def removed(self) -> Int:
        """Returns how many rows are not there."""
        return self.pending + self.free + self.holding


def count_marks(states: Ptr[UInt8], rows: Int) -> Marked:
    """Counts marks; they are not counted beyond the first that no file may have."""
    var found = Marked(0, 0, 0, -1)
    var row = 0
    while row < rows:
        var block = SIMD[DType.uint8, BLOCK](LIVE)
        var size = min(BLOCK, rows - row)
        if size == BLOCK:
            block = states.unsafe_load[width=BLOCK](row)
        else:
            for i in range(size):
                block[i] = states[unsafe_offset=row + i]
        var live = _equal(block, LIVE)
        var pending = _equal(block, PENDING)
        var free = _equal(block, FREE)
        var holding = _equal(block, ANCHOR)
        if live + pending + free + holding != BLOCK:
            while _is_saved(states[unsafe_offset=row]):
                row += 1
            found.stray = row
            return found
        found.pending += pending
        found.free += free
        found.holding += holding
        row += BLOCK
    return found


@always_inline
def _is_saved(mark: UInt8) -> Bool:
    """Tells whether a mark is one that a file may have."""
    return mark == LIVE or mark == PENDING or mark == FREE or mark == ANCHOR


@always_inline
def _equal(block: SIMD[DType.uint8, BLOCK], mark: UInt8) -> Int:
    var equal = block.eq(SIMD[DType.uint8, BLOCK](mark))
    return Int(pop_count(pack_bits[dtype=DType.uint64](equal)))


def validate_counts(index: Index) -> Status:
    """Compares the numbers of removed rows, of copies and of strings with the rows that are marked, or named, so.
    """
    ref states = index.states
    if states.in_use:
        var found = count_marks(states.bytes.ptr[UInt8](), index.count)
        if found.stray >= 0:
            return Status(BAD_CONTENT, found.stray, 0, name_of("tombstones"))
        if found.removed() != states.removed:
            return Status(BAD_COUNT, states.removed, found.removed(), name_of("removed"))
        if found.pending + found.holding != states.shaded:
            return Status(
                BAD_COUNT, states.shaded, found.pending + found.holding, name_of("shaded")
            )
    ref duplicates = index.duplicates
    if duplicates.count != 0:
        var found = 0
        var next = duplicates.next.ptr[UInt32]()
        for row in range(duplicates.rows):
            found += Int(next[unsafe_offset=row] < REPRESENTATIVE)
        if found != duplicates.count:
            return Status(BAD_COUNT, duplicates.count, found, name_of("copies"))
    return _validate_numbers(index)


def _validate_numbers(index: Index) -> Status:
    """Checks that there is a string for each row that is there, if rows are named by strings."""
    if index.ids.strings.used:
        var numbers = index.ids.column.ptr[Int64]()
        for row in range(index.count):
            var number = Int(numbers[unsafe_offset=row])
            if number >= 0 and number < index.ids.strings.count:
                continue
            # the strings of an addition that was refused are forgotten before its rows are freed
            if not index.states.in_use or index.states.of(row) == LIVE:
                return Status(BAD_CONTENT, row, 0, name_of("ids"))
    return Status.done()


def counts_agree(index: Index) -> Status:
    """Compares what the header of a mapped file counts with the sections, once: whoever relies on the number of rows asks first.

    Takes time by size, so that opening a file does not do it. Threads: any number at once, also beside searches.

    Args:
        index: Any index; one that is no view of a file has been compared already.

    Returns:
        DONE, or what `validate_counts` found.
    """
    if index.file == 0:
        return Status.done()
    var compared = Pointer(to=at[IndexFile](index.file)[].compared)
    if Atomic[Int64].load[ordering=Ordering.ACQUIRE](compared) != 0:
        return Status.done()
    var status = validate_counts(index)
    if status.ok():
        Atomic[Int64].store[ordering=Ordering.RELEASE](compared, 1)
    return status


# ---- links


def _validate_tables(graph: Graph) -> Status:
    """Checks that the ordinals' rows ascend and that their blocks follow each other."""
    if graph.ordinals == 0:
        return Status.done()
    var rows = graph.upper_rows.ptr[UInt32]()
    var start = graph.upper_start.ptr[UInt32]()
    var block = 0
    var row = -1
    for ordinal in range(graph.ordinals):
        var next = Int(rows[unsafe_offset=ordinal])
        if next <= row or next >= graph.linked:
            return Status(BAD_CONTENT, ordinal, 0, name_of("upper_rows"))
        row = next
        var levels = Int(start[unsafe_offset=ordinal + 1]) - block
        if Int(start[unsafe_offset=ordinal]) != block or levels < 1 or levels > MAX_LEVEL:
            return Status(BAD_CONTENT, ordinal, 0, name_of("upper_start"))
        block += levels
    if block != graph.blocks:
        return Status(BAD_CONTENT, graph.ordinals, 0, name_of("upper_start"))
    return Status.done()


def _validate_entry(index: Index, header: Header) -> Status:
    """Checks that all rows are in the graph or none, none only if they are few, and that searches begin at the top of it.
    """
    ref graph = index.graph[]
    if header.linked != 0 and header.linked != header.count:
        return Status(BAD_FIELD, header.linked, 0, name_of("linked"))
    if header.linked == 0:
        # a change that builds the first graph relies on it that no search walks meanwhile
        var live = index.live()
        if live != 0 and live >= header.exact_below:
            return Status(BAD_FIELD, 0, 0, name_of("linked"))
        return _top_is(graph, header)
    var states = index.states.address()
    if _is_apart(index, graph.row_of(graph.entry)):
        return Status(BAD_FIELD, header.entry, 0, name_of("entry"))
    for ordinal in range(graph.ordinals):
        var row = graph.row_of(ordinal)
        if (
            graph.level_of(ordinal) > graph.top()
            and stays(states, row)
            and not _is_apart(index, row)
        ):
            return Status(BAD_FIELD, header.entry, 0, name_of("entry"))
    return _top_is(graph, header)


def _top_is(graph: Graph, header: Header) -> Status:
    if graph.top() != header.max_level:
        return Status(BAD_FIELD, header.max_level, 0, name_of("max_level"))
    return Status.done()


@always_inline
def _is_apart(index: Index, row: Int) -> Bool:
    """Tells whether a row takes no part in the graph: it is free, or a copy."""
    return (index.states.in_use and index.states.of(row) == FREE) or index.duplicates.is_duplicate(
        row
    )


def _find_apart(index: Index, mut apart: Column) -> Bool:
    """Notes a byte for each row, not zero if the row takes no part in the graph; nothing if all do. False if memory is out.
    """
    if not index.states.in_use and index.duplicates.count == 0:
        return True
    if not apart.grow(index.graph[].linked):
        return False
    for row in range(index.graph[].linked):
        apart.ptr[UInt8]()[unsafe_offset=row] = UInt8(_is_apart(index, row))
    return True


def _sound(graph: Graph, level: Int, node: Int, nodes: Int, apart: Int) -> Bool:
    """Tells whether a block holds other nodes of its level that take part, no more than it may, and nothing behind them;
    and nothing at all if its own node takes no part.
    """
    var block = graph.links(level, node)
    var used = 0
    while used < graph.cap(level) and block[unsafe_offset=used] != EMPTY:
        var link = Int(block[unsafe_offset=used])
        if link >= nodes or link == node or (level > 0 and graph.level_of(link) < level):
            return False
        if apart != 0 and at[UInt8](apart)[unsafe_offset=graph.row_at(level, link)] != 0:
            return False
        used += 1
    for i in range(used, graph.slots_at(level)):
        if block[unsafe_offset=i] != EMPTY:
            return False
    return used == 0 or apart == 0 or at[UInt8](apart)[unsafe_offset=graph.row_at(level, node)] == 0


def _has_links(index: Index, row: Int, apart: Int) -> Bool:
    """Tells whether a row has the links that it needs: any at all if it takes part and stays.

    A later change takes a row without links for one that takes no part, and would not choose it as the entry point.
    """
    if not index.graph[].absent(row) or not stays(index.states.address(), row):
        return True
    return apart != 0 and at[UInt8](apart)[unsafe_offset=row] != 0


# ---- rings of copies


def validate_rings[V: Watch](index: Index, mut watch: V) -> Status:
    """Checks that each copy is in the ring of one original, which holds the same and is removed only if that suits its copies.

    Changes find the original of a copy by what it holds, so there must be one only.

    Args:
        index: The index; no writer may be at work.
        watch: May end the work early, with INTERRUPTED.

    Returns:
        DONE, BAD_CONTENT with the section and the row that is wrong in it, or a refusal by the system if memory is out.
    """
    ref duplicates = index.duplicates
    ref states = index.states
    var led_to = Column()
    if duplicates.count != 0 and not led_to.grow(duplicates.rows):
        return Status.system(ENOMEM)
    var originals = Duplicates()  # only its table is used
    for row in range(index.count):
        if row % LOOK_EVERY == 0 and not watch.proceed(0):
            return Status(INTERRUPTED, 0, 0, Name(0))
        var mark = states.of(row) if states.in_use else LIVE
        var has_duplicates = duplicates.count != 0 and duplicates.has_duplicates(row)
        if mark == ANCHOR and not has_duplicates:
            return Status(BAD_CONTENT, row, 0, name_of("tombstones"))
        if not has_duplicates:
            continue
        if not _ring_is_right(index, row, mark, led_to.ptr[UInt8]()):
            return Status(BAD_CONTENT, row, 0, name_of("copies"))
        if not was_live(states.address(), row):
            continue
        var before = originals.representative(index.rows(), row)
        if before == NO_ROOM:
            return Status.system(ENOMEM)
        if before >= 0:
            return Status(BAD_CONTENT, row, 0, name_of("copies"))
    if duplicates.count != 0:
        for row in range(duplicates.rows):
            # nothing leads to rows that are about to be freed, though they lead on
            var unlinked = index.unlinked.count != 0 and states.of(row) == PENDING
            if (
                duplicates.is_duplicate(row)
                and led_to.ptr[UInt8]()[unsafe_offset=row] == 0
                and not unlinked
            ):
                return Status(BAD_CONTENT, row, 0, name_of("copies"))
    _ = led_to^
    return Status.done()


def _ring_is_right(index: Index, representative: Int, mark: UInt8, led_to: Ptr[UInt8]) -> Bool:
    """Goes round the ring of an original and notes the copies in it."""
    ref duplicates = index.duplicates
    var states = index.states.address()
    var stored = index.rows()
    var next = duplicates.next.ptr[UInt32]()
    var newest = Int(next[unsafe_offset=representative] & ~REPRESENTATIVE)
    var copy = newest
    var is_live_after = False
    if mark == FREE or not duplicates.is_duplicate(newest):
        return False
    while True:
        copy = Int(next[unsafe_offset=copy])
        if not duplicates.is_duplicate(copy) or led_to[unsafe_offset=copy] != 0:
            return False
        led_to[unsafe_offset=copy] = 1
        var its = at[UInt8](states)[unsafe_offset=copy] if states != 0 else LIVE
        if its == FREE or its == ANCHOR or not same_row(stored, representative, copy):
            return False
        is_live_after = is_live_after or its == LIVE
        if copy == newest:
            break
    # a removed row keeps its place for copies that are there, and for no others
    return mark == LIVE or is_live_after == (mark == ANCHOR)
