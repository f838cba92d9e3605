"""A search told step by step, for Python."""
from std.ffi import external_call

from bindings.index_api import TAG
from bindings.python_api import (
    INT64,
    Args,
    Fail,
    NoGil,
    Obj,
    View,
    as_int,
    capsule_get,
    fail,
    from_int,
    need,
)
from vicinal.index import DONE, NO_MEMORY, Index
from vicinal.memory import at
from vicinal.trace import Log, trace


def index_trace(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_trace(handle, query, k, ef, out_ids, out_distances) -> bytes, or an int that says what was refused.

    The bytes are the words of `vicinal.trace.Log`.
    """
    need(count, 6)
    var index = capsule_get[Index, TAG](args[unsafe_offset=0])
    var dtype = index[].dtype
    var k = as_int(args[unsafe_offset=2])
    var ef = as_int(args[unsafe_offset=3])
    var query = View(args[unsafe_offset=1], 0 if dtype <= 2 else dtype, 1)
    var ids = View(args[unsafe_offset=4], INT64, 1, writable=True)
    var distances = View(args[unsafe_offset=5], 0, 1, writable=True)
    if query.dim(0) != index[].dim:
        raise fail(
            "ValueError", "the query has dimension %zd, the index %zd", query.dim(0), index[].dim
        )
    if ids.dim(0) != k or distances.dim(0) != k or k < 1:
        raise fail("ValueError", "results must have shape (%zd,)", k)
    var log = Log()
    var gil = NoGil()
    var status = trace(
        index[],
        query.address(),
        k,
        ef,
        at[Int64](ids.address()),
        at[Float32](distances.address()),
        log,
    )
    _ = gil^
    _ = query^
    _ = ids^
    _ = distances^
    if status == NO_MEMORY:
        raise fail("MemoryError", "no memory for a trace with k = %zd", k)
    if status != DONE:
        return from_int(status)
    var result = external_call["PyBytes_FromStringAndSize", Obj](Int(log.words), log.size * 8)
    _ = log^
    if result == 0:
        raise Fail()
    return result
