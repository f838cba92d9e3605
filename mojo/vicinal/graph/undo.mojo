"""What an interrupted `add` needs to take itself back: the blocks of old rows as they were."""
from std.atomic import Atomic, Ordering

from vicinal.graph.links import EMPTY, Graph, slots
from vicinal.system.atomics import store_release, publish
from vicinal.system.array import GrowableArray
from vicinal.system.memory import Ptr, allocate, at, missing, release
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome, STOPPED
from vicinal.system.pointer import copy_items

comptime STRIPES = 16
"""Owners of reverse links: node modulo STRIPES. Fixed, so that nothing depends on the number of threads."""
comptime FIRST_WORDS = 1 << 7
comptime CHUNK_WORDS = 1 << 14
"""Words, uint32, of the first and of the largest piece of memory of a list. No list is ever copied into a larger one, which
would hold all of it twice. The first pieces of all lists come in one block: a change of one row needs no more."""
comptime LINK_WORDS = 2
"""Words of the address of the piece before, at the start of each."""
comptime LIST_WORDS = 8
"""Words of what is noted of a list: a line of the cache for each owner."""
comptime FIRST_MARKS = 16
"""Marks that the first table of a list has room for, half of which are used; it lies behind what is noted of the lists."""


struct UndoLog(Movable):
    """Copies of blocks made before their first change, one list per owner, so that no lock is needed.

    Only blocks that existed when the log was made are kept, and of these the used slots: new rows vanish with their blocks.
    What it costs goes by the blocks that are kept, not by those that there are: the change may be of a single row.
    """

    var linked: Int
    """Rows in the graph when the log was made."""
    var ordinals: Int
    """Ordinals then."""
    var blocks: Int
    """Upper blocks then."""
    var entry: Int
    """Entry point then."""
    var lists: Ptr[Int]
    """For each owner: address of the newest piece of its list, words used of that, words that it has; address of its table of the blocks
    that are kept, places of that, and how many are used. Behind them the first tables, the first pieces, and a mark that memory was refused."""

    def __init__(out self, graph: Graph):
        """Remembers the size of the graph; nothing may be done with it if that `failed`."""
        self.linked = graph.linked
        self.ordinals = graph.ordinals
        self.blocks = graph.blocks
        self.entry = graph.entry
        self.lists = allocate[Int](STRIPES * (LIST_WORDS + (FIRST_MARKS + FIRST_WORDS) // 2) + 1)
        if missing(self.lists):
            return
        self._mark()[] = 0
        for part in range(STRIPES):
            var list = self._list(part)
            for i in range(LIST_WORDS):
                list[unsafe_offset=i] = 0
            var table = self._first_table(part)
            for i in range(FIRST_MARKS):
                table[unsafe_offset=i] = EMPTY
            list[unsafe_offset=3] = Int(table)
            list[unsafe_offset=4] = FIRST_MARKS
            var piece = self._first_piece(part)
            piece.unsafe_bitcast[Int]()[] = 0
            piece[unsafe_offset=LINK_WORDS] = EMPTY
            list[] = Int(piece)
            list[unsafe_offset=1] = LINK_WORDS
            list[unsafe_offset=2] = FIRST_WORDS

    def __deinit__(deinit self):
        for part in range(0 if missing(self.lists) else STRIPES):
            var list = self._list(part)
            var piece = list[]
            while piece != Int(self._first_piece(part)):
                var before = at[Int](piece)[]
                release(at[Int](piece))
                piece = before
            if list[unsafe_offset=3] != Int(self._first_table(part)):
                release(at[UInt32](list[unsafe_offset=3]))
        release(self.lists)

    @always_inline
    def _list(self, part: Int) -> Ptr[Int]:
        return self.lists.unsafe_offset(LIST_WORDS * part)

    @always_inline
    def _first_table(self, part: Int) -> Ptr[UInt32]:
        var words = STRIPES * LIST_WORDS + part * (FIRST_MARKS // 2)
        return self.lists.unsafe_offset(words).unsafe_bitcast[UInt32]()

    @always_inline
    def _first_piece(self, part: Int) -> Ptr[UInt32]:
        var words = STRIPES * (LIST_WORDS + FIRST_MARKS // 2) + part * (FIRST_WORDS // 2)
        return self.lists.unsafe_offset(words).unsafe_bitcast[UInt32]()

    @always_inline
    def failed(self) -> Bool:
        """Tells whether memory was refused for the log or for the work that it is kept of: then all of that is to be undone.
        """
        return (
            missing(self.lists)
            or Atomic[Int64].load[ordering=Ordering.RELAXED](self._mark().start) != 0
        )

    def outcome(self, finished: Bool) -> Outcome:
        """Tells how work ended that notes here whether memory was refused, and whose watch let it finish or not.
        """
        if self.failed():
            return NO_MEMORY
        return DONE if finished else STOPPED

    def fail(self):
        """Notes that memory was refused; any thread may."""
        Atomic[Int64].store[ordering=Ordering.RELAXED](self._mark().start, 1)

    @always_inline
    def _mark(self) -> Ptr[Int64]:
        var words = STRIPES * (LIST_WORDS + (FIRST_MARKS + FIRST_WORDS) // 2)
        return self.lists.unsafe_offset(words).unsafe_bitcast[Int64]()

    def keep(self, graph: Graph, level: Int, node: Int, part: Int) -> Bool:
        """Copies a block unless that was done before or the node is new; False if memory was refused: the block must stay as it is.

        Only the owner of the node may ask, which is `part`: other owners do not know what it has kept.
        """
        debug_assert(node % STRIPES == part, "a block is kept by its owner")
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
        var list = self._list(part)
        if _place_of(list, UInt32(mark)) < 0:
            return True
        var words = graph.slots_at(level)
        while words > 0 and block[unsafe_offset=words - 1] == EMPTY:
            words -= 1
        # record: number of the block, used slots, then these
        var record = self._room(part, words + 2)
        if missing(record):
            self.fail()
            return False
        record[] = UInt32(mark)
        record[unsafe_offset=1] = UInt32(words)
        copy_items(dest=record.unsafe_offset(2), src=block, count=words)
        if not self._grow_table(list, part):
            self.fail()
            return False
        at[UInt32](list[unsafe_offset=3])[unsafe_offset=_place_of(list, UInt32(mark))] = UInt32(
            mark
        )
        list[unsafe_offset=5] += 1
        return True

    def _grow_table(self, list: Ptr[Int], part: Int) -> Bool:
        """Makes room for one more block in a table; False if memory was refused."""
        var room = list[unsafe_offset=4]
        if 2 * (list[unsafe_offset=5] + 1) <= room:
            return True
        var larger = allocate[UInt32](2 * room)
        if missing(larger):
            return False
        for i in range(2 * room):
            larger[unsafe_offset=i] = EMPTY
        var old = at[UInt32](list[unsafe_offset=3])
        list[unsafe_offset=3] = Int(larger)
        list[unsafe_offset=4] = 2 * room
        for i in range(room):
            var mark = old[unsafe_offset=i]
            if mark != EMPTY:
                larger[unsafe_offset=_place_of(list, mark)] = mark
        if old != self._first_table(part):
            release(old)
        return True

    def kept_rows(self) -> GrowableArray:
        """Returns the rows whose blocks of level 0 were kept, ascending."""
        var rows = GrowableArray()
        for part in range(STRIPES):
            var list = self._list(part)
            var table = at[UInt32](list[unsafe_offset=3])
            for i in range(list[unsafe_offset=4]):
                if Int(table[unsafe_offset=i]) < self.linked:
                    rows.push(Int64(table[unsafe_offset=i]))
        rows.sort()
        return rows^

    def _room(self, part: Int, words: Int) -> Ptr[UInt32]:
        """Returns room at the end of a list, or what `missing` knows."""
        var list = self._list(part)
        var used = list[unsafe_offset=1]
        var size = list[unsafe_offset=2]
        if used + words + 1 > size:  # a word stays for the number that ends a piece
            var larger = min(2 * size, CHUNK_WORDS)
            larger = max(larger, LINK_WORDS + words + 1)
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
            var piece = self._list(part)[]
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


@always_inline
def _place_of(list: Ptr[Int], mark: UInt32) -> Int:
    """Returns where in its table a block is to be noted, negative if it is."""
    var table = at[UInt32](list[unsafe_offset=3])
    var last = list[unsafe_offset=4] - 1
    # a list holds every sixteenth node
    var place = Int((mark * 0x9E3779B1) >> 4) & last
    while table[unsafe_offset=place] != EMPTY:
        if table[unsafe_offset=place] == mark:
            return -1
        place = (place + 1) & last
    return place
