"""What an interrupted `add` needs to take itself back: the blocks of old rows as they were."""
from std.atomic import Atomic, Ordering
from std.memory import unsafe_memcpy

from vicinal.graph.links import EMPTY, Graph, slots
from vicinal.system.atomics import store_release, publish
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, at, missing, release

comptime STRIPES = 16
"""Owners of reverse links: node modulo PARTS. Fixed, so that nothing depends on the number of threads."""
comptime FIRST_WORDS = 1 << 10
comptime CHUNK_WORDS = 1 << 14
"""Words, uint32, of the first and of the largest piece of memory of a list. No list is ever copied into a larger one, which
would hold all of it twice."""
comptime LINK_WORDS = 2
"""Words of the address of the piece before, at the start of each."""


struct UndoLog(Movable):
    """Copies of blocks made before their first change, one list per owner, so that no lock is needed.

    Only blocks that existed when the log was made are kept, and of these the used slots: new rows vanish with their blocks.
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
    """For each owner: address of the newest piece of its list, words used of that, words that it has. Behind them a mark that memory
    was refused."""

    def __init__(out self, graph: Graph):
        """Remembers the size of the graph; nothing may be done with it if that `failed`."""
        self.linked = graph.linked
        self.ordinals = graph.ordinals
        self.blocks = graph.blocks
        self.entry = graph.entry
        self.touched = allocate_zeroed[UInt8](graph.linked + graph.blocks)
        self.lists = allocate_zeroed[Int](3 * STRIPES + 1)

    def __deinit__(deinit self):
        release(self.touched)
        for part in range(0 if missing(self.lists) else STRIPES):
            var piece = self.lists[unsafe_offset=3 * part]
            while piece != 0:
                var before = at[Int](piece)[]
                release(at[Int](piece))
                piece = before
        release(self.lists)

    @always_inline
    def failed(self) -> Bool:
        """Tells whether memory was refused for the log or for the work that it is kept of: then all of that is to be undone.
        """
        return (
            missing(self.touched)
            or missing(self.lists)
            or Atomic[Int64].load[ordering=Ordering.RELAXED](self._mark()) != 0
        )

    def fail(self):
        """Notes that memory was refused; any thread may."""
        Atomic[Int64].store[ordering=Ordering.RELAXED](self._mark(), 1)

    @always_inline
    def _mark(self) -> Ptr[Int64]:
        return self.lists.unsafe_offset(3 * STRIPES).unsafe_bitcast[Int64]()

    def keep(self, graph: Graph, level: Int, node: Int, part: Int) -> Bool:
        """Copies a block unless that was done before or the node is new; False if memory was refused: the block must stay as it is.
        """
        var block = graph.links(level, node)
        var mark: Int
        if level == 0:
            if node >= self.linked:
                return True
            mark = node
        else:
            if node >= self.ordinals:
                return True
            mark = self.linked + (Int(block) - graph.upper_links.address) // (4 * slots(graph.M))
        if self.touched[unsafe_offset=mark] != 0:
            return True
        var words = graph.slots_at(level)
        while words > 0 and block[unsafe_offset=words - 1] == EMPTY:
            words -= 1
        # record: number of the block, used slots, then these
        var record = self._room(part, words + 2)
        if missing(record):
            self.fail()
            return False
        self.touched[unsafe_offset=mark] = 1
        record[] = UInt32(mark)
        record[unsafe_offset=1] = UInt32(words)
        unsafe_memcpy(dest=record.unsafe_offset(2), src=block, count=words)
        return True

    def _room(self, part: Int, words: Int) -> Ptr[UInt32]:
        """Returns room at the end of a list, or what `missing` knows."""
        var list = self.lists.unsafe_offset(3 * part)
        var used = list[unsafe_offset=1]
        var size = list[unsafe_offset=2]
        if used + words + 1 > size:  # a word stays for the number that ends a piece
            var larger = min(max(2 * size, FIRST_WORDS), CHUNK_WORDS)
            var piece = allocate[UInt32](larger)
            if missing(piece):
                return piece
            piece.unsafe_bitcast[Int]()[] = list[]
            list[] = Int(piece)
            list[unsafe_offset=2] = larger
            used = LINK_WORDS
        list[unsafe_offset=1] = used + words
        var record = at[UInt32](list[] + 4 * used)
        record[unsafe_offset=words] = EMPTY
        return record

    def undo(self, mut graph: Graph):
        """Puts the graph back to what it was when the log was made."""
        store_release(graph.entry, self.entry)
        store_release(graph.linked, self.linked)
        store_release(graph.rows, self.linked)
        store_release(graph.ordinals, self.ordinals)
        store_release(graph.blocks, self.blocks)
        for part in range(STRIPES):
            var piece = self.lists[unsafe_offset=3 * part]
            while piece != 0:
                self._put_back(graph, at[UInt32](piece).unsafe_offset(LINK_WORDS))
                piece = at[Int](piece)[]

    def _put_back(self, graph: Graph, records: Ptr[UInt32]):
        """Writes the blocks of one piece."""
        var record = records
        while record[] != EMPTY:
            var mark = Int(record[])
            var words = Int(record[unsafe_offset=1])
            var block: Ptr[UInt32]
            var all: Int
            if mark < self.linked:
                block = graph.links(0, mark)
                all = graph.slots_at(0)
            else:
                all = slots(graph.M)
                block = graph.upper_links.ptr[UInt32]().unsafe_offset((mark - self.linked) * all)
            # one by one: searches may be reading them
            for i in range(all):
                var node = record[unsafe_offset=2 + i] if i < words else EMPTY
                publish(block.unsafe_offset(i), Int(node))
            record = record.unsafe_offset(words + 2)
