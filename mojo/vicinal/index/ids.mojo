"""The ids of the rows of an index: the column, the table that finds rows by them, and the strings that they may stand for."""
from vicinal.rows.id_map import IdMap
from vicinal.rows.string_ids import StringTable
from vicinal.rows.visibility import RowStates
from vicinal.system.memory import Column


struct Ids(Movable):
    """The ids of all rows."""

    var column: Column
    """The user's ids, int64."""
    var automatic: Bool
    """True while the id of every row that is there is its number; means nothing unless `known`."""
    var known: Bool
    """False after opening a file, until somebody asks for an id: looking at all of them takes time by size."""
    var map: IdMap
    """Finds rows by their ids unless these are automatic."""
    var largest: Int64
    """The largest id that a row has or ever had, Int64.MIN before there was one; of an index that was opened, what the file says of
    rows that are gone until `known`. Automatic ids are above it: none is given out twice."""
    var strings: StringTable
    """The strings that ids stand for, if rows are named by strings."""

    def __init__(out self):
        """Makes ids of no rows."""
        self.column = Column()
        self.automatic = True
        self.known = True
        self.map = IdMap()
        self.largest = Int64.MIN
        self.strings = StringTable()

    def memory(self) -> Int:
        """Returns the bytes that ids take."""
        return self.column.memory() + self.map.room * 4 + self.strings.memory()

    def retired_mark(self) -> Int:
        """Returns a number that changes when a column moves, 0 if none has."""
        return self.column.retired + self.strings.text.retired + self.strings.offsets.retired

    def free_retired(mut self):
        """Frees memory that columns have moved out of, once nobody reads there."""
        self.column.free_retired()
        self.strings.text.free_retired()
        self.strings.offsets.free_retired()

    def next_id(self, live: Int) -> Int64:
        """Returns the first automatic id of an index of `live` rows: above all ids that are or were there, and not below the number of
        rows. `know_ids` of `first_use` must have been called.

        Negative if there is no id above the largest.
        """
        var largest = max(self.largest, Int64(live) - 1)
        return -1 if largest == Int64.MAX else largest + 1

    def forgotten_id(self, count: Int, live: Int, states: RowStates) -> Int64:
        """Returns `largest` if the rows that are there, `live` of `count`, do not tell what the next automatic id is, else -1.
        """
        if self.strings.used or self.largest < Int64(live):
            return -1
        if count == 0:
            return self.largest
        var column = self.column.ptr[Int64]()
        var visible = states.present()
        for row in range(count):
            if visible.is_visible(row) and column[unsafe_offset=row] == self.largest:
                return -1
        return self.largest

    def row_of(mut self, id: Int64, count: Int, states: RowStates) -> Int:
        """Returns the row of an id among `count`, or -1; `know_ids` of `first_use` must have made the table.
        """
        var row = Int(id)
        if not self.automatic:
            row = self.map.find(self.column.ptr[Int64](), id)
        if row < 0 or row >= count:
            return -1
        return row if states.present().is_visible(row) else -1
