"""Splits the rows of a change: those to be linked, and duplicates of others, which stay out of the graph."""
from vicinal.construct.merge_order import JoinOrder
from vicinal.graph.links import Graph, random_level
from vicinal.index.first_use import CHUNK, catch_up
from vicinal.index.vector_index import Index
from vicinal.rows.duplicates import NO_ROOM
from vicinal.rows.equal_rows import ABSENT, BEYOND, MANY_ROWS, SINGLE, EqualRows
from vicinal.rows.row_states import was_live, stays
from vicinal.rows.row_targets import TargetRows
from vicinal.rows.same_bytes import hash_row
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, missing, no_block, release
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome, STOPPED
from vicinal.system.pages import PageUse
from vicinal.system.parallel import Team, Watch
from vicinal.update.transaction import Change


struct SplitDuplicates(Movable):
    """The rows to be linked and, apart, the duplicates of others."""

    var places: Ptr[UInt32]
    """Rows that are no copies, ascending but for the first."""
    var count: Int
    """Their number."""
    var duplicates: Ptr[UInt32]
    """Duplicates, each followed by its representative."""
    var num_duplicates: Int
    """Number of duplicates."""
    var first: Int
    """The first row that has no block yet."""
    var levels: Ptr[UInt8]
    """The level of each row from `first` on; 0 for those that are not to be linked."""
    var failed: Bool
    """Whether memory was refused: nothing may be done then but to `forget` the rows."""

    def __init__(out self, mut index: Index, change: Change):
        """Makes room for all rows of a change, none of which is sorted yet."""
        var until = change.until()
        self.first = index.graph[].linked
        var whole = self.first == 0  # rows from before there was a graph come, too
        var most = until if whole else change.added
        self.places = allocate[UInt32](most + 1)
        self.duplicates = allocate[UInt32](2 * most)
        self.levels = allocate_zeroed[UInt8](until - self.first)
        self.count = 0
        self.num_duplicates = 0
        self.failed = missing(self.places) or missing(self.duplicates) or missing(self.levels)

    def split_off_duplicates[
        V: Watch
    ](mut self, mut index: Index, change: Change, team: Team, mut watch: V) -> Outcome:
        """Goes through the rows, which are put into the index's table of rows unless they are copies.

        Returns:
            DONE; or STOPPED or NO_MEMORY, and then the caller lets the table `forget` them.
        """
        if self.failed:
            return NO_MEMORY
        var status = catch_up(index, watch)
        if status != DONE:
            return status
        var whole = self.first == 0
        var count = change.until() if whole else change.added
        # rows that leave are taken back one by one if the change ends early
        if count >= MANY_ROWS and change.num_leaving == 0:
            return self._split_off_many(index, change, count, team, watch)
        var stored = index.rows()
        var states = index.states.address()
        for i in range(count):
            if i % CHUNK == 0 and not watch.proceed(0):
                return STOPPED
            var row = i if whole else change.places().row(i)
            if whole and not stays(states, row):
                continue
            var hash = change.hashes[unsafe_offset=i] if not missing(change.hashes) else hash_row(
                stored, row
            )
            var representative = index.duplicates.representative(stored, row, hash)
            if representative == NO_ROOM:
                return NO_MEMORY
            self._take(index, row, representative)
        return DONE

    @always_inline
    def _take(mut self, index: Index, row: Int, representative: Int):
        """Notes a row and the one that it is a copy of, -1 if there is none."""
        if representative >= 0:
            self.duplicates[unsafe_offset=2 * self.num_duplicates] = UInt32(row)
            self.duplicates[unsafe_offset=2 * self.num_duplicates + 1] = UInt32(representative)
            self.num_duplicates += 1
            return
        if row >= self.first:
            self.levels[unsafe_offset=row - self.first] = UInt8(
                random_level(index.seed, row, index.graph[].M)
            )
        self.places[unsafe_offset=self.count] = UInt32(row)
        self.count += 1

    def _split_off_many[
        V: Watch
    ](mut self, mut index: Index, change: Change, count: Int, team: Team, mut watch: V) -> Outcome:
        """Does the same for many rows, most of it by all workers."""
        var whole = self.first == 0
        var targets = TargetRows.from_row(0) if whole else change.places()
        var stored = index.rows()
        var equal = EqualRows(
            index.duplicates,
            stored,
            index.row_pages() if whole else PageUse.in_memory(),
            targets,
            count,
            index.states.address() if whole else 0,
            change.hashes,
            team,
            watch,
        )
        var status = NO_MEMORY if equal.failed else (STOPPED if equal.ended else DONE)
        for i in range(count if status == DONE else 0):
            var answer = equal.answers[unsafe_offset=i]
            if answer == ABSENT:
                continue
            var row = targets.row(i)
            var representative = -1 if answer == SINGLE else Int(answer)
            if answer == BEYOND:
                representative = index.duplicates.representative(
                    stored, row, equal.hashes[unsafe_offset=i]
                )
                if representative == NO_ROOM:
                    status = NO_MEMORY
                    break
            index.duplicates.seen = max(index.duplicates.seen, row + 1)
            self._take(index, row, representative)
        _ = equal^
        if status == DONE and not index.duplicates.shrink():
            status = NO_MEMORY
        if status != DONE:  # which of the rows are in the table is not known
            index.duplicates.drop_table()
            self.count = 0
        return status

    def __init__(out self, index: Index, anew: Bool):
        """Lists the rows that take part in the graph and stay, if they are to be linked anew; else none.
        """
        var linked = index.graph[].linked if anew else 0
        self.places = allocate[UInt32](linked)
        self.count = 0
        self.duplicates = no_block[UInt32]()
        self.num_duplicates = 0
        self.first = index.graph[].linked
        self.levels = no_block[UInt8]()
        self.failed = missing(self.places)
        for row in range(0 if self.failed else linked):
            if was_live(index.states.address(), row) and not index.duplicates.is_duplicate(row):
                self.places[unsafe_offset=self.count] = UInt32(row)
                self.count += 1

    def __deinit__(deinit self):
        release(self.places)
        release(self.duplicates)
        release(self.levels)

    def put_upper_row_first(self, graph: Graph) -> Bool:
        """Brings the first row that reaches level 1 to the front, the others behind it as they were; False if there is none.
        """
        for i in range(self.count):
            var row = Int(self.places[unsafe_offset=i])
            if self.reaches_up(graph, row):
                for j in range(i, 0, -1):
                    self.places[unsafe_offset=j] = self.places[unsafe_offset=j - 1]
                self.places[] = UInt32(row)
                return True
        return False

    def put_upper_row_first_in_new_graph(mut self, index: Index, mut change: Change) -> Bool:
        """Does the same for a graph that is made for the first time; row 0, which always reaches level 1, may serve though it is
        removed: it stays pending, a way through for walks.
        """
        if self.count == 0:
            return False
        if self.put_upper_row_first(index.graph[]):
            return True
        for j in range(self.count, 0, -1):
            self.places[unsafe_offset=j] = self.places[unsafe_offset=j - 1]
        self.places[] = 0
        self.count += 1
        self.levels[] = UInt8(random_level(index.seed, 0, index.graph[].M))
        change.kept = 0
        return True

    def reaches_up(self, graph: Graph, row: Int) -> Bool:
        """Tells whether a row reaches level 1."""
        if row >= self.first:
            return self.levels[unsafe_offset=row - self.first] > 0
        return graph.ordinal_of(row) >= 0

    def order(mut self, graph: Graph, change: Change) -> JoinOrder:
        """Puts the rows in the order in which those of another index find their neighbours placed.
        """
        var upper = allocate[UInt8](self.count)
        for i in range(0 if missing(upper) else self.count):
            upper[unsafe_offset=i] = UInt8(
                self.reaches_up(graph, Int(self.places[unsafe_offset=i]))
            )
        var order = JoinOrder(
            change.origin,
            change.places(),
            self.places,
            self.count,
            upper,
            self.duplicates,
            self.num_duplicates,
            graph.linked,
        )
        release(upper)
        return order^

    def append_duplicates(self, mut index: Index):
        """Puts the copies behind their originals."""
        for i in range(self.num_duplicates):
            index.duplicates.append(
                Int(self.duplicates[unsafe_offset=2 * i + 1]),
                Int(self.duplicates[unsafe_offset=2 * i]),
            )

    def forget(self, mut index: Index):
        """Takes the rows out of the table of rows again."""
        for i in range(self.count):
            index.duplicates.forget(index.rows(), Int(self.places[unsafe_offset=i]))
        index.duplicates.seen = min(index.duplicates.seen, self.first)
