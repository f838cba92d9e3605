"""Numbers that a writer changes while searches read them: counts and addresses, published after what they tell of.

On x86-64 these are plain loads and stores; another processor might show a new count before the rows.
"""
from std.atomic import Atomic, Ordering

from vicinal.system.memory import Ptr, at
from vicinal.system.point import point


@always_inline
def publish(slot: Ptr[UInt32], node: Int):
    """Writes one slot so that a reader that sees it also sees what was written before: the row and its links.
    """
    point["write a link"]()
    Atomic[UInt32].store[ordering=Ordering.RELEASE](slot.start, UInt32(node))


@always_inline
def load_acquire(ref place: Int) -> Int:
    """Reads a number; whatever was written before it was announced can be read as well."""
    point["see a number"]()
    return Int(
        Atomic[Int64].load[ordering=Ordering.ACQUIRE](
            Pointer(to=place)
            .unsafe_mut_cast[True]()
            .unsafe_bitcast[Int64]()
            .unsafe_origin_cast[MutUntrackedOrigin]()
        )
    )


@always_inline
def load_acquire_at[T: AnyType](ref place: Ptr[T]) -> Ptr[T]:
    """Reads a pointer; what it leads to can be read as it was when the pointer was written."""
    point["see a pointer"]()
    return at[T](
        Int(
            Atomic[Int64].load[ordering=Ordering.ACQUIRE](
                Pointer(to=place)
                .unsafe_mut_cast[True]()
                .unsafe_bitcast[Int64]()
                .unsafe_origin_cast[MutUntrackedOrigin]()
            )
        )
    )


@always_inline
def store_release(mut place: Int, value: Int):
    """Writes a number that others may be reading, after everything that it tells of."""
    point["announce a number"]()
    Atomic[Int64].store[ordering=Ordering.RELEASE](
        Pointer(to=place).unsafe_bitcast[Int64](), Int64(value)
    )


@always_inline
def store_release_at[T: AnyType](mut place: Ptr[T], value: Ptr[T]):
    """Writes a pointer that others may be reading, after everything that it leads to."""
    point["announce a pointer"]()
    place.around = value.around  # where assertions keep it; readers take the address alone
    Atomic[Int64].store[ordering=Ordering.RELEASE](
        Pointer(to=place).unsafe_bitcast[Int64](), Int64(Int(value))
    )


@always_inline
def slot(block: Ptr[UInt32], i: Int) -> Int:
    """Reads a slot that another thread may be writing, the old value or the new one and what it leads to.
    """
    return Int(Atomic[UInt32].load[ordering=Ordering.ACQUIRE](block.unsafe_offset(i).start))
