"""The index: owns the parts and knows how rows get in; nothing clever."""
from std.atomic import Atomic, Ordering
from std.memory import unsafe_memcpy

from vicinal.build import link_rows
from vicinal.code_space import CODE_LINE, ExactBytes
from vicinal.codes import EXACT, STORED_ROWS, Codes, drop_codes, is_bytes
from vicinal.coding import all_bytes, choose_kind, encode_rows, new_codes
from vicinal.convert import from_float, to_float
from vicinal.graph import MAX_ROWS, Graph, draw_level
from vicinal.ids import IdMap
from vicinal.mapped import Mapped
from vicinal.memory import Column, Ptr, allocate, at, release
from vicinal.parallel import Body, Team, Watch
from vicinal.repair import repair
from vicinal.scratch import Scratch, Shelf
from vicinal.space import (
    COSINE,
    FINE,
    Linker,
    Rows,
    Space,
    SpaceTask,
    in_space,
    inspect_row,
    is_float,
    item_bytes,
    row_stride,
)
from vicinal.undo import UndoLog

comptime EXACT_BELOW = 1000
"""Rows from which on the graph pays, and is built, unless a caller says otherwise.

One query at a time, the graph (ef 64) overtook a scan between 500 and 1,300 rows on three real sets (d 784, 384, 128), and at
1,000 rows was 3.8, 1.5 and 0.8 times as fast.
"""
comptime DONE = 0
comptime STOPPED = -1
"""A watch ended the call; the index is as it was."""
comptime NO_MEMORY = -2
"""Memory, address space or row numbers are out; the index is as it was."""
comptime KNOWN_ID = 4
"""Kind of refusal beside those of `inspect_row`: an id that is present already or twice in its batch."""
comptime REPAIR_SHARE = 64
"""All rows are made reachable again after 1/64 of them are new: the flood then costs a few percent of the insertions."""
comptime NOT_BYTES = 5
"""Kind of refusal: a row that the exact codes asked for cannot hold."""
comptime GRAIN = 64
"""Rows of a piece when rows are checked or copied."""


struct Index(Movable):
    """Vectors, ids and graph. One writer at a time; searches may run beside it."""

    var metric: Int
    var dtype: Int
    var dim: Int
    var ef_construction: Int
    var seed: Int
    var exact_below: Int
    """The graph is built once there are this many rows; until then search is exact."""
    var count: Int
    """Rows that searches see."""
    var vectors: Column
    """`row_stride` bytes a row."""
    var norms: Column
    """Reciprocal norms, float32; only for cosine over integers."""
    var ids: Column
    """The user's ids, int64."""
    var automatic: Bool
    """True while the id of every row is its number; means nothing unless `ids_known`."""
    var ids_known: Bool
    """False after opening a file, until somebody asks for an id: looking at all of them takes time by size."""
    var map: IdMap
    var graph: Graph
    var quantization: Int
    """What the user asked to walk on: `coding.AUTO`, or 1 + a kind of codes."""
    var codes: Ptr[Codes]
    """What searches walk on; of kind STORED_ROWS until the graph is built."""
    var unrepaired: Int
    """Rows linked since all rows were last made reachable."""
    var ef_search: Int
    """Default search width that the file remembered, 0 for none."""
    var shelf: Shelf
    var file: Int
    """Address of the `Mapped` that the columns are views of, 0 if they are the index's own memory."""

    def __init__(
        out self,
        metric: Int,
        dtype: Int,
        dim: Int,
        M: Int,
        ef_construction: Int,
        seed: Int,
        exact_below: Int,
        quantization: Int,
    ):
        """Makes an empty index."""
        self.metric = metric
        self.dtype = dtype
        self.dim = dim
        self.ef_construction = ef_construction
        self.seed = seed
        self.exact_below = exact_below
        self.count = 0
        self.vectors = Column()
        self.norms = Column()
        self.ids = Column()
        self.automatic = True
        self.ids_known = True
        self.map = IdMap()
        self.graph = Graph(M)
        self.quantization = quantization
        self.codes = allocate[Codes](1)
        self.codes.unsafe_write(Codes(STORED_ROWS, metric, dtype, 1, 0))
        self.unrepaired = 0
        self.ef_search = 0
        self.shelf = Shelf()
        self.file = 0

    def __deinit__(deinit self):
        drop_codes(self.codes)
        if self.file != 0:
            var mapped = at[Mapped](self.file)
            mapped.unsafe_deinit_pointee()
            release(mapped)

    def keep_file(mut self, var mapped: Mapped):
        """Takes over the map that the columns are views of; the index is read-only from now on."""
        var kept = allocate[Mapped](1)
        kept.unsafe_write(mapped^)
        self.file = Int(kept)

    @always_inline
    def has_norms(self) -> Bool:
        """Tells whether rows carry reciprocal norms."""
        return self.metric == COSINE and not is_float(self.dtype)

    @always_inline
    def rows(self) -> Rows:
        """Returns the rows as kernels see them."""
        return Rows(
            self.vectors.address, row_stride(self.dim, self.dtype), self.dim, self.norms.address
        )

    @always_inline
    def exact(self, width: Int) -> Bool:
        """Tells whether a search of this width scans all rows: few rows, or so wide that a walk would see most.
        """
        return (
            self.count < self.exact_below
            or self.graph.linked < self.count
            or width * 8 >= self.count
        )

    def walked_bytes(self) -> Int:
        """Returns the bytes of what a search walks on: links of level 0, and codes or rows."""
        ref codes = self.codes[]
        var row = row_stride(self.dim, self.dtype)
        if codes.kind != STORED_ROWS and not codes.in_place():
            row = codes.stride
        return self.graph.linked * (row + self.graph.slots_at(0) * 4)

    def bytes(self) -> Int:
        """Returns the bytes of memory that rows, ids, graph and id table take."""
        return (
            self.vectors.usable
            + self.norms.usable
            + self.ids.usable
            + self.graph.bytes()
            + self.codes[].memory()
            + self.map.room * 4
        )

    def know_ids(mut self):
        """Finds out whether ids are row numbers, and makes the table that finds them if not."""
        if self.ids_known:
            return
        var column = self.ids.ptr[Int64]() if self.count != 0 else at[Int64](64)
        self.automatic = True
        for row in range(self.count):
            if Int(column[unsafe_offset=row]) != row:
                self.automatic = False
                break
        if not self.automatic:
            _ = self.map.extend(column, self.count)
        self.ids_known = True

    def take_ids(mut self, ids: Int, added: Int) -> Int:
        """Writes the ids of rows to be added behind the present ones.

        Args:
            ids: Address of int64 ids, or 0 for automatic ones: row numbers, or one more than the largest id so far.
            added: Number of rows.

        Returns:
            DONE, NO_MEMORY, or 8 * position + KNOWN_ID of the first id that is there already; then nothing has changed.
        """
        var until = self.count + added
        if until > MAX_ROWS or not self.ids.grow(until * 8):
            return NO_MEMORY
        self.know_ids()
        var column = self.ids.ptr[Int64]()
        var new = column.unsafe_offset(self.count)
        var automatic = self.automatic
        if ids != 0:
            unsafe_memcpy(dest=new, src=at[Int64](ids), count=added)
            for i in range(added):
                automatic = automatic and Int(new[unsafe_offset=i]) == self.count + i
        else:
            var next = Int64(self.count) - 1
            if not automatic:
                for row in range(self.count):
                    next = max(next, column[unsafe_offset=row])
                if next > Int64.MAX - Int64(added):
                    return KNOWN_ID  # there are no ids left above the largest
            next += 1
            for i in range(added):
                new[unsafe_offset=i] = next + Int64(i)
        if not automatic:
            var clash = self.map.extend(column, until)
            if clash >= 0:
                self.map.shrink(column, self.count)
                return 8 * max(clash - self.count, 0) + KNOWN_ID
        self.automatic = automatic
        return DONE

    def drop_ids(mut self):
        """Takes back `take_ids` after an addition that failed."""
        if not self.automatic:
            self.map.shrink(self.ids.ptr[Int64](), self.count)
            var column = self.ids.ptr[Int64]()
            for row in range(self.count):
                if Int(column[unsafe_offset=row]) != row:
                    return
            self.automatic = True
            self.map.shrink(column, 0)

    def row_of(mut self, id: Int64) -> Int:
        """Returns the row of an id, or -1."""
        self.know_ids()
        if self.automatic:
            return Int(id) if id >= 0 and Int(id) < self.count else -1
        var column = self.ids.ptr[Int64]()
        var row = self.map.find(column, id)
        return row if row < self.count else -1


@fieldwise_init
struct InspectRows[S: Space](Body):
    """Checks new rows; the first bad one wins whatever the order of the pieces."""

    var source: Int
    var dim: Int
    var bytes_only: Bool
    """Whether exact codes were asked for, which only hold whole numbers from 0 to 255."""
    var verdict: Ptr[Int64]

    def run(self, begin: Int, end: Int, worker: Int):
        """Checks rows begin .. end-1."""
        var norm = Float32(1)
        for i in range(begin, end):
            var p = at[Scalar[Self.S.T]](self.source).unsafe_offset(i * self.dim)
            var found = inspect_row[Self.S, Self.S.T](p, self.dim, norm)
            comptime if Self.S.T.is_floating_point():
                if found == FINE and self.bytes_only and not is_bytes[Self.S.T](p, self.dim):
                    found = NOT_BYTES
            if found != FINE:
                Atomic[Int64].min(self.verdict, Int64(i * 8 + found))
                return


@fieldwise_init
struct CopyRows[S: Space](Body):
    """Stores new rows, of unit length for cosine over float types."""

    var source: Int
    var rows: Rows
    var first: Int

    def run(self, begin: Int, end: Int, worker: Int):
        """Stores rows begin .. end-1 of the source."""
        var dim = self.rows.dim
        for i in range(begin, end):
            var p = at[Scalar[Self.S.T]](self.source).unsafe_offset(i * dim)
            var stored = self.rows.row[Self.S.T](self.first + i)
            comptime if Self.S.metric == COSINE:
                var norm = Float32(1)
                _ = inspect_row[Self.S, Self.S.T](p, dim, norm)
                comptime if Self.S.needs_norms:
                    at[Float32](self.rows.norms)[unsafe_offset=self.first + i] = norm
                else:
                    for j in range(dim):
                        stored[unsafe_offset=j] = from_float[Self.S.T, 1](
                            to_float[Self.S.T, 1](p[unsafe_offset=j]) * norm
                        )
                    continue
            unsafe_memcpy(dest=stored, src=p, count=dim)


@fieldwise_init
struct AddRows[V: Watch](SpaceTask):
    """Adds rows whose ids `take_ids` has written."""

    var index: Ptr[Index]
    var source: Int
    """Address of `added` x dim elements of the stored type, C-contiguous."""
    var added: Int
    var threads: Int
    var watch: Ptr[Self.V]
    var status: Int
    """DONE, STOPPED, NO_MEMORY, or 8 * row + kind of a row that was refused."""

    def run[S: Space](mut self):
        """Checks all rows, stores them, links them, then lets searches see them."""
        ref index = self.index[]
        ref watch = self.watch[]
        var team = Team(self.threads)
        var verdict = Int64.MAX
        var inspect = InspectRows[S](
            self.source,
            index.dim,
            index.quantization == 1 + EXACT,
            Pointer(to=verdict).unsafe_origin_cast[MutUntrackedOrigin](),
        )
        watch.advance(-self.added)  # checking and copying are no progress yet
        if not team.run(self.added, GRAIN, inspect, watch):
            self.status = STOPPED
            return
        if verdict != Int64.MAX:
            self.status = Int(verdict)
            return
        var until = index.count + self.added
        # a vector load of a row's last bytes may reach past them
        var stride = row_stride(index.dim, index.dtype)
        if not index.vectors.grow(until * stride + CODE_LINE) or (
            index.has_norms() and not index.norms.grow(until * 4)
        ):
            self.status = NO_MEMORY
            return
        if not team.run(
            self.added, GRAIN, CopyRows[S](self.source, index.rows(), index.count), watch
        ):
            self.status = STOPPED
            return
        if until < index.exact_below:
            if not watch.conclude(self.added):
                self.status = STOPPED
                return
        else:
            self.status = self._encode[S](team, until)
            if self.status == DONE:
                self.status = self._link[S](team, until)
            if self.status != DONE:
                index.codes[].count = min(index.codes[].count, index.count)
                return
        Atomic[Int64].store[ordering=Ordering.RELEASE](
            Pointer(to=index.count).unsafe_bitcast[Int64](), Int64(until)
        )
        self.status = DONE

    def _link[S: Space](mut self, team: Team, until: Int) -> Int:
        ref index = self.index[]
        var first = index.graph.linked
        var levels = allocate[UInt8](until - first)
        for row in range(first, until):
            levels[unsafe_offset=row - first] = UInt8(draw_level(index.seed, row, index.graph.M))
        var scratches = allocate[Ptr[Scratch]](team.size())
        for i in range(team.size()):
            scratches[unsafe_offset=i] = index.shelf.take()
        var log = UndoLog(index.graph)
        var outcome: Int
        comptime if S.metric != COSINE:
            if index.codes[].kind == EXACT:
                outcome = self._link_in[ExactBytes[S.metric, S.T == DType.int8]](
                    index.codes[].rows(index.rows()), levels, until, team, scratches, log
                )
            else:
                outcome = self._link_in[S](index.rows(), levels, until, team, scratches, log)
        else:
            outcome = self._link_in[S](index.rows(), levels, until, team, scratches, log)
        for i in range(team.size()):
            index.shelf.put(scratches[unsafe_offset=i])
        release(scratches)
        release(levels)
        return DONE if outcome == 1 else (STOPPED if outcome == 0 else NO_MEMORY)

    def _link_in[
        L: Linker
    ](
        self,
        rows: Rows,
        levels: Ptr[UInt8],
        until: Int,
        team: Team,
        scratches: Ptr[Ptr[Scratch]],
        log: UndoLog,
    ) -> Int:
        """Links and repairs with one way of measuring; undoes all of it if it was ended early."""
        ref index = self.index[]
        var first = index.graph.linked
        var outcome = link_rows[L, Self.V](
            index.graph,
            rows,
            until,
            levels,
            index.ef_construction,
            team,
            scratches,
            log,
            self.watch[],
        )
        if outcome != 1:
            log.undo(index.graph)
            return outcome
        var unrepaired = index.unrepaired + until - first
        if unrepaired * REPAIR_SHARE >= until:
            if not repair[L](
                index.graph, rows, index.ef_construction, log, scratches[][], self.watch[]
            ):
                log.undo(index.graph)
                return 0
            unrepaired = 0
        if not self.watch[].conclude(self.added):
            log.undo(index.graph)
            return 0
        index.unrepaired = unrepaired
        return 1

    def _encode[S: Space](mut self, team: Team, until: Int) -> Int:
        """Encodes new rows, of all rows if they make another kind of codes the right one."""
        ref index = self.index[]
        ref watch = self.watch[]
        var first_time = index.graph.linked == 0
        var unseen = 0 if first_time else index.count
        var kind = index.codes[].kind
        var bytes_only = (first_time or kind == EXACT) and all_bytes[S](
            index.rows(), unseen, until, team, watch
        )
        var codes = index.codes
        if first_time or (kind == EXACT and is_float(index.dtype) and not bytes_only):
            kind = choose_kind(index.quantization, index.metric, index.dtype, index.dim, bytes_only)
            codes = new_codes[S](kind, index.dtype, index.rows(), until, index.seed)
        var outcome = encode_rows[S](codes, index.rows(), until, team, watch)
        if outcome != 1:
            if codes != index.codes:
                drop_codes(codes)
            return STOPPED if outcome == 0 else NO_MEMORY
        if codes != index.codes:
            # searches under way may still read the old ones
            codes[].older = Int(index.codes)
            Atomic[Int64].store[ordering=Ordering.RELEASE](
                Pointer(to=index.codes).unsafe_bitcast[Int64](), Int64(Int(codes))
            )
        return DONE


def add_taken[
    V: Watch
](mut index: Index, source: Int, added: Int, threads: Int, mut watch: V) -> Int:
    """Adds rows whose ids `take_ids` has taken; unless the result is DONE, `drop_ids` must follow.

    Args:
        index: The index; searches may run meanwhile, other writers may not.
        source: Address of `added` x dim elements of the stored type, C-contiguous.
        added: Number of rows, at least 1.
        threads: Workers.
        watch: May end the call early.

    Returns:
        DONE, STOPPED, NO_MEMORY, or 8 * position + kind of a row that was refused.
    """
    var task = AddRows[V](
        Pointer(to=index).unsafe_origin_cast[MutUntrackedOrigin](),
        source,
        added,
        threads,
        Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
        DONE,
    )
    in_space(index.metric, index.dtype, task)
    return task.status


def add_rows[
    V: Watch
](mut index: Index, source: Int, ids: Int, added: Int, threads: Int, mut watch: V) -> Int:
    """Adds rows; a batch is checked whole before any of it is applied.

    Args:
        index: The index; searches may run meanwhile, look-ups of ids and other writers may not.
        source: Address of `added` x dim elements of the stored type, C-contiguous.
        ids: Address of int64 ids, or 0 for automatic ones.
        added: Number of rows.
        threads: Workers.
        watch: May end the call early.

    Returns:
        DONE, STOPPED, NO_MEMORY, or 8 * position + kind of what was refused: NOT_FINITE, ZERO_VECTOR, TOO_LARGE of a
        row, KNOWN_ID of an id. Whatever is not DONE leaves the index as it was.
    """
    var status = index.take_ids(ids, added)
    if status != DONE or added == 0:
        return status
    status = add_taken(index, source, added, threads, watch)
    if status != DONE:
        index.drop_ids()
    return status
