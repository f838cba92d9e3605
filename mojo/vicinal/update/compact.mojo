"""A new index of the rows that are there: nothing of what was removed, rows in one piece, linked and encoded anew."""

from vicinal.graph.reachability import LOOK_EVERY
from vicinal.index.notes import TUNING_WORDS
from vicinal.index.vector_index import Index
from vicinal.kernels.stored_type import row_stride
from vicinal.quantization.code_products import CODE_LINE
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome, STOPPED
from vicinal.system.parallel import Watch
from vicinal.system.pointer import copy_items
from vicinal.update.add import do_change
from vicinal.update.transaction import Change


def compact[V: Watch](old: Index, mut new: Index, threads: Int, mut watch: V) -> Outcome:
    """Fills a new index with the rows of an old one, in their order and with their ids.

    Args:
        old: The index; no writer may be at work, searches may.
        new: An empty index of the same kind, which nobody else knows of.
        threads: Workers.
        watch: May end the call early.

    Returns:
        DONE, or STOPPED or NO_MEMORY: then the new index is of no use. The old one is not changed in any case.
    """
    var live = old.live()
    new.notes.ef_search = old.notes.ef_search
    new.walk_dim = old.walk_dim
    new.ids.largest = old.ids.largest
    if not _copy_texts(old, new):
        return NO_MEMORY
    if old.notes.tunings != 0:
        if not new.notes.tuning.grow(old.notes.tunings * TUNING_WORDS * 8):
            return NO_MEMORY
        if old.notes.stop_rules.address != 0:
            if not new.notes.stop_rules.grow(old.notes.tunings * 8):
                return NO_MEMORY
            copy_items(
                dest=new.notes.stop_rules.ptr[UInt8](),
                src=old.notes.stop_rules.ptr[UInt8](),
                count=old.notes.tunings * 8,
            )
        new.notes.tunings = old.notes.tunings
        copy_items(
            dest=new.notes.tuning.ptr[UInt8](),
            src=old.notes.tuning.ptr[UInt8](),
            count=old.notes.tunings * TUNING_WORDS * 8,
        )
    if live == 0:
        return DONE if watch.conclude(0) else STOPPED
    var stride = row_stride(old.dim, old.dtype)
    if (
        not new.vectors.column.grow(live * stride + CODE_LINE)
        or not new.ids.column.grow(live * 8)
        or (old.has_norms() and not new.vectors.norms.grow(live * 4))
    ):
        return NO_MEMORY
    var visible = old.states.present()
    var to = 0
    for row in range(old.count):
        if row % LOOK_EVERY == 0 and not watch.proceed(0):
            return STOPPED
        if not visible.is_visible(row) or to == live:
            continue
        copy_items(
            dest=new.vectors.column.ptr[UInt8]().unsafe_offset(to * stride),
            src=old.vectors.column.ptr[UInt8]().unsafe_offset(row * stride),
            count=stride,
        )
        new.ids.column.ptr[Int64]()[unsafe_offset=to] = old.ids.column.ptr[Int64]()[
            unsafe_offset=row
        ]
        if old.has_norms():
            new.vectors.norms.ptr[Float32]()[unsafe_offset=to] = old.vectors.norms.ptr[Float32]()[
                unsafe_offset=row
            ]
        to += 1
    var change = Change()
    change.added = to
    var status = do_change(new, change, 0, threads, watch)
    if status == DONE:
        change.commit(new)
        change.finish(new)
        new.ids.known = False
    return status


def _copy_texts(old: Index, mut new: Index) -> Bool:
    """Gives the new index all strings of the old one, with their numbers: results of searches in either may be named by both.

    Returns False when memory is out.
    """
    ref strings = old.ids.strings
    new.ids.strings.used = strings.used
    if strings.count == 0:
        return True
    var bytes = strings.begin(strings.count)
    if not new.ids.strings.offsets.grow((strings.count + 1) * 8) or not new.ids.strings.text.grow(
        max(bytes, 1)
    ):
        return False
    copy_items(
        dest=new.ids.strings.offsets.ptr[Int64](),
        src=strings.offsets.ptr[Int64](),
        count=strings.count + 1,
    )
    if bytes != 0:
        copy_items(
            dest=new.ids.strings.text.ptr[UInt8](), src=strings.text.ptr[UInt8](), count=bytes
        )
    new.ids.strings.count = strings.count
    new.ids.strings.bytes = bytes
    return True
