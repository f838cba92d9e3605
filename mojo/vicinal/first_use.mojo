"""What an opened index makes of its rows when somebody first needs it: by the number of rows, so without a lock and in pieces.

Tables that the GIL guards are made apart, while others may use the index, and then handed over with the GIL held. Whoever changes
the index makes or meets them first, so that what was read for a table that is handed over was not changed meanwhile.
"""
from vicinal.ids import IdMap
from vicinal.index import Index
from vicinal.memory import Ptr, allocate, release
from vicinal.parallel import Watch
from vicinal.texts import FREE, Texts, hold

comptime CHUNK = 1 << 16
"""Rows between looks at the watch."""


struct KnownIds(Movable):
    """The table that finds rows by their ids, made apart."""

    var map: IdMap
    var automatic: Bool
    """Whether ids are row numbers, and the table is not needed."""

    def __init__(out self):
        """Knows nothing."""
        self.map = IdMap()
        self.automatic = True

    def learn[V: Watch](mut self, index: Index, mut watch: V) -> Bool:
        """Looks at all ids; returns False if `watch` ended it.

        Safety:
            Rows may not be freed or moved meanwhile: the caller shows that it reads.
        """
        var count = index.count
        if count == 0:
            return True
        var column = index.ids.ptr[Int64]()
        var sight = index.marks.sight(index.marks.now())
        for row in range(count):
            if row % CHUNK == 0 and not watch.proceed(0):
                return False
            if Int(column[unsafe_offset=row]) != row and sight.sees(row):
                self.automatic = False
                break
        if self.automatic:
            return True
        self.map.make_room(column, index.live())
        for row in range(count):
            if row % CHUNK == 0 and not watch.proceed(0):
                return False
            if sight.sees(row):
                _ = self.map.insert(column, row)
        return True

    def give(mut self, mut index: Index):
        """Hands the table over, unless the index has one by now."""
        if index.ids_known:
            return
        swap(index.map, self.map)
        index.automatic = self.automatic
        index.ids_known = True


def catch_up[V: Watch](mut index: Index, mut watch: V) -> Bool:
    """Puts all rows of the graph into the table that tells copies; for callers that hold the index for writing.

    A change needs the table, and an index that was opened has none yet: to make it reads all rows.

    Returns:
        False if `watch` ended it; the rest can be put in later.
    """
    var linked = index.graph.linked
    var stored = index.rows()
    while index.copies.seen < linked:
        if not watch.proceed(0):
            return False
        index.copies.catch_up(stored, min(index.copies.seen + CHUNK, linked), index.marks.address())
    return True


struct KnownTexts(Movable):
    """The table that finds strings, made apart."""

    var table: Ptr[UInt32]
    var room: Int
    var held: Int
    """Strings in the table; 0 if offsets are damaged, of which whoever looks for a string will tell."""

    def __init__(out self):
        """Knows nothing."""
        self.table = allocate[UInt32](1)
        self.room = 0
        self.held = 0

    def __deinit__(deinit self):
        release(self.table)

    def learn[V: Watch](mut self, texts: Texts, mut watch: V) -> Bool:
        """Looks at all strings; returns False if `watch` ended it.

        Safety:
            Strings may not be moved meanwhile: the caller shows that it reads.
        """
        var count = texts.count
        for number in range(count):
            if number % CHUNK == 0 and not watch.proceed(0):
                return False
            if not texts.valid(number):
                return True
        release(self.table)
        self.room = 64
        while self.room < 2 * count:
            self.room *= 2
        self.table = allocate[UInt32](self.room)
        for i in range(self.room):
            self.table[unsafe_offset=i] = FREE
        for number in range(count):
            if number % CHUNK == 0 and not watch.proceed(0):
                return False
            hold(self.table, self.room, texts, number)
        self.held = count
        return True

    def give(mut self, mut texts: Texts):
        """Hands the table over, unless there is one by now."""
        if texts.held < self.held:
            swap(texts.table, self.table)
            texts.room = self.room
            texts.held = self.held
