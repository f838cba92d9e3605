"""Single kernels for Python: what the doctor and the tests compare with a reference."""
from bindings.python_api import Args, Fail, Obj, View, as_int, fail, from_float, from_int, need
from vicinal.memory import at
from vicinal.metric import W
from vicinal.space import (
    METRICS,
    STORED_TYPES,
    Query,
    Rows,
    Space,
    SpaceTask,
    in_space,
    inspect_row,
    is_compiled,
)


@fieldwise_init
struct MeasurePair(SpaceTask):
    """Measures one query against one row."""

    var a: Int
    var b: Int
    var dim: Int
    var value: Float32

    def run[S: Space](mut self):
        """Finds the norms where the metric needs them, and the distance."""
        var norm_a = Float32(1)
        var norm_b = Float32(1)
        _ = inspect_row[S, S.Q](at[Scalar[S.Q]](self.a), self.dim, norm_a)
        _ = inspect_row[S, S.T](at[Scalar[S.T]](self.b), self.dim, norm_b)
        var norms = norm_b
        var rows = Rows(self.b, 0, self.dim, Int(Pointer(to=norms)))
        self.value = S.value(S.key(Query(self.a, norm_a), rows, 0))
        _ = norms


def need_space(metric: Int, dtype: Int) raises Fail:
    """Raises NotImplementedError for a space that a development build has left out."""
    if not is_compiled(metric, dtype):
        raise fail(
            "NotImplementedError",
            (
                "metric number %zd over dtype number %zd is left out of this development build:"
                " see `tools/native_build.py --spaces`"
            ),
            metric,
            dtype,
        )


def distance(args: Args, count: Int) raises Fail -> Obj:
    """Implements distance(metric, dtype, query[dim], row[dim]) -> float.

    For cosine over float types both vectors are expected to have unit length, as an index stores them.
    """
    need(count, 4)
    var metric = as_int(args[unsafe_offset=0])
    var dtype = as_int(args[unsafe_offset=1])
    if metric < 0 or metric >= METRICS or dtype < 0 or dtype >= STORED_TYPES:
        raise fail("ValueError", "unknown metric %zd or dtype %zd", metric, dtype)
    need_space(metric, dtype)
    var a = View(args[unsafe_offset=2], 0 if dtype <= 2 else dtype, 1)
    var b = View(args[unsafe_offset=3], dtype, 1)
    if a.dim(0) != b.dim(0):
        raise fail("ValueError", "lengths differ: %zd and %zd", a.dim(0), b.dim(0))
    var task = MeasurePair(a.address(), b.address(), a.dim(0), 0)
    in_space(metric, dtype, task)
    _ = a^
    _ = b^
    return from_float(Float64(task.value))


def spaces(args: Args, count: Int) raises Fail -> Obj:
    """Implements spaces() -> int: bit dtype + 5 * metric is set for each space of this build."""
    need(count, 0)
    var bits = 0
    for metric in range(METRICS):
        for dtype in range(STORED_TYPES):
            if is_compiled(metric, dtype):
                bits |= 1 << (dtype + STORED_TYPES * metric)
    return from_int(bits)


def cpu_lanes(args: Args, count: Int) raises Fail -> Obj:
    """Implements cpu_lanes() -> int: float32 lanes of a vector in this build."""
    need(count, 0)
    return from_int(W)
