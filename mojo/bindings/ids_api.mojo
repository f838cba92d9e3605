"""Ids of rows, and the strings that numbers stand for."""
from std.ffi import c_int, external_call

from bindings.handles import TAG, handle_of
from bindings.python_api import (
    Args,
    Fail,
    Obj,
    as_int,
    capsule_get,
    fail,
    from_int,
    need,
    no_memory,
    none,
)
from bindings.arrays import INT64, View
from bindings.gil import PythonWatch
from vicinal.index.first_use import KnownStrings
from vicinal.index.vector_index import Index
from vicinal.rows.string_ids import DAMAGED, NO_NUMBER, NO_ROOM
from vicinal.system.memory import Ptr, at, missing
from vicinal.system.outcome import NO_MEMORY, STOPPED
from vicinal.system.pointer import copy_items

comptime BAD_OFFSETS = NO_ROOM - 1
comptime BYTE = 4
"""Array type code of unsigned bytes."""


def index_ids(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_ids(handle) -> bytearray of the int64 ids of the rows that are there, in row order.

    One call, so that nothing takes effect in between: the GIL is held. A damaged file may have fewer rows than it says.
    """
    need(count, 1)
    ref index = handle_of(args[unsafe_offset=0])[]
    var visible = index.states.present()
    var live = index.live()
    var result = external_call["PyByteArray_FromStringAndSize", Obj](0, live * 8)
    if result == 0:
        raise Fail()
    var out = at[Int64](external_call["PyByteArray_AsString", Int](result))
    var to = 0
    for row in range(visible.bound):
        if to == live:
            break
        if visible.is_visible(row):
            out[unsafe_offset=to] = index.ids.column.ptr[Int64]()[unsafe_offset=row]
            to += 1
    if to < live and external_call["PyByteArray_Resize", c_int](result, to * 8) != 0:
        external_call["Py_DecRef", NoneType](result)
        raise Fail()
    return result


def strings_info(args: Args, count: Int) raises Fail -> Obj:
    """Implements strings_info(handle, which) -> int: 0 strings or -1 if ids are integers, 1 bytes of memory.
    """
    need(count, 2)
    ref strings = capsule_get[Index, TAG](args[unsafe_offset=0])[].ids.strings
    if as_int(args[unsafe_offset=1]) == 0:
        return from_int(strings.count if strings.used else -1)
    return from_int(strings.memory())


def strings_use(args: Args, count: Int) raises Fail -> Obj:
    """Implements strings_use(handle) -> None: names the rows of an index that has none yet by strings.
    """
    need(count, 1)
    var index = capsule_get[Index, TAG](args[unsafe_offset=0])
    if index[].count != 0 or index[].file != 0:
        raise fail("ValueError", "the index has %zd rows", index[].count)
    index[].ids.strings.used = True
    return none()


def _know_texts(mut index: Index) raises Fail:
    """Makes the table of strings if there is none yet, without the GIL."""
    if index.ids.strings.held >= index.ids.strings.count:
        return
    var known = KnownStrings()
    var pinned = index.readers.claim()  # nothing that is read is freed or moved meanwhile
    if missing(pinned):
        raise no_memory()
    var watch = PythonWatch(0, 0)
    var status = known.learn(index.ids.strings, watch)
    _ = watch^
    index.readers.release(pinned)
    if status == STOPPED:
        raise Fail()
    if status == NO_MEMORY:
        raise no_memory()
    known.give(index.ids.strings)


def strings_numbers(args: Args, count: Int) raises Fail -> Obj:
    """Implements strings_numbers(handle, text, offsets[n + 1], add, out[n]) -> 0, or 1 if the file's table is damaged.

    String i is text[offsets[i]:offsets[i + 1]]. With `add` unknown ones get the next numbers, otherwise -1.
    """
    need(count, 5)
    var index = capsule_get[Index, TAG](args[unsafe_offset=0])
    var add = as_int(args[unsafe_offset=3]) != 0
    _know_texts(index[])
    var text = View(args[unsafe_offset=1], BYTE, 1)
    var offsets = View(args[unsafe_offset=2], INT64, 1)
    var out = View(args[unsafe_offset=4], INT64, 1, writable=True)
    var n = out.dim(0)
    if offsets.dim(0) != n + 1:
        raise fail("ValueError", "%zd offsets for %zd strings", offsets.dim(0), n)
    if add and index[].file != 0:
        raise fail("ValueError", "the index is read-only")
    var before = index[].ids.strings.count
    var status = _numbers(
        index, text.address(), text.dim(0), at[Int64](offsets.address()), n, add, out
    )
    _ = text^
    _ = offsets^
    _ = out^
    if status < DAMAGED:
        index[].ids.strings.shrink(before)
        if status == BAD_OFFSETS:
            raise fail("ValueError", "offsets do not ascend inside the text")
        raise fail("MemoryError", "no memory for the ids of this call; the index is as it was")
    return from_int(Int(status == DAMAGED))


def _numbers(
    index: Ptr[Index],
    text: Int,
    bytes: Int,
    offsets: Ptr[Int64],
    n: Int,
    add: Bool,
    out_: View,
) -> Int:
    """Fills in numbers; returns 0 or the first failure."""
    ref strings = index[].ids.strings
    var numbers = at[Int64](out_.address())
    for i in range(n):
        var begin = Int(offsets[unsafe_offset=i])
        var end = Int(offsets[unsafe_offset=i + 1])
        if begin < 0 or end < begin or end > bytes:
            return BAD_OFFSETS
        var number = strings.add(text + begin, end - begin) if add else strings.find(
            text + begin, end - begin
        )
        if number <= DAMAGED:
            return number
        numbers[unsafe_offset=i] = Int64(number)
    return 0


def strings_shrink(args: Args, count: Int) raises Fail -> Obj:
    """Implements strings_shrink(handle, count) -> None: forgets the strings from a number on."""
    need(count, 2)
    var until = as_int(args[unsafe_offset=1])
    capsule_get[Index, TAG](args[unsafe_offset=0])[].ids.strings.shrink(max(until, 0))
    return none()


def strings_read(args: Args, count: Int) raises Fail -> Obj:
    """Implements strings_read(handle, numbers[n], out_offsets[n + 1]) -> bytes, or the position of a number without a string.

    Number -1 has the empty string.
    """
    need(count, 3)
    var index = capsule_get[Index, TAG](args[unsafe_offset=0])
    var numbers = View(args[unsafe_offset=1], INT64, 1)
    var offsets = View(args[unsafe_offset=2], INT64, 1, writable=True)
    var n = numbers.dim(0)
    if offsets.dim(0) != n + 1:
        raise fail("ValueError", "room for %zd offsets, %zd strings", offsets.dim(0), n)
    ref strings = index[].ids.strings
    var wanted = at[Int64](numbers.address())
    var ends = at[Int64](offsets.address())
    var total = 0
    ends[] = 0
    for i in range(n):
        var number = Int(wanted[unsafe_offset=i])
        if number != NO_NUMBER:
            if not strings.valid(number):
                return from_int(i)
            total += strings.begin(number + 1) - strings.begin(number)
        ends[unsafe_offset=i + 1] = Int64(total)
    var result = external_call["PyBytes_FromStringAndSize", Obj](Int(0), total)
    if result == 0:
        raise Fail()
    var target = external_call["PyBytes_AsString", Int](result)
    for i in range(n):
        var begin = Int(ends[unsafe_offset=i])
        var length = Int(ends[unsafe_offset=i + 1]) - begin
        if length != 0:
            copy_items(
                dest=at[UInt8](target + begin),
                src=at[UInt8](strings.text.address + strings.begin(Int(wanted[unsafe_offset=i]))),
                count=length,
            )
    _ = numbers^
    _ = offsets^
    return result
