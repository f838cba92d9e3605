"""Types of the native module; all arguments are positional, arrays C-contiguous and aligned."""

from collections.abc import Callable
from typing import Any, NewType

import numpy as np
from numpy.typing import NDArray

# Metric and dtype are positions in the tables of _validate.py. Queries of float indexes are
# float32. A status is five words as _file_status.raise_for_status reads them.
Rows = np.ndarray[Any, np.dtype[Any]]
Ids = NDArray[np.int64]
Status = NDArray[np.int64]
Distances = NDArray[np.float32]
Handle = NewType("Handle", object)
RangeFound = NewType("RangeFound", object)

def index_new(
    metric: int,
    dtype: int,
    dim: int,
    M: int,
    ef_construction: int,
    seed: int,
    exact_below: int,
    quantization: int,
    walk_dim: int = 0,
    /,
) -> Handle: ...
def index_add(
    handle: Handle,
    rows: Rows,
    ids: Ids,
    given: bool,
    replace: bool,
    threads: int,
    progress: Callable[[int, int], object] | None,
    borrow: int,
    other: Handle | None,
    origins: Ids,
    /,
) -> int: ...
def index_must_copy(handle: Handle, /) -> int: ...
def index_remove(
    handle: Handle,
    rows: Ids,
    threads: int,
    progress: Callable[[int, int], object] | None,
    /,
) -> int: ...
def index_compact(
    handle: Handle, threads: int, progress: Callable[[int, int], object] | None, /
) -> Handle: ...
def index_links(handle: Handle, out: NDArray[np.uint32], /) -> None: ...
def index_join(
    handle: Handle,
    rows: tuple[NDArray[np.uint32], ...],
    links: tuple[NDArray[np.uint32], ...] | tuple[bytes, ...],
    offsets: NDArray[np.int64] | None,
    threads: int,
    progress: Callable[[int, int], object] | None,
    exact_below: int,
    bounded: bool,
    /,
) -> None: ...
def rows_read(
    descriptor: int,
    offset: int,
    stride: int,
    rows: NDArray[np.uint32],
    out: NDArray[np.uint8],
    /,
) -> None: ...
def index_give_back(handle: Handle, /) -> None: ...
def index_search(
    handle: Handle,
    queries: Rows,
    k: int,
    ef: int,
    threads: int,
    out_ids: Ids,
    out_distances: Distances,
    /,
) -> int: ...
def index_search_counted(
    handle: Handle,
    queries: Rows,
    k: int,
    ef: int,
    threads: int,
    out_ids: Ids,
    out_distances: Distances,
    out_work: Ids,
    /,
) -> int: ...
def index_search_filtered(
    handle: Handle,
    queries: Rows,
    k: int,
    ef: int,
    threads: int,
    filters: tuple[Rows | None, ...],
    kinds: bytes,
    which: Ids,
    plan: int,
    out_ids: Ids,
    out_distances: Distances,
    /,
) -> int: ...
def index_range(
    handle: Handle,
    queries: Rows,
    radius: float,
    ef: int,
    threads: int,
    filters: tuple[Rows | None, ...],
    kinds: bytes,
    which: Ids,
    offsets: Ids,
    /,
) -> RangeFound | int: ...
def range_take(result: RangeFound, out_ids: Ids, out_distances: Distances, /) -> None: ...
def index_info(handle: Handle, which: int, /) -> int: ...
def index_rows(handle: Handle, ids: Ids, out: Ids, /) -> None: ...
def index_get(handle: Handle, ids: Ids, out: Rows, /) -> int: ...
def index_ids(handle: Handle, /) -> bytearray: ...
def index_get_present(handle: Handle, ids: Ids, out: Rows, present: Rows, /) -> None: ...
def index_forked(handle: Handle, /) -> None: ...
def index_check(handle: Handle, /) -> int: ...
def index_save(handle: Handle, path: bytes, ef_search: int, status: Status, /) -> None: ...
def index_open(path: bytes | int, copy: bool, verify: bool, status: Status, /) -> Handle: ...
def index_keep(handle: Handle, level: int, opening: bool, threads: int, /) -> None: ...
def index_read_by(handle: Handle, how: int, descriptor: int, /) -> None: ...
def rings_work() -> int: ...
def index_residence(handle: Handle, which: int, /) -> int: ...
def index_compare_counts(handle: Handle, status: Status, /) -> None: ...
def index_verify(handle: Handle, threads: int, status: Status, /) -> None: ...
def index_write(handle: Handle, descriptor: int, ef_search: int, status: Status, /) -> None: ...
def index_version(handle: Handle, /) -> int: ...
def index_tuning(handle: Handle, /) -> bytes: ...
def index_stop_rules(handle: Handle, /) -> bytes: ...
def index_kept_queries(handle: Handle, /) -> bytes: ...
def index_set_kept_queries(handle: Handle, data: NDArray[np.uint8], /) -> None: ...
def index_attributes(handle: Handle, /) -> bytes: ...
def index_set_attributes(handle: Handle, data: NDArray[np.uint8], /) -> None: ...
def index_write_apart(handle: Handle, descriptor: int, report: int, ef_search: int, /) -> int: ...
def index_set_tuning(handle: Handle, rows: Ids, stop_rules: Ids, /) -> None: ...
def index_trace(
    handle: Handle,
    query: Rows,
    k: int,
    ef: int,
    out_ids: Ids,
    out_distances: Distances,
    /,
) -> bytes | int: ...
def strings_info(handle: Handle, which: int, /) -> int: ...
def strings_use(handle: Handle, /) -> None: ...
def strings_numbers(handle: Handle, text: bytes, offsets: Ids, add: bool, out: Ids, /) -> int: ...
def strings_shrink(handle: Handle, count: int, /) -> None: ...
def strings_read(handle: Handle, numbers: Ids, out_offsets: Ids, /) -> bytes | int: ...
def exact_search(
    metric: int,
    dtype: int,
    base: Rows,
    queries: Rows,
    k: int,
    threads: int,
    max_bytes: int,
    out_ids: Ids,
    out_distances: Distances,
    shared_map: int = 0,
    /,
) -> int: ...
def join_new(metric: int, dtype: int, rows: Rows, keep: int, threads: int, /) -> Handle | int: ...
def join_groups(handle: Handle, wanted: int, overlap: int, seed: int, threads: int, /) -> None: ...
def join_neighbours(handle: Handle, width: int, threads: int, /) -> int: ...
def join_pairs(handle: Handle, /) -> int: ...
def join_order(handle: Handle, out: NDArray[np.uint32], /) -> None: ...
def join_take(
    handle: Handle,
    metric: int,
    dtype: int,
    rows: Rows,
    chosen: NDArray[np.uint32],
    places: NDArray[np.uint32],
    threads: int,
    progress: Callable[[int, int], object] | None,
    out_ids: Ids,
    out_distances: Distances,
    /,
) -> None: ...
def distance(metric: int, dtype: int, query: Rows, row: Rows, /) -> float: ...
def crc32c(buffer: object, start: int, /) -> int: ...
def exact_below() -> int: ...
def cpu_lanes() -> int: ...
def spaces() -> int: ...
