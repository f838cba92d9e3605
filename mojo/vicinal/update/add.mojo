"""The work of a change: new rows are checked whole, stored, encoded and linked."""
from std.atomic import Atomic
from std.sys import size_of

from vicinal.construct.build_statistics import ENCODE, STORE
from vicinal.index.borrowed_rows import borrow, own_rows
from vicinal.index.vector_index import Index
from vicinal.kernels.convert import from_float, to_float
from vicinal.kernels.in_space import SpaceTask, in_space
from vicinal.kernels.row_codes import encode_row
from vicinal.kernels.inspect_row import inspect_row, to_unit
from vicinal.kernels.space import COSINE, Rows, Space
from vicinal.kernels.stored_type import item_bytes, row_stride
from vicinal.quantization.code_products import CODE_LINE
from vicinal.quantization.code_table import U8, is_bytes
from vicinal.rows.row_targets import TargetRows
from vicinal.rows.same_bytes import hash_bytes
from vicinal.system.atomics import store_release
from vicinal.system.clock import now
from vicinal.system.memory import Ptr, allocate, at, missing, no_block, release
from vicinal.system.outcome import DONE, FINE, NOT_BYTES, NO_MEMORY, Outcome, STOPPED
from vicinal.system.pages import AS_USUAL, RANDOM, advise, ask_ahead
from vicinal.system.parallel import Body, Team, Watch
from vicinal.system.pointer import copy_items
from vicinal.update.consolidate import consolidate
from vicinal.update.encode import encode
from vicinal.update.linking import link_change
from vicinal.update.transaction import Change

comptime GRAIN = 64
"""Rows of a piece when rows are checked or copied."""

comptime ROWS_A_THREAD = 2
"""Rows that are linked for each thread, at least: to start one takes half as long as to link a row."""


@fieldwise_init
struct InspectRows[S: Space](Body):
    """Checks new rows; the first bad one wins whatever the order of the pieces."""

    var source: Int
    var dim: Int
    var bytes_only: Bool
    """Whether exact codes were asked for, which only hold whole numbers from 0 to 255."""
    var verdict: Ptr[Int64]
    var rows: Int
    """Their number."""
    var hashes: Ptr[UInt32]
    """Receives their hashes, if they are read from disk; else nothing."""

    def run(self, begin: Int, end: Int, worker: Int):
        """Checks rows begin .. end-1."""
        var norm = Float32(1)
        var bytes = self.dim * size_of[Scalar[Self.S.T]]()
        if not missing(self.hashes):
            ask_ahead(self.source, self.rows * bytes, begin * bytes, end * bytes)
            for i in range(begin, end):
                self.hashes[unsafe_offset=i] = hash_bytes(self.source + i * bytes, bytes)
        for i in range(begin, end):
            var p = at[Scalar[Self.S.T]](self.source).unsafe_offset(i * self.dim)
            var found = inspect_row[Self.S, Self.S.T](p, self.dim, norm)
            comptime if Self.S.T.is_floating_point():
                if found == FINE and self.bytes_only and not is_bytes[Self.S.T](p, self.dim):
                    found = NOT_BYTES
            if found != FINE:
                Atomic[Int64].min(self.verdict.start, Int64(Outcome.refusal(i, found).code))
                return


@fieldwise_init
struct CopyRows[S: Space](Body):
    """Stores new rows, of unit length for cosine over float types, or their codes."""

    var source: Int
    var rows: Rows
    var places: TargetRows
    var work: Ptr[Float32]
    """Room for a row for each worker, where codes of rows of unit length are stored."""

    def run(self, begin: Int, end: Int, worker: Int):
        """Stores rows begin .. end-1 of the source."""
        comptime if Self.S.bits != 0:
            self._encode(begin, end, worker)
        else:
            self._copy(begin, end)

    def _encode(self, begin: Int, end: Int, worker: Int):
        var dim = self.rows.dim
        for i in range(begin, end):
            var p = at[Float32](self.source).unsafe_offset(i * dim)
            comptime if Self.S.metric == COSINE:
                var norm = Float32(1)
                _ = inspect_row[Self.S, DType.float32](p, dim, norm)
                var unit = self.work.unsafe_offset(worker * dim)
                for j in range(dim):
                    unit[unsafe_offset=j] = to_unit(p[unsafe_offset=j], norm)
                p = unit
            encode_row[Self.S.bits, Self.S.metric == COSINE](
                p, dim, self.rows.row[DType.uint8](self.places.row(i))
            )

    def _copy(self, begin: Int, end: Int):
        var dim = self.rows.dim
        for i in range(begin, end):
            var p = at[Scalar[Self.S.T]](self.source).unsafe_offset(i * dim)
            var row = self.places.row(i)
            var stored = self.rows.row[Self.S.T](row)
            comptime if Self.S.metric == COSINE:
                var norm = Float32(1)
                _ = inspect_row[Self.S, Self.S.T](p, dim, norm)
                comptime if Self.S.needs_norms:
                    at[Float32](self.rows.norms)[unsafe_offset=row] = norm
                else:
                    for j in range(dim):
                        stored[unsafe_offset=j] = from_float[Self.S.T, 1](
                            to_unit(to_float[Self.S.T, 1](p[unsafe_offset=j]), norm)
                        )
                    continue
            if stored != p:  # borrowed rows are there already
                copy_items(dest=stored, src=p, count=dim)


@fieldwise_init
struct StoreRows[V: Watch](SpaceTask):
    """Checks all rows of a change and stores them."""

    var index: Ptr[Index]
    var change: Ptr[Change]
    var source: Int
    """Address of the new rows, C-contiguous in the stored type."""
    var team: Ptr[Team]
    var watch: Ptr[Self.V]
    var status: Outcome
    """How it ended; a refusal is of a new row."""

    def run[S: Space](mut self):
        """Does it in one space."""
        self.status = self.store[S](self.team[])

    def store[S: Space](self, team: Team) -> Outcome:
        """Checks all rows and stores them."""
        ref index = self.index[]
        ref change = self.change[]
        ref watch = self.watch[]
        var verdict = Int64.MAX
        if change.on_disk:
            change.hashes = allocate[UInt32](change.added)
            if missing(change.hashes):
                return NO_MEMORY
            index.vectors.on_disk = True
        var inspect = InspectRows[S](
            self.source,
            index.dim,
            index.quantization == 1 + U8,
            Pointer(to=verdict).unsafe_origin_cast[MutUntrackedOrigin](),
            change.added,
            change.hashes,
        )
        if not team.run(change.added, GRAIN, inspect, watch):
            return STOPPED
        if verdict != Int64.MAX:
            return Outcome(Int(verdict))
        var until = change.until()
        if index.has_norms() and not index.vectors.norms.grow(until * 4):
            return NO_MEMORY
        if change.lent:
            borrow(index, self.source, until)
            if not index.has_norms():
                return DONE
        elif not index.vectors.column.grow(until * row_stride(index.dim, index.dtype) + CODE_LINE):
            return NO_MEMORY
        var work = no_block[Float32]()
        comptime if S.bits != 0 and S.metric == COSINE:
            work = allocate[Float32](team.size() * index.dim)
            if missing(work):
                return NO_MEMORY
        var copy = CopyRows[S](self.source, index.rows(), change.places(), work)
        var copied = team.run(change.added, GRAIN, copy, watch)
        release(work)
        return DONE if copied else STOPPED


@fieldwise_init
struct DoChange[V: Watch](Movable):
    """Does the work of a change."""

    var index: Ptr[Index]
    var change: Ptr[Change]
    var source: Int
    """Address of the new rows, C-contiguous in the stored type; 0 if they are stored already."""
    var threads: Int
    var watch: Ptr[Self.V]
    var status: Outcome
    """How it ended; a refusal is of a new row."""

    def run(mut self):
        """Checks all rows, stores them, links them, and takes out of the graph what goes."""
        ref index = self.index[]
        ref change = self.change[]
        ref watch = self.watch[]
        var team = Team(self.threads)
        var time = now()
        watch.advance(-change.added)  # checking and copying are no progress yet
        if self.source != 0:
            self.status = own_rows(index, change.until(), team, watch)
            if self.status == DONE:
                var store = StoreRows[Self.V](
                    self.index,
                    self.change,
                    self.source,
                    Pointer(to=team).unsafe_origin_cast[MutUntrackedOrigin](),
                    self.watch,
                    DONE,
                )
                in_space(index.metric, index.dtype, store)
                self.status = store.status
            time = index.build_statistics.add_elapsed(STORE, time)
            if self.status != DONE:
                return
        if index.graph[].linked == 0 and change.live_after(index) < index.exact_below:
            self.status = DONE if watch.conclude(change.size()) else STOPPED
            return
        var codes = index.codes
        var checked = codes[].checked
        var fit = codes[].fit
        self.status = encode(index, change.places(), change.added, change.until(), team, watch)
        _ = index.build_statistics.add_elapsed(ENCODE, time)
        if self.status == DONE:
            var linkers = self.threads
            if index.graph[].linked != 0:
                linkers = min(linkers, max(change.added // ROWS_A_THREAD, 1))
            if linkers == self.threads:
                self.status = link_change[Self.V](index, change, team, watch)
            else:
                self.status = link_change[Self.V](index, change, Team(linkers), watch)
        if self.status != DONE:
            if index.codes != codes:
                index.give_up_codes()
            store_release(codes[].count, min(codes[].count, index.count))
            codes[].checked = checked
            codes[].fit = fit


def do_change[
    V: Watch
](mut index: Index, mut change: Change, source: Int, threads: Int, mut watch: V) -> Outcome:
    """Does the work of a change that adds rows; then `Change.commit` and `finish`, or `roll_back`, must follow.

    Args:
        index: The index; searches may run meanwhile, other writers may not.
        change: What is to change.
        source: Address of the new rows, `change.added` x dim elements of the stored type, C-contiguous; 0 if they are
            stored already or there are none.
        threads: Workers.
        watch: May end the call early.

    Returns:
        DONE; or STOPPED, NO_MEMORY, or the refusal of a row: then it must be taken back.
    """
    var task = DoChange[V](
        Pointer(to=index).unsafe_origin_cast[MutUntrackedOrigin](),
        Pointer(to=change).unsafe_origin_cast[MutUntrackedOrigin](),
        source,
        threads,
        Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
        DONE,
    )
    var bytes = change.added * index.dim * item_bytes(index.dtype)
    if (
        change.on_disk
    ):  # what is read in order is asked for, nothing else is wanted along with single rows
        _ = advise(source, bytes, RANDOM)
    task.run()
    if change.on_disk:
        _ = advise(source, bytes, AS_USUAL)
        index.vectors.on_disk = task.status == DONE
    return task.status


def add_rows[
    V: Watch
](mut index: Index, source: Int, ids: Int, added: Int, threads: Int, mut watch: V) -> Outcome:
    """Adds rows; a batch is checked whole before any of it is applied.

    Args:
        index: The index; searches may run meanwhile, look-ups of ids and other writers may not.
        source: Address of `added` x dim elements of the stored type, C-contiguous.
        ids: Address of int64 ids, or 0 for automatic ones.
        added: Number of rows.
        threads: Workers.
        watch: May end the call early.

    Returns:
        DONE; or STOPPED, NO_MEMORY, or the refusal of a row or an id: whatever is not DONE leaves the index as it was.
    """
    var change = Change()
    var status = change.begin_insert(index, ids, added, False)
    if status != DONE or added == 0:
        return status
    status = do_change(index, change, source, threads, watch)
    if status != DONE:
        change.roll_back(index)
        return status
    change.commit(index)
    change.finish(index)
    _ = consolidate(index, threads, watch)
    return DONE
