"""What assertions know of the memory that a pointer leads into."""
from std.testing import TestSuite, assert_equal, assert_false, assert_true

from vicinal.system.memory import LINE, Column, allocate, at, no_block, release
from vicinal.system.pointer import CHECKED, Ptr, copy_items, zero_items


def holds[T: AnyType](p: Ptr[T], first: Int, bytes: Int) -> Bool:
    """Tells whether some bytes from an offset on may be touched."""
    return p.around.holds(Int(p) + first, bytes)


def test_an_allocation_ends_with_its_cache_line() raises:
    assert_true(CHECKED)
    for count in [1, 8, 9, 100]:
        var p = allocate[Int64](count)
        var bytes = (8 * count + LINE - 1) // LINE * LINE
        assert_true(holds(p, 0, bytes))
        assert_false(holds(p, 0, bytes + 1))
        assert_false(holds(p, -1, 1))
        # offsets and casts lead into the same memory
        assert_true(holds(p.unsafe_offset(1), -8, bytes))
        assert_false(holds(p.unsafe_offset(1), 0, bytes))
        assert_false(holds(p.unsafe_bitcast[UInt8](), bytes, 1))
        release(p)


def test_a_part_is_narrower() raises:
    var p = allocate[UInt32](64)
    var block = p.unsafe_offset(16).of(16)
    assert_true(holds(block, 0, 64))
    assert_false(holds(block, 0, 65))
    assert_false(holds(block, -4, 4))
    release(p)


def test_no_memory_holds_nothing() raises:
    assert_false(holds(no_block[UInt8](), 0, 1))


def test_addresses_from_elsewhere_are_believed() raises:
    var column = Column()
    assert_true(column.grow(100))
    assert_true(holds(at[UInt8](column.address), 0, 1 << 20))


def test_subscripts_copies_and_zeros() raises:
    var p = allocate[Int32](20)
    var q = allocate[Int32](20)
    for i in range(20):
        p[i] = Int32(i)
    copy_items(dest=q, src=p, count=20)
    zero_items(q, 3)
    for i in range(20):
        assert_equal(q[unsafe_offset=i], Int32(i if i >= 3 else 0))
    q.unsafe_store(4, SIMD[DType.int32, 4](7))
    assert_equal(q.unsafe_load[width=8](2).reduce_add(), 0 + 3 + 4 * 7 + 8 + 9)
    assert_true(p == p.unsafe_offset(1).unsafe_offset(-1) and p != q)
    release(p)
    release(q)


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
