"""The neighbours of all rows of an array among themselves, step by step."""
from bindings.arrays import INT64, UINT32, View
from bindings.exact_api import need_space
from bindings.gil import PythonWatch
from bindings.python_api import (
    Args,
    Fail,
    Obj,
    as_int,
    capsule_get,
    capsule_new,
    fail,
    from_int,
    is_none,
    need,
    no_memory,
    none,
)
from vicinal.kernels.in_space import SpaceTask, in_given_space, is_space
from vicinal.kernels.space import Rows, Space
from vicinal.kernels.stored_type import item_bytes
from vicinal.self_join.codes import MOST_ELEMENTS
from vicinal.self_join.partition import MOST_OVERLAP, MOST_ROWS
from vicinal.self_join.state import SelfJoin
from vicinal.system.memory import Ptr, at
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome, STOPPED
from vicinal.system.parallel import Team

comptime TAG = "vicinal.SelfJoin"
comptime MOST_KEPT = 4096


@fieldwise_init
struct EncodeRows(SpaceTask):
    """Checks and encodes the rows."""

    var join: Ptr[SelfJoin]
    var rows: Rows
    var threads: Int
    var watch: Ptr[PythonWatch]
    var status: Outcome

    def run[S: Space](mut self):
        """Does it in one space."""
        var team = Team(self.threads)
        self.status = self.join[].codes.encode[S](self.rows, team, self.watch[])


@fieldwise_init
struct TakeRows(SpaceTask):
    """Writes neighbours."""

    var join: Ptr[SelfJoin]
    var rows: Rows
    var chosen: Ptr[UInt32]
    var places: Ptr[UInt32]
    var count: Int
    var k: Int
    var ids: Ptr[Int64]
    var distances: Ptr[Float32]
    var threads: Int
    var watch: Ptr[PythonWatch]
    var status: Outcome

    def run[S: Space](mut self):
        """Does it in one space."""
        var team = Team(self.threads)
        self.status = self.join[].take[S](
            self.rows,
            self.chosen,
            self.places,
            self.count,
            self.k,
            self.ids,
            self.distances,
            team,
            self.watch[],
        )


def _check(metric: Int, dtype: Int, rows: View) raises Fail:
    """Refuses what no join can be of."""
    if not is_space(metric, dtype):
        raise fail("ValueError", "unknown metric %zd or dtype %zd", metric, dtype)
    need_space(metric, dtype)
    if rows.dim(1) < 1 or rows.dim(1) > MOST_ELEMENTS or rows.dim(0) > MOST_ROWS:
        raise fail(
            "ValueError",
            "dimension %zd or number of rows %zd is out of range",
            rows.dim(1),
            rows.dim(0),
        )


def _end(status: Outcome) raises Fail:
    """Raises what ended a step."""
    if status == STOPPED:
        raise Fail()  # the watch has set the exception
    if status == NO_MEMORY:
        raise no_memory()


def join_new(args: Args, count: Int) raises Fail -> Obj:
    """Implements join_new(metric, dtype, rows, keep, threads) -> handle, or 8 * row + kind of a row that was refused.
    """
    need(count, 5)
    var metric = as_int(args[unsafe_offset=0])
    var dtype = as_int(args[unsafe_offset=1])
    var keep = as_int(args[unsafe_offset=3])
    var threads = as_int(args[unsafe_offset=4])
    var rows = View(args[unsafe_offset=2], dtype, 2)
    _check(metric, dtype, rows)
    if keep < 1 or keep > MOST_KEPT or threads < 1:
        raise fail("ValueError", "keep is %zd, threads is %zd", keep, threads)
    var n = rows.dim(0)
    var dim = rows.dim(1)
    var join = SelfJoin(n, dim, metric, keep)
    if join.failed():
        raise no_memory()
    var watch = PythonWatch(0, n)
    var task = EncodeRows(
        Pointer(to=join).unsafe_origin_cast[MutUntrackedOrigin](),
        Rows(rows.address(), dim * item_bytes(dtype), dim, 0),
        threads,
        Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
        DONE,
    )
    in_given_space(metric, dtype, task)
    _ = watch^
    _ = rows^
    _end(task.status)
    if task.status != DONE:
        _ = join^
        return from_int(task.status.code)
    return capsule_new[SelfJoin, TAG](join^)


def join_groups(args: Args, count: Int) raises Fail -> Obj:
    """Implements join_groups(handle, wanted, overlap, seed, threads) -> None."""
    need(count, 5)
    var join = capsule_get[SelfJoin, TAG](args[unsafe_offset=0])
    var wanted = as_int(args[unsafe_offset=1])
    var overlap = as_int(args[unsafe_offset=2])
    var seed = as_int(args[unsafe_offset=3])
    var threads = as_int(args[unsafe_offset=4])
    if wanted < 1 or overlap < 1 or overlap > MOST_OVERLAP or threads < 1:
        raise fail("ValueError", "groups of %zd rows, each in %zd", wanted, overlap)
    var watch = PythonWatch(0, join[].codes.count)
    var team = Team(threads)
    var status = join[].join_groups(wanted, overlap, seed, team, watch)
    _ = team^
    _ = watch^
    _end(status)
    return none()


def join_neighbours(args: Args, count: Int) raises Fail -> Obj:
    """Implements join_neighbours(handle, width, threads) -> how many others rows have brought together for the first time.
    """
    need(count, 3)
    var join = capsule_get[SelfJoin, TAG](args[unsafe_offset=0])
    var width = as_int(args[unsafe_offset=1])
    var threads = as_int(args[unsafe_offset=2])
    if width < 1 or threads < 1 or join[].partition.count() == 0:
        raise fail("ValueError", "width is %zd; there must have been groups", width)
    var watch = PythonWatch(0, join[].codes.count)
    var team = Team(threads)
    var fresh = Int64(0)
    var status = join[].join_neighbours(width, team, watch, fresh)
    _ = team^
    _ = watch^
    _end(status)
    return from_int(Int(fresh))


def join_pairs(args: Args, count: Int) raises Fail -> Obj:
    """Implements join_pairs(handle) -> pairs compared so far."""
    need(count, 1)
    return from_int(Int(capsule_get[SelfJoin, TAG](args[unsafe_offset=0])[].pairs))


def join_order(args: Args, count: Int) raises Fail -> Obj:
    """Implements join_order(handle, out uint32[n]) -> None: all rows, near ones mostly after each other.
    """
    need(count, 2)
    var join = capsule_get[SelfJoin, TAG](args[unsafe_offset=0])
    var out = View(args[unsafe_offset=1], UINT32, 1, writable=True)
    var n = join[].codes.count
    if out.dim(0) != n or join[].partition.count() == 0:
        raise fail("ValueError", "out must have %zd items; there must have been groups", n)
    for i in range(n):
        at[UInt32](out.address())[unsafe_offset=i] = join[].partition.order[unsafe_offset=i]
    _ = out^
    return none()


def join_take(args: Args, count: Int) raises Fail -> Obj:
    """Implements join_take(handle, metric, dtype, rows, chosen uint32[m], places uint32[m], threads, progress or None, out_ids,
    out_distances) -> None.

    Results of shape (m, k): those of row `chosen[i]` go to place `places[i]`.
    """
    need(count, 10)
    var join = capsule_get[SelfJoin, TAG](args[unsafe_offset=0])
    var metric = as_int(args[unsafe_offset=1])
    var dtype = as_int(args[unsafe_offset=2])
    var threads = as_int(args[unsafe_offset=6])
    var progress = 0 if is_none(args[unsafe_offset=7]) else args[unsafe_offset=7]
    var rows = View(args[unsafe_offset=3], dtype, 2)
    _check(metric, dtype, rows)
    var chosen = View(args[unsafe_offset=4], UINT32, 1)
    var places = View(args[unsafe_offset=5], UINT32, 1)
    var ids = View(args[unsafe_offset=8], INT64, 2, writable=True)
    var distances = View(args[unsafe_offset=9], 0, 2, writable=True)
    var m = chosen.dim(0)
    var dim = rows.dim(1)
    var k = ids.dim(1)
    var n = join[].codes.count
    if rows.dim(0) != n or dim != join[].codes.dim or threads < 1:
        raise fail("ValueError", "rows have shape (%zd, %zd), not as before", rows.dim(0), dim)
    if (
        places.dim(0) != m
        or ids.dim(0) != m
        or distances.dim(0) != m
        or distances.dim(1) != k
        or k < 1
    ):
        raise fail("ValueError", "results must have shape (%zd, %zd)", m, k)
    for i in range(m):
        if (
            Int(at[UInt32](chosen.address())[unsafe_offset=i]) >= n
            or Int(at[UInt32](places.address())[unsafe_offset=i]) >= m
        ):
            raise fail("ValueError", "number %zd of the rows chosen is out of range", i)
    var watch = PythonWatch(progress, m)
    var task = TakeRows(
        join,
        Rows(rows.address(), dim * item_bytes(dtype), dim, 0),
        at[UInt32](chosen.address()),
        at[UInt32](places.address()),
        m,
        k,
        at[Int64](ids.address()),
        at[Float32](distances.address()),
        threads,
        Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
        DONE,
    )
    in_given_space(metric, dtype, task)
    if task.status == DONE and progress != 0 and not watch.conclude(m):
        task.status = STOPPED
    _ = watch^
    _ = rows^
    _ = chosen^
    _ = places^
    _ = ids^
    _ = distances^
    _end(task.status)
    return none()
