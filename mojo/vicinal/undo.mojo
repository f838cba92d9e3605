"""What an interrupted `add` needs to take itself back: the blocks of old rows as they were."""
from std.ffi import external_call
from std.memory import unsafe_memcpy

from vicinal.graph import Graph, slots
from vicinal.memory import Column, Ptr, allocate_zeroed, at, release

comptime PARTS = 16
"""Owners of reverse links: node modulo PARTS. Fixed, so that nothing depends on the number of threads."""


struct UndoLog(Movable):
    """Copies of blocks made before their first change, one list per owner, so that no lock is needed.

    Only blocks that existed when the log was made are kept: those of new rows vanish with the rows.
    """

    var linked: Int
    """Rows in the graph when the log was made."""
    var ordinals: Int
    """Ordinals then."""
    var blocks: Int
    """Upper blocks then."""
    var entry: Int
    """Entry point then."""
    var touched: Ptr[UInt8]
    """A mark per old block, those of level 0 first."""
    var lists: Ptr[Int]
    """For each owner: address of its list, words used, words allocated."""

    def __init__(out self, graph: Graph):
        """Remembers the size of the graph."""
        self.linked = graph.linked
        self.ordinals = graph.ordinals
        self.blocks = graph.blocks
        self.entry = graph.entry
        self.touched = allocate_zeroed[UInt8](graph.linked + graph.blocks)
        self.lists = allocate_zeroed[Int](3 * PARTS)

    def __deinit__(deinit self):
        release(self.touched)
        for part in range(PARTS):
            external_call["free", NoneType](self.lists[unsafe_offset=3 * part])
        release(self.lists)

    def keep(self, graph: Graph, level: Int, node: Int, part: Int):
        """Copies a block unless that was done before or the node is new."""
        var block = graph.links(level, node)
        var mark: Int
        if level == 0:
            if node >= self.linked:
                return
            mark = node
        else:
            if node >= self.ordinals:
                return
            mark = self.linked + (Int(block) - graph.upper_links.address) // (4 * slots(graph.M))
        if self.touched[unsafe_offset=mark] != 0:
            return
        self.touched[unsafe_offset=mark] = 1
        var words = graph.slots_at(level)
        var list = self.lists.unsafe_offset(3 * part)
        var used = list[unsafe_offset=1]
        if used + words + 4 > list[unsafe_offset=2]:
            var room = 2 * (used + words + 4)
            var grown = external_call["realloc", Int](list[unsafe_offset=0], room * 4)
            if grown == 0:
                external_call["abort", NoneType]()
            list[unsafe_offset=0] = grown
            list[unsafe_offset=2] = room
        # record: address of the block (two words), its length, then its slots
        var record = at[UInt32](list[unsafe_offset=0] + used * 4)
        record[unsafe_offset=0] = UInt32(Int(block) & 0xFFFFFFFF)
        record[unsafe_offset=1] = UInt32(Int(block) >> 32)
        record[unsafe_offset=2] = UInt32(words)
        unsafe_memcpy(dest=record.unsafe_offset(3), src=block, count=words)
        list[unsafe_offset=1] = used + words + 3

    def undo(self, mut graph: Graph):
        """Puts the graph back to what it was when the log was made."""
        graph.entry = self.entry
        graph.linked = self.linked
        graph.rows = self.linked
        graph.ordinals = self.ordinals
        graph.blocks = self.blocks
        for part in range(PARTS):
            var list = self.lists.unsafe_offset(3 * part)
            var i = 0
            while i < list[unsafe_offset=1]:
                var record = at[UInt32](list[unsafe_offset=0] + i * 4)
                var address = Int(record[unsafe_offset=0]) | Int(record[unsafe_offset=1]) << 32
                var words = Int(record[unsafe_offset=2])
                unsafe_memcpy(dest=at[UInt32](address), src=record.unsafe_offset(3), count=words)
                i += words + 3


struct Backup(Movable):
    """A copy of a graph's links."""

    var links0: Column
    var upper_links: Column
    var linked: Int
    var ordinals: Int
    var blocks: Int
    var entry: Int

    def __init__(out self, graph: Graph):
        """Remembers the size."""
        self.links0 = Column()
        self.upper_links = Column()
        self.linked = graph.linked
        self.ordinals = graph.ordinals
        self.blocks = graph.blocks
        self.entry = graph.entry

    def copy(mut self, graph: Graph) -> Bool:
        """Copies the links; returns False when memory is out."""
        var bytes = self.linked * slots(2 * graph.M) * 4
        var upper_bytes = self.blocks * slots(graph.M) * 4
        if not self.links0.grow(bytes) or not self.upper_links.grow(upper_bytes):
            return False
        if bytes != 0:
            unsafe_memcpy(dest=self.links0.ptr[UInt8](), src=graph.links0.ptr[UInt8](), count=bytes)
        if upper_bytes != 0:
            unsafe_memcpy(
                dest=self.upper_links.ptr[UInt8](),
                src=graph.upper_links.ptr[UInt8](),
                count=upper_bytes,
            )
        return True

    def restore(self, mut graph: Graph):
        """Puts everything back."""
        var bytes = self.linked * slots(2 * graph.M) * 4
        var upper_bytes = self.blocks * slots(graph.M) * 4
        if bytes != 0:
            unsafe_memcpy(dest=graph.links0.ptr[UInt8](), src=self.links0.ptr[UInt8](), count=bytes)
        if upper_bytes != 0:
            unsafe_memcpy(
                dest=graph.upper_links.ptr[UInt8](),
                src=self.upper_links.ptr[UInt8](),
                count=upper_bytes,
            )
        graph.entry = self.entry
        graph.linked = self.linked
        graph.rows = self.linked
        graph.ordinals = self.ordinals
        graph.blocks = self.blocks
