"""The extension module: the table of what Python may call."""
from bindings.exact_api import cpu_lanes, distance, exact_search, spaces
from bindings.file_api import (
    crc32c,
    index_open,
    index_save,
    index_verify,
    index_version,
    index_write,
    index_write_apart,
)
from bindings.guarded import Table
from bindings.ids_api import (
    index_ids,
    strings_info,
    strings_numbers,
    strings_read,
    strings_shrink,
    strings_use,
)
from bindings.info_api import (
    exact_below,
    index_attributes,
    index_check,
    index_compare_counts,
    index_forked,
    index_get,
    index_get_present,
    index_info,
    index_rows,
    index_kept_queries,
    index_set_attributes,
    index_set_kept_queries,
    index_set_tuning,
    index_stop_rules,
    index_tuning,
)
from bindings.parts_api import index_give_back, index_join, index_links, rows_read
from bindings.python_api import Obj
from bindings.residence_api import index_keep, index_read_by, index_residence, rings_work_here
from bindings.search_api import (
    index_range,
    index_search,
    index_search_counted,
    index_search_filtered,
    index_trace,
    range_take,
)
from bindings.self_join_api import (
    join_groups,
    join_neighbours,
    join_new,
    join_order,
    join_pairs,
    join_take,
)
from bindings.update_api import index_add, index_compact, index_must_copy, index_new, index_remove


@export
def PyInit__native() abi("C") -> Obj:
    """Makes the module `_native`; takes well under a millisecond and starts nothing."""
    var methods = Table(57)
    methods.add[index_new](
        "index_new",
        "index_new(metric, dtype, dim, M, ef_construction, seed, exact_below) -> handle",
    )
    methods.add[index_add](
        "index_add",
        (
            "index_add(handle, rows, ids, given, replaces, threads, progress, lent, other,"
            " origins) -> 0 or what was refused"
        ),
    )
    methods.add[index_must_copy](
        "index_must_copy", "index_must_copy(handle) -> 0 or why rows cannot stay where they are"
    )
    methods.add[index_remove](
        "index_remove", "index_remove(handle, rows, threads, progress) -> 0 or what was refused"
    )
    methods.add[index_compact](
        "index_compact", "index_compact(handle, threads, progress) -> new handle"
    )
    methods.add[index_links]("index_links", "index_links(handle, out) -> None")
    methods.add[index_join](
        "index_join",
        "index_join(handle, rows, links, offsets, threads, progress, exact_below, bounded) -> None",
    )
    methods.add[rows_read]("rows_read", "rows_read(descriptor, offset, stride, rows, out) -> None")
    methods.add[index_give_back]("index_give_back", "index_give_back(handle) -> None")
    methods.add_alone[index_search](
        "index_search",
        (
            "index_search(handle, queries, k, ef, threads, out_ids, out_distances) -> 0 or what was"
            " refused"
        ),
    )
    methods.add[index_search_counted](
        "index_search_counted",
        (
            "index_search_counted(handle, queries, k, ef, threads, out_ids, out_distances,"
            " out_work) -> as index_search"
        ),
    )
    methods.add[index_search_filtered](
        "index_search_filtered",
        (
            "index_search_filtered(handle, queries, k, ef, threads, filters, kinds, which, plan,"
            " out_ids, out_distances) -> 0 or what was refused"
        ),
    )
    methods.add[index_range](
        "index_range",
        (
            "index_range(handle, queries, radius, ef, threads, filters, kinds, which, offsets) ->"
            " result or what was refused"
        ),
    )
    methods.add[range_take]("range_take", "range_take(result, out_ids, out_distances) -> None")
    methods.add[exact_below](
        "exact_below", "exact_below() -> rows from which on an index builds its graph"
    )
    methods.add[index_info]("index_info", "index_info(handle, which) -> int")
    methods.add[index_check](
        "index_check", "index_check(handle) -> 0 or the number of a broken invariant"
    )
    methods.add[index_save]("index_save", "index_save(handle, path, ef_search, status) -> None")
    methods.add[index_open](
        "index_open", "index_open(path, copy, verify, status) -> handle or None"
    )
    methods.add[index_keep]("index_keep", "index_keep(handle, level, opening, threads) -> None")
    methods.add[index_read_by]("index_read_by", "index_read_by(handle, how, descriptor) -> None")
    methods.add[rings_work_here]("rings_work", "rings_work() -> int")
    methods.add[index_residence]("index_residence", "index_residence(handle, which) -> int")
    methods.add[index_compare_counts](
        "index_compare_counts", "index_compare_counts(handle, status) -> None"
    )
    methods.add[index_verify]("index_verify", "index_verify(handle, threads, status) -> None")
    methods.add[index_rows]("index_rows", "index_rows(handle, ids, out) -> None")
    methods.add[index_get](
        "index_get", "index_get(handle, ids, out) -> position of an unknown id or -1"
    )
    methods.add[index_ids]("index_ids", "index_ids(handle) -> bytearray of int64")
    methods.add[index_get_present](
        "index_get_present", "index_get_present(handle, ids, out, present) -> None"
    )
    methods.add[index_forked]("index_forked", "index_forked(handle) -> None")
    methods.add[index_write](
        "index_write", "index_write(handle, descriptor, ef_search, status) -> None"
    )
    methods.add[index_write_apart](
        "index_write_apart", "index_write_apart(handle, descriptor, report, ef_search) -> process"
    )
    methods.add[index_version]("index_version", "index_version(handle) -> int")
    methods.add[index_tuning]("index_tuning", "index_tuning(handle) -> bytes")
    methods.add[index_stop_rules]("index_stop_rules", "index_stop_rules(handle) -> bytes")
    methods.add[index_kept_queries]("index_kept_queries", "index_kept_queries(handle) -> bytes")
    methods.add[index_set_kept_queries](
        "index_set_kept_queries", "index_set_kept_queries(handle, data) -> None"
    )
    methods.add[index_attributes]("index_attributes", "index_attributes(handle) -> bytes")
    methods.add[index_set_attributes](
        "index_set_attributes", "index_set_attributes(handle, data) -> None"
    )
    methods.add[index_set_tuning](
        "index_set_tuning", "index_set_tuning(handle, rows, stop_rules) -> None"
    )
    methods.add[index_trace](
        "index_trace",
        "index_trace(handle, query, k, ef, out_ids, out_distances) -> bytes or what was refused",
    )
    methods.add[strings_info]("strings_info", "strings_info(handle, which) -> int")
    methods.add[strings_use]("strings_use", "strings_use(handle) -> None")
    methods.add[strings_numbers](
        "strings_numbers", "strings_numbers(handle, text, offsets, add, out) -> 0 or 1 for damage"
    )
    methods.add[strings_shrink]("strings_shrink", "strings_shrink(handle, count) -> None")
    methods.add[strings_read](
        "strings_read", "strings_read(handle, numbers, out_offsets) -> bytes or a damaged position"
    )
    methods.add[exact_search](
        "exact_search",
        (
            "exact_search(metric, dtype, base, queries, k, threads, max_bytes, out_ids,"
            " out_distances, shared_map=0) -> 0 or what was refused"
        ),
    )
    methods.add[join_new](
        "join_new",
        "join_new(metric, dtype, rows, keep, threads) -> handle or what was refused",
    )
    methods.add[join_groups](
        "join_groups", "join_groups(handle, wanted, overlap, seed, threads) -> None"
    )
    methods.add[join_neighbours](
        "join_neighbours", "join_neighbours(handle, width, threads) -> how many were new"
    )
    methods.add[join_pairs]("join_pairs", "join_pairs(handle) -> pairs compared so far")
    methods.add[join_order]("join_order", "join_order(handle, out) -> None")
    methods.add[join_take](
        "join_take",
        (
            "join_take(handle, metric, dtype, rows, chosen, places, threads, progress, out_ids,"
            " out_distances) -> None"
        ),
    )
    methods.add[distance]("distance", "distance(metric, dtype, query, row) -> float")
    methods.add[crc32c]("crc32c", "crc32c(buffer, start) -> int")
    methods.add[cpu_lanes]("cpu_lanes", "cpu_lanes() -> float32 lanes of a vector in this build")
    methods.add[spaces](
        "spaces", "spaces() -> the spaces of this build, bit dtype + 5 * metric each"
    )
    return methods.module("_native")
