"""Adding rows: checked whole, stored, encoded, linked, and only then seen by searches; or taken back."""
from std.atomic import Atomic, Ordering
from std.memory import unsafe_memcpy

from vicinal.code_space import CODE_LINE
from vicinal.codes import EXACT, drop_codes, is_bytes
from vicinal.coding import (
    AUTO,
    all_bytes,
    check_due,
    choose_kind,
    encode_rows,
    estimates_fit,
    finer,
    new_codes,
)
from vicinal.convert import from_float, to_float
from vicinal.index import DONE, KNOWN_ID, NO_MEMORY, STOPPED, Index
from vicinal.link import link_new
from vicinal.memory import Ptr, allocate, at, release
from vicinal.parallel import Body, Team, Watch
from vicinal.space import (
    COSINE,
    FINE,
    Rows,
    Space,
    SpaceTask,
    in_space,
    inspect_row,
    is_float,
    row_stride,
)

comptime NOT_BYTES = 5
"""Kind of refusal: a row that the exact codes asked for cannot hold."""
comptime GRAIN = 64
"""Rows of a piece when rows are checked or copied."""


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
            var codes = index.codes
            var checked = codes[].checked
            var fit = codes[].fit
            self.status = self._encode[S](team, until)
            if self.status == DONE:
                self.status = link_new[S, Self.V](index, until, self.added, team, watch)
            if self.status != DONE:
                if index.codes != codes:
                    # back to the codes before; searches under way may still read those given up
                    var given_up = index.codes
                    given_up[].older = codes[].older
                    codes[].older = Int(given_up)
                    index.codes = codes
                codes[].count = min(codes[].count, index.count)
                codes[].checked = checked
                codes[].fit = fit
                return
        Atomic[Int64].store[ordering=Ordering.RELEASE](
            Pointer(to=index.count).unsafe_bitcast[Int64](), Int64(until)
        )
        self.status = DONE

    def _encode[S: Space](mut self, team: Team, until: Int) -> Int:
        """Encodes new rows, and all rows anew if they make other codes the right ones."""
        ref index = self.index[]
        ref watch = self.watch[]
        var first_time = index.graph.linked == 0
        var kind = index.codes[].kind
        var bytes_only = (first_time or kind == EXACT) and all_bytes[S](
            index.rows(), 0 if first_time else index.count, until, team, watch
        )
        var codes = index.codes
        if first_time or (kind == EXACT and is_float(index.dtype) and not bytes_only):
            kind = choose_kind(index.quantization, index.metric, index.dtype, index.dim, bytes_only)
            codes = new_codes[S](kind, index.dtype, index.rows(), until, index.seed)
        while True:
            var outcome = encode_rows[S](codes, index.rows(), until, team, watch)
            if outcome != 1:
                if codes != index.codes:
                    drop_codes(codes)
                return STOPPED if outcome == 0 else NO_MEMORY
            if not check_due(codes[], until):
                break
            codes[].fit = estimates_fit[S](codes[], index.rows(), codes[].checked, until)
            if codes[].fit or index.quantization != AUTO:
                codes[].checked = until
                break
            # first the same kind around a new centre, then a finer kind
            if codes != index.codes:
                drop_codes(codes)
                kind = finer(kind)
            codes = new_codes[S](kind, index.dtype, index.rows(), until, index.seed)
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
