"""The file format: what goes in comes out, and every kind of damage has its status."""
from std.ffi import c_int, external_call
from std.memory import unsafe_memcmp
from std.os import mkdir, stat, symlink, unlink
from std.os.path import exists, islink
from std.random import random_ui64, seed
from std.tempfile import TemporaryDirectory
from std.testing import TestSuite, assert_equal, assert_false, assert_true

from vicinal.file.format import (
    AT_BYTES,
    AT_CHECKSUMS_SUM,
    AT_COUNT,
    AT_FIELDS,
    AT_SUM,
    AT_TABLE,
    BAD_BLOCK,
    BAD_CHECKSUMS,
    BAD_FIELD,
    BAD_HEADER,
    BAD_PADDING,
    BAD_SECTION,
    BAD_TABLE,
    BLOCK,
    EMPTY_FILE,
    ENTRY,
    INT64_SECTION,
    MAX_SECTIONS,
    NOT_OURS,
    OTHER_ENDIAN,
    OTHER_VERSION,
    PAGE,
    RULE_CHECKSUMS,
    RULE_COUNT,
    RULE_NAME,
    RULE_PLACE,
    RULE_SHAPE,
    TOO_LONG,
    TRUNCATED,
    UINT32_SECTION,
    Section,
    name_of,
)
from vicinal.file.mapped import verify
from vicinal.file.posix import DONE, INTERRUPTED, SPECIAL, SYSTEM, Status
from vicinal.file.writer import save
from vicinal.index.header import Header, IndexFile
from vicinal.system.crc import crc32c, crc32c_by_table
from vicinal.system.memory import Ptr, allocate, at, release
from vicinal.system.parallel import Unwatched, Watch

comptime ROWS = 1000
comptime DIM = 37


struct Stopped(Watch):
    """Ends the work after so many looks."""

    var left: Int

    def __init__(out self, left: Int):
        self.left = left

    def proceed(mut self, done: Int) -> Bool:
        self.left -= 1
        return self.left >= 0

    def advance(mut self, base: Int):
        pass

    def conclude(mut self, done: Int) -> Bool:
        return True


struct Sample(Movable):
    """Three sections of random bytes, one of them empty, in memory."""

    var vectors: Ptr[Float32]
    var ids: Ptr[Int64]
    var sections: Ptr[Section]

    def __init__(out self):
        self.vectors = allocate[Float32](ROWS * DIM)
        self.ids = allocate[Int64](ROWS)
        self.sections = allocate[Section](3)
        for i in range(ROWS * DIM):
            self.vectors[unsafe_offset=i] = Float32(random_ui64(0, 1 << 20))
        for i in range(ROWS):
            self.ids[unsafe_offset=i] = Int64(i * 3 - 7)
        self.sections[] = Section(name_of("vectors"), Int(self.vectors), 0, ROWS, DIM)
        self.sections[unsafe_offset=1] = Section(name_of("links0"), 0, UINT32_SECTION, 0, 32)
        self.sections[unsafe_offset=2] = Section(
            name_of("ids"), Int(self.ids), INT64_SECTION, ROWS, 1
        )

    def __deinit__(deinit self):
        release(self.vectors)
        release(self.ids)
        release(self.sections)

    def header(self) -> Header:
        return Header(0, 0, DIM, ROWS, 0, 16, 200, 64, -5, -1, 0, 2000, 0, 1, 0, 0, 0, 0, 0)


def save_sample(sample: Sample, path: String) -> Status:
    var watch = Unwatched()
    return save(address_of(path), sample.header(), sample.sections, 3, watch)


def address_of(path: String) -> Int:
    # a copy with a NUL behind it that lives as long as the process: tests may leak
    var text = allocate[UInt8](path.byte_length() + 1)
    for i in range(path.byte_length()):
        text[unsafe_offset=i] = path.unsafe_ptr()[unsafe_offset=i]
    text[unsafe_offset=path.byte_length()] = 0
    return Int(text)


def open_code(path: String) -> Int:
    var mapped = IndexFile(address_of(path))
    return mapped.status.code


def verify_code(path: String) -> Int:
    """Opens and verifies; any damage that `open` notices counts."""
    var mapped = IndexFile(address_of(path))
    if not mapped.status.ok():
        return mapped.status.code
    var watch = Unwatched()
    return verify(mapped, 2, watch).code


def peek(path: String, offset: Int, bytes: Int) raises -> List[UInt8]:
    with open(path, "r") as f:
        _ = f.seek(offset)
        return f.read_bytes(bytes)


def poke(path: String, offset: Int, data: List[UInt8]) raises:
    var fd = external_call["openat", c_int, num_fixed_args=3](
        c_int(-100), address_of(path), c_int(1), c_int(0)
    )
    var moved = external_call["pwrite", Int](fd, Int(data.unsafe_ptr()), len(data), offset)
    assert_equal(moved, len(data))
    _ = external_call["close", c_int](fd)
    _ = data


def flip(path: String, offset: Int, bit: Int) raises:
    var byte = peek(path, offset, 1)
    byte[0] ^= UInt8(1 << bit)
    poke(path, offset, byte)


def word_bytes(value: Int, bytes: Int = 8) -> List[UInt8]:
    var result = List[UInt8]()
    for i in range(bytes):
        result.append(UInt8((value >> (8 * i)) & 255))
    return result^


def sum_of(data: List[UInt8], bytes: Int) -> Int:
    return Int(crc32c(Int(data.unsafe_ptr()), bytes))


def forge(path: String, offset: Int, data: List[UInt8]) raises:
    """Changes the header and makes its checksum right, as damage never does but malice can."""
    poke(path, offset, data)
    var page = peek(path, 0, PAGE)
    poke(path, AT_SUM, word_bytes(sum_of(page, AT_SUM), 4))


def set_size(path: String, bytes: Int) raises:
    assert_equal(external_call["truncate", c_int](address_of(path), bytes), 0)


def entry_word(path: String, i: Int, word: Int) raises -> Int:
    var data = peek(path, AT_TABLE + i * ENTRY + 16 + 8 * word, 8)
    var value = 0
    for j in range(8):
        value |= Int(data[j]) << (8 * j)
    return value


# ---- checksum


def test_crc_known_values() raises:
    var text = String("123456789")
    assert_equal(crc32c(Int(text.unsafe_ptr()), 9), 0xE3069283)
    var zeros = List[UInt8](length=32, fill=0)
    assert_equal(crc32c(Int(zeros.unsafe_ptr()), 32), 0x8A9136AA)
    var ones = List[UInt8](length=32, fill=255)
    assert_equal(crc32c(Int(ones.unsafe_ptr()), 32), 0x62A8AB43)
    assert_equal(crc32c(Int(ones.unsafe_ptr()), 0, 77), 77)
    _ = text
    _ = zeros
    _ = ones


def test_crc_equals_table_and_pieces() raises:
    var data = List[UInt8](length=200_000, fill=0)
    for i in range(len(data)):
        data[i] = UInt8(random_ui64(0, 255))
    var lengths: List[Int] = [1, 2, 7, 8, 9, 15, 16, 17, 1007, 1008, 1009, 1016, 65519, 65520]
    lengths += [65521, 65535, 65536, 65537, 131040, 150_001]
    var start = Int(data.unsafe_ptr())
    for length in lengths:
        for offset in range(0, 9, 3):
            var whole = crc32c(start + offset, length)
            assert_equal(whole, crc32c_by_table(start + offset, length))
            var cut = length // 3
            var first = crc32c(start + offset, cut)
            assert_equal(whole, crc32c(start + offset + cut, length - cut, first))
    _ = data


# ---- writing and reading back


def test_round_trip() raises:
    with TemporaryDirectory() as folder:
        var path = folder + "/sample"
        var sample = Sample()
        assert_equal(save_sample(sample, path).code, DONE)
        var mapped = IndexFile(address_of(path))
        assert_equal(mapped.status.code, DONE)
        assert_equal(mapped.count, 4)
        assert_equal(mapped.header.dim, DIM)
        assert_equal(mapped.header.seed, -5)
        assert_equal(mapped.header.entry, -1)
        assert_equal(mapped.header.exact_below, 2000)
        var status = Status.done()
        var vectors = mapped.require(name_of("vectors"), 0, ROWS, DIM, status)
        var links = mapped.require(name_of("links0"), UINT32_SECTION, 0, 32, status)
        var ids = mapped.require(name_of("ids"), INT64_SECTION, ROWS, 1, status)
        assert_true(status.ok())
        assert_equal(vectors, mapped.address + PAGE)
        assert_equal(ids % PAGE, 0)
        assert_equal(links, ids)
        assert_equal(unsafe_memcmp(at[Float32](vectors).start, sample.vectors.start, ROWS * DIM), 0)
        assert_equal(unsafe_memcmp(at[Int64](ids).start, sample.ids.start, ROWS), 0)
        assert_equal(mapped.find(name_of("codes")), -1)
        assert_equal(verify_code(path), DONE)
        _ = mapped.require(name_of("ids"), INT64_SECTION, ROWS + 1, 1, status)
        assert_equal(status.code, BAD_SECTION)
        assert_true(status.name == name_of("ids"))
        _ = mapped.require(name_of("vectors"), 0, ROWS, DIM, status)
        assert_true(status.name == name_of("ids"))
        _ = mapped^
        _ = sample^


def test_same_input_same_bytes() raises:
    with TemporaryDirectory() as folder:
        var sample = Sample()
        assert_true(save_sample(sample, folder + "/a").ok())
        assert_true(save_sample(sample, folder + "/b").ok())
        with open(folder + "/a", "r") as a:
            with open(folder + "/b", "r") as b:
                assert_true(a.read_bytes() == b.read_bytes())
        _ = sample^


def test_no_sections_and_too_many() raises:
    with TemporaryDirectory() as folder:
        var path = folder + "/sample"
        var sample = Sample()
        var watch = Unwatched()
        assert_true(save(address_of(path), sample.header(), sample.sections, 0, watch).ok())
        assert_equal(verify_code(path), DONE)
        assert_equal(len(peek(path, 0, 1 << 20)), PAGE)
        var status = save(address_of(path), sample.header(), sample.sections, MAX_SECTIONS, watch)
        assert_equal(status.code, BAD_TABLE)
        assert_equal(status.b, RULE_COUNT)
        assert_equal(verify_code(path), DONE)
        var many = allocate[Section](MAX_SECTIONS)
        for i in range(MAX_SECTIONS - 1):
            var name = name_of("many")
            name[4] = UInt8(33 + i)
            many[unsafe_offset=i] = Section(name, Int(sample.ids), INT64_SECTION, i % 3, 1)
        assert_true(save(address_of(path), sample.header(), many, MAX_SECTIONS - 1, watch).ok())
        assert_equal(verify_code(path), DONE)
        release(many)
        _ = sample^


def test_replaces_only_when_whole() raises:
    with TemporaryDirectory() as folder:
        var path = folder + "/sample"
        var sample = Sample()
        assert_true(save_sample(sample, path).ok())
        var before = peek(path, 0, 1 << 20)
        for looks in range(3):
            var watch = Stopped(looks)
            var status = save(address_of(path), sample.header(), sample.sections, 3, watch)
            assert_equal(status.code, INTERRUPTED)
            assert_true(peek(path, 0, 1 << 20) == before)
        # the system's own refusals: a folder that is not there, a folder in the way
        var missing = save_sample(sample, folder + "/none/sample")
        assert_equal(missing.code, SYSTEM)
        assert_equal(missing.a, 2)
        mkdir(folder + "/folder")
        assert_equal(save_sample(sample, folder + "/folder").a, 21)
        assert_equal(save_sample(sample, folder + "/new/").a, 21)
        assert_equal(save_sample(sample, "").a, 2)
        var fifo = folder + "/fifo"
        assert_equal(external_call["mkfifo", c_int](address_of(fifo), c_int(0o600)), 0)
        assert_equal(save_sample(sample, fifo).code, SPECIAL)
        unlink(fifo)  # TemporaryDirectory removes files and folders only
        assert_false(exists(folder + "/.vicinal-" + String(pid()) + "-0.tmp"))
        _ = sample^


def pid() -> Int:
    return Int(external_call["getpid", c_int]())


def test_a_taken_temporary_name_is_left_alone() raises:
    with TemporaryDirectory() as folder:
        var taken = folder + "/.vicinal-" + String(pid()) + "-0.tmp"
        with open(taken, "w") as f:
            f.write("of somebody else")
        var sample = Sample()
        assert_true(save_sample(sample, folder + "/sample").ok())
        assert_equal(verify_code(folder + "/sample"), DONE)
        with open(taken, "r") as f:
            assert_equal(f.read(), "of somebody else")
        assert_false(exists(folder + "/.vicinal-" + String(pid()) + "-1.tmp"))
        _ = sample^


def test_links_and_permissions() raises:
    with TemporaryDirectory() as folder:
        var sample = Sample()
        mkdir(folder + "/real")
        var real = folder + "/real/sample"
        var link = folder + "/link"
        assert_true(save_sample(sample, real).ok())
        assert_equal(external_call["chmod", c_int](address_of(real), c_int(0o604)), 0)
        symlink("real/sample", link)
        assert_true(save_sample(sample, link).ok())
        assert_true(islink(link))
        assert_equal(verify_code(link), DONE)
        assert_equal(Int(stat(real).st_mode) & 0o777, 0o604)
        symlink("real/none", folder + "/dangling")
        assert_equal(save_sample(sample, folder + "/dangling").a, 2)
        unlink(folder + "/dangling")
        unlink(link)
        _ = sample^


def test_saves_over_its_own_map() raises:
    with TemporaryDirectory() as folder:
        var path = folder + "/sample"
        var sample = Sample()
        assert_true(save_sample(sample, path).ok())
        var mapped = IndexFile(address_of(path))
        var watch = Unwatched()
        # the mapped sections are saved over the file that they lie in
        var status = save(address_of(path), mapped.header, mapped.sections, 3, watch)
        assert_equal(status.code, DONE)
        assert_equal(verify(mapped, 1, watch).code, DONE)
        assert_equal(verify_code(path), DONE)
        _ = mapped^
        _ = sample^


# ---- what is refused


def test_paths_that_are_no_files() raises:
    with TemporaryDirectory() as folder:
        var mapped = IndexFile(address_of(folder + "/none"))
        assert_equal(mapped.status.code, SYSTEM)
        assert_equal(mapped.status.a, 2)
        var of_folder = IndexFile(address_of(folder))
        assert_equal(of_folder.status.code, SYSTEM)
        assert_equal(of_folder.status.a, 21)
        var fifo = folder + "/fifo"
        assert_equal(external_call["mkfifo", c_int](address_of(fifo), c_int(0o600)), 0)
        assert_equal(open_code(fifo), SPECIAL)
        unlink(fifo)
        assert_equal(open_code("/dev/zero"), SPECIAL)
        var path = folder + "/file"
        with open(path, "w") as f:
            f.write("")
        assert_equal(open_code(path), EMPTY_FILE)
        with open(path, "w") as f:
            f.write("VICINAL, said the file, and nothing else")
        assert_equal(open_code(path), NOT_OURS)
        with open(path, "w") as f:
            f.write("x" * 100_000)
        assert_equal(open_code(path), NOT_OURS)


def test_other_versions_and_byte_orders() raises:
    with TemporaryDirectory() as folder:
        var path = folder + "/sample"
        var sample = Sample()
        assert_true(save_sample(sample, path).ok())
        poke(path, 8, word_bytes(2, 4))
        var mapped = IndexFile(address_of(path))
        assert_equal(mapped.status.code, OTHER_VERSION)
        assert_equal(mapped.status.a, 2)
        assert_equal(mapped.status.b, 1)
        forge(path, 8, word_bytes(3, 4))
        var honest = IndexFile(address_of(path))
        assert_equal(honest.status.a, 3)
        assert_equal(honest.status.b, 0)
        forge(path, 8, word_bytes(1, 4))
        assert_equal(open_code(path), DONE)
        poke(path, 12, [1, 2, 3, 4])
        assert_equal(open_code(path), OTHER_ENDIAN)
        _ = sample^


def test_every_header_byte_counts() raises:
    with TemporaryDirectory() as folder:
        var path = folder + "/sample"
        var sample = Sample()
        assert_true(save_sample(sample, path).ok())
        for offset in range(PAGE):
            flip(path, offset, offset % 8)
            assert_true(open_code(path) != DONE, String(offset))
            flip(path, offset, offset % 8)
        assert_equal(verify_code(path), DONE)
        _ = sample^


def test_cut_or_grown() raises:
    with TemporaryDirectory() as folder:
        var path = folder + "/sample"
        var sample = Sample()
        assert_true(save_sample(sample, path).ok())
        var size = len(peek(path, 0, 1 << 20))
        var sizes: List[Int] = [1, 7, 8, 100, PAGE - 1, PAGE, PAGE + 1, size - 1]
        for i in range(4):
            var start = entry_word(path, i, 0)
            var end = start + entry_word(path, i, 1)
            sizes += [start - 1, start, start + 1, end - 1, end]
        for bytes in sizes:
            if bytes < size:
                assert_true(save_sample(sample, path).ok())
                set_size(path, bytes)
                var mapped = IndexFile(address_of(path))
                assert_equal(mapped.status.code, TRUNCATED, String(bytes))
                assert_equal(mapped.status.a, bytes)
                assert_equal(mapped.status.b, PAGE if bytes < PAGE else size)
        assert_true(save_sample(sample, path).ok())
        set_size(path, size + 1)
        assert_equal(open_code(path), TOO_LONG)
        _ = sample^


def test_verify_notices_every_flip() raises:
    with TemporaryDirectory() as folder:
        var path = folder + "/sample"
        var sample = Sample()
        assert_true(save_sample(sample, path).ok())
        var size = len(peek(path, 0, 1 << 20))
        var places = List[Int]()
        for i in range(4):
            var start = entry_word(path, i, 0)
            var end = start + entry_word(path, i, 1)
            for place in [start - 1, start, start + 1, end - 1, end, end + 1]:
                if place < size:
                    places.append(place)
        for _ in range(300):
            places.append(Int(random_ui64(0, UInt64(size - 1))))
        for place in places:
            var bit = Int(random_ui64(0, 7))
            flip(path, place, bit)
            assert_true(verify_code(path) != DONE, String(place))
            flip(path, place, bit)
        assert_equal(verify_code(path), DONE)
        _ = sample^


def test_verify_tells_where() raises:
    with TemporaryDirectory() as folder:
        var path = folder + "/sample"
        var sample = Sample()
        var watch = Unwatched()
        assert_true(save_sample(sample, path).ok())
        flip(path, PAGE + BLOCK + 5, 3)
        var mapped = IndexFile(address_of(path))
        var status = verify(mapped, 2, watch)
        assert_equal(status.code, BAD_BLOCK)
        assert_equal(status.a, PAGE + BLOCK)
        assert_equal(status.b, BLOCK)
        assert_true(status.name == name_of("vectors"))
        # damage while the file is open is noticed through the map
        flip(path, PAGE + BLOCK + 5, 3)
        assert_true(verify(mapped, 2, watch).ok())
        flip(path, AT_FIELDS, 0)
        assert_equal(verify(mapped, 2, watch).code, BAD_HEADER)
        flip(path, AT_FIELDS, 0)
        var list = entry_word(path, 3, 0)
        flip(path, list, 0)
        status = verify(mapped, 2, watch)
        assert_equal(status.code, BAD_CHECKSUMS)
        assert_equal(status.a, list)
        flip(path, list, 0)
        var stop = Stopped(0)
        assert_equal(verify(mapped, 1, stop).code, INTERRUPTED)
        _ = mapped^
        _ = sample^


def test_padding_must_be_zero_even_if_summed() raises:
    with TemporaryDirectory() as folder:
        var path = folder + "/sample"
        var sample = Sample()
        assert_true(save_sample(sample, path).ok())
        var stray = entry_word(path, 0, 0) + entry_word(path, 0, 1)
        poke(path, stray, [1])
        # all three levels of checksums made right again
        var block = (stray - PAGE) // BLOCK
        var list = entry_word(path, 3, 0)
        var end = min(PAGE + (block + 1) * BLOCK, list)
        var data = peek(path, PAGE + block * BLOCK, end - PAGE - block * BLOCK)
        poke(path, list + 4 * block, word_bytes(sum_of(data, len(data)), 4))
        var sums = peek(path, list, entry_word(path, 3, 1))
        forge(path, AT_CHECKSUMS_SUM, word_bytes(sum_of(sums, len(sums)), 4))
        var mapped = IndexFile(address_of(path))
        var watch = Unwatched()
        var status = verify(mapped, 1, watch)
        assert_equal(status.code, BAD_PADDING)
        assert_equal(status.a, stray)
        _ = mapped^
        forge(path, AT_FIELDS + 150, [1])
        assert_equal(open_code(path), BAD_PADDING)
        _ = sample^


# ---- headers whose checksum is right and whose content is not


def forged(sample: Sample, path: String, offset: Int, value: Int) raises -> Status:
    """Opens the sample with one 64-bit word of its header replaced."""
    assert_true(save_sample(sample, path).ok())
    forge(path, offset, word_bytes(value))
    return IndexFile(address_of(path)).status


def test_impossible_fields() raises:
    with TemporaryDirectory() as folder:
        var path = folder + "/sample"
        var sample = Sample()
        # field number, value
        var wrong: List[Tuple[Int, Int]] = [(0, 3), (0, -1), (1, 5), (2, 0), (2, 65537)]
        wrong += [(3, -1), (3, 1 << 32), (4, ROWS + 1), (5, -1), (6, 1 << 40), (7, -9)]
        wrong += [(9, -2), (9, ROWS), (10, 256), (11, -1), (12, 1), (13, 5), (14, 4)]
        for pair in wrong:
            var status = forged(sample, path, AT_FIELDS + 8 * pair[0], pair[1])
            assert_equal(status.code, BAD_FIELD, String(pair[0]))
            assert_equal(status.a, pair[1])
        _ = sample^


def test_impossible_tables() raises:
    with TemporaryDirectory() as folder:
        var path = folder + "/sample"
        var sample = Sample()
        # word of the header, value, rule that it breaks
        var first = AT_TABLE + 16
        var wrong: List[Tuple[Int, Int, Int]] = [
            (AT_COUNT, 0, RULE_COUNT),
            (AT_COUNT, -1, RULE_COUNT),
            (AT_COUNT, MAX_SECTIONS + 1, RULE_COUNT),
            (AT_COUNT, Int.MAX, RULE_COUNT),
            (AT_TABLE, 0, RULE_NAME),
            (first, 0, RULE_PLACE),
            (first, PAGE + 64, RULE_PLACE),
            (first, 2 * PAGE, RULE_PLACE),
            (first, -PAGE, RULE_PLACE),
            (first + 8, -1, RULE_PLACE),
            (first + 8, 1 << 50, RULE_PLACE),
            (first + 8, Int.MAX, RULE_PLACE),
            (first + 8, ROWS * DIM * 4 - 4, RULE_SHAPE),
            (first + 16, ROWS + 1, RULE_SHAPE),
            (first + 16, -ROWS, RULE_SHAPE),
            (first + 16, 1 << 62, RULE_SHAPE),
            (first + 24, 0, RULE_SHAPE),
            (first + 24, DIM + (1 << 61), RULE_SHAPE),
            (first + 32, 1, RULE_SHAPE),
            (first + 32, 7, RULE_SHAPE),
            (first + 32, -1, RULE_SHAPE),
            (first + 40, 1, RULE_SHAPE),
            (first + ENTRY, PAGE, RULE_PLACE),
            (first + ENTRY + 24, -1, RULE_SHAPE),
            (AT_TABLE + 3 * ENTRY, 0x6B63656863, RULE_CHECKSUMS),
            (first + 3 * ENTRY + 32, 0, RULE_CHECKSUMS),
        ]
        for item in wrong:
            var status = forged(sample, path, item[0], item[1])
            assert_equal(status.code, BAD_TABLE, String(item[0]) + " " + String(item[1]))
            assert_equal(status.b, item[2], String(item[0]) + " " + String(item[1]))
        var twice = forged(sample, path, AT_TABLE + ENTRY, 0x73726F74636576)
        assert_equal(twice.code, BAD_TABLE)
        assert_equal(twice.a, 1)
        assert_equal(twice.b, RULE_NAME)
        assert_equal(forged(sample, path, AT_BYTES, 1 << 40).code, TRUNCATED)
        assert_equal(forged(sample, path, AT_BYTES, PAGE).code, TOO_LONG)
        assert_equal(forged(sample, path, AT_TABLE + 4 * ENTRY, 1).code, BAD_PADDING)
        # three entries: the fourth is then what must not be there
        assert_equal(forged(sample, path, AT_COUNT, 3).code, BAD_PADDING)
        _ = sample^


def test_random_tables_stay_inside() raises:
    """Whatever passes the checks describes arrays inside the map."""
    with TemporaryDirectory() as folder:
        var path = folder + "/sample"
        var sample = Sample()
        assert_true(save_sample(sample, path).ok())
        var page = peek(path, 0, PAGE)
        for _ in range(3000):
            var words = 1 + Int(random_ui64(0, 2))
            for _ in range(words):
                var offset = AT_BYTES + 8 * Int(random_ui64(0, (AT_TABLE + 5 * ENTRY) // 8 - 3))
                var value = Int(random_ui64(0, 1 << 63)) >> Int(random_ui64(0, 62))
                poke(path, offset, word_bytes(value))
            forge(path, AT_BYTES, word_bytes(len(peek(path, 0, 1 << 20))))
            var mapped = IndexFile(address_of(path))
            if mapped.status.ok():
                for i in range(mapped.count):
                    var section = mapped.sections[unsafe_offset=i]
                    assert_true(section.address >= mapped.address + PAGE)
                    assert_true(section.address + section.bytes() <= mapped.address + mapped.bytes)
            _ = mapped^
            poke(path, 0, page)
        assert_equal(verify_code(path), DONE)
        _ = sample^


def main() raises:
    seed(20)
    TestSuite.discover_tests[__functions_in_module()]().run()
