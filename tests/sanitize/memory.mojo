"""For AddressSanitizer: a whole life of small indexes, as a C function, and one deliberate read behind a block.

Bare code and few spaces only, as in `races.mojo`.
"""
from std.ffi import external_call

from vicinal.exact.request import SearchRequest
from vicinal.file.posix import InputFile, Status
from vicinal.index.invariants import check_index
from vicinal.index.opening import open_index
from vicinal.index.saving import save_index
from vicinal.index.vector_index import Index
from vicinal.kernels.space import L2, MetricSpace, Space
from vicinal.kernels.stored_type import item_bytes
from vicinal.search.batch import SearchMany
from vicinal.system.memory import Ptr, allocate, at, release
from vicinal.system.outcome import DONE
from vicinal.system.parallel import Unwatched
from vicinal.update.add import DoChange
from vicinal.update.transaction import Change

comptime ROWS = 400
comptime K = 7


def _add[S: Space](index: Ptr[Index], rows: Int, count: Int) -> Int:
    var watch = Unwatched()
    var change = Change()
    var status = change.begin_insert(index[], 0, count, False)
    var task = DoChange[Unwatched](
        index,
        Pointer(to=change).unsafe_origin_cast[MutUntrackedOrigin](),
        rows,
        2,
        Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
        DONE,
    )
    task.run()
    change.commit(index[])
    change.finish(index[])
    return Int(status != DONE) + Int(task.status != DONE)


def _search[S: Space](index: Ptr[Index], queries: Int, count: Int) -> Int:
    """Searches one by one and together, through the graph and by a scan."""
    var watch = Unwatched()
    # exactly as large as it must be, so that a write behind it is seen
    var ids = at[Int64](external_call["malloc", Int](count * K * 8))
    var distances = at[Float32](external_call["malloc", Int](count * K * 4))
    var wrong = 0
    for ef in range(K, 4 * ROWS, 2 * ROWS):
        for each in range(1, count + 1, count - 1):
            var task = SearchMany[Unwatched](
                index,
                SearchRequest(queries, each, K, ef, ids, distances, 2),
                Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
                DONE,
            )
            task.run[S]()
            wrong += Int(task.status != DONE)
    external_call["free", NoneType](Int(ids))
    external_call["free", NoneType](Int(distances))
    return wrong


def _live[S: Space](metric: Int, dtype: Int, dim: Int, quantization: Int, path: Ptr[UInt8]) -> Int:
    """Builds, searches, saves, opens both ways, searches and adds again; returns 0 if all went well.
    """
    var bytes = item_bytes(dtype)
    # blocks of malloc, of exactly the size that is needed
    var rows = external_call["malloc", Int](ROWS * dim * bytes)
    for i in range(ROWS * dim):
        var value = 1 + (i * 7919 + i // 31) % 90
        comptime if S.T.is_floating_point():
            at[Float32](rows)[unsafe_offset=i] = Float32(value) * 1.25
        else:
            at[UInt8](rows)[unsafe_offset=i] = UInt8(value)
    var index = allocate[Index](1)
    index.unsafe_write(Index(metric, dtype, dim, 5, 24, 3, 60, quantization))
    var half = ROWS // 2
    var wrong = 0
    for part in range(2):
        wrong += _add[S](index, rows + part * half * dim * bytes, half)
        wrong += _search[S](index, rows, 13)
    var watch = Unwatched()
    wrong += check_index(index[], watch)
    wrong += save_index(index[], Int(path), 20, watch).code
    index.unsafe_deinit_pointee()
    for copy in range(2):
        var status = Status.done()
        index.unsafe_write(open_index(InputFile(Int(path)), copy == 1, True, status, watch))
        wrong += status.code + _search[S](index, rows, 13)
        if copy == 1:
            wrong += _add[S](index, rows, half) + _search[S](index, rows, 13)
        wrong += save_index(index[], Int(path), 20, watch).code
        index.unsafe_deinit_pointee()
    release(index)
    external_call["free", NoneType](rows)
    return wrong


@export
def lives(path: Ptr[UInt8]) abi("C") -> Int:
    """Uses indexes of several kinds that are saved under a path."""
    comptime Float = MetricSpace[L2, DType.float32]
    comptime Byte = MetricSpace[L2, DType.uint8]
    return (
        _live[Float](L2, 0, 33, 1, path)
        + _live[Float](L2, 0, 7, 3, path)
        + _live[Float](L2, 0, 100, 4, path)
        + _live[Byte](L2, 4, 64, 0, path)
        + _live[Byte](L2, 4, 5, 0, path)
    )


@export
def overrun(path: Ptr[UInt8]) abi("C") -> Int:
    """Must be reported: shows that the sanitizer is awake."""
    var block = allocate[UInt8](64)
    for i in range(64):
        block[unsafe_offset=i] = path[]
    var behind = 64 + Int(path[]) // 255
    var found = Int(block[unsafe_offset=behind])
    release(block)
    return found
