"""Reads through a ring bring what the file holds, in any number; what cannot be read is told."""
from std.ffi import c_int, external_call
from std.testing import TestSuite, assert_equal, assert_false, assert_true

from vicinal.system.memory import allocate, allocate_zeroed, release
from vicinal.system.uring import ENTRIES, Asked, Ring, rings_work

comptime BYTES = 1 << 20


def _file_of_numbers() raises -> c_int:
    """Returns a file without a name that holds the numbers from 0 on, four bytes each."""
    var name: List[UInt8] = [0x72, 0x69, 0x6E, 0x67, 0]
    var file = external_call["memfd_create", c_int](name.unsafe_ptr(), c_int(0))
    assert_true(file >= 0)
    var numbers = allocate[UInt32](BYTES // 4)
    for i in range(BYTES // 4):
        numbers[unsafe_offset=i] = UInt32(i)
    assert_equal(external_call["pwrite", Int](file, Int(numbers), BYTES, 0), BYTES)
    release(numbers)
    return file


def test_reads() raises:
    if not rings_work():
        print("skipped: the system lets this process have no io_uring")
        return
    var file = _file_of_numbers()
    var ring = Ring()
    assert_true(ring.open())
    assert_true(ring.is_own())
    comptime COUNT = 3 * ENTRIES + 5
    comptime EACH = 512
    var room = allocate[UInt32](COUNT * EACH // 4)
    var asked = allocate[Asked](COUNT)
    var waiting = allocate_zeroed[Int](1)
    for turn in range(3):
        for i in range(COUNT):
            asked[unsafe_offset=i] = Asked(waiting, EACH, False)
            var offset = (i * 7919 + turn) * EACH % BYTES
            var place = Int(room) + i * EACH
            if not ring.read(file, offset, EACH, place, asked.unsafe_offset(i)):
                ring.hand_over()
                assert_true(ring.read(file, offset, EACH, place, asked.unsafe_offset(i)))
        ring.hand_over()
        ring.wait(waiting)
        assert_equal(waiting[], 0)
        for i in range(COUNT):
            assert_true(asked[unsafe_offset=i].whole)
            var offset = (i * 7919 + turn) * EACH % BYTES
            for j in range(EACH // 4):
                assert_equal(Int(room[unsafe_offset=i * EACH // 4 + j]), offset // 4 + j)
    # behind the end of the file, and from no file
    asked[] = Asked(waiting, 4, True)
    assert_true(ring.read(file, BYTES, 4, Int(room), asked))
    asked[unsafe_offset=1] = Asked(waiting, 8, True)
    assert_true(ring.read(file, BYTES - 4, 8, Int(room), asked.unsafe_offset(1)))
    asked[unsafe_offset=2] = Asked(waiting, 4, True)
    assert_true(ring.read(-1, 0, 4, Int(room), asked.unsafe_offset(2)))
    asked[unsafe_offset=3] = Asked(waiting, 4, False)
    assert_true(ring.read(file, BYTES - 4, 8, Int(room), asked.unsafe_offset(3)))
    ring.hand_over()
    ring.wait(waiting)
    assert_equal(waiting[], 0)
    assert_false(asked[].whole)
    assert_false(asked[unsafe_offset=1].whole)
    assert_false(asked[unsafe_offset=2].whole)
    assert_true(asked[unsafe_offset=3].whole)
    release(room)
    release(asked)
    release(waiting)
    _ = external_call["close", c_int](file)


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
