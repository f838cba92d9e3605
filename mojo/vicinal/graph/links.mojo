"""Neighbour lists per level; never sees a vector or a distance.

Level 0 has one block of 2M slots for each row. The few rows that reach higher have an *ordinal* besides, in order of
row, and blocks of M slots that hold ordinals: the descent stays inside small contiguous arrays, and a row that lives
on level 0 alone costs nothing there. Every slot is EMPTY or a valid node, used slots come first, and any mixture of
old and new slots is a valid block, so readers never wait for a writer.

Source: Malkov and Yashunin, arXiv:1603.09320.
"""

from vicinal.system.atomics import store_release, publish, load_acquire
from vicinal.system.hash import mix
from vicinal.system.memory import NO_BLOCK, Column, Ptr, allocate, at, missing, release
from vicinal.system.point import point
from vicinal.system.pointer import copy_items
from vicinal.system.prefetch import CACHE_LINE, prefetch_line

comptime EMPTY: UInt32 = 0xFFFFFFFF
comptime SLOTS_PER_LINE = 16
comptime HALF_LINE = SLOTS_PER_LINE // 2
"""M counts as the next multiple of it: a block of level 0 takes whole cache lines, and slots that lay idle in them would cost as much.
"""
comptime MAX_LEVEL = 24
comptime MAX_ROWS = 0x7FFFFFF0
"""Rows must fit 31 bits: an entry of the beam spends one bit on its mark."""


@always_inline
def slots(cap: Int) -> Int:
    """Returns the slots of a block that holds `cap` links: whole cache lines."""
    return (cap + SLOTS_PER_LINE - 1) // SLOTS_PER_LINE * SLOTS_PER_LINE


struct Graph(Movable):
    """All links, the entry point, and the number of rows that take part."""

    var asked: Int
    """M as it was asked for, and as files have it."""
    var M: Int
    """Links that a new row selects on each level, and the most that it may have above level 0; a multiple of HALF_LINE."""
    var links0: Column
    """Level 0: `slots(2 * M)` UInt32 for each row."""
    var upper_rows: Column
    """The row of each ordinal, ascending."""
    var upper_start: Column
    """The first block of each ordinal in `upper_links`, and one past the last."""
    var upper_links: Column
    """Levels 1 and up: `slots(M)` UInt32 a block, the blocks of an ordinal one after the other by level."""
    var linked: Int
    """Rows in the graph: 0 .. linked-1."""
    var rows: Int
    """Rows that have blocks, those of an insertion under way included."""
    var ordinals: Int
    """Rows that reach level 1 or higher."""
    var blocks: Int
    """Blocks in `upper_links`."""
    var entry: Int
    """Ordinal of the entry point, which has the highest level; -1 while the graph is empty."""
    var older: Int
    """Address of the graph that this one replaces, which searches may be on still; 0 for none."""
    var retired: Int64
    """The epoch in which searches may have begun to walk on it, once it is replaced."""
    var leaving: Int
    """Address of a byte for each of the rows 0 .. leaving_rows-1, not 0 if no block shall get a link to it; for writers."""
    var leaving_rows: Int

    def __init__(out self, M: Int):
        """Makes a graph without rows."""
        self.asked = M
        self.M = (M + HALF_LINE - 1) // HALF_LINE * HALF_LINE
        self.links0 = Column()
        self.upper_rows = Column()
        self.upper_start = Column()
        self.upper_links = Column()
        self.linked = 0
        self.rows = 0
        self.ordinals = 0
        self.blocks = 0
        self.entry = -1
        self.older = 0
        self.retired = 0
        self.leaving = 0
        self.leaving_rows = 0

    @always_inline
    def leaves(self, row: Int) -> Bool:
        """Tells whether no block shall get a link to a row."""
        return row < self.leaving_rows and at[UInt8](self.leaving)[unsafe_offset=row] != 0

    @always_inline
    def slots_at(self, level: Int) -> Int:
        """Returns the slots of a block on a level."""
        return slots(2 * self.M) if level == 0 else slots(self.M)

    @always_inline
    def cap(self, level: Int) -> Int:
        """Returns the most links of a node on a level."""
        return 2 * self.M if level == 0 else self.M

    @always_inline
    def links(self, level: Int, node: Int) -> Ptr[UInt32]:
        """Returns the block of a node: a row on level 0, an ordinal above.

        Above level 0 the block is clamped to those that exist: a damaged file may give a wrong block, never one outside.
        """
        if level == 0:
            return (
                self.links0.ptr[UInt32]()
                .unsafe_offset(node * slots(2 * self.M))
                .of(slots(2 * self.M))
            )
        var block = min(
            Int(self.upper_start.ptr[UInt32]()[unsafe_offset=node]) + level - 1,
            load_acquire(self.blocks) - 1,
        )
        return self.upper_links.ptr[UInt32]().unsafe_offset(block * slots(self.M)).of(slots(self.M))

    @always_inline
    def row_of(self, ordinal: Int) -> Int:
        """Returns the row of an ordinal, clamped to the rows that exist."""
        return min(
            Int(self.upper_rows.ptr[UInt32]()[unsafe_offset=ordinal]), load_acquire(self.rows) - 1
        )

    def ordinal_of(self, row: Int) -> Int:
        """Returns the ordinal of a row, or -1 if it lives on level 0 alone."""
        var upper_rows = self.upper_rows.ptr[UInt32]() if self.ordinals != 0 else at[UInt32](64)
        var low = 0
        var high = self.ordinals
        while low < high:
            var middle = (low + high) // 2
            if Int(upper_rows[unsafe_offset=middle]) < row:
                low = middle + 1
            else:
                high = middle
        return low if low < self.ordinals and Int(upper_rows[unsafe_offset=low]) == row else -1

    @always_inline
    def absent(self, row: Int) -> Bool:
        """Tells whether a row takes no part: it has no links. All that take part have some, but for the very first.
        """
        return self.links(0, row)[] == EMPTY and (self.entry < 0 or self.row_of(self.entry) != row)

    @always_inline
    def row_at(self, level: Int, node: Int) -> Int:
        """Returns the row of a node on a level."""
        return node if level == 0 else self.row_of(node)

    @always_inline
    def level_of(self, ordinal: Int) -> Int:
        """Returns the highest level of an ordinal, at most MAX_LEVEL whatever a damaged file says.
        """
        var start = self.upper_start.ptr[UInt32]()
        return min(
            max(Int(start[unsafe_offset=ordinal + 1]) - Int(start[unsafe_offset=ordinal]), 0),
            MAX_LEVEL,
        )

    def top(self) -> Int:
        """Returns the highest level, 0 while the graph is empty."""
        return 0 if self.entry < 0 else self.level_of(self.entry)

    def bytes(self) -> Int:
        """Returns the bytes of memory that the links take."""
        return (
            self.links0.memory()
            + self.upper_rows.memory()
            + self.upper_start.memory()
            + self.upper_links.memory()
        )

    def free_retired(mut self):
        """Gives back what the columns have moved out of; see `Column.free_retired`."""
        self.links0.free_retired()
        self.upper_rows.free_retired()
        self.upper_start.free_retired()
        self.upper_links.free_retired()

    def retired_mark(self) -> Int:
        """Returns a number that changes when a column moves, 0 if none has."""
        return (
            self.links0.retired
            + self.upper_rows.retired
            + self.upper_start.retired
            + self.upper_links.retired
        )

    def reserve(mut self, rows: Int, levels: Ptr[UInt8], first: Int) -> Bool:
        """Makes room and empty blocks for rows `linked` .. rows-1, and ordinals for those that reach level 1.

        Args:
            rows: Rows that the graph will have.
            levels: The level of each new row, the first being row `first`.
            first: Must equal `linked`.

        Returns:
            False when memory is out; the graph is then as it was.
        """
        var width = slots(2 * self.M)
        var ordinals = self.ordinals
        var blocks = self.blocks
        for i in range(rows - first):
            var level = Int(levels[unsafe_offset=i])
            ordinals += Int(level > 0)
            blocks += level
        if not (
            self.links0.grow(rows * width * 4)
            and self.upper_rows.grow(ordinals * 4)
            and self.upper_start.grow((ordinals + 1) * 4)
            and self.upper_links.grow(blocks * slots(self.M) * 4)
        ):
            return False
        fill_empty(self.links0.ptr[UInt32]().unsafe_offset(first * width), (rows - first) * width)
        fill_empty(
            self.upper_links.ptr[UInt32]().unsafe_offset(self.blocks * slots(self.M)),
            (blocks - self.blocks) * slots(self.M),
        )
        var start = self.upper_start.ptr[UInt32]()
        if self.ordinals == 0:  # later it is there already, and searches may read it
            start[] = 0
        var next = self.ordinals
        for i in range(rows - first):
            var level = Int(levels[unsafe_offset=i])
            if level > 0:
                self.upper_rows.ptr[UInt32]()[unsafe_offset=next] = UInt32(first + i)
                start[unsafe_offset=next + 1] = start[unsafe_offset=next] + UInt32(level)
                next += 1
        store_release(self.rows, rows)
        store_release(self.blocks, blocks)
        store_release(self.ordinals, next)
        return True

    def copy_empty(self, mut into: Graph) -> Bool:
        """Gives another graph the same rows and levels, but no links; returns False when memory is out.
        """
        var start = self.ordinals + 1 if self.ordinals != 0 else 0
        if not (
            into.links0.grow(self.linked * slots(2 * self.M) * 4)
            and into.upper_rows.grow(self.ordinals * 4)
            and into.upper_start.grow(start * 4)
            and into.upper_links.grow(self.blocks * slots(self.M) * 4)
        ):
            return False
        fill_empty(into.links0.ptr[UInt32](), self.linked * slots(2 * self.M))
        fill_empty(into.upper_links.ptr[UInt32](), self.blocks * slots(self.M))
        copy_items(
            dest=into.upper_rows.ptr[UInt32](),
            src=self.upper_rows.ptr[UInt32](),
            count=self.ordinals,
        )
        copy_items(
            dest=into.upper_start.ptr[UInt32](), src=self.upper_start.ptr[UInt32](), count=start
        )
        into.linked = self.linked
        into.rows = self.rows
        into.ordinals = self.ordinals
        into.blocks = self.blocks
        into.entry = self.entry
        return True

    def empty(self, row: Int):
        """Takes all links from a row; readers that are there go no further."""
        point["take the links from a row"]()
        self._empty(0, row)
        var ordinal = self.ordinal_of(row)
        if ordinal >= 0:
            for level in range(1, self.level_of(ordinal) + 1):
                self._empty(level, ordinal)

    def _empty(self, level: Int, node: Int):
        """Empties a block slot by slot."""
        for i in range(self.slots_at(level)):
            publish(self.links(level, node).unsafe_offset(i), Int(EMPTY))

    def raise_entry(mut self, ordinal: Int):
        """Makes an ordinal the entry point if it reaches higher than the present one."""
        if self.entry < 0 or self.level_of(ordinal) > self.top():
            store_release(self.entry, ordinal)


def graph_on_heap(M: Int) -> Ptr[Graph]:
    """Makes a graph without rows at an address of its own, or returns what `missing` knows."""
    var graph = allocate[Graph](1)
    if not missing(graph):
        graph.unsafe_write(Graph(M))
    return graph


def drop_graphs(address: Int):
    """Destroys and frees a graph and those that it replaces."""
    var next = address if address != NO_BLOCK else 0
    while next != 0:
        var graph = at[Graph](next)
        next = graph[].older
        graph.unsafe_deinit_pointee()
        release(graph)


@always_inline
def fill_empty(p: Ptr[UInt32], count: Int):
    """Sets slots to EMPTY; `count` is a multiple of SLOTS_PER_LINE."""
    for i in range(0, count, SLOTS_PER_LINE):
        p.unsafe_store(i, SIMD[DType.uint32, SLOTS_PER_LINE](EMPTY))


def random_level(seed: Int, row: Int, M: Int) -> Int:
    """Draws the level of a row: l or more with probability M**-l. Row 0 always has one above 0, to be the first entry.

    Depends on seed, row and M alone, so that many calls of `add` draw what one call would. Counts how many times a
    uniform 64-bit number fits under the next power, in integers: the same on every machine.
    """
    var u = mix(seed, row)
    var bound = UInt64.MAX // UInt64(M)
    var level = 0
    while u < bound and level < MAX_LEVEL:
        level += 1
        bound //= UInt64(M)
    return max(level, 1) if row == 0 else level


@always_inline
def prefetch_links(graph: Graph, level: Int, node: Int):
    """Asks for the block of a node on level 0."""
    var address = Int(graph.links(level, node))
    for offset in range(0, graph.slots_at(level) * 4, CACHE_LINE):
        prefetch_line(address + offset)
